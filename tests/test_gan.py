from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pix2pix.gan import LOSSES, Gan
from pix2pix.settings import Settings

SMALL = Settings(width=4, levels=2, discriminator_width=4, crop_pixels=32, precision="float32")


def _patches(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(seed)
    clean = chance.integers(60, 200, (4, 1, 1, 3)) + np.zeros((4, 32, 32, 3))
    noisy = clean + chance.normal(0, 20, clean.shape)
    return tuple(np.clip(part, 0, 255).astype(np.uint8) for part in (noisy, clean))


def _gan(**changes: object) -> Gan:
    return Gan(Settings(**{**vars(SMALL), **changes}), tf.distribute.get_strategy())


def _weights(network: object) -> np.ndarray:
    return np.concatenate([np.ravel(variable) for variable in network.trainable_variables])


def test_the_first_losses_are_known_by_hand() -> None:
    noisy, clean = _patches()
    losses = dict(zip(LOSSES, _gan().step(noisy, clean).numpy(), strict=True))
    l1 = np.abs(noisy.astype(float) - clean).mean() / 127.5  # the generator begins as identity
    assert losses["l1_loss"] == pytest.approx(l1, rel=1e-4)
    assert losses["adversarial_loss"] == pytest.approx(np.log(2), abs=0.1)
    total = losses["adversarial_loss"] + 100 * losses["l1_loss"]
    assert losses["generator_loss"] == pytest.approx(total, rel=1e-5)


def test_a_step_trains_both_networks() -> None:
    gan = _gan()
    before = [_weights(network) for network in (gan.generator, gan.discriminator)]
    for _ in range(2):  # the first step can move the generator's zero end alone
        gan.step(*_patches())
    for network, weights in zip((gan.generator, gan.discriminator), before, strict=True):
        assert np.abs(_weights(network) - weights).max() > 1e-5


def test_without_adversarial_weight_the_discriminator_rests() -> None:
    gan = _gan(adversarial_weight=0.0)
    before = _weights(gan.discriminator)
    losses = gan.step(*_patches()).numpy()
    np.testing.assert_array_equal(_weights(gan.discriminator), before)
    assert losses[2:].tolist() == [0, 0]


def test_eight_pairs_can_be_learned() -> None:
    gan = _gan(learning_rate=5e-3, width=8)
    first = gan.step(*_patches(3)).numpy()[1]
    for step in range(120):
        last = gan.step(*_patches(step % 2 + 3)).numpy()[1]
    assert last < first / 2


def test_a_restored_pair_of_networks_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    gan = _gan()
    for step in range(3):
        gan.step(*_patches(step))
    gan.learn_at(0.5)
    gan.save(tmp_path)
    expected = [gan.step(*_patches(step)).numpy() for step in (7, 8, 9)]
    other = _gan(seed=99)
    other.restore(tmp_path)
    restored = [other.step(*_patches(step)).numpy() for step in (7, 8, 9)]
    np.testing.assert_allclose(restored, expected, rtol=1e-5)


def test_the_seed_decides_the_first_weights() -> None:
    np.testing.assert_array_equal(_weights(_gan().discriminator), _weights(_gan().discriminator))
    assert not np.array_equal(_weights(_gan().generator), _weights(_gan(seed=1).generator))
