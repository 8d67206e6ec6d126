"""Before and after, pixel by pixel: the place of a photograph that denoising changed most."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pix2pix import images, storage
from pix2pix.outcome import SHOWN_PIXELS
from pix2pix.stages import BAD_IMAGE

SIDE = 320  # pixels
STEP = 4  # every so many pixels are looked at, each way, to find the place


@dataclass(frozen=True)
class Crops:
    """PNGs of the same place of a photograph, or why there is none."""

    before: bytes | str
    after: bytes | str


def crops(row: dict[str, Any]) -> Crops:
    """The place of a denoised image that changed most, from what the status row names.

    Files that are gone, changed or can't be read are no error: a sentence says so.

    Args:
        row: With `uri` and `output_uri`.
    """
    before, after = _pixels(row["uri"], "original"), _pixels(row["output_uri"], "denoised image")
    if isinstance(before, str) or isinstance(after, str):
        return Crops(_middle(before), _middle(after))
    if before.shape != after.shape:
        sizes = [f"{image.shape[1]} x {image.shape[0]}" for image in (before, after)]
        why = f"The original is {sizes[0]} pixels now, not {sizes[1]}: it was changed since."
        return Crops(why, _middle(after))
    place = changed_most(before, after)
    return Crops(_png(before[place]), _png(after[place]))


def changed_most(
    before: NDArray[np.uint8], after: NDArray[np.uint8], side: int = SIDE
) -> tuple[slice, slice]:
    """Rows and columns of the place with the largest mean change, of those half a place apart.

    Args:
        before: uint8 (height, width, 3).
        after: The same shape.
        side: Pixels of the place each way; less where the image has less.
    """

    def change(place: tuple[slice, slice]) -> float:
        one, other = (image[place][::STEP, ::STEP] for image in (before, after))
        return float(np.abs(np.subtract(one, other, dtype=np.int16)).mean())

    height, width = before.shape[:2]
    return max(product(_spans(height, side), _spans(width, side)), key=change)


def _spans(length: int, side: int) -> Iterator[slice]:
    """Places of a side, half of one apart; the last one ends where the side does."""
    last = max(0, length - side)
    for start in (*range(0, last, side // 2), last):
        yield slice(start, start + side)


def _pixels(url: str | None, name: str) -> NDArray[np.uint8] | str:
    """The pixels of a file, or a sentence that says why they can't be had."""
    if url is None:
        return f"The table names no {name}."
    try:
        data = storage.read(url)
        if images.pixels_promised(data) > SHOWN_PIXELS:
            return f"The {name} is too large to be shown here."
        return images.decode_rgb(data)
    except FileNotFoundError:
        return f"The {name} is gone: {url}"
    except BAD_IMAGE as error:
        return f"The {name} can't be read: {error}"


def _middle(image: NDArray[np.uint8] | str) -> bytes | str:
    """The middle of an image as PNG; a sentence as it is."""
    if isinstance(image, str):
        return image
    top, left = (max(0, length - SIDE) // 2 for length in image.shape[:2])
    return _png(image[top : top + SIDE, left : left + SIDE])


def _png(image: NDArray[np.uint8]) -> bytes:
    target = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(target, "PNG")
    return target.getvalue()
