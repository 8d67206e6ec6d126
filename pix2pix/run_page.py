"""The page of a training: what it has reached, by which curves, with which settings."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow.parquet as pq

from pix2pix import checkpoints, markup, progress, report, storage

EPOCHS = 15  # the last ones, in a table


def page(run_url: str) -> bytes:
    """The page of a training, HTML; it may still run.

    Raises:
        OSError: the run could not be read.
        ValueError: its history is no Parquet file or lacks a column.
    """
    data = storage.read(storage.join(run_url, checkpoints.HISTORY))
    try:
        epochs = pq.read_table(io.BytesIO(data)).to_pylist()
        plot = report.curves(data)
        best = max(epochs, key=lambda epoch: epoch["psnr_db"])
        gain = best["psnr_db"] - best["noisy_psnr_db"]
        last = [_epoch(epoch) for epoch in epochs[-EPOCHS:]]
    except KeyError as error:
        rule = f"must have the column {error}; it is another version's, or damaged"
        raise ValueError(f"{storage.join(run_url, checkpoints.HISTORY)} {rule}") from error
    ended = storage.exists(storage.join(run_url, checkpoints.CURVES))
    card = checkpoints.card_of(run_url) if checkpoints.named(run_url, checkpoints.BEST) else {}
    chosen = json.loads(storage.read(storage.join(run_url, checkpoints.SETTINGS)))
    sentence = (
        f"{'Finished' if ended else 'Not finished yet'}, after {len(epochs):,} epochs. The best "
        f"checkpoint, of epoch {best['epoch']}, has {best['psnr_db']:.2f} dB on scenes it never "
        f"trained on, {gain:+.2f} dB over the noisy input"
    )
    sentence += ": it does harm." if gain <= 0 else "."
    grade = markup.BAD if gain <= 0 else markup.GOOD if ended else markup.FAIR
    head = ("#epoch", "#step", "#PSNR", "#over noisy", "#SSIM", "#L1 loss", "#steps/s", "#time", "")
    return markup.page(
        "How training went",
        run_url,
        (grade, sentence),
        [
            markup.figures(_run_figures(best, epochs[-1])),
            markup.section("Curves", markup.plot(plot, "PSNR, SSIM and losses over the steps")),
            markup.section(f"The last {len(last)} epochs", markup.table(head, last)),
            markup.section("The best checkpoint's card", markup.table(("", ""), _facts(card))),
            markup.section("Settings", markup.table(("", ""), _facts(chosen))),
        ],
    )


def _run_figures(best: dict[str, float], last: dict[str, float]) -> Iterator[tuple[str, str]]:
    yield f"{best['psnr_db']:.2f} dB", "best PSNR on validation scenes"
    yield f"{best['psnr_db'] - best['noisy_psnr_db']:+.2f} dB", "over the noisy input"
    yield f"{best['ssim']:.4f}", f"SSIM (noisy: {best['noisy_ssim']:.4f})"
    yield f"{last['epoch']:,}", "epochs"
    yield progress.clock(last["seconds"]), "of training"


def _epoch(epoch: dict[str, Any]) -> tuple[str, ...]:
    return (
        str(epoch["epoch"]), f"{epoch['step']:,}", f"{epoch['psnr_db']:.2f} dB",
        f"{epoch['psnr_db'] - epoch['noisy_psnr_db']:+.2f} dB", f"{epoch['ssim']:.4f}",
        f"{epoch['l1_loss']:.4f}", f"{epoch['steps_per_second']:.2f}",
        progress.clock(epoch["seconds"]), "best so far" if epoch["best"] else "",
    )  # fmt: skip


def _facts(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """A line for each fact of a card or of settings."""
    for name, value in values.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {each}" for key, each in value.items())
        elif isinstance(value, list):
            value = f"{len(value)}: {', '.join(map(str, value))}"
        elif isinstance(value, float):
            value = f"{value:.6g}"
        yield name.replace("_", " "), str(value)
