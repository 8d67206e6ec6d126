"""HEIC and AVIF files: the main picture coded anew, everything else in the container kept.

Kept by the byte: Exif, XMP, colour profile, rotation and mirroring (not applied), alpha, gain
maps, depth, thumbnails (they show the noise, as Exif's do), motion. The main picture's tiles
become one coded picture.
`heif_pixels` codes the pixels, at QUALITY unless told otherwise: what the source was coded with
can't be read off it.

Source: ISO/IEC 23008-12 (HEIF), AV1 Image File Format 1.1
(https://aomediacodec.github.io/av1-avif/).
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from pix2pix.formats import heif_pixels, iso, xmp

# A denoised photograph in 4:2:0, 2026-11: 40 and 41 dB from the pixels (JPEG of quality 95: 40).
QUALITY = {"AVIF": 90, "HEIC": 75}
MOST_PADDING = 64  # by which encoders fill up a side and crop (clap) it again
CODINGS = {b"hvc1": "HEIC", b"av01": "AVIF"}
PICTURES = frozenset(
    {*CODINGS, b"grid", b"iden", b"iovl", b"jpeg", b"avc1", b"unci", b"vvc1", b"j2k1"}
)
CONFIGURATIONS = {b"hvc1": b"hvcC", b"av01": b"av1C"}
# Properties that say how a picture is coded; the others say what it means, and stay.
OF_CODING = frozenset(
    {b"hvcC", b"av1C", b"ispe", b"pixi", b"clap", b"a1op", b"a1lx", b"lsel", b"lhvC"}
)
TURNS = frozenset({b"irot", b"imir"})
ALPHA = (b"urn:mpeg:mpegB:cicp:systems:auxiliary:alpha", b"urn:mpeg:hevc:2015:auxid:1")
CHROMAS = {0: "400", 1: "420", 2: "422", 3: "444"}


@dataclass(frozen=True, eq=False, repr=False)
class Heif:
    """A HEIC or AVIF file taken apart.

    Attributes:
        container: the file's items.
        coded: the number of the main picture, or of its first tile.
        size: columns and rows of the main picture before it is turned.
        bit_depth: bits of a sample.
        chroma: "400" (grey), "420", "422" or "444".
    """

    container: iso.Container
    coded: int
    size: tuple[int, int]
    bit_depth: int
    chroma: str

    @property
    def format(self) -> str:
        """The format's name, "HEIC" or "AVIF", by the coding."""
        return CODINGS[self.container.items[self.coded].kind]

    @property
    def width(self) -> int:
        """Columns, as stored."""
        return self.size[0]

    @property
    def height(self) -> int:
        """Rows, as stored."""
        return self.size[1]

    @property
    def mode(self) -> str:
        """How the file stores a pixel: "L", "LA", "RGB" or "RGBA"."""
        return ("L" if self.chroma == "400" else "RGB") + ("A" if self._alpha is not None else "")

    @property
    def xmp(self) -> bytes | None:
        """The XMP packet."""
        number = self._xmp
        return None if number is None else self.container.items[number].data

    @property
    def xmp_bytes(self) -> int:
        """The largest XMP packet that we put in."""
        return xmp.LARGEST_BYTES

    @property
    def refusal(self) -> str | None:
        """Why the picture can't be had in RGB as it is meant, if so."""
        if any(box[4:8] == b"moov" for box in self.container.boxes):
            return f"the {self.format} holds a sequence of pictures; only still images are read"
        if self.format == "HEIC" and importlib.util.find_spec("pillow_heif") is None:
            return "HEIC needs pillow-heif, which isn't installed (pip install 'pix2pix[heic]')"
        if self.bit_depth not in (8, 10) and (self.format, self.bit_depth) != ("AVIF", 12):
            return f"the {self.format}'s bit depth is {self.bit_depth}, which can't be written back"
        main = self.container.items[self.container.primary]
        if self.format == "AVIF" and (main.value(b"clap") or main.kind == b"grid"):
            return "the AVIF is cropped (clap) or made of tiles (grid), which is not read"
        width, height = _sides(main.value(b"ispe") or bytes(12))
        if max(width - self.width, height - self.height) >= MOST_PADDING:
            return f"the {self.format} is cropped (clap), and what it hides would be lost"
        return None

    @property
    def loss(self) -> str | None:
        """What would be lost if the pixels were replaced."""
        container, main = self.container, self.container.primary
        parts = {to for kind, _, ends in container.references if kind == b"dimg" for to in ends}
        others = {start for kind, start, _ in container.references if kind in (b"auxl", b"thmb")}
        for number, item in container.items.items():
            if (
                item.kind in PICTURES
                and not item.is_hidden
                and number not in parts | others | {main}
            ):
                return f"the {self.format} holds several pictures, of which one would be denoised"
        if container.targets(b"prem", main):
            return f"the {self.format}'s colours are multiplied with its alpha"
        return None

    def stored(self) -> np.ndarray:
        """The pixels as stored, uint8 or uint16 (height, width, channels), not turned.

        Raises:
            ValueError: the coded picture is damaged.
        """
        pixels = heif_pixels.decoded(self._decodable(), self.format)
        pixels = pixels.reshape(*pixels.shape[:2], -1)
        channels = len(self.mode)
        if pixels.shape[:2] != (self.height, self.width) or pixels.dtype.itemsize != 1 + (
            self.bit_depth > 8
        ):
            raise ValueError(f"the {self.format} holds {pixels.shape}, not its header's; damaged")
        if pixels.shape[-1] != channels:  # a decoder may spread grey
            colors = pixels[..., : channels - (self._alpha is not None)]
            pixels = np.dstack([colors, pixels[..., -1:]]) if self._alpha is not None else colors
        return heif_pixels.scaled(pixels, self.bit_depth, 16) if self.bit_depth > 8 else pixels

    def encoded(
        self, rows: Callable[[int, int], np.ndarray], quality: int | None, packet: bytes | None
    ) -> bytes:
        """A file like this one with other pixels in its main picture.

        Args:
            rows: from the first row and the one after the last to pixels as `stored` gives them.
            quality: the encoder's, 1 to 100; None is QUALITY.
            packet: the XMP packet to write; None leaves metadata alone.
        """
        pixels = rows(0, self.height)
        pixels = np.ascontiguousarray(pixels[..., :3] if self.chroma != "400" else pixels[..., :1])
        if self.bit_depth > 8:
            pixels = heif_pixels.scaled(pixels, 16, self.bit_depth)
        quality = QUALITY[self.format] if quality is None else quality
        coding = heif_pixels.Coding(self.format, self.bit_depth, self.chroma, *self._colors())
        new = iso.parted(heif_pixels.encoded(pixels, coding, quality))
        picture = new.items[new.primary]
        container, main = self.container, self.container.items[self.container.primary]
        colors = b"colr"
        kept = [
            (box, essential)
            for box, essential in main.properties
            if box[4:8] not in OF_CODING and (box[4:8], box[8:12]) != (colors, b"nclx")
        ]
        properties = (*picture.properties, *kept)
        replaced = replace(main, kind=picture.kind, data=picture.data, properties=properties)
        container = iso.without(container, self._tiles())
        container = replace(container, items={**container.items, container.primary: replaced})
        return iso.joined(container if packet is None else self._with_xmp(container, packet))

    @property
    def _alpha(self) -> int | None:
        """The number of the alpha picture."""
        for number in sorted(self.container.sources(b"auxl", self.container.primary)):
            kind = self.container.items[number].value(b"auxC") or b""
            if kind[4:].split(b"\0")[0] in ALPHA:
                return number
        return None

    @property
    def _xmp(self) -> int | None:
        numbers = sorted(self.container.sources(b"cdsc", self.container.primary))
        return next((n for n in numbers if self.container.items[n].is_xmp), None)

    def _tiles(self) -> set[int]:
        """The numbers of the main picture's tiles."""
        main = self.container.primary
        tiles = self.container.targets(b"dimg", main)
        return {tile for tile in tiles if self.container.sources(b"dimg", tile) == {main}} - {main}

    def _decodable(self) -> bytes:
        """A file of the main picture, its tiles and its alpha only, which aren't turned."""
        wanted = {self.container.primary, *self._tiles()}
        if self._alpha is not None:
            wanted |= {self._alpha, *self.container.targets(b"dimg", self._alpha)}
        bare = iso.without(self.container, set(self.container.items) - wanted)
        items = {
            number: replace(item, properties=_unturned(item)) for number, item in bare.items.items()
        }
        handlers = tuple(box for box in bare.others if box[4:8] == b"hdlr")
        return iso.joined(replace(bare, items=items, others=handlers, boxes=()))

    def _colors(self) -> tuple[int, int, int]:
        """Primaries, transfer and matrix of the main picture, or of its first tile; else unknown.

        Source: ISO/IEC 23091-2; 2 is unspecified, matrix 6 is JPEG's.
        """
        for item in (
            self.container.items[self.container.primary],
            self.container.items[self.coded],
        ):
            for box, _ in item.properties:
                if box[4:12] == b"colrnclx" and len(box) >= 18:
                    values = tuple(int.from_bytes(box[i : i + 2], "big") for i in (12, 14, 16))
                    return values[0], values[1], 6 if values[2] == 2 else values[2]
        return 2, 2, 6

    def _with_xmp(self, container: iso.Container, packet: bytes) -> iso.Container:
        number = self._xmp
        if number is not None:
            item = replace(container.items[number], data=packet)
            return replace(container, items={**container.items, number: item})
        number = max(container.items) + 1
        item = iso.Item(b"mime", True, b"\0" + iso.XMP_TYPE + b"\0", packet)
        references = (*container.references, (b"cdsc", number, (container.primary,)))
        return replace(container, items={**container.items, number: item}, references=references)


