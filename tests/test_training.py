import contextlib
import io
import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from PIL import Image

from pix2pix import (
    checkpoints,
    denoiser,
    images,
    lease,
    pairs,
    sizing,
    storage,
    training,
    worker,
)
from pix2pix.gan import Gan
from pix2pix.patches import Sources
from pix2pix.schedule import Progress
from pix2pix.settings import Settings
from tests import leases, runs

SAMPLES = Path(__file__).parent.parent / "samples"
pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_two_workers_mix_clean_and_denoised_as_one_would(optimizer: str, tmp_path: Path) -> None:
    wanted = runs.changed(adversarial="wgan-gp", critic_steps=2, optimizer=optimizer)
    ends, losses = [], []
    for workers in (1, 2):
        run = tmp_path / str(workers)
        runs.trained(run, wanted, workers)
        ends.append(runs.weights(run))
        losses.append(runs.losses(run))
    assert runs.furthest(*ends) < 1e-4
    np.testing.assert_allclose(*losses, rtol=1e-3)


@pytest.mark.slow
def test_parts_on_two_workers_learn_what_one_would_from_whole_batches_of_growing_patches(
    tmp_path: Path,
) -> None:
    # with some seeds the gradient of one bias of the critic is all but nil, and what rounding makes
    # of its sign decides where Adam moves it: with this one they agree to 1e-5, whatever the order
    growing = {"batch": 44, "epochs": 2, "last_crop_pixels": 64, "crop_stages": 2, "seed": 1}
    ends, losses = [], []
    for workers in (1, 2):
        wanted = runs.changed(adversarial="wgan-gp", accumulation=workers, **growing)
        run = tmp_path / str(workers)
        runs.trained(run, wanted, workers)
        ends.append(runs.weights(run))
        losses.append(runs.losses(run))
    assert runs.furthest(*ends) < 1e-4
    np.testing.assert_allclose(*losses, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.skipif(denoiser.dtype_policy("auto") == "float32", reason="oneDNN lacks bfloat16")
def test_gradients_that_travel_in_half_precision_teach_two_workers_what_one_learns(
    tmp_path: Path,
) -> None:
    halved = {"adversarial": "bce", "precision": "bfloat16"}
    first_step = {"patches_per_pair": 1, "clip_norm": 0.0, "beta_1": 0.5}
    ends, losses = [], []
    for workers, wanted in ((1, {}), (2, {}), (1, first_step), (2, first_step)):
        run = tmp_path / f"{len(ends)}"
        runs.trained(run, runs.changed(**halved, **wanted), workers)
        kept = runs.weights(run)
        ends.append({name: kept[name] for name in kept if name.startswith("optimizers/0/")})
        losses.append(runs.losses(run))
    for place in (0, 2):
        assert runs.furthest(*ends[place : place + 2]) < 0.02  # bfloat16 rounds to 0.004
        np.testing.assert_allclose(*losses[place : place + 2], rtol=1e-3)
    momenta = [ends[3][name] for name in ends[3] if int(name.rpartition("/")[2]) in range(2, 99, 2)]
    beyond = [each.view(np.uint32) & 0xFFFF for each in momenta]  # half of the gradients
    assert len(momenta) == 20
    assert any(each.any() for each in momenta)
    assert not any(bits.any() for bits in beyond)  # two workers' sum in float32 has bits there


def test_what_denoises_are_averages_of_the_weights_that_learn(one_epoch: Path) -> None:
    arrays = runs.weights(one_epoch)
    averages = {n: v for n, v in arrays.items() if n.startswith("generator.weights.h5/")}
    moved = [np.abs(v - arrays[f"state/{name}"]).max() for name, v in averages.items()]
    assert max(moved) > 1e-5
    assert (one_epoch / "settings.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_continued_ends_where_an_unbroken_one_does(
    workers: int, one_epoch: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    storage.copy(str(one_epoch), str(broken))
    for path in broken.rglob("settings.json"):  # as if a version had begun it that knew fewer
        known = json.loads(path.read_text())
        for name in ("accumulation", "last_crop_pixels", "crop_stages"):
            del known[name]
        path.write_text(json.dumps(known))
    done, lines = runs.trained(broken, runs.changed(epochs=2), workers)
    runs.trained(tmp_path / "unbroken", runs.changed(epochs=2))
    assert "going on after epoch 1, step 3" in lines
    assert (done.epochs, pq.read_table(broken / "history.parquet")["step"].to_pylist()) == (
        2,
        [3, 6],
    )
    assert runs.furthest(runs.weights(broken), runs.weights(tmp_path / "unbroken")) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "seconds"), [(1, 4.0), (2, 8.0)])  # two must agree on it
