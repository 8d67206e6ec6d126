"""JPEG files: segments taken off and put back byte for byte, pixels coded as the source's were.

Pillow codes the pixels; what is whole, simplejpeg decodes. What follows the end of image (motion
photo, gain map, previews) goes along unchanged; the index of it that counts from the file's start
is corrected (see `mpf`). A broken structure raises ValueError that says where it breaks.

Source: ITU-T T.81 annex B, https://www.w3.org/Graphics/JPEG/itu-t81.pdf
"""

import functools
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from pix2pix.formats import jpeg_segments, mpf

START = jpeg_segments.START
PROGRESSIVE = 0xC2
READ_FRAMES = frozenset({0xC0, 0xC1, PROGRESSIVE})  # 0xC0 baseline, 0xC1 extended
CODINGS = {0xC3: "lossless", 0xC9: "arithmetic", 0xCA: "arithmetic", 0xF7: "JPEG-LS"}
READ_AHEAD_BYTES = 16
XMP = b"http://ns.adobe.com/xap/1.0/\0"
XMP_BYTES = 0xFFFF - 2 - len(XMP)  # of a packet in its one segment
# Each scan is a walk over all pixels, however few bytes it has. Progressive files have about ten.
PLENTY_OF_SCANS = 64
SCANNED_PIXELS = 2**32

# All that Pillow's class raised for 200,000 damaged files (bytes flipped, put in, cut out or off).
DECODING_ERRORS = (OSError, SyntaxError)


