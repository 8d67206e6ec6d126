"""Bytes to pixels and back, with everything around the pixels kept: JPEG and PNG, 8 bit.

What would come back spoiled is refused by name. Exif orientation is not applied but kept, so that
viewers turn the picture upright once.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile, get_sampling
from PIL.PngImagePlugin import PngImageFile

from pix2pix import jpeg, png

LARGEST_PIXELS: int = 2**28
LARGEST_SIDE: int = 2**20  # Pillow runs out of its 32-bit counts at 2**26
PADDING_BYTES = 32  # cameras pad files with zeros and a few odd bytes; more than these is content
REMEDY = "convert a copy to 8-bit JPEG or PNG without what is named, or leave it out"
DAMAGED = "copy the file again from its source, or leave it out"

# All that Pillow's two classes raised for 200,000 damaged files (bytes flipped, cut out, put in,
# cut off; PNG checksums put right). A lack of memory is about the machine, so it isn't here.
DECODING_ERRORS = (OSError, SyntaxError)

JPEG_CODINGS = {0xC3: "lossless", 0xC9: "arithmetic", 0xCA: "arithmetic", 0xF7: "JPEG-LS"}
TIFF = "TIFF, or a camera's raw format built on it"
OTHER_FORMATS = (  # by how their files start
    (b"II*\0", TIFF),
    (b"MM\0*", TIFF),
    (b"II+\0", TIFF),
    (b"MM\0+", TIFF),
    (b"IIR", "Olympus raw"),
    (b"IIU\0", "Panasonic raw"),
    (b"FUJIFILMCCD-RAW", "Fujifilm raw"),
    (b"FOVb", "Sigma raw"),
    (b"\0MRM", "Minolta raw"),
    (b"GIF8", "GIF"),
    (b"8BPS", "Photoshop"),
    (b"\x76\x2f\x31\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"qoif", "QOI"),
    (b"\0\0\1\0", "ICO"),
)
ISO_BRANDS = (  # of files in the ISO container, by how the brand starts
    (b"he", "HEIC"),
    (b"mif1", "HEIC"),
    (b"msf1", "HEIC"),
    (b"avi", "AVIF"),
    (b"crx", "Canon raw"),
)

ImageClass = TypeVar("ImageClass", bound=ImageFile)


class Unsupported(ValueError):  # noqa: N818 - named as the status table's failure class
    """An image that we can read but would spoil; it's refused by name."""


class TooLarge(ValueError):  # noqa: N818 - named as the status table's failure class
    """An image of more than LARGEST_PIXELS pixels, or with a side beyond LARGEST_SIDE."""


class Undecodable(ValueError):  # noqa: N818 - named as the status table's failure class
    """Bytes that are no image, or a damaged one."""


