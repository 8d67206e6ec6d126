"""A hostile folder: every file a row, no process lost, nothing written outside the output."""

import io
import os
import random
from pathlib import Path

import pytest
from PIL import Image

from pix2pix import checkpoints, denoising, status, storage
from pix2pix.stages import Way
from tests.test_nothing_lost import BROKEN, broken_files

SAMPLES = Path(__file__).parent.parent / "samples"
NAMES = (
    *("a b.png", "100%.png", "1+1=2.png", "%41.png", "line\nbreak.png", "tab\there.png"),
    *("ÄÖ語🙂.png", "..png", "x.jpg/inside.png", "quote'\".png", "back\\slash.png"),
    *("-rf.png", "~.png", "$HOME.png", "*?[a].png", "#hash.png", "a&b;c|d.png", "..a/..b.png"),
)

pytestmark = pytest.mark.usefixtures("ray_cluster")


def _fuzzed(data: bytes, chance: random.Random) -> bytes:
    """A file with a few bytes of its first part flipped, cut out or put in."""
    broken = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(min(len(broken), 400))
        way = chance.randrange(3)
        if way == 0:
            broken[place] ^= 1 << chance.randrange(8)
        elif way == 1:
            del broken[place : place + chance.randint(1, 9)]
        else:
            broken[place:place] = chance.randbytes(chance.randint(1, 9))
    return bytes(broken)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    folder = tmp_path / "home/archive"
    photograph = Image.open(next((SAMPLES / "unseen/noisy").iterdir())).convert("RGB")
    photograph = photograph.crop((0, 0, 80, 64))
    coded = {}
    for suffix, format_name in (("png", "PNG"), ("jpg", "JPEG"), ("tif", "TIFF"), ("webp", "WEBP")):
        file = io.BytesIO()
        photograph.save(file, format_name)
        coded[suffix] = file.getvalue()
    files = dict.fromkeys(NAMES, coded["png"])
    files |= {f"broken/{name}": data for name, data in broken_files(photograph).items()}
    chance = random.Random(5)
    for suffix, data in coded.items():
        files |= {f"fuzz/{n}.{suffix}": _fuzzed(data, chance) for n in range(12)}
        files[f"cut.{suffix}"] = data[: len(data) * 2 // 3]
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (folder / ("n" * 251 + ".png")).write_bytes(coded["png"])
    (folder / "nowhere.png").symlink_to("/nothing/there.png")
    with open(os.fsencode(folder) + b"/not-utf8-\xff.png", "wb") as file:
        file.write(coded["png"])
    return folder


def test_every_file_of_a_hostile_folder_is_a_row_and_nothing_is_written_elsewhere(
    archive: Path, tmp_path: Path, checkpoint: str
) -> None:
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    output = tmp_path / "output"
    way = Way(*checkpoints.identified(checkpoint))
    lines: list[str] = []
    done = denoising.denoised(str(archive), str(output), way, max_failed="100%", show=lines.append)
    names = {e.relative_path for e in storage.files(str(archive))}
    rows = {row["relative_path"]: row for row in status.current(str(output)).to_pylist()}
    assert set(rows) == names
    assert done.images == len(names)
    good = {*NAMES, "n" * 251 + ".png"}
    assert {name: rows[name]["status"] for name in good} == dict.fromkeys(good, "denoised")
    assert rows["nowhere.png"]["failure_class"] == "not_found"
    assert {n: rows[f"broken/{n}"]["failure_class"] for n in BROKEN} == BROKEN
    assert "crashed" not in done.by_failure_class
    assert not any("processes died" in line for line in lines)
    assert before == {p: p.read_bytes() for p in before}
    now = {p for p in tmp_path.rglob("*") if p.is_file()} - set(before)
    assert all(output in path.parents for path in now)
