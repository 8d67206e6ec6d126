"""The status table: what happened to every image of an archive, as Parquet parts in the output."""

from datetime import UTC, datetime
from numbers import Integral
from typing import Any
from uuid import uuid4

import numpy
import pyarrow
import pyarrow.compute
import pyarrow.parquet

from pix2pix import storage

SCHEMA_VERSION = 1
FOLDER = "status"
ROWS_PER_PART = 1_000_000  # of a compacted table; about 200 MB of zstd
FEW_PARTS = 8  # a table with unique rows is compacted only beyond these, apart from full parts
STATUSES = ("denoised", "skipped_clean", "kept_original", "failed")
FAILURE_CLASSES = (
    *("transient_io", "not_found", "forbidden", "undecodable", "unsupported", "too_large"),
    *("out_of_memory", "crashed"),
)
_string, _count, _score = pyarrow.string(), pyarrow.int32(), pyarrow.float64()
_moment = pyarrow.timestamp("us", tz="UTC")
SCHEMA = pyarrow.schema(
    [
        pyarrow.field("uri", _string, nullable=False),
        pyarrow.field("relative_path", _string, nullable=False),
        pyarrow.field("size_bytes", pyarrow.int64(), nullable=False),
        pyarrow.field("etag", _string, nullable=False),
        pyarrow.field("id", pyarrow.binary(16), nullable=False),
        pyarrow.field("status", _string, nullable=False),
        pyarrow.field("failure_class", _string),
        pyarrow.field("message", _string),
        pyarrow.field("attempt", _count, nullable=False),
        pyarrow.field("output_uri", _string),
        pyarrow.field("output_sha256", _string),
        pyarrow.field("format", _string),
        pyarrow.field("width", _count),
        pyarrow.field("height", _count),
        pyarrow.field("channels", _count),
        pyarrow.field("bit_depth", _count),
        pyarrow.field("noise_sigma_before", _score),
        pyarrow.field("noise_sigma_after", _score),
        pyarrow.field("sharpness_before", _score),
        pyarrow.field("sharpness_after", _score),
        pyarrow.field("clipped_fraction", _score),
        pyarrow.field("mean_shift", _score),
        pyarrow.field("psnr_db", _score),
        pyarrow.field("ssim", _score),
        pyarrow.field("checkpoint_sha256", _string),
        pyarrow.field("strength", _score),
        pyarrow.field("seconds_fetch", _score),
        pyarrow.field("seconds_denoise", _score),
        pyarrow.field("seconds_write", _score),
        pyarrow.field("node", _string),
        pyarrow.field("finished_at", _moment, nullable=False),
        pyarrow.field("schema_version", _count, nullable=False),
    ]
)


def append(output_url: str, rows: list[dict[str, Any]]) -> str:
    """The URL of a new part of the table that holds `rows`; complete there, or not visible.

    Args:
        output_url: the output.
        rows: by column name. What is nullable may be missing, and `schema_version` is set here.

    Raises:
        ValueError: a row breaks the schema; nothing is written.
        OSError: the part could not be written.
    """
    return _write_part(output_url, _table(rows))


def current(output_url: str) -> pyarrow.Table:
    """The newest row of every image: one per relative path, with `SCHEMA`, in order of the paths.

    Newest by `finished_at`, then by `attempt`. An output without a table has no rows.

    Raises:
        OSError: the table could not be read.
    """
    return _newest(_parts_read(_part_urls(output_url)))


def pending(
    manifest: pyarrow.Table, current: pyarrow.Table, retry_failed: bool = False
) -> pyarrow.Table:
    """The manifest's rows that are still to be done, with a column `attempt`, counted from 1.

    An image is found by its id, so a changed one counts as new; a failed one is done again only
    with `retry_failed`, as the attempt after its last.
    """
    places = pyarrow.compute.index_in(manifest["id"], value_set=current["id"])
    known = pyarrow.compute.is_valid(places)
    previous = current.select(["status", "attempt"]).take(places)  # null where not known
    wanted = pyarrow.compute.invert(known)
    if retry_failed:
        failed = pyarrow.compute.equal(previous["status"], "failed")
        wanted = pyarrow.compute.or_kleene(wanted, failed)
    before = pyarrow.compute.fill_null(previous["attempt"], 0)
    attempt = pyarrow.compute.cast(pyarrow.compute.add(before, 1), _count)
    return manifest.append_column("attempt", attempt).filter(wanted)


