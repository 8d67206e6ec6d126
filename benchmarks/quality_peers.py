"""Denoisers that anyone can install, for `quality.py`: `pip install 'pix2pix[quality]'`.

Each takes a photograph and a noise level. How strong a method is at a level was chosen once, for
the best mean PSNR on every fifth pair of SIDD-Small's training scenes and on crops of other clean
photographs with white noise of 10, 25 and 40, all at their true levels: on nothing that is scored.

BM3D's package is licensed for non-commercial use; it is measured with where it is installed.
"""

import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

FIXED_SIGMA = 10.0  # what a photographer sets who doesn't measure
ESTIMATED, FIXED, TRUE = "estimated", "10", "true"  # where a level comes from
LEVELS = frozenset({ESTIMATED, FIXED, TRUE})


class Peer(NamedTuple):
    """A denoiser.

    Attributes:
        name: For tables.
        how: Its numbers: other numbers are another peer.
        denoised: (uint8 (height, width, 3) RGB, sigma in levels) -> the same without noise.
        has_level: Whether it looks at sigma.
        needs: The module it comes from.
    """

    name: str
    how: str
    denoised: Callable[[np.ndarray, float], np.ndarray]
    has_level: bool
    needs: str


def estimated_sigma(noisy: np.ndarray) -> float:
    """The noise level as users of scikit-image estimate it, in levels of 255.

    Source: Donoho and Johnstone, "Ideal spatial adaptation by wavelet shrinkage", Biometrika 1994:
    the median of the finest diagonal wavelet coefficients.
    """
    from skimage import restoration

    return float(restoration.estimate_sigma(noisy, channel_axis=-1, average_sigmas=True))


def levels(peer: Peer, noisy: np.ndarray, true_sigma: float | None) -> dict[str, float]:
    """The noise levels that a peer is tried with on one photograph, by where they come from."""
    if not peer.has_level:
        return {"": 0.0}
    found = {ESTIMATED: estimated_sigma(noisy), FIXED: FIXED_SIGMA}
    return found if true_sigma is None else found | {TRUE: true_sigma}


def installed() -> list[Peer]:
    """The peers whose packages are here, the slowest last.

    Raises:
        ImportError: OpenCV, scikit-image or PyWavelets is missing.
    """
    missing = [name for name in ("cv2", "skimage", "pywt") if not importlib.util.find_spec(name)]
    if missing:
        raise ImportError(
            f"the peers need {', '.join(missing)}: pip install 'pix2pix[quality]', or --no-peers"
        )
    return [peer for peer in PEERS if importlib.util.find_spec(peer.needs)]


def one_thread() -> None:
    """Keeps OpenCV to one thread in a process that shares the cores with others like it."""
    if importlib.util.find_spec("cv2"):
        import cv2

        cv2.setNumThreads(1)


def _nothing(noisy: np.ndarray, _: float) -> np.ndarray:
    return noisy


def _gaussian(noisy: np.ndarray, sigma: float) -> np.ndarray:
    import cv2

    return cv2.GaussianBlur(noisy, (0, 0), BLUR[0] + BLUR[1] * sigma)


def _median(noisy: np.ndarray, _: float) -> np.ndarray:
    import cv2

    return cv2.medianBlur(noisy, 3)


def _bilateral(noisy: np.ndarray, sigma: float) -> np.ndarray:
    import cv2

    return cv2.bilateralFilter(noisy, -1, BILATERAL[0] * sigma + 0.01, BILATERAL[1])


def _total_variation(noisy: np.ndarray, sigma: float) -> np.ndarray:
    from skimage import restoration

    weight = TOTAL_VARIATION * sigma / 255 + 1e-6
    return _levels(
        restoration.denoise_tv_chambolle(noisy / np.float32(255), weight, channel_axis=-1)
    )


def _opencv_means(noisy: np.ndarray, sigma: float) -> np.ndarray:
    import cv2

    strength = OPENCV_MEANS * sigma  # for brightness and for colour, as in its own defaults
    reverse = np.ascontiguousarray(noisy[..., ::-1])
    return cv2.fastNlMeansDenoisingColored(reverse, None, strength, strength, 7, 21)[..., ::-1]


def _wavelet(noisy: np.ndarray, sigma: float) -> np.ndarray:
    from skimage import restoration

    return _levels(
        restoration.denoise_wavelet(
            noisy / np.float32(255), sigma / 255, WAVELET, method="BayesShrink",
            convert2ycbcr=True, channel_axis=-1,
        )
    )  # fmt: skip


def _means(noisy: np.ndarray, sigma: float) -> np.ndarray:
    from skimage import restoration

    return _levels(
        restoration.denoise_nl_means(
            noisy / np.float32(255), 5, 6, MEANS * sigma / 255 + 1e-6, sigma=sigma / 255,
            fast_mode=True, channel_axis=-1,
        )
    )  # fmt: skip


def _bm3d(noisy: np.ndarray, sigma: float) -> np.ndarray:
    import bm3d

    return _levels(bm3d.bm3d_rgb(noisy / 255, max(sigma, 0.1) / 255))


def _levels(values: np.ndarray) -> np.ndarray:
    """uint8 of values in [0, 1]."""
    return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)


BLUR = (0.3, 0.03)  # pixels, pixels per level
BILATERAL = (4.0, 3.0)  # range per level, pixels
TOTAL_VARIATION = 0.8  # per level
OPENCV_MEANS = 0.7  # per level
WAVELET = "db2"
MEANS = 0.6  # per level

NOTHING = Peer("noisy", "as it is", _nothing, False, "numpy")
PEERS = (
    Peer("Gaussian", f"OpenCV, {BLUR[0]:g} + {BLUR[1]:g} sigma pixels", _gaussian, True, "cv2"),
    Peer("median", "OpenCV, 3 x 3", _median, False, "cv2"),
    Peer(
        "bilateral", f"OpenCV, range {BILATERAL[0]:g} sigma, {BILATERAL[1]:g} pixels",
        _bilateral, True, "cv2",
    ),
    Peer(
        "total variation", f"scikit-image, Chambolle, weight {TOTAL_VARIATION:g} sigma",
        _total_variation, True, "skimage",
    ),
    Peer(
        "OpenCV NLM", f"fastNlMeansDenoisingColored, h {OPENCV_MEANS:g} sigma, 7, 21",
        _opencv_means, True, "cv2",
    ),
    Peer("wavelet", f"scikit-image, BayesShrink, {WAVELET}, YCbCr", _wavelet, True, "skimage"),
    Peer("NLM", f"scikit-image, fast, 5, 6, h {MEANS:g} sigma", _means, True, "skimage"),
    Peer("BM3D", "bm3d_rgb, profile np", _bm3d, True, "bm3d"),
)  # fmt: skip
