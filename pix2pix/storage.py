"""Bytes at URLs: the only module that knows fsspec, object stores and what they raise.

A URL is a local path, ``file://``, ``s3://``, ``memory://`` or anything fsspec knows. What stands
after ``://`` is meant literally: nothing is percent-encoded or decoded, so ``a b%20c.jpg`` is a
file of that very name. S3 endpoint and credentials come from the usual AWS variables.
"""

import errno
import io
import itertools
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

from pix2pix import fanout, faults, local

CONNECT_TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 60  # of silence, not of a whole transfer; s3fs's 15 cut off slow stores
CONNECTIONS = 64  # of one process to one store; botocore's 10 would make more threads queue
KEYS_PER_PAGE = 1000  # the most that S3 gives
LISTINGS_AT_ONCE = 16
PAGES_TO_SPLIT = 10  # of names at one level; where there are more, listing each would cost too much

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SCHEMES = {"local": "file", "s3a": "s3"}  # other names of the same place
_S3_VARIABLES = re.compile(
    r"AWS_(ENDPOINT_URL|REGION|DEFAULT_REGION|PROFILE|ACCESS|SECRET|SESSION)"
)
# Local names need not be UTF-8; Python shows their odd bytes as lone surrogates, which no table and
# no object store takes. In a URL such a byte is a character of a private-use plane instead.
_TO_URL = {0xDC00 + byte: 0x10F000 + byte for byte in range(128, 256)}
_FROM_URL = {there: here for here, there in _TO_URL.items()}

