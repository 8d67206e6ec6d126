"""Texture that a generator took for noise is given back.

Noise depends on how bright a place is, and hardly on what is pictured there. So where much more was
taken than at other places as bright, it was grass or cloth that was taken with the noise.
"""

import numpy as np
from numpy.typing import NDArray

BLOCK = 8  # pixels: a side of what is compared
BRIGHTNESSES = 16  # ranges of brightness; blocks of one are compared
FEWEST_BLOCKS = 30  # of a range, or its neighbours speak for it
QUIET_SHARE = 0.3  # of the blocks, in which what was taken is all noise
SLACK = 1.5  # times their energy may be taken anywhere: the rest is chance
UNTOUCHED = 0.1  # energy, in squared levels of 255: such blocks say nothing of the noise

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Values = NDArray[np.float32]


def give_back(before: Pixels, after: Pixels) -> None:
    """Puts back into a denoised photograph what was taken beyond its noise.

    In a block of 8 x 8 pixels, noise has an energy (mean square of what was taken) that follows
    from the brightness, give or take a little. That of the quieter blocks is the noise's; where
    more than 1.5 times as much was taken, what was taken shrinks to that energy.

    Args:
        before: uint8 or uint16 (height, width, 3), the photograph, full range.
        after: The same without its noise; changed in place. Photographs with fewer than
            `FEWEST_BLOCKS` blocks stay as they are.

    Source:
        Ours. That noise is a function of brightness: Foi et al., "Practical Poissonian-Gaussian
        Noise Modeling and Fitting for Single-Image Raw-Data", IEEE TIP 2008; that homogeneous
        blocks have the smallest energy is what noise estimators rest on (Liu et al. 2013).
    """
    energy, brightness = _blocks(before, after)
    noise = _noise(energy, brightness)
    if noise is None:
        return
    share = np.sqrt(np.minimum(1.0, SLACK * noise / np.maximum(energy, UNTOUCHED)))
    if (share < 1).any():
        _shrink(before, after, share.astype(np.float32))


def _blocks(before: Pixels, after: Pixels) -> tuple[Values, Values]:
    """Energy of what was taken and brightness, of each block: (rows, columns), levels of 255.

    Every other row of pixels is enough. What is left over at the right and below doesn't count.
    """
    rows, columns = (side // BLOCK for side in before.shape[:2])
    energy, brightness = np.empty((2, rows, columns), np.float32)
    scale = np.float32(255 / np.iinfo(before.dtype).max)
    ones = np.full(BLOCK * 3, 2 / (BLOCK * BLOCK * 3), np.float32)
    for row in range(rows):
        place = (slice(row * BLOCK, (row + 1) * BLOCK, 2), slice(columns * BLOCK))
        levels = after[place].astype(np.float32).reshape(BLOCK // 2, -1)
        taken = before[place].reshape(BLOCK // 2, -1) - levels
        sums = np.einsum("ij,ij->j", taken, taken).reshape(columns, -1)
        np.matmul(sums, ones * scale**2, out=energy[row])
        np.matmul(levels.sum(axis=0).reshape(columns, -1), ones * scale, out=brightness[row])
    return energy, brightness


def _noise(energy: Values, brightness: Values) -> Values | None:
    """The energy that noise has in each block; None where there is too little to compare."""
    touched = energy > UNTOUCHED
    if touched.sum() < FEWEST_BLOCKS:
        return None
    ranges = (brightness * (BRIGHTNESSES / 256)).astype(np.intp)
    known, quiet = [], []
    for number in range(BRIGHTNESSES):
        found = energy[touched & (ranges == number)]
        if len(found) >= FEWEST_BLOCKS:
            known.append(number + 0.5)
            quiet.append(np.quantile(found, QUIET_SHARE))
    overall = np.quantile(energy[touched], QUIET_SHARE)
    if not known:
        return np.full_like(energy, overall)
    of_range = np.interp(brightness * (BRIGHTNESSES / 256), known, quiet)
    # never less than in the quieter part of the whole: a JPEG takes noise from smooth blocks, and
    # a range that a smooth sky fills would know of none
    return np.maximum(of_range, overall).astype(np.float32)


def _shrink(before: Pixels, after: Pixels, share: Values) -> None:
    """Leaves of what was taken a share, (rows, columns) of blocks; it changes smoothly."""
    height, width = before.shape[:2]
    rows, columns = share.shape
    place = np.clip((np.arange(width) + 0.5) / BLOCK - 0.5, 0, columns - 1)
    samples = np.repeat(place, before.shape[2])  # of a row of pixels, channel by channel
    weights = ((np.arange(BLOCK, dtype=np.float32) + 0.5) / BLOCK)[:, np.newaxis]
    lower = np.interp(samples, np.arange(columns), share[0]).astype(np.float32)
    for row in range(rows + 1):  # from the centre of one row of blocks to that of the next
        upper = lower
        if 0 < row < rows:
            lower = np.interp(samples, np.arange(columns), share[row]).astype(np.float32)
        top = max(row * BLOCK - BLOCK // 2, 0)
        bottom = height if row == rows else row * BLOCK + BLOCK // 2
        if min(share[max(row - 1, 0)].min(), share[min(row, rows - 1)].min()) == 1:
            continue
        shares = upper + (lower - upper) * weights if 0 < row < rows else upper
        levels = before[top:bottom].reshape(bottom - top, -1).astype(np.float32)
        denoised = after[top:bottom].reshape(bottom - top, -1)
        taken = np.subtract(levels, denoised, dtype=np.float32)
        taken *= shares
        levels -= taken
        after[top:bottom] = np.rint(levels, out=levels).reshape(bottom - top, width, -1)
