"""The container of HEIC and AVIF: its items, taken apart and put together again.

An item is a coded picture, a tile of one, Exif, XMP, a gain map...; properties (size, rotation,
colours) are shared among items, references tie them together. What stands in the container is kept
by the byte, only offsets are counted anew. A broken structure raises ValueError.

Source: ISO/IEC 14496-12, sections 4.2 and 8.11; ISO/IEC 23008-12 (HEIF), section 9.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MOST_ITEMS = 2**14  # a grid of 512-pixel tiles with 2**28 pixels has 2**10
HIDDEN = 1
XMP_TYPE = b"application/rdf+xml"


@dataclass(frozen=True, repr=False)
class Item:
    """One item.

    Attributes:
        kind: four letters, such as b"hvc1", b"grid", b"Exif" or b"mime".
        is_hidden: whether it isn't shown by itself.
        label: what stands in its entry behind the kind: name, content type.
        data: its bytes.
        properties: whole property boxes, in order, each with whether it's essential.
    """

    kind: bytes
    is_hidden: bool
    label: bytes
    data: bytes
    properties: tuple[tuple[bytes, bool], ...] = ()

    def value(self, kind: bytes) -> bytes | None:
        """The content of its first property of this kind."""
        return next((box[8:] for box, _ in self.properties if box[4:8] == kind), None)

    @property
    def is_xmp(self) -> bool:
        """Whether it is an XMP packet in plain text."""
        texts = self.label.split(b"\0")
        return self.kind == b"mime" and texts[1:2] == [XMP_TYPE] and not any(texts[2:])


@dataclass(frozen=True, repr=False)
class Container:
    """A file taken apart.

    Attributes:
        head: the file type box.
        primary: the main picture's number.
        items: by number.
        references: (kind, from, to) in order; "dimg" from a grid to its tiles, "auxl" from alpha,
            gain map or depth to its picture, "thmb" from a thumbnail, "cdsc" from Exif and XMP.
        others: whole boxes of the meta box that aren't about items, such as groups.
        boxes: whole top-level boxes besides these and the media data, and what follows the last.
    """

    head: bytes
    primary: int
    items: dict[int, Item]
    references: tuple[tuple[bytes, int, tuple[int, ...]], ...]
    others: tuple[bytes, ...]
    boxes: tuple[bytes, ...]

    def targets(self, kind: bytes, source: int) -> set[int]:
        """Items that an item refers to."""
        return {
            to
            for name, start, ends in self.references
            if (name, start) == (kind, source)
            for to in ends
        }

    def sources(self, kind: bytes, target: int) -> set[int]:
        """Items that refer to an item."""
        return {start for name, start, ends in self.references if name == kind and target in ends}


def parted(data: bytes) -> Container:
    """A file taken apart.

    Raises:
        ValueError: the structure is broken or the file is truncated.
    """
    boxes = list(_boxes(data, 0, len(data)))
    metas = [(start, end) for kind, start, end in boxes if kind == b"meta"]
    if not boxes or boxes[0][0] != b"ftyp" or len(metas) != 1:
        raise ValueError("the file has no meta box or several, so no picture; it is damaged")
    try:
        return _parted(data, boxes, *metas[0])
    except (struct.error, IndexError) as error:
        raise ValueError(f"the file's meta box is damaged: {error}") from error


def _parted(data: bytes, boxes: list[tuple[bytes, int, int]], start: int, end: int) -> Container:
    parts = {kind: (begin, stop) for kind, begin, stop in _boxes(data, start + 12, end)}
    known = {b"pitm", b"iinf", b"iloc", b"iref", b"iprp", b"idat"}
    if missing := {b"pitm", b"iinf", b"iloc", b"iprp"} - set(parts):
        raise ValueError(f"the file has no {sorted(missing)} box, so no picture; it is damaged")
    others = [data[b:s] for kind, b, s in _boxes(data, start + 12, end) if kind not in known]
    begin = parts[b"pitm"][0]
    primary = _number(data, begin + 12, 4 if data[begin + 8] else 2)
    extents = _extents(data, parts[b"iloc"][0], parts.get(b"idat", (0, 0)))
    properties = _properties(data, *parts[b"iprp"])
    items = {}
    begin, stop = parts[b"iinf"]
    for kind, first, last in _boxes(data, begin + (16 if data[begin + 8] else 14), stop):
        if kind != b"infe" or data[first + 8] < 2:
            raise ValueError("the file's items are of an unknown version; it is damaged")
        width = 2 if data[first + 8] == 2 else 4
        number, place = _number(data, first + 12, width), first + 14 + width
        pieces = [data[a:b] for a, b in extents.get(number, [])]
        content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        hidden = bool(data[first + 11] & HIDDEN)
        label = data[place + 4 : last]
        items[number] = Item(
            data[place : place + 4], hidden, label, content, tuple(properties.get(number, []))
        )
    if primary not in items or len(items) > MOST_ITEMS:
        raise ValueError(f"the file's main picture {primary} is none of its {len(items)} items")
    found = _references(data, *parts[b"iref"]) if b"iref" in parts else iter(())
    ends = [(kind, key, tuple(to for to in ends if to in items)) for kind, key, ends in found]
    references = tuple(entry for entry in ends if entry[1] in items and entry[2])
    top = {b"ftyp", b"meta", b"mdat", b"free", b"skip"}
    kept = [data[b:s] for kind, b, s in boxes if kind not in top]
    return Container(data[: boxes[0][2]], primary, items, references, tuple(others), tuple(kept))


def joined(container: Container) -> bytes:
    """The file of a container: file type, meta box, media data, other boxes.

    Raises:
        ValueError: more than its boxes can count, such as 256 properties of one item.
    """
    try:
        return _joined(container)
    except struct.error as error:
        raise ValueError(f"the file's meta box can't be written: {error}") from error


def _joined(container: Container) -> bytes:
    wide = max(container.items) > 0xFFFF
    number = "I" if wide else "H"
    used: dict[bytes, int] = {}
    for item in container.items.values():
        for box, _ in item.properties:
            used.setdefault(box, len(used) + 1)
    associations = []
    for key, item in sorted(container.items.items()):
        places = [used[box] | (0x8000 if essential else 0) for box, essential in item.properties]
        if places:
            associations.append(struct.pack(f">{number}B{len(places)}H", key, len(places), *places))
    ipma = struct.pack(">I", len(associations)) + b"".join(associations)
    iprp = _box(b"ipco", *used) + _full(b"ipma", int(wide), 1, ipma)
    entries = [
        _full(
            b"infe",
            3 if wide else 2,
            int(item.is_hidden),
            struct.pack(f">{number}H", key, 0),
            item.kind,
            item.label,
        )
        for key, item in container.items.items()
    ]
    references = [
        _box(kind, struct.pack(f">{number}H{len(ends)}{number}", start, len(ends), *ends))
        for kind, start, ends in container.references
    ]
    handlers = [box for box in container.others if box[4:8] == b"hdlr"]
    parts = [
        *handlers,
        _full(b"pitm", int(wide), 0, struct.pack(">" + number, container.primary)),
        _full(b"iinf", int(wide), 0, struct.pack(">" + number, len(entries)), *entries),
        _full(b"iref", int(wide), 0, *references) if references else b"",
        _box(b"iprp", iprp),
        *[box for box in container.others if box[4:8] != b"hdlr"],
    ]
    locations = _locations(container.items, 0, number)
    start = len(container.head) + len(_full(b"meta", 0, 0, *parts, locations)) + 8
    meta = _full(b"meta", 0, 0, *parts, _locations(container.items, start, number))
    media = [item.data for item in container.items.values()]
    size = struct.pack(">I4s", 8 + sum(map(len, media)), b"mdat")
    return b"".join([container.head, meta, size, *media, *container.boxes])


def _locations(items: dict[int, Item], start: int, number: str) -> bytes:
    """The iloc box for items whose bytes follow each other from start."""
    entries, place = [], start
    for key, item in items.items():
        extent = (
            struct.pack(">II", place, len(item.data)) if item.data else b""
        )  # 0 is "to the end"
        entries.append(struct.pack(f">{number}HHH", key, 0, 0, bool(extent)) + extent)
        place += len(item.data)
    wide = number == "I"
    head = struct.pack(">BB" + number, 0x44, 0, len(entries))
    return _full(b"iloc", 2 if wide else 1, 0, head, *entries)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end of each box; of one with a 64-bit size only media data may be."""
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        if size == 1 and start + 16 <= end:
            (size,) = struct.unpack_from(">Q", data, start + 8)
            if kind not in (b"mdat", b"mpvd", b"free"):
                raise ValueError(f"the box {kind!r} at byte {start} is too large; it is damaged")
        stop = start + size if size else end
        if size in range(1, 8) or stop > end:
            raise ValueError(f"the box {kind!r} at byte {start} breaks off; the file is truncated")
        yield kind, start, stop
        start = stop
    if start < end:
        yield b"", start, end


