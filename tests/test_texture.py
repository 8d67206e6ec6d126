"""What was taken beyond the noise is given back, and nothing else."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from pix2pix import texture

SIGMA = 5.0


def _taken(
    sides: tuple[int, int], by: float = SIGMA, brightness: float = 128.0
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A photograph of one brightness with noise, and the same without."""
    chance = np.random.default_rng(0)
    noisy = np.rint(chance.normal(brightness, by, (*sides, 3)))
    after = np.full((*sides, 3), round(brightness), np.uint8)
    return np.clip(noisy, 0, 255).astype(np.uint8), after


@pytest.mark.parametrize("sides", [(512, 512), (200, 333), (9, 600), (600, 9)])
def test_noise_stays_taken(sides: tuple[int, int]) -> None:
    before, after = _taken(sides)
    texture.restrained(before, after)
    assert np.abs(after - 128.0).mean() < 0.1  # a block of noise has 1.5 times its energy by chance


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_taken_beyond_the_noise_is_given_back(dtype: type) -> None:
    before, after = _taken((256, 256))
    cloth = 20.0 * (np.indices((64, 64)).sum(axis=0) % 2)[..., None]  # 10 levels around its mean
    before[96:160, 96:160] = np.clip(before[96:160, 96:160] + cloth - 10, 0, 255)
    scale = np.iinfo(dtype).max // 255
    before, after = (image.astype(dtype) * dtype(scale) for image in (before, after))
    taken = before.astype(np.float64) - after
    texture.restrained(before, after)
    left = before.astype(np.float64) - after
    inside, outside = left[108:148, 108:148] / scale, left[:80] / scale
    assert np.sqrt(np.square(taken[108:148, 108:148] / scale).mean()) == pytest.approx(
        np.hypot(10, SIGMA), rel=0.03
    )
    # as much as noise has in the quieter blocks, and half of that again, stays taken
    assert np.sqrt(np.square(inside).mean()) == pytest.approx(SIGMA * np.sqrt(1.5), rel=0.06)
    assert np.sqrt(np.square(outside).mean()) == pytest.approx(SIGMA, rel=0.02)


def test_noise_that_grows_with_brightness_is_no_texture() -> None:
    dark, bright = _taken((256, 128), 2.0, 60.0), _taken((256, 128), 9.0, 190.0)
    before, after = (np.concatenate(both, axis=1) for both in zip(dark, bright, strict=True))
    clean = after.astype(np.float64)
    texture.restrained(before, after)
    assert np.abs(after - clean)[:, :120].mean() < 0.1
    assert np.abs(after - clean)[:, 136:].mean() < 0.2


def test_what_is_given_back_lies_between_both() -> None:
    chance = np.random.default_rng(1)
    before, after = chance.integers(0, 256, (2, 150, 170, 3), np.uint8)
    kept = after.copy()
    texture.restrained(before, after)
    assert (np.minimum(before, kept) <= after).all()
    assert (after <= np.maximum(before, kept)).all()


@pytest.mark.parametrize("sides", [(5, 5), (7, 900), (900, 7), (8, 1), (40, 40)])
def test_too_few_blocks_say_nothing(sides: tuple[int, int]) -> None:
    before, after = _taken(sides)
    after[0] = 0
    kept = after.copy()
    texture.restrained(before, after)
    np.testing.assert_array_equal(after, kept)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_the_grain_of_film_is_noise(width: int) -> None:
    grain = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(512, 512)), width)
    levels = np.rint(128 + 10 * grain / grain.std())[..., None].clip(0, 255)
    before = np.repeat(levels.astype(np.uint8), 3, axis=2)
    after = np.full_like(before, 128)
    texture.restrained(before, after)
    assert np.sqrt(np.square(after - 128.0).mean()) < 0.1  # of 10 levels


@pytest.mark.parametrize("row", [256, 257])
def test_hot_pixels_stay_away(row: int) -> None:
    before, after = _taken((512, 512), 3.0)
    before[row, 200] = 238
    texture.restrained(before, after)
    assert np.abs(after[row, 200] - 128.0).max() < 11  # a tenth of what it was


