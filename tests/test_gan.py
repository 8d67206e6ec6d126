import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from pix2pix.denoiser import dtype_policy
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


@pytest.mark.skipif(dtype_policy("auto") == "float32", reason="oneDNN has no bfloat16 here")
@pytest.mark.parametrize("onednn", ["0", "1"])
def test_bfloat16_is_refused_where_sums_would_end_at_256(onednn: str) -> None:
    code = "from tests.test_gan import _gan; _gan(precision='bfloat16')"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env=os.environ | {"TF_ENABLE_ONEDNN_OPTS": onednn, "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    if onednn == "0":
        assert "(4096 ones add up to 256)" in done.stderr
        assert "don't set TF_ENABLE_ONEDNN_OPTS=0" in done.stderr
    else:
        assert done.returncode == 0, done.stderr


def test_a_process_that_is_killed_leaves_no_files(tmp_path: Path) -> None:
    code = """
import os, numpy, signal
from pix2pix.denoiser import Denoiser
from tests.test_gan import SMALL, _gan, _patches
gan = _gan(precision="auto")
gan.step(*_patches())
Denoiser(gan.averaged, SMALL).denoised(numpy.zeros((64, 64, 3), numpy.uint8))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_step_trains_both_networks() -> None:
    gan = _gan()
    before = [_weights(network) for network in (gan.generator, gan.discriminator)]
    for _ in range(2):  # the first step can move the generator's zero end alone
        gan.step(*_patches())
    for network, weights in zip((gan.generator, gan.discriminator), before, strict=True):
        assert np.abs(_weights(network) - weights).max() > 1e-5


def test_without_adversarial_weight_there_is_no_discriminator(tmp_path: Path) -> None:
    gan = _gan(adversarial_weight=0.0)
    assert gan.discriminator is None
    assert gan.step(*_patches()).numpy()[2:].tolist() == [0, 0]
    gan.save(tmp_path)
    assert not (tmp_path / "state/discriminator.weights.h5").exists()


def test_before_it_joins_the_discriminator_rests() -> None:
    gan, alone = _gan(), _gan(adversarial_weight=0.0)
    before = _weights(gan.discriminator)
    losses = gan.step(*_patches(), judged=False).numpy()
    np.testing.assert_array_equal(_weights(gan.discriminator), before)
    np.testing.assert_allclose(losses, alone.step(*_patches()).numpy(), rtol=1e-6)
    assert gan.step(*_patches()).numpy()[3] == pytest.approx(np.log(2), abs=0.1)


@pytest.mark.parametrize("objective", ["lsgan", "wgan-gp"])
def test_every_objective_trains_both_networks_and_stays_finite(objective: str) -> None:
    gan = _gan(adversarial=objective, critic_steps=2)
    before = [_weights(network) for network in (gan.generator, gan.discriminator)]
    for step in range(3):
        losses = gan.step(*_patches(step)).numpy()
    assert np.isfinite(losses).all()
    for network, weights in zip((gan.generator, gan.discriminator), before, strict=True):
        assert np.abs(_weights(network) - weights).max() > 1e-5
    updates = [int(np.asarray(optimizer.iterations)) for optimizer in gan.optimizers]
    assert updates == [3, 6]


def test_a_critic_learns_to_tell_clean_from_noisy_with_a_slope_of_one() -> None:
    gan = _gan(adversarial="wgan-gp", l1_weight=0.0, learning_rate=1e-9,
               discriminator_learning_rate=2e-3, discriminator_width=8)  # fmt: skip
    noisy, clean = _patches()
    found = [gan.step(noisy, clean).numpy()[3] for _ in range(100)]
    loss = np.mean(found[-20:])  # single steps overshoot
    distance = np.sqrt(np.square((noisy.astype(float) - clean) / 127.5).sum((1, 2, 3))).mean()
    assert -distance < loss < -1  # 3 at first; no critic of slope 1 gets below the distance


@pytest.mark.parametrize(  # objectives without statistics of a batch
    ("objective", "content", "optimizer"),
    [("wgan-gp", "l1", "adam"), ("none", "psnr", "adam"), ("none", "psnr", "muon")],
)
def test_parts_that_take_turns_learn_what_the_whole_batch_would(
    objective: str, content: str, optimizer: str
) -> None:
    ends = []
    for accumulation in (1, 2):
        gan = _gan(adversarial=objective, content_loss=content, optimizer=optimizer,
                   accumulation=accumulation, clip_norm=1e-3)  # fmt: skip
        losses = [gan.step(*_patches(step)).numpy() for step in range(3)]
        ends.append([*losses, *gan.generator.get_weights(), *gan.averaged.get_weights()])
        ends[-1] += gan.discriminator.get_weights() if gan.discriminator else []
    for whole, parts in zip(*ends, strict=True):
        np.testing.assert_allclose(parts, whole, rtol=1e-3, atol=1e-6)


def test_an_objective_of_none_is_no_adversary() -> None:
    gan, alone = _gan(adversarial="none"), _gan(adversarial_weight=0.0)
    assert gan.discriminator is None
    np.testing.assert_array_equal(gan.step(*_patches()), alone.step(*_patches()))


@pytest.mark.parametrize(("clip_norm", "judged"), [(1e-3, False), (1e-3, True)])
def test_the_whole_gradient_is_clipped_to_the_sum_of_the_weights(
    clip_norm: float, judged: bool
) -> None:
    gan = _gan(clip_norm=clip_norm, l1_weight=3.0, adversarial_weight=0.5)
    gan.step(*_patches(), judged=judged)
    momenta = [v for v in gan.optimizers[0].variables if "momentum" in v.path]
    norm = np.sqrt(sum(np.square(v).sum() for v in momenta))
    weights = 3.5 if judged else 3
    assert norm == pytest.approx(0.5 * clip_norm * weights, rel=1e-4)  # beta_1 is 0.5


def test_a_gradient_below_the_limit_stays() -> None:
    ends = []
    for clip_norm in (0.0, 1e4):
        gan = _gan(clip_norm=clip_norm)
        gan.step(*_patches())
        ends.append(_weights(gan.generator))
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-6)


def test_averages_follow_the_weights_as_computed_by_hand() -> None:
    gan = _gan(averaging=0.2)
    average = _weights(gan.averaged)
    for step in (1, 2, 3):
        gan.step(*_patches(step))
        kept = min(0.2, (1 + step) / (10 + step))  # 2/11, then 0.2
        average = kept * average + (1 - kept) * _weights(gan.generator)
    np.testing.assert_allclose(_weights(gan.averaged), average, rtol=1e-5, atol=1e-8)


def test_without_averaging_the_generator_itself_denoises(tmp_path: Path) -> None:
    gan = _gan(averaging=0.0)
    gan.step(*_patches())
    assert gan.averaged is gan.generator
    gan.save(tmp_path)
    assert not (tmp_path / "state/generator.weights.h5").exists()


def test_charbonnier_is_learned_and_l1_reported() -> None:
    noisy, clean = _patches()
    gan = _gan(content_loss="charbonnier", adversarial_weight=0.0, l1_weight=1.0)
    losses = gan.step(noisy, clean).numpy()
    error = (noisy.astype(float) - clean) / 127.5
    assert losses[0] == pytest.approx(np.sqrt(error**2 + 2e-3**2).mean(), rel=1e-5)
    assert losses[1] == pytest.approx(np.abs(error).mean(), rel=1e-5)


def test_the_rate_share_scales_what_a_step_moves() -> None:
    moved = []
    for share in (1.0, 0.25):
        gan = _gan()
        before = _weights(gan.generator)
        gan.learn_at(share)
        gan.step(*_patches())
        moved.append(np.abs(_weights(gan.generator) - before).max())
    assert moved[1] == pytest.approx(moved[0] / 4, rel=1e-3)


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_eight_pairs_can_be_learned(optimizer: str) -> None:
    gan = _gan(optimizer=optimizer, learning_rate=5e-3, width=8)
    first = gan.step(*_patches(3)).numpy()[1]
    for step in range(120):
        last = gan.step(*_patches(step % 2 + 3)).numpy()[1]
    assert last < first / 2


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_a_restored_pair_of_networks_goes_on_as_if_nothing_had_been(
    optimizer: str, tmp_path: Path
) -> None:
    gan = _gan(optimizer=optimizer)
    for step in range(3):
        gan.step(*_patches(step))
    gan.learn_at(0.5)
    gan.save(tmp_path)
    expected = [gan.step(*_patches(step)).numpy() for step in (7, 8, 9)]
    other = _gan(seed=99, optimizer=optimizer)
    other.restore(tmp_path)
    other.learn_at(0.5)
    restored = [other.step(*_patches(step)).numpy() for step in (7, 8, 9)]
    np.testing.assert_allclose(restored, expected, rtol=1e-5)
    np.testing.assert_allclose(_weights(other.averaged), _weights(gan.averaged), rtol=1e-5)


def test_a_state_from_before_there_were_averages_is_taken_over(tmp_path: Path) -> None:
    old, new = _gan(averaging=0.0), _gan(seed=99)
    old.step(*_patches())
    old.save(tmp_path)
    new.restore(tmp_path)
    np.testing.assert_array_equal(_weights(new.generator), _weights(old.generator))
    np.testing.assert_array_equal(_weights(new.averaged), _weights(old.generator))


def test_the_seed_decides_the_first_weights() -> None:
    np.testing.assert_array_equal(_weights(_gan().discriminator), _weights(_gan().discriminator))
    assert not np.array_equal(_weights(_gan().generator), _weights(_gan(seed=1).generator))
