"""How much of the generator's own speed the whole bulk job keeps, in one run.

    python benchmarks/denoise.py [--photographs 40] [--checkpoint RUN]

Photographs of 3 to 24 megapixels, JPEG. Megapixels per second of
- the generator alone: same cores, pixels already in memory, a whole photograph as one tile (in as
  few parts as memory holds, side by side, where that is too much: float32 takes 18 GB for 24
  megapixels). That isn't the fastest it can be: `pix2pix denoise` cuts wide photographs into tiles
  that cost less a pixel (see `tiles.plan`), which makes up for some of all else that it does;
- `pix2pix denoise` on local files, and on an S3 server with 40 ms added to every request;
- the loop a user would write: Pillow open, Keras float32 `predict`, save, one after another.
Start-up is excluded everywhere: the job's time is from its first fetch to its last write, and the
generator has seen one small picture before. What comes once to each process after that is in all
figures: memory is touched for the first time (on virtual machines a second or two per gigabyte),
and each new size is prepared for. The generator is measured before and after the jobs, so that a
slow moment of the machine meets both.
"""

import json
import math
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]
SIZES = (  # width, height: 3 to 24 megapixels
    *((2000, 1500), (4000, 3000), (3456, 4608), (6000, 4000), (2592, 1944)),
    *((3000, 4000), (5184, 3456), (2448, 3264), (4000, 3000), (4000, 6000)),
)
DELAY_SECONDS = 0.04
WHOLE_SHARE = 0.6  # of the free memory, for the generator's layers
NAIVE_SHARE = 5  # the loop takes every fifth photograph: it's slow


def fill(folder: Path, count: int) -> list[Path]:
    """Writes photographs, laid out of the noisy samples."""
    from tiles import photograph

    whole = photograph(6144)
    paths = []
    for number in range(count):
        width, height = SIZES[number % len(SIZES)]
        left, top = (number * 97) % (6144 - width), (number * 61) % (6144 - height)
        paths.append(folder / f"{number:03d}.jpg")
        cut = Image.fromarray(whole[top : top + height, left : left + width])
        cut.save(paths[-1], quality=92, subsampling="4:2:0")
    return paths


def pixels_of(path: Path) -> np.ndarray:
    """uint8 (height, width, 3)."""
    return np.asarray(Image.open(path).convert("RGB"))


