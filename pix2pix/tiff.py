"""TIFF files: pixels replaced in place, every other byte left where it is.

A TIFF is held together by offsets, some of them in tags and maker notes that nobody but their
maker knows. So nothing moves: new strips or tiles go where the old ones were, and to the file's
end where they don't fit. Strips or tiles, compression, predictor, byte order and planes are the
source's. Room that is left over is zeroed; a file whose pixels don't come last keeps its length.

`parted` raises ValueError where a structure is broken.

Source: TIFF 6.0, https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf; BigTIFF,
http://bigtiff.org; Adobe Photoshop TIFF technical notes 1 to 3 (compression 8, tag 700).
"""

import bisect
import io
import itertools
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pix2pix import tiff_blocks, xmp

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
SIZES |= {16: 8, 17: 8, 18: 8}  # BigTIFF
INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
# Tags
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, FILL_ORDER = 256, 257, 258, 259, 262, 266
STRIP_OFFSETS, SAMPLES, STRIP_ROWS, STRIP_COUNTS, PLANES, PREDICTOR = 273, 277, 278, 279, 284, 317
TILE_WIDTH, TILE_HEIGHT, TILE_OFFSETS, TILE_COUNTS = 322, 323, 324, 325
SUBFILE, MAKER, SUB_IFDS, EXTRAS, SAMPLE_FORMAT, XMP = 254, 271, 330, 338, 339, 700
DNG = 50706
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
PHOTOMETRICS = {3: "a palette", 4: "a mask", 5: "CMYK", 6: "YCbCr", 8: "CIELab", 9: "ICCLab"}
PHOTOMETRICS |= {10: "ITULab", 32803: "a camera's raw (colour filter array)", 34892: "linear raw"}
PHOTOMETRICS |= {32844: "LogL", 32845: "LogLuv", 51177: "a depth map"}
FORMATS = {2: "signed integers", 3: "floats", 4: "undefined", 5: "complex integers", 6: "complex"}
# Says of GDAL's cloud-optimized files that blocks may no longer lie as announced.
GDAL = (b"KNOWN_INCOMPATIBLE_EDITION=NO\n ", b"KNOWN_INCOMPATIBLE_EDITION=YES\n")
GDAL_BYTES = 512  # from the file's start, in which it stands
ZEROS = 2**20


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


