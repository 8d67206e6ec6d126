"""The Ray Data walk: manifest -> fetch -> denoise -> write the image -> its status row."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pix2pix import checkpoints, cluster, manifest, metrics, status, storage
from pix2pix.stages import Denoise, Fetch, Write

SUMMARY = "summary.json"
ROWS_PER_BLOCK = 16  # images between two writes of status rows: what a crash costs
CPUS_PER_FETCH = CPUS_PER_WRITE = 0.25
CPUS_PER_ACTOR = 3.0  # reserved; less where that fits no better, but never less than the next
FEWEST_CPUS_PER_ACTOR = 0.5
SECONDS_PER_LINE = 10.0


@dataclass(frozen=True)
class Denoised:
    """How a job ended; the counts are of the archive as it is now, whenever an image was done."""

    output_url: str
    images: int
    left_out: int
    done_before: int
    by_status: dict[str, int]
    by_failure_class: dict[str, int]
    by_checkpoint: dict[str, int]  # how many rows are of which weights, by their SHA-256
    seconds: float
    images_per_second: float
    megapixels_per_second: float
    means: dict[str, float | None]
    checkpoint_url: str
    checkpoint_sha256: str
    over_budget: bool

    @property
    def failed(self) -> int:
        """Images that have no denoised counterpart."""
        return self.by_status.get("failed", 0)


def denoised(
    archive_url: str,
    output_url: str,
    checkpoint_url: str,
    *,
    reference_url: str | None = None,
    strength: float = 1.0,
    retry_failed: bool = False,
    max_failed: str = "1%",
    actors: int | None = None,
    gpu: bool = False,
    precision: str = "auto",
    show: Callable[[str], None] = print,
) -> Denoised:
    """Denoises what is new in an archive; the same call again does only what is missing.

    Args:
        archive_url: The folder of images; never written to.
        output_url: The folder to fill (images/, status/, manifest/, summary.json).
        checkpoint_url: See `checkpoints.resolved`.
        reference_url: A folder of clean images under the same relative paths: PSNR and SSIM against
            them go into the rows.
        strength: Share of the noise to take away, 0 to 1.
        retry_failed: Tries once more what failed in an earlier call.
        max_failed: How many failures are acceptable, as a number or as a share like "1%".
        actors: Processes that denoise; as many as the cluster's CPUs (or GPUs) feed, if None.
        gpu: Whether each of them takes a GPU.
        precision: See `denoiser.dtype_policy`.
        show: Takes the progress lines.

    Raises:
        ValueError: output and archive overlap, no images, or an argument that makes no sense.
        FileNotFoundError: no such archive or checkpoint.
        RuntimeError: the cluster is too small for the pipeline, or the output can't be written.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength={strength} must be between 0 (nothing) and 1 (all)")
    acceptable = budget(max_failed)
    manifest.refuse_overlap(archive_url, output_url)
    checkpoint_url, sha256 = checkpoints.identified(checkpoint_url)
    counts = manifest.write(archive_url, output_url)
    if not counts.images:
        raise ValueError(
            f"no images under {storage.absolute(archive_url)} ({counts.left_out} other files): "
            "give the folder that holds the photographs"
        )
    listed = manifest.read(output_url)
    rows = _rows_of(listed, status.current(output_url))
    todo = status.pending(listed, rows, retry_failed)
    _announce(counts, rows, len(todo), sha256, strength, show)
    begun, megapixels = time.monotonic(), 0.0
    if len(todo):
        size, reserved = pool(actors, gpu)
        told = {
            "checkpoint_url": checkpoint_url,
            "sha256": sha256,
            "strength": strength,
            "precision": precision,
            "gpu": gpu,
            "threads": max(1, int(sum(cluster.cpus_of_nodes()) / size)),
        }
        finished = _pipeline(todo, output_url, size, reserved, gpu, told, reference_url)
        megapixels = _watched(finished, len(todo), show)
    status.compact(output_url)
    seconds = time.monotonic() - begun
    rows = _rows_of(listed, status.current(output_url))
    if len(rows) != counts.images:
        raise RuntimeError(
            f"{counts.images - len(rows)} of {counts.images} images have no status row: the job "
            "isn't whole; run the same command again, with an OUTPUT that all nodes share"
        )
    failed = rows["status"].to_pylist().count("failed")
    summary = Denoised(
        output_url=storage.absolute(output_url),
        images=counts.images,
        left_out=counts.left_out,
        done_before=counts.images - len(todo),
        seconds=round(seconds, 3),
        images_per_second=round(len(todo) / seconds, 3),
        megapixels_per_second=round(megapixels / seconds, 3),
        checkpoint_url=checkpoint_url,
        checkpoint_sha256=sha256,
        over_budget=failed > acceptable(counts.images),
        **_tallies(rows),
    )
    text = json.dumps(asdict(summary), indent=1) + "\n"
    storage.write(storage.join(output_url, SUMMARY), text.encode())
    return summary


def _tallies(rows: pa.Table) -> dict[str, Any]:
    """What the rows of the archive's images say together."""
    return {
        "by_status": dict(Counter(rows["status"].to_pylist())),
        "by_checkpoint": dict(Counter(rows["checkpoint_sha256"].to_pylist())),
        "by_failure_class": dict(Counter(filter(None, rows["failure_class"].to_pylist()))),
        "means": _means(rows),
    }


def _announce(
    counts: manifest.Counts, rows: pa.Table, todo: int, sha256: str, strength: float,
    show: Callable[[str], None],
) -> None:  # fmt: skip
    """Says what there is to do, and what will stay although it was done in another way."""
    show(
        f"{counts.images} images, {counts.bytes / 1e6:.1f} MB; {counts.images - todo} done before, "
        f"{todo} to do; {counts.left_out} other files left out"
    )
    others = sum(
        (row["checkpoint_sha256"], row["strength"]) != (sha256, strength)
        for row in rows.select(["checkpoint_sha256", "strength"]).to_pylist()
    )
    if others:
        show(
            f"{others} were done with another checkpoint or strength and stay as they are; to do "
            "them again give another OUTPUT"
        )