def is_heif(data: bytes) -> bool:
    """Whether a file starts like a HEIC or AVIF file."""
    size = int.from_bytes(data[:4], "big")
    brands = {data[place : place + 4] for place in (8, *range(16, min(size, 128), 4))}
    return data[4:8] == b"ftyp" and bool(brands & {b"mif1", b"msf1", b"heic", b"heix", b"avif"})


def parted(data: bytes) -> Heif:
    """A HEIC or AVIF file taken apart.

    Raises:
        ValueError: the structure is broken, or the main picture's coding is another.
    """
    container = iso.parted(data)
    coded, main = container.primary, container.items[container.primary]
    if main.kind == b"grid":
        tiles = container.targets(b"dimg", coded) & set(container.items)
        if not tiles:
            raise ValueError("the file's picture is a grid without tiles; it is damaged")
        coded = min(tiles)
    item = container.items[coded]
    if item.kind not in CODINGS:
        raise ValueError(
            f"the file's picture is coded as {item.kind!r}; only HEVC and AV1 are read"
        )
    size, configuration = main.value(b"ispe"), item.value(CONFIGURATIONS[item.kind])
    if size is None or configuration is None or len(size) < 12 or len(configuration) < 4:
        raise ValueError("the file's picture has no size or no decoder's configuration; damaged")
    width, height = _sides(size)
    clap = main.value(b"clap")
    if clap and len(clap) >= 16:
        width, height = (
            int.from_bytes(clap[place : place + 4], "big")
            // max(int.from_bytes(clap[place + 4 : place + 8], "big"), 1)
            for place in (0, 8)
        )
    if item.kind == b"av01":
        flags = configuration[2]
        depth = (12 if flags & 0x20 else 10) if flags & 0x40 else 8
        chroma = "400" if flags & 0x10 else {3: "420", 2: "422"}.get(flags >> 2 & 3, "444")
    else:
        if len(configuration) < 19:
            raise ValueError("the file's decoder configuration is too short; it is damaged")
        chroma, depth = CHROMAS[configuration[16] & 3], 8 + (configuration[17] & 7)
    if width < 1 or height < 1:
        raise ValueError(f"the file says {width}x{height} pixels; it is damaged")
    return Heif(container, coded, (width, height), depth, chroma)


def _sides(size: bytes) -> tuple[int, int]:
    """Columns and rows in the content of an ispe property."""
    return int.from_bytes(size[4:8], "big"), int.from_bytes(size[8:12], "big")


def _unturned(item: iso.Item) -> tuple[tuple[bytes, bool], ...]:
    return tuple(pair for pair in item.properties if pair[0][4:8] not in TURNS)
