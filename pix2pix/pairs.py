"""Pairs of a noisy and a clean photograph: where they come from, scene splits.

Two layouts are known: SIDD's (`<instance>_<scene>_.../...NOISY_SRGB...` beside `...GT_SRGB...`) and
two parallel folders `noisy/` and `clean/` with the same names in both.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar

import numpy as np

from pix2pix import images, manifest, storage
from pix2pix.settings import Settings

SIDD_NOISY, SIDD_CLEAN = "NOISY_SRGB", "GT_SRGB"
VALIDATION_SHARE = 0.1  # of the pairs, where no validation scenes are named
CPUS_PER_TASK = 0.5  # decoding waits for storage about half of its time
T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """A noisy photograph and its clean counterpart, by URL, with the scene that they show."""

    name: str
    scene: str
    noisy_url: str
    clean_url: str


class BadPairs(ValueError):  # noqa: N818 - says what is bad
    """Pairs that can't be trained on; the text names each."""


def found(url: str) -> list[Pair]:
    """All pairs under a URL, in the order of their names.

    Args:
        url: A folder in SIDD's layout, or one that holds `noisy/` and `clean/`. In the latter the
            scene is the first folder below `noisy/`; images directly in it are a scene each.

    Raises:
        FileNotFoundError: there is no such folder.
        BadPairs: no pairs, or images whose counterpart is missing (each is named).
    """
    entries = {
        entry.relative_path: entry.uri
        for entry in storage.files(url)
        if manifest.is_image(entry.relative_path)
    }
    sidd = {path: uri for path, uri in entries.items() if SIDD_NOISY in PurePosixPath(path).name
            or SIDD_CLEAN in PurePosixPath(path).name}  # fmt: skip
    others = {path: uri for path, uri in entries.items() if path not in sidd}
    pairs, alone = _sidd_pairs(sidd) if sidd else _folder_pairs(others)
    if sidd and _folder_pairs(others)[0]:
        raise BadPairs(
            f"{url} holds pairs in SIDD's layout and in noisy/ and clean/: give one of the two"
        )
    if alone:
        raise BadPairs(
            f"{len(alone)} images under {url} have no counterpart: {', '.join(alone[:20])}; "
            "every noisy image needs its clean one: add it, or take the other away"
        )
    if not pairs:
        raise BadPairs(
            f"no pairs under {url}: it must hold SIDD's layout (folders with *{SIDD_NOISY}* and "
            f"*{SIDD_CLEAN}*) or two folders noisy/ and clean/ with the same names in both"
        )
    return sorted(pairs, key=lambda pair: pair.name)


def _sidd_pairs(entries: dict[str, str]) -> tuple[list[Pair], list[str]]:
    pairs, alone = [], []
    for path, uri in sorted(entries.items()):
        head, name = path.rpartition("/")[0], path.rpartition("/")[2]
        if SIDD_CLEAN in name:
            if f"{head}/{name.replace(SIDD_CLEAN, SIDD_NOISY)}".lstrip("/") not in entries:
                alone.append(path)
            continue
        clean = entries.get(f"{head}/{name.replace(SIDD_NOISY, SIDD_CLEAN)}".lstrip("/"))
        if clean is None:
            alone.append(path)
            continue
        folder = head.rpartition("/")[2]
        scene = re.match(r"\d+_(\d+)_", folder)
        pairs.append(Pair(path, scene.group(1) if scene else folder, uri, clean))
    return pairs, alone


def _folder_pairs(entries: dict[str, str]) -> tuple[list[Pair], list[str]]:
    sides: dict[str, dict[str, tuple[str, str]]] = {"noisy": {}, "clean": {}}
    for path, uri in entries.items():
        side, _, rest = path.partition("/")
        if side in sides:
            stem = str(PurePosixPath(rest).with_suffix(""))
            if stem in sides[side]:
                raise BadPairs(
                    f"{side}/{sides[side][stem][0]} and {path} have the same name: which of them "
                    "belongs to the counterpart can't be told; rename or take one away"
                )
            sides[side][stem] = (rest, uri)
    noisy, clean = sides["noisy"], sides["clean"]
    pairs = [
        Pair(noisy[stem][0], stem.split("/")[0], noisy[stem][1], clean[stem][1])
        for stem in noisy.keys() & clean.keys()
    ]
    alone = [f"noisy/{noisy[stem][0]}" for stem in noisy.keys() - clean.keys()]
    alone += [f"clean/{clean[stem][0]}" for stem in clean.keys() - noisy.keys()]
    return pairs, sorted(alone)


def of_scenes(pairs: list[Pair], scenes: tuple[str, ...]) -> list[Pair]:
    """The pairs that show these scenes.

    Raises:
        BadPairs: a scene has no pair.
    """
    known = {pair.scene for pair in pairs}
    unknown = sorted(set(scenes) - known)
    if unknown:
        raise BadPairs(
            f"scenes {', '.join(unknown)} are not among the pairs; "
            f"these are: {', '.join(sorted(known)[:50])}"
        )
    return [pair for pair in pairs if pair.scene in scenes]


