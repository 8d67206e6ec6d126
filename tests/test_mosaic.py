import numpy as np
import pytest
from scipy.ndimage import convolve

from pix2pix import mosaic

# the paper's figure 2, in eighths: green at red or blue, red at green in red's rows, red at blue
GREEN = np.array(
    [[0, 0, -1, 0, 0], [0, 0, 2, 0, 0], [-1, 2, 4, 2, -1], [0, 0, 2, 0, 0], [0, 0, -1, 0, 0]]
)
BESIDE = np.array(
    [[0, 0, 0.5, 0, 0], [0, -1, 0, -1, 0], [-1, 4, 5, 4, -1], [0, -1, 0, -1, 0], [0, 0, 0.5, 0, 0]]
)
ACROSS = np.array(
    [
        [0, 0, -1.5, 0, 0],
        [0, 2, 0, 2, 0],
        [-1.5, 0, 6, 0, -1.5],
        [0, 2, 0, 2, 0],
        [0, 0, -1.5, 0, 0],
    ]
)


def counted(height: int = 40, width: int = 36, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((height, width)).astype(np.float32)


def quarters(raw: np.ndarray) -> np.ndarray:
    return np.stack([raw[row::2, column::2] for row, column, _ in mosaic.SITES])


def sites(raw: np.ndarray) -> list[np.ndarray]:
    """Where red, green and blue are known."""
    channel = np.array([[0, 1], [1, 2]])
    whole = np.tile(channel, (raw.shape[0] // 2, raw.shape[1] // 2))
    return [whole == number for number in range(3)]


def by_kernels(raw: np.ndarray) -> np.ndarray:
    """The same as gradients, written as the paper does."""
    red, green, blue = sites(raw)
    in_red_row = np.zeros(raw.shape, bool)
    in_red_row[0::2] = True
    crossed, beside, above, across = (
        convolve(raw, kernel / 8) for kernel in (GREEN, BESIDE, BESIDE.T, ACROSS)
    )
    return np.stack([
        np.where(red, raw, np.where(blue, across, np.where(in_red_row, beside, above))),
        np.where(green, raw, crossed),
        np.where(blue, raw, np.where(red, across, np.where(in_red_row, above, beside))),
    ])  # fmt: skip


def by_means(raw: np.ndarray) -> np.ndarray:
    """The same as bilinear: each colour's known values spread by a triangle."""
    square, cross = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]), np.array([[0, 1, 0], [1, 4, 1]])
    cross = np.vstack([cross, cross[:1]])
    kernels = (square, cross, square)
    return np.stack(
        [convolve(raw * at, kernel / 4) for at, kernel in zip(sites(raw), kernels, strict=True)]
    )


@pytest.mark.parametrize(("method", "other"), [("gradients", by_kernels), ("bilinear", by_means)])
def test_colours_are_those_of_the_published_kernels(method: mosaic.Method, other: type) -> None:
    inside = np.s_[:, 2:-2, 2:-2]
    made = mosaic.demosaicked(quarters(counted()), method)
    assert np.allclose(other(counted())[inside], made[inside], atol=1e-5)


@pytest.mark.parametrize("method", ["bilinear", "gradients"])
def test_known_values_stay(method: mosaic.Method) -> None:
    made = mosaic.demosaicked(quarters(counted()), method)
    for colour, known in zip(made, sites(counted()), strict=True):
        assert np.array_equal(counted()[known], colour[known])


@pytest.mark.parametrize("method", ["bilinear", "gradients"])
def test_grey_stays_grey_to_the_border(method: mosaic.Method) -> None:
    made = mosaic.demosaicked(np.full((4, 5, 6), 0.25, np.float32), method)
    assert made.shape == (3, 10, 12)
    assert np.array_equal(np.full_like(made, 0.25), made)


def test_bilinear_neighbours_share_noise_as_counted_by_hand() -> None:
    # variances 1, 1/2, 1/2, 1/4 of red's four kinds of pixels; two pairs in four share 1/2, two 1/4
    made = mosaic.demosaicked(quarters(counted(512, 512)), "bilinear")
    shared = [(plane[:, 1:] * plane[:, :-1]).mean() / plane.var() for plane in made]
    assert shared == pytest.approx([2 / 3, 0.25 / 0.625, 2 / 3], abs=0.015)
