import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from pix2pix.ledger import DEATHS, STARTS, Ledger


def _run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(story, 5))


def test_a_part_is_given_as_soon_as_it_is_there_and_none_after_the_last() -> None:
    async def story() -> None:
        ledger = Ledger(1, 2)
        waiting = asyncio.create_task(ledger.part(0))
        await asyncio.sleep(0)
        assert not waiting.done()
        await ledger.add("first")
        assert await waiting == "first"
        await ledger.listed()
        assert [await ledger.part(0), await ledger.part(1)] == ["first", None]

    _run(story())


def test_no_more_chunks_are_handed_out_than_may_wait() -> None:
    async def story() -> None:
        ledger = Ledger(2, 1)
        await ledger.room(0)
        await ledger.room(1)
        third = asyncio.create_task(ledger.room(2))
        await asyncio.sleep(0.01)
        assert not third.done()
        await ledger.begin(0)
        await ledger.end(0)
        await third

    _run(story())


def test_a_chunk_begun_again_says_how_often_its_process_died() -> None:
    async def story() -> None:
        ledger = Ledger(1, 2)
        assert [await ledger.begin(7), await ledger.begin(7), await ledger.begin(7)] == [0, 1, 2]
        assert await ledger.begin(8) == 0
        assert await ledger.begun_again() == 2
        await ledger.end(7)
        assert await ledger.begin(7) == 0  # done once more, because its rows were lost on the way

    _run(story())


def test_an_image_that_is_in_work_at_the_third_death_is_known() -> None:
    async def story() -> None:
        ledger = Ledger(1, 2)
        await ledger.begin(0)  # in work with others when the process died for the first time
        await ledger.begin(0)
        assert await ledger.begin_alone(b"innocent") == 1
        await ledger.end_alone(b"innocent")
        assert await ledger.begin_alone(b"guilty") == 1
        assert await ledger.begin_alone(b"innocent") == 1
        assert await ledger.begin_alone(b"guilty") == 2
        assert await ledger.begin_alone(b"guilty") == DEATHS

    _run(story())


def test_processes_that_die_before_any_image_end_the_job() -> None:
    async def story() -> None:
        ledger = Ledger(1, 2)
        for _ in range(2 + STARTS):  # two processes begin, and ten more die
            await ledger.start()
        with pytest.raises(RuntimeError, match=f"died {STARTS} times before they reached an image"):
            await ledger.start()
        ledger = Ledger(1, 2)
        for _ in range(3 * STARTS):
            await ledger.start()
            await ledger.begin_alone(b"image")

    _run(story())
