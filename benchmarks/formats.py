"""What reading and writing each format costs: megapixels per second of one process.

    python benchmarks/formats.py

Each format in turn takes the same photograph, laid out of the sample images, in several rounds; the
fastest of each counts. The ratios are what counts: the speeds are this machine's.
"""

import io
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
import typer
from PIL import Image

from pix2pix import images

ROOT = Path(__file__).parent.parent
ROUNDS = 3


def photograph(height: int, width: int) -> np.ndarray:
    """A photograph, uint8 (height, width, 3)."""
    paths = sorted((ROOT / "samples").rglob("*.png"))
    tiles = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    down, across = -(-height // 256), -(-width // 256)
    rows = [
        np.hstack([tiles[(7 * row + k) % len(tiles)] for k in range(across)]) for row in range(down)
    ]
    return np.vstack(rows)[:height, :width]


def files(pixels: np.ndarray) -> dict[str, bytes]:
    """The photograph in each format."""

    def saved(name: str, **options: str | int | bool) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, name, **options)
        return file.getvalue()

    result = {
        "JPEG 4:2:0": saved("JPEG", quality=92),
        "JPEG progressive": saved("JPEG", quality=92, progressive=True),
        "PNG": saved("PNG", compress_level=1),
        "PNG 16": bytes(imagecodecs.png_encode(pixels.astype(np.uint16) * 257, level=1)),
        "TIFF": saved("TIFF"),
        "TIFF LZW": saved("TIFF", compression="tiff_lzw"),
        "TIFF Deflate": saved("TIFF", compression="tiff_adobe_deflate"),
        "WebP": saved("WEBP", quality=85),
        "AVIF": saved("AVIF", quality=85, speed=9),
    }
    try:
        import pillow_heif
    except ImportError:
        return result
    file = io.BytesIO()
    pillow_heif.encode("RGB", pixels.shape[1::-1], pixels.tobytes(), file, quality=85)
    return {**result, "HEIC": file.getvalue()}


def seconds(step: Callable[[], object]) -> float:
    """Of one call."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def main(height: int = 3000, width: int = 4000) -> None:
    """Times decode and encode of every format."""
    candidates = files(photograph(height, width))
    best: dict[str, list[float]] = {name: [9e9, 9e9] for name in candidates}
    for _ in range(ROUNDS):
        for name, data in candidates.items():
            read = images.decode(data)
            best[name][0] = min(best[name][0], seconds(partial(images.decode, data)))
            write = partial(images.encode, read, read.pixels, mark="x")
            best[name][1] = min(best[name][1], seconds(write))
    megapixels = height * width / 1e6
    typer.echo(f"{'':18s} {'MB':>7s} {'decode':>8s} {'encode':>8s}  megapixels per second")
    for name, (decoding, encoding) in best.items():
        size = len(candidates[name]) / 1e6
        speeds = f"{megapixels / decoding:8.1f} {megapixels / encoding:8.1f}"
        typer.echo(f"{name:18s} {size:7.1f} {speeds}")


if __name__ == "__main__":
    typer.run(main)
