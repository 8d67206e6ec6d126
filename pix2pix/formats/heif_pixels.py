"""One picture to HEIC or AVIF and back.

HEIC goes through libheif, libde265 and x265 by way of pillow-heif, an option to install since x265
is under the GPL; AVIF through libavif and libaom by way of imagecodecs.
"""

import io
from typing import NamedTuple

import imagecodecs
import numpy as np

# A denoised photograph, 2026-11: five times as fast as speed 7 for 8% more bytes, and three times
# as fast as x265's "fast" for 6%. The generator needs the cores more.
AVIF_SPEED = 9
HEIC_PRESET = "ultrafast"
# What pillow-heif says it raises, what imagecodecs' errors have in common, and IndexError, which a
# picture that libheif skips turns into.
DECODING_ERRORS = (RuntimeError, OSError, EOFError, SyntaxError, ValueError, IndexError)


class Coding(NamedTuple):
    """How a picture is coded.

    Attributes:
        format: "HEIC" or "AVIF".
        bit_depth: bits of a sample.
        chroma: "400" (grey), "420", "422" or "444".
        primaries: ISO/IEC 23091-2's number, as the next two.
        transfer: the curve's.
        matrix: from RGB to luma and chroma.
    """

    format: str
    bit_depth: int
    chroma: str
    primaries: int
    transfer: int
    matrix: int


def decoded(data: bytes, format_name: str) -> np.ndarray:
    """The main picture's pixels, uint8 or uint16 of as many bits as the file has.

    Args:
        data: a whole file.
        format_name: "HEIC" or "AVIF".

    Raises:
        ValueError: the coded picture is damaged.
    """
    try:
        if format_name == "AVIF":
            return np.asarray(imagecodecs.avif_decode(data))
        import pillow_heif  # here, as it's an option to install

        image = pillow_heif.open_heif(data, convert_hdr_to_8bit=False)
        pixels = np.asarray(image)
        bits = image.info["bit_depth"]
    except DECODING_ERRORS as error:
        raise ValueError(f"the {format_name} can't be decoded: {error}") from error
    return pixels >> (16 - bits) if pixels.dtype == np.uint16 else pixels


def encoded(pixels: np.ndarray, coding: Coding, quality: int) -> bytes:
    """A file of these pixels alone.

    Args:
        pixels: uint8, or uint16 of as many bits as the coding has; (height, width, 1 or 3).
        coding: how to code them.
        quality: the encoder's, 1 to 100.
    """
    colors = (coding.primaries, coding.transfer, coding.matrix)
    height, width, channels = pixels.shape
    if coding.format == "AVIF":
        data = imagecodecs.avif_encode(
            pixels[..., 0] if channels == 1 else pixels,
            level=quality,
            speed=AVIF_SPEED,
            bitspersample=coding.bit_depth,
            pixelformat=coding.chroma,
            primaries=colors[0],
            transfer=colors[1],
            matrix=colors[2],
        )
        return bytes(data)
    import pillow_heif  # here, as it's an option to install

    file, mode = io.BytesIO(), "L" if channels == 1 else "RGB"
    if coding.bit_depth > 8:
        pixels, mode = pixels << (16 - coding.bit_depth), f"{mode};16"
    pillow_heif.encode(
        mode,
        (width, height),
        pixels.tobytes(),
        file,
        quality=quality,
        color_primaries=colors[0],
        transfer_characteristics=colors[1],
        matrix_coefficients=colors[2],
        full_range_flag=1,
        enc_params={"preset": HEIC_PRESET, "chroma": coding.chroma if channels > 1 else "420"},
    )
    return file.getvalue()


def scaled(values: np.ndarray, bits: int, to_bits: int) -> np.ndarray:
    """uint16 values of some bits to the full range of others, rounded; there and back is exact."""
    top, to_top = 2**bits - 1, 2**to_bits - 1
    table = (np.arange(top + 1, dtype=np.uint32) * to_top + top // 2) // top
    return table.astype(np.uint16)[np.minimum(values, top)]
