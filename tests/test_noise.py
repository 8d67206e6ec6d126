import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pix2pix import cameras, noise

ROOT = Path(__file__).resolve().parents[1]
PLAIN = cameras.Camera(
    tone=0.0, gains=np.ones(3, np.float32), sensor=np.eye(3, dtype=np.float32), shot=0.0, read=0.0
)
KINDS = ("bilinear", "gradients", "nothing")


def patches(count: int = 3, height: int = 33, width: int = 46) -> noise.Levels:
    """Slopes with a grain of single pixels."""
    chance = np.random.default_rng(5)
    rows, columns = np.mgrid[0:height, 0:width]
    slopes = np.stack([rows * 4, columns * 4, 255 - rows * 2 - columns * 2], -1)
    grain = chance.integers(-20, 21, (count, height, width, 3))
    return np.clip(slopes + grain, 0, 255).astype(np.uint8)


def flat(value: int | tuple[int, int, int], side: int = 64) -> noise.Levels:
    return np.full((side, side, 3), value, np.uint8)


def drawn(seed: int, **changes: object) -> cameras.Camera:
    return dataclasses.replace(cameras.drawn(np.random.default_rng(seed)), **changes)  # type: ignore


def difference(pair: tuple[noise.Levels, noise.Levels]) -> noise.Values:
    return pair[0].astype(np.float32) - pair[1]


def shared_by_neighbours(differences: noise.Values) -> float:
    """Correlation with the pixel to the right."""
    centred = differences - differences.mean((0, 1))
    return float((centred[:, 1:] * centred[:, :-1]).mean() / (centred**2).mean())


# what any user of it relies upon


@pytest.mark.parametrize("made", [noise.camera, noise.white])
def test_the_same_seed_makes_the_same_pixels(made: type) -> None:
    one, other, third = (made(patches(), np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1], other[1])
    assert not np.array_equal(one[0], third[0])


@pytest.mark.parametrize("made", [noise.camera, noise.white])
@pytest.mark.parametrize("shape", [(3, 33, 46, 3), (1, 11, 11, 3), (0, 32, 32, 3)])
def test_pairs_have_the_shape_and_kind_of_the_patches(made: type, shape: tuple[int, ...]) -> None:
    for seed in range(8):
        for image in made(patches(*shape[:3]), np.random.default_rng(seed)):
            assert (image.dtype, image.shape) == (np.uint8, shape)


@pytest.mark.parametrize("made", [noise.camera, noise.white])
def test_patches_are_not_written_to(made: type) -> None:
    given = patches()
    given.flags.writeable = False
    made(given, np.random.default_rng(1))
    assert np.array_equal(patches(), given)


@pytest.mark.parametrize("made", [noise.camera, noise.white])
def test_what_are_no_patches_is_refused(made: type) -> None:
    with pytest.raises(TypeError, match=r"patches are float64, must be uint8"):
        made(patches() / 255, np.random.default_rng(1))
    for wrong in (patches()[0], patches()[..., :2], patches(1, 10, 40)):
        with pytest.raises(ValueError, match=r"patches\.shape=.* must be \(count, height, width"):
            made(wrong, np.random.default_rng(1))


def test_a_whole_photograph_has_noise_and_is_the_same_each_time() -> None:
    photograph = patches(1, 200, 150)[0]
    for seed in range(60):
        noisy, clean = noise.camera_photograph(photograph, seed)
        assert noisy.shape == clean.shape == photograph.shape
        assert not np.array_equal(noisy, clean)
    assert np.array_equal(noisy, noise.camera_photograph(photograph, 59)[0])


# the picture without noise


@pytest.mark.parametrize("tone", cameras.TONES)
def test_all_levels_come_back_from_linear_values(tone: float) -> None:
    linear, levels = noise._tables(tone)
    assert (linear[0], linear[255]) == (0.0, np.float32(noise.HEADROOM))
    places = np.rint(linear / noise.HEADROOM * noise.STEPS).astype(int)
    assert np.array_equal(np.arange(256), levels[places])


def test_gamma_is_that_of_srgb() -> None:
    linear, _ = noise._tables(0.0)
    expected = pytest.approx([0.0003035, 0.0512695, 0.2158605, 0.5028865], rel=1e-3)
    assert list(linear[[1, 64, 128, 188]]) == expected


def test_the_whole_tone_curve_turns_a_quarter_into_less() -> None:
    # sRGB level 64 is 0.251 of white; 3 * 0.251^2 - 2 * 0.251^3 = 0.1574 of white is level 40
    assert noise._tables(1.0)[0][40] == pytest.approx(noise._tables(0.0)[0][64], rel=0.01)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (200, 30, 90), (1, 128, 254)])
def test_a_flat_colour_stays_through_any_camera(kind: str, colour: tuple[int, int, int]) -> None:
    for seed in range(10):
        camera = drawn(seed, shot=0.0, read=0.0, quality=None, demosaicked=kind, blurred=True)
        _, clean = noise.photographed(flat(colour, 32), camera, np.random.default_rng(seed))
        assert np.array_equal(flat(colour, 32), clean)


