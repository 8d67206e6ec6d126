import keras
import numpy as np
import pytest
import tensorflow as tf

from pix2pix import networks
from pix2pix.settings import Settings


@pytest.fixture(autouse=True)
def _float32() -> None:
    keras.config.set_dtype_policy("float32")


def test_the_unet_has_the_parameters_of_the_paper() -> None:
    assert networks.unet().count_params() == 54_425_859


def test_the_unet_maps_256_pixels_to_256_pixels_between_minus_1_and_1() -> None:
    noisy = tf.random.stateless_uniform((1, 256, 256, 3), (1, 2), -1, 1)
    denoised = networks.unet()(noisy, training=False).numpy()
    assert denoised.shape == (1, 256, 256, 3)
    assert np.abs(denoised).max() <= 1


def test_the_unet_drops_out_in_its_first_three_steps_up_alone() -> None:
    names = [type(layer).__name__ for layer in networks.unet().layers]
    ups = "".join({"Conv2DTranspose": "u", "Dropout": "d"}.get(name, "") for name in names)
    assert ups == "udududuuuuu"
    assert names.count("Concatenate") == 7


@pytest.mark.parametrize(("width", "levels", "blocks"), [(8, 1, 1), (4, 3, 2), (24, 4, 1)])
@pytest.mark.parametrize(
    ("first_blocks", "bottom_blocks", "stride"), [(-1, 0, 1), (0, 2, 1), (2, 0, 2)]
)
def test_the_residual_generator_begins_as_the_identity(
    width: int, levels: int, blocks: int, first_blocks: int, bottom_blocks: int, stride: int
) -> None:
    made_with = Settings(
        width=width, levels=levels, blocks=blocks,
        first_blocks=first_blocks, bottom_blocks=bottom_blocks, stride=stride,
    )  # fmt: skip
    noisy = tf.random.stateless_uniform((2, 64, 48, 3), (1, 2), -1, 1)
    denoised = networks.generator(made_with)(noisy, training=True)
    np.testing.assert_array_equal(noisy, denoised)


def test_the_highest_resolution_may_have_a_width_of_its_own() -> None:
    model = networks.residual(Settings(width=24, top_width=32))
    convolutions = [layer for layer in model.layers if hasattr(layer, "kernel")]
    made = [layer.filters for layer in convolutions]
    assert made == [32] * 3 + [48] * 3 + [96] * 3 + [192] * 3 + [96] * 3 + [48] * 3 + [32] * 3 + [3]
    assert networks.context_pixels(Settings(top_width=32)) == networks.context_pixels(Settings())


def test_the_highest_resolution_may_have_fewer_blocks_on_the_way_down() -> None:
    layers = networks.residual(Settings(width=16, first_blocks=0)).layers
    made = [layer.filters for layer in layers if hasattr(layer, "kernel")]
    assert made == [16] + [32] * 3 + [64] * 3 + [128] * 3 + [64] * 3 + [32] * 3 + [16] * 3 + [3]


def test_doubling_is_the_transposed_convolution() -> None:
    noisy = tf.random.stateless_normal((2, 5, 7, 6), (1, 2))
    layers = networks.Doubled(4, 2, 2), keras.layers.Conv2DTranspose(4, 2, 2)
    for layer in layers:
        layer.build(noisy.shape)
    values = [np.random.default_rng(0).normal(size=w.shape) for w in layers[0].weights]
    doubled, transposed = [layer.set_weights(values) or layer(noisy) for layer in layers]
    assert doubled.shape == (2, 10, 14, 4)
    np.testing.assert_allclose(doubled, transposed, atol=1e-5)


def test_the_residual_generator_keeps_no_batch_statistics() -> None:
    model = networks.residual(Settings(width=4))
    assert model.non_trainable_variables == []


@pytest.mark.parametrize("bottom_blocks", [0, 1])
def test_a_generator_grows_by_bottom_blocks_and_denoises_as_before(bottom_blocks: int) -> None:
    small = _with_random_values(networks.residual(Settings(width=4, bottom_blocks=bottom_blocks)))
    large = networks.residual(Settings(width=4, bottom_blocks=2))
    networks.begin_as(large, small)
    noisy = tf.random.stateless_uniform((1, 64, 48, 3), (1, 2), -1, 1)
    assert np.abs(small(noisy) - noisy).max() > 0.01
    np.testing.assert_allclose(small(noisy), large(noisy), atol=1e-6)
    added = 2 * (9 * 32 * 32 + 32)  # a block's two convolutions of 4 * 2^3 channels
    assert large.count_params() == small.count_params() + (2 - bottom_blocks) * added


