"""From a Bayer mosaic to three colours, as cameras do it: what makes neighbours share noise."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float32]
Method = Literal["bilinear", "gradients"]

SITES = ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2))  # row, column, channel of the mosaic: RGGB


def demosaicked(sensed: Values, method: Method) -> Values:
    """Each colour that a pixel lacks, from its nearest neighbours that have it.

    Args:
        sensed: float32 (4, height / 2, width / 2) in the order of `SITES`.
        method: "bilinear" takes the neighbours' mean; "gradients" adds to it what the pixel's own
            colour differs from that colour around it.

    Returns:
        float32 (3, height, width). Beyond the border each of the four repeats its last value.

    Source: Malvar, He, Cutler, "High-Quality Linear Interpolation for Demosaicing of
    Bayer-Patterned Color Images", ICASSP 2004, https://doi.org/10.1109/ICASSP.2004.1326587
    """
    height, width = sensed.shape[1:]
    planes = np.empty((4, height + 2, width + 2), np.float32)
    planes[:, 1:-1, 1:-1] = sensed
    planes[:, 0], planes[:, -1] = planes[:, 1], planes[:, -2]
    planes[:, :, 0], planes[:, :, -1] = planes[:, :, 1], planes[:, :, -2]
    colours = np.empty((3, 2 * height, 2 * width), np.float32)
    turned = planes[::-1, ::-1, ::-1]  # half a turn takes red to blue, and green to green
    _fill(planes, colours[0], colours[1])
    _fill(turned, colours[2, ::-1, ::-1], colours[1, ::-1, ::-1])
    if method == "gradients":
        _add_gradients(planes, colours[0], colours[1], colours[2])
        _add_gradients(turned, *colours[::-1, ::-1, ::-1])
    return colours


def _fill(planes: Values, red: Values, green: Values) -> None:
    """Fills red, and green in red's rows, with the means of the nearest neighbours."""
    known, beside, below, _ = planes
    here, right, down = known[1:-1, 1:-1], known[1:-1, 2:], known[2:, 1:-1]
    red[0::2, 0::2] = here
    across = here + right
    np.multiply(across, 0.5, out=red[0::2, 1::2])
    across += down
    across += known[2:, 2:]
    np.multiply(across, 0.25, out=red[1::2, 1::2])
    np.multiply(here + down, 0.5, out=red[1::2, 0::2])
    green[0::2, 1::2] = beside[1:-1, 1:-1]
    crossed = beside[1:-1, 1:-1] + beside[1:-1, :-2]
    crossed += below[1:-1, 1:-1]
    crossed += below[:-2, 1:-1]
    np.multiply(crossed, 0.25, out=green[0::2, 0::2])


def _add_gradients(planes: Values, red: Values, green: Values, blue: Values) -> None:
    """Adds to the colours that red's rows lack, what the known colour differs from around."""
    known, beside, below, _ = planes
    rows, columns = _sums(known)
    rows += columns
    rows *= -0.25
    rows += known[1:-1, 1:-1]
    green[0::2, 0::2] += np.float32(1 / 2) * rows
    blue[0::2, 0::2] += np.float32(3 / 4) * rows
    rows, columns = _sums(beside)
    both = rows + columns
    both *= 0.25
    both += below[:-2, 1:-1]
    both += below[:-2, 2:]
    both += below[1:-1, 1:-1]
    both += below[1:-1, 2:]
    both *= -1 / 8
    both += np.float32(5 / 8) * beside[1:-1, 1:-1]
    rows -= columns
    rows *= 3 / 32
    red[0::2, 1::2] += both - rows
    blue[0::2, 1::2] += both + rows


def _sums(plane: Values) -> tuple[Values, Values]:
    """Of the neighbours left and right, and of those above and below."""
    return plane[1:-1, :-2] + plane[1:-1, 2:], plane[:-2, 1:-1] + plane[2:, 1:-1]
