import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pix2pix import denoiser, metrics, networks, sharing, tiles
from pix2pix.denoiser import Denoiser
from pix2pix.settings import Settings
from pix2pix.tiles import Plan

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
    narrower = photographs[0][:, :832]  # its last two tiles share what the others leave over
    for photograph in [*photographs, narrower]:
        expected = whole.denoised(photograph)
        assert np.abs(expected.astype(int) - photograph).mean() > 1  # it does something
        difference = np.abs(tiled.denoised(photograph).astype(int) - expected)
        assert difference.max() <= 2
        assert (difference <= 1).mean() >= 0.999


def test_tiles_of_a_generator_at_half_resolution_show_no_seams() -> None:
    half = Settings(width=8, levels=2, stride=2)
    keras.config.set_dtype_policy("float32")
    model = networks.generator(half)
    kernel = np.random.default_rng(0).normal(0, 0.1, (2, 2, 3, 8))
    model.get_layer("noise").kernel.assign(kernel)
    photograph = np.random.default_rng(1).integers(0, 256, (704, 512, 3), np.uint8)
    expected = Denoiser(model, half, tile_pixels=1024).denoised(photograph).astype(int)
    assert np.abs(expected - photograph).mean() > 1
    difference = np.abs(Denoiser(model, half, tile_pixels=256).denoised(photograph) - expected)
    assert difference.max() <= 1


@pytest.mark.parametrize("across", [True, False])
@pytest.mark.parametrize("side", [736, 760])
def test_a_last_tile_that_begins_where_two_others_fade_shows_no_seam(
    side: int, across: bool
) -> None:
    starts = tiles.plan(1500, side, 416 * 416, 8, 103).columns
    assert len(starts) == 3
    assert starts[0] + 416 > starts[2]  # all three share a place
    noisy = keras.Input((None, None, 3))
    means = keras.layers.GlobalAveragePooling2D(keepdims=True)(noisy)  # unlike in any two tiles
    model = Denoiser(keras.Model(noisy, noisy * 0 + means), SMALL, tile_pixels=416)
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    pixels = np.tile(ramp[:, None], (416, 1, 3))
    if across:
        joined = model._joined(pixels, Plan([0], starts, 416, 416))[200, :, 0]
    else:
        joined = model._joined(pixels.swapaxes(0, 1), Plan(starts, [0], 416, 416))[:, 200, 0]
    steps = np.diff(joined.astype(int))
    assert joined[-1] - joined[0] == pytest.approx(starts[-1] / (side - 1) * 255, abs=1)
    assert (steps >= 0).all()
    assert steps.max() == 1  # two tiles' means are 54 levels apart or more


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


def test_a_huge_photograph_leaves_less_memory_for_its_tiles(generator: keras.Model) -> None:
    model = Denoiser(generator, SMALL)
    large, huge = (np.broadcast_to(np.uint8(0), (side, 10_000, 3)) for side in (10_000, 10_001))
    assert model._tile_pixels(large) ** 2 == pytest.approx(5.1e6, rel=1e-3)
    assert model._tile_pixels(huge) ** 2 * model.bytes_of_pixel == pytest.approx(0.8e9, rel=1e-3)


def test_wide_layers_leave_smaller_tiles() -> None:
    wide = Settings(width=32)
    model = Denoiser(networks.generator(wide), wide)  # float32: 6 layers of 32 channels
    assert model.tile_pixels**2 * 6 * 32 * 4 == pytest.approx(2.4e9, rel=1e-3)


def test_the_unet_goes_through_in_tiles_of_256() -> None:
    made_with = Settings(generator="unet", crop_pixels=256)
    model = Denoiser(networks.generator(made_with), made_with)
    assert model.tile_pixels == 256
    pixels = np.full((300, 257, 3), 128, np.uint8)
    assert model.denoised(pixels).shape == pixels.shape


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_no_single_value_that_is_not_finite_becomes_a_pixel(value: float) -> None:
    values, result = np.zeros((40, 5, 3), np.float32), np.zeros((40, 5, 3), np.uint8)
    values[37, 4, 2] = value  # in what is left over for the last strip
    with pytest.raises(FloatingPointError, match="not finite in rows 32 to 40"):
        denoiser._put(values, result, 0, 0)


