"""The noise level of a photograph, judged from it alone; callers say `metrics.noise_sigma`."""

import functools
import math

import numpy as np
from numpy.typing import NDArray
from scipy import special

PATCH = 7  # as Liu et al. 2013; on Kodak 5 and 6 read higher, 8 varies more
PATCHES = 20_000  # candidates in each channel; 40_000 take twice as long and are no better
FEWEST_PATCHES = 512  # fewer say nothing of a 49 x 49 covariance: images under 29 x 29
WEAK_TEXTURE = 0.97  # share of pure noise patches that pass; Liu's 1 - 1e-6 reads 10% high at 5
KEPT_VARIANCE = 0.95  # a patch is taken where clipping leaves this share of the noise variance
STEPS = 8  # per level: how finely a patch's mean is told
LEAST_KEPT = 0.2  # ... and at least this share of the patches: those that clipping hurts least


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
    check(image, "image")
    variances = [_noise_variance(_patches(image[..., channel])) for channel in range(3)]
    return math.sqrt(sum(variances) / 3)


def check(image: NDArray[np.uint8], name: str) -> None:
    """Refuses what is no photograph; `metrics` asks this of all that it scores.

    Raises:
        TypeError: the image is not a uint8 array.
        ValueError: its shape is not (height, width, 3).
    """
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


def _patches(plane: NDArray[np.uint8]) -> NDArray[np.float32]:
    if min(plane.shape) < PATCH:
        return np.empty((0, PATCH, PATCH), np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(plane, (PATCH, PATCH))
    # broken spacing, so that patches meet the 8 x 8 blocks of a JPEG at every phase
    spacing = max(math.sqrt(windows.shape[0] * windows.shape[1] / PATCHES), 1.0)
    rows, columns = (np.arange(0, side, spacing).astype(np.intp) for side in windows.shape[:2])
    patches = windows[rows[:, None], columns].reshape(-1, PATCH, PATCH)
    flat = patches.reshape(-1, PATCH * PATCH)
    return patches[(flat != flat[:, :1]).any(axis=1)].astype(np.float32)


def _noise_variance(patches: NDArray[np.float32]) -> float:
    if len(patches) < FEWEST_PATCHES:
        return 0.0
    vectors = patches.reshape(len(patches), -1)
    means = np.rint(vectors.mean(axis=1) * STEPS).astype(np.intp)  # in parts of a level
    differences = vectors @ _central_differences().T.astype(np.float32)
    texture = np.einsum("ij,ij->i", differences, differences)
    variance = _flat_variance(vectors)
    for _ in range(10):  # 3 to 6 rounds settle it
        if variance < 1e-6:
            return 0.0
        left = _variance_left(math.sqrt(variance))[means]
        enough = max(round(LEAST_KEPT * len(left)), FEWEST_PATCHES)
        unclipped = _up_to(-left, -KEPT_VARIANCE, enough)
        energy = texture[unclipped] / left[unclipped]
        kept = unclipped[_up_to(energy, variance * _texture_limit(), FEWEST_PATCHES)]
        before, variance = variance, _flat_variance(vectors[kept]) / float(left[kept].mean())
        if abs(variance - before) < 0.004 * before:
            break
    return variance


def _up_to(values: NDArray[np.floating], limit: float, fewest: int) -> NDArray[np.intp]:
    """Places of the values up to a limit, or of the `fewest` smallest where it leaves less."""
    places = np.flatnonzero(values <= limit)
    if len(places) >= fewest:  # nearly always, and the partition takes most of the time
        return places
    return np.flatnonzero(values <= np.partition(values, fewest - 1)[fewest - 1])


def _flat_variance(vectors: NDArray[np.float32]) -> float:
    """Variance of the noise, as Chen et al.: drop the largest until the mean is the median."""
    centred = vectors - np.full(len(vectors), 1 / len(vectors), np.float32) @ vectors
    covariance = (centred.T @ centred / len(centred)).astype(np.float64)
    eigenvalues = np.linalg.eigvalsh(covariance)  # rising
    counts = np.arange(len(eigenvalues), 1, -1)
    means = np.cumsum(eigenvalues)[counts - 1] / counts
    medians = (eigenvalues[(counts - 1) // 2] + eigenvalues[counts // 2]) / 2
    flat = np.append(np.flatnonzero(means <= medians), len(counts) - 1)[0]
    return max(float(means[flat]), 0.0)


@functools.cache
def _texture_limit() -> float:
    """Energy of central differences that `WEAK_TEXTURE` of patches of unit white noise stay under.

    A quadratic form in Gaussian values; Liu et al. take the gamma distribution of equal mean and
    variance for it, as here.
    """
    rows = _central_differences()
    form = rows.T @ rows
    mean, variance = np.trace(form), 2 * np.square(form).sum()
    return float(special.gammaincinv(mean**2 / variance, WEAK_TEXTURE) * variance / mean)


@functools.cache
def _central_differences() -> NDArray[np.float64]:
    """The matrix (70, 49) that takes a patch to its differences across and down."""
    unit = np.eye(PATCH * PATCH).reshape(PATCH, PATCH, -1)
    across, down = unit[:, 2:] - unit[:, :-2], unit[2:] - unit[:-2]
    return np.concatenate([across.reshape(-1, PATCH * PATCH), down.reshape(-1, PATCH * PATCH)])


def _variance_left(sigma: float) -> NDArray[np.float64]:
    """Share of the noise variance that clipping leaves, by clipped mean: 0 to 255 in `STEPS`."""
    true_means = np.linspace(-3 * sigma, 255 + 3 * sigma, 1024)
    low, high = -true_means / sigma, (255 - true_means) / sigma
    below, above = special.ndtr(low), special.ndtr(-high)
    density_low, density_high = (np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi) for x in (low, high))
    inside = 1 - below - above
    # first and second moment of the clipped value in units of sigma, as offsets from the true mean
    first = density_low - density_high + low * below + high * above
    second = inside + low * density_low - high * density_high + low**2 * below + high**2 * above
    clipped_means = true_means + sigma * first
    return np.interp(np.arange(255 * STEPS + 1) / STEPS, clipped_means, second - first**2)
