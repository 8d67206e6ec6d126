"""Rests between Ray Data's looks at its tasks, as long as nothing comes of looking."""

import time
from typing import Any

from ray.data._internal.execution.execution_callback import ExecutionCallback  # no public place
from ray.data._internal.execution.interfaces.physical_operator import DataOpTask

FIRST_REST, LONGEST_REST = 0.05, 0.4  # seconds: two chunks wait in each process meanwhile


class Rests(ExecutionCallback):
    """Lets Ray Data look less often for tasks that have ended, the longer none has.

    A look reckons the whole job anew, which takes some milliseconds of a core, ten times a second,
    whether or not a task has ended since. Where one has, the next look comes at once: the one that
    finds it only fetches what it says of itself, the next one hands on what it gave.

    Attributes:
        rest: the last one, in seconds.
    """

    def __init__(self) -> None:
        self.rest, self.moved = 0.0, -1

    def on_execution_step(self, executor: Any) -> None:  # noqa: ANN401 - Ray Data's
        """Rests after a look."""
        operators = list(executor._topology)
        metrics = [operator.metrics for operator in operators]
        moved = sum(each.num_tasks_submitted + each.num_task_outputs_generated for each in metrics)
        found = any(
            isinstance(task, DataOpTask) and task.has_pending_emits()
            for operator in operators
            for task in operator.get_active_tasks()
        )
        longer = min(max(FIRST_REST, 2 * self.rest), LONGEST_REST)
        self.rest = longer if moved == self.moved and not found else 0.0
        self.moved = moved
        time.sleep(self.rest)