def test_a_run_without_adversary_builds_none_and_ends_within_its_time(
    workers: int, seconds: float, tmp_path: Path
) -> None:
    wanted = runs.changed(
        adversarial_weight=0.0, patches_per_pair=4, batch=2, epochs=10**6, limit_seconds=seconds
    )
    done, lines = runs.trained(tmp_path / "run", wanted, workers)
    history = pq.read_table(tmp_path / "run/history.parquet").to_pylist()
    # a visit and the difference between two validations may be more than what was left
    assert history[-1]["seconds"] == pytest.approx(seconds, abs=2), lines
    assert history[-1]["learning_rate"] == 1e-3  # decay_start is 1
    assert done.epochs == len(history)
    assert history[-1]["step"] % 44 or done.epochs > 1
    folder = storage.local_path(checkpoints.resolved(f"{tmp_path}/run/latest"))
    state = {path.name for path in (folder / "state").iterdir()}
    assert state == {"generator.weights.h5", "optimizers.npz", "progress.json"}


def test_a_run_leaves_what_it_promises(one_epoch: Path) -> None:
    best = storage.local_path(checkpoints.resolved(str(one_epoch)))
    card = json.loads((best / "card.json").read_text())
    assert card["step"] == 3
    assert card["noisy_psnr_db"] == pytest.approx(27.91, abs=0.01)  # of the four 002 samples
    assert len(card["validation_pairs"]) == 4
    assert all("_002_" in name for name in card["validation_pairs"])
    history = pq.read_table(one_epoch / "history.parquet").to_pylist()
    assert history[0]["psnr_db"] == card["psnr_db"]
    curves = Image.open(io.BytesIO((one_epoch / "curves.png").read_bytes()))
    assert curves.size == (1100, 700)


def test_tensorboard_can_read_scalars_and_a_strip(one_epoch: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(one_epoch / "tensorboard"))
    events.Reload()
    assert {"psnr_db", "noisy_psnr_db", "l1_loss", "discriminator_loss"} <= set(
        events.Tags()["tensors"]
    )
    strip = events.Tensors("noisy, denoised, clean")[0].tensor_proto.string_val
    assert Image.open(io.BytesIO(strip[2])).size == (768, 256)


def test_a_run_is_not_continued_with_other_settings(one_epoch: Path) -> None:
    with pytest.raises(ValueError, match="width: 4 -> 8"):
        runs.trained(one_epoch, runs.changed(width=8))


def test_a_second_job_on_the_same_run_is_refused(one_epoch: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    storage.copy(str(one_epoch), str(run))
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")}
    with (
        lease.held(str(run), stale_seconds=12),  # renewed every two seconds
        pytest.raises(RuntimeError, match="is being worked on by process"),
    ):
        runs.trained(run, runs.changed(epochs=2))
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*.parquet")} == before
    assert not list((one_epoch / "lease").iterdir())  # given back by who trained it


def test_who_died_elsewhere_is_waited_for(one_epoch: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    storage.copy(str(one_epoch), str(run))
    leases.abandoned(str(run), seconds_ago=0, stale_seconds=4)
    with pytest.raises(ValueError, match="width: 4 -> 8"):  # asked once the lease is ours
        runs.trained(run, runs.changed(width=8))


@pytest.mark.slow
def test_who_was_taken_over_writes_no_checkpoint(tmp_path: Path) -> None:
    """As if this job had not been able to renew its lease, and another one had come."""
    run, pairs_url = tmp_path / "run", str(SAMPLES / "pairs")

    def come(line: str) -> None:
        if "step 3 " in line:
            leases.abandoned(str(run), seconds_ago=0, number=2)

    with pytest.raises(RuntimeError, match="was taken over by process 1 on elsewhere"):
        training.trained(pairs_url, str(run), runs.changed(epochs=9), max_failures=0, show=come)
    history = pq.read_table(run / "history.parquet")["step"].to_pylist()
    assert history in ([3], [3, 6])  # the line came while the second epoch was under way


def test_a_batch_that_workers_cannot_share_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"batch=22 must be a multiple of the 4 workers .* use 20"):
        runs.trained(tmp_path / "run", runs.SETTINGS, workers=4)
    with pytest.raises(ValueError, match="2 workers that share it, times accumulation=2; use 20"):
        runs.trained(tmp_path / "run", runs.changed(accumulation=2), workers=2)


def test_pairs_must_be_as_large_as_patches_will_grow(tmp_path: Path) -> None:
    with pytest.raises(pairs.BadPairs, match="256x256 is smaller than patches of 288"):
        runs.trained(tmp_path / "run", runs.changed(last_crop_pixels=288))


def test_photographs_must_be_as_large_as_patches_will_grow(tmp_path: Path) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "small.png")
    with pytest.raises(pairs.BadPairs, match="40x40 pixels are smaller than patches of 64"):
        training.trained(
            str(SAMPLES / "pairs"),
            str(tmp_path / "run"),
            runs.changed(last_crop_pixels=64),
            clean_urls=(str(tmp_path),),
        )


