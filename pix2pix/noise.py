"""Noise on clean photographs: a camera's, from the sensor to the JPEG, and plain white noise.

Every patch meets a camera of its own. Its levels are taken back to what a sensor would have counted
(tone curve, gamma, colour matrix and white balance undone), shot and read noise are added on the
Bayer mosaic, and noisy and clean go through the same demosaicking and rendering. So the noise is
strong where a camera's is, differs from channel to channel, and neighbours share it.

The target has gone through all of it that has nothing to do with noise: where the camera's
demosaicking or shrinking blurs, it blurs the target too, since a network that is asked for what was
lost invents it. What JPEG did is part of the task: its blocks and rings are seen like noise, and
can't be told from noise that the JPEG has rounded.

Source: Brooks et al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019,
https://arxiv.org/abs/1811.11127 (the camera); Guo et al., "Toward Convolutional Blind Denoising of
Real Photographs", CVPR 2019, https://arxiv.org/abs/1807.04686 (noise through demosaicking and
JPEG); Abdelhamed, Lin, Brown, "A High-Quality Denoising Dataset for Smartphone Cameras", CVPR 2018
(the levels). Where we differ is said at the numbers.
"""

import functools
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pix2pix import cameras, mosaic
from pix2pix.cameras import Camera

Levels = NDArray[np.uint8]
Values = NDArray[np.float32]

# what the sensor counts where the picture is white, in units of the display's white; more makes
# white quieter: at 1.5 it has no noise, at 1.1 as much as in SIDD
HEADROOM = 1.1
SHOULDER = 0.9  # linear value from which the headroom is used
STEPS = 16_384  # of a table from linear values to levels, over the headroom: 4.5 per level at black
# what demosaicking by gradients leaves of a pixel's noise in the three colours, and shares of green
SHARED = np.array([[0.72, 0.83, 0.0], [0.0, 0.96, 0.0], [0.0, 0.83, 0.72]], np.float32)
MARGIN = 12  # mirrored pixels around a patch, cut off again with the phases of mosaic and JPEG
LEAST_MARGIN = 3  # ... of them on each side, at least 2 below and to the right
BLOCK = 8  # pixels of a JPEG block
SMALLEST = 11  # sides that hold what is mirrored


def camera(patches: Levels, chance: np.random.Generator) -> tuple[Levels, Levels]:
    """The patches as noisy photographs of random cameras, and as the same without noise.

    Args:
        patches: uint8 (count, height, width, 3) in 0..255, RGB, clean; at least 11 x 11 pixels. A
            whole photograph is a count of 1.
        chance: Decides everything: the same state gives the same pixels.

    Returns:
        Noisy and clean, uint8 of the patches' shape. Clean is the patch or, where the camera's
        demosaicking or shrinking blurs, the patch after that; noisy is clean with noise, rounded,
        and after a JPEG.

    Raises:
        TypeError: the patches are not uint8.
        ValueError: their shape is another, or they are too small.
    """
    _check(patches)
    noisy, clean = np.empty_like(patches), np.empty_like(patches)
    for index, patch in enumerate(patches):  # each has its own tables and sizes; and stays in cache
        noisy[index], clean[index] = photographed(patch, cameras.drawn(chance), chance)
    return noisy, clean


def camera_photograph(clean: Levels, seed: int) -> tuple[Levels, Levels]:
    """A whole photograph taken by a random camera with noise, for scores: always the same pair.

    Args:
        clean: uint8 (height, width, 3).
        seed: Draws the camera and the noise.

    Returns:
        Noisy and clean as `camera`.
    """
    _check(clean[np.newaxis])
    chance = np.random.default_rng(seed)
    by = cameras.drawn(chance)
    while by.shot == 0.0:  # nothing to score
        by = cameras.drawn(chance)
    return photographed(clean, by, chance)


def white(
    patches: Levels, chance: np.random.Generator, largest_sigma: float = 50.0
) -> tuple[Levels, Levels]:
    """The patches with white Gaussian noise, clipped and rounded, and the patches themselves.

    Args:
        patches: uint8 (count, height, width, 3) in 0..255.
        chance: Decides everything.
        largest_sigma: In levels. Each patch has its own sigma, uniform up to this in nine of ten,
            and uniform up to one level in the tenth: a network must learn to leave clean pictures.

    Returns:
        Noisy and clean, uint8 of the patches' shape; clean is `patches`.
    """
    _check(patches)
    count = len(patches)
    largest = np.where(chance.random(count) < 0.1, min(1.0, largest_sigma), largest_sigma)
    sigmas = (largest * (1.0 - chance.random(count))).astype(np.float32)  # in (0, largest]
    noisy = np.empty_like(patches)
    for index, patch in enumerate(patches):  # one by one stays in the cache: twice as fast
        values = chance.standard_normal(patch.shape, np.float32)
        values *= sigmas[index]
        values += patch
        noisy[index] = _rounded(values)
    return noisy, patches