@dataclass(frozen=True, eq=False)
class Tiff:
    """A TIFF file taken apart.

    Attributes:
        data: the whole file.
        order: "<" or ">".
        is_big: whether it is a BigTIFF.
        pointer: where the header says where the first IFD is.
        ifd: where that is.
        pages: how many IFDs follow each other; counting stops at 2.
        count: entries of the first IFD; a tag may be there twice.
        entries: tag to its first entry there.
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
    def format(self) -> str:
        """The format's name."""
        return "TIFF"

    @property
    def width(self) -> int:
        """Columns."""
        return self._number(WIDTH, 0)

    @property
    def height(self) -> int:
        """Rows."""
        return self._number(HEIGHT, 0)

    @property
    def samples(self) -> int:
        """Channels, alpha included."""
        return self._number(SAMPLES, 1)

    @property
    def bit_depth(self) -> int:
        """Bits of a sample; the first's, where they differ."""
        return self._number(BITS, 1)

    @property
    def mode(self) -> str:
        """How the file stores a pixel: "L", "LA", "RGB" or "RGBA"; alpha may be premultiplied."""
        return {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}.get(self.samples, "?")

    @property
    def xmp(self) -> bytes | None:
        """The XMP packet."""
        entry = self.entries.get(XMP)
        if entry is None or SIZES.get(entry.type) != 1 or self._end(entry) > len(self.data):
            return None
        return self.data[entry.place : entry.place + entry.count]

    @property
    def xmp_bytes(self) -> int:
        """The largest XMP packet that we put in."""
        return xmp.LARGEST_BYTES

    @property
    def refusal(self) -> str | None:
        """Why the picture can't be had in RGB as it is meant, if so."""
        if raw := self._raw():
            return f"the TIFF is {raw}; develop it first"
        if self.pages > 1:
            return "the TIFF has several pages; only one picture a file is read"
        photometric = self._number(PHOTOMETRIC, -1)
        if photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
            name = PHOTOMETRICS.get(photometric, f"photometric interpretation {photometric}")
            return f"the TIFF's colours are {name}; only grey and RGB are read"
        bits = self._numbers(BITS) or (1,)
        if set(bits) not in ({8}, {16}):
            return f"the TIFF's bit depth is {'/'.join(map(str, bits))}; only 8 and 16 are read"
        if kinds := set(self._numbers(SAMPLE_FORMAT)) - {1}:
            kind = FORMATS.get(min(kinds), "unknown")
            return f"the TIFF's samples are {kind}; only unsigned integers are read"
        colors = 3 if photometric == RGB else 1
        if self.samples not in (colors, colors + 1):
            return f"the TIFF has {self.samples} channels; only grey or RGB, with alpha, are read"
        compression = self._number(COMPRESSION, 1)
        if compression not in tiff_blocks.CODECS:
            name = tiff_blocks.OTHER.get(compression, str(compression))
            known = ", ".join(codec.name for codec in tiff_blocks.CODECS.values())
            return f"the TIFF's compression is {name}; only {known} are read"
        if (predictor := self._number(PREDICTOR, 1)) not in (1, 2):
            return f"the TIFF's predictor is {predictor}, for floats; only 1 and 2 are read"
        if self._number(FILL_ORDER, 1) != 1:
            return "the TIFF's bits are in reverse (FillOrder 2), which is not read"
        return None

    @property
    def loss(self) -> str | None:
        """What would be lost if the pixels were replaced."""
        if SUB_IFDS in self.entries:
            return "the TIFF has further pictures (SubIFDs), which would show the noise"
        blocks = _merged(self._places())
        others = [(e.place, self._end(e)) for e in self.entries.values()]
        for start, stop in [(0, 8), (self.ifd, self.ifd + 12 * self.count + 6), *others]:
            last = bisect.bisect_left(blocks, (stop,)) - 1
            if last >= 0 and blocks[last][1] > start:
                return "the TIFF's pixels lie on its tags, so they can't be replaced"
        if any(before[1] > after[0] for before, after in itertools.pairwise(blocks)):
            return "the TIFF's strips or tiles share bytes, so they can't be replaced"
        return None

    def stored(self) -> np.ndarray:
        """The pixels as stored, uint8 or uint16 (height, width, channels); grey's 0 is black.

        Raises:
            ValueError: strips or tiles are missing, outside the file or damaged.
        """
        layout, places = self._layout(), self._places()
        pixels = np.empty((self.height, self.width, self.samples), layout.dtype.newbyteorder("="))
        for block, (start, count) in zip(layout.blocks(), places, strict=True):
            coded = memoryview(self.data)[start : start + count]
            pixels[block.rows, block.columns, block.channels] = layout.decoded(coded, block)
        if self._number(PHOTOMETRIC, -1) == WHITE_IS_ZERO:
            np.invert(pixels[..., 0], out=pixels[..., 0])
        return pixels

    def encoded(
        self, rows: Callable[[int, int], np.ndarray], quality: int | None, packet: bytes | None
    ) -> bytes:
        """A file like this one with other pixels.

        Args:
            rows: from the first row and the one after the last to pixels as `stored` gives them.
            quality: nothing is lost in a TIFF of ours, so it doesn't matter.
            packet: the XMP packet to write; None leaves metadata alone.

        Raises:
            ValueError: more than 4 GB, which a classic TIFF can't hold.
        """
        file = io.BytesIO(self.data)
        places = self._write_blocks(file, rows)
        is_tiled = TILE_OFFSETS in self.entries
        self._write_numbers(
            file, TILE_OFFSETS if is_tiled else STRIP_OFFSETS, [p for p, _ in places]
        )
        tag = TILE_COUNTS if is_tiled else STRIP_COUNTS
        if self._numbers(tag):
            self._write_numbers(file, tag, [count for _, count in places])
        if packet is not None:
            self._write_xmp(file, packet)
        start = self.data.find(GDAL[0], 0, GDAL_BYTES)
        if start >= 0:
            file.seek(start)
            file.write(GDAL[1])
        if not self.is_big and file.seek(0, io.SEEK_END) >= 2**32:
            raise ValueError("the TIFF would grow beyond 4 GB; convert the source to BigTIFF first")
        return file.getvalue()

    def _raw(self) -> str | None:
        """Which camera's raw format it is, if one."""
        if DNG in self.entries:
            return "a raw photograph (DNG)"
        if self.data[8:10] == b"CR":
            return "a raw photograph (Canon CR2)"
        is_preview = bool(self._number(SUBFILE, 0) & 1)
        if MAKER in self.entries and SUB_IFDS in self.entries and (is_preview or self.pages > 1):
            return "a camera's raw photograph (NEF, ARW, PEF or alike)"
        return None

    def _layout(self) -> tiff_blocks.Layout:
        is_tiled = TILE_OFFSETS in self.entries
        rows = min(self._number(STRIP_ROWS, self.height), self.height)
        return tiff_blocks.Layout(
            height=self.height,
            width=self.width,
            samples=self.samples,
            is_planar=self._number(PLANES, 1) == 2 and self.samples > 1,
            is_tiled=is_tiled,
            block_height=self._number(TILE_HEIGHT, 0) if is_tiled else rows,
            block_width=self._number(TILE_WIDTH, 0) if is_tiled else self.width,
            dtype=np.dtype(f"{self.order}u{self.bit_depth // 8}"),
            compression=self._number(COMPRESSION, 1),
            predictor=self._number(PREDICTOR, 1),
        )

    def _places(self) -> list[tuple[int, int]]:
        """Start and length of each strip or tile in the file, checked against size and layout."""
        layout = self._layout()
        is_tiled = TILE_OFFSETS in self.entries
        starts = self._numbers(TILE_OFFSETS if is_tiled else STRIP_OFFSETS)
        counts = self._numbers(TILE_COUNTS if is_tiled else STRIP_COUNTS)
        expected = layout.count
        if not counts and expected == 1 and len(starts) == 1:  # old writers leave it out
            counts = (min(layout.block_bytes, len(self.data) - starts[0]),)
        if len(starts) != expected or len(counts) != expected:
            raise ValueError(
                f"the TIFF has {len(starts)} strips or tiles of {len(counts)} lengths where its "
                f"size asks for {expected}; it is damaged"
            )
        places = list(zip(starts, counts, strict=True))
        if any(start + count > len(self.data) or count < 0 for start, count in places):
            raise ValueError("the TIFF's strips or tiles reach beyond its end; it is truncated")
        return places

    def _write_blocks(
        self, file: io.BytesIO, rows: Callable[[int, int], np.ndarray]
    ) -> list[tuple[int, int]]:
        """Write all strips or tiles; return start and length of each."""
        layout, invert = self._layout(), self._number(PHOTOMETRIC, -1) == WHITE_IS_ZERO
        free = _merged(self._places())
        places, room, end = [], 0, len(self.data)
        band_rows, band = slice(0, 0), np.empty(0)
        for block in layout.blocks():
            if block.rows != band_rows:  # once for all tiles beside each other
                band_rows, band = block.rows, rows(block.rows.start, block.rows.stop)
                if invert:
                    band = band.copy()
                    np.invert(band[..., 0], out=band[..., 0])
            coded = layout.encoded(band[:, block.columns, block.channels], block)
            while room < len(free) and free[room][1] - free[room][0] < len(coded):
                room += 1
            if room < len(free):
                start = free[room][0]
                free[room] = start + len(coded), free[room][1]
            else:
                start, end = end, end + len(coded)
            file.seek(start)
            file.write(coded)
            places.append((start, len(coded)))
        for start, stop in free:
            file.seek(start)
            if stop == len(self.data) == end:
                file.truncate()
                break
            for place in range(start, stop, ZEROS):
                file.write(bytes(min(ZEROS, stop - place)))
        return places

    def _write_numbers(self, file: io.BytesIO, tag: int, values: list[int]) -> None:
        """Write a tag's values where they are, or in a wider type at the end if they don't fit."""
        entry = self.entries[tag]
        kind, place = entry.type, entry.place
        if max(values) >= 2 ** (8 * SIZES[kind]):
            kind = 16 if self.is_big else 4
            width = 8 if self.is_big else 4
            place = entry.position + (12 if self.is_big else 8)
            if len(values) * SIZES[kind] > width:
                place = _even_end(file)
                self._write(file, entry.position + (12 if self.is_big else 8), self._word, place)
            self._write(file, entry.position + 2, "H", kind)
        self._write(file, place, f"{len(values)}{INTEGERS[kind]}", *values)

    def _write_xmp(self, file: io.BytesIO, packet: bytes) -> None:
        """Write the packet to the end; without an entry for it the IFD goes there too."""
        place = _even_end(file)
        file.seek(place)
        file.write(packet)
        if old := self.entries.get(XMP):
            self._write(file, old.position + 2, "H" + self._word, 1, len(packet))
            self._write(file, old.position + (12 if self.is_big else 8), self._word, place)
            if self.xmp is not None and old.place != old.position + (12 if self.is_big else 8):
                file.seek(old.place)
                file.write(bytes(old.count))
            return
        head, size = (8, 20) if self.is_big else (2, 12)
        file.seek(self.ifd + head)
        entries = [file.read(size) for _ in range(self.count)]
        count = struct.pack(self.order + self._word, len(packet))
        value = struct.pack(self.order + self._word, place)
        entries.append(struct.pack(self.order + "HH", XMP, 1) + count + value)
        entries.sort(key=lambda entry: struct.unpack_from(self.order + "H", entry))
        ifd = _even_end(file)
        self._write(file, ifd, "Q" if self.is_big else "H", len(entries))
        file.write(b"".join(entries))
        file.write(struct.pack(self.order + self._word, 0))
        self._write(file, self.pointer, self._word, ifd)

    @staticmethod
    def _end(entry: Entry) -> int:
        return entry.place + entry.count * SIZES.get(entry.type, 1)

    @property
    def _word(self) -> str:
        return "Q" if self.is_big else "I"

    def _write(self, file: io.BytesIO, place: int, kinds: str, *values: int) -> None:
        file.seek(place)
        try:
            file.write(struct.pack(self.order + kinds, *values))
        except struct.error as error:
            raise ValueError("the TIFF would grow beyond 4 GB; convert it to BigTIFF") from error

    def _numbers(self, tag: int) -> tuple[int, ...]:
        entry = self.entries.get(tag)
        if entry is None or entry.type not in INTEGERS:
            return ()
        if self._end(entry) > len(self.data) or entry.count > tiff_blocks.MOST_BLOCKS:
            raise ValueError(f"the TIFF's tag {tag} says {entry.count} values; it is damaged")
        kinds = f"{self.order}{entry.count}{INTEGERS[entry.type]}"
        return struct.unpack_from(kinds, self.data, entry.place)

    def _number(self, tag: int, default: int) -> int:
        numbers = self._numbers(tag)
        return numbers[0] if numbers else default


