"""The source of a bulk job: chunks of the images that are still to be done, as they are listed."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from pix2pix import manifest, status

CHUNK_IMAGES, CHUNK_BYTES = 32, 8_000_000  # what a thread loses at most when the job dies
PENDING = pa.struct([*manifest.SCHEMA, pa.field("attempt", pa.int32(), nullable=False)])
# A chunk is one row: Ray Data merges and splits blocks of rows as it likes, but not rows.
CHUNK = pa.schema([("chunk", pa.int64()), ("images", pa.list_(PENDING))])


class Pending(Datasource):
    """What the manifest's parts hold and the status table has not, part by part as they come.

    Deterministic, so that Ray can run it again from the start when its process dies.

    Args:
        ledger: The job's ledger, which knows the parts.
        done: The reference of a `status.Done` in Ray's object store.
        numbers: Which chunks to hand out, of all in their order.
    """

    def __init__(self, ledger: Any, done: Any, numbers: range) -> None:  # noqa: ANN401 - Ray's
        self.ledger, self.done, self.numbers = ledger, done, numbers

    def get_name(self) -> str:
        """What Ray calls it."""
        return "Pending"

    def estimate_inmemory_data_size(self) -> int | None:
        """Nobody knows."""
        return None

    def get_read_tasks(self, *_: Any, **__: Any) -> list[ReadTask]:  # noqa: ANN401 - Ray's
        """One task, which lasts as long as the listing and waits where the work is behind."""
        about = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        ledger, done, numbers = self.ledger, self.done, self.numbers
        return [ReadTask(lambda: _chunks(ledger, done, numbers), about)]


def _chunks(ledger: Any, done_reference: Any, numbers: range) -> Iterator[pa.Table]:  # noqa: ANN401 - Ray's
    import ray

    done = ray.get(done_reference)
    number = part = 0
    while url := ray.get(ledger.part.remote(part)):
        for rows in cut(status.pending(manifest.part(url), done)):
            if number in numbers:
                ray.get(ledger.room.remote(number))
                images = pa.array([rows.to_pylist()], CHUNK.field("images").type)
                yield pa.table([pa.array([number], pa.int64()), images], schema=CHUNK)
            number += 1
            if number == numbers.stop:
                return
        part += 1


def cut(rows: pa.Table) -> Iterator[pa.Table]:
    """Rows of the manifest in pieces of `CHUNK_IMAGES` at most, and of `CHUNK_BYTES` if several."""
    start = bytes_ = 0
    for index, size in enumerate(rows["size_bytes"].to_pylist()):
        if index > start and (index - start == CHUNK_IMAGES or bytes_ + size > CHUNK_BYTES):
            yield rows.slice(start, index - start)
            start, bytes_ = index, 0
        bytes_ += size
    if start < len(rows):
        yield rows.slice(start)
