"""Checkpoints: folders that can denoise, written whole, read only if they are what they claim.

RUN/checkpoints/step-00001234-89abcdef/
    settings.json  generator.weights.h5  card.json      what denoises; can be copied anywhere
    state/                                              what training needs to go on
RUN/latest, RUN/best    each names a checkpoint of the run; replaced in one stroke once it is whole
RUN/settings.json  history.parquet  curves.png  tensorboard/  lease/
pix2pix/weights/best/ , .../fast/    what ships: the same three files, weights in half precision
"""

import hashlib
import json
import os
import platform
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pix2pix
from pix2pix import settings, storage

SETTINGS, WEIGHTS, CARD = "settings.json", "generator.weights.h5", "card.json"
STATE = "state"
BEST, LATEST, FOLDER = "best", "latest", "checkpoints"
HISTORY, CURVES = "history.parquet", "curves.png"
SHIPPED = ("best", "fast")  # names that mean weights of this package, wherever it is installed
WEIGHTS_FOLDER = Path(__file__).resolve().parent / "weights"


def card(folder: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The card of a checkpoint whose weights lie in a local folder: facts, versions, checksum.

    Args:
        folder: Holds `generator.weights.h5`.
        facts: What is known of the training: step, epoch, scores, data fingerprint, seconds.
    """
    packages = ("tensorflow", "keras", "ray", "numpy")
    return {
        **facts,
        "weights_sha256": _sha256(folder / WEIGHTS),
        "git_commit": git_commit(),
        "versions": {"pix2pix": pix2pix.__version__, "python": platform.python_version()}
        | {name: version(name) for name in packages},
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def git_commit() -> str | None:
    """The commit of the source that runs, with "+" if it was changed since; None outside git."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)  # not that of a repository around ours
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):  # no git here, or an installed package
        return None


def save(run_url: str, folder: Path, step: int, best: bool) -> str:
    """Uploads a checkpoint, then lets the run's pointers name it.

    A reader never sees half a checkpoint: its folder is new, and the pointers are replaced after
    its last file is there. Then the one before loses its state, and goes if it was not the best.
    Who reads a checkpoint that was once the best is never left without it.

    Args:
        run_url: The run's folder.
        folder: Local folder that holds the checkpoint's files, `card.json` among them.
        step: Its training step, which names it.
        best: Whether its PSNR is the run's best so far.

    Returns:
        The checkpoint's URL.
    """
    before, best_before = named(run_url, LATEST), named(run_url, BEST)
    name = f"{FOLDER}/step-{step:08d}-{uuid.uuid4().hex[:8]}"
    storage.copy(str(folder), storage.join(run_url, name))
    for pointer in (BEST, LATEST) if best else (LATEST,):
        storage.write(storage.join(run_url, pointer), name.encode())
    if before and before == best_before:
        storage.remove_folder(storage.join(run_url, before, STATE))
    elif before:
        storage.remove_folder(storage.join(run_url, before))
    return storage.join(run_url, name)


def named(run_url: str, pointer: str) -> str | None:
    """What a run's pointer names, relative to the run; None where there is no such pointer."""
    url = storage.join(run_url, pointer)
    return storage.read(url).decode().strip() if storage.exists(url) else None


def resolved(url: str) -> str:
    """The checkpoint that a URL means: a checkpoint, a run (its best), `RUN/best`, `RUN/latest`.

    The bare words in `SHIPPED` mean the weights that ship; a folder of that name is ./best.

    Raises:
        FileNotFoundError: no checkpoint there.
    """
    if url in SHIPPED:
        return _shipped(url)
    url = storage.absolute(url)
    if storage.exists(storage.join(url, CARD)):
        return url
    parent, _, last = url.rpartition("/")
    name, run_url = named(url, BEST), url
    if name is None and last in (BEST, LATEST):
        name, run_url = named(parent, last), parent
    if name is None:
        raise FileNotFoundError(
            f"no checkpoint at {url}: it must be a folder with {CARD}, or a run with a finished "
            "epoch; train one with `pix2pix train PAIRS RUN` and give RUN"
        )
    return storage.join(run_url, name)


