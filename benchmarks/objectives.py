"""What a discriminator costs and what it brings: PSNR and SSIM against likeness, by its weight.

    python benchmarks/objectives.py PAIRS OUT --test-scenes 003 --validation-scenes 002
        [--start best] [--adversarial bce] [--weights 0 --weights 1 ...] [--limit-seconds 300]

One run per weight, all begun with the same weights, for as long, with the paper's L1 weight of 100.
PSNR and SSIM say how near each pixel is to the truth. Whether a photograph looks like one is the
sliced Wasserstein distance between what small places of it and of clean photographs look like, at
three scales; it needs no network that would have to be downloaded. Noise that was left counts in it
as much as texture that was taken. Written are objectives.md (also printed) and objectives.png: the
table, and the losses of the last run.
"""

import io
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow.parquet as pq
import typer
from numpy.typing import NDArray
from scipy import ndimage

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from pix2pix import checkpoints, denoiser, images, metrics, pairs, settings, storage  # noqa: E402 - found by the line above

SCALES = 3  # each half of the one before
PLACE_PIXELS = 7  # a side of a place
PLACES = 128  # of each photograph at each scale
DIRECTIONS = 512
Images = list[NDArray[np.uint8]]
BLUE, ORANGE, GREY = "#1f77b4", "#d95f02", "#777777"


def distances(some: Images, others: Images, seed: int = 0) -> list[float]:
    """The sliced Wasserstein distances between photographs, at each scale, finest first.

    Args:
        some: uint8 (height, width, 3) each, at least 32 pixels high and wide.
        others: As many, of the same sizes in the same order; places are the same in both.
        seed: Of the places and the directions.

    Returns:
        Distances times 1000; 0 where all places look alike.

    Source:
        Karras et al., "Progressive Growing of GANs", ICLR 2018, 5
        (https://arxiv.org/abs/1710.10196). Where we differ: bands are what a Gaussian of one pixel
        takes away; both sets are normalised by the second one's mean and deviation, so that less
        contrast is a distance too.
    """
    found = []
    for scale in range(SCALES):
        rng = np.random.default_rng((seed, scale))
        state = rng.bit_generator.state
        one = _places(some, scale, rng)
        rng.bit_generator.state = state
        two = _places(others, scale, rng)
        mean, deviation = two.mean(axis=(0, 1)), two.std(axis=(0, 1)) + 1e-6
        rows = [((each - mean) / deviation).reshape(len(each), -1) for each in (one, two)]
        directions = rng.normal(size=(rows[0].shape[1], DIRECTIONS))
        directions /= np.linalg.norm(directions, axis=0)
        first, second = (np.sort(each @ directions, axis=0) for each in rows)
        found.append(1000 * float(np.abs(first - second).mean()))
    return found


