"""The jobs on several nodes: a head without CPUs, raylets of their own, `ray job submit`, S3."""

import contextlib
import io
import os
import re
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cluster import local
from pix2pix import checkpoints, denoising, settings, status, storage, training
from pix2pix.source import CHUNK_IMAGES
from pix2pix.stages import THREADS, Way
from tests.conftest import ADDED, FaultyProxy, S3Server, faulty_proxy, s3_action
from tests.raylets import Reads, filled, ran, stopped, submitted, up, works
from tests.runs import furthest, weights

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parent.parent
# what a run of the same job elsewhere, or at another time, writes otherwise
OF_THE_RUN = ("output_uri", "seconds_fetch", "seconds_denoise", "seconds_write", "node")
STOPPED = 0  # what `ray job submit` ends with if the job was stopped (Ray 2.60)
TRAINING = {
    "width": 4, "levels": 2, "discriminator_width": 4, "crop_pixels": 32, "batch": 20,
    "learning_rate": 1e-3, "warm_up_steps": 0, "precision": "float32", "validation_scenes": "002",
}  # fmt: skip


@pytest.fixture(scope="module")
def gate(s3: S3Server) -> Iterator[FaultyProxy]:
    """Sees what the raylets ask the S3 server."""
    with faulty_proxy(s3) as proxy:
        yield proxy


@contextlib.contextmanager
def _of_nodes(s3: S3Server, gate: FaultyProxy) -> Iterator[None]:
    """The AWS variables of the nodes: keys that may read archives and fill outputs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", gate.endpoint_url)
        patch.setenv("AWS_ACCESS_KEY_ID", s3.keys["nightly"]["accessKey"])
        patch.setenv("AWS_SECRET_ACCESS_KEY", s3.keys["nightly"]["secretKey"])
        yield


@pytest.fixture(scope="module")
def raylets(s3: S3Server, gate: FaultyProxy) -> Iterator[local.Raylets]:
    """A head and two workers with a CPU each."""
    running = contextlib.ExitStack()
    with _of_nodes(s3, gate):
        made = running.enter_context(up())
    with running:
        yield made


@pytest.fixture
def grown(raylets: local.Raylets, s3: S3Server, gate: FaultyProxy) -> Callable[[int], int]:
    """Adds nodes until at least so many live beside the head; the number of the last one."""

    def grown(workers: int) -> int:
        with _of_nodes(s3, gate):
            while len(_workers(raylets)) < workers:
                local.added(raylets)
        return max(_workers(raylets))

    return grown


def _table(output: str) -> list[dict]:
    """All that two runs over the same archive must agree on, row by row."""
    rows = status.current(output).to_pylist()
    return [{n: v for n, v in row.items() if n not in (*OF_THE_RUN, "finished_at")} for row in rows]


def _pixels(output: str) -> dict[str, bytes]:
    return {e.relative_path: storage.read(e.uri) for e in storage.files(f"{output}/images")}


def _denoised_here(archive: str, output: str, checkpoint: str) -> None:
    way = Way(*checkpoints.identified(checkpoint))
    denoising.denoised(archive, output, way, max_failed="50%", show=lambda line: None)


def _workers(raylets: local.Raylets) -> set[int]:
    """The nodes beside the head that live."""
    return {n for n in range(1, len(raylets.nodes)) if local.processes(raylets, [n])}


def _options(**more: object) -> list[str]:
    """`TRAINING` and more, as the job's options."""
    values = TRAINING | more
    return [w for n, v in values.items() for w in (f"--{n.replace('_', '-')}", str(v))]


def _trained_here(pairs: str, run: Path, **more: object) -> None:
    wanted = settings.Settings(**TRAINING | {"validation_scenes": ("002",)} | more)
    training.trained(pairs, str(run), wanted, show=lambda line: None)


def _denoise_as_here(
    raylets: local.Raylets, s3: S3Server, checkpoint: str, log: Path, **variables: str
) -> str:
    """Denoises in the cluster and in this process; fails if anything differs. What the job said."""
    archive, output = s3.bucket_url("archive"), s3.bucket_url("output")
    paths = filled(f"{archive}/archive", 40)
    storage.copy(checkpoint, f"{archive}/checkpoint")
    words = (f"{archive}/archive", f"{output}/there", "--checkpoint", f"{archive}/checkpoint")
    code, text, worked = ran(
        raylets, log, "jobs/denoise.py", *words, "--max-failed", "50%", **variables
    )
    assert code == 1, text  # of `ray job submit`, whatever the job's was
    assert "failed with exit code 3" in text
    assert worked == _workers(raylets)
    _denoised_here(f"{archive}/archive", f"{output}/here", f"{archive}/checkpoint")
    assert [row["relative_path"] for row in _table(f"{output}/there")] == sorted(paths)
    assert _table(f"{output}/there") == _table(f"{output}/here")
    assert len(_pixels(f"{output}/there")) == len(paths) - 1
    assert _pixels(f"{output}/there") == _pixels(f"{output}/here")
    return text


