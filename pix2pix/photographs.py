"""Clean photographs without a noisy counterpart: where they lie, and their pixels."""

import hashlib
import os
from collections import OrderedDict

import numpy as np

from pix2pix import images, manifest, pairs, storage
from pix2pix.storage import Entry

# What a camera wrote is interpolated from a mosaic, sharpened and compressed: no clean target. Half
# as large it is one, and sharp. What somebody has made smaller already stays as it is.
HALVED_ABOVE_PIXELS = 2500
KEPT_SHARE = 1 / 8  # of a machine's memory, for decoded photographs

_kept: OrderedDict[Entry, np.ndarray] = OrderedDict()  # the last one was used last


def found(urls: tuple[str, ...], pairs_url: str) -> list[Entry]:
    """All images under some URLs, in the order of the URLs and of their names.

    Args:
        urls: Folders.
        pairs_url: The pairs' folder. It may not overlap with the others, as it holds noisy images
            and scenes that training must not see.

    Raises:
        FileNotFoundError: there is no such folder.
        BadPairs: a folder without images, or one that overlaps with the pairs.
    """
    entries: dict[str, Entry] = {}
    for url in urls:
        if storage.inside(url, pairs_url) or storage.inside(pairs_url, url):
            raise pairs.BadPairs(
                f"clean photographs at {url} and pairs at {pairs_url} overlap: noisy images and "
                "scenes to validate on would be trained on as clean; give a folder of its own"
            )
        here = [entry for entry in storage.files(url) if manifest.is_image(entry.relative_path)]
        if not here:
            raise pairs.BadPairs(f"no images under {url}: give a folder of clean photographs")
        entries |= {entry.uri: entry for entry in sorted(here, key=lambda e: e.relative_path)}
    return list(entries.values())


def fingerprint(photographs: list[Entry], smallest_pixels: int = 1) -> str:
    """Reads and decodes every photograph once, over the cluster, and refuses the unusable ones.

    Args:
        photographs: What is to be trained on.
        smallest_pixels: No side may be shorter, of those that are halved after that.

    Returns:
        A SHA-256 over the names and contents of all, as hexadecimal digits.

    Raises:
        BadPairs: unreadable or small photographs; each is named with what is wrong.
    """
    return pairs.digest(
        "clean photographs", photographs, lambda entry: _checked(entry, smallest_pixels)
    )


def _checked(photograph: Entry, smallest_pixels: int) -> dict[str, str]:
    row = {"name": photograph.relative_path, "digest": "", "problem": ""}
    try:
        data = storage.read(photograph.uri)
        height, width = images.decode_rgb(data, HALVED_ABOVE_PIXELS).shape[:2]
    except (OSError, images.Undecodable, images.Unsupported, images.TooLarge) as error:
        return {**row, "problem": f"{photograph.uri}: {error}"}
    if min(height, width) < smallest_pixels:
        smaller = f"{width}x{height} pixels are smaller than patches of {smallest_pixels}"
        return {**row, "problem": smaller}
    return {**row, "digest": hashlib.sha256(data).hexdigest()}


def pixels(photograph: Entry) -> np.ndarray:
    """A photograph's pixels, uint8 (height, width, 3) RGB, halved if a side is above 2500.

    The process keeps those that were used last, in its part of `KEPT_SHARE`: decoding takes 20 to
    80 ms, more than cutting eight patches and adding noise to them.
    """
    if photograph in _kept:
        _kept.move_to_end(photograph)
        return _kept[photograph]
    decoded = images.decode_rgb(storage.read(photograph.uri), HALVED_ABOVE_PIXELS)
    _kept[photograph] = decoded
    while len(_kept) > 1 and sum(image.nbytes for image in _kept.values()) > _kept_bytes():
        _kept.popitem(last=False)
    return decoded


def _kept_bytes() -> int:
    """What one of the processes that cut patches may keep: so many share a machine's cores."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    processes = (os.cpu_count() or 1) / pairs.CPUS_PER_TASK
    return int(memory * KEPT_SHARE / processes)
