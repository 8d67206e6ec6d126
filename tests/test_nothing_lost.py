"""Whatever dies: one row for every image, and every output as an undisturbed run writes it."""

import contextlib
import hashlib
import io
import os
import random
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cluster import local
from pix2pix import checkpoints, prometheus, stages, status, storage
from pix2pix.stages import Way
from tests.conftest import FaultyProxy, S3Server
from tests.raylets import up

ROOT = Path(__file__).parent.parent
PROCESS = b"ray::MapWorker(MapBatches(Denoise))"  # what Ray calls the processes that denoise
BROKEN = {  # by the end of their names
    "half.png": "undecodable",
    "half.jpg": "undecodable",
    "empty.jpg": "undecodable",
    "text.jpg": "undecodable",
    "animation.jpg": "unsupported",
    "bomb.png": "too_large",
}


def _photographs() -> Iterator[np.ndarray]:
    """Crops of noisy photographs, each another one."""
    paths = sorted((ROOT / "samples/unseen/noisy").iterdir())
    whole = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    chance = random.Random(1)
    while True:
        photograph = chance.choice(whole)
        top, left = chance.randrange(160), chance.randrange(160)
        yield photograph[top : top + chance.choice([64, 72]), left : left + chance.choice([64, 96])]


def _encoded(photograph: Image.Image, format_name: str) -> bytes:
    file = io.BytesIO()
    photograph.save(file, format_name)
    return file.getvalue()


