"""How a bulk job went, from its status table, for millions of rows: counts, sums and a few rows."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pix2pix import ids, manifest, metrics, status

LISTED = 25  # rows: failures of each class, kept originals, largest changes
SHOWN_PIXELS = 60_000_000  # of an image that may become a picture: two of them are in memory then
SPREAD = 64  # candidates for the pictures, at least, once there are so many
REASONS = 200  # kinds of reasons why originals were kept, at most
BEGINNINGS = 3  # of a reading that a running job's compaction disturbs
STAGES = ("seconds_fetch", "seconds_denoise", "seconds_write")
SCORES = ("psnr_db", "ssim")
NOISE = ("noise_sigma_before", "noise_sigma_after")
BIN, BINS = 0.25, 256  # levels of noise; the last bin has all that is above
COLUMNS = [
    *("id", "uri", "relative_path", "status", "failure_class", "message", "attempt", "output_uri"),
    *("width", "height", "mean_shift", "checkpoint_sha256", "node", "finished_at"),
    *(*STAGES, *SCORES, *NOISE),
]

Row = dict[str, Any]


@dataclass
class Outcome:
    """What the current rows of an archive's images say together; see `read`.

    Attributes:
        images: How many the manifest holds; None where the first is not complete yet.
        without_row: How many of them have no row of their present state.
        left_archive: Rows of images that the manifest holds no more; nothing else counts them.
        by_status: How many images ended in which status; so with the next three.
        by_failure_class: See `status.FAILURE_CLASSES`.
        by_checkpoint: By the SHA-256 of the weights.
        by_node: By the machine.
        by_day: By the day (UTC) on which they were finished, and by status.
        megapixels: By status, of the images that could be decoded.
        sums: Of `STAGES`, `SCORES` and `NOISE`, the last of the denoised alone.
        counted: How many images had these.
        noise: For each of `NOISE`, how many of the denoised are in each bin of `BIN` levels.
        failures: Some rows of each failure class.
        reasons: Why originals were kept, without the numbers.
        kept: Some of their rows.
        changes: The denoised rows with the largest mean shift, the largest first.
        noisiest: The denoised row with the most noise before, of those that may be shown.
        changed_most: Likewise with the largest mean shift.
        spread: Denoised rows that may be shown, evenly over the table.
    """

    images: int | None = None
    without_row: int = 0
    left_archive: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    by_failure_class: Counter[str] = field(default_factory=Counter)
    by_checkpoint: Counter[str] = field(default_factory=Counter)
    by_node: Counter[str] = field(default_factory=Counter)
    by_day: Counter[tuple[str, str]] = field(default_factory=Counter)
    megapixels: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    counted: Counter[str] = field(default_factory=Counter)
    noise: dict[str, NDArray[np.int64]] = field(
        default_factory=lambda: {name: np.zeros(BINS, np.int64) for name in NOISE}
    )
    failures: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))
    reasons: Counter[str] = field(default_factory=Counter)
    kept: list[Row] = field(default_factory=list)
    changes: list[Row] = field(default_factory=list)
    noisiest: list[Row] = field(default_factory=list)
    changed_most: list[Row] = field(default_factory=list)
    spread: list[Row] = field(default_factory=list)
    _stride: int = 1
    _passed: int = 0

    @property
    def rows(self) -> int:
        """How many images have a row."""
        return self.by_status.total()

    def mean(self, column: str) -> float | None:
        """Of one of `STAGES`, `SCORES` or `NOISE`; None where no image had it."""
        return self.sums[column] / self.counted[column] if self.counted[column] else None

    def add(self, part: pa.Table) -> None:
        """Counts the rows of one part, which has `COLUMNS`."""
        pixels = pc.multiply(part["width"].cast(pa.int64()), part["height"].cast(pa.int64()))
        part = part.append_column("pixels", pixels)
        self._count(part)
        for name in self.by_failure_class:
            room = LISTED - len(self.failures[name])
            self.failures[name] += _rows(_where(part, "failure_class", name).slice(0, room))
        kept = _where(part, "status", "kept_original")
        self.reasons.update(_kinds(kept["message"]))
        self.reasons = Counter(dict(self.reasons.most_common(REASONS)))
        self.kept += _rows(kept.slice(0, LISTED - len(self.kept)))
        denoised = _where(part, "status", "denoised")
        for name in NOISE:
            sigmas = self._sum(name, denoised)
            places = np.clip(sigmas / BIN, 0, BINS - 1).astype(np.int64)
            self.noise[name] += np.bincount(places, minlength=BINS)
        self.changes = _largest(self.changes, denoised, "mean_shift", LISTED)
        shown = denoised.filter(pc.less_equal(denoised["pixels"], SHOWN_PIXELS))
        self.noisiest = _largest(self.noisiest, shown, "noise_sigma_before", 1)
        self.changed_most = _largest(self.changed_most, shown, "mean_shift", 1)
        self._spread(shown)

    def _count(self, part: pa.Table) -> None:
        self.by_status.update(_counts(part["status"]))
        self.by_failure_class.update(_counts(part["failure_class"]))
        self.by_checkpoint.update(_counts(part["checkpoint_sha256"]))
        self.by_node.update(_counts(part["node"]))
        for name in self.by_status:
            own = _where(part, "status", name)
            self.megapixels[name] += (pc.sum(own["pixels"]).as_py() or 0) / 1e6
            days = own["finished_at"].cast(pa.timestamp("us")).cast(pa.date32())
            for each in pc.value_counts(days):
                self.by_day[str(each["values"]), name] += each["counts"].as_py()
        for name in (*STAGES, *SCORES):
            self._sum(name, part)

    def _sum(self, column: str, part: pa.Table) -> NDArray[np.float64]:
        """The finite values of a column, counted; identical images count as a mean has them."""
        values = part[column].drop_null().to_numpy()
        if column == "psnr_db":
            values = np.minimum(values, metrics.PSNR_CAP_DB)
        values = values[np.isfinite(values)]
        self.sums[column] += float(values.sum())
        self.counted[column] += len(values)
        return values

    def _spread(self, shown: pa.Table) -> None:
        """Takes every so many rows; every second of all goes whenever they become too many."""
        numbers = np.arange(self._passed, self._passed + len(shown))
        self._passed += len(shown)
        while len(self.spread) + np.count_nonzero(numbers % self._stride == 0) > 2 * SPREAD:
            self.spread = self.spread[::2]
            self._stride *= 2
        places = np.flatnonzero(numbers % self._stride == 0)
        self.spread += _rows(shown.take(pa.array(places)))


def read(output_url: str) -> Outcome:
    """How the job went, or goes, that fills an output.

    Holds 17 bytes per image, 8 more per row that isn't compacted, and one part of the table.

    Raises:
        OSError: manifest or table could not be read.
        ValueError: a part is no Parquet file or lacks a column.
    """
    for _ in range(BEGINNINGS - 1):
        try:
            return _read(output_url)
        except FileNotFoundError:  # a job that runs has compacted the table, or listed anew
            continue
    return _read(output_url)


def _read(output_url: str) -> Outcome:
    outcome = Outcome()
    images = _images(output_url)
    has_row = np.zeros(0 if images is None else len(images), np.bool_)
    for part in status.newest(output_url, COLUMNS):
        if images is not None:
            places, there = ids.places(images, ids.of(part["id"]))
            has_row[places[there]] = True
            outcome.left_archive += len(part) - int(there.sum())
            part = part.filter(pa.array(there))
        outcome.add(part)
    if images is not None:
        outcome.images = len(images)
        outcome.without_row = len(images) - int(has_row.sum())
    return outcome


def _images(output_url: str) -> NDArray[np.bytes_] | None:
    """The sorted ids of the manifest's images; None where no manifest was ever complete."""
    try:
        urls = manifest.parts(output_url)
    except FileNotFoundError:
        return None
    listed = bytearray()
    for url in urls:
        listed += ids.of(manifest.part(url, ["id"])["id"]).tobytes()
    return ids.in_order(listed, ids.ID)


