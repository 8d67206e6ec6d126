"""What a nightly run over a huge archive costs before it touches an image: seconds and memory.

    python benchmarks/scale.py [--sizes 1000000,10000000]

Makes, for each size, a list of so many images (which need not exist) and a status table that says
they are done, then takes a process of its own through what the driver does: manifest, compaction,
what is done, what is to do, the summary's counts. Prints seconds of each and the peak of memory.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from pix2pix import compaction, ids, manifest, status, table

ROWS_AT_ONCE = 250_000
NEW = 1_000  # images that are in the list and not in the table
CHANGED = 100  # rows of a second part of the table that supersede some of the first ones
T = TypeVar("T")


def listed(first: int, count: int) -> pa.Table:
    """Rows of a list: images `first` to `first + count`."""
    numbers = range(first, first + count)
    uris = [f"s3://photos/{n % 3650 // 365 + 2014}/{n % 365:03d}/IMG_{n:09d}.JPG" for n in numbers]
    etags = [f"{n * 2654435761 % 2**64:016x}{n:016x}" for n in numbers]
    sizes = pa.array(np.arange(first, first + count) % 7_000_000 + 1_000_000)
    return pa.table({"uri": uris, "size_bytes": sizes, "etag": etags})


def rows(images: pa.Table, attempt: int) -> pa.Table:
    """Rows of the status table that say that these images are denoised."""
    count, random = len(images), np.random.default_rng(len(images))
    uris, etags = images["uri"].to_pylist(), images["etag"].to_pylist()
    scores = {field.name: random.normal(5, 1, count) for field in status.SCHEMA
              if field.type == pa.float64()}  # fmt: skip
    same = {
        "status": "denoised",
        "format": "JPEG",
        "checkpoint_sha256": "ab" * 32,
        "node": "node-1",
    }
    numbers = {"attempt": attempt, "width": 4000, "height": 3000, "channels": 3, "bit_depth": 8,
               "schema_version": status.SCHEMA_VERSION}  # fmt: skip
    values = {
        "uri": images["uri"],
        "relative_path": [uri.removeprefix("s3://") for uri in uris],
        "size_bytes": images["size_bytes"],
        "etag": images["etag"],
        "id": [manifest.image_id(*pair) for pair in zip(uris, etags, strict=True)],
        "output_uri": [f"s3://denoised/images/{uri[5:]}" for uri in uris],
        "output_sha256": [random.bytes(32).hex() for _ in range(count)],
        "finished_at": np.arange(count) + attempt * 1_000_000,
        **scores,
        **{name: [value] * count for name, value in (same | numbers).items()},
    }
    arrays = [pa.array(values[field.name], field.type) if field.name in values
              and not isinstance(values[field.name], pa.ChunkedArray)
              else values.get(field.name, pa.nulls(count, field.type))
              for field in status.SCHEMA]  # fmt: skip
    return pa.Table.from_arrays(arrays, schema=status.SCHEMA)


def make(folder: Path, size: int) -> None:
    """Writes a list and a status table of almost all of it."""
    with pq.ParquetWriter(folder / "list.parquet", listed(0, 1).schema) as writer:
        for first in range(0, size, ROWS_AT_ONCE):
            images = listed(first, min(ROWS_AT_ONCE, size - first))
            writer.write_table(images)
            done = images.slice(0, len(images) - (NEW if first + ROWS_AT_ONCE >= size else 0))
            table.write_part(str(folder / "output"), rows(done, 1))
    compaction.compact(str(folder / "output"))
    table.write_part(str(folder / "output"), rows(listed(0, CHANGED), 2))


def outputs(output: str) -> np.ndarray:
    """What `status.outputs` would say, without ten million files to list: all are there."""
    found = bytearray()
    for part in table.rows(output, ["relative_path"]):
        found += ids.hashes(part["relative_path"]).tobytes()
    return ids.in_order(found, np.dtype(np.uint64))


def measure(folder: Path, size: int) -> dict[str, float]:
    """Seconds of every step of a driver, and the peak of its memory in GB."""
    output, seconds = str(folder / "output"), dict[str, float]()

    def timed(name: str, call: Callable[[], T]) -> T:
        begun = time.monotonic()
        result = call()
        seconds[name] = time.monotonic() - begun
        return result

    begun, to_do, first_part = time.monotonic(), 0, list[float]()
    timed("compact", lambda: status.compact(output))
    present = timed("outputs", lambda: outputs(output))
    done = timed("done", lambda: status.done(output, present=present))
    counts = timed(
        "manifest",
        lambda: manifest.write(
            str(folder / "list.parquet"),
            output,
            lambda _: first_part.append(time.monotonic() - begun),
        ),
    )

    def pending() -> int:
        parts = map(manifest.part, manifest.parts(output))
        return sum(len(status.pending(part, done)) for part in parts)

    to_do = timed("pending", pending)
    tallies = timed("tallies", lambda: status.tallies(output))
    expected = (size, NEW, NEW, size - NEW)
    found = (counts.images, to_do, tallies.without_row, tallies.by_status["denoised"])
    if expected != found:
        raise RuntimeError(f"images, to do, without row, denoised are {found}, not {expected}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {**seconds, "first part": first_part[0], "total": time.monotonic() - begun, "peak": peak}


def main(
    sizes: Annotated[str, typer.Option(help="Numbers of images.")] = "1000000,10000000",
    step: Annotated[str, typer.Option(hidden=True)] = "",
    folder: Annotated[Path, typer.Option(hidden=True)] = Path(),
) -> None:
    """Times each size in a process of its own."""
    if step == "make":
        make(folder, int(sizes))
    elif step == "measure":
        typer.echo(json.dumps(measure(folder, int(sizes))))
    else:
        for size in sizes.split(","):
            with tempfile.TemporaryDirectory() as path:
                again = [sys.executable, __file__, "--sizes", size, "--folder", path, "--step"]
                subprocess.run([*again, "make"], check=True)
                answer = subprocess.run([*again, "measure"], check=True, capture_output=True)
            figures = json.loads(answer.stdout)
            peak = figures.pop("peak")
            times = "  ".join(f"{name} {seconds:.1f} s" for name, seconds in figures.items())
            typer.echo(f"{int(size):,} images: {times}  peak {peak:.2f} GB")


if __name__ == "__main__":
    typer.run(main)
