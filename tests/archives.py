"""An archive and a job on it, for tests."""

import dataclasses
from pathlib import Path

from PIL import Image

from pix2pix import checkpoints, denoising
from pix2pix.stages import Way
from pix2pix.summary import Summary

SAMPLES = Path(__file__).parent.parent / "samples"


def filled(folder: Path) -> Path:
    """Eighteen good photographs in folders, two broken ones, and a stray file."""
    for place, path in enumerate(sorted((SAMPLES / "unseen/noisy").iterdir())[:9]):
        photograph = Image.open(path).convert("RGB").crop((0, 0, 60 + place, 48))
        for name, options in ((f"a {place}.png", {}), (f"b/c{place}.jpg", {"quality": 90})):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            photograph.save(folder / name, **options)
    whole = (folder / "a 0.png").read_bytes()
    (folder / "broken.png").write_bytes(whole[: len(whole) // 2])
    (folder / "b/empty.jpg").write_bytes(b"")
    (folder / "Thumbs.db").write_bytes(b"not an image")
    return folder


def denoised(
    archive: Path | str, output: Path | str, checkpoint: str, **options: object
) -> tuple[Summary, str]:
    lines: list[str] = []
    names = {field.name for field in dataclasses.fields(Way)}
    of_way = {name: options.pop(name) for name in names & set(options)}
    way = Way(*checkpoints.identified(checkpoint), **of_way)
    done = denoising.denoised(str(archive), str(output), way, show=lines.append, **options)
    return done, "\n".join(lines)
