import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from PIL import Image

import tests.rows
from pix2pix import (
    checkpoints,
    compaction,
    denoising,
    estimate,
    images,
    lease,
    metrics,
    single,
    stages,
    status,
    storage,
    summary,
    table,
)
from pix2pix.progress import Progress
from pix2pix.stages import Way
from pix2pix.summary import Summary
from tests import archives, leases
from tests.conftest import ADDED, brightening

SAMPLES = Path(__file__).parent.parent / "samples"
PLACES = ("uri", "etag", "id", "output_uri", "size_bytes")
TIMES = ("seconds_fetch", "seconds_denoise", "seconds_write", "finished_at", "attempt")

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return archives.filled(tmp_path / "archive")


@dataclass
class Ran:
    """A job that is done, for tests that only look."""

    archive: Path
    output: Path
    done: Summary
    lines: str


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None, checkpoint: str) -> Ran:
    folder = tmp_path_factory.mktemp("ran")
    archive = archives.filled(folder / "archive")
    done, lines = archives.denoised(archive, folder / "output", checkpoint, embed=True)
    return Ran(archive, folder / "output", done, lines)


def _rows(output: Path | str) -> dict[str, dict]:
    return {row["relative_path"]: row for row in status.current(str(output)).to_pylist()}


def test_every_image_ends_as_a_row_and_every_good_one_as_an_image(ran: Ran) -> None:
    output, done, lines = ran.output, ran.done, ran.lines
    assert done.by_status == {"denoised": 18, "failed": 2}
    assert done.by_failure_class == {"undecodable": 2}
    assert (done.images, done.left_out, done.over_budget) == (20, 1, True)
    assert "failed: broken.png: undecodable" in lines
    written = {entry.relative_path for entry in storage.files(str(output / "images"))}
    rows = _rows(output)
    assert len(rows) == 20
    assert written == {path for path, row in rows.items() if row["status"] == "denoised"}
    saved = json.loads((output / "summary.json").read_text())
    assert saved["by_status"] == done.by_status
    # an answer from another reader of Parquet
    query = f"select status, count(*) from '{output}/status/*.parquet' group by all order by all"
    assert duckdb.sql(query).fetchall() == [("denoised", 18), ("failed", 2)]


def test_a_photograph_alone_ends_as_the_same_file(
    ran: Ran, checkpoint: str, tmp_path: Path
) -> None:
    for name in ("a 0.png", "b/c1.jpg"):
        target = tmp_path / name
        way = Way(*checkpoints.identified(checkpoint))
        single.denoised(str(ran.archive / name), str(target), way)
        assert target.read_bytes() == (ran.output / "images" / name).read_bytes()


def test_the_pixels_are_what_the_generator_gives(ran: Ran) -> None:
    archive, output = ran.archive, ran.output
    rows = _rows(output)
    for path in archive.glob("a *.png"):
        before = np.asarray(Image.open(path)).astype(int)
        after = np.asarray(Image.open(output / "images" / path.name))
        np.testing.assert_array_equal(after, np.minimum(before + ADDED, 255))
        row = rows[path.name]
        assert (row["width"], row["height"]) == (before.shape[1], 48)
        assert row["mean_shift"] == pytest.approx(np.abs((after - before).mean((0, 1))).max())
    row = rows["b/c0.jpg"]
    data = (output / "images/b/c0.jpg").read_bytes()
    assert (row["format"], row["channels"], row["bit_depth"]) == ("JPEG", 3, 8)
    after = images.decode(data).pixels
    before = images.decode((archive / "b/c0.jpg").read_bytes()).pixels
    # float32 sums of one BLAS thread there, of several here, which add in another order
    assert row["noise_sigma_after"] == pytest.approx(metrics.noise_sigma(after), rel=1e-5)
    assert row["noise_sigma_before"] == pytest.approx(metrics.noise_sigma(before), rel=1e-5)


def test_the_row_of_an_image_holds_its_file_if_asked_for(ran: Ran) -> None:
    objects = {e.relative_path: storage.read(e.uri) for e in storage.files(f"{ran.output}/images")}
    query = f"select relative_path, denoised, output_sha256 from '{ran.output}/status/*.parquet'"
    embedded = {path: (data, sha256) for path, data, sha256 in duckdb.sql(query).fetchall()}
    failed = dict.fromkeys(["broken.png", "b/empty.jpg"], (None, None))
    hashed = {path: (data, hashlib.sha256(data).hexdigest()) for path, data in objects.items()}
    assert embedded == hashed | failed


