"""Claims about pix2pix.manifest."""

import hashlib
import os
from pathlib import Path

import duckdb
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pix2pix import faults, manifest, storage
from tests.conftest import FaultyProxy, S3Server

IMAGES = ("a.JPG", "b/c.jpeg", "b/d e%20.Tif", "b/raw.CR3", "ü.heic", "new\nline.png", "b/.jpg")
OTHERS = ("Thumbs.db", ".DS_Store", "a.xmp", "b/._c.jpeg", "@eaDir/a.JPG/S.jpg", "jpg", "a.jpg.bak")


def fill(archive: str, names: tuple[str, ...] = IMAGES + OTHERS) -> None:
    for number, name in enumerate(names):
        storage.write(storage.join(archive, name), b"x" * number)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_is_known_by_its_suffix(name: str) -> None:
    assert manifest.is_image(name)


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_no_images(name: str) -> None:
    assert not manifest.is_image(name)


def test_every_image_has_one_row_and_every_other_file_is_counted(tmp_path: Path) -> None:
    fill(f"{tmp_path}/archive")
    counts = manifest.write(f"{tmp_path}/archive", f"{tmp_path}/output")
    assert counts == manifest.Counts(images=7, bytes=0 + 1 + 2 + 3 + 4 + 5 + 6, left_out=7)
    rows = manifest.read(f"{tmp_path}/output").to_pylist()
    assert sorted(IMAGES) == sorted(row["relative_path"] for row in rows)
    for row in rows:
        entry = storage.local_path(row["uri"])
        assert entry == tmp_path / "archive" / row["relative_path"]
        assert entry.stat().st_size == row["size_bytes"]


def test_the_id_is_blake2b_of_uri_nul_etag(tmp_path: Path) -> None:
    fill(f"{tmp_path}/archive", ("ü.jpg",))
    manifest.write(f"{tmp_path}/archive", f"{tmp_path}/output")
    (row,) = manifest.read(f"{tmp_path}/output").to_pylist()
    text = row["uri"].encode() + b"\0" + row["etag"].encode()
    assert hashlib.blake2b(text, digest_size=16).digest() == row["id"]


def test_a_changed_image_gets_a_new_id_and_an_untouched_one_keeps_its(tmp_path: Path) -> None:
    archive, output = f"{tmp_path}/archive", f"{tmp_path}/output"
    fill(archive, ("a.jpg", "b.jpg"))
    ids = []
    for _ in range(2):
        manifest.write(archive, output)
        table = manifest.read(output)
        ids.append({row["relative_path"]: row["id"] for row in table.to_pylist()})
        storage.write(f"{archive}/b.jpg", b"other")
    assert ids[0]["a.jpg"] == ids[1]["a.jpg"]
    assert ids[0]["b.jpg"] != ids[1]["b.jpg"]


@given(st.text(), st.sampled_from([".jpg", ".JPG", ".txt", "", ".Tif", "."]))
def test_what_is_an_image_by_its_name_agrees_with_a_plain_rule(name: str, suffix: str) -> None:
    path = name + suffix
    *folders, last = path.split("/")
    plain = "." in last and last.rpartition(".")[2].lower() in manifest.SUFFIXES
    plain &= not last.startswith("._") and manifest.THUMBNAIL_FOLDERS.isdisjoint(folders)
    assert plain == manifest.is_image(path)


def test_work_can_start_with_small_parts_before_the_listing_ends(tmp_path: Path) -> None:
    archive, output = f"{tmp_path}/archive", f"{tmp_path}/output"
    (tmp_path / "archive").mkdir()
    for number in range(3500):
        (tmp_path / f"archive/{number}.jpg").touch()
    told: list[tuple[str, int]] = []

    def finished(url: str) -> None:
        with pytest.raises(FileNotFoundError, match="not complete"):
            manifest.parts(output)
        told.append((url, len(manifest.part(url))))

    assert manifest.write(archive, output, finished).images == 3500
    assert [rows for _, rows in told] == [1000, 2000, 500]
    assert [url for url, _ in told] == list(manifest.parts(output))


def test_a_slow_listing_is_cut_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "FIRST_SECONDS", 0.0)
    fill(f"{tmp_path}/archive", tuple(f"{i}.jpg" for i in range(3)))
    assert [len(batch.rows) for batch in manifest.listed(f"{tmp_path}/archive")] == [1, 1, 1, 0]


