"""The optimizers, for gradients that have been added up over the workers before.

Keras's own sum comes after its clipping, which would make what is learned depend on how many
workers share a batch.
"""

import math

import keras

SMALLEST_CHANNELS = 4  # a convolution that reads or makes fewer (RGB) has no rotation to speak of


class Adam(keras.optimizers.Adam):
    """Keras's Adam."""

    def _all_reduce_sum_gradients(self, grads_and_vars: list[tuple]) -> list[tuple]:
        return grads_and_vars


class Muon(keras.optimizers.Muon):
    """Keras's Muon, for convolutions: each step turns a kernel by an orthogonal matrix.

    The kernel of a convolution is the matrix from all it sees, (height * width * channels), to what
    it makes. Its momentum's singular values all become about one, so that the directions in which
    gradients are small are learned as fast as the others. Biases, and kernels that read or make
    colours, learn by Adam.

    Args:
        rate: The learning rate: an update's root mean square is 0.2 of it, about as Adam's.

    Source:
        Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024
        (https://kellerjordan.github.io/posts/muon/); scaled as in Liu et al., "Muon is Scalable for
        LLM Training", 2025, 2.2 (https://arxiv.org/abs/2502.16982). Where we differ: no decay of
        the weights.
    """

    def __init__(self, rate: float) -> None:
        super().__init__(rate, adam_weight_decay=None, weight_decay=None)

    def _all_reduce_sum_gradients(self, grads_and_vars: list[tuple]) -> list[tuple]:
        return grads_and_vars

    def _should_use_adamw(self, variable: keras.Variable) -> bool:
        return len(variable.shape) != 4 or min(variable.shape[2:]) < SMALLEST_CHANNELS

    def _muon_update_step(
        self,
        gradient: keras.KerasTensor,
        variable: keras.Variable,
        lr: keras.KerasTensor,
        m: keras.Variable,
    ) -> None:
        self.assign_add(m, gradient + m * (self.momentum - 1))
        rows, columns = math.prod(variable.shape[:-1]), variable.shape[-1]
        ahead = keras.ops.reshape(gradient + self.momentum * m, (rows, columns))  # Nesterov's
        update = self.zeropower_via_newtonschulz5(ahead, self.ns_steps)
        scale = self.rms_rate * max(rows, columns) ** 0.5
        self.assign_sub(variable, lr * scale * keras.ops.reshape(update, variable.shape))
