import numpy as np
import pytest

from pix2pix import noise


def patches(count: int = 3, height: int = 33, width: int = 46) -> noise.Levels:
    """Slopes with a grain of single pixels."""
    chance = np.random.default_rng(5)
    rows, columns = np.mgrid[0:height, 0:width]
    slopes = np.stack([rows * 4, columns * 4, 255 - rows * 2 - columns * 2], -1)
    grain = chance.integers(-20, 21, (count, height, width, 3))
    return np.clip(slopes + grain, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("made", [noise.camera, noise.white])
def test_the_same_seed_makes_the_same_pixels(made: type) -> None:
    one, other, third = (made(patches(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1], other[1])
    assert not np.array_equal(one[0], third[0])


@pytest.mark.parametrize("made", [noise.camera, noise.white])
def test_pairs_have_the_shape_and_kind_of_the_patches(made: type) -> None:
    for image in made(patches(), np.random.default_rng(1)):
        assert (image.dtype, image.shape) == (np.uint8, patches().shape)
