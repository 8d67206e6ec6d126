"""How fast this machine is meanwhile: the processor's seconds of always the same small work.

A machine that others use too becomes slower or faster by a tenth within minutes, which is more than
most benchmarks here look for. What took long beside this work, taken at the same time, did take
long.
"""

import hashlib
import threading
import time

import numpy as np

SECONDS_BETWEEN = 0.2  # it takes some 4 ms each time
SIDE = 24


def known_work() -> float:
    """The processor's seconds of a little Python, NumPy and hashing."""
    random = np.random.default_rng(0)
    begun = time.thread_time()
    for _ in range(60):
        levels = random.normal(128, 12, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
        hashlib.sha256(levels.tobytes()).hexdigest()
        sum(number % 7 for number in range(500))
    return time.thread_time() - begun


class Pace:
    """Does the known work in a thread, from the beginning of a `with` to its end."""

    def __init__(self) -> None:
        self.taken: list[tuple[float, float]] = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._take, daemon=True)

    def _take(self) -> None:
        while not self.ended.wait(SECONDS_BETWEEN):
            self.taken.append((time.time(), known_work()))

    def __enter__(self) -> "Pace":
        """Begins."""
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends."""
        self.ended.set()
        self.thread.join()

    def seconds(self, begin: float = 0.0, end: float = np.inf) -> float:
        """The mean of the work's seconds between two moments of `time.time`."""
        return float(np.mean([each for moment, each in self.taken if begin < moment < end]))
