"""JPEG files: segments taken off and put back byte for byte, pixels coded as the source's were.

Pillow codes the pixels. What follows the end of image (motion photo, gain map, previews) goes
along unchanged; the index of it that counts from the file's start is corrected (see `mpf`). A
broken structure raises ValueError that says where it breaks.

Source: ITU-T T.81 annex B, https://www.w3.org/Graphics/JPEG/itu-t81.pdf
"""

import io
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile, get_sampling

from pix2pix import mpf

START = b"\xff\xd8"
END = 0xD9
SCAN = 0xDA
PROGRESSIVE = 0xC2
READ_FRAMES = frozenset({0xC0, 0xC1, PROGRESSIVE})  # 0xC0 baseline, 0xC1 extended
FRAMES = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}  # 0xF7: JPEG-LS
TABLES = frozenset({0xC4, 0xCC, 0xDB, 0xDC, 0xDD, 0xDE, 0xDF})
METADATA = frozenset({*range(0xE0, 0xF0), 0xFE})  # APP0..APP15 and the comment
CODINGS = {0xC3: "lossless", 0xC9: "arithmetic", 0xCA: "arithmetic", 0xF7: "JPEG-LS"}
READ_AHEAD_BYTES = 16
MOST_SEGMENTS = 2**16  # 4 GB if they are full
MARKER = re.compile(rb"\xff+([^\xff])")
XMP = b"http://ns.adobe.com/xap/1.0/\0"
XMP_BYTES = 0xFFFF - 2 - len(XMP)  # of a packet in its one segment
# Each scan is a walk over all pixels, however few bytes it has. Progressive files have about ten.
PLENTY_OF_SCANS = 64
SCANNED_PIXELS = 2**32

# All that Pillow's class raised for 200,000 damaged files (bytes flipped, put in, cut out or off).
DECODING_ERRORS = (OSError, SyntaxError)


@dataclass(frozen=True, eq=False)
class Jpeg:
    """A JPEG file taken apart.

    Attributes:
        frame: second byte of the start-of-frame marker; 0xC0 baseline, 0xC2 progressive.
        bit_depth: bits of a sample.
        height: rows.
        width: columns.
        components: each component's identifier in one byte, in order; three for a colour picture.
        scans: in how many pieces the picture is coded; progressive ones have several.
        segments: every APPn and COM segment, whole, in order. Those between two scans, which
            nobody writes, come last.
        places: where each segment starts in the file.
        head: the other segments before the first scan.
        body: from the first scan to the end of image.
        end: where the end of image is over.
        trailing: what follows it.
    """

    frame: int
    bit_depth: int
    height: int
    width: int
    components: bytes
    scans: int
    segments: tuple[bytes, ...]
    places: tuple[int, ...]
    head: bytes
    body: bytes
    end: int
    trailing: bytes

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
        if len(self.components) != 3 or any(_is_jfif(segment) for segment in self.segments):
            return False
        adobe = [segment for segment in self.segments if _is_adobe(segment)]
        return adobe[-1][15] == 0 if adobe else self.components == b"RGB"

    @property
    def decodable(self) -> bytes:
        """The file with only those segments that say what the components mean.

        Before the end of image libjpeg fills what is missing with grey and tells only those who
        ask, which Pillow doesn't. So a picture of one scan comes without that end: then missing
        data is an error. The zeros are for the decoder's reading ahead.
        """
        meaning = [segment for segment in self.segments if _is_jfif(segment) or _is_adobe(segment)]
        if self.scans > 1:
            return b"".join([START, *meaning, self.head, self.body])
        whole = memoryview(self.body)[:-2]
        return b"".join([START, *meaning, self.head, whole, bytes(READ_AHEAD_BYTES)])

    def stored(self) -> np.ndarray:
        """The pixels as stored, uint8 (height, width, 1 or 3), grey or RGB.

        Raises:
            ValueError: the coded picture is damaged.
        """
        try:
            # Opening by Pillow's class leaves out its limit on pixels, a global that warns.
            image = JpegImageFile(io.BytesIO(self.decodable))
            image.load()
        except DECODING_ERRORS as error:
            raise ValueError(f"the JPEG can't be decoded: {error}") from error
        return np.asarray(image).reshape(self.height, self.width, -1)

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
            written = _written(image, {**coding, "optimize": True})
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
        meaning = [segment for segment in self.segments if _is_jfif(segment) or _is_adobe(segment)]
        scan_header = self.body[: 2 + int.from_bytes(self.body[2:4], "big")]
        try:
            image = JpegImageFile(io.BytesIO(b"".join([START, *meaning, self.head, scan_header])))
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
    """A JPEG file taken apart into its coded picture and its metadata.

    Args:
        data: a whole file that starts with `START`.

    Raises:
        ValueError: the structure is broken or the file is truncated.
    """
    segments: list[bytes] = []
    places: list[int] = []
    head: list[bytes] = []
    body: list[bytes] = []
    frame: tuple[int, bytes] | None = None
    scans = 0
    position = len(START)
    while True:
        marker = MARKER.match(data, position)
        if marker is None:
            raise ValueError(f"no JPEG marker at byte {position}; the file is truncated or damaged")
        code, position = marker[1][0], marker.end()
        if code == END:
            break
        if code not in FRAMES | TABLES | METADATA | {SCAN}:
            raise ValueError(f"JPEG marker {code:#04x} at byte {position - 1}; the file is damaged")
        end = _segment_end(data, position)
        if code == SCAN:
            scans += 1
            end = _scan_end(data, end)
        segment = data[position - 2 : end]
        if code in FRAMES:
            if frame is not None:
                raise ValueError("the JPEG has two frame headers; the file is damaged")
            frame = code, segment
        if code in METADATA:
            segments.append(segment)
            places.append(position - 2)
            if len(segments) > MOST_SEGMENTS:
                raise ValueError(f"the JPEG has more than {MOST_SEGMENTS} metadata segments")
        else:
            (body if scans else head).append(segment)
        position = end
    if frame is None or scans == 0:
        raise ValueError("the JPEG has no frame header or no scan, so no picture; it is damaged")
    return Jpeg(
        frame[0],
        *_frame_header(frame[1]),
        scans=scans,
        segments=tuple(segments),
        places=tuple(places),
        head=b"".join(head),
        body=b"".join([*body, b"\xff\xd9"]),
        end=position,
        trailing=data[position:],
    )


