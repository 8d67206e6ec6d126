"""How many processes denoise: sized from the cluster, and growing with it."""

import io
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from pix2pix import storage
from pix2pix.pairs import CPUS_PER_TASK
from pix2pix.sizing import CPUS_OF_SOURCE, reserved_per_worker, sized
from tests.conftest import ADDED

pytestmark = pytest.mark.ray
ROOT = Path(__file__).parent.parent
SAMPLE = sorted((ROOT / "samples/unseen/noisy").iterdir())[0]


@pytest.mark.parametrize(
    ("nodes", "size", "threads"),
    [
        ([1], 1, 1), ([2], 1, 2), ([4], 1, 4), ([6], 1, 6), ([8], 2, 4), ([16], 4, 4),
        ([64], 16, 4), ([4] * 100, 100, 4), ([8] * 3, 6, 4), ([0, 4, 4], 2, 4), ([2, 8], 2, 5),
    ],
)  # fmt: skip
def test_there_is_a_process_for_every_four_cpus(
    nodes: list[float], size: int, threads: int
) -> None:
    pool = sized(nodes, None, None)
    assert (pool.size, pool.threads, pool.most) == (size, threads, size)


@pytest.mark.parametrize(
    ("nodes", "workers", "reserved"),
    [
        ([2], 1, 1), ([2], 2, 0.5), ([16], 2, 1),  # one node: half of it is for cutting patches
        ([0, 1, 1], 2, 0.25),  # one node lost: two workers take half of the other
        ([0, 1, 1, 1, 1], 4, 0.25), ([1, 1, 1], 3, 1 / 3), ([8, 2], 2, 0.5), ([64] * 4, 4, 1),
    ],
)  # fmt: skip
def test_workers_leave_cpus_for_patches_when_nodes_are_lost(
    nodes: list[float], workers: int, reserved: float
) -> None:
    assert reserved_per_worker(nodes, workers) == pytest.approx(reserved)
    working = sorted(cpus for cpus in nodes if cpus)
    left = sum(working[: math.ceil(len(working) / 2)])
    assert left - workers * reserved >= left / 2 - 1e-9 >= CPUS_PER_TASK - 1e-9


@pytest.mark.parametrize("cpus", [*range(1, 65), 96, 128])
@pytest.mark.parametrize("actors", [None, 3])
def test_the_source_fits_beside_the_processes_of_any_node(cpus: int, actors: int | None) -> None:
    if actors and actors > cpus - 1:
        with pytest.raises(RuntimeError, match=r"give at most --actors|add nodes"):
            sized([cpus], None, actors)
        return
    pool = sized([cpus], None, actors)
    assert pool.size * pool.cpus + CPUS_OF_SOURCE <= cpus + 1e-6
    assert pool.size == (actors or pool.size)


@pytest.mark.parametrize(
    ("nodes", "actors", "most", "expected"),
    [
        ([], None, 50, (1, 4, 50)),  # nobody there yet: the first one waits for a node
        ([4, 4], None, 50, (2, 4, 50)),
        ([4, 4], 10, 50, (10, 4, 50)),  # the rest of them waits for nodes
        ([8] * 9, None, 4, (4, 4, 4)),
        ([2, 2], None, 8, (2, 2, 8)),
    ],
)
def test_a_pool_may_grow_from_what_fits(
    nodes: list[float], actors: int | None, most: int, expected: tuple[int, int, int]
) -> None:
    pool = sized(nodes, None, actors, most)
    assert (pool.size, pool.threads, pool.most) == expected
    assert pool.cpus <= (max(nodes) if nodes else 4) - CPUS_OF_SOURCE + 1e-9


def test_there_is_a_process_for_every_gpu() -> None:
    assert sized([16, 16], 4, None)[:2] == (4, 1.0)
    assert sized([], 0, None, 8)[:2] == (1, 1.0)
    with pytest.raises(RuntimeError, match="has 2 GPUs; give at most --actors 2"):
        sized([16], 2, 3)


def test_fewer_at_most_than_at_least_is_refused() -> None:
    with pytest.raises(ValueError, match="max_actors=2 must be at least actors=3"):
        sized([16], None, 3, 2)


HEAD = f"{'f' * 51}00000"  # what Ray's provider of nodes on this machine calls its head
Started = tuple[dict[str, str], Callable[[], list[int]]]


