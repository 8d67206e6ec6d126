"""The nightly pod, against a server that keeps RayJobs as Kubernetes does: one of a name."""

import importlib.util
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import manifests
import pytest

PATH = "/apis/ray.io/v1/namespaces/pix2pix/rayjobs"
(TEMPLATE,) = manifests.documents("denoise.yaml")


def _loaded() -> Any:
    spec = importlib.util.spec_from_file_location("nightly", manifests.FOLDER / "nightly.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


nightly = _loaded()


class Kubernetes:
    """RayJobs by name. What was asked for is noted; `then` may change things before each look."""

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.tokens: list[str] = []
        self.then: Callable[[int], None] = lambda look: None
        self.looks = 0

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        name = path.removeprefix(PATH).strip("/")
        if method == "GET":
            self.looks += 1
            self.then(self.looks)
            return (200, self.jobs[name]) if name in self.jobs else (404, {})
        self.asked.append(method)
        if method == "POST":
            name = body["metadata"]["name"]
            if name in self.jobs:
                return 409, {}
            self.jobs[name] = {**body, "status": {}}
            return 201, body
        assert body["propagationPolicy"] == "Foreground"
        self.jobs[name]["metadata"]["deletionTimestamp"] = "now"  # until its cluster is gone
        return 200, {}

    def put(self, night: str, **status: str) -> None:
        metadata = {"name": nightly.NAME, "labels": {nightly.NIGHT: night}}
        self.jobs[nightly.NAME] = {"metadata": metadata, "status": status}

    def end(self, status: str = "Complete", job: str = "SUCCEEDED", message: str = "") -> None:
        self.jobs[nightly.NAME]["status"] = {
            "jobDeploymentStatus": status, "jobStatus": job, "message": message,
        }  # fmt: skip


@pytest.fixture
def kubernetes() -> Kubernetes:
    return Kubernetes()


@pytest.fixture
def ask(kubernetes: Kubernetes, tmp_path: Path) -> Iterator[Any]:
    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            kubernetes.tokens.append(self.headers["Authorization"])
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            code, found = kubernetes.answer(self.command, self.path, body)
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        do_GET = do_POST = do_DELETE = handle_any  # noqa: N815 - http.server's names

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    (tmp_path / "namespace").write_text("pix2pix")
    (tmp_path / "token").write_text("first\n")
    import certifi

    (tmp_path / "ca.crt").write_bytes(Path(certifi.where()).read_bytes())
    yield nightly.rayjobs(f"http://127.0.0.1:{server.server_port}", tmp_path)
    server.shutdown()
    server.server_close()


def _tonight(ask: Any, lines: list[str] | None = None) -> int:
    show = lines.append if lines is not None else lambda line: None
    return nightly.tonight(ask, TEMPLATE, "night-2", show, seconds=0.001)


def test_the_first_night_makes_the_job_of_the_template_and_waits_for_it(
    kubernetes: Kubernetes, ask: Any
) -> None:
    kubernetes.then = lambda look: kubernetes.end() if look == 4 else None
    lines: list[str] = []
    assert _tonight(ask, lines) == 0
    made = kubernetes.jobs[nightly.NAME]
    assert made["spec"] == TEMPLATE["spec"]
    assert manifests.problems({k: v for k, v in made.items() if k != "status"}) == []
    assert made["metadata"]["labels"] == {nightly.NIGHT: "night-2"}
    assert kubernetes.asked == ["POST"]
    assert len(lines) == 3  # made, at work, ended: not a line for each look


def test_last_night_s_job_at_work_is_waited_for_and_never_doubled(
    kubernetes: Kubernetes, ask: Any
) -> None:
    kubernetes.put("night-1", jobDeploymentStatus="Running")
    states: list[list[str]] = []

    def then(look: int) -> None:
        states.append(list(kubernetes.asked))
        if look == 5:
            kubernetes.end()
        if look == 9:
            del kubernetes.jobs[nightly.NAME]  # its cluster is gone
        if look == 12:
            kubernetes.end()

    kubernetes.then = then
    assert _tonight(ask) == 0
    assert states[4] == []  # nothing while it works
    assert states[8] == ["DELETE"]  # asked for once, and nothing made before it is gone
    assert kubernetes.asked == ["DELETE", "POST"]


@pytest.mark.parametrize("status", ["", "Initializing", "Retrying", "Suspended"])
def test_a_job_that_may_still_work_is_at_work(
    kubernetes: Kubernetes, ask: Any, status: str
) -> None:
    kubernetes.put("night-1", jobDeploymentStatus=status)

    def then(look: int) -> None:
        if look == 4:
            raise ConnectionAbortedError  # the pod ends here

    kubernetes.then = then
    with pytest.raises((OSError, nightly.urllib.error.URLError)):
        _tonight(ask)
    assert kubernetes.asked == []


def test_a_pod_that_is_started_again_waits_for_tonight_s_own_job(
    kubernetes: Kubernetes, ask: Any
) -> None:
    kubernetes.put("night-2", jobDeploymentStatus="Running")
    kubernetes.then = lambda look: kubernetes.end() if look == 3 else None
    assert _tonight(ask) == 0
    assert kubernetes.asked == []


def test_of_two_pods_one_makes_the_job_and_the_other_waits(
    kubernetes: Kubernetes, ask: Any
) -> None:
    real = kubernetes.answer

    def answer(method: str, path: str, body: Any) -> tuple[int, Any]:
        if method == "POST":  # the other was faster, after our look
            kubernetes.put("night-2", jobDeploymentStatus="Running")
            kubernetes.then = lambda look: kubernetes.end()
        return real(method, path, body)

    kubernetes.answer = answer  # type: ignore[method-assign]
    assert _tonight(ask) == 0
    assert kubernetes.asked == ["POST"]  # refused: 409
    assert "spec" not in kubernetes.jobs[nightly.NAME]  # it is the other's


def test_a_job_that_somebody_deletes_is_not_made_again(kubernetes: Kubernetes, ask: Any) -> None:
    kubernetes.then = lambda look: kubernetes.jobs.clear() if look == 4 else None
    assert _tonight(ask) == nightly.FAILED
    assert kubernetes.asked == ["POST"]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("Job entrypoint command failed with exit code 3, last available logs", 0),
        ("Job entrypoint command failed with exit code 4, last available logs", 4),
        ("Job entrypoint command failed with exit code 1, last available logs", 4),
        ("Job entrypoint command failed with exit code 31, last", 4),
        ("", 4),
    ],
)
def test_failures_within_the_budget_are_a_good_night(message: str, code: int) -> None:
    status = {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": message}
    assert nightly.exit_code({"status": status}) == code


def test_the_exit_codes_are_those_of_the_command_and_of_the_cron_job() -> None:
    from pix2pix import cli

    assert nightly.WITHIN_BUDGET == cli.PARTIAL
    job = manifests.documents("nightly.yaml")[-1]["spec"]["jobTemplate"]["spec"]
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [nightly.FAILED]


def test_a_token_that_was_renewed_is_used(kubernetes: Kubernetes, ask: Any, tmp_path: Path) -> None:
    kubernetes.put("night-2", jobDeploymentStatus="Running")

    def then(look: int) -> None:
        (tmp_path / "token").write_text("second\n")
        if look == 2:
            kubernetes.end()

    kubernetes.then = then
    assert _tonight(ask) == 0
    assert kubernetes.tokens == ["Bearer first", "Bearer second"]
