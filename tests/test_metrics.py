import math
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
import skimage.metrics
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pix2pix import metrics

ROOT = Path(__file__).resolve().parents[1]
Photograph = NDArray[np.uint8]

images = numpy_strategies.arrays(np.uint8, st.tuples(*[st.integers(1, 24)] * 2, st.just(3)))
two_images = st.tuples(st.integers(1, 24), st.integers(1, 24)).flatmap(
    lambda size: st.tuples(*[numpy_strategies.arrays(np.uint8, (*size, 3))] * 2)
)


@pytest.fixture(scope="module")
def clean_photographs() -> list[Photograph]:
    paths = sorted((ROOT / "samples").glob("**/GT_SRGB_010.PNG"))
    assert paths, "samples/**/GT_SRGB_010.PNG: nothing there; these tests need the sample pairs"
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


def flat(value: int, height: int = 64, width: int = 64) -> Photograph:
    return np.full((height, width, 3), value, np.uint8)


def with_noise(clean: Photograph, sigma: float, seed: int = 0) -> Photograph:
    noise = np.random.default_rng(seed).normal(0, sigma, clean.shape)
    return np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)


def random_two(height: int, width: int) -> tuple[Photograph, Photograph]:
    smooth = ndimage.gaussian_filter(
        np.random.default_rng(1).uniform(0, 255, (height, width, 3)), (3, 3, 0)
    )
    clean = np.clip((smooth - 128) * 8 + 128, 0, 255).astype(np.uint8)
    return clean, with_noise(clean, 20)


# psnr_db, mean_psnr_db


def test_images_that_differ_by_one_everywhere_score_48_13_db() -> None:
    assert metrics.psnr_db(flat(7), flat(8)) == pytest.approx(48.1308, abs=1e-4)


def test_black_against_white_scores_0_db() -> None:
    assert metrics.psnr_db(flat(0), flat(255)) == 0


def test_identical_images_score_infinite_db() -> None:
    assert metrics.psnr_db(flat(7), flat(7)) == math.inf


def test_one_wrong_value_of_300_000_is_counted() -> None:
    image = flat(7, 1000, 100)
    image[999, 99, 2] = 8
    assert metrics.psnr_db(flat(7, 1000, 100), image) == pytest.approx(
        48.1308 + 10 * math.log10(300_000), abs=1e-4
    )


def test_identical_images_count_100_db_in_a_mean() -> None:
    assert metrics.mean_psnr_db([math.inf, 30]) == 65


def test_a_finite_psnr_over_the_cap_counts_as_the_cap() -> None:
    assert metrics.mean_psnr_db([120, 30]) == 65


def test_mean_of_no_psnr_is_refused() -> None:
    with pytest.raises(ValueError, match="values is empty"):
        metrics.mean_psnr_db([])


def test_mean_with_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="values holds NaN"):
        metrics.mean_psnr_db([30, math.nan])


def test_psnr_equals_scikit_image() -> None:
    clean, noisy = random_two(300, 90)
    expected = skimage.metrics.peak_signal_noise_ratio(clean, noisy, data_range=255)
    assert metrics.psnr_db(clean, noisy) == pytest.approx(expected, abs=1e-9)


def test_psnr_equals_tensorflow() -> None:
    clean, noisy = random_two(300, 90)
    assert metrics.psnr_db(clean, noisy) == pytest.approx(
        float(tf.image.psnr(clean, noisy, 255)), abs=1e-4
    )


# ssim


def test_ssim_of_two_constant_images_is_their_luminance_term() -> None:
    expected = (2 * 100 * 150 + 6.5025) / (100**2 + 150**2 + 6.5025)
    assert metrics.ssim(flat(100), flat(150)) == pytest.approx(expected, abs=1e-9)


def test_ssim_of_single_pixels_is_their_luminance_term() -> None:
    expected = (2 * 100 * 150 + 6.5025) / (100**2 + 150**2 + 6.5025)
    assert metrics.ssim(flat(100, 1, 1), flat(150, 1, 1)) == pytest.approx(expected, abs=1e-9)


def test_ssim_window_is_as_high_as_an_image_of_4_rows() -> None:
    clean, noisy = random_two(4, 1)
    weights = np.exp(-(np.array([-1.5, -0.5, 0.5, 1.5]) ** 2) / 4.5)
    weights /= weights.sum()
    scores = []
    for x, y in zip(clean[:, 0].T.astype(float), noisy[:, 0].T.astype(float), strict=True):
        mean_x, mean_y = weights @ x, weights @ y
        covariance = weights @ (x * y) - mean_x * mean_y
        variances = weights @ (x * x + y * y) - mean_x**2 - mean_y**2
        luminance = (2 * mean_x * mean_y + 6.5025) / (mean_x**2 + mean_y**2 + 6.5025)
        scores.append(luminance * (2 * covariance + 58.5225) / (variances + 58.5225))
    assert metrics.ssim(clean, noisy) == pytest.approx(np.mean(scores), abs=1e-9)