def test_the_energy_that_stays_taken_is_told() -> None:
    before, after = _taken((256, 320))
    energy = texture.restrained(before, after)
    left = np.square(before.astype(np.float64) - after)
    expected = left.reshape(32, 8, 40, 24).mean(axis=(1, 3))
    np.testing.assert_allclose(energy, expected, rtol=0.1)
    unchanged = before.copy()
    assert (texture.restrained(before, unchanged) == 0).all()


def test_nothing_changes_where_more_than_noise_may_be_taken() -> None:
    chance = np.random.default_rng(1)
    before, after = chance.integers(0, 256, (2, 64, 80, 3), np.uint8)
    kept = after.copy()
    energy = texture.restrained(before, after, only_noise=False)
    np.testing.assert_array_equal(after, kept)
    assert energy.mean() == pytest.approx(np.square(before - kept.astype(np.float64)).mean())


def _spared(
    before: texture.Pixels, after: texture.Pixels, only_noise: bool = False
) -> texture.Pixels:
    """What is left of a result."""
    left = after.copy()
    texture.restrained(before, left, only_noise, spares=True)
    return left


@pytest.mark.parametrize("levels", [3.0, 8.0])
def test_nothing_of_what_counts_is_spared(levels: float) -> None:
    before, after = _taken((300, 200), levels)
    assert np.array_equal(_spared(before, after), after)


def test_what_is_hardly_more_than_nothing_is_spared_and_the_rest_grows() -> None:
    taken = []
    for levels in (0.3, 0.4, 0.8, 1.1, 1.3, 1.5, 1.7, 1.9, 2.2):
        before, after = _taken((300, 200), levels)
        left = _spared(before, after)
        assert ((left >= np.minimum(before, after)) & (left <= np.maximum(before, after))).all()
        taken.append(float(np.sqrt(np.mean(np.square(before - left.astype(float))))))
    assert taken[:2] == [0, 0]
    assert taken == sorted(taken)
    assert taken[5] < 1.35  # of 1.5
    assert taken[-1] == pytest.approx(2.2, rel=0.1)


def test_a_place_with_noise_is_denoised_beside_one_without() -> None:
    quiet, loud = _taken((256, 256), 0.4), _taken((256, 256), 6.0)
    before, after = (np.concatenate(both, axis=1) for both in zip(quiet, loud, strict=True))
    left = _spared(before, after)
    assert np.array_equal(left[:, : 256 - 48], before[:, : 256 - 48])
    assert np.array_equal(left[:, 256 + 48 :], after[:, 256 + 48 :])


def test_deep_photographs_are_spared_as_others_are() -> None:
    before, after = _taken((300, 200), 1.3)
    deep = [image.astype(np.uint16) * np.uint16(257) for image in (before, after)]
    left, left_deep = _spared(before, after), _spared(deep[0], deep[1])
    np.testing.assert_allclose(left_deep / 257, left, atol=0.51)  # not rounded to whole levels
    assert len(np.unique(left_deep)) > 256


def test_what_is_too_small_for_blocks_is_not_spared() -> None:
    before, after = _taken((7, 300), 1.0)
    assert np.array_equal(_spared(before, after), after)


def test_a_place_gives_back_its_texture_and_what_was_hardly_worth_taking() -> None:
    quiet, loud = _taken((256, 256), 0.4, 60.0), _taken((256, 256), 6.0, 190.0)
    before, after = (np.concatenate(both, axis=1) for both in zip(quiet, loud, strict=True))
    cloth = 24.0 * (np.indices((64, 64)).sum(axis=0) % 2)[..., None] - 12
    before[96:160, 352:416] = np.clip(before[96:160, 352:416] + cloth, 0, 255)
    textured, both = after.copy(), _spared(before, after, only_noise=True)
    energy = texture.restrained(before, textured)
    cloth_moved = np.abs(textured.astype(int) - after)[104:152, 360:408].mean()
    assert cloth_moved > 3
    np.testing.assert_array_equal(both[:, 256 + 48 :], textured[:, 256 + 48 :])
    np.testing.assert_array_equal(both[:, : 256 - 48], before[:, : 256 - 48])
    told = texture.restrained(before, after, spares=True)  # of what is spared it says nothing
    np.testing.assert_array_equal(told, energy)
