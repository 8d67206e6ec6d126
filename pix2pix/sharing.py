"""What the threads of a process that denoises share: room for their images, and the cores."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

BEHIND = 10  # by how much those beside the generator are nicer, in steps of `nice`


class Room:
    """How much a process may have in work at once; first come, first served.

    Args:
        size: How much there is; who wants more gets all of it.
    """

    def __init__(self, size: float) -> None:
        self.size = self.free = size
        self.turn, self.changed = threading.Lock(), threading.Condition()

    @contextmanager
    def taken(self, wanted: float) -> Iterator[None]:
        """Waits until so much is free, and takes it for a while."""
        taken = min(wanted, self.size)
        with self.turn, self.changed:
            self.changed.wait_for(lambda: self.free >= taken)
            self.free -= taken
        try:
            yield
        finally:
            with self.changed:
                self.free += taken
                self.changed.notify_all()


def stand_back(niceness: int, native_id: int = 0) -> None:
    """Lets a thread compute where the generator leaves a core idle.

    A layer waits for the slower of its threads: whoever takes a core from one of them for a while
    takes it from all.

    Args:
        niceness: The generator's own, which began with the process.
        native_id: The system's number of a thread of this process; 0: the one that calls.
    """
    if sys.platform == "linux":  # elsewhere threads have no niceness of their own
        nicer = min(niceness + BEHIND, 19)
        os.setpriority(os.PRIO_PROCESS, native_id, nicer)
