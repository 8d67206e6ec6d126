from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pix2pix import tiles

CAMERAS = [
    (2000, 1500), (2048, 2048), (2592, 1944), (3000, 2000), (3264, 2448), (3840, 2160),
    (4000, 3000), (4032, 3024), (4608, 3456), (5184, 3456), (6000, 4000), (7360, 4912),
]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 9000), st.integers(1, 9000), st.sampled_from([400, 1024, 2048]))
def test_tiles_cover_every_pixel_and_overlap_enough(height: int, width: int, side: int) -> None:
    plan = tiles.plan(height, width, side * side, 8, 80)
    assert plan.height * plan.width <= side * side
    assert (plan.height % 16, plan.width % 32) == (0, 0)
    for starts, length, size in (
        (plan.rows, plan.height, height),
        (plan.columns, plan.width, width),
    ):
        assert starts[0] == 0
        assert starts[-1] + length >= size
        assert all(start % 8 == 0 for start in starts)
        for one, two in pairwise(starts):
            assert 80 <= one + length - two <= length  # neighbours overlap
        for one, two, three in zip(starts, starts[1:], starts[2:], strict=False):
            assert min(one + length, three) - two >= 80  # so far it fades before the next begins
        if len(starts) > 1:
            assert starts[-1] + length < size + 8  # hardly any mirrored pixel


def test_the_unet_s_tiles_are_256_pixels_and_start_anywhere() -> None:
    assert tiles.plan(300, 256, 256 * 256, 256, 64) == ([0, 44], [0], 256, 256)


def test_the_last_two_tiles_share_what_is_left_over() -> None:
    # 0, 192 and 194 would be the U-Net's: the second has hardly faded in when the third begins
    assert tiles.plan(450, 450, 256 * 256, 256, 64)[:2] == ([0, 97, 194], [0, 97, 194])
    assert tiles.plan(1500, 736, 416 * 416, 8, 103).columns == [0, 160, 320]  # not 0, 312, 320


BFLOAT16, FLOAT32 = 2258**2, 1767**2  # areas of the default generator's tiles, which overlap by 103


def test_a_photograph_of_12_megapixels_is_three_tiles() -> None:
    # 4 of 1568 x 2080 would have 0.1% fewer pixels, which cost 1.033 each: these cost 1.007
    assert tiles.plan(3024, 4032, BFLOAT16, 8, 103) == ([0], [0, 1336, 2592], 3024, 1440)
    plan = tiles.plan(3000, 4000, BFLOAT16, 8, 103)
    assert plan == ([0], [0, 1304, 2592], 3008, 1408)
    assert 3 * plan.height * plan.width < 1.06 * 12e6
    assert tiles.plan(3000, 4000, FLOAT32, 8, 103) == ([0, 1448], [0, 1304, 2592], 1552, 1408)


def test_a_wide_photograph_is_cut_though_one_tile_would_hold_it() -> None:
    # one: 4000 columns cost 1.113 a pixel. Two: 2 * 2048 - 80 are 16 too many, at 1.032 a pixel.
    # Three of 1408: 1.005 a pixel, but 1.06 times the pixels
    assert tiles.plan(3000, 4000, 4096 * 3072, 8, 80) == ([0], [0, 1952], 3008, 2048)
    assert tiles.plan(3000, 2000, 4096 * 3072, 8, 80) == ([0], [0], 3008, 2016)


def test_lengths_are_reckoned_with_the_overlap_that_tiles_have() -> None:
    # 103 become 104: two of 1792 columns would be a pixel short, and three of 1248 have 3% more
    assert tiles.plan(1953, 3481, BFLOAT16, 8, 103) == ([0], [0, 1664], 1968, 1824)


@pytest.mark.parametrize(
    ("area", "overlap", "most", "mean"),
    [
        (2048 * 2048, 80, 0.085, 0.06),
        (3061 * 3061, 103, 0.07, 0.04),  # larger tiles than the product's
        (BFLOAT16, 103, 0.09, 0.05),
    ],
)
def test_little_is_wasted_on_photographs_of_cameras(
    area: int, overlap: int, most: float, mean: float
) -> None:
    waste = []
    for width, height in CAMERAS:
        plan = tiles.plan(height, width, area, 8, overlap)
        work = len(plan.rows) * len(plan.columns) * plan.height * plan.width
        waste.append(work / (height * width) - 1)
    assert max(waste) < most
    assert np.mean(waste) < mean


def test_small_photographs_share_shapes() -> None:
    sizes = np.random.default_rng(0).integers(100, 800, (300, 2))
    shapes = {tiles.plan(int(h), int(w), 2048 * 2048, 8, 80)[2:] for h, w in sizes}
    assert len(shapes) <= 144


@pytest.mark.parametrize("length", [1, 2, 64, 81])
def test_weights_of_two_tiles_add_up_to_1(length: int) -> None:
    weights = tiles.fade(length)
    np.testing.assert_allclose(weights + weights[::-1], 1, atol=1e-6)
    assert (np.diff(weights) >= 0).all()


def test_what_lies_within_a_quarter_of_the_edge_counts_for_nothing() -> None:
    assert (tiles.fade(80)[:20] == 0).all()
    assert tiles.fade(80)[20] > 0
