"""Lists of URLs: Parquet or CSV files that name the images of an archive, streamed.

Columns, others being passed over: `uri` (or `url`), and, as far as they are known, `relative_path`
(under which the result goes into the output), `size_bytes` (or `size`) and `etag`.
"""

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pix2pix import faults, ids, storage

ROWS_AT_ONCE = 2_000
BYTES_AT_ONCE = 1 << 20
ASKED_AT_ONCE = 32
IMAGES = "images"  # the folder of results in an output, which may be a link: see `stages`
OTHER_NAMES = {"url": "uri", "size": "size_bytes"}
SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("relative_path", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64()),
        pa.field("etag", pa.string()),
    ]
)
_SCHEMES = (  # of places that hold files, not data:, zip: and the like
    "abfs abfss adl az dbfs dropbox file ftp gcs gdrive gs hdfs hf http https lakefs memory oci "
    "oss s3 sftp smb ssh tos webdav webhdfs"
)
SCHEMES = frozenset(_SCHEMES.split())
_ODD = {  # what `storage.absolute` would change or refuse
    "file": r"//|/\.{1,2}(/|$)|.(?:/)$",
    "other": r"^[a-z][a-z0-9+.-]*://(/|$)|/$|^(file|local|s3a):|^[^:/]*[A-Z][^:/]*://",
}


def is_list(url: str) -> bool:
    """Whether a URL is that of a list, by the end of its name."""
    return url.lower().endswith((".parquet", ".csv", ".csv.gz"))


def check(url: str, output_url: str | None) -> NDArray[np.bytes_]:
    """Reads a whole list, 16 bytes of memory per row, before any of its images is touched.

    Args:
        url: the list.
        output_url: where the results go.

    Returns:
        dtype `ids.ID`, sorted: keys (`ids.keys`) of the relative paths that it holds repeatedly, by
        rows with the same URL; mostly none.

    Raises:
        ValueError: it is no such list; a row has no absolute URL, or one inside the output; two
            rows have the same relative path and different URLs, so that one's result would replace
            the other's; or the same URL and different relative paths, as it is one image.
        OSError: it could not be read.
    """
    paths, uris, folders = bytearray(), bytearray(), dict[str, bool]()
    for rows in _rows(url):
        if output_url is not None:
            refuse_inside(rows["uri"], output_url, folders)
        paths += ids.hashes(rows["relative_path"]).tobytes()
        uris += ids.hashes(rows["uri"]).tobytes()
    _repeated(url, "uri", "relative_path", uris)
    return _repeated(url, "relative_path", "uri", paths)


def rows(url: str, repeated: NDArray[np.bytes_]) -> Iterator[pa.Table]:
    """The list, with `SCHEMA`, few rows at a time; of repeated ones the first.

    Args:
        url: the list.
        repeated: what `check` returned.

    Raises:
        ValueError: see `check`.
        OSError: it could not be read.
    """
    had = np.zeros(len(repeated), np.bool_)
    for part in _rows(url):
        if len(repeated):
            places, again = ids.places(repeated, ids.keys(part["relative_path"]))
            first = np.zeros(len(part), np.bool_)
            first[np.unique(np.where(again, places, -1), return_index=True)[1]] = True
            keep = ~again | first & ~had[np.minimum(places, len(had) - 1)]
            had[places[again]] = True
            part = part.filter(pa.array(keep))
        yield part


def refuse_inside(uris: pa.ChunkedArray, output_url: str, folders: dict[str, bool]) -> None:
    """Returns only if no image is inside the output, nor in what the output's images link to.

    Args:
        uris: of the images, canonical.
        output_url: the output.
        folders: notes of local folders, which are seen through; for the next call.

    Raises:
        ValueError: one is.
    """
    output = storage.absolute(output_url)
    inside = uris.filter(pc.starts_with(uris, output if output.endswith("/") else f"{output}/"))
    found = inside[0].as_py() if len(inside) else None
    places = output, storage.join(output, IMAGES)
    local = uris.filter(pc.starts_with(uris, "file:"))
    for folder in pc.unique(pc.replace_substring_regex(local, r"/[^/]*$", "/")).to_pylist():
        if folder not in folders:
            folders[folder] = any(storage.inside(folder, place) for place in places)
        if folders[folder]:
            found = found or folder
    if found:
        rule = "must not lie in the output; choose another output, or mend the list or link"
        raise ValueError(f"uri={found}, output={output}: it {rule}")


