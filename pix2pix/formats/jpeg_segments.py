"""A JPEG file cut into its segments; nothing is decoded.

A broken structure raises ValueError that says where it breaks.

Source: ITU-T T.81 annex B, https://www.w3.org/Graphics/JPEG/itu-t81.pdf
"""

import re
import struct
from dataclasses import dataclass

START = b"\xff\xd8"
END = 0xD9
SCAN = 0xDA
FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # 0xF7: JPEG-LS
TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF})
METADATA = frozenset({*range(0xE0, 0xF0), 0xFE})  # APP0..APP15 and the comment
MOST_SEGMENTS = 2**16  # 4 GB if they are full
MARKER = re.compile(rb"\xff+([^\xff])")


@dataclass(frozen=True, eq=False, repr=False)
class Parts:
    """A JPEG file cut into its segments.

    Attributes:
        frame: second byte of the start-of-frame marker; 0xC0 baseline, 0xC2 progressive.
        bit_depth: bits of a sample.
        height: rows.
        width: columns.
        components: each component's identifier in one byte, in order; three for a colour picture.
        scans: in how many pieces the picture is coded; progressive ones have several.
        segments: every APPn and COM segment, whole, in order. Those between two scans, which
            nobody writes, come last.
        places: where each segment starts in the file.
        head: the other segments before the first scan.
        body: from the first scan to the end of image.
        end: where the end of image is over.
        trailing: what follows it.
    """

    frame: int
    bit_depth: int
    height: int
    width: int
    components: bytes
    scans: int
    segments: tuple[bytes, ...]
    places: tuple[int, ...]
    head: bytes
    body: bytes
    end: int
    trailing: bytes


def parted(data: bytes) -> Parts:
    """A JPEG file taken apart into its coded picture and its metadata.

    Args:
        data: a whole file that starts with `START`.

    Raises:
        ValueError: the structure is broken or the file is truncated.
    """
    segments: list[bytes] = []
    places: list[int] = []
    head: list[bytes] = []
    body: list[bytes] = []
    frame: tuple[int, bytes] | None = None
    scans = 0
    position = len(START)
    while True:
        marker = MARKER.match(data, position)
        if marker is None:
            raise ValueError(f"no JPEG marker at byte {position}; the file is truncated or damaged")
        code, position = marker[1][0], marker.end()
        if code == END:
            break
        if code not in FRAMES | TABLES | METADATA | {SCAN}:
            raise ValueError(f"JPEG marker {code:#04x} at byte {position - 1}; the file is damaged")
        end = _segment_end(data, position)
        if code == SCAN:
            scans += 1
            end = _scan_end(data, end)
        segment = data[position - 2 : end]
        if code in FRAMES:
            if frame is not None:
                raise ValueError("the JPEG has two frame headers; the file is damaged")
            frame = code, segment
        if code in METADATA:
            segments.append(segment)
            places.append(position - 2)
            if len(segments) > MOST_SEGMENTS:
                raise ValueError(f"the JPEG has more than {MOST_SEGMENTS} metadata segments")
        else:
            (body if scans else head).append(segment)
        position = end
    if frame is None or scans == 0:
        raise ValueError("the JPEG has no frame header or no scan, so no picture; it is damaged")
    return Parts(
        frame[0],
        *_frame_header(frame[1]),
        scans=scans,
        segments=tuple(segments),
        places=tuple(places),
        head=b"".join(head),
        body=b"".join([*body, b"\xff\xd9"]),
        end=position,
        trailing=data[position:],
    )


def huffman_tables(head: bytes) -> set[bytes]:
    """The Huffman tables (annex B.2.4.2) among whole segments that come before the first scan.

    Each as it stands there: class and place, 16 numbers of codes, their values. A damaged segment
    gives what is not a table.
    """
    tables, position = set(), 0
    while marker := MARKER.match(head, position):
        end = marker.end() + int.from_bytes(head[marker.end() : marker.end() + 2], "big")
        place = marker.end() + 2
        while marker[1] == b"\xc4" and place < end:
            following = place + 17 + sum(head[place + 1 : place + 17])
            tables.add(head[place:following])
            place = following
        position = end
    return tables


def is_jfif(segment: bytes) -> bool:
    """Whether a whole segment is JFIF's header."""
    return segment.startswith(b"\xff\xe0") and segment[4:9] == b"JFIF\0" and len(segment) >= 18


def is_adobe(segment: bytes) -> bool:
    """Whether a whole segment is Adobe's, which says how colours are coded."""
    return segment.startswith(b"\xff\xee") and segment[4:9] == b"Adobe" and len(segment) >= 16


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
