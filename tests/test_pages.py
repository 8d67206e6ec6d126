"""Claims about pix2pix.pages, and the pages of outputs and runs that it writes."""

import base64
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from pix2pix import cli, manifest, pages, storage, table
from tests.conftest import S3Server
from tests.photographs import pixels, saved
from tests.rows import listed, row
from tests.test_markup import HOSTILE, Seen
from tests.test_outcome import done, output

SCORES = {"psnr_db": 33.0, "noisy_psnr_db": 29.0, "ssim": 0.9, "noisy_ssim": 0.7}
LOSSES = {"l1_loss": 0.03, "adversarial_loss": 0.0, "discriminator_loss": 0.0}


def page(url: str, folder: Path) -> str:
    return storage.read(pages.written(url, str(folder))).decode()


def run(url: str, *gains_db: float, ended: bool = True) -> str:
    """A run of so many epochs, each of which gained so much over the noisy input."""
    epochs = [
        {"epoch": place + 1, "step": 10 * place + 10, **LOSSES, **SCORES, "psnr_db": 29.0 + gain}
        | {"best": gain == max(gains_db[: place + 1]), "steps_per_second": 2.0}
        | {"seconds": 60.0 * place + 60}
        for place, gain in enumerate(gains_db)
    ]
    file = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(epochs), file)
    card = {"epoch": 2, "weights_sha256": "abc", "versions": {"keras": "3"}}
    files = {
        "history.parquet": file.getvalue().to_pybytes(),
        "settings.json": b'{"generator": "residual"}',
        "best": b"checkpoints/step-2",
        "checkpoints/step-2/card.json": json.dumps(card | {"validation_pairs": [HOSTILE]}).encode(),
    } | ({"curves.png": b"png"} if ended else {})
    for name, data in files.items():
        storage.write(storage.join(url, name), data)
    return url


def test_the_page_of_an_output_says_how_many_and_which_failed(tmp_path: Path) -> None:
    failed = row("bad.jpg", status="failed", failure_class="too_large", message="8 gigapixels")
    images = listed(("a.jpg", "1"), ("bad.jpg", "1"), ("same.jpg", "1"))
    kept = row("same.jpg", status="kept_original", message="mean shift 7 > 4")
    url = output([done("a.jpg"), failed, kept], images=images)
    words = Seen(page(url, tmp_path)).words
    assert "1 of 3 images failed (33.33%); the other 2 have a result." in words
    assert "bad.jpg18 gigapixels" in words
    assert "too_large: 1" in words
    assert "same.jpgmean shift 7 > 4" in words
    assert "The original can't be read" in words or "The original is gone" in words


@pytest.mark.parametrize(
    ("rows", "about", "grade", "sentence"),
    [
        ([done("a"), done("b")], {}, "good", "Nothing failed: all 2 images have a result."),
        ([done("a")], {}, "fair", "Not finished: 1 of 2 images done, 0 of them failed."),
        ([done("a"), row("b", status="failed")], {"over_budget": True}, "bad", "than --max-failed"),
    ],
)
def test_the_first_sentence_answers_whether_it_went_well(
    rows: list[dict[str, Any]], about: dict, grade: str, sentence: str, tmp_path: Path
) -> None:
    for each in rows:
        each["output_uri"] = each["uri"] = "memory://nowhere/x"
    url = output(rows, images=listed(("a", "1"), ("b", "1")))
    storage.write(storage.join(url, "summary.json"), json.dumps(about).encode())
    html = page(url, tmp_path)
    assert f'class="verdict {grade}"' in html
    assert sentence in Seen(html).words


def test_hostile_names_and_messages_of_a_table_do_nothing(tmp_path: Path) -> None:
    name = HOSTILE.replace("\ud800", "")  # no table holds half a surrogate pair
    elsewhere = {"uri": f"memory://{name}", "output_uri": f"memory://{name}"}
    rows = [
        done(name, node=name, checkpoint_sha256=name, **{"message": name}) | elsewhere,
        row(name + "1", status="failed", message=name),
        row(name + "2", status="kept_original", message=name),
    ]
    html = page(output(rows), tmp_path)
    seen = Seen(html)
    assert seen.words.count("<script>alert(1)</script>\\n\"'><img src=x") >= 8
    assert seen.tags.isdisjoint({"script", "a", "link"})
    assert not any(each.startswith("on") for each in seen.attributes)


