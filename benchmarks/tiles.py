"""What tiles, scores and the gate cost beside the generator, in one run.

    OPENBLAS_NUM_THREADS=1 python benchmarks/tiles.py [--checkpoint RUN --precision float32 ...]

Prints, as a ratio of the generator's own (the whole photograph as one tile, pixels in memory), what
tiles of several sizes take, in time and in seconds of processors, and how far the pictures differ;
then the same of four photographs in three threads with their scores and the gate; and what a pixel
costs the generator in images of several widths, all of 6 megapixels. On a machine that others use
too, believe the processors' seconds.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import keras
import numpy as np
import tensorflow as tf
import typer
from PIL import Image

from pix2pix import denoiser, harm, metrics, networks
from pix2pix.denoiser import Denoiser
from pix2pix.settings import Settings

ROOT = Path(__file__).parent.parent
WIDTHS = (1024, 1280, 1536, 1792, 1808, 2048, 2064, 3072, 4096, 8192)
WIDTHS_PIXELS = 6_000_000
ROUNDS = 3  # each takes all sizes in turn, so that a slow moment of the machine meets all


def photograph(side: int) -> np.ndarray:
    """A noisy photograph, uint8 (side, side, 3), laid out of the sample images."""
    paths = sorted((ROOT / "samples").rglob("*NOISY*")) + sorted(
        (ROOT / "samples/unseen/noisy").iterdir()
    )
    tiles = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    count = -(-side // 256)
    rows = [np.hstack([tiles[(7 * row + k) % len(tiles)] for k in range(count)])
            for row in range(count)]  # fmt: skip
    return np.vstack(rows)[:side, :side]


def measured(before: np.ndarray, after: np.ndarray) -> None:
    """All that a bulk job wants to know of a result."""
    noise_sigma = metrics.noise_sigma(before)
    metrics.noise_sigma(after)
    metrics.mean_shift(before, after)
    metrics.clipped_fraction(after)
    for image in (before, after):
        metrics.sharpness(image)
    harm.is_clean(before, noise_sigma)
    harm.verdict(before, after, noise_sigma)


def spent(work: Callable[[], object]) -> np.ndarray:
    """Seconds of the clock and of the processors."""
    begun = time.perf_counter(), time.process_time()
    work()
    return np.array([time.perf_counter() - begun[0], time.process_time() - begun[1]])


def main(
    checkpoint: Annotated[str, typer.Option(help="A run or checkpoint; none: random.")] = "",
    height: Annotated[int, typer.Option(help="Of the photograph; a multiple of 8.")] = 3000,
    width: Annotated[int, typer.Option(help="Likewise.")] = 4000,
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or auto.")] = "auto",
) -> None:
    """Times the generator alone against tiles, and against all that is done to a photograph."""
    if checkpoint:
        model = denoiser.loaded(checkpoint, precision)
        generator, made_with = model.generator, model.made_with
    else:
        made_with = Settings()
        keras.config.set_dtype_policy(denoiser.dtype_policy(precision))
        generator = networks.generator(made_with)
        kernel = generator.get_layer("noise").kernel  # it begins as the identity: no seam to see
        kernel.assign(np.random.default_rng(0).normal(0, 0.05, (3, 3, made_with.width, 3)))
    pixels = np.ascontiguousarray(photograph(max(height, width))[:height, :width])
    alone = tf.function(lambda batch: generator(tf.cast(batch, tf.float32) / 127.5 - 1.0))
    models = {"default": Denoiser(generator, made_with)} | {
        str(size): Denoiser(generator, made_with, tile_pixels=size) for size in (2048, 1024, 512)
    }

    def whole_job(_: int) -> None:
        measured(pixels, models["default"].denoised(pixels))

    def four() -> None:
        with ThreadPoolExecutor(3) as threads:
            list(threads.map(whole_job, range(4)))

    works: dict[str, Callable[[], object]] = {
        "generator alone": lambda: alone(pixels[np.newaxis]),
        **{f"tiles, {name}": lambda model=model: model.denoised(pixels)  # type: ignore[misc]
           for name, model in models.items()},
        "scores and gate": lambda: measured(pixels, pixels),
        "all, three threads": four,
    }  # fmt: skip
    counts = dict.fromkeys(works, height * width) | {"all, three threads": 4 * height * width}
    for columns in WIDTHS:
        image = np.resize(pixels, (1, WIDTHS_PIXELS // columns // 16 * 16, columns, 3))
        name = f"{columns} columns"
        works[name], counts[name] = (lambda image=image: alone(image)), image.size // 3  # type: ignore[misc]
    seconds = {name: np.full(2, np.inf) for name in works}  # a megapixel
    for _ in range(ROUNDS):
        for name, work in works.items():
            seconds[name] = np.minimum(seconds[name], spent(work) / counts[name] * 1e6)
    base = seconds["generator alone"]
    for name, taken in seconds.items():
        typer.echo(
            f"{name:20} time x{taken[0] / base[0]:.3f}  processors x{taken[1] / base[1]:.3f}  "
            f"{1 / taken[0]:.2f} MP/s"
        )
    whole = np.clip(np.rint((alone(pixels[np.newaxis])[0].numpy() + 1) * 127.5), 0, 255)
    for name, model in models.items():
        # at its ends tiles mirror the photograph where the generator alone sees zeros
        difference = np.abs(model.denoised(pixels) - whole)[:-64, :-64]
        typer.echo(
            f"tiles, {name}: largest difference {difference.max():.0f}/255, "
            f"over 1 in {(difference > 1).mean():.4%}"
        )


if __name__ == "__main__":
    typer.run(main)