def test_listing_writes_nothing_and_tells_the_same(tmp_path: Path) -> None:
    fill(f"{tmp_path}/archive")
    batches = list(manifest.listed(f"{tmp_path}/archive"))
    assert os.listdir(tmp_path) == ["archive"]
    manifest.write(f"{tmp_path}/archive", f"{tmp_path}/output")
    assert sum(batch.left_out for batch in batches) == len(OTHERS)
    tables = [batch.rows for batch in batches]
    assert pyarrow.concat_tables(tables).equals(manifest.read(f"{tmp_path}/output"))


@pytest.mark.parametrize(("rows", "parts"), [(3, 1), (4, 1), (5, 2), (9, 3)])
def test_parts_have_bounded_rows_and_duckdb_counts_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, parts: int
) -> None:
    monkeypatch.setattr(manifest, "ROWS_PER_PART", 4)
    fill(f"{tmp_path}/archive", ("notes.txt", *(f"{i}.jpg" for i in range(rows))))
    counts = manifest.write(f"{tmp_path}/archive", f"{tmp_path}/output")
    assert counts.images == rows
    pattern = f"{tmp_path}/output/manifest/part-*.parquet"
    assert duckdb.sql(f"SELECT count(DISTINCT id) FROM '{pattern}'").fetchall() == [(rows,)]
    assert len(list((tmp_path / "output/manifest").glob("part-*.parquet"))) == parts
    assert manifest.read(f"{tmp_path}/output").schema == manifest.SCHEMA


def test_parts_are_zstd(tmp_path: Path) -> None:
    fill(f"{tmp_path}/archive", ("a.jpg",))
    manifest.write(f"{tmp_path}/archive", f"{tmp_path}/output")
    (part,) = manifest.parts(f"{tmp_path}/output")
    group = pyarrow.parquet.ParquetFile(storage.local_path(part)).metadata.row_group(0)
    assert {group.column(i).compression for i in range(group.num_columns)} == {"ZSTD"}


def test_a_second_manifest_replaces_the_first(tmp_path: Path) -> None:
    archive, output = f"{tmp_path}/archive", f"{tmp_path}/output"
    fill(archive, ("a.jpg", "b.jpg"))
    manifest.write(archive, output)
    storage.remove(f"{archive}/a.jpg")
    assert manifest.write(archive, output).images == 1
    assert manifest.read(output)["relative_path"].to_pylist() == ["b.jpg"]
    assert len(os.listdir(f"{output}/manifest")) == 2  # one part and the index


def test_without_a_complete_manifest_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="manifest"):
        manifest.read(f"{tmp_path}/output")


def test_a_missing_archive_leaves_the_manifest_as_it_was(tmp_path: Path) -> None:
    fill(f"{tmp_path}/archive", ("a.jpg",))
    manifest.write(f"{tmp_path}/archive", f"{tmp_path}/output")
    (tmp_path / "archive").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="archive"):
        manifest.write(f"{tmp_path}/archive", f"{tmp_path}/output")
    assert len(manifest.read(f"{tmp_path}/output")) == 1


def test_an_archive_without_images_leaves_the_manifest_as_it_was(tmp_path: Path) -> None:
    archive, output = f"{tmp_path}/archive", f"{tmp_path}/output"
    fill(archive, ("notes.txt",))
    assert manifest.write(archive, output) == manifest.Counts(0, 0, left_out=1)
    assert os.listdir(tmp_path) == ["archive"]
    fill(archive, ("a.jpg",))
    manifest.write(archive, output)
    storage.remove(f"{archive}/a.jpg")
    assert manifest.write(archive, output).images == 0
    assert manifest.read(output)["relative_path"].to_pylist() == ["a.jpg"]