def _extents(data: bytes, start: int, idat: tuple[int, int]) -> dict[int, list[tuple[int, int]]]:
    """Of each item the start and end of its pieces in the file."""
    version, sizes, more = data[start + 8], data[start + 12], data[start + 13]
    widths = sizes >> 4, sizes & 15, more >> 4, more & 15 if version else 0
    number = 4 if version == 2 else 2
    count, place = _number(data, start + 14, number), start + 14 + number
    result: dict[int, list[tuple[int, int]]] = {}
    total = 0
    for _ in range(min(count, MOST_ITEMS)):
        key, place = _number(data, place, number), place + number
        method = _number(data, place, 2) & 15 if version else 0
        place += 4 if version else 2  # method, data reference
        base, place = _number(data, place, widths[2]), place + widths[2]
        pieces, place = _number(data, place, 2), place + 2
        if method > 1:
            raise ValueError("the file's items lie in other items, which nobody writes; damaged")
        origin, limit = (idat[0] + 8, idat[1]) if method else (0, len(data))
        for _ in range(pieces):
            place += widths[3]
            first, place = base + origin + _number(data, place, widths[0]), place + widths[0]
            length, place = _number(data, place, widths[1]), place + widths[1]
            last = first + length if length else limit
            total += last - first
            if first > last or last > limit or total > 2 * len(data):
                raise ValueError(f"the file's item {key} lies beyond its end; it is truncated")
            result.setdefault(key, []).append((first, last))
    return result