def test_values_that_are_not_finite_never_become_pixels() -> None:
    model = networks.generator(SMALL)
    model.get_layer("noise").bias.assign([np.nan] * 3)
    with pytest.raises(FloatingPointError, match="not finite"):
        Denoiser(model, SMALL).denoised(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize("pixels", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8)])
def test_other_arrays_than_rgb_of_8_or_16_bit_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"must be uint8 or uint16 \(height, width, 3\)"):
        Denoiser(networks.generator(SMALL), SMALL).denoised(pixels)


@pytest.mark.parametrize("name", ["best", "fast"])
def test_nobody_sees_that_all_layers_compute_in_bfloat16(name: str) -> None:
    try:
        exact, fast = (denoiser.loaded(name, precision) for precision in ("float32", "bfloat16"))
    finally:
        keras.config.set_dtype_policy("float32")
    convolutions = [layer for layer in fast.generator.layers if layer.weights]
    assert {layer.compute_dtype for layer in convolutions} == {"bfloat16"}
    path = sorted((SAMPLES / "unseen/noisy").iterdir())[2]  # much noise: the rounding is of it
    noisy = np.asarray(Image.open(path).convert("RGB"))
    wanted, found = exact.denoised(noisy), fast.denoised(noisy)
    assert metrics.psnr_db(noisy, wanted) < 30
    assert metrics.psnr_db(wanted, found) > 55
    assert np.mean(np.abs(wanted.astype(int) - found) <= 2) > 0.9999


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_an_identity_gives_all_65536_levels_back(policy: str) -> None:
    keras.config.set_dtype_policy(policy)
    try:
        untrained = Denoiser(networks.generator(SMALL), SMALL)
    finally:
        keras.config.set_dtype_policy("float32")
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    pixels = np.stack([ramp, ramp.T, ramp[::-1]], axis=2)
    np.testing.assert_array_equal(untrained.denoised(pixels), pixels)
    np.testing.assert_array_equal(untrained.denoised(pixels, strength=0.3), pixels)


def test_16_bits_say_the_same_as_8_and_more(
    generator: keras.Model, photographs: list[np.ndarray]
) -> None:
    model = Denoiser(generator, SMALL)
    pixels = photographs[0][:200, :200]
    after = model.denoised(pixels.astype(np.uint16) * 257)
    assert after.dtype == np.uint16
    eight, sixteen = (
        model._joined(image, model._plan(image, model.tile_pixels))
        for image in (pixels, pixels.astype(np.uint16) * 257)
    )
    assert (
        np.abs(sixteen / 257 - eight).max() <= 0.5 + 1e-2
    )  # the generator's: it rounds to a level
    apart = np.abs(after / 257 - model.denoised(pixels))
    assert apart.max() <= 1.1  # it rounds to a level, before and after texture is given back
    assert np.quantile(apart, 0.9) <= 0.5
    assert len(np.unique(after)) > 10_000


def test_photographs_of_many_threads_get_the_pixels_they_get_alone(
    generator: keras.Model, photographs: list[np.ndarray]
) -> None:
    model = Denoiser(generator, SMALL, tile_pixels=384)
    cuts = [photographs[k % 4][: 400 + 90 * k, : 700 - 60 * k] for k in range(8)]
    alone = [model.denoised(cut) for cut in cuts]
    with ThreadPoolExecutor(4) as threads:
        for expected, pixels in zip(alone, threads.map(model.denoised, cuts), strict=True):
            np.testing.assert_array_equal(pixels, expected)


def test_smaller_tiles_can_be_asked_for_one_photograph(
    generator: keras.Model, photographs: list[np.ndarray]
) -> None:
    model = Denoiser(generator, SMALL, tile_pixels=1024)
    expected = Denoiser(generator, SMALL, tile_pixels=512).denoised(photographs[1])
    pixels, note, _ = model.result(photographs[1], tile_pixels=512)
    np.testing.assert_array_equal(pixels, expected)
    assert note is None
    assert model.result(photographs[1][:99, :99], tile_pixels=1).pixels.shape == (99, 99, 3)


