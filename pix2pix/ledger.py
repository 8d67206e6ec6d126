"""What the parts of one job must know of each other: what is listed, what is begun, who died.

One small actor of Ray per job, beside the driver. It lives as long as the job; what must outlive
the job stands in the status table alone.
"""

import asyncio
from typing import Any

DEATHS = 3  # of its process, with the same image in work, until the image is given up
STARTS = 10  # of further processes, none of which reached an image, until the job is given up


class Ledger:
    """The actor: see `started`.

    Args:
        ahead: How many chunks may be cut from the manifest beyond those that are done.
        processes: How many processes denoise at once.
    """

    def __init__(self, ahead: int, processes: int) -> None:
        self.ahead, self.processes = ahead, processes
        self.parts: list[str] = []
        self.complete = False
        self.changed = asyncio.Condition()
        self.begun_chunks: dict[int, int] = {}
        self.begun_images: dict[bytes, int] = {}
        self.done_chunks = self.starts = self.again = 0

    async def add(self, part_url: str) -> None:
        """Notes one more part of the manifest, complete in storage."""
        async with self.changed:
            self.parts.append(part_url)
            self.changed.notify_all()

    async def listed(self) -> None:
        """Notes that no part will follow."""
        async with self.changed:
            self.complete = True
            self.changed.notify_all()

    async def part(self, number: int) -> str | None:
        """The URL of a part of the manifest, once it is there; None after the last."""
        async with self.changed:
            await self.changed.wait_for(lambda: self.complete or number < len(self.parts))
        return self.parts[number] if number < len(self.parts) else None

    async def room(self, chunk: int) -> None:
        """Returns when a chunk may be handed out: so many, and no more, wait for their turn."""
        async with self.changed:
            await self.changed.wait_for(lambda: chunk < self.done_chunks + self.ahead)

    async def start(self) -> None:
        """Notes that a process begins.

        Raises:
            RuntimeError: too many have died without reaching an image.
        """
        self.starts += 1
        if self.starts > self.processes + STARTS:
            raise RuntimeError(
                f"processes that denoise died {STARTS} times before they reached an image: "
                "see what they say with --verbose; it's the machine or the checkpoint"
            )

    async def begin(self, chunk: int) -> int:
        """How often a chunk was begun before and never ended: so often its process has died."""
        before = self.begun_chunks.get(chunk, 0)
        self.begun_chunks[chunk] = before + 1
        self.again += before > 0
        self.starts = 0
        return before

    async def begun_again(self) -> int:
        """How often a chunk was begun whose process had died."""
        return self.again

    async def begin_alone(self, image: bytes) -> int:
        """How many processes an image has killed so far that it had for itself, and a first one.

        Args:
            image: The id of an image of a chunk whose process died; nothing else is in work.
        """
        before = self.begun_images.get(image, 0)
        self.begun_images[image] = before + 1
        self.starts = 0
        return before + 1

    async def end_alone(self, image: bytes) -> None:
        """Notes that a process has survived an image."""
        self.begun_images[image] = 0

    async def end(self, chunk: int) -> None:
        """Notes that a chunk is done."""
        self.begun_chunks.pop(chunk, None)
        async with self.changed:
            self.done_chunks += 1
            self.changed.notify_all()


def started(ahead: int, processes: int) -> Any:  # noqa: ANN401 - a handle of Ray's
    """The handle of a new `Ledger`, on this process's node; the arguments are its own."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return (
        ray.remote(Ledger)
        .options(num_cpus=0, scheduling_strategy=here, max_concurrency=1000)
        .remote(ahead, processes)
    )
