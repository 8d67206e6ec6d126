"""Claims about pix2pix.status."""

import itertools
import os
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import duckdb
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pix2pix import faults, manifest, status, storage
from tests.conftest import FaultyProxy, S3Server

START = datetime(2026, 1, 1, tzinfo=UTC)


def row(name: str, seconds: int = 0, **values: Any) -> dict[str, Any]:
    values = {"status": "denoised", "attempt": 1, "etag": "1", **values}
    if values["status"] == "failed":
        values.setdefault("failure_class", "undecodable")
    uri = f"s3://archive/{name}"
    return {
        "uri": uri,
        "relative_path": name,
        "size_bytes": 10,
        "id": manifest.image_id(uri, values["etag"]),
        "finished_at": START + timedelta(seconds=seconds),
        **values,
    }


def listed(*images: tuple[str, str]) -> pyarrow.Table:
    rows = [
        {
            "uri": f"s3://archive/{name}",
            "relative_path": name,
            "size_bytes": 10,
            "etag": etag,
            "id": manifest.image_id(f"s3://archive/{name}", etag),
        }
        for name, etag in images
    ]
    return pyarrow.Table.from_pylist(rows, schema=manifest.SCHEMA)


def parts(output: str) -> list[str]:
    return sorted(os.listdir(f"{output}/status"))


def test_the_columns_are_the_contract() -> None:
    names = (
        "uri relative_path size_bytes etag id status failure_class message attempt output_uri "
        "output_sha256 format width height channels bit_depth noise_sigma_before "
        "noise_sigma_after sharpness_before sharpness_after clipped_fraction mean_shift psnr_db "
        "ssim checkpoint_sha256 strength seconds_fetch seconds_denoise seconds_write node "
        "finished_at schema_version"
    )
    assert names.split() == status.SCHEMA.names


@pytest.mark.parametrize("output", ["{tmp_path}/output", "memory:/{tmp_path}", "s3"])
def test_what_is_appended_is_current(
    tmp_path: Path, output: str, request: pytest.FixtureRequest
) -> None:
    if output == "s3":
        output = request.getfixturevalue("s3").bucket_url()
    output = output.format(tmp_path=tmp_path)
    assert len(status.current(output)) == 0
    rows = [row("a.jpg", width=3, psnr_db=30.5, node="n"), row("ü b.jpg", status="skipped_clean")]
    url = status.append(output, rows)
    assert storage.exists(url)
    table = status.current(output)
    assert table.schema == status.SCHEMA
    empty = dict.fromkeys(status.SCHEMA.names) | {"schema_version": status.SCHEMA_VERSION}
    assert [empty | each for each in rows] == table.to_pylist()


def test_duckdb_and_pandas_read_it_without_help(tmp_path: Path) -> None:
    output = f"{tmp_path}/output"
    status.append(output, [row("a.jpg", psnr_db=30.5), row("b.jpg", status="failed", message="no")])
    status.append(output, [row("c.jpg", width=7)])
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


def test_parts_are_zstd_and_named_uniquely(tmp_path: Path) -> None:
    urls = {status.append(f"{tmp_path}/output", [row("a.jpg")]) for _ in range(3)}
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
        status.append(f"{tmp_path}/output", rows)
    assert os.listdir(tmp_path) == []


def test_no_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="empty"):
        status.append(f"{tmp_path}/output", [])


def test_the_newest_row_counts_then_the_highest_attempt(tmp_path: Path) -> None:
    output = f"{tmp_path}/output"
    status.append(output, [row("a.jpg", 5, message="new"), row("b.jpg", 1, attempt=2, message="2")])
    status.append(output, [row("a.jpg", 4, attempt=9, message="old"), row("b.jpg", 1, message="1")])
    table = status.current(output)
    assert table["relative_path"].to_pylist() == ["a.jpg", "b.jpg"]
    assert table["message"].to_pylist() == ["new", "2"]


def test_pending_is_what_is_missing_new_or_changed(tmp_path: Path) -> None:
    output = f"{tmp_path}/output"
    status.append(output, [row("done.jpg"), row("changed.jpg"), row("gone.jpg")])
    status.append(output, [row("failed.jpg", status="failed", attempt=3)])
    table = listed(("done.jpg", "1"), ("changed.jpg", "2"), ("new.jpg", "1"), ("failed.jpg", "1"))
    current = status.current(output)
    pending = status.pending(table, current, retry_failed=False)
    assert pending.schema.names == [*manifest.SCHEMA.names, "attempt"]
    assert numbered(pending) == {"changed.jpg": 1, "new.jpg": 1}
    retried = status.pending(table, current, retry_failed=True)
    assert numbered(retried) == {"changed.jpg": 1, "new.jpg": 1, "failed.jpg": 4}


def test_everything_is_pending_at_first_and_nothing_in_an_empty_archive() -> None:
    nothing = status.SCHEMA.empty_table()
    assert numbered(status.pending(listed(("a.jpg", "1")), nothing, False)) == {"a.jpg": 1}
    assert numbered(status.pending(listed(), nothing, True)) == {}


