"""The photographs that `quality.py` scores: noisy beside clean, the same ones every time.

They lie in one folder: `sidd_small_256/` (SIDD-Small resized to 256 x 256, in SIDD's layout, with
`split_by_scene.json`), `sidd_native_sample/` (one of its pairs uncut), `kodak24/` and, for what
mustn't change, `clean/budgie_cc0/`.
"""

import hashlib
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pix2pix import images, noise

NAMES = (  # what each set is, for the report
    ("sidd-test", "SIDD 256, scene 003"),
    ("sidd-val", "SIDD 256, scene 002"),
    ("sidd-native", "SIDD, uncut"),
    ("kodak-15", "Kodak, white noise 15"),
    ("kodak-25", "Kodak, white noise 25"),
    ("kodak-50", "Kodak, white noise 50"),
    ("kodak-camera", "Kodak, a camera's noise"),
)
PICTURED = {"sidd": (0, 7, 14), "kodak": (0, 12, 23)}  # places in a set, for its picture
CLEAN = "clean"  # Kodak as it is, and the CC0 photographs at half their size


class Shot(NamedTuple):
    """A noisy photograph and its clean counterpart.

    Attributes:
        name: Of its file, or of SIDD's folder.
        noisy: uint8 (height, width, 3), RGB.
        clean: Likewise; the same array where nothing was added.
        sigma: Standard deviation of the noise in levels before rounding and clipping, where known.
    """

    name: str
    noisy: np.ndarray
    clean: np.ndarray
    sigma: float | None = None

    @property
    def digest(self) -> str:
        """Names the pixels of both: other noise is another shot."""
        both = hashlib.blake2b(self.noisy.tobytes(), digest_size=12)
        both.update(self.clean.tobytes())
        return both.hexdigest()


def shots(data: Path, name: str, limit: int | None = None) -> Iterator[Shot]:
    """The shots of a set, in the order of their names; the first `limit` of them.

    Args:
        data: The folder that holds all sets.
        name: One of `NAMES`, or `CLEAN`.
        limit: None is all of them.

    Raises:
        FileNotFoundError: the folder lacks what the set is made of.
        ValueError: there is no such set.
    """
    kind, _, level = name.partition("-")
    if name in ("sidd-test", "sidd-val"):
        found = _sidd(data / "sidd_small_256", level)
    elif name == "sidd-native":
        found = _native(data / "sidd_native_sample")
    elif name in ("kodak-15", "kodak-25", "kodak-50"):
        found = _white(data / "kodak24", int(level))
    elif name == "kodak-camera":
        found = _camera(data / "kodak24")
    elif kind == CLEAN:
        found = _clean(data)
    else:
        known = ", ".join([*(each for each, _ in NAMES), CLEAN])
        raise ValueError(f"set={name!r} must be one of {known}")
    return islice(found, limit)


def _read(path: Path) -> np.ndarray:
    return images.decode_rgb(path.read_bytes())


def _sidd(folder: Path, part: str) -> Iterator[Shot]:
    for name in json.loads((folder / "split_by_scene.json").read_text())[part]:
        noisy, clean = (
            _read(folder / "Data" / name / f"{state}_SRGB_010.PNG") for state in ("NOISY", "GT")
        )
        yield Shot(name, noisy, clean)


def _native(folder: Path) -> Iterator[Shot]:
    noisy, clean = (_read(folder / f"{state}_SRGB_010_.png") for state in ("NOISY", "GT"))
    yield Shot("0001_001", noisy, clean)


def _kodak(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    for path in sorted(folder.glob("*.png")):
        yield path.stem, _read(path)


def _white(folder: Path, sigma: int) -> Iterator[Shot]:
    """White Gaussian noise, rounded and clipped to uint8 as a photograph is."""
    for name, clean in _kodak(folder):
        chance = np.random.default_rng([sigma, int(name)])
        values = clean + chance.normal(0, sigma, clean.shape)
        yield Shot(name, np.clip(np.rint(values), 0, 255).astype(np.uint8), clean, sigma)


def _camera(folder: Path) -> Iterator[Shot]:
    for name, photograph in _kodak(folder):
        yield Shot(name, *noise.camera_photograph(photograph, int(name)))


def _clean(data: Path) -> Iterator[Shot]:
    for name, photograph in _kodak(data / "kodak24"):
        yield Shot(f"kodak {name}", photograph, photograph)
    for path in sorted((data / "clean/budgie_cc0").glob("*.jpg")):
        whole = _read(path)
        even = whole[: len(whole) // 2 * 2, : whole.shape[1] // 2 * 2].astype(np.uint16)
        sums = even[::2, ::2] + even[::2, 1::2] + even[1::2, ::2] + even[1::2, 1::2]
        half = ((sums + 2) // 4).astype(np.uint8)
        yield Shot(path.stem, half, half)
