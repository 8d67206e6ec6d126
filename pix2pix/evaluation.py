"""Scores of a checkpoint on pairs: PSNR and SSIM of the noisy input and of what comes out."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from pix2pix import checkpoints, cluster, images, metrics, pairs, report, storage
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

    checkpoint_url, sha256 = checkpoints.identified(checkpoint_url)
    chosen = pairs.found(pairs_url)
    chosen = pairs.of_scenes(chosen, scenes) if scenes else chosen
    pairs.fingerprint(chosen)
    show(f"{len(chosen)} pairs; checkpoint {checkpoint_url} ({sha256[:12]})")
    processes = cluster.pool(None, gpu)
    count = min(PICTURES, len(chosen))
    pictured = {round(place) for place in np.linspace(0, len(chosen) - 1, count)}
    items = [{"index": index, "picture": index in pictured} for index in range(len(chosen))]
    done = ray.data.from_items(items).map(
        Scorer, fn_constructor_args=(chosen, checkpoint_url, precision, gpu),
        concurrency=min(processes.size, len(chosen)), num_cpus=processes.cpus, num_gpus=int(gpu),
        max_restarts=3, max_task_retries=3,
    )  # fmt: skip
    with cluster.plain_errors():
        rows = sorted(done.take_all(), key=lambda row: row["index"])
    result = [
        Score(pair.name, pair.scene, **{name: row[name] for name in _SCORES})
        for pair, row in zip(chosen, rows, strict=True)
    ]
    if report_url:
        _write(report_url, result, chosen, rows)
    return result


_SCORES = ("noisy_psnr_db", "psnr_db", "noisy_ssim", "ssim")


class Scorer:
    """One process that denoises noisy images of pairs and compares.

    Args:
        chosen: All pairs.
        checkpoint_url: What denoises.
        precision: See `denoiser.dtype_policy`.
        gpu: Whether this process has a GPU.
    """

    def __init__(self, chosen: list[Pair], checkpoint_url: str, precision: str, gpu: bool) -> None:
        import tensorflow as tf

        from pix2pix import denoiser

        if not gpu:  # Ray hides GPUs only from those who ask for some
            tf.config.set_visible_devices([], "GPU")
        self.pairs = chosen
        self.denoiser = denoiser.loaded(checkpoint_url, precision)

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
