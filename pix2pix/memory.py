"""The memory that photographs take on their way through the generator, and what to ask for less.

No TensorFlow here: the driver hands `ENVIRONMENT` to the processes that denoise.
"""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import numpy as np

ENVIRONMENT = {  # of all processes that denoise or train
    # the threads of numpy's BLAS wait by spinning, on the cores that the generator needs
    "OPENBLAS_NUM_THREADS": "1",
    # huge pages: clearing small ones takes a fifth of the time of a layer. Generator alone +5% with
    # AVX-512 in bfloat16, +25% with AVX2 in float32
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    # TensorFlow keeps the memory of its layers, which Linux would clear anew for each: with AVX2 in
    # float32, where it isn't oneDNN that holds it, generator alone +20 to 30%, training +3%
    "TF_CPU_ALLOCATOR_USE_BFC": "1",
}

Names: TypeAlias = tuple[str, str, tuple[str, str]]  # of a group's limit, its use, its files
VERSION_2: Names = ("memory.max", "memory.current", ("inactive_file", "active_file"))
VERSION_1: Names = (
    "memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"),
)  # fmt: skip

SMALLEST_TILE_PIXELS = 256  # nothing smaller is tried when memory runs out


def bytes_of_pixel(widths: Sequence[int], bytes_per_value: int) -> int:
    """What the generator's layers take per pixel of a tile, and keep for the next.

    Args:
        widths: Channels at each resolution, the highest first; where that is half of the pixels',
            more is counted than is taken.
        bytes_per_value: Of its layers: 2 in bfloat16, 4 in float32.

    Returns:
        Bytes. At its peak the generator holds four layers of full size: measured 182 bytes per
        pixel at width 24 in bfloat16, where oneDNN holds the memory; 300 in float32, of which
        TensorFlow's allocator makes 520 to 600.
    """
    layers = 4 if bytes_per_value == 2 else 6
    most = max(width / 4**level for level, width in enumerate(widths))
    return math.ceil(layers * most * bytes_per_value)


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
        raise MemoryError(f"{count / 1e9:.1f} GB are needed, {left / 1e9:.1f} GB are free")
    np.empty(count, np.uint8)  # a limit on the process's address space shows itself here


def available(root: Path = Path("/")) -> int | None:
    """Bytes that this process may still take: of the machine, and of its control groups' limits.

    What the kernel holds of files counts as free, as it gives it back when asked. Others may take
    the same bytes meanwhile.

    Args:
        root: Above `proc` and `sys`.

    Returns:
        The smallest of what is known; None where nothing is (not Linux).
    """
    known = []
    with suppress(OSError):
        known += _numbers("MemAvailable:", root / "proc/meminfo", 1024)
    for group, (most, used, files) in _groups(root):
        with suppress(OSError, ValueError):  # it isn't seen from here, or its limit is "max"
            limit, taken = (int((group / name).read_text()) for name in (most, used))
            held = sum(sum(_numbers(name, group / "memory.stat", 1)) for name in files)
            known.append(max(0, limit - taken + held))
    return min(known, default=None)


def _groups(root: Path) -> Iterator[tuple[Path, Names]]:
    """The control groups that this process is in, and the names of what they say of memory.

    A container sees its own as the root of all, whatever its name; a slice of systemd or a job of
    Slurm has one below, and those above it limit it too.
    """
    text = "0::/\n0:memory:/\n"
    with suppress(OSError):
        text += (root / "proc/self/cgroup").read_text()
    for line in text.splitlines():
        _, kinds, name = line.split(":", 2)
        for kind, folder, names in (("", "", VERSION_2), ("memory", "memory", VERSION_1)):
            if kind in kinds.split(","):
                group = root / "sys/fs/cgroup" / folder / name.lstrip("/")
                yield from ((each, names) for each in (group, *group.parents)
                            if each.is_relative_to(root / "sys/fs/cgroup" / folder))  # fmt: skip


def _numbers(name: str, file: Path, unit: int) -> list[int]:
    """What a line of a file of the kernel's says after a name; nothing if there is no such line."""
    found = re.findall(rf"(?m)^{name} *([0-9]+)", file.read_text())
    return [unit * int(number) for number in found]
