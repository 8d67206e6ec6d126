import math

import pytest

from pix2pix.schedule import Progress, crop_pixels, finished, rate_share, share_done
from pix2pix.settings import Settings


def _share(done: float, step: int = 10**6, **changes: object) -> float:
    return rate_share(done, step, Settings(**changes))


def test_the_rate_rises_in_a_line() -> None:
    shares = [_share(0.0, step, warm_up_steps=4) for step in range(6)]
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1])
    assert _share(0.0, 0, warm_up_steps=0) == 1


def test_the_cosine_is_known_at_its_quarters() -> None:
    shares = [_share(done) for done in (0, 0.25, 0.5, 0.75, 1)]
    assert shares == pytest.approx([1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0])


def test_the_line_of_the_authors_falls_over_the_second_half() -> None:
    shares = [_share(x, schedule="linear", decay_start=0.5) for x in (0, 0.5, 0.75, 0.9, 1)]
    assert shares == pytest.approx([1, 1, 0.5, 0.2, 0])


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_a_decay_that_never_starts_leaves_the_rate(schedule: str) -> None:
    assert _share(1.0, schedule=schedule, decay_start=1.0) == 1


def test_without_a_limit_steps_say_how_far_a_run_is() -> None:
    run = Settings(limit_seconds=0)
    assert share_done(Progress(seconds=1e9), run, 30, 120, 1e9) == 0.25


def test_with_a_limit_it_is_the_time_if_that_is_further() -> None:
    run, progress = Settings(limit_seconds=110), Progress(seconds=40, closing_seconds=10)
    assert share_done(progress, run, 5, 100, 10) == pytest.approx(0.5)  # 50 of 100 s
    assert share_done(progress, run, 90, 100, 10) == pytest.approx(0.9)
    assert share_done(progress, run, 5, 100, 1000) == 1


def test_a_run_continued_is_as_far_as_it_was_when_it_broke() -> None:
    run = Settings(limit_seconds=100)
    unbroken = share_done(Progress(seconds=20), run, 7, 1000, 30)
    assert share_done(Progress(seconds=50), run, 7, 1000, 0) == unbroken == 0.5


def test_a_run_is_finished_when_no_time_is_left_to_validate_again() -> None:
    run = Settings(limit_seconds=100, epochs=10)
    assert not finished(Progress(epoch=3, seconds=89, closing_seconds=10), run)
    assert finished(Progress(epoch=3, seconds=90, closing_seconds=10), run)
    assert finished(Progress(epoch=10), run)
    assert not finished(Progress(epoch=9, seconds=1e9), Settings(epochs=10))


def test_patches_grow_in_equal_stages_to_multiples_that_the_generator_takes() -> None:
    run = Settings(crop_pixels=96, last_crop_pixels=192, crop_stages=3)
    sizes = [crop_pixels(done, run) for done in (0, 0.33, 0.34, 0.66, 0.67, 1)]
    assert sizes == [96, 96, 144, 144, 192, 192]
    run = Settings(crop_pixels=96, last_crop_pixels=176, crop_stages=4, levels=5)
    assert [crop_pixels(done, run) for done in (0, 0.3, 0.6, 0.9)] == [96, 128, 144, 176]


def test_patches_stay_as_they_are_unless_told() -> None:
    assert crop_pixels(1.0, Settings(crop_pixels=64)) == 64
