import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from pix2pix import checkpoints, images, single
from pix2pix.stages import Way
from tests import photographs
from tests.conftest import ADDED, brightening

ORIENTATION = 0x0112


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A noisy photograph that lies on its side, says its Exif."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = tmp_path / "photo.png"
    Image.fromarray(photographs.pixels(64, 80)).save(path, exif=exif)
    return path


def _way(checkpoint: str, **options: object) -> Way:
    return Way(*checkpoints.identified(checkpoint), **options)


def test_one_photograph_becomes_one_file_with_its_metadata_and_our_mark(
    photo: Path, checkpoint: str
) -> None:
    target = photo.parent / "deeper" / "out.png"
    original = photo.read_bytes()
    row = single.denoised(str(photo), str(target), _way(checkpoint))
    before, after = (np.asarray(Image.open(path)).astype(int) for path in (photo, target))
    np.testing.assert_array_equal(after, np.minimum(before + ADDED, 255))
    assert Image.open(target).getexif()[ORIENTATION] == 6
    assert images.decode(target.read_bytes()).is_denoised
    assert photo.read_bytes() == original
    noise = [row["noise_sigma_before"], row["noise_sigma_after"]]
    told = f"{photo}: denoised, noise {noise[0]:.2f} -> {noise[1]:.2f} levels of 255, no harm found"
    assert single.line(row) == f"{told}; {target}"


@pytest.mark.parametrize(("clean_sigma", "levels"), [(0.15, 1), (0.0, 2)])
def test_of_what_is_hardly_more_than_nothing_a_part_is_taken_unless_all_is_asked_for(
    photo: Path, tmp_path: Path, checkpoint: str, clean_sigma: float, levels: int
) -> None:
    before = np.array(Image.open(photo))
    # half of them can't get brighter: a root mean square of 1.4 levels instead of 2
    before[np.random.default_rng(0).random(before.shape[:2]) < 0.5] = 255
    Image.fromarray(before).save(photo)
    out = tmp_path / "out.png"
    single.denoised(str(photo), str(out), _way(checkpoint, clean_sigma=clean_sigma))
    taken = np.asarray(Image.open(out)).astype(int) - before
    assert set(taken[before < 250].tolist()) == {levels}


def test_a_deep_ramp_keeps_more_than_256_levels(tmp_path: Path, checkpoint: str) -> None:
    ramp = np.linspace(5_000, 60_000, 1024) + np.random.default_rng(0).normal(0, 900, (64, 1024))
    before = np.repeat(np.rint(ramp).astype(np.uint16)[:, :, np.newaxis], 3, axis=2)
    tifffile.imwrite(tmp_path / "ramp.tif", before, photometric="rgb")
    single.denoised(str(tmp_path / "ramp.tif"), str(tmp_path / "out.tif"), _way(checkpoint))
    after = tifffile.imread(tmp_path / "out.tif")
    assert after.dtype == np.uint16
    np.testing.assert_allclose(after.astype(int), before.astype(int) + ADDED * 257, atol=2)
    assert len(np.unique(after)) > 10_000


def test_nothing_is_written_over_not_even_by_another_name(photo: Path, checkpoint: str) -> None:
    link = photo.parent / "link.png"
    link.hardlink_to(photo)
    original = photo.read_bytes()
    for target in (photo, link):
        with pytest.raises(FileExistsError, match="is there already"):
            single.denoised(str(photo), str(target), _way(checkpoint))
    assert photo.read_bytes() == original


def test_what_would_be_harmed_is_copied_and_told(photo: Path, tmp_path: Path) -> None:
    harmful = brightening(_made(tmp_path / "harmful"), 40)
    row = single.denoised(str(photo), str(tmp_path / "out.png"), _way(harmful))
    assert (tmp_path / "out.png").read_bytes() == photo.read_bytes()
    assert "kept from harm; mean shift " in single.line(row)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_what_is_clean_is_copied_and_told(photo: Path, checkpoint: str) -> None:
    target = photo.parent / "out.png"
    row = single.denoised(str(photo), str(target), _way(checkpoint, clean_sigma=50.0))
    assert target.read_bytes() == photo.read_bytes()
    assert ": clean already; " in single.line(row)


