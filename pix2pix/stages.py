"""The process that denoises: each image from storage to storage in one thread, and its status row.

Several threads share a process and its generator, so that it has work while others wait for storage
or for a codec, and no pixel travels between processes. What goes wrong with one image becomes the
failure class of its row.
"""

import errno
import hashlib
import os
import platform
import struct
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from pix2pix import faults, harm, images, metrics, prometheus, status, storage
from pix2pix.ledger import DEATHS
from pix2pix.prometheus import Watch
from pix2pix.settings import PRECISIONS
from pix2pix.sharing import Room, stand_back

IMAGES = "images"  # the folder of the denoised images in an output
THREADS = 6  # of a process: one waits for the generator, the others for storage or a codec
MEGAPIXELS_IN_WORK = 100.0  # of one process; an image that is larger is in work alone
BYTES_IN_WORK = 500e6  # of files, likewise
# What one image may raise on its way, in a codec, the generator or a kind of storage: its row says
# so, and the job goes on. What is about the whole output is raised by `_written`, outside of it.
BAD_IMAGE = (
    *(ValueError, MemoryError, ArithmeticError, OSError, RuntimeError, LookupError, ImportError),
    struct.error,
)
FINISHED = pa.schema([("rows", pa.list_(pa.struct(status.SCHEMA)))])
# What the system says of a name that can't be in the output: its image fails, not the job.
NO_SUCH_NAME = frozenset(
    {errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EILSEQ, errno.EINVAL}
)

Row = dict[str, Any]


@dataclass(frozen=True)
class Way:
    """How a job denoises.

    Attributes:
        checkpoint_url: What denoises.
        sha256: The checksum of its weights, for the rows.
        strength: Share of the noise to take away, 0 to 1.
        quality: Of lossy formats, 1 to 100; None: as the source.
        clean_sigma: Noise level, in levels of 255, up to which an image is passed through. Where
            it isn't 0, one is too of which less than a level would be taken.
        precision: See `denoiser.dtype_policy`.
        reference_url: A folder of clean images under the same relative paths, or None.
        embed: Whether the row of an image also holds the file that is in the output.

    Raises:
        ValueError: a number is out of its range.
    """

    checkpoint_url: str
    sha256: str
    strength: float = 1.0
    quality: int | None = None
    clean_sigma: float = harm.CLEAN_SIGMA
    precision: str = "auto"
    reference_url: str | None = None
    embed: bool = False

    def __post_init__(self) -> None:
        """Refuses what makes no sense."""
        if not 0 <= self.strength <= 1:
            raise ValueError(f"strength={self.strength} must be between 0 (nothing) and 1 (all)")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f"quality={self.quality} must be between 1 and 100")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision={self.precision!r} must be one of {', '.join(PRECISIONS)}")
        if not self.clean_sigma >= 0:
            raise ValueError(f"clean_sigma={self.clean_sigma} must be 0 or more levels of 255")

    @property
    def mark(self) -> str:
        """What a denoised file says in its XMP."""
        return f"weights {self.sha256[:16]}, strength {self.strength:g}"


