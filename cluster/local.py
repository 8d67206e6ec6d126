"""A cluster on one machine: a head and workers, each a raylet of its own with its own address.

``python cluster/local.py up`` starts it, ``down`` ends exactly what `up` has started. Each node has
its own CPUs, object store, temporary folder and address, of 127.0.0.0/8; with ``--namespaces`` (as
root) also a network of its own, with a bridge to the head. Linux only.
"""

import contextlib
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import typer

FOLDER = Path(f"/tmp/pix2pix-{os.getuid()}/raylets")
LONGEST_FOLDER = 40  # bytes: the paths of Ray's sockets below it may have 107
STATE, TOKEN, VARIABLES = "cluster.json", "token", "environment"
READY_SECONDS = 180.0  # 10 s alone; busy cores have taken 60
MARK = "PIX2PIX_RAYLET"  # in the environment of all that runs in the cluster: which one, which node

Folder = Annotated[Path, typer.Option(help="Where the cluster is written down, with its logs.")]

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    rich_markup_mode=None, help="A cluster of several Ray nodes on this machine.",
)  # fmt: skip


@dataclass
class Node:
    """One raylet.

    Attributes:
        address: Its IP address.
        cpus: How many CPUs it says it has.
        pid: Of `ray start`, which leads the session of the node's processes.
        namespace: Its network namespace, if it has one.
    """

    address: str
    cpus: float
    pid: int = 0
    namespace: str = ""


@dataclass
class Raylets:
    """A cluster that is up; the first node is the head.

    Attributes:
        folder: Where it is written down.
        identity: What tells it from every other one.
        store_mb: Each node's object store, in MB.
        network: What each node's address begins with.
        gcs_address: What `ray.init` takes.
        dashboard_url: What `ray job submit` takes.
        bridge: The bridge of the nodes' networks, if they have some.
        nodes: All that were ever started.
    """

    folder: Path
    identity: str
    store_mb: int
    network: str
    gcs_address: str
    dashboard_url: str
    bridge: str
    nodes: list[Node] = field(default_factory=list)

    @property
    def variables(self) -> dict[str, str]:
        """The environment in which `ray job submit` and our own commands use this cluster."""
        return {
            "RAY_ADDRESS": self.gcs_address,
            "RAY_API_SERVER_ADDRESS": self.dashboard_url,
            "RAY_AUTH_MODE": "token",  # its ports are open to all who reach this machine
            "RAY_AUTH_TOKEN_PATH": str(self.folder / TOKEN),
        }

    def note(self) -> None:
        """Writes itself down, before what is written is done: so `ended` finds all of it."""
        told = asdict(self) | {"folder": str(self.folder)}
        (self.folder / STATE).write_text(json.dumps(told, indent=1) + "\n")


def started(
    workers: int = 2, cpus: float = 1.0, head_cpus: float = 0.0, store_mb: int = 100,
    namespaces: bool = False, folder: Path = FOLDER,
) -> Raylets:  # fmt: skip
    """A new cluster, once all of its nodes are there.

    What runs in it has this process's environment, but for Ray's variables.

    Args:
        workers: How many nodes there are beside the head.
        cpus: Of each of them.
        head_cpus: Of the head; with 0 only drivers and what belongs to them run there.
        store_mb: See `Raylets`; at least 75.
        namespaces: Whether each worker has a network namespace.
        folder: See `Raylets`; at most `LONGEST_FOLDER` bytes.

    Raises:
        RuntimeError: one is up there already, an option can't be had, or Ray does not come up.
    """
    if (folder / STATE).exists():
        raise RuntimeError(f"a cluster is up in {folder}: end it first, or give another folder")
    if len(os.fsencode(folder)) > LONGEST_FOLDER:
        raise RuntimeError(f"folder={folder} must have at most {LONGEST_FOLDER} bytes: use /tmp")
    if namespaces and (os.getuid() != 0 or shutil.which("ip") is None):
        raise RuntimeError("namespaces need root and the program ip: leave --namespaces out")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    (folder / TOKEN).touch(mode=0o600)
    (folder / TOKEN).write_text(secrets.token_hex(32))
    number = random.randrange(2, 250)
    network = f"{10 if namespaces else 127}.{number}.0."
    bridge = f"raylets{number}" if namespaces else ""
    made = Raylets(
        folder, secrets.token_hex(8), store_mb, network, f"{network}1:{_free_port()}",
        f"http://127.0.0.1:{_free_port()}", bridge,
    )  # fmt: skip
    try:
        made.note()
        if bridge:
            _ip(f"link add {bridge} type bridge")
            _ip(f"address add {network}1/24 dev {bridge}")
            _ip(f"link set {bridge} up")
        _wait(made, [_start(made, head_cpus)])
        _wait(made, [_start(made, cpus) for _ in range(workers)])
    except BaseException:
        ended(folder)
        raise
    lines = [f"export {name}={value}\n" for name, value in made.variables.items()]
    (folder / VARIABLES).write_text("".join(lines))
    return made


