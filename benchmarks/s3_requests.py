"""How many S3 requests a bulk job makes, by kind: counted before a real S3 server.

    python benchmarks/s3_requests.py [--sizes 40,240]

Tiny photographs in a folder of a bucket; a job, the same again with nothing to do, and `verify`.
The growth from one size to the other is what an image costs; listings come by the page.
"""

import io
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]


def kind(request: str) -> str:
    """What a request is for, from its method and path: "GET images", "LIST status", ..."""
    method, _, path = request.partition(" ")
    listing = re.search(r"[?&]prefix=([^&]*)", path)
    place = listing[1].replace("%2F", "/") if listing else path.partition("?")[0]
    parts = [part for part in place.split("/") if part]
    parts = parts if listing else parts[1:]  # without the bucket
    folder = "archive" if parts[:1] == ["archive"] else (parts[1:2] or ["output"])[0]
    if method == "GET" and "list-type=2" in path:
        method = "LIST"
    return f"{method} {folder}"


def counted(proxy: object, *words: str) -> Counter[str]:
    """The requests of one command, by kind."""
    proxy.seen.clear()  # type: ignore[attr-defined]
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    return Counter(map(kind, proxy.seen))  # type: ignore[attr-defined]


def counts(size: int, checkpoint: str) -> dict[str, Counter[str]]:
    """The requests of each command over an archive of so many photographs."""
    from denoise import know

    from pix2pix import storage
    from tests import conftest

    with tempfile.TemporaryDirectory() as folder:
        process, server = conftest._started(Path(folder))
        proxy = conftest.FaultyProxy(server.endpoint_url)
        know(server)
        try:
            bucket = server.bucket_url("requests")
            random = np.random.default_rng(0)
            for number in range(size):
                file = io.BytesIO()
                noisy = random.normal(120, 12, (40, 40, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(noisy).save(file, "PNG")
                storage.write(f"{bucket}/archive/{number:05d}.png", file.getvalue())
            os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint_url
            threading.Thread(target=proxy.serve_forever, args=(0.05,), daemon=True).start()
            places = (f"{bucket}/archive", f"{bucket}/output")
            job = ("jobs/denoise.py", *places, "--checkpoint", checkpoint)
            program = "from pix2pix import cli; cli.main()"
            return {
                "denoise": counted(proxy, *job),
                "again": counted(proxy, *job),
                "verify": counted(proxy, "-c", program, "verify", *places),
            }
        finally:
            proxy.shutdown()
            conftest._stop(process)


def main(sizes: Annotated[str, typer.Option(help="Numbers of photographs.")] = "40,240") -> None:
    """Prints the requests of each command by kind, for each size."""
    found = {int(size): counts(int(size), "best") for size in sizes.split(",")}
    for command in ("denoise", "again", "verify"):
        typer.echo(command)
        kinds = sorted(set().union(*(each[command] for each in found.values())))
        for name in kinds:
            typer.echo(
                f"  {name:20}" + "".join(f"{each[command][name]:8}" for each in found.values())
            )


if __name__ == "__main__":
    typer.run(main)
