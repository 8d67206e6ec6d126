"""Claims about pix2pix.crops."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from pix2pix import crops
from tests.photographs import pixels, saved


def opened(png: bytes | str) -> np.ndarray:
    assert isinstance(png, bytes), png
    return np.asarray(Image.open(io.BytesIO(png)))


def row(folder: Path, before: bytes | None, after: bytes | None) -> dict[str, str]:
    for name, data in (("before.png", before), ("after.png", after)):
        if data is not None:
            (folder / name).write_bytes(data)
    return {"uri": f"{folder}/before.png", "output_uri": f"{folder}/after.png"}


def test_the_place_that_changed_most_is_found() -> None:
    before = pixels(700, 900)
    after = before.copy()
    after[400:560, 500:660] = 255 - after[400:560, 500:660]
    after[:160, :160] ^= 1
    rows, columns = crops.changed_most(before, after)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (320, 320)
    assert rows.start <= 400 <= 560 <= rows.stop
    assert columns.start <= 500 <= 660 <= columns.stop


def test_places_reach_every_side_of_any_image() -> None:
    for height, width in ((1, 1), (320, 320), (321, 640), (1000, 50)):
        before = np.zeros((height, width, 3), np.uint8)
        after = before.copy()
        after[-8:, -8:] = 9
        place = crops.changed_most(before, after, 320)
        assert before[place].shape[:2] == (min(height, 320), min(width, 320))
        assert after[place].any()


def test_crops_are_pixels_of_the_two_files(tmp_path: Path) -> None:
    before = pixels(400, 500)
    after = before // 2
    found = crops.crops(row(tmp_path, *(saved(Image.fromarray(i), "PNG") for i in (before, after))))
    first, second = opened(found.before), opened(found.after)
    assert first.shape == (320, 320, 3)
    assert np.array_equal(first // 2, second)


def test_what_is_gone_changed_or_broken_is_told_and_the_other_one_is_shown(tmp_path: Path) -> None:
    small, large = (saved(Image.fromarray(pixels(*s)), "PNG") for s in ((40, 50), (400, 350)))
    gone = crops.crops(row(tmp_path, None, large))
    assert isinstance(gone.before, str)
    assert gone.before.startswith("The original is gone: ")
    assert np.array_equal(opened(gone.after), pixels(400, 350)[40:360, 15:335])
    changed = crops.crops(row(tmp_path, small, large))
    assert (
        changed.before == "The original is 50 x 40 pixels now, not 350 x 400: it was changed since."
    )
    broken = crops.crops(row(tmp_path, b"\xff\xd8\xff", None))
    assert str(broken.before).startswith("The original can't be read: ")
    assert np.array_equal(opened(broken.after), pixels(400, 350)[40:360, 15:335])
    unknown = crops.crops({"uri": "unheard://of/it", "output_uri": None})
    assert str(unknown.before).startswith("The original can't be read: ")
    assert unknown.after == "The table names no denoised image."
