"""Makes tonight's RayJob once the last one has ended, and waits for its end: see nightly.yaml.

Everything it knows stands in the cluster, so it may be killed and started again at any time.
"""

import json
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

NAME = "pix2pix-nightly"  # one for all nights: Kubernetes keeps one object of a name
NIGHT = "pix2pix/night"  # label of a RayJob: which night's it is
ENDED = {"Complete", "Failed", "ValidationFailed"}  # as RayJobs are deployed; `Retrying` is not
WITHIN_BUDGET, FAILED = 3, 4  # exit codes: of jobs/denoise.py, and ours
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
SERVER = "https://kubernetes.default.svc"
SECONDS = 20.0  # between two looks
FOREGROUND = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}

Api = Callable[[str, str, dict[str, Any] | None], dict[str, Any] | None]


def rayjobs(server: str, account: Path) -> Api:
    """A function that asks Kubernetes about RayJobs: method, name ("" for none), and a body.

    It returns the answer, or None where there is no such RayJob (404) or already one (409).

    Args:
        server: Where Kubernetes answers.
        account: The folder of a service account: its token, which is renewed now and then, its
            namespace, and the certificate of the server.
    """
    namespace = (account / "namespace").read_text().strip()
    base = f"{server}/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
    trust = ssl.create_default_context(cafile=str(account / "ca.crt"))

    def ask(method: str, name: str, body: dict[str, Any] | None) -> dict[str, Any] | None:
        request = urllib.request.Request(
            f"{base}/{name}".rstrip("/"),
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {(account / 'token').read_text().strip()}",
                "Content-Type": "application/json",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=60, context=trust) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            # a POST is no stranger to 404: then there is no namespace, or no KubeRay
            if error.code == 409 or (error.code == 404 and name):
                return None
            raise

    return ask


def ended(rayjob: dict[str, Any]) -> bool:
    """Whether a RayJob is over, for good."""
    return rayjob.get("status", {}).get("jobDeploymentStatus") in ENDED


def exit_code(rayjob: dict[str, Any]) -> int:
    """Ours for a RayJob that is over: 0, also if some images failed within the budget, or 4."""
    status = rayjob.get("status", {})
    told = re.search(r"exit code (\d+)", (status.get("message") or ""))
    partial = told is not None and int(told[1]) == WITHIN_BUDGET
    return 0 if status.get("jobStatus") == "SUCCEEDED" or partial else FAILED


def tonight(
    ask: Api,
    template: dict[str, Any],
    night: str,
    show: Callable[[str], None] = print,
    seconds: float = SECONDS,
) -> int:
    """The exit code after tonight's RayJob has ended; there are never two.

    Args:
        ask: See `rayjobs`.
        template: A RayJob; name and label are set here.
        night: What tells this night from others.
        show: Takes a line for everything that happens.
        seconds: Between two looks.

    Raises:
        OSError: Kubernetes doesn't answer, or refuses.
    """
    labels = {**template["metadata"].get("labels", {}), NIGHT: night}
    ours = {**template, "metadata": {**template["metadata"], "name": NAME, "labels": labels}}
    seen, told = False, ""

    def tell(line: str) -> None:
        nonlocal told
        if line != told:
            show(line)
        told = line

    while True:
        there = ask("GET", NAME, None)
        if there is None and seen:
            tell(f"somebody has deleted {NAME}: it is not made again tonight")
            return FAILED
        if there is None:
            if ask("POST", "", ours) is not None:
                tell(f"made {NAME} for {night}")
        elif there["metadata"].get("labels", {}).get(NIGHT) == night:
            seen = True
            if ended(there):
                status = there["status"]
                message = str(status.get("message") or "").partition("\n")[0]
                tell(f"{NAME} has ended: {status['jobDeploymentStatus']} {message}".rstrip())
                return exit_code(there)
            tell(f"{NAME} of {night} is at work")
        elif not ended(there):
            tell(f"{NAME} of an earlier night is still at work: waiting for its end")
        elif "deletionTimestamp" not in there["metadata"]:
            tell(f"removing {NAME} of an earlier night, which has ended")
            # its cluster goes first, and then itself
            ask("DELETE", NAME, FOREGROUND)
        time.sleep(seconds)


if __name__ == "__main__":
    rayjob = yaml.safe_load(Path(sys.argv[1]).read_text())
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    raise SystemExit(tonight(rayjobs(SERVER, ACCOUNT), rayjob, sys.argv[2]))
