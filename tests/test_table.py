"""Claims about pix2pix.table."""

import hashlib
import os
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas
import pyarrow.parquet
import pytest

from pix2pix import storage, table
from tests.conftest import FaultyProxy, S3Server
from tests.rows import START, append_of_version_1, row


def parts(output: str) -> list[str]:
    return sorted(os.listdir(f"{output}/status"))


def test_the_columns_are_the_contract() -> None:
    names = (
        "uri relative_path size_bytes etag id status failure_class message attempt output_uri "
        "output_sha256 format width height channels bit_depth noise_sigma_before "
        "noise_sigma_after sharpness_before sharpness_after clipped_fraction mean_shift psnr_db "
        "ssim checkpoint_sha256 strength seconds_fetch seconds_denoise seconds_write node "
        "finished_at schema_version denoised"
    )
    assert names.split() == table.SCHEMA.names


@pytest.mark.parametrize("output", ["{tmp_path}/output", "memory:/{tmp_path}", "s3"])
def test_what_is_appended_is_current(
    tmp_path: Path, output: str, request: pytest.FixtureRequest
) -> None:
    if output == "s3":
        output = request.getfixturevalue("s3").bucket_url()
    output = output.format(tmp_path=tmp_path)
    assert len(table.current(output)) == 0
    rows = [
        row("a.jpg", width=3, psnr_db=30.5, node="n", denoised=b"\xff\xd8 and so on"),
        row("ü b.jpg", status="skipped_clean"),
    ]
    url = table.append(output, rows)
    assert storage.exists(url)
    found = table.current(output, embedded=True)
    assert found.schema == table.SCHEMA
    empty = dict.fromkeys(table.SCHEMA.names) | {"schema_version": table.SCHEMA_VERSION}
    assert [empty | each for each in rows] == found.to_pylist()
    assert table.current(output).equals(found.drop_columns("denoised"))


def test_duckdb_and_pandas_read_it_without_help(tmp_path: Path) -> None:
    output = f"{tmp_path}/output"
    table.append(output, [row("a.jpg", psnr_db=30.5), row("b.jpg", status="failed", message="no")])
    table.append(output, [row("c.jpg", width=7)])
    pattern = f"{output}/status/*.parquet"
    assert duckdb.sql(f"SELECT count(*), sum(width) FROM '{pattern}'").fetchall() == [(3, 7)]
    types = duckdb.sql(f"SELECT column_name, column_type FROM (DESCRIBE FROM '{pattern}')")
    expected = {"id": "BLOB", "finished_at": "TIMESTAMP WITH TIME ZONE", "psnr_db": "DOUBLE"}
    assert expected.items() <= dict(types.fetchall()).items()
    wanted = row("b.jpg")["id"]
    query = f"SELECT relative_path, lower(hex(id)) FROM '{pattern}' WHERE id = $wanted"
    found = duckdb.execute(query, {"wanted": wanted}).fetchall()
    assert found == [("b.jpg", wanted.hex())]
    frame = pandas.read_parquet(f"{output}/status").set_index("relative_path")
    assert frame.loc["b.jpg", "message"] == "no"
    assert frame.loc["a.jpg", "id"] == row("a.jpg")["id"]
    assert frame.loc["c.jpg", "finished_at"] == START


def test_duckdb_and_pandas_read_the_embedded_files(tmp_path: Path) -> None:
    files = {f"{i}.jpg": os.urandom(1000 * i) for i in range(4)}  # an empty one among them
    for name, file in files.items():
        table.append(str(tmp_path), [row(name, denoised=file), row(f"failed {name}")])
    query = "SELECT relative_path, denoised, sha256(denoised) FROM '{}' WHERE denoised IS NOT NULL"
    found = duckdb.sql(query.format(f"{tmp_path}/status/*.parquet")).fetchall()
    assert sorted(found) == [
        (name, file, hashlib.sha256(file).hexdigest()) for name, file in files.items()
    ]
    frame = pandas.read_parquet(f"{tmp_path}/status").set_index("relative_path")
    assert files == frame["denoised"].dropna().to_dict()


def test_embedded_files_are_read_only_if_asked_for(tmp_path: Path) -> None:
    output = str(tmp_path)
    table.append(output, [row(f"{i}.jpg", denoised=os.urandom(1000)) for i in range(3)])
    (path,) = map(storage.local_path, [part.uri for part in table.parts(output)])
    embedded = (
        pyarrow.parquet.read_metadata(path)
        .row_group(0)
        .column(table.SCHEMA.names.index("denoised"))
    )
    with open(path, "r+b") as file:
        file.seek(embedded.data_page_offset)
        file.write(b"\xff" * embedded.total_compressed_size)
    assert table.current(output)["relative_path"].to_pylist() == ["0.jpg", "1.jpg", "2.jpg"]
    assert [each.column_names for each in table.rows(output)] == [table.PLAIN]
    (size,) = map(table.part_size, table.parts(output))
    assert size.rows == 3
    assert 3000 <= size.embedded_bytes < 3100  # with their lengths
    with pytest.raises(OSError, match="deserialize"):
        table.current(output, embedded=True)


