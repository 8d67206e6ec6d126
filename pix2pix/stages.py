"""What happens to an image on the way through the cluster: fetched, denoised, written.

A stage takes and gives Arrow tables and never loses a row: what goes wrong with one image becomes
its failure class, and the image's row goes on through the other stages.
"""

import hashlib
import platform
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from pix2pix import faults, images, manifest, metrics, status, storage

IMAGES = "images"  # the folder of the denoised images in an output
FETCHES_AT_ONCE = 8  # per task; fetching waits more than it works

FETCHED = pa.schema(
    [
        *manifest.SCHEMA,
        ("attempt", pa.int32()),
        ("data", pa.large_binary()),
        ("reference", pa.large_binary()),
        ("failure_class", pa.string()),
        ("message", pa.string()),
        ("seconds_fetch", pa.float64()),
    ]
)
DENOISED = pa.schema(
    [field.with_nullable(True) for field in status.SCHEMA] + [("encoded", pa.large_binary())]
)
SHOWN = pa.schema(
    [
        ("relative_path", pa.string()),
        ("status", pa.string()),
        ("failure_class", pa.string()),
        ("message", pa.string()),
        ("megapixels", pa.float64()),
    ]
)

Row = dict[str, Any]


class Fetch:
    """Manifest rows -> `FETCHED`: the bytes of the images, several at once.

    Args:
        reference_url: A folder of clean images under the same relative paths, or None.
    """

    def __init__(self, reference_url: str | None) -> None:
        self.reference_url = reference_url

    def __call__(self, table: pa.Table) -> pa.Table:
        """Fetches every row of the table."""
        with ThreadPoolExecutor(FETCHES_AT_ONCE) as threads:
            return pa.Table.from_pylist(list(threads.map(self._row, table.to_pylist())), FETCHED)

    def _row(self, row: Row) -> Row:
        begun = time.monotonic()
        try:
            row["data"] = storage.read(row["uri"])
        except OSError as error:  # what has no class of its own can't be found by retrying
            row["failure_class"] = faults.failure_class(error) or "not_found"
            row["message"] = str(error)
        if self.reference_url:
            try:
                url = storage.join(self.reference_url, row["relative_path"])
                row["reference"] = storage.read(url)
            except (OSError, ValueError) as error:  # costs the scores, not the image
                row["message"] = row.get("message") or f"no reference: {error}"
        row["seconds_fetch"] = time.monotonic() - begun
        return row


class Denoise:
    """`FETCHED` -> `DENOISED`: one process with the generator loaded once.

    Args:
        checkpoint_url: What denoises.
        sha256: The checksum of its weights, for the rows.
        strength: Share of the noise to take away, 0 to 1.
        precision: See `denoiser.dtype_policy`.
        gpu: Whether this process has a GPU; those of others must not be touched.
        threads: Cores that this process may use; TensorFlow would take all of the machine's.
    """

    def __init__(
        self, checkpoint_url: str, sha256: str, strength: float, precision: str, gpu: bool,
        threads: int,
    ) -> None:  # fmt: skip
        import tensorflow as tf

        from pix2pix import denoiser

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        if not gpu:  # Ray hides GPUs only from those who ask for some
            tf.config.set_visible_devices([], "GPU")
        self.denoiser = denoiser.loaded(checkpoint_url, precision)
        self.sha256, self.strength = sha256, strength

    def __call__(self, table: pa.Table) -> pa.Table:
        """Denoises every row of the table that was fetched."""
        return pa.Table.from_pylist([self._row(row) for row in table.to_pylist()], DENOISED)

    def _row(self, row: Row) -> Row:
        begun = time.monotonic()
        kept = {name: value for name, value in row.items() if name in DENOISED.names}
        kept |= {"checkpoint_sha256": self.sha256, "strength": self.strength}
        if row["data"] is not None:
            try:
                kept |= self._denoised(row["data"], row["reference"])
            except (ValueError, MemoryError, ArithmeticError, OSError) as error:
                kept |= {"failure_class": _class_of(error), "message": str(error)}
        return kept | {"seconds_denoise": time.monotonic() - begun}

    def _denoised(self, data: bytes, reference: bytes | None) -> Row:
        import tensorflow as tf

        photograph = images.decode(data)
        before = photograph.pixels
        try:
            after = self.denoiser.denoised(before, self.strength)
        except tf.errors.ResourceExhaustedError as error:
            raise MemoryError(str(error)) from error
        except tf.errors.OpError as error:
            raise ArithmeticError(str(error)) from error
        encoded = images.encode(photograph, after)
        # a JPEG is measured as it will be seen: after its quantisation
        seen = images.decode(encoded).pixels if photograph.format == "JPEG" else after
        return _scores(reference, seen) | {
            "encoded": encoded,
            "format": photograph.format,
            "width": photograph.width,
            "height": photograph.height,
            "channels": photograph.channels,
            "bit_depth": photograph.bit_depth,
            "noise_sigma_before": metrics.noise_sigma(before),
            "noise_sigma_after": metrics.noise_sigma(seen),
            "sharpness_before": metrics.sharpness(before),
            "sharpness_after": metrics.sharpness(seen),
            "clipped_fraction": metrics.clipped_fraction(seen),
            "mean_shift": metrics.mean_shift(before, seen),
        }


def _scores(reference: bytes | None, seen: np.ndarray) -> Row:
    """PSNR and SSIM; a reference that is no image of this size costs them, not the image."""
    if reference is None:
        return {}
    try:
        clean = images.decode_rgb(reference)
        return {"psnr_db": metrics.psnr_db(clean, seen), "ssim": metrics.ssim(clean, seen)}
    except ValueError as error:
        return {"message": f"no scores: {error}"}


def _class_of(error: Exception) -> str:
    classes: dict[type, Literal["unsupported", "too_large", "undecodable", "out_of_memory"]] = {
        images.Unsupported: "unsupported",
        images.TooLarge: "too_large",
        images.Undecodable: "undecodable",
        MemoryError: "out_of_memory",
    }
    return classes.get(type(error), "crashed")


class Write:
    """`DENOISED` -> `SHOWN`: images into storage, and when all of them are there, their rows.

    What can't be written stops the job: it's about the output, not about an image.

    Args:
        output_url: The output of the job.
    """

    def __init__(self, output_url: str) -> None:
        self.output_url = output_url

    def __call__(self, table: pa.Table) -> pa.Table:
        """Writes every row of the table."""
        with ThreadPoolExecutor(FETCHES_AT_ONCE) as threads:
            rows = list(threads.map(self._row, table.to_pylist()))
        status.append(self.output_url, rows)
        for row in rows:
            row["megapixels"] = (row.get("width") or 0) * (row.get("height") or 0) / 1e6
        shown = [{name: row[name] for name in SHOWN.names} for row in rows]
        return pa.Table.from_pylist(shown, SHOWN)

    def _row(self, row: Row) -> Row:
        begun, encoded = time.monotonic(), row.pop("encoded")
        if encoded is not None:
            try:
                url = storage.join(self.output_url, IMAGES, row["relative_path"])
            except ValueError as error:  # a key like a//b or ../c: no such place in the output
                row |= {"failure_class": "unsupported", "message": str(error)}
            else:
                storage.write(url, encoded)
                sha256 = hashlib.sha256(encoded).hexdigest()
                row |= {"output_uri": url, "output_sha256": sha256}
        return row | {
            "status": "failed" if row["failure_class"] else "denoised",
            "seconds_write": time.monotonic() - begun,
            "node": platform.node(),
            "finished_at": datetime.now(UTC),
        }
