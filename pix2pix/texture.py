"""What a generator should not have taken is given back: texture, and what is hardly worth taking.

Noise depends on how bright a place is, and hardly on what is pictured there. So where much more was
taken than at other places as bright, it was grass or cloth that was taken with the noise. And where
next to nothing was taken, there was no noise that anyone could see.
"""

import functools

import numpy as np
from numpy.typing import NDArray

BLOCK = 8  # pixels: a side of what is compared
BRIGHTNESSES = 16  # ranges of brightness; blocks of one are compared
FEWEST_BLOCKS = 30  # of a range, or its neighbours speak for it
QUIET_SHARE = 0.3  # of the blocks, in which what was taken is all noise
CHANCE = 3.0  # standard deviations of a block's energy that chance may add
LEAST_SLACK = 1.5  # times the quiet energy may be taken in any case
OUTLIER = 16.0  # times the energy of noise is the most that a single value may count
EVERY, ROWS = 4, 48  # every fourth row of blocks shows what neighbours share, or so many rows
UNTOUCHED = 0.1  # energy, in squared levels of 255: such blocks say nothing of the noise
SPARED = 0.5  # levels, root mean square: where less was taken, all of it is given back
COUNTS = 2.0  # likewise: where more was, none
AROUND = 4  # blocks on either side that say how much is taken in a place

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Values = NDArray[np.float32]


def restrained(
    before: Pixels, after: Pixels, only_noise: bool = True, spares: bool = False
) -> Values:
    """Puts back into a denoised photograph what was taken beyond its noise, or for nothing.

    In a block of 8 x 8 pixels, noise has an energy (mean square of what was taken) that follows
    from the brightness, give or take what chance makes of it. The quieter blocks show both; where
    more was taken than that, it shrinks to that energy.

    Args:
        before: uint8 or uint16 (height, width, 3), the photograph, full range.
        after: The same without its noise; changed in place. Where fewer than
            `FEWEST_BLOCKS` blocks were touched, no texture is given back.
        only_noise: False: more than noise may have been taken, so no texture is given back.
        spares: Whether to give back, too, what is hardly more than nothing: see `_spared`.

    Returns:
        float32 (height // 8, width // 8): the energy that stays taken if nothing is spared, in
        squared levels of 255.

    Source:
        Ours. That noise is a function of brightness: Foi et al., "Practical Poissonian-Gaussian
        Noise Modeling and Fitting for Single-Image Raw-Data", IEEE TIP 2008; that homogeneous
        blocks have the smallest energy is what noise estimators rest on (Liu et al. 2013).
    """
    if min(before.shape[:2]) < BLOCK:
        return np.empty((0, 0), np.float32)
    energy, brightness = _blocks(before, after)
    share = np.ones_like(energy)
    quiet = _quiet(energy, brightness) if only_noise else None
    if quiet is not None:
        noise = _slack(before, after, energy <= quiet) * quiet
        counted = _without_outliers(before, after, energy, noise)
        share = np.sqrt(np.minimum(1.0, noise / np.maximum(counted, UNTOUCHED)), dtype=np.float32)
        energy = energy * np.square(share)
    if spares:
        share = share * _spared(energy)
    if (share < 1).any():
        shrink(before, after, share)
    return energy


def _spared(energy: Values) -> Values:
    """The share of what was taken that is worth taking, for each block.

    In places (72 x 72 pixels) of which less than half a level was taken, none; of which two or more
    were, all; between them it grows in a line, so that no edge shows. Nobody sees noise of a level,
    and so little is taken of clean photographs: of their grain and texture. The line ends at two,
    so that they keep more than 45 dB (a root mean square of 1.4 levels).
    """
    taken = np.sqrt(np.maximum(_means_around(_means_around(energy).T).T, 0))
    return np.clip((taken - SPARED) / (COUNTS - SPARED), 0, 1).astype(np.float32)


def _means_around(values: Values) -> Values:
    """Each value's mean with up to `AROUND` ones before it in its row, and as many after it."""
    length = values.shape[1]
    sums = np.pad(np.cumsum(values, axis=1, dtype=np.float64), ((0, 0), (1, 0)))
    places = np.arange(length)
    start, end = np.maximum(places - AROUND, 0), np.minimum(places + AROUND + 1, length)
    return ((sums[:, end] - sums[:, start]) / (end - start)).astype(np.float32)