def test_without_noise_and_jpeg_noisy_is_clean() -> None:
    for seed in range(40):
        camera = drawn(seed, shot=0.0, read=0.0, quality=None)
        noisy, clean = noise.photographed(patches()[0], camera, np.random.default_rng(seed))
        assert np.array_equal(clean, noisy)


def test_clean_is_the_patch_unless_the_camera_blurs() -> None:
    for seed in range(40):
        camera = drawn(seed, blurred=False, enlarged=1.0)
        _, clean = noise.photographed(patches()[0], camera, np.random.default_rng(seed))
        assert np.array_equal(patches()[0], clean)


@pytest.mark.parametrize("blurring", [{"blurred": True}, {"enlarged": 1.7}])
def test_clean_is_blurred_with_the_noisy_and_stays_in_place(blurring: dict[str, object]) -> None:
    blots = np.random.default_rng(0).integers(60, 200, (8, 8), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(blots).convert("RGB").resize((64, 48), 3))
    for seed in range(20):
        camera = drawn(seed, shot=0.0, read=0.0, quality=None, **blurring)
        noisy, clean = noise.photographed(smooth, camera, np.random.default_rng(seed))
        assert np.array_equal(clean, noisy)
        errors = {
            (down, right): np.abs(np.roll(clean, (down, right), (0, 1))[2:-2, 2:-2].astype(float)
                                  - smooth[2:-2, 2:-2]).mean()
            for down in (-1, 0, 1) for right in (-1, 0, 1)
        }  # fmt: skip
        assert errors.pop((0, 0)) < 0.3 * min(errors.values())


def test_jpeg_is_in_the_noisy_alone() -> None:
    camera = dataclasses.replace(PLAIN, quality=70, subsampling=2)
    noisy, clean = noise.photographed(patches()[0], camera, np.random.default_rng(0))
    assert np.array_equal(patches()[0], clean)
    assert 3 < np.sqrt((difference((noisy, clean)) ** 2).mean()) < 20


# the noise


@pytest.mark.parametrize("gain", [1.0, 2.0])
@pytest.mark.parametrize("value", [0.0, 0.02, 0.5])
def test_noise_has_the_moments_of_counted_light(value: float, gain: float) -> None:
    # before the gain: variance a * x + b, and of Poisson's distribution the third moment a^2 * x
    shot, read = 0.004, 1e-5
    camera = dataclasses.replace(PLAIN, shot=shot, read=read, gains=np.full(3, gain, np.float32))
    sensed = np.full((1, 1_000_000), value * gain, np.float32)
    made = noise._noise(sensed, [1], camera, np.random.default_rng(0)).astype(float) / gain
    variance = shot * value + read
    assert made.mean() == pytest.approx(0.0, abs=4e-3 * variance**0.5)
    # the skew itself has a little
    assert made.var() == pytest.approx(variance + shot**2 / 18, rel=0.01)
    if value > 0.0:
        assert (made**3).mean() == pytest.approx(shot**2 * value, rel=0.2)