def _is_jfif(segment: bytes) -> bool:
    return segment.startswith(b"\xff\xe0") and segment[4:9] == b"JFIF\0" and len(segment) >= 18


def _is_adobe(segment: bytes) -> bool:
    return segment.startswith(b"\xff\xee") and segment[4:9] == b"Adobe" and len(segment) >= 16


def _is_xmp(segment: bytes) -> bool:
    return segment.startswith(b"\xff\xe1") and segment.startswith(XMP, 4)


def _written(image: Image.Image, options: Mapping[str, Any]) -> bytes:
    """The image in Pillow's coding, with whatever metadata Pillow adds."""
    file = io.BytesIO()
    image.save(file, "JPEG", **options)
    return file.getvalue()


def _segment_end(data: bytes, position: int) -> int:
    """Where a segment ends whose two length bytes stand at position."""
    length = int.from_bytes(data[position : position + 2], "big")
    if length < 2 or position + length > len(data):
        raise ValueError(
            f"the JPEG segment at byte {position - 2} says {length} bytes, "
            f"the file has {len(data) - position} left; it is truncated or damaged"
        )
    return position + length


def _scan_end(data: bytes, position: int) -> int:
    """Where the coded picture that starts at position ends: at the next marker but a restart."""
    marker = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]").search(data, position)
    if marker is None:
        raise ValueError(f"the JPEG breaks off in its picture, at byte {len(data)}; it's truncated")
    return marker.start()


def _frame_header(segment: bytes) -> tuple[int, int, int, bytes]:
    """Bit depth, height, width and component identifiers of a whole start-of-frame segment."""
    if len(segment) < 10 or len(segment) != 10 + 3 * segment[9]:
        raise ValueError(f"the JPEG frame header has {len(segment)} bytes; it is damaged")
    bit_depth, height, width = struct.unpack(">BHH", segment[4:9])
    if height == 0 or width == 0:
        raise ValueError(f"the JPEG says {width}x{height} pixels; both must be at least 1")
    return bit_depth, height, width, segment[10::3]