def split(pairs: list[Pair], settings: Settings) -> tuple[list[Pair], list[Pair]]:
    """Training and validation pairs, which never share a scene; test scenes are in neither.

    Where the settings name no validation scenes, whole scenes are taken in an order that depends on
    their names alone, until they hold a tenth of the pairs.

    Raises:
        BadPairs: a named scene has no pair, or nothing is left to train or to validate on.
    """
    held_out = {pair.name for pair in of_scenes(pairs, settings.test_scenes)}
    rest = [pair for pair in pairs if pair.name not in held_out]
    scenes = settings.validation_scenes or _validation_scenes(rest)
    validation = of_scenes(rest, scenes)
    training = [pair for pair in rest if pair.scene not in scenes]
    if not training or not validation:
        raise BadPairs(
            f"{len(training)} pairs to train on and {len(validation)} to validate on, out of "
            f"{len(pairs)} pairs of {len({pair.scene for pair in pairs})} scenes: both need at "
            "least one scene of their own; give more scenes or other --validation-scenes"
        )
    return training, validation


def _validation_scenes(pairs: list[Pair]) -> tuple[str, ...]:
    counts = Counter(pair.scene for pair in pairs)
    chosen: list[str] = []
    for scene in sorted(counts, key=lambda name: hashlib.sha256(name.encode()).digest()):
        if sum(counts[name] for name in chosen) >= VALIDATION_SHARE * len(pairs):
            break
        chosen.append(scene)
    return tuple(chosen)


def fingerprint(pairs: list[Pair], smallest_pixels: int = 1) -> str:
    """Reads and decodes every pair once, over the cluster, and refuses those that can't be used.

    Args:
        pairs: What is to be trained or scored on.
        smallest_pixels: No side of an image may be shorter.

    Returns:
        A SHA-256 over the names and contents of all pairs, as hexadecimal digits.

    Raises:
        BadPairs: unreadable or mismatched pairs; each is named with what is wrong.
    """
    return digest("pairs", pairs, lambda pair: _checked(pair, smallest_pixels))


def digest(what: str, items: Sequence[T], check: Callable[[T], dict[str, str]]) -> str:
    """One SHA-256 over the names and digests of items that are checked over the cluster.

    Args:
        what: The items' name in the refusal.
        items: What is to be checked.
        check: From an item to `name`, `digest` and `problem` (empty if there is none).

    Returns:
        Hexadecimal digits, which don't depend on the items' order.

    Raises:
        BadPairs: items with a problem; each is named with what is wrong.
    """
    import ray.data

    checked = ray.data.from_items([{"index": index} for index in range(len(items))]).map(
        lambda row: check(items[row["index"]]), num_cpus=CPUS_PER_TASK
    )
    rows = sorted(checked.take_all(), key=lambda row: row["name"])
    bad = [f"{row['name']}: {row['problem']}" for row in rows if row["problem"]]
    if bad:
        listed = "\n  ".join(bad[:20] + ([f"and {len(bad) - 20} more"] if len(bad) > 20 else []))
        raise BadPairs(
            f"{len(bad)} of {len(items)} {what} can't be used; mend them or take them away:\n"
            f"  {listed}"
        )
    lines = "\n".join(f"{row['name']} {row['digest']}" for row in rows)
    return hashlib.sha256(lines.encode()).hexdigest()


def _checked(pair: Pair, smallest_pixels: int) -> dict[str, str]:
    digest, shapes = hashlib.sha256(), []
    for url in (pair.noisy_url, pair.clean_url):
        try:
            data = storage.read(url)
            shapes.append(images.decode_rgb(data).shape[:2])
        except (OSError, images.Undecodable, images.Unsupported, images.TooLarge) as error:
            return {"name": pair.name, "digest": "", "problem": f"{url}: {error}"}
        digest.update(hashlib.sha256(data).digest())
    problem = ""
    if shapes[0] != shapes[1]:
        sizes = [f"{width}x{height}" for height, width in shapes]
        problem = f"noisy is {sizes[0]} and clean is {sizes[1]}: both must have the same size"
    elif min(shapes[0]) < smallest_pixels:
        problem = f"{shapes[0][1]}x{shapes[0][0]} is smaller than patches of {smallest_pixels}"
    return {"name": pair.name, "digest": digest.hexdigest(), "problem": problem}


def pixels(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """The noisy and the clean image of a pair, uint8 (height, width, 3) RGB each."""
    noisy, clean = (
        images.decode_rgb(storage.read(url)) for url in (pair.noisy_url, pair.clean_url)
    )
    return noisy, clean
