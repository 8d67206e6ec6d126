"""What Ray Train costs beside a bare loop, what a second worker brings, how fast ingest is.

    python benchmarks/train.py [--adversarial bce --steps 80 --data FOLDER ...]

Batches per second, in one run:
- a loop that anyone would write in TensorFlow and Keras: same network, loss and optimizer and
  nothing else; batches in memory, all cores;
- one worker of Ray Train, which also averages, clips and follows the schedule: same batches in
  memory, all cores;
- two workers held on a core each: as the product has it, they share the batch (which gives each
  half of the work, but all of what a step costs once, and as much to tell the other), and with a
  batch for each. Beside them one on one core (on each in turn), and what the machine itself has for
  two at a time: one on each core, which tell each other nothing;
- ingest alone: patches cut by Ray Data from the sample pairs, nobody trains; all cores. With
  `--data` (or the environment variable PIX2PIX_DATA) also from `sidd_small_256/` and from clean
  photographs in `clean/`, decoded for the first time, to which noise is added.
Starts are excluded everywhere, and every process has the environment that the product gives its
workers (`memory.ENVIRONMENT`). The first two and ingest are measured in a process of their own, in
turn, forth and back. The workers on one core, four processes, live side by side, and each works for
one visit (8 steps) while the others wait: a machine that others use too moves by more from one
minute to the next than is looked for here. Ray's own processes aren't held on a core; where there
are but two, they find an idle one beside one worker, and none beside two. A ratio is the median
over what was measured side by side, with its range.
"""

import json
import multiprocessing
import os
import queue
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from pix2pix import cluster, memory, pairs, patches, photographs, training  # noqa: E402 - found by the line above
from pix2pix.patches import Sources  # noqa: E402
from pix2pix.settings import Settings  # noqa: E402

CORES = sorted(os.sched_getaffinity(0))
INGEST_SECONDS = 10.0
INGEST_VISITS = 1000  # more than are cut in that time
WAYS = (  # that workers on one core each take turns in, who of them, and into how many a batch goes
    ("one worker, first core", (2,), 1),  # the two that are averaged are about the same moment
    ("two workers, one batch", (0, 1), 2),
    ("two on their own", (2, 3), 1),
    ("two workers, a batch each", (0, 1), 1),
    ("one worker, second core", (3,), 1),
)
RATIOS = (  # what is divided by what, and what it shall be at least, if anything
    ("Ray Train, one worker", "bare loop", 0.95),
    ("two workers, one batch", "one worker, one core", 1.75),
    ("two workers, a batch each", "one worker, one core", 1.75),
    ("two on their own", "one worker, one core", None),
    ("two workers, one batch", "two on their own", None),
    ("two workers, a batch each", "two on their own", None),
    ("ingest alone", "Ray Train, one worker", 3.0),
    ("ingest alone, photographs", "Ray Train, one worker", 3.0),
)


def timed(work: Callable[[], Any], count: float) -> float:
    """How much of some work is done per second."""
    begun = time.perf_counter()
    work()
    return count / (time.perf_counter() - begun)


def batches(run: Settings, lanes: int) -> tuple[np.ndarray, np.ndarray]:
    """A visit in memory, as `patches.visits` gives them, of random levels."""
    shape = (2, run.patches_per_pair, lanes, run.crop_pixels, run.crop_pixels, 3)
    noisy, clean = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    return noisy, clean


def bare(run: Settings, visits: int) -> float:
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


def worked(told: dict[str, Any]) -> float:
    """A worker of Ray Train, on all cores."""
    import tensorflow as tf

    from pix2pix.worker import Worker

    tf.config.threading.set_intra_op_parallelism_threads(len(CORES))
    tf.config.set_visible_devices([], "GPU")
    run, visits = told["job"].settings, told["visits"]
    worker = Worker(replace(told["job"], lines=queue.SimpleQueue()), 0, 1)
    held = batches(run, run.batch)
    learned(worker, [held])
    return timed(lambda: learned(worker, [held] * visits), visits * run.patches_per_pair)


def learned(worker: Any, visits: list[tuple[np.ndarray, np.ndarray]]) -> None:  # noqa: ANN401 - loads TensorFlow
    """Lets a worker train.

    Raises:
        FloatingPointError: a loss is not finite; the worker has left the rest of its work.
    """
    _, problem = worker.trained_epoch(visits)
    if problem:
        raise FloatingPointError(problem)


