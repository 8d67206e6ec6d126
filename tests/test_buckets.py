"""Claims about pix2pix.buckets, on a real S3 server, as `storage` hands them on."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pix2pix import buckets, faults, storage
from tests.conftest import FaultyProxy, S3Server


def test_a_missing_bucket_is_named(s3: S3Server) -> None:
    with pytest.raises(FileNotFoundError, match=r"s3://no-such-bucket.*bucket does not exist"):
        list(storage.files("s3://no-such-bucket"))


def test_an_empty_bucket_is_an_empty_folder_and_placeholders_are_no_files(s3: S3Server) -> None:
    import s3fs

    bucket = s3.bucket_url()
    assert list(storage.files(bucket)) == []
    s3fs.S3FileSystem().call_s3("put_object", Bucket=bucket[5:], Key="folder/", Body=b"")
    assert list(storage.files(f"{bucket}/folder")) == []


@pytest.fixture(scope="module")
def tree(s3: S3Server) -> tuple[str, set[str]]:
    """A folder in S3 and what is in it, at many depths."""
    folder = f"{s3.bucket_url()}/tree"
    names = {f"{a}/{b}/{c}.jpg" for a in "xyz" for b in "pqr" for c in range(4)}
    names |= {f"{i}.jpg" for i in range(3)} | {"x/1.jpg", "deep/er/and/deep/er/1.jpg", "x y/ü.jpg"}
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda name: storage.write(storage.join(folder, name), b"1"), names))
    storage.write(f"{folder}-other/x/1.jpg", b"1")
    return folder, names


@pytest.mark.parametrize(("keys", "pages"), [(1, 50), (1, 2), (3, 1), (3, 10), (5, 3), (1000, 10)])
def test_s3_is_listed_whole_and_once_however_it_is_split(
    tree: tuple[str, set[str]], monkeypatch: pytest.MonkeyPatch, keys: int, pages: int
) -> None:
    monkeypatch.setattr(buckets, "KEYS_PER_PAGE", keys)
    monkeypatch.setattr(buckets, "PAGES_TO_SPLIT", pages)
    folder, names = tree
    assert sorted(names) == sorted(entry.relative_path for entry in storage.files(folder))


def test_several_listings_of_s3_are_under_way_at_once(
    tree: tuple[str, set[str]], proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "KEYS_PER_PAGE", 3)
    folder, names = tree
    assert len(list(storage.files(folder))) == len(names)
    prefixes = {re.sub(r".*prefix=([^&]*).*", r"\1", each) for each in proxy.seen}
    assert {"tree%2Fx%2F", "tree%2Fx%2Fp%2F", "tree%2Fdeep%2F"} <= prefixes


def test_a_small_folder_costs_one_request(s3: S3Server, proxy: FaultyProxy) -> None:
    folder = s3.bucket_url()
    for name in ("a.jpg", "b/c.jpg", "b/d/e.jpg"):
        storage.write(f"{folder}/{name}", b"1")
    proxy.seen.clear()
    assert len(list(storage.files(folder))) == 3
    assert len(proxy.seen) == 1


@pytest.mark.parametrize("left", [0, 2, 5, 9])
def test_a_listing_that_breaks_off_says_so(
    tree: tuple[str, set[str]], proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    monkeypatch.setattr(faults, "ATTEMPTS", 1)
    monkeypatch.setattr(buckets, "KEYS_PER_PAGE", 3)
    proxy.left = left
    with pytest.raises(ConnectionError, match="tree"):
        list(storage.files(tree[0]))


def test_an_abandoned_listing_ends_its_threads(
    tree: tuple[str, set[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "KEYS_PER_PAGE", 1)
    before = set(threading.enumerate())  # of earlier tests, some may wait for a proxy that is gone
    listing = storage.files(tree[0])
    for _ in range(4):
        next(listing)
    begun = set(threading.enumerate()) - before
    assert any(each.name.startswith("fanout") for each in begun)
    listing.close()
    for each in begun:
        each.join(10)
    assert not any(each.is_alive() for each in begun)
