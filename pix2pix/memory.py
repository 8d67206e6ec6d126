"""The memory that photographs take on their way through the generator, and what to ask for less.

No TensorFlow here: the driver hands `ENVIRONMENT` to the processes that denoise.
"""

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
    """Asks for so many bytes and gives them back untouched.

    oneDNN doesn't survive a lack of memory (TensorFlow 2.21: a segmentation fault after "OOM when
    allocating tensor"), so whoever wants much of it finds out first.

    Raises:
        MemoryError: there are not so many.
    """
    np.empty(count, np.uint8)