_filesystems: dict[tuple, Any] = {}
_filesystems_lock = threading.Lock()
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a listing; `uri` is `relative_path` under the absolute URL that was listed.

    The etag is the store's, unquoted; locally it is made of mtime and size, and of all that is
    known of the file where the store has none.
    """

    uri: str
    relative_path: str
    size_bytes: int
    etag: str


def absolute(url: str) -> str:
    """The canonical form of a URL, without a trailing slash.

    A local path becomes ``file:///...`` with ``.`` and ``..`` resolved by name, links kept.

    Raises:
        ValueError: the URL is empty, names no bucket, or chains protocols.
    """
    match = _URL.match(url)
    if not match and "::" in url and "://" in url:
        raise ValueError(f"url={url!r} chains protocols; name one place")
    scheme, rest = (match[1].lower(), match[2]) if match else ("file", url)
    scheme = _SCHEMES.get(scheme, scheme)
    if not rest.strip("/" if scheme != "file" else ""):
        raise ValueError(f"url={url!r} names no place; use a path or, say, s3://bucket/folder")
    if scheme == "file":
        return "file:///" + os.path.abspath(rest).lstrip("/").translate(_TO_URL)
    return f"{scheme}://{rest.strip('/')}"


def join(url: str, *parts: str) -> str:
    """The URL of `parts`, relative paths, under `url`.

    Raises:
        ValueError: a part has an empty, ``.`` or ``..`` component: an object store may hold keys
            that would climb out of a local folder, or fall on each other there.
    """
    for part in parts:
        if {"", ".", ".."} & set(part.split("/")):
            rule = "must have no empty, '.' or '..' component; rename it"
            raise ValueError(f"path={part!r} {rule}")
    place = absolute(url)
    for part in parts:
        place = _below(place, part.translate(_TO_URL))
    return place


def inside(url: str, parent: str) -> bool:
    """Whether `url` is `parent` or lies below it, by whole names; local links are followed."""
    here, there = (
        os.path.realpath(_path(place)) if place.startswith("file:") else place
        for place in (absolute(url), absolute(parent))
    )
    return here == there or here.startswith(_below(there, ""))


def local_path(url: str) -> Path | None:
    """The path of a local URL; None if the URL is not local."""
    place = absolute(url)
    return Path(_path(place)) if place.startswith("file:") else None


def read(url: str) -> bytes:
    """All bytes of the file at `url`, in one request.

    Raises:
        OSError: see `faults.failure_class`; a transient one only after `faults.ATTEMPTS` attempts.
    """
    return _answer("read", absolute(url), lambda store, path: store.cat_file(path))


def write(url: str, data: bytes) -> None:
    """Puts `data` at `url`, making local folders on the way: complete there, or not visible.

    Locally by a temporary file beside it, fsync and rename; in an object store by one PUT, or from
    100 MiB on a multipart upload. A process killed meanwhile leaves ``.<uuid>.tmp`` or an
    unfinished upload behind. Other kinds of filesystem (sftp, ftp) write in place: no such promise.

    Raises:
        OSError: see `faults.failure_class`; a transient one only after `faults.ATTEMPTS` attempts.
    """
    place = absolute(url)
    if place.startswith("file:"):
        _answer("write", place, lambda _, path: local.write(path, data))
    else:
        _answer("write", place, lambda store, path: store.pipe_file(path, data))


def create(url: str, data: bytes) -> bool:
    """Whether this call made the file at `url`, with `data`; False if there was one already.

    Of many callers one wins; the file is complete or not visible, as with `write`. Locally by a
    hard link, in S3 by a conditional PUT. Stores that know neither have less: fsspec's ``create``
    mode, or a local file that is visible before it is complete.

    Args:
        url: where.
        data: must differ from what others put there. A PUT whose answer got lost is sent again
            (also by aiohttp, unseen) and refused because of itself: what is there says whose it is.

    Raises:
        OSError: see `faults.failure_class`; a transient one only after `faults.ATTEMPTS` attempts.
    """
    place = absolute(url)
    if place.startswith("file:"):
        return _answer("create", place, lambda _, path: local.create(path, data))

    def made(store: Any, path: str) -> bool:  # noqa: ANN401 - fsspec has no types
        try:
            store.pipe_file(path, data, mode="create")
        except OSError as error:
            if not isinstance(error, FileExistsError) and _http_status(error) != 412:
                raise
        else:
            return True
        with suppress(FileNotFoundError):  # removed since
            return store.cat_file(path) == data
        return False

    return _answer("create", place, made)


def entry(url: str) -> Entry:
    """The file at `url` as `files` would list it, but for `relative_path`, which is its last name.

    Raises:
        OSError: see `faults.failure_class`; IsADirectoryError for a folder.
    """
    place = absolute(url)
    abouts = {"file": _local_about, "s3": _s3_about}
    about = abouts.get(place.partition("://")[0], _other_about)
    size_bytes, etag = _answer("look at", place, about)
    return Entry(place, place.rpartition("/")[2], size_bytes, etag)


def opened(url: str, size_bytes: int | None = None) -> io.RawIOBase:
    """The file at `url` to seek and read in, by ranges: for who needs parts of a large one.

    Every read of a remote file is a request of its own, tried again like `read`.

    Args:
        url: which.
        size_bytes: its size, where that is known: saves a request.

    Raises:
        OSError: see `faults.failure_class`; reading raises the same.
    """
    place = absolute(url)
    if place.startswith("file:"):
        return _answer("read", place, lambda _, path: open(path, "rb", buffering=0))
    return _Ranges(place, entry(place).size_bytes if size_bytes is None else size_bytes)


def exists(url: str) -> bool:
    """Whether a file is at `url`; a folder is none (SeaweedFS keeps showing emptied ones).

    Raises:
        OSError: nobody can say, for instance because looking is forbidden.
    """
    try:
        return (
            _answer("look at", absolute(url), lambda store, path: store.info(path)["type"])
            == "file"
        )
    except (FileNotFoundError, NotADirectoryError):
        return False


def remove(url: str) -> None:
    """Removes the file at `url`; one that is not there is no error.

    Raises:
        OSError: it could not be removed.
    """
    with suppress(FileNotFoundError):
        _answer("remove", absolute(url), lambda store, path: store.rm_file(path))


def remove_folder(url: str) -> None:
    """Removes every file below `url`, and locally the emptied folders; nothing there is no error.

    Local links below it are removed themselves; what they lead to stays.

    Raises:
        OSError: a part of it could not be removed.
    """
    place = absolute(url)
    with suppress(FileNotFoundError, NotADirectoryError):
        if place.startswith("file:"):
            _answer("remove", place, lambda _, path: shutil.rmtree(os.path.realpath(path)))
            return
        for entry in list(files(place)):
            remove(entry.uri)


def copy(source_url: str, target_url: str) -> int:
    """How many files were copied from one folder to another; either may be local or not.

    Each file is complete or absent, the folder is not: write what points to it afterwards. Holds
    one file at a time in memory. Files that only the target has stay.

    Raises:
        OSError: the source does not exist, or a file could not be read or written.
        ValueError: see `join`.
    """
    count = 0
    for entry in files(source_url):
        write(join(target_url, entry.relative_path), read(entry.uri))
        count += 1
    return count


def files(url: str) -> Iterator[Entry]:
    """Every file below the folder `url`, streamed, in no particular order.

    Local links are followed, except to a folder above them; one that leads nowhere is listed. Keys
    that end in ``/`` are placeholders, not files. Disks and S3 are listed by several threads, which
    end with the iterator. In S3 more than a page is split by the names up to the next ``/``, where
    these are at most `PAGES_TO_SPLIT` pages.

    Raises:
        FileNotFoundError: no such folder or bucket; in an object store a folder without keys does
            not exist, a bucket without keys does.
        OSError: a part of it could not be listed; nothing is skipped.
    """
    root = absolute(url)
    listings = {"file": _local_files, "s3": _s3_files}
    return listings.get(root.partition("://")[0], _other_files)(root)


def _below(place: str, name: str) -> str:
    return f"{place}{name}" if place.endswith("/") else f"{place}/{name}"


def _path(place: str) -> str:
    return place.removeprefix("file://").translate(_FROM_URL)


def _filesystem(place: str) -> Any:  # noqa: ANN401 - fsspec has no types
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


def _answer(verb: str, place: str, call: Callable[[Any, str], T]) -> T:
    """What `call(filesystem, path)` returns, asked again where `faults` says so."""
    store = _filesystem(place)
    path = _path(place) if place.startswith("file:") else place
    return faults.retried(verb, place, lambda: call(store, path))


def _http_status(error: OSError) -> int | None:
    response = getattr(error.__cause__, "response", None)
    return response["ResponseMetadata"]["HTTPStatusCode"] if isinstance(response, dict) else None


def _local_files(root: str) -> Iterator[Entry]:
    try:
        for name, size_bytes, etag in local.files(_path(root)):
            relative_path = name.translate(_TO_URL)
            yield Entry(_below(root, relative_path), relative_path, size_bytes, etag)
    except OSError as error:
        faults.raise_plain("list", root, error, attempts=1)


def _local_about(_: Any, path: str) -> tuple[int, str]:  # noqa: ANN401 - fsspec has no types
    return local.about(path)


def _s3_files(root: str) -> Iterator[Entry]:
    bucket, key, _ = _filesystem(root).split_path(root)
    prefix = f"{key}/" if key else ""
    known = not prefix
    for items in _s3_items(root, bucket, prefix):
        for item in items:
            known = True
            relative_path = item["Key"][len(prefix) :]
            if not item["Key"].endswith("/"):
                etag = item["ETag"].strip('"')
                yield Entry(_below(root, relative_path), relative_path, item["Size"], etag)
    if not known:
        text = f"cannot list {root}: no key begins with {prefix!r}; is it the right folder?"
        raise FileNotFoundError(errno.ENOENT, text)


def _s3_items(root: str, bucket: str, prefix: str) -> Iterator[list[dict]]:
    """Keys under a prefix, page by page: s3fs's find holds a whole archive, its ls a folder."""

    def pages(prefix: str, delimiter: str = "") -> Iterator[dict]:
        query = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": KEYS_PER_PAGE}
        query |= {"Delimiter": delimiter} if delimiter else {}
        more = True
        while more:
            page = _answer("list", root, lambda store, _: store.call_s3("list_objects_v2", **query))
            yield page
            more = page.get("IsTruncated", False)
            query["ContinuationToken"] = page.get("NextContinuationToken")

    def listed(prefix: str, few: bool) -> Iterator[tuple[list[dict], list[str]]]:
        flat = pages(prefix)
        first = next(flat)
        split: list[dict] = []
        if few and first.get("IsTruncated"):
            split = list(itertools.islice(pages(prefix, "/"), PAGES_TO_SPLIT + 1))
        if 1 <= len(split) <= PAGES_TO_SPLIT:
            for page in split:
                further = [each["Prefix"] for each in page.get("CommonPrefixes", ())]
                yield page.get("Contents", []), further
        else:
            for page in itertools.chain([first], flat):
                yield page.get("Contents", []), []

    prefixes: list[str] = []
    for items, further in listed(prefix, few=True):  # most folders are one page: no thread for them
        yield items
        prefixes += further
    if prefixes:
        yield from fanout.streamed(prefixes, listed, LISTINGS_AT_ONCE)