@dataclass(frozen=True, eq=False, repr=False)
class Jpeg(jpeg_segments.Parts):
    """A JPEG file taken apart."""

    @property
    def format(self) -> str:
        """The format's name."""
        return "JPEG"

    @property
    def mode(self) -> str:
        """How the pixels are stored: "L", or "RGB" whichever colours the file codes."""
        return "L" if len(self.components) == 1 else "RGB"

    @property
    def xmp(self) -> bytes | None:
        """The XMP packet; the extended one, if any, is another segment."""
        packets = [segment[4 + len(XMP) :] for segment in self.segments if _is_xmp(segment)]
        return packets[0] if packets else None

    @property
    def xmp_bytes(self) -> int:
        """The largest XMP packet that one segment holds."""
        return XMP_BYTES

    @property
    def refusal(self) -> str | None:
        """Why the picture can't be had in 8-bit RGB as it is meant, if so."""
        if self.frame not in READ_FRAMES:
            coding = CODINGS.get(self.frame, "hierarchical or arithmetic")
            return f"the JPEG's coding is {coding}; only baseline and progressive are read"
        if len(self.components) not in (1, 3):
            colors = "CMYK or YCCK" if len(self.components) == 4 else "unknown"
            return (
                f"the JPEG has {len(self.components)} components, so its colours are {colors}; "
                "only grey (1) and colour (3) are read"
            )
        if self.bit_depth != 8:
            return f"the JPEG's bit depth is {self.bit_depth}; only 8 bits are read"
        work = self.scans * self.width * self.height
        if self.scans > PLENTY_OF_SCANS and work > SCANNED_PIXELS:
            return (
                f"the JPEG codes {self.width}x{self.height} pixels in {self.scans} scans; only "
                f"SCANNED_PIXELS={SCANNED_PIXELS} in all are read, as more would take hours"
            )
        return None

    @property
    def loss(self) -> str | None:
        """What would be lost if the pixels were replaced."""
        for segment in self.segments:
            if mpf.is_index(segment) and (kind := mpf.equals(segment)):
                return f"the JPEG holds {kind} (MPO), pictures that must stay alike"
        return None if self._coding() else "the JPEG has quantization tables between its scans"

    @property
    def stores_rgb(self) -> bool:
        """Whether three components are red, green and blue rather than luma and chroma.

        Source: libjpeg's `default_decompress_parms`, which most viewers follow.
        """
        if len(self.components) != 3 or any(
            jpeg_segments.is_jfif(segment) for segment in self.segments
        ):
            return False
        adobe = [segment for segment in self.segments if jpeg_segments.is_adobe(segment)]
        return adobe[-1][15] == 0 if adobe else self.components == b"RGB"

    @property
    def decodable(self) -> bytes:
        """The file with only those segments that say what the components mean.

        Before the end of image libjpeg fills what is missing with grey and tells only those who
        ask, which Pillow doesn't. So a picture of one scan comes without that end: then missing
        data is an error. The zeros are for the decoder's reading ahead.
        """
        if self.scans > 1:
            return self._meant(self.body)
        return self._meant(memoryview(self.body)[:-2], bytes(READ_AHEAD_BYTES))

    def stored(self, halved: bool = False) -> np.ndarray:
        """The pixels as stored, uint8 (height, width, 1 or 3), grey or RGB.

        Args:
            halved: at half the size, rounded up. libjpeg leaves out the upper half of each block's
                frequencies, which takes a third of the time and no chroma needs to be enlarged.

        Raises:
            ValueError: the coded picture is damaged.
        """
        if not halved and (whole := self._whole()) is not None:
            return whole
        try:
            # Opening by Pillow's class leaves out its limit on pixels, a global that warns.
            image = JpegImageFile(io.BytesIO(self.decodable))
            if halved:
                image.draft(None, (self.width // 2, self.height // 2))
            image.load()
        except DECODING_ERRORS as error:
            raise ValueError(f"the JPEG can't be decoded: {error}") from error
        return np.asarray(image).reshape(image.height, image.width, -1)

    def _whole(self) -> np.ndarray | None:
        """The pixels of a picture in which libjpeg finds nothing amiss, in half of Pillow's time.

        None where it warns: of what is missing, but also of bytes that do no harm. Pillow decides.
        """
        colors = "GRAY" if self.mode == "L" else "RGB"
        try:
            return simplejpeg.decode_jpeg(self._meant(self.body), colors)
        except ValueError:
            return None

    def _meant(self, *picture: bytes | memoryview) -> bytes:
        """A file with a picture and only those segments that say what the components mean."""
        meaning = [
            segment
            for segment in self.segments
            if jpeg_segments.is_jfif(segment) or jpeg_segments.is_adobe(segment)
        ]
        return b"".join([START, *meaning, self.head, *picture])

    def encoded(
        self, rows: Callable[[int, int], np.ndarray], quality: int | None, packet: bytes | None
    ) -> bytes:
        """A file like this one with other pixels.

        Args:
            rows: from the first row and the one after the last to pixels as `stored` gives them.
            quality: libjpeg's, 1 to 100; None takes the source's quantization tables.
            packet: the XMP packet to write; None leaves metadata alone.
        """
        pixels = rows(0, self.height)
        image = Image.fromarray(pixels[..., 0] if self.mode == "L" else pixels)
        coding = dict(self._coding() or {})
        if quality is not None:
            coding = {**coding, "qtables": None, "quality": quality}
        try:
            written = _written(image, {**coding, "optimize": not self._has_usual_tables()})
        except OSError:
            # Pillow's buffer for optimized or progressive coding holds two bytes a pixel. Noise at
            # the highest qualities needs more; plain baseline goes out piece by piece.
            written = _written(image, {**coding, "progressive": False})
        picture = parted(written)
        coded = [picture.head, picture.body]
        segments = list(self.segments) if packet is None else self._with_xmp(packet)
        return b"".join([START, *self._corrected(segments, coded), *coded, self.trailing])

    def _with_xmp(self, packet: bytes) -> list[bytes]:
        """The segments with this XMP packet; a new one stands behind JFIF and Exif."""
        content = XMP + packet
        new = b"\xff\xe1" + (2 + len(content)).to_bytes(2, "big") + content
        places = [i for i, segment in enumerate(self.segments) if _is_xmp(segment)]
        if places:
            return [*self.segments[: places[0]], new, *self.segments[places[0] + 1 :]]
        first = 0
        while first < len(self.segments) and self.segments[first][1] in (0xE0, 0xE1):
            first += 1
        return [*self.segments[:first], new, *self.segments[first:]]

    def _coding(self) -> Mapping[str, Any] | None:
        """How Pillow's writer codes like the source: a table for each component, the last repeated.

        None if there are tables between the scans.
        """
        scan_header = self.body[: 2 + int.from_bytes(self.body[2:4], "big")]
        try:
            image = JpegImageFile(io.BytesIO(self._meant(scan_header)))
        except DECODING_ERRORS as error:
            raise ValueError(f"the JPEG's header can't be read: {error}") from error
        if any(table not in image.quantization for _, _, _, table in image.layer):
            return None
        tables = [image.quantization[table] for _, _, _, table in image.layer]
        while len(tables) > 1 and tables[-1] == tables[-2]:
            tables.pop()
        return {
            "qtables": tables,
            # 4:4:4 also where Pillow doesn't know the source's, such as 4:4:0; its own is 4:2:0.
            "subsampling": 0 if self.stores_rgb else max(get_sampling(image), 0),
            "progressive": self.frame == PROGRESSIVE,
            "keep_rgb": self.stores_rgb,
        }

    def _has_usual_tables(self) -> bool:
        """Whether the picture has the standard's own Huffman tables (annex K.3), as most cameras'.

        Others are taken to be made for it. To make some takes a second walk over the pixels, two
        to three times the time, and saves 1 to 4% of the bytes (of very smooth pictures up to 30%).
        """
        return jpeg_segments.huffman_tables(self.head) <= _usual_tables()

    def _corrected(self, segments: list[bytes], coded: list[bytes]) -> list[bytes]:
        """The segments, with an index of several pictures (MPF) counting to where they are now."""
        old_places = dict(zip(self.segments, self.places, strict=True))
        end = len(START) + sum(map(len, [*segments, *coded]))
        result, place = [], len(START)
        for segment in segments:
            new = segment
            if mpf.is_index(segment):
                old = self.end - old_places[segment]
                others = range(old, old + len(self.trailing))
                new = mpf.corrected(segment, end - self.end, end - place - old, others)
            result.append(new)
            place += len(segment)
        return result


def parted(data: bytes) -> Jpeg:
    """A JPEG file taken apart.

    Args:
        data: a whole file that starts with `START`.

    Raises:
        ValueError: the structure is broken or the file is truncated.
    """
    return Jpeg(**vars(jpeg_segments.parted(data)))


@functools.cache
def _usual_tables() -> set[bytes]:
    """The Huffman tables of the standard, which Pillow writes unless asked for others."""
    written = _written(Image.new("RGB", (8, 8)), {})
    return jpeg_segments.huffman_tables(jpeg_segments.parted(written).head)


def _is_xmp(segment: bytes) -> bool:
    return segment.startswith(b"\xff\xe1") and segment.startswith(XMP, 4)


def _written(image: Image.Image, options: Mapping[str, Any]) -> bytes:
    """The image in Pillow's coding, with whatever metadata Pillow adds."""
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()
