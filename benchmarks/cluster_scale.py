"""What the walk itself costs per image, and how many actors that would let one driver feed.

    python benchmarks/cluster_scale.py [--actors 1,2,4,8,16] [--seconds 0.4] [--per-actor 80]

`pix2pix denoise` as it is, with a stand-in for decoding, generator and encoding that only sleeps:
listing, source, ledger, Ray Data, reading, writing and the status table are real. Ray is told that
this machine has four CPUs for every actor that sleeps. The archive is a list that gives each image
the 5 MB of a 12-megapixel photograph, so that each is a chunk of its own, as they would be;
`--size-bytes 250000` puts 32 into one.

Prints images per second beside what the sleepers could do, and the processors' milliseconds per
second of the driver, of the ledger, of the source, of the actors' processes and of Ray's own (those
of all nodes, here one). Lines through these figures give what each image costs, and the rate at
which the driver, a Python process, would fill one core.
"""

import io
import itertools
import os
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "benchmarks"), str(ROOT)])
TICKS = os.sysconf("SC_CLK_TCK")
PARTS = ("driver", "ledger", "source", "Ray", "actors")


class Ran(NamedTuple):
    """One job in its steady state.

    Attributes:
        actors: How many slept.
        rate: Images per second.
        cores: How many cores each of `PARTS` kept busy.
        store_mb: The most that the object store held.
    """

    actors: int
    rate: float
    cores: dict[str, float]
    store_mb: float


def fill(folder: Path, count: int, size_bytes: int) -> str:
    """The path of a list of so many files, a thousand to a folder."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG")
    uris = [folder / f"{number // 1000:04d}" / f"{number:07d}.jpg" for number in range(count)]
    for path in uris:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.getvalue())
    table = {
        "uri": pa.array(map(str, uris)),
        "size_bytes": pa.array([size_bytes] * count),
        "etag": pa.array([path.name for path in uris]),
    }
    pq.write_table(pa.table(table), folder / "list.parquet")
    return str(folder / "list.parquet")


def _part(words: list[str], pid: int) -> str:
    """Which part of the walk a process of Ray's is."""
    if pid == os.getpid():
        return "driver"
    name = words[0].rpartition("/")[2] if words else ""
    if "Sleeping" in name:
        return "actors"
    if "Ledger" in name:
        return "ledger"
    if name.startswith("ray::"):
        return "source" if "Read" in name else "Ray"
    return "Ray" if name in ("raylet", "gcs_server") or "ray" in " ".join(words) else ""


def processors() -> dict[int, tuple[str, float]]:
    """Part and processors' seconds so far of this process and of all that descend from it."""
    parents, found = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            words = (path / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # ended meanwhile
            continue
        parents[int(path.name)] = int(fields[1])
        spent = (int(fields[11]) + int(fields[12])) / TICKS
        found[int(path.name)] = (_part(words, int(path.name)), spent)

    def ours(pid: int) -> bool:
        while pid in parents and pid != os.getpid():
            pid = parents[pid]
        return pid == os.getpid()

    return {pid: about for pid, about in found.items() if ours(pid) and about[0]}


class Sampler(threading.Thread):
    """Looks at the processes now and then while a job runs, also at those that end with it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.seen: list[tuple[float, dict[int, tuple[str, float]]]] = []
        self.ended, self.store_mb = threading.Event(), 0.0

    def run(self) -> None:
        """Samples until `ended`; what that takes is not the driver's."""
        while not self.ended.wait(0.5):
            found = processors()
            part, spent = found[os.getpid()]
            found[os.getpid()] = part, spent - time.thread_time()
            self.seen.append((time.time(), found))
            if len(self.seen) % 10 == 0:
                self.store_mb = max(self.store_mb, store_mb())

    def cores(self, begin: float, end: float) -> dict[str, float]:
        """How many cores each part kept busy between two moments."""
        within = [sample for sample in self.seen if begin <= sample[0] <= end]
        parts = dict.fromkeys(PARTS, 0.0)
        for (_, before), (_, after) in itertools.pairwise(within):
            for pid, (part, seconds) in after.items():
                parts[part] += seconds - before.get(pid, (part, seconds))[1]
        return {part: parts[part] / (within[-1][0] - within[0][0]) for part in PARTS}


def store_mb() -> float:
    """What the object store holds, by the node's Prometheus endpoint, which is ten seconds late."""
    import ray

    node = ray.nodes()[0]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url) as answer:
            text = answer.read().decode()
    except OSError:
        return 0.0
    lines = (line for line in text.splitlines() if line.startswith("ray_object_store_used_memory"))
    return sum(float(line.rpartition(" ")[2]) for line in lines) / 1e6


