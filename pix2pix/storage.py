"""Bytes at URLs: read, written whole, listed; what stands behind a URL, no one else has to know.

A URL is a local path, ``file://``, ``s3://``, ``memory://`` or anything fsspec knows. What stands
after ``://`` is meant literally: nothing is percent-encoded or decoded, so ``a b%20c.jpg`` is a
file of that very name. S3 endpoint and credentials come from the usual AWS variables.
"""

import io
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pix2pix import buckets, faults, local, stores
from pix2pix.local import File

TRANSFERS = stores.TRANSFERS  # the name of the thread in which remote files come and go
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_SCHEMES = {"local": "file", "s3a": "s3"}  # other names of the same place


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
        return "file:///" + local.named(os.path.abspath(rest).lstrip("/"))
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
        place = _below(place, local.named(part))
    return place


def inside(url: str, parent: str) -> bool:
    """Whether `url` is `parent` or lies below it, by whole names; local links are followed."""
    here, there = (
        os.path.realpath(local.path(place)) if place.startswith("file:") else place
        for place in (absolute(url), absolute(parent))
    )
    return here == there or here.startswith(_below(there, ""))


def local_path(url: str) -> Path | None:
    """The path of a local URL; None if the URL is not local."""
    place = absolute(url)
    return Path(local.path(place)) if place.startswith("file:") else None


def connect(url: str) -> None:
    """Gets ready to read and write near `url`, so that who does it first needn't wait for that.

    Raises:
        OSError: there are no credentials, for instance; whether the place exists isn't asked.
    """
    stores.connect(absolute(url))


def read(url: str) -> bytes:
    """All bytes of the file at `url`, in one request.

    Raises:
        OSError: see `faults.failure_class`; a transient one only after `faults.ATTEMPTS` attempts.
    """
    return stores.answer("read", absolute(url), lambda store, path: store.cat_file(path))


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
        stores.answer("write", place, lambda _, path: local.write(path, data))
    else:
        stores.answer("write", place, lambda store, path: store.pipe_file(path, data))


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
        return stores.answer("create", place, lambda _, path: local.create(path, data))

    def made(store: Any, path: str) -> bool:  # noqa: ANN401 - fsspec has no types
        try:
            store.pipe_file(path, data, mode="create")
        except OSError as error:
            if not isinstance(error, FileExistsError) and stores.http_status(error) != 412:
                raise
        else:
            return True
        with suppress(FileNotFoundError):  # removed since
            return store.cat_file(path) == data
        return False

    return stores.answer("create", place, made)


def entry(url: str) -> Entry:
    """The file at `url` as `files` would list it, but for `relative_path`, which is its last name.

    Raises:
        OSError: see `faults.failure_class`; IsADirectoryError for a folder.
    """
    place = absolute(url)
    abouts = {"file": lambda _, path: local.about(path), "s3": buckets.about}
    about = abouts.get(place.partition("://")[0], stores.about)
    size_bytes, etag = stores.answer("look at", place, about)
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
        return stores.answer("read", place, lambda _, path: open(path, "rb", buffering=0))
    return stores.Ranges(place, entry(place).size_bytes if size_bytes is None else size_bytes)


def exists(url: str) -> bool:
    """Whether a file is at `url`; a folder is none (SeaweedFS keeps showing emptied ones).

    Raises:
        OSError: nobody can say, for instance because looking is forbidden.
    """
    try:
        return (
            stores.answer("look at", absolute(url), lambda store, path: store.info(path)["type"])
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
        stores.answer("remove", absolute(url), lambda store, path: store.rm_file(path))


def remove_folder(url: str) -> None:
    """Removes every file below `url`, and locally the emptied folders; nothing there is no error.

    Local links below it are removed themselves; what they lead to stays.

    Raises:
        OSError: a part of it could not be removed.
    """
    place = absolute(url)
    with suppress(FileNotFoundError, NotADirectoryError):
        if place.startswith("file:"):
            stores.answer("remove", place, lambda _, path: shutil.rmtree(os.path.realpath(path)))
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
    these are at most `buckets.PAGES_TO_SPLIT` pages.

    Raises:
        FileNotFoundError: no such folder or bucket; in an object store a folder without keys does
            not exist, a bucket without keys does.
        OSError: a part of it could not be listed; nothing is skipped.
    """
    root = absolute(url)
    listings = {"file": _local_files, "s3": buckets.files}
    return _entries(root, listings.get(root.partition("://")[0], stores.files)(root))


def _below(place: str, name: str) -> str:
    return f"{place}{name}" if place.endswith("/") else f"{place}/{name}"


def _entries(root: str, listing: Iterator[File]) -> Iterator[Entry]:
    for relative_path, size_bytes, etag in listing:
        yield Entry(_below(root, relative_path), relative_path, size_bytes, etag)


def _local_files(root: str) -> Iterator[File]:
    try:
        for name, size_bytes, etag in local.files(local.path(root)):
            yield local.named(name), size_bytes, etag
    except OSError as error:
        faults.raise_plain("list", root, error, attempts=1)
