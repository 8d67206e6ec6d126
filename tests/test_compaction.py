"""Claims about pix2pix.compaction."""

import glob
import itertools
import json
import os
import shutil
from pathlib import Path
from uuid import uuid4

import duckdb
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pix2pix import compaction, faults, ids, parquet, storage, table
from tests.conftest import FaultyProxy, S3Server
from tests.rows import append_of_version_1, row


def parts(output: str) -> list[str]:
    return sorted(name for name in os.listdir(f"{output}/status") if name.startswith("part-"))


def paths(output: str) -> list[str]:
    tables = table.rows(output, ["relative_path"])
    return sorted(name for each in tables for name in each["relative_path"].to_pylist())


names = st.sampled_from(["a.jpg", "b.jpg", "c/a.jpg", "d.jpg", "ü.jpg", "e", "f", "g"])
some_rows = st.lists(
    st.builds(
        row,
        names,
        st.integers(0, 5),
        attempt=st.integers(1, 3),
        message=st.uuids().map(str),
        denoised=st.none() | st.binary(max_size=40),
    ),
    min_size=1,
    max_size=6,
)
# jobs, each of which appends parts, some of which it merges
jobs = st.lists(st.tuples(st.lists(some_rows, max_size=4), st.integers(0, 4)), max_size=4)


@settings(max_examples=40, deadline=None)
@given(
    jobs, st.integers(1, 5), st.integers(1, 5), st.sampled_from([0, 1, 2**64 - 1]),
    st.sampled_from([40, 100, 10**9]),
)  # fmt: skip
def test_compacting_leaves_the_newest_row_of_each_image_whatever_came_before(
    jobs: list[tuple[list, int]], rows_per_part: int, at_once: int, mask: int, bytes_per_part: int
) -> None:
    output, newest = f"memory://{uuid4().hex}", dict[str, tuple]()
    files = dict[str, bytes | None]()
    plain = ids.hashes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compaction, "ROWS_PER_PART", rows_per_part)
        patch.setattr(compaction, "ROWS_AT_ONCE", at_once)
        patch.setattr(compaction, "BYTES_PER_PART", bytes_per_part)
        patch.setattr(parquet, "GROUP_BYTES", 50)
        # with a mask of 0 all paths have the same hash, with 1 there are two of them
        patch.setattr(ids, "hashes", lambda strings: plain(strings) & np.uint64(mask))
        for written, merged in jobs:
            urls = [table.append(output, part) for part in written]
            compaction.merged(output, urls[:merged])
            for each in itertools.chain(*written):
                age = (each["finished_at"], each["attempt"])
                files[each["message"]] = each["denoised"]
                newest[each["relative_path"]] = max(age, newest.get(each["relative_path"], age))
            columns = ["relative_path", "finished_at", "attempt"]
            seen = [e for part in compaction.newest(output, columns) for e in part.to_pylist()]
            compaction.compact(output)
            tables = list(table.rows(output, table.SCHEMA.names))
            found = [each for part in tables for each in part.to_pylist()]
            assert sorted(newest) == sorted(each["relative_path"] for each in seen)
            assert all(newest[e["relative_path"]] == (e["finished_at"], e["attempt"]) for e in seen)
            ages = {each["relative_path"]: (each["finished_at"], each["attempt"]) for each in found}
            assert newest == ages
            assert len(found) == len(newest)
            assert all(each["denoised"] == files[each["message"]] for each in found)
            known = compaction._known(output)
            assert {name: size.rows for name, size in known.items()} == {
                part.relative_path: len(table.read_part(part)) for part in table.parts(output)
            }
            assert all(size.rows <= rows_per_part for size in known.values())
            assert sum(not compaction.is_full(*size) for size in known.values()) <= 1


def test_compacting_leaves_one_row_per_image_for_duckdb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = f"{tmp_path}/output"
    for second in range(3):
        table.append(output, [row(f"{i}.jpg", second) for i in range(5)])
    monkeypatch.setattr(compaction, "ROWS_PER_PART", 2)
    compaction.compact(output)
    pattern = f"{output}/status/*.parquet"
    assert duckdb.sql(f"SELECT count(*) FROM '{pattern}'").fetchall() == [(5,)]
    assert len(parts(output)) == 3
    assert parts(output) == sorted(os.listdir(f"{output}/status"))  # polars wants nothing beside
    table.append(output, [row("new.jpg")])
    assert len(table.current(output)) == 6


