"""Everything that decides what is learned, in one frozen record that travels with checkpoints."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

GENERATORS = ("residual", "unet")
PRECISIONS = ("auto", "float32", "bfloat16")
OBJECTIVES = ("bce", "lsgan", "wgan-gp", "none")
CONTENT_LOSSES = ("l1", "charbonnier", "psnr")
OPTIMIZERS = ("adam", "muon")
SCHEDULES = ("cosine", "linear")
GROWING = ("top_width", "bottom_blocks")  # a generator may begin as one that has less of these
NETWORK = ("generator", "width", "levels", "blocks", "first_blocks", "stride", *GROWING)
FREE_TO_CHANGE = ("epochs", "limit_seconds")  # a run may go on with other values of these


def _setting(default: Any, explanation: str) -> Any:  # noqa: ANN401 - typed like dataclasses.field
    return field(default=default, metadata={"help": explanation})


@dataclass(frozen=True)
class Settings:
    """What decides what is learned; checked when made, saved in each checkpoint.

    Defaults are the paper's (Isola et al., "Image-to-Image Translation with Conditional
    Adversarial Networks", CVPR 2017, https://arxiv.org/abs/1611.07004) unless a line says "ours".

    Raises:
        ValueError: a value breaks a rule; the text says name, value, rule and remedy.
    """

    # networks
    generator: str = _setting("residual", "residual, or unet as in the paper")  # ours
    width: int = _setting(
        24, "residual: channels at the highest resolution, twice as many at each below"
    )  # ours
    top_width: int = _setting(
        0, "residual: channels at the highest resolution where they are others than width; 0: width"
    )  # ours
    levels: int = _setting(4, "residual: resolutions, each half of the one above")  # ours
    blocks: int = _setting(
        1, "residual: blocks per level on the way down and on the way up"
    )  # ours
    first_blocks: int = _setting(
        -1, "residual: blocks at the highest resolution on the way down; -1: as many as blocks"
    )  # ours
    bottom_blocks: int = _setting(
        0, "residual: further blocks at the lowest resolution, where they cost least"
    )  # ours
    stride: int = _setting(
        1, "residual: pixels from one place to the next at the highest resolution: 1, or 2: faster"
    )  # ours
    discriminator_width: int = _setting(64, "channels of the discriminator's first layer")  # 6.1.2
    # losses: total = adversarial_weight * adversarial loss + l1_weight * content loss
    adversarial: str = _setting(
        "bce", "adversarial loss: bce as in the paper, lsgan, wgan-gp, or none"
    )  # 3.3
    adversarial_weight: float = _setting(1.0, "weight of the adversarial loss; 0: none")  # 3.3
    adversarial_start: float = _setting(
        0.0, "share of training before the discriminator joins; until then it costs nothing"
    )  # paper: from the first step
    critic_steps: int = _setting(
        1, "steps of the discriminator before each of the generator, on the same patches"
    )  # 3.3; Gulrajani et al. 2017 take 5 for wgan-gp, on patches of their own
    penalty_weight: float = _setting(
        10.0, "wgan-gp: weight of the gradient penalty in the discriminator's loss"
    )  # Gulrajani et al. 2017, 4
    content_loss: str = _setting(
        "l1", "mean absolute error (l1), charbonnier, or psnr: each patch's error in decibels"
    )  # 3.3
    l1_weight: float = _setting(100.0, "weight of the content loss, in [-1, 1]")  # 3.3, lambda
    # optimisation
    optimizer: str = _setting(
        "adam", "the generator's: adam as in the paper, or muon, which learns in fewer steps"
    )  # 6.2; muon is ours (see optimizers.py)
    learning_rate: float = _setting(2e-4, "the generator's learning rate")  # 6.2
    discriminator_learning_rate: float = _setting(
        2e-4, "the discriminator's, which learns by Adam"
    )  # 6.2
    beta_1: float = _setting(0.5, "Adam's momentum, wherever it teaches")  # 6.2
    warm_up_steps: int = _setting(
        100, "steps in which the rate rises from 0 in a line"
    )  # ours; paper: none
    schedule: str = _setting(
        "cosine", "how the rate falls to 0: cosine or linear"
    )  # ours, SGDR (Loshchilov, Hutter 2017); the pix2pix authors' code: linear
    decay_start: float = _setting(
        0.0, "share of training after which the rate falls; 1: never"
    )  # ours; the authors' code: 0.5
    clip_norm: float = _setting(
        1.0, "largest norm of a network's gradient, of losses whose weights sum to 1; 0: any"
    )  # ours (Pascanu et al. 2013); paper: any
    averaging: float = _setting(
        0.999, "share of the averaged weights kept in each step, these are what denoises; 0: none"
    )  # ours, as Karras et al. 2018 average generators; paper: none
    batch: int = _setting(16, "patches per step, over all workers together")  # paper: 1 to 10
    accumulation: int = _setting(
        1, "parts of a worker's patches that take turns in a step, where memory is short"
    )  # ours; with BatchNorm each part has statistics of its own
    epochs: int = _setting(200, "passes over the training pairs")  # 6.2, facades
    limit_seconds: float = _setting(
        0.0, "end after about so many seconds, the last epoch cut short; 0: no limit"
    )
    seed: int = _setting(0, "seed of the weights, of the patches and of their order")  # ours
    precision: str = _setting("auto", "float32, bfloat16, or auto: what the hardware is fast at")
    # data
    crop_pixels: int = _setting(128, "height and width of a training patch")  # paper: 256
    last_crop_pixels: int = _setting(0, "what patches have grown to in the end; 0: they don't")
    crop_stages: int = _setting(
        3, "sizes of patches from the first to the last, each for as long"
    )  # ours; Zamir et al. 2022 (Restormer) take 6
    patches_per_pair: int = _setting(8, "patches cut from an image each time it is visited")  # ours
    varied_share: float = _setting(
        0.0, "share of the pairs' patches with another exposure, colours exchanged, other noise"
    )  # ours
    camera_share: float = _setting(
        0.5, "with --clean: share of patches that are clean ones with camera noise"
    )  # ours
    white_share: float = _setting(0.15, "with --clean: the same with white noise")  # ours
    validation_scenes: tuple[str, ...] = _setting((), "scenes to validate on; none: about a tenth")
    test_scenes: tuple[str, ...] = _setting((), "scenes that training never sees")  # ours

    def __post_init__(self) -> None:
        """Refuses what can't be trained."""
        for name in ("width", "levels", "blocks", "discriminator_width", "batch", "epochs",
                     "crop_pixels", "patches_per_pair", "critic_steps",
                     "accumulation"):  # fmt: skip
            self._rule(getattr(self, name) >= 1, name, "at least 1")
        names = {"generator": GENERATORS, "precision": PRECISIONS, "adversarial": OBJECTIVES,
                 "content_loss": CONTENT_LOSSES, "optimizer": OPTIMIZERS,
                 "schedule": SCHEDULES}  # fmt: skip
        for name, known in names.items():
            self._rule(getattr(self, name) in known, name, f"one of {', '.join(known)}")
        self._rule(self.stride in (1, 2), "stride", "1 or 2")
        self._rule(self.first_blocks >= -1, "first_blocks", "-1 (as blocks), 0 or more")
        for name in ("warm_up_steps", "bottom_blocks", "top_width"):
            self._rule(getattr(self, name) >= 0, name, "0 or a positive number")
        for name in ("adversarial_weight", "penalty_weight", "l1_weight", "limit_seconds",
                     "clip_norm"):  # fmt: skip
            self._rule(0 <= getattr(self, name) < float("inf"), name, "0 or a positive number")
        self._rule(
            self.judged or self.l1_weight > 0, "l1_weight",
            "positive where no discriminator judges: nothing would be learned",
        )  # fmt: skip
        for name in ("learning_rate", "discriminator_learning_rate"):
            self._rule(0 < getattr(self, name) < 1, name, "between 0 and 1")
        for name in ("beta_1", "averaging"):
            self._rule(0 <= getattr(self, name) < 1, name, "at least 0 and below 1")
        for name in ("decay_start", "adversarial_start"):
            self._rule(0 <= getattr(self, name) <= 1, name, "between 0 and 1")
        for name in ("varied_share", "camera_share", "white_share"):
            self._rule(0 <= getattr(self, name) <= 1, name, "between 0 and 1")
        self._rule(
            self.camera_share + self.white_share < 1 + 1e-9, "white_share",
            f"at most {1 - self.camera_share:g}, what camera_share={self.camera_share:g} leaves",
        )  # fmt: skip
        multiple = self.pixel_multiple
        for name in ("crop_pixels", "last_crop_pixels"):
            pixels = getattr(self, name)
            self._rule(
                pixels % multiple == 0, name,
                f"a multiple of {multiple} for the generator {self.generator}; use "
                f"{max(1, pixels // multiple) * multiple}",
            )  # fmt: skip
        self._rule(
            self.last_crop_pixels == 0 or self.last_crop_pixels >= self.crop_pixels,
            "last_crop_pixels", f"0 or at least crop_pixels={self.crop_pixels}",
        )  # fmt: skip
        self._rule(self.crop_stages >= 2, "crop_stages", "at least 2")
        self._rule(self.crop_pixels >= 32, "crop_pixels", "at least 32, or no patch is judged")
        both = sorted(set(self.validation_scenes) & set(self.test_scenes))
        self._rule(not both, "test_scenes", f"without the validation scenes {', '.join(both)}")

    def _rule(self, holds: bool, name: str, rule: str) -> None:
        if not holds:
            raise ValueError(f"{name}={getattr(self, name)!r} must be {rule}")

    @property
    def judged(self) -> bool:
        """Whether a discriminator ever judges the generator; without, none is built."""
        return self.adversarial != "none" and self.adversarial_weight > 0

    @property
    def widths(self) -> tuple[int, ...]:
        """The residual generator's channels at each resolution, the highest first."""
        below = (self.width * 2**level for level in range(1, self.levels))
        return (self.top_width or self.width, *below)

    @property
    def blocks_down(self) -> tuple[int, ...]:
        """The residual generator's blocks at each resolution on the way down, the highest first."""
        first = self.blocks if self.first_blocks == -1 else self.first_blocks
        return (first, *[self.blocks] * (self.levels - 1))

    @property
    def pixel_multiple(self) -> int:
        """Heights and widths that the generator takes are multiples of this."""
        return 256 if self.generator == "unet" else self.stride * 2 ** (self.levels - 1)