def _blocks(before: Pixels, after: Pixels) -> tuple[Values, Values]:
    """Energy of what was taken and brightness, of each block: (rows, columns), levels of 255.

    What is left over at the right and below doesn't count.
    """
    rows, columns = (side // BLOCK for side in before.shape[:2])
    energy, brightness = np.empty((2, rows, columns), np.float32)
    scale = np.float32(255 / np.iinfo(before.dtype).max)
    mean = np.full(BLOCK * 3, 1 / (BLOCK * BLOCK * 3), np.float32)
    for row in range(rows):
        place = (slice(row * BLOCK, (row + 1) * BLOCK), slice(columns * BLOCK))
        levels = after[place].astype(np.float32).reshape(BLOCK, -1)
        taken = before[place].reshape(BLOCK, -1) - levels
        squares = np.einsum("ij,ij->j", taken, taken).reshape(columns, -1)
        np.matmul(squares, mean * scale**2, out=energy[row])
        np.matmul(levels.sum(axis=0).reshape(columns, -1), mean * scale, out=brightness[row])
    return energy, brightness


def _quiet(energy: Values, brightness: Values) -> Values | None:
    """The energy of quiet blocks as bright as each; None where there is too little to compare."""
    touched = energy > UNTOUCHED
    if touched.sum() < FEWEST_BLOCKS:
        return None
    values = energy[touched]
    ranges = (brightness[touched] * (BRIGHTNESSES / 256)).astype(np.uint8)
    order = np.argsort(ranges, kind="stable")  # a sort by counting, for so small a type
    ends = np.searchsorted(ranges[order], np.arange(1, BRIGHTNESSES))
    known, quiet = [], []
    for number, found in enumerate(np.split(values[order], ends)):
        if len(found) >= FEWEST_BLOCKS:
            known.append(number + 0.5)
            quiet.append(np.quantile(found, QUIET_SHARE))
    # never less than in the quieter part of the whole: a JPEG takes noise from smooth blocks, and
    # a range that a smooth sky fills would know of none
    overall = np.quantile(values, QUIET_SHARE)
    if not known:
        return np.full_like(energy, overall)
    of_range = np.interp(brightness * (BRIGHTNESSES / 256), known, quiet)
    return np.maximum(of_range, overall).astype(np.float32)


def _without_outliers(before: Pixels, after: Pixels, energy: Values, noise: Values) -> Values:
    """The energy of each block; single values count up to a limit, so that hot pixels stay away."""
    energy, scale = energy.copy(), np.float32(255 / np.iinfo(before.dtype).max) ** 2
    mean = np.full(BLOCK * 3, scale / (BLOCK * BLOCK * 3), np.float32)
    for row, is_more in enumerate(energy > 2 * noise):
        columns = np.flatnonzero(is_more)
        if len(columns):
            squares = _of_row(before, after, row, columns).reshape(BLOCK, len(columns), -1)
            squares *= squares
            limits = OUTLIER / scale * noise[row, columns, np.newaxis]
            np.minimum(squares, limits, out=squares)
            energy[row, columns] = squares.sum(axis=0) @ mean
    return energy


def _of_row(before: Pixels, after: Pixels, row: int, columns: NDArray[np.intp]) -> Values:
    """What was taken from some blocks of a row: float32 (8, blocks, 8, 3), in levels as stored."""
    strip = (slice(row * BLOCK, (row + 1) * BLOCK), slice(before.shape[1] // BLOCK * BLOCK))
    was, now = (image[strip].reshape(BLOCK, -1, BLOCK * 3) for image in (before, after))
    taken = np.subtract(was[:, columns], now[:, columns], dtype=np.float32)
    return taken.reshape(BLOCK, -1, BLOCK, 3)


def _slack(before: Pixels, after: Pixels, is_quiet: NDArray[np.bool_]) -> float:
    """How many times the quiet energy noise has in nearly every block.

    The energy of a block of independent values varies by the root of 2 over their number (10%).
    Neighbours that share noise, as in the grain of film, and colours that do make them fewer: by
    the sum of their squared correlations, which fall here from pixel to pixel by one factor.
    """
    sums = np.zeros(4)  # of squares, of products with the right and the lower one, over colours
    for row in range(0, len(is_quiet), max(EVERY, len(is_quiet) // ROWS)):
        blocks = _of_row(before, after, row, np.flatnonzero(is_quiet[row]))
        sums += (
            np.vdot(blocks, blocks),
            np.vdot(blocks[:, :, :-1], blocks[:, :, 1:]) * (BLOCK / (BLOCK - 1)),
            np.vdot(blocks[:-1], blocks[1:]) * (BLOCK / (BLOCK - 1)),
            np.square(blocks[..., 0] + blocks[..., 1] + blocks[..., 2]).sum(),
        )
    if sums[0] == 0:
        return LEAST_SLACK
    across, down, colours = np.clip(sums[1:] / sums[0], -0.99, [0.99, 0.99, 3.0])
    fewer = (
        1 + (colours - 1) ** 2 / 2
    )  # of equal correlations c: 1 + 2 c^2, where the sum is 1 + 2 c
    for correlation in (across, down):
        fewer *= (1 + correlation**2) / (1 - correlation**2)
    deviation = (2 * fewer / (BLOCK * BLOCK * 3)) ** 0.5
    # the quiet energy lies half a deviation under the mean
    return max(LEAST_SLACK, (1 + CHANCE * deviation) / max(1 - deviation / 2, 0.2))


def shrink(before: Pixels, after: Pixels, share: Values) -> None:
    """Leaves of what was taken a share, which changes smoothly from block to block.

    Args:
        before: uint8 or uint16 (height, width, 3).
        after: Likewise, without what was taken; changed in place.
        share: float32 (height // 8, width // 8), 0 (all is given back) to 1.
    """
    height, width = before.shape[:2]
    rows, columns = share.shape
    places, centres = (np.arange(width) + 0.5) / BLOCK - 0.5, np.arange(columns)
    weights = ((np.arange(BLOCK, dtype=np.float32) + 0.5) / BLOCK)[:, np.newaxis]
    least = share.min(axis=1)

    @functools.lru_cache(2)
    def across(row: int) -> Values:  # of a row of pixels through the blocks' centres, all channels
        values = np.interp(places, centres, share[row]).astype(np.float32)
        return np.repeat(values, before.shape[2])

    for row in range(rows + 1):  # from the centre of one row of blocks to that of the next
        over, under = max(row - 1, 0), min(row, rows - 1)
        if min(least[over], least[under]) == 1:
            continue
        top = max(row * BLOCK - BLOCK // 2, 0)
        bottom = height if row == rows else row * BLOCK + BLOCK // 2
        upper, lower = across(over), across(under)
        shares = upper + (lower - upper) * weights if 0 < row < rows else upper
        levels = before[top:bottom].reshape(bottom - top, -1).astype(np.float32)
        denoised = after[top:bottom].reshape(bottom - top, -1)
        taken = np.subtract(levels, denoised, dtype=np.float32)
        taken *= shares
        levels -= taken
        after[top:bottom] = np.rint(levels, out=levels).reshape(bottom - top, width, -1)
