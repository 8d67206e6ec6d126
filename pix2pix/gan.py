"""Both networks, both optimizers and the step that trains them in turn."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from pix2pix import checkpoints, denoiser, losses, networks
from pix2pix.settings import Settings

LOSSES = ("generator_loss", "l1_loss", "adversarial_loss", "discriminator_loss")
OPTIMIZERS = "optimizers.npz"
DISCRIMINATOR = "discriminator.weights.h5"


class Gan:
    """A generator and a discriminator that learn from each other, the same on every worker.

    Args:
        settings: What decides what is learned.
        strategy: Where the variables live and how workers add up their gradients.
    """

    def __init__(self, settings: Settings, strategy: tf.distribute.Strategy) -> None:
        keras.utils.set_random_seed(settings.seed)
        keras.config.set_dtype_policy(denoiser.dtype_policy(settings.precision))
        self.settings, self.strategy = settings, strategy
        with strategy.scope():
            self.generator = networks.generator(settings)
            self.discriminator = networks.discriminator(settings.discriminator_width)
            self.optimizers = []
            self.rates = (settings.learning_rate, settings.discriminator_learning_rate)
            for network, rate in zip((self.generator, self.discriminator), self.rates, strict=True):
                optimizer = keras.optimizers.Adam(rate, settings.beta_1)
                optimizer.build(network.trainable_variables)
                self.optimizers.append(optimizer)
        self._step = tf.function(self._step_of_all, reduce_retracing=True)

    def step(self, noisy: np.ndarray, clean: np.ndarray) -> tf.Tensor:
        """Trains the discriminator once, then the generator once (Isola et al. 2017, 3.3).

        Every worker must call it as often as the others; it returns when all have.

        Args:
            noisy: This worker's patches, uint8 (batch / workers, height, width, 3), RGB.
            clean: Their counterparts.

        Returns:
            float32 (4,): the `LOSSES`, means over the batches of all workers.
        """
        return self._step(tf.constant(noisy), tf.constant(clean))

    def _step_of_all(self, noisy: tf.Tensor, clean: tf.Tensor) -> tf.Tensor:
        parts = self.strategy.run(self._step_of_one, args=(noisy, clean))
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)

    def _step_of_one(self, noisy_levels: tf.Tensor, clean_levels: tf.Tensor) -> tf.Tensor:
        settings, workers = self.settings, self.strategy.num_replicas_in_sync
        noisy = tf.cast(noisy_levels, tf.float32) / 127.5 - 1.0
        clean = tf.cast(clean_levels, tf.float32) / 127.5 - 1.0
        adversarial, discrimination = tf.constant(0.0), tf.constant(0.0)
        with tf.GradientTape() as tape:
            denoised = self.generator(noisy, training=True)
            if settings.adversarial_weight > 0:
                with tape.stop_recording():
                    discrimination = self._train_discriminator(noisy, clean, denoised)
                logits = self.discriminator([noisy, denoised], training=True)
                adversarial = losses.adversarial(logits)
            l1 = losses.l1(clean, denoised)
            total = settings.adversarial_weight * adversarial + settings.l1_weight * l1
            share = total / workers  # the optimizer adds the workers' gradients up
        variables = self.generator.trainable_variables
        self.optimizers[0].apply(tape.gradient(share, variables), variables)
        return tf.stack([total, l1, adversarial, discrimination]) / workers

    def _train_discriminator(
        self, noisy: tf.Tensor, clean: tf.Tensor, denoised: tf.Tensor
    ) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = losses.discrimination(
                self.discriminator([noisy, clean], training=True),
                self.discriminator([noisy, denoised], training=True),
            )
            share = loss / self.strategy.num_replicas_in_sync
        variables = self.discriminator.trainable_variables
        self.optimizers[1].apply(tape.gradient(share, variables), variables)
        return loss

    def learn_at(self, share: float) -> None:
        """Sets the learning rates of both optimizers to a share of those in the settings."""
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            optimizer.learning_rate = rate * share

    def is_finite(self) -> bool:
        """Whether all that a checkpoint would hold is finite."""
        kept = [*self.generator.variables, *self.discriminator.variables]
        kept += [variable for optimizer in self.optimizers for variable in optimizer.variables]
        return all(np.isfinite(np.asarray(variable, np.float64)).all() for variable in kept)

    def save(self, folder: Path) -> None:
        """Writes generator, discriminator and optimizers into a local checkpoint folder."""
        state = folder / checkpoints.STATE
        state.mkdir(parents=True, exist_ok=True)
        self.generator.save_weights(folder / checkpoints.WEIGHTS)
        self.discriminator.save_weights(state / DISCRIMINATOR)
        values = {
            f"{index}/{place}": np.asarray(variable)
            for index, optimizer in enumerate(self.optimizers)
            for place, variable in enumerate(optimizer.variables)
        }
        np.savez(state / OPTIMIZERS, allow_pickle=False, **values)

    def restore(self, folder: Path) -> None:
        """Takes over what `save` wrote, so that the next step is the one that would have come.

        Raises:
            ValueError: the folder holds other networks.
        """
        state = folder / checkpoints.STATE
        self.generator.load_weights(folder / checkpoints.WEIGHTS)
        self.discriminator.load_weights(state / DISCRIMINATOR)
        with np.load(state / OPTIMIZERS) as values:
            for index, optimizer in enumerate(self.optimizers):
                for place, variable in enumerate(optimizer.variables):
                    variable.assign(values[f"{index}/{place}"])
