"""The index of several pictures in one JPEG (MPF): what they are to each other, and where they lie.

Phones write it for previews and gain maps. Its offsets count from the index itself, so they move
when the first picture gets shorter. Other indexes of what follows a JPEG need no correction:
Google's MicroVideoOffset counts from the file's end, the Item:Length values of its Container
(motion photos, Ultra HDR) are lengths of what follows, the first picture's being 0, and Samsung's
trailer (SEFH, SEFT) counts back from its own place. Offsets in a camera's maker notes to a preview
behind the picture are not known to us and go stale; these are previews of the noisy picture.

Source: CIPA DC-007-2021, section 5; Android "Ultra HDR image format" and "Motion photo format"
1.0.
"""

import struct
from dataclasses import dataclass

HEADER = 8  # marker, length and "MPF\0" stand before what the offsets count from
ENTRIES = 0xB002
EQUALS = {1: "a panorama", 2: "stereo", 3: "several angles"}  # types 0x02000x


@dataclass(frozen=True)
class Entry:
    """One picture's entry.

    Attributes:
        position: of the entry's 16 bytes in the segment.
        kind: type code, such as 0x030000 for the first picture or 0x010001 for a preview.
        size: bytes of the picture.
        offset: from the segment's byte HEADER; 0 for the first picture.
    """

    position: int
    kind: int
    size: int
    offset: int


def is_index(segment: bytes) -> bool:
    """Whether a whole JPEG segment is such an index."""
    return segment.startswith(b"\xff\xe2") and segment[4:HEADER] == b"MPF\0"


def equals(segment: bytes) -> str | None:
    """What the pictures are if none is the main one, such as "stereo"."""
    kinds = [entry.kind for entry in _entries(segment)[0] if entry.kind >> 16 == 2]
    return EQUALS.get(kinds[0] & 0xFFFF, "pictures of equal rank") if kinds else None


def corrected(segment: bytes, growth: int, shift: int, others: range) -> bytes:
    """The index for a first picture of another length.

    Args:
        segment: a whole JPEG segment; one that is broken stays as it is.
        growth: bytes by which the first picture grew.
        shift: bytes by which the others moved away from the index.
        others: where the other pictures lay, in bytes from the segment's start; entries that point
            elsewhere were stale already and stay as they are.
    """
    result = bytearray(segment)
    entries, order = _entries(segment)
    for entry in entries:
        size, offset = entry.size, entry.offset
        if offset == 0 and size:
            size += growth
        elif offset + HEADER in others:
            offset += shift
        numbers = (max(size, 0) & 0xFFFFFFFF, max(offset, 0) & 0xFFFFFFFF)
        struct.pack_into(order + "II", result, entry.position + 4, *numbers)
    return bytes(result)


def _entries(segment: bytes) -> tuple[list[Entry], str]:
    """All entries and the byte order for `struct`; none of a broken index."""
    tiff = segment[HEADER:]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2], "")
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        tags = [struct.unpack_from(order + "HHII", tiff, start + 2 + 12 * i) for i in range(count)]
        for tag, _, size, offset in tags:
            if tag == ENTRIES and order:
                return [_entry(tiff, order, offset + i) for i in range(0, size - 15, 16)], order
    except struct.error:
        pass
    return [], order or ">"


def _entry(tiff: bytes, order: str, position: int) -> Entry:
    attribute, size, offset = struct.unpack_from(order + "III", tiff, position)
    return Entry(HEADER + position, attribute & 0xFFFFFF, size, offset)