def test_a_generator_grows_by_channels_denoises_as_before_and_learns_with_them() -> None:
    small = _with_random_values(networks.residual(Settings(width=4)))
    large = networks.residual(Settings(width=4, top_width=6))
    networks.begin_as(large, small)
    noisy = tf.random.stateless_uniform((1, 64, 48, 3), (1, 2), -1, 1)
    np.testing.assert_allclose(small(noisy), large(noisy), atol=1e-6)
    with tf.GradientTape() as tape:
        error = tf.reduce_mean(large(noisy) ** 2)
    kernels = [large.layers[1].kernel, large.get_layer("noise").kernel]
    first, last = tape.gradient(error, kernels)
    assert np.abs(last[:, :, 4:]).min() > 0  # it begins to see the new channels in the first step
    kernels[1].assign_sub(0.1 * last)
    with tf.GradientTape() as tape:
        error = tf.reduce_mean(large(noisy) ** 2)
    first = tape.gradient(error, kernels[0])
    assert np.abs(first[..., 4:]).min() > 0  # and from then on they learn


def test_a_u_net_begins_as_another_with_its_batch_statistics() -> None:
    first, second = networks.unet(), networks.unet()
    _with_random_values(first)
    networks.begin_as(second, first)
    for mine, theirs in zip(second.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("levels", "first_blocks", "bottom_blocks", "stride"),
    [(3, -1, 0, 1), (3, 0, 2, 1), (2, 3, 1, 2), (1, 0, 0, 1)],
)
def test_the_residual_generator_sees_no_further_than_it_says(
    levels: int, first_blocks: int, bottom_blocks: int, stride: int
) -> None:
    made_with = Settings(
        width=4, levels=levels, first_blocks=first_blocks, bottom_blocks=bottom_blocks,
        stride=stride,
    )  # fmt: skip
    reach = networks.context_pixels(made_with)
    model = _with_random_values(networks.residual(made_with))
    side = 16 * (reach // 8 + 1)
    noisy = tf.random.stateless_uniform((1, side, side, 3), (1, 2), -1, 1)
    middle = side // 2
    with tf.GradientTape() as tape:
        tape.watch(noisy)
        pixel = tf.reduce_sum(model(noisy)[0, middle, middle])
    rows = np.flatnonzero(np.abs(tape.gradient(pixel, noisy)).sum((0, 2, 3)))
    assert reach / 2 < max(middle - rows.min(), rows.max() - middle) <= reach


def test_the_discriminator_judges_30_by_30_patches_of_256_pixels() -> None:
    model = networks.discriminator(64)
    images = [np.zeros((2, 256, 256, 3), np.float32)] * 2
    assert model(images).shape == (2, 30, 30, 1)


@pytest.mark.parametrize("critic", [False, True])
def test_a_logit_of_the_discriminator_sees_exactly_70_by_70_pixels(critic: bool) -> None:
    model = networks.discriminator(4, critic)
    noisy = tf.random.stateless_uniform((1, 256, 256, 3), (1, 2), -1, 1)
    candidate = tf.random.stateless_uniform((1, 256, 256, 3), (3, 4), -1, 1)
    with tf.GradientTape() as tape:
        tape.watch([noisy, candidate])
        logit = model([noisy, candidate], training=False)[0, 15, 15, 0]
    for gradient in tape.gradient(logit, [noisy, candidate]):
        seen = np.abs(gradient.numpy()).sum((0, 3)) > 0
        rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
        assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (70, 70)


def test_a_critic_s_score_of_an_image_does_not_depend_on_the_others() -> None:
    images = tf.random.stateless_uniform((2, 64, 64, 3), (1, 2), -1, 1)
    for critic, same in ((True, True), (False, False)):
        model = networks.discriminator(4, critic)
        both, one = (model([x, x], training=True)[0] for x in (images, images[:1]))
        assert np.allclose(both, one, atol=1e-6) == same


def test_with_stride_2_all_layers_but_the_last_two_are_half_as_high_and_wide() -> None:
    model = networks.residual(Settings(width=4, levels=2, stride=2))
    between = keras.Model(model.input, [layer.output for layer in model.layers[1:-2]])
    sizes = {tuple(values.shape[1:3]) for values in between(tf.zeros((1, 32, 48, 3)))}
    assert sizes == {(16, 24), (8, 12)}


@pytest.mark.parametrize("stride", [1, 2])
def test_networks_give_float32_also_when_they_compute_in_bfloat16(stride: int) -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    noisy = np.full((1, 64, 64, 3), 0.3, np.float32)
    denoised = networks.residual(Settings(width=4, stride=stride))(noisy)
    assert denoised.dtype == tf.float32
    np.testing.assert_array_equal(noisy, denoised)  # the identity isn't rounded to bfloat16
    assert networks.discriminator(4)([noisy, noisy]).dtype == tf.float32


def _with_random_values(model: keras.Model) -> keras.Model:
    """Where a network begins as the identity its kernels are zero, and nothing would be seen."""
    for place, kernel in enumerate(model.trainable_variables):
        if not kernel.numpy().any():
            kernel.assign(0.1 * tf.random.stateless_normal(kernel.shape, (5, place)))
    return model
