"""A TIFF's directory: its tags, read, and changed without moving anything else.

Source: TIFF 6.0, section 2, https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf; BigTIFF,
http://bigtiff.org
"""

import io
import struct
from dataclasses import dataclass

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
SIZES |= {16: 8, 17: 8, 18: 8}  # BigTIFF
INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
DIRECTORIES = (34665, 34853, 40965)  # tags of further ones: Exif, GPS, and in Exif for exchange
MOST_VALUES = 2**22  # of a tag that is looked into: strips or tiles


@dataclass(frozen=True)
class Entry:
    """A tag's entry.

    Attributes:
        position: of the entry in the file.
        type: TIFF's number of the values' type.
        count: of values.
        place: of the values' first byte; inside the entry if they are short.
    """

    position: int
    type: int
    count: int
    place: int

    @property
    def end(self) -> int:
        """Where the values end."""
        return self.place + self.count * SIZES.get(self.type, 1)


@dataclass(frozen=True, eq=False, repr=False)
class Tags:
    """The first directory (IFD) of a TIFF.

    Attributes:
        data: the whole file.
        order: "<" or ">".
        is_big: whether it is a BigTIFF.
        pointer: where the header says where the directory is.
        ifd: where that is.
        pages: 2 if another directory follows, else 1.
        count: entries; a tag may be there twice.
        entries: tag to its first entry.
    """

    data: bytes
    order: str
    is_big: bool
    pointer: int
    ifd: int
    pages: int
    count: int
    entries: dict[int, Entry]

    @property
    def place(self) -> tuple[int, int]:
        """Start and end of the directory in the file."""
        head, size, tail = (8, 20, 8) if self.is_big else (2, 12, 4)
        return self.ifd, self.ifd + head + size * self.count + tail

    def numbers(self, tag: int) -> tuple[int, ...]:
        """A tag's values; empty without it, or if they are no unsigned integers.

        Raises:
            ValueError: the values reach beyond the file's end.
        """
        entry = self.entries.get(tag)
        if entry is None or entry.type not in INTEGERS:
            return ()
        if entry.end > len(self.data) or entry.count > MOST_VALUES:
            raise ValueError(f"the TIFF's tag {tag} says {entry.count} values; it is damaged")
        kinds = f"{self.order}{entry.count}{INTEGERS[entry.type]}"
        return struct.unpack_from(kinds, self.data, entry.place)

    def number(self, tag: int, default: int) -> int:
        """A tag's first value, or the default."""
        numbers = self.numbers(tag)
        return numbers[0] if numbers else default

    def content(self, tag: int) -> bytes | None:
        """A tag's bytes; None without it, or if it reaches beyond the file's end."""
        entry = self.entries.get(tag)
        if entry is None or SIZES.get(entry.type) != 1 or entry.end > len(self.data):
            return None
        return self.data[entry.place : entry.end]

    def beside(self) -> list[tuple[int, int]]:
        """Start and end of the directories for Exif and GPS, and of their values.

        What reaches beyond the file's end is left out, as nobody can read it.
        """
        found: list[tuple[int, int]] = []
        seen: set[int] = set()
        waiting = [self.entries]
        while waiting:
            entries = waiting.pop()
            for tag in DIRECTORIES:
                entry = entries.get(tag)
                if entry is None or entry.type not in INTEGERS or not entry.count:
                    continue
                try:
                    kind = self.order + INTEGERS[entry.type]
                    (ifd,) = struct.unpack_from(kind, self.data, entry.place)
                    inner, end = _directory(self.data, self.order, self.is_big, ifd)
                except (struct.error, OverflowError, ValueError):
                    continue
                if ifd in seen:
                    continue
                seen.add(ifd)
                values = [(value.place, value.end) for value in inner.values()]
                found += [(ifd, end), *((a, b) for a, b in values if b <= len(self.data))]
                waiting.append(inner)
        return found

    def write_numbers(self, file: io.BytesIO, tag: int, values: list[int]) -> None:
        """Write a tag's values where they are, or in a wider type at the end if they don't fit.

        Raises:
            ValueError: the file would grow beyond 4 GB, and isn't a BigTIFF.
        """
        entry = self.entries[tag]
        kind, place = entry.type, entry.place
        if max(values) >= 2 ** (8 * SIZES[kind]):
            kind = 16 if self.is_big else 4
            width = 8 if self.is_big else 4
            place = self._inside(entry)
            if len(values) * SIZES[kind] > width:
                place = _even_end(file)
                self._write(file, self._inside(entry), self._word, place)
            self._write(file, entry.position + 2, "H", kind)
        self._write(file, place, f"{len(values)}{INTEGERS[kind]}", *values)

    def write_content(self, file: io.BytesIO, tag: int, content: bytes) -> None:
        """Write a tag's bytes to the end; without an entry for it the directory goes there too.

        Raises:
            ValueError: the file would grow beyond 4 GB, and isn't a BigTIFF.
        """
        place = _even_end(file)
        file.seek(place)
        file.write(content)
        if old := self.entries.get(tag):
            self._write(file, old.position + 2, "H" + self._word, 1, len(content))
            self._write(file, self._inside(old), self._word, place)
            if self.content(tag) is not None and old.place != self._inside(old):
                file.seek(old.place)
                file.write(bytes(old.count))
            return
        head, size = (8, 20) if self.is_big else (2, 12)
        file.seek(self.ifd + head)
        entries = [file.read(size) for _ in range(self.count)]
        count = struct.pack(self.order + self._word, len(content))
        value = struct.pack(self.order + self._word, place)
        entries.append(struct.pack(self.order + "HH", tag, 1) + count + value)
        entries.sort(key=lambda entry: struct.unpack_from(self.order + "H", entry))
        ifd = _even_end(file)
        self._write(file, ifd, "Q" if self.is_big else "H", len(entries))
        file.write(b"".join(entries))
        file.write(struct.pack(self.order + self._word, 0))
        self._write(file, self.pointer, self._word, ifd)

    def _inside(self, entry: Entry) -> int:
        """Where an entry has its values, or says where they are."""
        return entry.position + (12 if self.is_big else 8)

    @property
    def _word(self) -> str:
        return "Q" if self.is_big else "I"

    def _write(self, file: io.BytesIO, place: int, kinds: str, *values: int) -> None:
        file.seek(place)
        try:
            file.write(struct.pack(self.order + kinds, *values))
        except struct.error as error:
            raise ValueError("the TIFF would grow beyond 4 GB; convert it to BigTIFF") from error