def _shipped(name: str) -> str:
    folder = WEIGHTS_FOLDER / name
    if not (folder / CARD).is_file():
        there = [each for each in SHIPPED if (WEIGHTS_FOLDER / each / CARD).is_file()]
        raise FileNotFoundError(
            f"no checkpoint {name} ships with this pix2pix ({' and '.join(there) or 'none'} does): "
            "train one with `pix2pix train PAIRS RUN` and give --checkpoint RUN; a folder of yours "
            f"that is called {name} is ./{name}"
        )
    return storage.absolute(str(folder))


def identified(url: str) -> tuple[str, str]:
    """The checkpoint that `url` means, and the SHA-256 of its weights by its card.

    Returns:
        A URL that means the same tomorrow; of what ships its name, since the package may lie
        elsewhere on another node. Give `fetched` both.

    Raises:
        FileNotFoundError: no checkpoint there.
    """
    there = resolved(url)
    return url if url in SHIPPED else there, card_of(there)["weights_sha256"]


def card_of(url: str) -> dict[str, Any]:
    """The card of the checkpoint that `url` means.

    Raises:
        FileNotFoundError: no checkpoint there.
    """
    return json.loads(storage.read(storage.join(resolved(url), CARD)))


def fetched(url: str, folder: str, weights_sha256: str | None = None) -> dict[str, Any]:
    """Brings what denoises (not the state) of a checkpoint into a local folder and checks it.

    Args:
        url: See `resolved`.
        folder: An existing local folder.
        weights_sha256: What the weights must be, as `identified` said elsewhere or before.

    Returns:
        The checkpoint's card, with `url`.

    Raises:
        FileNotFoundError: no checkpoint there, or a file of it is missing.
        ValueError: the weights aren't those of the card, or not those that are expected.
    """
    url = resolved(url)
    for name in (SETTINGS, WEIGHTS, CARD):
        Path(folder, name).write_bytes(storage.read(storage.join(url, name)))
    facts = json.loads(Path(folder, CARD).read_text())
    sha256 = _sha256(Path(folder, WEIGHTS))
    if sha256 != facts["weights_sha256"]:
        raise ValueError(
            f"{storage.join(url, WEIGHTS)} has SHA-256 {sha256}, its card says "
            f"{facts['weights_sha256']}: the file was changed or damaged; fetch it anew"
        )
    if weights_sha256 not in (None, sha256):
        raise ValueError(
            f"{url} has weights with SHA-256 {sha256}, the job began with {weights_sha256}: "
            "install the same pix2pix on all nodes, and leave a checkpoint as it is"
        )
    return {**facts, "url": url}


