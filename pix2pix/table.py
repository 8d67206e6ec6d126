"""The status table: what happened to every image of an archive, as Parquet parts in the output."""

from collections.abc import Iterator
from datetime import UTC, datetime
from numbers import Integral
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pix2pix import parquet, storage

SCHEMA_VERSION = 2  # 1 had no column `denoised`; parts of older versions are read, and made new
FOLDER = "status"
STATUSES = ("denoised", "skipped_clean", "kept_original", "failed")
FAILURE_CLASSES = (
    *("transient_io", "not_found", "forbidden", "undecodable", "unsupported", "too_large"),
    *("out_of_memory", "crashed"),
)
_string, _count, _score = pa.string(), pa.int32(), pa.float64()
_moment = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        pa.field("uri", _string, nullable=False),
        pa.field("relative_path", _string, nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("etag", _string, nullable=False),
        pa.field("id", pa.binary(16), nullable=False),
        pa.field("status", _string, nullable=False),
        pa.field("failure_class", _string),
        pa.field("message", _string),
        pa.field("attempt", _count, nullable=False),
        pa.field("output_uri", _string),
        pa.field("output_sha256", _string),
        pa.field("format", _string),
        pa.field("width", _count),
        pa.field("height", _count),
        pa.field("channels", _count),
        pa.field("bit_depth", _count),
        pa.field("noise_sigma_before", _score),
        pa.field("noise_sigma_after", _score),
        pa.field("sharpness_before", _score),
        pa.field("sharpness_after", _score),
        pa.field("clipped_fraction", _score),
        pa.field("mean_shift", _score),
        pa.field("psnr_db", _score),
        pa.field("ssim", _score),
        pa.field("checkpoint_sha256", _string),
        pa.field("strength", _score),
        pa.field("seconds_fetch", _score),
        pa.field("seconds_denoise", _score),
        pa.field("seconds_write", _score),
        pa.field("node", _string),
        pa.field("finished_at", _moment, nullable=False),
        pa.field("schema_version", _count, nullable=False),
        pa.field("denoised", pa.large_binary()),  # the output's own bytes, with --embed
    ]
)
LARGEST_EMBEDDED = 2**28  # bytes of one file: the driver holds it some eight times to write it
PLAIN = [name for name in SCHEMA.names if name != "denoised"]

_REQUIRED = frozenset(field.name for field in SCHEMA if not field.nullable) - {"schema_version"}
_NAMES = frozenset(SCHEMA.names)
_LATER = frozenset({"denoised"})  # than version 1


class Size(NamedTuple):
    """Of a part of the table.

    Attributes:
        rows: how many.
        embedded_bytes: of the files in them.
        outdated: whether it is of a version that had fewer columns.
    """

    rows: int
    embedded_bytes: int
    outdated: bool = False


def append(output_url: str, rows: list[dict[str, Any]]) -> str:
    """The URL of a new part of the table that holds `rows`; complete there, or not visible.

    Args:
        output_url: the output.
        rows: by column name. What is nullable may be missing, and `schema_version` is set here.

    Raises:
        ValueError: a row breaks the schema; nothing is written.
        OSError: the part could not be written.
    """
    return write_part(output_url, _table(rows))


def rows(output_url: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The table part by part, with these columns of `SCHEMA`, or `PLAIN`.

    It may be read while a job writes and compacts: every image's current row comes at least once,
    and rows that others have superseded may come too. At rest each image has one row.

    Raises:
        OSError: the table could not be read.
        ValueError: a part is no Parquet file or lacks a column.
    """
    seen: set[str] = set()
    while new := [part for part in parts(output_url) if part.uri not in seen]:
        for part in new:
            try:
                table = read_part(part, columns)
            except FileNotFoundError:  # compacted away: its rows are in a newer part
                break
            seen.add(part.uri)
            yield table
        else:
            return


def current(output_url: str, embedded: bool = False) -> pa.Table:
    """The newest row of every image: one per relative path, with `PLAIN`, in order of the paths.

    Newest by `finished_at`, then by `attempt`. An output without a table has no rows. All of it is
    in memory: for small outputs; others have `rows`.

    Args:
        output_url: the output.
        embedded: whether to read the embedded files too: all of `SCHEMA`.

    Raises:
        OSError: the table could not be read.
    """
    names = SCHEMA.names if embedded else PLAIN
    empty = SCHEMA.empty_table().select(names)
    return _newest(pa.concat_tables([empty, *rows(output_url, names)]))


def parts(output_url: str) -> list[storage.Entry]:
    """The table's parts, by name, the oldest first.

    Raises:
        OSError: they could not be listed.
    """
    try:
        entries = list(storage.files(storage.join(output_url, FOLDER)))
    except FileNotFoundError:
        return []
    found = (entry for entry in entries if entry.relative_path.startswith("part-"))
    return sorted((e for e in found if e.uri.endswith(".parquet")), key=lambda e: e.relative_path)


def read_part(part: storage.Entry, columns: list[str] | None = None) -> pa.Table:
    """The rows of one part, with these columns of `SCHEMA`, or `PLAIN`; reads no others.

    Raises:
        OSError: it could not be read.
        ValueError: it is no Parquet file or lacks a column.
    """
    names = PLAIN if columns is None else columns
    return parquet.read(part.uri, SCHEMA, names, part.size_bytes, _LATER)


def part_pieces(part: storage.Entry, dropped: NDArray[np.int32]) -> Iterator[pa.Table]:
    """One part's rows but the dropped, with all of `SCHEMA`, some at a time: see `parquet.pieces`.

    Raises:
        OSError: it could not be read.
        ValueError: it is no Parquet file or lacks a column.
    """
    return parquet.pieces(part.uri, SCHEMA, part.size_bytes, dropped, _LATER)


def part_size(part: storage.Entry) -> Size:
    """How large one part is; reads no more than its footer.

    Raises:
        OSError: it could not be read.
        ValueError: it is no Parquet file.
    """
    count, bytes_ = parquet.footer(part.uri, part.size_bytes)
    return Size(count, bytes_.get("denoised", 0), outdated=not bytes_.keys() >= _NAMES)


def write_part(output_url: str, table: pa.Table) -> str:
    """The URL of a new part with the rows of `table`, which has `SCHEMA`.

    Raises:
        OSError: it could not be written.
    """
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    url = storage.join(output_url, FOLDER, f"part-{moment}-{uuid4().hex}.parquet")
    parquet.write(url, table)
    return url


def _table(rows: list[dict[str, Any]]) -> pa.Table:
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
            columns.append(pa.array(values, field.type))  # which would cut 1.5 down to 1
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            rule = f"must be {field.type} in every row: {error}"
            raise ValueError(f"{field.name} {rule}") from error
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _check(row: dict[str, Any]) -> None:
    where = f"of {row.get('uri')!r}"
    if unknown := row.keys() - _NAMES:
        raise ValueError(f"columns {sorted(unknown)} {where} are not in the table; see SCHEMA")
    if missing := {name for name in _REQUIRED if row.get(name) is None}:
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


def _newest(rows: pa.Table) -> pa.Table:
    keys = [
        ("relative_path", "ascending"),
        ("finished_at", "descending"),
        ("attempt", "descending"),
    ]
    order = pc.sort_indices(rows, sort_keys=keys).to_numpy()
    paths = rows["relative_path"].take(pa.array(order))
    first = np.ones(len(rows), bool)
    first[1:] = pc.not_equal(paths[1:], paths[:-1]).to_numpy()
    return rows.take(pa.array(order[first]))
