"""Tables and pictures of what `quality.py` measured."""

import io
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import quality_peers
import quality_sets
from PIL import Image

from pix2pix import metrics, report

Row = dict[str, Any]
Method = tuple[str, str]  # name, where its noise level comes from
NOISY, TRUTH = ("noisy", ""), ("clean", "")
VISIBLE_DB = 45.0  # a clean photograph changed by less than this PSNR shows no difference
ON_PICTURES = ("", quality_peers.ESTIMATED)  # what is shown of each peer


def methods(rows: list[Row]) -> list[Method]:
    """All methods that have scores against noise: the noisy input, the peers, ours."""
    found = dict.fromkeys((row["method"], row["level"]) for row in rows if row["set"] != "clean")
    found.pop(TRUTH, None)
    ours = [method for method in found if is_ours(method)]
    peers = sorted(set(found) - set(ours) - {NOISY}, key=_place)
    return [NOISY, *peers, *ours]


def _place(method: Method) -> tuple[int, int]:
    names = [peer.name for peer in quality_peers.PEERS]
    levels = ["", quality_peers.ESTIMATED, quality_peers.FIXED, quality_peers.TRUE]
    return names.index(method[0]), levels.index(method[1])


def is_ours(method: Method) -> bool:
    """Whether a method is a checkpoint."""
    return method[0].startswith("pix2pix ")


def label(method: Method) -> str:
    """A method for people."""
    name, level = method
    return f"{name}, {level}" if level else name


def scores(rows: list[Row], method: Method, name: str) -> list[tuple[Row, Row]]:
    """A method's rows of one set beside those of the noisy inputs; none if any is missing."""
    noisy = {row["image"]: row for row in rows if row["set"] == name and row["method"] == "noisy"}
    found = [
        (row, noisy[row["image"]])
        for row in rows
        if row["set"] == name and (row["method"], row["level"]) == method
    ]
    return found if len(found) == len(noisy) else []


def psnr_db(both: list[tuple[Row, Row]]) -> float:
    """Mean PSNR."""
    return metrics.mean_psnr_db(row["psnr_db"] for row, _ in both)


def gain_db(both: list[tuple[Row, Row]]) -> float:
    """Mean gain over the noisy inputs."""
    return float(np.mean([row["psnr_db"] - noisy["psnr_db"] for row, noisy in both]))


def worst_db(both: list[tuple[Row, Row]]) -> float:
    """Gain of the image that gained least."""
    return min(row["psnr_db"] - noisy["psnr_db"] for row, noisy in both)


def ssim(both: list[tuple[Row, Row]]) -> float:
    """Mean SSIM."""
    return float(np.mean([row["ssim"] for row, _ in both]))


def speed_of(fast: dict[str, float], method: Method) -> str:
    """A method's megapixels per second."""
    value = fast[method[0]]
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def page(rows: list[Row], fast: dict[str, float], cores: int, hows: dict[str, str]) -> str:
    """The tables, in Markdown.

    Args:
        rows: Of every set, method, level and image.
        fast: Megapixels per second by method.
        cores: For every method.
        hows: The numbers of each peer.
    """
    known = dict(quality_sets.NAMES)
    sets = [name for name in known if any(row["set"] == name for row in rows)]
    counts = Counter(row["set"] for row in rows if row["method"] == "noisy")
    text = [
        "Means over all photographs of a set; uint8, RGB. Peers have the noise level that "
        "scikit-image estimates, 10, or where it is known the true one.",
        "",
        *(f"- {name}: {known[name]}, {counts[name]} photographs" for name in sets),
        *(f"- {name}: {how}" for name, how in hows.items()),
    ]
    tables: tuple[tuple[str, Callable, str], ...] = (
        ("PSNR, dB", psnr_db, "{:.2f}"),
        ("SSIM", ssim, "{:.3f}"),
        ("Gain of the photograph that gained least, dB", worst_db, "{:+.2f}"),
    )
    for title, score, form in tables:
        speed = title == tables[0][0] and bool(fast)
        columns = [*sets, *([f"MP/s, {cores} cores"] if speed else [])]
        text += ["", f"### {title}", "", "| method | " + " | ".join(columns) + " |"]
        text.append("|---" * (len(columns) + 1) + "|")
        for method in methods(rows):
            cells = []
            for name in sets:
                both = scores(rows, method, name)
                cells.append(form.format(score(both)) if both else "")
            cells += [speed_of(fast, method) if method[0] in fast else ""] if speed else []
            bold = "**" if is_ours(method) else ""
            text.append(f"| {bold}{label(method)}{bold} | " + " | ".join(cells) + " |")
    others = [f"{name} {speed_of(fast, (name, ''))}" for name in fast if name not in _names(rows)]
    text += ["", f"MP/s, {cores} cores, too: {', '.join(others)}"] if others else []
    return "\n".join([*text, *_gate(rows), ""])


def _names(rows: list[Row]) -> set[str]:
    return {row["method"] for row in rows}