def numbered(pending: pyarrow.Table) -> dict[str, int]:
    rows = pending.to_pylist()
    assert len(rows) == len({each["relative_path"] for each in rows})
    return {each["relative_path"]: each["attempt"] for each in rows}


names = st.sampled_from(["a.jpg", "b.jpg", "c/a.jpg", "d.jpg"])
etags = st.sampled_from(["1", "2"])
rows_of_parts = st.lists(
    st.lists(
        st.builds(
            row,
            names,
            st.integers(0, 5),
            etag=etags,
            status=st.sampled_from(["denoised", "failed", "kept_original"]),
            attempt=st.integers(1, 4),
        ),
        min_size=1,
        max_size=6,
    ),
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(rows_of_parts, st.dictionaries(names, etags), st.booleans())
def test_current_pending_and_compact_agree_with_a_plain_model(
    written: list[list[dict]], archive: dict[str, str], retry_failed: bool
) -> None:
    output = f"memory://{uuid4().hex}"
    for part in written:
        status.append(output, part)
    newest: dict[str, tuple] = {}
    for each in itertools.chain(*written):
        age = (each["finished_at"], each["attempt"])
        newest[each["relative_path"]] = max(age, newest.get(each["relative_path"], age))
    table = status.current(output)
    found = {each["relative_path"]: each for each in table.to_pylist()}
    ages = {name: (each["finished_at"], each["attempt"]) for name, each in found.items()}
    assert newest == ages
    assert len(table) == len(newest)

    model = {}
    for name, etag in archive.items():
        last = found.get(name)
        if last is None or last["etag"] != etag:
            model[name] = 1
        elif retry_failed and last["status"] == "failed":
            model[name] = last["attempt"] + 1
    assert model == numbered(status.pending(listed(*archive.items()), table, retry_failed))

    status.compact(output)
    assert table.equals(status.current(output))
    assert len(status._parts_read(status._part_urls(output))) == len(newest)


def test_compacting_leaves_one_row_per_image_for_duckdb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = f"{tmp_path}/output"
    for second in range(3):
        status.append(output, [row(f"{i}.jpg", second) for i in range(5)])
    monkeypatch.setattr(status, "ROWS_PER_PART", 2)
    status.compact(output)
    pattern = f"{output}/status/*.parquet"
    assert duckdb.sql(f"SELECT count(*) FROM '{pattern}'").fetchall() == [(5,)]
    assert len(parts(output)) == 3
    status.append(output, [row("new.jpg")])
    assert len(status.current(output)) == 6


def test_compacting_does_nothing_where_nothing_is_to_do(tmp_path: Path) -> None:
    output = f"{tmp_path}/output"
    status.compact(output)
    for i in range(3):
        status.append(output, [row(f"{i}.jpg")])
    before = parts(output)
    status.compact(output)
    assert before == parts(output)


def test_compacting_joins_many_parts_even_if_their_rows_are_unique(tmp_path: Path) -> None:
    output = f"{tmp_path}/output"
    for i in range(status.FEW_PARTS + 2):
        status.append(output, [row(f"{i}.jpg")])
    status.compact(output)
    assert len(parts(output)) == 1
    assert len(status.current(output)) == status.FEW_PARTS + 2


def test_wherever_compacting_breaks_off_the_current_rows_stay(
    s3: S3Server, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "ATTEMPTS", 1)
    monkeypatch.setattr(status, "ROWS_PER_PART", 2)
    output = s3.bucket_url()
    rows_at_breaks = set()
    for left in range(4, 100):  # 4 at least to list and read the parts
        for second in range(2):
            status.append(output, [row(f"{i}.jpg", 2 * left + second) for i in range(4)])
        before = status.current(output)
        proxy.left = left
        try:
            status.compact(output)
        except ConnectionError:
            proxy.left = None
            assert before.equals(status.current(output))
            rows_at_breaks.add(len(status._parts_read(status._part_urls(output))))
            status.compact(output)
            assert before.equals(status.current(output))
            assert len(status._parts_read(status._part_urls(output))) == 4
        else:
            break
    assert {12, 14, 16} <= rows_at_breaks  # before, between and after the two new parts


def test_a_half_copied_state_of_compacting_has_the_same_current_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = f"{tmp_path}/output"
    for second in range(3):
        status.append(output, [row(f"{i}.jpg", second) for i in range(4)])
    shutil.copytree(output, f"{tmp_path}/before")
    expected = status.current(output)
    monkeypatch.setattr(status, "ROWS_PER_PART", 2)
    status.compact(output)
    old, new = parts(f"{tmp_path}/before"), parts(output)
    states = [old + new[:i] for i in range(3)] + [old[i:] + new for i in range(4)]
    for number, state in enumerate(states):
        copy = f"{tmp_path}/{number}"
        os.makedirs(f"{copy}/status")
        for name in state:
            source = f"{tmp_path}/before" if name in old else output
            shutil.copy(f"{source}/status/{name}", f"{copy}/status/{name}")
        assert expected.equals(status.current(copy))
        status.compact(copy)
        assert expected.equals(status.current(copy))
        assert len(status._parts_read(status._part_urls(copy))) == 4
