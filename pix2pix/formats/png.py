"""PNG files: chunks taken off and put back byte for byte, pixels coded by libpng.

libpng comes by way of imagecodecs: Pillow has no 16-bit colour, and holds four bytes for three. A
broken structure raises ValueError that says where it breaks.

Source: PNG third edition, sections 5, 11 and 14, https://www.w3.org/TR/png-3/
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import imagecodecs
import numpy as np

from pix2pix.formats import xmp

# The bit depths that each colour type may have.
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
MODES = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
PALETTE = 3
START = b"\x89PNG\r\n\x1a\n"
# A PNG chunk says by its name's fourth letter whether an editor that doesn't know it may copy it.
# These say no, but what they describe stays as it was when only pixel values change.
STAYS_TRUE = frozenset(
    b"PLTE bKGD cHRM cICP cLLI gAMA iCCP mDCV pCAL sBIT sCAL sPLT sRGB sTER tIME".split()
)
CHUNK_BYTES = 12  # around a chunk's content: length, name, checksum
IHDR_BYTES = CHUNK_BYTES + 13
# Photographs, 2026-11: libpng's level 6 with all filters takes twice as long for 1% less.
COMPRESSION = 4
FILTERS = 0x08 | 0x10 | 0x20  # none, sub, up: without those of several multiplications a byte
FILTERED = 1  # zlib's strategy for such data
XMP = b"XML:com.adobe.xmp\0"
MOST_CHUNKS = 2**19  # libpng writes 8 kB in one
PLAIN = bytes(4)  # behind XMP: not compressed, zlib, no language, no translated keyword


@dataclass(frozen=True, eq=False, repr=False)
class Png:
    """A PNG file taken apart.

    Attributes:
        bit_depth: bits of a sample, or of a palette's index.
        height: rows.
        width: columns.
        color: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha.
        names: the names of all chunks.
        before: the chunks, whole, that stay true for other pixels and stand before them, in order.
        after: the same for those behind the pixels.
        coded: the file's critical chunks only.
        trailing: what follows the end chunk.
    """

    bit_depth: int
    height: int
    width: int
    color: int
    names: frozenset[bytes]
    before: tuple[bytes, ...]
    after: tuple[bytes, ...]
    coded: tuple[memoryview, ...]
    trailing: bytes

    @property
    def format(self) -> str:
        """The format's name."""
        return "PNG"

    @property
    def mode(self) -> str:
        """How the file stores a pixel: "L", "LA", "RGB", "RGBA" or "P"."""
        return MODES[self.color]

    @property
    def xmp(self) -> bytes | None:
        """The XMP packet; an endless one (a bomb) counts as none that can be read."""
        chunks = [chunk for chunk in (*self.before, *self.after) if _is_xmp(chunk)]
        return _packet(chunks[0]) if chunks else None

    @property
    def xmp_bytes(self) -> int:
        """The largest XMP packet that we put in."""
        return xmp.LARGEST_BYTES

    @property
    def refusal(self) -> str | None:
        """Why the picture can't be had in RGB as it is meant, if so."""
        known = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
        needs = sorted(name.decode() for name in self.names - known if name[:1].isupper())
        if needs:
            return f"the PNG can't be read without {needs}, which we don't know"
        if b"acTL" in self.names:
            return "the PNG is animated; only still images are read"
        if self.bit_depth < 8 and self.color != PALETTE:
            return f"the PNG's bit depth is {self.bit_depth}; only 8 and 16 bits are read"
        return None

    @property
    def loss(self) -> str | None:
        """What would be lost if the pixels were replaced."""
        if self.color == PALETTE:
            return "the PNG has a palette, which can't hold a denoised picture's colours"
        if b"tRNS" in self.names:
            return "the PNG has a transparent colour (tRNS), which denoising would blur away"
        return None

    def stored(self) -> np.ndarray:
        """The pixels as stored, uint8 or uint16 (height, width, channels); a palette's in RGB.

        Raises:
            ValueError: the coded picture is damaged or has too few rows.
        """
        channels = 3 if self.color == PALETTE else len(self.mode)
        shape = (self.height, self.width, channels)[: 2 if channels == 1 else 3]
        pixels = np.empty(shape, np.uint16 if self.bit_depth == 16 else np.uint8)
        try:
            # Without `out`, each damaged file takes a reference from None (imagecodecs 2026.3.6, by
            # libpng's longjmp) until the process dies; with it, each keeps one of the array.
            imagecodecs.png_decode(b"".join([START, *self.coded]), out=pixels)
        except (imagecodecs.PngError, ValueError) as error:
            pixels.resize(0, refcheck=False)
            raise ValueError(f"the PNG can't be decoded: {error}") from error
        return pixels.reshape(self.height, self.width, -1)

    def encoded(
        self, rows: Callable[[int, int], np.ndarray], quality: int | None, packet: bytes | None
    ) -> bytes:
        """A file like this one with other pixels; the rows are filtered and compressed anew.

        Args:
            rows: from the first row and the one after the last to pixels as `stored` gives them.
            quality: nothing is lost in a PNG, so it doesn't matter.
            packet: the XMP packet to write; None leaves metadata alone.
        """
        pixels = rows(0, self.height)
        pixels = np.ascontiguousarray(pixels[..., 0] if self.mode == "L" else pixels)
        coded = memoryview(
            imagecodecs.png_encode(pixels, level=COMPRESSION, filter=FILTERS, strategy=FILTERED)
        )
        before, after = self.before, self.after
        if packet is not None:
            new = _chunk(b"iTXt", XMP + PLAIN + packet)
            chunks = [*before, *after]
            places = [place for place, chunk in enumerate(chunks) if _is_xmp(chunk)]
            if places:  # of several only the first, which is the one that was read
                chunks[places[0]] = new
                before, after = tuple(chunks[: len(before)]), tuple(chunks[len(before) :])
            else:
                before = (*before, new)
        start, end = len(START) + IHDR_BYTES, len(coded) - CHUNK_BYTES  # IEND is empty
        pieces: list[bytes | memoryview] = [
            coded[:start],
            *before,
            coded[start:end],
            *after,
            coded[end:],
            self.trailing,
        ]
        return b"".join(pieces)


