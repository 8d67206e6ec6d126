"""How much memory a huge photograph takes: the peak of the process that denoises it.

python benchmarks/panorama.py [--megapixels 200] [--suffix tif] [--checkpoint RUN]
"""

import json
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
TITLE = b"ray::MapWorker(MapBatches(Denoise))"  # what Ray calls the process that denoises


def written(path: Path, megapixels: float, depth: int) -> None:
    """A noisy panorama twice as wide as high, laid out of the samples."""
    from tiles import photograph

    height = int((megapixels * 1e6 / 2) ** 0.5)
    part = photograph(1024)
    pixels = np.tile(part, (-(-height // 1024), -(-2 * height // 1024), 1))[:height, : 2 * height]
    if depth == 16:
        import tifffile

        tifffile.imwrite(
            path, pixels.astype(np.uint16) * 257, photometric="rgb", compression="zlib"
        )
        return
    Image.MAX_IMAGE_PIXELS = None
    Image.fromarray(pixels).save(path, compress_level=1)


def peak_bytes() -> int:
    """The highest of what the processes that denoise have had in memory so far."""
    peaks = [0]
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cmdline").read_bytes().startswith(TITLE):
                lines = (path / "status").read_text().splitlines()
                peaks += [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")]
        except OSError:
            continue
    return max(peaks)


def main(
    megapixels: Annotated[float, typer.Option(help="Width times height.")] = 200,
    suffix: Annotated[str, typer.Option(help="tif or png.")] = "tif",
    depth: Annotated[int, typer.Option(help="Bits of a sample, 8 or 16 (16: tif only).")] = 8,
    checkpoint: Annotated[str, typer.Option(help="A run or checkpoint; none: random.")] = "",
) -> None:
    """Prints the peak and what became of the panorama."""
    from denoise import apart, random_checkpoint

    from pix2pix import status

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("archive", "checkpoint"):
            (folder / part).mkdir()
        checkpoint = checkpoint or apart(random_checkpoint, folder / "checkpoint")
        apart(written, folder / "archive" / f"panorama.{suffix}", megapixels, depth)
        peaks, ended = [0], threading.Event()

        def watch() -> None:
            while not ended.wait(0.1):
                peaks.append(max(peaks[-1], peak_bytes()))

        watcher = threading.Thread(target=watch)
        watcher.start()
        command = [
            sys.executable,
            "jobs/denoise.py",
            str(folder / "archive"),
            str(folder / "output"),
        ]
        done = subprocess.run([*command, "--checkpoint", checkpoint], check=False, cwd=ROOT)
        ended.set()
        watcher.join()
        row = status.current(str(folder / "output")).to_pylist()[0]
        kept = ("status", "failure_class", "message", "width", "height", "seconds_denoise")
        typer.echo(json.dumps({name: row[name] for name in kept}))
        typer.echo(f"exit code {done.returncode}, peak of the process {peaks[-1] / 1e9:.2f} GB")


if __name__ == "__main__":
    typer.run(main)
