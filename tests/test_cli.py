"""The program as a user starts it: real processes, real Ray, its exit codes and its words."""

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest
from PIL import Image

from pix2pix import checkpoints
from pix2pix.settings import Settings

PIX2PIX = str(Path(sys.executable).parent / "pix2pix")
pytestmark = pytest.mark.ray
SAMPLES = Path(__file__).parent.parent / "samples"


def _run(*words: object, address: str = "") -> subprocess.CompletedProcess:
    """What the program did, in a Ray of its own or in the one at an address."""
    command = [PIX2PIX, *map(str, words)]
    variables = os.environ | ({"RAY_ADDRESS": address} if address else {})
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=variables)


@pytest.fixture(scope="module")
def address(ray_cluster: None) -> str:
    """A Ray that runs already: to start one takes most of a command's time."""
    import ray

    return ray.get_runtime_context().gcs_address


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    """A run trained by the program for two epochs of three steps, and what the program said."""
    folder = tmp_path_factory.mktemp("cli") / "run"
    done = _run(
        "train", SAMPLES / "pairs", folder, "--width", 4, "--levels", 2, "--crop-pixels", 32,
        "--discriminator-width", 4, "--batch", 22, "--patches-per-pair", 1, "--epochs", 2,
        "--validation-scenes", "002", "--test-scenes", "009", "--learning-rate", 1e-3,
        "--clean", SAMPLES / "unseen/clean",
    )  # fmt: skip
    return folder, done


def test_help_names_every_command_and_a_setting_s_default() -> None:
    assert all(word in _run("--help").stdout for word in ("train", "denoise", "evaluate"))
    words = _run("train", "--help").stdout
    assert all(f"--{name.replace('_', '-')}" in words for name in vars(Settings()))


def test_training_says_what_it_does_and_nothing_else(
    run: tuple[Path, subprocess.CompletedProcess],
) -> None:
    _, done = run
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "20 pairs to train on, 4 of other scenes (002) to validate on"
    assert lines[1].startswith("10 clean photographs to train on; of all patches 50% camera noise")
    assert [line.split("  ")[0] for line in lines[2:4]] == ["epoch 1/2", "epoch 2/2"]
    assert all("dB" in line and "over noisy" in line for line in lines[2:4])
    assert lines[4].startswith("best checkpoint: epoch ")
    assert len(lines) == 6


def test_denoising_within_the_budget_for_failures_exits_with_3_and_beyond_it_with_4(
    run: tuple[Path, subprocess.CompletedProcess], tmp_path: Path, address: str
) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    noise = np.random.default_rng(0).normal(100, 9, (5, 40, 48, 3)).astype(np.uint8)
    for place in range(5):
        Image.fromarray(noise[place]).save(archive / f"{place}.png")
    (archive / "broken.jpg").write_bytes(b"\xff\xd8 nothing more")
    words = ("--checkpoint", run[0], "--clean-sigma", 0)  # a run of six steps takes next to nothing
    command = ("denoise", archive, tmp_path / "output", *words)
    done = _run(*command, "--max-failed", "20%", "--embed", address=address)
    assert (done.returncode, done.stderr) == (3, "")
    assert "6 images: 5 denoised, 1 failed" in done.stdout
    assert len(list((tmp_path / "output/images").iterdir())) == 5
    query = f"select count(*), count(denoised) from '{tmp_path}/output/status/*.parquet'"
    assert duckdb.sql(query).fetchall() == [(6, 5)]
    again = _run(*command, address=address)  # the default budget is 1%
    assert (again.returncode, again.stderr) == (4, "")
    assert "6 images: 5 denoised, 1 failed; 0 of them now" in again.stdout
    (tmp_path / "output/images/3.png").unlink()
    done = _run("verify", archive, tmp_path / "output", address=address)
    assert (done.returncode, done.stderr) == (5, "")
    assert "gap: 3.png: its object is gone" in done.stdout


def test_evaluation_shows_every_pair_and_leaves_a_sheet(
    run: tuple[Path, subprocess.CompletedProcess], tmp_path: Path, address: str
) -> None:
    words = ("evaluate", SAMPLES / "unseen", "--checkpoint", run[0], "--report", tmp_path)
    done = _run(*words, address=address)
    assert (done.returncode, done.stderr) == (0, "")
    names = [path.name for path in (SAMPLES / "unseen/noisy").iterdir()]
    assert all(name in done.stdout for name in names)
    assert "mean of 10" in done.stdout
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.height > 2 * sheet.width  # ten rows of three


@pytest.mark.slow
def test_an_exported_checkpoint_has_its_own_scores_and_denoises(
    run: tuple[Path, subprocess.CompletedProcess], tmp_path: Path
) -> None:
    done = _run("export", run[0], tmp_path / "shipped", "--pairs", SAMPLES / "pairs")
    assert (done.returncode, done.stderr) == (0, "")
    trained, card = (checkpoints.card_of(str(place)) for place in (run[0], tmp_path / "shipped"))
    assert card["weights_sha256"] in done.stdout
    assert card["scores_with"] == "these weights, computed in float32"
    for name in ("psnr_db", "noisy_psnr_db"):  # bfloat16 and float16 move them a little
        assert card[name] == pytest.approx(trained[name], abs=0.1)
    assert card["noisy_ssim"] == pytest.approx(trained["noisy_ssim"], abs=1e-6)
    photo = sorted((SAMPLES / "unseen/noisy").iterdir())[0]
    words = ("denoise", photo, tmp_path / photo.name, "--checkpoint", tmp_path / "shipped")
    done = _run(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{photo}: ")
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("train", "nowhere", "run", "--crop-pixels", "300"), 2, "crop_pixels=300 must be"),
        (("train",), 2, "Missing argument"),
        (("denoise", "a", "b", "--checkpoint", "c", "--strength", "2"), 2, "strength"),
        (("train", "nowhere", "run"), 1, "pix2pix: "),
        (("denoise", "nowhere", "out", "--checkpoint", "none"), 1, "pix2pix: no checkpoint at"),
    ],
)
def test_what_is_wrong_is_told_in_a_sentence_with_its_exit_code(
    words: tuple[str, ...], code: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = _run(*words)
    assert done.returncode == code, done.stderr
    assert told in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
