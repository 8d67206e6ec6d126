"""PNG chunks: what lies around the pixels, taken off and put back byte for byte.

Nothing here decodes a picture. A broken structure raises ValueError that says where it breaks.

Source: PNG third edition, sections 5, 11 and 14, https://www.w3.org/TR/png-3/
"""

import struct
import zlib
from dataclasses import dataclass

# The bit depths that each colour type may have.
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Of each pass: first row, first column, row step, column step.
WHOLE = ((0, 0, 1, 1),)
ADAM7 = (
    *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
    *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
)
INFLATED_BYTES = 2**20
START = b"\x89PNG\r\n\x1a\n"
# A PNG chunk says by its name's fourth letter whether an editor that doesn't know it may copy it.
# These say no, but what they describe stays as it was when only pixel values change.
STAYS_TRUE = frozenset(
    b"PLTE bKGD cHRM cICP cLLI gAMA iCCP mDCV pCAL sBIT sCAL sPLT sRGB sTER tIME".split()
)
CHUNK_BYTES = 12  # around a chunk's content: length, name, checksum
IHDR_BYTES = CHUNK_BYTES + 13


@dataclass(frozen=True)
class Png:
    """A PNG file taken apart.

    Attributes:
        bit_depth: bits of a sample, or of a palette's index.
        height: rows.
        width: columns.
        color: 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha.
        is_interlaced: whether the rows come in Adam7's seven passes.
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
    is_interlaced: bool
    names: frozenset[bytes]
    before: tuple[bytes, ...]
    after: tuple[bytes, ...]
    coded: bytes
    trailing: bytes

    @property
    def needs(self) -> list[str]:
        """Names of chunks without which the picture can't be read, beyond those we know."""
        known = {b"IHDR", b"PLTE", b"IDAT", b"IEND"}
        return sorted(name.decode() for name in self.names - known if _is_critical(name))

    @property
    def row_bytes(self) -> int:
        """Bytes of all rows, uncompressed, each with the byte that names its filter."""
        total = 0
        for row, column, row_step, column_step in ADAM7 if self.is_interlaced else WHOLE:
            rows = len(range(row, self.height, row_step))
            columns = len(range(column, self.width, column_step))
            bits = columns * CHANNELS[self.color] * self.bit_depth
            total += rows * (1 + (bits + 7) // 8) if columns else 0
        return total

    def is_complete(self) -> bool:
        """Whether the compressed rows are whole; a decoder may leave missing ones black.

        Inflates a piece at a time, so a picture far larger than its file costs no memory.
        """
        inflater, missing = zlib.decompressobj(), self.row_bytes
        pieces = [chunk[8:-4] for name, chunk in _chunks(self.coded) if name == b"IDAT"]
        try:
            for piece in pieces:
                compressed = piece
                while compressed and missing > 0:
                    missing -= len(inflater.decompress(compressed, INFLATED_BYTES))
                    compressed = inflater.unconsumed_tail
            missing -= len(inflater.flush()) if missing > 0 else 0  # what the last piece held back
        except zlib.error:
            return False
        return missing <= 0


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
    return Png(
        bit_depth,
        height,
        width,
        color,
        interlace == 1,
        names=frozenset(names),
        before=tuple(chunks[i][1] for i in range(1, first) if kept[i]),
        after=tuple(chunks[i][1] for i in range(last, len(chunks) - 1) if kept[i]),
        coded=START + b"".join(chunk for name, chunk in chunks if _is_critical(name)),
        trailing=data[len(START) + sum(len(chunk) for _, chunk in chunks) :],
    )


def with_chunks(encoded: bytes, before: tuple[bytes, ...], after: tuple[bytes, ...]) -> bytes:
    """A PNG file's coded picture with these chunks around it instead of its own.

    Args:
        encoded: a PNG file without a palette.
        before: whole chunks to stand before the pixels.
        after: whole chunks to stand behind them.
    """
    coded = parted(encoded).coded
    start = len(START) + IHDR_BYTES
    end = len(coded) - CHUNK_BYTES  # IEND is empty
    return b"".join([coded[:start], *before, coded[start:end], *after, coded[end:]])


def _is_critical(name: bytes) -> bool:
    return name[:1].isupper()


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Name and whole bytes of each PNG chunk up to IEND, in order; checksums are checked."""
    chunks: list[tuple[bytes, bytes]] = []
    position = len(START)
    while not chunks or chunks[-1][0] != b"IEND":
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + length + CHUNK_BYTES
        name = data[position + 4 : position + 8]
        if end > len(data):
            raise ValueError(f"the PNG chunk {name!r} at byte {position} breaks off; truncated")
        if not name.isalpha():
            raise ValueError(f"the PNG chunk at byte {position} is named {name!r}; damaged")
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ValueError(f"the PNG chunk {name!r} at byte {position} has a wrong checksum")
        chunks.append((name, data[position:end]))
        position = end
    return chunks
