"""Rests between Ray Data's looks at its tasks, as long as nothing comes of looking."""

import time
from typing import Any

from ray.data._internal.execution.execution_callback import ExecutionCallback  # no public place

FIRST_REST, LONGEST_REST = 0.05, 0.4  # seconds; processes have work for longer than the longest


class Rests(ExecutionCallback):
    """Lets Ray Data look less often for tasks that have ended, the longer none has.

    A look reckons the whole job anew, which takes some milliseconds of a core, ten times a second,
    whether or not a task has ended since. Where one has, the next look comes at once.

    Attributes:
        rest: the last one, in seconds.
    """

    def __init__(self) -> None:
        self.rest, self.moved = 0.0, -1

    def on_execution_step(self, executor: Any) -> None:  # noqa: ANN401 - Ray Data's
        """Rests after a look."""
        metrics = [operator.metrics for operator in executor._topology]
        moved = sum(each.num_tasks_submitted + each.num_task_outputs_generated for each in metrics)
        longer = min(max(FIRST_REST, 2 * self.rest), LONGEST_REST)
        self.rest = longer if moved == self.moved else 0.0
        self.moved = moved
        time.sleep(self.rest)
