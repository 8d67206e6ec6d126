"""Claims about pix2pix.lists, and about manifests made from them."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pix2pix import faults, lists, manifest, storage
from tests.conftest import FaultyProxy, S3Server

KNOWN = {"size_bytes": 5, "etag": "e"}


def parquet(url: str, rows: list[dict[str, Any]]) -> str:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    storage.write(f"{url}.parquet", sink.getvalue().to_pybytes())
    return f"{url}.parquet"


def csv(url: str, rows: list[dict[str, Any]]) -> str:
    sink = pyarrow.BufferOutputStream()
    pyarrow.csv.write_csv(pyarrow.Table.from_pylist(rows), sink)
    storage.write(f"{url}.csv", sink.getvalue().to_pybytes())
    return f"{url}.csv"


def csv_gz(url: str, rows: list[dict[str, Any]]) -> str:
    plain = csv(url, rows)
    storage.write(f"{plain}.gz", gzip.compress(storage.read(plain)))
    return f"{plain}.gz"


WAYS = pytest.mark.parametrize("written", [parquet, csv, csv_gz])


def manifest_of(url: str, output: str) -> dict[str, tuple[str, int, str]]:
    manifest.write(url, output)
    return {
        row["relative_path"]: (row["uri"], row["size_bytes"], row["etag"])
        for row in manifest.read(output).to_pylist()
    }


@pytest.mark.parametrize("place", ["local", "s3"])
@WAYS
def test_a_list_is_an_archive(
    tmp_path: Path, request: pytest.FixtureRequest, place: str, written: Callable
) -> None:
    folder = str(tmp_path) if place == "local" else request.getfixturevalue("s3").bucket_url()
    rows = [
        {"uri": "s3://b/x y/ü,\"1\".jpg", "size_bytes": 5, "etag": '"e1"', "other": "no"},
        {"uri": "/data/a.JPG", "size_bytes": 6, "etag": "e2", "other": "no"},
        {"uri": "s3://b/notes.txt", "size_bytes": 7, "etag": "e3", "other": "no"},
    ]  # fmt: skip
    url = written(f"{folder}/list", rows)
    assert manifest_of(url, f"{folder}/output") == {
        'b/x y/ü,"1".jpg': ('s3://b/x y/ü,"1".jpg', 5, "e1"),
        "data/a.JPG": ("file:///data/a.JPG", 6, "e2"),
    }
    assert manifest.write(url, f"{folder}/output") == manifest.Counts(2, 11, left_out=1)


@WAYS
def test_a_list_may_say_under_which_names_and_call_its_columns_otherwise(
    tmp_path: Path, written: Callable
) -> None:
    rows = [
        {"url": "http://host/1?x=2", "relative_path": "1.jpg", "size": 5, "etag": "e"},
        {"url": "http://host/2.jpg", "relative_path": None, "size": 5, "etag": "e"},
    ]
    found = manifest_of(written(f"{tmp_path}/list", rows), f"{tmp_path}/output")
    assert set(found) == {"1.jpg", "host/2.jpg"}


@pytest.mark.parametrize("place", ["local", "s3"])
def test_what_a_list_does_not_know_the_store_is_asked(
    tmp_path: Path, request: pytest.FixtureRequest, place: str
) -> None:
    folder = str(tmp_path) if place == "local" else request.getfixturevalue("s3").bucket_url()
    for number in range(40):
        storage.write(f"{folder}/archive/{number}.jpg", b"x" * number)
    known = {entry.uri: entry for entry in storage.files(f"{folder}/archive")}
    rows = [{"uri": uri, "etag": None, "size_bytes": None} for uri in known]
    rows[3] |= {"etag": "mine", "size_bytes": 99}
    rows[4] |= {"size_bytes": 99}
    found = manifest_of(parquet(f"{folder}/list", rows), f"{folder}/output").values()
    expected = {uri: (uri, entry.size_bytes, entry.etag) for uri, entry in known.items()}
    expected[rows[3]["uri"]] = (rows[3]["uri"], 99, "mine")
    assert set(found) == set(expected.values())


def test_what_is_not_there_or_not_to_be_seen_gets_its_row_too(s3: S3Server, tmp_path: Path) -> None:
    bucket = s3.bucket_url()
    (tmp_path / "a.jpg").touch()
    rows = [
        {"uri": f"{bucket}/gone.jpg"},
        {"uri": "s3://no-such-bucket-here/a.jpg"},
        {"uri": f"{tmp_path}/gone.jpg"},
        {"uri": f"{tmp_path}/a.jpg/b.jpg"},
    ]
    found = manifest_of(parquet(f"{tmp_path}/list", rows), f"{tmp_path}/output")
    assert len(found) == 4
    assert {each[1:] for each in found.values()} == {(0, "")}


def test_a_store_that_does_not_answer_stops_the_listing(
    s3: S3Server, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "ATTEMPTS", 1)
    url = parquet(f"{tmp_path}/list", [{"uri": f"{s3.bucket_url()}/a.jpg"}])
    proxy.left = 0
    with pytest.raises(ConnectionError, match=r"a\.jpg"):
        manifest.write(url, f"{tmp_path}/output")


@pytest.mark.parametrize(
    ("words", "rows"),
    [
        (r"columns \['name'\]; it must have one that is called uri", [{"name": "s3://b/a.jpg"}]),
        (r"every row must have a uri; 1 rows", [{"uri": "s3://b/a.jpg"}, {"uri": None}]),
        (r"uri='photos/a.jpg' must be absolute", [{"uri": "photos/a.jpg"}]),
        (r"column size_bytes must be int64", [{"uri": "s3://b/a.jpg", "size_bytes": "much"}]),
        (
            r"relative_path='a.jpg', which s3://b/1.jpg has, must be that of one uri",
            [
                {"uri": "s3://b/1.jpg", "relative_path": "a.jpg", **KNOWN},
                {"uri": "s3://b/2.jpg", "relative_path": "a.jpg", **KNOWN},
            ],
        ),
        (
            r"relative_path='b/a.jpg', which s3://b/a.jpg has",
            [{"uri": "s3://b/a.jpg", **KNOWN}, {"uri": "gs://b/a.jpg", **KNOWN}],
        ),
        (
            r"uri='s3://b/1.jpg', which a.jpg has, must be that of one relative_path",
            [
                {"uri": "s3://b/1.jpg", "relative_path": "a.jpg", **KNOWN},
                {"uri": "s3://b/1.jpg", "relative_path": "b.jpg", **KNOWN},
            ],
        ),
        (
            r"row 3002: uri='s4://b/2.jpg' must begin with one of .* s3, ",
            [{"uri": "s3://b/1.jpg", **KNOWN}, {"uri": "s4://b/2.jpg", **KNOWN}],
        ),
        (r"row 3001: uri='s3://b/\\x00.jpg' must have no NUL", [{"uri": "s3://b/\0.jpg"}]),
        (r"row 3001: uri='file:///a/\\x00.jpg' must have no NUL", [{"uri": "/a/b/../\0.jpg"}]),
        (
            r"row 3001: relative_path='\\x00.jpg' must have no NUL",
            [{"uri": "s3://b/1.jpg", "relative_path": "\0.jpg"}],
        ),
    ],
)
def test_a_list_that_makes_no_sense_is_refused_before_anything_starts(
    tmp_path: Path, words: str, rows: list[dict[str, Any]]
) -> None:
    many = [{"uri": f"s3://c/{i}.jpg", "relative_path": f"c/{i}.jpg"} for i in range(3000)]
    url = parquet(f"{tmp_path}/list", rows if "uri" not in rows[0] or "column" in words
                  else [each | KNOWN for each in many] + rows)  # fmt: skip
    finished: list[str] = []
    with pytest.raises(ValueError, match=words):
        manifest.write(url, f"{tmp_path}/output", finished.append)
    assert finished == []
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize("header", ["URI,etag", "uri;etag"])
def test_a_csv_without_a_column_uri_is_told_its_columns(tmp_path: Path, header: str) -> None:
    storage.write(
        f"{tmp_path}/list.csv", f"{header}\ns3://b/a.jpg,e\n".replace(",", header[3]).encode()
    )
    with pytest.raises(ValueError, match=rf"has columns .*{header[:3]}.*; it must have one that"):
        manifest.write(f"{tmp_path}/list.csv", f"{tmp_path}/output")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    uris = pyarrow.array(["s3://b/a.jpg"])
    table = pyarrow.Table.from_arrays([uris, uris], ["uri", "uri"])
    pyarrow.parquet.write_table(table, f"{tmp_path}/list.parquet")
    pyarrow.csv.write_csv(table, f"{tmp_path}/list.csv")
    for name in ("list.parquet", "list.csv"):
        with pytest.raises(ValueError, match="it must have only one uri"):
            manifest.write(f"{tmp_path}/{name}", f"{tmp_path}/output")


@WAYS
def test_what_is_no_list_is_named(tmp_path: Path, written: Callable) -> None:
    url = written(f"{tmp_path}/list", [{"uri": "s3://b/a.jpg"}])
    storage.write(url, b"\0\x01nothing of the kind")
    with pytest.raises(ValueError, match=r"list=.*/list\.") as caught:
        manifest.write(url, f"{tmp_path}/output")
    assert str(tmp_path) in str(caught.value)
    storage.remove(url)
    with pytest.raises(FileNotFoundError, match="list"):
        manifest.write(url, f"{tmp_path}/output")


@WAYS
def test_an_empty_list_is_an_empty_archive(tmp_path: Path, written: Callable) -> None:
    url = written(f"{tmp_path}/list", [{"uri": "s3://b/notes.txt", **KNOWN}])
    assert manifest.write(url, f"{tmp_path}/output") == manifest.Counts(0, 0, 1)


def test_the_same_row_twice_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "ROWS_AT_ONCE", 3)
    numbers = [0, 0, 1, 2, 3, 0, 4, 4, 1, 5, 5, 5, 6]
    rows = [{"uri": f"s3://b/{i}.jpg", **KNOWN} for i in numbers]
    url = parquet(f"{tmp_path}/list", rows)
    assert manifest.write(url, f"{tmp_path}/output").images == 7
    paths = manifest.read(f"{tmp_path}/output")["relative_path"].to_pylist()
    assert paths == [f"b/{i}.jpg" for i in range(7)]


def test_an_image_inside_the_output_is_refused_also_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "output/images").mkdir(parents=True)
    (tmp_path / "link").symlink_to("output")
    for uri in (f"{tmp_path}/output/images/a.jpg", f"{tmp_path}/link/images/a.jpg"):
        url = parquet(f"{tmp_path}/list", [{"uri": "s3://b/a.jpg", **KNOWN}, {"uri": uri, **KNOWN}])
        with pytest.raises(ValueError, match="must not lie in the output"):
            manifest.write(url, f"{tmp_path}/output")
    url = parquet(f"{tmp_path}/list", [{"uri": f"{tmp_path}/output-2/a.jpg", **KNOWN}])
    assert manifest.write(url, f"{tmp_path}/output").images == 1


def test_an_image_where_the_outputs_images_link_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "output").mkdir()
    (tmp_path / "output/images").symlink_to("../photos")
    url = parquet(f"{tmp_path}/list", [{"uri": f"{tmp_path}/photos/a.jpg", **KNOWN}])
    with pytest.raises(ValueError, match="must not lie in the output"):
        manifest.write(url, f"{tmp_path}/output")


def test_a_long_list_is_streamed(tmp_path: Path) -> None:
    rows = [{"uri": f"s3://b/{i}.jpg", "size_bytes": i, "etag": "e"} for i in range(12_345)]
    url = parquet(f"{tmp_path}/list", rows)
    assert max(len(part) for part in lists.rows(url, lists.check(url, None))) <= lists.ROWS_AT_ONCE
    batches = list(manifest.listed(url))
    assert [len(batch.rows) for batch in batches] == [1000, 2000, 4000, 5345]


urls = st.one_of(
    st.builds(
        "{}{}".format,
        st.sampled_from(
            ["s3://", "S3://", "s3a://", "/", "file://", "file:///", "gs://", "local://"]
        ),
        st.lists(st.sampled_from(["a", "b.jpg", "/", ".", "..", "é", "c d", "\n"])).map("/".join),
    ),
)


@given(st.lists(urls))
def test_urls_become_what_storage_makes_of_them(uris: list[str]) -> None:
    expected = []
    for uri in uris:
        try:
            expected.append(storage.absolute(uri))
        except ValueError:
            with pytest.raises(ValueError, match="names no place"):
                lists._canonical("list", pyarrow.array([uri]))
        else:
            (found,) = lists._canonical("list", pyarrow.array([uri])).to_pylist()
            assert expected[-1] == found