def broken_files(photograph: Image.Image) -> dict[str, bytes]:
    """A file for each name of `BROKEN`."""
    png, jpg = _encoded(photograph, "PNG"), _encoded(photograph, "JPEG")
    contents = (png[: len(png) // 2], jpg[: len(jpg) // 2], b"", b"no image", _gif(), _bomb())
    return dict(zip(BROKEN, contents, strict=True))


def _bomb() -> bytes:
    """A PNG of 60,000 x 60,000 pixels, as its header says."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    packed = zlib.compress(bytes(1_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(
        b"IEND", b""
    )  # fmt: skip


def _fill(archive_url: str, images: int, broken_of_each: int) -> set[str]:
    """Writes an archive; the relative paths of all its images."""
    photographs = _photographs()
    files: dict[str, bytes] = {}
    for number in range(broken_of_each):
        for name, data in broken_files(Image.fromarray(next(photographs))).items():
            files[f"odd {number}/{name}"] = data
    for number in range(images - len(files)):
        name, format_name = (("png", "PNG"), ("jpg", "JPEG"))[number % 2]
        files[f"{number % 7}/{number:04d}.{name}"] = _encoded(
            Image.fromarray(next(photographs)), format_name
        )
    for path, data in files.items():
        storage.write(f"{archive_url}/{path}", data)
    storage.write(f"{archive_url}/Thumbs.db", b"a stray file")
    return set(files)


def _gif() -> bytes:
    file = io.BytesIO()
    frames = [Image.new("P", (64, 64), colour) for colour in (1, 2)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def _job(
    archive: str, output: str, checkpoint: str, log: Path, **variables: str
) -> subprocess.Popen:
    command = [
        *(sys.executable, "jobs/denoise.py", archive, output),
        *("--checkpoint", checkpoint, "--max-failed", "2%"),
    ]
    with log.open("ab") as file:
        return subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=file, env={**os.environ, **variables}
        )


def _processes(folder: str) -> list[int]:
    """Living processes that denoise, of the Ray whose notes and logs are in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended, or another user's
            ours = os.readlink(path / "fd/1").startswith(folder)
            if ours and (path / "cmdline").read_bytes().startswith(PROCESS):
                found.append(int(path.name))
    return found


def _hashes(images_url: str) -> dict[str, str]:
    return {
        entry.relative_path: hashlib.sha256(storage.read(entry.uri)).hexdigest()
        for entry in storage.files(images_url)
    }


class Killings:
    """Kills something at the n-th read of an image, as the proxy sees it.

    Args:
        archive: Whose images.
        folder: Of Ray's notes and logs.
    """

    def __init__(self, archive: str, folder: str) -> None:
        self.archive = "/" + archive.removeprefix("s3://") + "/"
        self.folder = folder
        self.reads, self.lock = 0, threading.Lock()
        self.plan: dict[int, Callable[[], None]] = {}
        self.killer = ""  # an image with this name kills whoever reads it

    def __call__(self, path: str) -> None:
        if not path.startswith(self.archive):
            return
        with self.lock:
            self.reads += 1
            kill = self.plan.pop(self.reads, None)
        if kill:
            kill()
        if self.killer and path.endswith(self.killer):
            _kill(_processes(self.folder))

    def after(self, reads: int, kill: Callable[[], None]) -> None:
        with self.lock:
            self.plan[self.reads + reads] = kill


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _rows(output: str) -> dict[str, dict]:
    return {row["relative_path"]: row for row in status.current(output).to_pylist()}


def _classes(output: str) -> dict[str, str]:
    return {p: r["failure_class"] for p, r in _rows(output).items() if r["status"] == "failed"}


def _verified(archive: str, output: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-c", "from pix2pix import cli; cli.main()", "verify", archive, output],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "jobs.log"


@pytest.fixture
def ray_folder() -> Iterator[str]:
    """A folder for a Ray's notes and logs, with a name that is short enough for its sockets."""
    with tempfile.TemporaryDirectory(prefix="rl", dir="/tmp", ignore_cleanup_errors=True) as folder:
        yield folder


def test_a_killed_driver_a_killed_process_and_a_killer_among_the_images_lose_nothing(
    s3: S3Server, proxy: FaultyProxy, checkpoint: str, log: Path, ray_folder: str
) -> None:
    bucket = s3.bucket_url("lost")
    archive = f"{bucket}/archive"
    paths = _fill(archive, 47, broken_of_each=1)
    killer = "3/0017.jpg"
    assert killer in paths
    killings = proxy.on_read = Killings(archive, ray_folder)
    proxy.shares = {"503": 0.05, "cut": 0.01}
    own = {"RAY_TMPDIR": ray_folder}

    killings.after(20, lambda: driver.send_signal(signal.SIGKILL))
    driver = _job(archive, f"{bucket}/output", checkpoint, log, **own)
    assert driver.wait(120) == -signal.SIGKILL, log.read_text()
    killings.killer = killer
    killed: list[int] = []

    def kill_all() -> None:
        killed.extend(_processes(ray_folder))
        _kill(killed)

    killings.after(10, kill_all)
    driver = _job(archive, f"{bucket}/output", checkpoint, log, **own)
    assert driver.wait(200) == 4, log.read_text()  # 7 of 47 failed, 2% were acceptable
    assert killed

    rows = _rows(f"{bucket}/output")
    assert set(rows) == paths
    failures = {path: BROKEN[path.split("/")[1]] for path in paths if path.startswith("odd")}
    assert _classes(f"{bucket}/output") == failures | {killer: "crashed"}
    assert "3 processes died" in rows[killer]["message"]
    assert "processes died while they denoised: what they had in work was" in log.read_text()
    killings.killer, proxy.shares = "", {}
    alone = stages.Denoise("", Way(*checkpoints.identified(checkpoint)), None, False, 0)
    expected = {}
    for path in paths - set(failures) - {killer}:  # as one process writes it that nothing disturbs
        data = storage.read(f"{archive}/{path}")
        encoded, _ = alone.result(data, path, False, prometheus.Watch())
        expected[path] = hashlib.sha256(encoded).hexdigest()
    assert len(expected) == 40
    assert _hashes(f"{bucket}/output/images") == expected
    assert {p: r["output_sha256"] for p, r in rows.items() if r["output_sha256"]} == expected


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(3000)
def test_a_thousand_photographs_survive_everything(
    s3: S3Server, proxy: FaultyProxy, checkpoint: str, log: Path
) -> None:
    chance = random.Random(2026)
    bucket = s3.bucket_url("faults")
    archive, output = f"{bucket}/archive", f"{bucket}/output"
    paths = _fill(archive, 1000, broken_of_each=2)

    def run(expected: int, seconds: float = 900) -> None:
        assert driver.wait(seconds) == expected, log.read_text()[-5000:]

    with up(workers=1, head_cpus=1) as raylets:
        where, folder = raylets.variables, str(raylets.folder)
        killings = proxy.on_read = Killings(archive, folder)
        driver = _job(archive, f"{bucket}/undisturbed", checkpoint, log, **where)
        run(3)
        proxy.shares = {"503": 0.05, "cut": 0.01}
        for _ in range(5):
            killings.after(chance.randint(1, 150), lambda: driver.send_signal(signal.SIGKILL))  # noqa: B023 - the one of its moment
            driver = _job(archive, output, checkpoint, log, **where)
            run(-signal.SIGKILL)
        actors: list[int] = []

        def kill_an_actor() -> None:
            one = _processes(folder)[:1]
            _kill(one)
            actors.extend(one)

        for reads in chance.sample(range(5, 120), 3):
            killings.after(reads, kill_an_actor)
        killings.after(150, lambda: local.killed(raylets, 1))
        driver = _job(archive, output, checkpoint, log, **where)
        run(3)
        assert not killings.plan  # all that was to be killed was
        assert len(set(actors)) == 3

        failures = {path: BROKEN[path.split("/")[1]] for path in paths if path.startswith("odd")}
        assert len(failures) == 12
        assert status.current(output).num_rows == 1000
        assert set(_rows(output)) == paths
        assert _classes(output) == failures
        outputs = _hashes(f"{output}/images")
        assert len(outputs) == 988
        assert outputs == _hashes(f"{bucket}/undisturbed/images")
        proxy.shares = {}
        assert _verified(archive, output)[0] == 0
        storage.remove(f"{output}/images/1/0001.jpg")
        code, text = _verified(archive, output)
        assert (code, "gap: 1/0001.jpg: its object is gone" in text) == (5, True)
        driver = _job(archive, output, checkpoint, log, **where)
        run(3)
        assert _verified(archive, output)[0] == 0
        assert _hashes(f"{output}/images") == outputs
