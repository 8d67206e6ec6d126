"""Sets of names as sorted NumPy arrays: 16 bytes for an id, 8 for the hash of a string."""

from hashlib import blake2b
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

ID = np.dtype("S16")  # equal only if all 16 bytes are: NumPy pads with zero bytes, which all count

Column: TypeAlias = pa.Array | pa.ChunkedArray


def of(column: Column) -> NDArray[np.bytes_]:
    """The values of a column of 16 bytes each, dtype `ID`, in its order.

    Raises:
        ValueError: the column is of another type, or has nulls.
    """
    if column.type != pa.binary(16) or column.null_count:
        rule = "must be fixed_size_binary[16] without nulls; see manifest.SCHEMA"
        raise ValueError(f"column of {column.type} with {column.null_count} nulls {rule}")
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    arrays = [
        np.frombuffer(chunk.buffers()[1], ID)[chunk.offset : chunk.offset + len(chunk)]
        for chunk in chunks
        if len(chunk)
    ]
    return np.concatenate(arrays) if arrays else np.empty(0, ID)


def in_order(values: bytearray, dtype: np.dtype) -> NDArray:
    """The values that lie in `values` one after another, sorted where they are.

    Gather them by ``values += part.tobytes()``: that grows in place, with no second copy of all.
    """
    array = np.frombuffer(values, dtype)
    array.sort()
    return array


def hashes(strings: Column) -> NDArray[np.uint64]:
    """A 64-bit hash of each string: Python's own SipHash of its UTF-8, 0.2 s for a million.

    Its key is drawn anew by every process, so they are never saved or sent. Of bytes, since
    Python's hash of a `str` is that of its memory: "aa" and "\u6161" have the same.
    """
    values = strings.cast(pa.binary()).to_pylist()
    return np.fromiter(map(hash, values), np.int64, len(values)).view(np.uint64)


def keys(strings: Column) -> NDArray[np.bytes_]:
    """16 bytes for each string, dtype `ID`: its BLAKE2b, where equal hashes must not pass."""
    digests = [
        blake2b(value, digest_size=16).digest() for value in strings.cast(pa.binary()).to_pylist()
    ]
    return np.frombuffer(b"".join(digests), ID)


def places(among: NDArray, wanted: NDArray) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Where each of `wanted` stands in the sorted array `among`, and whether it is there at all.

    Args:
        among: sorted, of `ID` or uint64.
        wanted: of the same dtype, in any order.
    """
    order = np.argsort(wanted)  # neighbours share cache lines: a third of the time
    places = np.empty(len(wanted), np.intp)
    places[order] = np.searchsorted(among, wanted[order])
    if not len(among):
        return places, np.zeros(len(wanted), np.bool_)
    return places, among[np.minimum(places, len(among) - 1)] == wanted


def contains(among: NDArray, wanted: NDArray) -> NDArray[np.bool_]:
    """Whether each of `wanted` is in the sorted array `among`; see `places`."""
    return places(among, wanted)[1]


def repeated(values: NDArray) -> NDArray:
    """The values that a sorted array holds more than once, each once, sorted."""
    again = values[1:][values[1:] == values[:-1]]
    return np.unique(again)
