"""Photographs of any size through a generator: precision, tiles, memory. No Ray in it."""

import math
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from pix2pix import checkpoints, memory, networks, settings, texture, tiles
from pix2pix.settings import Settings

# of a tile: pixels, and bytes for its layers (3.1 megapixels of 32 channels in float32). Larger
# ones gain 1% at most, smaller ones overlap more. The same wherever there is so much memory, as
# seams depend on it
TILE_AREA, TILE_BYTES = 5_100_000, 2_400_000_000
# a photograph beyond so many pixels takes a gigabyte or two itself, and leaves less for its tiles
HUGE_PIXELS, HUGE_TILE_BYTES = 100_000_000, 800_000_000
OVERLAP_PIXELS = 64  # of neighbouring tiles, at least
STRIP_ROWS = 16  # rows that are rounded at once: they stay in the cache

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


def dtype_policy(precision: str) -> str:
    """The Keras dtype policy for a precision.

    Args:
        precision: `float32`, `bfloat16`, or `auto`: bfloat16 on processors with instructions for
            it (avx512_bf16, amx_bf16) and on GPUs of compute capability 8 and above, which halves
            the time; float32 elsewhere, where it would cost time.

    Returns:
        `float32` or `mixed_bfloat16` (float32 weights, bfloat16 layers, float32 output).
    """
    if precision == "auto":
        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            details = (tf.config.experimental.get_device_details(gpu) for gpu in gpus)
            fast = all(item.get("compute_capability", (0, 0)) >= (8, 0) for item in details)
        else:
            flags = Path("/proc/cpuinfo")
            words = set(flags.read_text().split()) if flags.exists() else set()
            fast = bool(words & {"avx512_bf16", "amx_bf16"})
        precision = "bfloat16" if fast else "float32"
    return "mixed_bfloat16" if precision == "bfloat16" else "float32"


class Result(NamedTuple):
    """What became of a photograph.

    Args:
        pixels: uint8 or uint16 (height, width, 3), as it came.
        note: What its row should say of it, such as "out of memory: tiles of 1024 pixels instead
            of 2048"; None where all went as planned.
        energy: float32 (rows, columns), what all the strength would take in each block of
            `texture.BLOCK` pixels, sparing nothing: its mean square, in levels of 255.
    """

    pixels: Pixels
    note: str | None
    energy: NDArray[np.float32]


