"""The project's one definition of each score: PSNR, SSIM, noise, sharpness, clipping, mean shift.

Every photograph here is uint8 (height, width, 3) in 0..255, RGB. Two photographs are compared in
full: no border is cropped. Work goes in strips of rows, so that memory does not grow with height.
"""

import functools
import math
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

PSNR_CAP_DB = 100.0  # what identical images count in a mean; camera noise gives 15 to 60

SSIM_WINDOW = 11  # Wang et al. 2004, section III: side, sigma and both constants
SSIM_SIGMA = 1.5
SSIM_C1 = (0.01 * 255) ** 2
SSIM_C2 = (0.03 * 255) ** 2

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in JPEG

PATCH = 7  # as Liu et al. 2013; on Kodak 5 and 6 read higher, 8 varies more
PATCHES = 20_000  # candidates in each channel; 40_000 take twice as long and are no better
FEWEST_PATCHES = 512  # fewer say nothing of a 49 x 49 covariance: images under 29 x 29
WEAK_TEXTURE = 0.97  # share of pure noise patches that pass; Liu's 1 - 1e-6 reads 10% high at 5
KEPT_VARIANCE = 0.95  # a patch is taken where clipping leaves this share of the noise variance
LEAST_KEPT = 0.2  # ... and at least this share of the patches: those that clipping hurts least

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
    _check_two(reference, candidate)
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
    _check_two(reference, candidate)
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


def noise_sigma(image: NDArray[np.uint8]) -> float:
    """Standard deviation of the noise, judged from the photograph alone, in uint8 levels.

    It measures noise that differs from pixel to pixel in the smooth parts, before clipping at 0
    and 255. Noise that depends on brightness reads as it is there: 0.75 to 1.05 of its root mean
    square on SIDD. It reads too low where neighbours share noise: demosaicked, shrunk after
    smoothing, or JPEG whose steps are as large as the noise (10 at quality 80 reads 1 to 6). Grain
    or fine irregular texture counts as noise: clean photographs read about 1, 4 at most.

    Args:
        image: uint8 (height, width, 3) in 0..255, RGB; grey as three equal channels is fine.

    Returns:
        Root of the mean variance of the three channels, 0 or more; several hundred for a scan in
        black and white alone. 0.0 where there is nothing to judge from: a constant image, or one
        under 29 x 29 pixels; up to 48 x 48 it reads 3 to 10% low.

    Raises:
        TypeError: the image is not a uint8 array.
        ValueError: its shape is not (height, width, 3).

    Source:
        Patches of weak texture: Liu, Tanaka, Okutomi, "Single-Image Noise Level Estimation for
        Blind Denoising", IEEE TIP 2013, https://doi.org/10.1109/TIP.2013.2283400
        The variance from the eigenvalues of their covariance: Chen, Zhu, Heng, "An Efficient
        Statistical Method for Image Noise Level Estimation", ICCV 2015,
        https://doi.org/10.1109/ICCV.2015.62
        What clipping leaves of it: Foi, "Clipped noisy images", Signal Processing 2009,
        https://doi.org/10.1016/j.sigpro.2009.04.035
        Ours: a grid of patches instead of all; a tighter limit on texture; patches of one value
        (borders, saturation) are left out; and the channels are judged one by one, since patches
        of three channels at once, as Chen takes them, read 1.3 for 25 after a JPEG with
        subsampled chroma.
    """
    _check(image, "image")
    variances = [_noise_variance(_patches(image[..., channel])) for channel in range(3)]
    return math.sqrt(sum(variances) / 3)