def completed(rows: pa.Table) -> pa.Table:
    """The rows with size and etag; the store is asked for those that lack one, several at once.

    What the store hasn't or doesn't show gets size 0 and an empty etag: fetching it will say why.

    Raises:
        OSError: the store can't be asked now.
    """
    unknown = pc.or_(pc.is_null(rows["size_bytes"]), pc.equal(pc.fill_null(rows["etag"], ""), ""))
    lines = np.flatnonzero(unknown.to_numpy())
    if not len(lines):
        return rows
    with ThreadPoolExecutor(ASKED_AT_ONCE) as threads:
        answers = list(threads.map(_asked, rows["uri"].take(lines).to_pylist()))
    sizes, etags = rows["size_bytes"].to_pylist(), rows["etag"].to_pylist()
    for line, (size_bytes, etag) in zip(lines, answers, strict=True):
        sizes[line], etags[line] = size_bytes, etag
    columns = [rows["uri"], rows["relative_path"], pa.array(sizes, pa.int64()), pa.array(etags)]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _asked(uri: str) -> tuple[int, str]:
    try:
        entry = storage.entry(uri)
    except OSError as error:
        if faults.failure_class(error) == "transient_io":
            raise
        return 0, ""
    return entry.size_bytes, entry.etag


def _rows(url: str) -> Iterator[pa.Table]:
    """All rows, with `SCHEMA` and canonical URLs."""
    with storage.opened(url) as file:
        batches = _parquet(url, file) if url.lower().endswith(".parquet") else _csv(url, file)
        start = 0
        try:
            for batch in batches:
                rows = _plain(url, batch)
                _refuse_senseless(url, rows, start)
                start += len(rows)
                yield rows
        except (pa.ArrowInvalid, OSError) as error:
            if isinstance(error, OSError) and (type(error) is not OSError or error.errno):
                raise  # storage's; Arrow's own, about broken gzip, has no number
            raise ValueError(f"list={url} can't be read: {error}; mend it") from error


def _parquet(url: str, file: io.RawIOBase) -> Iterator[pa.Table]:
    source = pq.ParquetFile(pa.PythonFile(file), pre_buffer=False, buffer_size=BYTES_AT_ONCE)
    names = _wanted(url, source.schema_arrow.names)
    for batch in source.iter_batches(ROWS_AT_ONCE, columns=names, use_threads=False):
        yield pa.Table.from_batches([batch])


def _csv(url: str, file: io.RawIOBase) -> Iterator[pa.Table]:
    with storage.opened(url) as head, _csv_reader(url, head, None) as reader:
        _wanted(url, reader.schema.names)
    types = {name: SCHEMA.field(OTHER_NAMES.get(name, name)).type
             for name in (*SCHEMA.names, *OTHER_NAMES)}  # fmt: skip
    options = pa.csv.ConvertOptions(
        column_types=types, null_values=[""], strings_can_be_null=True,
        include_columns=list(types), include_missing_columns=True,
    )  # fmt: skip
    with _csv_reader(url, file, options) as reader:
        for batch in reader:
            for start in range(0, len(batch), ROWS_AT_ONCE):
                yield pa.Table.from_batches([batch.slice(start, ROWS_AT_ONCE)])


def _csv_reader(
    url: str, file: io.RawIOBase, options: pa.csv.ConvertOptions | None
) -> pa.csv.CSVStreamingReader:
    raw: pa.NativeFile = pa.PythonFile(io.BufferedReader(file, BYTES_AT_ONCE))
    stream = pa.CompressedInputStream(raw, "gzip") if url.lower().endswith(".gz") else raw
    return pa.csv.open_csv(
        stream,
        read_options=pa.csv.ReadOptions(block_size=BYTES_AT_ONCE, use_threads=False),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        convert_options=options,
    )


def _wanted(url: str, names: list[str]) -> list[str]:
    wanted = [name for name in names if OTHER_NAMES.get(name, name) in SCHEMA.names]
    if twice := sorted({name for name in wanted if wanted.count(name) > 1}):
        raise ValueError(f"list={url} has columns {names}; it must have only one {twice[0]}")
    if not {"uri", "url"} & set(wanted):
        raise ValueError(f"list={url} has columns {names}; it must have one that is called uri")
    return wanted


