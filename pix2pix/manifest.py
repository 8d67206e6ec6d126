"""The manifest of an archive: one row per image, as Parquet parts in the output."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b
from uuid import uuid4

import pyarrow
import pyarrow.parquet

from pix2pix import storage

ROWS_PER_PART = 100_000  # about 40 MB while a part is gathered
FOLDER = "manifest"
INDEX = "index.json"  # names the parts that count
SCHEMA = pyarrow.schema(
    [
        pyarrow.field("uri", pyarrow.string(), nullable=False),
        pyarrow.field("relative_path", pyarrow.string(), nullable=False),
        pyarrow.field("size_bytes", pyarrow.int64(), nullable=False),
        pyarrow.field("etag", pyarrow.string(), nullable=False),
        pyarrow.field("id", pyarrow.binary(16), nullable=False),
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


@dataclass(frozen=True)
class Counts:
    """What a manifest holds; `left_out` counts the files that are no images."""

    images: int
    bytes: int
    left_out: int


def is_image(relative_path: str) -> bool:
    """Whether a file counts as an image, by its name; ``._`` files are macOS's notes on others."""
    *folders, name = relative_path.split("/")
    if name.startswith("._") or not THUMBNAIL_FOLDERS.isdisjoint(folders):
        return False
    return "." in name and name.rpartition(".")[2].lower() in SUFFIXES


def image_id(uri: str, etag: str) -> bytes:
    """16 bytes that name one state of one image: BLAKE2b of uri, a zero byte, and etag."""
    return blake2b(f"{uri}\0{etag}".encode(), digest_size=16).digest()


def refuse_overlap(archive_url: str, output_url: str) -> None:
    """Returns only if neither place lies in the other.

    Raises:
        ValueError: one does. Originals are never written to, and results never denoised again.
    """
    archive, output = storage.absolute(archive_url), storage.absolute(output_url)
    if storage.inside(output, archive) or storage.inside(archive, output):
        rule = "must not lie in each other; choose an output beside the archive"
        raise ValueError(f"archive={archive} and output={output} {rule}")


def write(archive_url: str, output_url: str) -> Counts:
    """Lists the archive into the output's manifest, in place of an earlier one.

    New parts get new names; the index, replaced in one step once all are complete, says which
    count; then the older ones are removed. A crash before the index leaves the earlier manifest as
    it was, and one at any time leaves parts that nobody reads and the next `write` removes. One
    writer at a time.

    Returns:
        Counts, of 0 images where the archive has none.

    Raises:
        ValueError: see `refuse_overlap`; or the output is of another archive.
        FileNotFoundError: no such archive.
        OSError: the archive could not be listed, or the output not be written.
    """
    refuse_overlap(archive_url, output_url)
    folder, archive = storage.join(output_url, FOLDER), storage.absolute(archive_url)
    _refuse_another(storage.join(folder, INDEX), archive)
    images = bytes_ = left_out = 0
    names: list[str] = []
    writing = uuid4().hex
    rows: list[tuple] = []
    for entry in storage.files(archive_url):
        if not is_image(entry.relative_path):
            left_out += 1
            continue
        images += 1
        bytes_ += entry.size_bytes
        name = image_id(entry.uri, entry.etag)
        rows.append((entry.uri, entry.relative_path, entry.size_bytes, entry.etag, name))
        if len(rows) == ROWS_PER_PART:
            names.append(_write_part(folder, writing, len(names), rows))
            rows = []
    if rows or not names:  # an empty part spares readers the case of no part
        names.append(_write_part(folder, writing, len(names), rows))
    counts = Counts(images, bytes_, left_out)
    index = {"archive": archive, "parts": names, **asdict(counts)}
    storage.write(storage.join(folder, INDEX), json.dumps(index).encode())
    old = [each for each in storage.files(folder) if each.relative_path not in (INDEX, *names)]
    for entry in old:
        storage.remove(entry.uri)
    return counts


def _refuse_another(index_url: str, archive: str) -> None:
    """Two archives in one output would write over each other's images of the same name."""
    if storage.exists(index_url):
        before = json.loads(storage.read(index_url))["archive"]
        if before != archive:
            raise ValueError(
                f"archive={archive} must be the one that this output is of, {before}: "
                "choose another output"
            )


def read(output_url: str) -> pyarrow.Table:
    """The output's manifest, with `SCHEMA`, in no particular order.

    Raises:
        FileNotFoundError: none was ever completed.
        OSError: it could not be read.
    """
    return pyarrow.concat_tables(
        pyarrow.parquet.read_table(pyarrow.BufferReader(storage.read(url)), schema=SCHEMA)
        for url in parts(output_url)
    )


def parts(output_url: str) -> Iterator[str]:
    """The URLs of the manifest's parts: of those that count, after whatever crash.

    Raises:
        FileNotFoundError: no manifest was ever completed.
        OSError: the index could not be read.
    """
    folder = storage.join(output_url, FOLDER)
    index = json.loads(storage.read(storage.join(folder, INDEX)))
    return (storage.join(folder, name) for name in index["parts"])


def _write_part(folder: str, writing: str, number: int, rows: list[tuple]) -> str:
    columns = list(zip(*rows, strict=True)) or [()] * len(SCHEMA)
    arrays = [pyarrow.array(c, field.type) for c, field in zip(columns, SCHEMA, strict=True)]
    sink = pyarrow.BufferOutputStream()
    table = pyarrow.Table.from_arrays(arrays, schema=SCHEMA)
    pyarrow.parquet.write_table(table, sink, compression="zstd")
    name = f"part-{writing}-{number:06d}.parquet"
    storage.write(storage.join(folder, name), sink.getvalue().to_pybytes())
    return name