def _s3_about(store: Any, path: str) -> tuple[int, str]:  # noqa: ANN401 - fsspec has no types
    bucket, key, _ = store.split_path(path)
    head = store.call_s3("head_object", Bucket=bucket, Key=key)
    return head["ContentLength"], head["ETag"].strip('"')


def _other_files(root: str) -> Iterator[Entry]:
    store = _filesystem(root)
    start = len(store._strip_protocol(root))
    try:
        for _, _, found in store.walk(root, detail=True, on_error="raise"):
            for info in found.values():
                relative_path = info["name"][start:].lstrip("/")
                yield Entry(_below(root, relative_path), relative_path, *_other_state(info))
    except OSError as error:
        faults.raise_plain("list", root, error, attempts=1)


def _other_state(info: dict) -> tuple[int, str]:
    plain = {  # fsspec's memory gives a number in a listing and a datetime for one file
        name: value.timestamp() if isinstance(value, datetime) else value
        for name, value in info.items()
    }
    about = repr(sorted(plain.items())).encode()
    etag = (info.get("ETag") or "").strip('"') or blake2b(about, digest_size=16).hexdigest()
    return info["size"], etag


def _other_about(store: Any, path: str) -> tuple[int, str]:  # noqa: ANN401 - fsspec has no types
    info = store.info(path)
    if info["type"] != "file":
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    return _other_state(info)


class _Ranges(io.RawIOBase):
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
        data = _answer(
            "read", self.place, lambda store, path: store.cat_file(path, start=start, end=end)
        )
        buffer[: len(data)] = data
        self.position += len(data)
        return len(data)