def parted(data: bytes) -> Png:
    """A PNG file taken apart into its coded picture and its metadata.

    Args:
        data: a whole file that starts with `START`.

    Raises:
        ValueError: the structure is broken, a checksum is wrong or the file is truncated.
    """
    chunks = _chunks(data)
    names = [name for name, _ in chunks]
    first = names.index(b"IDAT") if b"IDAT" in names else 0
    last = first + names.count(b"IDAT")
    if names[0] != b"IHDR" or names.count(b"IHDR") != 1 or len(chunks[0][1]) != IHDR_BYTES:
        raise ValueError(f"the PNG starts with {names[0]!r}; it must start with one IHDR chunk")
    if set(names[first:last]) != {b"IDAT"}:
        raise ValueError("the PNG has no IDAT chunks in one row, so no picture; it is damaged")
    width, height, bit_depth, color, compression, row_filter, interlace = struct.unpack(
        ">IIBBBBB", chunks[0][1][8:-4]
    )
    if not (0 < width < 2**31 and 0 < height < 2**31):
        raise ValueError(f"the PNG says {width}x{height} pixels; both must be 1 to 2147483647")
    if bit_depth not in DEPTHS.get(color, ()):
        raise ValueError(f"a PNG of colour type {color} can't have bit depth {bit_depth}; damaged")
    if compression or row_filter or interlace > 1:
        raise ValueError(
            f"the PNG names compression {compression}, filter {row_filter}, interlace {interlace}; "
            "known are 0, 0 and 0 or 1"
        )
    kept = [name in STAYS_TRUE or name[3:].islower() for name in names]
    critical = (chunk for name, chunk in chunks if name[:1].isupper())
    return Png(
        bit_depth,
        height,
        width,
        color,
        names=frozenset(names),
        before=tuple(bytes(chunks[i][1]) for i in range(1, first) if kept[i]),
        after=tuple(bytes(chunks[i][1]) for i in range(last, len(chunks) - 1) if kept[i]),
        coded=tuple(critical),
        trailing=data[len(START) + sum(len(chunk) for _, chunk in chunks) :],
    )


def _is_xmp(chunk: bytes) -> bool:
    return chunk[4:8] == b"iTXt" and chunk.startswith(XMP, 8)


def _packet(chunk: bytes) -> bytes:
    """The XMP packet in an iTXt chunk, inflated if need be; empty if that fails or never ends."""
    is_compressed = chunk[8 + len(XMP)]
    text = chunk[10 + len(XMP) : -4].split(b"\0", 2)[-1]  # behind language and keyword
    if not is_compressed:
        return text
    inflater = zlib.decompressobj()
    try:
        packet = inflater.decompress(text, xmp.LARGEST_BYTES)
    except zlib.error:
        return b""
    return packet if inflater.eof else b""


def _chunk(name: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(name + content)
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def _chunks(data: bytes) -> list[tuple[bytes, memoryview]]:
    """Name and whole bytes of each PNG chunk up to IEND, in order; checksums are checked."""
    chunks: list[tuple[bytes, memoryview]] = []
    view = memoryview(data)
    position = len(START)
    while not chunks or chunks[-1][0] != b"IEND":
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + length + CHUNK_BYTES
        name = data[position + 4 : position + 8]
        if end > len(data):
            raise ValueError(f"the PNG chunk {name!r} at byte {position} breaks off; truncated")
        if not name.isalpha():
            raise ValueError(f"the PNG chunk at byte {position} is named {name!r}; damaged")
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ValueError(f"the PNG chunk {name!r} at byte {position} has a wrong checksum")
        if len(chunks) > MOST_CHUNKS:
            raise ValueError(f"the PNG has more than {MOST_CHUNKS} chunks; nobody writes that")
        chunks.append((name, view[position:end]))
        position = end
    return chunks
