"""Buckets of S3: what is in them, page by page; for `storage` alone."""

import errno
import itertools
from collections.abc import Iterator
from typing import Any

from pix2pix import fanout, stores
from pix2pix.local import File

KEYS_PER_PAGE = 1000  # the most that S3 gives
LISTINGS_AT_ONCE = 16
PAGES_TO_SPLIT = 10  # of names at one level; where there are more, listing each would cost too much


def files(root: str) -> Iterator[File]:
    """Relative name, size in bytes and etag of every key below `root`; see `storage.files`.

    Raises:
        FileNotFoundError: no such bucket, or no such key in it.
        OSError: a page could not be listed.
    """
    bucket, key, _ = stores.filesystem(root).split_path(root)
    prefix = f"{key}/" if key else ""
    known = not prefix
    for items in _items(root, bucket, prefix):
        for item in items:
            known = True
            relative_path = item["Key"][len(prefix) :]
            if not item["Key"].endswith("/"):
                etag = item["ETag"].strip('"')
                yield relative_path, item["Size"], etag
    if not known:
        text = f"cannot list {root}: no key begins with {prefix!r}; is it the right folder?"
        raise FileNotFoundError(errno.ENOENT, text)


def about(store: Any, path: str) -> tuple[int, str]:  # noqa: ANN401 - s3fs has no types
    """Size in bytes and etag of one object, as `files` gives them.

    Raises:
        OSError: it is not there.
    """
    bucket, key, _ = store.split_path(path)
    head = store.call_s3("head_object", Bucket=bucket, Key=key)
    return head["ContentLength"], head["ETag"].strip('"')


def _items(root: str, bucket: str, prefix: str) -> Iterator[list[dict]]:
    """Keys under a prefix, page by page: s3fs's find holds a whole archive, its ls a folder."""

    def pages(prefix: str, delimiter: str = "") -> Iterator[dict]:
        query = {"Bucket": bucket, "Prefix": prefix, "MaxKeys": KEYS_PER_PAGE}
        query |= {"Delimiter": delimiter} if delimiter else {}
        more = True
        while more:
            page = stores.answer(
                "list", root, lambda store, _: store.call_s3("list_objects_v2", **query)
            )
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
