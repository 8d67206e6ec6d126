import time
from types import SimpleNamespace
from typing import Any

import pytest
import ray.data
from ray.data._internal.execution.interfaces.physical_operator import DataOpTask

from pix2pix.rests import FIRST_REST, LONGEST_REST, Rests


def test_rests_double_while_nothing_moves_and_end_when_something_does() -> None:
    metrics = SimpleNamespace(num_tasks_submitted=1, num_task_outputs_generated=0)
    operator = SimpleNamespace(metrics=metrics, get_active_tasks=list)
    rests, seen = Rests(), []
    for ended in (0, 0, 0, 0, 0, 0, 1, 1):  # of the one task, at each look
        metrics.num_task_outputs_generated = ended
        begun = time.monotonic()
        rests.on_execution_step(SimpleNamespace(_topology=[operator]))
        assert time.monotonic() - begun >= rests.rest
        seen.append(rests.rest)
    assert seen == pytest.approx([0, 0.05, 0.1, 0.2, 0.4, 0.4, 0, 0.05])
    assert (FIRST_REST, LONGEST_REST) == (0.05, 0.4)


@pytest.mark.usefixtures("ray_cluster")
def test_ray_data_rests_while_a_task_takes_long_and_not_while_many_end() -> None:
    looks: list[tuple[float, bool]] = []

    class Watched(Rests):
        def on_execution_step(self, executor: Any) -> None:
            tasks = [
                task for operator in executor._topology for task in operator.get_active_tasks()
            ]
            data = [task for task in tasks if isinstance(task, DataOpTask)]
            found = any(task.has_pending_emits() for task in data)
            super().on_execution_step(executor)
            looks.append((self.rest, found))

    def slow(batch: dict) -> dict:
        time.sleep(4 / blocks**2)  # 4 s for the only one, nothing for each of many
        return batch

    for blocks in (1, 100):
        looks.clear()
        source = ray.data.range(blocks, override_num_blocks=blocks)
        source.context.custom_execution_callback_classes = [Watched]
        assert len(source.map_batches(slow, batch_size=1).take_all()) == blocks
        assert {rest for rest, found in looks if found} <= {0}
        if blocks == 1:
            assert max(rest for rest, _ in looks) == LONGEST_REST
        else:
            assert [rest for rest, _ in looks].count(0) > 5
