"""JPEG segments: what lies around the pixels, taken off and put back byte for byte.

Nothing here decodes a picture. A broken structure raises ValueError that says where it breaks.

Source: ITU-T T.81 annex B, https://www.w3.org/Graphics/JPEG/itu-t81.pdf
"""

import re
import struct
from dataclasses import dataclass

START = b"\xff\xd8"
END = 0xD9
SCAN = 0xDA
PROGRESSIVE = 0xC2
READ_FRAMES = frozenset({0xC0, 0xC1, PROGRESSIVE})  # 0xC0 baseline, 0xC1 extended
FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # 0xF7: JPEG-LS
TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF})
METADATA = frozenset({*range(0xE0, 0xF0), 0xFE})  # APP0..APP15 and the comment
READ_AHEAD_BYTES = 16


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


def parted(data: bytes) -> Jpeg:
    """A JPEG file taken apart into its coded picture and its metadata.

    Args:
        data: a whole file that starts with `START`.

    Raises:
        ValueError: the structure is broken or the file is truncated.
    """
    segments: list[bytes] = []
    coded = [data[: len(START)]]
    frame: tuple[int, bytes] | None = None
    scans = 0
    position = len(START)
    while True:
        marker = re.compile(rb"\xff+([^\xff])").match(data, position)
        if marker is None:
            raise ValueError(f"no JPEG marker at byte {position}; the file is truncated or damaged")
        code, position = marker[1][0], marker.end()
        if code == END:
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


def with_segments(encoded: bytes, segments: tuple[bytes, ...]) -> bytes:
    """A JPEG file's coded picture with these metadata segments instead of its own."""
    return _spliced(parted(encoded).coded, segments)


def _is_jfif(segment: bytes) -> bool:
    return segment.startswith(b"\xff\xe0") and segment[4:9] == b"JFIF\0" and len(segment) >= 18


def _is_adobe(segment: bytes) -> bool:
    return segment.startswith(b"\xff\xee") and segment[4:9] == b"Adobe" and len(segment) >= 16


def _spliced(jpeg_bytes: bytes, segments: list[bytes] | tuple[bytes, ...]) -> bytes:
    start = len(START)
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
