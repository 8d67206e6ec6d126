"""Claims about pix2pix.fanout."""

import itertools
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pix2pix import fanout

Tree = dict  # name -> Tree


def names(tree: Tree, above: str = "") -> Iterator[str]:
    for name, below in tree.items():
        yield f"{above}/{name}"
        yield from names(below, f"{above}/{name}")


trees = st.recursive(
    st.dictionaries(st.sampled_from("abcdef"), st.just({}), max_size=4),
    lambda below: st.dictionaries(st.sampled_from("abcdef"), below, max_size=4),
    max_leaves=40,
)


@settings(max_examples=60, deadline=None)
@given(trees, st.integers(1, 5))
def test_every_task_is_done_once(tree: Tree, threads: int) -> None:
    def work(task: tuple[str, Tree], few: bool) -> Iterator[tuple[str, list]]:
        above, below = task
        for name, further in below.items():
            yield f"{above}/{name}", [(f"{above}/{name}", further)]

    found = Counter(fanout.streamed([("", tree)], work, threads))
    assert Counter(names(tree)) == found


def test_nothing_to_do_ends_at_once() -> None:
    assert list(fanout.streamed([], lambda task, few: iter(()), 3)) == []


def test_results_wait_for_their_reader_and_closing_ends_the_threads() -> None:
    made = itertools.count()

    def work(task: int, few: bool) -> Iterator[tuple[int, list]]:
        while True:
            yield next(made), []

    before = set(threading.enumerate())
    results = fanout.streamed([1, 2], work, 2)
    assert {next(results) for _ in range(3)} <= set(range(10))
    time.sleep(0.2)
    assert next(made) <= 3 + 4 + 2 + 1  # read, waiting, in the threads' hands
    begun = set(threading.enumerate()) - before
    results.close()
    for each in begun:
        each.join(5)
    assert not any(each.is_alive() for each in begun)


def test_the_first_error_ends_all() -> None:
    def work(task: int, few: bool) -> Iterator[tuple[int, list]]:
        yield task, []
        if task == 7:
            raise ConnectionError("no store")

    with pytest.raises(ConnectionError, match="no store"):
        list(fanout.streamed(list(range(100)), work, 4))


def test_a_task_that_hangs_does_not_keep_the_process() -> None:
    code = """if True:
        import time
        from pix2pix import fanout

        def work(task, few):
            yield task, []
            time.sleep(60)

        print(next(fanout.streamed([1, 2], work, 2)) in (1, 2))"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True, timeout=30) == "True\n"


def test_a_task_learns_whether_few_wait() -> None:
    def work(task: int, few: bool) -> Iterator[tuple[tuple[int, bool], list]]:
        yield (task, few), []

    told = dict(fanout.streamed(list(range(20)), work, 1))
    assert {task: task >= 18 for task in range(20)} == told
