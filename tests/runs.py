"""A small training and what is in its run, for tests."""

from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pyarrow.parquet as pq

from pix2pix import checkpoints, storage, training
from pix2pix.gan import LOSSES
from pix2pix.settings import Settings

SAMPLES = Path(__file__).parent.parent / "samples"
# 22 training pairs in a batch of 22: an epoch is one visit of three patches, that is three steps
SETTINGS = Settings(
    width=4, levels=2, discriminator_width=4, crop_pixels=32, batch=22, patches_per_pair=3,
    epochs=1, decay_start=1.0, learning_rate=1e-3, precision="float32",
    warm_up_steps=0, clip_norm=1e-3, validation_scenes=("002",),
)  # fmt: skip


def changed(**changes: object) -> Settings:
    return Settings(**{**vars(SETTINGS), **changes})


def trained(run: Path | str, wanted: Settings, workers: int = 1) -> tuple[training.Trained, str]:
    lines: list[str] = []
    pairs_url = str(SAMPLES / "pairs")
    done = training.trained(pairs_url, str(run), wanted, workers, show=lines.append)
    return done, "\n".join(lines)


def weights(run: Path) -> dict[str, np.ndarray]:
    """All arrays of the networks, averages and both optimizers in the latest checkpoint."""
    folder = Path(storage.local_path(checkpoints.resolved(f"{run}/latest")))
    arrays = {}
    for path in sorted(folder.rglob("*.weights.h5")):
        with h5py.File(path) as file:
            file.visititems(
                lambda name, item, path=path: (
                    arrays.__setitem__(f"{path.relative_to(folder)}/{name}", item[()])
                    if isinstance(item, h5py.Dataset)
                    else None
                )
            )
    with np.load(folder / "state/optimizers.npz") as file:
        arrays |= {f"optimizers/{name}": file[name] for name in file.files}
    return arrays


def losses(run: Path) -> np.ndarray:
    """The losses of each epoch, as the run's history has them: (epochs, 4)."""
    history = pq.read_table(run / "history.parquet")
    return np.array([history[name].to_pylist() for name in LOSSES]).T


def furthest(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> float:
    """The largest difference, relative to the norm of its array."""
    assert first.keys() == second.keys()
    return max(
        float(np.linalg.norm(first[name] - second[name]) / (np.linalg.norm(first[name]) + 1e-12))
        for name in first
        if "seed_generator" not in name
    )


def options(wanted: Settings) -> list[str]:
    """The options of the program for settings: those that differ from what is so by itself."""
    words, usual = [], Settings()
    for name in (item.name for item in fields(Settings)):
        value = getattr(wanted, name)
        for each in value if isinstance(value, tuple) else (value,):
            if value != getattr(usual, name):
                words += [f"--{name.replace('_', '-')}", str(each)]
    return words
