"""What the status table says of an archive: what is done, what is to do, how it went.

An image is known by its id, 16 bytes; no more than these are held of each, so that tens of millions
fit. The table itself is `table`'s, its order `compaction`'s; they are reached from here.
"""

import itertools
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pix2pix import ids, manifest, metrics, storage
from pix2pix.compaction import compact as compact
from pix2pix.compaction import is_full as is_full
from pix2pix.compaction import merged as merged
from pix2pix.compaction import newest as newest
from pix2pix.table import FAILURE_CLASSES as FAILURE_CLASSES
from pix2pix.table import LARGEST_EMBEDDED as LARGEST_EMBEDDED
from pix2pix.table import SCHEMA as SCHEMA
from pix2pix.table import SCHEMA_VERSION as SCHEMA_VERSION
from pix2pix.table import STATUSES as STATUSES
from pix2pix.table import append as append
from pix2pix.table import current as current
from pix2pix.table import rows as rows

OF_THE_WEIGHTS = ("denoised", "kept_original")  # what other weights might have done otherwise
WITH_OUTPUT = ("denoised", "kept_original", "skipped_clean")  # what has a file in the output
MEASURED = ("noise_sigma_before", "noise_sigma_after", "ssim", "psnr_db")


@dataclass(frozen=True)
class Done:
    """Which images need no work, and how often others were tried; plain arrays, cheap to share.

    Attributes:
        ids: dtype `ids.ID`, sorted: the images that need none.
        again: dtype `ids.ID`, sorted: those that were tried before and are to be done again.
        attempts: int32, the last attempt of each of `again`.
        by_checkpoint: How many of `ids` were done by which weights, by their SHA-256; images that
            have left the archive count.
    """

    ids: NDArray[np.bytes_]
    again: NDArray[np.bytes_]
    attempts: NDArray[np.int32]
    by_checkpoint: dict[str, int]


@dataclass(frozen=True)
class Tallies:
    """What the current rows of the archive's images say together.

    Attributes:
        images: How many the manifest holds.
        without_row: How many of them have no row.
        left_archive: How many rows are of images that the manifest holds no more.
        by_status: How many images ended in which status; so with the next two.
        by_failure_class: See `FAILURE_CLASSES`.
        by_checkpoint: By the SHA-256 of the weights.
        means: Of `MEASURED`, None where nothing was; PSNR as `metrics.mean_psnr_db` has it.
    """

    images: int
    without_row: int
    left_archive: int
    by_status: dict[str, int]
    by_failure_class: dict[str, int]
    by_checkpoint: dict[str, int]
    means: dict[str, float | None]


def outputs(images_url: str) -> NDArray[np.uint64]:
    """Sorted 64-bit hashes of the relative paths below a folder, of this process; none if it isn't.

    Raises:
        OSError: it could not be listed.
    """
    found, listing = bytearray(), storage.files(images_url)
    try:
        while paths := [entry.relative_path for entry in itertools.islice(listing, 10_000)]:
            found += ids.hashes(pa.array(paths, pa.string())).tobytes()
    except FileNotFoundError:
        if found:
            raise
    return ids.in_order(found, np.dtype(np.uint64))


def done(
    output_url: str,
    *,
    retry: frozenset[str] = frozenset(),
    not_of_checkpoint: str | None = None,
    present: NDArray[np.uint64] | None = None,
) -> Done:
    """What needs no work, by the table as `compact` leaves it.

    Args:
        output_url: the output.
        retry: classes of failures to do again; all: ``frozenset(FAILURE_CLASSES)``.
        not_of_checkpoint: SHA-256 of weights: what others denoised is done again, also where they
            were no better than the original; what was clean enough or failed is not.
        present: see `outputs`: images whose output is gone are done again. A gone one passes for
            present with a chance of one in 2^64 for each that is there.

    Raises:
        ValueError: `retry` holds an unknown class.
        OSError: the table could not be read.
    """
    if unknown := sorted(retry - set(FAILURE_CLASSES)):
        raise ValueError(f"retry={unknown} must be of {FAILURE_CLASSES}")
    columns = ["id", "status", "failure_class", "attempt", "checkpoint_sha256"]
    columns += ["relative_path"] if present is not None else []
    enough, again, attempts = bytearray(), bytearray(), bytearray()
    by_checkpoint: Counter[str] = Counter()
    for part in rows(output_url, columns):
        redo = _is(part["failure_class"], *retry)
        if not_of_checkpoint is not None:
            redo |= _is(part["status"], *OF_THE_WEIGHTS) & ~_is(
                part["checkpoint_sha256"], not_of_checkpoint
            )
        if present is not None:
            there = ids.contains(present, ids.hashes(part["relative_path"]))
            redo |= _is(part["status"], *WITH_OUTPUT) & ~there
        names = ids.of(part["id"])
        enough += names[~redo].tobytes()
        again += names[redo].tobytes()
        attempts += part["attempt"].to_numpy()[redo].tobytes()
        by_checkpoint.update(_counts(part["checkpoint_sha256"].filter(pa.array(~redo))))
    tried, last = np.frombuffer(again, ids.ID), np.frombuffer(attempts, np.int32)
    order = np.argsort(tried)
    return Done(ids.in_order(enough, ids.ID), tried[order], last[order], dict(by_checkpoint))


