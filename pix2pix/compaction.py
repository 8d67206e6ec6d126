"""The status table put in order: one row per image, in few parts, whatever its size.

Rows are found by hashes of their paths, 8 bytes each. Those whose hash comes once are kept unseen;
the others are told apart by 16 bytes of BLAKE2b, so many at a time as fit, and all but the newest
are dropped. The note `KNOWN` names the parts among which no image has two rows: those are read
again only for the paths in them, and written again only if a newer row supersedes one of theirs.
"""

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pix2pix import ids, parquet, storage, table

ROWS_PER_PART = 250_000  # about 50 MB of zstd
ROWS_AT_ONCE = 4_000_000  # told apart at once, about 100 bytes each
KNOWN = "compacted.json"  # not among the parts: polars reads a folder of one kind of file alone

_NAMED = np.dtype(
    [("key", ids.ID), ("age", "i8"), ("attempt", "i4"), ("part", "i4"), ("row", "i4")]
)


def merged(output_url: str, urls: list[str]) -> list[str]:
    """The URLs of those new parts with the rows of these that aren't full; it reads no others.

    For a job that has appended many small ones, and hands in again what it got: full parts stay as
    they are, or each call would write all rows once more. The new parts are complete before the
    old ones go.

    Raises:
        OSError: a part could not be read or written; all rows are there still, some maybe twice.
    """
    wanted = set(urls)
    found = [part for part in table.parts(output_url) if part.uri in wanted]
    new = list(_rewritten(output_url, found, {}))
    for part in found:
        storage.remove(part.uri)
    return [url for url, count in new if count < ROWS_PER_PART]


def compact(output_url: str) -> None:
    """Leaves one row per image, the newest by `finished_at`, then `attempt`, in few parts.

    What was compacted before and has no newer rows stays as it is. New parts are complete before
    the first old one goes, so a crash at any point leaves every row at least once, and the rest to
    the next `compact`. One writer at a time; readers need not wait: see `table.rows`.

    Raises:
        OSError: the table could not be read or written.
        ValueError: a part is no Parquet file or lacks a column.
    """
    parts = table.parts(output_url)
    counts = _known(output_url)
    known = [part for part in parts if part.relative_path in counts]
    loose = [part for part in parts if part.relative_path not in counts]
    if not loose:
        return
    counts |= {part.relative_path: parquet.row_count(part.uri, part.size_bytes) for part in loose}
    dropped = _superseded(known, loose, sum(counts[part.relative_path] for part in loose))
    old = [part for part in parts if part.uri in dropped or not _fits(counts[part.relative_path])]
    if (
        len(old) == 1
        and old[0].uri not in dropped
        and counts[old[0].relative_path] <= ROWS_PER_PART
    ):
        old = []  # one small part alone is as good as it gets
    stay = {part.relative_path: counts[part.relative_path] for part in parts if part not in old}
    new = list(_rewritten(output_url, old, dropped))
    for part in old:
        storage.remove(part.uri)
    stay |= {url.rpartition("/")[2]: count for url, count in new}
    note = storage.join(output_url, KNOWN)
    storage.write(note, json.dumps({"rows": stay}).encode())


def newest(output_url: str, columns: list[str]) -> Iterator[pa.Table]:
    """The table part by part, without rows that newer ones supersede; for who counts.

    It writes nothing, and needs no `compact` before. Of a job that runs it sees what was there at
    the start; should that job compact meanwhile, begin anew.

    Raises:
        FileNotFoundError: a part was compacted away.
        OSError: the table could not be read.
        ValueError: a part is no Parquet file or lacks a column.
    """
    parts = table.parts(output_url)
    counts = _known(output_url)
    known = [part for part in parts if part.relative_path in counts]
    loose = [part for part in parts if part.relative_path not in counts]
    loose_rows = sum(parquet.row_count(part.uri, part.size_bytes) for part in loose)
    dropped = _superseded(known, loose, loose_rows)
    for part in parts:
        rows = table.read_part(part, columns)
        keep = np.ones(len(rows), np.bool_)
        keep[dropped.get(part.uri, [])] = False
        yield rows.filter(pa.array(keep))


