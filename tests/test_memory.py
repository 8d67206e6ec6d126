import pytest

from pix2pix import memory


def test_twice_the_width_or_the_bytes_takes_twice_the_memory() -> None:
    assert memory.bytes_of_pixel(24, 2) == 192
    assert memory.bytes_of_pixel(24, 4) == memory.bytes_of_pixel(48, 2) == 384


def test_more_than_there_is_can_t_be_had() -> None:
    memory.demand(1000)
    with pytest.raises(MemoryError):
        memory.demand(2**60)
