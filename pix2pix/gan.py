"""Both networks, both optimizers and the step that trains them in turn."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pix2pix import checkpoints, denoiser, losses, networks, optimizers
from pix2pix.settings import Settings, from_json

LOSSES = ("generator_loss", "l1_loss", "adversarial_loss", "discriminator_loss")
OPTIMIZERS = "optimizers.npz"
GENERATOR = "generator.weights.h5"  # in the state: the weights that learn, where others are kept
DISCRIMINATOR = "discriminator.weights.h5"
CONTENT = {"l1": losses.l1, "charbonnier": losses.charbonnier, "psnr": losses.psnr}
GENERATES, DISCRIMINATES = 0, 1  # places of the optimizers


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

    Raises:
        ValueError: the precision isn't one that this processor can train in.
    """

    def __init__(self, settings: Settings, strategy: tf.distribute.Strategy) -> None:
        keras.utils.set_random_seed(settings.seed)
        policy = denoiser.dtype_policy(settings.precision)
        if policy == "mixed_bfloat16":
            optimizers.refuse_short_sums()
        keras.config.set_dtype_policy(policy)
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
                if network is self.generator and settings.optimizer == "muon":
                    optimizer: Any = optimizers.Muon(rate, settings.beta_1)
                else:
                    optimizer = optimizers.Adam(rate, settings.beta_1)
                optimizer.build(network.trainable_variables)
                self.optimizers.append(optimizer)
        self.rate_share = 1.0
        # patches may grow: each size has a graph of its own, none is for all sizes. AutoGraph would
        # leave a file in the system's temporary folder for each, where a process is killed
        self._step, self._part, self._end = (
            tf.function(each, autograph=False)
            for each in (self._step_of_all, self._part_of_all, self._end_of_all)
        )

    def step(self, noisy: np.ndarray, clean: np.ndarray, judged: bool = True) -> tf.Tensor:
        """Trains the discriminator, then the generator once (Isola et al. 2017, 3.3).

        Every worker must call it as often as the others; it returns when all have.

        Args:
            noisy: This worker's patches, uint8 (batch / workers, height, width, 3), RGB.
            clean: Their counterparts.
            judged: Whether the discriminator takes part, if there is one; the same on all workers.

        Returns:
            float32 (4,): the `LOSSES`, means over this worker's patches.
        """
        judged = judged and self.discriminator is not None
        rate_share = tf.constant(self.rate_share, tf.float32)
        if self.settings.accumulation == 1:
            return self._step(tf.constant(noisy), tf.constant(clean), rate_share, judged)
        return self._step_in_parts(noisy, clean, rate_share, judged)

    def _step_in_parts(
        self, noisy: np.ndarray, clean: np.ndarray, rate_share: tf.Tensor, judged: bool
    ) -> tf.Tensor:
        """The same step with memory for a part of the patches at a time.

        For the discriminator the generator works once more, or it would have to hold all parts.
        """
        count, discrimination = self.settings.accumulation, tf.zeros(1)
        cuts = [np.split(levels, count) for levels in (noisy, clean)]

        def ended(place: int) -> tf.Tensor:
            sums: list[tf.Tensor] = []
            for part, both in enumerate(zip(*cuts, strict=True)):
                levels = [tf.constant(cut) for cut in both]
                given = self._part(*levels, tf.constant(part), place, judged)
                sums = [a + b for a, b in zip(sums, given, strict=True)] if sums else given
            return self._end([total / count for total in sums], rate_share, place, judged)

        for _ in range(self.settings.critic_steps if judged else 0):
            discrimination = ended(DISCRIMINATES)
        return tf.concat([ended(GENERATES), discrimination], 0)

    def _step_of_all(
        self, noisy: tf.Tensor, clean: tf.Tensor, rate_share: tf.Tensor, judged: bool
    ) -> tf.Tensor:
        self._set_rates(rate_share)
        values = self.strategy.run(self._step_of_one, args=(noisy, clean, judged))
        self._average()
        return self.strategy.experimental_local_results(values)[0]

    def _step_of_one(
        self, noisy_levels: tf.Tensor, clean_levels: tf.Tensor, judged: bool
    ) -> tf.Tensor:
        noisy, clean, discrimination = _scaled(noisy_levels), _scaled(clean_levels), tf.zeros(1)
        with tf.GradientTape() as tape:
            denoised = self.generator(noisy, training=True)
            with tape.stop_recording():
                for _ in range(self.settings.critic_steps if judged else 0):
                    discrimination, gradients = self._discriminated(noisy, clean, denoised, 0)
                    self._learn(DISCRIMINATES, gradients, judged)
            total, values = self._generator_losses(noisy, clean, denoised, judged)
        gradients = tape.gradient(total, self.generator.trainable_variables)
        self._learn(GENERATES, gradients, judged)
        return tf.concat([values, discrimination], 0)

    def _part_of_all(
        self, noisy: tf.Tensor, clean: tf.Tensor, part: tf.Tensor, place: int, judged: bool
    ) -> list[tf.Tensor]:
        return self.strategy.run(self._part_of_one, args=(noisy, clean, part, place, judged))

    def _part_of_one(
        self,
        noisy_levels: tf.Tensor,
        clean_levels: tf.Tensor,
        part: tf.Tensor,
        place: int,
        judged: bool,
    ) -> list[tf.Tensor]:
        """Losses and gradients of one network for a part of this worker's patches."""
        noisy, clean = _scaled(noisy_levels), _scaled(clean_levels)
        with tf.GradientTape() as tape:
            denoised = self.generator(noisy, training=True)
            if place == DISCRIMINATES:
                with tape.stop_recording():
                    values, gradients = self._discriminated(noisy, clean, denoised, part)
                return [values, *gradients]
            total, values = self._generator_losses(noisy, clean, denoised, judged)
        return [values, *tape.gradient(total, self.generator.trainable_variables)]

    def _end_of_all(
        self, means: list[tf.Tensor], rate_share: tf.Tensor, place: int, judged: bool
    ) -> tf.Tensor:
        self._set_rates(rate_share)
        values = self.strategy.run(self._end_of_one, args=(means, place, judged))
        if place == GENERATES:
            self._average()
        return self.strategy.experimental_local_results(values)[0]

    def _end_of_one(self, means: list[tf.Tensor], place: int, judged: bool) -> tf.Tensor:
        """Lets one network learn from the means of this worker's parts; gives its losses back."""
        values, *gradients = means
        self._learn(place, gradients, judged)
        return values

    def _generator_losses(
        self, noisy: tf.Tensor, clean: tf.Tensor, denoised: tf.Tensor, judged: bool
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """The generator's loss, and (3,): it, L1, and its adversarial part without the weight."""
        settings, adversarial = self.settings, tf.constant(0.0)
        if judged:
            logits = self.discriminator([noisy, denoised], training=True)
            adversarial = losses.adversarial(logits, settings.adversarial)
        content = CONTENT[settings.content_loss](clean, denoised)
        total = settings.adversarial_weight * adversarial + settings.l1_weight * content
        return total, tf.stack([total, losses.l1(clean, denoised), adversarial])

    def _discriminated(
        self, noisy: tf.Tensor, clean: tf.Tensor, denoised: tf.Tensor, part: tf.Tensor | int
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """The discriminator's loss, (1,), and its gradients."""
        settings = self.settings
        with tf.GradientTape() as tape:
            loss = losses.discrimination(
                self.discriminator([noisy, clean], training=True),
                self.discriminator([noisy, denoised], training=True),
                settings.adversarial,
            )
            if settings.adversarial == "wgan-gp":
                loss += settings.penalty_weight * losses.gradient_penalty(
                    lambda candidate: self.discriminator([noisy, candidate], training=True),
                    clean, denoised, self._mix(tf.shape(clean)[0], part),
                )  # fmt: skip
        return loss[tf.newaxis], tape.gradient(loss, self.discriminator.trainable_variables)

    def _mix(self, patches: tf.Tensor, part: tf.Tensor | int) -> tf.Tensor:
        """Chance in [0, 1) for each patch of a part, by its place in the batch of all workers."""
        worker = tf.distribute.get_replica_context().replica_id_in_sync_group
        parts = self.settings.accumulation
        count = self.strategy.num_replicas_in_sync * parts * patches
        step = tf.cast(self.optimizers[DISCRIMINATES].iterations, tf.int32)
        every = tf.random.stateless_uniform((count, 1, 1, 1), (self.settings.seed, step))
        first = (worker * parts + part) * patches
        return every[first : first + patches]

    def _learn(self, place: int, gradients: list[tf.Tensor], judged: bool) -> None:
        """Changes a network by the mean of the workers' gradients, clipped.

        Args:
            place: `GENERATES` or `DISCRIMINATES`.
            gradients: Of this worker's mean loss, one for each trainable variable.
            judged: Whether the generator's loss has an adversarial part.
        """
        settings, means = self.settings, self._means(place, gradients)
        if place == GENERATES:
            weights = settings.l1_weight + (settings.adversarial_weight if judged else 0)
        else:
            weights = 1 + (settings.penalty_weight if settings.adversarial == "wgan-gp" else 0)
        if settings.clip_norm > 0 and weights > 0:
            means, _ = tf.clip_by_global_norm(means, settings.clip_norm * weights)
        network = self.generator if place == GENERATES else self.discriminator
        self.optimizers[place].apply(means, network.trainable_variables)

    def _means(self, place: int, gradients: list[tf.Tensor]) -> list[tf.Tensor]:
        """A network's gradients as means over the workers.

        Where the generator computes in bfloat16, so its layers give no more bits, its gradients
        travel in it: half as much to send. Not between GPUs, where nobody has tried what
        TensorFlow makes of that.
        """
        count = self.strategy.num_replicas_in_sync
        if count == 1:  # nothing to copy into a parcel and out of it
            return gradients
        halved = self.generator.dtype_policy.compute_dtype == "bfloat16"
        on_cpus = not tf.config.get_visible_devices("GPU")
        mine = [each / count for each in gradients]
        if place == GENERATES and halved and on_cpus:
            mine = [tf.cast(each, tf.bfloat16) for each in mine]
        context = tf.distribute.get_replica_context()
        means = context.all_reduce(tf.distribute.ReduceOp.SUM, mine)
        return [tf.cast(each, tf.float32) for each in means]

    def _set_rates(self, rate_share: tf.Tensor) -> None:
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            optimizer.learning_rate = rate * rate_share

    def _average(self) -> None:
        """Moves the averaged weights towards the generator's; faster in the first steps."""
        if self.averaged is self.generator:
            return
        step = tf.cast(self.optimizers[GENERATES].iterations, tf.float32)  # 1 after the first
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
            folder: A local checkpoint of the same generator, or of one with fewer bottom blocks or
                channels at the top; its state isn't needed.
        """
        made_with = from_json((folder / checkpoints.SETTINGS).read_text())
        first = networks.generator(made_with)
        first.load_weights(folder / checkpoints.WEIGHTS)
        for network in (self.generator, self.averaged):
            networks.begin_as(network, first)

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


def _scaled(levels: tf.Tensor) -> tf.Tensor:
    """Levels 0 to 255 as float32 in [-1, 1]."""
    return tf.cast(levels, tf.float32) / 127.5 - 1.0