def exported(
    url: str, target_url: str, scored: Callable[[str], dict[str, Any]] | None = None,
    averaged_with: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Makes what can be shipped of a checkpoint: a new one in half the bytes, without state.

    Args:
        url: See `resolved`.
        target_url: Its folder, for instance pix2pix/weights/best.
        scored: (the new checkpoint's local folder) -> facts that replace those of its card, which
            were measured with the weights in full precision.
        averaged_with: Checkpoints of the same generator, most often of a run that began with this
            one: the mean of all their weights is taken. Needs `scored`.

    Returns:
        The new card.

    Source:
        The mean of weights that began alike: Wortsman et al., "Model soups", ICML 2022
        (https://arxiv.org/abs/2203.05482), the uniform soup.

    Raises:
        FileNotFoundError: no checkpoint there.
        FileExistsError: the target holds one already.
        ValueError: the weights aren't those of the card, or are too large for half precision; or
            those of other networks can't be averaged.
    """
    if averaged_with and scored is None:
        raise ValueError(
            "a mean of weights has scores of its own, which no card knows: give --pairs"
        )
    if storage.exists(storage.join(target_url, CARD)):
        raise FileExistsError(
            f"{target_url} holds a checkpoint already: remove it first, or give another folder"
        )
    with tempfile.TemporaryDirectory() as whole, tempfile.TemporaryDirectory() as half:
        facts = fetched(url, whole)
        del facts["url"]
        others = [_also_fetched(other, whole, number) for number, other in enumerate(averaged_with)]
        places = [Path(whole, WEIGHTS), *(path for path, _ in others)]
        _write_half(places, Path(half, WEIGHTS))
        facts |= {
            "weights_sha256": _sha256(Path(half, WEIGHTS)),
            "weights_type": "float16",
            "trained_weights_sha256": facts["weights_sha256"],
            "scores_with": "the weights as trained, before they were rounded to float16",
            **({"averaged_with": [card for _, card in others]} if others else {}),
        }
        Path(half, SETTINGS).write_bytes(Path(whole, SETTINGS).read_bytes())
        Path(half, CARD).write_text(json.dumps(facts, indent=1) + "\n")
        if scored:
            facts |= scored(half)
            Path(half, CARD).write_text(json.dumps(facts, indent=1) + "\n")
        for name in (WEIGHTS, SETTINGS, CARD):  # with its card it's there
            storage.write(storage.join(target_url, name), Path(half, name).read_bytes())
    return facts


def _also_fetched(url: str, beside: str, number: int) -> tuple[Path, dict[str, Any]]:
    """The weights of another checkpoint of the same generator, and what its card says of them.

    Raises:
        ValueError: it is another generator.
    """
    folder = Path(beside, f"other-{number}")
    folder.mkdir()
    card = fetched(url, str(folder))
    both = [settings.from_json(Path(place, SETTINGS).read_text()) for place in (beside, folder)]
    for name in ("generator", "widths", "blocks", "blocks_down", "bottom_blocks", "stride"):
        first, other = (getattr(each, name) for each in both)
        if first != other:
            raise ValueError(
                f"{url} is another generator: {name} {other}, not {first}; only weights of the "
                "same network can be averaged"
            )
    return folder / WEIGHTS, {
        name: card.get(name) for name in ("step", "seconds", "weights_sha256")
    }


def _write_half(sources: Sequence[Path], target: Path) -> None:
    """Writes the mean of HDF5 files of weights, float16 for float32; Keras reads it into float32.

    All hold the same names and shapes.
    """
    import h5py
    import numpy as np

    def copy(name: str, item: Any) -> None:  # noqa: ANN401 - h5py has no types
        if isinstance(item, h5py.Group):
            made = half.require_group(name)
        else:
            values = item[()]
            if values.dtype == np.float32:
                values = np.mean([file[name][()] for file in files], axis=0, dtype=np.float64)
                largest = float(np.abs(values).max(initial=0.0))
                if not largest <= float(np.finfo(np.float16).max):
                    raise ValueError(
                        f"{name} holds {largest:g}: float16 ends at 65504; ship float32"
                    )
                values = values.astype(np.float16)
            made = half.create_dataset(name, data=values)
        made.attrs.update(item.attrs)

    with ExitStack() as opened:
        files = [opened.enter_context(h5py.File(source)) for source in sources]
        half = opened.enter_context(h5py.File(target, "w"))
        half.attrs.update(files[0].attrs)
        files[0].visititems(copy)


def state(run_url: str, folder: str) -> dict[str, Any] | None:
    """Brings a run's latest checkpoint with its state into a local folder, to go on training.

    Returns:
        The card of that checkpoint, or None where the run has none yet.

    Raises:
        ValueError: the weights aren't those of the card.
    """
    name = named(run_url, LATEST)
    if name is None:
        return None
    url = storage.join(run_url, name)
    facts = fetched(url, folder)
    storage.copy(storage.join(url, STATE), os.path.join(folder, STATE))
    return facts


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
