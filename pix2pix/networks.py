"""The generators and the PatchGAN discriminator, in Keras 3.

All take and give float32 (batch, height, width, 3) in [-1, 1], RGB. Under a mixed dtype policy the
layers compute in the policy's dtype; the last step of each network is always float32.
"""

import keras
import numpy as np

from pix2pix.settings import Settings

BOTTOM = "bottom_"  # begins the names of the layers of bottom blocks
UNET_WIDTHS = (64, 128, 256, 512, 512, 512, 512, 512)  # Isola et al. 2017, 6.1.1: encoder


def generator(settings: Settings) -> keras.Model:
    """The generator that the settings name, freshly initialised.

    Args:
        settings: `generator`, and for the residual one its widths, `levels`, numbers of blocks
            and `stride`.

    Returns:
        A model noisy -> denoised; heights and widths are multiples of `settings.pixel_multiple`.
    """
    return unet() if settings.generator == "unet" else residual(settings)


def unet() -> keras.Model:
    """The pix2pix U-Net for 256x256: 8 steps down, 7 up, 54,425,859 parameters.

    Returns:
        A model noisy -> denoised with tanh at its end, for multiples of 256 pixels.

    Source:
        Isola et al. 2017, 6.1.1 (C64-C128-C256-C512-C512-C512-C512-C512, CD512-CD512-CD512-C512-
        C256-C128-C64); biases and the unnormalised bottleneck as in TensorFlow's own tutorial
        (https://www.tensorflow.org/tutorials/generative/pix2pix), which gives the parameter count.
        Where we differ: the bottleneck's BatchNorm is kept as there, although the paper's erratum
        notes that at batch 1 it zeroes the bottleneck; dropout and batch statistics are off when
        denoising, so that a picture does not depend on chance or on its neighbours; batch
        statistics are taken over all workers, so that they don't depend on their number.
    """
    initial = keras.initializers.RandomNormal(0.0, 0.02)  # 6.2
    noisy = keras.Input((None, None, 3), name="noisy")
    x, skips = noisy, []
    for depth, width in enumerate(UNET_WIDTHS):
        x = keras.layers.Conv2D(
            width, 4, 2, padding="same", use_bias=False, kernel_initializer=initial
        )(x)  # (batch, height / 2^(depth + 1), width / 2^(depth + 1), width)
        if depth > 0:
            x = keras.layers.BatchNormalization(synchronized=True)(x)
        x = keras.layers.LeakyReLU(negative_slope=0.2)(x)
        skips.append(x)
    for step, (width, skip) in enumerate(
        zip((512, 512, 512, 512, 256, 128, 64), skips[-2::-1], strict=True)
    ):
        x = keras.layers.Conv2DTranspose(
            width, 4, 2, padding="same", use_bias=False, kernel_initializer=initial
        )(x)
        x = keras.layers.BatchNormalization(synchronized=True)(x)
        if step < 3:
            x = keras.layers.Dropout(0.5)(x)
        x = keras.layers.ReLU()(x)
        x = keras.layers.Concatenate()([x, skip])  # (batch, 2^(step + 1), ..., 2 * width)
    x = keras.layers.Conv2DTranspose(3, 4, 2, padding="same", kernel_initializer=initial)(x)
    denoised = keras.layers.Activation("tanh", dtype="float32")(x)  # (batch, height, width, 3)
    return keras.Model(noisy, denoised, name="unet")


