"""The project's one definition of each score: PSNR, SSIM, noise, sharpness, clipping, mean shift.

Every photograph here is uint8 (height, width, 3) in 0..255, RGB. Two photographs are compared in
full: no border is cropped. Work goes in strips of rows, so that memory does not grow with height.
"""

import itertools
import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pix2pix import noise_level
from pix2pix.noise_level import noise_sigma as noise_sigma

PSNR_CAP_DB = 100.0  # what identical images count in a mean; camera noise gives 15 to 60

SSIM_WINDOW = 11  # Wang et al. 2004, section III: side, sigma and both constants
SSIM_SIGMA = 1.5
SSIM_C1 = (0.01 * 255) ** 2
SSIM_C2 = (0.03 * 255) ** 2

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in JPEG

SHARPNESS_PIXELS = 4_000_000  # more are read in part
STRIP_ROWS = 32  # strips that stay in the cache: ssim of 12 megapixels takes a third of the time


def psnr_db(reference: NDArray[np.uint8], candidate: NDArray[np.uint8]) -> float:
    """Peak signal-to-noise ratio in dB, with a peak of 255, over all pixels and channels.

    Args:
        reference: uint8 (height, width, 3) in 0..255, RGB.
        candidate: as reference, same shape.

    Returns:
        10 log10(255^2 / mean squared error); `math.inf` for identical images. Average such values
        with `mean_psnr_db`.

    Raises:
        TypeError: an image is not a uint8 array.
        ValueError: a shape is not (height, width, 3), or the two differ.
    """
    check_two(reference, candidate)
    squares = 0
    for rows in _strips(len(reference)):
        difference = np.subtract(reference[rows], candidate[rows], dtype=np.int32)
        squares += int(np.square(difference).sum(dtype=np.int64))
    if squares == 0:
        return math.inf
    return 10 * math.log10(255**2 * reference.size / squares)


def mean_psnr_db(values: Iterable[float]) -> float:
    """Mean of PSNR values in dB, each counted as `PSNR_CAP_DB` at most so that it stays finite.

    Args:
        values: results of `psnr_db`, in dB; `math.inf` is allowed.

    Returns:
        The mean in dB, `PSNR_CAP_DB` at most.

    Raises:
        ValueError: no values, or one is NaN.
    """
    capped = [min(value, PSNR_CAP_DB) for value in values]
    if not capped:
        raise ValueError("values is empty: a mean needs at least one PSNR; score a pair first")
    if any(math.isnan(value) for value in capped):
        raise ValueError("values holds NaN: a PSNR is a number or inf; drop pairs without a score")
    return math.fsum(capped) / len(capped)


def ssim(reference: NDArray[np.uint8], candidate: NDArray[np.uint8]) -> float:
    """Structural similarity: mean over the windows that fit inside and over the channels.

    Args:
        reference: uint8 (height, width, 3) in 0..255, RGB.
        candidate: as reference, same shape.

    Returns:
        A score in [-1, 1]; 1 for identical images.

    Raises:
        TypeError: an image is not a uint8 array.
        ValueError: a shape is not (height, width, 3), or the two differ.

    Source:
        Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to
        Structural Similarity", IEEE TIP 2004, section III, https://doi.org/10.1109/TIP.2003.819861
        11 x 11 Gaussian window of sigma 1.5, K1 = 0.01, K2 = 0.03, population covariance; not
        shrunk beforehand. Ours: each channel on its own, where the paper takes luma; and in an
        image under 11 pixels high or wide the window is as high or wide as the image (for 1 x 1
        the luminance term alone remains).
    """
    check_two(reference, candidate)
    height, width, channels = reference.shape
    down, across = _gaussian(min(SSIM_WINDOW, height)), _gaussian(min(SSIM_WINDOW, width))
    windows_down = height - len(down) + 1
    total = 0.0
    for rows in _strips(windows_down):
        taken = slice(rows.start, rows.stop + len(down) - 1)
        for channel in range(channels):
            x = reference[taken, :, channel].astype(np.float64)
            y = candidate[taken, :, channel].astype(np.float64)
            mean_x, mean_y = _windowed(x, down, across), _windowed(y, down, across)
            product, squares = mean_x * mean_y, mean_x**2 + mean_y**2
            covariance = _windowed(x * y, down, across) - product
            variances = _windowed(x * x + y * y, down, across) - squares
            luminance = (2 * product + SSIM_C1) / (squares + SSIM_C1)
            structure = (2 * covariance + SSIM_C2) / (variances + SSIM_C2)
            total += float((luminance * structure).sum())
    return total / (windows_down * (width - len(across) + 1) * channels)


