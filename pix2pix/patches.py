"""Training patches: cut from pairs, or from clean photographs to which noise is added.

A batch has `settings.batch` lanes. In each visit a lane decodes one pair or one photograph and cuts
`patches_per_pair` patches from it, which serve that many steps.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

import numpy as np

from pix2pix import noise, pairs, photographs
from pix2pix.pairs import Pair
from pix2pix.settings import Settings
from pix2pix.storage import Entry

T = TypeVar("T")
VISITS_PER_TASK, BLOCK_BYTES = 16, 64_000_000  # half of what Ray Data takes for one block
BLOWN = 250  # a clean level from which on the noise may have been clipped
TEXTURED_SHARE = 0.5  # of the patches of clean photographs, which are the livelier of two


class Sources(NamedTuple):
    """What patches are cut from."""

    pairs: list[Pair]
    photographs: list[Entry]  # clean ones; none, and all patches come from pairs


class Visit(NamedTuple):
    """What a lane takes at one place: "pair", "camera" or "white", and how many were before it."""

    kind: str
    number: int


def visit(sources: Sources, settings: Settings, place: int) -> Visit:
    """What is taken at a place of the endless sequence of visits.

    The kinds alternate as evenly as their shares allow, so that each batch holds its share of each,
    and every pair is visited once before any is visited again.

    Returns:
        The kind; `number` counts pairs and photographs (with either noise) apart.
    """
    share = _pair_share(sources, settings)
    before = math.floor(place * share)
    if math.floor((place + 1) * share) > before:
        return Visit("pair", before)
    number, both = place - before, settings.camera_share + settings.white_share
    white = settings.white_share / both
    is_white = math.floor((number + 1) * white) > math.floor(number * white)
    return Visit("white" if is_white else "camera", number)


def _pair_share(sources: Sources, settings: Settings) -> float:
    if not sources.photographs:
        return 1.0
    return max(0.0, round(1.0 - settings.camera_share - settings.white_share, 9))


def visits_per_epoch(sources: Sources, settings: Settings) -> int:
    """How often each lane visits an image during an epoch: a pass over all pairs.

    Rounded up to whole batches; a pass over the photographs if no patches come from pairs.
    """
    share = _pair_share(sources, settings)
    places = len(sources.pairs) / share if share else len(sources.photographs)
    return math.ceil(round(places / settings.batch, 6))


def visits(
    sources: Sources, settings: Settings, epoch: int, worker: int, workers: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """A worker's patches of one epoch, cut by Ray Data as a stream.

    A worker owns a fixed share of the lanes. So every worker has the same number of steps, and a
    step's patches don't depend on how many workers share them.

    Args:
        sources: What patches are cut from, the same on every worker.
        settings: `batch`, `patches_per_pair`, `crop_pixels`, the shares and `seed`.
        epoch: Counted from 0.
        worker: This worker's rank.
        workers: How many share the batch; `settings.batch` is a multiple of it.

    Yields:
        `visits_per_epoch` times noisy and clean, uint8
        (patches_per_pair, batch / workers, crop_pixels, crop_pixels, 3): a batch for each step.
    """
    import ray.data

    lanes, count = settings.batch // workers, visits_per_epoch(sources, settings)

    def cut(row: dict[str, int]) -> dict[str, np.ndarray]:
        turn, lane = divmod(int(row["place"]), lanes)
        place = (epoch * count + turn) * settings.batch + worker * lanes + lane
        noisy, clean = patches(sources, settings, place)
        return {"noisy": noisy, "clean": clean}

    ray.data.DataContext.get_current().execution_options.preserve_order = True
    items = [{"place": index} for index in range(count * lanes)]
    # a task costs Ray 30 ms, so each has several visits; but all its patches are one block, as a
    # task whose output waits for its reader keeps its CPU, and workers that wait for each other in
    # a step could then starve each other
    visit_bytes = 2 * 3 * settings.crop_pixels**2 * settings.patches_per_pair
    per_task = max(1, min(VISITS_PER_TASK, BLOCK_BYTES // visit_bytes))
    tasks = -(-len(items) // per_task)
    rows = ray.data.from_items(items, override_num_blocks=tasks)  # range() would need a CPU
    stream = rows.map(cut, num_cpus=pairs.CPUS_PER_TASK)
    for batch in stream.iter_batches(batch_size=lanes, batch_format="numpy", prefetch_batches=2):
        yield batch["noisy"].swapaxes(0, 1), batch["clean"].swapaxes(0, 1)


def patches(sources: Sources, settings: Settings, place: int) -> tuple[np.ndarray, np.ndarray]:
    """The patches at one place of the sequence of visits, flipped and turned at random.

    Pairs and photographs are walked through in an order shuffled anew for each pass; place and seed
    decide everything.

    Returns:
        Noisy and clean, uint8 (patches_per_pair, crop_pixels, crop_pixels, 3), RGB.
    """
    kind, number = visit(sources, settings, place)
    side, count = settings.crop_pixels, settings.patches_per_pair
    chance = np.random.default_rng([settings.seed, 1, place])
    if kind == "pair":
        both = np.stack(pairs.pixels(_shuffled(sources.pairs, [settings.seed, 0], number)))
        crops = np.stack([_crop(both, side, chance) for _ in range(count)], axis=1)
        noisy, clean = crops[0], crops[1]
    else:
        photograph = photographs.pixels(_shuffled(sources.photographs, [settings.seed, 2], number))
        added = noise.camera if kind == "camera" else noise.white
        noisy, clean = added(
            np.stack([_lively(photograph, side, chance) for _ in range(count)]), chance
        )
    ways = chance.integers([4, 2], size=(count, 2))  # quarter turns; and a flip
    noisy, clean = _turned(noisy, ways), _turned(clean, ways)
    if kind == "pair":
        for index in np.flatnonzero(chance.random(count) < settings.varied_share):
            noisy[index], clean[index] = _varied(noisy[index], clean[index], chance)
    return noisy, clean


def _shuffled(items: list[T], seed: list[int], number: int) -> T:
    """The item at a place of the endless sequence of passes, each in an order of its own."""
    turn, index = divmod(number, len(items))
    return items[np.random.default_rng([*seed, turn]).permutation(len(items))[index]]


def _crop(image: np.ndarray, side: int, chance: np.random.Generator) -> np.ndarray:
    """A square anywhere in an image (..., height, width, 3)."""
    top, left = (int(chance.integers(0, length - side + 1)) for length in image.shape[-3:-1])
    return image[..., top : top + side, left : left + side, :]


def _varied(
    noisy: np.ndarray, clean: np.ndarray, chance: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A pair's patch as it might have been: exposure, noise and the places of the colours differ.

    So that a few hundred pairs are not learned by heart. The noise keeps its shape: how it depends
    on brightness and on its neighbours. What was clipped stays white: it becomes no darker, as grey
    whose noise only goes down is nothing that a camera makes.
    """
    darkest = 0.6 if clean.max() < BLOWN else 1.0
    exposure, gain = np.exp(chance.uniform(np.log((darkest, 0.7)), np.log(1.4)))
    colours = chance.permutation(3)
    before = clean[..., colours].astype(np.float32)
    values = exposure * (before + gain * (noisy[..., colours] - before))
    return tuple(np.clip(np.rint(each), 0, 255).astype(np.uint8)
                 for each in (values, exposure * before))  # fmt: skip


def _lively(photograph: np.ndarray, side: int, chance: np.random.Generator) -> np.ndarray:
    """A square out of a photograph, with a mild preference for texture.

    Much of a photograph is sky and blur, of which there is little to learn. Half of the patches are
    the livelier of two: so the flattest are drawn half as often as by chance, and the liveliest one
    and a half times.
    """
    crop = _crop(photograph, side, chance)
    if chance.random() >= TEXTURED_SHARE:
        return crop
    return max(crop, _crop(photograph, side, chance), key=_liveliness)


def _liveliness(crop: np.ndarray) -> float:
    """How much neighbouring rows of the green channel differ."""
    green = crop[::2, ::2, 1].astype(np.int16)
    return float(np.abs(np.diff(green, axis=0)).mean())


def _turned(crops: np.ndarray, ways: np.ndarray) -> np.ndarray:
    """Each crop turned and flipped its own way."""
    turned = [np.rot90(crop, turns) for crop, (turns, _) in zip(crops, ways, strict=True)]
    return np.stack([crop[:, ::-1] if flip else crop
                     for crop, (_, flip) in zip(turned, ways, strict=True)])  # fmt: skip