def residual(settings: Settings) -> keras.Model:
    """The default denoiser: a U-Net that predicts the noise and subtracts it.

    It starts as the identity (its last layer is zero), so it can't begin worse than its input,
    and it has no batch statistics, so a pixel depends on its surroundings alone.

    Args:
        settings: `width`, `top_width`, `levels`, `blocks`, `first_blocks`, `bottom_blocks` and
            `stride`.

    Returns:
        A fully convolutional model noisy -> denoised, for multiples of `settings.pixel_multiple`.
        It is not limited to [-1, 1]: whoever stores pixels clips them.

    Source:
        Residual learning: Zhang et al., "Beyond a Gaussian Denoiser" (DnCNN), TIP 2017, 3.2
        (https://arxiv.org/abs/1608.03981). A U-Net of residual blocks with strided 2x2
        convolutions and additive skips: Zhang et al., "Plug-and-Play Image Restoration with Deep
        Denoiser Prior" (DRUNet), TPAMI 2021, 3.1 (https://arxiv.org/abs/2008.13751). Where we
        differ: fewer blocks and channels, biases, blind (no noise map), zero-initialised end.
        Stride 2, every layer at half resolution: Zhang et al., "FFDNet", TIP 2018, III-B
        (https://arxiv.org/abs/1710.04026). Where we differ: a 4x4 convolution reads the pixels, so
        that neighbouring places share some, and not each 2x2 of them as 12 channels.
    """
    noisy = keras.Input((None, None, 3), name="noisy")
    widths = settings.widths
    x = keras.layers.Conv2D(widths[0], 2 + settings.stride, settings.stride, padding="same")(noisy)
    skips = []
    for level, (width, blocks) in enumerate(zip(widths, settings.blocks_down, strict=True)):
        if level > 0:
            skips.append(x)
            x = keras.layers.Conv2D(width, 2, 2)(x)  # half as high and wide
        for _ in range(blocks):
            x = _block(x, width)
    for number in range(settings.bottom_blocks):
        x = _block(x, widths[-1], f"{BOTTOM}{number}")
    for width in widths[-2::-1]:
        x = Doubled(width, 2, 2)(x)  # twice as high and wide
        x = keras.layers.Add()([x, skips.pop()])
        for _ in range(settings.blocks):
            x = _block(x, width)
    last = {"kernel_initializer": "zeros", "name": "noise"}
    if settings.stride == 1:
        noise = keras.layers.Conv2D(3, 3, padding="same", **last)(x)  # (batch, height, width, 3)
    else:
        noise = Doubled(3, 2, 2, **last)(x)  # likewise
    denoised = keras.layers.Subtract(dtype="float32", name="denoised")([noisy, noise])
    return keras.Model(noisy, denoised, name="residual")


class Doubled(keras.layers.Conv2DTranspose):
    """The 2x2 transposed convolution of stride 2, as two 1x1 convolutions for even and odd rows.

    The same sums with the same weights. oneDNN's own in bfloat16 keeps 100 bytes per pixel for
    each shape that it has met, for ever: ten sizes of photographs cost 2 GB.
    """

    def call(self, inputs: keras.KerasTensor) -> keras.KerasTensor:
        """(batch, height, width, channels) -> (batch, 2 height, 2 width, filters)."""
        batch, height, width, channels = keras.ops.shape(inputs)
        bias = keras.ops.concatenate([self.bias, self.bias])
        rows = []
        for row in range(2):
            kernel = keras.ops.transpose(self.kernel[row], (2, 0, 1))  # (channels, 2, filters)
            kernel = keras.ops.reshape(kernel, (1, 1, channels, 2 * self.filters))
            values = keras.ops.conv(inputs, kernel) + bias
            rows.append(keras.ops.reshape(values, (batch, height, 1, width * 2 * self.filters)))
        both = keras.ops.concatenate(rows, axis=2)  # whole rows are copied: almost for nothing
        return keras.ops.reshape(both, (batch, 2 * height, 2 * width, self.filters))


def _block(x: keras.KerasTensor, width: int, name: str | None = None) -> keras.KerasTensor:
    """Two 3x3 convolutions with a ReLU between, added to what came in; He-initialised.

    A named block begins as the identity, so that a network can grow by it.
    """
    first, second = (name and f"{name}_{part}" for part in ("first", "second"))
    y = keras.layers.Conv2D(
        width, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=first
    )(x)
    last = "zeros" if name else "glorot_uniform"
    y = keras.layers.Conv2D(width, 3, padding="same", kernel_initializer=last, name=second)(y)
    return keras.layers.Add()([x, y])


def begin_as(model: keras.Model, other: keras.Model) -> None:
    """Gives a generator the weights of another with no more bottom blocks or channels than it.

    Both denoise alike: blocks that the other lacks stay the identity that they begin as, and what
    it has learned doesn't see the channels that it lacks; those are as freshly initialised.
    """
    theirs = {layer.name for layer in other.layers}
    shared = [layer for layer in model.layers
              if layer.name in theirs or not layer.name.startswith(BOTTOM)]  # fmt: skip
    learned = [layer for layer in other.layers if layer.weights]
    for layer, old in zip([each for each in shared if each.weights], learned, strict=True):
        layer.set_weights(_widened(layer, old.get_weights()))


