"""One output that job after job fills: each does what is new, changed, gone or asked for."""

from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from PIL import Image

from pix2pix import status, verification
from pix2pix.summary import Summary
from pix2pix.verification import Verified
from tests import archives


@dataclass
class Nights:
    """An output that was filled night by night, and how it stood after each of its jobs.

    Attributes:
        archive: Its photographs at the end.
        output: The output at the end.
        first: The first job, on the whole archive.
        idle: The same again, then one that is to try again failures that there are none of.
        seen: What `verify` found before anything was changed, with what was, in a quick look at
            that, and after the repair.
        gaps: What it said.
        next: A job after changes: an image is new, one is another, one output is gone, one was
            spoiled and taken away; failures of one class are tried again.
        other: A job with other weights, and one that is to redo what the first ones have done.
    """

    archive: Path
    output: Path
    first: "Night"
    idle: list["Night"]
    seen: list[Verified]
    gaps: list[str]
    next: "Night"
    other: list["Night"]


@dataclass
class Night:
    """One job: how it ended, what it said, the table and all outputs after it."""

    done: Summary
    lines: str
    table: pa.Table
    files: dict[str, bytes]

    @property
    def attempts(self) -> dict[str, int]:
        columns = (self.table[name].to_pylist() for name in ("relative_path", "attempt"))
        return dict(zip(*columns, strict=True))


@pytest.fixture(scope="module")
def nights(
    tmp_path_factory: pytest.TempPathFactory, ray_cluster: None, checkpoint: str,
    other_checkpoint: str,
) -> Nights:  # fmt: skip
    folder = tmp_path_factory.mktemp("nights")
    archive, output = archives.filled(folder / "archive"), folder / "output"
    Image.new("CMYK", (32, 32)).save(archive / "cmyk.jpg")

    def night(weights: str, **options: object) -> Night:
        done, lines = archives.denoised(archive, output, weights, **options)
        paths = (path for path in (output / "images").rglob("*") if path.is_file())
        files = {str(path.relative_to(output / "images")): path.read_bytes() for path in paths}
        return Night(done, lines, status.current(str(output)), files)

    gaps: list[str] = []

    def verified(**options: bool) -> Verified:
        return verification.verified(str(archive), str(output), show=gaps.append, **options)

    first = night(checkpoint)
    idle = [night(checkpoint), night(checkpoint, retry=frozenset({"crashed"}))]
    seen = [verified()]
    Image.open(archive / "a 8.png").save(archive / "new.png")
    Image.open(archive / "a 8.png").save(archive / "a 0.png")
    (output / "images/b/c3.jpg").unlink()
    (output / "images/a 1.png").write_bytes(b"other bytes")
    seen += [verified(), verified(quick=True)]
    (output / "images/a 1.png").unlink()
    changed = night(checkpoint, retry=frozenset({"unsupported"}))
    seen += [verified()]
    other = [night(other_checkpoint), night(other_checkpoint, redo_older_models=True)]
    return Nights(archive, output, first, idle, seen, gaps, changed, other)


def test_the_same_call_again_does_only_what_is_new_changed_or_gone(nights: Nights) -> None:
    assert nights.first.done.by_status == {"denoised": 18, "failed": 3}
    for again in nights.idle:
        assert (again.done.done_before, again.done.done_now) == (21, 0)
        assert again.done.by_status == nights.first.done.by_status
        assert again.table.equals(nights.first.table)
        assert again.files == nights.first.files
    done, files = nights.next.done, nights.next.files
    assert (done.done_before, done.done_now) == (17, 5)
    assert done.by_status == {"denoised": 19, "failed": 3}
    assert files["a 0.png"] == files["new.png"] == files["a 8.png"]
    before = nights.first.files
    assert {name: files[name] for name in before if name != "a 0.png"} == {
        name: data for name, data in before.items() if name != "a 0.png"
    }
    count = duckdb.sql(f"select count(*) from '{nights.output}/status/*.parquet'").fetchall()
    assert count == [(22,)]


def test_what_failed_is_tried_again_only_if_asked(nights: Nights) -> None:
    first, second = nights.first.attempts, nights.next.attempts
    assert set(first.values()) == {1}
    failed = ("cmyk.jpg", "broken.png", "b/empty.jpg")
    assert [second[name] for name in failed] == [2, 1, 1]
    assert second["a 2.png"] == 1


def test_a_deleted_object_is_found_by_verify_and_repaired_by_the_next_run(nights: Nights) -> None:
    assert nights.seen == [
        Verified(images=21, gaps=0),
        Verified(images=22, gaps=4),
        Verified(images=22, gaps=3),  # looking alone doesn't find what was changed
        Verified(images=22, gaps=0),
    ]
    named = [line.split(":")[1].strip() for line in nights.gaps]
    assert sorted(named[:4]) == ["a 0.png", "a 1.png", "b/c3.jpg", "new.png"]
    assert sorted(named[4:]) == ["a 0.png", "b/c3.jpg", "new.png"]


def test_what_other_weights_denoised_is_done_again_only_if_asked(nights: Nights) -> None:
    unasked, asked = nights.other
    assert "22 images stay as other weights left them" in unasked.lines
    older, newer = nights.first.done.checkpoint_sha256, asked.done.checkpoint_sha256
    assert (unasked.done.done_now, unasked.done.by_checkpoint) == (0, {older: 22})
    assert unasked.files == nights.next.files
    assert asked.done.by_checkpoint == {newer: 19, older: 3}
    assert asked.done.by_status == {"denoised": 19, "failed": 3}
    assert asked.files.keys() == unasked.files.keys()
    assert asked.files["a 5.png"] != unasked.files["a 5.png"]