def _train_as_here(
    raylets: local.Raylets, s3: S3Server, workers: int, folder: Path
) -> tuple[str, str]:
    """Trains in the cluster and, with one worker, in this process; the run, what the job said."""
    archive, run = s3.bucket_url("archive"), s3.bucket_url("output")
    storage.copy(str(ROOT / "samples/pairs"), archive)
    few = {"epochs": 2, "patches_per_pair": 1}
    words = (archive, run, *_options(workers=workers, **few))
    code, text, worked = ran(raylets, folder / "log", "jobs/train.py", *words)
    assert code == 0, text
    assert worked == _workers(raylets)
    _trained_here(archive, folder / "here", **few)
    storage.copy(run, str(folder / "there"))
    here = weights(folder / "here")
    ends = [array for array in here.values() if array.shape == (3, 3, 4, 3)]  # zero at first
    assert max(np.abs(array).max() for array in ends) > 1e-4
    assert furthest(here, weights(folder / "there")) < 1e-4
    return run, text


def test_what_is_up_is_found_and_not_started_twice(raylets: local.Raylets) -> None:
    assert local.found(raylets.folder) == raylets
    with pytest.raises(RuntimeError, match="a cluster is up in"):
        local.started(folder=raylets.folder)


def test_what_cannot_be_started_is_refused_before_anything_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="must have at most 40 bytes"):
        local.started(folder=tmp_path / "a folder with a long name")
    with pytest.raises(RuntimeError, match="no cluster is up in"):
        local.ended(tmp_path / "a folder with a long name")


def test_two_raylets_denoise_as_this_process_does(
    raylets: local.Raylets, s3: S3Server, ray_cluster: None, checkpoint: str, tmp_path: Path
) -> None:
    text = _denoise_as_here(raylets, s3, checkpoint, tmp_path / "log")
    assert "41 images: 40 denoised, 1 failed" in text
    assert not any(secret in text for secret in s3.keys["nightly"].values())


def test_two_raylets_learn_what_this_process_does(
    raylets: local.Raylets, gate: FaultyProxy, s3: S3Server, ray_cluster: None, tmp_path: Path
) -> None:
    gate.seen.clear()
    run, text = _train_as_here(raylets, s3, 2, tmp_path)
    assert "epoch 2/2  step 4" in text
    assert checkpoints.resolved(run).startswith(f"{run}/checkpoints/step-")
    names = {entry.relative_path.split("/")[0] for entry in storage.files(run)}
    assert names == {
        *("best", "latest", "settings.json", "checkpoints"),
        *("history.parquet", "curves.png", "tensorboard"),
    }
    assert not any(secret in text for secret in s3.keys["nightly"].values())
    assert {s3_action(request) for request in gate.seen} == {
        *(("archive", action) for action in ("ListBucket", "GetObject")),
        *(("output", action) for action in ("ListBucket", "GetObject", "PutObject")),
        ("output", "DeleteObject"),  # of checkpoints that others have superseded
    }


def test_an_installed_program_that_is_refused_fails_with_the_reason(
    raylets: local.Raylets, tmp_path: Path
) -> None:
    (tmp_path / "pairs").mkdir()
    words = ("train", str(tmp_path / "pairs"), str(tmp_path / "run"))
    code, text, _ = ran(raylets, tmp_path / "log", *words)
    assert code == 1
    assert "no pairs under" in text


def test_the_keys_are_in_no_log_and_in_no_list_of_processes(
    raylets: local.Raylets, s3: S3Server
) -> None:
    """After the jobs above; two nodes have worked for them, and their keys are variables there."""
    logs = [path for path in raylets.folder.rglob("*.*") if path.is_file() and path.stat().st_size]
    said = {str(path): path.read_bytes() for path in logs}
    running = {}
    for pid in local.processes(raylets, [*range(len(raylets.nodes))]):
        with contextlib.suppress(OSError):
            running[str(pid)] = Path(f"/proc/{pid}/cmdline").read_bytes()
    assert any(b"41 images: 40 denoised" in data for data in said.values())  # a job's log is there
    assert any(b"raylet" in words for words in running.values())
    for secret in s3.keys["nightly"].values():
        assert [name for name, data in (said | running).items() if secret.encode() in data] == []


