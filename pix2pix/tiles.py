"""Where the tiles of a photograph lie, and how neighbours fade into each other. Numbers alone."""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

# heights and widths are multiples of these, so that photographs share the shapes of tiles: each new
# shape costs 25 ms once. On photographs of 3 to 36 megapixels 16 wastes 0.7% and 32, on both sides,
# 1.7%; but widths that are odd multiples of 16 cost 5% a pixel (bfloat16, oneDNN)
SHAPE_PIXELS = 16, 32
SMALL_SHAPE_PIXELS, SMALL_PHOTOGRAPH = 64, 1_000_000  # ... and fewer shapes where they cost more
# beyond so many columns a pixel costs more, twice as much so many columns further: rows of a layer
# should stay in the cache until the next ones need them. bfloat16, 16 and 32 channels: docs/log.md,
# 2026-11-30, and benchmarks/tiles.py
NARROW_COLUMNS, WIDER_COLUMNS = 1_280, 24_000


class Plan(NamedTuple):
    """Equal tiles: they start at each of `rows` and each of `columns`.

    Starts are multiples of what the generator takes, so that all tiles see the same grid (the
    U-Net's, which is larger than an overlap, start anywhere). The last tile ends less than one such
    multiple beyond the photograph, or, alone, at its rounded side.
    """

    rows: list[int]
    columns: list[int]
    height: int
    width: int


def plan(height: int, width: int, area: int, multiple: int, overlap: int) -> Plan:
    """The tiles that cover a photograph with the least work: pixels, and what one costs.

    Args:
        height: Of the photograph, in pixels.
        width: Likewise.
        area: Pixels of a tile at most (one of `least` squared is always allowed).
        multiple: Heights and widths that the generator takes are multiples of this.
        overlap: Of neighbouring tiles, in pixels, at least.

    Returns:
        The plan; it depends on these numbers alone.
    """
    small = height * width < SMALL_PHOTOGRAPH
    steps = [math.lcm(multiple, SMALL_SHAPE_PIXELS if small else side) for side in SHAPE_PIXELS]
    grid = multiple if multiple <= overlap else 1  # the U-Net's 256: any start will do
    overlap = _rounded(overlap, grid)
    least = _rounded(4 * overlap, max(steps))
    area = max(area, least * least)
    best, fewest = None, math.inf
    for down in _lengths(height, steps[0], least, overlap):
        for across in _lengths(width, steps[1], least, overlap):  # from one tile to many
            if down * across > area:
                continue
            rows, columns = (_starts(side, length, grid, overlap)
                             for side, length in ((height, down), (width, across)))  # fmt: skip
            pixels = len(rows) * len(columns) * down * across
            work = pixels * (1 + max(0, across - NARROW_COLUMNS) / WIDER_COLUMNS)
            if work < fewest:
                best, fewest = Plan(rows, columns, down, across), work
    if best is None:  # can't be: the last of the lengths is `least` at most
        raise ValueError(f"no tiles of {area} pixels cover {height} x {width}")
    return best


def fade(length: int) -> NDArray[np.float32]:
    """Weight of the later of two tiles over their overlap: float32 (length,), 0 to 1.

    Only the inner half fades: what is near a tile's edge, and saw least, counts for nothing.
    """
    place = (np.arange(length, dtype=np.float32) + 0.5) / max(length, 1)
    return np.clip(2 * place - 0.5, 0, 1)


def _rounded(pixels: int, multiple: int) -> int:
    return -(-pixels // multiple) * multiple


def _lengths(side: int, step: int, least: int, overlap: int) -> list[int]:
    """Lengths of 1, 2, 3, ... equal tiles that cover a side, down to `least`."""
    lengths, count = [_rounded(side, step)], 1
    while lengths[-1] > least:
        count += 1
        lengths.append(max(least, _rounded(-(-(side + (count - 1) * overlap) // count), step)))
    return lengths


def _starts(side: int, length: int, grid: int, overlap: int) -> list[int]:
    """Where tiles of a length start, neighbours by an overlap before the other's end, or more.

    Where the last one would begin less than an overlap after its neighbour, the two share what the
    others leave over, so that each fades over as much as any two. The overlap is a multiple of the
    grid.
    """
    if length >= side:
        return [0]
    end = _rounded(side, grid) - length
    count = -(-end // (length - overlap))
    starts = [*range(0, count * (length - overlap), length - overlap), end]
    if count > 1 and end - starts[-2] < overlap:
        starts[-2] = (starts[-3] + end) // 2 // grid * grid
    return starts
