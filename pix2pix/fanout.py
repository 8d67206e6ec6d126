"""Work that begets work, done in threads: how a tree of unknown shape is listed."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")
Task = TypeVar("Task")
Work = Callable[[Task, bool], Iterator[tuple[T, list[Task]]]]


def streamed(first: list[Task], work: Work[Task, T], threads: int) -> Iterator[T]:
    """What the tasks yield, in the order in which it comes.

    At most two results per thread wait for their reader. The first error of a task ends all; so
    does closing the iterator, once the threads have finished the step they are at.

    Args:
        first: The tasks to begin with.
        work: Does one task: yields results, each with the further tasks that it found. The second
            argument says whether few tasks wait, so that it pays to find more.
        threads: How many tasks are done at once.

    Raises:
        Exception: what a task raised.
    """
    crew: _Crew[Task, T] = _Crew(first, work, threads)
    # Not a ThreadPoolExecutor: Python would wait at its exit for a store that doesn't answer.
    for _ in range(threads):
        threading.Thread(target=crew.run, name="fanout", daemon=True).start()
    try:
        while threads:
            got = crew.out.get()
            if isinstance(got, Future):
                got.result()
                threads -= 1
            else:
                crew.room.release()
                yield got
    finally:
        crew.stop()


class _Crew(Generic[Task, T]):
    """What the threads of one `streamed` share."""

    def __init__(self, first: list[Task], work: Work[Task, T], threads: int) -> None:
        self.waiting, self.unfinished = deque(first), len(first)
        self.work, self.threads = work, threads
        self.changed = threading.Condition()
        self.out: SimpleQueue[T | Future] = SimpleQueue()
        self.room = threading.Semaphore(2 * threads)
        self.stopped = False

    def run(self) -> None:
        """Lives as one of the threads, and tells the reader how that ended."""
        ended: Future[None] = Future()
        try:
            self._do_tasks()
        except BaseException as error:  # noqa: BLE001 - the reader raises it
            ended.set_exception(error)
        else:
            ended.set_result(None)
        self.out.put(ended)

    def _do_tasks(self) -> None:
        """Does tasks until none is left or all are to stop."""
        while True:
            with self.changed:
                self.changed.wait_for(lambda: self.waiting or self.stopped or not self.unfinished)
                if self.stopped or not self.waiting:
                    return
                task = self.waiting.popleft()
                few = len(self.waiting) < 2 * self.threads
            for result, further in self.work(task, few):
                with self.changed:
                    self.waiting.extend(further)
                    self.unfinished += len(further)
                    self.changed.notify(len(further))
                self.room.acquire()
                if self.stopped:
                    return
                self.out.put(result)
            with self.changed:
                self.unfinished -= 1
                if not self.unfinished:
                    self.changed.notify_all()

    def stop(self) -> None:
        """Lets every thread return at its next step."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()
        self.room.release(self.threads)