def _widened(layer: keras.layers.Layer, old: list[np.ndarray]) -> list[np.ndarray]:
    """What a layer begins with: a narrower one's weights; the channels it lacks are not seen."""
    begun = layer.get_weights()
    if [each.shape for each in begun] == [each.shape for each in old]:
        return old
    axes = (3, 2) if isinstance(layer, Doubled) else (2, 3)  # channels that are read, and made
    (kernel, bias), (old_kernel, old_bias) = begun, old
    values, known = np.moveaxis(kernel, axes, (0, 1)), np.moveaxis(old_kernel, axes, (0, 1))
    read, made = known.shape[:2]
    values[read:, :made] = 0
    values[:read, :made] = known
    bias[:made] = old_bias
    return [kernel, bias]


def context_pixels(settings: Settings) -> int:
    """How far a generator's output looks in each direction, in pixels (an upper bound).

    Args:
        settings: `levels`, numbers of blocks and `stride` of the residual generator; for the
            U-Net, whose field of view is larger than its 256 pixels, a quarter of a tile is what
            tiles overlap at most.
    """
    if settings.generator == "unet":
        return 32
    down = [2 * count * 2**level for level, count in enumerate(settings.blocks_down)]
    up = [2 * settings.blocks * 2**level for level in range(settings.levels - 1)]
    further = 2 * settings.bottom_blocks * 2 ** (settings.levels - 1)
    places = further + sum(down) + sum(up) + 2 ** (settings.levels - 1) - 1
    return 2 + settings.stride * places


def discriminator(width: int, critic: bool = False) -> keras.Model:
    """The 70x70 PatchGAN: judges overlapping patches of a candidate, seen beside the noisy image.

    Args:
        width: Channels of the first layer; the paper's is 64.
        critic: For a gradient penalty, which needs an image's score not to depend on the images
            beside it: LayerNorm over the channels of each place instead of BatchNorm.

    Returns:
        A model [noisy, candidate] -> float32 logits (batch, height / 8 - 2, width / 8 - 2, 1),
        positive for "clean photograph"; 256x256 -> 30x30.

    Source:
        Isola et al. 2017, 6.1.2 (C64-C128-C256-C512, then one convolution to 1 channel; no
        BatchNorm in the first). Where we differ: logits instead of a sigmoid, which the loss
        applies; batch statistics over all workers. What it must see is noise, whose amplitude is
        near bfloat16's step (2^-8 at 1): images, first layer and normalisation are always float32.
        The critic: Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, 4: no
        BatchNorm, but LayerNorm; over channels alone, so that a logit still sees 70x70 pixels.
    """
    initial = keras.initializers.RandomNormal(0.0, 0.02)

    def normalised(x: keras.KerasTensor) -> keras.KerasTensor:
        if critic:
            return keras.layers.LayerNormalization(dtype="float32")(x)
        return keras.layers.BatchNormalization(synchronized=True, dtype="float32")(x)

    noisy = keras.Input((None, None, 3), name="noisy")
    candidate = keras.Input((None, None, 3), name="candidate")
    x = keras.layers.Concatenate(dtype="float32")([noisy, candidate])  # (batch, height, width, 6)
    for step, factor in enumerate((1, 2, 4)):
        x = keras.layers.Conv2D(
            factor * width,
            4,
            2,
            padding="same",
            use_bias=step == 0,
            kernel_initializer=initial,
            dtype="float32" if step == 0 else None,
        )(x)  # (batch, height / 2^(step + 1), width / 2^(step + 1), factor * width)
        if step > 0:
            x = normalised(x)
        x = keras.layers.LeakyReLU(negative_slope=0.2)(x)
    x = keras.layers.ZeroPadding2D()(x)
    x = keras.layers.Conv2D(8 * width, 4, use_bias=False, kernel_initializer=initial)(x)
    x = normalised(x)
    x = keras.layers.LeakyReLU(negative_slope=0.2)(x)  # (batch, height / 8 - 1, ..., 8 * width)
    x = keras.layers.ZeroPadding2D()(x)
    logits = keras.layers.Conv2D(1, 4, kernel_initializer=initial, dtype="float32")(x)
    return keras.Model([noisy, candidate], logits, name="discriminator")
