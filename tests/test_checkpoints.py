import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from pix2pix import checkpoints, denoiser, networks, settings, storage
from pix2pix.settings import Settings

SMALL = Settings(width=4, levels=2, crop_pixels=32, precision="float32")


def _folder(place: Path, value: float) -> Path:
    """A checkpoint in which the generator adds `value` to every channel."""
    keras.config.set_dtype_policy("float32")
    model = networks.generator(SMALL)
    model.get_layer("noise").bias.assign([-value / 127.5] * 3)
    (place / "state").mkdir(parents=True)
    model.save_weights(place / checkpoints.WEIGHTS)
    (place / checkpoints.SETTINGS).write_text(settings.to_json(SMALL))
    (place / "state/progress.json").write_text("{}")
    card = checkpoints.card(place, {"step": 1})
    (place / checkpoints.CARD).write_text(json.dumps(card))
    return place


@pytest.fixture
def run(tmp_path: Path) -> str:
    url = str(tmp_path / "run")
    checkpoints.save(url, _folder(tmp_path / "a", 10), step=5, best=True)
    checkpoints.save(url, _folder(tmp_path / "b", 20), step=10, best=False)
    return url


def _brightened(url: str) -> int:
    """How much the checkpoint adds to a grey of 100."""
    return int(denoiser.loaded(url).denoised(np.full((8, 8, 3), 100, np.uint8))[4, 4, 0]) - 100


def test_a_run_means_its_best_checkpoint(run: str) -> None:
    assert _brightened(run) == 10
    assert _brightened(f"{run}/best") == 10
    assert _brightened(f"{run}/latest") == 20
    assert _brightened(checkpoints.resolved(f"{run}/latest")) == 20


def test_a_run_may_be_called_best(run: str, tmp_path: Path) -> None:
    Path(run).rename(tmp_path / "best")
    assert _brightened(str(tmp_path / "best")) == 10


def test_only_the_latest_state_and_what_was_once_best_is_kept(run: str, tmp_path: Path) -> None:
    once_best = checkpoints.resolved(run)
    checkpoints.save(run, _folder(tmp_path / "c", 30), step=15, best=True)
    checkpoints.save(run, _folder(tmp_path / "d", 40), step=20, best=False)
    kept = sorted(path.name.split("-")[1] for path in Path(run, "checkpoints").iterdir())
    assert kept == ["00000005", "00000015", "00000020"]  # 10 was never the best
    states = [path.parent.name.split("-")[1] for path in Path(run).glob("checkpoints/*/state")]
    assert states == ["00000020"]
    assert (_brightened(run), _brightened(once_best)) == (30, 10)


def test_half_a_checkpoint_is_not_seen(run: str) -> None:
    storage.write(f"{run}/checkpoints/step-00000099/card.json", b"{}")  # killed while writing
    assert _brightened(f"{run}/latest") == 20


def test_changed_weights_are_refused(run: str, tmp_path: Path) -> None:
    path = storage.local_path(checkpoints.resolved(run)) / checkpoints.WEIGHTS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"SHA-256 .* its card says"):
        checkpoints.fetched(run, str(tmp_path))


def test_a_folder_without_checkpoint_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"card.json, or a run .*pix2pix train PAIRS RUN"):
        checkpoints.resolved(str(tmp_path / "nothing"))


def test_a_new_run_has_no_state(tmp_path: Path) -> None:
    assert checkpoints.state(str(tmp_path / "run"), str(tmp_path)) is None


def test_the_state_comes_from_the_latest_checkpoint(run: str, tmp_path: Path) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    card = checkpoints.state(run, str(folder))
    assert card is not None
    assert card["url"].rpartition("/")[2].startswith("step-00000010-")
    assert (folder / "state/progress.json").read_text() == "{}"


def test_the_card_names_versions_and_checksum(run: str) -> None:
    url, sha256 = checkpoints.identified(run)
    card = json.loads(storage.read(f"{url}/card.json"))
    assert card["weights_sha256"] == sha256
    assert card["versions"]["keras"] == keras.__version__
    assert card["versions"]["tensorflow"] == tf.__version__
