"""The stores behind URLs: the only module that knows fsspec and what its filesystems return.

What it doesn't do as we need it is in `local`, for disks, and `buckets`; all for `storage` alone.
"""

import errno
import io
import os
import re
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from hashlib import blake2b
from typing import Any, TypeVar

from pix2pix import faults, local
from pix2pix.local import File

CONNECT_TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 60  # of silence, not of a whole transfer; s3fs's 15 cut off slow stores
CONNECTIONS = 64  # of one process to one store; botocore's 10 would make more threads queue
TRANSFERS = "fsspecIO"  # fsspec's name for its one thread that sends and receives
_S3_VARIABLES = re.compile(
    r"AWS_(ENDPOINT_URL|REGION|DEFAULT_REGION|PROFILE|ACCESS|SECRET|SESSION)"
)
_filesystems: dict[tuple, Any] = {}
_filesystems_lock = threading.Lock()
T = TypeVar("T")


def filesystem(place: str) -> Any:  # noqa: ANN401 - fsspec has no types
    """The fsspec filesystem of a URL: one per process, fsspec's own cache having one per thread."""
    scheme = place.partition("://")[0]
    variables = [item for item in os.environ.items() if _S3_VARIABLES.match(item[0])]
    key = (scheme, os.getpid(), *(sorted(variables) if scheme == "s3" else ()))
    with _filesystems_lock:
        if key not in _filesystems:
            import fsspec  # 0.1 s, and s3fs 0.4 s more: only who touches a store waits for them

            options: dict[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
            if scheme == "s3":
                options["config_kwargs"] = {
                    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
                    "read_timeout": READ_TIMEOUT_SECONDS,
                    "max_pool_connections": CONNECTIONS,
                    "retries": {"total_max_attempts": 1},
                }
                # With more, cat_file asks for the size first and pipe_file copies 500 MiB.
                options["max_concurrency"] = 1
                if region := os.environ.get("AWS_REGION"):  # botocore: AWS_DEFAULT_REGION only
                    options["client_kwargs"] = {"region_name": region}
            _filesystems[key] = fsspec.filesystem(scheme, **options)
            _filesystems[key].retries = 1  # s3fs's count of attempts; no other has the attribute
        return _filesystems[key]


def connect(place: str) -> None:
    """Makes the client of a store that has one, which takes up to half a second; asks it nothing.

    Raises:
        OSError: there are no credentials, for instance.
    """
    if hasattr(filesystem(place), "connect"):
        answer("reach", place, lambda store, _: store.connect())


def answer(verb: str, place: str, call: Callable[[Any, str], T]) -> T:
    """What `call(filesystem, path)` returns, asked again where `faults` says so."""
    store = filesystem(place)
    path = local.path(place) if place.startswith("file:") else place
    return faults.retried(verb, place, lambda: call(store, path))


def http_status(error: OSError) -> int | None:
    """The status of the HTTP answer that an error comes from, if one does."""
    response = getattr(error.__cause__, "response", None)
    return response["ResponseMetadata"]["HTTPStatusCode"] if isinstance(response, dict) else None


def files(root: str) -> Iterator[File]:
    """Relative name, size in bytes and etag of every file below `root`; see `storage.files`.

    Raises:
        OSError: a folder could not be listed.
    """
    store = filesystem(root)
    start = len(store._strip_protocol(root))
    try:
        for _, _, found in store.walk(root, detail=True, on_error="raise"):
            for info in found.values():
                relative_path = info["name"][start:].lstrip("/")
                yield relative_path, *_state(info)
    except OSError as error:
        faults.raise_plain("list", root, error, attempts=1)


def about(store: Any, path: str) -> tuple[int, str]:  # noqa: ANN401 - fsspec has no types
    """Size in bytes and etag of one file, as `files` gives them.

    Raises:
        OSError: it is not there, or a folder (IsADirectoryError).
    """
    info = store.info(path)
    if info["type"] != "file":
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    return _state(info)


def _state(info: dict) -> tuple[int, str]:
    plain = {  # fsspec's memory gives a number in a listing and a datetime for one file
        name: value.timestamp() if isinstance(value, datetime) else value
        for name, value in info.items()
    }
    about = repr(sorted(plain.items())).encode()
    etag = (info.get("ETag") or "").strip('"') or blake2b(about, digest_size=16).hexdigest()
    return info["size"], etag


class Ranges(io.RawIOBase):
    """A remote file as Python's own kind of file; one thread at a time."""

    def __init__(self, place: str, size_bytes: int) -> None:
        self.place, self.size_bytes, self.position = place, size_bytes, 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def tell(self) -> int:
        """The position, in bytes."""
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """The new position, in bytes."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size_bytes}[whence]
        self.position = max(start + offset, 0)
        return self.position

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - a writable buffer has no type in 3.11
        """How many bytes were read into the buffer; 0 at the end of the file."""
        start, end = self.position, min(self.position + len(buffer), self.size_bytes)
        if start >= end:
            return 0
        data = answer(
            "read", self.place, lambda store, path: store.cat_file(path, start=start, end=end)
        )
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)