def sharpness(image: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the luma, in squared uint8 levels; noise raises it too.

    Of photographs over 4 megapixels it reads every second strip of 8 rows, of larger ones every
    third, and so on: some 4 megapixels, evenly spread, the same ones in images of one size.

    Args:
        image: uint8 (height, width, 3) in 0..255, RGB.

    Returns:
        0 or more; 0.0 for an image under 3 pixels high or wide, which has no inner pixel.

    Raises:
        TypeError: the image is not a uint8 array.
        ValueError: its shape is not (height, width, 3).

    Source:
        Pech-Pacheco, Cristobal, Chamorro-Martinez, Fernandez-Valdivia, "Diatom autofocusing in
        brightfield microscopy: a comparative study", ICPR 2000,
        https://doi.org/10.1109/ICPR.2000.903548, with the kernel 0 1 0 / 1 -4 1 / 0 1 0 on inner
        pixels only.
    """
    noise_level.check(image, "image")
    inner_rows, inner_columns = image.shape[0] - 2, image.shape[1] - 2
    if min(inner_rows, inner_columns) < 1:
        return 0.0
    total, squares, count = 0.0, 0.0, 0
    every = -(-inner_rows * inner_columns // SHARPNESS_PIXELS)
    strips = _strips(inner_rows, STRIP_ROWS if every == 1 else STRIP_ROWS // 4)
    for rows in itertools.islice(strips, 0, None, every):
        luma = image[rows.start : rows.stop + 2] @ LUMA
        middle = luma[1:-1]
        laplacian = luma[:-2] + luma[2:]
        laplacian[:, 1:-1] += middle[:, :-2]
        laplacian[:, 1:-1] += middle[:, 2:]
        middle *= 4
        laplacian -= middle
        inner = np.ascontiguousarray(laplacian[:, 1:-1]).ravel()
        total += float(inner.sum())
        squares += float(inner @ inner)
        count += inner.size
    return max(squares / count - (total / count) ** 2, 0.0)


def clipped_fraction(image: NDArray[np.uint8]) -> float:
    """Share of the values, each channel counted on its own, that are 0 or 255.

    Args:
        image: uint8 (height, width, 3) in 0..255, RGB.

    Returns:
        A share in [0, 1].

    Raises:
        TypeError: the image is not a uint8 array.
        ValueError: its shape is not (height, width, 3).
    """
    noise_level.check(image, "image")
    inside = sum(  # 255 + 1 is 0: one comparison for both ends
        int(np.count_nonzero(image[rows] + np.uint8(1) > 1)) for rows in _strips(len(image))
    )
    return 1 - inside / image.size


def mean_shift(reference: NDArray[np.uint8], candidate: NDArray[np.uint8]) -> float:
    """Largest absolute difference between the means of a channel, in uint8 levels.

    Args:
        reference: uint8 (height, width, 3) in 0..255, RGB.
        candidate: as reference, same shape.

    Returns:
        A difference in [0, 255].

    Raises:
        TypeError: an image is not a uint8 array.
        ValueError: a shape is not (height, width, 3), or the two differ.
    """
    check_two(reference, candidate)
    sums = np.zeros(3, np.int64)
    for rows in _strips(len(reference), 4 * STRIP_ROWS):
        for image, sign in ((reference, 1), (candidate, -1)):
            columns = image[rows].sum(axis=0, dtype=np.uint16)  # 128 * 255 fit
            sums += sign * columns.sum(axis=0, dtype=np.int64)
    height, width, _ = reference.shape
    return float(np.abs(sums).max()) / (height * width)


def check_two(reference: NDArray[np.uint8], candidate: NDArray[np.uint8]) -> None:
    """Refuses what can't be compared.

    Raises:
        TypeError: an image is not a uint8 array.
        ValueError: a shape is not (height, width, 3), or the two differ.
    """
    noise_level.check(reference, "reference")
    noise_level.check(candidate, "candidate")
    if reference.shape != candidate.shape:
        raise ValueError(
            f"candidate.shape={candidate.shape} must equal reference.shape={reference.shape}; "
            "pair each image with its own reference, and crop both alike"
        )


def _strips(height: int, rows: int = STRIP_ROWS) -> Iterator[slice]:
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def _gaussian(length: int) -> NDArray[np.float64]:
    offsets = np.arange(length) - (length - 1) / 2
    weights = np.exp(-(offsets**2) / (2 * SSIM_SIGMA**2))
    return weights / weights.sum()


def _windowed(
    plane: NDArray[np.float64], down: NDArray[np.float64], across: NDArray[np.float64]
) -> NDArray[np.float64]:
    for axis, weights in enumerate((down, across)):
        first = len(weights) // 2  # where correlate1d puts the first window that fits inside
        count = plane.shape[axis] - len(weights) + 1
        inside = (slice(None),) * axis + (slice(first, first + count),)
        plane = ndimage.correlate1d(plane, weights, axis=axis)[inside]
    return plane
