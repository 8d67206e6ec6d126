"""What the gate lets pass and what it stops; docs/log.md has the table of the large sets."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pix2pix import harm, metrics, noise

SAMPLES = Path(__file__).parent.parent / "samples"
Photograph = NDArray[np.uint8]


def read(path: Path) -> Photograph:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.fixture(scope="module")
def pairs() -> list[tuple[Photograph, Photograph]]:
    paths = sorted((SAMPLES / "pairs").rglob("NOISY*"))
    assert len(paths) > 10
    return [(read(path), read(Path(str(path).replace("NOISY", "GT")))) for path in paths]


@pytest.fixture(scope="module")
def large(pairs: list[tuple[Photograph, Photograph]]) -> Photograph:
    """A photograph of 1024 x 1280, laid out of twenty clean ones."""
    clean = [pair[1] for pair in pairs]
    rows = [np.hstack([clean[(5 * row + k) % len(clean)] for k in range(5)]) for row in range(4)]
    return np.vstack(rows)


def noisy(clean: Photograph, sigma: float) -> Photograph:
    noise = np.random.default_rng(0).normal(0, sigma, clean.shape)
    return np.clip(np.rint(clean + noise), 0, 255).astype(np.uint8)


def judged(before: Photograph, after: Photograph) -> harm.Verdict:
    return harm.verdict(before, after, metrics.noise_sigma(before))


def test_the_truth_passes(pairs: list[tuple[Photograph, Photograph]]) -> None:
    verdicts = [judged(*pair) for pair in pairs[::3]]
    assert [verdict.message for verdict in verdicts if not verdict.accepted] == []


@pytest.mark.parametrize("sigma", [5, 10, 25, 50])
def test_the_truth_behind_white_noise_passes(large: Photograph, sigma: float) -> None:
    assert judged(noisy(large, sigma), large).message == ""


def test_the_truth_behind_a_camera_s_noise_passes(large: Photograph) -> None:
    messages = []
    for seed in range(12):
        before, clean = noise.camera_photograph(large[:512, :640], seed)
        messages.append(judged(before, clean).message)
    # neighbours share this noise: what the photograph alone shows of it is a fifth
    assert sum(not message for message in messages) >= 10, messages


@pytest.mark.parametrize("correlated", [False, True])
def test_noise_that_has_gone_is_measured(large: Photograph, correlated: bool) -> None:
    chance = np.random.default_rng(0).normal(0, 1, large.shape)
    if correlated:
        chance = ndimage.gaussian_filter(chance, (0.6, 0.6, 0))  # shared by neighbours
    before = np.clip(np.rint(large * 0.5 + 64 + 10 * chance / chance.std()), 0, 255)
    after = np.rint(large * 0.5 + 64).astype(np.uint8)
    assert harm.removed_sigma(before.astype(np.uint8), after) == pytest.approx(10, rel=0.1)


def test_noise_that_has_come_is_none_that_has_gone(large: Photograph) -> None:
    assert harm.removed_sigma(large, noisy(large, 20)) == pytest.approx(-20, rel=0.1)


@pytest.mark.parametrize("sigma", [0, 10])
def test_an_unchanged_photograph_changed_by_nothing(large: Photograph, sigma: float) -> None:
    before = noisy(large, sigma)
    assert judged(before, before) == harm.Verdict("", 0, 0, 0, 0, 0, 0)


def replaced(
    image: Photograph, value: Photograph | int, top: int, left: int, side: int
) -> Photograph:
    result = image.copy()
    result[top : top + side, left : left + side] = value
    return result


GARBAGE = np.random.default_rng(1).integers(0, 256, (256, 256, 3), dtype=np.uint8)
SPOILED: dict[str, Callable[[Photograph], Photograph]] = {
    "8 brighter": lambda x: np.clip(x.astype(int) + 8, 0, 255).astype(np.uint8),
    "a channel 12 up": lambda x: np.clip(x.astype(int) + np.array([12, 0, 0]), 0, 255).astype(
        np.uint8
    ),
    "red and blue exchanged": lambda x: x[..., ::-1].copy(),
    "a black rectangle": lambda x: replaced(x, 0, 300, 500, 100),
    "garbage of 256 pixels": lambda x: replaced(x, GARBAGE, 512, 768, 256),
    "garbage of 64 pixels in the corner": lambda x: replaced(x, GARBAGE[:64, :64], 960, 1216, 64),
    "blurred": lambda x: ndimage.gaussian_filter(x, (8, 8, 0)),
    "inverted": lambda x: 255 - x,
    "8 pixels to the right": lambda x: np.roll(x, 8, 1),
    "posterised": lambda x: (x // 64 * 64 + 32).astype(np.uint8),
    "noisier": lambda x: noisy(noisy(x, 20), 20),
    "clipped": lambda x: np.clip((x.astype(int) - 128) * 2 + 128, 0, 255).astype(np.uint8),
}


@pytest.mark.parametrize("name", SPOILED)
def test_damage_is_refused(large: Photograph, name: str) -> None:
    before = noisy(large, 10)
    verdict = judged(before, SPOILED[name](large))
    assert not verdict.accepted
    assert " > " in verdict.message


def test_the_numbers_of_a_lifted_channel_are_known(large: Photograph) -> None:
    before = np.clip(large, 0, 240)
    after = before + np.array([0, 6, 0], np.uint8)
    verdict = harm.verdict(before, after, 0.0)
    assert (verdict.mean_shift, verdict.worst_shift) == pytest.approx((6, 6))
    assert (verdict.change, verdict.worst_change) == pytest.approx((12**0.5, 12**0.5))
    assert verdict.message.startswith("mean shift 6 > 2.5; change 3.46 > 2; worst shift of a place")


def test_one_erased_place_in_a_large_photograph_is_seen(large: Photograph) -> None:
    before = np.tile(large, (3, 3, 1))
    place = before[1000:1064, 2000:2064]
    assert place.std() > 20
    verdict = judged(before, replaced(before, np.uint8(place.mean()), 1000, 2000, 64))
    assert verdict.mean_shift < 0.1
    assert "worst change of a place" in verdict.message


def test_values_that_a_result_clips_are_counted() -> None:
    before = np.full((64, 64, 3), 100, np.uint8)
    after = before.copy()
    after[::2] = 0
    assert harm.verdict(before, after, 0.0).clipped_added == 0.5


@pytest.mark.parametrize("shape", [(1, 1), (3, 500), (8, 8), (71, 9), (130, 71)])
def test_any_size_is_judged(shape: tuple[int, int]) -> None:
    before = np.full((*shape, 3), 100, np.uint8)
    assert harm.verdict(before, before + np.uint8(1), 0.0).mean_shift == pytest.approx(1)
    assert not harm.verdict(before, before + np.uint8(50), 0.0).accepted


def test_photographs_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match="must equal"):
        harm.verdict(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8), 0.0)


# is_clean


def test_noise_of_two_levels_is_not_clean(large: Photograph) -> None:
    before = noisy(large, 2)
    assert not harm.is_clean(before, metrics.noise_sigma(before))


def test_a_drawn_gradient_is_clean() -> None:
    ramp = np.add.outer(np.arange(200) // 2, np.arange(200) // 2).astype(np.uint8)
    gradient = np.repeat(ramp[..., None], 3, axis=2)
    assert harm.is_clean(gradient, metrics.noise_sigma(gradient))


def test_what_is_too_small_to_judge_is_clean_only_in_one_colour() -> None:
    small = np.random.default_rng(0).integers(0, 256, (28, 500, 3), dtype=np.uint8)
    assert not harm.is_clean(small, metrics.noise_sigma(small))
    assert harm.is_clean(np.full((3, 3, 3), [1, 2, 3], np.uint8), 0.0)
    assert harm.is_clean(np.full((300, 300, 3), [1, 2, 3], np.uint8), 0.0)


@pytest.mark.parametrize(
    ("everywhere", "in_a_place", "little"),
    [(0.0, 0.0, True), (0.9, 0.9, True), (1.1, 1.1, False), (0.5, 1.9, True), (0.1, 2.1, False)],
)
def test_little_is_taken_only_if_it_is_little_in_each_place(
    everywhere: float, in_a_place: float, little: bool
) -> None:
    energy = np.full((64, 96), everywhere**2, np.float32)
    energy[8:16, 16:24] = in_a_place**2
    assert harm.takes_little(energy) == little


def test_what_is_too_small_is_not_called_clean() -> None:
    assert not harm.takes_little(np.empty((0, 0), np.float32))
