from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pix2pix import denoiser, networks
from pix2pix.denoiser import Denoiser
from pix2pix.settings import Settings

SAMPLES = Path(__file__).parent.parent / "samples"
SMALL = Settings(width=8)


@pytest.fixture(scope="module")
def photographs() -> list[np.ndarray]:
    """Four photographs of 1024 x 1024, each laid out of sixteen noisy samples."""
    paths = sorted((SAMPLES / "pairs").rglob("NOISY*")) + sorted(
        (SAMPLES / "unseen/noisy").iterdir()
    )
    tiles = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    return [
        np.vstack(
            [
                np.hstack([tiles[(7 * k + 4 * row + col) % 36] for col in range(4)])
                for row in range(4)
            ]
        )
        for k in range(4)
    ]


@pytest.fixture(scope="module")
def generator(photographs: list[np.ndarray]) -> keras.Model:
    """A residual generator that has learned for some seconds to take noise away."""
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(1)
    model = networks.generator(SMALL)
    optimizer = keras.optimizers.Adam(1e-3)
    clean = np.stack(
        [np.asarray(Image.open(path).convert("RGB"))[:128, :128]
         for path in sorted((SAMPLES / "pairs").rglob("GT*"))[:8]]
    ) / 127.5 - 1  # fmt: skip
    for step in range(60):
        chance = np.random.default_rng(step)
        truth = tf.constant(chance.permutation(clean)[:4], tf.float32)
        noisy = truth + chance.normal(0, 0.15, truth.shape).astype(np.float32)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.abs(model(noisy, training=True) - truth))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
    return model


def test_tiles_show_no_seams(generator: keras.Model, photographs: list[np.ndarray]) -> None:
    whole = Denoiser(generator, SMALL, tile_pixels=1024)
    tiled = Denoiser(generator, SMALL, tile_pixels=256)
    for photograph in photographs:
        expected = whole.denoised(photograph)
        assert np.abs(expected.astype(int) - photograph).mean() > 1  # it does something
        difference = np.abs(tiled.denoised(photograph).astype(int) - expected)
        assert difference.max() <= 2
        assert (difference <= 1).mean() >= 0.999


def test_a_deep_generator_s_tiles_overlap_as_far_as_it_sees(
    photographs: list[np.ndarray],
) -> None:
    deep = Settings(width=4, levels=5, blocks=1)
    keras.config.set_dtype_policy("float32")
    model = networks.generator(deep)
    model.get_layer("noise").kernel.assign(np.random.default_rng(0).normal(0, 0.1, (3, 3, 4, 3)))
    whole = Denoiser(model, deep, tile_pixels=1024)
    tiled = Denoiser(model, deep, tile_pixels=512)
    assert tiled.overlap_pixels >= networks.context_pixels(deep) > 64
    expected = whole.denoised(photographs[0])
    assert np.abs(expected.astype(int) - photographs[0]).mean() > 1
    difference = np.abs(tiled.denoised(photographs[0]).astype(int) - expected)
    assert difference.max() <= 2
    assert (difference <= 1).mean() >= 0.999


@pytest.mark.parametrize("shape", [(1, 1), (257, 1023), (1, 700), (9, 8), (256, 300)])
def test_any_size_keeps_its_size(generator: keras.Model, shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    denoised = Denoiser(generator, SMALL, tile_pixels=256).denoised(pixels)
    assert (denoised.shape, denoised.dtype) == (pixels.shape, np.uint8)


@pytest.mark.parametrize("shape", [(300, 500), (257, 1023), (1000, 260)])
def test_an_untrained_generator_gives_every_pixel_back(shape: tuple[int, int]) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    untrained = Denoiser(networks.generator(SMALL), SMALL, tile_pixels=256)
    np.testing.assert_array_equal(untrained.denoised(pixels), pixels)


def test_strength_0_gives_the_input_back_and_half_lies_between(
    generator: keras.Model, photographs: list[np.ndarray]
) -> None:
    pixels = photographs[0][:200, :200]
    model = Denoiser(generator, SMALL)
    full = model.denoised(pixels).astype(int)
    half = model.denoised(pixels, strength=0.5).astype(int)
    np.testing.assert_array_equal(model.denoised(pixels, strength=0), pixels)
    inside = (full > 0) & (full < 255)  # the others were clipped after
    assert np.abs(half - (full + pixels) / 2)[inside].max() <= 1


def test_a_photograph_does_not_depend_on_the_one_before(
    generator: keras.Model, photographs: list[np.ndarray]
) -> None:
    model = Denoiser(generator, SMALL)
    first = model.denoised(photographs[0][:90, :90])
    model.denoised(photographs[1])
    np.testing.assert_array_equal(model.denoised(photographs[0][:90, :90]), first)


def test_the_unet_goes_through_in_tiles_of_256() -> None:
    made_with = Settings(generator="unet", crop_pixels=256)
    model = Denoiser(networks.generator(made_with), made_with)
    assert model.tile_pixels == 256
    pixels = np.full((300, 257, 3), 128, np.uint8)
    assert model.denoised(pixels).shape == pixels.shape


def test_values_that_are_not_finite_never_become_pixels() -> None:
    model = networks.generator(SMALL)
    model.get_layer("noise").bias.assign([np.nan] * 3)
    with pytest.raises(FloatingPointError, match="not finite"):
        Denoiser(model, SMALL).denoised(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize("pixels", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8)])
def test_other_arrays_than_8_bit_rgb_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"must be uint8 \(height, width, 3\)"):
        Denoiser(networks.generator(SMALL), SMALL).denoised(pixels)


def test_tiles_too_small_to_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="tile_pixels=64 must be at least 256"):
        Denoiser(networks.generator(SMALL), SMALL, tile_pixels=64)


def test_a_precision_by_name_is_that_precision() -> None:
    assert denoiser.dtype_policy("bfloat16") == "mixed_bfloat16"
    assert denoiser.dtype_policy("float32") == "float32"
    assert denoiser.dtype_policy("auto") in ("float32", "mixed_bfloat16")
