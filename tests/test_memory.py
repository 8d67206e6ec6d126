from pathlib import Path

import pytest

from pix2pix import memory


def test_twice_the_width_takes_twice_the_memory_and_float32_three_times() -> None:
    assert memory.bytes_of_pixel([24, 48, 96], 2) == 192
    assert memory.bytes_of_pixel([48, 48, 96], 2) == 384
    assert memory.bytes_of_pixel([24], 4) == memory.bytes_of_pixel([12], 4) * 2 == 576


def test_a_narrow_top_takes_no_less_than_the_resolution_below_it() -> None:
    assert memory.bytes_of_pixel([2, 128, 256], 2) == memory.bytes_of_pixel([32, 64], 2) == 256


def test_more_than_there_is_can_t_be_had() -> None:
    memory.demand(1000)
    free = memory.available()
    assert free is not None
    # Linux would lend it: an empty array of that size can be made
    with pytest.raises(MemoryError, match=r"GB are needed, .* GB are free"):
        memory.demand(free + 1_000_000_000)


MEMINFO = "MemTotal:       24684000 kB\nMemFree:         1000 kB\nMemAvailable:   8000000 kB\n"


def _machine(root: Path, **files: str) -> Path:
    for name, text in {"proc/meminfo": MEMINFO, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_what_the_machine_has_is_there_to_be_taken(tmp_path: Path) -> None:
    assert memory.available(_machine(tmp_path)) == 8_192_000_000
    assert memory.available(tmp_path / "another system") is None


GROUPS = {  # where its files lie, and what they are called
    "0::": ("sys/fs/cgroup", memory.VERSION_2, "max"),
    "4:cpu,memory:": ("sys/fs/cgroup/memory", memory.VERSION_1, "9223372036854771712"),
}


@pytest.mark.parametrize("version", GROUPS)
@pytest.mark.parametrize(
    ("told", "there"),
    [
        ("/", ""),  # a container
        ("/docker/4f5a", ""),  # one that is told a name which it doesn't see
        ("/slurm/job_7", "slurm/job_7"),
        ("/slurm/job_7/step_0", "slurm/job_7"),  # the limit of a group above
    ],
)
def test_a_control_group_has_what_its_limit_leaves(
    version: str, told: str, there: str, tmp_path: Path
) -> None:
    folder, (most, used, (idle, busy)), no_limit = GROUPS[version]
    group = f"{folder}/{there}".rstrip("/")
    files = {
        "proc/self/cgroup": f"7:pids:/somewhere\n{version}{told}\n",
        f"{group}/{most}": "4000000000\n",
        f"{group}/{used}": "3000000000\n",
        f"{group}/memory.stat": f"anon 7\n{idle} 500000000\n{busy} 9\nslab 5\n",
    }
    assert memory.available(_machine(tmp_path, **files)) == 1_500_000_009
    files[f"{group}/{most}"] = no_limit + "\n"
    assert memory.available(_machine(tmp_path, **files)) == 8_192_000_000
