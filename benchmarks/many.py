"""Whether an image costs the same in a large archive: seconds per image of 1,000 and of 100,000.

    python benchmarks/many.py [--sizes 1000,100000]

Tiny photographs, local files, the tiniest generator: what is measured is everything but it. The
first tenth of each job, in which processes warm up, doesn't count. Each size also prints the
highest memory of the driver.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
SIDE, PER_FOLDER = 24, 1000  # so small that no noise level is judged: it would take most of it


def fill(archive: Path, count: int) -> None:
    """Writes tiny noisy photographs, a thousand to a folder."""
    random = np.random.default_rng(0)
    level = np.linspace(60, 180, SIDE)[:, None, None]
    for number in range(count):
        path = archive / f"{number // PER_FOLDER:04d}" / f"{number:07d}.png"
        path.parent.mkdir(exist_ok=True)
        noisy = random.normal(level, 12, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(path, compress_level=0)


def measured(folder: Path, count: int, checkpoint: str) -> tuple[float, float]:
    """Seconds per image after the first tenth, and the driver's highest memory in GB."""
    from pix2pix import status

    archive, output = folder / f"archive-{count}", folder / f"output-{count}"
    archive.mkdir()
    fill(archive, count)
    command = [sys.executable, str(ROOT / "jobs/denoise.py"), str(archive), str(output)]
    job = subprocess.Popen([*command, "--checkpoint", checkpoint], cwd=ROOT)
    peak = 0.0
    while job.poll() is None:
        time.sleep(0.2)
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
    tenth = len(finished) // 10
    return (finished[-1] - finished[tenth]) / (len(finished) - tenth), peak


def tiny_checkpoint(folder: Path) -> str:
    """A checkpoint of a generator that takes no time."""
    from tests.conftest import brightening

    return brightening(folder, 2)


def main(
    sizes: Annotated[str, typer.Option(help="Numbers of images.")] = "1000,100000",
) -> None:
    """Prints seconds per image of each size, and the ratio of the last to the first."""
    from denoise import apart

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "checkpoint").mkdir()
        checkpoint = apart(tiny_checkpoint, folder / "checkpoint")
        counts = [int(size) for size in sizes.split(",")]
        seconds = []
        for count in counts:
            each, peak = measured(folder, count, checkpoint)
            seconds.append(each)
            typer.echo(f"{count:,} images: {1000 * each:.2f} ms per image, driver {peak:.2f} GB")
        typer.echo(f"ratio of the last to the first: {seconds[-1] / seconds[0]:.3f}")


if __name__ == "__main__":
    typer.run(main)
