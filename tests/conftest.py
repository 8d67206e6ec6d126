"""Fixtures that several test modules share: a real S3 server, and a faulty proxy before it."""

import contextlib
import ctypes
import http.client
import json
import os
import random
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

hypothesis_settings.register_profile("house", deadline=None)  # a busy machine is no error
hypothesis_settings.load_profile("house")

CODES = {"429": "TooManyRequests", "500": "InternalError", "502": "x", "503": "SlowDown"}
ADDED = 2  # levels that the checkpoint below adds to every value: results are known by hand
_ALL = ["Read", "Write", "List"]  # Write also lets delete
_OUTPUT = [f"{action}:output-*" for action in _ALL]
IDENTITIES = {  # whose keys the S3 server knows, and what they may, where
    "admin": ["Admin", *_ALL],
    "user": _ALL,
    "nightly": ["Read:archive-*", "List:archive-*", *_OUTPUT],
    "lister": ["List:archive-*", *_OUTPUT],
    "blind": _OUTPUT,
    "reader": ["Read:archive-*", "List:archive-*"],
}
READY_SECONDS = 90  # 3-5 s alone; two busy cores have taken 20


@pytest.hookimpl(tryfirst=True)  # before marks are selected
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what uses the session's Ray; some files that start one of their own mark themselves."""
    for item in items:
        if "ray_cluster" in getattr(item, "fixturenames", ()):
            item.add_marker("ray")


@dataclass(frozen=True)
class S3Server:
    """A running S3 server; the AWS variables already point to it, with a user's keys.

    The user may read, write and list but not make buckets: for an administrator SeaweedFS makes a
    missing bucket at the first PUT, which no other store does. The other keys are of `IDENTITIES`.
    """

    endpoint_url: str
    keys: dict[str, dict[str, str]]
    log: Path

    @property
    def user(self) -> dict[str, str]:
        return self.keys["user"]

    def bucket_url(self, name: str = "bucket") -> str:
        """The URL of a new, empty bucket whose name begins with `name`."""
        import s3fs

        bucket = f"{name}-{uuid.uuid4().hex[:8]}"
        admin = self.keys["admin"]
        keys = {"key": admin["accessKey"], "secret": admin["secretKey"]}
        s3fs.S3FileSystem(**keys, endpoint_url=self.endpoint_url).call_s3(
            "create_bucket", Bucket=bucket
        )
        return f"s3://{bucket}"


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    process, server = _started(tmp_path_factory.mktemp("seaweedfs"))
    variables = {
        "AWS_ENDPOINT_URL": server.endpoint_url,
        "AWS_ACCESS_KEY_ID": server.user["accessKey"],
        "AWS_SECRET_ACCESS_KEY": server.user["secretKey"],
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }
    other = {name for name in os.environ if name.startswith("AWS_")} - set(variables)
    with pytest.MonkeyPatch.context() as patch:
        for name in other:  # a developer's own session token or profile must not get in the way
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        try:
            yield server
        finally:
            _stop(process)


@pytest.fixture(scope="session")
def ray_cluster(s3: S3Server) -> Iterator[None]:
    """A real Ray in this process, whose workers know the S3 server.

    Its idle processes wait for the next test: by itself Ray ends them after a second, and to start
    one anew takes one or two seconds of a core, several times in each test.
    """
    from pix2pix import cluster

    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:  # for this Ray, not for those of other programs
            patch.setenv("RAY_idle_worker_killing_time_threshold_ms", "3600000")
            patch.setenv("RAY_metrics_report_interval_ms", "1000")  # 10 s are long for a test
            patch.setenv("REPORTER_UPDATE_INTERVAL_MS", "1000")  # so is the embedded one's minute
            stack.enter_context(cluster.joined(verbose=True))
        yield


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint whose generator makes every photograph brighter by `ADDED` levels."""
    return brightening(tmp_path_factory.mktemp("checkpoint"), ADDED)


@pytest.fixture(scope="session")
def other_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same by half a level less: other weights."""
    return brightening(tmp_path_factory.mktemp("other"), ADDED - 0.5)


def brightening(folder: Path, levels: float) -> str:
    """A checkpoint in a folder whose generator makes every photograph brighter."""
    import keras

    from pix2pix import checkpoints, networks, settings

    made_with = settings.Settings(width=4, levels=2, crop_pixels=32)
    keras.config.set_dtype_policy("float32")
    model = networks.generator(made_with)
    model.get_layer("noise").bias.assign([-levels / 127.5] * 3)
    model.save_weights(folder / checkpoints.WEIGHTS)
    (folder / checkpoints.SETTINGS).write_text(settings.to_json(made_with))
    (folder / checkpoints.CARD).write_text(json.dumps(checkpoints.card(folder, {"step": 1})))
    return str(folder)