def _check(patches: Levels) -> None:
    if patches.dtype != np.uint8:
        raise TypeError(f"patches are {patches.dtype}, must be uint8 in 0..255; round them first")
    if patches.ndim != 4 or patches.shape[3] != 3 or min(patches.shape[1:3]) < SMALLEST:
        raise ValueError(
            f"patches.shape={patches.shape} must be (count, height, width, 3) with sides of at "
            f"least {SMALLEST}; give one photograph as photograph[np.newaxis]"
        )


def photographed(patch: Levels, by: Camera, chance: np.random.Generator) -> tuple[Levels, Levels]:
    """One patch through one camera.

    The mosaic's phase and the JPEG's are drawn too: they don't start at the patch's corner.

    Args:
        patch: uint8 (height, width, 3).
        by: The camera.
        chance: Decides the noise and the phases.

    Returns:
        Noisy and clean, uint8 (height, width, 3).
    """
    height, width = patch.shape[:2]
    top, left = (int(at) for at in chance.integers(LEAST_MARGIN, LEAST_MARGIN + BLOCK, 2))
    rows, columns = _mirrored(height, top), _mirrored(width, left)
    scene = patch.take(rows, axis=0).take(columns, axis=1)
    size = (scene.shape[1], scene.shape[0])
    if by.enlarged > 1.0:
        larger = [2 * round(side * by.enlarged / 2) for side in size]
        scene = np.asarray(Image.fromarray(scene).resize(larger, Image.Resampling.BICUBIC))
    noisy, clean = _taken(scene, by, chance)
    if by.luma_share or by.chroma_share:
        noisy = _smoothed(noisy, clean, by)
    if by.enlarged > 1.0:
        noisy, clean = (
            np.asarray(Image.fromarray(image).resize(size, by.resampling))
            for image in (noisy, clean)
        )
    if by.quality is not None:
        noisy = _coded(noisy, by.quality, by.subsampling)
    inside = np.s_[top : top + height, left : left + width]
    return noisy[inside], clean[inside]


def _mirrored(side: int, before: int) -> NDArray[np.intp]:
    """Places of an even count of pixels, of which `before` are mirrored at the first."""
    places = np.abs(np.arange(-before, side + (side & 1) + MARGIN - before))
    return (side - 1) - np.abs((side - 1) - places)


