"""The status table put in order: one row per image, in few parts, whatever its size.

Rows are found by hashes of their paths, 8 bytes each. Those whose hash comes once are kept unseen;
the others are told apart by 16 bytes of BLAKE2b, so many at a time as fit, and all but the newest
are dropped. The note `KNOWN` names the parts among which no image has two rows: those are read
again only for the paths in them, and written again only if a newer row supersedes one of theirs.
Embedded files are read where a part is written again, some megabytes at a time.
"""

import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pix2pix import ids, parquet, storage, table
from pix2pix.table import Size

ROWS_PER_PART = 250_000  # about 50 MB of zstd
BYTES_PER_PART = 128_000_000  # of embedded files, or those of one piece more
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
    return [url for url, size in new if not is_full(*size)]


def is_full(rows: int, embedded_bytes: int, outdated: bool = False) -> bool:
    """Whether a part with so many rows and bytes is left alone: see `table.Size`.

    To copy a quarter of `BYTES_PER_PART` takes longer than to look at a part more each night.
    """
    enough = rows >= ROWS_PER_PART // 2 or embedded_bytes >= BYTES_PER_PART // 4
    return enough and rows <= ROWS_PER_PART and not outdated


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
    sizes = _known(output_url)
    known = [part for part in parts if part.relative_path in sizes]
    loose = [part for part in parts if part.relative_path not in sizes]
    if not loose:
        return
    sizes |= {part.relative_path: table.part_size(part) for part in loose}
    dropped = _superseded(known, loose, sum(sizes[part.relative_path].rows for part in loose))
    old = [part for part in parts if part.uri in dropped or not is_full(*sizes[part.relative_path])]
    if len(old) == 1 and old[0].uri not in dropped:
        alone = sizes[old[0].relative_path]
        if alone.rows <= ROWS_PER_PART and not alone.outdated:
            old = []  # one small part alone is as good as it gets
    stay = {part.relative_path: sizes[part.relative_path] for part in parts if part not in old}
    new = list(_rewritten(output_url, old, dropped))
    for part in old:
        storage.remove(part.uri)
    stay |= {url.rpartition("/")[2]: size for url, size in new}
    note = {"schema_version": table.SCHEMA_VERSION, "parts": stay}
    storage.write(storage.join(output_url, KNOWN), json.dumps(note).encode())


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
    sizes = _known(output_url)
    known = [part for part in parts if part.relative_path in sizes]
    loose = [part for part in parts if part.relative_path not in sizes]
    dropped = _superseded(known, loose, sum(table.part_size(part).rows for part in loose))
    for part in parts:
        rows = table.read_part(part, columns)
        keep = np.ones(len(rows), np.bool_)
        keep[dropped.get(part.uri, [])] = False
        yield rows.filter(pa.array(keep))


def _known(output_url: str) -> dict[str, Size]:
    """Sizes of the parts each of which is known to share no image with another one of these.

    Any part of such a set is such a set: the note need not be right about what is gone. That of
    another version doesn't count, so that its parts are looked at and get all columns: polars
    reads a folder only if all of its files have the same.
    """
    try:
        note = json.loads(storage.read(storage.join(output_url, KNOWN)))
    except FileNotFoundError:
        return {}
    if note.get("schema_version") != table.SCHEMA_VERSION:
        return {}
    return {name: Size(*size) for name, size in note["parts"].items()}


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
) -> Iterator[tuple[str, Size]]:
    """URL and size of new parts, written as they come, with the rows of these but the dropped."""
    none = np.empty(0, np.int32)
    waiting: list[pa.Table] = []
    count = bytes_ = 0
    for part in parts:
        for rows in table.part_pieces(part, dropped.get(part.uri, none)):
            waiting.append(rows)
            count += len(rows)
            bytes_ += int(parquet.large_bytes(rows).sum())
            del rows  # or it would be held until the next one is there
            while count >= ROWS_PER_PART or bytes_ >= BYTES_PER_PART:
                full, waiting = _cut(waiting)
                size = Size(len(full), int(parquet.large_bytes(full).sum()))
                yield table.write_part(output_url, full), size
                del full
                count, bytes_ = count - size.rows, bytes_ - size.embedded_bytes
    if count:
        yield table.write_part(output_url, pa.concat_tables(waiting)), Size(count, bytes_)


def _cut(waiting: list[pa.Table]) -> tuple[pa.Table, list[pa.Table]]:
    """A full part's rows at most, and what is left of them."""
    joined = pa.concat_tables(waiting)
    left = [joined.slice(ROWS_PER_PART)] if len(joined) > ROWS_PER_PART else []
    return joined.slice(0, ROWS_PER_PART), left