@pytest.mark.slow
def test_a_later_call_that_embeds_nothing_leaves_embedded_what_is(
    ran: Ran, tmp_path: Path, checkpoint: str
) -> None:
    output = shutil.copytree(ran.output, tmp_path / "output")
    (output / "images/a 1.png").unlink()
    done, _ = archives.denoised(ran.archive, output, checkpoint)
    assert (done.done_before, done.done_now) == (19, 1)
    before, after = (
        {row["relative_path"]: row["denoised"] for row in rows.to_pylist()}
        for rows in (status.current(str(each), embedded=True) for each in (ran.output, output))
    )
    assert after == before | {"a 1.png": None}


def test_rows_are_brought_into_the_table_by_their_bytes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(denoising, "BYTES_PER_PART", 100)
    monkeypatch.setattr(compaction, "BYTES_PER_PART", 300)
    monkeypatch.setattr(denoising, "PARTS_MERGED", 2)
    sizes = [60, 60, 99, None, 1, 7, 200, None]
    seen = {"node": "n", "output_uri": None, "width": 9, "height": 9}
    batches = (
        [tests.rows.row(f"{place}.jpg", denoised=size and bytes(size), **seen)]
        for place, size in enumerate(sizes)
    )
    output, listed = str(tmp_path), Future[None]()
    listed.set_result(None)
    with lease.held(output, print) as held:
        denoising._kept(batches, output, held, Progress(print), listed)
    counts = [len(table.read_part(part)) for part in table.parts(output)]
    assert counts == [2, 3, 2, 1]  # 120, 100 and 207 bytes, which are enough to be left alone
    assert status.current(output, embedded=True)["denoised"].to_pylist() == [
        size and bytes(size) for size in sizes
    ]


def test_a_job_that_is_stopped_writes_its_last_rows_down(tmp_path: Path) -> None:
    def batches() -> Iterator[list[dict]]:
        yield [tests.rows.row("a.jpg", node="n", output_uri=None, width=9, height=9, denoised=None)]
        raise SystemExit(15)  # what Ray makes of SIGTERM

    listed = Future[None]()
    listed.set_result(None)
    with lease.held(str(tmp_path), print) as held, pytest.raises(SystemExit):
        denoising._kept(batches(), str(tmp_path), held, Progress(print), listed)
    assert status.current(str(tmp_path))["relative_path"].to_pylist() == ["a.jpg"]


@pytest.mark.parametrize("message", [None, "strength 0"])
def test_a_file_that_is_too_large_for_a_row_is_said_to_be(
    monkeypatch: pytest.MonkeyPatch, message: str | None
) -> None:
    monkeypatch.setattr(status, "LARGEST_EMBEDDED", 5)
    assert stages._embedded(b"12345", message) == {"denoised": b"12345"}
    row = stages._embedded(b"123456", message)
    assert row.keys() == {"message"}
    assert row["message"].startswith(message or "not embedded")
    assert "not embedded: more than LARGEST_EMBEDDED=5 bytes" in row["message"]


def test_object_storage_gives_the_same_pixels_and_the_same_table(
    ran: Ran, checkpoint: str, s3: object
) -> None:
    bucket = s3.bucket_url("denoising")
    storage.copy(str(ran.archive), f"{bucket}/archive")
    storage.copy(checkpoint, f"{bucket}/checkpoint")
    there = f"{bucket}/output"
    archives.denoised(f"{bucket}/archive", there, f"{bucket}/checkpoint", embed=True)
    tables = [status.current(str(each), embedded=True) for each in (ran.output, there)]
    rows = [table.drop_columns([*PLACES, *TIMES]).to_pylist() for table in tables]
    assert len(rows[0]) == 20
    assert rows[1] == rows[0]  # output_sha256 and the files among the columns: the same bytes
    data = storage.read(f"{there}/images/b/c3.jpg")
    assert data == (ran.output / "images/b/c3.jpg").read_bytes()


