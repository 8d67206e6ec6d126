import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from pix2pix.sharing import BEHIND, Room, stand_back

SECONDS = 20  # for what takes microseconds


def _takes(room: Room, wanted: float, done: threading.Event) -> threading.Event:
    """A thread that takes room and keeps it until `done`; the event says that it has it."""
    has = threading.Event()

    def take() -> None:
        with room.taken(wanted):
            has.set()
            done.wait(SECONDS)

    threading.Thread(target=take, daemon=True).start()
    return has


def _until(holds: Callable[[], bool]) -> None:
    waited = threading.Event()
    for _ in range(SECONDS * 100):
        if holds():
            return
        waited.wait(0.01)
    raise AssertionError(f"not within {SECONDS} seconds")


def test_what_does_not_fit_waits_until_it_does() -> None:
    room, first, second = Room(10), threading.Event(), threading.Event()
    assert _takes(room, 6, first).wait(SECONDS)
    assert _takes(room, 4, second).wait(SECONDS)
    assert room.free == 0
    third = _takes(room, 5, threading.Event())
    second.set()
    _until(lambda: room.free == 4)
    assert not third.wait(0.1)
    first.set()
    assert third.wait(SECONDS)


def test_who_wants_more_than_there_is_gets_all_of_it_alone() -> None:
    room, done = Room(10), threading.Event()
    assert _takes(room, 1000, done).wait(SECONDS)
    assert room.free == 0
    small = _takes(room, 1, threading.Event())
    assert not small.wait(0.1)
    done.set()
    assert small.wait(SECONDS)


def test_small_ones_do_not_overtake_a_large_one_that_waits() -> None:
    room, first, large_done = Room(10), threading.Event(), threading.Event()
    assert _takes(room, 6, first).wait(SECONDS)
    large = _takes(room, 10, large_done)
    _until(room.turn.locked)
    small = _takes(room, 1, threading.Event())  # there would be room for it
    assert not small.wait(0.1)
    first.set()
    assert large.wait(SECONDS)
    assert not small.is_set()
    large_done.set()
    assert small.wait(SECONDS)


def test_what_was_taken_is_free_again_after_an_error() -> None:
    room = Room(10)
    with pytest.raises(OSError, match="broken"), room.taken(7):
        raise OSError("broken")
    assert room.free == 10


@pytest.mark.parametrize("by_number", [False, True])
def test_one_thread_stands_back_and_no_other(by_number: bool) -> None:
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(threading.get_native_id).result()
        if by_number:
            stand_back(mine, other)
        else:
            pool.submit(stand_back, mine).result()
        assert pool.submit(os.getpriority, os.PRIO_PROCESS, 0).result() == min(mine + BEHIND, 19)
    assert os.getpriority(os.PRIO_PROCESS, 0) == mine
