"""The Ray Train walk: pairs -> patches -> both networks on every worker -> checkpoints, history."""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from pix2pix import (
    checkpoints,
    cluster,
    memory,
    pairs,
    photographs,
    report,
    settings,
    sizing,
    storage,
)
from pix2pix.lease import held, refuse_others
from pix2pix.pairs import Pair
from pix2pix.patches import Sources
from pix2pix.settings import Settings
from pix2pix.storage import Entry


@dataclass(frozen=True)
class Job:
    """What every training worker is told; `lines` is the queue for what a person shall read."""

    run_url: str
    settings: Settings
    sources: Sources
    validation: list[Pair]
    data_fingerprint: str
    gpu: bool
    lines: Any  # a ray.util.queue.Queue
    start: tuple[str, str] | None = None  # a checkpoint to begin with, and its weights' SHA-256
    lease: str | None = None  # nonce of the one that allows to write into the run


@dataclass(frozen=True)
class Trained:
    """How a run ended."""

    run_url: str
    best: dict[str, Any]  # the card of the best checkpoint
    epochs: int


def trained(
    pairs_url: str,
    run_url: str,
    wanted: Settings,
    workers: int = 1,
    gpu: bool = False,
    max_failures: int = 3,
    show: Callable[[str], None] = print,
    clean_urls: tuple[str, ...] = (),
    start_url: str | None = None,
) -> Trained:
    """Trains a run to its end, going on where an earlier call with the same arguments stopped.

    Args:
        pairs_url: See `pairs.found`.
        run_url: The run's folder; made if it isn't there.
        wanted: What is to be learned.
        workers: Processes that share each step's batch; `wanted.batch` must be a multiple of it
            (times `wanted.accumulation`).
        gpu: Whether each worker takes a GPU.
        max_failures: How many deaths of workers are forgiven, each answered by a new start from
            the latest checkpoint.
        show: Takes the progress lines.
        clean_urls: Folders of clean photographs, which are trained on with added noise in the
            shares that the settings say.
        start_url: A checkpoint whose weights the run begins with (see `checkpoints.resolved`); the
            learning rates and the discriminator begin anew.

    Raises:
        pairs.BadPairs: pairs or photographs that can't be used, each named.
        ValueError: settings that don't fit the workers, or those of an earlier start.
        FloatingPointError: a loss was not finite.
        RuntimeError: another job trains this run; training failed more than `max_failures` times,
            or the cluster is too small.
    """
    _refuse_misfits(wanted, workers, clean_urls)
    run_url = storage.absolute(run_url)
    start = _start(start_url, wanted) if start_url else None
    cpus = sizing.cpus_per_worker(workers, gpu)
    training, validation, clean = _found(pairs_url, clean_urls, wanted, show)
    data = _fingerprint(training + validation, clean, wanted)
    # patient: the same job, started again on another machine, finds the dead one's lease
    with held(run_url, show, patient=True) as lease:
        nonce, sources = lease.holder.nonce, Sources(training, clean)
        _begin(run_url, wanted, data)
        with cluster.listening(show) as lines:
            job = Job(run_url, wanted, sources, validation, data, gpu, lines, start, nonce)
            ended = _fit(job, workers, cpus, gpu, max_failures)
        refuse_others(run_url, nonce)
        return _closed(run_url, wanted, ended)


def _refuse_misfits(wanted: Settings, workers: int, clean_urls: tuple[str, ...]) -> None:
    """Returns only if the settings fit the workers and what there is to train on.

    Raises:
        ValueError: they don't.
    """
    parts = workers * wanted.accumulation
    if wanted.batch % parts:
        times = f", times accumulation={wanted.accumulation}" if wanted.accumulation > 1 else ""
        raise ValueError(
            f"batch={wanted.batch} must be a multiple of the {workers} workers that share it"
            f"{times}; use {max(1, wanted.batch // parts) * parts}"
        )
    if clean_urls and wanted.camera_share + wanted.white_share == 0:
        raise ValueError(
            "clean photographs are given, but camera_share=0 and white_share=0: no patches would "
            "come from them; give a share, or leave --clean out"
        )


def _found(
    pairs_url: str, clean_urls: tuple[str, ...], wanted: Settings, show: Callable[[str], None]
) -> tuple[list[Pair], list[Pair], list[Entry]]:
    """The pairs to train on, those to validate on, and the clean photographs; tells of each.

    Raises:
        FileNotFoundError: a folder isn't there.
        BadPairs: none are, or a scene that is named.
    """
    training, validation = pairs.split(pairs.found(pairs_url), wanted)
    show(
        f"{len(training)} pairs to train on, {len(validation)} of other scenes "
        f"({', '.join(sorted({pair.scene for pair in validation}))}) to validate on"
    )
    clean = photographs.found(clean_urls, pairs_url)
    if clean:
        shares = f"{wanted.camera_share:.0%} camera noise, {wanted.white_share:.0%} white noise"
        show(f"{len(clean)} clean photographs to train on; of all patches {shares}")
    return training, validation, clean


def _closed(run_url: str, wanted: Settings, ended: dict[str, Any]) -> Trained:
    """How a run ended whose workers are done, once its curves are drawn.

    Raises:
        FloatingPointError: a loss was not finite.
    """
    if ended["not_finite"]:
        raise FloatingPointError(
            f"{ended['not_finite']}; the run stopped, its checkpoints are from before. Try a "
            "smaller --learning-rate or --precision float32 in a new run"
        )
    history = storage.read(storage.join(run_url, checkpoints.HISTORY))
    storage.write(
        storage.join(run_url, checkpoints.CURVES), report.curves(history, wanted.adversarial)
    )
    with tempfile.TemporaryDirectory() as folder:
        best = checkpoints.fetched(run_url, folder)
    return Trained(run_url, best, ended["epochs"])