def parted(data: bytes) -> Tiff:
    """A TIFF file taken apart.

    Args:
        data: a whole file that starts with one of `STARTS`.

    Raises:
        ValueError: the structure is broken or the file is truncated.
    """
    order, is_big = "<" if data.startswith(b"II") else ">", b"+" in data[2:4]
    pointer, head, size = (8, 8, 20) if is_big else (4, 2, 12)
    word, number = ("Q", "Q") if is_big else ("I", "H")
    try:
        (ifd,) = struct.unpack_from(order + word, data, pointer)
        (count,) = struct.unpack_from(order + number, data, ifd)
        if ifd + head + count * size > len(data):
            raise ValueError(f"the TIFF's directory says {count} tags; it is damaged or truncated")
        entries: dict[int, Entry] = {}
        for position in range(ifd + head, ifd + head + count * size, size):
            tag, kind, length = struct.unpack_from(order + "HH" + word, data, position)
            place = position + 4 + struct.calcsize("=" + word)
            if length * SIZES.get(kind, 1) > struct.calcsize("=" + word):
                (place,) = struct.unpack_from(order + word, data, place)
            entries.setdefault(tag, Entry(position, kind, length, place))
        (next_ifd,) = struct.unpack_from(order + word, data, ifd + head + count * size)
    except (struct.error, OverflowError) as error:
        raise ValueError(f"the TIFF breaks off in its directory: {error}; truncated") from error
    result = Tiff(data, order, is_big, pointer, ifd, 2 if next_ifd else 1, count, entries)
    if result.width <= 0 or result.height <= 0:
        raise ValueError(f"the TIFF says {result.width}x{result.height} pixels; it is damaged")
    return result


def _merged(places: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Start and stop of the stretches that these starts and lengths cover, in order."""
    merged: list[tuple[int, int]] = []
    for start, count in sorted(places):
        if merged and merged[-1][1] == start:
            merged[-1] = merged[-1][0], start + count
        else:
            merged.append((start, start + count))
    return merged


def _even_end(file: io.BytesIO) -> int:
    """The file's end, filled up to a multiple of 8."""
    end = file.seek(0, io.SEEK_END)
    file.write(bytes(-end % 8))
    return file.tell()
