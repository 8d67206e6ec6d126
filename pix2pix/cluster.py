"""The Ray cluster a job runs in: joined where there is one, embedded in this process where not."""

import contextlib
import logging
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

FOLDER = os.path.join(tempfile.gettempdir(), f"pix2pix-{os.getuid()}")  # Ray's own notes and logs
SECONDS_PER_LOOK = 2.0  # at the nodes
LINES_SHOWN = 30  # of what was muffled, if something breaks
QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",  # TensorFlow's native log lines: fatal ones alone
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's coming default; unset, it warns
    "PYTHONWARNINGS": "ignore",
}
# of an embedded cluster, whose one node nobody takes back, and whose load nobody is shown: looking
# after both takes two to three hundredths of a core
UNWATCHED = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "REPORTER_UPDATE_INTERVAL_MS": "60000"}


@contextlib.contextmanager
def joined(verbose: bool = False) -> Iterator[None]:
    """Joins the cluster that RAY_ADDRESS names, or starts one in this process, until the end.

    A job of `ray job submit` has RAY_ADDRESS set. An embedded cluster has no dashboard. Tells of
    every node that is lost meanwhile.

    Args:
        verbose: Shows what Ray, TensorFlow and the workers themselves have to say.
    """
    if verbose:
        with _cluster({}, logging.INFO):
            yield
        return
    with quiet(), _cluster(QUIET, logging.ERROR):
        quieten()
        yield


@contextlib.contextmanager
def quiet(verbose: bool = False) -> Iterator[None]:
    """Keeps TensorFlow's own lines from who reads what a command says; without Ray.

    Args:
        verbose: Lets them through.
    """
    if verbose:
        yield
        return
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})
    with _muffled():
        yield


@contextlib.contextmanager
def _cluster(variables: dict[str, str], level: int) -> Iterator[None]:
    import ray

    address = os.environ.get("RAY_ADDRESS")
    added: dict[str, str] = {}
    if is_embedded():
        # Ray Train asks the cluster that `ray start` noted last in Ray's temporary folder, also if
        # it is another one or long dead, and then waits 16 s in vain: so we have our own folder
        os.environ.setdefault("RAY_TMPDIR", FOLDER)
        os.makedirs(os.environ["RAY_TMPDIR"], exist_ok=True)
        added = {name: UNWATCHED[name] for name in UNWATCHED.keys() - os.environ.keys()}
    os.environ.update(added)
    ray.init(
        address=address or "local",
        include_dashboard=False if is_embedded() else None,
        log_to_driver=level == logging.INFO,
        logging_level=level,
        runtime_env={"env_vars": variables},
    )
    if is_embedded() and level != logging.INFO:
        _end_the_idle()
    try:
        with _losses_told():
            yield
    except SystemExit:  # Ray makes it of SIGTERM, which `ray job stop` sends
        printed("stopped; the same command again goes on from here")
        raise
    finally:
        ray.shutdown()
        for name in added:  # the next cluster may be another one
            os.environ.pop(name, None)


def _end_the_idle() -> None:
    """Ends those of the embedded cluster's processes that have nothing to do here.

    One reads the workers' lines, which nobody is shown, ten times a second; one looks whether nodes
    are to be added; one would serve pages. Together they take up to 7% of a core.
    """
    from ray._private import worker  # nothing public leaves them out

    worker._global_node.kill_log_monitor(check_alive=False)
    worker._global_node.kill_monitor(check_alive=False)
    worker._global_node.kill_dashboard(check_alive=False)


def is_embedded() -> bool:
    """Whether the cluster is this process's own, and ends with it."""
    return not os.environ.get("RAY_ADDRESS")


@contextlib.contextmanager
def _losses_told() -> Iterator[None]:
    """Says so when a node of the cluster is there no more."""
    ended = threading.Event()
    known = _nodes()

    def look() -> None:
        last = False
        while not last:
            last = ended.wait(SECONDS_PER_LOOK)
            now = _nodes()
            for node in known.keys() - now.keys():
                printed(
                    f"node {known.pop(node)} is gone, {len(now)} are left; what it had in work is "
                    "done again elsewhere"
                )
            known.update(now)

    thread = threading.Thread(target=look, name="nodes", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=5)


def _nodes() -> dict[str, str]:
    """The addresses of the nodes that live, by their ids."""
    import ray

    return {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}


@contextlib.contextmanager
def _muffled() -> Iterator[None]:
    """Keeps this process's standard error to itself; shows its end if something breaks.

    Native parts of TensorFlow and Ray write there what no setting of theirs turns off: six lines
    for an import, an "error" for every pool of actors.
    """
    os.makedirs(FOLDER, exist_ok=True)
    path = os.path.join(FOLDER, f"stderr-{os.getpid()}.log")  # stays if this process is aborted
    sys.stderr.flush()
    real, kept = os.dup(2), os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(kept, 2)
    broken = True
    try:
        yield
        broken = False
    except (ValueError, FileNotFoundError, PermissionError, SystemExit):  # they say why themselves
        broken = False
        raise
    finally:
        sys.stderr.flush()
        os.dup2(real, 2)
        os.close(real)
        os.close(kept)
        if broken:
            with open(path, errors="replace") as file:
                sys.stderr.writelines(file.readlines()[-LINES_SHOWN:])
        os.unlink(path)


def quieten() -> None:
    """Lets Ray's libraries speak in this process only of errors."""
    import ray.data

    for name in ("ray", "ray.data", "ray.train", "ray.tune"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Tells what a process of Ray's raised without the pages that Ray wraps around it.

    Raises:
        RuntimeError: a process failed; its last words.
    """
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        words = [line.strip() for line in str(error).splitlines() if "UserCode" not in line]
        told = [line for line in words if re.match(r"[A-Za-z.]*(Error|Exception)\b.*: .", line)]
        raise RuntimeError((told or [type(error).__name__])[-1]) from error


@contextlib.contextmanager
def listening(show: Callable[[str], None]) -> Iterator[Any]:
    """A queue into which workers anywhere put lines, which are shown here as they come.

    Args:
        show: Takes each line, in a thread of its own.

    Yields:
        A `ray.util.queue.Queue` to hand to the workers.
    """
    import ray
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    lines = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})

    def listen() -> None:
        while (line := lines.get()) is not None:
            show(line)

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield lines
    finally:
        lines.put(None)
        thread.join(timeout=30)
        lines.shutdown()


def printed(line: str) -> None:
    """Prints a line at once, also where the output is a file or a pipe."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
