"""Keys that may little, at an S3 server that enforces it: what they suffice for, and who sees them.

What they may is in `conftest.IDENTITIES`.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pix2pix import checkpoints, denoising, status, storage
from pix2pix.stages import Way
from tests.conftest import FaultyProxy, S3Server, faulty_proxy, s3_action
from tests.raylets import noisy_png

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parent.parent
IMAGES = 12


def _use(keys: dict[str, str], patch: pytest.MonkeyPatch) -> None:
    patch.setenv("AWS_ACCESS_KEY_ID", keys["accessKey"])
    patch.setenv("AWS_SECRET_ACCESS_KEY", keys["secretKey"])


@pytest.fixture(scope="module")
def archive(s3: S3Server) -> str:
    url = s3.bucket_url("archive")
    for number in range(IMAGES):
        storage.write(f"{url}/{number}.png", noisy_png(number))
    storage.write(f"{url}/broken.png", b"no image")
    return url


@dataclass
class Job:
    """A job that ran with keys which may read the archive and fill the output."""

    keys: dict[str, str]
    output: str
    code: int
    text: str
    requests: list[str]
    process_list: str  # all command lines that were ever seen
    notes: dict[str, bytes]  # what Ray has written down, by path


@pytest.fixture(scope="module")
def job(s3: S3Server, archive: str, checkpoint: str) -> Iterator[Job]:
    keys, output = s3.keys["nightly"], s3.bucket_url("output")
    with faulty_proxy(s3) as proxy, tempfile.TemporaryDirectory(prefix="rl", dir="/tmp") as folder:
        others = {n: value for n, value in os.environ.items() if not n.startswith("RAY_")}
        own = {
            "AWS_ACCESS_KEY_ID": keys["accessKey"],
            "AWS_SECRET_ACCESS_KEY": keys["secretKey"],
            "AWS_ENDPOINT_URL": proxy.endpoint_url,
            "RAY_TMPDIR": folder,
        }
        command = [sys.executable, "jobs/denoise.py", archive, output, "--checkpoint", checkpoint]
        process = subprocess.Popen(
            [*command, "--max-failed", "1", "--verbose"], cwd=ROOT, env=others | own, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        lines: set[str] = set()
        watch = threading.Thread(target=_watch, args=(process, lines))
        watch.start()
        text, _ = process.communicate(timeout=200)
        watch.join()
        notes = {str(p): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}
        yield Job(keys, output, process.returncode, text, proxy.seen, "\n".join(lines), notes)


def _watch(process: subprocess.Popen, lines: set[str]) -> None:
    while process.poll() is None:
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                lines.add(path.read_text(errors="replace").replace("\0", " "))
        time.sleep(0.1)


def test_reading_the_archive_and_filling_the_output_is_enough(job: Job) -> None:
    assert job.code == 3, job.text  # the broken one
    rows = status.current(job.output).to_pylist()
    assert [row["status"] for row in rows].count("denoised") == IMAGES
    assert len(rows) == IMAGES + 1


def test_keys_that_may_not_write_to_the_archive_can_not(
    s3: S3Server, archive: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(s3.keys["nightly"], monkeypatch)
    with pytest.raises(PermissionError):
        storage.write(f"{archive}/0.png", b"other bytes")
    with pytest.raises(PermissionError):
        storage.remove(f"{archive}/0.png")


def test_a_job_asks_for_no_more_than_the_policy_in_the_manual_grants(job: Job) -> None:
    assert {s3_action(request) for request in job.requests} == {
        *(("archive", action) for action in ("ListBucket", "GetObject")),
        *(("output", action) for action in ("ListBucket", "GetObject", "PutObject")),
        ("output", "DeleteObject"),  # its lease, and parts of the table that became one
    }


def test_no_log_holds_the_keys(job: Job) -> None:
    assert "denoised" in job.text
    assert len(job.notes) > 5
    for key in job.keys.values():
        assert key not in job.text
        assert [path for path, data in job.notes.items() if key.encode() in data] == []


def test_no_row_holds_the_keys(job: Job) -> None:
    assert not any(key in str(status.current(job.output).to_pylist()) for key in job.keys.values())


def test_nothing_in_the_output_holds_the_keys(job: Job) -> None:
    objects = {entry.relative_path: storage.read(entry.uri) for entry in storage.files(job.output)}
    assert json.loads(objects["summary.json"])["state"] == "finished"
    for key in job.keys.values():
        assert [path for path, data in objects.items() if key.encode() in data] == []


def test_no_process_list_holds_the_keys(job: Job) -> None:
    assert "jobs/denoise.py s3://archive-" in job.process_list  # it was looked at
    assert "ray::" in job.process_list
    assert not any(key in job.process_list for key in job.keys.values())


UNKNOWN = {"accessKey": "0" * 20, "secretKey": "1" * 40}


@pytest.mark.parametrize(
    ("who", "words"),
    [
        ("unknown", r"cannot .* s3://output-.*: .*key"),
        ("wrong secret", r"cannot .* s3://output-.*: .*signature"),
        ("blind", r"cannot list s3://archive-.*: Access Denied"),
        ("lister", r"cannot read s3://archive-.*: .*(Access Denied|Forbidden).* 8 of the archive"),
        ("reader", r"cannot .* s3://output-.*: Access Denied"),
    ],
)
def test_keys_that_do_not_suffice_end_the_job_at_once(
    s3: S3Server, proxy: FaultyProxy, archive: str, checkpoint: str, ray_cluster: None,
    monkeypatch: pytest.MonkeyPatch, who: str, words: str,
) -> None:  # fmt: skip
    output = s3.bucket_url("output")
    wrong = {"unknown": UNKNOWN, "wrong secret": s3.user | {"secretKey": UNKNOWN["secretKey"]}}
    _use(wrong.get(who) or s3.keys[who], monkeypatch)
    way = Way(*checkpoints.identified(checkpoint))
    proxy.seen.clear()
    with pytest.raises(PermissionError, match=words):
        denoising.denoised(archive, output, way, show=lambda line: None)
    refused = [request for request in proxy.seen if archive.removeprefix("s3://") in request]
    assert len(refused) <= 10  # each once: one for a listing, or eight images, and none again
    _use(s3.user, monkeypatch)
    assert status.current(output).num_rows == 0  # the same command will do all, with better keys


def test_the_program_says_in_a_sentence_that_keys_do_not_suffice(
    s3: S3Server, archive: str, checkpoint: str, ray_cluster: None
) -> None:
    import ray

    own = {
        "AWS_ACCESS_KEY_ID": UNKNOWN["accessKey"],
        "AWS_SECRET_ACCESS_KEY": UNKNOWN["secretKey"],
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
    }
    command = [sys.executable, "jobs/denoise.py", archive, s3.bucket_url("output")]
    done = subprocess.run(
        [*command, "--checkpoint", checkpoint], cwd=ROOT, env=os.environ | own, text=True,
        capture_output=True, timeout=200,
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot list s3://output-" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not any(key in done.stderr + done.stdout for key in UNKNOWN.values())
