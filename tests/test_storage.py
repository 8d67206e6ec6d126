"""Claims about pix2pix.storage, on local disk, in memory and on a real S3 server."""

import multiprocessing
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pix2pix import faults, storage, stores
from tests.conftest import FaultyProxy, S3Server

ODD_NAMES = (
    "a b.jpg",
    "50%20.jpg",
    "ü+#?&=.jpg",
    "日本 語.jpg",
    "new\nline.jpg",
    "d/.hid",
    "d/e/f.x",
)


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return f"{request.getfixturevalue('s3').bucket_url()}/some folder"
    return str(tmp_path / "some folder") if request.param == "local" else f"memory:/{tmp_path}"


def test_importing_loads_no_store_no_tensorflow_no_ray() -> None:
    heavy = "{'tensorflow', 'ray', 'fsspec', 's3fs', 'botocore', 'aiohttp'}"
    code = f"import sys, pix2pix.storage; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


@pytest.mark.parametrize(
    ("canonical", "url"),
    [
        ("file:///a/b c%20", "/a/./x/../b c%20/"),
        ("file:///a", "file:///a/"),
        ("file:///a", "local:///a"),
        ("file:///a", "//a"),
        ("file:///", "/"),
        (f"file://{os.getcwd()}/a", "a"),
        ("s3://bucket/a b", "s3://bucket/a b/"),
        ("s3://bucket", "S3A://bucket/"),
        ("memory://a", "memory:///a"),
        ("gs://bucket/a%20b", "gs://bucket/a%20b"),
    ],
)
def test_a_url_has_one_canonical_form(canonical: str, url: str) -> None:
    assert canonical == storage.absolute(url)
    assert canonical == storage.absolute(canonical)


@pytest.mark.parametrize("url", ["", "s3://", "s3:///", "memory://", "zip::s3://bucket/a.zip"])
def test_a_url_that_names_no_place_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=re.escape(repr(url))):
        storage.absolute(url)


@pytest.mark.parametrize("part", ["../a", "a/../b", "/a", "a//b", "a/", ".", ""])
def test_a_path_that_climbs_or_collapses_is_not_joined(part: str) -> None:
    with pytest.raises(ValueError, match="component"):
        storage.join("s3://bucket", "images", part)


def test_joining_appends_whole_names() -> None:
    assert storage.join("s3://bucket/", "a b", "c/d.jpg") == "s3://bucket/a b/c/d.jpg"
    assert storage.join("/", "a") == "file:///a"


@pytest.mark.parametrize(
    ("answer", "url", "parent"),
    [
        (True, "s3://bucket/a/b", "s3://bucket/a"),
        (True, "s3://bucket/a", "s3a://bucket/a/"),
        (False, "s3://bucket/ab", "s3://bucket/a"),
        (False, "s3://bucket-2", "s3://bucket"),
        (False, "s3://bucket/a", "s3://bucket/a/b"),
        (True, "/a/b", "/"),
        (True, "file:///a/b", "/a"),
        (False, "/a/../b", "/a"),
        (False, "/a", "s3://a"),
    ],
)
def test_inside_goes_by_whole_names(answer: bool, url: str, parent: str) -> None:
    assert answer == storage.inside(url, parent)


def test_inside_sees_through_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert storage.inside(f"{tmp_path}/link/new", f"{tmp_path}/real")
    assert not storage.inside(f"{tmp_path}/link", f"{tmp_path}/link/new")


def test_what_is_written_is_read_and_listed(folder: str) -> None:
    contents = {name: name.encode() for name in ODD_NAMES}
    for name, data in contents.items():
        storage.write(storage.join(folder, name), data)
    entries = list(storage.files(folder))
    assert contents == {entry.relative_path: storage.read(entry.uri) for entry in entries}
    assert {storage.join(folder, name) for name in ODD_NAMES} == {entry.uri for entry in entries}
    assert all(entry.size_bytes == len(contents[entry.relative_path]) for entry in entries)


def test_the_etag_changes_with_the_file_only(folder: str) -> None:
    url = storage.join(folder, "a.jpg")
    storage.write(url, b"1")
    first, again = ([entry.etag for entry in storage.files(folder)] for _ in range(2))
    storage.write(url, b"2")
    (second,) = storage.files(folder)
    assert first == again != [second.etag]
    assert second.etag
    assert '"' not in second.etag


def test_writing_replaces_and_removing_removes(folder: str) -> None:
    url = storage.join(folder, "a.jpg")
    storage.write(url, b"old")
    storage.write(url, b"new")
    assert storage.read(url) == b"new"
    assert storage.exists(url)
    assert not storage.exists(folder)  # a folder is not a file
    storage.remove(url)
    storage.remove(url)
    assert not storage.exists(url)


