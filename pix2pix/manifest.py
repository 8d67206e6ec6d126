"""The manifest of an archive: one row per image, as Parquet parts in the output.

An archive is a folder, or a list of URLs (see `lists`).
"""

import errno
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pix2pix import lists, parquet, storage
from pix2pix.lists import is_list as is_list

ROWS_PER_PART = 100_000  # about 40 MB while a part is gathered
FIRST_ROWS = 1_000  # of the first part, so that work starts soon; each next one has twice as many
FIRST_SECONDS, MOST_SECONDS = 5.0, 60.0  # until a part is cut short; doubles likewise
FILES_AT_ONCE = 1_000
FOLDER = "manifest"
INDEX = "index.json"  # names the parts that count
SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("relative_path", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("id", pa.binary(16), nullable=False),
    ]
)
# What is taken for an image, by its name alone: far more than can be denoised, since an image that
# is refused by name gets a row, and one that is left out does not.
_SUFFIXES = (
    "jpg jpeg jpe jfif jfi jif jps mpo jxl jp2 j2k j2c jpc jpf jpx jpm png apng mng pns gif webp "
    "tif tiff btf heic heics heif heifs hif avif avifs bmp dib tga pcx ppm pgm pbm pnm pam pfm hdr "
    "exr psd psb xcf "
    "dng gpr raw cr2 cr3 crw nef nrw arw srf sr2 srw orf ori rw2 rwl raf pef ptx x3f 3fr fff iiq "
    "cap eip mos mef mfw mrw erf kdc dcr dcs drf k25 bay pxn"
)
SUFFIXES = frozenset(_SUFFIXES.split())
THUMBNAIL_FOLDERS = frozenset({"@eaDir", ".@__thumb", "__MACOSX"})  # Synology, QNAP, macOS zips
# The rules of `is_image`, for Python's re and Arrow's RE2 alike.
_IMAGE = rf"(?i)\.({'|'.join(sorted(SUFFIXES))})$"
_NOTE = r"(^|/)\._[^/]*$|(^|/)(" + "|".join(map(re.escape, sorted(THUMBNAIL_FOLDERS))) + ")/"


@dataclass(frozen=True)
class Counts:
    """What a manifest holds; `left_out` counts the files that are no images."""

    images: int
    bytes: int
    left_out: int


@dataclass(frozen=True)
class Batch:
    """Some of an archive's images, with `SCHEMA`, and how many other files came between them."""

    rows: pa.Table
    left_out: int


def is_image(relative_path: str) -> bool:
    """Whether a file counts as an image, by its name; ``._`` files are macOS's notes on others."""
    return bool(_are_images(pa.array([relative_path], pa.string()))[0].as_py())


def image_id(uri: str, etag: str) -> bytes:
    """16 bytes that name one state of one image: BLAKE2b of uri, a zero byte, and etag."""
    return blake2b(f"{uri}\0{etag}".encode(), digest_size=16).digest()


def refuse_overlap(archive_url: str, output_url: str) -> None:
    """Returns only if neither place lies in the other, nor in what the output's images link to.

    What a list names, and what an archive links to, is seen to by `listed`.

    Raises:
        ValueError: one does. Originals are never written to, and results never denoised again.
    """
    archive, output = storage.absolute(archive_url), storage.absolute(output_url)
    for place in (output, storage.join(output, lists.IMAGES)):  # which may be a link elsewhere
        if storage.inside(place, archive) or storage.inside(archive, place):
            rule = "must not lie in each other; choose an output beside the archive"
            raise ValueError(f"archive={archive} and output={place} {rule}")


def listed(archive_url: str, output_url: str | None = None) -> Iterator[Batch]:
    """The archive's images, streamed; nothing is written.

    The first batches are small, so that work can start; the last one may have no rows. A list is
    read as a whole before its first batch comes, to refuse it where needed.

    Args:
        archive_url: a folder or a list.
        output_url: the output, if a list that names images inside it is to be refused, and a folder
            that links there.

    Raises:
        ValueError: see `lists.check`; or, in the midst of it, a link leads into the output.
        FileNotFoundError: no such archive.
        OSError: it could not be listed.
    """
    if is_list(archive_url):
        repeated = lists.check(archive_url, output_url)
        return _grown(_list_batches(archive_url, repeated))
    return _grown(_folder_batches(archive_url, output_url))


def write(
    archive_url: str,
    output_url: str,
    finished: Callable[[str], None] = lambda url: None,
    check: Callable[[], None] = lambda: None,
) -> Counts:
    """Lists the archive into the output's manifest, in place of an earlier one.

    New parts get new names; the index, replaced in one step once all are complete, says which
    count; then the older ones are removed. A crash before the index leaves the earlier manifest as
    it was, and one at any time leaves parts that nobody reads and the next `write` removes. One
    writer at a time. An archive without images replaces nothing: it may be an unmounted disk.

    Args:
        archive_url: a folder or a list.
        output_url: the output.
        finished: is told the URL of each part as soon as that is complete; see `part`.
        check: raises what is to end the listing; called before each part is written, before the
            index is replaced, and before each older part is removed.

    Returns:
        Counts, of 0 images where the archive has none.

    Raises:
        ValueError: see `refuse_overlap` and `lists.check`; or the output is of another archive.
        FileNotFoundError: no such archive.
        OSError: the archive could not be listed, or the output not be written.
    """
    refuse_overlap(archive_url, output_url)
    folder, archive = storage.join(output_url, FOLDER), storage.absolute(archive_url)
    index_url = storage.join(folder, INDEX)
    ours = _is_of(index_url, archive)
    images = bytes_ = left_out = 0
    names: list[str] = []
    writing = uuid4().hex
    for batch in listed(archive_url, output_url):
        check()
        images += len(batch.rows)
        bytes_ += pc.sum(batch.rows["size_bytes"], min_count=0).as_py()
        left_out += batch.left_out
        if len(batch.rows):
            ours = ours or _made_of(index_url, archive)
            names.append(f"part-{writing}-{len(names):06d}.parquet")
            parquet.write(storage.join(folder, names[-1]), batch.rows)
            finished(storage.join(folder, names[-1]))
    counts = Counts(images, bytes_, left_out)
    if not names:
        return counts
    check()
    index = {"archive": archive, "parts": names, **asdict(counts)}
    storage.write(index_url, json.dumps(index).encode())
    old = [each for each in storage.files(folder) if each.relative_path not in {INDEX, *names}]
    for entry in old:
        check()
        storage.remove(entry.uri)
    return counts


