import math

import pytest
import tensorflow as tf

from pix2pix import losses


def test_l1_is_the_mean_absolute_error() -> None:
    clean = tf.constant([[[[1.0, -1.0, 0.0]]]])
    denoised = tf.constant([[[[0.5, 0.0, 0.0]]]])
    assert float(losses.l1(clean, denoised)) == pytest.approx(0.5)  # (0.5 + 1 + 0) / 3


def test_charbonnier_is_the_root_of_the_squared_error_and_epsilon() -> None:
    clean, denoised = tf.constant([[[[0.0, 0.0]]]]), tf.constant([[[[0.0, 0.0015]]]])
    expected = (0.002 + 0.0025) / 2  # 0, and 3 : 4 : 5
    assert float(losses.charbonnier(clean, denoised)) == pytest.approx(expected, rel=1e-5)


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


def test_losses_stay_finite_where_a_logit_is_huge() -> None:
    huge = tf.fill((1, 1, 1, 1), -1e4)
    assert float(losses.adversarial(huge)) == pytest.approx(1e4)
