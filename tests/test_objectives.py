"""The distance between what photographs look like, in `benchmarks/objectives.py`."""

import numpy as np
import pytest
from scipy import ndimage

from benchmarks import objectives

PHOTOGRAPH = ndimage.gaussian_filter(
    np.random.default_rng(0).normal(128, 400, (96, 128, 3)), (2, 2, 0)
)


def levels(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


CLEAN = levels(PHOTOGRAPH)


def noisy(sigma: float) -> np.ndarray:
    return levels(PHOTOGRAPH + np.random.default_rng(1).normal(0, sigma, PHOTOGRAPH.shape))


def test_what_is_the_same_is_not_apart() -> None:
    assert objectives.distances([CLEAN], [CLEAN]) == [0, 0, 0]


def test_noise_is_a_distance_that_is_largest_at_the_finest_scale() -> None:
    finest, half, quarter = objectives.distances([noisy(20)], [CLEAN])
    assert finest > 2 * half > 2 * quarter > 0
    assert finest > 2 * objectives.distances([noisy(5)], [CLEAN])[0]


def test_less_contrast_is_a_distance_too() -> None:
    """Half the contrast halves each sorted projection, whatever the photograph."""
    half = levels(128 + (CLEAN - 128.0) / 2)
    found = objectives.distances([half], [CLEAN])[0]
    width = np.sqrt(2 / np.pi) * 1000  # of a normal distribution: half of that is missing
    assert found == pytest.approx(width / 2, rel=0.25)


def test_noise_left_and_texture_taken_are_both_apart() -> None:
    smooth = levels(ndimage.gaussian_filter(CLEAN.astype(float), (3, 3, 0)))
    left, taken = (objectives.distances([made], [CLEAN])[0] for made in (noisy(20), smooth))
    assert min(left, taken) > 100
