"""The optimizers, for gradients that have been added up over the workers before.

Keras's own sum comes after its clipping, which would make what is learned depend on how many
workers share a batch. And a look at whether this processor adds gradients up right at all.
"""

import math

import keras
import tensorflow as tf

SMALLEST_CHANNELS = 4  # a convolution that reads or makes fewer (RGB) learns by Adam


class Adam(keras.optimizers.Adam):
    """Keras's Adam, whose step is TensorFlow's own operation.

    It goes through a variable's memory once, where Keras's dozen operations do so each.

    Source:
        Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2015, as formulated before 2.1.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars: list[tuple]) -> list[tuple]:
        return grads_and_vars

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: tf.Tensor
    ) -> None:
        """Changes one variable, and what is remembered of its gradients."""
        place, step = self._get_variable_index(variable), tf.cast(self.iterations + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle, grad=gradient, lr=learning_rate, epsilon=self.epsilon,
            m=self._momentums[place].value.handle, beta1=self.beta_1,
            v=self._velocities[place].value.handle, beta2=self.beta_2,
            beta1_power=self.beta_1**step, beta2_power=self.beta_2**step,
        )  # fmt: skip


class Muon(keras.optimizers.Muon):
    """Keras's Muon, for convolutions: each step of a kernel is nearly an orthogonal matrix.

    A kernel is taken as the matrix (height * width * channels, filters); for a transposed
    convolution rows and columns change places, which makes no difference. All singular values of
    its momentum become about one, so that directions in which gradients are small are learned as
    fast as the others. Biases, and kernels that read or make colours, learn by Adam.

    Args:
        rate: The learning rate: a step's root mean square is 0.2 of it, about as Adam's.
        beta_1: Adam's momentum. Muon's own stays Keras's (0.95, Nesterov's), as its five steps of
            Newton's and Schulz's iteration do.

    Source:
        Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024
        (https://kellerjordan.github.io/posts/muon/); scaled as in Liu et al., "Muon is Scalable for
        LLM Training", 2025, 2.2 (https://arxiv.org/abs/2502.16982). Where we differ: no decay of
        the weights.
    """

    def __init__(self, rate: float, beta_1: float = 0.9) -> None:
        super().__init__(rate, adam_beta_1=beta_1, adam_weight_decay=None, weight_decay=None)

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


def refuse_short_sums() -> None:
    """Refuses to train in bfloat16 where the gradients of biases are also summed in it.

    Its 8 bits end such a sum at 256, however many values follow. TensorFlow's own kernels do that
    (2.21); oneDNN's, which `auto` relies on, don't for a convolution. A transposed one's does in
    any case: of our networks the U-Net's last layer is one.

    Raises:
        ValueError: this process has TensorFlow's own.
    """

    @tf.function(autograph=False)  # alone, BiasAddGrad is TensorFlow's own in any case
    def gradients(image: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch((kernel, bias))
            values = tf.nn.bias_add(tf.nn.conv2d(image, kernel, 1, "SAME"), bias)
        return tape.gradient(values, (kernel, bias), output_gradients=image)

    shapes = (1, 64, 64, 1), (1, 1, 1, 1), (1,)
    total = float(gradients(*(tf.ones(shape, tf.bfloat16) for shape in shapes))[1][0])
    if total != 64 * 64:
        raise ValueError(
            "precision=bfloat16 can't train here, without oneDNN's layers: TensorFlow's own add "
            f"up the gradients of biases in it (4096 ones add up to {total:g}). Give --precision "
            "float32 and a new RUN; on a processor with avx512_bf16 or amx_bf16 don't set "
            "TF_ENABLE_ONEDNN_OPTS=0"
        )
