"""Scores of methods on shots, and a file that keeps those of peers, for `quality.py`."""

import io
import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import quality_peers
from PIL import Image
from quality_peers import Peer
from quality_sets import Shot

from pix2pix import metrics

CROP_PIXELS = 160  # of what is shown in a set's picture, from the middle
SECONDS_PER_WRITE = 10.0  # of the cache

Row = dict[str, Any]
Key = tuple[str, ...]


class Task(NamedTuple):
    """A peer at one noise level (sigma, in levels of 255) on one shot."""

    shot: Shot
    peer: Peer
    level: str
    sigma: float
    pictured: bool

    @property
    def key(self) -> Key:
        """What its score depends on; see `key_of`."""
        return self.shot.digest, self.peer.name, self.level, self.peer.how


def key_of(row: Row) -> Key:
    """What the score in a row depends on."""
    return row["digest"], row["method"], row["level"], row["how"]


class Cache:
    """Scores of peers in a Parquet file, so that none is measured twice.

    Args:
        path: None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path, self.written = path, time.monotonic()
        rows = pq.read_table(path).to_pylist() if path and path.exists() else []
        self.rows: dict[Key, Row] = {key_of(row): row for row in rows}

    def add(self, row: Row) -> None:
        """Keeps a row, and now and then writes all."""
        self.rows[key_of(row)] = row
        if time.monotonic() - self.written > SECONDS_PER_WRITE:
            self.write()

    def write(self) -> None:
        """Replaces the file in one stroke."""
        if self.path and self.rows:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.path.with_suffix(".tmp")
            pq.write_table(pa.Table.from_pylist(list(self.rows.values())), temporary)
            temporary.replace(self.path)
        self.written = time.monotonic()


def scored(shot: Shot, after: np.ndarray, pictured: bool, **about: Any) -> Row:  # noqa: ANN401
    """A row: what a method made of a shot, and the middle of it if it's to be shown."""
    return {
        "image": shot.name,
        "digest": shot.digest,
        "psnr_db": metrics.mean_psnr_db([metrics.psnr_db(shot.clean, after)]),
        "ssim": metrics.ssim(shot.clean, after),
        "crop": middle(after) if pictured else None,
        **about,
    }


def middle(image: np.ndarray) -> bytes:
    """`CROP_PIXELS` of it in height and width, as PNG."""
    top, left = (max(0, side - CROP_PIXELS) // 2 for side in image.shape[:2])
    return png(image[top : top + CROP_PIXELS, left : left + CROP_PIXELS])


def png(pixels: np.ndarray) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG")
    return file.getvalue()


def worst(shot: Shot, after: np.ndarray) -> Row:
    """For a row: the place of a shot where a method left most wrong, noisy, as it made it, clean.

    Its height and width are `CROP_PIXELS`, or the shot's own where that is smaller.
    """
    squares = ((after.astype(np.float64) - shot.clean) ** 2).mean(axis=2)
    height, width = (min(side, CROP_PIXELS) for side in squares.shape)
    sums = np.pad(squares.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    of_places = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width]
    of_places += sums[:-height, :-width]  # of each place by its upper left corner
    top, left = np.unravel_index(of_places.argmax(), of_places.shape)
    cut = slice(top, top + height), slice(left, left + width)
    noisy, made, clean = shot.noisy[cut], after[cut], shot.clean[cut]
    return {
        "worst_places": [png(noisy), png(made), png(clean)],
        "worst_db": metrics.mean_psnr_db([metrics.psnr_db(clean, made)]),
        "worst_noisy_db": metrics.mean_psnr_db([metrics.psnr_db(clean, noisy)]),
    }


def without_others(rows: list[Row]) -> list[Row]:
    """Rows of one set in which, of each method, only the worst of all places keeps its pictures."""
    lowest = {row["method"]: row for row in sorted(rows, key=lambda row: -row["worst_db"])}
    return [row if row is lowest[row["method"]] else row | {"worst_places": None} for row in rows]


def tasks(shot: Shot, peers: list[Peer], wanted: frozenset[str], pictured: bool) -> Iterator[Task]:
    """What is to be scored of one shot: each peer at each of its noise levels that is wanted."""
    for peer in peers:
        for level, sigma in quality_peers.levels(peer, shot.noisy, shot.sigma).items():
            if not level or level in wanted:
                yield Task(shot, peer, level, sigma, pictured)


def done(task: Task) -> Row:
    """The row of a task, in whichever process."""
    after = task.peer.denoised(task.shot.noisy, task.sigma)
    return scored(
        task.shot, after, task.pictured, method=task.peer.name, level=task.level,
        how=task.peer.how, sigma=float(task.sigma),
    )  # fmt: skip


def fill(cache: Cache, missing: list[Task], late: float) -> None:
    """Does tasks in as many processes as there are cores: most peers use one alone.

    Args:
        cache: Takes their rows.
        missing: What to do, in this order.
        late: No peer begins after this moment of `time.monotonic`.
    """
    if not missing:
        return
    cores, spawn = len(os.sched_getaffinity(0)), multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(cores, spawn, quality_peers.one_thread) as pool:
        running: set[Future[Row]] = set()
        for task in missing:
            if time.monotonic() > late and task.peer is not quality_peers.NOTHING:
                continue
            running.add(pool.submit(done, task))
            if len(running) == cores:
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                for each in ended:
                    cache.add(each.result())
        for each in running:
            cache.add(each.result())
    cache.write()
