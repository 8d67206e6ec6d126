"""WebP files: chunks taken off and put back byte for byte, pixels coded by libwebp.

A lossy file is written at the quality that its quantizer tells, within a few steps of the number
its writer was given; a lossless one losslessly. Lossy files keep the bytes of their alpha.

Source: RFC 9649 (container, sections 2 and 3), RFC 6386 (VP8 frame header, section 9.2 to 9.6).
"""

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import imagecodecs
import numpy as np
from PIL import Image

from pix2pix.formats import xmp

ICC_FLAG, ALPHA_FLAG, EXIF_FLAG, XMP_FLAG, ANIMATION_FLAG = 0x20, 0x10, 0x08, 0x04, 0x02
CODED = frozenset({b"VP8 ", b"VP8L", b"ALPH"})
MOST_CHUNKS = 2**16
LOSSY_START = b"\x9d\x01\x2a"
LOSSLESS_START = 0x2F
LARGEST_QUANTIZER = 127


@dataclass(frozen=True, eq=False, repr=False)
class WebP:
    """A WebP file taken apart.

    Attributes:
        height: rows.
        width: columns.
        has_alpha: whether the file has an alpha channel.
        chunks: name and content of each chunk in order, without padding.
        trailing: what follows the container's end.
    """

    height: int
    width: int
    has_alpha: bool
    chunks: tuple[tuple[bytes, bytes], ...]
    trailing: bytes

    @property
    def format(self) -> str:
        """The format's name."""
        return "WebP"

    @property
    def mode(self) -> str:
        """How the file stores a pixel: "RGB" or "RGBA"; there is no grey."""
        return "RGBA" if self.has_alpha else "RGB"

    @property
    def bit_depth(self) -> int:
        """Bits of a sample."""
        return 8

    @property
    def xmp(self) -> bytes | None:
        """The XMP packet."""
        return next((content for name, content in self.chunks if name == b"XMP "), None)

    @property
    def xmp_bytes(self) -> int:
        """The largest XMP packet that we put in."""
        return xmp.LARGEST_BYTES

    @property
    def is_lossless(self) -> bool:
        """Whether the pixels are coded without loss."""
        return any(name == b"VP8L" for name, _ in self.chunks)

    @property
    def refusal(self) -> str | None:
        """Why the picture can't be had in RGB as it is meant, if so."""
        if any(name in (b"ANIM", b"ANMF") for name, _ in self.chunks):
            return "the WebP is animated; only still images are read"
        return None

    @property
    def loss(self) -> str | None:
        """What would be lost if the pixels were replaced: nothing."""
        return None

    def stored(self) -> np.ndarray:
        """The pixels as stored, uint8 (height, width, 3 or 4).

        Raises:
            ValueError: the coded picture is damaged.
        """
        coded = [chunk for chunk in self.chunks if chunk[0] in CODED]
        if any(name == b"ALPH" for name, _ in coded):
            coded.insert(0, (b"VP8X", self._header(ALPHA_FLAG)))
        try:
            pixels = imagecodecs.webp_decode(_joined(coded), hasalpha=self.has_alpha)
        except (imagecodecs.WebpError, ValueError) as error:
            raise ValueError(f"the WebP can't be decoded: {error}") from error
        if pixels.shape != (self.height, self.width, len(self.mode)):
            raise ValueError(f"the WebP holds {pixels.shape} instead of its header's size; damaged")
        return pixels

    def encoded(
        self, rows: Callable[[int, int], np.ndarray], quality: int | None, packet: bytes | None
    ) -> bytes:
        """A file like this one with other pixels.

        Args:
            rows: from the first row and the one after the last to pixels as `stored` gives them.
            quality: libwebp's, 1 to 100, for a lossy file; None takes the source's, estimated.
            packet: the XMP packet to write; None leaves metadata alone.
        """
        pixels = rows(0, self.height)
        chunks = list(self.chunks)
        file = io.BytesIO()
        if self.is_lossless:
            Image.fromarray(pixels).save(file, "WEBP", lossless=True, exact=True, quality=50)
        else:
            image = Image.fromarray(np.ascontiguousarray(pixels[..., :3]))
            image.save(file, "WEBP", quality=quality or self.quality(), method=4)
        new = {name: content for name, content in parted(file.getvalue()).chunks if name in CODED}
        chunks = [(name, new.get(name, content)) for name, content in chunks]
        if packet is not None:
            chunks = self._with_xmp(chunks, packet)
        return _joined(chunks) + self.trailing

    def quality(self) -> int:
        """The quality at which libwebp quantizes like this file, 1 to 100.

        Source: libwebp's `QualityToCompression`, turned round.
        """
        (coded,) = (content for name, content in self.chunks if name == b"VP8 ")
        compression = (1 - _quantizer(coded[10:]) / LARGEST_QUANTIZER) ** 3
        share = compression * 1.5 if compression < 0.5 else (compression + 1) / 2
        return max(1, round(100 * share))

    def _with_xmp(
        self, chunks: list[tuple[bytes, bytes]], packet: bytes
    ) -> list[tuple[bytes, bytes]]:
        """The chunks with this XMP packet, behind what it must stand behind."""
        chunks = [chunk for chunk in chunks if chunk[0] != b"XMP "]
        header = self._header(XMP_FLAG)
        if chunks[0][0] == b"VP8X":
            content = chunks.pop(0)[1]
            header = bytes([content[0] | XMP_FLAG]) + content[1:]
        known = [i for i, (name, _) in enumerate(chunks) if name in CODED | {b"EXIF", b"ICCP"}]
        chunks.insert(known[-1] + 1, (b"XMP ", packet))
        return [(b"VP8X", header), *chunks]

    def _header(self, flags: int) -> bytes:
        flags |= ALPHA_FLAG if self.has_alpha else 0
        sides = (self.width - 1).to_bytes(3, "little") + (self.height - 1).to_bytes(3, "little")
        return bytes([flags, 0, 0, 0]) + sides


