"""Whether an image costs the same in a large archive: seconds per image of 1,000 and of 100,000.

    python benchmarks/many.py [--large 100000 --times 6]

Tiny photographs, local files, the tiniest generator: what is measured is everything but it. The
first tenth of each job, in which processes warm up, doesn't count, nor does the first chunk of any
thread: these begin together and so end together, and who began to count among them would get most
of them for nothing. Nor do as many at the end, where threads run out of chunks. The job of the
small archive takes seconds, in which a machine that others use too may do anything: it is done
several times, half of them before the large one and half after it, and their median counts. The
large one takes minutes, in which such a machine becomes slower or faster by more than is looked for
here: five times a second the processor's seconds of always the same small work are taken, and the
ratio is also given in these. Each job also prints the highest memory of the driver.
"""

import hashlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
SIDE, PER_FOLDER = 24, 1000  # so small that no noise level is judged: it would take most of it


class Cost(NamedTuple):
    """Of an image: seconds, the same in units of the known work, and the driver's memory in GB."""

    seconds: float
    works: float
    peak: float


def known_work() -> float:
    """The processor's seconds of a little Python, NumPy and hashing, as tiny images take, too."""
    random = np.random.default_rng(0)
    begun = time.thread_time()
    for _ in range(60):
        levels = random.normal(128, 12, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
        hashlib.sha256(levels.tobytes()).hexdigest()
        sum(number % 7 for number in range(500))
    return time.thread_time() - begun


def fill(archive: Path, count: int) -> None:
    """Writes tiny noisy photographs, a thousand to a folder."""
    random = np.random.default_rng(0)
    level = np.linspace(60, 180, SIDE)[:, None, None]
    for number in range(count):
        path = archive / f"{number // PER_FOLDER:04d}" / f"{number:07d}.png"
        path.parent.mkdir(exist_ok=True)
        noisy = random.normal(level, 12, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(path, compress_level=0)


def measured(folder: Path, count: int, checkpoint: str) -> Cost:
    """What an image costs once all threads are at work."""
    from pix2pix import status

    archive, output = folder / f"archive-{count}", folder / f"output-{count}"
    for there in (archive, output):
        shutil.rmtree(there, ignore_errors=True)
    archive.mkdir()
    fill(archive, count)
    os.sync()  # or the large job would pay for writing its archive, too
    command = [sys.executable, str(ROOT / "jobs/denoise.py"), str(archive), str(output)]
    job = subprocess.Popen([*command, "--checkpoint", checkpoint], cwd=ROOT)
    peak, works = 0.0, []
    while job.poll() is None:
        time.sleep(0.2)
        works.append((time.time(), known_work()))
        try:
            lines = Path(f"/proc/{job.pid}/status").read_text().splitlines()
        except OSError:
            break
        peak = max([peak, *(int(x.split()[1]) / 2**20 for x in lines if x.startswith("VmHWM"))])
    if job.wait():
        raise RuntimeError(f"the job ended with code {job.returncode}")
    finished = sorted(
        moment.timestamp()
        for table in status.rows(str(output), ["finished_at"])
        for moment in table["finished_at"].to_pylist()
    )
    first = max(len(finished) // 10, first_chunks())
    counted = finished[first - 1 : -first_chunks()]
    begun, ended = counted[0], counted[-1]
    seconds = (ended - begun) / (len(counted) - 1)
    work = statistics.harmonic_mean(each for moment, each in works if begun < moment < ended)
    return Cost(seconds, seconds / work, peak)


def first_chunks() -> int:
    """Images in the first chunks of all threads."""
    from pix2pix import sizing
    from pix2pix.source import CHUNK_IMAGES
    from pix2pix.stages import THREADS

    processes = max(1, int(len(os.sched_getaffinity(0)) / sizing.CPUS_PER_ACTOR))
    return processes * THREADS * CHUNK_IMAGES


def tiny_checkpoint(folder: Path) -> str:
    """A checkpoint of a generator that takes no time."""
    from tests.conftest import brightening

    return brightening(folder, 2)


def main(
    small: Annotated[int, typer.Option(help="Images of the small archive; 0: as few as do.")] = 0,
    large: Annotated[int, typer.Option(help="Images of the large archive.")] = 100_000,
    times: Annotated[int, typer.Option(min=2, help="Jobs of the small one.")] = 6,
) -> None:
    """Prints seconds per image of each job, and the ratio of the large one to the small ones."""
    from denoise import apart

    small = small or max(1_000, 4 * first_chunks())
    if small < 4 * first_chunks():
        raise typer.BadParameter(f"must be at least {4 * first_chunks()} here", param_hint="small")
    if large <= small:
        raise typer.BadParameter(f"must be more than small={small}", param_hint="large")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "checkpoint").mkdir()
        checkpoint = apart(tiny_checkpoint, folder / "checkpoint")

        def cost(count: int) -> Cost:
            one = measured(folder, count, checkpoint)
            typer.echo(
                f"{count:,} images: {1000 * one.seconds:.2f} ms per image, {one.works:.3f} of the "
                f"known work, driver {one.peak:.2f} GB"
            )
            return one

        costs = [cost(small) for _ in range(times // 2)]
        of_large = cost(large)
        costs += [cost(small) for _ in range(times - times // 2)]
        seconds, works, _ = np.array(of_large) / np.median(costs, axis=0)
        typer.echo(
            f"the large one / median of the small ones: {seconds:.3f} (goal: 0.9 to 1.1), in the "
            f"known work {works:.3f}"
        )


if __name__ == "__main__":
    typer.run(main)
