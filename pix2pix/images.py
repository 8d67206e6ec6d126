"""Bytes to pixels and back, with everything around the pixels kept: what a photo archive holds.

JPEG, PNG, TIFF, WebP, HEIC and AVIF, 8 to 16 bits. Each format's module takes a file apart and
says what can't be read and what would be lost (see `formats`); here is what they have in common.
What would come back spoiled is refused by name. Exif orientation is not applied but kept, so that
viewers turn the picture upright once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from pix2pix.formats import jpeg, kinds, xmp
from pix2pix.formats.kinds import Source

LARGEST_PIXELS: int = 2**28
LARGEST_BYTES: int = 2**31  # of a file: four channels of 16 bits, uncompressed
LARGEST_SIDE: int = 2**20  # libpng's own limit
STRIP_ROWS = 64
REMEDY = "convert a copy to RGB or grey JPEG, PNG or TIFF without what is named, or leave it out"
DAMAGED = "copy the file again from its source, or leave it out"


class Unsupported(ValueError):  # noqa: N818 - named as the status table's failure class
    """An image that we can read but would spoil; it's refused by name."""


class TooLarge(ValueError):  # noqa: N818 - named as the status table's failure class
    """An image of more than LARGEST_PIXELS pixels, or with a side beyond LARGEST_SIDE."""


class Undecodable(ValueError):  # noqa: N818 - named as the status table's failure class
    """Bytes that are no image, or a damaged one."""


@dataclass(frozen=True, eq=False, repr=False)
class Photograph:
    """A photograph's pixels and what is needed to write other pixels in its place.

    Attributes:
        pixels: uint8 or uint16 (height, width, 3), RGB, as stored: not turned upright. uint16
            always spans 0 to 65535, also for files of 10 or 12 bits. Grey comes as three equal
            channels. Read-only, and not always contiguous: grey and alpha are not copied apart.
        alpha: the same type, (height, width), put back untouched; None without transparency.
            Colours that a file stores multiplied with it stay so.
        source: the file taken apart.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    source: Source

    @property
    def format(self) -> str:
        """The file's format: "JPEG", "PNG", "TIFF", "WebP", "HEIC" or "AVIF"."""
        return self.source.format

    @property
    def mode(self) -> str:
        """How the file stores a pixel: "L", "LA", "RGB" or "RGBA"."""
        return self.source.mode

    @property
    def height(self) -> int:
        """Rows, as stored."""
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        """Columns, as stored."""
        return self.pixels.shape[1]

    @property
    def channels(self) -> int:
        """Channels of the file, 1 to 4, alpha included."""
        return len(self.mode)

    @property
    def bit_depth(self) -> int:
        """Bits of a channel in the file: 8, 10, 12 or 16."""
        return self.source.bit_depth

    @property
    def is_denoised(self) -> bool:
        """Whether the file's XMP carries our mark."""
        return xmp.mark(self.source.xmp) is not None


def pixels_promised(data: bytes) -> int:
    """How many pixels a file's header promises; none is decoded.

    Raises:
        Undecodable, Unsupported, TooLarge: as `decode`, as far as the header says.
    """
    source = _source(data)
    return source.width * source.height


def decode(data: bytes) -> Photograph:
    """The photograph in a file's bytes, with everything that `encode` needs to write it back.

    Args:
        data: a whole file.

    Raises:
        Undecodable: no image, or a damaged one.
        Unsupported: an image that would lose something if it were written back.
        TooLarge: beyond LARGEST_PIXELS or LARGEST_SIDE; no pixel was decoded.
    """
    source = _source(data)
    try:
        if loss := source.loss:
            raise Unsupported(f"{loss}; {REMEDY}")
        stored = source.stored()
    except Unsupported:
        raise
    except ValueError as error:
        raise Undecodable(f"{error}; {DAMAGED}") from error
    alpha = None
    if source.mode in ("LA", "RGBA"):
        alpha = stored[..., -1]
        alpha.setflags(write=False)
    return Photograph(_rgb(stored), alpha, source)