def _means(rows: pa.Table) -> dict[str, float | None]:
    """Means of what was measured, None where nothing was."""
    psnr_db = rows["psnr_db"].drop_null().to_pylist()
    others = ("noise_sigma_before", "noise_sigma_after", "ssim")
    return {
        "psnr_db": metrics.mean_psnr_db(psnr_db) if psnr_db else None,
        **{name: pc.mean(rows[name]).as_py() for name in others},
    }


def budget(max_failed: str) -> Callable[[int], float]:
    """How many failures are acceptable out of so many images.

    Args:
        max_failed: A number like "12", or a share like "1%".

    Raises:
        ValueError: neither of them.
    """
    number, share = max_failed.removesuffix("%"), max_failed.endswith("%")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf") or (share and value > 100):
        raise ValueError(f"max_failed={max_failed!r} must be a number or a share: 12 or 1%")
    return lambda images: images * value / 100 if share else value


def pool(actors: int | None, gpu: bool) -> tuple[int, float]:
    """How many actors denoise and how many CPUs each reserves, so that the other stages fit too.

    Args:
        actors: As many as the user wants, or None for as many as fit.
        gpu: Whether each takes a GPU.

    Raises:
        RuntimeError: they don't fit.
    """
    nodes, others = cluster.cpus_of_nodes(), CPUS_PER_FETCH + CPUS_PER_WRITE
    if gpu:
        wanted, fitting, reserved = actors, cluster.gpus(), 1.0
    else:
        wanted, reserved = actors, min(CPUS_PER_ACTOR, max(nodes, default=0) / 2)
        fitting = sum(int((cpus - others) // reserved) for cpus in nodes if cpus > others)
        if actors and actors > fitting:
            reserved = FEWEST_CPUS_PER_ACTOR
            fitting = sum(int((cpus - others) // reserved) for cpus in nodes)
    if max(wanted or 1, 1) > fitting:
        raise RuntimeError(
            f"{wanted or 1} actors that denoise don't fit into the cluster: its nodes have "
            f"{', '.join(f'{cpus:g}' for cpus in nodes)} CPUs and {cluster.gpus()} GPUs, each "
            f"keeps {others:g} CPUs to fetch and write; give at most --actors {fitting}"
        )
    return wanted or fitting, reserved


def _pipeline(
    todo: pa.Table, output_url: str, actors: int, cpus: float, gpu: bool,
    told: dict[str, Any], reference_url: str | None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Small rows, one per image, as they are finished."""
    import ray.data

    blocks = [todo.slice(start, ROWS_PER_BLOCK) for start in range(0, len(todo), ROWS_PER_BLOCK)]
    dataset = (
        ray.data.from_arrow(blocks)
        .map_batches(
            Fetch(reference_url), batch_size=None, batch_format="pyarrow",
            num_cpus=CPUS_PER_FETCH,
        )
        .map_batches(
            Denoise, batch_size=1, batch_format="pyarrow", fn_constructor_kwargs=told,
            concurrency=actors, num_cpus=cpus, num_gpus=int(gpu),
            max_restarts=20, max_task_retries=3,  # Ray Data's own limit is none
        )
        .map_batches(
            Write(output_url), batch_size=None, batch_format="pyarrow",
            num_cpus=CPUS_PER_WRITE,
        )
    )  # fmt: skip
    for batch in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
        yield from batch.to_pylist()


def _watched(rows: Iterator[dict[str, Any]], total: int, show: Callable[[str], None]) -> float:
    """Follows the rows to the end, with a line now and then; the megapixels they had."""
    begun = told = time.monotonic()
    failed, megapixels = 0, 0.0
    for done, row in enumerate(rows, 1):
        megapixels += row["megapixels"]
        if row["status"] == "failed":
            failed += 1
            show(f"failed: {row['relative_path']}: {row['failure_class']}: {row['message']}")
        now = time.monotonic()
        if now - told > SECONDS_PER_LINE or done == total:
            told, rate = now, done / (now - begun)
            show(
                f"{done}/{total} done, {failed} failed  {rate:.2f} images/s  "
                f"{megapixels / (now - begun):.2f} MP/s  {(total - done) / rate:.0f} s left"
            )
    return megapixels


def _rows_of(listed: pa.Table, current: pa.Table) -> pa.Table:
    """The current rows of the images that are in the archive now."""
    return current.filter(pc.is_in(current["id"], value_set=listed["id"].combine_chunks()))


def lines(done: Denoised) -> list[str]:
    """The summary for people."""
    states = ", ".join(f"{count} {name}" for name, count in sorted(done.by_status.items()))
    text = [
        f"{done.images} images: {states}; {done.seconds:.1f} s, {done.images_per_second:.2f} "
        f"images/s, {done.megapixels_per_second:.2f} MP/s"
    ]
    if done.by_failure_class:
        classes = ", ".join(f"{n} {name}" for name, n in sorted(done.by_failure_class.items()))
        text.append(f"failures: {classes}; see the status table")
    means = done.means
    if means["noise_sigma_before"] is not None:
        text.append(
            f"noise level (sigma of 255): {means['noise_sigma_before']:.2f} before, "
            f"{means['noise_sigma_after']:.2f} after"
        )
    if means["psnr_db"] is not None:
        text.append(f"against the reference: {means['psnr_db']:.2f} dB, SSIM {means['ssim']:.4f}")
    text.append(done.output_url)
    return text
