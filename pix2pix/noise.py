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

import dataclasses
import functools
import io
import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Levels = NDArray[np.uint8]
Values = NDArray[np.float32]
Demosaicked = Literal["all", "noise", "nothing"]

# XYZ to the sensor's colours at daylight, of the four cameras whose mixtures Brooks et al. draw
XYZ_TO_SENSOR = np.array(
    [
        [[1.0234, -0.2969, -0.2266], [-0.5625, 1.6328, -0.0469], [-0.0703, 0.2188, 0.6406]],
        [[0.4913, -0.0541, -0.0202], [-0.613, 1.3513, 0.2906], [-0.1564, 0.2151, 0.7183]],
        [[0.838, -0.263, -0.0639], [-0.2887, 1.0725, 0.2496], [-0.0627, 0.1427, 0.5438]],
        [[0.6596, -0.2079, -0.0562], [-0.4782, 1.3016, 0.1933], [-0.097, 0.1581, 0.5181]],
    ]
)
SRGB_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)
TONES = (0.0, 0.5, 0.75, 1.0)  # shares of the full curve; a table is kept for each
HEADROOM = 1.5  # what the sensor counts where the picture is white, in units of the display's white
SHOULDER = 0.9  # linear value from which the headroom is used
STEPS = 16_384  # of a table from linear values to levels, over the headroom: 8 per level at black
MARGIN = 12  # mirrored pixels around a patch, cut off again with the phases of mosaic and JPEG
LEAST_MARGIN = 3  # ... of them on each side, at least 2 below and to the right
BLOCK = 8  # pixels of a JPEG block


@dataclasses.dataclass(frozen=True)
class Camera:
    """One camera at one exposure, and what became of its picture.

    Attributes:
        tone: Share of the full tone curve, one of `TONES`; 0 is gamma alone.
        sensor_to_srgb: float32 (3, 3), colour matrix times white balance times digital gain.
        shot: Variance of the noise per sensor value in [0, 1].
        read: Variance of the noise in the dark.
        enlarged: How much larger than the patch the picture was before it was shrunk; 1 is not.
        resample: Pillow's filter that shrank it.
        demosaicked: "all": what was in the scene and the noise, by the plainest method; "noise":
            the noise alone, as if by a method that loses nothing of the scene; "nothing": the
            sensor had all colours at each pixel, as in pictures that were shrunk a lot without
            smoothing: neighbours share no noise.
        luma_share, chroma_share: How much of the noise in brightness and in colour comes from
            the neighbours after the camera's own smoothing, 0 to 1; below 0 sharpens.
        quality: Of the JPEG; None is no JPEG.
        subsampling: Pillow's number, 0 is 4:4:4 and 2 is 4:2:0.
    """

    tone: float
    sensor_to_srgb: Values
    shot: float
    read: float
    enlarged: float = 1.0
    resample: Image.Resampling = Image.Resampling.BOX
    demosaicked: Demosaicked = "noise"
    luma_share: float = 0.0
    chroma_share: float = 0.0
    quality: int | None = None
    subsampling: int = 0


def camera(patches: Levels, chance: np.random.Generator) -> tuple[Levels, Levels]:
    """The patches as noisy photographs of random cameras, and as the same without noise.

    Args:
        patches: uint8 (count, height, width, 3) in 0..255, RGB, clean; at least 14 x 14 pixels. One
            whole photograph is a count of 1.
        chance: Decides everything: the same state gives the same pixels.

    Returns:
        Noisy and clean, uint8 of the patches' shape. Clean is the patch or, where the camera's
        demosaicking or shrinking blurs the scene, the patch after that; noisy is clean with noise,
        rounded, and after a JPEG.
    """
    noisy, clean = np.empty_like(patches), np.empty_like(patches)
    for index, patch in enumerate(patches):
        noisy[index], clean[index] = photographed(patch, random_camera(chance), chance)
    return noisy, clean


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