def _start(url: str, wanted: Settings) -> tuple[str, str]:
    """The URL of a checkpoint to begin with, and the SHA-256 of its weights.

    Raises:
        FileNotFoundError: no checkpoint there.
        ValueError: it holds another generator than the one that is wanted.
    """
    url, sha256 = checkpoints.identified(url)
    there = storage.join(checkpoints.resolved(url), checkpoints.SETTINGS)
    made_with = settings.from_json(storage.read(there).decode())
    values, asked_for = (
        asdict(each) | {"top_width": each.widths[0], "first_blocks": each.blocks_down[0]}
        for each in (made_with, wanted)
    )
    fixed = [name for name in settings.NETWORK if name not in settings.GROWING]
    others = [name for name in fixed if values[name] != asked_for[name]]
    if made_with.bottom_blocks > wanted.bottom_blocks:  # fewer are no other: it grows by them
        others.append("bottom_blocks")
    if made_with.widths[0] > (wanted.top_width or made_with.width):  # nor is a narrower one
        others.append("top_width")
    if others:
        asked = ", ".join(f"--{name.replace('_', '-')} {values[name]}" for name in others)
        raise ValueError(f"start={url} holds another generator than is wanted: give {asked}")
    return url, sha256


def _fingerprint(both: list[Pair], clean: list[Entry], wanted: Settings) -> str:
    """A SHA-256 over pairs and photographs, all large enough for the largest patches.

    Raises:
        BadPairs: some can't be used, each named.
    """
    smallest = max(wanted.crop_pixels, wanted.last_crop_pixels)
    data = pairs.fingerprint(both, smallest)
    if not clean:
        return data
    return hashlib.sha256((data + photographs.fingerprint(clean, smallest)).encode()).hexdigest()


def _begin(run_url: str, wanted: Settings, data: str) -> None:
    """Writes the run's settings, or compares settings and data with those of its first start."""
    url = storage.join(run_url, checkpoints.SETTINGS)
    changed = []
    if storage.exists(url):
        changed = settings.differences(settings.from_json(storage.read(url).decode()), wanted)
    if checkpoints.named(run_url, checkpoints.LATEST):
        before = checkpoints.card_of(f"{run_url}/{checkpoints.LATEST}")["data_fingerprint"]
        changed += [f"data: {before[:12]} -> {data[:12]}"] if before != data else []
    if changed:
        raise ValueError(
            f"{run_url} was begun with other settings or pairs ({'; '.join(changed)}): give the "
            "same to go on with it, or another RUN to begin anew"
        )
    storage.write(url, settings.to_json(wanted).encode())


def _fit(job: Job, workers: int, cpus: float, gpu: bool, max_failures: int) -> dict[str, Any]:
    """What worker 0 returned from `worker.worked`, which Ray Train runs on all of them."""
    import ray.train
    from ray.train.tensorflow import TensorflowTrainer  # loads TensorFlow, here too

    trainer = TensorflowTrainer(
        _work,
        train_loop_config={"job": job},
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=gpu,
            resources_per_worker={"CPU": cpus, "GPU": int(gpu)},
            # CPUs are tickets: packed onto one node, the workers would leave the others' cores idle
            placement_strategy="PACK" if gpu else "SPREAD",
        ),
        run_config=ray.train.RunConfig(
            # our checkpoints are the run's only memory: Ray keeps none, so that another Ray
            # version, another cluster or a killed driver can go on with a run
            name=f"attempt-{time.time_ns()}",
            storage_path=os.path.join(cluster.FOLDER, "train"),
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
            callbacks=[_failures_told(job.lines)],
            worker_runtime_env={"env_vars": memory.ENVIRONMENT},
        ),
    )
    try:
        return without_idlers(trainer).fit().return_value
    except ray.train.TrainingFailedError as error:
        raise RuntimeError(
            f"training failed for good after {max_failures} new starts: {error}; the same command "
            "goes on from the latest checkpoint"
        ) from error


def without_idlers(trainer: Any) -> Any:  # noqa: ANN401 - a ray.train.tensorflow.TensorflowTrainer
    """In an embedded cluster leaves out two processes of Ray Train's that have nothing to do there.

    One hands out datasets, of which it is given none (`patches.visits` cuts them in each worker);
    one gives back what a dead controller had reserved, which here ends with all the rest. Both wake
    a hundred times a second, and the second one asks the cluster each second who lives. Without the
    first no worker gets the driver's `DataContext`: each sets its own (`worker.worked`).
    """
    from ray.train.v2._internal.callbacks import DatasetsCallback
    from ray.train.v2._internal.callbacks.placement_group_callback import (
        PlacementGroupCleanerCallback,
    )

    if cluster.is_embedded():
        made = trainer._create_default_callbacks  # nothing public leaves them out
        idle = (DatasetsCallback, PlacementGroupCleanerCallback)
        trainer._create_default_callbacks = lambda: [
            callback for callback in made() if not isinstance(callback, idle)
        ]
    return trainer


def _failures_told(lines: Any) -> Any:  # noqa: ANN401 - a queue; a ray.train.UserCallback
    """Tells a person of every failure that is answered by a new start."""
    import ray.train

    class Told(ray.train.UserCallback):
        def after_exception(
            self,
            run_context: Any,  # noqa: ANN401 - Ray's own, not used
            worker_exceptions: dict[int, Exception],
        ) -> None:
            for rank, error in worker_exceptions.items():
                last = str(error).strip().rpartition("\n")[2]
                lines.put(f"worker {rank} failed: {type(error).__name__}: {last[:300]}")

    return Told()


def _work(told: dict[str, Job]) -> dict[str, Any]:
    from pix2pix import worker  # loads TensorFlow

    return worker.worked(told["job"])