@dataclass(frozen=True, eq=False)
class Photograph:
    """A photograph's pixels and what is needed to write other pixels in its place.

    Attributes:
        pixels: uint8 (height, width, 3), RGB, as stored: not turned upright. Grey comes as three
            equal channels. Read-only.
        alpha: uint8 (height, width), put back untouched; None without transparency.
        format: "JPEG" or "PNG".
        mode: how the file stores it: "RGB", "L", "RGBA" or "LA".
        before: metadata that stands before the pixels, whole JPEG segments or PNG chunks.
        after: whole PNG chunks that stand behind the pixels.
        coding: how a JPEG is coded, as the options of Pillow's writer.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    format: str
    mode: str
    before: tuple[bytes, ...] = ()
    after: tuple[bytes, ...] = ()
    coding: Mapping[str, Any] = field(default_factory=dict)

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
        """Bits of a channel."""
        return 8


def decode(data: bytes) -> Photograph:
    """The photograph in a file's bytes, with everything that `encode` needs to write it back.

    Args:
        data: a whole JPEG or PNG file.

    Raises:
        Undecodable: no image, or a damaged one.
        Unsupported: an image that would lose something if it were written back.
        TooLarge: beyond LARGEST_PIXELS or LARGEST_SIDE; no pixel was decoded.
    """
    source = _source(data)
    if loss := _loss(source):
        raise Unsupported(f"{loss}; {REMEDY}")
    if isinstance(source, jpeg.Jpeg):
        picture = _decoded(JpegImageFile, source.decodable)
        pixels, coding = _rgb(np.asarray(picture)), _coding(source, picture)
        return Photograph(pixels, None, "JPEG", picture.mode, source.segments, (), coding)
    image = _decoded_png(source)
    stored = np.asarray(image)
    alpha = stored[..., -1] if image.mode in ("LA", "RGBA") else None
    return Photograph(_rgb(stored), alpha, "PNG", image.mode, source.before, source.after)


def encode(photograph: Photograph, pixels: np.ndarray) -> bytes:
    """A file like the photograph's, with other pixels.

    Format, mode, alpha and metadata are the photograph's; of a JPEG also the quantization tables
    and the chroma subsampling (4:4:4 where Pillow can't write the same). A grey file gets the
    rounded mean of the three channels.

    Args:
        photograph: what `decode` returned.
        pixels: uint8 (height, width, 3), RGB, of the photograph's size.

    Raises:
        ValueError: the pixels have another shape or type.
    """
    if pixels.shape != photograph.pixels.shape or pixels.dtype != np.uint8:
        raise ValueError(
            f"pixels are {pixels.dtype} {pixels.shape}; a photograph takes back "
            f"uint8 {photograph.pixels.shape}, so round, clip and crop them first"
        )
    if photograph.mode in ("L", "LA"):
        stored = ((pixels.sum(axis=-1, dtype=np.uint16) + 1) // 3).astype(np.uint8)
    else:
        stored = pixels
    if photograph.alpha is not None:
        stored = np.dstack([stored, photograph.alpha])
    image = Image.fromarray(stored)
    if photograph.format == "PNG":
        # Level 6, the default, takes twice as long for the same size (a photograph, 2026-11).
        encoded = _written(image, "PNG", {"compress_level": 4})
        return png.with_chunks(encoded, photograph.before, photograph.after)
    try:
        encoded = _written(image, "JPEG", {**photograph.coding, "optimize": True})
    except OSError:
        # Pillow's buffer for optimized or progressive coding holds two bytes a pixel. Noise at the
        # highest qualities needs more; plain baseline goes out piece by piece.
        encoded = _written(image, "JPEG", {**photograph.coding, "progressive": False})
    return jpeg.with_segments(encoded, photograph.before)


def decode_rgb(data: bytes) -> np.ndarray:
    """The pixels only, for images that are read but never written back.

    Alpha and a transparent colour are dropped, a palette is looked up; Exif orientation is not
    applied, so both images of a pair must have been stored the same way up.

    Args:
        data: a whole JPEG or PNG file.

    Returns:
        uint8 (height, width, 3), RGB, read-only.

    Raises:
        Undecodable, Unsupported, TooLarge: as `decode`, but metadata and further pictures in the
            file don't matter.
    """
    source = _source(data)
    if isinstance(source, jpeg.Jpeg):
        return _rgb(np.asarray(_decoded(JpegImageFile, source.decodable)))
    image = _decoded_png(source)
    return _rgb(np.asarray(image.convert("RGB") if _is_palette(source) else image))


def _source(data: bytes) -> jpeg.Jpeg | png.Png:
    """The file taken apart, after all checks that hold even for its pixels alone."""
    if name := _other_format(data):
        raise Unsupported(f"the format is {name}; only JPEG and PNG are read; {REMEDY}")
    try:
        source = _parted(data)
    except ValueError as error:
        raise Undecodable(f"{error}; {DAMAGED}") from error
    sides = source.width, source.height
    if sides[0] * sides[1] > LARGEST_PIXELS or max(sides) > LARGEST_SIDE:
        raise TooLarge(
            f"{sides[0]}x{sides[1]} pixels are more than LARGEST_PIXELS={LARGEST_PIXELS}, "
            f"or a side is more than LARGEST_SIDE={LARGEST_SIDE}; cut the image into parts"
        )
    if refusal := _refusal(source):
        raise Unsupported(f"{refusal}; {REMEDY}")
    return source


def _parted(data: bytes) -> jpeg.Jpeg | png.Png:
    if data.startswith(jpeg.START + b"\xff"):
        return jpeg.parted(data)
    if data.startswith(png.START):
        return png.parted(data)
    raise ValueError(f"{len(data)} bytes that start with {data[:8]!r} are neither JPEG nor PNG")


def _other_format(data: bytes) -> str | None:
    """The name of another image format that the bytes start like."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WebP"
    if data[:2] == b"BM" and data[6:10] == bytes(4):  # two letters alone would be many a text
        return "BMP"
    is_iso = data[4:8] == b"ftyp"
    start, names = (data[8:12], ISO_BRANDS) if is_iso else (data[:16], OTHER_FORMATS)
    return next((name for known, name in names if start.startswith(known)), None)


def _refusal(source: jpeg.Jpeg | png.Png) -> str | None:
    """Why the file's picture can't be had in 8-bit RGB as it is meant, if so."""
    if isinstance(source, jpeg.Jpeg):
        if source.frame not in jpeg.READ_FRAMES:
            coding = JPEG_CODINGS.get(source.frame, "hierarchical or arithmetic")
            return f"the JPEG's coding is {coding}; only baseline and progressive are read"
        if len(source.components) not in (1, 3):
            colors = "CMYK or YCCK" if len(source.components) == 4 else "unknown"
            return (
                f"the JPEG has {len(source.components)} components, so its colours are {colors}; "
                "only grey (1) and colour (3) are read"
            )
    elif source.needs:
        return f"the PNG can't be read without {source.needs}, which we don't know"
    elif b"acTL" in source.names:
        return "the PNG is animated; only still images are read"
    if source.bit_depth != 8 and not _is_palette(source):
        return f"the bit depth is {source.bit_depth}; only 8 bits come back as they were"
    return None


def _is_palette(source: jpeg.Jpeg | png.Png) -> bool:
    return isinstance(source, png.Png) and source.color == 3


def _loss(source: jpeg.Jpeg | png.Png) -> str | None:
    """What would be lost if the file's pixels were replaced."""
    if isinstance(source, jpeg.Jpeg):
        if source.is_several:
            return "the JPEG holds several pictures (MPO), of which only the first would be kept"
    elif _is_palette(source):
        return "the PNG has a palette, which can't hold a denoised picture's colours"
    elif b"tRNS" in source.names:
        return "the PNG has a transparent colour (tRNS), which denoising would blur away"
    content = source.trailing.strip(b"\0\xff\r\n ")
    if len(content) > PADDING_BYTES:
        return (
            f"{len(source.trailing)} bytes follow the picture's end, a motion photo, gain map or "
            "preview that would be lost"
        )
    return None


def _decoded(plugin: type[ImageClass], data: bytes) -> ImageClass:
    """The decoded picture in bytes without metadata, so that Pillow parses and warns about none.

    Opening by Pillow's class leaves out its own limit on pixels, which is a global that warns.
    """
    try:
        image = plugin(io.BytesIO(data))
        image.load()
    except DECODING_ERRORS as error:
        raise Undecodable(f"{error}; {DAMAGED}") from error
    return image


def _decoded_png(source: png.Png) -> PngImageFile:
    """The decoded picture, with every row that its header promises."""
    image = _decoded(PngImageFile, source.coded)
    # Pillow leaves missing rows at zero without a word. Counting them takes as long as decoding,
    # so only where the last rows (of Adam7's last passes too) have a zero.
    if not np.asarray(image)[-2:].all() and not source.is_complete():
        raise Undecodable(f"the PNG has fewer rows than the {source.height} it says; {DAMAGED}")
    return image


def _coding(source: jpeg.Jpeg, image: JpegImageFile) -> dict[str, Any]:
    """How Pillow's writer codes like the source: a table for each component, the last repeated."""
    if any(table not in image.quantization for _, _, _, table in image.layer):
        raise Unsupported(f"the JPEG has quantization tables between its scans; {REMEDY}")
    tables = [image.quantization[table] for _, _, _, table in image.layer]
    while len(tables) > 1 and tables[-1] == tables[-2]:
        tables.pop()
    return {
        "qtables": tables,
        # 4:4:4 also where Pillow doesn't know the source's, such as 4:4:0; its own is 4:2:0.
        "subsampling": 0 if source.stores_rgb else max(get_sampling(image), 0),
        "progressive": source.frame == jpeg.PROGRESSIVE,
        "keep_rgb": source.stores_rgb,
    }


def _rgb(stored: np.ndarray) -> np.ndarray:
    """Read-only uint8 (height, width, 3) of a picture with 1 to 4 channels; alpha is dropped."""
    channels = stored.reshape(*stored.shape[:2], -1)
    is_grey = channels.shape[-1] < 3
    rgb = (
        np.repeat(channels[..., :1], 3, -1) if is_grey else np.ascontiguousarray(channels[..., :3])
    )
    rgb.setflags(write=False)
    return rgb


def _written(image: Image.Image, format_name: str, options: Mapping[str, Any]) -> bytes:
    """The image in Pillow's coding, with whatever metadata Pillow adds."""
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()
