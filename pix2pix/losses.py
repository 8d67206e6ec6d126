"""The objectives: three adversarial ones against the discriminator, and three content losses.

Each is a mean over one worker's patches. Their weights have names in `Settings`:
generator loss = adversarial_weight * adversarial + l1_weight * content, and for "wgan-gp"
discriminator loss = discrimination + penalty_weight * gradient penalty.
"""

from collections.abc import Callable

import tensorflow as tf

CHARBONNIER_EPSILON = 2e-3  # in [-1, 1]: a quarter of an 8-bit level
PSNR_EPSILON = 1e-5  # a mean squared error in [-1, 1]: that of 0.4 levels, little over rounding's


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


def psnr(clean: tf.Tensor, denoised: tf.Tensor) -> tf.Tensor:
    """Half the logarithm of each patch's mean squared error: minus its PSNR, but for a factor.

    A patch with little noise weighs as much as one with much: what counts is by which factor the
    error falls. Under `l1` the noisiest patches decide, and nearly clean ones get blurred.

    Args:
        clean: float32 (batch, height, width, 3) in [-1, 1].
        denoised: The same shape.

    Returns:
        float32 scalar, the mean over the patches of ln(MSE + epsilon) / 2: 0.115 less is one
        decibel more. Never below -5.76, where no level is off by more than rounding.

    Source:
        Chen et al., "HINet", CVPR Workshops 2021, equation 4 (https://arxiv.org/abs/2105.06086),
        which NAFNet (ECCV 2022) kept. Where we differ: the factor, and epsilon is that of an error
        which can't be seen, so that clean patches don't outweigh all others.
    """
    errors = tf.reduce_mean(tf.square(clean - denoised), axis=(1, 2, 3))  # (batch,)
    return tf.reduce_mean(tf.math.log(errors + PSNR_EPSILON)) / 2


def adversarial(candidate_logits: tf.Tensor, objective: str = "bce") -> tf.Tensor:
    """The generator's part: how far its images are from being taken for clean ones.

    Args:
        candidate_logits: float32 (batch, rows, columns, 1), the discriminator on denoised images.
        objective: `bce`: cross-entropy against the label "clean", ln 2 = 0.693 where the
            discriminator can't tell. `lsgan`: half the squared distance to the label 1, an eighth
            there. `wgan-gp`: minus the critic's mean score.

    Returns:
        float32 scalar.

    Source:
        bce: Isola et al. 2017, 3.3: maximise log D(x, G(x)), not minimise log(1 - D(x, G(x))).
        lsgan: Mao et al., "Least Squares Generative Adversarial Networks", ICCV 2017, equation 9
        (https://arxiv.org/abs/1611.04076). wgan-gp: Arjovsky et al., "Wasserstein GAN", ICML 2017,
        algorithm 1 (https://arxiv.org/abs/1701.07875).
    """
    if objective == "wgan-gp":
        return -tf.reduce_mean(candidate_logits)
    if objective == "lsgan":
        return tf.reduce_mean(tf.square(candidate_logits - 1.0)) / 2
    return tf.reduce_mean(_cross_entropy(1.0, candidate_logits))


def discrimination(
    clean_logits: tf.Tensor, denoised_logits: tf.Tensor, objective: str = "bce"
) -> tf.Tensor:
    """The discriminator's loss: what it gets wrong about clean and about denoised images.

    Args:
        clean_logits: float32 (batch, rows, columns, 1), on (noisy, clean).
        denoised_logits: The same shape, on (noisy, denoised).
        objective: `bce`: half the sum of both cross-entropies, ln 2 = 0.693 where it can't tell.
            `lsgan`: half the squared distances to 1 and to 0, a quarter there. `wgan-gp`: the mean
            score of denoised less that of clean images: 0 there, negative where it can tell.

    Returns:
        float32 scalar.

    Source:
        bce: Isola et al. 2017, equation 1 and 3.3: "we divide the objective by 2 while optimizing
        D". lsgan: Mao et al. 2017, equation 9. wgan-gp: Gulrajani et al. 2017, equation 3, whose
        second term is `gradient_penalty`.
    """
    if objective == "wgan-gp":
        return tf.reduce_mean(denoised_logits) - tf.reduce_mean(clean_logits)
    if objective == "lsgan":
        errors = tf.square(clean_logits - 1.0) + tf.square(denoised_logits)
        return tf.reduce_mean(errors) / 2
    clean = tf.reduce_mean(_cross_entropy(1.0, clean_logits))
    denoised = tf.reduce_mean(_cross_entropy(0.0, denoised_logits))
    return (clean + denoised) / 2


def gradient_penalty(
    critic: Callable[[tf.Tensor], tf.Tensor],
    clean: tf.Tensor,
    denoised: tf.Tensor,
    mix: tf.Tensor,
) -> tf.Tensor:
    """How far the slope of a critic is from 1 on the way from clean to denoised images.

    Args:
        critic: From candidates to scores (batch, rows, columns, 1), an image's independent of the
            other images'. An image's score is the mean of those of its patches.
        clean: float32 (batch, height, width, 3) in [-1, 1].
        denoised: The same shape.
        mix: float32 (batch, 1, 1, 1) in [0, 1): where on the way; 0 is clean.

    Returns:
        float32 scalar: the mean of (norm of the slope - 1)^2.

    Source:
        Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, equation 3
        (https://arxiv.org/abs/1704.00028), for a conditional PatchGAN as in Tirel et al., "Novel
        Hybrid Integrated Pix2Pix and WGAN Model with Gradient Penalty for Binary Images
        Denoising", 2024 (https://arxiv.org/abs/2407.11865): the noisy image stays as it is.
    """
    between = clean + mix * (denoised - clean)
    with tf.GradientTape() as tape:
        tape.watch(between)
        scores = tf.reduce_mean(critic(between), axis=(1, 2, 3))  # (batch,)
    slopes = tape.gradient(scores, between)  # of the sum: images don't depend on each other
    squares = tf.reduce_sum(tf.square(slopes), axis=(1, 2, 3))
    norms = tf.sqrt(squares + 1e-12)  # a root has no slope at 0
    return tf.reduce_mean(tf.square(norms - 1.0))


def _cross_entropy(label: float, logits: tf.Tensor) -> tf.Tensor:
    return tf.nn.sigmoid_cross_entropy_with_logits(tf.fill(tf.shape(logits), label), logits)
