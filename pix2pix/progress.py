"""How far a bulk job is: counts as rows come, told as a line now and then."""

import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

SECONDS_PER_LINE, SECONDS_PER_REDRAWING = 10.0, 1.0  # in a log; on a terminal

T = TypeVar("T")


class Progress:
    """What the job has done so far.

    Attributes:
        by_status: how many images ended in which status.
        by_failure_class: how many of the failed in which class.
        megapixels: of the images that could be decoded.
        total: how many images are known to be to do; may still grow.
        listing: whether more may come.
    """

    def __init__(self, show: Callable[[str], None]) -> None:
        self.show = show
        self.terminal = sys.stdout.isatty()
        self.begun = self.told = time.monotonic()
        self.by_status: Counter[str] = Counter()
        self.by_failure_class: Counter[str] = Counter()
        self.megapixels = 0.0
        self.total, self.listing = 0, True

    @property
    def done(self) -> int:
        """Images that have a row now."""
        return self.by_status.total()

    @property
    def seconds(self) -> float:
        """Since the job began."""
        return time.monotonic() - self.begun

    def add(self, row: dict[str, Any]) -> None:
        """Counts one more row, and says so where it failed."""
        self.by_status[row["status"]] += 1
        self.megapixels += (row["width"] or 0) * (row["height"] or 0) / 1e6
        if row["status"] == "failed":
            self.by_failure_class[row["failure_class"]] += 1
            self._line(f"failed: {row['relative_path']}: {row['failure_class']}: {row['message']}")

    def tell(self, always: bool = False) -> None:
        """Shows a line, if it is time for one."""
        now = time.monotonic()
        interval = SECONDS_PER_REDRAWING if self.terminal else SECONDS_PER_LINE
        if always or now - self.told >= interval:
            self.told = now
            if self.terminal and not always:
                sys.stdout.write(f"\r\033[K{self}")
                sys.stdout.flush()
            else:
                self._line(str(self))

    def __str__(self) -> str:
        rate = self.done / self.seconds
        left = (self.total - self.done) / rate if rate else float("inf")
        counts = [f"{self.by_status['failed']} failed"]
        if passed := self.by_status["skipped_clean"] + self.by_status["kept_original"]:
            counts.append(f"{passed} passed through")
        return (
            f"{self.done}/{self.total}{' so far' if self.listing else ''} done, "
            f"{', '.join(counts)}  {rate:.2f} images/s  {self.megapixels / self.seconds:.2f} MP/s"
            + (f"  {clock(left)} left" if 0 < left < float("inf") and not self.listing else "")
        )

    def _line(self, text: str) -> None:
        self.show(f"\r\033[K{text}" if self.terminal else text)


def clock(seconds: float) -> str:
    """A duration for people: 42 s, 12 min, 3 h 05 min."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def ticking(items: Iterator[T], seconds: float) -> Generator[T | None]:
    """What an iterator gives, and None each time it has given nothing for so long.

    The iterator runs in a thread of its own, one item ahead. What it raises is raised here.
    """
    given: queue.Queue[tuple[str, Any]] = queue.Queue(maxsize=1)
    stopped = threading.Event()

    def put(kind: str, item: object) -> None:
        while not stopped.is_set():
            try:
                return given.put((kind, item), timeout=0.2)
            except queue.Full:
                continue
        return None

    def run() -> None:
        try:
            for item in items:
                put("item", item)
                if stopped.is_set():
                    return
            put("end", None)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever reads
            put("error", error)

    threading.Thread(target=run, daemon=True).start()
    try:
        while True:
            try:
                kind, item = given.get(timeout=seconds)
            except queue.Empty:
                yield None
                continue
            if kind == "error":
                raise item
            if kind == "end":
                return
            yield item
    finally:
        stopped.set()
