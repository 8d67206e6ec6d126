"""Whether a result may replace its photograph: a gate that no damage of the picture passes.

Noise averages out over blocks of 8 x 8 pixels and the picture doesn't: what moved there is judged
by the noise that there was, over the whole photograph and in its worst place.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pix2pix import metrics
from pix2pix.texture import BLOCK

WINDOW = 8  # blocks: a side of what counts as one place

# limits: what is allowed without noise, and in addition per level of noise. The truth stays below
# all in 136 of the 137 pairs of SIDD-Small; docs/log.md has the table
SHIFT = (2.5, 0.3)
CHANGE = (2.0, 0.4)
WORST_SHIFT = (3.5, 0.6)
WORST_CHANGE = (3.0, 0.55)
ADDED = (4.0, 0.1)
CLIPPED = 0.02  # share of the values, beside those that were near the end before

CLEAN_SIGMA = 0.15  # noise of 5 levels reads 0.22 after a JPEG of quality 75, 0.07 after one of 60
LITTLE, LITTLE_IN_A_PLACE = 1.0, 2.0  # levels, root mean square: 48 dB, and in 64 x 64 pixels
EVERY, ROWS = 4, 48  # every fourth row of blocks shows the noise that has gone, or so many rows
FEWEST_PIXELS = 29  # smaller sides say nothing of the noise, see `metrics.noise_sigma`


@dataclass(frozen=True)
class Verdict:
    """What a result changed, in levels of 255, and what of it is too much.

    Args:
        message: "" where nothing is; else each number over its limit, as
            "mean shift 7.3 > 4.0".
        mean_shift: Of the mean of a channel, the largest.
        change: Root mean square change of the blocks.
        worst_shift: Change of the mean of a channel over one place (64 x 64 pixels), the largest.
        worst_change: Root mean square change of the blocks of one place, the largest.
        clipped_added: Share of the values that went to 0 or 255.
        noise_added: By how much half of the blocks vary more, at least.
    """

    message: str
    mean_shift: float
    change: float
    worst_shift: float
    worst_change: float
    clipped_added: float
    noise_added: float

    @property
    def accepted(self) -> bool:
        """Whether the result may replace its photograph."""
        return not self.message


def verdict(before: NDArray[np.uint8], after: NDArray[np.uint8], noise_sigma: float) -> Verdict:
    """Judges a result by its photograph.

    Args:
        before: The photograph, uint8 (height, width, 3), RGB.
        after: The result as it will be seen, uint8, same shape.
        noise_sigma: `metrics.noise_sigma` of the photograph, in levels; what has gone counts if
            it is more.

    Raises:
        TypeError: an image is not a uint8 array.
        ValueError: a shape is not (height, width, 3), or the two differ.
    """
    metrics.check_two(before, after)
    # an estimate from the photograph alone reads a fifth where neighbours share the noise
    removed = removed_sigma(before, after)
    noise_sigma = max(noise_sigma, removed)
    blocks = _block_means(before)
    moved = _block_means(after) - blocks  # float32 (rows, columns, 3)
    squares = np.square(moved).mean(axis=2, keepdims=True)
    near = noise_sigma + 2
    may_clip = float(np.mean((blocks < near) | (blocks > 255 - near)))
    found = {
        "mean shift": (float(np.abs(moved.mean(axis=(0, 1))).max()), _limit(SHIFT, noise_sigma)),
        "change": (float(squares.mean()) ** 0.5, _limit(CHANGE, noise_sigma)),
        "worst shift of a place": (
            float(np.abs(_window_means(moved)).max()), _limit(WORST_SHIFT, noise_sigma),
        ),
        "worst change of a place": (
            float(_window_means(squares).max()) ** 0.5, _limit(WORST_CHANGE, noise_sigma),
        ),
        "clipped values added": (
            metrics.clipped_fraction(after) - metrics.clipped_fraction(before), CLIPPED + may_clip,
        ),
        "noise added": (max(0.0, -removed), _limit(ADDED, noise_sigma)),
    }  # fmt: skip
    words = [f"{name} {value:.3g} > {limit:.3g}" for name, (value, limit) in found.items()
             if value > limit]  # fmt: skip
    return Verdict("; ".join(words), *(value for value, _ in found.values()))


def removed_sigma(before: NDArray[np.uint8], after: NDArray[np.uint8]) -> float:
    """By how much a photograph varies less than before within blocks: the noise that has gone.

    The root of the median difference of their variances, in levels; negative where half of the
    blocks vary more. After most damage it is about 0. In some 48 rows of blocks, evenly spread.

    Args:
        before: The photograph, uint8 (height, width, 3).
        after: The result, same shape.
    """
    columns = before.shape[1] // BLOCK
    less = []
    every = max(EVERY, before.shape[0] // BLOCK // ROWS)
    for top in range(0, before.shape[0] - BLOCK + 1, every * BLOCK):
        strips = (image[top : top + BLOCK, : columns * BLOCK] for image in (before, after))
        was, now = (_variances(strip.reshape(BLOCK, columns, BLOCK, 3)) for strip in strips)
        less.append(was - now)
    median = float(np.median(np.concatenate(less))) if less and columns else 0.0
    return math.copysign(abs(median) ** 0.5, median)


def _variances(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Of uint8 (8, blocks, 8, 3): float32 (blocks,), the mean over the colours."""
    values = blocks.astype(np.float32)
    squares = np.einsum("ijkl,ijkl->j", values, values) / (BLOCK * BLOCK * 3)
    means = values.sum(axis=0).sum(axis=1) / (BLOCK * BLOCK)  # (blocks, 3)
    return squares - np.square(means).mean(axis=1)


