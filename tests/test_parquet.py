"""Claims about pix2pix.parquet."""

import os

import pyarrow
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
    assert parquet.row_count(url) == 1000


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
