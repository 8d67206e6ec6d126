"""Which cameras there are: their colours, their noise, and what they make of a picture.

`noise.py` takes photographs with them.

Source: Brooks et al., "Unprocessing Images for Learned Raw Denoising", CVPR 2019,
https://arxiv.org/abs/1811.11127, section 3. Where we differ is said at the numbers.
"""

import dataclasses
import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Resampling

Values = NDArray[np.float32]
Demosaicked = Literal["bilinear", "gradients", "nothing"]

# XYZ to the sensor's colours, of the four cameras whose mixtures Brooks et al. draw
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
TONES = (0.0, 0.25, 0.5, 0.75, 1.0)  # shares of Brooks' tone curve; SIDD is like 0, JPEGs have more
NOISELESS = 0.05  # share of pictures without noise and JPEG: a network must learn to leave them
RESAMPLINGS = (Resampling.BOX, Resampling.BILINEAR, Resampling.BICUBIC)  # all smooth as they shrink


@dataclasses.dataclass(frozen=True)
class Camera:
    """One camera at one exposure, and what became of its picture.

    Attributes:
        tone: Share of the full tone curve, one of `TONES`; 0 is gamma alone.
        gains: float32 (3,): white balance times digital gain, of red, green and blue.
        sensor: float32 (3, 3), from linear sRGB to the sensor's colours after the gains.
        shot: Variance of the noise per sensor value in [0, 1].
        read: Variance of the noise in the dark.
        demosaicked: How, as `mosaic.demosaicked`. "nothing": each pixel has all colours and shares
            no noise with its neighbours, as in pictures that were shrunk a lot without smoothing.
        blurred: Whether demosaicking blurred the scene too, as the plain methods do; otherwise it
            is as if by a method that loses nothing of the scene.
        enlarged: How much larger than the patch the picture was before it was shrunk; 1 is not.
        resampling: Pillow's filter that shrank it.
        luma_share, chroma_share: How much of the noise in brightness and in colour comes from the
            neighbours after the camera's own smoothing, 0 to 1; below 0 it sharpened.
        quality: Of the JPEG; None is no JPEG.
        subsampling: Pillow's number, 0 is 4:4:4 and 2 is 4:2:0.
    """

    tone: float
    gains: Values
    sensor: Values
    shot: float
    read: float
    demosaicked: Demosaicked = "gradients"
    blurred: bool = False
    enlarged: float = 1.0
    resampling: Resampling = Resampling.BOX
    luma_share: float = 0.0
    chroma_share: float = 0.0
    quality: int | None = None
    subsampling: int = 0


def drawn(chance: np.random.Generator) -> Camera:
    """A camera at random; `benchmarks/noise.py` compares their noise with that of real pairs."""
    gains, sensor = _colours(chance)
    shot, read = _noise_levels(chance)
    tone = 0.0 if chance.random() < 0.4 else TONES[chance.integers(1, len(TONES))]
    demosaicked: Demosaicked = "bilinear" if chance.random() < 0.45 else "gradients"
    enlarged, size = 1.0, chance.random()
    if size < 0.12:
        demosaicked = "nothing"
    elif size < 0.28:
        enlarged = chance.uniform(1.2, 2.0)
    luma_share = chroma_share = 0.0
    if demosaicked != "nothing" and chance.random() < 0.3:
        luma_share, chroma_share = chance.uniform(-0.3, 0.6), chance.uniform(0.0, 1.0)
    return Camera(
        tone=tone,
        gains=gains,
        sensor=sensor,
        shot=shot,
        read=read,
        demosaicked=demosaicked,
        blurred=bool(chance.random() < 0.5),
        enlarged=enlarged,
        resampling=RESAMPLINGS[chance.integers(len(RESAMPLINGS))],
        luma_share=luma_share,
        chroma_share=chroma_share,
        quality=int(chance.integers(70, 99)) if shot > 0 and chance.random() < 0.75 else None,
        subsampling=2 if chance.random() < 0.5 else 0,
    )


def _colours(chance: np.random.Generator) -> tuple[Values, Values]:
    """Gains and matrix of a sensor.

    Brooks draws red's gain from 1.9 to 2.4 and blue's from 1.5 to 1.9, which is daylight; under
    lamps red needs less and blue more, so one falls here as the other rises.
    """
    weights = chance.random(4)
    sensor = np.tensordot(weights / weights.sum(), XYZ_TO_SENSOR, 1) @ SRGB_TO_XYZ
    sensor /= sensor.sum(axis=1, keepdims=True)  # white stays white
    warmth = chance.random()
    red = 2.4 - 1.0 * warmth + chance.uniform(-0.2, 0.2)
    blue = 1.5 + 1.1 * warmth + chance.uniform(-0.2, 0.2)
    gains = np.array([red, 1.0, blue]) / chance.normal(0.8, 0.1)
    return gains.astype(np.float32), sensor.astype(np.float32)


def _noise_levels(chance: np.random.Generator) -> tuple[float, float]:
    """Variances of shot and of read noise; read noise follows shot noise as Brooks fitted it.

    Brooks draws shot noise from 1e-4 to 0.012. DSLRs at low ISO have less, and the strongest of
    SIDD's telephones more.
    """
    if chance.random() < NOISELESS:
        return 0.0, 0.0
    log_shot = chance.uniform(math.log(2e-5), math.log(0.02))
    log_read = 2.18 * log_shot + 1.20 + chance.normal(0.0, 0.26)
    return math.exp(log_shot), math.exp(log_read)
