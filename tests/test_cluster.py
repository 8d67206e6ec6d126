import os
import time
from pathlib import Path

import pytest
import ray


@pytest.mark.usefixtures("ray_cluster")
def test_processes_that_wait_for_work_are_kept(tmp_path: Path) -> None:
    some = int(ray.cluster_resources()["CPU"]) + 2

    @ray.remote(num_cpus=0)
    def process(number: int) -> int:
        (tmp_path / str(number)).touch()
        while len(list(tmp_path.iterdir())) < some:  # so that each needs a process of its own
            time.sleep(0.05)
        return os.getpid()

    processes = ray.get([process.remote(number) for number in range(some)], timeout=120)
    time.sleep(4)  # Ray's own patience is a second
    assert [pid for pid in processes if not Path(f"/proc/{pid}").exists()] == []