def test_removing_a_folder_removes_what_is_below_it_and_nothing_beside(folder: str) -> None:
    for name in ("step-1/card.json", "step-1/state/a/b", "step-10/card.json", "step-1.json"):
        storage.write(storage.join(folder, name), b"1")
    for name in ("step-1", "step-1", "nowhere"):  # what is not there is no error
        storage.remove_folder(storage.join(folder, name))
    left = {entry.relative_path for entry in storage.files(folder)}
    assert left == {"step-10/card.json", "step-1.json"}


def test_removing_a_local_folder_leaves_no_empty_ones_and_spares_what_links_lead_to(
    tmp_path: Path,
) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/a").touch()
    (tmp_path / "gone/empty").mkdir(parents=True)
    (tmp_path / "gone/link").symlink_to(tmp_path / "kept")
    storage.remove_folder(str(tmp_path / "gone"))
    storage.remove_folder(str(tmp_path / "kept/a"))  # a file is no folder
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "kept", tmp_path / "kept/a"]


def test_a_missing_file_and_folder_are_not_found(folder: str) -> None:
    for call in (storage.read, lambda url: list(storage.files(url))):
        with pytest.raises(FileNotFoundError, match="nowhere") as caught:
            call(storage.join(folder, "nowhere"))
        assert faults.failure_class(caught.value) == "not_found"
    assert not storage.exists(storage.join(folder, "nowhere"))


def test_a_folder_is_copied_between_stores_and_back(folder: str, tmp_path: Path) -> None:
    contents = {"a/b.txt": b"1", "c.bin": b"2" * 1000}
    for name, data in contents.items():
        storage.write(f"{tmp_path}/from/{name}", data)
    assert storage.copy(f"{tmp_path}/from", folder) == 2
    assert storage.copy(folder, f"{tmp_path}/back") == 2
    back = tmp_path / "back"
    assert contents == {name: (back / name).read_bytes() for name in contents}


def test_local_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    (tmp_path / name).write_bytes(b"latin")
    (entry,) = storage.files(str(tmp_path))
    assert entry.uri.encode()  # fit for a table, which a lone surrogate is not
    assert storage.read(entry.uri) == b"latin"
    storage.write(storage.join(f"{tmp_path}/out", entry.relative_path), b"new")
    assert os.listdir(os.fsencode(tmp_path / "out")) == [b"caf\xe9.jpg"]


def test_local_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.jpg").write_bytes(b"1")
    root = tmp_path / "root"
    (root / "inner").mkdir(parents=True)
    (root / "inner/up").symlink_to(root)
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "lost.jpg").symlink_to("/nowhere")
    (root / "itself.jpg").symlink_to("itself.jpg")
    os.mkfifo(root / "pipe.jpg")
    listed = sorted(entry.relative_path for entry in storage.files(str(root)))
    assert listed == ["itself.jpg", "linked/a.jpg", "lost.jpg"]


