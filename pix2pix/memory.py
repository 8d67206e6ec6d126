"""The memory that photographs take on their way through the generator, and what to ask for less.

No TensorFlow here: the driver hands `ENVIRONMENT` to the processes that denoise.
"""

import re
from contextlib import suppress
from pathlib import Path

import numpy as np

ENVIRONMENT = {
    # the threads of numpy's BLAS wait by spinning, on the cores that the generator needs
    "OPENBLAS_NUM_THREADS": "1",
    # huge pages: clearing small ones takes a fifth of the time of a layer. Generator alone +5% with
    # AVX-512 in bfloat16, +25% with AVX2 in float32
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}

SMALLEST_TILE_PIXELS = 256  # nothing smaller is tried when memory runs out


def bytes_of_pixel(width: int, bytes_per_value: int) -> int:
    """What the generator's layers take per pixel of a tile.

    Args:
        width: Channels at full resolution.
        bytes_per_value: Of its layers: 2 in bfloat16, 4 in float32.

    Returns:
        Bytes. At its peak the generator holds four layers of full size: measured 182 bytes per
        pixel at width 24 in bfloat16, 350 in float32.
    """
    return 4 * width * bytes_per_value


def demand(count: int) -> None:
    """Returns only if so many bytes are there to be taken.

    Who takes more gets no exception: oneDNN doesn't survive a lack of memory (TensorFlow 2.21: a
    segmentation fault after "OOM when allocating tensor"), and Linux lends more than there is and
    kills who uses it. So whoever wants much of it finds out first.

    Raises:
        MemoryError: there are not so many.
    """
    left = available()
    if left is not None and count > left:
        raise MemoryError(f"{count / 1e9:.1f} GB are needed and {left / 1e9:.1f} are free")
    np.empty(count, np.uint8)  # a limit on the process's address space shows itself here


def available(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still take: of the machine, and of a container's limit.

    What the kernel holds of files counts as free, as it gives it back when asked.

    Args:
        root: Above `proc` and `sys`.

    Returns:
        The smallest of what is known; None where nothing is (not Linux).
    """
    known = []
    with suppress(OSError):
        known += _numbers("MemAvailable:", root / "proc/meminfo", 1024)
    # in a container its own group is the root of what it sees: version 2, version 1
    for folder, most, used, files in (
        ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
         "total_inactive_file"),
    ):  # fmt: skip
        with suppress(OSError, ValueError):  # there is no such group, or its limit is "max"
            group = root / folder
            limit, taken = (int((group / name).read_text()) for name in (most, used))
            known.append(max(0, limit - taken + sum(_numbers(files, group / "memory.stat", 1))))
    return min(known, default=None)


def _numbers(name: str, file: Path, unit: int) -> list[int]:
    """What a line of a file of the kernel's says after a name; nothing if there is no such line."""
    return [
        unit * int(number) for number in re.findall(rf"(?m)^{name} *([0-9]+)", file.read_text())
    ]