def read(data: bytes) -> Tags:
    """The first directory of a file.

    Args:
        data: a whole TIFF.

    Raises:
        ValueError: the directory is broken or the file is truncated.
    """
    order, is_big = "<" if data.startswith(b"II") else ">", b"+" in data[2:4]
    pointer, head, size = (8, 8, 20) if is_big else (4, 2, 12)
    word = "Q" if is_big else "I"
    try:
        (ifd,) = struct.unpack_from(order + word, data, pointer)
        entries, end = _directory(data, order, is_big, ifd)
        (next_ifd,) = struct.unpack_from(order + word, data, end)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"the TIFF breaks off in its directory: {error}; truncated") from error
    count = (end - ifd - head) // size
    return Tags(data, order, is_big, pointer, ifd, 2 if next_ifd else 1, count, entries)


def _directory(data: bytes, order: str, is_big: bool, ifd: int) -> tuple[dict[int, Entry], int]:
    """The first entry of each tag in a directory, and where its entries end."""
    word, number, head, size = ("Q", "Q", 8, 20) if is_big else ("I", "H", 2, 12)
    (count,) = struct.unpack_from(order + number, data, ifd)
    end = ifd + head + count * size
    if end > len(data):
        raise ValueError(f"the TIFF's directory says {count} tags; it is damaged or truncated")
    entries: dict[int, Entry] = {}
    for position in range(ifd + head, end, size):
        tag, kind, length = struct.unpack_from(order + "HH" + word, data, position)
        place = position + 4 + struct.calcsize("=" + word)
        if length * SIZES.get(kind, 1) > struct.calcsize("=" + word):
            (place,) = struct.unpack_from(order + word, data, place)
        entries.setdefault(tag, Entry(position, kind, length, place))
    return entries, end


def _even_end(file: io.BytesIO) -> int:
    """The file's end, filled up to a multiple of 8."""
    end = file.seek(0, io.SEEK_END)
    file.write(bytes(-end % 8))
    return file.tell()