def test_strength_0_changes_no_byte(photo: Path, tmp_path: Path, checkpoint: str) -> None:
    Image.open(photo).save(tmp_path / "photo.jpg", quality=90)
    for source in (photo, tmp_path / "photo.jpg"):
        target = source.with_stem("out")
        row = single.denoised(str(source), str(target), _way(checkpoint, strength=0.0))
        assert (row["status"], row["message"]) == ("kept_original", "strength 0")
        assert target.read_bytes() == source.read_bytes()


def test_what_would_hardly_change_is_copied_and_told(photo: Path, tmp_path: Path) -> None:
    faint = brightening(_made(tmp_path / "faint"), 0.4)  # less than rounding
    row = single.denoised(str(photo), str(tmp_path / "out.png"), _way(faint))
    assert row["status"] == "skipped_clean"
    assert (tmp_path / "out.png").read_bytes() == photo.read_bytes()
    assert "0 levels would be taken: nobody would see it" in single.line(row)
    row = single.denoised(str(photo), str(tmp_path / "all.png"), _way(faint, clean_sigma=0.0))
    assert row["status"] == "denoised"


def test_a_dry_run_tells_the_same_and_writes_nothing(photo: Path, checkpoint: str) -> None:
    target = photo.parent / "out.png"
    row = single.denoised(str(photo), str(target), _way(checkpoint), write=False)
    assert not target.exists()
    assert single.line(row).endswith("no harm found; nothing was written")


def test_one_photograph_is_two_names_of_images_and_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a.jpeg").write_bytes(b"")
    (tmp_path / "folder.raw").mkdir()
    (tmp_path / "list.csv").write_bytes(b"")
    at = {name: str(tmp_path / name) for name in ("a.jpeg", "folder.raw", "list.csv", "none.jpg")}
    assert single.is_one(at["a.jpeg"], "b.JPG")
    assert not single.is_one(at["folder.raw"], "out")
    assert not single.is_one(at["list.csv"], "out")
    assert not single.is_one(at["none.jpg"], "out")  # the job says what is missing
    with pytest.raises(FileNotFoundError, match=r"none\.jpg"):
        single.is_one(at["none.jpg"], "b.jpg")
    for target in ("b.png", "folder"):
        with pytest.raises(ValueError, match=r"must end in \.jpg .* keeps its format"):
            single.is_one(at["a.jpeg"], target)


def test_the_command_needs_no_ray_and_says_one_line(photo: Path, checkpoint: str) -> None:
    target = photo.parent / "out.png"
    code = (
        "import sys; from pix2pix import cli\n"
        "try: cli.main()\n"
        "finally: print({name.partition('.')[0] for name in sys.modules} & {'ray', 'tensorflow'})"
    )
    words = ["denoise", photo, target, "--checkpoint", checkpoint]
    done = _program(code, words)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"{photo}: denoised, noise ")
    assert lines[1:] == ["{'tensorflow'}"]
    assert images.decode(target.read_bytes()).is_denoised
    again = _program(code, words)
    assert again.returncode == 1
    assert again.stderr.startswith(f"pix2pix: output={target} is there already")


def _program(code: str, words: list[object]) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_photograph_that_fails_exits_as_a_job_whose_only_image_failed(
    tmp_path: Path, checkpoint: str
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 nothing more")
    words = ["denoise", tmp_path / "broken.jpg", tmp_path / "out.jpg", "--checkpoint", checkpoint]
    code = "from pix2pix import cli; cli.main()"
    done = _program(code, words)
    assert (done.returncode, done.stderr) == (4, "")
    assert done.stdout.startswith(f"{tmp_path / 'broken.jpg'}: failed: ")
    assert not (tmp_path / "out.jpg").exists()


def test_one_image_has_no_row_to_embed_it_in(photo: Path, checkpoint: str) -> None:
    command = [sys.executable, "-c", "from pix2pix import cli; cli.main()", "denoise", str(photo)]
    options = [str(photo.with_name("out.png")), "--checkpoint", checkpoint, "--embed"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--embed needs folders" in done.stderr