@pytest.fixture(scope="module")
def of_a_list(tmp_path_factory: pytest.TempPathFactory, ran: Ran, checkpoint: str) -> Ran:
    """Three of those images and one that is nowhere, at half the strength; one has a reference."""
    folder = tmp_path_factory.mktemp("list")
    chosen = [str(ran.archive / name) for name in ("a 2.png", "a 4.png", "a 6.png")]
    pa.csv.write_csv(pa.table({"uri": [*chosen, "/nowhere/at all.png"]}), folder / "list.csv")
    noisy = np.asarray(Image.open(chosen[0]))
    assert noisy.max() < 250
    clean = folder / "clean" / chosen[0].removeprefix("/")
    clean.parent.mkdir(parents=True)
    Image.fromarray(noisy + np.uint8(ADDED // 2 + 1)).save(clean)
    done, lines = archives.denoised(
        folder / "list.csv", folder / "output", checkpoint, strength=0.5,
        reference_url=str(folder / "clean"),
    )  # fmt: skip
    return Ran(ran.archive, folder / "output", done, lines)


def _in_list(ran: Ran, name: str) -> str:
    """The relative path of an image whose URL is in a list."""
    return str(ran.archive / name).removeprefix("/")


def test_a_list_of_images_is_an_archive_too(of_a_list: Ran) -> None:
    assert of_a_list.done.by_status == {"denoised": 3, "failed": 1}
    assert of_a_list.done.by_failure_class == {"not_found": 1}
    written = {e.relative_path for e in storage.files(f"{of_a_list.output}/images")}
    assert written == {_in_list(of_a_list, f"a {number}.png") for number in (2, 4, 6)}


def test_half_the_strength_takes_half_the_difference(of_a_list: Ran) -> None:
    path = _in_list(of_a_list, "a 4.png")
    before = np.asarray(Image.open(of_a_list.archive / "a 4.png")).astype(int)
    after = np.asarray(Image.open(of_a_list.output / "images" / path))
    np.testing.assert_array_equal(after, np.minimum(before + ADDED // 2, 255))
    assert _rows(of_a_list.output)[path]["strength"] == 0.5


def test_a_reference_gives_psnr_and_ssim(of_a_list: Ran) -> None:
    # off by one everywhere
    assert of_a_list.done.means["psnr_db"] == pytest.approx(20 * np.log10(255), abs=1e-6)
    rows = _rows(of_a_list.output)
    assert rows[_in_list(of_a_list, "a 2.png")]["ssim"] == pytest.approx(1, abs=1e-3)
    assert rows[_in_list(of_a_list, "a 4.png")]["ssim"] is None


def test_what_is_clean_denoised_or_would_be_harmed_passes_through_byte_for_byte(
    ran: Ran, archive: Path, tmp_path: Path
) -> None:
    for name in ("a 0.png", "b/c1.jpg"):
        Image.linear_gradient("L").convert("RGB").save(archive / name)
    shutil.copytree(ran.output / "images", archive / "again")
    (tmp_path / "bright").mkdir()
    bright = brightening(tmp_path / "bright", 60)
    done, _ = archives.denoised(archive, tmp_path / "output", bright, embed=True)
    assert done.by_status == {"skipped_clean": 2 + 18, "kept_original": 16, "failed": 2}
    rows = _rows(tmp_path / "output")
    clean = {path for path, row in rows.items() if row["status"] == "skipped_clean"}
    again = {path for path in rows if path.startswith("again/")}
    assert clean == {"a 0.png", "b/c1.jpg"} | again
    assert {rows[path]["message"] for path in again} == {"it says that it is denoised already"}
    assert "mean shift" in rows["a 3.png"]["message"]
    assert rows["a 3.png"]["noise_sigma_after"] == rows["a 3.png"]["noise_sigma_before"]
    for row in status.current(f"{tmp_path}/output", embedded=True).to_pylist():
        if row["status"] != "failed":
            path = row["relative_path"]
            data = (archive / path).read_bytes()
            assert row["denoised"] == data
            assert (tmp_path / "output/images" / path).read_bytes() == data
            assert row["output_sha256"] == hashlib.sha256(data).hexdigest()


def test_a_dry_run_tells_what_there_is_to_do_and_writes_nothing(
    ran: Ran, archive: Path, tmp_path: Path, checkpoint: str
) -> None:
    way = Way(*checkpoints.identified(checkpoint))
    lines: list[str] = []
    found = estimate.estimated(str(archive), str(tmp_path / "output"), way, show=lines.append)
    assert (found.images, found.to_do, found.left_out) == (20, 20, 1)
    assert found.suffixes == {"png": 10, "jpg": 10}
    assert found.bytes_to_do == sum(e.size_bytes for e in storage.files(str(archive))) - 12
    assert found.sampled > 0
    assert found.seconds_sampled > 0
    assert not (tmp_path / "output").exists()
    before = {p: p.stat().st_mtime_ns for p in ran.output.rglob("*")}
    found = estimate.estimated(str(ran.archive), str(ran.output), way, show=lines.append)
    assert (found.to_do, found.sampled) == (0, 0)
    assert {p: p.stat().st_mtime_ns for p in ran.output.rglob("*")} == before


def test_a_second_job_on_the_same_output_is_refused(ran: Ran, checkpoint: str) -> None:
    with (
        lease.held(
            str(ran.output), lambda line: None, stale_seconds=12
        ),  # renewed every two seconds
        pytest.raises(RuntimeError, match=f"process {os.getpid()} "),
    ):
        archives.denoised(ran.archive, ran.output, checkpoint)


def test_an_output_inside_its_archive_is_refused(archive: Path, checkpoint: str) -> None:
    with pytest.raises(ValueError, match="must not lie in each other"):
        archives.denoised(archive, archive / "output", checkpoint)
    assert not (archive / "output").exists()


def test_an_output_takes_one_archive_only(ran: Ran, tmp_path: Path, checkpoint: str) -> None:
    output = ran.output
    before = {path: path.read_bytes() for path in (output / "images").rglob("*.png")}
    (tmp_path / "other").mkdir()
    Image.new("RGB", (32, 32), (9, 9, 9)).save(tmp_path / "other/a 1.png")
    with pytest.raises(ValueError, match="must be the one that this output is of"):
        archives.denoised(tmp_path / "other", output, checkpoint)
    assert before == {path: path.read_bytes() for path in (output / "images").rglob("*.png")}


def test_who_died_elsewhere_is_waited_for(ran: Ran, tmp_path: Path, checkpoint: str) -> None:
    Image.new("RGB", (32, 32), (9, 9, 9)).save(tmp_path / "a 1.png")
    leases.abandoned(str(ran.output), seconds_ago=0, stale_seconds=4)
    with pytest.raises(ValueError, match="must be the one"):  # asked once the lease is ours
        archives.denoised(tmp_path, ran.output, checkpoint)


def test_an_archive_without_images_is_refused(tmp_path: Path, checkpoint: str) -> None:
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive/notes.txt").write_text("nothing")
    with pytest.raises(ValueError, match=r"no images under .* \(1 other files\)"):
        archives.denoised(tmp_path / "archive", tmp_path / "output", checkpoint)


def test_a_missing_archive_or_checkpoint_is_refused(archive: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no checkpoint at"):
        archives.denoised(archive, tmp_path / "output", str(tmp_path / "nothing"))


def test_more_actors_than_fit_are_refused(archive: Path, tmp_path: Path, checkpoint: str) -> None:
    with pytest.raises(RuntimeError, match="don't fit into the cluster"):
        archives.denoised(archive, tmp_path / "output", checkpoint, actors=500)


@pytest.mark.parametrize(
    ("given", "images", "acceptable"),
    [("1%", 300, 3), ("12", 5, 12), ("0", 9, 0), ("0.5%", 1000, 5)],
)
def test_a_budget_is_a_number_or_a_share(given: str, images: int, acceptable: float) -> None:
    assert summary.budget(given)(images) == acceptable


def test_a_checkpoint_that_gives_no_numbers_spoils_no_image(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "unusable").mkdir()
    unusable = brightening(tmp_path / "unusable", math.nan)  # it can't even be prepared
    done, lines = archives.denoised(archive, tmp_path / "output", unusable)
    assert done.by_failure_class == {"crashed": 18, "undecodable": 2}
    assert done.over_budget
    assert "values that are not finite" in lines
    assert not (tmp_path / "output/images").exists()


@pytest.mark.parametrize("given", ["", "%", "-1", "101%", "many", "nan"])
def test_a_budget_that_makes_no_sense_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="must be a number or a share"):
        summary.budget(given)


def test_rows_have_the_table_s_columns_only(ran: Ran, checkpoint: str) -> None:
    parts = list((ran.output / "status").glob("*.parquet"))
    table = pa.parquet.read_table(parts[0])
    assert table.schema.names == status.SCHEMA.names
    assert set(table["checkpoint_sha256"].to_pylist()) == {checkpoints.identified(checkpoint)[1]}
