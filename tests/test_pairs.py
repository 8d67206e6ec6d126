from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pix2pix import pairs
from pix2pix.pairs import BadPairs
from pix2pix.settings import Settings

SAMPLES = Path(__file__).parent.parent / "samples"
SMALL = Settings(crop_pixels=32, batch=4, patches_per_pair=3, seed=5)


def _image(path: Path, side: int = 40, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.arange(side * side * 3, dtype=np.uint32).reshape(side, side, 3) * 7 + value
    Image.fromarray((levels % 251).astype(np.uint8)).save(path)


def _two_folders(folder: Path, names: list[str], side: int = 40) -> str:
    for place, name in enumerate(names):
        _image(folder / "noisy" / name, side, place)
        _image(folder / "clean" / name, side, place)
    return str(folder)


def test_the_samples_in_sidd_layout_are_26_pairs_of_7_scenes() -> None:
    found = pairs.found(str(SAMPLES / "pairs"))
    assert len(found) == 26
    scenes = {pair.scene for pair in found}
    assert scenes == {"001", "002", "004", "005", "006", "007", "009"}
    assert all("GT_SRGB" in pair.clean_url for pair in found)
    assert all(
        pair.noisy_url.rpartition("/")[0] == pair.clean_url.rpartition("/")[0] for pair in found
    )


def test_the_full_dataset_s_numbered_names_are_pairs_too(tmp_path: Path) -> None:
    folder = tmp_path / "0001_001_S6_00100_00060_3200_L"
    for part in ("NOISY_SRGB_010", "GT_SRGB_010", "NOISY_SRGB_011", "GT_SRGB_011"):
        _image(folder / f"0001_{part}.PNG")
    found = pairs.found(str(tmp_path))
    assert [(pair.scene, pair.clean_url[-15:]) for pair in found] == [
        ("001", "GT_SRGB_010.PNG"),
        ("001", "GT_SRGB_011.PNG"),
    ]


def test_two_folders_pair_by_name_whatever_the_suffix(tmp_path: Path) -> None:
    _image(tmp_path / "noisy/garden/a.jpg")
    _image(tmp_path / "clean/garden/a.png")
    _image(tmp_path / "noisy/b.png")
    _image(tmp_path / "clean/b.png")
    found = pairs.found(str(tmp_path))
    assert [(pair.name, pair.scene) for pair in found] == [
        ("b.png", "b"),
        ("garden/a.jpg", "garden"),
    ]


def test_an_image_without_its_counterpart_is_named(tmp_path: Path) -> None:
    url = _two_folders(tmp_path, ["a.png"])
    _image(tmp_path / "noisy/lonely.png")
    with pytest.raises(BadPairs, match=r"1 images .* noisy/lonely.png"):
        pairs.found(url)


def test_a_sidd_image_without_its_counterpart_is_named(tmp_path: Path) -> None:
    _image(tmp_path / "0001_001_X/NOISY_SRGB_010.PNG")
    with pytest.raises(BadPairs, match=r"0001_001_X/NOISY_SRGB_010\.PNG"):
        pairs.found(str(tmp_path))


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    url = _two_folders(tmp_path, ["a.png"])
    _image(tmp_path / "noisy/a.jpg")
    with pytest.raises(BadPairs, match="have the same name"):
        pairs.found(url)


def test_two_layouts_at_once_are_refused(tmp_path: Path) -> None:
    url = _two_folders(tmp_path, ["a.png"])
    for part in ("NOISY_SRGB_010", "GT_SRGB_010"):
        _image(tmp_path / f"0001_001_X/{part}.PNG")
    with pytest.raises(BadPairs, match="SIDD's layout and in noisy/ and clean/"):
        pairs.found(url)


def test_a_folder_without_pairs_is_refused_with_the_layouts(tmp_path: Path) -> None:
    _image(tmp_path / "a.png")
    with pytest.raises(BadPairs, match="two folders noisy/ and clean/"):
        pairs.found(str(tmp_path))


def test_training_and_validation_never_share_a_scene() -> None:
    found = pairs.found(str(SAMPLES / "pairs"))
    training, validation = pairs.split(found, Settings(test_scenes=("009",)))
    scenes = [{pair.scene for pair in part} for part in (training, validation)]
    assert scenes[0].isdisjoint(scenes[1])
    assert "009" not in scenes[0] | scenes[1]
    assert len(validation) >= 0.1 * 24
    assert len(training) + len(validation) == 24


def test_named_scenes_are_those_validated_on() -> None:
    found = pairs.found(str(SAMPLES / "pairs"))
    _, validation = pairs.split(found, Settings(validation_scenes=("002",)))
    assert {pair.scene for pair in validation} == {"002"}


def test_an_unknown_scene_is_refused_by_name() -> None:
    found = pairs.found(str(SAMPLES / "pairs"))
    with pytest.raises(BadPairs, match="scenes 777 are not among the pairs"):
        pairs.split(found, Settings(validation_scenes=("777",)))


def test_a_single_scene_cannot_be_split(tmp_path: Path) -> None:
    found = pairs.found(_two_folders(tmp_path, ["one/a.png", "one/b.png"]))
    with pytest.raises(BadPairs, match="0 pairs to train on"):
        pairs.split(found, SMALL)


@pytest.mark.usefixtures("ray_cluster")
def test_bad_pairs_are_all_named_before_training(tmp_path: Path) -> None:
    url = _two_folders(tmp_path, ["a/ok.png", "b/size.png", "c/broken.png", "d/small.png"])
    _image(tmp_path / "clean/b/size.png", side=41)
    whole = (tmp_path / "noisy/c/broken.png").read_bytes()
    (tmp_path / "noisy/c/broken.png").write_bytes(whole[: len(whole) // 2])
    for side in ("noisy", "clean"):
        _image(tmp_path / side / "d/small.png", side=20)
    with pytest.raises(BadPairs) as refusal:
        pairs.fingerprint(pairs.found(url), smallest_pixels=32)
    text = str(refusal.value)
    assert "3 of 4 pairs" in text
    assert "b/size.png: noisy is 40x40 and clean is 41x41" in text
    assert "noisy/c/broken.png" in text
    assert "d/small.png: 20x20 is smaller than patches of 32" in text
    assert "ok.png" not in text


@pytest.mark.usefixtures("ray_cluster")
def test_the_fingerprint_knows_a_changed_pixel(tmp_path: Path) -> None:
    found = pairs.found(_two_folders(tmp_path, ["a/x.png", "b/y.png"]))
    before = pairs.fingerprint(found)
    assert before == pairs.fingerprint(list(reversed(found)))
    _image(tmp_path / "clean/b/y.png", value=99)
    assert pairs.fingerprint(found) != before
