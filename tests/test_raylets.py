"""The jobs on a real cluster: `ray start --head`, `ray job submit`, pairs and archive in S3."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pix2pix import checkpoints, status, storage

ROOT = Path(__file__).parent.parent
RAY = str(Path(sys.executable).parent / "ray")

Submit = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="module")
def submit(s3: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Submit]:
    """Submits a job to a cluster of its own, as a user would."""
    home = tmp_path_factory.mktemp("home")
    environment = {
        # without what a Ray in this process has set for itself
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(home),  # so that no token of the developer's turns authentication on
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": tempfile.mkdtemp(prefix="ray"),  # short: the paths of its sockets are long
    }
    gcs, dashboard, agent, client = (_free_port() for _ in range(4))
    log = home / "ray.log"
    with log.open("wb") as output:
        head = subprocess.Popen(
            [RAY, "start", "--head", "--block", "--num-cpus=4", "--node-ip-address=127.0.0.1",
             f"--port={gcs}", f"--dashboard-port={dashboard}", "--min-worker-port=0",
             "--max-worker-port=0", f"--ray-client-server-port={client}",
             f"--dashboard-agent-listen-port={agent}"],  # else another Ray's agent is in the way
            env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    address = f"http://127.0.0.1:{dashboard}"
    limit = time.monotonic() + 180
    while not _answers(f"{address}/api/version"):
        if head.poll() is not None or time.monotonic() > limit:
            os.killpg(head.pid, signal.SIGKILL)
            raise RuntimeError(f"Ray did not come up:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)

    def submitted(*words: str) -> subprocess.CompletedProcess:
        command = [RAY, "job", "submit", "--address", address, "--working-dir", ".", "--", *words]
        while True:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=360
            )
            if "No available agent" not in done.stderr or time.monotonic() > limit:
                return done
            time.sleep(1)  # the head answers before its agent is there

    yield submitted
    os.killpg(head.pid, signal.SIGKILL)  # asked politely, it would drain for half a minute
    shutil.rmtree(environment["RAY_TMPDIR"], ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return opener.open(url, timeout=5).status == 200
    except OSError:
        return False


def test_jobs_train_and_denoise_from_object_storage_to_object_storage(
    submit: Submit, s3: object
) -> None:
    bucket = s3.bucket_url("jobs")
    storage.copy(str(ROOT / "samples"), f"{bucket}/samples")
    trained = submit(
        "python", "jobs/train.py", f"{bucket}/samples/pairs", f"{bucket}/run", "--workers", "2",
        "--width", "4", "--levels", "2", "--crop-pixels", "32", "--discriminator-width", "4",
        "--batch", "22", "--patches-per-pair", "2", "--epochs", "1",
        "--validation-scenes", "002",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stdout + trained.stderr
    assert "epoch 1/1  step 2" in trained.stdout
    best = checkpoints.resolved(f"{bucket}/run")
    assert best.startswith(f"{bucket}/run/checkpoints/step-00000002-")
    names = {entry.relative_path.split("/")[0] for entry in storage.files(f"{bucket}/run")}
    assert names == {
        *("best", "latest", "settings.json", "checkpoints"),
        *("history.parquet", "curves.png", "tensorboard"),
    }
    denoised = submit(
        "python", "jobs/denoise.py", f"{bucket}/samples/unseen/noisy", f"{bucket}/output",
        "--checkpoint", f"{bucket}/run", "--reference", f"{bucket}/samples/unseen/clean",
        "--clean-sigma", "0",  # a run of a few steps takes next to nothing
    )  # fmt: skip
    assert denoised.returncode == 0, denoised.stdout + denoised.stderr
    assert "10 images: 10 denoised" in denoised.stdout
    rows = status.current(f"{bucket}/output").to_pylist()
    assert {row["status"] for row in rows} == {"denoised"}
    assert all(storage.exists(row["output_uri"]) for row in rows)
    assert all(row["psnr_db"] > 15 for row in rows)
    for secret in s3.user.values():
        assert secret not in trained.stdout + trained.stderr + denoised.stdout + denoised.stderr


def test_a_job_that_is_refused_fails_with_the_reason(submit: Submit, tmp_path: Path) -> None:
    (tmp_path / "pairs").mkdir()
    done = submit("python", "jobs/train.py", str(tmp_path / "pairs"), str(tmp_path / "run"))
    assert done.returncode == 1
    assert "no pairs under" in done.stdout