def test_a_new_local_file_has_the_usual_mode(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    storage.write(f"{tmp_path}/a", b"1")
    assert (tmp_path / "usual").stat().st_mode == (tmp_path / "a").stat().st_mode


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    storage.write(f"{tmp_path}/a", b"old")
    code = f"""if True:
        import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        from pix2pix import faults, storage
        try: storage.write({f"{tmp_path}/a"!r}, b"n" * 2000)
        except OSError as error: print(error.errno, faults.failure_class(error))"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "27 None\n"
    left = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert left == {"a": b"old"}


def test_half_a_file_is_never_seen_and_a_killed_writer_leaves_none(tmp_path: Path) -> None:
    size = 5_000_000
    path = tmp_path / "a"
    code = f"""if True:
        from pix2pix import storage
        while True:
            for letter in (b"a", b"b"):
                storage.write({str(path)!r}, letter * {size})
                print(flush=True)"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
        writer.stdout.readline()
        end = time.monotonic() + 1
        sizes = set()
        while time.monotonic() < end:
            sizes.add(path.stat().st_size)
        writer.send_signal(signal.SIGKILL)
    assert sizes == {size}
    assert storage.read(str(path)) in (b"a" * size, b"b" * size)


def test_large_objects_go_up_in_parts(s3: S3Server) -> None:
    url = storage.join(s3.bucket_url(), "large.bin")
    data = os.urandom(1 << 20) * 101
    storage.write(url, data)
    assert storage.read(url) == data
    assert next(storage.files(url.rpartition("/")[0])).etag.endswith("-3")


def test_reading_costs_one_request(s3: S3Server, proxy: FaultyProxy) -> None:
    folder = s3.bucket_url()
    storage.write(f"{folder}/a.jpg", b"1" * 1000)
    proxy.seen.clear()
    storage.read(f"{folder}/a.jpg")
    assert proxy.seen == [f"GET /{folder[5:]}/a.jpg"]


def _connected(url: str) -> tuple[list[str], bool]:
    """The threads that a connection begins, and whether it made the store's client."""
    before = threading.enumerate()
    storage.connect(url)
    names = [thread.name for thread in threading.enumerate() if thread not in before]
    return names, stores.filesystem(url)._s3 is not None


def test_a_connection_makes_the_client_and_its_thread_and_asks_for_nothing(
    s3: S3Server, proxy: FaultyProxy
) -> None:
    folder = s3.bucket_url()
    proxy.seen.clear()
    with multiprocessing.get_context("spawn").Pool(1) as process:
        assert process.apply(_connected, [folder]) == ([storage.TRANSFERS], True)
    assert proxy.seen == []


def test_disks_need_no_connection(tmp_path: Path) -> None:
    storage.connect(str(tmp_path / "nowhere"))
    assert not (tmp_path / "nowhere").exists()


def test_threads_and_spawned_processes_share_nothing(s3: S3Server) -> None:
    folder = s3.bucket_url()
    urls = [f"{folder}/{i}.jpg" for i in range(32)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(storage.write, urls, [url.encode() for url in urls]))
        assert [url.encode() for url in urls] == list(threads.map(storage.read, urls))
    with multiprocessing.get_context("spawn").Pool(2) as processes:
        assert [url.encode() for url in urls] == processes.map(storage.read, urls)


def test_a_forked_process_opens_its_own_connections(s3: S3Server) -> None:
    url = f"{s3.bucket_url()}/a.jpg"
    code = f"""if True:
        import multiprocessing
        from pix2pix import storage
        storage.write({url!r}, b"1")
        with multiprocessing.get_context("fork").Pool(1) as pool:
            print(pool.apply(storage.read, [{url!r}]))"""
    answer = subprocess.check_output([sys.executable, "-c", code], text=True, timeout=60)
    assert answer == "b'1'\n"


def test_one_file_is_described_as_its_listing_does(folder: str) -> None:
    for name in ODD_NAMES:
        storage.write(storage.join(folder, name), name.encode())
    for listed in storage.files(folder):
        found = storage.entry(listed.uri)
        assert (listed.uri, listed.size_bytes, listed.etag) == (
            found.uri, found.size_bytes, found.etag,
        )  # fmt: skip
        assert found.relative_path == listed.relative_path.rpartition("/")[2]


def test_one_file_that_is_none_is_refused(folder: str) -> None:
    storage.write(storage.join(folder, "a/b.jpg"), b"1")
    with pytest.raises(FileNotFoundError, match=r"cannot look at .*nowhere"):
        storage.entry(storage.join(folder, "nowhere"))
    with pytest.raises((IsADirectoryError, FileNotFoundError)):
        storage.entry(storage.join(folder, "a"))


def test_a_local_link_that_leads_nowhere_is_described_too(tmp_path: Path) -> None:
    (tmp_path / "lost.jpg").symlink_to("/nowhere")
    (listed,) = storage.files(str(tmp_path))
    assert storage.entry(f"{tmp_path}/lost.jpg") == listed


def test_a_file_is_read_by_ranges_as_a_whole_one_is(folder: str) -> None:
    data = random.Random(1).randbytes(100_000)
    url = storage.join(folder, "a.bin")
    storage.write(url, data)
    with storage.opened(url) as file:
        assert file.read(10) == data[:10]
        assert file.seek(-5, os.SEEK_END) == len(data) - 5
        assert file.read() == data[-5:]
        assert file.read() == b""
        assert file.seek(50_000) == file.tell()
        file.seek(10, os.SEEK_CUR)
        assert file.read(20_000) == data[50_010:70_010]


def test_reading_a_range_takes_no_more_than_that_and_is_tried_again(
    s3: S3Server, proxy: FaultyProxy
) -> None:
    url = f"{s3.bucket_url()}/a.bin"
    storage.write(url, bytes(range(200)))
    proxy.seen.clear()
    with storage.opened(url, size_bytes=200) as file:
        file.seek(100)
        proxy.faults[:] = ["503", "cut"]
        assert file.read(10) == bytes(range(100, 110))
    assert len(proxy.seen) == 3


def test_a_file_is_created_once(folder: str) -> None:
    url = storage.join(folder, "d", "a")
    assert storage.create(url, b"first")
    assert not storage.create(url, b"second")
    assert storage.read(url) == b"first"
    storage.remove(url)
    assert storage.create(url, b"third")


def test_of_many_creators_one_wins(tmp_path: Path) -> None:
    for number in range(20):
        url = f"{tmp_path}/{number}"
        with ThreadPoolExecutor(16) as threads:
            made = list(threads.map(lambda i, url=url: storage.create(url, b"%d" % i), range(16)))
        assert made.count(True) == 1
        assert storage.read(url) == b"%d" % made.index(True)
    assert len(list(tmp_path.iterdir())) == 20


@pytest.mark.parametrize("fault", ["lost", "reset", "503"])
def test_a_created_file_is_known_again_when_the_answer_was_lost(
    s3: S3Server, proxy: FaultyProxy, fault: str
) -> None:
    url = f"{s3.bucket_url()}/a"
    proxy.faults[:] = [fault]
    assert storage.create(url, b"mine")
    proxy.faults[:] = [fault]
    assert not storage.create(url, b"other")
    assert storage.read(url) == b"mine"
