"""The Ray Data walk: manifest -> what is not done yet -> denoised -> rows of the status table."""

import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from pix2pix import cluster, ledger, manifest, memory, sizing, status, storage, summary
from pix2pix.lease import Lease, held
from pix2pix.progress import Progress, ticking
from pix2pix.source import CHUNK_IMAGES, Pending
from pix2pix.stages import IMAGES, THREADS, Denoise, Way

SECONDS_PER_PART, ROWS_PER_PART = 10.0, 5_000  # of rows that only memory holds: what a crash costs
BYTES_PER_PART = 64_000_000  # of embedded files, likewise
PARTS_MERGED = 500  # so many parts of rows become one
SECONDS_PER_SUMMARY = 30.0
READ_FIRST = 8  # images of which one at least must be readable
CHUNKS_READY = 100  # to be handed out, in the object store: some 20 kB each
# Ray Data keeps 3 kB of statistics of each block until its dataset is done (2.60): 300 MB.
CHUNKS_PER_DATASET = 100_000


def denoised(
    archive_url: str,
    output_url: str,
    way: Way,
    *,
    retry: frozenset[str] = frozenset(),
    redo_older_models: bool = False,
    max_failed: str = "1%",
    actors: int | None = None,
    max_actors: int | None = None,
    gpu: bool = False,
    show: Callable[[str], None] = print,
) -> summary.Summary:
    """Denoises what is new in an archive; the same call again does only what is missing.

    Args:
        archive_url: The folder of images, or a list of them (see `manifest`); never written to.
        output_url: The folder to fill (images/, status/, manifest/, summary.json).
        way: How to denoise.
        retry: Classes of failures that are tried once more.
        redo_older_models: Whether what other weights denoised is denoised again.
        max_failed: How many failures are acceptable, as a number or as a share like "1%".
        actors: Processes that denoise; as many as the cluster's CPUs (or GPUs) feed, if None.
        max_actors: How many there may be as the cluster grows; see `sizing.pool`.
        gpu: Whether each of them takes a GPU.
        show: Takes the progress lines.

    Raises:
        ValueError: output and archive overlap, no images, or an argument that makes no sense.
        FileNotFoundError: no such archive.
        RuntimeError: another job has the output, or has taken it over; the cluster is too small.
        OSError: the archive can't be listed, or the output not be written.
    """
    acceptable = summary.budget(max_failed)
    manifest.refuse_overlap(archive_url, output_url)
    processes = sizing.pool(actors, gpu, max_actors)
    with held(output_url, show, patient=True) as lease:
        status.compact(output_url)
        done = status.done(
            output_url,
            retry=retry,
            not_of_checkpoint=way.sha256 if redo_older_models else None,
            present=status.outputs(storage.join(output_url, IMAGES)),
        )
        if others := sum(done.by_checkpoint.values()) - done.by_checkpoint.get(way.sha256, 0):
            show(f"{others} images stay as other weights left them; see --redo-older-models")
        progress = Progress(show)
        counts = _done_now(archive_url, output_url, way, done, processes, gpu, lease, progress)
        del done  # 16 bytes per image, which the summary needs for its own
        lease.check()
        status.compact(output_url)
        ended = summary.finished(
            output_url, (way.checkpoint_url, way.sha256), counts.images, counts.left_out, progress,
            acceptable,
        )  # fmt: skip
        summary.write(output_url, ended)
    return ended


def _done_now(
    archive_url: str, output_url: str, way: Way, done: status.Done, processes: sizing.Pool,
    gpu: bool, lease: Lease, progress: Progress,
) -> manifest.Counts:  # fmt: skip
    """Lists the archive and, while that goes on, denoises what is not done."""
    import ray

    book = ledger.started(2 * processes.most * THREADS, processes.most)
    stopped = threading.Event()

    def check() -> None:
        if stopped.is_set():
            raise RuntimeError("the listing ended with the job")
        lease.check()

    def finished(part_url: str) -> None:
        if to_do := len(pending := status.pending(manifest.part(part_url), done)):
            if not progress.total:
                _refuse_unreadable(pending)
            progress.total += to_do
            ray.get(book.add.remote(part_url))

    def listed() -> manifest.Counts:
        try:
            return manifest.write(archive_url, output_url, finished, check)
        finally:
            ray.get(book.listed.remote())

    with ThreadPoolExecutor(1) as thread:
        listing = thread.submit(listed)
        while not (listing.done() or progress.total):
            time.sleep(0.05)
        if progress.total:
            try:
                with closing(_finished(output_url, way, done, processes, gpu, book)) as rows:
                    _kept(rows, output_url, lease, progress, listing)
            except BaseException:
                stopped.set()
                raise
        counts = listing.result()
    if again := ray.get(book.begun_again.remote()):
        progress.show(
            f"processes died while they denoised: what they had in work was done again, "
            f"{again} x up to {CHUNK_IMAGES} images"
        )
    if not counts.images:
        raise ValueError(
            f"no images under {storage.absolute(archive_url)} ({counts.left_out} other files): "
            "give the folder that holds the photographs"
        )
    return counts