class Denoiser:
    """A generator with its weights, ready for photographs of any size from many threads.

    Whatever else is in flight, a photograph's tiles go through alone, one after the other, so that
    its pixels depend on nothing but itself (as long as memory suffices: see `result`); those of
    several photographs take turns, and what a thread does between its turns goes on beside the
    generator.

    Args:
        generator: noisy -> denoised, float32 (batch, height, width, 3) in [-1, 1].
        made_with: The settings it was made with: they say what sizes it takes.
        tile_pixels: Tiles have at most the area of a square of this side; memory grows with it.
            None: `TILE_AREA`, or what fits into `TILE_BYTES`.

    Raises:
        ValueError: tiles too small to overlap.
    """

    def __init__(
        self, generator: keras.Model, made_with: Settings, tile_pixels: int | None = None
    ) -> None:
        # three quarters of it are seen on both sides of the fade: with random weights, the worst
        # case, no value then moves by more than 2/255; with 64 pixels 7% moved by more than 1/255
        self.overlap_pixels = max(OVERLAP_PIXELS, networks.context_pixels(made_with) * 3 // 2)
        if tile_pixels is not None and tile_pixels < 4 * OVERLAP_PIXELS:
            raise ValueError(
                f"tile_pixels={tile_pixels} must be at least {4 * OVERLAP_PIXELS}: neighbouring "
                f"tiles overlap by {OVERLAP_PIXELS}"
            )
        self.generator, self.made_with = generator, made_with
        self.smallest_tile_pixels = max(memory.SMALLEST_TILE_PIXELS, 4 * self.overlap_pixels)
        if made_with.generator == "unet":  # it was made for 256x256, and for nothing else
            self.smallest_tile_pixels = tile_pixels = made_with.pixel_multiple
        self.bytes_of_pixel = memory.bytes_of_pixel(made_with.widths, _value_bytes(generator))
        if tile_pixels is None:
            tile_pixels = math.isqrt(min(TILE_AREA, TILE_BYTES // self.bytes_of_pixel))
        self.tile_pixels = max(tile_pixels, self.smallest_tile_pixels)
        # the generator's own thread: it has the priority of the one that begins it, here and now,
        # and not that of those that wait for it (see `sharing.stand_back`)
        self._generating = ThreadPoolExecutor(1, "generator")
        self._generating.submit(int).result()
        self._on_cpu, self._largest = not tf.config.get_visible_devices("GPU"), 0  # pixels
        self._values = {dtype: _function(generator, dtype) for dtype in (tf.uint8, tf.uint16)}

    def denoised(self, pixels: Pixels, strength: float = 1.0) -> Pixels:
        """The photograph without its noise: the pixels of `result`."""
        return self.result(pixels, strength).pixels

    def result(
        self, pixels: Pixels, strength: float = 1.0, tile_pixels: int | None = None,
        spares: bool = False,
    ) -> Result:  # fmt: skip
        """The photograph without its noise, in smaller tiles where memory doesn't suffice.

        A photograph larger than a tile goes through in overlapping tiles that fade into each other
        (sides are mirrored at their ends, see `tiles.Plan`). Then a residual generator gives back
        what it took for noise and wasn't (see `texture`). Beside input and output, memory holds
        one tile and a strip as wide as the photograph and as high as tiles overlap.

        Args:
            pixels: uint8 or uint16 (height, width, 3), RGB, any size, full range.
            strength: 1 takes all the noise that the generator sees, 0 gives the input back.
            tile_pixels: Smaller tiles than this denoiser's own, for this photograph.
            spares: Whether places of which hardly anything would be taken keep it.

        Returns:
            The pixels, clipped and rounded, in the dtype that came; and what there is to note.

        Raises:
            ValueError: another shape or dtype, or a strength outside [0, 1].
            FloatingPointError: the generator gave a value that is not finite.
            MemoryError: not even the smallest tiles fit.
            ArithmeticError: TensorFlow failed otherwise.
        """
        if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(
                f"pixels are {pixels.dtype} {pixels.shape}; they must be uint8 or uint16 "
                f"(height, width, 3)"
            )
        if not 0 <= strength <= 1:
            raise ValueError(f"strength={strength} must be between 0 (nothing) and 1 (all)")
        if strength == 0 or pixels.size == 0:
            return Result(pixels.copy(), None, np.zeros((0, 0), np.float32))
        size = wanted = min(self._tile_pixels(pixels), tile_pixels or self.tile_pixels)
        while True:
            plan = self._plan(pixels, size)
            try:
                denoised = self._joined(pixels, plan)
                # the U-Net changes more than noise
                only_noise = self.made_with.generator == "residual"
                energy = texture.restrained(pixels, denoised, only_noise, spares)
                if strength < 1:
                    _mix(pixels, denoised, strength)
                note = f"out of memory: tiles of {size} pixels instead of {wanted}"
                return Result(denoised, note if size < wanted else None, energy)
            except (MemoryError, tf.errors.ResourceExhaustedError) as error:
                while size > self.smallest_tile_pixels and self._plan(pixels, size) == plan:
                    # until that makes a difference for this photograph
                    size = max(size // 2, self.smallest_tile_pixels)
                if self._plan(pixels, size) == plan:
                    raise MemoryError(
                        f"a photograph of {pixels.shape[1]} x {pixels.shape[0]} pixels doesn't fit "
                        f"into memory, not even in tiles of {plan.width} x {plan.height}: {error}"
                    ) from error
            except tf.errors.OpError as error:
                raise ArithmeticError(f"TensorFlow: {error}") from error

    def _tile_pixels(self, pixels: Pixels) -> int:
        if pixels.shape[0] * pixels.shape[1] <= HUGE_PIXELS:
            return self.tile_pixels
        return min(self.tile_pixels, math.isqrt(HUGE_TILE_BYTES // self.bytes_of_pixel))

    def _plan(self, pixels: Pixels, tile_pixels: int) -> tiles.Plan:
        side = max(tile_pixels, self.smallest_tile_pixels)
        height, width = pixels.shape[:2]
        multiple = self.made_with.pixel_multiple
        return tiles.plan(height, width, side * side, multiple, self.overlap_pixels)

    def _joined(self, pixels: Pixels, plan: tiles.Plan) -> Pixels:
        """All tiles, faded into each other: first each with its left, then with its upper one.

        Where the next one begins before two have faded, they do so sooner.
        """
        rows, columns, height, width = plan
        result, strip = np.empty_like(pixels), columns[-1] + width
        above = np.empty((0, strip, 3), np.float32)
        for row, below in zip(rows, [*rows[1:], rows[-1] + height], strict=True):
            under = np.empty((row + height - below, strip, 3), np.float32)
            above = above[: below - row]
            left = np.empty((height, 0, 3), np.float32)
            down = tiles.fade(len(above))[:, None, None]
            for column, right in zip(columns, [*columns[1:], strip], strict=True):
                values = self._tile(pixels, row, column, plan)
                kept = right - column
                left = left[:, :kept]
                met = left.shape[1]
                across = tiles.fade(met)[:, None]
                faded = left * (1 - across) + values[:, :met] * across
                for piece, start in ((faded, column), (values[:, met:kept], column + met)):
                    place = slice(start, start + piece.shape[1])
                    under[:, place] = piece[below - row :]
                    upper = above[:, place] * (1 - down) + piece[: len(above)] * down
                    lower = piece[len(above) : below - row]
                    _put(upper, result, row, start)
                    _put(lower, result, row + len(above), start)
                left = values[:, kept:].copy()
            above = under
        return result

    def _tile(self, pixels: Pixels, row: int, column: int, plan: tiles.Plan) -> NDArray[np.float32]:
        """What the generator makes of one tile: float32 (height, width, 3) in [-1, 1]."""
        tile = pixels[row : row + plan.height, column : column + plan.width]
        missing = ((0, plan.height - tile.shape[0]), (0, plan.width - tile.shape[1]), (0, 0))
        padded = np.pad(tile, missing, mode="symmetric")[np.newaxis]
        try:
            turn = self._generating.submit(self._generated, padded)
        except RuntimeError as error:  # the process is about to end, which is no image's failure
            raise SystemExit(f"{error}") from error
        return turn.result()

    def _generated(self, padded: NDArray[Any]) -> NDArray[np.float32]:
        """What the generator makes of (1, height, width, 3): see `_tile`. One at a time.

        It takes all cores and most of the memory for itself.
        """
        area = padded.shape[1] * padded.shape[2]
        if self._on_cpu and area > self._largest:  # what it took once, it keeps
            memory.demand(area * self.bytes_of_pixel * 5 // 4)
        values = self._values[tf.as_dtype(padded.dtype)](tf.convert_to_tensor(padded))
        self._largest = max(area, self._largest)
        return np.asarray(memoryview(values))[0]  # TensorFlow's own memory, uncopied


def _function(generator: keras.Model, dtype: tf.DType) -> tf.types.experimental.GenericFunction:
    half = np.float32(dtype.max / 2)

    def values(pixels: tf.Tensor) -> tf.Tensor:  # -> float32 (1, height, width, 3) in [-1, 1]
        return generator(tf.cast(pixels, tf.float32) / half - 1.0, training=False)

    # AutoGraph would leave a file in the system's temporary folder, where a process is killed
    return tf.function(values, [tf.TensorSpec((1, None, None, 3), dtype)], autograph=False)


def _put(values: NDArray[np.float32], result: Pixels, row: int, column: int) -> None:
    """Rounds values in [-1, 1] into the result at (row, column), less what lies beyond its end.

    Raises:
        FloatingPointError: a value is not finite, or so large that the sum isn't.
    """
    most = np.iinfo(result.dtype).max
    values = values[: max(0, result.shape[0] - row), : max(0, result.shape[1] - column)]
    strip = np.empty((STRIP_ROWS, *values.shape[1:]), np.float32)
    for start in range(0, len(values), STRIP_ROWS):
        levels = strip[: len(values) - start]
        rows = slice(row + start, row + start + len(levels))
        place = (rows, slice(column, column + levels.shape[1]))
        np.add(values[start : start + STRIP_ROWS], np.float32(1), out=levels)
        levels *= np.float32(most / 2)
        if not np.isfinite(levels.sum()):
            raise FloatingPointError(
                f"the generator gave values that are not finite in rows {rows.start} to "
                f"{rows.stop}: its checkpoint is unusable at this precision"
            )
        np.rint(levels, out=levels)
        np.clip(levels, 0, most, out=levels)
        result[place] = levels


def _mix(pixels: Pixels, denoised: Pixels, strength: float) -> None:
    """Puts a photograph's noise back, but for a share of it; changes `denoised`.

    Ties go to the photograph's level: rounded to even, half the strength would comb the levels.
    """
    for start in range(0, len(pixels), STRIP_ROWS):
        rows = slice(start, start + STRIP_ROWS)
        before = pixels[rows].astype(np.float32)
        taken = (denoised[rows] - before) * np.float32(strength)
        taken += np.copysign(np.float32(0.499), taken)
        before += np.trunc(taken, out=taken)
        denoised[rows] = before


def _value_bytes(generator: keras.Model) -> int:
    """Bytes of a value between the layers: 2 in bfloat16, 4 in float32."""
    dtypes = (keras.backend.standardize_dtype(layer.compute_dtype) for layer in generator.layers)
    return 2 if "bfloat16" in dtypes else 4


def loaded(
    checkpoint_url: str, precision: str = "auto", weights_sha256: str | None = None
) -> Denoiser:
    """The denoiser of a checkpoint.

    Args:
        checkpoint_url: See `checkpoints.resolved`.
        precision: See `dtype_policy`.
        weights_sha256: See `checkpoints.fetched`.

    Raises:
        FileNotFoundError: no checkpoint there.
        ValueError: the weights aren't those that the checkpoint's card names, or others than these.
    """
    with tempfile.TemporaryDirectory() as folder:
        checkpoints.fetched(checkpoint_url, folder, weights_sha256)
        made_with = settings.from_json(Path(folder, checkpoints.SETTINGS).read_text())
        keras.config.set_dtype_policy(dtype_policy(precision))
        generator = networks.generator(made_with)
        generator.load_weights(os.path.join(folder, checkpoints.WEIGHTS))
    return Denoiser(generator, made_with)