OUT_OF_MEMORY = """
import resource, sys
import keras, numpy as np, tensorflow as tf
from pix2pix import denoiser, networks
from pix2pix.settings import Settings
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
small = Settings(width=64, levels=1)
model = denoiser.Denoiser(networks.generator(small), small, tile_pixels=1024)
model.denoised(np.zeros((64, 64, 3), np.uint8))
pixels = np.random.default_rng(0).integers(0, 256, (600, 700, 3), dtype=np.uint8)
large = np.tile(pixels, (8, 8, 1))
def leave(megabytes):
    in_use = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + megabytes * 2**20, resource.RLIM_INFINITY))
leave(550)
result = model.result(pixels)
assert (result.pixels == pixels).all()
print(result.note)
another = denoiser.Denoiser(model.generator, small)
leave(150)
try:
    another.result(large)
except MemoryError as error:
    print(error)
"""


def test_out_of_memory_means_smaller_tiles_and_a_note() -> None:
    done = subprocess.run([sys.executable, "-c", OUT_OF_MEMORY], capture_output=True, text=True)
    assert "out of memory: tiles of 512 pixels instead of 1024\n" in done.stdout, done.stderr
    assert "5600 x 4800 pixels doesn't fit into memory" in done.stdout


class Greedy(keras.Layer):
    """Takes more memory than there is for more than 350 x 350 pixels."""

    def call(self, image: tf.Tensor) -> tf.Tensor:
        too_large = tf.size(image, tf.int64) > 3 * 350 * 350
        wanted = tf.gather(tf.constant([1, 2**44], tf.int64), tf.cast(too_large, tf.int32))
        return image + tf.fill(tf.reshape(wanted, [1]), 0.0)[0]


def test_the_note_names_the_smallest_tiles() -> None:
    photograph = keras.Input((None, None, 3))
    model = Denoiser(keras.Model(photograph, Greedy()(photograph)), SMALL, tile_pixels=1000)
    pixels = np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    denoised, note, _ = model.result(pixels)
    np.testing.assert_array_equal(denoised, pixels)
    assert model.smallest_tile_pixels == 316
    assert note == "out of memory: tiles of 316 pixels instead of 1000"


def test_new_shapes_keep_no_memory() -> None:
    """TensorFlow's own transposed convolution in bfloat16 keeps 380 MB of these ten."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        made_with = Settings()
        model = Denoiser(networks.generator(made_with), made_with)
    finally:
        keras.config.set_dtype_policy("float32")
    held = []
    for side in range(704, 64, -64):
        model.denoised(np.zeros((side, 640, 3), np.uint8))
        held.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6)
    assert held[-1] - held[0] < 120


def test_tiles_too_small_to_overlap_are_refused() -> None:
    with pytest.raises(ValueError, match="tile_pixels=64 must be at least 256"):
        Denoiser(networks.generator(SMALL), SMALL, tile_pixels=64)


def test_a_precision_by_name_is_that_precision() -> None:
    assert denoiser.dtype_policy("bfloat16") == "mixed_bfloat16"
    assert denoiser.dtype_policy("float32") == "float32"
    assert denoiser.dtype_policy("auto") in ("float32", "mixed_bfloat16")


heard: list[int] = []


class Listening(keras.layers.Layer):
    """Changes nothing, and notes how nice the thread is that computes it, as it is traced."""

    def call(self, values: keras.KerasTensor) -> keras.KerasTensor:
        heard.append(os.getpriority(os.PRIO_PROCESS, 0))
        return values


def test_the_generator_comes_before_those_that_wait_for_it() -> None:
    noisy = keras.Input((None, None, 3))
    model = Denoiser(keras.Model(noisy, Listening()(noisy)), SMALL)
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    with ThreadPoolExecutor(1) as pool:  # its thread begins when there is something to do
        pool.submit(sharing.stand_back, mine).result()
        assert pool.submit(os.getpriority, os.PRIO_PROCESS, 0).result() == min(mine + 10, 19)
        heard.clear()
        pool.submit(model.denoised, pixels).result()
    assert heard == [mine]
