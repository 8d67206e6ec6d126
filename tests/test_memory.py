from pathlib import Path

import pytest

from pix2pix import memory


def test_twice_the_width_or_the_bytes_takes_twice_the_memory() -> None:
    assert memory.bytes_of_pixel(24, 2) == 192
    assert memory.bytes_of_pixel(24, 4) == memory.bytes_of_pixel(48, 2) == 384


def test_more_than_there_is_can_t_be_had() -> None:
    memory.demand(1000)
    with pytest.raises(MemoryError):
        memory.demand(2**60)


def test_a_container_has_what_its_limit_leaves(tmp_path: Path) -> None:
    everything = memory.of_machine(str(tmp_path))
    assert everything > 1e9  # no limit is written there
    (tmp_path / "memory.max").write_text("max\n")
    assert memory.of_machine(str(tmp_path)) == everything
    (tmp_path / "memory.max").write_text("500000000\n")
    assert memory.of_machine(str(tmp_path)) == 500_000_000
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory/memory.limit_in_bytes").write_text("400000000\n")
    assert memory.of_machine(str(tmp_path)) == 400_000_000
