"""Claims about pix2pix.outcome."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest

from pix2pix import manifest, outcome, parquet, status, storage, table
from tests.rows import listed, row


def done(name: str, **values: Any) -> dict[str, Any]:
    """The row of a denoised photograph of 2 megapixels."""
    known = {"width": 2000, "height": 1000, "output_uri": f"s3://output/images/{name}"}
    sigmas = {"noise_sigma_before": 4.0, "noise_sigma_after": 1.0, "mean_shift": 0.1}
    return row(name, **(known | sigmas | values))


def output(*parts: list[dict[str, Any]], images: pa.Table | None = None) -> str:
    """An output with these parts of a table, and a manifest of these images."""
    url = f"memory://{uuid4().hex}"
    for rows in parts:
        table.append(url, rows)
    if images is not None:
        folder = storage.join(url, manifest.FOLDER)
        parquet.write(storage.join(folder, "part-0.parquet"), images)
        index = b'{"archive": "s3://archive", "parts": ["part-0.parquet"]}'
        storage.write(storage.join(folder, manifest.INDEX), index)
    return url


def test_counts_and_means_are_those_known_by_hand() -> None:
    rows = [
        done("a", seconds_denoise=3.0, psnr_db=30.0, checkpoint_sha256="one", node="x"),
        done("b", seconds_denoise=5.0, psnr_db=float("inf"), checkpoint_sha256="one", node="y"),
        row("c", status="skipped_clean", width=1000, height=1000, checkpoint_sha256="two"),
        row("d", status="kept_original", message="mean shift 7.3 > 4.0; change 9 > 1"),
        row("e", status="kept_original", message="mean shift 9 > 4; change 2 > 1; no scores: x"),
        row("f", status="kept_original"),
        row("g", status="failed", failure_class="forbidden", message="no"),
        row("h", status="failed", seconds=86400),
    ]
    found = outcome.read(output(rows[:3], rows[3:]))
    assert found.by_status == {"denoised": 2, "skipped_clean": 1, "kept_original": 3, "failed": 2}
    assert found.by_failure_class == {"forbidden": 1, "undecodable": 1}
    assert found.by_checkpoint == {"one": 2, "two": 1}
    assert found.by_node == {"x": 1, "y": 1}
    assert (found.megapixels["denoised"], found.megapixels["skipped_clean"]) == (4.0, 1.0)
    assert found.mean("seconds_denoise") == 4.0
    assert found.mean("psnr_db") == 65.0  # identical counts as 100
    assert found.mean("ssim") is None
    assert found.reasons == {"mean shift, change": 2, "no reason given": 1}
    assert [each["relative_path"] for each in found.kept] == ["d", "e", "f"]
    assert found.failures["forbidden"][0]["message"] == "no"
    assert found.by_day["2026-01-01", "failed"] == found.by_day["2026-01-02", "failed"] == 1
    assert (found.rows, found.images, found.without_row) == (8, None, 0)


def test_noise_is_counted_in_bins_and_nan_in_none() -> None:
    rows = [
        done("a", noise_sigma_before=0.26, noise_sigma_after=0.0),
        done("b", noise_sigma_before=1000.0, noise_sigma_after=float("nan")),
        done("c", noise_sigma_before=None, noise_sigma_after=0.24),
    ]
    noise = outcome.read(output(rows)).noise
    assert (noise["noise_sigma_before"][1], noise["noise_sigma_before"][-1]) == (1, 1)
    assert (noise["noise_sigma_after"][0], noise["noise_sigma_after"].sum()) == (2, 2)


def test_an_image_counts_once_by_its_newest_row_and_not_once_it_left_the_archive() -> None:
    first = [row("a", status="failed"), done("b"), done("gone"), done("changed")]
    url = output(first, [done("a", seconds=9, attempt=2)], images=listed(
        ("a", "1"), ("b", "1"), ("new", "1"), ("changed", "2")
    ))  # fmt: skip
    parts = table.parts(url)
    found = outcome.read(url)
    assert found.by_status == {"denoised": 2}
    assert not found.failures
    assert (found.images, found.without_row, found.left_archive) == (4, 2, 2)
    assert table.parts(url) == parts  # nothing was written


def test_what_is_counted_is_what_the_job_s_own_summary_counts() -> None:
    url = output(
        [done("a"), row("b", status="failed"), done("c")], images=listed(("a", "1"), ("b", "1"))
    )
    found, theirs = outcome.read(url), status.tallies(url)
    assert found.by_status == theirs.by_status
    assert found.by_failure_class == theirs.by_failure_class
    assert found.left_archive == theirs.left_archive == 1
    for name in outcome.NOISE:
        assert found.mean(name) == theirs.means[name]


def test_the_largest_and_some_of_the_rest_are_kept_whatever_the_order() -> None:
    shifts = [(7 * place) % 1000 / 100 for place in range(1000)]
    rows = [done(f"{p:03}", mean_shift=s, noise_sigma_before=10 - s) for p, s in enumerate(shifts)]
    rows += [done("huge", width=10_000, height=10_000, mean_shift=99.0)]
    found = outcome.read(output(*(rows[start : start + 91] for start in range(0, 1001, 91))))
    largest = [99.0, *sorted(shifts, reverse=True)[:24]]
    assert [each["mean_shift"] for each in found.changes] == largest
    assert found.changed_most[0]["mean_shift"] == 9.99  # the huge one can't be shown
    assert found.noisiest[0]["noise_sigma_before"] == 10.0
    places = [int(each["relative_path"]) for each in found.spread]
    assert places == list(range(0, 1000, 8))  # 125 of them


def test_failures_of_a_rare_class_are_seen_among_many_of_another() -> None:
    many = [row(f"{p}", status="failed", failure_class="not_found") for p in range(100)]
    rare = [row("rare", status="failed", failure_class="too_large")]
    failures = outcome.read(output(many, many[:1], rare)).failures
    assert len(failures["not_found"]) == outcome.LISTED
    assert [each["relative_path"] for each in failures["too_large"]] == ["rare"]


def test_text_that_is_not_utf_8_is_read() -> None:
    url = output([done("a")])
    (rows,) = table.rows(url)
    wrong = pa.array([b"caf\xe9"]).cast(pa.binary()).view(pa.string())
    place = rows.schema.get_field_index("relative_path")
    odd = rows.set_column(place, rows.schema.field(place), wrong)
    found = outcome.Outcome()
    found.add(odd.select(outcome.COLUMNS))
    assert found.changes[0]["relative_path"] == "caf\\xe9"


def test_a_part_that_is_no_table_is_refused(tmp_path: Path) -> None:
    (tmp_path / "status").mkdir()
    (tmp_path / "status/part-1.parquet").write_bytes(b"no table")
    with pytest.raises(ValueError, match="Parquet"):
        outcome.read(str(tmp_path))
