"""A stand-in for the process that denoises, which sleeps instead: for `cluster_scale.py`."""

import threading
import time
from typing import Any

from pix2pix import prometheus, sharing, stages

FIGURES = ("noise_sigma_before", "noise_sigma_after", "sharpness_before", "sharpness_after")


class Sleeping(stages.Denoise):
    """As `stages.Denoise`, but nothing is loaded, decoded or encoded; what was read is written.

    Its threads take turns at sleeping as they would at the generator.

    Attributes:
        seconds: How long it sleeps for each image.
    """

    seconds: float

    def __init__(
        self, output_url: str, way: stages.Way, ledger: Any, gpu: bool, threads: int  # noqa: ANN401 - Ray's
    ) -> None:  # fmt: skip
        import ray

        ray.get(ledger.start.remote())
        self.output_url, self.way, self.ledger = output_url, way, ledger
        self.rooms = sharing.Room(stages.BYTES_IN_WORK), sharing.Room(stages.MEGAPIXELS_IN_WORK)
        self.meter = prometheus.Meter()
        self.turn = threading.Lock()

    def result(
        self, data: bytes, relative_path: str, last_try: bool, watch: prometheus.Watch
    ) -> tuple[bytes, stages.Row]:
        """The bytes as they came, some time later."""
        with self.turn:
            time.sleep(self.seconds)
        watch.lap("denoise")
        about = {"status": "denoised", "format": "JPEG", "width": 4000, "height": 3000}
        return data, about | dict.fromkeys(FIGURES, 1.0)


def sleeper(seconds: float) -> type[Sleeping]:
    """The class whose processes sleep so long for each image."""
    return type("SleepingFor", (Sleeping,), {"seconds": seconds})