def pending(manifest_part: pa.Table, done: Done) -> pa.Table:
    """The rows of a manifest's part that are to be done, with a column `attempt`, counted from 1.

    An image is found by its id, so a changed one counts as new.
    """
    wanted = ids.of(manifest_part["id"])
    places, tried = ids.places(done.again, wanted)
    attempt = np.ones(len(wanted), np.int32)
    attempt[tried] += done.attempts[places[tried]]
    table = manifest_part.append_column(
        pa.field("attempt", pa.int32(), nullable=False), pa.array(attempt)
    )
    return table.filter(pa.array(~ids.contains(done.ids, wanted)))


@dataclass
class _Sums:
    """Sums and counts on the way to `Tallies`."""

    by_status: Counter[str] = field(default_factory=Counter)
    by_failure_class: Counter[str] = field(default_factory=Counter)
    by_checkpoint: Counter[str] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, part: pa.Table) -> None:
        """Counts the rows of one part."""
        self.by_status.update(_counts(part["status"]))
        self.by_failure_class.update(_counts(part["failure_class"]))
        self.by_checkpoint.update(_counts(part["checkpoint_sha256"]))
        for name in MEASURED:
            values = part[name].drop_null()
            if name == "psnr_db":
                values = pc.min_element_wise(values, metrics.PSNR_CAP_DB)
            self.sums[name] += pc.sum(values, min_count=0).as_py()
            self.counts[name] += len(values)

    def means(self) -> dict[str, float | None]:
        """The means of what was measured."""
        return {
            name: self.sums[name] / self.counts[name] if self.counts[name] else None
            for name in MEASURED
        }


def tallies(output_url: str) -> Tallies:
    """What the current rows of the manifest's images say together; call `compact` before.

    Holds 17 bytes per image.

    Raises:
        FileNotFoundError: no manifest was ever completed.
        OSError: manifest or table could not be read.
    """
    listed = bytearray()
    for url in manifest.parts(output_url):
        listed += ids.of(manifest.part(url, ["id"])["id"]).tobytes()
    images = ids.in_order(listed, ids.ID)
    has_row = np.zeros(len(images), np.bool_)
    left_archive, sums = 0, _Sums()
    columns = ["id", "status", "failure_class", "checkpoint_sha256", *MEASURED]
    for part in rows(output_url, columns):
        places, there = ids.places(images, ids.of(part["id"]))
        has_row[places[there]] = True
        left_archive += len(part) - int(there.sum())
        sums.add(part.filter(pa.array(there)))
    return Tallies(
        images=len(images),
        without_row=len(images) - int(has_row.sum()),
        left_archive=left_archive,
        by_status=dict(sums.by_status),
        by_failure_class=dict(sums.by_failure_class),
        by_checkpoint=dict(sums.by_checkpoint),
        means=sums.means(),
    )


def _is(column: pa.ChunkedArray, *values: str) -> NDArray[np.bool_]:
    """Where a column holds one of the values; null is none of them."""
    found = pc.is_in(column, value_set=pa.array(values, pa.string()))
    return np.asarray(found.to_numpy()).copy()


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    return {
        str(each["values"]): each["counts"].as_py() for each in pc.value_counts(column.drop_null())
    }
