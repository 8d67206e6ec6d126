import os
import threading
from typing import Any

from pix2pix import checkpoints, ledger, stages, storage
from tests.conftest import S3Server


def _how_nice(actor: Any) -> tuple[int, list[int]]:
    """How nice a process is that denoises, and its threads in which remote files come and go."""
    import ray

    def inside(process: stages.Denoise) -> tuple[int, list[int]]:  # travels by value: nested
        there = [each for each in threading.enumerate() if each.name == storage.TRANSFERS]
        nice = [os.getpriority(os.PRIO_PROCESS, each.native_id) for each in there if each.native_id]
        return process.niceness, nice

    return ray.get(actor.__ray_call__.remote(inside))


def _process(output: str, checkpoint: str) -> Any:
    import ray

    way = stages.Way(*checkpoints.identified(checkpoint))
    made = ray.remote(stages.Denoise).options(num_cpus=0)
    return made.remote(output, way, ledger.started(1, 1), False, 1)


def test_the_store_is_met_before_the_first_image_and_stands_back(
    ray_cluster: None, s3: S3Server, checkpoint: str
) -> None:
    import ray

    process = _process(s3.bucket_url("stages"), checkpoint)
    mine, theirs = _how_nice(process)
    ray.kill(process)
    assert theirs == [min(mine + 10, 19)] != [mine]


def test_a_process_begins_though_its_output_has_no_client(
    ray_cluster: None, checkpoint: str, tmp_path: object
) -> None:
    import ray

    process = _process(str(tmp_path), checkpoint)
    assert _how_nice(process)[1] == []
    ray.kill(process)
