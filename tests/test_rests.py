import time
from types import SimpleNamespace

import pytest
import ray.data

from pix2pix.rests import FIRST_REST, LONGEST_REST, Rests


def test_rests_double_while_nothing_moves_and_end_when_something_does() -> None:
    metrics = SimpleNamespace(num_tasks_submitted=1, num_task_outputs_generated=0)
    executor = SimpleNamespace(_topology=[SimpleNamespace(metrics=metrics)])
    rests, seen = Rests(), []
    for ended in (0, 0, 0, 0, 0, 0, 1, 1):  # of the one task, at each look
        metrics.num_task_outputs_generated = ended
        begun = time.monotonic()
        rests.on_execution_step(executor)
        assert time.monotonic() - begun >= rests.rest
        seen.append(rests.rest)
    assert seen == pytest.approx([0, 0.05, 0.1, 0.2, 0.4, 0.4, 0, 0.05])
    assert (FIRST_REST, LONGEST_REST) == (0.05, 0.4)


@pytest.mark.usefixtures("ray_cluster")
def test_ray_data_rests_while_a_task_takes_long_and_not_while_many_end() -> None:
    looks: list[float] = []

    class Watched(Rests):
        def on_execution_step(self, executor: object) -> None:
            super().on_execution_step(executor)
            looks.append(self.rest)

    def slow(batch: dict) -> dict:
        time.sleep(3 if batch["id"][0] == 0 else 0)
        return batch

    source = ray.data.range(200, override_num_blocks=200)
    source.context.custom_execution_callback_classes = [Watched]
    assert source.map_batches(slow, batch_size=1).count() == 200
    assert looks.count(0) > 5
    assert max(looks) == LONGEST_REST
