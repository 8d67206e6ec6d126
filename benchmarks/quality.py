"""How good the denoised photographs are: our checkpoints beside denoisers that anyone can install.

    python benchmarks/quality.py --data FOLDER --checkpoint best --checkpoint fast
        [--out build/quality] [--cache PEERS.parquet] [--sets kodak-25 ...] [--limit-seconds 150]

Ours go the way of the product: strength 1, and the gate that keeps an original from harm. Peers get
the noise level that scikit-image estimates, 10 as a photographer would set it, and where it is
known the true one. PSNR and SSIM are of `pix2pix.metrics`, on uint8. Megapixels per second are
measured at each start for all methods on the same photograph and cores (`--threads`).

Peers are slow: `--cache` keeps their scores, so that a second start only does what is missing, and
`--limit-seconds` ends a start early. Written are scores.parquet, quality.md (also printed),
speed.png, a picture per set, and for each checkpoint one of the places it left most wrong.
"""

import functools
import io
import os
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Annotated, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import quality_peers
import quality_report
import quality_scores
import quality_sets
import typer
from PIL import Image
from quality_peers import Peer
from quality_scores import Cache, Row, Task
from quality_sets import Shot

from pix2pix import checkpoints, harm, images, prometheus, stages
from pix2pix.settings import Settings

ROUNDS = 4  # of speed; each takes all methods in turn, so that a slow moment meets all
SLOW_SECONDS = 4.0  # what takes longer has one round
CLASSIC = "classic U-Net"  # its generator alone, without tiles


class Ours(NamedTuple):
    """A checkpoint of ours: its name in tables, and the process that denoises."""

    name: str
    process: stages.Denoise


def by_ours(shot: Shot, ours: Ours, pictured: bool) -> Row:
    """The row of a checkpoint for one shot, as a file that goes the product's way."""
    file = io.BytesIO()
    Image.fromarray(shot.noisy).save(file, "PNG", compress_level=1)
    encoded, about = ours.process.result(file.getvalue(), shot.name, False, prometheus.Watch())
    after = images.decode_rgb(encoded)
    row = quality_scores.scored(
        shot, after, pictured, method=ours.name, level="",
        how=ours.process.way.mark, status=about["status"], message=about.get("message"),
    )  # fmt: skip
    return row | quality_scores.worst(shot, after)


def rows_of(
    name: str, shots: list[Shot], peers: list[Peer], levels: frozenset[str], ours: list[Ours],
    cache: Cache, late: float,
) -> list[Row]:  # fmt: skip
    """All rows of one set; none of a peer that would begin too late."""
    shown = quality_sets.PICTURED[name.partition("-")[0]]
    rows: list[Row] = []
    by_us: list[Row] = []
    wanted: list[Task] = []
    for place, shot in enumerate(shots):
        pictured = place in shown
        if pictured:
            of_clean = {"image": shot.name, "crop": quality_scores.middle(shot.clean)}
            rows.append(of_clean | {"method": quality_report.TRUTH[0], "level": ""})
        both = [quality_peers.NOTHING, *peers]
        wanted += quality_scores.tasks(shot, both, levels, pictured)
        by_us += [by_ours(shot, each, pictured) for each in ours]
    rows += quality_scores.without_others(by_us)
    missing = [task for task in wanted if task.key not in cache.rows]
    quality_scores.fill(cache, missing, late)
    rows += [cache.rows[task.key] for task in wanted if task.key in cache.rows]
    return [{"set": name, **row} for row in rows]


def speeds(shot: Shot, peers: list[Peer], ours: list[Ours], precision: str) -> dict[str, float]:
    """Megapixels per second of each method on one photograph, and of the paper's own generator."""
    import keras
    import tensorflow as tf

    from pix2pix import denoiser, networks

    sigma = shot.sigma or quality_peers.FIXED_SIGMA
    works: dict[str, Callable[[], object]] = {
        peer.name: functools.partial(peer.denoised, shot.noisy, sigma) for peer in peers
    }
    works |= {
        each.name: functools.partial(each.process.denoiser.denoised, shot.noisy) for each in ours
    }
    keras.config.set_dtype_policy(denoiser.dtype_policy(precision))
    classic = tf.function(networks.generator(Settings(generator="unet", crop_pixels=256)))
    whole = tf.convert_to_tensor(shot.noisy[np.newaxis] / np.float32(127.5) - 1)
    works[CLASSIC] = lambda: classic(whole, training=False).numpy()
    seconds = dict.fromkeys(works, np.inf)
    for number in range(ROUNDS):  # the first one also warms up
        for name, work in works.items():
            if number == 0 or seconds[name] < SLOW_SECONDS:
                begun = time.perf_counter()
                work()
                seconds[name] = min(seconds[name], time.perf_counter() - begun)
    return {name: shot.noisy.size / 3e6 / taken for name, taken in seconds.items()}


