"""Which format a file has, and what every format's module makes of it: the same kind of thing."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from pix2pix.formats import heif, jpeg, png, tiff, webp

OTHER_FORMATS = (  # by how their files start
    (b"IIR", "Olympus raw"),
    (b"MMOR", "Olympus raw"),
    (b"IIU\0", "Panasonic raw"),
    (b"FUJIFILMCCD-RAW", "Fujifilm raw"),
    (b"FOVb", "Sigma raw"),
    (b"\0MRM", "Minolta raw"),
    (b"GIF8", "GIF"),
    (b"8BPS", "Photoshop"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"qoif", "QOI"),
    (b"\0\0\1\0", "ICO"),
)


class Source(Protocol):
    """A file taken apart, as each format's module does it."""

    @property
    def format(self) -> str:
        """Its format: "JPEG", "PNG", "TIFF", "WebP", "HEIC" or "AVIF"."""

    @property
    def mode(self) -> str:
        """How it stores a pixel: "L", "LA", "RGB" or "RGBA"."""

    @property
    def height(self) -> int:
        """Rows, as stored."""

    @property
    def width(self) -> int:
        """Columns, as stored."""

    @property
    def bit_depth(self) -> int:
        """Bits of a sample."""

    @property
    def xmp(self) -> bytes | None:
        """The XMP packet."""

    @property
    def xmp_bytes(self) -> int:
        """The largest XMP packet that can be put in."""

    @property
    def refusal(self) -> str | None:
        """Why the picture can't be had in RGB as it is meant, if so."""

    @property
    def loss(self) -> str | None:
        """What would be lost if the pixels were replaced."""

    def stored(self) -> np.ndarray:
        """The pixels as stored, uint8 or uint16 (height, width, channels)."""

    def encoded(
        self, rows: Callable[[int, int], np.ndarray], quality: int | None, packet: bytes | None
    ) -> bytes:
        """A file like this one with other pixels."""


def parted(data: bytes) -> Source:
    """A file taken apart by the module of its format.

    Raises:
        ValueError: it starts like none that we know, or its structure is broken.
    """
    if data.startswith(jpeg.START + b"\xff"):
        return jpeg.parted(data)
    if data.startswith(png.START):
        return png.parted(data)
    if data.startswith(tiff.STARTS):
        return tiff.parted(data)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return webp.parted(data)
    if heif.is_heif(data):
        return heif.parted(data)
    raise ValueError(f"{len(data)} bytes that start with {data[:8]!r} are no image that we know")


def other(data: bytes) -> str | None:
    """The name of another image format that the bytes start like."""
    if data[:2] == b"BM" and data[6:10] == bytes(4):  # two letters alone would be many a text
        return "BMP"
    if data[4:12] == b"ftypcrx ":
        return "Canon raw"
    return next((name for known, name in OTHER_FORMATS if data.startswith(known)), None)