def found(folder: Path = FOLDER) -> Raylets:
    """The cluster that is written down in a folder.

    Raises:
        RuntimeError: none is.
    """
    try:
        told = json.loads((folder / STATE).read_text())
    except FileNotFoundError as error:
        raise RuntimeError(f"no cluster is up in {folder}") from error
    nodes = [Node(**node) for node in told.pop("nodes")]
    return Raylets(**told | {"folder": folder, "nodes": nodes})


def added(made: Raylets, cpus: float = 1.0) -> Node:
    """One more worker, once it is there.

    Raises:
        RuntimeError: it does not come up.
    """
    number = _start(made, cpus)
    _wait(made, [number])
    return made.nodes[number]


def killed(made: Raylets, number: int) -> None:
    """Kills all processes of a node (of `nodes`; 0 is the head) as if its machine had no power."""
    _kill(made, [number])


def ended(folder: Path = FOLDER) -> None:
    """Ends all that `started` has started, and removes the folder; SIGKILL, as Ray drains long.

    Raises:
        RuntimeError: no cluster is up there.
    """
    made = found(folder)
    _kill(made, list(range(len(made.nodes))))
    for node in made.nodes:
        if node.namespace:
            _ip(f"netns delete {node.namespace}", check=False)
    if made.bridge:
        _ip(f"link delete {made.bridge}", check=False)
    shutil.rmtree(folder, ignore_errors=True)


def _start(made: Raylets, cpus: float) -> int:
    """The number of a further node, which has begun to start."""
    number = len(made.nodes)
    node = Node(f"{made.network}{number + 1}", cpus)
    if made.bridge and number:
        node.namespace = f"{made.bridge}-{number}"
    made.nodes.append(node)
    made.note()
    if node.namespace:
        _ip(f"netns add {node.namespace}")
        _ip(f"link add {node.namespace} type veth peer name eth0 netns {node.namespace}")
        _ip(f"link set {node.namespace} master {made.bridge} up")
        _ip(f"-netns {node.namespace} address add {node.address}/24 dev eth0")
        for link in ("eth0", "lo"):
            _ip(f"-netns {node.namespace} link set {link} up")
    others = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    token = {n: value for n, value in made.variables.items() if n.startswith("RAY_AUTH_")}
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with (made.folder / f"{number}.log").open("wb") as log:
        process = subprocess.Popen(
            _command(made, number), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env=others | token | path | {MARK: f"{made.identity}/{number}"}, start_new_session=True,
        )  # fmt: skip
    node.pid = process.pid
    made.note()
    return number


def _command(made: Raylets, number: int) -> list[str]:
    node = made.nodes[number]
    options = {
        "num-cpus": f"{node.cpus:g}",
        "object-store-memory": made.store_mb * 10**6,
        "node-ip-address": node.address,
        "temp-dir": made.folder / str(number),
        "dashboard-agent-listen-port": _free_port(),
        "min-worker-port": 0,
        "max-worker-port": 0,
    }
    of_the_head = {
        "port": made.gcs_address.rpartition(":")[2],
        "dashboard-host": "127.0.0.1",
        "dashboard-port": made.dashboard_url.rpartition(":")[2],
        "ray-client-server-port": _free_port(),
    }
    options |= {"address": made.gcs_address} if number else of_the_head
    words = [f"--{name}={value}" for name, value in options.items()]
    words += [] if number else ["--head", "--disable-usage-stats"]
    inside = ["ip", "netns", "exec", node.namespace] if node.namespace else []
    return [*inside, str(Path(sys.executable).parent / "ray"), "start", "--block", *words]


