"""Tables as Parquet files at URLs: written whole, read whole, by columns or piece by piece.

Columns of large_binary hold files. They get no dictionary and no statistics, which such values have
no use for, and row groups are cut by their bytes: a reader need never hold more of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pix2pix import storage

WHOLE_BYTES = 1 << 20  # files up to this size are read in one request, whatever is wanted of them
GROUP_BYTES = 64_000_000  # of large_binary in one row group, if it has more than one row


def write(url: str, table: pa.Table) -> None:
    """Puts a table at `url`, zstd: complete there, or not visible.

    Raises:
        OSError: it could not be written.
    """
    large = _large(table.schema)
    plain = [name for name in table.schema.names if name not in large] if large else True
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink, table.schema, compression="zstd", use_dictionary=plain, write_statistics=plain
    ) as writer:
        for group in _groups(table):
            writer.write_table(group)
    storage.write(url, sink.getvalue().to_pybytes())


def read(
    url: str,
    schema: pa.Schema,
    columns: list[str] | None = None,
    size_bytes: int | None = None,
    later: frozenset[str] = frozenset(),
) -> pa.Table:
    """The table at `url`, with these columns of `schema`, or all; reads no others of a large file.

    Args:
        url: where.
        schema: what the file must have.
        columns: names in `schema`.
        size_bytes: of the file, where that is known: saves a request.
        later: columns that an older file may lack; null there.

    Raises:
        OSError: it could not be read.
        ValueError: it is no Parquet file, or lacks a column, or has one of another type.
    """
    names = schema.names if columns is None else columns
    whole = columns is None or (size_bytes is not None and size_bytes <= WHOLE_BYTES)
    with _opened(url, size_bytes, whole) as file, _explained(url, names):
        source = pq.ParquetFile(file, pre_buffer=True)
        table = source.read(names, use_threads=False)  # threads take memory, not less time
        return _fitted(table, schema, names, later)


def pieces(
    url: str,
    schema: pa.Schema,
    size_bytes: int,
    dropped: NDArray[np.int32],
    later: frozenset[str] = frozenset(),
) -> Iterator[pa.Table]:
    """The table at `url` in row groups, read one by one as asked for, with all of `schema`.

    Args:
        url: where.
        schema: what the file must have.
        size_bytes: of the file.
        dropped: numbers of rows to leave out; row groups of nothing else are not read.
        later: see `read`.

    Raises:
        OSError: it could not be read.
        ValueError: see `read`.
    """
    names = schema.names
    with _opened(url, size_bytes, size_bytes <= WHOLE_BYTES) as file, _explained(url, names):
        source = pq.ParquetFile(file, pre_buffer=True)
        start = 0
        for group in range(source.num_row_groups):
            wanted = np.ones(source.metadata.row_group(group).num_rows, np.bool_)
            end = start + len(wanted)
            wanted[dropped[(dropped >= start) & (dropped < end)] - start] = False
            start = end
            if wanted.any():  # no name is given to what is yielded: it would live one round longer
                yield _fitted(
                    source.read_row_group(group, names, use_threads=False), schema, names, later
                ).filter(pa.array(wanted))


def footer(url: str, size_bytes: int | None = None) -> tuple[int, dict[str, int]]:
    """How many rows a flat table at `url` has, and its columns' bytes before they are compressed.

    Raises:
        OSError: it could not be read.
        ValueError: it is no Parquet file.
    """
    with _opened(url, size_bytes, whole=False) as file:
        found = pq.read_metadata(file)
    bytes_ = dict.fromkeys(found.schema.names, 0)
    for group in map(found.row_group, range(found.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            bytes_[column.path_in_schema] += column.total_uncompressed_size
    return found.num_rows, bytes_


def large_bytes(table: pa.Table) -> NDArray[np.int64]:
    """The bytes that each row of a table has in its columns of large_binary."""
    bytes_ = np.zeros(len(table), np.int64)
    for name in _large(table.schema):
        bytes_ += pc.fill_null(pc.binary_length(table[name]), 0).to_numpy()
    return bytes_


def _large(schema: pa.Schema) -> list[str]:
    return [field.name for field in schema if pa.types.is_large_binary(field.type)]


def _groups(table: pa.Table) -> Iterator[pa.Table]:
    """The rows of a table in pieces of `GROUP_BYTES` at most, or of one row."""
    ends = np.cumsum(large_bytes(table))
    start = before = 0
    while start < len(table) and ends[-1] - before > GROUP_BYTES:
        end = max(start + 1, int(np.searchsorted(ends, before + GROUP_BYTES, "right")))
        yield table.slice(start, end - start)
        start, before = end, int(ends[end - 1])
    if start < len(table) or not len(table):
        yield table.slice(start)


def _fitted(
    table: pa.Table, schema: pa.Schema, names: list[str], later: frozenset[str]
) -> pa.Table:
    for name in later.intersection(names).difference(table.column_names):
        field = schema.field(name)
        table = table.append_column(field, pa.nulls(len(table), field.type))
    return table.select(names).cast(pa.schema([schema.field(name) for name in names]))


@contextmanager
def _explained(url: str, names: list[str]) -> Iterator[None]:
    """What pyarrow raises of a file that isn't as it must be, in words that say which and why."""
    try:
        yield
    except (KeyError, ValueError) as error:  # ArrowInvalid is one
        rule = f"must be Parquet with the columns {names}; if it isn't ours, move it away"
        raise ValueError(f"{url} {rule}: {error}") from error


def _opened(url: str, size_bytes: int | None, whole: bool) -> pa.NativeFile:
    if whole:
        return pa.BufferReader(storage.read(url))
    return pa.PythonFile(storage.opened(url, size_bytes), mode="r")
