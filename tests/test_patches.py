from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pix2pix import pairs, patches, photographs
from pix2pix.patches import Sources
from pix2pix.settings import Settings

SAMPLES = Path(__file__).parent.parent / "samples"
SMALL = Settings(crop_pixels=32, batch=4, patches_per_pair=3, seed=5)


def _pairs(folder: Path, names: list[str], side: int = 40) -> Sources:
    """Pairs whose noisy and clean image are the same, each another."""
    for place, name in enumerate(names):
        levels = np.arange(side * side * 3, dtype=np.uint32).reshape(side, side, 3) * 7 + place
        for part in ("noisy", "clean"):
            path = folder / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((levels % 251).astype(np.uint8)).save(path)
    return Sources(pairs.found(str(folder)), [])


def _photograph(folder: Path, pixels: np.ndarray, name: str = "p.png") -> Sources:
    """A clean photograph, and nothing else."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / name)
    return Sources([], photographs.found((str(folder),), "/nowhere/pairs"))


def _samples() -> Sources:
    clean = photographs.found((str(SAMPLES / "unseen/clean"),), str(SAMPLES / "pairs"))
    return Sources(pairs.found(str(SAMPLES / "pairs"))[:6], clean)


def test_a_patch_and_its_counterpart_are_cut_flipped_and_turned_alike(tmp_path: Path) -> None:
    sources = _pairs(tmp_path, ["s/a.png", "t/b.png"])
    noisy, clean = patches.patches(sources, SMALL, place=0)
    assert noisy.shape == (3, 32, 32, 3)
    np.testing.assert_array_equal(noisy, clean)  # both files hold the same picture
    assert len({patch.tobytes() for patch in noisy}) == 3


def test_place_and_seed_decide_every_patch(tmp_path: Path) -> None:
    sources = _pairs(tmp_path, ["s/a.png", "t/b.png"])
    first = patches.patches(sources, SMALL, place=3)[0]
    np.testing.assert_array_equal(first, patches.patches(sources, SMALL, place=3)[0])
    other = Settings(crop_pixels=32, batch=4, patches_per_pair=3, seed=6)
    assert not np.array_equal(first, patches.patches(sources, other, place=3)[0])


def test_all_eight_ways_to_turn_a_photograph_occur(tmp_path: Path) -> None:
    sources = _pairs(tmp_path, ["s/a.png"], side=32)  # one crop only
    wide = Settings(crop_pixels=32, batch=1, patches_per_pair=100)
    noisy, _ = patches.patches(sources, wide, place=0)
    assert len({patch.tobytes() for patch in noisy}) == 8


def _flat_pair(folder: Path, colour: tuple[int, ...]) -> tuple[Sources, np.ndarray]:
    """A pair of one colour, and the error of its noisy image."""
    clean = np.broadcast_to(np.uint8(colour), (32, 32, 3))
    error = np.random.default_rng(1).integers(-30, 31, clean.shape)
    for part, levels in (("clean", clean), ("noisy", np.clip(clean + error, 0, 255))):
        (folder / part / "s").mkdir(parents=True)
        Image.fromarray(levels.astype(np.uint8)).save(folder / part / "s/a.png")
    return Sources(pairs.found(str(folder)), []), error


def test_a_varied_patch_has_another_exposure_other_colours_and_more_or_less_noise(
    tmp_path: Path,
) -> None:
    sources, error = _flat_pair(tmp_path, (60, 90, 130))  # far from black and white
    varied = Settings(crop_pixels=32, batch=1, patches_per_pair=200, varied_share=1.0)
    orders, exposures, gains = set(), [], []
    for noisy, clean in zip(*patches.patches(sources, varied, place=0), strict=True):
        assert np.ptp(clean, axis=(0, 1)).max() == 0
        colours = clean[0, 0].astype(float)
        order = tuple(np.argsort(np.argsort(colours)))
        exposure = colours.sum() / 280
        np.testing.assert_allclose(colours, exposure * np.array([60, 90, 130])[[*order]], atol=1)
        difference = noisy.astype(float) - clean
        gain = difference.std() / error.std()  # flips and turns keep it
        rounded = np.sort(gain * error[..., [*order]].reshape(-1, 3), axis=0)
        np.testing.assert_allclose(np.sort(difference.reshape(-1, 3), axis=0), rounded, atol=1.5)
        orders.add(order)
        exposures.append(exposure)
        gains.append(gain / exposure)
    assert len(orders) == 6
    for values, lowest in ((exposures, 0.6), (gains, 0.7)):
        assert lowest - 0.02 < min(values) < lowest + 0.1
        assert 1.3 < max(values) < 1.42


def test_what_was_clipped_is_varied_but_stays_white(tmp_path: Path) -> None:
    sources, _ = _flat_pair(tmp_path, (255, 252, 255))
    varied = Settings(crop_pixels=32, batch=1, patches_per_pair=50, varied_share=1.0)
    noisy, clean = patches.patches(sources, varied, place=0)
    assert clean.min() >= 252
    gains = noisy.std(axis=(1, 2, 3))
    assert gains.max() > 1.3 * gains.min()


def test_as_many_of_the_pairs_patches_are_varied_as_is_asked_for(tmp_path: Path) -> None:
    sources, _ = _flat_pair(tmp_path, (60, 90, 130))

    def as_they_are(share: float) -> float:
        asked = Settings(crop_pixels=32, batch=1, patches_per_pair=400, varied_share=share)
        _, clean = patches.patches(sources, asked, place=0)
        return float((clean[:, 0, 0] == [60, 90, 130]).all(axis=1).mean())

    assert as_they_are(0.0) == 1.0
    assert 0.4 < as_they_are(0.5) < 0.6


def test_a_pass_visits_every_pair_once(tmp_path: Path) -> None:
    names = [f"{letter}/x.png" for letter in "abcde"]
    sources = _pairs(tmp_path, names, side=32)
    exact = Settings(crop_pixels=32, batch=1, patches_per_pair=1)

    def histogram(place: int) -> bytes:
        return np.bincount(
            patches.patches(sources, exact, place)[0].ravel(), minlength=256
        ).tobytes()

    for turn in (0, 1):
        assert len({histogram(5 * turn + place) for place in range(5)}) == 5


def test_kinds_come_in_their_shares_and_each_pair_once_a_pass() -> None:
    sources, shares = _samples(), Settings(camera_share=0.5, white_share=0.15)
    for first in (0, 2000, 2020):  # each twenty in a row hold 7 pairs, 10 camera, 3 white
        kinds = [patches.visit(sources, shares, first + place).kind for place in range(20)]
        assert [kinds.count(kind) for kind in ("pair", "camera", "white")] == [7, 10, 3]
    visits = [patches.visit(sources, shares, place) for place in range(2000)]
    numbers = [visit.number for visit in visits if visit.kind == "pair"]
    assert numbers == list(range(700))
    assert [visit.number for visit in visits if visit.kind != "pair"] == list(range(1300))


@pytest.mark.parametrize(("camera", "white"), [(0.7, 0.3), (1.0, 0.0), (0.0, 1.0)])
def test_shares_of_one_leave_no_patch_to_the_pairs(camera: float, white: float) -> None:
    sources, shares = _samples(), Settings(camera_share=camera, white_share=white, batch=4)
    visits = [patches.visit(sources, shares, place) for place in range(1000)]
    assert sum(visit.kind == "camera" for visit in visits) == 1000 * camera
    assert sum(visit.kind == "white" for visit in visits) == 1000 * white
    assert patches.visits_per_epoch(sources, shares) == 3  # ten photographs in batches of 4


def test_without_photographs_the_shares_mean_nothing() -> None:
    alone = Sources(_samples().pairs, [])
    assert {patches.visit(alone, SMALL, place).kind for place in range(50)} == {"pair"}
    assert patches.visits_per_epoch(alone, SMALL) == 2  # six pairs in batches of 4


def test_an_epoch_is_a_pass_over_the_pairs_whatever_their_share() -> None:
    assert patches.visits_per_epoch(_samples(), SMALL) == 5  # 6 / 0.35 places in batches of 4


def test_white_noise_lies_on_a_turned_crop_of_the_photograph(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    white = Settings(crop_pixels=32, patches_per_pair=4, camera_share=0.0, white_share=1.0)
    noisy, clean = patches.patches(_photograph(tmp_path, pixels), white, place=0)
    turned = [np.rot90(pixels, turns) for turns in range(4)]
    turned += [crop[:, ::-1] for crop in turned]
    for patch in clean:
        assert any(np.array_equal(patch, crop) for crop in turned)
    assert (noisy != clean).any(axis=(1, 2, 3)).all()
    difference = noisy.astype(float) - clean
    assert np.abs(difference.mean(axis=(1, 2, 3))).max() < 8  # turned like its counterpart


def test_camera_noise_keeps_the_picture(tmp_path: Path) -> None:
    pixels = np.full((64, 64, 3), 128, np.uint8)
    pixels[:, :32] = 64
    camera = Settings(crop_pixels=64, patches_per_pair=8, camera_share=1.0, white_share=0.0)
    noisy, clean = patches.patches(_photograph(tmp_path, pixels), camera, place=0)
    assert noisy.shape == clean.shape == (8, 64, 64, 3)
    assert (noisy != clean).any()
    for patch, target in zip(noisy, clean, strict=True):
        assert np.corrcoef(patch.ravel(), target.ravel())[0, 1] > 0.5
        assert {64, 128} <= set(np.unique(target))


def test_texture_is_drawn_somewhat_more_often(tmp_path: Path) -> None:
    pixels = np.full((64, 4096, 3), 128, np.uint8)
    chance = np.random.default_rng(1)
    pixels[:, 2048:] = chance.integers(100, 156, (64, 2048, 3)).astype(np.uint8)
    sources = _photograph(tmp_path, pixels[:, ::2])  # half is flat, 2048 wide: it stays as it is
    many = Settings(crop_pixels=32, patches_per_pair=1000, camera_share=0.0, white_share=1.0)
    _, clean = patches.patches(sources, many, place=0)
    flat = float((clean.std(axis=(1, 2, 3)) == 0).mean())
    assert flat == pytest.approx(0.375, abs=0.05)  # half * 1/2 + half * 1/4


@pytest.mark.usefixtures("ray_cluster")
def test_two_workers_see_together_what_one_would_see_alone() -> None:
    sources, settings = _samples(), Settings(crop_pixels=32, batch=4, patches_per_pair=2)
    alone = list(patches.visits(sources, settings, epoch=1, worker=0, workers=1))
    halves = [list(patches.visits(sources, settings, 1, worker, 2)) for worker in (0, 1)]
    assert len(alone) == len(halves[0]) == len(halves[1]) == 5
    for visit, (noisy, clean) in enumerate(alone):
        assert noisy.shape == (2, 4, 32, 32, 3)
        for side, whole in ((0, noisy), (1, clean)):
            both = np.concatenate([half[visit][side] for half in halves], axis=1)
            np.testing.assert_array_equal(whole, both)
