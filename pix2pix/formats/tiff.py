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
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pix2pix.formats import tiff_blocks, tiff_tags, xmp

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
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


@dataclass(frozen=True, eq=False, repr=False)
class Tiff:
    """A TIFF file taken apart.

    Attributes:
        data: the whole file.
        tags: what its first directory says.
    """

    data: bytes
    tags: tiff_tags.Tags

    @property
    def format(self) -> str:
        """The format's name."""
        return "TIFF"

    @property
    def width(self) -> int:
        """Columns."""
        return self.tags.number(WIDTH, 0)

    @property
    def height(self) -> int:
        """Rows."""
        return self.tags.number(HEIGHT, 0)

    @property
    def samples(self) -> int:
        """Channels, alpha included."""
        return self.tags.number(SAMPLES, 1)

    @property
    def bit_depth(self) -> int:
        """Bits of a sample; the first's, where they differ."""
        return self.tags.number(BITS, 1)

    @property
    def mode(self) -> str:
        """How the file stores a pixel: "L", "LA", "RGB" or "RGBA"; alpha may be premultiplied."""
        return {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}.get(self.samples, "?")

    @property
    def xmp(self) -> bytes | None:
        """The XMP packet."""
        return self.tags.content(XMP)

    @property
    def xmp_bytes(self) -> int:
        """The largest XMP packet that we put in."""
        return xmp.LARGEST_BYTES

    @property
    def refusal(self) -> str | None:
        """Why the picture can't be had in RGB as it is meant, if so."""
        if raw := self._raw():
            return f"the TIFF is {raw}; develop it first"
        if self.tags.pages > 1:
            return "the TIFF has several pages; only one picture a file is read"
        photometric = self.tags.number(PHOTOMETRIC, -1)
        if photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
            name = PHOTOMETRICS.get(photometric, f"photometric interpretation {photometric}")
            return f"the TIFF's colours are {name}; only grey and RGB are read"
        bits = self.tags.numbers(BITS) or (1,)
        if set(bits) not in ({8}, {16}):
            return f"the TIFF's bit depth is {'/'.join(map(str, bits))}; only 8 and 16 are read"
        if kinds := set(self.tags.numbers(SAMPLE_FORMAT)) - {1}:
            kind = FORMATS.get(min(kinds), "unknown")
            return f"the TIFF's samples are {kind}; only unsigned integers are read"
        colors = 3 if photometric == RGB else 1
        if self.samples not in (colors, colors + 1):
            return f"the TIFF has {self.samples} channels; only grey or RGB, with alpha, are read"
        compression = self.tags.number(COMPRESSION, 1)
        if compression not in tiff_blocks.CODECS:
            name = tiff_blocks.OTHER.get(compression, str(compression))
            known = ", ".join(codec.name for codec in tiff_blocks.CODECS.values())
            return f"the TIFF's compression is {name}; only {known} are read"
        if (predictor := self.tags.number(PREDICTOR, 1)) not in (1, 2):
            return f"the TIFF's predictor is {predictor}, for floats; only 1 and 2 are read"
        if self.tags.number(FILL_ORDER, 1) != 1:
            return "the TIFF's bits are in reverse (FillOrder 2), which is not read"
        return None

    @property
    def loss(self) -> str | None:
        """What would be lost if the pixels were replaced."""
        if SUB_IFDS in self.tags.entries:
            return "the TIFF has further pictures (SubIFDs), which would show the noise"
        is_tiled, is_coded = (
            TILE_OFFSETS in self.tags.entries,
            self.tags.number(COMPRESSION, 1) != 1,
        )
        if is_coded and not self.tags.numbers(TILE_COUNTS if is_tiled else STRIP_COUNTS):
            return "the TIFF doesn't say how long its compressed pixels are, nor so what is behind"
        blocks = _merged(self._places())
        others = [(entry.place, entry.end) for entry in self.tags.entries.values()]
        for start, stop in [(0, 8), self.tags.place, *others, *self.tags.beside()]:
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
        if (seen := self._in_place(layout, places)) is not None:
            return seen
        pixels = np.empty((self.height, self.width, self.samples), layout.dtype.newbyteorder("="))
        for block, (start, count) in zip(layout.blocks(), places, strict=True):
            coded = memoryview(self.data)[start : start + count]
            pixels[block.rows, block.columns, block.channels] = layout.decoded(coded, block)
        if self.tags.number(PHOTOMETRIC, -1) == WHITE_IS_ZERO:
            np.invert(pixels[..., 0], out=pixels[..., 0])
        return pixels

    def _in_place(
        self, layout: tiff_blocks.Layout, places: list[tuple[int, int]]
    ) -> np.ndarray | None:
        """The pixels where they lie in the file, if they lie there as they are: no second copy."""
        plain = layout.compression == 1 and layout.predictor == 1 and layout.dtype.isnative
        if not plain or layout.is_planar or layout.is_tiled:
            return None
        if self.tags.number(PHOTOMETRIC, -1) == WHITE_IS_ZERO:
            return None
        row_bytes = self.width * self.samples * layout.dtype.itemsize
        start = end = places[0][0]
        for block, (place, count) in zip(layout.blocks(), places, strict=True):
            wanted = (block.rows.stop - block.rows.start) * row_bytes
            if place != end or count < wanted:
                return None
            end += wanted
        if end > len(self.data):
            return None
        shape = (self.height, self.width, self.samples)
        return np.ndarray(shape, layout.dtype, self.data, start)

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
        is_tiled = TILE_OFFSETS in self.tags.entries
        self.tags.write_numbers(
            file, TILE_OFFSETS if is_tiled else STRIP_OFFSETS, [p for p, _ in places]
        )
        tag = TILE_COUNTS if is_tiled else STRIP_COUNTS
        if self.tags.numbers(tag):
            self.tags.write_numbers(file, tag, [count for _, count in places])
        if packet is not None:
            self.tags.write_content(file, XMP, packet)
        start = self.data.find(GDAL[0], 0, GDAL_BYTES)
        if start >= 0:
            file.seek(start)
            file.write(GDAL[1])
        if not self.tags.is_big and file.seek(0, io.SEEK_END) >= 2**32:
            raise ValueError("the TIFF would grow beyond 4 GB; convert the source to BigTIFF first")
        return file.getvalue()

    def _raw(self) -> str | None:
        """Which camera's raw format it is, if one."""
        if DNG in self.tags.entries:
            return "a raw photograph (DNG)"
        if self.data[8:10] == b"CR":
            return "a raw photograph (Canon CR2)"
        is_preview = bool(self.tags.number(SUBFILE, 0) & 1)
        if (
            MAKER in self.tags.entries
            and SUB_IFDS in self.tags.entries
            and (is_preview or self.tags.pages > 1)
        ):
            return "a camera's raw photograph (NEF, ARW, PEF or alike)"
        return None

    def _layout(self) -> tiff_blocks.Layout:
        is_tiled = TILE_OFFSETS in self.tags.entries
        rows = min(self.tags.number(STRIP_ROWS, self.height), self.height)
        return tiff_blocks.Layout(
            height=self.height,
            width=self.width,
            samples=self.samples,
            is_planar=self.tags.number(PLANES, 1) == 2 and self.samples > 1,
            is_tiled=is_tiled,
            block_height=self.tags.number(TILE_HEIGHT, 0) if is_tiled else rows,
            block_width=self.tags.number(TILE_WIDTH, 0) if is_tiled else self.width,
            dtype=np.dtype(f"{self.tags.order}u{self.bit_depth // 8}"),
            compression=self.tags.number(COMPRESSION, 1),
            predictor=self.tags.number(PREDICTOR, 1),
        )

    def _places(self) -> list[tuple[int, int]]:
        """Start and length of each strip or tile in the file, checked against size and layout."""
        layout = self._layout()
        is_tiled = TILE_OFFSETS in self.tags.entries
        starts = self.tags.numbers(TILE_OFFSETS if is_tiled else STRIP_OFFSETS)
        counts = self.tags.numbers(TILE_COUNTS if is_tiled else STRIP_COUNTS)
        expected = layout.count
        if not counts and expected == 1 and len(starts) == 1:  # old writers leave it out
            counts = (min(layout.block_bytes, len(self.data) - starts[0]),)
        if len(starts) != expected or len(counts) != expected:
            raise ValueError(
                f"the TIFF has {len(starts)} strips or tiles of {len(counts)} lengths where its "
                f"size asks for {expected}; it is damaged"
            )
        if layout.compression == 1:  # of a length too large, the rest is something else
            sizes = map(layout.bytes_in, layout.blocks())
            counts = tuple(map(min, counts, sizes))
        places = list(zip(starts, counts, strict=True))
        if any(start + count > len(self.data) or count < 0 for start, count in places):
            raise ValueError("the TIFF's strips or tiles reach beyond its end; it is truncated")
        return places

    def _write_blocks(
        self, file: io.BytesIO, rows: Callable[[int, int], np.ndarray]
    ) -> list[tuple[int, int]]:
        """Write all strips or tiles; return start and length of each."""
        layout, invert = self._layout(), self.tags.number(PHOTOMETRIC, -1) == WHITE_IS_ZERO
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


def parted(data: bytes) -> Tiff:
    """A TIFF file taken apart.

    Args:
        data: a whole file that starts with one of `STARTS`.

    Raises:
        ValueError: the structure is broken or the file is truncated.
    """
    result = Tiff(data, tiff_tags.read(data))
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
