"""Leases that somebody left behind."""

import json
import time

from pix2pix import lease, storage


def abandoned(
    output: str, seconds_ago: float = 3600, stale_seconds: float = 120, number: int = 1
) -> None:
    """The lease of a process on another machine, renewed so long ago."""
    then = time.time() - seconds_ago
    left = lease.Holder("elsewhere", 1, "boot pid:[1] 1 5", then, then, stale_seconds)
    storage.write(f"{output}/lease/{number:06d}.json", json.dumps(vars(left)).encode())