@pytest.mark.slow
def test_a_driver_s_own_cpus_stay_its_own(
    raylets: local.Raylets,
    s3: S3Server,
    checkpoint: str,
    grown: Callable[[int], int],
    tmp_path: Path,
) -> None:
    """With one of two nodes for itself, all of it, the process that denoises is on the other."""
    archive, output = s3.bucket_url("archive"), s3.bucket_url("output")
    paths, _ = filled(archive, 40), grown(2)
    words = ("denoise", archive, output, "--checkpoint", checkpoint, "--max-failed", "50%")
    _, text, worked = ran(raylets, tmp_path / "log", *words, cpus=1)
    assert "exit code 3" in text
    assert len(worked) == 1
    assert [row["relative_path"] for row in _table(output)] == sorted(paths)


@pytest.mark.parametrize(("token", "answer"), [("", 401), ("0" * 64, 403), (None, 200)])
def test_who_lacks_the_token_may_not_submit_jobs(
    raylets: local.Raylets, token: str | None, answer: int
) -> None:
    if token is None:
        token = Path(raylets.variables["RAY_AUTH_TOKEN_PATH"]).read_text()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(f"{raylets.dashboard_url}/api/jobs/", headers=headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        code = opener.open(request, timeout=30).status
    except urllib.error.HTTPError as error:
        code = error.code
    assert code == answer


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("ip"), reason="root makes networks")
def test_nodes_with_networks_of_their_own_denoise_as_this_process_does(
    s3: S3Server, ray_cluster: None, checkpoint: str, tmp_path: Path
) -> None:
    with up(namespaces=True) as raylets, faulty_proxy(s3, raylets.nodes[0].address) as proxy:
        there = {"AWS_ENDPOINT_URL": proxy.endpoint_url}  # the server's own is out of their reach
        _denoise_as_here(raylets, s3, checkpoint, tmp_path / "log", **there)


def _all_are_brighter(archive: str, output: str) -> bool:
    """Whether the output has every image, with each value higher by what the generator adds."""
    before, after = (
        {
            entry.relative_path: np.asarray(Image.open(io.BytesIO(storage.read(entry.uri))))
            for entry in storage.files(url)
            if entry.relative_path != "broken.png"
        }
        for url in (archive, f"{output}/images")
    )
    assert before.keys() == after.keys()
    return all(np.array_equal(before[path] + np.uint8(ADDED), after[path]) for path in before)


@pytest.mark.slow
def test_a_node_killed_while_it_denoises_costs_what_it_had_in_work(
    raylets: local.Raylets,
    s3: S3Server,
    gate: FaultyProxy,
    checkpoint: str,
    grown: Callable[[int], int],
    tmp_path: Path,
) -> None:
    archive, output = s3.bucket_url("archive"), s3.bucket_url("output")
    paths, last = filled(archive, 700), grown(2)
    reads = gate.on_read = Reads(archive, 400, lambda: local.killed(raylets, last))
    words = ("jobs/denoise.py", archive, output, "--checkpoint", checkpoint)
    _, text, worked = ran(raylets, tmp_path / "log", *words)
    assert "exit code 3" in text  # the broken one is within the budget of 1%
    assert worked == {*_workers(raylets), last}
    assert f"node {raylets.nodes[last].address} is gone, 2 are left;" in text
    rows = status.current(output).to_pylist()
    assert [row["relative_path"] for row in rows] == sorted(paths)
    assert [row["status"] for row in rows].count("denoised") == 700
    again = [path for path, count in reads.counts.items() if count > 1]
    # what one process has in work, and one that was looked at first, whether it can be read
    assert len(again) <= THREADS * CHUNK_IMAGES + 1
    assert max(reads.counts.values()) <= 3
    assert _all_are_brighter(archive, output)