def test_wherever_compacting_breaks_off_the_current_rows_stay(
    s3: S3Server, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "ATTEMPTS", 1)
    monkeypatch.setattr(compaction, "ROWS_PER_PART", 2)
    output = s3.bucket_url()
    rows_at_breaks = set()
    for left in range(4, 100):
        table.append(output, [row(f"{i}.jpg", left) for i in range(4)])
        before = table.current(output)
        proxy.left = left
        try:
            compaction.compact(output)
        except ConnectionError:
            proxy.left = None
            assert before.equals(table.current(output))
            rows_at_breaks.add(len(pyarrow.concat_tables(table.rows(output))))
            compaction.compact(output)
            assert before.equals(table.current(output))
            assert len(pyarrow.concat_tables(table.rows(output))) == 4
        else:
            break
    assert {8, 10, 12} <= rows_at_breaks  # before, between and after the two new parts


def test_a_half_copied_state_of_compacting_has_the_same_current_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = f"{tmp_path}/output"
    for second in range(3):
        table.append(output, [row(f"{i}.jpg", second) for i in range(4)])
    shutil.copytree(output, f"{tmp_path}/before")
    expected = table.current(output)
    monkeypatch.setattr(compaction, "ROWS_PER_PART", 2)
    compaction.compact(output)
    old, new = parts(f"{tmp_path}/before"), parts(output)
    states = [old + new[:i] for i in range(3)] + [old[i:] + new for i in range(4)]
    for number, state in enumerate(states):
        copy = f"{tmp_path}/{number}"
        os.makedirs(f"{copy}/status")
        for name in state:
            source = f"{tmp_path}/before" if name in old else output
            shutil.copy(f"{source}/status/{name}", f"{copy}/status/{name}")
        assert expected.equals(table.current(copy))
        compaction.compact(copy)
        assert expected.equals(table.current(copy))
        assert len(pyarrow.concat_tables(table.rows(copy))) == 4


def test_what_is_compacted_already_costs_a_listing_and_a_note(
    s3: S3Server, proxy: FaultyProxy
) -> None:
    output = s3.bucket_url()
    compaction.compact(output)
    for i in range(3):
        table.append(output, [row(f"{i}.jpg")])
    compaction.compact(output)
    proxy.seen.clear()
    compaction.compact(output)
    assert len(proxy.seen) == 2


def test_of_a_large_old_table_only_parts_with_newer_rows_are_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "ROWS_PER_PART", 10)
    output = str(tmp_path)
    for i in range(3):
        table.append(output, [row(f"{i}/{j}.jpg") for j in range(10)])
    compaction.compact(output)
    before = parts(output)
    table.append(output, [row("1/5.jpg", 7, message="newer"), row("new.jpg")])
    compaction.compact(output)
    assert len(set(before) & set(parts(output))) == 2
    assert len(paths(output)) == 31
    (newer,) = (
        table.current(output)
        .filter(pyarrow.compute.equal(table.current(output)["relative_path"], "1/5.jpg"))
        .to_pylist()
    )
    assert newer["message"] == "newer"


def test_merging_many_small_parts_reads_no_other_and_leaves_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "ROWS_PER_PART", 4)
    output = str(tmp_path)
    table.append(output, [row("old.jpg")])
    (old,) = parts(output)
    urls = [table.append(output, [row(f"{i}.jpg")]) for i in range(9)]
    (new,) = compaction.merged(output, urls)
    assert [len(table.read_part(part)) for part in table.parts(output)] == [1, 4, 4, 1]
    assert {old, new.rpartition("/")[2]} <= set(parts(output))
    assert paths(output) == sorted(["old.jpg", *(f"{i}.jpg" for i in range(9))])


def test_merging_again_and_again_writes_full_parts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "ROWS_PER_PART", 4)
    output, urls, seen = str(tmp_path), list[str](), list[set[str]]()
    for i in range(12):
        urls = compaction.merged(output, [*urls, table.append(output, [row(f"{i}.jpg")])])
        seen.append(set(parts(output)))
    assert urls == []
    assert seen[3] < seen[7] < seen[11]
    assert paths(output) == sorted(f"{i}.jpg" for i in range(12))


