"""How far a bulk job is and how it ended: `summary.json`, and the same for people."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from pix2pix import status, storage
from pix2pix.progress import Progress

FILE = "summary.json"


@dataclass(frozen=True)
class Summary:
    """How a job ended; the counts are of the archive as it is now, whenever an image was done."""

    state: str
    output_url: str
    images: int
    left_out: int
    done_before: int
    done_now: int
    left_archive: int  # rows of images that are in the archive no more
    by_status: dict[str, int]
    by_failure_class: dict[str, int]
    by_checkpoint: dict[str, int]  # how many rows are of which weights, by their SHA-256
    seconds: float
    images_per_second: float
    megapixels_per_second: float
    means: dict[str, float | None]
    checkpoint_url: str
    checkpoint_sha256: str
    over_budget: bool

    @property
    def failed(self) -> int:
        """Images that have no denoised counterpart."""
        return self.by_status.get("failed", 0)


def finished(
    output_url: str, checkpoint: tuple[str, str], images: int, left_out: int, progress: Progress,
    acceptable: Callable[[int], float],
) -> Summary:  # fmt: skip
    """The summary of a job that is done, from its status table.

    Args:
        output_url: The output.
        checkpoint: URL and SHA-256 of what denoised.
        images: How many the archive has.
        left_out: How many other files it has.
        progress: What the job has done itself.
        acceptable: How many failures are acceptable out of so many images; see `budget`.

    Raises:
        RuntimeError: an image has no row.
    """
    tallies = status.tallies(output_url)
    if tallies.without_row:
        raise RuntimeError(
            f"{tallies.without_row} of {images} images have no status row: the job isn't "
            "whole; run the same command again, with an OUTPUT that all nodes share"
        )
    now = so_far(progress)
    return Summary(
        state="finished",
        output_url=storage.absolute(output_url),
        images=images,
        left_out=left_out,
        done_before=images - progress.total,
        left_archive=tallies.left_archive,
        by_status=tallies.by_status,
        by_failure_class=tallies.by_failure_class,
        by_checkpoint=tallies.by_checkpoint,
        means=tallies.means,
        checkpoint_url=checkpoint[0],
        checkpoint_sha256=checkpoint[1],
        over_budget=tallies.by_status.get("failed", 0) > acceptable(images),
        **{name: now[name] for name in (
            "done_now", "seconds", "images_per_second", "megapixels_per_second"
        )},
    )  # fmt: skip


def so_far(progress: Progress) -> dict[str, Any]:
    """The summary of a job that goes on: of what it has done itself."""
    return {
        "state": "running",
        "updated_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "to_do": progress.total,
        "listing": progress.listing,
        "done_now": progress.done,
        "by_status": dict(progress.by_status),
        "by_failure_class": dict(progress.by_failure_class),
        "seconds": round(progress.seconds, 3),
        "images_per_second": round(progress.done / progress.seconds, 3),
        "megapixels_per_second": round(progress.megapixels / progress.seconds, 3),
    }


def write(output_url: str, summary: Summary | dict[str, Any]) -> None:
    """Puts the summary into the output.

    Raises:
        OSError: it could not be written.
    """
    values = asdict(summary) if isinstance(summary, Summary) else summary
    storage.write(storage.join(output_url, FILE), (json.dumps(values, indent=1) + "\n").encode())


def budget(max_failed: str) -> Callable[[int], float]:
    """How many failures are acceptable out of so many images.

    Args:
        max_failed: A number like "12", or a share like "1%".

    Raises:
        ValueError: neither of them.
    """
    number, share = max_failed.removesuffix("%"), max_failed.endswith("%")
    try:
        value = float(number)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf") or (share and value > 100):
        raise ValueError(f"max_failed={max_failed!r} must be a number or a share: 12 or 1%")
    return lambda images: images * value / 100 if share else value


def lines(done: Summary) -> list[str]:
    """The summary for people."""
    states = ", ".join(f"{count} {name}" for name, count in sorted(done.by_status.items()))
    text = [
        f"{done.images} images: {states}; {done.done_now} of them now, in {done.seconds:.1f} s, "
        f"{done.images_per_second:.2f} images/s, {done.megapixels_per_second:.2f} MP/s"
    ]
    if done.left_out:
        text.append(
            f"{done.left_out} other files of the archive left out: no images by their names"
        )
    if done.by_failure_class:
        classes = ", ".join(f"{n} {name}" for name, n in sorted(done.by_failure_class.items()))
        text.append(f"failures: {classes}; see the status table")
    means = done.means
    if means["noise_sigma_before"] is not None:
        text.append(
            f"noise level (sigma of 255): {means['noise_sigma_before']:.2f} before, "
            f"{means['noise_sigma_after']:.2f} after"
        )
    if means["psnr_db"] is not None:
        text.append(f"against the reference: {means['psnr_db']:.2f} dB, SSIM {means['ssim']:.4f}")
    text.append(done.output_url)
    return text