@pytest.mark.slow
def test_a_node_killed_while_it_trains_costs_no_finished_epoch(
    raylets: local.Raylets,
    s3: S3Server,
    ray_cluster: None,
    grown: Callable[[int], int],
    tmp_path: Path,
) -> None:
    run, last = _long_run(s3), grown(2)
    job = submitted(raylets, tmp_path / "log", "jobs/train.py", *run)
    _wait_for(f"{run[1]}/latest", job)
    assert works(raylets, last)
    local.killed(raylets, last)
    code, text = job.wait(300), (tmp_path / "log").read_text()
    assert code == 0, text
    assert text.count(f"node {raylets.nodes[last].address} is gone, 2 are left;") == 1
    assert re.search(r"worker [01] failed: ", text)
    assert "going on after epoch " in text
    _has_all_epochs(run[1])
    storage.copy(run[1], str(tmp_path / "there"))
    _trained_here(run[0], tmp_path / "here", epochs=EPOCHS, patches_per_pair=STEPS // 2)
    assert furthest(weights(tmp_path / "here"), weights(tmp_path / "there")) < 1e-4


@pytest.mark.slow
def test_a_job_that_denoises_is_stopped_and_goes_on(
    raylets: local.Raylets,
    s3: S3Server,
    gate: FaultyProxy,
    checkpoint: str,
    grown: Callable[[int], int],
    tmp_path: Path,
) -> None:
    archive, output = s3.bucket_url("archive"), s3.bucket_url("output")
    paths, _ = filled(archive, 500), grown(2)
    enough = threading.Event()

    def slower() -> None:  # so that some are left when the job is stopped
        gate.delay_seconds = 1.0
        enough.set()

    at = 2 * THREADS * (CHUNK_IMAGES - 1) + 50  # more than can be in work: some chunks are done
    reads = gate.on_read = Reads(archive, at, slower)
    words = ("jobs/denoise.py", archive, output, "--checkpoint", checkpoint)
    job = submitted(raylets, tmp_path / "log", *words, name=tmp_path.name)
    assert enough.wait(200), (tmp_path / "log").read_text()
    stopped(raylets, tmp_path.name)
    gate.delay_seconds = 0.0
    assert job.wait(60) == STOPPED
    assert "stopped; the same command again goes on from here" in (tmp_path / "log").read_text()
    done = {row["relative_path"]: reads.counts[row["relative_path"]] for row in _table(output)}
    assert done  # what was done in the seconds before is written down, too
    _, text, _ = ran(raylets, tmp_path / "log", *words)
    assert f"{len(paths) - len(done)} of them now" in text
    assert [row["relative_path"] for row in _table(output)] == sorted(paths)
    assert {path: reads.counts[path] for path in done} == done  # none of them was read again
    assert _all_are_brighter(archive, output)


@pytest.mark.slow
def test_a_job_that_trains_is_stopped_and_goes_on(
    raylets: local.Raylets, s3: S3Server, grown: Callable[[int], int], tmp_path: Path
) -> None:
    run, _ = _long_run(s3), grown(2)
    words = ("jobs/train.py", *run)
    job = submitted(raylets, tmp_path / "log", *words, name=tmp_path.name)
    _wait_for(f"{run[1]}/latest", job)
    stopped(raylets, tmp_path.name)
    assert job.wait(60) == STOPPED
    code, text, _ = ran(raylets, tmp_path / "log", *words)
    assert code == 0, text
    assert "going on after epoch " in text
    _has_all_epochs(run[1])


EPOCHS, STEPS = 3, 4  # in each epoch, which visits every pair twice


def _long_run(s3: S3Server) -> tuple[str, ...]:
    archive, run = s3.bucket_url("archive"), s3.bucket_url("output")
    storage.copy(str(ROOT / "samples/pairs"), archive)
    options = _options(workers=2, epochs=EPOCHS, patches_per_pair=STEPS // 2)
    return archive, run, *options


def _wait_for(url: str, job: subprocess.Popen) -> None:
    limit = time.monotonic() + 200
    while not storage.exists(url):
        assert job.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.1)


def _has_all_epochs(run: str) -> None:
    history = pq.read_table(pa.BufferReader(storage.read(f"{run}/history.parquet"))).to_pydict()
    assert history["epoch"] == list(range(1, EPOCHS + 1))
    assert history["step"] == list(range(STEPS, EPOCHS * STEPS + 1, STEPS))


@pytest.mark.slow
def test_four_raylets_do_as_this_process_does(
    raylets: local.Raylets,
    s3: S3Server,
    ray_cluster: None,
    checkpoint: str,
    grown: Callable[[int], int],
    tmp_path: Path,
) -> None:
    grown(4)
    _denoise_as_here(raylets, s3, checkpoint, tmp_path / "log")
    _train_as_here(raylets, s3, 4, tmp_path)