class Denoise:
    """Chunks of images -> `FINISHED`: one process with the generator; many threads call it.

    Args:
        output_url: The output of the job.
        way: How to denoise.
        ledger: The job's ledger; None without job and Ray: for `result` alone, on all cores.
        gpu: Whether this process has a GPU; those of others must not be touched.
        threads: Cores that this process may use; TensorFlow would take all of the machine's.
    """

    def __init__(
        self, output_url: str, way: Way, ledger: Any, gpu: bool, threads: int  # noqa: ANN401 - Ray's
    ) -> None:  # fmt: skip
        import tensorflow as tf

        from pix2pix import denoiser

        if ledger is not None:
            import ray

            ray.get(ledger.start.remote())
            tf.config.threading.set_intra_op_parallelism_threads(threads)
        if not gpu:  # Ray hides GPUs only from those who ask for some
            tf.config.set_visible_devices([], "GPU")
        self.output_url, self.way, self.ledger = output_url, way, ledger
        self.denoiser = denoiser.loaded(way.checkpoint_url, way.precision, way.sha256)
        self.rooms = Room(BYTES_IN_WORK), Room(MEGAPIXELS_IN_WORK)
        self.meter = None if ledger is None else prometheus.Meter()
        if ledger is not None:
            self.niceness = os.getpriority(os.PRIO_PROCESS, 0)
            # the first picture prepares the generator; where it fails, rows of images will say so
            with suppress(MemoryError, ArithmeticError):
                self.denoiser.denoised(np.zeros((256, 256, 3), np.uint8))
            with suppress(OSError, ImportError):  # who reads or writes will be told
                storage.connect(output_url)
            for thread in threading.enumerate():
                if thread.name == storage.TRANSFERS and thread.native_id:
                    stand_back(self.niceness, thread.native_id)

    def __call__(self, table: pa.Table) -> pa.Table:
        """The rows of the images of one chunk, which is a table of one row."""
        import ray

        stand_back(self.niceness)
        chunk, rows = table["chunk"][0].as_py(), table["images"][0].as_py()
        deaths = ray.get(self.ledger.begin.remote(chunk))
        finished = [self._alone(row) if deaths else self._row(row, *self.rooms) for row in rows]
        self.ledger.end.remote(chunk)
        return pa.table([pa.array([finished], FINISHED.field("rows").type)], schema=FINISHED)

    def tried(self, row: Row) -> tuple[int, float]:
        """How many bytes an image would give, 0 if it fails, and the seconds; writes nothing."""
        begun = time.monotonic()
        try:
            data = storage.read(row["uri"])
            encoded, _ = self.result(data, row["relative_path"], False, Watch())
        except BAD_IMAGE:
            encoded = b""
        return len(encoded), time.monotonic() - begun

    def _alone(self, row: Row) -> Row:
        """An image of a chunk whose process died: nothing else is in work, and deaths count."""
        import ray

        bytes_, megapixels = self.rooms
        with bytes_.taken(BYTES_IN_WORK), megapixels.taken(MEGAPIXELS_IN_WORK):
            deaths = ray.get(self.ledger.begin_alone.remote(row["id"]))
            if deaths >= DEATHS:
                message = f"{deaths} processes died with it in work: broken, or too much for memory"
                row = self._with_end(row | _failure("crashed", message), Watch())
            else:
                row = self._row(row, Room(1), Room(1), last_try=deaths == DEATHS - 1)
            ray.get(self.ledger.end_alone.remote(row["id"]))
        return row

    def _row(self, row: Row, bytes_: Room, megapixels: Room, last_try: bool = False) -> Row:
        """The whole way of one image: the row of what is in the output now, or of its failure."""
        watch = Watch()
        if row["size_bytes"] > images.LARGEST_BYTES:
            message = (
                f"{row['size_bytes']} bytes are more than LARGEST_BYTES={images.LARGEST_BYTES}"
            )
            return self._with_end(row | _failure("too_large", message), watch)
        with bytes_.taken(row["size_bytes"]):
            watch.lap("wait")
            return self._with_end(self._fetched(row, megapixels, last_try, watch), watch)

    def _fetched(self, row: Row, megapixels: Room, last_try: bool, watch: Watch) -> Row:
        try:
            data = storage.read(row["uri"])
        except BAD_IMAGE as error:  # what has no class of its own can't be found by retrying
            of_storage = faults.failure_class(error) or "not_found"
            kind = of_storage if isinstance(error, OSError) else _class_of(error)
            return row | _failure(kind, str(error)) | {"seconds_fetch": watch.lap("read")}
        row["seconds_fetch"] = watch.lap("read")
        fetched = watch.at
        try:
            url = storage.join(self.output_url, IMAGES, row["relative_path"])
            with megapixels.taken(images.pixels_promised(data) / 1e6):
                watch.lap("wait")
                encoded, about = self.result(data, row["relative_path"], last_try, watch)
        except BAD_IMAGE as error:
            encoded, about = b"", _failure(_class_of(error), f"{error}" or type(error).__name__)
            watch.lap("failed")
        row |= about | {"seconds_denoise": watch.at - fetched}
        if encoded:
            row |= _written(url, encoded)
            row["seconds_write"] = watch.lap("write")
            if self.way.embed and row["status"] != "failed":
                row |= _embedded(encoded, row.get("message"))
        return row

    def result(
        self, data: bytes, relative_path: str, last_try: bool, watch: Watch
    ) -> tuple[bytes, Row]:
        """The bytes to write and what the row says of them: denoised, or the original's own."""
        photograph = images.decode(data)
        watch.lap("decode")
        before = images.eight_bit(photograph.pixels)
        sigma = metrics.noise_sigma(before)
        about: Row = {
            "format": photograph.format,
            "width": photograph.width,
            "height": photograph.height,
            "channels": photograph.channels,
            "bit_depth": photograph.bit_depth,
            "noise_sigma_before": sigma,
            "sharpness_before": metrics.sharpness(before),
        }
        watch.lap("measure")
        encoded, seen = data, before
        if self.way.strength == 0:
            about |= {"status": "kept_original", "message": "strength 0"}
        elif photograph.is_denoised:
            about |= {"status": "skipped_clean", "message": "it says that it is denoised already"}
        elif harm.is_clean(before, sigma, self.way.clean_sigma):
            about |= {"status": "skipped_clean"}
        else:
            result, shown, more = self._denoised(photograph, before, sigma, last_try, watch)
            about |= more
            if result:
                encoded, seen = result, shown
        about |= self._measured(before, seen, about, relative_path)
        watch.lap("measure")
        return encoded, about

    def _denoised(
        self, photograph: images.Photograph, before: np.ndarray, sigma: float, last_try: bool,
        watch: Watch,
    ) -> tuple[bytes, np.ndarray, Row]:  # fmt: skip
        """The denoised file and what is seen of it, no byte if the original is better kept."""
        tiles = self.denoiser.tile_pixels // 4 if last_try else None
        spares = self.way.clean_sigma > 0
        pixels, note, energy = self.denoiser.result(
            photograph.pixels, self.way.strength, tiles, spares
        )
        watch.lap("denoise")
        if spares and harm.takes_little(energy):
            message = (
                f"{float(energy.mean()) ** 0.5:.2g} levels would be taken: nobody would see it"
            )
            return b"", before, {"status": "skipped_clean", "message": message}
        after = images.eight_bit(pixels)
        encoded = images.encode(photograph, pixels, self.way.quality, self.way.mark)
        if photograph.format not in ("PNG", "TIFF"):
            after = images.decode_rgb(encoded)  # as it will be seen: after its quantisation
        watch.lap("encode")
        verdict = harm.verdict(before, after, sigma)
        if not verdict.accepted:
            return b"", before, {"status": "kept_original", "message": verdict.message}
        return encoded, after, {"status": "denoised", "message": note}

    def _measured(
        self, before: np.ndarray, seen: np.ndarray, about: Row, relative_path: str
    ) -> Row:
        """The figures of what is in the output; of an original these are the same as before."""
        same = seen is before
        return {
            "noise_sigma_after": about["noise_sigma_before"] if same else metrics.noise_sigma(seen),
            "sharpness_after": about["sharpness_before"] if same else metrics.sharpness(seen),
            "clipped_fraction": metrics.clipped_fraction(seen),
            "mean_shift": 0.0 if same else metrics.mean_shift(before, seen),
        } | self._scores(seen, relative_path, about.get("message"))

    def _scores(self, seen: np.ndarray, relative_path: str, message: str | None) -> Row:
        """PSNR and SSIM; a reference that isn't there, or fits not, costs them, not the image."""
        if self.way.reference_url is None:
            return {}
        try:
            clean = images.decode_rgb(
                storage.read(storage.join(self.way.reference_url, relative_path))
            )
            return {"psnr_db": metrics.psnr_db(clean, seen), "ssim": metrics.ssim(clean, seen)}
        except (OSError, ValueError) as error:
            return {"message": "; ".join(filter(None, [message, f"no scores: {error}"]))}

    def _with_end(self, row: Row, watch: Watch) -> Row:
        if self.meter is not None:
            self.meter.add(row, watch)
        return row | {
            "checkpoint_sha256": self.way.sha256,
            "strength": self.way.strength,
            "node": platform.node(),
            "finished_at": datetime.now(UTC),  # the driver sets its own clock's when it has the row
            "schema_version": status.SCHEMA_VERSION,
        }


