import io
import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pix2pix import metrics, noise_level

ROOT = Path(__file__).resolve().parents[1]
Photograph = NDArray[np.uint8]


@pytest.fixture(scope="module")
def clean_photographs() -> list[Photograph]:
    paths = sorted((ROOT / "samples").glob("**/GT_SRGB_010.PNG"))
    assert paths, "samples/**/GT_SRGB_010.PNG: nothing there; these tests need the sample pairs"
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


def flat(value: int, height: int = 64, width: int = 64) -> Photograph:
    return np.full((height, width, 3), value, np.uint8)


def gradient(side: int = 256) -> Photograph:
    ramp = np.rint(np.linspace(0, 255, side)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(ramp[None, :, None], (side, side, 3)))


def with_noise(clean: Photograph, sigma: float, seed: int = 0) -> Photograph:
    noise = np.random.default_rng(seed).normal(0, sigma, clean.shape)
    return np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)


def test_metrics_calls_it_its_own() -> None:
    assert metrics.noise_sigma is noise_level.noise_sigma


# at 5 the most textured of the 137 clean photographs of SIDD-Small reads 13% too high
@pytest.mark.parametrize(
    ("sigma", "share"), [(5, 0.15), (10, 0.1), (15, 0.1), (25, 0.1), (35, 0.1), (50, 0.1)]
)
def test_noise_on_photographs_reads_within_10_percent(
    clean_photographs: list[Photograph], sigma: float, share: float
) -> None:
    for index, clean in enumerate(clean_photographs[::5]):
        # the clean photographs of SIDD keep some noise of their own, which adds to ours
        expected = math.hypot(sigma, noise_level.noise_sigma(clean))
        measured = noise_level.noise_sigma(with_noise(clean, sigma, seed=index))
        assert measured == pytest.approx(expected, rel=share), f"photograph {index}"


@pytest.mark.parametrize("sigma", [5, 10, 15, 25, 35, 50])
@pytest.mark.parametrize("clean", [gradient(), flat(0, 256, 256), flat(128, 256, 256)])
def test_noise_on_smooth_images_reads_within_5_percent(clean: Photograph, sigma: float) -> None:
    assert noise_level.noise_sigma(with_noise(clean, sigma)) == pytest.approx(sigma, rel=0.05)


def test_clean_photographs_read_under_5_levels(clean_photographs: list[Photograph]) -> None:
    readings = [noise_level.noise_sigma(clean) for clean in clean_photographs]
    assert max(readings) < 5
    assert np.median(readings) < 1.5


@pytest.mark.parametrize("value", [0, 128, 255])
def test_constant_image_has_no_noise(value: int) -> None:
    assert noise_level.noise_sigma(flat(value)) == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (6, 6), (28, 28)])
def test_image_too_small_to_judge_reads_0(size: tuple[int, int]) -> None:
    assert noise_level.noise_sigma(with_noise(flat(128, *size), 25)) == 0


def test_smallest_image_that_is_judged_reads_within_20_percent() -> None:
    assert noise_level.noise_sigma(with_noise(flat(128, 29, 29), 25)) == pytest.approx(25, rel=0.2)


def test_bars_and_saturation_do_not_lower_the_noise() -> None:
    noisy = with_noise(gradient(), 15)
    noisy[:64], noisy[64:128], noisy[128:160] = 0, 128, 255
    assert noise_level.noise_sigma(noisy) == pytest.approx(15, rel=0.05)


def test_grey_photograph_reads_as_its_one_channel() -> None:
    noisy = np.repeat(with_noise(gradient(), 15)[..., :1], 3, axis=2)
    assert noise_level.noise_sigma(noisy) == pytest.approx(15, rel=0.05)


def test_channels_of_different_noise_read_as_the_root_mean_square() -> None:
    noisy = np.stack(
        [with_noise(gradient(), sigma)[..., 0] for sigma in (3, 10, 20)], axis=2
    )  # sqrt((9 + 100 + 400) / 3)
    assert noise_level.noise_sigma(noisy) == pytest.approx(13.03, rel=0.05)


def test_noise_is_still_seen_after_a_jpeg_with_subsampled_chroma() -> None:
    noisy = with_noise(gradient(), 25)
    file = io.BytesIO()
    Image.fromarray(noisy).save(file, "JPEG", quality=95, subsampling="4:2:0")
    # the luma keeps sqrt(.299^2 + .587^2 + .114^2) of it, the chroma about half of the rest
    assert 0.65 * 25 < noise_level.noise_sigma(np.asarray(Image.open(file))) < 0.85 * 25


def test_noise_reads_the_same_twice(clean_photographs: list[Photograph]) -> None:
    noisy = with_noise(clean_photographs[0], 15)
    assert noise_level.noise_sigma(noisy) == noise_level.noise_sigma(noisy.copy())
