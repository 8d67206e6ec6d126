"""Tables as Parquet files at URLs: written whole, read whole or by columns."""

import pyarrow as pa
import pyarrow.parquet as pq

from pix2pix import storage

WHOLE_BYTES = 1 << 20  # files up to this size are read in one request, whatever is wanted of them


def write(url: str, table: pa.Table) -> None:
    """Puts a table at `url`, zstd: complete there, or not visible.

    Raises:
        OSError: it could not be written.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    storage.write(url, sink.getvalue().to_pybytes())


def read(
    url: str, schema: pa.Schema, columns: list[str] | None = None, size_bytes: int | None = None
) -> pa.Table:
    """The table at `url`, with these columns of `schema`, or all; reads no others of a large file.

    Args:
        url: where.
        schema: what the file must have.
        columns: names in `schema`.
        size_bytes: of the file, where that is known: saves a request.

    Raises:
        OSError: it could not be read.
        ValueError: it is no Parquet file, or lacks a column, or has one of another type.
    """
    names = schema.names if columns is None else columns
    whole = columns is None or (size_bytes is not None and size_bytes <= WHOLE_BYTES)
    with _opened(url, size_bytes, whole) as file:
        try:
            source = pq.ParquetFile(file, pre_buffer=True)
            table = source.read(names, use_threads=False)  # threads take memory, not less time
            return table.select(names).cast(pa.schema([schema.field(name) for name in names]))
        except (KeyError, ValueError) as error:  # ArrowInvalid is one
            rule = f"must be Parquet with the columns {names}; if it isn't ours, move it away"
            raise ValueError(f"{url} {rule}: {error}") from error


def row_count(url: str, size_bytes: int | None = None) -> int:
    """How many rows the table at `url` has; reads no more than its footer.

    Raises:
        OSError: it could not be read.
        ValueError: it is no Parquet file.
    """
    with _opened(url, size_bytes, whole=False) as file:
        return pq.read_metadata(file).num_rows


def _opened(url: str, size_bytes: int | None, whole: bool) -> pa.NativeFile:
    if whole:
        return pa.BufferReader(storage.read(url))
    return pa.PythonFile(storage.opened(url, size_bytes), mode="r")
