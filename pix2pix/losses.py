"""The objectives: sigmoid cross-entropy against the discriminator, and two content losses.

Each is a mean over one worker's patches. Their weights have names in `Settings`:
generator loss = adversarial_weight * adversarial + l1_weight * content.
"""

import tensorflow as tf

CHARBONNIER_EPSILON = 2e-3  # in [-1, 1]: a quarter of an 8-bit level


def l1(clean: tf.Tensor, denoised: tf.Tensor) -> tf.Tensor:
    """The mean absolute error.

    Args:
        clean: float32 (batch, height, width, 3) in [-1, 1].
        denoised: The same shape.

    Returns:
        float32 scalar; 2 / 255 is one level of an 8-bit image.

    Source:
        Isola et al. 2017, equation 3.
    """
    return tf.reduce_mean(tf.abs(clean - denoised))


def charbonnier(clean: tf.Tensor, denoised: tf.Tensor) -> tf.Tensor:
    """A mean absolute error that is smooth around 0: sqrt(error^2 + epsilon^2).

    Args:
        clean: float32 (batch, height, width, 3) in [-1, 1].
        denoised: The same shape.

    Returns:
        float32 scalar, never below epsilon, which is 2e-3 here: 1e-3 of the range [0, 1].

    Source:
        Lai et al., "Deep Laplacian Pyramid Networks" (LapSRN), CVPR 2017, 3.2
        (https://arxiv.org/abs/1704.03915), where epsilon is 1e-3.
    """
    return tf.reduce_mean(tf.sqrt(tf.square(clean - denoised) + CHARBONNIER_EPSILON**2))


def adversarial(candidate_logits: tf.Tensor) -> tf.Tensor:
    """The generator's part: the cross-entropy of its images against the label "clean".

    Args:
        candidate_logits: float32 (batch, rows, columns, 1), the discriminator on denoised images.

    Returns:
        float32 scalar; ln 2 = 0.693 where the discriminator can't tell.

    Source:
        Isola et al. 2017, 3.3: maximise log D(x, G(x)) instead of minimising log(1 - D(x, G(x))).
    """
    return tf.reduce_mean(_cross_entropy(1.0, candidate_logits))


def discrimination(clean_logits: tf.Tensor, denoised_logits: tf.Tensor) -> tf.Tensor:
    """The discriminator's loss: half the sum of the cross-entropies on clean and on denoised.

    Args:
        clean_logits: float32 (batch, rows, columns, 1), on (noisy, clean).
        denoised_logits: The same shape, on (noisy, denoised).

    Returns:
        float32 scalar; ln 2 = 0.693 where it can't tell.

    Source:
        Isola et al. 2017, equation 1 and 3.3: "we divide the objective by 2 while optimizing D".
    """
    clean = tf.reduce_mean(_cross_entropy(1.0, clean_logits))
    denoised = tf.reduce_mean(_cross_entropy(0.0, denoised_logits))
    return (clean + denoised) / 2


def _cross_entropy(label: float, logits: tf.Tensor) -> tf.Tensor:
    return tf.nn.sigmoid_cross_entropy_with_logits(tf.fill(tf.shape(logits), label), logits)
