"""Both networks, both optimizers and the step that trains them in turn."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pix2pix import checkpoints, denoiser, losses, networks
from pix2pix.settings import Settings

LOSSES = ("generator_loss", "l1_loss", "adversarial_loss", "discriminator_loss")
OPTIMIZERS = "optimizers.npz"
GENERATOR = "generator.weights.h5"  # in the state: the weights that learn, where others are kept
DISCRIMINATOR = "discriminator.weights.h5"
CONTENT = {"l1": losses.l1, "charbonnier": losses.charbonnier, "psnr": losses.psnr}


class Adam(keras.optimizers.Adam):
    """Keras's, for gradients that have been added up over the workers before.

    Its own sum comes after its clipping, which would make what is learned depend on how many
    workers share a batch.
    """

    def _all_reduce_sum_gradients(self, grads_and_vars: list[tuple]) -> list[tuple]:
        return grads_and_vars


class Gan:
    """A generator and a discriminator that learn from each other, the same on every worker.

    Args:
        settings: What decides what is learned.
        strategy: Where the variables live and how workers add up their gradients.

    Attributes:
        generator: What learns.
        averaged: What denoises: its weights are running averages of the generator's; the generator
            itself where `settings.averaging` is 0.
        discriminator: None where `settings.judged` is false.
    """

    def __init__(self, settings: Settings, strategy: tf.distribute.Strategy) -> None:
        keras.utils.set_random_seed(settings.seed)
        keras.config.set_dtype_policy(denoiser.dtype_policy(settings.precision))
        self.settings, self.strategy = settings, strategy
        self.discriminator: Any = None
        with strategy.scope():
            self.generator = networks.generator(settings)
            learners = [(self.generator, settings.learning_rate)]
            if settings.judged:
                critic = settings.adversarial == "wgan-gp"
                self.discriminator = networks.discriminator(settings.discriminator_width, critic)
                learners.append((self.discriminator, settings.discriminator_learning_rate))
            self.averaged = self.generator
            if settings.averaging > 0:
                self.averaged = networks.generator(settings)
                self.averaged.set_weights(self.generator.get_weights())
            self.optimizers, self.rates = [], [rate for _, rate in learners]
            for network, rate in learners:
                optimizer = Adam(rate, settings.beta_1)
                optimizer.build(network.trainable_variables)
                self.optimizers.append(optimizer)
        self.rate_share = 1.0
        self._step = tf.function(self._step_of_all, reduce_retracing=True)

    def step(self, noisy: np.ndarray, clean: np.ndarray, judged: bool = True) -> tf.Tensor:
        """Trains the discriminator, then the generator once (Isola et al. 2017, 3.3).

        Every worker must call it as often as the others; it returns when all have.

        Args:
            noisy: This worker's patches, uint8 (batch / workers, height, width, 3), RGB.
            clean: Their counterparts.
            judged: Whether the discriminator takes part, if there is one; the same on all workers.

        Returns:
            float32 (4,): the `LOSSES`, means over the batches of all workers.
        """
        judged = judged and self.discriminator is not None
        rate_share = tf.constant(self.rate_share, tf.float32)
        return self._step(tf.constant(noisy), tf.constant(clean), rate_share, judged)

    def _step_of_all(
        self, noisy: tf.Tensor, clean: tf.Tensor, rate_share: tf.Tensor, judged: bool
    ) -> tf.Tensor:
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            optimizer.learning_rate = rate * rate_share
        parts = self.strategy.run(self._step_of_one, args=(noisy, clean, judged))
        self._average()
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)

    def _step_of_one(
        self, noisy_levels: tf.Tensor, clean_levels: tf.Tensor, judged: bool
    ) -> tf.Tensor:
        noisy = tf.cast(noisy_levels, tf.float32) / 127.5 - 1.0
        clean = tf.cast(clean_levels, tf.float32) / 127.5 - 1.0
        discrimination = tf.constant(0.0)
        with tf.GradientTape() as tape:
            denoised = self.generator(noisy, training=True)
            with tape.stop_recording():
                for _ in range(self.settings.critic_steps if judged else 0):
                    discrimination = self._train_discriminator(noisy, clean, denoised)
            total, adversarial = self._generator_loss(noisy, clean, denoised, judged)
        gradients = tape.gradient(total, self.generator.trainable_variables)
        weights = self.settings.l1_weight + (self.settings.adversarial_weight if judged else 0.0)
        self._learn(0, self.generator, gradients, weights)
        parts = tf.stack([total, losses.l1(clean, denoised), adversarial, discrimination])
        return parts / self.strategy.num_replicas_in_sync

    def _generator_loss(
        self, noisy: tf.Tensor, clean: tf.Tensor, denoised: tf.Tensor, judged: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The generator's whole loss, and the adversarial part of it without its weight."""
        settings, adversarial = self.settings, tf.constant(0.0)
        if judged:
            logits = self.discriminator([noisy, denoised], training=True)
            adversarial = losses.adversarial(logits, settings.adversarial)
        content = CONTENT[settings.content_loss](clean, denoised)
        total = settings.adversarial_weight * adversarial + settings.l1_weight * content
        return total, adversarial

    def _train_discriminator(
        self, noisy: tf.Tensor, clean: tf.Tensor, denoised: tf.Tensor
    ) -> tf.Tensor:
        """Changes the discriminator once; its loss before that."""
        settings, weights = self.settings, 1.0
        with tf.GradientTape() as tape:
            loss = losses.discrimination(
                self.discriminator([noisy, clean], training=True),
                self.discriminator([noisy, denoised], training=True),
                settings.adversarial,
            )
            if settings.adversarial == "wgan-gp":
                weights += settings.penalty_weight
                loss += settings.penalty_weight * losses.gradient_penalty(
                    lambda candidate: self.discriminator([noisy, candidate], training=True),
                    clean, denoised, self._mix(tf.shape(clean)[0]),
                )  # fmt: skip
        gradients = tape.gradient(loss, self.discriminator.trainable_variables)
        self._learn(1, self.discriminator, gradients, weights)
        return loss

    def _mix(self, patches: tf.Tensor) -> tf.Tensor:
        """Chance in [0, 1) for each of this worker's patches, by its place in the whole batch."""
        context, workers = tf.distribute.get_replica_context(), self.strategy.num_replicas_in_sync
        step = tf.cast(self.optimizers[1].iterations, tf.int32)
        every = tf.random.stateless_uniform(
            (workers * patches, 1, 1, 1), (self.settings.seed, step)
        )
        first = context.replica_id_in_sync_group * patches
        return every[first : first + patches]

    def _learn(
        self, place: int, network: keras.Model, gradients: list[tf.Tensor], weights: float
    ) -> None:
        """Changes a network by the mean of the workers' gradients, clipped.

        Args:
            place: The optimizer's number.
            network: What learns.
            gradients: Of this worker's mean loss, one for each trainable variable.
            weights: The sum of the weights of the losses.
        """
        context = tf.distribute.get_replica_context()
        share = 1 / self.strategy.num_replicas_in_sync
        summed = context.all_reduce(tf.distribute.ReduceOp.SUM, [share * g for g in gradients])
        if self.settings.clip_norm > 0:
            summed, _ = tf.clip_by_global_norm(summed, self.settings.clip_norm * weights)
        self.optimizers[place].apply(summed, network.trainable_variables)

    def _average(self) -> None:
        """Moves the averaged weights towards the generator's; faster in the first steps."""
        if self.averaged is self.generator:
            return
        step = tf.cast(self.optimizers[0].iterations, tf.float32)  # 1 after the first
        kept = tf.minimum(self.settings.averaging, (1 + step) / (10 + step))
        for average, weight in zip(self.averaged.weights, self.generator.weights, strict=True):
            average.assign(weight + kept * (average - weight))

    def learn_at(self, share: float) -> None:
        """Sets the learning rates from the next step on, as a share of those in the settings."""
        self.rate_share = share

    def is_finite(self) -> bool:
        """Whether all that a checkpoint would hold is finite."""
        kept = [*self.generator.variables, *self.averaged.variables]
        kept += self.discriminator.variables if self.discriminator else []
        kept += [variable for optimizer in self.optimizers for variable in optimizer.variables]
        return all(np.isfinite(np.asarray(variable, np.float64)).all() for variable in kept)

    def save(self, folder: Path) -> None:
        """Writes into a local checkpoint folder what denoises, and beside it what learns."""
        state = folder / checkpoints.STATE
        state.mkdir(parents=True, exist_ok=True)
        self.averaged.save_weights(folder / checkpoints.WEIGHTS)
        if self.averaged is not self.generator:
            self.generator.save_weights(state / GENERATOR)
        if self.discriminator:
            self.discriminator.save_weights(state / DISCRIMINATOR)
        values = {
            f"{index}/{place}": np.asarray(variable)
            for index, optimizer in enumerate(self.optimizers)
            for place, variable in enumerate(optimizer.variables)
        }
        np.savez(state / OPTIMIZERS, allow_pickle=False, **values)

    def start(self, folder: Path) -> None:
        """Begins with a checkpoint's weights; optimizers and discriminator stay as they are.

        Args:
            folder: A local checkpoint of the same generator; its state isn't needed.
        """
        for network in (self.generator, self.averaged):
            network.load_weights(folder / checkpoints.WEIGHTS)

    def restore(self, folder: Path) -> None:
        """Takes over what `save` wrote, so that the next step is the one that would have come.

        What `learn_at` has set is no part of it: it follows from the step.

        Raises:
            ValueError: the folder holds other networks.
        """
        state = folder / checkpoints.STATE
        self.averaged.load_weights(folder / checkpoints.WEIGHTS)
        if self.averaged is not self.generator:  # 0.1.0 and before wrote no averages
            learning = state / GENERATOR
            self.generator.load_weights(
                learning if learning.exists() else folder / checkpoints.WEIGHTS
            )
        if self.discriminator:
            self.discriminator.load_weights(state / DISCRIMINATOR)
        with np.load(state / OPTIMIZERS) as values:
            for index, optimizer in enumerate(self.optimizers):
                for place, variable in enumerate(optimizer.variables):
                    variable.assign(values[f"{index}/{place}"])
