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


MEMINFO = "MemTotal:       24684000 kB\nMemFree:         1000 kB\nMemAvailable:   8000000 kB\n"


def _machine(root: Path, **files: str) -> Path:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_what_the_machine_has_is_there_to_be_taken(tmp_path: Path) -> None:
    assert memory.available(_machine(tmp_path)) == 8_192_000_000
    assert memory.available(tmp_path / "another system") is None


@pytest.mark.parametrize(
    ("folder", "most", "used", "files"),
    [
        ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
         "total_inactive_file"),
    ],
)  # fmt: skip
def test_a_container_has_what_its_limit_leaves(
    folder: str, most: str, used: str, files: str, tmp_path: Path
) -> None:
    group = {
        f"{folder}/{most}": "4000000000\n",
        f"{folder}/{used}": "3000000000\n",
        f"{folder}/memory.stat": f"anon 7\n{files} 500000000\nactive_file 9\n",
    }
    assert memory.available(_machine(tmp_path, **group)) == 1_500_000_000
    no_limit = {"memory.max": "max\n", "memory.limit_in_bytes": "9223372036854771712\n"}[most]
    group[f"{folder}/{most}"] = no_limit
    assert memory.available(_machine(tmp_path, **group)) == 8_192_000_000