def test_pictures_of_the_output_are_in_the_page_at_their_size(tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("before.png", "after.png")}
    for factor, place in enumerate(places.values(), 1):
        place.write_bytes(saved(Image.fromarray(pixels(400, 500) // factor), "PNG"))
    files = {"uri": str(places["before.png"]), "output_uri": str(places["after.png"])}
    html = page(output([done("a.png") | files]), tmp_path / "report")
    sources = html.split('<div class="crops">')[1].split("data:image/png;base64,")[1:3]
    first, second = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(source.split('"')[0]))))
        for source in sources
    )
    assert first.shape == (320, 320, 3)
    assert np.array_equal(first // 2, second)


def test_an_output_and_its_page_may_be_in_s3(s3: S3Server) -> None:
    bucket = s3.bucket_url()
    before, after = f"{bucket}/archive/a.png", f"{bucket}/output/images/a.png"
    for place in (before, after):
        storage.write(place, saved(Image.fromarray(pixels()), "PNG"))
    table.append(f"{bucket}/output", [done("a.png") | {"uri": before, "output_uri": after}])
    html = storage.read(pages.written(f"{bucket}/output", f"{bucket}/report")).decode()
    assert html.count("data:image/png") == 3  # the histogram, before and after


def test_the_page_of_a_run_shows_what_it_reached(tmp_path: Path) -> None:
    html = page(run(str(tmp_path / "run"), 1.0, 4.25, 4.0), tmp_path)
    words = Seen(html).words
    assert "Finished, after 3 epochs. The best checkpoint, of epoch 2, has 33.25 dB" in words
    assert "+4.25 dB over the noisy input." in words
    assert "22033.25 dB+4.25 dB" in words  # epoch 2, step 20
    assert "weights sha256abc" in words
    assert "<script>" in words
    assert 'class="verdict good"' in html
    assert html.count("data:image/png") == 1


def test_a_run_that_goes_on_or_does_harm_says_so(tmp_path: Path) -> None:
    assert "Not finished yet, after 1 epochs." in page(
        run(str(tmp_path / "on"), 1.0, ended=False), tmp_path
    )
    assert 'class="verdict bad"' in page(run(str(tmp_path / "harm"), -1.0), tmp_path)


def test_a_folder_that_is_neither_is_refused_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    told = CliRunner().invoke(cli.app, ["report", str(tmp_path), str(tmp_path / "page")])
    assert told.exit_code == 1
    assert "must be the OUTPUT of `pix2pix denoise`" in told.output
    assert "give the folder that one of these commands was given" in told.output
    assert not (tmp_path / "page").exists()
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match="wait for the end of its first epoch"):
        pages.written(str(tmp_path), str(tmp_path / "page"))


def test_no_page_is_written_among_originals_or_rows(tmp_path: Path) -> None:
    url = str(tmp_path / "output")
    table.append(url, [done("a")])
    index = json.dumps({"archive": storage.absolute(str(tmp_path / "archive"))})
    storage.write(storage.join(url, manifest.FOLDER, manifest.INDEX), index.encode())
    for folder in ("archive", "archive/x", "output/status", "output/images/x", "output/manifest"):
        with pytest.raises(ValueError, match="choose another folder"):
            pages.written(url, str(tmp_path / folder))
    assert pages.written(url, str(tmp_path / "output/report")).endswith(
        "/output/report/report.html"
    )


def test_a_report_needs_neither_ray_nor_tensorflow(tmp_path: Path) -> None:
    table.append(str(tmp_path / "output"), [done("a") | {"uri": "/x", "output_uri": "/y"}])
    code = (
        "import sys\nfrom pix2pix import pages\n"
        f"pages.written({str(tmp_path / 'output')!r}, {str(tmp_path)!r})\n"
        "print({'ray', 'tensorflow', 'keras'} & set(sys.modules))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "set()\n"