@pytest.mark.parametrize("size", [(11, 11), (12, 40), (300, 90)])  # one window, one strip, three
def test_ssim_equals_scikit_image(size: tuple[int, int]) -> None:
    clean, noisy = random_two(*size)
    expected = skimage.metrics.structural_similarity(
        clean,
        noisy,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        channel_axis=2,
    )
    assert metrics.ssim(clean, noisy) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("size", [(11, 11), (12, 40), (300, 90)])
def test_ssim_equals_tensorflow(size: tuple[int, int]) -> None:
    clean, noisy = random_two(*size)
    assert metrics.ssim(clean, noisy) == pytest.approx(
        float(tf.image.ssim(clean, noisy, 255)), abs=1e-5
    )


@settings(max_examples=60, deadline=None)
@given(images)
def test_identical_images_have_ssim_1(image: Photograph) -> None:
    assert metrics.ssim(image, image) == pytest.approx(1, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(two_images)
def test_ssim_is_symmetric_and_at_most_1(two: tuple[Photograph, Photograph]) -> None:
    score = metrics.ssim(*two)
    assert -1 - 1e-9 <= score <= 1 + 1e-9
    assert score == pytest.approx(metrics.ssim(*reversed(two)), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(two_images)
def test_psnr_and_mean_shift_are_symmetric(two: tuple[Photograph, Photograph]) -> None:
    assert metrics.psnr_db(*two) == metrics.psnr_db(*reversed(two))
    assert metrics.mean_shift(*two) == metrics.mean_shift(*reversed(two))


def test_scores_fall_as_noise_grows(clean_photographs: list[Photograph]) -> None:
    clean = clean_photographs[0]
    for score in (metrics.psnr_db, metrics.ssim):
        scores = [score(clean, with_noise(clean, sigma)) for sigma in (0, 5, 10, 15, 25, 35, 50)]
        assert scores == sorted(scores, reverse=True)
        assert len(set(scores)) == len(scores)


# sharpness, clipped_fraction, mean_shift


def test_sharpness_of_a_checkerboard_of_0_and_10_is_1600() -> None:
    board = (np.indices((300, 10)).sum(axis=0) % 2 * 10).astype(np.uint8)
    board = np.repeat(board[..., None], 3, axis=2)
    assert metrics.sharpness(board) == pytest.approx(1600, rel=1e-5)


def test_sharpness_equals_the_laplacian_of_scipy() -> None:
    image, _ = random_two(300, 90)
    luma = image.astype(float) @ [0.299, 0.587, 0.114]
    expected = ndimage.laplace(luma)[1:-1, 1:-1].var()
    assert metrics.sharpness(image) == pytest.approx(expected, rel=1e-5)


def test_blur_lowers_sharpness(clean_photographs: list[Photograph]) -> None:
    clean = clean_photographs[0]
    blurred = ndimage.gaussian_filter(clean, (1, 1, 0))
    assert metrics.sharpness(blurred) < metrics.sharpness(clean) / 2


@pytest.mark.parametrize("size", [(1, 1), (2, 50), (50, 2)])
def test_image_without_inner_pixels_has_sharpness_0(size: tuple[int, int]) -> None:
    assert metrics.sharpness(with_noise(flat(128, *size), 25)) == 0


def test_clipped_fraction_counts_0_and_255() -> None:
    image = np.array([[[0, 1, 2], [254, 255, 255]]], np.uint8)
    assert metrics.clipped_fraction(image) == 0.5


def test_mean_shift_is_that_of_the_channel_that_moved_most() -> None:
    candidate = flat(100) + np.array([1, 0, 0], np.uint8)
    candidate[:32, :, 1] -= 6
    assert metrics.mean_shift(flat(100), candidate) == 3


# refusals


@pytest.mark.parametrize("score", [metrics.psnr_db, metrics.ssim, metrics.mean_shift])
def test_images_of_different_shape_are_refused(score: object) -> None:
    words = r"candidate\.shape=\(5, 4, 3\) must equal reference\.shape=\(4, 4, 3\); pair each"
    with pytest.raises(ValueError, match=words):
        score(flat(1, 4, 4), flat(1, 5, 4))  # type: ignore[operator]


@pytest.mark.parametrize(
    "score", [metrics.noise_sigma, metrics.sharpness, metrics.clipped_fraction]
)
def test_floats_are_refused(score: object) -> None:
    with pytest.raises(TypeError, match=r"image is float32, must be .* uint8 .*; round and"):
        score(np.zeros((4, 4, 3), np.float32))  # type: ignore[operator]


def test_a_list_is_refused() -> None:
    with pytest.raises(TypeError, match="reference is list, must be a numpy array"):
        metrics.psnr_db([[[0, 0, 0]]], flat(0, 1, 1))  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (4, 4, 1), (1, 4, 4, 3), (0, 4, 3)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"image\.shape=.* must be \(height, width, 3\)"):
        metrics.clipped_fraction(np.zeros(shape, np.uint8))