def encode(
    photograph: Photograph,
    pixels: np.ndarray,
    quality: int | None = None,
    mark: str | None = None,
) -> bytes:
    """A file like the photograph's, with other pixels.

    Format, depth, mode, alpha and metadata are the photograph's; of a JPEG also the quantization
    tables and the chroma subsampling (4:4:4 where Pillow can't write the same), of a TIFF
    compression and layout. A grey file gets the rounded mean of the three channels.

    Args:
        photograph: what `decode` returned.
        pixels: RGB, of the type and shape of the photograph's.
        quality: 1 to 100, of a lossy format; None is as the source (its tables or an estimate).
        mark: a text for our property in the file's XMP, printable. A packet that can't be extended
            (see `xmp`) stays as it is, and the file unmarked. Without a mark, no byte of metadata
            changes.

    Raises:
        ValueError: pixels of another shape or type, a quality out of range, or an unprintable mark;
            or the file would become more than its format can hold.
        Unsupported: the format's encoder refuses the picture.
    """
    expected = photograph.pixels
    if pixels.shape != expected.shape or pixels.dtype != expected.dtype:
        raise ValueError(
            f"pixels are {pixels.dtype} {pixels.shape}; a photograph takes back {expected.dtype} "
            f"{expected.shape}, so round, clip and crop them first"
        )
    if quality is not None and not 1 <= quality <= 100:
        raise ValueError(f"quality={quality} must be 1 to 100, or None for the source's own")
    source = photograph.source
    packet = None
    if mark is not None:
        old = source.xmp  # once, as each look at it makes another object
        packet = xmp.marked(old, mark, source.xmp_bytes)
        packet = None if packet is old else packet
    try:
        return source.encoded(_rows(photograph, pixels), quality, packet)
    except (RuntimeError, OSError) as error:  # imagecodecs' errors; Pillow's
        raise Unsupported(f"the {source.format} can't be written: {error}; {REMEDY}") from error


def decode_rgb(data: bytes, halved_above: int = LARGEST_SIDE) -> np.ndarray:
    """The pixels only, for images that are read but never written back.

    Alpha and a transparent colour are dropped, a palette is looked up, 16 bits become 8; Exif
    orientation is not applied, so both images of a pair must have been stored the same way up.

    Args:
        data: a whole file.
        halved_above: an image with a longer side comes at half its size, means of 2x2 pixels.

    Returns:
        uint8 (height, width, 3), RGB, read-only.

    Raises:
        Undecodable, Unsupported, TooLarge: as `decode`, but metadata and further pictures in the
            file don't matter.
    """
    source = _source(data)
    halved = max(source.width, source.height) > halved_above
    try:
        if isinstance(source, jpeg.Jpeg):  # its decoder halves, which takes a third of the time
            return _rgb(source.stored(halved))
        whole = _rgb(eight_bit(source.stored()))
    except ValueError as error:
        raise Undecodable(f"{error}; {DAMAGED}") from error
    return _rgb(np.asarray(Image.fromarray(whole).reduce(2))) if halved else whole


def eight_bit(pixels: np.ndarray) -> np.ndarray:
    """The 8-bit rendering of pixels.

    Args:
        pixels: uint16, of which 65535 becomes 255, rounded to the nearest; or uint8.

    Returns:
        uint8; the same array if it was that already.
    """
    if pixels.dtype == np.uint8:
        return pixels
    rounded = np.empty(pixels.shape, np.uint8)
    for start in range(0, len(pixels), STRIP_ROWS):  # without a second copy in 16 bits
        strip, out = (rows[start : start + STRIP_ROWS] for rows in (pixels, rounded))
        whole = strip // 257
        np.add(whole, strip - whole * 257 > 128, out=out, casting="unsafe")
    return rounded


def _source(data: bytes) -> Source:
    """The file taken apart, after all checks that hold even for its pixels alone."""
    if name := kinds.other(data):
        raise Unsupported(f"the format is {name}, which is not read; {REMEDY}")
    try:
        source = kinds.parted(data)
        sides, refusal = (source.width, source.height), source.refusal
    except ValueError as error:
        raise Undecodable(f"{error}; {DAMAGED}") from error
    if refusal:
        raise Unsupported(f"{refusal}; {REMEDY}")
    if sides[0] * sides[1] > LARGEST_PIXELS or max(sides) > LARGEST_SIDE:
        raise TooLarge(
            f"{sides[0]}x{sides[1]} pixels are more than LARGEST_PIXELS={LARGEST_PIXELS}, "
            f"or a side is more than LARGEST_SIDE={LARGEST_SIDE}; cut the image into parts"
        )
    return source


def _rgb(stored: np.ndarray) -> np.ndarray:
    """Read-only (height, width, 3) of a picture with 1 to 4 channels, without a copy."""
    is_grey = stored.shape[-1] < 3
    shape = (*stored.shape[:2], 3)
    rgb = np.broadcast_to(stored[..., :1], shape) if is_grey else stored[..., :3]
    rgb.setflags(write=False)
    return rgb


def _rows(photograph: Photograph, pixels: np.ndarray) -> Callable[[int, int], np.ndarray]:
    """From the first row and the one after the last to pixels as the file stores them."""

    def rows(top: int, bottom: int) -> np.ndarray:
        stored = pixels[top:bottom]
        if photograph.mode in ("L", "LA"):
            total = stored.sum(axis=-1, keepdims=True, dtype=np.uint32)
            stored = ((total + 1) // 3).astype(pixels.dtype)
        if photograph.alpha is not None:
            return np.concatenate([stored, photograph.alpha[top:bottom, :, None]], axis=-1)
        return stored

    return rows