def random_camera(chance: np.random.Generator) -> Camera:
    """A camera drawn at random; README and log say how its noise compares with real pairs."""
    weights = chance.random(4)
    sensor = np.tensordot(weights / weights.sum(), XYZ_TO_SENSOR, 1) @ SRGB_TO_XYZ
    sensor /= sensor.sum(axis=1, keepdims=True)  # white stays white: the gains are kept apart
    # Brooks: red 1.9 to 2.4, blue 1.5 to 1.9, which is daylight; lamps want less red and more blue
    warmth = chance.random()
    red = 2.4 - 1.0 * warmth + chance.uniform(-0.2, 0.2)
    blue = 1.5 + 1.1 * warmth + chance.uniform(-0.2, 0.2)
    gains = np.array([red, 1.0, blue]) / chance.normal(0.8, 0.1)
    matrix = (np.linalg.inv(sensor) * gains).astype(np.float32)
    shot, read = _random_levels(chance)
    kind = chance.random()
    demosaicked: Demosaicked = "all" if chance.random() < 0.3 else "noise"
    enlarged, resample = 1.0, Image.Resampling.BOX
    if kind < 0.12:
        demosaicked = "nothing"
    elif kind < 0.30:
        enlarged = chance.uniform(1.2, 2.0)
        resample = Image.Resampling(
            chance.choice(
                [Image.Resampling.BOX, Image.Resampling.BILINEAR, Image.Resampling.HAMMING]
            )
        )
    luma_share = chroma_share = 0.0
    if demosaicked != "nothing" and chance.random() < 0.3:
        luma_share, chroma_share = chance.uniform(-0.3, 0.6), chance.uniform(0.0, 1.0)
    coded = shot > 0 and chance.random() < 0.75
    return Camera(
        tone=0.0 if chance.random() < 0.4 else float(chance.choice(TONES[1:])),
        sensor_to_srgb=matrix, shot=shot, read=read,
        enlarged=enlarged, resample=resample, demosaicked=demosaicked,
        luma_share=luma_share, chroma_share=chroma_share,
        quality=int(chance.integers(70, 99)) if coded else None,
        subsampling=2 if chance.random() < 0.5 else 0,
    )  # fmt: skip


def _random_levels(chance: np.random.Generator) -> tuple[float, float]:
    """Variances of shot and of read noise.

    Brooks draws shot noise from 1e-4 to 0.012; DSLRs at low ISO have less, and the strongest of
    SIDD's telephones more. One in twenty has none, so that clean pictures are left alone.
    """
    if chance.random() < 0.05:
        return 0.0, 0.0
    log_shot = chance.uniform(math.log(2e-5), math.log(0.02))
    log_read = 2.18 * log_shot + 1.20 + chance.normal(0.0, 0.26)
    return math.exp(log_shot), math.exp(log_read)


def photographed(
    patch: Levels, camera: Camera, chance: np.random.Generator
) -> tuple[Levels, Levels]:
    """One patch through one camera.

    The mosaic's phase and the JPEG's are drawn too: they don't start at the patch's corner.

    Args:
        patch: uint8 (height, width, 3).
        camera: How it is taken.
        chance: Decides the noise and the phases.

    Returns:
        Noisy and clean, uint8 (height, width, 3).
    """
    height, width = patch.shape[:2]
    top, left = (int(at) for at in chance.integers(LEAST_MARGIN, LEAST_MARGIN + BLOCK, 2))
    rows, columns = _mirrored(height, top), _mirrored(width, left)
    scene = patch.take(rows, axis=0).take(columns, axis=1)
    size = (scene.shape[1], scene.shape[0])
    if camera.enlarged > 1.0:
        larger = [2 * round(side * camera.enlarged / 2) for side in size]
        scene = np.asarray(Image.fromarray(scene).resize(larger, Image.Resampling.BICUBIC))
    noisy, clean = _taken(scene, camera, chance)
    if camera.luma_share or camera.chroma_share:
        noisy = _smoothed(noisy, clean, camera)
    if camera.enlarged > 1.0:
        noisy, clean = (_shrunk(image, size, camera.resample) for image in (noisy, clean))
    if camera.quality is not None:
        noisy = _coded(noisy, camera.quality, camera.subsampling)
    inside = np.s_[top - 1 : top - 1 + height, left - 1 : left - 1 + width]
    return noisy[inside], clean[inside]


def _mirrored(side: int, before: int) -> NDArray[np.intp]:
    """Places of an even count of pixels, of which `before` are mirrored at the first."""
    places = np.abs(np.arange(-before, side + (side & 1) + MARGIN - before))
    return (side - 1) - np.abs((side - 1) - places)


def _shrunk(image: Levels, size: tuple[int, int], resample: Image.Resampling) -> Levels:
    """The enlarged picture, which lacks its outer pixels, at width and height less 2."""
    beyond = [(side + 2) / final for side, final in zip(image.shape[1::-1], size, strict=True)]
    box = [step - 1 for step in beyond]
    box += [side - at for side, at in zip(image.shape[1::-1], box, strict=True)]
    return np.asarray(
        Image.fromarray(image).resize((size[0] - 2, size[1] - 2), resample, tuple(box))
    )