def _alone(wanted: Settings) -> worker.Worker:
    """A worker of its own, with four pairs and no run."""
    found = pairs.found(str(SAMPLES / "pairs"))[:4]
    job = training.Job("", wanted, Sources(found, []), found, "", False, None)
    return worker.Worker(job, rank=0, workers=1)


def test_the_losses_of_an_epoch_are_means_over_its_steps() -> None:
    wanted = runs.changed(batch=2)
    levels = np.random.default_rng(0).integers(0, 256, (2, 2, 3, 2, 32, 32, 3), np.uint8)
    visits = [(noisy, clean) for noisy, clean in levels]  # two, of three steps of two patches
    gan = Gan(wanted, tf.distribute.get_strategy())
    steps = [gan.step(*both).numpy() for visit in visits for both in zip(*visit, strict=True)]
    means, problem = _alone(wanted).trained_epoch(visits)
    assert not problem
    np.testing.assert_allclose(means, np.mean(steps, axis=0), rtol=1e-4)


def test_patches_grow_from_epoch_to_epoch() -> None:
    wanted = runs.changed(epochs=4, last_crop_pixels=64, crop_stages=2, batch=4)
    alone, sides = _alone(wanted), []
    for epoch in range(4):  # of one visit, three steps
        alone.progress = Progress(epoch, step=3 * epoch)
        sides += [noisy.shape[2:4] for noisy, _ in alone.visits()]
    assert sides == [(32, 32), (32, 32), (64, 64), (64, 64)]


def test_photographs_without_a_share_are_refused(tmp_path: Path) -> None:
    wanted = runs.changed(camera_share=0.0, white_share=0.0)
    with pytest.raises(ValueError, match="no patches would come from them"):
        training.trained("pairs", str(tmp_path), wanted, clean_urls=(str(SAMPLES / "unseen"),))


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    wanted = runs.changed(learning_rate=0.9, l1_weight=1e38, adversarial_weight=0.0, epochs=3)
    with pytest.raises(FloatingPointError, match=r"generator_loss .* is not a finite number"):
        runs.trained(tmp_path / "run", wanted)
    assert not (tmp_path / "run/latest").exists()  # what can't be used is never a checkpoint


@pytest.mark.slow
def test_a_loss_that_is_not_finite_on_one_worker_stops_both(tmp_path: Path) -> None:
    for scene, levels in (("alike", 0), ("apart", 255), ("validation", 0)):
        for kind, level in (("noisy", 0), ("clean", levels)):
            (tmp_path / f"pairs/{kind}/{scene}").mkdir(parents=True)
            Image.new("RGB", (64, 64), (level,) * 3).save(tmp_path / f"pairs/{kind}/{scene}/1.png")
    # one patch of each pair, in one step: a loss of 0, and one of twice 3e38, beyond float32
    wanted = runs.changed(
        adversarial="none", l1_weight=3e38, batch=2, patches_per_pair=1,
        validation_scenes=("validation",),
    )  # fmt: skip
    with pytest.raises(FloatingPointError, match=r"generator_loss .* before step 2"):
        training.trained(str(tmp_path / "pairs"), str(tmp_path / "run"), wanted, workers=2)


@pytest.mark.slow
@pytest.mark.skipif(denoiser.dtype_policy("auto") == "float32", reason="oneDNN lacks bfloat16")
def test_workers_that_compute_in_different_precisions_are_refused(tmp_path: Path) -> None:
    import ray.train
    from ray.train.tensorflow import TensorflowTrainer

    def work(jobs: dict[str, training.Job]) -> None:
        rank = ray.train.get_context().get_world_rank()
        worker.Worker(jobs[str(rank)], rank, 2).resume()

    found = pairs.found(str(SAMPLES / "pairs"))
    jobs = {  # as `auto` would have it on processors of two kinds
        str(rank): training.Job(
            str(tmp_path / "run"), runs.changed(precision=precision), Sources(found, []), found,
            "", False, None,
        )
        for rank, precision in enumerate(("float32", "bfloat16"))
    }  # fmt: skip
    cpus = sizing.cpus_per_worker(2, gpu=False)
    trainer = TensorflowTrainer(
        work,
        train_loop_config=jobs,
        scaling_config=ray.train.ScalingConfig(num_workers=2, resources_per_worker={"CPU": cpus}),
        run_config=ray.train.RunConfig(storage_path=str(tmp_path / "ray")),
    )
    with pytest.raises(ray.train.TrainingFailedError, match="bfloat16 for 1 of the 2 workers"):
        trainer.fit()


