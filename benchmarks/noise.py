"""How fast noise is made, on one core, and how near it is to that of real pairs.

    taskset -c 0 python benchmarks/noise.py [--data FOLDER]

Speeds are of 96-pixel patches, as training takes them, and the ratio is to what training consumes:
steps of 16 patches in about 0.3 s on two cores. Real pairs are the samples, or with `--data` (or
the environment variable PIX2PIX_DATA) all of `sidd_small_256/` and `sidd_native_sample/` in it.
"""

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from pix2pix import noise

ROOT = Path(__file__).parent.parent
ROUNDS, ROUND_SECONDS = 5, 0.5
STEP_PATCHES, STEP_SECONDS = 16, 0.3
CROP_PIXELS = 96
EDGES = (0, 8, 24, 48, 80, 128, 176, 224, 250, 256)  # of the ranges of brightness

Levels = NDArray[np.uint8]
Pair = tuple[Levels, Levels]


def pixels(path: Path) -> Levels:
    """uint8 (height, width, 3)."""
    return np.asarray(Image.open(path).convert("RGB"))


def real_pairs(data: Path | None) -> tuple[list[Pair], Pair | None]:
    """SIDD at 256 x 256 pixels, and the pair at native pixels if it's there."""
    pairs_folder = data / "sidd_small_256/Data" if data else ROOT / "samples/pairs/Data"
    pairs = [
        (pixels(path), pixels(path.with_name("GT_SRGB_010.PNG")))
        for path in sorted(pairs_folder.glob("*/NOISY_SRGB_010.PNG"))
    ]
    native = sorted((data / "sidd_native_sample").glob("*.png")) if data else []
    return pairs, (pixels(native[1]), pixels(native[0])) if native else None


def patches_of(photographs: list[Levels], count: int) -> Levels:
    """uint8 (count, CROP_PIXELS, CROP_PIXELS, 3)."""
    chance = np.random.default_rng(0)
    cut = []
    for index in range(count):
        photograph = photographs[index * len(photographs) // count]
        top, left = (chance.integers(0, side - CROP_PIXELS + 1) for side in photograph.shape[:2])
        cut.append(photograph[top : top + CROP_PIXELS, left : left + CROP_PIXELS])
    return np.stack(cut)


def megapixels_per_second(made: Callable, patches: Levels) -> float:
    """Of the fastest round: another program's time isn't ours."""
    chance = np.random.default_rng(0)
    made(patches, chance)
    best = 0.0
    for _ in range(ROUNDS):
        begun, calls = time.perf_counter(), 0
        while time.perf_counter() - begun < ROUND_SECONDS:
            made(patches, chance)
            calls += 1
        best = max(best, calls * patches[..., 0].size / 1e6 / (time.perf_counter() - begun))
    return best


def shares(pair: Pair) -> tuple[float, list[float]]:
    """Of the noise: correlation of neighbours, and of red and green, red and blue, green and blue.

    Of neighbours the mean of those to the right and those below.
    """
    found = np.subtract(pair[0], pair[1], dtype=np.float32)
    found -= found.mean((0, 1))
    right = (found[:, 1:] * found[:, :-1]).mean()
    below = (found[1:] * found[:-1]).mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        colours = np.corrcoef(found.reshape(-1, 3).T)
        lag = (right + below) / 2 / np.square(found).mean()
    return float(lag), [colours[0, 1], colours[0, 2], colours[1, 2]]


def strength(pair: Pair) -> float:
    """Root of the mean square of the noise, in levels."""
    return float(np.sqrt(np.square(np.subtract(pair[0], pair[1], dtype=np.float32)).mean()))


def curve(pair: Pair) -> NDArray[np.float64]:
    """Noise in each range of brightness, over that of the whole; nan where there are few pixels."""
    found = np.subtract(pair[0], pair[1], dtype=np.float32)
    deviations = []
    for low, high in pairwise(EDGES):
        within = found[(pair[1] >= low) & (pair[1] < high)]
        deviations.append(within.std() if within.size > 500 else np.nan)
    return np.array(deviations) / found.std()


def percentiles(values: list) -> str:
    """The 10th, 50th and 90th of each column."""
    found = np.nanpercentile(np.array(values), [10, 50, 90], axis=0).reshape(3, -1).T
    return "   ".join("{:5.2f} {:5.2f} {:5.2f}".format(*column) for column in found)


def described(name: str, pairs: list[Pair]) -> Iterator[str]:
    """Lines about the noise of pairs, each with percentiles 10, 50, 90 over the pairs."""
    seen = [pair for pair in pairs if strength(pair) > 1.0]
    yield f"{name}: {len(pairs)} pairs, {len(seen)} with noise over 1 level"
    yield f"  strength, levels              {percentiles([strength(pair) for pair in pairs])}"
    yield f"  shared by neighbours          {percentiles([shares(pair)[0] for pair in seen])}"
    yield f"  shared by RG, RB, GB          {percentiles([shares(pair)[1] for pair in seen])}"
    curves = np.array([curve(pair) for pair in seen])
    for (low, high), column in zip(pairwise(EDGES), curves.T, strict=True):
        if not np.isnan(column).all():
            yield f"  at {low:3d} to {high - 1:3d}, over the whole  {percentiles(list(column))}"


def main(data: Annotated[Path | None, typer.Option(envvar="PIX2PIX_DATA")] = None) -> None:
    """Prints speeds, and then traits of real and of made noise."""
    pairs, native = real_pairs(data)
    photographs = [clean for _, clean in pairs]
    consumed = STEP_PATCHES * CROP_PIXELS**2 / 1e6 / STEP_SECONDS
    for made in (noise.camera, noise.white):
        for count in (16, 64):
            speed = megapixels_per_second(made, patches_of(photographs, count))
            typer.echo(
                f"{made.__name__:6s} batch of {count}: {speed:5.1f} megapixels/s on one core, "
                f"{1 / speed:.3f} s per megapixel, {speed / consumed:5.1f} times training's use"
            )
    for line in described("real, shrunk to 256 pixels", pairs):
        typer.echo(line)
    if native:
        for line in described("real, native", [native]):
            typer.echo(line)
    chance = np.random.default_rng(0)
    patches = patches_of(photographs, 6 * len(photographs))
    for line in described("made", list(zip(*noise.camera(patches, chance), strict=True))):
        typer.echo(line)


if __name__ == "__main__":
    typer.run(main)
