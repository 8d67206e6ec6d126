"""Pictures for people: the curves of a run, and photographs side by side."""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

CELL_PIXELS = 384  # longer side of a photograph on a sheet
BLUE, ORANGE, GREY = "#1f77b4", "#d95f02", "#777777"


@dataclass(frozen=True)
class Row:
    """A line of a sheet: images uint8 (height, width, 3) of one size, each with its caption."""

    title: str
    images: tuple[np.ndarray, ...]
    captions: tuple[str, ...]


def curves(history: bytes, objective: str = "bce") -> bytes:
    """A PNG of a run: PSNR and SSIM against the noisy input's, losses, learning rate.

    Args:
        history: The content of RUN/history.parquet.
        objective: The run's adversarial loss.
    """
    from matplotlib.figure import Figure

    columns = pq.read_table(io.BytesIO(history)).to_pydict()
    steps = columns["step"]
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    for axis, score, name in ((axes[0][0], "psnr_db", "PSNR (dB)"), (axes[0][1], "ssim", "SSIM")):
        axis.plot(steps, columns[score], color=BLUE, marker=".", label="denoised")
        axis.plot(steps, columns[f"noisy_{score}"], color=GREY, linestyle="--", label="noisy input")
        best = int(np.argmax(columns["psnr_db"]))
        axis.plot(
            steps[best], columns[score][best], "o", color=ORANGE,
            label=f"best checkpoint: {columns[score][best]:.4g}",
        )  # fmt: skip
        axis.set_title(f"{name}, validation")
        axis.legend()
    axes[1][0].plot(steps, columns["l1_loss"], color=BLUE, marker=".")
    axes[1][0].set_title("L1 loss, training (in [-1, 1])")
    axes[1][1].plot(steps, columns["adversarial_loss"], color=BLUE, marker=".", label="adversarial")
    axes[1][1].plot(
        steps, columns["discriminator_loss"], color=ORANGE, marker=".", label="discriminator"
    )
    if objective == "bce":
        axes[1][1].axhline(np.log(2), color=GREY, linestyle=":", label="undecided: ln 2")
    axes[1][1].set_title(f"adversarial losses ({objective}), training")
    axes[1][1].legend()
    for axis in axes.flat:
        axis.set_xlabel("step")
        axis.grid(alpha=0.3)
    return _png(figure)


def sheet(rows: list[Row], columns: tuple[str, ...]) -> bytes:
    """A PNG with photographs side by side, a caption under each.

    Args:
        rows: Top to bottom; large images are made smaller.
        columns: What stands over each column.
    """
    from matplotlib.figure import Figure

    cell = 3.2  # inches at 100 dots
    figure = Figure(figsize=(cell * len(columns), (cell + 0.35) * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for place, row in enumerate(rows):
        for axis, image, caption in zip(axes[place], row.images, row.captions, strict=True):
            picture = Image.fromarray(image)
            picture.thumbnail((CELL_PIXELS, CELL_PIXELS), Image.Resampling.BOX)
            axis.imshow(np.asarray(picture), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(caption, fontsize=10)
        axes[place][0].set_ylabel(row.title, fontsize=8)
    for axis, name in zip(axes[0], columns, strict=True):
        axis.set_title(name)
    return _png(figure)


def noise(before: NDArray[np.int64], after: NDArray[np.int64], bin_levels: float) -> bytes:
    """A PNG of two histograms over each other: the noise of photographs before and after.

    Args:
        before: How many photographs are in each bin, from 0 on; the last has all that is above.
        after: Likewise.
        bin_levels: Width of a bin, in levels of 255.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    both = (before + after).cumsum()
    shown = int(np.searchsorted(both, 0.995 * both[-1])) + 2  # no long empty tail
    joined = max(1, shown // 50)  # bins that share a bar
    starts = np.arange(0, min(shown, len(before)), joined)
    edges = np.append(starts, starts[-1] + joined) * bin_levels
    figure = Figure(figsize=(9, 3), layout="constrained")
    axis = figure.subplots()
    for counts, color, name in ((before, GREY, "before"), (after, BLUE, "after")):
        bars = np.add.reduceat(counts, starts)  # the last has the tail
        axis.stairs(bars, edges, fill=True, color=color, alpha=0.35)
        axis.stairs(bars, edges, color=color, label=name)
    axis.set_xlabel("noise level (sigma, of 255 levels)")
    axis.set_ylabel("photographs")
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlim(0, edges[-1])
    axis.legend(frameon=False)
    axis.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def _png(figure: Any) -> bytes:  # noqa: ANN401 - a Figure; matplotlib is loaded when one is drawn
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=100)
    return target.getvalue()
