"""One photograph of any size through a generator: precision, tiles, blending. No Ray in it."""

import os
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from pix2pix import checkpoints, networks, settings
from pix2pix.settings import Settings

TILE_PIXELS = 1536  # 6% slower than in one piece, 1024: 17%, 512: 61% (benchmarks/tiles.py)
OVERLAP_PIXELS = 64  # of neighbouring tiles, at least


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


class Denoiser:
    """A generator with its weights, ready for photographs of any size.

    Args:
        generator: noisy -> denoised, float32 (batch, height, width, 3) in [-1, 1].
        made_with: The settings it was made with: they say what sizes it takes.
        tile_pixels: Largest height and width that go through at once; memory grows with it.

    Raises:
        ValueError: tiles too small to overlap.
    """

    def __init__(
        self, generator: keras.Model, made_with: Settings, tile_pixels: int = TILE_PIXELS
    ) -> None:
        # three quarters of it are seen on both sides of the fade: with random weights, the worst
        # case, no value then moves by more than 2/255; with 64 pixels 7% moved by more than 1/255
        self.overlap_pixels = max(OVERLAP_PIXELS, networks.context_pixels(made_with) * 3 // 2)
        if tile_pixels < 4 * OVERLAP_PIXELS:
            raise ValueError(
                f"tile_pixels={tile_pixels} must be at least {4 * OVERLAP_PIXELS}: neighbouring "
                f"tiles overlap by {OVERLAP_PIXELS}"
            )
        tile_pixels = max(tile_pixels, 4 * self.overlap_pixels)
        self.generator, self.made_with = generator, made_with
        self.multiple = made_with.pixel_multiple
        self.tile_pixels = self.multiple * max(1, tile_pixels // self.multiple)
        if made_with.generator == "unet":  # it was made for 256x256, and for nothing else
            self.tile_pixels = self.multiple

        def levels(pixels: tf.Tensor) -> tf.Tensor:  # uint8 -> float32 (height, width, 3)
            noisy = tf.cast(pixels[tf.newaxis], tf.float32) / 127.5 - 1.0
            return (generator(noisy, training=False)[0] + 1.0) * 127.5

        self._levels = tf.function(
            levels, input_signature=[tf.TensorSpec((None, None, 3), tf.uint8)]
        )

    def denoised(self, pixels: np.ndarray, strength: float = 1.0) -> np.ndarray:
        """The photograph without its noise.

        A photograph larger than a tile goes through in overlapping tiles that fade into each other
        (sides are mirrored where they are no multiple of what the generator takes). Beside input
        and output, memory holds one row of tiles.

        Args:
            pixels: uint8 (height, width, 3), RGB, any size.
            strength: 1 takes all the noise that the generator sees, 0 gives the input back.

        Returns:
            uint8 (height, width, 3), RGB: clipped and rounded.

        Raises:
            ValueError: another shape or dtype, or a strength outside [0, 1].
            FloatingPointError: the generator gave a value that is not finite.
        """
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
            raise ValueError(
                f"pixels are {pixels.dtype} {pixels.shape}; they must be uint8 (height, width, 3)"
            )
        if not 0 <= strength <= 1:
            raise ValueError(f"strength={strength} must be between 0 (nothing) and 1 (all)")
        if strength == 0:
            return pixels.copy()
        height, width = pixels.shape[:2]
        columns, across = self._spread(width)
        rows, down = self._spread(height)
        result, top = np.empty_like(pixels), 0

        def strips() -> Iterator[np.ndarray]:  # float32 (down, width, 3)
            for row in rows:
                source = np.pad(
                    pixels[row : row + down],
                    ((0, max(0, row + down - height)), (0, columns[-1] + across - width), (0, 0)),
                    mode="symmetric",
                )
                tiles = (self._tile(source, column, across) for column in columns)
                yield np.concatenate(list(_joined(tiles, columns))).swapaxes(0, 1)[:, :width]

        for strip in _joined(strips(), rows):
            source = pixels[top : top + len(strip)]
            values = strip[: len(source)]
            if strength < 1:
                values = source + np.float32(strength) * (values - source)
            if not np.isfinite(values).all():
                raise FloatingPointError(
                    f"the generator gave values that are not finite in rows {top} to "
                    f"{top + len(source)}: its checkpoint is unusable at this precision"
                )
            result[top : top + len(source)] = np.clip(np.rint(values), 0, 255)
            top += len(source)
        return result

    def _tile(self, source: np.ndarray, column: int, across: int) -> np.ndarray:
        """float32 (across, down, 3): columns first, as `_joined` joins along the first axis."""
        return self._levels(source[:, column : column + across]).numpy().swapaxes(0, 1)

    def _spread(self, pixels: int) -> tuple[list[int], int]:
        """Where tiles start along one side, and how long they are; they end with the padding."""
        padded = -(-pixels // self.multiple) * self.multiple
        if padded <= self.tile_pixels:
            return [0], padded
        count = -(-(padded - self.overlap_pixels) // (self.tile_pixels - self.overlap_pixels))
        even = -(-(padded + (count - 1) * self.overlap_pixels) // count)
        length = -(-even // self.multiple) * self.multiple
        overlap = -(-self.overlap_pixels // self.multiple) * self.multiple
        if self.multiple > self.overlap_pixels:  # the U-Net: any start will do
            overlap = self.overlap_pixels
        return [index * (length - overlap) for index in range(count - 1)] + [
            padded - length
        ], length


def _joined(pieces: Iterator[np.ndarray], starts: list[int]) -> Iterator[np.ndarray]:
    """Pieces that overlap along their first axis, cross-faded, as pieces that follow each other."""
    held = next(pieces)
    for (start, following), piece in zip(pairwise(starts), pieces, strict=True):
        overlap = start + len(held) - following
        yield held[:-overlap]
        # only the inner half fades: what is near a tile's edge, and saw least, counts for nothing
        place = (np.arange(overlap, dtype=np.float32) + 0.5)[:, None, None] / overlap
        fade = np.clip(2 * place - 0.5, 0, 1)
        held = np.concatenate(
            [held[-overlap:] * (1 - fade) + piece[:overlap] * fade, piece[overlap:]]
        )
    yield held


def loaded(checkpoint_url: str, precision: str = "auto") -> Denoiser:
    """The denoiser of a checkpoint.

    Args:
        checkpoint_url: A checkpoint, a run (its best checkpoint is meant) or `RUN/best`.
        precision: See `dtype_policy`.

    Raises:
        FileNotFoundError: no checkpoint there.
        ValueError: the weights aren't those that the checkpoint's card names.
    """
    with tempfile.TemporaryDirectory() as folder:
        checkpoints.fetched(checkpoint_url, folder)
        made_with = settings.from_json(Path(folder, checkpoints.SETTINGS).read_text())
        keras.config.set_dtype_policy(dtype_policy(precision))
        generator = networks.generator(made_with)
        generator.load_weights(os.path.join(folder, checkpoints.WEIGHTS))
    return Denoiser(generator, made_with)
