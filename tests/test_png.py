"""PNG chunks, taken off and put back."""

import io
import resource
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pix2pix.formats import png

MODES = {"L": 0, "RGB": 2, "P": 3, "LA": 4, "RGBA": 6}


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
def test_pixels_are_what_pillow_reads(mode: str, width: int) -> None:
    source = Image.new(
        mode, (width, 5), 200 if len(mode) == 1 else tuple(range(40, 40 + len(mode)))
    )
    file = io.BytesIO()
    source.save(file, "PNG")
    parted = png.parted(file.getvalue())
    assert parted.color == MODES[mode]
    expected = np.asarray(source.convert("RGB") if mode == "P" else source)
    np.testing.assert_array_equal(expected.reshape(5, width, -1), parted.stored())


@pytest.mark.parametrize("size", [(1, 1), (1023, 1024), (1023, 1025), (2047, 1500)])
@pytest.mark.parametrize("is_noise", [False, True])
def test_a_missing_byte_is_noticed(size: tuple[int, int], is_noise: bool) -> None:
    width, height = size
    row = b"\0" + (np.random.default_rng(0).bytes(width) if is_noise else bytes(width))
    assert png.parted(grey(width, height, row * height)).stored().shape == (height, width, 1)
    with pytest.raises(ValueError, match="can't be decoded"):
        png.parted(grey(width, height, (row * height)[:-1])).stored()


def test_damaged_files_leave_no_memory_and_no_references_behind() -> None:
    # libpng's longjmp skips what imagecodecs would have released; thousands would end the process.
    width, height = 2000, 1000
    short = grey(width, height, bytes((width + 1) * (height - 1)))
    before, memory = sys.getrefcount(None), resident_megabytes()
    for _ in range(40):
        with pytest.raises(ValueError, match="can't be decoded"):
            png.parted(short).stored()
    assert abs(sys.getrefcount(None) - before) < 40
    assert resident_megabytes() - memory < 20


def resident_megabytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() // 2**20


def test_of_two_packets_the_first_is_replaced_and_the_second_stays() -> None:
    one, two = (
        struct.pack(">I", len(text))
        + b"iTXt"
        + text
        + struct.pack(">I", zlib.crc32(b"iTXt" + text))
        for text in (png.XMP + png.PLAIN + packet for packet in (b"first", b"second"))
    )
    for data in (
        GOOD[:33] + one + two + GOOD[33:],
        GOOD[:33] + one + GOOD[33:-12] + two + GOOD[-12:],
    ):
        result = png.parted(data).encoded(lambda *_: np.zeros((2, 2, 1), np.uint8), None, b"new")
        assert png.parted(result).xmp == b"new"
        assert result.count(two) == 1


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
