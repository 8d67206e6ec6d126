import math
from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf
from skimage.metrics import peak_signal_noise_ratio

from pix2pix import losses


def test_l1_is_the_mean_absolute_error() -> None:
    clean = tf.constant([[[[1.0, -1.0, 0.0]]]])
    denoised = tf.constant([[[[0.5, 0.0, 0.0]]]])
    assert float(losses.l1(clean, denoised)) == pytest.approx(0.5)  # (0.5 + 1 + 0) / 3


def test_charbonnier_is_the_root_of_the_squared_error_and_epsilon() -> None:
    clean, denoised = tf.constant([[[[0.0, 0.0]]]]), tf.constant([[[[0.0, 0.0015]]]])
    expected = (0.002 + 0.0025) / 2  # 0, and 3 : 4 : 5
    assert float(losses.charbonnier(clean, denoised)) == pytest.approx(expected, rel=1e-5)


def test_the_psnr_loss_falls_as_the_decibels_rise() -> None:
    chance = np.random.default_rng(0)
    clean = chance.uniform(-1, 1, (2, 8, 8, 3)).astype(np.float32)
    errors = chance.uniform(-0.2, 0.2, clean.shape).astype(np.float32)

    def decibels(denoised: np.ndarray) -> float:  # scikit-image's, patch by patch
        patches = zip(clean, denoised, strict=True)
        return float(np.mean([peak_signal_noise_ratio(*both, data_range=2) for both in patches]))

    few, many = clean + errors / 2, clean + errors
    fallen = float(losses.psnr(clean, many) - losses.psnr(clean, few))
    gained = decibels(few) - decibels(many)
    assert gained == pytest.approx(20 * math.log10(2), rel=1e-4)
    assert fallen == pytest.approx(gained * math.log(10) / 20, rel=1e-2)  # epsilon takes the rest
    assert float(losses.psnr(clean, clean)) == pytest.approx(math.log(losses.PSNR_EPSILON) / 2)


def test_the_psnr_loss_weighs_patches_alike_whatever_their_noise() -> None:
    clean, slightly, much = (
        tf.zeros((1, 4, 4, 3)),
        tf.fill((1, 4, 4, 3), 0.05),
        tf.ones((1, 4, 4, 3)),
    )
    both = tf.concat([slightly, much], 0), tf.concat([clean, clean], 0)
    halved = [float(losses.psnr(both[1], both[0] * tf.reshape(tf.constant(by), (2, 1, 1, 1))))
              for by in ([1.0, 1.0], [0.5, 1.0], [1.0, 0.5])]  # fmt: skip
    assert halved[0] - halved[1] == pytest.approx(halved[0] - halved[2], rel=1e-2)


def test_an_undecided_discriminator_costs_both_sides_ln_2() -> None:
    logits = tf.zeros((2, 30, 30, 1))
    assert float(losses.adversarial(logits)) == pytest.approx(math.log(2))
    assert float(losses.discrimination(logits, logits)) == pytest.approx(math.log(2))


def test_the_adversarial_loss_is_minus_the_logarithm_of_the_belief_in_clean() -> None:
    belief = 0.2
    logit = math.log(belief / (1 - belief))
    loss = losses.adversarial(tf.fill((1, 3, 3, 1), logit))
    assert float(loss) == pytest.approx(-math.log(belief), rel=1e-5)  # 1.609


def test_the_discriminator_pays_half_of_both_its_errors() -> None:
    clean_belief, denoised_belief = 0.9, 0.4
    loss = losses.discrimination(
        tf.fill((1, 2, 2, 1), math.log(0.9 / 0.1)), tf.fill((1, 2, 2, 1), math.log(0.4 / 0.6))
    )
    expected = (-math.log(clean_belief) - math.log(1 - denoised_belief)) / 2  # 0.3081
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_least_squares_cost_half_the_squared_distance_to_the_label() -> None:
    clean, denoised = tf.constant([[[[0.8]]]]), tf.constant([[[[0.4]]]])
    assert float(losses.adversarial(denoised, "lsgan")) == pytest.approx(0.6**2 / 2)
    expected = (0.2**2 + 0.4**2) / 2
    assert float(losses.discrimination(clean, denoised, "lsgan")) == pytest.approx(expected)