@pytest.fixture
def growing(s3: object, tmp_path: Path) -> Iterator[Started]:
    """A Ray without CPUs whose own autoscaler may add three nodes: raylets of this machine.

    Gives the environment of its jobs, and a function that finds the raylets.
    """
    kinds = {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "denoise": {
            "resources": {"CPU": 4, "object_store_memory": 100_000_000}, "node_config": {},
            "min_workers": 0, "max_workers": 3,
        },
    }  # fmt: skip
    port = _free_port()
    config: dict[str, Any] = {
        "cluster_name": "growing", "max_workers": 3, "idle_timeout_minutes": 10,
        "provider": {
            "type": "fake_multinode", "head_node_id": HEAD, "gcs_address": f"127.0.0.1:{port}",
            # all have one address, and there is nothing to set up
            "use_node_id_as_ip": True, "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "auth": {}, "docker": {},
        "upscaling_speed": 9, "available_node_types": kinds, "head_node_type": "ray.head.default",
        "file_mounts": {}, "cluster_synced_files": [], "file_mounts_sync_continuously": False,
        "rsync_exclude": [], "rsync_filter": [],
        **{f"{when}_commands": [] for when in (
            "initialization", "setup", "head_setup", "worker_setup", "head_start_ray",
            "worker_start_ray",
        )},
    }  # fmt: skip
    (tmp_path / "growing.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "home").mkdir()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "HOME": str(tmp_path / "home"), "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_TMPDIR": tempfile.mkdtemp(prefix="ray"), "RAY_FAKE_CLUSTER": "1",
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
        "RAY_enable_autoscaler_v2": "0", "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        # of Ray Data: seconds between two requests for nodes, and of what it takes the mean
        "RAY_DATA_MIN_GAP_BETWEEN_AUTOSCALING_REQUESTS": "1",
        "RAY_DATA_CLUSTER_UTIL_AVG_WINDOW_S": "2",
    }  # fmt: skip
    command = [
        str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=0",
        f"--port={port}", "--node-ip-address=127.0.0.1", "--include-dashboard=false",
        f"--dashboard-agent-listen-port={_free_port()}", f"--ray-client-server-port={_free_port()}",
        "--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=100000000",
        f"--autoscaling-config={tmp_path / 'growing.yaml'}",
    ]  # fmt: skip
    log = tmp_path / "ray.log"
    with log.open("wb") as output:
        head = subprocess.Popen(
            command, env=environment, stdout=output, stderr=output, start_new_session=True
        )

    def raylets() -> list[int]:
        return [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if (words := _words(path))[0].endswith("/raylet")
            and any(environment["RAY_TMPDIR"] in word for word in words)
        ]

    limit = time.monotonic() + 120
    while not raylets():
        if head.poll() is not None or time.monotonic() > limit:
            raise RuntimeError(f"Ray did not come up:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)
    yield environment | {"RAY_ADDRESS": f"127.0.0.1:{port}"}, raylets
    os.killpg(head.pid, signal.SIGKILL)
    for raylet in raylets():  # whose workers end with them
        os.kill(raylet, signal.SIGKILL)
    shutil.rmtree(environment["RAY_TMPDIR"], ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _words(cmdline: Path) -> list[str]:
    try:
        return cmdline.read_bytes().decode(errors="replace").split("\0")
    except OSError:  # ended meanwhile
        return [""]


@pytest.mark.slow
def test_the_pool_grows_with_the_cluster_and_no_pixel_depends_on_it(
    growing: Started, s3: object, proxy: object, checkpoint: str, tmp_path: Path
) -> None:
    environment, raylets = growing
    bucket, count = s3.bucket_url("growing"), 500
    pixels = np.asarray(Image.open(SAMPLE).convert("RGB"))[:48, :64]
    for number in range(count):
        file = io.BytesIO()
        Image.fromarray(np.roll(pixels, number, axis=1)).save(file, "PNG")
        storage.write(f"{bucket}/archive/{number:03d}.png", file.getvalue())
    uris = [f"{bucket}/archive/{number:03d}.png" for number in range(count)]
    listed = {"uri": uris, "size_bytes": [5_000_000] * count, "etag": uris}  # each its own chunk
    pq.write_table(pa.table(listed), tmp_path / "list.parquet")
    proxy.delay_seconds = 0.5
    job = subprocess.Popen(
        [sys.executable, "jobs/denoise.py", str(tmp_path / "list.parquet"), f"{bucket}/output",
         "--checkpoint", checkpoint, "--max-actors", "3"],
        cwd=ROOT, env=environment | {"AWS_ENDPOINT_URL": proxy.endpoint_url}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    most = 0
    while job.poll() is None:
        most = max(most, len(raylets()))
        time.sleep(0.5)
    told = job.stdout.read()
    assert job.returncode == 0, told
    assert f"{count} images: {count} denoised" in told
    assert most == 1 + 3  # the head, and a node for each process
    for number in (0, 1, count - 1):
        data = storage.read(f"{bucket}/output/images/{uris[number].removeprefix('s3://')}")
        after = np.asarray(Image.open(io.BytesIO(data)))
        expected = np.roll(np.minimum(pixels.astype(int) + ADDED, 255), number, axis=1)
        np.testing.assert_array_equal(after, expected)


def test_an_embedded_cluster_runs_without_the_processes_that_nobody_needs() -> None:
    script = """
from pathlib import Path
from pix2pix import cluster

def words(process):
    try:
        return (process / "cmdline").read_bytes().replace(bytes(1), b" ").decode(errors="replace")
    except OSError:  # it has ended since
        return ""

with cluster.joined(verbose=VERBOSE):
    import ray
    sums = ray.get([ray.remote(lambda n: n + 1).remote(number) for number in range(3)])
    session = ray._private.worker._global_node.get_session_dir_path()
    own = [line for line in map(words, Path("/proc").glob("[0-9]*")) if session in line]
    print(sums, [any(name in line for line in own) for name in NAMES])
"""
    names = ("raylet/raylet ", "log_monitor.py ", "/monitor.py ", "/dashboard.py ")
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    for verbose, alive in ((False, [True, False, False, False]), (True, [True] * 4)):
        told = script.replace("VERBOSE", f"{verbose}").replace("NAMES", f"{names}")
        ended = subprocess.run(
            [sys.executable, "-c", told], capture_output=True, text=True, env=environment
        )
        assert f"[1, 2, 3] {alive}" in ended.stdout, ended.stderr
