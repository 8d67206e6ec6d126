"""Files on this machine's disks: written whole, made once, listed; for `storage` alone.

Paths are Python's, errors the operating system's.
"""

import errno
import functools
import itertools
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TypeAlias

from pix2pix import fanout

LISTINGS_AT_ONCE = 8  # folders; on network disks each file costs a round trip
FILES_AT_ONCE = 1_000
File: TypeAlias = tuple[str, int, str]  # relative name, size in bytes, etag
Folder: TypeAlias = tuple[str, tuple]  # relative name, and (device, inode) of those above it
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}  # of such filesystems

# Local names need not be UTF-8; Python shows their odd bytes as lone surrogates, which no table and
# no object store takes. In a URL such a byte is a character of a private-use plane instead.
_TO_URL = {0xDC00 + byte: 0x10F000 + byte for byte in range(128, 256)}
_FROM_URL = {there: here for here, there in _TO_URL.items()}


def path(place: str) -> str:
    """The path of an absolute ``file://`` URL."""
    return place.removeprefix("file://").translate(_FROM_URL)


def named(path: str) -> str:
    """A path, or a part of one, as it stands in a URL."""
    return path.translate(_TO_URL)


def write(path: str, data: bytes) -> None:
    """Puts `data` at `path`, over what is there: complete, or not visible.

    Raises:
        OSError: it could not be written; what was there stays.
    """
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    with _temporary(folder, data) as temporary:
        os.replace(temporary, path)


def create(path: str, data: bytes) -> bool:
    """Whether this call made the file: complete, or not visible, unless there are no hard links.

    Raises:
        OSError: it could not be written.
    """
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    with _temporary(folder, data) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return os.stat(temporary).st_nlink > 1  # NFS may have done it and lost its answer
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
        else:
            return True
    try:
        _fill(path, data)
    except FileExistsError:
        return False
    return True


def files(root: str) -> Iterator[File]:
    """Relative name, size in bytes and etag of every file below `root`; see `storage.files`.

    Raises:
        OSError: a folder could not be listed.
    """
    folders: list[Folder] = []
    for found, further in _listed(root, ("", ())):  # most have no folders: no thread for them
        yield from found
        folders += further
    if folders:
        work = functools.partial(_listed, root)
        for found in fanout.streamed(folders, lambda folder, _: work(folder), LISTINGS_AT_ONCE):
            yield from found


def about(path: str) -> tuple[int, str]:
    """Size in bytes and etag of one file, as `files` gives them.

    Raises:
        OSError: it is not there, or a folder (IsADirectoryError).
    """
    try:
        about = os.stat(path)
    except OSError:
        about = os.lstat(path)
    if stat.S_ISDIR(about.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    return _state(about)


def _listed(root: str, folder: Folder) -> Iterator[tuple[list[File], list[Folder]]]:
    """Files and folders right in a folder, some at a time."""
    name, above = folder
    path = os.path.join(root, name)
    here = (os.stat(path).st_dev, os.stat(path).st_ino)
    if here in above:
        return  # a link to a folder above: its files are listed already
    with os.scandir(path) as items:
        while some := list(itertools.islice(items, FILES_AT_ONCE)):
            files: list[File] = []
            folders: list[Folder] = []
            for item in some:
                below = os.path.join(name, item.name)
                about = _about(item)
                if about and stat.S_ISDIR(about.st_mode):
                    folders.append((below, (*above, here)))
                elif about and stat.S_IFMT(about.st_mode) in (stat.S_IFREG, stat.S_IFLNK):
                    files.append((below, *_state(about)))
            yield files, folders


def _about(item: "os.DirEntry[str]") -> os.stat_result | None:
    try:
        return item.stat()
    except OSError:  # a link that leads nowhere is listed, so that it gets its row
        with suppress(FileNotFoundError):  # removed just now
            return item.stat(follow_symlinks=False)
    return None


def _state(about: os.stat_result) -> tuple[int, str]:
    return about.st_size, f"{about.st_mtime_ns:x}-{about.st_size:x}"


@contextmanager
def _temporary(folder: str, data: bytes) -> Iterator[str]:
    """The path of a file with `data`, safe on disk; afterwards it is gone, unless it was moved."""
    temporary = os.path.join(folder, f".{uuid.uuid4().hex}.tmp")
    try:
        _fill(temporary, data)
        yield temporary
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _fill(path: str, data: bytes) -> None:
    with open(path, "xb") as file:  # not tempfile's, which only their owner may read
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