def job(folder: Path, actors: int, images: int, seconds: float, size_bytes: int) -> Ran:
    """Denoises by sleeping; see the module."""
    from sleeping import sleeper

    from pix2pix import denoising, stages, status

    archive, output = fill(folder / "archive", images, size_bytes), str(folder / "output")
    setattr(denoising, "Denoise", sleeper(seconds))  # noqa: B010 - the stand-in
    sampler = Sampler()
    sampler.start()
    way = stages.Way("nowhere", "0" * 64)
    done = denoising.denoised(archive, output, way, actors=actors, show=lambda line: None)
    if done.by_status != {"denoised": images}:
        raise RuntimeError(f"not as planned: {done.by_status}, {done.by_failure_class}")
    sampler.ended.set()
    sampler.join()
    moments = sorted(
        moment.timestamp()
        for table in status.rows(output, ["finished_at"])
        for moment in table["finished_at"].to_pylist()
    )
    # without the first and the last quarter, in which not all actors are at work
    cut = len(moments) // 4
    begin, end = moments[cut], moments[-cut - 1]
    rate = (len(moments) - 2 * cut - 1) / (end - begin)
    return Ran(actors, rate, sampler.cores(begin, end), sampler.store_mb)


def line(rates: list[float], cores: list[float]) -> tuple[float, float]:
    """Cores that are busy without any image, and processors' seconds of each image."""
    slope, start = np.polyfit(rates, cores, 1)
    return float(start), float(slope)


def main(
    actors: Annotated[str, typer.Option(help="Numbers of actors.")] = "1,2,4,8,16",
    seconds: Annotated[float, typer.Option(help="That an actor sleeps for each image.")] = 0.4,
    per_actor: Annotated[int, typer.Option(help="Images for each actor.")] = 80,
    size_bytes: Annotated[int, typer.Option(help="Of an image, as the list says.")] = 5_000_000,
) -> None:
    """Prints what each number of actors costs."""
    import ray

    from pix2pix import cluster

    counts = [int(count) for count in actors.split(",")]
    os.makedirs(cluster.FOLDER, exist_ok=True)
    os.environ.setdefault("RAY_TMPDIR", cluster.FOLDER)
    os.environ |= {"RAY_worker_niceness": "0"}  # else whatever runs here besides comes first
    ray.init(
        address="local", num_cpus=4 * max(counts) + 1, include_dashboard=False, logging_level=40,
        log_to_driver=False, object_store_memory=1_000_000_000,
        runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}},
    )  # fmt: skip
    cluster.quieten()
    heads = "  ".join(f"{part:>6}" for part in PARTS)
    typer.echo(f"actors  images/s  of ideal  {heads}  (ms per s)  store MB")
    done = []
    for count in counts:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
            ran = job(Path(name), count, count * per_actor, seconds, size_bytes)
        done.append(ran)
        cores = "  ".join(f"{ran.cores[part] * 1e3:6.1f}" for part in PARTS)
        share = ran.rate * seconds / count
        typer.echo(f"{count:6}  {ran.rate:8.2f}  {share:8.3f}  {cores}{'':13}{ran.store_mb:8.2f}")
    ray.shutdown()
    if len(done) > 1:
        for part in PARTS:
            idle, each = line([ran.rate for ran in done], [ran.cores[part] for ran in done])
            full = f"; one core is full at {(1 - idle) / each:.0f} images/s" if each > 0 else ""
            typer.echo(f"{part:6} {idle * 1e3:6.1f} ms/s + {each * 1e3:6.2f} ms per image{full}")


if __name__ == "__main__":
    typer.run(main)