def _taken(scene: Levels, camera: Camera, chance: np.random.Generator) -> tuple[Levels, Levels]:
    """The picture with noise and without, one pixel less on each side than the scene.

    Args:
        scene: uint8 (height, width, 3), both even.
        camera: How it is taken.
        chance: Decides the noise.

    Returns:
        Noisy and clean, uint8 (height - 2, width - 2, 3).
    """
    linear_of, levels_of = _tables(camera.tone)
    to_sensor = np.linalg.inv(camera.sensor_to_srgb).astype(np.float32)
    inner = scene[1:-1, 1:-1]
    linear = linear_of.take(inner.transpose(2, 0, 1)).reshape(3, -1)
    if camera.demosaicked == "nothing":
        noise = _noise(to_sensor @ linear, camera, chance)
        return _levels(linear, camera.sensor_to_srgb @ noise, levels_of, inner.shape), inner
    raw = np.empty(scene.shape[:2], np.float32)
    for row, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        raw[row::2, column::2] = linear_of.take(scene[row::2, column::2]) @ to_sensor[channel]
    noise = _demosaicked(_noise(raw, camera, chance)).reshape(3, -1)
    clean = inner
    if camera.demosaicked == "all":
        linear = camera.sensor_to_srgb @ _demosaicked(raw).reshape(3, -1)
        clean = _levels(linear, np.float32(0.0), levels_of, inner.shape)
    return _levels(linear, camera.sensor_to_srgb @ noise, levels_of, inner.shape), clean


def _noise(sensed: Values, camera: Camera, chance: np.random.Generator) -> Values:
    """Shot and read noise of what the sensor should have counted."""
    noise = np.maximum(sensed, 0.0)
    noise *= np.float32(camera.shot)
    noise += np.float32(camera.read)
    np.sqrt(noise, out=noise)
    noise *= chance.standard_normal(sensed.shape, np.float32)
    return noise


def _levels(
    linear: Values, noise: Values | np.float32, levels_of: Levels, shape: tuple[int, ...]
) -> Levels:
    """uint8 (height, width, 3) of linear values and noise, float32 (3, height * width)."""
    places = linear + noise
    places *= np.float32((len(levels_of) - 1) / HEADROOM)
    places += 0.5
    levels = levels_of.take(places.astype(np.intp), mode="clip")
    return np.ascontiguousarray(levels.T).reshape(shape)


def _demosaicked(raw: Values) -> Values:
    """Bilinear: each colour that a pixel lacks is the mean of its nearest neighbours that have it.

    Args:
        raw: float32 (height, width), both even; rows are RGRG..., GBGB..., from the top.

    Returns:
        float32 (3, height - 2, width - 2): the outer pixels lack neighbours and are left out.
    """
    height, width = raw.shape
    colours = np.empty((3, height - 2, width - 2), np.float32)
    red, green, blue = colours
    _spread(raw[0::2, 0::2], red)
    _spread(raw[:0:-2, :0:-2], blue[::-1, ::-1])
    in_red, in_blue = raw[0::2, 1::2], raw[1::2, 0::2]
    green[0::2, 1::2], green[1::2, 0::2] = in_blue[:-1, 1:], in_red[1:, :-1]
    at_blue = in_red[:-1, :-1] + in_red[1:, :-1]
    at_blue += in_blue[:-1, :-1]
    at_blue += in_blue[:-1, 1:]
    np.multiply(at_blue, 0.25, out=green[0::2, 0::2])
    at_red = in_blue[:-1, 1:] + in_blue[1:, 1:]
    at_red += in_red[1:, :-1]
    at_red += in_red[1:, 1:]
    np.multiply(at_red, 0.25, out=green[1::2, 1::2])
    return colours


def _spread(known: Values, plane: Values) -> None:
    """Fills a plane that begins one pixel down and right of the first known value.

    Args:
        known: float32 (rows, columns), every second pixel of every second row.
        plane: float32 (2 * rows - 2, 2 * columns - 2).
    """
    rows = np.empty((len(known), plane.shape[1]), np.float32)
    rows[:, 1::2] = known[:, 1:]
    between = known[:, :-1] + known[:, 1:]
    np.multiply(between, 0.5, out=rows[:, 0::2])
    plane[1::2] = rows[1:]
    between = rows[:-1] + rows[1:]
    np.multiply(between, 0.5, out=plane[0::2])


def _smoothed(noisy: Levels, clean: Levels, camera: Camera) -> Levels:
    """The noisy picture after the camera's own smoothing or sharpening of the noise.

    A camera's denoising keeps edges and takes the noise between them; so the noise alone is
    smoothed here, and colour more than brightness. The picture keeps its sharpness, and so does
    the target: the photographs have been sharpened when they were taken.
    """
    noise = np.subtract(noisy, clean, dtype=np.float32)
    luma = noise @ np.array([0.299, 0.587, 0.114], np.float32)
    noise -= luma[..., np.newaxis]
    noise = _blurred(_blurred(noise, camera.chroma_share), camera.chroma_share)
    noise += _blurred(luma, camera.luma_share)[..., np.newaxis]
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