def test_an_undecided_least_squares_discriminator_costs_a_quarter() -> None:
    half = tf.fill((2, 3, 3, 1), 0.5)
    assert float(losses.discrimination(half, half, "lsgan")) == pytest.approx(0.25)
    assert float(losses.adversarial(half, "lsgan")) == pytest.approx(0.125)


def test_a_critic_pays_the_difference_of_its_mean_scores() -> None:
    clean, denoised = tf.constant([[[[3.0], [5.0]]]]), tf.constant([[[[1.0], [-2.0]]]])
    assert float(losses.discrimination(clean, denoised, "wgan-gp")) == pytest.approx(-4.5)
    assert float(losses.adversarial(denoised, "wgan-gp")) == pytest.approx(0.5)


def _linear_critic(slope: float) -> Callable[[tf.Tensor], tf.Tensor]:
    """Scores whose gradient has this norm everywhere."""
    direction = np.random.default_rng(0).normal(size=(4, 4, 3))
    weights = tf.constant(direction / np.linalg.norm(direction) * slope, tf.float32)
    return lambda images: tf.reduce_sum(images * weights, axis=(1, 2, 3), keepdims=True)


@pytest.mark.parametrize(("slope", "penalty"), [(1.0, 0.0), (3.0, 4.0), (0.0, 1.0)])
def test_the_gradient_penalty_of_a_linear_critic(slope: float, penalty: float) -> None:
    clean, denoised = tf.zeros((2, 4, 4, 3)), tf.ones((2, 4, 4, 3))
    mix = tf.constant([[[[0.2]]], [[[0.9]]]])
    value = losses.gradient_penalty(_linear_critic(slope), clean, denoised, mix)
    assert float(value) == pytest.approx(penalty, abs=1e-5)


def test_the_gradient_penalty_is_taken_between_clean_and_denoised() -> None:
    clean, denoised, mix = (
        tf.fill((1, 1, 1, 3), 1.0),
        tf.zeros((1, 1, 1, 3)),
        tf.fill((1, 1, 1, 1), 0.25),
    )
    value = losses.gradient_penalty(
        lambda images: tf.reduce_sum(tf.square(images), axis=(1, 2, 3), keepdims=True),
        clean, denoised, mix,
    )  # fmt: skip
    slope = 2 * 0.75 * math.sqrt(3)  # at 0.75, a quarter of the way from 1 to 0
    assert float(value) == pytest.approx((slope - 1) ** 2, rel=1e-5)


def test_an_image_s_score_is_the_mean_of_its_patches() -> None:
    clean, mix = tf.zeros((1, 4, 4, 3)), tf.zeros((1, 1, 1, 1))
    repeated = losses.gradient_penalty(
        lambda images: tf.tile(_linear_critic(3.0)(images), (1, 5, 5, 1)), clean, clean, mix
    )
    assert float(repeated) == pytest.approx(4, rel=1e-5)


def test_a_critic_learns_to_keep_its_slope() -> None:
    clean, denoised, mix = tf.zeros((1, 4, 4, 3)), tf.ones((1, 4, 4, 3)), tf.zeros((1, 1, 1, 1))
    slope = tf.Variable(3.0)
    with tf.GradientTape() as tape:
        value = losses.gradient_penalty(
            lambda images: slope * _linear_critic(1.0)(images), clean, denoised, mix
        )
    assert float(tape.gradient(value, slope)) == pytest.approx(4, rel=1e-4)  # 2 (3 - 1)


def test_losses_stay_finite_where_a_logit_is_huge() -> None:
    huge = tf.fill((1, 1, 1, 1), -1e4)
    assert float(losses.adversarial(huge)) == pytest.approx(1e4)