def test_red_and_blue_have_more_noise_the_higher_their_gain() -> None:
    # the variance of a grey grows with the gain: shot * gain * x
    camera = dataclasses.replace(
        PLAIN, shot=1e-3, gains=np.array([2.25, 1.0, 4.0], np.float32), demosaicked="nothing"
    )
    sensed = np.full((3, 200_000), 0.3, np.float32)
    made = noise._noise(sensed, (0, 1, 2), camera, np.random.default_rng(0)).std(axis=1)
    assert made / made[1] == pytest.approx([1.5, 1.0, 2.0], rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_as_strong_at_the_border_and_at_every_phase(kind: str) -> None:
    camera = dataclasses.replace(PLAIN, shot=2e-3, read=1e-5, demosaicked=kind, luma_share=0.4)
    chance = np.random.default_rng(0)
    many = np.stack(
        [difference(noise.photographed(flat(128, 16), camera, chance)) for _ in range(900)]
    )
    variance = many.var(axis=0)
    border = np.concatenate([variance[0], variance[-1], variance[:, 0], variance[:, -1]])
    assert border.mean() == pytest.approx(variance[3:-3, 3:-3].mean(), rel=0.05)
    phases = [variance[row::2, column::2].mean() for row in (0, 1) for column in (0, 1)]
    assert phases == pytest.approx([variance.mean()] * 4, rel=0.05)


def test_the_camera_s_smoothing_makes_noise_weaker_and_coarser() -> None:
    noisy = []
    for share in (-0.3, 0.0, 0.6):
        camera = dataclasses.replace(PLAIN, shot=2e-3, luma_share=share, chroma_share=share)
        noisy.append(
            difference(noise.photographed(flat(128, 256), camera, np.random.default_rng(0)))
        )
    strengths, shares = [image.std() for image in noisy], [shared_by_neighbours(n) for n in noisy]
    assert strengths == sorted(strengths, reverse=True)
    assert shares == sorted(shares)


def test_white_noise_has_sigmas_up_to_the_largest_and_some_near_none() -> None:
    grey = np.full((400, 32, 32, 3), 128, np.uint8)
    noisy, clean = noise.white(grey, np.random.default_rng(0), 30.0)
    assert clean is grey
    sigmas = (noisy - 128.0).std(axis=(1, 2, 3))
    assert 28 < sigmas.max() < 31.5
    assert sigmas.mean() == pytest.approx(0.9 * 15 + 0.1 * 0.5, rel=0.07)
    assert 0.08 < (sigmas < 1.1).mean() < 0.18  # a tenth, and 1 in 30 of the others


def test_white_noise_is_white_and_unbiased() -> None:
    grey = np.full((1, 512, 512, 3), 128, np.uint8)
    found = difference([image[0] for image in noise.white(grey, np.random.default_rng(3), 20.0)])
    assert found.mean() == pytest.approx(0.0, abs=0.1)
    assert shared_by_neighbours(found) == pytest.approx(0.0, abs=0.005)
    assert np.corrcoef(found.reshape(-1, 3).T)[0, 1] == pytest.approx(0.0, abs=0.01)


# against real pairs: the samples are SIDD's, shrunk without smoothing


LEVELS_OF_BINS = (8, 24, 48, 80, 128, 176, 224)


def samples() -> list[tuple[noise.Levels, noise.Levels]]:
    noisy = sorted((ROOT / "samples").glob("**/NOISY_SRGB_010.PNG"))
    paths = [(path, path.with_name("GT_SRGB_010.PNG")) for path in noisy]
    unseen = sorted((ROOT / "samples/unseen/noisy").iterdir())
    paths += [(path, ROOT / "samples/unseen/clean" / path.name) for path in unseen]
    pairs = [[np.asarray(Image.open(path).convert("RGB")) for path in pair] for pair in paths]
    return [(noisy, clean) for noisy, clean in pairs]


def brightness_curve(pair: tuple[noise.Levels, noise.Levels]) -> noise.Values:
    """The noise in each range of brightness, over its mean; nan where there are few pixels."""
    found, bins = difference(pair), np.digitize(pair[1], LEVELS_OF_BINS)
    within = [found[bins == number] for number in range(1, len(LEVELS_OF_BINS))]
    curve = np.array([values.std() if values.size > 500 else np.nan for values in within])
    return curve / np.nanmean(curve)


def taken_again(kind: str) -> list[tuple[noise.Levels, noise.Levels]]:
    """The clean samples with noise of random cameras, as strong as that of the samples."""
    pairs, chance = [], np.random.default_rng(0)
    for _, clean in samples():
        shot = float(np.exp(chance.uniform(np.log(1e-4), np.log(8e-3))))
        read = float(np.exp(2.18 * np.log(shot) + 1.2))
        camera = dataclasses.replace(
            cameras.drawn(chance), shot=shot, read=read, demosaicked=kind, quality=None,
            enlarged=1.0, luma_share=0.0, chroma_share=0.0,
        )  # fmt: skip
        pairs.append(noise.photographed(clean, camera, chance))
    return pairs


@pytest.mark.parametrize("kind", KINDS)
def test_noise_depends_on_brightness_as_in_real_pairs(kind: str) -> None:
    real = np.stack([brightness_curve(pair) for pair in samples()])
    made = np.stack([brightness_curve(pair) for pair in taken_again(kind)])
    low, high = np.nanpercentile(real, [10, 90], axis=0)
    middle = np.nanmedian(made, axis=0)
    assert ((low < middle) & (middle < high)).all()


def test_shrunk_noise_is_as_white_and_as_coloured_as_in_real_pairs() -> None:
    def traits(pairs: list[tuple[noise.Levels, noise.Levels]]) -> noise.Values:
        found = []
        for pair in pairs:
            values = difference(pair).reshape(-1, 3)
            red, green, blue = values.std(axis=0)
            shares = np.corrcoef(values.T)
            neighbours = shared_by_neighbours(difference(pair))
            found.append([neighbours, red / green, blue / green, shares[0, 1], shares[1, 2]])
        return np.median(found, axis=0)

    # neighbours share 0.015, red and blue have 1.6 times green's noise; and share 0.1 with it
    assert traits(taken_again("nothing")) == pytest.approx(traits(samples()), abs=0.3)


def test_noise_at_native_pixels_is_shared_as_in_real_jpegs() -> None:
    # 0.43 to 0.72 in camera JPEGs at native pixels
    found = [
        np.median([shared_by_neighbours(difference(pair)) for pair in taken_again(kind)])
        for kind in ("bilinear", "gradients")
    ]
    assert 0.43 < found[1] < found[0] < 0.72