def _failure(failure_class: str, message: str) -> Row:
    return {"status": "failed", "failure_class": failure_class, "message": message}


def _class_of(error: Exception) -> str:
    classes = (
        (images.TooLarge, "too_large"),
        (images.Undecodable, "undecodable"),
        (MemoryError, "out_of_memory"),
        (ValueError, "unsupported"),  # also a path like a//b or ../c: no such place in the output
        (ImportError, "unsupported"),  # a kind of storage that isn't installed
        ((struct.error, LookupError), "undecodable"),
    )
    return next((name for kind, name in classes if isinstance(error, kind)), "crashed")


def _written(url: str, encoded: bytes) -> Row:
    """Where the image is now. What is about the whole output stops the job: no space, no right."""
    try:
        storage.write(url, encoded)
    except ValueError as error:  # a name that no system takes, with a NUL for instance
        return _failure("unsupported", f"not written: {error}")
    except OSError as error:
        failure_class = faults.failure_class(error)
        if failure_class != "transient_io" and error.errno not in NO_SUCH_NAME:
            raise
        return _failure(failure_class or "unsupported", f"not written: {error}")
    return {"output_uri": url, "output_sha256": hashlib.sha256(encoded).hexdigest()}


def _embedded(encoded: bytes, message: str | None) -> Row:
    """The file for its row; one that is too large for a table is in the output's folder alone."""
    if len(encoded) <= status.LARGEST_EMBEDDED:
        return {"denoised": encoded}
    why = f"not embedded: more than LARGEST_EMBEDDED={status.LARGEST_EMBEDDED} bytes"
    return {"message": "; ".join(filter(None, [message, why]))}