def generator_alone(checkpoint: str, paths: list[Path]) -> tuple[float, float]:
    """Megapixels and seconds of the generator, whole photographs, nothing else going on."""
    import tensorflow as tf

    from pix2pix import denoiser, memory

    most = (memory.available() or math.inf) * WHOLE_SHARE  # bytes, before anything is taken
    tf.config.threading.set_intra_op_parallelism_threads(len(os.sched_getaffinity(0)))
    model = denoiser.loaded(checkpoint)
    multiple = model.made_with.pixel_multiple

    @tf.function(input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)])
    def levels(pixels: Any) -> Any:  # noqa: ANN401 - a tf.Tensor
        noisy = tf.cast(pixels[tf.newaxis], tf.float32) / 127.5 - 1.0
        return (model.generator(noisy, training=False)[0] + 1.0) * 127.5

    megapixels = seconds = 0.0
    levels(np.zeros((256, 256, 3), np.uint8)).numpy()  # start-up
    for path in paths:
        pixels = pixels_of(path)
        count = math.ceil(pixels.size / 3 * model.bytes_of_pixel / most)
        height = len(pixels) // count // multiple * multiple
        for part in range(count):
            rows = slice(part * height, (part + 1) * height)
            one = pixels[rows, : pixels.shape[1] // multiple * multiple]
            begun = time.perf_counter()
            levels(one).numpy()
            seconds += time.perf_counter() - begun
            megapixels += one.size / 3e6
    return megapixels, seconds


def naive_loop(checkpoint: str, paths: list[Path], folder: Path) -> tuple[float, float]:
    """The same of the loop that a user would write."""
    from pix2pix import denoiser

    model = denoiser.loaded(checkpoint, "float32")
    multiple = model.made_with.pixel_multiple
    megapixels = seconds = 0.0
    for place, path in enumerate([paths[0], *paths]):
        begun = time.perf_counter()
        pixels = pixels_of(path)
        height, width = (-(-side // multiple) * multiple for side in pixels.shape[:2])
        padded = np.pad(
            pixels, ((0, height - pixels.shape[0]), (0, width - pixels.shape[1]), (0, 0)), "edge"
        )
        clean = model.generator.predict(padded[np.newaxis] / np.float32(127.5) - 1, verbose=0)[0]
        levels = np.clip(np.rint((clean + 1) * 127.5), 0, 255).astype(np.uint8)
        Image.fromarray(levels[: pixels.shape[0], : pixels.shape[1]]).save(
            folder / path.name, quality=92
        )
        if place:  # the first one warms up
            seconds += time.perf_counter() - begun
            megapixels += pixels.size / 3e6
    return megapixels, seconds


def stages(checkpoint: str, paths: list[Path]) -> dict[str, float]:
    """Seconds of each stage, one photograph after another, one thread of Python."""
    from pix2pix import denoiser, harm, images, metrics, storage

    model = denoiser.loaded(checkpoint)
    seconds: dict[str, float] = {}

    def timed(name: str, call: Callable[[], Any]) -> Any:  # noqa: ANN401 - whatever it returns
        begun = time.perf_counter()
        result = call()
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - begun
        return result

    for path in paths:
        data = timed("fetch", partial(storage.read, str(path)))
        photograph = timed("decode", partial(images.decode, data))
        before = photograph.pixels
        after = timed("generator and tiles", partial(model.denoised, before))
        encoded = timed("encode", partial(images.encode, photograph, after, mark="mark"))
        seen = timed("decode again", partial(images.decode_rgb, encoded))
        sigma = timed("measure", partial(metrics.noise_sigma, before))
        for measure in (metrics.noise_sigma, metrics.sharpness, metrics.clipped_fraction):
            timed("measure", partial(measure, seen))
        timed("measure", partial(metrics.sharpness, before))
        timed("measure", partial(metrics.mean_shift, before, seen))
        timed("measure", partial(harm.verdict, before, seen, sigma))
        timed("write", partial(storage.write, f"{path}.written", encoded))
        os.unlink(f"{path}.written")
    return seconds


def job(archive: str, output: str, checkpoint: str) -> tuple[float, float]:
    """Megapixels and seconds of a bulk job, from its first fetch to its last write."""
    from pix2pix import status

    subprocess.run(
        [sys.executable, ROOT / "jobs/denoise.py", archive, output, "--checkpoint", checkpoint],
        check=True, cwd=ROOT,
        # Ray's processes are nicer than others by 15: whatever else runs here meanwhile would then
        # cost the job more than the generator that it is compared with
        env=os.environ | {"RAY_worker_niceness": "0"},
    )  # fmt: skip
    rows = status.current(output).to_pylist()
    ends = [row["finished_at"].timestamp() for row in rows]
    parts = ("seconds_fetch", "seconds_denoise", "seconds_write")
    begins = [end - sum(row[name] for name in parts) for end, row in zip(ends, rows, strict=True)]
    megapixels = sum(row["width"] * row["height"] / 1e6 for row in rows)
    return megapixels, max(ends) - min(begins)


def know(server: Any) -> None:  # noqa: ANN401 - tests.conftest.S3Server
    """Lets the AWS variables point to an S3 server, with its user's keys."""
    os.environ |= {
        "AWS_ENDPOINT_URL": server.endpoint_url,
        "AWS_ACCESS_KEY_ID": server.user["accessKey"],
        "AWS_SECRET_ACCESS_KEY": server.user["secretKey"],
        "AWS_REGION": "us-east-1",
    }


def s3_job(paths: list[Path], checkpoint: str, folder: Path) -> tuple[float, float]:
    """The same with archive and output in an S3 server that takes 40 ms longer to answer.

    The server stands for other machines, so that it only has what the job leaves of these cores
    (Linux weighs niceness within a session: the job must be of the same).
    """
    from pix2pix import storage
    from tests import conftest

    others = ThreadPoolExecutor(1)  # one thread: what it begins is as nice, and ends with it
    others.submit(os.setpriority, os.PRIO_PROCESS, 0, 19).result()
    process, server = others.submit(conftest._started, folder).result()
    proxy = conftest.FaultyProxy(server.endpoint_url)
    others.submit(proxy.serve_forever, 0.05)
    know(server)
    try:
        bucket = server.bucket_url("benchmark")
        for path in paths:
            storage.write(f"{bucket}/archive/{path.name}", path.read_bytes())
        os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint_url
        proxy.delay_seconds = DELAY_SECONDS
        taken = _processor_seconds(os.getpid(), process.pid)
        measured = job(f"{bucket}/archive", f"{bucket}/output", checkpoint)
        taken = _processor_seconds(os.getpid(), process.pid) - taken
        share = taken / measured[1] / len(os.sched_getaffinity(0))
        typer.echo(f"S3 server and proxy: {taken:.1f} core-seconds, {share:.1%} of the job's")
        return measured
    finally:
        proxy.shutdown()
        conftest._stop(process)


def _processor_seconds(*processes: int) -> float:
    """What processes have used so far, in all of their threads."""
    used = 0
    for process in processes:
        text = Path(f"/proc/{process}/stat").read_text()
        used += sum(map(int, text.rpartition(")")[2].split()[11:13]))  # user, system
    return used / os.sysconf("SC_CLK_TCK")


def random_checkpoint(folder: Path) -> str:
    """A checkpoint of the default generator with random weights: speed doesn't depend on them."""
    import keras

    from pix2pix import checkpoints, networks, settings

    made_with = settings.Settings()
    keras.config.set_dtype_policy("float32")
    model = networks.generator(made_with)
    kernel = np.random.default_rng(0).normal(0, 0.0005, (3, 3, made_with.width, 3))
    model.get_layer("noise").kernel.assign(kernel)
    model.save_weights(folder / checkpoints.WEIGHTS)
    (folder / checkpoints.SETTINGS).write_text(settings.to_json(made_with))
    (folder / checkpoints.CARD).write_text(json.dumps(checkpoints.card(folder, {"step": 1})))
    return str(folder)


def apart(call: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401 - whatever it returns
    """What a call returns, in a process of its own with the environment of the job's processes.

    Raises:
        BrokenProcessPool: the process has died.
    """
    from pix2pix import memory

    before = dict(os.environ)
    os.environ |= memory.ENVIRONMENT | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    try:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(call, *arguments).result()
    finally:
        os.environ.clear()
        os.environ |= before


def main(
    photographs: Annotated[int, typer.Option(help="How many photographs.")] = 40,
    checkpoint: Annotated[str, typer.Option(help="A run or checkpoint; none: random.")] = "",
    naive: Annotated[bool, typer.Option(help="Also the loop a user would write.")] = True,
    s3: Annotated[bool, typer.Option(help="Also through S3 with 40 ms added.")] = True,
) -> None:
    """Prints megapixels per second and ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("archive", "checkpoint", "s3", "naive"):
            (folder / part).mkdir()
        checkpoint = checkpoint or apart(random_checkpoint, folder / "checkpoint")
        paths = fill(folder / "archive", photographs)
        speeds: dict[str, float] = {}

        def tell(what: str, measured: tuple[float, float]) -> None:
            megapixels, seconds = measured
            speeds[what] = megapixels / seconds
            typer.echo(f"{what:42} {megapixels:7.1f} MP {seconds:7.1f} s {speeds[what]:6.3f} MP/s")

        tell("generator alone, before", apart(generator_alone, checkpoint, paths))
        tell("whole job, local", job(str(folder / "archive"), str(folder / "output"), checkpoint))
        tell("generator alone, between", apart(generator_alone, checkpoint, paths))
        if s3:
            tell("whole job, S3 + 40 ms", s3_job(paths, checkpoint, folder / "s3"))
            tell("generator alone, after", apart(generator_alone, checkpoint, paths))
        if naive:
            tell(
                "naive loop", apart(naive_loop, checkpoint, paths[::NAIVE_SHARE], folder / "naive")
            )
        around = (speeds["generator alone, before"] + speeds["generator alone, between"]) / 2
        typer.echo(f"whole job / generator alone: {speeds['whole job, local'] / around:.3f}")
        if s3:
            around = (speeds["generator alone, between"] + speeds["generator alone, after"]) / 2
            typer.echo(f"with S3 / generator alone: {speeds['whole job, S3 + 40 ms'] / around:.3f}")
        if naive:
            typer.echo(
                f"whole job / naive: {speeds['whole job, local'] / speeds['naive loop']:.2f}"
            )
        seconds = apart(stages, checkpoint, paths[:: len(paths) // 10 or 1])
        total = sum(seconds.values())
        typer.echo("stages of some, one after another:")
        for stage, value in seconds.items():
            typer.echo(f"  {stage:20} {value:7.2f} s {value / total:6.1%}")


if __name__ == "__main__":
    typer.run(main)
