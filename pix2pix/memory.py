"""The memory that photographs take on their way through the generator, and what to ask for less.

No TensorFlow here: the driver hands `ENVIRONMENT` to the processes that denoise.
"""

import os
from pathlib import Path

import numpy as np

ENVIRONMENT = {
    # the threads of numpy's BLAS wait by spinning, on the cores that the generator needs
    "OPENBLAS_NUM_THREADS": "1",
    # huge pages: clearing small ones takes a fifth of the time of a layer. Generator alone +5% with
    # AVX-512 in bfloat16, +25% with AVX2 in float32
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}

LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of a container: cgroup v2, v1
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


def of_machine(control_groups: str = "/sys/fs/cgroup") -> int:
    """Bytes of memory that this machine has, or the container that this process runs in."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    files = [Path(control_groups, name) for name in LIMITS]
    limits = [file.read_text().strip() for file in files if file.is_file()]
    return min([pages, *(int(limit) for limit in limits if limit != "max")])


def demand(count: int) -> None:
    """Asks for so many bytes and gives them back untouched.

    oneDNN doesn't survive a lack of memory (TensorFlow 2.21: a segmentation fault after "OOM when
    allocating tensor"), so whoever wants much of it finds out first.

    Raises:
        MemoryError: there are not so many.
    """
    np.empty(count, np.uint8)
