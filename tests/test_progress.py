import threading
import time
from collections.abc import Iterator

import pytest

from pix2pix import progress
from pix2pix.progress import Progress


def _row(status: str, failure_class: str | None = None) -> dict:
    return {"status": status, "failure_class": failure_class, "relative_path": "a.jpg",
            "message": "why", "width": 2000, "height": 1000}  # fmt: skip


def test_rows_are_counted_and_failures_named() -> None:
    lines: list[str] = []
    done = Progress(lines.append)
    done.total = 9
    for status in ("denoised", "skipped_clean", "kept_original"):
        done.add(_row(status))
    done.add(_row("failed", "undecodable"))
    assert done.megapixels == 8
    assert (done.done, done.by_failure_class["undecodable"]) == (4, 1)
    assert lines == ["failed: a.jpg: undecodable: why"]
    assert "4/9 so far done, 1 failed, 2 passed through" in str(done)


def test_the_time_left_is_told_once_all_is_listed() -> None:
    done = Progress(print)
    done.total, done.begun = 30, time.monotonic() - 10
    done.add(_row("denoised"))
    assert "left" not in str(done)
    done.listing = False
    assert "0.10 images/s  0.20 MP/s  5 min left" in str(done)


def test_a_line_comes_now_and_then_only() -> None:
    lines: list[str] = []
    done = Progress(lines.append)
    done.tell()
    assert not lines
    done.told -= progress.SECONDS_PER_LINE
    done.tell()
    done.tell()
    assert len(lines) == 1


@pytest.mark.parametrize(
    ("seconds", "text"), [(42.4, "42 s"), (700, "12 min"), (11_100, "3 h 05 min")]
)
def test_durations_are_for_people(seconds: float, text: str) -> None:
    assert progress.clock(seconds) == text


def test_ticking_gives_all_items_in_order_and_a_tick_while_it_waits() -> None:
    go_on = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        go_on.wait(5)
        yield 2

    seen = []
    for item in progress.ticking(items(), 0.01):
        seen.append(item)
        if item is None:
            go_on.set()
    assert [item for item in seen if item is not None] == [1, 2]
    assert None in seen


def test_ticking_raises_what_the_iterator_raises() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    ticks = progress.ticking(items(), 1)
    assert next(ticks) == 1
    with pytest.raises(ValueError, match="broken"):
        next(ticks)


def test_closing_ticking_ends_its_iterator() -> None:
    ended = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            ended.set()

    ticks = progress.ticking(items(), 1)
    assert next(ticks) == 0
    ticks.close()
    assert ended.wait(5)
