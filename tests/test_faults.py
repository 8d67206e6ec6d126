"""Claims about pix2pix.faults, on a real S3 server and on one that fails as it is told to."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from pix2pix import buckets, faults, storage, stores
from tests.conftest import FaultyProxy, S3Server


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "BACKOFF_SECONDS", 0.01)


def write(folder: str) -> None:
    storage.write(f"{folder}/b.jpg", b"2" * 1000)


def read(folder: str) -> bytes:
    return storage.read(f"{folder}/a.jpg")


def listed(folder: str) -> list[str]:
    return [entry.relative_path for entry in storage.files(folder)]


FAULTS = [
    *[(call, fault) for call in (read, write, listed) for fault in ("429", "500", "502", "503")],
    *[(call, fault) for call in (read, write, listed) for fault in ("reset", "lost", "hang")],
    *[(read, "cut"), (listed, "cut")],
]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("call", "fault"), FAULTS)
def test_a_passing_fault_costs_another_request_and_no_more(
    s3: S3Server,
    proxy: FaultyProxy,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[[str], Any],
    fault: str,
) -> None:
    monkeypatch.setattr(stores, "READ_TIMEOUT_SECONDS", 0.5)
    folder = s3.bucket_url()
    storage.write(f"{folder}/a.jpg", b"1" * 1000)
    usual = call(folder)
    proxy.seen.clear()
    proxy.faults[:] = [fault]
    assert usual == call(folder)
    assert len(proxy.seen) == 2


@pytest.mark.usefixtures("quick")
def test_waiting_leaves_the_common_chance_alone() -> None:
    answers = iter([ConnectionResetError(), TimeoutError(), b"data"])

    def call() -> bytes:
        answer = next(answers)
        if isinstance(answer, OSError):
            raise answer
        return answer

    before = random.getstate()
    assert faults.retried("read", "s3://bucket/a.jpg", call) == b"data"
    assert random.getstate() == before  # or a generator built meanwhile had other weights


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("call", "fault"), [(read, "503"), (write, "503"), (read, "cut")])
def test_a_lasting_fault_ends_after_eight_requests(
    s3: S3Server, proxy: FaultyProxy, call: Callable[[str], Any], fault: str
) -> None:
    folder = s3.bucket_url()
    storage.write(f"{folder}/a.jpg", b"1" * 1000)
    proxy.seen.clear()
    proxy.faults[:] = [fault] * 100
    with pytest.raises(ConnectionError, match=r"tried 8 times") as caught:
        call(folder)
    assert len(proxy.seen) == 8
    assert faults.failure_class(caught.value) == "transient_io"


@pytest.mark.usefixtures("quick")
def test_a_silent_server_is_a_timeout(
    s3: S3Server, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "READ_TIMEOUT_SECONDS", 0.2)
    proxy.faults[:] = ["hang"] * 100
    with pytest.raises(TimeoutError) as caught:
        read(s3.bucket_url())
    assert faults.failure_class(caught.value) == "transient_io"


@pytest.mark.usefixtures("quick")
def test_a_server_that_is_not_there_is_transient(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(ConnectionError, match=r"endpoint.*tried 8"):
        storage.read("s3://bucket/a.jpg")


def test_what_will_not_change_is_asked_once(s3: S3Server, proxy: FaultyProxy) -> None:
    bucket = s3.bucket_url()
    for url in (f"{bucket}/nowhere.jpg", "s3://no-such-bucket/a.jpg"):
        proxy.seen.clear()
        with pytest.raises(FileNotFoundError):
            storage.read(url)
        assert len(proxy.seen) == 1


@pytest.mark.usefixtures("quick")
def test_a_listing_in_pages_survives_faults_between_them(
    s3: S3Server, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"d{i % 3}/{i}.jpg" for i in range(20)] + ["d1.jpg", "d1-/a.jpg", "d10/a.jpg"]
    folder = f"{s3.bucket_url()}/archive"
    for name in names:
        storage.write(f"{folder}/{name}", b"1")
    storage.write(f"{folder}-2/a.jpg", b"1")
    monkeypatch.setattr(buckets, "KEYS_PER_PAGE", 4)
    proxy.faults[:] = ["", "503", "", "reset"]
    assert sorted(names) == sorted(listed(folder))
    assert len(proxy.seen) >= 23 + 1 + 6 + 2  # writes, pages, faults


def test_what_may_not_be_read_is_forbidden(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = storage.join(s3.bucket_url(), "a.jpg")
    storage.write(url, b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    for call in (storage.read, storage.exists, storage.remove, lambda url: storage.write(url, b"")):
        with pytest.raises(PermissionError) as caught:
            call(url)
        assert faults.failure_class(caught.value) == "forbidden"


def test_without_credentials_it_is_forbidden(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    url = storage.join(s3.bucket_url(), "a.jpg")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with pytest.raises(PermissionError, match="credentials"):
        storage.read(url)