def sharpness(image: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian of the luma, in squared uint8 levels; noise raises it too.

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
    _check(image, "image")
    inner_rows, inner_columns = image.shape[0] - 2, image.shape[1] - 2
    if min(inner_rows, inner_columns) < 1:
        return 0.0
    total = squares = 0.0
    for rows in _strips(inner_rows):
        luma = image[rows.start : rows.stop + 2] @ LUMA
        laplacian = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
        laplacian -= 4 * luma[1:-1, 1:-1]
        total += float(laplacian.sum(dtype=np.float64))
        squares += float(np.square(laplacian).sum(dtype=np.float64))
    count = inner_rows * inner_columns
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
    _check(image, "image")
    return (image.size - np.count_nonzero(image) + np.count_nonzero(image == 255)) / image.size


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
    _check_two(reference, candidate)
    sums = [image.sum(axis=0, dtype=np.int64).sum(axis=0) for image in (reference, candidate)]
    height, width, _ = reference.shape
    return float(np.abs(sums[0] - sums[1]).max()) / (height * width)


def _check(image: NDArray[np.uint8], name: str) -> None:
    dtype = image.dtype if isinstance(image, np.ndarray) else type(image).__name__
    if dtype != np.uint8:
        raise TypeError(
            f"{name} is {dtype}, must be a numpy array of uint8 in 0..255; "
            "round and convert it, for example np.rint(255 * x).astype(np.uint8) from [0, 1]"
        )
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise ValueError(
            f"{name}.shape={image.shape} must be (height, width, 3), RGB, at least 1 x 1; "
            "repeat grey three times, drop alpha, take images of a batch one by one"
        )


def _check_two(reference: NDArray[np.uint8], candidate: NDArray[np.uint8]) -> None:
    _check(reference, "reference")
    _check(candidate, "candidate")
    if reference.shape != candidate.shape:
        raise ValueError(
            f"candidate.shape={candidate.shape} must equal reference.shape={reference.shape}; "
            "pair each image with its own reference, and crop both alike"
        )


def _strips(height: int) -> Iterator[slice]:
    for start in range(0, height, STRIP_ROWS):
        yield slice(start, min(start + STRIP_ROWS, height))


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


def _patches(plane: NDArray[np.uint8]) -> NDArray[np.float32]:
    if min(plane.shape) < PATCH:
        return np.empty((0, PATCH, PATCH), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(plane, (PATCH, PATCH))
    # broken spacing, so that patches meet the 8 x 8 blocks of a JPEG at every phase
    spacing = max(math.sqrt(windows.shape[0] * windows.shape[1] / PATCHES), 1.0)
    rows, columns = (np.arange(0, side, spacing).astype(np.intp) for side in windows.shape[:2])
    patches = windows[rows[:, None], columns].reshape(-1, PATCH, PATCH)
    return patches[patches.min(axis=(1, 2)) < patches.max(axis=(1, 2))].astype(np.float32)


def _noise_variance(patches: NDArray[np.float32]) -> float:
    if len(patches) < FEWEST_PATCHES:
        return 0.0
    means = patches.mean(axis=(1, 2))
    across, down = patches[:, :, 2:] - patches[:, :, :-2], patches[:, 2:] - patches[:, :-2]
    texture = np.square(across).sum(axis=(1, 2)) + np.square(down).sum(axis=(1, 2))
    vectors = patches.reshape(len(patches), -1)
    variance = _flat_variance(vectors)
    for _ in range(10):  # 3 to 6 rounds settle it
        if variance < 1e-6:
            return 0.0
        left = _variance_left(means, math.sqrt(variance))
        enough = max(round(LEAST_KEPT * len(left)), FEWEST_PATCHES)
        least = min(KEPT_VARIANCE, -_smallest(-left, enough))
        unclipped = np.flatnonzero(left >= least)
        energy = texture[unclipped] / left[unclipped]
        limit = max(variance * _texture_limit(), _smallest(energy, FEWEST_PATCHES))
        kept = unclipped[energy <= limit]
        before, variance = variance, _flat_variance(vectors[kept]) / float(left[kept].mean())
        if abs(variance - before) < 0.004 * before:
            break
    return variance


def _smallest(values: NDArray[np.floating], count: int) -> float:
    return float(np.partition(values, count - 1)[count - 1])


def _flat_variance(vectors: NDArray[np.float32]) -> float:
    """Variance of the noise, as Chen et al.: drop the largest until the mean is the median."""
    centred = vectors - vectors.mean(axis=0)
    covariance = (centred.T @ centred / len(centred)).astype(np.float64)
    eigenvalues = np.linalg.eigvalsh(covariance)
    for count in range(len(eigenvalues), 1, -1):
        mean = eigenvalues[:count].mean()
        if mean <= np.median(eigenvalues[:count]):
            break
    return max(float(mean), 0.0)


@functools.cache
def _texture_limit() -> float:
    """Energy of central differences that `WEAK_TEXTURE` of patches of unit white noise stay under.

    A quadratic form in Gaussian values; Liu et al. take the gamma distribution of equal mean and
    variance for it, as here.
    """
    unit = np.eye(PATCH * PATCH).reshape(PATCH, PATCH, -1)
    across, down = unit[:, 2:] - unit[:, :-2], unit[2:] - unit[:-2]
    rows = np.concatenate([across.reshape(-1, PATCH * PATCH), down.reshape(-1, PATCH * PATCH)])
    form = rows.T @ rows
    mean, variance = np.trace(form), 2 * np.square(form).sum()
    return float(special.gammaincinv(mean**2 / variance, WEAK_TEXTURE) * variance / mean)


def _variance_left(means: NDArray[np.float32], sigma: float) -> NDArray[np.float64]:
    """Share of the noise variance that clipping to 0..255 leaves, from the clipped mean."""
    true_means = np.linspace(-3 * sigma, 255 + 3 * sigma, 1024)
    low, high = -true_means / sigma, (255 - true_means) / sigma
    below, above = special.ndtr(low), special.ndtr(-high)
    density_low, density_high = (np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) for x in (low, high))
    inside = 1 - below - above
    # first and second moment of the clipped value in units of sigma, as offsets from the true mean
    first = density_low - density_high + low * below + high * above
    second = inside + low * density_low - high * density_high + low**2 * below + high**2 * above
    clipped_means = true_means + sigma * first
    return np.interp(means, clipped_means, second - first**2)