def test_an_output_is_an_archives_own_from_its_first_part_on(tmp_path: Path) -> None:
    fill(f"{tmp_path}/archive", ("a.jpg",))
    fill(f"{tmp_path}/other", ("a.jpg",))

    def killed(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        manifest.write(f"{tmp_path}/archive", f"{tmp_path}/output", killed)
    with pytest.raises(ValueError, match="must be the one that this output is of"):
        manifest.write(f"{tmp_path}/other", f"{tmp_path}/output")
    with pytest.raises(FileNotFoundError, match="not complete"):
        manifest.read(f"{tmp_path}/output")
    assert manifest.write(f"{tmp_path}/archive", f"{tmp_path}/output").images == 1
    assert len(manifest.read(f"{tmp_path}/output")) == 1


@pytest.mark.parametrize("passes", range(4))  # a part, the end of the listing, index, old part
def test_a_job_that_must_stop_removes_no_parts(tmp_path: Path, passes: int) -> None:
    archive, output = f"{tmp_path}/archive", f"{tmp_path}/output"
    fill(archive, tuple(f"{i}.jpg" for i in range(manifest.FIRST_ROWS)))
    manifest.write(archive, output)
    before = set(os.listdir(f"{output}/manifest"))
    left = iter(range(passes))

    def check() -> None:
        if next(left, None) is None:
            raise RuntimeError("the lease is lost")

    with pytest.raises(RuntimeError, match="the lease is lost"):
        manifest.write(archive, output, check=check)
    assert before <= set(os.listdir(f"{output}/manifest"))
    assert len(list(manifest.parts(output))) == 1


def test_an_output_whose_images_are_a_link_to_the_archive_is_refused(tmp_path: Path) -> None:
    fill(f"{tmp_path}/a/b", ("c.jpg",))
    (tmp_path / "output").mkdir()
    for target, archive in (("../a", "a"), ("../a", "a/b"), ("../a/b", "a")):
        (tmp_path / "output/images").symlink_to(target)
        with pytest.raises(ValueError, match="must not lie in each other"):
            manifest.write(f"{tmp_path}/{archive}", f"{tmp_path}/output")
        (tmp_path / "output/images").unlink()
    assert manifest.write(f"{tmp_path}/a", f"{tmp_path}/output").images == 1


def test_an_archive_that_links_into_the_output_is_refused(tmp_path: Path) -> None:
    fill(f"{tmp_path}/archive", ("a.jpg",))
    fill(f"{tmp_path}/output/images/b", ("a.jpg",))
    (tmp_path / "archive/link").symlink_to("../output/images/b")
    with pytest.raises(ValueError, match=r"archive/link/.* must not lie in the output"):
        manifest.write(f"{tmp_path}/archive", f"{tmp_path}/output")


@pytest.mark.parametrize(
    ("archive", "output"),
    [("a", "a"), ("a", "a/out"), ("a/photos", "a"), ("a", "link/out"), ("link", "a/out")],
)
def test_overlapping_places_are_refused(tmp_path: Path, archive: str, output: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    with pytest.raises(ValueError, match="must not lie in each other"):
        manifest.write(f"{tmp_path}/{archive}", f"{tmp_path}/{output}")
    assert os.listdir(tmp_path / "a") == []


def test_neighbours_are_not_refused() -> None:
    manifest.refuse_overlap("s3://bucket/photos", "s3://bucket/photos-denoised")
    with pytest.raises(ValueError, match="s3://bucket/photos/out"):
        manifest.refuse_overlap("s3://bucket/photos/", "s3a://bucket/photos/out")


def test_wherever_writing_breaks_off_the_manifest_is_the_old_or_the_new_one(
    s3: S3Server, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "ATTEMPTS", 1)
    monkeypatch.setattr(manifest, "ROWS_PER_PART", 2)
    bucket = s3.bucket_url()
    archive, output = f"{bucket}/archive", f"{bucket}/output"
    old, new = [f"{i}.jpg" for i in range(3)], [f"{i}.jpg" for i in range(5)]
    fill(archive, tuple(old))
    manifest.write(archive, output)
    fill(archive, tuple(new))
    seen = []
    for left in range(100):
        proxy.left = left
        try:
            manifest.write(archive, output)
            break
        except ConnectionError:
            proxy.left = None
            seen.append(sorted(manifest.read(output)["relative_path"].to_pylist()))
    proxy.left = None
    assert [*seen, new] == [old] * seen.count(old) + [new] * (len(seen) + 1 - seen.count(old))
    assert seen.count(old) >= 5  # listing, three parts, index
    assert seen.count(new) >= 2  # what is old goes afterwards
    names = {entry.relative_path for entry in storage.files(f"{output}/manifest")}
    assert len(names) == 3 + 1  # nothing is left of all the broken attempts
