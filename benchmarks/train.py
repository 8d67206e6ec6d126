"""What Ray Train costs beside a bare loop, what a second worker brings, how fast ingest is.

    python benchmarks/train.py [--adversarial bce --steps 80 --data FOLDER ...]

Steps per second, in one run:
- a loop that anyone would write in TensorFlow and Keras: same network, loss and optimizer and
  nothing else; batches in memory, all cores;
- one worker of Ray Train, which also averages, clips and follows the schedule: same batches in
  memory, all cores;
- one worker held on one core, and two on a core each: as the product has it, they share the batch
  (which gives each half of the work, and as much to tell the other), and with a batch for each,
  where a step counts twice;
- ingest alone: patches cut by Ray Data from the sample pairs, nobody trains; all cores. With
  `--data` (or the environment variable PIX2PIX_DATA) also from `sidd_small_256/` and from clean
  photographs in `clean/`, decoded for the first time, to which noise is added.
Starts are excluded everywhere. Each is measured in a process of its own, in turn, forth and back,
so that a slow moment of the machine meets all. A ratio is the median over the passes, of what was
measured side by side: the bests of two may be from different minutes, and a machine that others use
too moves by more than is looked for here. That of the bests stands beside it, and that of the
processors' seconds, in which waiting doesn't count.
"""

import math
import multiprocessing
import os
import queue
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from pix2pix import cluster, pairs, patches, photographs, sizing, training  # noqa: E402 - found by the line above
from pix2pix.patches import Sources  # noqa: E402
from pix2pix.settings import Settings  # noqa: E402

CORES = sorted(os.sched_getaffinity(0))
INGEST_SECONDS = 10.0
INGEST_VISITS = 1000  # more than are cut in that time
GOALS = (  # what is divided by what, and what it shall be at least
    ("Ray Train, one worker", "bare loop", 0.95),
    ("two workers, a core each", "one worker, one core", 1.75),
    ("two workers, a batch each", "one worker, one core", 1.75),
    ("ingest alone", "Ray Train, one worker", 3.0),
    ("ingest alone, photographs", "Ray Train, one worker", 3.0),
)


class Speed(NamedTuple):
    """Steps per second of the clock, and of one process's processors (nan where not measured)."""

    clock: float
    processors: float = math.nan


def timed(work: Callable[[], Any], steps: int) -> Speed:
    """The speed of some work in this process."""
    clock, processors = time.perf_counter(), time.process_time()
    work()
    return Speed(steps / (time.perf_counter() - clock), steps / (time.process_time() - processors))


