"""What a bulk job would do, without writing anything: `--dry-run`."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pix2pix import ledger, manifest, memory, sizing, status, storage
from pix2pix.progress import clock
from pix2pix.stages import IMAGES, Denoise, Way

SAMPLES = 6  # images that are denoised to know what one takes; the first one warms up


@dataclass
class Estimate:
    """What a job would have to do.

    Attributes:
        images: in the archive, of so many `bytes`.
        left_out: other files.
        to_do: images that would be denoised, of so many `bytes_to_do`.
        suffixes: how many images have which suffix.
        sampled: images that were denoised to know, of so many `bytes_sampled`, the first not
            counted; they took one process `seconds_sampled` and gave `bytes_given`.
    """

    images: int = 0
    bytes: int = 0
    left_out: int = 0
    to_do: int = 0
    bytes_to_do: int = 0
    suffixes: Counter[str] = field(default_factory=Counter)
    sampled: int = 0
    bytes_sampled: int = 0
    bytes_given: int = 0
    seconds_sampled: float = 0.0
    processes: int = 1


def estimated(
    archive_url: str,
    output_url: str,
    way: Way,
    *,
    retry: frozenset[str] = frozenset(),
    redo_older_models: bool = False,
    actors: int | None = None,
    max_actors: int | None = None,
    gpu: bool = False,
    show: Callable[[str], None] = print,
) -> Estimate:
    """Lists the archive, denoises a few of its images and throws the results away.

    Arguments and errors are those of `denoising.denoised`; the time is that of the processes that
    there are at first.
    """
    manifest.refuse_overlap(archive_url, output_url)
    processes = sizing.pool(actors, gpu, max_actors)
    done = status.done(
        output_url,
        retry=retry,
        not_of_checkpoint=way.sha256 if redo_older_models else None,
        present=status.outputs(storage.join(output_url, IMAGES)),
    )
    result, samples = Estimate(processes=processes.size), _Samples()
    for batch in manifest.listed(archive_url, output_url):
        to_do = status.pending(batch.rows, done)
        result.images += len(batch.rows)
        result.left_out += batch.left_out
        result.bytes += sum(batch.rows["size_bytes"].to_pylist())
        result.to_do += len(to_do)
        result.bytes_to_do += sum(to_do["size_bytes"].to_pylist())
        result.suffixes.update(
            path.rpartition(".")[2].lower() for path in batch.rows["relative_path"].to_pylist()
        )
        samples.add(to_do)
    if samples.rows:
        show(f"denoising {len(samples.rows)} of {result.to_do} images to know what they take ...")
        _measure(result, samples.rows, output_url, way, processes, gpu)
    return result


class _Samples:
    """Rows drawn evenly from all that were added, each as likely as any other.

    Source: Vitter, "Random sampling with a reservoir", ACM TOMS 1985, algorithm R, with the number
    of rows to skip drawn by a row at a time in a batch's order.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.seen = 0
        self.random = random.Random(0)

    def add(self, table: Any) -> None:  # noqa: ANN401 - pa.Table
        """Considers every row of a table."""
        for index in range(len(table)):
            self.seen += 1
            place = len(self.rows) if self.seen <= SAMPLES else self.random.randrange(self.seen)
            if place < SAMPLES:
                self.rows[place : place + 1] = table.slice(index, 1).to_pylist()


def _measure(
    result: Estimate, rows: list[dict[str, Any]], output_url: str, way: Way,
    processes: sizing.Pool, gpu: bool,
) -> None:  # fmt: skip
    import ray

    told = (output_url, way, ledger.started(1, 1), gpu, processes.threads)
    process = (
        ray.remote(Denoise)
        .options(
            num_cpus=processes.cpus, num_gpus=int(gpu),
            runtime_env={"env_vars": memory.ENVIRONMENT},
        )
        .remote(*told)
    )  # fmt: skip
    rows = rows[:1] + rows  # the first one warms up
    for place, row in enumerate(rows):
        bytes_given, seconds = ray.get(process.tried.remote(row))
        if place and bytes_given:
            result.sampled += 1
            result.bytes_sampled += row["size_bytes"]
            result.bytes_given += bytes_given * (2 if way.embed else 1)  # file and row
            result.seconds_sampled += seconds
    ray.kill(process)


def lines(result: Estimate) -> list[str]:
    """The estimate for people."""
    formats = ", ".join(f"{count} {suffix}" for suffix, count in result.suffixes.most_common())
    text = [
        f"{result.images} images, {result.bytes / 1e9:.2f} GB ({formats}); "
        f"{result.left_out} other files left out",
        f"{result.images - result.to_do} done already, {result.to_do} to do, "
        f"{result.bytes_to_do / 1e9:.2f} GB",
    ]
    if result.sampled:
        share = result.bytes_to_do / result.bytes_sampled
        seconds = share * result.seconds_sampled / result.processes
        text.append(
            f"about {clock(seconds)} with {result.processes} processes, and "
            f"{share * result.bytes_given / 1e9:.2f} GB of output (from {result.sampled} images)"
        )
    return [*text, "nothing was written"]
