"""Whether an output is whole: a current row for every image, and every row's object as it was."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pix2pix import ids, manifest, status, storage
from pix2pix.stages import IMAGES

COLUMNS = ["id", "relative_path", "status", "output_sha256"]
ROWS_PER_TASK, READS_AT_ONCE = 256, 8
TASKS_AHEAD = 64
CPUS_PER_TASK = 0.5
GAPS_SHOWN = 1000


@dataclass(frozen=True)
class Verified:
    """What was found; `gaps` are images without a current row, or with a row that isn't true."""

    images: int
    gaps: int


def verified(
    archive_url: str, output_url: str, *, quick: bool = False, show: Callable[[str], None] = print
) -> Verified:
    """Compares the archive as it is now, the status table and the objects; changes nothing.

    Args:
        archive_url: The folder of images, or a list of them.
        output_url: The output of `denoising.denoised`.
        quick: Whether to look only if the objects are there, instead of reading all of them and
            comparing their SHA-256.
        show: Takes a line for each gap, `GAPS_SHOWN` at most.

    Raises:
        FileNotFoundError: no such archive, or no status table.
        OSError: the archive or the table can't be read.
    """
    if next(status.rows(output_url, ["id"]), None) is None:
        raise FileNotFoundError(
            f"no status table under {storage.absolute(output_url)}: give a denoise job's OUTPUT"
        )
    in_table = _sorted([ids.of(table["id"]) for table in status.rows(output_url, ["id"])])
    in_archive: list[np.ndarray] = []
    present = status.outputs(storage.join(output_url, IMAGES)) if quick else None
    gaps = 0
    for path, reason in itertools.chain(
        _without_row(manifest.listed(archive_url, output_url), in_table, in_archive),
        _twice(output_url),
        _broken(output_url, in_archive, present),
    ):
        gaps += 1
        if gaps <= GAPS_SHOWN:
            show(f"gap: {path}: {reason}")
    if gaps > GAPS_SHOWN:
        show(f"... and {gaps - GAPS_SHOWN} more gaps")
    return Verified(sum(map(len, in_archive)), gaps)


def _without_row(
    listing: Iterator[manifest.Batch], in_table: np.ndarray, in_archive: list[np.ndarray]
) -> Iterator[tuple[str, str]]:
    """Images of the archive that have no row; the ids of all go into `in_archive`."""
    for batch in listing:
        in_archive.append(ids.of(batch.rows["id"]))
        missing = pa.array(~ids.contains(in_table, in_archive[-1]))
        for path in batch.rows["relative_path"].filter(missing).to_pylist():
            yield path, "no row of its present state: never done, or changed since"


def _sorted(pieces: list[np.ndarray]) -> np.ndarray:
    held = np.concatenate([np.empty(0, "S16"), *pieces])
    held.sort()
    return held


def _twice(output_url: str) -> Iterator[tuple[str, str]]:
    """Images that have more than one row."""
    hashes = np.concatenate(
        [np.empty(0, np.uint64)]
        + [ids.hashes(t["relative_path"]) for t in status.rows(output_url, ["relative_path"])]
    )
    hashes.sort()
    doubled = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    paths: Counter[str] = Counter()
    for table in status.rows(output_url, ["relative_path"]) if len(doubled) else ():
        candidates = pa.array(ids.contains(doubled, ids.hashes(table["relative_path"])))
        paths.update(table["relative_path"].filter(candidates).to_pylist())
    for path, count in paths.items():
        if count > 1:
            yield path, f"{count} rows"


def _broken(
    output_url: str, in_archive: list[np.ndarray], present: np.ndarray | None
) -> Iterator[tuple[str, str]]:
    """Images of the archive whose object isn't as their row says."""
    import ray

    check = ray.remote(num_cpus=CPUS_PER_TASK)(_checked)
    waiting: list[Any] = []
    wanted = _sorted(in_archive)
    for table in status.rows(output_url, COLUMNS):
        kept = ids.contains(wanted, ids.of(table["id"]))
        rows = table.filter(pc.and_(pc.not_equal(table["status"], "failed"), pa.array(kept)))
        if present is not None:
            there = ids.contains(present, ids.hashes(rows["relative_path"]))
            for path in rows["relative_path"].filter(pa.array(~there)).to_pylist():
                yield path, "its object is gone"
            continue
        for start in range(0, len(rows), ROWS_PER_TASK):
            some = rows.slice(start, ROWS_PER_TASK).to_pylist()
            waiting.append(check.remote(storage.join(output_url, IMAGES), some))
            if len(waiting) > TASKS_AHEAD:
                (ready,), waiting = ray.wait(waiting, num_returns=1)
                yield from ray.get(ready)
    for each in waiting:
        yield from ray.get(each)


def _checked(folder: str, rows: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Relative path and reason of the rows whose object isn't there or isn't as it was."""

    def reason(row: dict[str, Any]) -> str | None:
        url = storage.join(folder, row["relative_path"])
        try:
            data = storage.read(url)
        except FileNotFoundError:
            return f"its object is gone: {url}"
        except OSError as error:
            return f"its object can't be read: {error}"
        if hashlib.sha256(data).hexdigest() == row["output_sha256"]:
            return None
        return f"its object isn't what was written; remove it and denoise again: {url}"

    with ThreadPoolExecutor(READS_AT_ONCE) as threads:
        reasons = list(threads.map(reason, rows))
    return [(row["relative_path"], why) for row, why in zip(rows, reasons, strict=True) if why]


def lines(result: Verified) -> list[str]:
    """The result for people."""
    return [
        f"{result.images} images in the archive, {result.gaps} gaps"
        + (
            "; denoise the same archive to the same output again to fill them"
            if result.gaps
            else ""
        )
    ]
