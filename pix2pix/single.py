"""One photograph from file to file, in this process and without Ray: its own walk is a job's."""

from pathlib import PurePosixPath
from typing import Any

from pix2pix import manifest, stages, storage
from pix2pix.prometheus import Watch
from pix2pix.stages import Row, Way

_SAME = {"jpeg": "jpg", "jpe": "jpg", "jfif": "jpg", "tiff": "tif", "heif": "heic"}


def is_one(source_url: str, target_url: str) -> bool:
    """Whether a single photograph is meant: a file whose name ends as an image's.

    Raises:
        FileNotFoundError: both names are those of images, and there is no such file.
        ValueError: the target isn't named as an image of the same format: a result keeps it.
    """
    if not manifest.is_image(source_url):
        return False
    both = manifest.is_image(target_url)
    try:
        storage.entry(source_url)
    except IsADirectoryError:
        return False
    except FileNotFoundError:
        if both:
            raise
        return False
    if _suffix(source_url) != _suffix(target_url):
        raise ValueError(
            f"output={target_url} must end in .{_suffix(source_url)} as {source_url} does: an "
            "image keeps its format; or give the folder that holds images and a folder to fill"
        )
    return True


def _suffix(url: str) -> str:
    suffix = PurePosixPath(url).suffix.lower().removeprefix(".")
    return _SAME.get(suffix, suffix)


def denoised(
    source_url: str, target_url: str, way: Way, *, gpu: bool = False, write: bool = True
) -> Row:
    """Denoises a photograph as a bulk job would, and writes what came out: never over anything.

    Args:
        source_url: A file.
        target_url: A new file; where the photograph is left as it is, a copy.
        way: How to denoise.
        gpu: Whether to use a GPU.
        write: False only tells what would be.

    Returns:
        What a status row would say of it, with `uri` and `output_uri` (None: nothing written).

    Raises:
        FileExistsError: there is something at the target.
        FileNotFoundError: no photograph or checkpoint there.
    """
    if storage.exists(target_url):
        raise FileExistsError(
            f"output={target_url} is there already, and nothing is ever written over; give another "
            "name, or remove it first"
        )
    row: dict[str, Any] = {"uri": source_url, "output_uri": None}
    data = storage.read(source_url)
    process = stages.Denoise("", way, None, gpu, 0)
    try:
        name, watch = source_url.rpartition("/")[2], Watch()
        encoded, about = process.result(data, name, False, watch)
    except stages.BAD_IMAGE as error:
        message = f"{error}" or type(error).__name__
        return row | {"status": "failed", "message": message}
    if write:
        if not storage.create(target_url, encoded):
            raise FileExistsError(f"output={target_url} has come meanwhile; nothing was written")
        row["output_uri"] = target_url
    return row | about


def line(row: Row) -> str:
    """A sentence for people on what `denoised` did."""
    message = row["message"] if row.get("message") else ""
    if row["status"] == "failed":
        return f"{row['uri']}: failed: {message}"
    before, after = row["noise_sigma_before"], row["noise_sigma_after"]
    what = {
        "denoised": f"denoised, noise {before:.2f} -> {after:.2f} levels of 255, no harm found",
        "skipped_clean": f"left as it is, with noise {before:.2f}: clean already",
        "kept_original": f"left as it is, with noise {before:.2f}: kept from harm",
    }[row["status"]]
    told = [what, *([message] if message else [])]
    if "psnr_db" in row:
        told.append(f"PSNR {row['psnr_db']:.2f} dB, SSIM {row['ssim']:.4f}")
    told.append(row["output_uri"] or "nothing was written")
    return f"{row['uri']}: " + "; ".join(told)