def archive(output_url: str) -> str | None:
    """The URL of the archive that the output is of; None if it is of none yet.

    Raises:
        OSError: the index could not be read.
    """
    url = storage.join(output_url, FOLDER, INDEX)
    return json.loads(storage.read(url))["archive"] if storage.exists(url) else None


def _is_of(index_url: str, archive: str) -> bool:
    """Whether the output is of this archive; False if it is of none yet.

    Raises:
        ValueError: it is of another: they would write over each other's images of the same name.
    """
    if not storage.exists(index_url):
        return False
    before = json.loads(storage.read(index_url))["archive"]
    if before != archive:
        raise ValueError(
            f"archive={archive} must be the one that this output is of, {before}: "
            "choose another output"
        )
    return True


def _made_of(index_url: str, archive: str) -> bool:
    """True, once an index without parts says whose output this is, before its first image is."""
    made = storage.create(index_url, json.dumps({"archive": archive}).encode())
    return made or _is_of(index_url, archive)


def read(output_url: str) -> pa.Table:
    """The output's manifest, with `SCHEMA`, in no particular order; all of it in memory.

    Raises:
        FileNotFoundError: none was ever completed.
        OSError: it could not be read.
    """
    return pa.concat_tables(part(url) for url in parts(output_url))


def part(part_url: str, columns: list[str] | None = None) -> pa.Table:
    """The rows of one part, with `SCHEMA`, or with these columns of it alone.

    Raises:
        OSError: it could not be read.
    """
    return parquet.read(part_url, SCHEMA, columns)


def parts(output_url: str) -> Iterator[str]:
    """The URLs of the manifest's parts: of those that count, after whatever crash.

    Raises:
        FileNotFoundError: no manifest was ever completed.
        OSError: the index could not be read.
    """
    folder = storage.join(output_url, FOLDER)
    index = json.loads(storage.read(storage.join(folder, INDEX)))
    if "parts" not in index:
        text = f"the first manifest in {folder} is not complete; let the job finish its listing"
        raise FileNotFoundError(errno.ENOENT, text)
    return (storage.join(folder, name) for name in index["parts"])


def _are_images(paths: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    image, note = (pc.match_substring_regex(paths, rule) for rule in (_IMAGE, _NOTE))
    return pc.and_not(image, note)


def _folder_batches(archive_url: str, output_url: str | None) -> Iterator[Batch]:
    listing = storage.files(archive_url)
    while files := _until(listing, time.monotonic() + FIRST_SECONDS):
        columns = zip(*((f.uri, f.relative_path, f.size_bytes, f.etag) for f in files), strict=True)
        arrays = [pa.array(c, field.type) for c, field in zip(columns, lists.SCHEMA, strict=True)]
        table = pa.Table.from_arrays(arrays, schema=lists.SCHEMA)
        if output_url is not None:
            lists.refuse_inside(table["uri"], output_url, {})
        yield _batch(table)


def _until(listing: Iterator[storage.Entry], limit_seconds: float) -> list[storage.Entry]:
    """The next files, `FILES_AT_ONCE` or those that come before a moment; none at the end."""
    files = []
    for file in itertools.islice(listing, FILES_AT_ONCE):
        files.append(file)
        if time.monotonic() > limit_seconds:
            break
    return files


def _list_batches(url: str, repeated: NDArray[np.bytes_]) -> Iterator[Batch]:
    for rows in lists.rows(url, repeated):
        yield _batch(rows)


def _batch(files: pa.Table) -> Batch:
    rows = lists.completed(files.filter(_are_images(files["relative_path"])))
    pairs = zip(rows["uri"].to_pylist(), rows["etag"].to_pylist(), strict=True)
    names = pa.array([image_id(uri, etag) for uri, etag in pairs], pa.binary(16))
    table = pa.Table.from_arrays([*rows.columns, names], schema=SCHEMA)
    return Batch(table, len(files) - len(rows))


def _grown(batches: Iterator[Batch]) -> Iterator[Batch]:
    """The same rows in batches that begin small and grow, or wait for a limited time."""
    most_rows, most_seconds = min(FIRST_ROWS, ROWS_PER_PART), FIRST_SECONDS
    rows, left_out = SCHEMA.empty_table(), 0
    begun = time.monotonic()
    for batch in batches:
        rows, left_out = pa.concat_tables([rows, batch.rows]), left_out + batch.left_out
        while len(rows) >= most_rows or (len(rows) and time.monotonic() - begun > most_seconds):
            yield Batch(rows.slice(0, most_rows), left_out)
            rows, left_out = rows.slice(most_rows), 0
            most_rows = min(2 * most_rows, ROWS_PER_PART)
            most_seconds = min(2 * most_seconds, MOST_SECONDS)
            begun = time.monotonic()
    yield Batch(rows, left_out)