def _taken(scene: Levels, by: Camera, chance: np.random.Generator) -> tuple[Levels, Levels]:
    """The picture with noise and without, uint8 of the scene's shape, whose sides are even."""
    linear_of, levels_of = _tables(by.tone)
    linear = linear_of.take(scene.transpose(2, 0, 1)).reshape(3, -1)
    to_srgb = np.linalg.inv(by.sensor).astype(np.float32)
    clean = scene
    if by.demosaicked == "nothing":
        noise = SHARED @ _noise(by.sensor @ linear, (0, 1, 2), by, chance)
    else:
        quarters = linear.reshape(3, scene.shape[0] // 2, 2, scene.shape[1] // 2, 2)
        sensed = np.stack(
            [
                np.tensordot(by.sensor[channel], quarters[:, :, row, :, column], 1)
                for row, column, channel in mosaic.SITES
            ]
        )
        noise = _noise(sensed, [site[2] for site in mosaic.SITES], by, chance)
        noise = mosaic.demosaicked(noise, by.demosaicked).reshape(3, -1)
        if by.blurred:
            colours = mosaic.demosaicked(sensed, by.demosaicked).reshape(3, -1)
            linear = to_srgb @ colours
            clean = _levels(linear, levels_of, scene.shape)
    noise = to_srgb @ noise
    noise += linear
    return _levels(noise, levels_of, scene.shape), clean


def _noise(
    sensed: Values, channels: Sequence[int], by: Camera, chance: np.random.Generator
) -> Values:
    """Shot and read noise of what the sensor should have counted, after the gains.

    Shot noise is skewed: where the sensor counts few electrons, most pixels are darker than the
    mean and some much lighter. The term in z^2 gives it the third moment of the Poisson
    distribution (Cornish and Fisher), and leaves mean and nearly all of the variance as they are.

    Args:
        sensed: float32 (planes, ...).
        channels: Of each plane: 0 red, 1 green, 2 blue.
        by: The camera.
        chance: Decides it.
    """
    noise = np.maximum(sensed, 0.0)
    normals = chance.standard_normal(sensed.shape, np.float32)
    for plane, normal, channel in zip(noise, normals, channels, strict=True):
        gain = by.gains[channel]
        plane *= by.shot * gain
        plane += by.read * gain * gain
        np.sqrt(plane, out=plane)
        plane *= normal
        normal *= normal
        normal -= 1.0
        normal *= by.shot * gain / 6.0
        plane += normal
    return noise


def _levels(linear: Values, levels_of: Levels, shape: tuple[int, ...]) -> Levels:
    """uint8 (height, width, 3) of linear values, float32 (3, height * width)."""
    places = linear * np.float32(STEPS / HEADROOM)
    places += 0.5
    levels = levels_of.take(places.astype(np.intp), mode="clip")
    return np.ascontiguousarray(levels.T).reshape(shape)


def _smoothed(noisy: Levels, clean: Levels, by: Camera) -> Levels:
    """The noisy picture after the camera's own smoothing or sharpening of the noise.

    A camera's denoising keeps edges and takes the noise between them; so the noise alone is
    smoothed here, and colour more than brightness. The picture keeps its sharpness, and so does
    the target: the photographs have been sharpened when they were taken.
    """
    noise = np.subtract(noisy, clean, dtype=np.float32)
    luma = noise @ np.array([0.299, 0.587, 0.114], np.float32)
    noise -= luma[..., np.newaxis]
    noise = _blurred(_blurred(noise, by.chroma_share), by.chroma_share)
    noise += _blurred(luma, by.luma_share)[..., np.newaxis]
    noise += clean
    return _rounded(noise)


def _blurred(values: Values, share: float) -> Values:
    """Each value mixed with its two neighbours down and across, `share` from them."""
    if share == 0.0:
        return values
    own, theirs = np.float32(1.0 - share * 2 / 3), np.float32(share / 3)
    down = values * own
    side = values * theirs
    down[1:] += side[:-1]
    down[:-1] += side[1:]
    down[0] += side[0]
    down[-1] += side[-1]
    across = down * own
    down *= theirs
    across[:, 1:] += down[:, :-1]
    across[:, :-1] += down[:, 1:]
    across[:, 0] += down[:, 0]
    across[:, -1] += down[:, -1]
    return across


def _coded(image: Levels, quality: int, subsampling: int) -> Levels:
    """The image after a JPEG."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality, subsampling=subsampling)
    return np.asarray(Image.open(file))


def _rounded(values: Values) -> Levels:
    """Clipped and rounded to uint8; `values` is used up."""
    values += 0.5
    np.clip(values, 0.0, 255.0, out=values)
    return values.astype(np.uint8)


@functools.cache
def _tables(tone: float) -> tuple[Values, Levels]:
    """From levels to linear values in [0, HEADROOM], float32 (256,), and back, uint8 (STEPS + 1,).

    Linear values above `SHOULDER` are stretched so that white is HEADROOM: a sensor counts on where
    the picture is white already, and its noise there must not be seen.
    """
    steps = np.linspace(0.0, HEADROOM, STEPS + 1)
    # a shoulder that leaves SHOULDER with slope 1 and reaches 1 at HEADROOM
    span, over = 1.0 - SHOULDER, np.maximum(steps - SHOULDER, 0.0)
    longest = HEADROOM - SHOULDER
    power = longest / span
    shoulder = np.where(over > 0, 1.0 - span * (1.0 - over / longest) ** power, steps)
    gamma = np.where(shoulder <= 0.0031308, 12.92 * shoulder, 1.055 * shoulder ** (1 / 2.4) - 0.055)
    display = (1.0 - tone) * gamma + tone * gamma**2 * (3.0 - 2.0 * gamma)
    levels = 255.0 * display
    linear = np.interp(np.arange(256), levels, steps).astype(np.float32)
    return linear, np.rint(levels).astype(np.uint8)
