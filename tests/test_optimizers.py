"""What the optimizers make of gradients: Adam as Keras's, Muon computed a second time by SVD."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pix2pix import optimizers

RATE = 1e-2


def _moved(shape: tuple[int, ...], gradients: list[np.ndarray]) -> np.ndarray:
    """How far Muon moves a variable that begins at zero."""
    variable = keras.Variable(np.zeros(shape, np.float32))
    muon = optimizers.Muon(RATE)
    muon.build([variable])
    for gradient in gradients:
        muon.apply([keras.ops.convert_to_tensor(gradient.astype(np.float32))], [variable])
    return np.asarray(variable)


def _rotation(matrix: np.ndarray) -> np.ndarray:
    """The orthogonal matrix nearest to one: all its singular values are 1."""
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return left @ right


@pytest.mark.parametrize("shape", [(3, 3, 8, 8), (2, 2, 8, 16), (3, 3, 4, 48), (2, 2, 32, 8)])
def test_a_kernel_s_step_is_the_rotation_in_its_gradient(shape: tuple[int, ...]) -> None:
    gradient = np.random.default_rng(0).normal(size=shape) * 1e-3
    matrix = gradient.reshape(-1, shape[-1])
    step = -_moved(shape, [gradient]).reshape(matrix.shape) / RATE
    step /= 0.2 * max(matrix.shape) ** 0.5
    # Newton and Schulz stop early: singular values come near 1 (Jordan et al.: 0.7 to 1.2)
    values = np.linalg.svd(step, compute_uv=False)
    assert 0.6 < values.min() <= values.max() < 1.3
    rotation = _rotation(matrix)
    agreement = np.vdot(step, rotation) / np.linalg.norm(step) / np.linalg.norm(rotation)
    assert agreement > 0.97


def test_small_directions_are_learned_as_fast_as_large_ones() -> None:
    chance = np.random.default_rng(1)
    left, _ = np.linalg.qr(chance.normal(size=(72, 8)))
    right, _ = np.linalg.qr(chance.normal(size=(8, 8)))
    gradient = (left * np.geomspace(1, 0.02, 8)) @ right.T
    step = _moved((3, 3, 8, 8), [gradient.reshape(3, 3, 8, 8)]).reshape(72, 8)
    along = -np.diag(left.T @ step @ right) / RATE / 0.2 / 72**0.5
    assert 0.6 < along.min() <= along.max() < 1.3


def test_a_step_is_as_long_however_steep_the_loss_is() -> None:
    gradient = np.random.default_rng(2).normal(size=(3, 3, 8, 8))
    np.testing.assert_allclose(
        _moved(gradient.shape, [gradient * 1e-4]), _moved(gradient.shape, [gradient]), atol=1e-4
    )
    assert np.sqrt(np.square(_moved(gradient.shape, [gradient])).mean()) == pytest.approx(
        0.2 * RATE, rel=0.3
    )


def test_the_momentum_is_nesterov_s() -> None:
    chance = np.random.default_rng(3)
    first, second = chance.normal(size=(2, 3, 3, 8, 8))
    momentum = 0.95 * first + second
    ahead = (second + 0.95 * momentum).reshape(-1, 8)
    step = _moved(first.shape, [first, second]) - _moved(first.shape, [first])
    step = -step.reshape(-1, 8)
    rotation = _rotation(ahead)
    agreement = np.vdot(step, rotation) / np.linalg.norm(step) / np.linalg.norm(rotation)
    assert agreement > 0.97


@pytest.mark.parametrize("shape", [(8,), (3, 3, 3, 8), (3, 3, 8, 3), (2, 2, 3, 8)])
def test_biases_and_what_reads_or_makes_colours_learn_by_adam(shape: tuple[int, ...]) -> None:
    gradients = list(np.random.default_rng(4).normal(size=(3, *shape)))
    variable = keras.Variable(np.zeros(shape, np.float32))
    adam = keras.optimizers.Adam(RATE)
    adam.build([variable])
    for gradient in gradients:
        adam.apply([keras.ops.convert_to_tensor(gradient.astype(np.float32))], [variable])
    np.testing.assert_allclose(_moved(shape, gradients), variable, rtol=1e-4, atol=1e-7)


def _learned(adam: keras.optimizers.Adam, steps: list[list[np.ndarray]]) -> list[np.ndarray]:
    """Variables that begin at one, and what Adam keeps, after steps at ever smaller rates."""
    variables = [keras.Variable(np.ones_like(each, np.float32)) for each in steps[0]]
    adam.build(variables)
    step = tf.function(lambda *gradients: adam.apply(gradients, variables))
    for place, gradients in enumerate(steps):
        adam.learning_rate = RATE / (1 + place)
        step(*[tf.constant(gradient, tf.float32) for gradient in gradients])
    return [np.asarray(each) for each in (*variables, *adam.variables)]


@pytest.mark.parametrize("beta_1", [0.5, 0.9])
def test_adam_is_keras_s(beta_1: float) -> None:
    chance, shapes = np.random.default_rng(5), [(3, 3, 8, 8), (8,), (1,)]
    steps = [[chance.normal(0, 10.0**-size, shape) for shape in shapes] for size in range(9)]
    ours = _learned(optimizers.Adam(RATE, beta_1), steps)
    keras_s = _learned(keras.optimizers.Adam(RATE, beta_1), steps)
    assert len(ours) == 3 + 2 + 6  # variables; its step and rate; two moments of each
    assert np.abs(ours[0] - 1).min() > RATE / 10
    for one, other in zip(ours, keras_s, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-9)  # 1 - 0.999f is 1.3e-5 off
