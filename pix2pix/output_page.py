"""The page of a bulk job: did it go well, what failed and why, and how the results look."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from pix2pix import crops, markup, outcome, progress, report, status, storage, summary
from pix2pix.outcome import Outcome, Row

PICTURES = 8  # images that are shown before and after
DAYS, LISTED, CHANGES = 14, 20, 10  # the last days; weights and machines; largest changes
UNFOLDED = 8  # failures of a class; more are folded away
WORDS = {
    "denoised": "denoised",
    "skipped_clean": "clean already: passed through as they were",
    "kept_original": "kept as they were: the result was no better",
    "failed": "failed",
}


def page(output_url: str) -> bytes:
    """The page of a bulk job, HTML; the job may still run.

    Raises:
        OSError: the output could not be read.
        ValueError: a part of its table is no Parquet file or lacks a column.
    """
    found, last = outcome.read(output_url), _summary(output_url)
    return markup.page(
        "How denoising went",
        output_url,
        _verdict(found, last),
        [
            markup.figures(_figures(found, last)),
            _statuses(found),
            _failures(found),
            _pictures(found),
            _noise(found),
            _changes(found),
            _kept(found),
            _time(found, last),
            _places(found, last),
        ],
    )


def _summary(output_url: str) -> dict[str, Any]:
    url = storage.join(output_url, summary.FILE)
    return json.loads(storage.read(url)) if storage.exists(url) else {}


def _verdict(found: Outcome, last: dict[str, Any]) -> tuple[str, str]:
    rows, failed = f"{found.rows:,}", found.by_status["failed"]
    passed = found.rows - failed
    failures = f"{failed:,} of {found.rows:,} images failed ({markup.share(failed, found.rows)})"
    if found.images is None or found.without_row:
        total = "" if found.images is None else f" of {found.images:,}"
        return markup.FAIR, (
            f"Not finished: {rows}{total} images done, {failed:,} of them failed. The job runs "
            "still, or was stopped; the same command goes on with it."
        )
    if not failed:
        return markup.GOOD, f"Nothing failed: all {passed:,} images have a result."
    if last.get("over_budget"):
        return markup.BAD, f"{failures}: more than --max-failed allows. The others went well."
    return markup.FAIR, f"{failures}; the other {passed:,} have a result."


def _figures(found: Outcome, last: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield f"{found.rows if found.images is None else found.images:,}", "images"
    yield f"{found.by_status['denoised']:,}", "denoised"
    yield f"{found.by_status['failed']:,}", "failed"
    yield f"{sum(found.megapixels.values()):,.1f}", "megapixels"
    before, after = (found.mean(name) for name in outcome.NOISE)
    if before is not None and after is not None:
        yield f"{before:.1f} → {after:.1f}", "mean noise of the denoised, levels of 255"
    if last.get("done_now"):
        yield f"{last['images_per_second']:,.2f}", "images/s in the last job"
    if (psnr_db := found.mean("psnr_db")) is not None:
        yield f"{psnr_db:.2f} dB", "PSNR against the reference"


def _statuses(found: Outcome) -> str:
    total = found.rows + found.without_row
    rows = [
        (WORDS[name], f"{count:,}", markup.share(count, total), f"{found.megapixels[name]:,.1f}")
        for name in status.STATUSES
        if (count := found.by_status[name])
    ]
    if found.without_row:
        rows.append(
            ("not done yet", f"{found.without_row:,}", markup.share(found.without_row, total), "")
        )
    left = f"{found.left_archive:,} rows more are of images that have left the archive since."
    return markup.section(
        "What became of the images",
        markup.table(("", "#images", "#share", "#megapixels"), rows),
        markup.note(left) if found.left_archive else "",
    )


def _failures(found: Outcome) -> str:
    pieces = []
    for name, count in found.by_failure_class.most_common():
        rows = [
            (row["relative_path"], row["attempt"], row["message"] or "")
            for row in found.failures[name]
        ]
        some = "" if len(rows) == count else f", {len(rows)} of them listed"
        pieces.append(
            markup.details(
                f"{name}: {count:,}{some}",
                markup.table(("image", "#attempts", "what went wrong"), rows),
                is_open=len(rows) <= UNFOLDED,
            )
        )
    return markup.section("Failures", *pieces)


def _pictures(found: Outcome) -> str:
    chosen = [("The noisiest", row) for row in found.noisiest]
    chosen += [("The one that changed most", row) for row in found.changed_most]
    rest = PICTURES - len({row["relative_path"] for _, row in chosen})
    places = np.linspace(0, len(found.spread) - 1, rest).round().astype(int)
    chosen += [("", found.spread[place]) for place in places if found.spread]
    pieces, seen = list[str](), set[str]()
    for why, row in chosen:
        name = row["relative_path"]
        if name in seen:
            continue
        seen.add(name)
        pair = crops.crops(row)
        about = f"{why}: {name}" if why else name
        caption = f"{about} ({row['width']} x {row['height']}), {_change(row)}"
        pieces.append(markup.crops(caption, (pair.before, pair.after), crops.SIDE))
    about = (
        f"Before and after, pixel by pixel: of each photograph the {crops.SIDE} pixels square that "
        "changed most, as stored (not turned upright). The noisiest, the one whose mean changed "
        f"most, and others evenly from all, up to {outcome.SHOWN_PIXELS // 10**6} megapixels."
    )
    if not pieces:
        return ""
    return markup.section("Before | after", markup.note(about), markup.pairs(pieces))


def _change(row: Row) -> str:
    sigmas = [row[name] for name in outcome.NOISE]
    noise = " → ".join("?" if sigma is None else f"{sigma:.2f}" for sigma in sigmas)
    shift = "?" if row["mean_shift"] is None else f"{row['mean_shift']:.2f}"
    return f"noise {noise}, mean shift {shift}"


def _noise(found: Outcome) -> str:
    before, after = (found.noise[name] for name in outcome.NOISE)
    if not before.sum():
        return ""
    words = f"Estimated, of {before.sum():,} denoised images."
    means = [found.mean(name) for name in outcome.NOISE]
    if None not in means:
        words += f" Mean: {means[0]:.2f} before, {means[1]:.2f} after, in levels of 255."
    plot = markup.plot(report.noise(before, after, outcome.BIN), "Histogram of noise levels")
    return markup.section("Noise before and after", plot, markup.note(words))


def _changes(found: Outcome) -> str:
    rows = [
        (
            row["relative_path"],
            f"{row['mean_shift']:.2f}",
            *(markup.number(row[n]) for n in outcome.NOISE),
        )
        for row in found.changes[:CHANGES]
    ]
    about = "The most that a colour channel's mean moved, in levels of 255, of the denoised."
    return markup.section(
        "The largest changes",
        markup.note(about) if rows else "",
        markup.table(("image", "#mean shift", "#noise before", "#noise after"), rows),
    )


def _kept(found: Outcome) -> str:
    kinds = [(kind, f"{count:,}") for kind, count in found.reasons.most_common(outcome.LISTED)]
    rows = [(row["relative_path"], row["message"] or "") for row in found.kept]
    some = f"The first {len(rows)} of {found.by_status['kept_original']:,}:"
    return markup.section(
        "Kept originals",
        markup.table(("too much of", "#images"), kinds),
        markup.note(some) if len(rows) < found.by_status["kept_original"] else "",
        markup.table(("image", "reason: found > allowed"), rows),
    )


def _time(found: Outcome, last: dict[str, Any]) -> str:
    total = sum(found.sums[name] for name in outcome.STAGES)
    rows = [
        (
            name.removeprefix("seconds_"), markup.number(found.mean(name)),
            progress.clock(found.sums[name]), markup.share(found.sums[name], total),
        )
        for name in outcome.STAGES
    ]  # fmt: skip
    days: dict[str, Counter[str]] = {}
    for (day, name), count in sorted(found.by_day.items()):
        days.setdefault(day, Counter())[name] = count
    by_day = [
        (day, f"{counts.total():,}", *(f"{counts[name]:,}" for name in status.STATUSES))
        for day, counts in sorted(days.items())[-DAYS:]
    ]
    words = "Of all threads together, waiting included."
    if last.get("done_now"):
        words += (
            f" The last job ({last.get('state')}) did {last['done_now']:,} images in "
            f"{progress.clock(last['seconds'])}: {last['images_per_second']:.2f} images/s, "
            f"{last['megapixels_per_second']:.2f} megapixels/s."
        )
    return markup.section(
        "Time",
        markup.table(("stage", "#seconds per image", "#all", "#share"), rows if total else []),
        markup.note(words),
        markup.table(("finished on (UTC)", "#images", *(f"#{n}" for n in status.STATUSES)), by_day),
    )


def _places(found: Outcome, last: dict[str, Any]) -> str:
    urls = {last.get("checkpoint_sha256"): last.get("checkpoint_url", "")}
    weights = [
        (sha256, f"{count:,}", urls.get(sha256, ""))
        for sha256, count in found.by_checkpoint.most_common(LISTED)
    ]
    nodes = [(name, f"{count:,}") for name, count in found.by_node.most_common(LISTED)]
    return markup.section(
        "Weights and machines",
        markup.table(("SHA-256 of the checkpoint", "#images", "where it was"), weights),
        markup.table(("machine", "#images"), nodes),
    )
