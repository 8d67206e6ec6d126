"""The loop that every training worker runs: steps, validation, checkpoints, history."""

import json
import math
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tensorflow as tf

from pix2pix import (
    checkpoints,
    cluster,
    denoiser,
    lease,
    metrics,
    pairs,
    patches,
    schedule,
    settings,
    storage,
)
from pix2pix.gan import LOSSES, Gan
from pix2pix.schedule import Progress
from pix2pix.settings import Settings

if TYPE_CHECKING:
    from pix2pix.training import Job

TENSORBOARD = "tensorboard"
PROGRESS = "progress.json"
SECONDS_PER_LINE = 30.0  # of progress within an epoch
SAMPLE_PIXELS = 256  # of the pictures for TensorBoard
SCORES = ("psnr_db", "ssim", "noisy_psnr_db", "noisy_ssim")


def worked(job: "Job") -> dict[str, Any]:
    """Trains from the latest checkpoint to the end; runs on every worker at once.

    Returns:
        `epochs` finished, and `not_finite` with a sentence where a loss was not a number.
    """
    import ray.train

    context = ray.train.get_context()
    cluster.quieten()
    cores = len(os.sched_getaffinity(0))  # TensorFlow would let each worker use all of them
    threads = max(1, cores // context.get_local_world_size())
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    if not job.gpu:  # Ray hides GPUs only from those who ask for some
        tf.config.set_visible_devices([], "GPU")
    worker = Worker(job, context.get_world_rank(), context.get_world_size())
    worker.resume()
    while not schedule.finished(worker.progress, job.settings):
        losses, problem = worker.trained_epoch(worker.visits())
        if problem:  # the same on every worker: returning lets none of them wait for another
            return {"epochs": worker.progress.epoch, "not_finite": problem}
        problem = worker.close_epoch(losses)
        if problem:
            return {"epochs": worker.progress.epoch, "not_finite": problem}
        ray.train.report(worker.progress.history[-1])  # a barrier: nobody runs ahead
    return {"epochs": worker.progress.epoch, "not_finite": ""}


class Worker:
    """One worker's networks and its place among the others.

    Args:
        job: The same on every worker.
        rank: This worker's number, from 0; worker 0 writes.
        workers: How many there are.
    """

    def __init__(self, job: "Job", rank: int, workers: int) -> None:
        self.job, self.rank, self.workers = job, rank, workers
        self.strategy = tf.distribute.MultiWorkerMirroredStrategy()
        if self.strategy.num_replicas_in_sync != workers:
            raise RuntimeError(
                f"{workers} workers see {self.strategy.num_replicas_in_sync} devices: each "
                "must see one; train with --gpu, or with CUDA_VISIBLE_DEVICES set to nothing"
            )
        self.gan = Gan(job.settings, self.strategy)
        self.denoiser = denoiser.Denoiser(self.gan.averaged, job.settings)
        self.progress, self.epoch_seconds = Progress(), 0.0
        visits = patches.visits_per_epoch(job.sources, job.settings)
        self.epoch_steps = visits * job.settings.patches_per_pair
        self.noisy_scores: np.ndarray | None = None

    def tell(self, line: str) -> None:
        """Shows a line to whoever started the run; worker 0 speaks for all."""
        if self.rank == 0:
            self.job.lines.put(line)

    def resume(self) -> None:
        """Takes over the run's latest checkpoint, both optimizers included, if there is one.

        A run without one begins with the weights that it was told to start from, if any.

        Raises:
            RuntimeError: not all workers see the same checkpoint, or compute in the same precision;
                another job trains the run.
        """
        self._refuse_others()
        with tempfile.TemporaryDirectory() as folder:
            if checkpoints.state(self.job.run_url, folder) is not None:
                self.gan.restore(Path(folder))
                told = json.loads(Path(folder, checkpoints.STATE, PROGRESS).read_text())
                known = {item.name for item in fields(Progress)}  # an older version knew others
                self.progress = Progress(**{n: value for n, value in told.items() if n in known})
            elif self.job.start is not None:
                url, sha256 = self.job.start
                checkpoints.fetched(url, folder, sha256)
                self.gan.start(Path(folder))
        short = self.gan.generator.compute_dtype == "bfloat16"
        mine = np.outer([self.progress.step, short], np.eye(self.workers)[self.rank])
        steps, shorts = self._total(mine)
        if np.ptp(shorts):  # their gradients would not be added up, or not have the same bits
            raise RuntimeError(
                f"precision={self.job.settings.precision} means bfloat16 for {int(shorts.sum())} "
                f"of the {self.workers} workers and float32 for the others, whose processors lack "
                "it: begin a new RUN with --precision float32"
            )
        if np.ptp(steps):
            raise RuntimeError(
                f"the workers' latest checkpoints are of the steps {steps.astype(int).tolist()}: "
                f"{self.job.run_url} must be one place for all nodes; use s3:// or a shared folder"
            )
        if self.progress.step:
            self.tell(f"going on after epoch {self.progress.epoch}, step {self.progress.step}")

    def visits(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """This worker's patches of the next epoch (`patches.visits`), as large as they now are."""
        run, progress = self.job.settings, self.progress
        done = self._share_done(progress.step, 0.0)
        cut = replace(run, crop_pixels=schedule.crop_pixels(done, run))
        return patches.visits(self.job.sources, cut, progress.epoch, self.rank, self.workers)

    def _share_done(self, step: int, seconds: float) -> float:
        run = self.job.settings
        return schedule.share_done(self.progress, run, step, run.epochs * self.epoch_steps, seconds)

    def trained_epoch(
        self, visits: Iterable[tuple[np.ndarray, np.ndarray]]
    ) -> tuple[np.ndarray, str]:
        """Trains one epoch, or until the run's time is over.

        Args:
            visits: A batch for each step, see `patches.visits`.

        Returns:
            The means of the `LOSSES` over the epoch and all workers, and a sentence if one of them
            is not finite (the epoch is then left at once).
        """
        run, progress = self.job.settings, self.progress
        sums, steps, told = np.zeros(len(LOSSES)), 0, time.monotonic()
        begun, seconds = told, 0.0
        for noisy, clean in visits:
            if run.limit_seconds > 0:  # what depends on time needs one clock
                seconds = self._mean(time.monotonic() - begun)
                if steps and seconds >= schedule.seconds_left(progress, run):
                    break
            mine = tf.zeros(len(LOSSES))
            for both in zip(noisy, clean, strict=True):
                step = progress.step + steps
                done = self._share_done(step, seconds)
                self.gan.learn_at(schedule.rate_share(done, step, run))
                mine += self.gan.step(*both, judged=done >= run.adversarial_start)
                steps += 1
            sums += self._total(mine.numpy()) / self.workers  # waits: a GPU may be steps behind
            if not np.isfinite(sums).all():
                names = [
                    n for n, value in zip(LOSSES, sums, strict=True) if not math.isfinite(value)
                ]
                place = f"epoch {progress.epoch + 1}, before step {progress.step + steps + 1}"
                return sums, f"{' and '.join(names)} is not a finite number in {place}"
            if steps < self.epoch_steps and time.monotonic() - told > SECONDS_PER_LINE:
                told = time.monotonic()
                self.tell(
                    f"epoch {progress.epoch + 1}/{run.epochs}  {steps / self.epoch_steps:4.0%}  "
                    f"{steps / (told - begun):.2f} steps/s  L1 {sums[1] / steps:.4f}"
                )
        self.epoch_seconds = self._mean(time.monotonic() - begun)
        progress.step += steps
        return sums / steps, ""

    def close_epoch(self, losses: np.ndarray) -> str:
        """Validates, then writes checkpoint, history and scalars of the epoch just trained.

        Returns:
            A sentence if the generator gives no finite pixels (nothing is written then), or "".
        """
        run, progress = self.job.settings, self.progress
        begun = time.monotonic()
        steps = progress.step - (progress.history[-1]["step"] if progress.history else 0)
        scores = self.scores()
        broken = self._total([not self.gan.is_finite()])[0]  # no worker leaves the others alone
        if broken or not math.isfinite(scores["psnr_db"]):
            return f"a weight or an output is not a finite number after epoch {progress.epoch + 1}"
        progress.epoch += 1
        progress.closing_seconds = self._mean(time.monotonic() - begun)
        progress.seconds += self.epoch_seconds + progress.closing_seconds
        best = scores["psnr_db"] > progress.best_psnr_db
        progress.best_psnr_db = max(progress.best_psnr_db, scores["psnr_db"])
        progress.history.append(
            {
                "epoch": progress.epoch,
                "step": progress.step,
                **dict(zip(LOSSES, losses.tolist(), strict=True)),
                **scores,
                "best": best,
                "learning_rate": run.learning_rate * self.gan.rate_share,
                "steps_per_second": steps / self.epoch_seconds,
                "seconds": progress.seconds,
            }
        )
        if self.rank == 0:
            self._write(best)
            self.tell(line(progress.history[-1], run))
        return ""

    def scores(self) -> dict[str, float]:
        """The `SCORES` of what would denoise now: means over all validation images.

        Each worker denoises its share of them, whole.
        """
        mine = self.job.validation[self.rank :: self.workers]
        denoised, noisy_scores = np.zeros(2), np.zeros(2)
        for pair in mine:
            noisy, clean = pairs.pixels(pair)
            try:
                denoised += _scores(clean, self.denoiser.denoised(noisy))
            except FloatingPointError:  # for all workers to see, who would wait for this one
                denoised += math.nan
            if self.noisy_scores is None:
                noisy_scores += _scores(clean, noisy)
        count = len(self.job.validation)
        if self.noisy_scores is None:
            self.noisy_scores = self._total(noisy_scores) / count
        means = [*(self._total(denoised) / count).tolist(), *self.noisy_scores.tolist()]
        return dict(zip(SCORES, means, strict=True))

    def _total(self, values: Any) -> np.ndarray:  # noqa: ANN401 - whatever NumPy takes
        """The sums of a few numbers over all workers, the same on each."""
        parts = self.strategy.run(tf.identity, args=(tf.constant(values, tf.float64),))
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None).numpy()

    def _mean(self, value: float) -> float:
        """The mean of a number over all workers, the same on each."""
        return float(self._total([value])[0]) / self.workers

    def _refuse_others(self) -> None:
        if self.rank == 0 and self.job.lease:
            lease.refuse_others(self.job.run_url, self.job.lease)

    def _write(self, best: bool) -> None:
        self._refuse_others()
        run_url, progress, latest = self.job.run_url, self.progress, self.progress.history[-1]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self.gan.save(folder)
            (folder / checkpoints.STATE / PROGRESS).write_text(json.dumps(asdict(progress)))
            (folder / checkpoints.SETTINGS).write_text(settings.to_json(self.job.settings))
            facts = {name: latest[name] for name in ("step", "epoch", *SCORES)} | {
                "training_pairs": len(self.job.sources.pairs),
                "clean_photographs": len(self.job.sources.photographs),
                "validation_pairs": [pair.name for pair in self.job.validation],
                "data_fingerprint": self.job.data_fingerprint,
                "started_from": self.job.start and self.job.start[1],
                "workers": self.workers,
                "precision": self.gan.generator.dtype_policy.name,
                "parameters": self.gan.generator.count_params(),
                "seconds": progress.seconds,
            }
            card = checkpoints.card(folder, facts)
            (folder / checkpoints.CARD).write_text(json.dumps(card, indent=1) + "\n")
            checkpoints.save(run_url, folder, progress.step, best)
        table = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(progress.history), table)
        storage.write(storage.join(run_url, checkpoints.HISTORY), table.getvalue().to_pybytes())
        self._show_on_board(latest)

    def _show_on_board(self, latest: dict[str, float]) -> None:
        """Scalars and a strip noisy | denoised | clean for TensorBoard."""
        noisy, clean = (
            image[:SAMPLE_PIXELS, :SAMPLE_PIXELS] for image in pairs.pixels(self.job.validation[0])
        )
        strip = np.concatenate([noisy, self.denoiser.denoised(noisy), clean], axis=1)
        with tempfile.TemporaryDirectory() as folder:  # a file per epoch: none is sent twice
            board = tf.summary.create_file_writer(folder)
            with board.as_default(step=self.progress.step):
                for name in (*LOSSES, *SCORES, "learning_rate", "steps_per_second"):
                    tf.summary.scalar(name, latest[name])
                tf.summary.image("noisy, denoised, clean", strip[np.newaxis])
            board.close()
            storage.copy(folder, storage.join(self.job.run_url, TENSORBOARD))


def _scores(clean: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    psnr_db = metrics.mean_psnr_db([metrics.psnr_db(clean, candidate)])  # finite also if identical
    return np.array([psnr_db, metrics.ssim(clean, candidate)])


def line(latest: dict[str, float], run: Settings) -> str:
    """What a person reads after each epoch."""
    gain = latest["psnr_db"] - latest["noisy_psnr_db"]
    judged = (
        f"adversarial {latest['adversarial_loss']:.3f}  "
        f"discriminator {latest['discriminator_loss']:.3f}  "
    )
    return (
        f"epoch {latest['epoch']}/{run.epochs}  step {latest['step']}  "
        f"{latest['steps_per_second']:.2f} steps/s  L1 {latest['l1_loss']:.4f}  "
        f"{judged if run.judged else ''}"
        f"PSNR {latest['psnr_db']:.2f} dB ({gain:+.2f} over noisy)  SSIM {latest['ssim']:.4f}"
        f"{'  best so far' if latest['best'] else ''}"
    )