def _alive(made: Raylets) -> set[str]:
    """The addresses of the nodes that the head says are alive; none if it doesn't answer."""
    request = urllib.request.Request(
        f"{made.dashboard_url}/nodes?view=summary",
        headers={"Authorization": f"Bearer {(made.folder / TOKEN).read_text()}"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=5) as answer:
            nodes = json.load(answer)["data"]["summary"]
    except (OSError, ValueError):
        return set()
    raylets = [node["raylet"] for node in nodes]
    return {each["nodeManagerAddress"] for each in raylets if each.get("state") == "ALIVE"}


def _wait(made: Raylets, numbers: list[int]) -> None:
    """Returns once these nodes live."""
    limit = time.monotonic() + READY_SECONDS
    while not {made.nodes[number].address for number in numbers} <= _alive(made):
        dead = [number for number in numbers if not processes(made, [number])]
        if dead or time.monotonic() > limit:
            words = (made.folder / f"{(dead or numbers)[0]}.log").read_text()[-2000:]
            raise RuntimeError(f"Ray does not come up; a node says:\n{words}")
        time.sleep(0.2)


def _kill(made: Raylets, numbers: list[int]) -> None:
    while pids := processes(made, numbers):  # until none has begun another one meanwhile
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def processes(made: Raylets, numbers: list[int]) -> list[int]:
    """What runs of these nodes: what has their mark in its environment, and all in their sessions.

    Drivers of jobs have sessions of their own, but the mark; parts of Ray's dashboard overwrite
    their environment with their title, but stay in the session.
    """
    marks = {f"{MARK}={made.identity}/{number}".encode() for number in numbers}
    sessions: dict[int, int] = {}
    marked: set[int] = set()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended, or another user's
            about = (path / "stat").read_text().rpartition(")")[2].split()
            if about[0] not in "ZX":  # ended, though nobody has asked how
                sessions[int(path.name)] = int(about[3])
                if marks & set((path / "environ").read_bytes().split(b"\0")):
                    marked.add(int(path.name))
    ours = {made.nodes[n].pid for n in numbers} & {sessions[pid] for pid in marked}
    return [pid for pid, session in sessions.items() if session in ours or pid in marked]


def _ip(words: str, check: bool = True) -> None:
    done = subprocess.run(["ip", *words.split()], capture_output=True, text=True)
    if check and done.returncode:
        raise RuntimeError(f"`ip {words}` failed: {done.stderr.strip()}; leave --namespaces out")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@app.command()
def up(
    workers: Annotated[int, typer.Option(min=0, help="Nodes beside the head.")] = 2,
    cpus: Annotated[float, typer.Option(min=0, help="CPUs of each of them.")] = 1.0,
    head_cpus: Annotated[float, typer.Option(min=0, help="CPUs of the head for work.")] = 0.0,
    store_mb: Annotated[int, typer.Option(min=75, help="Each node's object store.")] = 100,
    namespaces: Annotated[
        bool, typer.Option("--namespaces", help="A network of its own for each worker; as root.")
    ] = False,
    folder: Folder = FOLDER,
) -> None:
    """Starts a head and workers; they know the AWS variables that are set now."""
    made = started(workers, cpus, head_cpus, store_mb, namespaces, folder)
    typer.echo(
        f"a head and {workers} workers are up; dashboard: {made.dashboard_url}\n"
        f"`. {made.folder / VARIABLES}` lets `ray job submit` and pix2pix use them"
    )


@app.command()
def down(folder: Folder = FOLDER) -> None:
    """Ends what `up` has started, jobs included, and nothing else."""
    ended(folder)


@app.command()
def kill(
    number: Annotated[int, typer.Argument(help="Of the node: workers from 1; 0 is the head.")],
    folder: Folder = FOLDER,
) -> None:
    """Kills a node, as if its machine had lost its power."""
    killed(found(folder), number)


if __name__ == "__main__":
    try:
        app()
    except (RuntimeError, IndexError) as error:
        sys.exit(f"cluster: {error}")