def batches(run: Settings, lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """A visit in memory, as `patches.visits` gives them, of random levels."""
    shape = (2, run.patches_per_pair, lanes, run.crop_pixels, run.crop_pixels, 3)
    noisy, clean = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return noisy, clean


def bare(run: Settings, visits: int) -> Speed:
    """A plain loop, after TensorFlow's own tutorial of pix2pix."""
    with cluster.quiet():
        import keras
        import tensorflow as tf

    from pix2pix import denoiser, networks

    tf.config.threading.set_intra_op_parallelism_threads(len(CORES))
    tf.config.set_visible_devices([], "GPU")
    keras.config.set_dtype_policy(denoiser.dtype_policy(run.precision))
    generator = networks.generator(run)
    discriminator = networks.discriminator(run.discriminator_width) if run.judged else None
    optimizers = [keras.optimizers.Adam(run.learning_rate, run.beta_1) for _ in range(2)]
    entropy = keras.losses.BinaryCrossentropy(from_logits=True)

    @tf.function
    def step(noisy: Any, clean: Any) -> Any:  # noqa: ANN401 - tensors
        noisy, clean = (tf.cast(x, tf.float32) / 127.5 - 1.0 for x in (noisy, clean))
        with tf.GradientTape() as tape, tf.GradientTape() as other:
            denoised = generator(noisy, training=True)
            loss = run.l1_weight * tf.reduce_mean(tf.abs(clean - denoised))
            if discriminator:
                real = discriminator([noisy, clean], training=True)
                made = discriminator([noisy, denoised], training=True)
                loss += run.adversarial_weight * entropy(tf.ones_like(made), made)
                judgement = entropy(tf.ones_like(real), real) + entropy(tf.zeros_like(made), made)
        weights = generator.trainable_variables
        optimizers[0].apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        if discriminator:
            weights = discriminator.trainable_variables
            gradients = other.gradient(judgement, weights)
            optimizers[1].apply_gradients(zip(gradients, weights, strict=True))
        return loss

    held = batches(run, run.batch)

    def epoch(count: int) -> float:
        total = tf.zeros(())
        for _ in range(count):
            for both in zip(*held, strict=True):
                total += step(*both)
        return float(total)

    epoch(1)
    return timed(lambda: epoch(visits), visits * run.patches_per_pair)


def worked(told: dict[str, Any]) -> Speed:
    """A worker of Ray Train, held on its cores."""
    import ray.train

    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    cores = told["cores"][rank]
    os.sched_setaffinity(0, cores)  # this thread's, and of those that TensorFlow starts from it
    import tensorflow as tf

    from pix2pix.worker import Worker

    tf.config.threading.set_intra_op_parallelism_threads(len(cores))
    tf.config.set_visible_devices([], "GPU")
    run, visits = told["job"].settings, told["visits"]
    worker = Worker(replace(told["job"], lines=queue.SimpleQueue()), rank, workers)
    held = batches(run, run.batch // workers)
    worker.trained_epoch([held])
    return timed(lambda: worker.trained_epoch([held] * visits), visits * run.patches_per_pair)


def on_ray(run: Settings, visits: int, cores: list[set[int]]) -> Speed:
    """As many workers of Ray Train as there are sets of cores; the speed of the first."""
    with cluster.quiet():
        import ray.cloudpickle
        import ray.train
        from ray.train.tensorflow import TensorflowTrainer

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers don't know this file
    found = pairs.found(str(ROOT / "samples/pairs"))
    job = training.Job("", run, Sources(found, []), found, "", False, None)
    with cluster.joined(), tempfile.TemporaryDirectory() as folder:
        cpus = sizing.cpus_per_worker(len(cores), gpu=False)
        trainer = TensorflowTrainer(
            worked,
            train_loop_config={"job": job, "visits": visits, "cores": cores},
            scaling_config=ray.train.ScalingConfig(
                num_workers=len(cores), resources_per_worker={"CPU": cpus}
            ),
            run_config=ray.train.RunConfig(name="benchmark", storage_path=folder),
        )
        return training.without_idlers(trainer).fit().return_value


def ingest(run: Settings, pairs_url: str, clean_url: str | None) -> Speed:
    """Batches that Ray Data cuts while nobody trains."""
    found = pairs.found(pairs_url)
    clean = photographs.found((clean_url,), pairs_url) if clean_url else []
    many = found * (INGEST_VISITS * run.batch // len(found) + 1)  # one epoch, without new starts
    with cluster.joined():
        begun, steps = 0.0, 0
        for noisy, _ in patches.visits(Sources(many, clean), run, 0, 0, 1):
            if not begun:
                begun = time.perf_counter()
                continue
            steps += len(noisy)
            seconds = time.perf_counter() - begun
            if seconds > INGEST_SECONDS:
                break
    return Speed(steps / seconds)


def on_ray_with_a_batch_each(run: Settings, visits: int, cores: list[set[int]]) -> Speed:
    """As `on_ray`, with a batch for each worker, in steps of one batch."""
    count = len(cores)
    clock, processors = on_ray(replace(run, batch=count * run.batch), visits, cores)
    return Speed(count * clock, count * processors)


def alone(call: Callable[..., Speed], *arguments: Any) -> Speed:  # noqa: ANN401 - that call's
    """What a call returns, in a process of its own."""
    # Ray's processes are nicer than others by 15: whatever else runs here meanwhile would then cost
    # them more than the loop that they are compared with
    os.environ |= {"RAY_worker_niceness": "0"}
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def main(
    adversarial: Annotated[str, typer.Option(help="bce: with the discriminator.")] = "none",
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or auto.")] = "auto",
    crop_pixels: Annotated[int, typer.Option(help="Of a patch.")] = Settings.crop_pixels,
    steps: Annotated[int, typer.Option(min=8, help="Timed in each process.")] = 40,
    rounds: Annotated[int, typer.Option(min=1, help="Forth and back.")] = 2,
    data: Annotated[Path | None, typer.Option(envvar="PIX2PIX_DATA")] = None,
) -> None:
    """Times each, prints steps per second and the ratios."""
    run = Settings(adversarial=adversarial, precision=precision, crop_pixels=crop_pixels)
    visits = steps // run.patches_per_pair
    works: dict[str, tuple[Any, ...]] = {
        "bare loop": (bare, run, visits),
        "Ray Train, one worker": (on_ray, run, visits, [set(CORES)]),
        "one worker, one core": (on_ray, run, visits, [{CORES[0]}]),
        "two workers, a core each": (on_ray, run, visits, [{CORES[0]}, {CORES[-1]}]),
        "two workers, a batch each": (
            on_ray_with_a_batch_each,
            run,
            visits,
            [{CORES[0]}, {CORES[-1]}],
        ),
        "ingest alone": (ingest, run, str(ROOT / "samples/pairs"), None),
    }
    if data:
        there = (str(data / "sidd_small_256"), str(data / "clean"))
        works["ingest alone, photographs"] = (ingest, run, *there)
    speeds: dict[str, list[Speed]] = {name: [] for name in works}
    for place in range(2 * rounds):
        for name in list(works)[:: -1 if place % 2 else 1]:
            speed = alone(*works[name])
            speeds[name].append(speed)
            typer.echo(
                f"{name:26}{speed.clock:8.2f} steps/s{speed.processors:8.2f} per processors' second"
            )
    for above, below, goal in GOALS:
        if above in speeds:
            both = np.array([speeds[above], speeds[below]])  # (2, passes, clock and processors)
            clock, processors = np.median(both[0] / both[1], axis=0)
            bests = both.max(axis=1)[:, 0]
            typer.echo(
                f"{above} / {below}: {clock:.3f} (goal: {goal:g}), of the bests "
                f"{bests[0] / bests[1]:.3f}, by processors {processors:.3f}"
            )


if __name__ == "__main__":
    typer.run(main)