def _gate(rows: list[Row]) -> list[str]:
    """What became of ours, and of clean photographs."""
    text: list[str] = []
    for name in dict.fromkeys(row["method"] for row in rows if row.get("status")):
        of = [row for row in rows if row["method"] == name]
        noisy = Counter(row["status"] for row in of if row["set"] != "clean")
        told = ", ".join(f"{count} {status}" for status, count in noisy.items())
        text += ["", f"{name}: {told}"]
        clean = [row for row in of if row["set"] == "clean"]
        if clean:
            states = Counter(row["status"] for row in clean)
            worst = min(clean, key=lambda row: row["psnr_db"])
            seen = [row["image"] for row in clean if row["psnr_db"] <= VISIBLE_DB]
            text.append(
                f"of {len(clean)} clean photographs "
                f"{', '.join(f'{count} {status}' for status, count in states.items())}; lowest "
                f"PSNR to the input {worst['psnr_db']:.2f} dB ({worst['image']}); "
                f"{len(seen)} not over {VISIBLE_DB:g} dB{': ' if seen else ''}{', '.join(seen)}"
            )
    return text


def pictures(rows: list[Row], fast: dict[str, float]) -> Iterator[tuple[str, bytes]]:
    """Names and PNGs: crops of each set, and PSNR against speed."""
    for name, _ in quality_sets.NAMES:
        if any(row["set"] == name for row in rows):
            yield f"{name}.png", _crops([row for row in rows if row["set"] == name])
    for method in filter(is_ours, methods(rows)):
        name = method[0].removeprefix("pix2pix ").replace(" ", "-")
        yield f"worst-{name}.png", _worst([row for row in rows if row["method"] == method[0]])
    if fast:
        yield "speed.png", _speed(rows, fast)


def _worst(rows: list[Row]) -> bytes:
    """Of each set the place that a checkpoint left most wrong: noisy | as it made it | clean."""
    known, lines = dict(quality_sets.NAMES), []
    for row in rows:
        if row.get("worst_places"):
            noisy, made, clean = (
                np.asarray(Image.open(io.BytesIO(place))) for place in row["worst_places"]
            )
            title = f"{known[row['set']]}\n{row['image'][:24]}"
            captions = f"{row['worst_noisy_db']:.2f} dB", f"{row['worst_db']:.2f} dB", "reference"
            lines.append(report.Row(title, (noisy, made, clean), captions))
    return report.sheet(lines, ("noisy", rows[0]["method"], "clean"))


def _crops(rows: list[Row]) -> bytes:
    """The middle of some photographs: noisy | peers | ours | clean, with the PSNR of the whole."""
    shown = [method for method in methods(rows) if method[1] in ON_PICTURES]
    shown = [*(m for m in shown if m == NOISY or _slow(m)), *(m for m in shown if is_ours(m))]
    lines = []
    for image in dict.fromkeys(row["image"] for row in rows if row["crop"]):
        of = {(row["method"], row["level"]): row for row in rows if row["image"] == image}
        cells = [of.get(method) for method in [*shown, TRUTH]]
        crops = tuple(
            np.zeros((8, 8, 3), np.uint8) if cell is None
            else np.asarray(Image.open(io.BytesIO(cell["crop"]))) for cell in cells
        )  # fmt: skip
        captions = tuple("" if cell is None else f"{cell['psnr_db']:.2f} dB" for cell in cells[:-1])
        lines.append(report.Row(image[:24], crops, (*captions, "reference")))
    return report.sheet(lines, (*(method[0] for method in shown), "clean"))


def _slow(method: Method) -> bool:
    """Whether a peer is one of those worth a column."""
    return method[0] in ("bilateral", "wavelet", "OpenCV NLM", "NLM", "BM3D")


def _speed(rows: list[Row], fast: dict[str, float]) -> bytes:
    """Mean gain over all sets against speed, and PSNR of each set against speed."""
    from matplotlib.figure import Figure

    sets = [name for name, _ in quality_sets.NAMES if any(row["set"] == name for row in rows)]
    drawn = [m for m in methods(rows) if m[0] in fast and m[1] in ON_PICTURES]
    figure = Figure(figsize=(16, 8), layout="constrained")
    axes = figure.subplots(2, 4).ravel()
    for axis, name in zip(axes, ["", *sets], strict=False):
        for number, method in enumerate(drawn):
            each = [scores(rows, method, one) for one in ([name] if name else sets)]
            if all(each):
                value = psnr_db(each[0]) if name else float(np.mean([gain_db(b) for b in each]))
                axis.plot(
                    fast[method[0]], value, "*" if is_ours(method) else "o",
                    color=report.ORANGE if is_ours(method) else f"C{number % 10}",
                    markersize=15 if is_ours(method) else 8, label=label(method),
                )  # fmt: skip
                if is_ours(method):
                    place, below = (fast[method[0]], value), number and is_ours(drawn[number - 1])
                    axis.annotate(
                        method[0].removeprefix("pix2pix "), place, ha="center",
                        xytext=(0, -19 if below else 9), textcoords="offset points",
                    )  # fmt: skip
        axis.margins(0.12)
        axis.set_xscale("log")
        axis.set_xlabel("megapixels per second")
        axis.set_title(dict(quality_sets.NAMES)[name] if name else "mean of all sets")
        axis.set_ylabel("PSNR, dB" if name else "gain over noisy, dB")
        axis.grid(alpha=0.3)
        if name:
            noisy = psnr_db(scores(rows, NOISY, name))
            axis.axhline(noisy, color=report.GREY, linestyle="--")
    drawn_handles = [axis.get_legend_handles_labels() for axis in axes]
    known = {name: handle for handles, names in drawn_handles for handle, name in
             zip(handles, names, strict=True)}  # fmt: skip
    figure.legend(list(known.values()), list(known), loc="outside right upper")
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()