def parted(data: bytes) -> WebP:
    """A WebP file taken apart.

    Args:
        data: a whole file that starts with "RIFF", four bytes and "WEBP".

    Raises:
        ValueError: the structure is broken or the file is truncated.
    """
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise ValueError(f"the WebP says {end} bytes, the file has {len(data)}; it is truncated")
    chunks: list[tuple[bytes, bytes]] = []
    position = 12
    while position + 8 <= end:
        name, size = (
            data[position : position + 4],
            int.from_bytes(data[position + 4 : position + 8], "little"),
        )
        if position + 8 + size > end:
            raise ValueError(f"the WebP chunk {name!r} at byte {position} breaks off; truncated")
        chunks.append((name, data[position + 8 : position + 8 + size]))
        position += 8 + size + size % 2
        if len(chunks) > MOST_CHUNKS:
            raise ValueError(f"the WebP has more than {MOST_CHUNKS} chunks; nobody writes that")
    names = [name for name, _ in chunks]
    is_still = names.count(b"VP8 ") + names.count(b"VP8L") == 1
    is_animated = b"ANMF" in names
    if not (is_still or is_animated) or (len(names) > 1 and names[0] != b"VP8X"):
        raise ValueError(f"the WebP has chunks {names[:4]}, not one picture; it is damaged")
    width, height, has_alpha = _frame(dict(chunks[::-1]))
    return WebP(height, width, has_alpha, tuple(chunks), data[max(end, position) :])


def _frame(chunks: dict[bytes, bytes]) -> tuple[int, int, bool]:
    """Width, height and whether there's alpha, from the first frame's own header."""
    if (coded := chunks.get(b"VP8L")) is not None:
        if len(coded) < 5 or coded[0] != LOSSLESS_START:
            raise ValueError("the WebP's lossless header is damaged")
        bits = int.from_bytes(coded[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    if (coded := chunks.get(b"VP8 ")) is not None:
        if len(coded) < 10 or coded[3:6] != LOSSY_START:
            raise ValueError("the WebP's lossy header is damaged")
        width, height = struct.unpack_from("<HH", coded, 6)
        if not width & 0x3FFF or not height & 0x3FFF:
            raise ValueError("the WebP says no width or height; it is damaged")
        return width & 0x3FFF, height & 0x3FFF, b"ALPH" in chunks
    canvas = chunks[b"VP8X"]
    if len(canvas) < 10:
        raise ValueError("the WebP's VP8X chunk is too short; it is damaged")
    sides = int.from_bytes(canvas[4:7], "little") + 1, int.from_bytes(canvas[7:10], "little") + 1
    return *sides, bool(canvas[0] & ALPHA_FLAG)


def _joined(chunks: list[tuple[bytes, bytes]]) -> bytes:
    parts = [b"WEBP"]
    for name, content in chunks:
        parts += [name, struct.pack("<I", len(content)), content, bytes(len(content) % 2)]
    return b"".join([b"RIFF", struct.pack("<I", sum(map(len, parts))), *parts])


def _quantizer(partition: bytes) -> float:
    """The quantizer index of a VP8 key frame, 0 to 127, in the middle of its segments.

    Args:
        partition: the first partition, from behind the frame's size.

    Source: RFC 6386, sections 7.3 (the decoder of bits), 9.2 to 9.6 and 19.2.
    """
    bits = _bits(partition)

    def number(width: int) -> int:
        return sum(next(bits) << (width - 1 - i) for i in range(width))

    def signed(width: int) -> int:
        if not number(1):
            return 0
        value = number(width)
        return -value if number(1) else value

    number(2)  # colour space, clamping
    quantizers, is_absolute = [0], False
    if number(1):  # segments
        has_map, has_data = number(1), number(1)
        if has_data:
            is_absolute = bool(number(1))
            quantizers = [signed(7) for _ in range(4)]
            for _ in range(4):
                signed(6)
        if has_map:
            for _ in range(3):
                number(8) if number(1) else None
    number(1 + 6 + 3)  # the loop filter's type, level and sharpness
    if number(1) and number(1):
        for _ in range(8):
            signed(6)
    number(2)
    base = number(7)
    mean, finest = sum(quantizers) / len(quantizers), min(quantizers)
    # libwebp spreads its segments around what its quality says, a little more to the coarse side:
    # with a third of the finest, the quality of 13 photographs saved at 75 to 95 came out within 4,
    # at 30 to 60 between 2 too low and 13 too high.
    middle = mean + (finest - mean) / 3 + (0 if is_absolute else base)
    return min(max(middle, 0), LARGEST_QUANTIZER)


def _bits(partition: bytes) -> Iterator[int]:
    """Bits of even probability from VP8's arithmetic coder; zeros follow its end."""
    position, value, span, shifts = 2, int.from_bytes(partition[:2].ljust(2, b"\0"), "big"), 255, 0
    while True:
        split = 1 + (span - 1 >> 1)
        bit = value >= split << 8
        if bit:
            span, value = span - split, value - (split << 8)
        else:
            span = split
        while span < 128:
            value, span, shifts = value << 1, span << 1, shifts + 1
            if shifts == 8:
                shifts = 0
                value |= partition[position] if position < len(partition) else 0
                position += 1
        yield int(bit)