def is_clean(
    image: NDArray[np.uint8], noise_sigma: float, clean_sigma: float = CLEAN_SIGMA
) -> bool:
    """Whether a photograph has so little noise that it's better left alone.

    Args:
        image: uint8 (height, width, 3), RGB.
        noise_sigma: What `metrics.noise_sigma` says of it, in levels.
        clean_sigma: Up to what level it is clean.

    Returns:
        True up to `clean_sigma`; False for what is too small to judge, unless it is of one colour.
    """
    if min(image.shape[:2]) < FEWEST_PIXELS:
        return bool((image == image[:1, :1]).all())
    return noise_sigma <= clean_sigma


def takes_little(energy: NDArray[np.float32]) -> bool:
    """Whether so little would be taken from a photograph that it is as good as clean.

    Nobody sees it, and to code a JPEG once more would cost more.

    Args:
        energy: Of what would be taken, float32 (rows, columns) of blocks of 8 x 8 pixels: mean
            squares, in levels of 255 (see `denoiser.Result`).
    """
    if energy.size == 0:
        return False  # too small to say
    worst = _window_means(energy[..., np.newaxis]).max()
    return bool(energy.mean() < LITTLE**2 and worst < LITTLE_IN_A_PLACE**2)


def _limit(rule: tuple[float, float], noise_sigma: float) -> float:
    return rule[0] + rule[1] * noise_sigma


def _block_means(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Means of blocks of 8 x 8: float32 (rows, columns, 3); up to 7 pixels at the end don't count.

    A photograph under 8 pixels high or wide is mirrored.
    """
    missing = [max(0, BLOCK - side) for side in image.shape[:2]]
    if any(missing):
        image = np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")
    rows, columns = image.shape[0] // BLOCK, image.shape[1] // BLOCK
    # sums of 8 rows as integers, then a matrix that sums 8 pixels of each channel: a third of the
    # time of two calls of `sum`
    across = np.tile(np.eye(3, dtype=np.float32), (BLOCK, 1)) / BLOCK**2
    means = np.empty((rows, columns, 3), np.float32)
    for row in range(rows):
        strip = image[row * BLOCK : (row + 1) * BLOCK, : columns * BLOCK].reshape(BLOCK, -1)
        down = np.add(strip[0], strip[1], dtype=np.uint16)  # 8 * 255 fit
        for line in strip[2:]:
            down += line
        np.matmul(down.reshape(columns, -1).astype(np.float32), across, out=means[row])
    return means


def _window_means(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means over windows of 8 x 8 blocks; the last one of each side takes what is left over."""
    for axis in (0, 1):
        length = blocks.shape[axis]
        starts = np.arange(max(1, length // WINDOW)) * WINDOW
        lengths = np.diff([*starts, length]).astype(np.float32)
        blocks = np.add.reduceat(blocks, starts, axis=axis)
        blocks /= lengths[:, None, None] if axis == 0 else lengths[:, None]
    return blocks
