"""JPEG segments and PNG chunks: what lies around the pixels, taken off and put back byte for byte.

Nothing here decodes a picture. A broken structure raises ValueError that says where it breaks.

Source: ITU-T T.81 annex B, https://www.w3.org/Graphics/JPEG/itu-t81.pdf;
PNG third edition, sections 5, 11 and 14, https://www.w3.org/TR/png-3/
"""

import re
import struct
import zlib
from dataclasses import dataclass

JPEG_START = b"\xff\xd8"
JPEG_END = 0xD9
SCAN = 0xDA
PROGRESSIVE = 0xC2
READ_FRAMES = frozenset({0xC0, 0xC1, PROGRESSIVE})  # 0xC0 baseline, 0xC1 extended
FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # 0xF7: JPEG-LS
TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF})
METADATA = frozenset({*range(0xE0, 0xF0), 0xFE})  # APP0..APP15 and the comment
READ_AHEAD_BYTES = 16

# The bit depths that each colour type may have.
PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Of each pass: first row, first column, row step, column step.
WHOLE = ((0, 0, 1, 1),)
ADAM7 = (
    *((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4)),
    *((2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)),
)
INFLATED_BYTES = 2**20
PNG_START = b"\x89PNG\r\n\x1a\n"
# A PNG chunk says by its name's fourth letter whether an editor that doesn't know it may copy it.
# These say no, but what they describe stays as it was when only pixel values change.
STAYS_TRUE = frozenset(
    b"PLTE bKGD cHRM cICP cLLI gAMA iCCP mDCV pCAL sBIT sCAL sPLT sRGB sTER tIME".split()
)
CHUNK_BYTES = 12  # around a chunk's content: length, name, checksum
IHDR_BYTES = CHUNK_BYTES + 13


@dataclass(frozen=True)
class Jpeg:
    """A JPEG file taken apart.

    Attributes:
        frame: second byte of the start-of-frame marker; 0xC0 baseline, 0xC2 progressive.
        bit_depth: bits of a sample.
        height: rows.
        width: columns.
        components: each component's identifier in one byte, in order; three for a colour picture.
        scans: in how many pieces the picture is coded; progressive ones have several.
        segments: every APPn and COM segment, whole, in order. Those between two scans, which
            nobody writes, come last.
        coded: the file without these segments and without what follows its end.
        trailing: what follows the end of image.
    """

    frame: int
    bit_depth: int
    height: int
    width: int
    components: bytes
    scans: int
    segments: tuple[bytes, ...]
    coded: bytes
    trailing: bytes

    @property
    def stores_rgb(self) -> bool:
        """Whether three components are red, green and blue rather than luma and chroma.

        Source: libjpeg's `default_decompress_parms`, which most viewers follow.
        """
        if len(self.components) != 3 or any(_is_jfif(segment) for segment in self.segments):
            return False
        adobe = [segment for segment in self.segments if _is_adobe(segment)]
        return adobe[-1][15] == 0 if adobe else self.components == b"RGB"

    @property
    def is_several(self) -> bool:
        """Whether an index of several pictures (MPO, gain maps, large previews) is in the file."""
        return any(
            segment.startswith(b"\xff\xe2") and segment[4:8] == b"MPF\0"
            for segment in self.segments
        )

    @property
    def decodable(self) -> bytes:
        """The file with only those segments that say what the components mean.

        Before the end of image libjpeg fills what is missing with grey and tells only those who
        ask, which Pillow doesn't. So a picture of one scan comes without that end: then missing
        data is an error. The zeros are for the decoder's reading ahead.
        """
        meaning = [segment for segment in self.segments if _is_jfif(segment) or _is_adobe(segment)]
        jpeg_bytes = _spliced(self.coded, meaning)
        return jpeg_bytes[:-2] + bytes(READ_AHEAD_BYTES) if self.scans == 1 else jpeg_bytes


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
            bits = columns * PNG_CHANNELS[self.color] * self.bit_depth
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


def parted(data: bytes) -> Jpeg | Png:
    """A JPEG or PNG file taken apart into its coded picture and its metadata.

    Args:
        data: a whole file.

    Raises:
        ValueError: neither of the two, or truncated, or its structure is broken.
    """
    if data.startswith(JPEG_START + b"\xff"):
        return jpeg(data)
    if data.startswith(PNG_START):
        return png(data)
    raise ValueError(f"{len(data)} bytes that start with {data[:8]!r} are neither JPEG nor PNG")


def _is_jfif(segment: bytes) -> bool:
    return segment.startswith(b"\xff\xe0") and segment[4:9] == b"JFIF\0" and len(segment) >= 18


def _is_adobe(segment: bytes) -> bool:
    return segment.startswith(b"\xff\xee") and segment[4:9] == b"Adobe" and len(segment) >= 16


