"""Claims about pix2pix.ids."""

import hashlib
import os

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pix2pix import ids

names = st.binary(min_size=16, max_size=16) | st.sampled_from(
    [b"\0" * 16, b"\0" * 15 + b"\1", b"\1" + b"\0" * 15, b"\1" * 15 + b"\0", b"\1" * 16]
)


@given(st.lists(names), st.lists(names))
def test_what_is_contained_is_what_a_set_contains(among: list[bytes], wanted: list[bytes]) -> None:
    array = ids.in_order(bytearray(b"".join(among)), ids.ID)
    column = pa.array(wanted, pa.binary(16))
    assert [name in set(among) for name in wanted] == ids.contains(array, ids.of(column)).tolist()
    places, there = ids.places(array, ids.of(column))
    for name, place in zip(np.array(wanted, ids.ID)[there], places[there], strict=True):
        assert array[place] == name


@given(st.lists(names))
def test_repeated_are_those_that_come_twice(values: list[bytes]) -> None:
    array = ids.in_order(bytearray(b"".join(values)), ids.ID)
    expected = {np.array(value, ids.ID).item() for value in values if values.count(value) > 1}
    assert expected == set(ids.repeated(array).tolist())


def test_a_column_of_several_slices_keeps_its_order() -> None:
    values = [os.urandom(16) for _ in range(9)]
    whole = pa.array(values, pa.binary(16))
    column = pa.chunked_array([whole.slice(2, 3), whole.slice(0, 0), whole.slice(7)])
    assert [each.ljust(16, b"\0") for each in ids.of(column).tolist()] == values[2:5] + values[7:]


@pytest.mark.parametrize(
    "column", [pa.array([b"a" * 16]), pa.array([b"a" * 15], pa.binary(15)),
               pa.array([None], pa.binary(16))]
)  # fmt: skip
def test_a_column_of_something_else_is_refused(column: pa.Array) -> None:
    with pytest.raises(ValueError, match=r"must be fixed_size_binary\[16\] without nulls"):
        ids.of(column)


def test_hashes_tell_strings_apart_that_lie_in_memory_alike() -> None:
    assert hash("aa") == hash("\u6161")  # why they are of UTF-8
    assert len(set(ids.hashes(pa.array(["aa", "\u6161", "", "a", "b", "ü"])).tolist())) == 6


def test_keys_are_blake2b() -> None:
    expected = hashlib.blake2b("ü".encode(), digest_size=16).digest()
    assert np.array([expected], ids.ID) == ids.keys(pa.array(["ü"]))
