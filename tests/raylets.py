"""Clusters of several raylets on this machine, archives for them, and jobs submitted to them."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from cluster import local
from pix2pix import storage

ROOT = Path(__file__).parent.parent
RAY, INSTALLED = (str(Path(sys.executable).parent / name) for name in ("ray", "pix2pix"))
WORKERS = (b"ray::RayTrainWorker", b"ray::MapWorker(MapBatches(Denoise))")  # titles of processes


@contextlib.contextmanager
def up(**options: object) -> Iterator[local.Raylets]:
    """A head without CPUs and workers, see `local.started`, which end with the context."""
    folder = Path(tempfile.mkdtemp(prefix="rl", dir="/tmp"))  # short: it holds sockets
    made = local.started(folder=folder, **options)
    try:
        yield made
    finally:
        local.ended(folder)


def filled(archive: str, images: int) -> list[str]:
    """Writes noisy images of 48 x 40 pixels, and a broken one; their relative paths."""
    paths = [f"{number % 3}/{number:04d}.png" for number in range(images)]
    for number, path in enumerate(paths):
        storage.write(f"{archive}/{path}", noisy_png(number))
    storage.write(f"{archive}/broken.png", b"\x89PNG")
    return [*paths, "broken.png"]


def noisy_png(number: int) -> bytes:
    """A noisy picture of 48 x 40 pixels, each number's another one."""
    chance = np.random.default_rng(number)
    pixels = chance.normal(chance.integers(60, 180), 9, (40, 48, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


class Reads:
    """Counts how often each image is read, as the proxy sees it; does something at one of them."""

    def __init__(self, archive: str, at: int, then: Callable[[], None]) -> None:
        self.archive = archive.removeprefix("s3:/") + "/"
        self.at, self.then = at, then
        self.counts: Counter[str] = Counter()
        self.lock = threading.Lock()

    def __call__(self, path: str) -> None:
        if path.startswith(self.archive):
            with self.lock:
                self.counts[path.removeprefix(self.archive)] += 1
                now = self.counts.total() == self.at
            if now:
                self.then()


def submitted(
    raylets: local.Raylets, log: Path, *words: str, name: str = "", cpus: int = 0, **variables: str
) -> subprocess.Popen:
    """`ray job submit` of a job with its arguments; what it and the job say goes into a file.

    Args:
        raylets: Where.
        log: The file.
        words: A file of `jobs/`, which travels with the working folder; or else a command of the
            program `pix2pix`, which is installed there. And its arguments.
        name: Of the submission.
        cpus: What the driver reserves.
        variables: For the job's environment.
    """
    options = ["--runtime-env-json", json.dumps({"env_vars": variables})]
    options += ["--submission-id", name] if name else []
    options += ["--entrypoint-num-cpus", str(cpus)] if cpus else []
    if words[0].startswith("jobs/"):
        command = [RAY, "job", "submit", "--working-dir", ".", *options, "--", "python", *words]
    else:
        command = [RAY, "job", "submit", *options, "--", INSTALLED, *words]
    with log.open("wb") as file:
        return subprocess.Popen(
            command, cwd=ROOT, env=_environment(raylets), stdout=file, stderr=file
        )


def ran(
    raylets: local.Raylets, log: Path, *words: str, cpus: int = 0, **variables: str
) -> tuple[int, str, set[int]]:
    """The exit code of `ray job submit`, what it and the job said, and the nodes that worked."""
    job = submitted(raylets, log, *words, cpus=cpus, **variables)
    worked: set[int] = set()
    while job.poll() is None:
        worked |= {number for number in range(len(raylets.nodes)) if works(raylets, number)}
        time.sleep(0.5)
    return job.returncode, log.read_text(), worked


def works(raylets: local.Raylets, number: int) -> bool:
    """Whether a node has a process that denoises or trains."""
    titles = []
    for pid in local.processes(raylets, [number]):
        with contextlib.suppress(OSError):
            titles.append(Path(f"/proc/{pid}/cmdline").read_bytes())
    return any(title.startswith(WORKERS) for title in titles)


def stopped(raylets: local.Raylets, name: str) -> None:
    """Stops a job with the request that `ray job stop` sends, without the seconds it takes."""
    token = Path(raylets.variables["RAY_AUTH_TOKEN_PATH"]).read_text()
    request = urllib.request.Request(
        f"{raylets.dashboard_url}/api/jobs/{name}/stop",
        headers={"Authorization": f"Bearer {token}"}, method="POST",
    )  # fmt: skip
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=60) as answer:
        assert json.load(answer)["stopped"]


def _environment(raylets: local.Raylets) -> dict[str, str]:
    """This process's, without what a Ray in it has set for itself."""
    others = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return others | raylets.variables