def compact(output_url: str) -> None:
    """Leaves one row per image, in few parts; does nothing where that is so already.

    The new parts are complete before the first old one is removed, so a crash at any point leaves
    every row at least once, `current` as it was, and the rest to the next `compact`. Rows that are
    appended meanwhile stay.

    Raises:
        OSError: the table could not be read or written.
    """
    urls = _part_urls(output_url)
    rows = _parts_read(urls)
    newest = _newest(rows)
    few = FEW_PARTS + -(-len(newest) // ROWS_PER_PART)
    if len(rows) == len(newest) and len(urls) <= few:
        return
    for start in range(0, len(newest), ROWS_PER_PART):
        _write_part(output_url, newest.slice(start, ROWS_PER_PART))
    for url in urls:
        storage.remove(url)


def _table(rows: list[dict[str, Any]]) -> pyarrow.Table:
    if not rows:
        raise ValueError("rows=[] must not be empty; append nothing instead")
    for row in rows:
        _check(row)
    columns = []
    for field in SCHEMA:
        values = [row.get(field.name) for row in rows]
        if field.name == "schema_version":
            values = [SCHEMA_VERSION] * len(rows)
        if field.type == _count and any(isinstance(value, float) for value in values):
            raise ValueError(f"{field.name} must be {field.type} in every row; round it")
        try:
            columns.append(pyarrow.array(values, field.type))  # which would cut 1.5 down to 1
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError) as error:
            rule = f"must be {field.type} in every row: {error}"
            raise ValueError(f"{field.name} {rule}") from error
    return pyarrow.Table.from_arrays(columns, schema=SCHEMA)


def _check(row: dict[str, Any]) -> None:
    where = f"of {row.get('uri')!r}"
    if unknown := row.keys() - set(SCHEMA.names):
        raise ValueError(f"columns {sorted(unknown)} {where} are not in the table; see SCHEMA")
    required = {field.name for field in SCHEMA if not field.nullable} - {"schema_version"}
    if missing := {name for name in required if row.get(name) is None}:
        raise ValueError(f"columns {sorted(missing)} {where} must have a value")
    status, failure_class = row["status"], row.get("failure_class")
    if status not in STATUSES:
        raise ValueError(f"status={status!r} {where} must be one of {STATUSES}")
    known = failure_class in FAILURE_CLASSES if status == "failed" else failure_class is None
    if not known:
        rule = f"must be one of {FAILURE_CLASSES} if status is 'failed', else missing"
        raise ValueError(f"failure_class={failure_class!r} with {status=!r} {where} {rule}")
    attempt, finished_at = row["attempt"], row["finished_at"]
    if not isinstance(attempt, Integral) or attempt < 1:
        raise ValueError(f"attempt={attempt!r} {where} must be a whole number from 1 on")
    if not isinstance(finished_at, datetime) or finished_at.tzinfo is None:
        raise ValueError(f"finished_at={finished_at!r} {where} must be a datetime with a time zone")


def _newest(rows: pyarrow.Table) -> pyarrow.Table:
    keys = [
        ("relative_path", "ascending"),
        ("finished_at", "descending"),
        ("attempt", "descending"),
    ]
    order = pyarrow.compute.sort_indices(rows, sort_keys=keys).to_numpy()
    paths = rows["relative_path"].take(pyarrow.array(order))
    first = numpy.ones(len(rows), bool)
    first[1:] = pyarrow.compute.not_equal(paths[1:], paths[:-1]).to_numpy()
    return rows.take(pyarrow.array(order[first]))


def _part_urls(output_url: str) -> list[str]:
    try:
        entries = list(storage.files(storage.join(output_url, FOLDER)))
    except FileNotFoundError:
        return []
    parts = (entry for entry in entries if entry.relative_path.startswith("part-"))
    return sorted(entry.uri for entry in parts if entry.uri.endswith(".parquet"))


def _parts_read(urls: list[str]) -> pyarrow.Table:
    tables = [SCHEMA.empty_table()]
    for url in urls:
        source = pyarrow.BufferReader(storage.read(url))
        tables.append(pyarrow.parquet.read_table(source, columns=SCHEMA.names).cast(SCHEMA))
    return pyarrow.concat_tables(tables)


def _write_part(output_url: str, table: pyarrow.Table) -> str:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="zstd")
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    url = storage.join(output_url, FOLDER, f"part-{moment}-{uuid4().hex}.parquet")
    storage.write(url, sink.getvalue().to_pybytes())
    return url
