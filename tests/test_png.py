"""PNG chunks, taken off and put back."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pix2pix import png

MODES = {"1": 0, "L": 0, "RGB": 2, "P": 3, "LA": 4, "RGBA": 6}


def grey(width: int, height: int, rows: bytes, level: int = 6, interlace: int = 0) -> bytes:
    """An 8-bit grey PNG whose compressed rows stand in chunks of 1000 bytes."""
    packed = zlib.compress(rows, level)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlace))]
    chunks += [(b"IDAT", packed[start : start + 1000]) for start in range(0, len(packed), 1000)]
    return png.START + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in [*chunks, (b"IEND", b"")]
    )


GOOD = grey(2, 2, b"\0\1\2\0\3\4")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("width", [1, 3, 8, 17])
def test_row_bytes_are_what_a_png_inflates_to(mode: str, width: int) -> None:
    file = io.BytesIO()
    Image.new(mode, (width, 5)).save(file, "PNG")
    data = file.getvalue()
    start = data.index(b"IDAT")
    packed = data[start + 4 : start + 4 + int.from_bytes(data[start - 4 : start], "big")]
    parted = png.parted(data)
    assert parted.color == MODES[mode]
    assert parted.row_bytes == len(zlib.decompress(packed))


@pytest.mark.parametrize(("side", "expected"), [(1, 2), (2, 7), (8, 79)])
def test_row_bytes_of_an_interlaced_png(side: int, expected: int) -> None:
    # 8x8 in Adam7: 1+1+1+2+2+4+4 rows, each with its filter's byte, and 64 samples.
    assert png.parted(grey(side, side, b"", interlace=1)).row_bytes == expected


@pytest.mark.parametrize("level", [0, 1, 9])
@pytest.mark.parametrize("size", [(1, 1), (1023, 1024), (1023, 1025), (2047, 1500)])
@pytest.mark.parametrize("is_noise", [False, True])
def test_a_missing_byte_makes_a_png_incomplete(
    size: tuple[int, int], level: int, is_noise: bool
) -> None:
    width, height = size
    count = (width + 1) * height
    rows = np.random.default_rng(0).bytes(count) if is_noise else bytes(count)
    assert png.parted(grey(width, height, rows, level)).is_complete()
    assert not png.parted(grey(width, height, rows[:-1], level)).is_complete()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (GOOD[:50], "b'IDAT' at byte 33 breaks off"),
        (GOOD[:-13] + b"x" + GOOD[-12:], "b'IDAT' at byte 33 has a wrong checksum"),
        (GOOD[:33] + GOOD[8:33] + GOOD[33:], "must start with one IHDR"),
    ],
)
def test_broken_structures_say_where(data: bytes, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        png.parted(data)
