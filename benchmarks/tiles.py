"""What tiles cost: a whole photograph in one piece against overlapping tiles, in one run.

    python benchmarks/tiles.py [--checkpoint RUN]

Prints, for several tile sizes, the time as a ratio of the whole image's, the megapixels per second
of both, and how far the pictures differ. Ratios are what counts: the times are this machine's.
"""

import time
from pathlib import Path
from typing import Annotated

import keras
import numpy as np
import typer
from PIL import Image

from pix2pix import denoiser, networks
from pix2pix.denoiser import Denoiser
from pix2pix.settings import Settings

ROOT = Path(__file__).parent.parent
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


def main(
    checkpoint: Annotated[str, typer.Option(help="A run or checkpoint; none: random.")] = "",
    side: Annotated[int, typer.Option(help="Height and width of the photograph.")] = 2048,
) -> None:
    """Times whole against tiled."""
    if checkpoint:
        model = denoiser.loaded(checkpoint)
        generator, made_with = model.generator, model.made_with
    else:
        made_with = Settings()
        keras.config.set_dtype_policy(denoiser.dtype_policy("auto"))
        generator = networks.generator(made_with)
        generator.get_layer(
            "noise"
        ).kernel.assign(  # it begins as the identity, which shows no seam
            np.random.default_rng(0).normal(0, 0.05, (3, 3, made_with.width, 3))
        )
    pixels = photograph(side)
    sizes = [side, 1536, 1024, 512, 256]
    models = {size: Denoiser(generator, made_with, tile_pixels=size) for size in sizes}
    whole = models[side].denoised(pixels)
    seconds = dict.fromkeys(sizes, float("inf"))
    results = {}
    for _ in range(ROUNDS):
        for size, model in models.items():
            begun = time.perf_counter()
            results[size] = model.denoised(pixels)
            seconds[size] = min(seconds[size], time.perf_counter() - begun)
    for size in sizes:
        difference = np.abs(results[size].astype(int) - whole)
        typer.echo(
            f"tile {size:5}: time x{seconds[size] / seconds[side]:.2f}  "
            f"{side * side / 1e6 / seconds[size]:.2f} MP/s  "
            f"largest difference {difference.max()}/255, over 1 in {(difference > 1).mean():.4%}"
        )


if __name__ == "__main__":
    typer.run(main)