@pytest.mark.parametrize(
    "note",
    [
        None,
        {"schema_version": 2, "parts": {}},
        {"schema_version": 2, "parts": {"part-gone.parquet": [9, 0, False]}},
        {"rows": {"part-gone.parquet": 9}},  # as the first version wrote it
    ],
)
def test_without_its_note_a_table_is_compacted_from_scratch(
    tmp_path: Path, note: dict | None
) -> None:
    output = str(tmp_path)
    for second in range(2):
        table.append(output, [row(f"{i}.jpg", second) for i in range(4)])
        compaction.compact(output)
    storage.remove(f"{output}/{compaction.KNOWN}")
    if note is not None:
        storage.write(f"{output}/{compaction.KNOWN}", json.dumps(note).encode())
    table.append(output, [row("0.jpg", 5)])
    compaction.compact(output)
    assert paths(output) == [f"{i}.jpg" for i in range(4)]


@pytest.mark.parametrize("full_parts", [1, 3])
def test_a_table_of_the_first_version_gets_the_new_column_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_parts: int
) -> None:
    monkeypatch.setattr(compaction, "ROWS_PER_PART", 4)
    output = str(tmp_path)
    urls = [
        append_of_version_1(output, [row(f"{i}/{j}.jpg") for j in range(4)])
        for i in range(full_parts)
    ]
    note = {"rows": {url.rpartition("/")[2]: 4 for url in urls}}  # which called them compacted
    storage.write(f"{output}/{compaction.KNOWN}", json.dumps(note).encode())
    compaction.compact(output)
    pattern = f"{output}/status/*.parquet"
    assert {tuple(pyarrow.parquet.read_schema(path).names) for path in glob.glob(pattern)} == {
        tuple(table.SCHEMA.names)
    }
    expected = (4 * full_parts, 0, 1)
    query = f"SELECT count(*), count(denoised), max(schema_version) FROM '{pattern}'"
    assert duckdb.sql(query).fetchall() == [expected]
    once = parts(output)
    table.append(output, [row("new.jpg", denoised=b"new"), row("newer.jpg")])
    compaction.compact(output)
    assert set(once) < set(parts(output))


def test_parts_of_many_embedded_bytes_are_left_alone_until_a_row_is_superseded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "BYTES_PER_PART", 4000)
    output = str(tmp_path)
    for i in range(4):  # a quarter is enough
        table.append(output, [row(f"{i}/{j}.jpg", denoised=os.urandom(500)) for j in range(2)])
    before = parts(output)
    compaction.compact(output)
    assert before == parts(output)
    newer = os.urandom(1000)
    table.append(output, [row("1/1.jpg", 1, denoised=newer)])
    compaction.compact(output)
    assert [name in parts(output) for name in before] == [True, False, True, True]
    found = table.current(output, embedded=True)
    files = dict(
        zip(*(found[name].to_pylist() for name in ("relative_path", "denoised")), strict=True)
    )
    assert len(files) == 8
    assert files["1/1.jpg"] == newer
    assert len(files["1/0.jpg"]) == 500


@pytest.mark.parametrize("walk", ["merged", "compact"])
def test_embedded_bytes_are_copied_some_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, walk: str
) -> None:
    monkeypatch.setattr(compaction, "BYTES_PER_PART", 4_000_000)
    monkeypatch.setattr(parquet, "GROUP_BYTES", 1_000_000)
    output = str(tmp_path)
    files = {f"{i}.jpg": os.urandom(750_000) for i in range(40)}
    urls = [table.append(output, [row(name, denoised=file)]) for name, file in files.items()]
    # Arrow's memory alone is counted: a table of 30 MB on its way
    pool = pyarrow.proxy_memory_pool(pyarrow.default_memory_pool())
    usual = pyarrow.default_memory_pool()
    pyarrow.set_memory_pool(pool)
    try:
        compaction.merged(output, urls) if walk == "merged" else compaction.compact(output)
    finally:
        pyarrow.set_memory_pool(usual)
    assert 4_000_000 < pool.max_memory() < 16_000_000
    assert len(parts(output)) == 7
    found = table.current(output, embedded=True)
    assert files == dict(
        zip(*(found[name].to_pylist() for name in ("relative_path", "denoised")), strict=True)
    )