def _finished(
    output_url: str, way: Way, done: status.Done, processes: sizing.Pool, gpu: bool,
    book: Any,  # noqa: ANN401 - Ray's
) -> Generator[list[dict[str, Any]] | None]:  # fmt: skip
    """Rows of the status table as images are finished, and None every second without any."""
    import ray
    import ray.data

    from pix2pix.rests import Rests  # loads Ray Data

    done_reference = ray.put(done)
    chunks, begun = 0, 0
    while chunks == begun:  # as many as were asked for: there may be more
        numbers = range(chunks, chunks + CHUNKS_PER_DATASET)
        begun = numbers.stop
        source = ray.data.read_datasource(
            Pending(book, done_reference, numbers),
            num_cpus=sizing.CPUS_OF_SOURCE, override_num_blocks=1,
            # Ray Data looks for chunks ten times a second at most, and its own limit lets two be
            # there: 20 a second would be handed out. Two objects each: a block and its metadata
            ray_remote_args={"_generator_backpressure_num_objects": 2 * CHUNKS_READY},
        )  # fmt: skip
        source.context.custom_execution_callback_classes = [Rests]
        source.context.target_max_block_size = 1  # byte: a chunk waits for no others
        # more processes as soon as all threads have work: Ray's own 1.75 is never reached here
        source.context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
        dataset = source.map_batches(
            Denoise, batch_size=1, batch_format="pyarrow",
            fn_constructor_args=(output_url, way, book, gpu, processes.threads),
            compute=ray.data.ActorPoolStrategy(
                min_size=processes.size, max_size=processes.most, initial_size=processes.size,
                max_concurrent_calls_per_actor=THREADS,
                max_tasks_in_flight_per_actor=THREADS + 2,
                enable_true_multi_threading=True,
            ),
            num_cpus=processes.cpus, num_gpus=int(gpu),
            runtime_env={"env_vars": memory.ENVIRONMENT},
        )  # fmt: skip
        batches = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        with cluster.plain_errors(), closing(ticking(iter(batches), 1.0)) as ticks:
            for batch in ticks:
                chunks += len(batch or ())
                yield (
                    None
                    if batch is None
                    else [row for rows in batch["rows"] for row in rows.as_py()]
                )


def _kept(
    finished: Generator[list[dict[str, Any]] | None], output_url: str, lease: Lease,
    progress: Progress, listing: Future,
) -> None:  # fmt: skip
    """Brings rows into the status table, the last of them also if the job is stopped."""
    rows: list[dict[str, Any]] = []
    try:
        _keep(finished, rows, output_url, lease, progress, listing)
    finally:
        if rows:
            lease.check()
            status.append(output_url, rows)
    progress.tell(always=True)


def _keep(
    finished: Generator[list[dict[str, Any]] | None], rows: list[dict[str, Any]], output_url: str,
    lease: Lease, progress: Progress, listing: Future,
) -> None:  # fmt: skip
    """Brings rows into the table, some at a time, leaves the last, and says how far the job is."""
    parts: list[str] = []
    embedded_bytes = 0
    nodes: set[str] = set()
    kept = summarised = time.monotonic()
    for batch in finished:
        now = time.monotonic()
        for row in batch or ():
            if row["node"] not in nodes and row["output_uri"]:
                nodes.add(row["node"])
                _refuse_unseen(row)
            row["finished_at"] = datetime.now(UTC)  # one clock decides which row is the newest
            rows.append(row)
            embedded_bytes += len(row["denoised"] or b"")
            progress.add(row)
        progress.listing = not listing.done()
        progress.tell()
        enough = len(rows) >= ROWS_PER_PART or embedded_bytes >= BYTES_PER_PART
        if enough or (rows and now - kept > SECONDS_PER_PART):
            lease.check()
            part = status.append(output_url, rows)
            if not status.is_full(len(rows), embedded_bytes):
                parts.append(part)
            rows.clear()
            embedded_bytes, kept = 0, now
        if len(parts) >= PARTS_MERGED:
            parts = status.merged(output_url, parts)
        if now - summarised > SECONDS_PER_SUMMARY:
            summarised = now
            lease.check()
            summary.write(output_url, summary.so_far(progress))


def _refuse_unreadable(pending: pa.Table) -> None:
    """Credentials that list, but can't read, would cost a failed row for every image.

    Raises:
        PermissionError: none of `READ_FIRST` images from all over the table may be read.
    """
    step = len(pending) // READ_FIRST
    if step == 0:  # so few rows are no loss
        return
    for image in pending.take([step * place for place in range(READ_FIRST)]).to_pylist():
        try:
            with storage.opened(image["uri"], image["size_bytes"]) as file:
                file.read(1)
        except PermissionError as error:
            refused = error
        except (OSError, ValueError, ImportError):  # a row will say what that is
            return
        else:
            return
    raise PermissionError(
        f"{refused}; so are {READ_FIRST} of the archive's images that were tried: give credentials "
        "that may read it (S3: s3:GetObject)"
    )


def _refuse_unseen(row: dict[str, Any]) -> None:
    """An output on a disk of its own on each node would be lost with them, row by row true."""
    if not storage.exists(row["output_uri"]):
        raise RuntimeError(
            f"{row['output_uri']} was written by node {row['node']} and isn't there for this one: "
            "give an OUTPUT that all nodes share, for instance in object storage"
        )


def failure_classes(retry_failed: str | None) -> frozenset[str]:
    """The classes of failures that an option names: "all", one, or several with commas.

    Raises:
        ValueError: there is no such class.
    """
    if retry_failed is None:
        return frozenset()
    names = frozenset(name.strip() for name in retry_failed.split(","))
    if "all" in names:
        return frozenset(status.FAILURE_CLASSES)
    if unknown := sorted(names - set(status.FAILURE_CLASSES)):
        raise ValueError(
            f"retry_failed={unknown[0]!r} must be all or one of "
            f"{', '.join(status.FAILURE_CLASSES)}; write --retry-failed=all"
        )
    return names
