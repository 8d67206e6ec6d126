"""Claims about pix2pix.parquet."""

import os
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from pix2pix import parquet, storage
from tests.conftest import FaultyProxy, S3Server

SCHEMA = pyarrow.schema([("a", pyarrow.int64()), ("b", pyarrow.string())])
TABLE = pyarrow.table({"a": range(1000), "b": [os.urandom(50).hex()] * 1000}, schema=SCHEMA)


@pytest.mark.parametrize("whole_bytes", [0, 1 << 20])
@pytest.mark.parametrize("columns", [None, ["b"], ["b", "a"]])
def test_what_is_written_is_read(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch, whole_bytes: int, columns: list[str] | None
) -> None:
    monkeypatch.setattr(parquet, "WHOLE_BYTES", whole_bytes)
    url = f"{s3.bucket_url()}/a.parquet"
    parquet.write(url, TABLE)
    expected = TABLE.select(SCHEMA.names if columns is None else columns)
    assert expected.equals(parquet.read(url, SCHEMA, columns, storage.entry(url).size_bytes))
    count, bytes_ = parquet.footer(url)
    assert count == 1000
    assert list(bytes_) == ["a", "b"]
    assert bytes_["a"] >= 8 * 1000


def test_a_small_file_costs_one_request(s3: S3Server, proxy: FaultyProxy) -> None:
    url = f"{s3.bucket_url()}/a.parquet"
    parquet.write(url, TABLE)
    size_bytes = storage.entry(url).size_bytes
    proxy.seen.clear()
    parquet.read(url, SCHEMA, ["a"], size_bytes)
    parquet.read(url, SCHEMA)
    assert len(proxy.seen) == 2


@pytest.mark.parametrize(
    ("url_ends", "schema"),
    [("a", SCHEMA.append(pyarrow.field("c", pyarrow.int64()))),
     ("a", pyarrow.schema([("b", pyarrow.int64())]))],
)  # fmt: skip
def test_another_table_is_named(
    tmp_path: os.PathLike, url_ends: str, schema: pyarrow.Schema
) -> None:
    url = f"{tmp_path}/{url_ends}"
    parquet.write(url, TABLE)
    with pytest.raises(ValueError, match=r"/a must be Parquet with the columns"):
        parquet.read(url, schema)


def test_what_is_missing_is_not_found(s3: S3Server) -> None:
    for columns in (None, ["a"]):
        with pytest.raises(FileNotFoundError, match="gone"):
            parquet.read(f"{s3.bucket_url()}/gone", SCHEMA, columns, 2 << 20)


FILES = pyarrow.schema([("a", pyarrow.int64()), ("file", pyarrow.large_binary())])
NONE = np.empty(0, np.int32)


@pytest.mark.parametrize(
    ("lengths", "groups"),
    [
        ([40, 60, 1, 99, 100], [2, 2, 1]),  # 100 bytes fit
        ([101, 5, 300, 5, 5], [1, 1, 1, 2]),  # larger ones are alone
        ([0, None, 50, 51], [3, 1]),
        ([None] * 5, [5]),
        ([], [0]),
    ],
)
def test_row_groups_are_cut_by_the_bytes_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lengths: list[int | None], groups: list[int]
) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", 100)
    files = [None if length is None else os.urandom(length) for length in lengths]
    table = pyarrow.table({"a": range(len(files)), "file": files}, schema=FILES)
    url = f"{tmp_path}/a"
    parquet.write(url, table)
    footer = pyarrow.parquet.read_metadata(url)
    assert [footer.row_group(i).num_rows for i in range(footer.num_row_groups)] == groups
    assert [length or 0 for length in lengths] == parquet.large_bytes(table).tolist()
    assert table.equals(parquet.read(url, FILES))
    pieces = list(parquet.pieces(url, FILES, os.path.getsize(url), NONE))
    assert [len(piece) for piece in pieces] == [count for count in groups if count]
    assert table.equals(pyarrow.concat_tables([FILES.empty_table(), *pieces]))


def test_pieces_leave_out_what_is_dropped_and_read_no_group_of_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "GROUP_BYTES", 100)
    files = [os.urandom(50) for _ in range(6)]  # in groups of two
    url = f"{tmp_path}/a"
    parquet.write(url, pyarrow.table({"a": range(6), "file": files}, schema=FILES))
    _spoil(url, 1)
    pieces = parquet.pieces(url, FILES, os.path.getsize(url), np.array([3, 0, 2], np.int32))
    assert [piece["a"].to_pylist() for piece in pieces] == [[1], [4, 5]]
    with pytest.raises(OSError, match="deserialize"):
        list(parquet.pieces(url, FILES, os.path.getsize(url), np.array([0, 2], np.int32)))


def _spoil(url: str, group: int) -> None:
    """Overwrites the pages of a row group: who reads them raises."""
    footer = pyarrow.parquet.read_metadata(url).row_group(group)
    with open(url, "r+b") as file:
        for number in range(footer.num_columns):
            column = footer.column(number)
            file.seek(column.dictionary_page_offset or column.data_page_offset)
            file.write(b"\xff" * column.total_compressed_size)


def test_a_column_of_a_later_version_is_null_in_an_older_file(tmp_path: Path) -> None:
    url = f"{tmp_path}/a"
    parquet.write(url, TABLE.select(["a"]))
    later = frozenset({"file"})
    for names in (None, ["file"], ["file", "a"]):
        found = parquet.read(url, FILES, names, later=later)
        assert found.column_names == (names or FILES.names)
        assert found["file"].to_pylist() == [None] * 1000
    (piece,) = parquet.pieces(url, FILES, os.path.getsize(url), NONE, later)
    assert piece.equals(parquet.read(url, FILES, later=later))
    with pytest.raises(ValueError, match="must be Parquet with the columns"):
        parquet.read(url, FILES)