def _where(part: pa.Table, column: str, value: str) -> pa.Table:
    return part.filter(pc.fill_null(pc.equal(part[column], value), False))


def _counts(column: pa.ChunkedArray) -> dict[str, int]:
    """How often each value comes; text that is not UTF-8 comes with escapes."""
    plain = column.drop_null().cast(pa.binary())
    return {
        _text(each["values"].as_py()): each["counts"].as_py() for each in pc.value_counts(plain)
    }


def _kinds(messages: pa.ChunkedArray) -> dict[str, int]:
    """How often each kind of message comes: "mean shift 7.3 > 4.0" is one of "mean shift"."""
    plain = messages.cast(pa.binary())
    for pattern in (r" [^ ;]+ > [^ ;]+", r"(?s)(^|; )no scores: .*"):
        plain = pc.replace_substring_regex(plain, pattern=pattern, replacement="")
    kinds = Counter({"no reason given": plain.null_count})
    for kind, count in _counts(plain).items():
        kinds[kind.replace(";", ",") or "no reason given"] += count
    return +kinds


def _largest(before: list[Row], part: pa.Table, column: str, count: int) -> list[Row]:
    """The rows with the largest values of a column, the largest first; NaN is none."""
    known = part.filter(pc.fill_null(pc.is_finite(part[column]), False))
    order = np.argsort(known[column].to_numpy(), kind="stable")[::-1][:count]
    rows = before + _rows(known.take(pa.array(order)))
    return sorted(rows, key=lambda row: -row[column])[:count]


def _rows(table: pa.Table) -> list[Row]:
    """Rows as Python has them; text that is not UTF-8 comes with escapes."""
    text = [name for name in table.column_names if table.schema.field(name).type == pa.string()]
    for name in text:
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table[name].cast(pa.binary()))
    return [
        row | {name: None if row[name] is None else _text(row[name]) for name in text}
        for row in table.to_pylist()
    ]


def _text(value: bytes) -> str:
    return value.decode(errors="backslashreplace")
