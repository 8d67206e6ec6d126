"""Small photographs of every format that is read, and ways to damage them."""

import io
import random
import struct
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pillow_heif
import tifffile
from PIL import Image


def pixels(height: int = 40, width: int = 56, channels: int = 3, bits: int = 8) -> np.ndarray:
    """Slopes, an edge and a little noise: no side looks like another; all bits are used."""
    rows, columns = np.mgrid[0:height, 0:width]
    slopes = [rows * 0.7 / height, columns * 0.7 / width, (rows + columns) % 97 / 110 + 0.05]
    slopes.append(1 - columns * 0.7 / width)  # the alpha
    noise = np.random.default_rng(0).normal(0, 0.012, (height, width, 4))
    values = np.stack(slopes, -1) + 0.2 * (columns > width / 3)[..., None] + noise
    order = {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[channels]
    kind = np.uint8 if bits == 8 else np.uint16
    scaled = np.rint(np.clip(values[..., order], 0, 1) * (2**bits - 1))
    return np.ascontiguousarray(scaled, kind)


def saved(image: Image.Image, format_name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def tiff(array: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def heic(array: np.ndarray, **options: Any) -> bytes:
    """A HEIC of uint8 or uint16 (height, width, 1, 3 or 4); uint16 is kept as 10 bits."""
    file = io.BytesIO()
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[array.shape[2]] + (";16" if array.itemsize == 2 else "")
    options = {"quality": 90, "enc_params": {"preset": "ultrafast"}, **options}
    pillow_heif.encode(mode, array.shape[1::-1], array.tobytes(), file, **options)
    return file.getvalue()


def psnr_db(one: np.ndarray, other: np.ndarray) -> float:
    peak = np.iinfo(one.dtype).max
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return float(10 * np.log10(peak**2 / max(error, 1e-9)))


def samples() -> dict[str, bytes]:
    """A file of each kind that is read."""
    rgb, rgba = Image.fromarray(pixels()), Image.fromarray(pixels(channels=4))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    more: dict[str, Any] = {"exif": exif, "icc_profile": b"profile" * 9, "xmp": b"<x:xmpmeta/>"}
    deep = pixels(bits=16)
    return {
        "jpeg": saved(rgb, "JPEG", quality=90, comment=b"note", **more),
        "jpeg progressive": saved(rgb.convert("L"), "JPEG", progressive=True),
        "jpeg of several": saved(rgb, "MPO", save_all=True, append_images=[rgb]),
        "png": saved(rgba, "PNG", exif=exif, icc_profile=b"profile" * 9),
        "png 16": bytes(imagecodecs.png_encode(deep)),
        "png palette": saved(rgb.quantize(20), "PNG"),
        "tiff": tiff(pixels(), photometric="rgb", rowsperstrip=7),
        "tiff lzw": tiff(deep, photometric="rgb", compression="lzw", predictor=2, byteorder=">"),
        "tiff tiles": tiff(deep, photometric=2, compression="zlib", tile=(16, 32), bigtiff=True),
        "tiff grey": tiff(pixels(channels=1)[..., 0], photometric="miniswhite", compression="zstd"),
        "tiff packbits": tiff(pixels(), photometric="rgb", compression="packbits"),
        "tiff planes": tiff(np.moveaxis(pixels(), -1, 0), photometric="rgb", planarconfig=2),
        "webp": saved(rgba, "WEBP", quality=85, **more),
        "webp lossless": saved(rgba, "WEBP", lossless=True, exact=True),
        "avif": saved(rgba, "AVIF", quality=80, exif=exif),
        "avif 10": bytes(imagecodecs.avif_encode(pixels(bits=10), level=80, bitspersample=10)),
        "heic": heic(pixels(channels=4)),
        "heic 10": heic(deep),
        "heic tiles": heic(pixels(128, 96), tile_size=64),
    }  # fmt: skip


def damaged(data: bytes, chance: random.Random) -> bytes:
    """The file with bytes flipped, put in, cut out, doubled or cut off, mostly near its start."""
    result = bytearray(data)
    span = min(len(data), chance.choice([64, 400, 2000, len(data)]))
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        place = chance.randrange(span)
        kind = chance.randrange(9)
        if kind < 3:
            result[place : place + 1] = bytes([chance.randrange(256)])
        elif kind < 5:
            number = chance.choice([0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**20, 60000])
            order = chance.choice("<>")
            kind_of_number = "I" if number > 0xFFFF or chance.random() < 0.5 else "H"
            piece = struct.pack(order + kind_of_number, number)
            result[place : place + len(piece)] = piece
        elif kind == 5:
            result[place:place] = chance.randbytes(chance.choice([1, 2, 4, 30]))
        elif kind == 6:
            del result[place : place + chance.choice([1, 2, 4, 30])]
        elif kind == 7:
            result[place] = result[place] ^ (1 << chance.randrange(8)) if place < len(result) else 0
        else:
            result[place:place] = result[place : place + chance.choice([4, 12, 100])]
        span = max(1, min(span, len(result) - 1))
    if chance.random() < 0.1:
        del result[chance.randrange(len(result)) :]
    return bytes(result)


def with_true_checksums(data: bytes) -> bytes:
    """A damaged PNG whose damage the checksums don't give away; other files as they are."""
    position, fixed = 8, bytearray(data)
    while data.startswith(b"\x89PNG") and position + 12 <= len(fixed):
        end = position + 12 + int.from_bytes(fixed[position : position + 4], "big")
        if end > len(fixed):
            break
        fixed[end - 4 : end] = struct.pack(">I", zlib.crc32(fixed[position + 4 : end - 4]))
        position = end
    return bytes(fixed)