def _properties(data: bytes, start: int, end: int) -> dict[int, list[tuple[bytes, bool]]]:
    """Of each item its property boxes, with whether they are essential."""
    parts = list(_boxes(data, start + 8, end))
    pools = [(b, s) for kind, b, s in parts if kind == b"ipco"]
    if len(pools) != 1:
        raise ValueError("the file has no ipco box or several; it is damaged")
    pool = [data[b:s] for _, b, s in _boxes(data, pools[0][0] + 8, pools[0][1])]
    result: dict[int, list[tuple[bytes, bool]]] = {}
    for begin in (b for kind, b, _ in parts if kind == b"ipma"):
        number, width = 4 if data[begin + 8] else 2, 2 if data[begin + 11] & 1 else 1
        count, place = _number(data, begin + 12, 4), begin + 16
        for _ in range(min(count, MOST_ITEMS)):
            key, many, place = (
                _number(data, place, number),
                data[place + number],
                place + number + 1,
            )
            for _ in range(many):
                value, place = _number(data, place, width), place + width
                essential, index = (
                    bool(value >> (8 * width - 1)),
                    value & (1 << (8 * width - 1)) - 1,
                )
                if index:
                    result.setdefault(key, []).append((pool[index - 1], essential))
    return result


def _references(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, tuple[int, ...]]]:
    width = 4 if data[start + 8] else 2
    for kind, begin, _ in _boxes(data, start + 12, end):
        source, count = _number(data, begin + 8, width), _number(data, begin + 8 + width, 2)
        ends = range(begin + 10 + width, begin + 10 + width + count * width, width)
        yield kind, source, tuple(_number(data, place, width) for place in ends)


def _number(data: bytes, place: int, width: int) -> int:
    if place + width > len(data):
        raise IndexError(f"a number at byte {place} lies beyond the end")
    return int.from_bytes(data[place : place + width], "big")


def _box(kind: bytes, *contents: bytes) -> bytes:
    return struct.pack(">I4s", 8 + sum(map(len, contents)), kind) + b"".join(contents)


def _full(kind: bytes, version: int, flags: int, *contents: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24 | flags), *contents)


def without(container: Container, numbers: Iterable[int]) -> Container:
    """The container without these items and all that refers to them or from them."""
    gone = set(numbers)
    items = {key: item for key, item in container.items.items() if key not in gone}
    references = [
        (kind, start, tuple(to for to in ends if to not in gone))
        for kind, start, ends in container.references
        if start not in gone
    ]
    kept = tuple(reference for reference in references if reference[2])
    return Container(
        container.head, container.primary, items, kept, container.others, container.boxes
    )