def _spliced(jpeg_bytes: bytes, segments: list[bytes] | tuple[bytes, ...]) -> bytes:
    start = len(JPEG_START)
    return jpeg_bytes[:start] + b"".join(segments) + jpeg_bytes[start:]


def _segment_end(data: bytes, position: int) -> int:
    """Where a segment ends whose two length bytes stand at position."""
    length = int.from_bytes(data[position : position + 2], "big")
    if length < 2 or position + length > len(data):
        raise ValueError(
            f"the JPEG segment at byte {position - 2} says {length} bytes, "
            f"the file has {len(data) - position} left; it is truncated or damaged"
        )
    return position + length


def _scan_end(data: bytes, position: int) -> int:
    """Where the coded picture that starts at position ends: at the next marker but a restart."""
    marker = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]").search(data, position)
    if marker is None:
        raise ValueError(f"the JPEG breaks off in its picture, at byte {len(data)}; it's truncated")
    return marker.start()


def _frame_header(segment: bytes) -> tuple[int, int, int, bytes]:
    """Bit depth, height, width and component identifiers of a whole start-of-frame segment."""
    if len(segment) < 10 or len(segment) != 10 + 3 * segment[9]:
        raise ValueError(f"the JPEG frame header has {len(segment)} bytes; it is damaged")
    bit_depth, height, width = struct.unpack(">BHH", segment[4:9])
    if height == 0 or width == 0:
        raise ValueError(f"the JPEG says {width}x{height} pixels; both must be at least 1")
    return bit_depth, height, width, segment[10::3]


def jpeg(data: bytes) -> Jpeg:
    """A JPEG file taken apart into its coded picture and its metadata.

    Args:
        data: a whole file that starts with `JPEG_START`.

    Raises:
        ValueError: the structure is broken or the file is truncated.
    """
    segments: list[bytes] = []
    coded = [data[: len(JPEG_START)]]
    frame: tuple[int, bytes] | None = None
    scans = 0
    position = len(JPEG_START)
    while True:
        marker = re.compile(rb"\xff+([^\xff])").match(data, position)
        if marker is None:
            raise ValueError(f"no JPEG marker at byte {position}; the file is truncated or damaged")
        code, position = marker[1][0], marker.end()
        if code == JPEG_END:
            break
        if code not in FRAMES | TABLES | METADATA | {SCAN}:
            raise ValueError(f"JPEG marker {code:#04x} at byte {position - 1}; the file is damaged")
        end = _segment_end(data, position)
        segment = b"\xff" + data[position - 1 : end]
        if code in FRAMES:
            if frame is not None:
                raise ValueError("the JPEG has two frame headers; the file is damaged")
            frame = code, segment
        if code == SCAN:
            scans += 1
            end = _scan_end(data, end)
            segment = b"\xff" + data[position - 1 : end]
        (segments if code in METADATA else coded).append(segment)
        position = end
    if frame is None or scans == 0:
        raise ValueError("the JPEG has no frame header or no scan, so no picture; it is damaged")
    return Jpeg(
        frame[0],
        *_frame_header(frame[1]),
        scans=scans,
        segments=tuple(segments),
        coded=b"".join([*coded, b"\xff\xd9"]),
        trailing=data[position:],
    )


def jpeg_with(encoded: bytes, segments: tuple[bytes, ...]) -> bytes:
    """A JPEG file's coded picture with these metadata segments instead of its own."""
    return _spliced(jpeg(encoded).coded, segments)


def _is_critical(name: bytes) -> bool:
    return name[:1].isupper()


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Name and whole bytes of each PNG chunk up to IEND, in order; checksums are checked."""
    chunks: list[tuple[bytes, bytes]] = []
    position = len(PNG_START)
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


def png(data: bytes) -> Png:
    """A PNG file taken apart into its coded picture and its metadata.

    Args:
        data: a whole file that starts with `PNG_START`.

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
    if bit_depth not in PNG_DEPTHS.get(color, ()):
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
        coded=PNG_START + b"".join(chunk for name, chunk in chunks if _is_critical(name)),
        trailing=data[len(PNG_START) + sum(len(chunk) for _, chunk in chunks) :],
    )


def png_with(encoded: bytes, before: tuple[bytes, ...], after: tuple[bytes, ...]) -> bytes:
    """A PNG file's coded picture with these chunks around it instead of its own.

    Args:
        encoded: a PNG file without a palette.
        before: whole chunks to stand before the pixels.
        after: whole chunks to stand behind them.
    """
    coded = png(encoded).coded
    start = len(PNG_START) + IHDR_BYTES
    end = len(coded) - CHUNK_BYTES  # IEND is empty
    return b"".join([coded[:start], *before, coded[start:end], *after, coded[end:]])