@pytest.mark.slow
def test_a_worker_killed_in_the_middle_costs_no_finished_epoch(tmp_path: Path) -> None:
    wanted = runs.changed(epochs=6, patches_per_pair=12)
    run, lines = tmp_path / "run", []
    ended: list[training.Trained] = []
    thread = threading.Thread(
        target=lambda: ended.append(
            training.trained(str(SAMPLES / "pairs"), str(run), wanted, 2, show=lines.append)
        )
    )
    thread.start()
    limit = time.monotonic() + 180
    while not (run / "latest").exists() and time.monotonic() < limit:
        time.sleep(0.05)
    finished = sum("epoch" in line and "PSNR" in line for line in lines)
    os.kill(_training_workers()[-1], signal.SIGKILL)
    thread.join(240)
    assert ended, lines
    assert ended[0].epochs == 6
    history = pq.read_table(run / "history.parquet").to_pydict()
    assert history["epoch"] == [1, 2, 3, 4, 5, 6]
    assert history["step"] == [12, 24, 36, 48, 60, 72]
    again = [line for line in lines if line.startswith("going on after epoch")]
    assert again
    assert int(again[0].split()[4].rstrip(",")) >= max(1, finished)
    assert any("worker" in line and "failed" in line for line in lines)


def _training_workers() -> list[int]:
    """The training workers of this process's own Ray: children of its child, the raylet."""

    def parent(pid: int) -> int:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])

    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        pid = int(path.parent.name)
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if path.read_bytes().startswith(b"ray::RayTrainWorker"):
                found += [pid] if parent(parent(pid)) == os.getpid() else []
    return sorted(found)


def test_ray_train_s_idle_helpers_are_left_out_of_an_embedded_cluster_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray.train import ScalingConfig
    from ray.train.tensorflow import TensorflowTrainer

    kept = []
    for address in ("", "127.0.0.1:6379"):
        monkeypatch.setenv("RAY_ADDRESS", address)
        trainer = TensorflowTrainer(print, scaling_config=ScalingConfig(num_workers=1))
        callbacks = training.without_idlers(trainer)._create_default_callbacks()
        kept.append({type(callback).__name__ for callback in callbacks})
    assert kept[1] - kept[0] == {"DatasetsCallback", "PlacementGroupCleanerCallback"}
    assert {"BackendSetupCallback", "UserCallbackHandler"} <= kept[0] < kept[1]


@pytest.mark.slow
def test_a_run_grows_from_the_checkpoint_it_is_told_to_start_from(
    one_epoch: Path, tmp_path: Path
) -> None:
    still = runs.changed(learning_rate=1e-9, seed=7, bottom_blocks=1, top_width=6)
    done = training.trained(
        str(SAMPLES / "pairs"), str(tmp_path / "run"), still, start_url=str(one_epoch)
    )
    assert done.best["started_from"] == checkpoints.identified(str(one_epoch))[1]
    small, large = (denoiser.loaded(str(each)) for each in (one_epoch, tmp_path / "run"))
    assert large.generator.count_params() > small.generator.count_params()
    noisy = images.decode_rgb(next(SAMPLES.glob("pairs/Data/*/NOISY*")).read_bytes())
    before, after = (model.denoised(noisy).astype(int) for model in (small, large))
    assert np.abs(before - noisy).max() > 1
    assert np.abs(before - after).max() <= 1


def test_another_generator_is_no_start(one_epoch: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--width 4, --levels 2, --first-blocks 1, --stride 1"):
        training.trained(
            str(SAMPLES / "pairs"),
            str(tmp_path),
            runs.changed(width=8, levels=3, stride=2, first_blocks=0),
            start_url=str(one_epoch),
        )


def test_a_generator_does_not_shrink(one_epoch: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="another generator than is wanted: give --top-width 4"):
        training.trained(
            str(SAMPLES / "pairs"),
            str(tmp_path),
            runs.changed(top_width=2),
            start_url=str(one_epoch),
        )