def _places(images: Images, scale: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Float64 (places, PLACE_PIXELS^2, 3), of one band of each photograph."""
    found = []
    for image in images:
        band = image.astype(np.float64)
        for step in range(scale + 1):
            smooth = ndimage.gaussian_filter(band, (1, 1, 0))
            band = band - smooth if step == scale else smooth[::2, ::2]
        windows = np.lib.stride_tricks.sliding_window_view(band, (PLACE_PIXELS,) * 2, axis=(0, 1))
        rows, columns = (rng.integers(0, side, PLACES) for side in windows.shape[:2])
        found.append(windows[rows, columns].transpose(0, 2, 3, 1).reshape(PLACES, -1, 3))
    return np.concatenate(found)


def trained(pairs_url: str, run: Path, options: list[str]) -> None:
    """A run with the paper's weight of the content loss, in a process of its own."""
    words = [sys.executable, str(ROOT / "jobs/train.py"), pairs_url, str(run)]
    subprocess.run([*words, "--l1-weight", "100", "--epochs", "100000", *options], check=True)


def scored(url: str, checkpoint: str | None, scenes: tuple[str, ...]) -> dict[str, float]:
    """Means over the pairs of some scenes; without a checkpoint those of the noisy images."""
    chosen = pairs.of_scenes(pairs.found(url), scenes)
    model = denoiser.loaded(checkpoint) if checkpoint else None
    both = [pairs.pixels(pair) for pair in chosen]
    clean = [truth for _, truth in both]
    made = [images.eight_bit(model.denoised(noisy)) if model else noisy for noisy, _ in both]
    result = {
        "PSNR": metrics.mean_psnr_db(
            [metrics.psnr_db(*two) for two in zip(clean, made, strict=True)]
        ),
        "SSIM": float(np.mean([metrics.ssim(*two) for two in zip(clean, made, strict=True)])),
    }
    for scale, distance in enumerate(distances(made, clean)):
        result[f"distance at 1/{2**scale}"] = distance
    return result


def table(rows: dict[str, dict[str, float]]) -> str:
    """The scores of each run as Markdown."""
    heads = list(next(iter(rows.values())))
    lines = [f"| weight | {' | '.join(heads)} |", f"|---{'|---' * len(heads)}|"]
    for name, row in rows.items():
        cells = (f"{row[head]:.{4 if head == 'SSIM' else 2}f}" for head in heads)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def picture(rows: dict[str, dict[str, float]], history: dict[str, list[float]], name: str) -> bytes:
    """PNG: what each weight costs and brings, and the losses of one run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for label, row in rows.items():
        if label != "noisy":  # so far off that all others would be one point
            place = row["PSNR"], row["distance at 1/1"]
            left.plot(*place, "o", color=BLUE)
            left.annotate(label, place, xytext=(5, 4), textcoords="offset points")
    left.set_xlabel("PSNR (dB): right is nearer to the truth")
    left.set_ylabel("distance, finest scale: low looks more alike")
    left.set_title("by weight of the adversarial loss")
    right.plot(history["step"], history["adversarial_loss"], ".-", color=BLUE, label="generator")
    right.plot(
        history["step"], history["discriminator_loss"], ".-", color=ORANGE, label="discriminator"
    )
    if name.startswith("bce"):
        right.axhline(np.log(2), color=GREY, linestyle=":", label="undecided: ln 2")
    right.set_title(f"adversarial losses, {name}")
    right.set_xlabel("step")
    right.legend()
    for axis in (left, right):
        axis.grid(alpha=0.3)
    file = io.BytesIO()
    figure.savefig(file, dpi=100)
    return file.getvalue()


def main(
    pairs_url: Annotated[str, typer.Argument(metavar="PAIRS", help="As for `pix2pix train`.")],
    out: Annotated[Path, typer.Argument(help="Folder to fill; its runs go on if they are there.")],
    test_scenes: Annotated[list[str], typer.Option(help="Scenes that are scored.")],
    validation_scenes: Annotated[list[str], typer.Option(help="As for `pix2pix train`.")],
    start: Annotated[str, typer.Option(help="What all runs begin with.")] = "best",
    adversarial: Annotated[str, typer.Option(help="bce, lsgan or wgan-gp.")] = "bce",
    weights: Annotated[list[float], typer.Option(help="Of the adversarial loss.")] = [0, 0.3, 1, 3],  # noqa: B006 - read only; Typer wants a list
    limit_seconds: Annotated[float, typer.Option(help="Of each run.")] = 300,
    option: Annotated[list[str], typer.Option(help="More of `pix2pix train`, as --width=24.")] = [],  # noqa: B006 - likewise
) -> None:
    """Trains, scores, and writes table and picture."""
    out.mkdir(parents=True, exist_ok=True)
    scenes = [f"--test-scenes={each}" for each in test_scenes]
    scenes += [f"--validation-scenes={each}" for each in validation_scenes]
    rows = {"noisy": scored(pairs_url, None, tuple(test_scenes))}
    rows[start] = scored(pairs_url, start, tuple(test_scenes))
    settings_url = storage.join(checkpoints.resolved(start), checkpoints.SETTINGS)
    made_with = settings.from_json(storage.read(settings_url).decode())
    same = [f"--{name.replace('_', '-')}={getattr(made_with, name)}" for name in settings.NETWORK]
    for weight in weights:
        run = out / f"{adversarial}-{weight:g}"
        judged = ["--adversarial", adversarial if weight else "none"]
        judged += ["--adversarial-weight", str(weight), "--limit-seconds", str(limit_seconds)]
        trained(pairs_url, run, [*judged, "--start", start, *same, *scenes, *option])
        # the last weights, not the best: which weight is best for PSNR is known
        rows[f"{weight:g}"] = scored(pairs_url, f"{run}/latest", tuple(test_scenes))
        history = pq.read_table(io.BytesIO(storage.read(f"{run}/history.parquet"))).to_pydict()
        (out / "objectives.md").write_text(table(rows))
        name = f"{adversarial}, weight {weight:g}"
        (out / "objectives.png").write_bytes(picture(rows, history, name))
    typer.echo(table(rows))


if __name__ == "__main__":
    typer.run(main)