def test_a_part_of_the_first_version_has_no_embedded_files(tmp_path: Path) -> None:
    output = str(tmp_path)
    append_of_version_1(output, [row("a.jpg", message="old")])
    table.append(output, [row("b.jpg", denoised=b"new")])
    found = table.current(output, embedded=True)
    assert found["denoised"].to_pylist() == [None, b"new"]
    assert found["schema_version"].to_pylist() == [1, 2]
    assert table.current(output)["message"].to_pylist() == ["old", None]
    assert [table.part_size(part).outdated for part in table.parts(output)] == [True, False]


def test_parts_are_zstd_and_named_uniquely(tmp_path: Path) -> None:
    urls = {table.append(f"{tmp_path}/output", [row("a.jpg")]) for _ in range(3)}
    assert len(urls) == 3
    group = pyarrow.parquet.ParquetFile(storage.local_path(urls.pop())).metadata.row_group(0)
    assert {group.column(i).compression for i in range(group.num_columns)} == {"ZSTD"}


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("status='done'", {"status": "done"}),
        ("failure_class=None", {"status": "failed", "failure_class": None}),
        ("failure_class='odd'", {"status": "failed", "failure_class": "odd"}),
        ("failure_class='crashed'", {"failure_class": "crashed"}),
        ("attempt=0", {"attempt": 0}),
        ("attempt='1'", {"attempt": "1"}),
        ("finished_at", {"finished_at": datetime(2026, 1, 1)}),
        ("finished_at", {"finished_at": "2026-01-01"}),
        ("'etag'", {"etag": None}),
        ("'colour'", {"colour": "red"}),
        ("id must be fixed_size_binary", {"id": b"short"}),
        ("width must be int32", {"width": "wide"}),
        ("height must be int32", {"height": 1.5}),
        ("message must be string", {"message": 3}),
    ],
)
def test_a_row_that_breaks_the_schema_is_refused(
    tmp_path: Path, words: str, change: dict[str, Any]
) -> None:
    rows = [row("a.jpg"), row("b.jpg") | change]
    with pytest.raises(ValueError, match=words):
        table.append(f"{tmp_path}/output", rows)
    assert os.listdir(tmp_path) == []


def test_no_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="empty"):
        table.append(f"{tmp_path}/output", [])


def test_the_newest_row_counts_then_the_highest_attempt(tmp_path: Path) -> None:
    output = f"{tmp_path}/output"
    table.append(output, [row("a.jpg", 5, message="new"), row("b.jpg", 1, attempt=2, message="2")])
    table.append(output, [row("a.jpg", 4, attempt=9, message="old"), row("b.jpg", 1, message="1")])
    found = table.current(output)
    assert found["relative_path"].to_pylist() == ["a.jpg", "b.jpg"]
    assert found["message"].to_pylist() == ["new", "2"]


def test_thousands_of_rows_are_appended_in_a_moment(tmp_path: Path) -> None:
    rows = [row(f"{i}.jpg", psnr_db=30.0) for i in range(5000)]
    begun = time.process_time()
    table.append(str(tmp_path), rows)
    assert time.process_time() - begun < 2  # 0.1 s alone


def test_some_columns_come_alone_in_the_order_asked_for(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        table.append(str(tmp_path), [row(name)])
    found = list(table.rows(str(tmp_path), ["attempt", "relative_path"]))
    assert [each.column_names for each in found] == [["attempt", "relative_path"]] * 2
    assert [each["relative_path"].to_pylist() for each in found] == [["a.jpg"], ["b.jpg"]]


def test_a_large_part_is_not_read_whole_for_one_column(
    s3: S3Server, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pix2pix.parquet.WHOLE_BYTES", 100_000)
    output = s3.bucket_url()
    texts = [os.urandom(500).hex() for _ in range(1000)]
    table.append(output, [row(f"{i}.jpg", message=text) for i, text in enumerate(texts)])
    (part,) = table.parts(output)
    assert part.size_bytes > 500_000
    read = []
    monkeypatch.setattr(proxy, "fault", lambda request: read.append(request) or "")
    (found,) = table.rows(output, ["relative_path", "attempt"])
    assert len(found) == 1000
    assert len(read) <= 1 + 5  # the listing; the footer, a column each


def test_a_reader_goes_on_with_the_new_parts_when_the_old_ones_go(tmp_path: Path) -> None:
    from pix2pix import compaction

    output = str(tmp_path)
    for i in range(4):
        table.append(output, [row(f"{i}.jpg")])
    reading = table.rows(output, ["relative_path"])
    first = next(reading)
    compaction.compact(output)
    rest = [name for each in reading for name in each["relative_path"].to_pylist()]
    assert first["relative_path"].to_pylist() == ["0.jpg"]
    assert sorted(rest) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]  # none missing; one comes twice


@pytest.mark.parametrize("data", [b"", b"x" * 100])
def test_a_part_that_is_none_is_named(tmp_path: Path, data: bytes) -> None:
    storage.write(f"{tmp_path}/status/part-0.parquet", data)
    with pytest.raises(ValueError, match=r"part-0\.parquet must be Parquet"):
        list(table.rows(str(tmp_path)))
