"""Strips and tiles of a TIFF: where each lies in the picture, and its bytes to pixels and back.

Source: TIFF 6.0, sections 9 (PackBits), 13 (LZW), 14 (predictor) and 15 (tiles),
https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import imagecodecs
import numpy as np

MOST_BLOCKS = 2**22  # a picture of 2**28 pixels in tiles of 8x8
MOST_PADDING_BYTES = 2**26  # by which a block may be larger than the whole picture


class Codec(NamedTuple):
    """A compression: its name, its decoder of bytes and capacity, its encoder of 2-D uint8 rows."""

    name: str
    decode: Callable[[Any, int], Any]
    encode: Callable[[Any], Any]


CODECS = {
    1: Codec("none", lambda coded, _: coded, lambda rows: rows.reshape(-1).data),
    5: Codec("LZW", lambda coded, n: imagecodecs.lzw_decode(coded, out=n), imagecodecs.lzw_encode),
    32773: Codec(
        "PackBits",
        lambda coded, n: imagecodecs.packbits_decode(coded, out=n),
        imagecodecs.packbits_encode,
    ),
    50000: Codec(
        "Zstandard", lambda coded, n: imagecodecs.zstd_decode(coded, out=n), imagecodecs.zstd_encode
    ),
}
for number in (8, 32946):
    CODECS[number] = Codec(
        "Deflate",
        lambda coded, n: imagecodecs.deflate_decode(coded, out=n),
        lambda rows: imagecodecs.deflate_encode(rows, level=6),
    )
OTHER = {2: "CCITT", 3: "CCITT fax 3", 4: "CCITT fax 4", 6: "JPEG (old)", 7: "JPEG"}
OTHER |= {34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 50001: "WebP", 50002: "JPEG XL"}
OTHER |= {32809: "ThunderScan", 34676: "SGI log", 34892: "lossy JPEG", 52546: "JPEG XL"}


class Block(NamedTuple):
    """The part of the picture that a strip or tile holds."""

    rows: slice
    columns: slice
    channels: slice


@dataclass(frozen=True)
class Layout:
    """How a picture is cut into blocks, and how a block is coded.

    Attributes:
        height: rows of the picture.
        width: columns.
        samples: channels.
        is_planar: whether each channel has blocks of its own.
        is_tiled: whether blocks are tiles, which are always whole.
        block_height: rows of a block.
        block_width: columns.
        dtype: unsigned integers in the file's byte order.
        compression: TIFF's number.
        predictor: 1, or 2 for differences along rows.
    """

    height: int
    width: int
    samples: int
    is_planar: bool
    is_tiled: bool
    block_height: int
    block_width: int
    dtype: np.dtype
    compression: int
    predictor: int

    @property
    def count(self) -> int:
        """How many blocks there must be.

        Raises:
            ValueError: a block has no size, or an absurd one.
        """
        if self.block_height <= 0 or self.block_width <= 0:
            raise ValueError("the TIFF's strips or tiles have no size; it is damaged")
        down, across = -(-self.height // self.block_height), -(-self.width // self.block_width)
        count = down * across * (self.samples if self.is_planar else 1)
        image_bytes = self.height * self.width * self.samples * self.dtype.itemsize
        if count > MOST_BLOCKS or self.block_bytes > image_bytes + MOST_PADDING_BYTES:
            raise ValueError(
                f"the TIFF has blocks of {self.block_width}x{self.block_height} pixels, {count} of "
                "them, for its size; nobody writes that, it is damaged"
            )
        return count

    @property
    def block_bytes(self) -> int:
        """Bytes of a whole block, uncompressed."""
        samples = 1 if self.is_planar else self.samples
        return self.block_height * self.block_width * samples * self.dtype.itemsize

    def blocks(self) -> Iterator[Block]:
        """All blocks in the file's order."""
        planes = [slice(i, i + 1) for i in range(self.samples)]
        for channels in planes if self.is_planar else [slice(0, self.samples)]:
            for top in range(0, self.height, self.block_height):
                bottom = min(top + self.block_height, self.height)
                for left in range(0, self.width, self.block_width):
                    right = min(left + self.block_width, self.width)
                    yield Block(slice(top, bottom), slice(left, right), channels)

    def decoded(self, coded: memoryview, block: Block) -> np.ndarray:
        """The pixels of a block, (rows, columns, channels).

        Raises:
            ValueError: the bytes are damaged or too few.
        """
        shape = self._shape(block)
        expected = shape[0] * shape[1] * shape[2] * self.dtype.itemsize
        try:
            # Some writers fill up the last strip, so a whole block must have room.
            raw = CODECS[self.compression].decode(coded, max(expected, self.block_bytes))
        except RuntimeError as error:  # what imagecodecs' errors have in common
            raise ValueError(f"the TIFF's pixels can't be decoded: {error}") from error
        if len(raw) < expected:
            raise ValueError(
                f"a strip or tile of the TIFF has {len(raw)} bytes, not {expected}; it is damaged"
            )
        values = np.frombuffer(raw, self.dtype, expected // self.dtype.itemsize).reshape(shape)
        if self.predictor == 2:
            native = values.astype(self.dtype.newbyteorder("="), copy=False)
            values = np.add.accumulate(native, axis=1, dtype=native.dtype)
        return values[
            : block.rows.stop - block.rows.start, : block.columns.stop - block.columns.start
        ]

    def encoded(self, pixels: np.ndarray, block: Block) -> bytes | memoryview:
        """The bytes of a block of pixels; a tile is filled up with its last row and column."""
        height, width, _ = self._shape(block)
        padding = (0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)
        values = np.pad(pixels, padding, mode="edge") if np.any(padding) else pixels
        if self.predictor == 2:
            values = np.diff(values, axis=1, prepend=values.dtype.type(0))
        values = np.ascontiguousarray(values, self.dtype)
        return CODECS[self.compression].encode(values.reshape(height, -1).view(np.uint8))

    def bytes_in(self, block: Block) -> int:
        """Bytes of a block, uncompressed."""
        return int(np.prod(self._shape(block))) * self.dtype.itemsize

    def _shape(self, block: Block) -> tuple[int, int, int]:
        """Height, width and channels of a block's bytes: of a tile always the whole one."""
        channels = block.channels.stop - block.channels.start
        if self.is_tiled:
            return self.block_height, self.block_width, channels
        return (
            block.rows.stop - block.rows.start,
            block.columns.stop - block.columns.start,
            channels,
        )