@pytest.fixture(scope="session")
def one_epoch(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    """A run that one worker has trained for an epoch, with `runs.SETTINGS`."""
    from tests import runs

    run = tmp_path_factory.mktemp("training") / "one"
    runs.trained(run, runs.SETTINGS)
    return run


class FaultyProxy(ThreadingHTTPServer):
    """An S3 endpoint in front of the server that fails as it is told to.

    `faults` are consumed one per request: a status ("503"), "reset" (no answer), "lost" (done, but
    no answer), "cut" (half of the answer's body), "hang" (an answer too late), "" (none). After
    `left` further requests, if that is a number, all are reset. `seen` are their methods and paths.
    `shares` are faults that come by chance: {"503": 0.05}; "cut" only to reads. `on_read` is called
    with the path of every GET before it is answered. Every answer comes `delay_seconds` late.
    """

    daemon_threads = True

    def __init__(self, upstream_url: str, address: str = "127.0.0.1") -> None:
        super().__init__((address, 0), _FaultyRequest)
        self.upstream = upstream_url.removeprefix("http://")
        self.endpoint_url = f"http://{address}:{self.server_port}"
        self.faults: list[str] = []
        self.left: int | None = None
        self.seen: list[str] = []
        self.shares: dict[str, float] = {}
        self.delay_seconds = 0.0
        self.random = random.Random(0)
        self.on_read: Callable[[str], None] = lambda path: None
        self.lock = threading.Lock()

    def handle_error(self, request: socket.socket, client_address: tuple) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # clients whose patience has ended
            super().handle_error(request, client_address)

    def fault(self, request: str) -> str:
        with self.lock:
            self.seen.append(request)
            if self.left is not None:
                self.left -= 1
                return "reset" if self.left < 0 else ""
            if self.faults:
                return self.faults.pop(0)
            for fault, share in self.shares.items():
                if (fault != "cut" or request.startswith("GET")) and self.random.random() < share:
                    return fault
            return ""


class _FaultyRequest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or each body waits 40 ms for the acknowledged headers

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        time.sleep(self.server.delay_seconds)
        if self.command == "GET":
            self.server.on_read(self.path)
        fault = self.server.fault(f"{self.command} {self.path}")
        self.close_connection = fault in ("reset", "hang", "lost", "cut")
        if fault == "hang":
            time.sleep(3)
        elif fault in CODES:
            error = f"<Error><Code>{CODES[fault]}</Code><Message>busy</Message></Error>"
            data = b"" if self.command == "HEAD" else error.encode()
            self.send(int(fault), {"Content-Length": str(len(data))}, data)
        elif fault != "reset":
            status, headers, data = self.forwarded(body)
            if fault != "lost":
                self.send(status, headers, data[: len(data) // 2] if fault == "cut" else data)

    def forwarded(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.server.upstream)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():  # with the client's Host: the signature covers it
            if name.lower() not in ("expect", "connection"):
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        headers = {name.title(): value for name, value in answer.getheaders()}
        headers.setdefault("Content-Length", str(len(data)))
        for name in ("Transfer-Encoding", "Connection"):
            headers.pop(name, None)
        return answer.status, headers, data

    def send(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
        self.wfile.flush()

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 - http.server's names


@contextlib.contextmanager
def faulty_proxy(s3: S3Server, address: str = "127.0.0.1") -> Iterator[FaultyProxy]:
    """A proxy that runs; nothing points to it yet."""
    server = FaultyProxy(s3.endpoint_url, address)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def s3_action(request: str) -> tuple[str, str]:
    """The kind of bucket, and the S3 action, as policies name it, of a request."""
    method, _, target = request.partition(" ")
    path, _, query = target.partition("?")
    bucket, _, key = path.strip("/").partition("/")
    about = urllib.parse.parse_qs(query, keep_blank_values=True)
    if method == "GET" and not key:
        return bucket.split("-")[0], "ListBucket" if "list-type" in about else query
    names = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject", "DELETE": "DeleteObject"}
    return bucket.split("-")[0], names.get(method, request) if key else request


@pytest.fixture
def proxy(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A faulty proxy that the AWS variables point to while the test runs."""
    with faulty_proxy(s3) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.endpoint_url)
        yield server


def _started(folder: Path) -> tuple[subprocess.Popen, S3Server]:
    keys = {
        name: {"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}
        for name in IDENTITIES
    }
    identities = [
        {"name": name, "credentials": [keys[name]], "actions": actions}
        for name, actions in IDENTITIES.items()
    ]
    config = folder / "s3.json"
    config.touch(mode=0o600)
    config.write_text(json.dumps({"identities": identities}))
    (folder / "data").mkdir()
    master, master_grpc, volume, volume_grpc, filer, filer_grpc, port, port_grpc = _free_ports(8)
    command = [
        *(str(Path(sys.executable).parent / "weed"), f"-logdir={folder}", "server"),
        *(f"-dir={folder / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *("-master.telemetry=false", "-master.volumeSizeLimitMB=128"),
        *("-volume.max=1000", "-volume.preStopSeconds=1"),  # each bucket takes up to 7 volumes
        *(f"-master.port={master}", f"-master.port.grpc={master_grpc}"),
        *(f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}"),
        *("-filer", f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}"),
        *("-s3", f"-s3.port={port}", f"-s3.port.grpc={port_grpc}", f"-s3.config={config}"),
        *("-s3.port.iceberg=0", "-s3.port.lance=0"),
    ]
    log = folder / "weed.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdout=output, stderr=output, preexec_fn=_die_with_parent
        )
    server = S3Server(f"http://127.0.0.1:{port}", keys, log)
    limit = time.monotonic() + READY_SECONDS
    while not all(
        (
            _answers(f"{server.endpoint_url}/", 403),
            _answers(f"http://127.0.0.1:{filer}/"),
            _answers(f"http://127.0.0.1:{master}/dir/assign"),  # else first writes get a 500
        )
    ):
        if process.poll() is not None or time.monotonic() > limit:
            _stop(process)
            raise RuntimeError(f"weed did not come up:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)
    return process, server


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: also if pytest itself is killed


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _answers(url: str, status: int = 200) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        return opener.open(url, timeout=5).status == status
    except urllib.error.HTTPError as error:
        return error.code == status
    except OSError:
        return False


def _stop(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(2)
    except subprocess.TimeoutExpired:  # it lingers for 15 s after it has closed its stores
        process.kill()
        process.wait()
    ports = {option.rpartition("=")[2] for option in process.args if ".port" in option}
    for path in Path("/tmp").glob(
        "seaweedfs-*.sock"
    ):  # it leaves them behind, there, whatever TMPDIR
        if path.stem.rpartition("-")[2] in ports:
            path.unlink(missing_ok=True)