def _plain(url: str, batch: pa.Table) -> pa.Table:
    columns = {}
    for field in SCHEMA:
        names = [field.name, *(other for other, name in OTHER_NAMES.items() if name == field.name)]
        found = [batch[name] for name in names if name in batch.column_names]
        try:
            cast = [column.cast(field.type).combine_chunks() for column in found]
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            rule = f"must be {field.type} in every row: {error}"
            raise ValueError(f"list={url}: column {field.name} {rule}") from error
        columns[field.name] = pc.coalesce(*cast) if cast else pa.nulls(len(batch), field.type)
    columns["uri"] = _canonical(url, columns["uri"])
    path = pc.replace_substring_regex(columns["uri"], r"^[a-z][a-z0-9+.-]*:///*", "")
    columns["relative_path"] = pc.coalesce(_none_if_empty(columns["relative_path"]), path)
    columns["etag"] = pc.utf8_trim(columns["etag"], characters='"')
    return pa.Table.from_arrays(list(columns.values()), schema=SCHEMA)


def _refuse_senseless(url: str, rows: pa.Table, start: int) -> None:
    """Refuses what no place can be called; `start` rows came before these."""
    known = pc.is_in(
        pc.replace_substring_regex(rows["uri"], r"(?s)://.*", ""),
        value_set=pa.array(sorted(SCHEMES), pa.string()),
    )
    rules = [
        ("uri", pc.invert(known), f"must begin with one of {', '.join(sorted(SCHEMES))}, and ://"),
        *(
            (name, pc.match_substring(rows[name], "\0"), "must have no NUL characters")
            for name in ("uri", "relative_path")
        ),
    ]
    for name, wrong, rule in rules:
        lines = np.flatnonzero(wrong.to_numpy())
        if len(lines):
            value = rows[name][int(lines[0])].as_py()
            where = f"row {start + int(lines[0]) + 1}"  # of data, from 1
            raise ValueError(f"list={url}: {where}: {name}={value!r} {rule}; mend the list")


def _none_if_empty(strings: pa.Array) -> pa.Array:
    return pc.if_else(pc.equal(strings, ""), None, strings)


def _canonical(url: str, uris: pa.Array) -> pa.Array:
    """The URLs as `storage.absolute` has them; it is asked only where it would change one."""
    if uris.null_count:
        raise ValueError(f"list={url}: every row must have a uri; {uris.null_count} rows have none")
    local = pc.starts_with(uris, "file:///")
    rest = pc.utf8_slice_codeunits(uris, len("file://"))
    odd_file = pc.match_substring_regex(rest, _ODD["file"])
    full = pc.match_substring_regex(uris, r"^[A-Za-z][A-Za-z0-9+.-]*://")
    odd_other = pc.or_(pc.invert(full), pc.match_substring_regex(uris, _ODD["other"]))
    odd = pc.if_else(local, odd_file, odd_other)
    if not pc.any(odd).as_py():
        return uris
    changed = [_absolute(url, uri) for uri in uris.filter(odd).to_pylist()]
    return pc.replace_with_mask(uris, odd, pa.array(changed, pa.string()))


def _absolute(url: str, uri: str) -> str:
    if "://" not in uri and not uri.startswith("/"):
        rule = "must be absolute, as nothing says to what it is relative; give the whole path"
        raise ValueError(f"list={url}: uri={uri!r} {rule}")
    return storage.absolute(uri)


def _repeated(url: str, column: str, other: str, hashes: bytearray) -> NDArray[np.bytes_]:
    """Keys of what a column, of these hashes, holds repeatedly beside the same in the other one."""
    doubled = ids.repeated(ids.in_order(hashes, np.dtype(np.uint64)))
    if not len(doubled):
        return np.empty(0, ids.ID)
    keys, others = bytearray(), bytearray()
    for rows in _rows(url):
        found = rows.filter(pa.array(ids.contains(doubled, ids.hashes(rows[column]))))
        keys += ids.keys(found[column]).tobytes()
        others += ids.hashes(found[other]).tobytes()
    order = np.argsort(np.frombuffer(keys, ids.ID))
    key, beside = np.frombuffer(keys, ids.ID)[order], np.frombuffer(others, np.uint64)[order]
    clash = key[1:][(key[1:] == key[:-1]) & (beside[1:] != beside[:-1])]
    if len(clash):
        _refuse_clash(url, column, other, clash[:1])
    return ids.repeated(key)


def _refuse_clash(url: str, column: str, other: str, key: NDArray[np.bytes_]) -> None:
    for rows in _rows(url):
        found = rows.filter(pa.array(ids.contains(key, ids.keys(rows[column]))))
        if len(found):
            value, beside = found[column][0].as_py(), found[other][0].as_py()
            rule = f"must be that of one {other}: each image has one result, and each result one"
            raise ValueError(f"list={url}: {column}={value!r}, which {beside} has, {rule}")