def loaded(urls: list[str], precision: str) -> list[Ours]:
    """The checkpoints, each as a bulk job's process has it."""
    result = []
    for url in urls:
        there, sha256 = checkpoints.identified(url)
        way = stages.Way(there, sha256, 1.0, None, harm.CLEAN_SIGMA, precision)
        name = url if url in checkpoints.SHIPPED else f"{PurePosixPath(url).name} {sha256[:6]}"
        result.append(Ours(f"pix2pix {name}", stages.Denoise("", way, None, False, 0)))
    return result


def main(
    data: Annotated[Path, typer.Option(envvar="PIX2PIX_DATA", help="Holds the sets.")],
    checkpoint: Annotated[list[str], typer.Option(help="best, fast, a run, ...")] = [],  # noqa: B006 - read only; Typer wants a list
    out: Annotated[Path, typer.Option(help="Folder to fill.")] = Path("build/quality"),
    cache: Annotated[Path | None, typer.Option(help="Parquet file of the peers' scores.")] = None,
    peers: Annotated[bool, typer.Option(help="Whether to score them.")] = True,
    only: Annotated[list[str], typer.Option(help="Only these peers.")] = [],  # noqa: B006 - likewise
    levels: Annotated[list[str], typer.Option(help="Only these: estimated, 10, true.")] = [],  # noqa: B006 - likewise
    sets: Annotated[list[str], typer.Option(help="Only these sets.")] = [],  # noqa: B006 - likewise
    limit: Annotated[int | None, typer.Option(help="Photographs per set.")] = None,
    limit_seconds: Annotated[float, typer.Option(help="Begin no peer's image later.")] = np.inf,
    speed: Annotated[bool, typer.Option(help="Whether to measure it.")] = True,
    precision: Annotated[str, typer.Option(help="Of ours: float32, bfloat16, auto.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Cores for every method.")] = None,
) -> None:
    """Scores, prints the tables and draws the pictures."""
    late = time.monotonic() + limit_seconds
    if threads:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    threads = len(os.sched_getaffinity(0))
    chosen = quality_peers.installed() if peers else []
    chosen = [peer for peer in chosen if not only or peer.name in only]
    wanted = frozenset(levels) or quality_peers.LEVELS
    ours, kept = loaded(checkpoint, precision), Cache(cache)
    rows: list[Row] = []
    for name, _ in quality_sets.NAMES:
        if not sets or name in sets:
            shots = list(quality_sets.shots(data, name, limit))
            rows += rows_of(name, shots, chosen, wanted, ours, kept, late)
    if ours and (not sets or quality_sets.CLEAN in sets):
        for shot in quality_sets.shots(data, quality_sets.CLEAN, limit):
            by_us = [by_ours(shot, each, False) | {"worst_places": None} for each in ours]
            rows += [{"set": quality_sets.CLEAN, **row} for row in by_us]
    fast: dict[str, float] = {}
    if speed:
        fast = speeds(next(quality_sets.shots(data, "kodak-25")), chosen, ours, precision)
    out.mkdir(parents=True, exist_ok=True)
    names = dict.fromkeys(name for row in rows for name in row)  # PyArrow looks at the first alone
    same = [{name: row.get(name) for name in names} for row in rows]
    pq.write_table(pa.Table.from_pylist(same), out / "scores.parquet")
    text = quality_report.page(rows, fast, threads, {peer.name: peer.how for peer in chosen})
    (out / "quality.md").write_text(text)
    typer.echo(text)
    for file, picture in quality_report.pictures(rows, fast):
        (out / file).write_bytes(picture)


if __name__ == "__main__":
    typer.run(main)
