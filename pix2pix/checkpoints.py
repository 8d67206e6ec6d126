"""Checkpoints: folders that can denoise, written whole, read only if they are what they claim.

RUN/checkpoints/step-00001234-89abcdef/
    settings.json  generator.weights.h5  card.json      what denoises; can be copied anywhere
    state/                                              what training needs to go on
RUN/latest, RUN/best    each names a checkpoint of the run; replaced in one stroke once it is whole
RUN/settings.json  history.parquet  curves.png  tensorboard/
"""

import hashlib
import json
import os
import platform
import subprocess
import uuid
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pix2pix
from pix2pix import storage

SETTINGS, WEIGHTS, CARD = "settings.json", "generator.weights.h5", "card.json"
STATE = "state"
BEST, LATEST, FOLDER = "best", "latest", "checkpoints"
HISTORY, CURVES = "history.parquet", "curves.png"


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

    Raises:
        FileNotFoundError: no checkpoint there.
    """
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


def identified(url: str) -> tuple[str, str]:
    """The URL of the checkpoint that `url` means, and the SHA-256 of its weights by its card.

    Raises:
        FileNotFoundError: no checkpoint there.
    """
    url = resolved(url)
    return url, card_of(url)["weights_sha256"]


def card_of(url: str) -> dict[str, Any]:
    """The card of the checkpoint that `url` means.

    Raises:
        FileNotFoundError: no checkpoint there.
    """
    return json.loads(storage.read(storage.join(resolved(url), CARD)))


def fetched(url: str, folder: str) -> dict[str, Any]:
    """Brings what denoises (not the state) of a checkpoint into a local folder and checks it.

    Args:
        url: See `resolved`.
        folder: An existing local folder.

    Returns:
        The checkpoint's card, with `url`.

    Raises:
        FileNotFoundError: no checkpoint there, or a file of it is missing.
        ValueError: the weights aren't those of the card.
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
    return {**facts, "url": url}


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
