"""Scores of a checkpoint on pairs: PSNR and SSIM of the noisy input and of what comes out."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pix2pix import checkpoints, cluster, images, metrics, pairs, report, sizing, storage
from pix2pix.pairs import Pair

PICTURES = 12  # pairs on the sheet, evenly spread over all
SCORES_FILE, SHEET = "scores.parquet", "sheet.png"


@dataclass(frozen=True)
class Score:
    """Scores of one pair: of the noisy input and of the denoised image, against the clean one."""

    name: str
    scene: str
    noisy_psnr_db: float
    psnr_db: float
    noisy_ssim: float
    ssim: float


def scores(
    pairs_url: str,
    checkpoint_url: str,
    *,
    report_url: str | None = None,
    scenes: tuple[str, ...] = (),
    precision: str = "auto",
    gpu: bool = False,
    show: Callable[[str], None] = print,
) -> list[Score]:
    """Scores every pair, over the cluster.

    Args:
        pairs_url: See `pairs.found`.
        checkpoint_url: See `checkpoints.resolved`.
        report_url: A folder to fill with scores.parquet and sheet.png (noisy | denoised | clean).
        scenes: Only pairs of these, if any are named.
        precision: See `denoiser.dtype_policy`.
        gpu: Whether each process that denoises takes a GPU.
        show: Takes the progress lines.

    Returns:
        A score per pair, in the order of their names; psnr_db of identical images as in `metrics`.

    Raises:
        pairs.BadPairs: pairs that can't be used, each named.
        FileNotFoundError: no such pairs or checkpoint.
    """
    import ray.data

    checkpoint = checkpoints.identified(checkpoint_url)
    chosen = pairs.found(pairs_url)
    chosen = pairs.of_scenes(chosen, scenes) if scenes else chosen
    pairs.fingerprint(chosen)
    show(f"{len(chosen)} pairs; checkpoint {checkpoint[0]} ({checkpoint[1][:12]})")
    processes = sizing.pool(None, gpu)
    count = min(PICTURES, len(chosen))
    pictured = {round(place) for place in np.linspace(0, len(chosen) - 1, count)}
    items = [{"index": index, "picture": index in pictured} for index in range(len(chosen))]
    done = ray.data.from_items(items).map(
        Scorer, fn_constructor_args=(chosen, checkpoint, precision, gpu),
        concurrency=min(processes.size, len(chosen)), num_cpus=processes.cpus, num_gpus=int(gpu),
        max_restarts=3, max_task_retries=3,
    )  # fmt: skip
    with cluster.plain_errors():
        rows = sorted(done.take_all(), key=lambda row: row["index"])
    result = _results(chosen, rows)
    if report_url:
        _write(report_url, result, chosen, rows)
    return result


_SCORES = ("noisy_psnr_db", "psnr_db", "noisy_ssim", "ssim")


class Scorer:
    """One process that denoises noisy images of pairs and compares.

    Args:
        chosen: All pairs.
        checkpoint: What denoises: its URL and the SHA-256 of its weights.
        precision: See `denoiser.dtype_policy`.
        gpu: Whether this process has a GPU.
    """

    def __init__(
        self, chosen: list[Pair], checkpoint: tuple[str, str], precision: str, gpu: bool
    ) -> None:
        import tensorflow as tf

        from pix2pix import denoiser

        if not gpu:  # Ray hides GPUs only from those who ask for some
            tf.config.set_visible_devices([], "GPU")
        self.pairs = chosen
        self.denoiser = denoiser.loaded(checkpoint[0], precision, checkpoint[1])

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Scores the pair of that index; `picture` asks for the denoised image as PNG too."""
        noisy, clean = pairs.pixels(self.pairs[row["index"]])
        after = images.eight_bit(self.denoiser.denoised(noisy))
        picture = io.BytesIO()
        if row["picture"]:
            Image.fromarray(after).save(picture, "PNG")
        return {
            "index": row["index"],
            "noisy_psnr_db": metrics.psnr_db(clean, noisy),
            "psnr_db": metrics.psnr_db(clean, after),
            "noisy_ssim": metrics.ssim(clean, noisy),
            "ssim": metrics.ssim(clean, after),
            "denoised": picture.getvalue(),
        }