def raced(told: dict[str, Any]) -> np.ndarray | None:
    """One of four workers of Ray Train: 0 and 1 are a pair, 2 and 3 know of nobody.

    Returns:
        From the first: float64 (turns, ways), the batches that all together computed per second in
        each of the `WAYS`.
    """
    import ray.train
    from ray.train.collective import barrier

    rank = ray.train.get_context().get_world_rank()
    os.sched_setaffinity(0, {(CORES[0], CORES[-1])[rank % 2]})  # also for threads from here on
    group = (0, 1) if rank < 2 else (rank,)
    names = json.loads(os.environ["TF_CONFIG"])  # of all four, which TensorFlow would wait for
    names["cluster"]["worker"] = [names["cluster"]["worker"][each] for each in group]
    names["task"]["index"] = group.index(rank)
    os.environ["TF_CONFIG"] = json.dumps(names)
    import tensorflow as tf

    from pix2pix.worker import Worker

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.set_visible_devices([], "GPU")
    job = replace(told["job"], lines=queue.SimpleQueue())
    worker, run = Worker(job, group.index(rank), len(group)), job.settings
    held = {parts: batches(run, run.batch // parts) for _, _, parts in WAYS}
    speeds = np.zeros((1 + told["turns"], len(WAYS)))  # 0 of who waits
    for turn in range(len(speeds)):
        for place, (_, who, parts) in list(enumerate(WAYS))[:: -1 if turn % 2 else 1]:
            barrier()  # nobody begins before the others have ended
            if rank in who:
                work = partial(learned, worker, [held[parts]])
                speeds[turn, place] = timed(work, run.patches_per_pair / parts)
    np.save(Path(told["folder"], f"{rank}.npy"), speeds[1:])  # graphs were made in the first
    barrier()
    return None if rank else sum(np.load(file) for file in Path(told["folder"]).glob("*.npy"))


def on_ray(work: Callable[..., Any], run: Settings, workers: int, **told: int) -> Any:  # noqa: ANN401 - that work's
    """What the first of some workers of Ray Train returns, which are told of a job, and more."""
    with cluster.quiet():
        import ray.cloudpickle
        import ray.train
        from ray.train.tensorflow import TensorflowTrainer

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers don't know this file
    found = pairs.found(str(ROOT / "samples/pairs"))
    job = training.Job("", run, Sources(found, []), found, "", False, None)
    with cluster.joined(), tempfile.TemporaryDirectory() as folder:
        trainer = TensorflowTrainer(
            work,
            train_loop_config={"job": job, "folder": folder, **told},
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers, resources_per_worker={"CPU": 1 / workers}
            ),
            run_config=ray.train.RunConfig(
                name="benchmark", storage_path=os.path.join(folder, "ray")
            ),
        )
        return training.without_idlers(trainer).fit().return_value


def race(run: Settings, turns: int) -> dict[str, list[float]]:
    """Batches per second of workers on one core each, in each turn."""
    speeds = on_ray(raced, run, 4, turns=turns)
    found = {name: speeds[:, place].tolist() for place, (name, _, _) in enumerate(WAYS)}
    both = found["one worker, first core"], found["one worker, second core"]
    return found | {"one worker, one core": np.mean(both, axis=0).tolist()}


def ingest(run: Settings, pairs_url: str, clean_url: str | None) -> float:
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
    return steps / seconds


def alone(call: Callable[..., Any], *arguments: Any) -> Any:  # noqa: ANN401 - that call's
    """What a call returns, in a process of its own."""
    # Ray's processes are nicer than others by 15: whatever else runs here meanwhile would then cost
    # them more than the loop that they are compared with
    os.environ |= memory.ENVIRONMENT | {"RAY_worker_niceness": "0"}
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
    """Times each, prints batches per second and the ratios."""
    run = Settings(adversarial=adversarial, precision=precision, crop_pixels=crop_pixels)
    visits = steps // run.patches_per_pair
    works: dict[str, tuple[Any, ...]] = {
        "bare loop": (bare, run, visits),
        "Ray Train, one worker": (partial(on_ray, worked, run, 1, visits=visits),),
        "ingest alone": (ingest, run, str(ROOT / "samples/pairs"), None),
    }
    if data:
        there = (str(data / "sidd_small_256"), str(data / "clean"))
        works["ingest alone, photographs"] = (ingest, run, *there)
    speeds: dict[str, list[float]] = {}

    def keep(name: str, found: list[float]) -> None:
        speeds.setdefault(name, []).extend(found)
        typer.echo(f"{name:26}{' '.join(f'{speed:7.2f}' for speed in found)} batches/s")

    for place in range(2 * rounds):
        for name in list(works)[:: -1 if place % 2 else 1]:
            keep(name, [alone(*works[name])])
        if place % 2 and len(CORES) > 1:
            for name, found in alone(race, run, visits).items():
                keep(name, found)
    for above, below, goal in RATIOS:
        if above in speeds:
            ratios = np.divide(speeds[above], speeds[below])
            typer.echo(
                f"{above} / {below}: {np.median(ratios):.3f} ({ratios.min():.3f} to "
                f"{ratios.max():.3f})" + (f", goal {goal:g}" if goal else "")
            )


if __name__ == "__main__":
    typer.run(main)
