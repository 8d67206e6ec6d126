"""JPEG segments, taken off and put back."""

import io
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pix2pix.formats import jpeg, jpeg_segments

JFIF = b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0\0"
ADOBE_YCC = ADOBE_RGB[:-1] + b"\x01"


def saved(image: Image.Image, format_name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


JPEG = saved(Image.new("RGB", (24, 16), (200, 60, 90)), "JPEG", comment=b"a comment")


def test_a_jpeg_is_taken_apart_without_a_byte_lost() -> None:
    parted = jpeg.parted(JPEG + b"more")
    assert [segment[:2] for segment in parted.segments] == [b"\xff\xe0", b"\xff\xfe"]
    assert (parted.width, parted.height, parted.bit_depth) == (24, 16, 8)
    assert (parted.components, parted.frame, parted.trailing) == (b"\1\2\3", 0xC0, b"more")
    ends = [place + len(part) for place, part in zip(parted.places, parted.segments, strict=True)]
    assert [JPEG[start:end] for start, end in zip(parted.places, ends, strict=True)] == [
        *parted.segments
    ]
    pieces = [jpeg.START, *parted.segments, parted.head, parted.body]
    assert sum(map(len, pieces)) == parted.end == len(JPEG)


def test_fill_bytes_before_a_marker_are_skipped() -> None:
    filled = jpeg.parted(JPEG[:2] + b"\xff\xff" + JPEG[2:])
    assert filled.segments == jpeg.parted(JPEG).segments
    assert filled.places[0] == 4


def test_an_end_inside_a_segment_does_not_end_the_picture() -> None:
    inside = b"\xff\xe5\x00\x08\xff\xd9\xff\xda\xff\xd9"
    assert inside in jpeg.parted(JPEG[:2] + inside + JPEG[2:]).segments


@pytest.mark.parametrize(
    ("segments", "identifiers", "is_rgb"),
    [
        ([], b"\1\2\3", False),
        ([], b"RGB", True),
        ([JFIF], b"RGB", False),
        ([ADOBE_RGB], b"\1\2\3", True),
        ([ADOBE_YCC], b"RGB", False),
        ([JFIF, ADOBE_RGB], b"\1\2\3", False),
        ([ADOBE_RGB, ADOBE_YCC], b"\1\2\3", False),
        ([ADOBE_RGB[:6]], b"\1\2\3", False),
    ],
)
def test_colours_are_guessed_as_libjpeg_does(
    segments: list[bytes], identifiers: bytes, is_rgb: bool
) -> None:
    # Written with luma first, grey is (128, 128, 128); read as RGB, chroma's 128 is green and blue.
    data = saved(Image.new("RGB", (8, 8), (255, 255, 255)), "JPEG", quality=100, subsampling=0)
    coded = bytearray(jpeg.START + jpeg.parted(data).head + jpeg.parted(data).body)
    frame, scan = coded.index(b"\xff\xc0"), coded.index(b"\xff\xda")
    for i, identifier in enumerate(identifiers):
        coded[frame + 10 + 3 * i] = identifier
        coded[scan + 5 + 2 * i] = identifier
    if segments and len(segments[0]) == 6:
        segments = [b"\xff\xee\x00\x04" + segments[0][4:6]]
    data = jpeg.START + b"".join(segments) + coded[2:]
    assert jpeg.parted(data).stores_rgb == is_rgb
    expected = (255, 128, 128) if is_rgb else (255, 255, 255)
    for file in (data, jpeg.parted(data).decodable):
        assert Image.open(io.BytesIO(file)).getpixel((0, 0)) == expected


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (JPEG[:40], "truncated"),
        (JPEG[:-2], "breaks off in its picture"),
        (JPEG[:2] + b"\xff\xd8" + JPEG[2:], "marker 0xd8 at byte 3"),
        (JPEG[:20] + b"junk" + JPEG[20:], "no JPEG marker at byte 20"),
    ],
)
def test_broken_structures_say_where(data: bytes, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        jpeg.parted(data)


def _one_segment(data: bytes) -> bytes:
    """The same file with all its Huffman tables in one segment, as cameras write them."""
    parts = jpeg.parted(data)
    segments = re.findall(rb"(?s)\xff\xc4(?=(..))", parts.head)
    found, head = b"", parts.head
    for size in (int.from_bytes(each, "big") for each in segments):
        place = head.index(b"\xff\xc4")
        found, head = (
            found + head[place + 4 : place + 2 + size],
            head[:place] + head[place + 2 + size :],
        )
    joined = b"\xff\xc4" + (2 + len(found)).to_bytes(2, "big") + found
    return jpeg.START + head + joined + parts.body


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_huffman_tables_are_made_for_a_picture_only_if_its_source_s_were(
    mode: str, optimize: bool, together: bool
) -> None:
    chance = np.random.default_rng(0)
    picture = Image.fromarray(chance.integers(0, 256, (80, 64, 3), np.uint8)).convert(mode)
    data = saved(picture, "JPEG", optimize=optimize)
    source = jpeg.parted(_one_segment(data) if together else data)
    pixels = np.asarray(Image.new(mode, (64, 80), (90,) * len(mode))).reshape(80, 64, -1)
    written = jpeg.parted(source.encoded(lambda first, end: pixels[first:end], None, None))
    tables = jpeg_segments.huffman_tables(written.head)
    usual = jpeg_segments.huffman_tables(jpeg.parted(saved(picture, "JPEG")).head)
    assert len(usual) == (2 if mode == "L" else 4)
    assert sorted(map(len, usual))[-1] == 17 + 162  # of the AC tables in annex K.3
    assert (tables == usual) == (not optimize)
    np.testing.assert_allclose(written.stored(), pixels, atol=2)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"quality": 3}])
def test_what_is_whole_is_decoded_to_pillow_s_pixels(mode: str, options: dict[str, Any]) -> None:
    chance = np.random.default_rng(0)
    picture = Image.fromarray(chance.integers(0, 256, (67, 41, 3), np.uint8)).convert(mode)
    data = saved(picture, "JPEG", **options)
    expected = np.asarray(Image.open(io.BytesIO(data))).reshape(67, 41, -1)
    parted = jpeg.parted(data)
    np.testing.assert_array_equal(parted.stored(), expected)
    assert parted._whole() is not None  # so it wasn't Pillow that decoded it


def test_missing_data_with_an_end_behind_it_is_damage() -> None:
    chance = np.random.default_rng(0)
    whole = saved(Image.fromarray(chance.integers(0, 256, (64, 64, 3), np.uint8)), "JPEG")
    parted = jpeg.parted(whole[: len(whole) * 3 // 4] + whole[-2:])
    assert parted._whole() is None
    with pytest.raises(ValueError, match="can't be decoded"):
        parted.stored()
