"""How far a training run is, and what follows from it: its rate, its patches, its end."""

import math
from dataclasses import dataclass, field

from pix2pix.settings import Settings


@dataclass
class Progress:
    """How far a run has come; it travels in each checkpoint's state."""

    epoch: int = 0  # finished ones
    step: int = 0
    seconds: float = 0.0  # of all starts together, as the workers agreed
    closing_seconds: float = 0.0  # of the last epoch, to validate
    best_psnr_db: float = -math.inf
    history: list[dict[str, float]] = field(default_factory=list)


def finished(progress: Progress, run: Settings) -> bool:
    """Whether all epochs are done, or the time is over."""
    return progress.epoch >= run.epochs or seconds_left(progress, run) <= 0


def seconds_left(progress: Progress, run: Settings) -> float:
    """Seconds to train on before the run must validate for the last time; may be infinite."""
    if run.limit_seconds == 0:
        return math.inf
    return run.limit_seconds - progress.closing_seconds - progress.seconds


def share_done(progress: Progress, run: Settings, step: int, steps: int, seconds: float) -> float:
    """How much of a run is behind it, from 0 to 1: its steps or its time, what is further.

    Args:
        progress: As it was when this epoch began.
        run: `limit_seconds`.
        step: Of the whole run, from 0.
        steps: Of the whole run.
        seconds: Since this epoch began, the same on all workers.
    """
    left = seconds_left(progress, run)
    timed = (progress.seconds + seconds) / (progress.seconds + left) if left > 0 else 1.0
    return min(1.0, max(step / steps, timed))


def rate_share(done: float, step: int, run: Settings) -> float:
    """The share of the learning rates for a step: rises in a line, then falls to 0.

    Args:
        done: See `share_done`.
        step: Of the whole run, from 0.
        run: `warm_up_steps`, `schedule` and `decay_start`.

    Source:
        Linear after `decay_start`: the pix2pix authors' code (https://github.com/phillipi/pix2pix
        and its PyTorch successor: 0.5). Cosine: Loshchilov, Hutter, "SGDR", ICLR 2017, equation 5
        without restarts (https://arxiv.org/abs/1608.03983).
    """
    warm = min(1.0, (step + 1) / run.warm_up_steps) if run.warm_up_steps else 1.0
    if done <= run.decay_start:
        return warm
    fallen = (done - run.decay_start) / (1 - run.decay_start)
    return warm * (1 - fallen if run.schedule == "linear" else (1 + math.cos(math.pi * fallen)) / 2)


def crop_pixels(done: float, run: Settings) -> int:
    """The size of the patches for an epoch that begins so far into a run; it grows in stages.

    Source:
        Progressive learning: Zamir et al., "Restormer", CVPR 2022, 3.3
        (https://arxiv.org/abs/2111.09881). Where we differ: the batch stays as it is.
    """
    if not run.last_crop_pixels:
        return run.crop_pixels
    stage = min(int(done * run.crop_stages), run.crop_stages - 1)
    grown = (run.last_crop_pixels - run.crop_pixels) * stage / (run.crop_stages - 1)
    return run.crop_pixels + round(grown / run.pixel_multiple) * run.pixel_multiple
