import hashlib
import json
from pathlib import Path

import h5py
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


def _random(place: Path) -> Path:
    """A checkpoint of random weights, none of them a number of half precision."""
    folder = _folder(place, 0)
    model = networks.generator(SMALL)
    for seed, variable in enumerate(model.weights):
        variable.assign(np.random.default_rng(seed).normal(0, 0.3, variable.shape))
    model.save_weights(folder / checkpoints.WEIGHTS)
    card = checkpoints.card(folder, {"step": 7, "psnr_db": 30.0})
    (folder / checkpoints.CARD).write_text(json.dumps(card))
    return folder


def test_what_is_exported_are_the_weights_rounded_to_half_precision(tmp_path: Path) -> None:
    before = _random(tmp_path / "a")
    target = tmp_path / "shipped"
    checkpoints.exported(str(before), str(target))
    assert sorted(path.name for path in target.iterdir()) == [
        *("card.json", "generator.weights.h5", "settings.json")
    ]
    whole = denoiser.loaded(str(before)).generator.weights
    half = denoiser.loaded(str(target)).generator.weights
    for one, other in zip(whole, half, strict=True):
        assert other.dtype == "float32"
        rounded = np.asarray(one).astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(np.asarray(other), rounded)
    _, sizes = zip(*_datasets(target / checkpoints.WEIGHTS), strict=True)
    assert sum(sizes) == 2 * sum(int(np.prod(variable.shape)) for variable in whole)


def _datasets(path: Path) -> list[tuple[str, int]]:
    """Type and bytes of all that an HDF5 file holds."""
    found: list[tuple[str, int]] = []

    def note(_: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            found.append((str(item.dtype), item.nbytes))

    with h5py.File(path) as file:
        file.visititems(note)
    return found


def test_the_card_of_what_is_exported_names_both_weights(tmp_path: Path) -> None:
    before = _random(tmp_path / "a")
    told = checkpoints.exported(
        str(before), str(tmp_path / "b"), lambda folder: {"psnr_db": float(len(folder) > 0)}
    )
    card = json.loads((tmp_path / "b/card.json").read_text())
    assert card == told
    assert (card["step"], card["psnr_db"], card["weights_type"]) == (7, 1.0, "float16")
    sums = {
        name: hashlib.sha256((tmp_path / name / checkpoints.WEIGHTS).read_bytes()).hexdigest()
        for name in "ab"
    }
    assert card["weights_sha256"] == sums["b"]
    assert card["trained_weights_sha256"] == sums["a"]


def test_the_same_checkpoint_is_exported_to_the_same_bytes(tmp_path: Path) -> None:
    before = str(_random(tmp_path / "a"))
    cards = [checkpoints.exported(before, str(tmp_path / name)) for name in "bc"]
    assert cards[0] == cards[1]


def test_weights_are_averaged_and_all_are_named(tmp_path: Path) -> None:
    first, second = str(_folder(tmp_path / "a", 10)), str(_folder(tmp_path / "b", 40))
    third, target = str(_folder(tmp_path / "c", 70)), str(tmp_path / "mean")
    with pytest.raises(ValueError, match="give --pairs"):
        checkpoints.exported(first, target, averaged_with=[second])
    told = checkpoints.exported(first, target, lambda _: {"psnr_db": 1.0}, [second, third])
    assert _brightened(target) == 40
    sums = [checkpoints.card_of(each)["weights_sha256"] for each in (first, second, third)]
    assert told["trained_weights_sha256"] == sums[0]
    assert [each["weights_sha256"] for each in told["averaged_with"]] == sums[1:]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"top_width": 8}, r"widths \(8, .*, not \("), ({"first_blocks": 0}, r"blocks_down \(0,")],
)
def test_other_networks_are_not_averaged(
    change: dict[str, int], words: str, tmp_path: Path
) -> None:
    first, second = _folder(tmp_path / "a", 10), _folder(tmp_path / "b", 40)
    told = json.loads((second / "settings.json").read_text()) | change
    (second / "settings.json").write_text(json.dumps(told))
    with pytest.raises(ValueError, match=f"{words}.*; only weights of the same"):
        checkpoints.exported(str(first), str(tmp_path / "c"), lambda _: {}, [str(second)])
    assert not (tmp_path / "c").exists()


def test_weights_beyond_half_precision_and_full_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="float16 ends at 65504"):
        checkpoints.exported(str(_folder(tmp_path / "a", 1e7)), str(tmp_path / "b"))
    assert not (tmp_path / "b").exists()
    with pytest.raises(FileExistsError, match="holds a checkpoint already"):
        checkpoints.exported(str(_folder(tmp_path / "c", 1)), str(tmp_path / "a"))


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's folder of weights, with a checkpoint `best` that adds 30."""
    folder = tmp_path / "weights"
    checkpoints.exported(str(_folder(tmp_path / "trained", 30)), str(folder / "best"))
    monkeypatch.setattr(checkpoints, "WEIGHTS_FOLDER", folder)
    return folder


def test_the_name_of_what_ships_means_it_and_a_folder_needs_its_path(
    shipped: Path, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(run).rename(shipped.parent / "best")
    monkeypatch.chdir(shipped.parent)
    assert (_brightened("best"), _brightened("./best")) == (30, 10)
    name, sha256 = checkpoints.identified("best")
    assert name == "best"  # not where it lies on this machine
    assert sha256 == checkpoints.card_of(str(shipped / "best"))["weights_sha256"]


def test_other_weights_than_the_job_began_with_are_refused(shipped: Path, run: str) -> None:
    _, sha256 = checkpoints.identified(run)
    with pytest.raises(ValueError, match="the job began with"):
        denoiser.loaded("best", "float32", sha256)


def test_weights_that_do_not_ship_are_refused_with_a_remedy(shipped: Path) -> None:
    told = r"no checkpoint fast ships .*\(best does\).* --checkpoint RUN; .* is \./fast"
    with pytest.raises(FileNotFoundError, match=told):
        checkpoints.identified("fast")


def test_what_ships_is_whole_and_at_most_12_megabytes(tmp_path: Path) -> None:
    files = [path for path in checkpoints.WEIGHTS_FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12e6
    for name in {path.parent.name for path in files}:
        assert name in checkpoints.SHIPPED
        checkpoints.fetched(name, str(tmp_path))
        types, _ = zip(*_datasets(tmp_path / checkpoints.WEIGHTS), strict=True)
        assert set(types) == {"float16"}