def validated(pairs_url: str, folder: str) -> dict[str, Any]:
    """What a checkpoint scores on its own validation images, in this process and without Ray.

    Args:
        pairs_url: The pairs that it was trained from; see `pairs.found`.
        folder: A checkpoint; see `checkpoints.resolved`. Its card names the images.

    Returns:
        The means of each score, and with what they were measured.

    Raises:
        pairs.BadPairs: an image that the card names is not among the pairs.
    """
    names = checkpoints.card_of(folder)["validation_pairs"]
    known = {pair.name: pair for pair in pairs.found(pairs_url)}
    if missing := sorted(set(names) - set(known)):
        raise pairs.BadPairs(
            f"{len(missing)} validation images of {folder} are not under {pairs_url}: "
            f"{', '.join(missing[:5])}; give the pairs that it was trained from"
        )
    chosen = [known[name] for name in names]
    scorer = Scorer(chosen, checkpoints.identified(folder), "float32", gpu=False)
    rows = [scorer({"index": index, "picture": False}) for index in range(len(chosen))]
    return means(_results(chosen, rows)) | {"scores_with": "these weights, computed in float32"}


def _results(chosen: list[Pair], rows: list[dict[str, Any]]) -> list[Score]:
    return [
        Score(pair.name, pair.scene, **{name: row[name] for name in _SCORES})
        for pair, row in zip(chosen, rows, strict=True)
    ]


def means(result: list[Score]) -> dict[str, float]:
    """The means of each score over all pairs."""
    values = {name: [getattr(score, name) for score in result] for name in _SCORES}
    return {
        name: metrics.mean_psnr_db(column) if name.endswith("_db") else float(np.mean(column))
        for name, column in values.items()
    }


def table(result: list[Score]) -> list[str]:
    """Lines for people: every pair, also those that got worse, then the means."""
    width = max(len("mean of 000"), *(len(score.name) for score in result))
    head = (
        f"{'pair':{width}}  {'noisy':>8}  {'denoised':>8}  {'gain':>6}   noisy SSIM  denoised SSIM"
    )
    lines = [head]
    for score in result:
        lines.append(_line(score.name, width, *(getattr(score, name) for name in _SCORES)))
    lines.append(_line(f"mean of {len(result)}", width, *means(result).values()))
    worse = [score.name for score in result if score.psnr_db < score.noisy_psnr_db]
    lines.append(f"{len(worse)} got worse{': ' if worse else ''}{', '.join(worse)}")
    return lines


def _line(
    name: str, width: int, noisy_db: float, psnr_db: float, noisy_ssim: float, ssim: float
) -> str:
    gain = metrics.mean_psnr_db([psnr_db]) - metrics.mean_psnr_db([noisy_db])
    return (
        f"{name:{width}}  {noisy_db:5.2f} dB  {psnr_db:5.2f} dB  {gain:+6.2f}   "
        f"{noisy_ssim:10.4f}  {ssim:13.4f}"
    )


def _write(
    report_url: str, result: list[Score], chosen: list[Pair], rows: list[dict[str, Any]]
) -> None:
    lines = []
    for pair, score, row in zip(chosen, result, rows, strict=True):
        if row["denoised"]:
            noisy, clean = pairs.pixels(pair)
            after = np.asarray(Image.open(io.BytesIO(row["denoised"])))
            captions = (
                f"{score.noisy_psnr_db:.2f} dB",
                f"{score.psnr_db:.2f} dB ({score.psnr_db - score.noisy_psnr_db:+.2f})",
                "reference",
            )
            lines.append(report.Row(pair.name, (noisy, after, clean), captions))
    picture = report.sheet(lines, ("noisy", "denoised", "clean"))
    storage.write(storage.join(report_url, SHEET), picture)
    file = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist([vars(score) for score in result]), file)
    storage.write(storage.join(report_url, SCORES_FILE), file.getvalue().to_pybytes())