def _fits(count: int) -> bool:
    return ROWS_PER_PART // 2 <= count <= ROWS_PER_PART


def _known(output_url: str) -> dict[str, int]:
    """Rows of each part that is known to share no image with another one of these.

    Any part of such a set is such a set: the note need not be right about what is gone.
    """
    try:
        return json.loads(storage.read(storage.join(output_url, KNOWN)))["rows"]
    except FileNotFoundError:
        return {}


def _superseded(
    known: list[storage.Entry], loose: list[storage.Entry], loose_rows: int
) -> dict[str, NDArray[np.int32]]:
    """For each part that has any, by its URL: which of its rows have a newer one elsewhere."""
    hashes = np.empty(loose_rows, np.uint64)
    end = 0
    for _, found in _hashes(loose):
        hashes[end : end + len(found)] = found
        end += len(found)
    hashes.sort()
    doubled = [ids.repeated(hashes)]
    suspects = {part.uri for part in loose}
    for part, found in _hashes(known):
        met = found[ids.contains(hashes, found)]
        if len(met):
            doubled.append(met)
            suspects.add(part.uri)
    rows = sum(map(len, doubled[1:]))
    wanted = np.unique(np.concatenate(doubled))
    if not len(wanted):
        return {}
    rows += int((np.searchsorted(hashes, wanted, "right") - np.searchsorted(hashes, wanted)).sum())
    del hashes, doubled
    parts = [part for part in (*known, *loose) if part.uri in suspects]
    dropped: dict[str, list[NDArray]] = {}
    for piece in np.array_split(wanted, -(-rows // ROWS_AT_ONCE)):
        for place, lines in _older(parts, piece):
            dropped.setdefault(parts[place].uri, []).append(lines)
    return {url: np.concatenate(lines) for url, lines in dropped.items()}


def _hashes(parts: list[storage.Entry]) -> Iterator[tuple[storage.Entry, NDArray[np.uint64]]]:
    for part in parts:
        yield part, ids.hashes(table.read_part(part, ["relative_path"])["relative_path"])


def _older(
    parts: list[storage.Entry], wanted: NDArray[np.uint64]
) -> Iterator[tuple[int, NDArray[np.int32]]]:
    """Place and row numbers of what is not the newest, among the rows whose hash is wanted."""
    pieces = [np.empty(0, _NAMED)]
    for place, part in enumerate(parts):
        found = table.read_part(part, ["relative_path", "finished_at", "attempt"])
        rows = np.flatnonzero(ids.contains(wanted, ids.hashes(found["relative_path"])))
        found = found.take(rows)
        named = np.empty(len(rows), _NAMED)
        named["key"] = ids.keys(found["relative_path"])
        named["age"] = found["finished_at"].cast(pa.int64()).to_numpy()
        named["attempt"] = found["attempt"].to_numpy()
        named["part"], named["row"] = place, rows
        pieces.append(named)
    named = np.concatenate(pieces)
    del pieces
    order = np.lexsort((named["row"], named["part"], named["attempt"], named["age"], named["key"]))
    keys = named["key"][order]
    older = order[:-1][keys[:-1] == keys[1:]]  # the newest stands last among its equals
    for place in np.unique(named["part"][older]):
        yield int(place), named["row"][older[named["part"][older] == place]]


def _rewritten(
    output_url: str, parts: list[storage.Entry], dropped: dict[str, NDArray[np.int32]]
) -> Iterator[tuple[str, int]]:
    """URL and rows of new parts, written as they come, with the rows of these but the dropped."""
    waiting: list[pa.Table] = []
    count = 0
    for part in parts:
        rows = table.read_part(part)
        if part.uri in dropped:
            keep = np.ones(len(rows), np.bool_)
            keep[dropped[part.uri]] = False
            rows = rows.filter(pa.array(keep))
        waiting.append(rows)
        count += len(rows)
        while count >= ROWS_PER_PART:
            joined = pa.concat_tables(waiting)
            full, rest = joined.slice(0, ROWS_PER_PART), joined.slice(ROWS_PER_PART)
            yield table.write_part(output_url, full), len(full)
            waiting, count = [rest], len(rest)
    if count:
        yield table.write_part(output_url, pa.concat_tables(waiting)), count