def to_json(settings: Settings) -> str:
    """The settings as a JSON text, one line per setting."""
    return json.dumps(dataclasses.asdict(settings), indent=1) + "\n"


def from_json(text: str) -> Settings:
    """The settings that `to_json` wrote.

    Raises:
        ValueError: a setting is unknown here or breaks a rule.
    """
    values = json.loads(text)
    unknown = sorted(set(values) - {item.name for item in dataclasses.fields(Settings)})
    if unknown:
        raise ValueError(
            f"settings {', '.join(unknown)} are unknown to this version of pix2pix: "
            "use the version that wrote the checkpoint (its card.json names it)"
        )
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return Settings(**{**values, **lists})


def differences(old: Settings, new: Settings) -> list[str]:
    """The settings in which a run's second start differs from its first, as "name: old -> new".

    Settings in `FREE_TO_CHANGE` don't count. They say how long to train, and by that where the
    learning rate begins to fall: a run that is made longer goes back up to a higher rate.
    """
    pairs = [
        (item.name, getattr(old, item.name), getattr(new, item.name))
        for item in dataclasses.fields(Settings)
    ]
    return [
        f"{name}: {before!r} -> {after!r}"
        for name, before, after in pairs
        if before != after and name not in FREE_TO_CHANGE
    ]
