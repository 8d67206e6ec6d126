"""What a process that denoises tells Prometheus, through Ray: each image once, in few labels.

Ray adds `ray_` before the names, and the process and its node as labels. Each node answers at its
metrics port, ten seconds behind; a process that dies takes what it counted since with it, and an
image that is done again counts again: the status table is the truth, these are for looking on.
"""

import time
from collections import defaultdict
from typing import Any

IMAGES, FAILURES = "pix2pix_images_total", "pix2pix_failures_total"
MEGAPIXELS, STAGE_SECONDS = "pix2pix_megapixels_total", "pix2pix_stage_seconds_total"
IMAGE_SECONDS = "pix2pix_image_seconds"
# what a thread does with an image, one after another; "denoise" has the wait for the generator in
# it, which one thread of a process has at a time, and "wait" the wait for memory
STAGES = ("wait", "read", "decode", "measure", "denoise", "encode", "write", "failed")
BOUNDARIES = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)  # seconds


class Watch:
    """The seconds of one image by stage.

    Attributes:
        begun: When it was begun, by `time.monotonic`.
        at: When the last stage ended.
        seconds: Of each stage.
    """

    def __init__(self) -> None:
        self.begun = self.at = time.monotonic()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def lap(self, stage: str) -> float:
        """The seconds since the last stage ended, or since the beginning: this one took them."""
        before, self.at = self.at, time.monotonic()
        self.seconds[stage] += self.at - before
        return self.at - before


class Meter:
    """What one process counts; about 20 microseconds per image.

    Seconds are counters: Ray's histograms (2.60) hold the middle of a bucket for each of its
    values, so their sums are off by half a bucket.
    """

    def __init__(self) -> None:
        from ray.util import metrics

        def counter(name: str, description: str, *labels: str) -> Any:  # noqa: ANN401 - Ray's
            return metrics.Counter(name, description, labels)

        self.images = counter(IMAGES, "Images that have ended, by status", "status")
        self.failures = counter(FAILURES, "Failed images, by failure class", "failure_class")
        self.megapixels = counter(MEGAPIXELS, "Megapixels of images that could be decoded")
        self.stages = counter(STAGE_SECONDS, "Seconds of threads, by stage", "stage")
        self.seconds = metrics.Histogram(
            IMAGE_SECONDS, "Seconds of an image in its thread", list(BOUNDARIES)
        )

    def add(self, row: dict[str, Any], watch: Watch) -> None:
        """Counts an image that has ended.

        Args:
            row: Its row for the status table.
            watch: Its stages.
        """
        self.images.inc(1, {"status": row["status"]})
        if row["status"] == "failed":
            self.failures.inc(1, {"failure_class": row["failure_class"]})
        if megapixels := (row.get("width") or 0) * (row.get("height") or 0) / 1e6:
            self.megapixels.inc(megapixels)
        for stage, seconds in watch.seconds.items():
            if seconds > 0:  # Ray refuses to add nothing
                self.stages.inc(seconds, {"stage": stage})
        self.seconds.observe(watch.at - watch.begun)
