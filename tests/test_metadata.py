"""JPEG segments and PNG chunks, taken off and put back."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pix2pix import metadata

PNG_MODES = {"1": 0, "L": 0, "RGB": 2, "P": 3, "LA": 4, "RGBA": 6}
JFIF = b"\xff\xe0\x00\x10JFIF\0\x01\x01\0\0\x01\0\x01\0\0"
ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\0\x64\0\0\0\0\0"
ADOBE_YCC = ADOBE_RGB[:-1] + b"\x01"


def saved(image: Image.Image, format_name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def png(width: int, height: int, rows: bytes, level: int = 6, interlace: int = 0) -> bytes:
    """An 8-bit grey PNG whose compressed rows stand in chunks of 1000 bytes."""
    packed = zlib.compress(rows, level)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlace))]
    chunks += [(b"IDAT", packed[start : start + 1000]) for start in range(0, len(packed), 1000)]
    return metadata.PNG_START + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in [*chunks, (b"IEND", b"")]
    )


JPEG = saved(Image.new("RGB", (24, 16), (200, 60, 90)), "JPEG", comment=b"a comment")


def test_a_jpeg_is_taken_apart_without_a_byte_lost() -> None:
    parted = metadata.jpeg(JPEG + b"more")
    assert [segment[:2] for segment in parted.segments] == [b"\xff\xe0", b"\xff\xfe"]
    assert (parted.width, parted.height, parted.bit_depth) == (24, 16, 8)
    assert (parted.components, parted.frame, parted.trailing) == (b"\1\2\3", 0xC0, b"more")
    assert metadata.jpeg_with(JPEG, parted.segments) == JPEG
    assert len(parted.coded) + sum(map(len, parted.segments)) == len(JPEG)


def test_fill_bytes_before_a_marker_are_skipped() -> None:
    assert metadata.jpeg(JPEG[:2] + b"\xff\xff" + JPEG[2:]).coded == metadata.jpeg(JPEG).coded


def test_an_end_inside_a_segment_does_not_end_the_picture() -> None:
    inside = b"\xff\xe5\x00\x08\xff\xd9\xff\xda\xff\xd9"
    assert inside in metadata.jpeg(JPEG[:2] + inside + JPEG[2:]).segments


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
    coded = bytearray(metadata.jpeg(data).coded)
    frame, scan = coded.index(b"\xff\xc0"), coded.index(b"\xff\xda")
    for i, identifier in enumerate(identifiers):
        coded[frame + 10 + 3 * i] = identifier
        coded[scan + 5 + 2 * i] = identifier
    if segments and len(segments[0]) == 6:
        segments = [b"\xff\xee\x00\x04" + segments[0][4:6]]
    data = metadata.JPEG_START + b"".join(segments) + coded[2:]
    assert metadata.jpeg(data).stores_rgb == is_rgb
    expected = (255, 128, 128) if is_rgb else (255, 255, 255)
    for file in (data, metadata.jpeg(data).decodable):
        assert Image.open(io.BytesIO(file)).getpixel((0, 0)) == expected


@pytest.mark.parametrize("mode", PNG_MODES)
@pytest.mark.parametrize("width", [1, 3, 8, 17])
def test_row_bytes_are_what_a_png_inflates_to(mode: str, width: int) -> None:
    data = saved(Image.new(mode, (width, 5)), "PNG")
    start = data.index(b"IDAT")
    packed = data[start + 4 : start + 4 + int.from_bytes(data[start - 4 : start], "big")]
    parted = metadata.png(data)
    assert parted.color == PNG_MODES[mode]
    assert parted.row_bytes == len(zlib.decompress(packed))


@pytest.mark.parametrize(("side", "expected"), [(1, 2), (2, 7), (8, 79)])
def test_row_bytes_of_an_interlaced_png(side: int, expected: int) -> None:
    # 8x8 in Adam7: 1+1+1+2+2+4+4 rows, each with its filter's byte, and 64 samples.
    assert metadata.png(png(side, side, b"", interlace=1)).row_bytes == expected


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("size", [(1, 1), (1023, 1024), (1023, 1025), (2047, 1500)])
@pytest.mark.parametrize("is_noise", [False, True])
def test_a_missing_byte_makes_a_png_incomplete(
    size: tuple[int, int], level: int, is_noise: bool
) -> None:
    width, height = size
    count = (width + 1) * height
    rows = np.random.default_rng(0).bytes(count) if is_noise else bytes(count)
    assert metadata.png(png(width, height, rows, level)).is_complete()
    assert not metadata.png(png(width, height, rows[:-1], level)).is_complete()


def test_broken_structures_say_where() -> None:
    good = png(2, 2, b"\0\1\2\0\3\4")
    for data, text in [
        (JPEG[:40], "truncated"),
        (JPEG[:-2], "breaks off in its picture"),
        (JPEG[:2] + b"\xff\xd8" + JPEG[2:], "marker 0xd8 at byte 3"),
        (JPEG[:20] + b"junk" + JPEG[20:], "no JPEG marker at byte 20"),
        (good[:50], "b'IDAT' at byte 33 breaks off"),
        (good[:-13] + b"x" + good[-12:], "b'IDAT' at byte 33 has a wrong checksum"),
        (good[:33] + good[8:33] + good[33:], "must start with one IHDR"),
        (b"text", "neither JPEG nor PNG"),
    ]:
        with pytest.raises(ValueError, match=text):
            metadata.parted(data)
