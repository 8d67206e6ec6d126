from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pix2pix import images, photographs
from pix2pix.pairs import BadPairs

ELSEWHERE = "/nowhere/pairs"


def _blocks(height: int, width: int) -> np.ndarray:
    """A smooth picture of 2x2 blocks, of which a half has one pixel each."""
    rows, columns = np.mgrid[: height // 2, : width // 2]
    half = np.stack([rows * 200 // height, columns * 200 // width, rows * 0 + 90], axis=-1)
    return half.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)


def _saved(path: Path, pixels: np.ndarray, **options: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def test_photographs_are_found_in_the_order_of_folders_and_names(tmp_path: Path) -> None:
    for name in ("b/z.png", "b/a/y.jpg", "a/x.png"):
        _saved(tmp_path / name, _blocks(8, 8))
    (tmp_path / "a/LICENSE.txt").write_text("yours")
    urls = (str(tmp_path / "b"), str(tmp_path / "a"), str(tmp_path / "b/a"))
    found = photographs.found(urls, ELSEWHERE)
    assert [entry.uri.rpartition("/")[2] for entry in found] == ["y.jpg", "z.png", "x.png"]


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(BadPairs, match="no images under"):
        photographs.found((str(tmp_path),), ELSEWHERE)


@pytest.mark.parametrize("other", [".", "pairs", "pairs/clean"])
def test_photographs_may_not_be_those_of_the_pairs(tmp_path: Path, other: str) -> None:
    _saved(tmp_path / "pairs/clean/a.png", _blocks(8, 8))
    with pytest.raises(BadPairs, match="overlap"):
        photographs.found((str(tmp_path / other),), str(tmp_path / "pairs"))


@pytest.mark.parametrize(("name", "error"), [("p.png", 0), ("p.jpg", 3), ("grey.jpg", 3)])
def test_large_photographs_are_halved(tmp_path: Path, name: str, error: int) -> None:
    pixels = _blocks(64, 2502)
    pixels = pixels[..., 1] if name == "grey.jpg" else pixels
    _saved(tmp_path / name, pixels, quality=98)
    (found,) = photographs.found((str(tmp_path),), ELSEWHERE)
    half = photographs.pixels(found)
    assert half.shape == (32, 1251, 3)
    expected = pixels.reshape(64, 2502, -1)[::2, ::2]
    assert np.abs(half.astype(int) - expected).max() <= error


def test_odd_sides_are_rounded_up_alike_in_all_formats(tmp_path: Path) -> None:
    for name in ("p.png", "p.jpg"):
        _saved(tmp_path / name, _blocks(64, 2504)[:63, :2503])
        data = (tmp_path / name).read_bytes()
        assert images.decode_rgb(data, halved_above=2500).shape == (32, 1252, 3)
        assert images.decode_rgb(data, halved_above=2503).shape == (63, 2503, 3)


def test_small_photographs_stay_as_they_are(tmp_path: Path) -> None:
    pixels = _blocks(64, 2500)
    _saved(tmp_path / "p.png", pixels)
    (found,) = photographs.found((str(tmp_path),), ELSEWHERE)
    np.testing.assert_array_equal(photographs.pixels(found), pixels)


def test_a_process_keeps_no_more_than_its_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photographs, "_kept_bytes", lambda: 4 * 32 * 32 * 3)
    for place in range(9):
        _saved(tmp_path / f"{place}.png", _blocks(32, 32) + np.uint8(place))
    found = photographs.found((str(tmp_path),), ELSEWHERE)
    for place in (*range(9), 8, 0):
        assert photographs.pixels(found[place])[0, 0, 2] == 90 + place
    kept = [int(pixels[0, 0, 2]) - 90 for pixels in photographs._kept.values()]
    assert kept == [6, 7, 8, 0]


def test_a_photograph_that_was_changed_is_read_anew(tmp_path: Path) -> None:
    for level in (10, 200):
        _saved(tmp_path / "p.png", np.full((9, 9, 3), level, np.uint8))
        (found,) = photographs.found((str(tmp_path),), ELSEWHERE)
        assert photographs.pixels(found).max() == level


@pytest.mark.usefixtures("ray_cluster")
def test_unusable_photographs_are_all_named_and_a_changed_one_is_noticed(tmp_path: Path) -> None:
    _saved(tmp_path / "good.jpg", _blocks(64, 64))
    _saved(tmp_path / "narrow.png", _blocks(62, 2600))  # 31 when it is halved
    _saved(tmp_path / "broken.jpg", _blocks(64, 2600))
    whole = (tmp_path / "broken.jpg").read_bytes()
    (tmp_path / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    urls = (str(tmp_path),)
    with pytest.raises(BadPairs) as refusal:
        photographs.fingerprint(photographs.found(urls, ELSEWHERE), smallest_pixels=32)
    text = str(refusal.value)
    assert "2 of 3 clean photographs" in text
    assert "narrow.png: 1300x31 pixels are smaller than patches of 32" in text
    assert "broken.jpg" in text
    assert "good.jpg" not in text
    (tmp_path / "narrow.png").unlink()
    (tmp_path / "broken.jpg").unlink()
    before = photographs.fingerprint(photographs.found(urls, ELSEWHERE))
    _saved(tmp_path / "good.jpg", _blocks(64, 66))
    assert photographs.fingerprint(photographs.found(urls, ELSEWHERE)) != before
