import dataclasses

import pytest

from pix2pix import settings
from pix2pix.settings import Settings


def test_the_paper_trains_with_adam_at_2e_4_and_momentum_half() -> None:
    assert (Settings().learning_rate, Settings().beta_1) == (2e-4, 0.5)


def test_the_paper_weighs_l1_a_hundred_times_the_adversarial_loss() -> None:
    assert (Settings().l1_weight, Settings().adversarial_weight) == (100.0, 1.0)


def test_settings_survive_their_json() -> None:
    given = Settings(width=8, validation_scenes=("002", "010"), limit_seconds=1.5)
    assert settings.from_json(settings.to_json(given)) == given


def test_settings_of_another_version_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="depth are unknown"):
        settings.from_json('{"depth": 3}')


def test_settings_of_an_earlier_version_that_knew_fewer_are_read() -> None:
    assert settings.from_json('{"width": 16}') == Settings(width=16)
    assert settings.from_json('{"blocks": 2, "levels": 3}').blocks_down == (2, 2, 2)


def test_the_paper_s_own_training_is_within_reach() -> None:
    paper = Settings(
        generator="unet", crop_pixels=256, batch=1, averaging=0, clip_norm=0, warm_up_steps=0,
        schedule="linear", decay_start=0.5,
    )  # fmt: skip
    assert paper.judged
    assert (paper.content_loss, paper.adversarial_start) == ("l1", 0.0)


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().width = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("crop_pixels", 300, "crop_pixels=300 must be a multiple of 8 .* use 296"),
        ("crop_pixels", 24, "at least 32"),
        ("generator", "gan", "generator='gan' must be one of residual, unet"),
        ("precision", "half", "one of auto, float32, bfloat16"),
        ("width", 0, "width=0 must be at least 1"),
        ("first_blocks", -2, "first_blocks=-2 must be -1 .as blocks., 0 or more"),
        ("learning_rate", 0.0, "between 0 and 1"),
        ("l1_weight", -1.0, "0 or a positive number"),
        ("l1_weight", float("nan"), "0 or a positive number"),
        ("decay_start", 1.5, "between 0 and 1"),
        ("beta_1", 1.0, "below 1"),
        ("averaging", 1.0, "below 1"),
        ("adversarial", "hinge", "one of bce, lsgan, wgan-gp, none"),
        ("critic_steps", 0, "at least 1"),
        ("accumulation", 0, "at least 1"),
        ("last_crop_pixels", 132, "last_crop_pixels=132 must be a multiple of 8 .* use 128"),
        ("last_crop_pixels", 64, "0 or at least crop_pixels=128"),
        ("crop_stages", 1, "at least 2"),
        ("adversarial_start", 1.1, "between 0 and 1"),
        ("warm_up_steps", -1, "0 or a positive number"),
        ("stride", 3, "1 or 2"),
        ("clip_norm", -1.0, "0 or a positive number"),
        ("schedule", "steps", "one of cosine, linear"),
        ("content_loss", "l2", "one of l1, charbonnier, psnr"),
        ("camera_share", -0.1, "between 0 and 1"),
        ("white_share", 0.6, r"white_share=0\.6 must be at most 0\.5"),
    ],
)
def test_a_bad_value_is_refused_with_name_value_and_rule(
    name: str, value: object, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        Settings(**{name: value})


def test_the_unet_takes_multiples_of_256_only() -> None:
    with pytest.raises(ValueError, match="crop_pixels=128 must be a multiple of 256"):
        Settings(generator="unet")
    assert Settings(generator="unet", crop_pixels=512).pixel_multiple == 256


def test_half_resolution_takes_multiples_of_twice_as_many_pixels() -> None:
    assert [Settings(levels=3, stride=stride).pixel_multiple for stride in (1, 2)] == [4, 8]


def test_both_weights_can_not_be_zero() -> None:
    with pytest.raises(ValueError, match="nothing would be learned"):
        Settings(adversarial_weight=0, l1_weight=0)
    with pytest.raises(ValueError, match="nothing would be learned"):
        Settings(adversarial="none", l1_weight=0)


def test_a_scene_is_not_for_validation_and_test_at_once() -> None:
    with pytest.raises(ValueError, match="003"):
        Settings(validation_scenes=("002", "003"), test_scenes=("003",))


def test_only_the_length_of_training_is_free_to_change() -> None:
    old = Settings()
    assert settings.differences(old, Settings(epochs=3, limit_seconds=9)) == []
    assert settings.differences(old, Settings(width=8)) == ["width: 24 -> 8"]
