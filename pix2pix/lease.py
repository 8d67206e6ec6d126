"""One job per output or run: a lease in it that its holder renews, and that others respect.

The lease is a file ``OUTPUT/lease/000001.json``, created exclusively (`storage.create`). Who finds
one that has not been renewed for long, or whose process is dead, creates the next number: of many
who do, one wins. A holder that cannot renew for half of that time gives up by itself, so two
machines may disagree about the time by the other half and still never both hold it.
"""

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pix2pix import storage

FOLDER = "lease"
STALE_SECONDS = 120.0  # without renewal; clocks may differ by half of it
RENEWALS = 6  # in this time


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, as the file says.

    Attributes:
        host: Name of the machine.
        pid: Its process there.
        process: What tells this process from all others of the machine; None if it isn't Linux.
        since: Seconds since 1970, like the next.
        renewed: When it was renewed last.
        stale_seconds: How long it counts after that.
        nonce: Different for each lease.
    """

    host: str
    pid: int
    process: str | None
    since: float
    renewed: float
    stale_seconds: float
    nonce: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def stale(self) -> bool:
        """Whether nobody need respect it any more."""
        return time.time() > self.renewed + self.stale_seconds or self.dead

    @property
    def dead(self) -> bool:
        """Whether its process has ended, as far as this machine can know."""
        if self.process is None or self.host != platform.node():
            return False
        here = _process(os.getpid())
        if here is None or here.split()[:2] != self.process.split()[:2]:
            return False  # another boot, or another container: its processes can't be seen
        return _process(self.pid) != self.process

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.since, UTC)
        return f"process {self.pid} on {self.host}, since {since:%Y-%m-%d %H:%M:%S} UTC"


class Lease:
    """A lease that is held: a thread renews it until `end`."""

    def __init__(self, output_url: str, number: int, holder: Holder, renewed: float) -> None:
        self.output_url, self.number, self.holder = output_url, number, holder
        self.lost: str | None = None
        self.renewed = renewed
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self.thread.start()

    def check(self) -> None:
        """Returns only if the lease is still held; asks no store.

        Raises:
            RuntimeError: it is lost, so that nothing more may be written.
        """
        self._give_up_if_late()
        if self.lost is not None:
            raise RuntimeError(
                f"lost the lease of {self.output_url}: {self.lost}; this job stops, as another may "
                "be at work there: run it again when that has ended"
            )

    def end(self) -> None:
        """Stops renewing and, if it is still held, removes the lease."""
        self.ended.set()
        self.thread.join()
        self._give_up_if_late()
        if self.lost is None:
            with suppress(OSError):  # else it becomes stale
                storage.remove(_url(self.output_url, self.number))

    def _give_up_if_late(self) -> None:
        limit_seconds = self.holder.stale_seconds / 2
        if self.lost is None and _now() - self.renewed > limit_seconds:
            self.lost = f"it could not be renewed for {limit_seconds:g} s"

    def _keep(self) -> None:
        while not self.ended.wait(self.holder.stale_seconds / RENEWALS):
            begun = _now()
            self._give_up_if_late()
            if self.lost is not None:
                return  # what has our number now may be another job's
            with suppress(OSError):  # how long that may go on, `check` sees
                self._renew(begun)

    def _renew(self, begun: float) -> None:
        numbers = _numbers(self.output_url)
        if self.number not in numbers or max(numbers) > self.number:
            self.lost = "another job took it over"
            return
        now = Holder(**asdict(self.holder) | {"renewed": time.time()})
        storage.write(_url(self.output_url, self.number), _bytes(now))
        self._give_up_if_late()  # this may have taken long
        self.renewed = begun


@contextmanager
def held(
    output_url: str,
    show: Callable[[str], None] = print,
    *,
    stale_seconds: float = STALE_SECONDS,
    patient: bool = False,
) -> Iterator[Lease]:
    """Holds the lease of an output; call `Lease.check` before what only its holder may do.

    A lease that nobody renews any more is taken over, at once if its process ran on this machine
    and has ended.

    Args:
        output_url: the output.
        show: takes a line if a stale lease is taken over or waited for.
        stale_seconds: after how long without renewal this lease may be taken over.
        patient: waits for a lease to become stale as long as it isn't renewed meanwhile: for jobs
            that are started again on another machine.

    Raises:
        RuntimeError: another job holds it.
        OSError: the output can't be read or written.
    """
    lease = _taken(storage.absolute(output_url), show, stale_seconds, patient)
    try:
        yield lease
    finally:
        lease.end()


def refuse_others(output_url: str, nonce: str) -> None:
    """Returns only if a lease is still the latest one; for other processes of its holder's job.

    Unlike `Lease.check` it asks the store, and forgives a holder who was late if nobody else came.

    Raises:
        RuntimeError: another job holds the output now, or has held it meanwhile.
        OSError: the output can't be read.
    """
    found = list(_holders(output_url).values())
    if not found or found[-1].nonce != nonce:
        by = f" by {found[-1]}" if found else ""
        raise RuntimeError(
            f"{output_url} was taken over{by}: this job writes nothing more there; run it again "
            "when the other has ended"
        )


def _taken(
    output_url: str, show: Callable[[str], None], stale_seconds: float, patient: bool
) -> Lease:
    """The lease, when it is ours."""
    waited_for: Holder | None = None
    while True:
        others = _holders(output_url)
        living = [holder for holder in others.values() if not holder.stale]
        if living:
            if not patient or (waited_for and living != [waited_for]):
                raise RuntimeError(_refusal(output_url, living[-1]))
            if waited_for is None:
                waited_for = living[-1]
                show(f"waiting whether {waited_for} still works on {output_url}")
            time.sleep(living[-1].stale_seconds / RENEWALS / 2)
            continue
        number, now = max(others, default=0) + 1, time.time()
        process = _process(os.getpid())
        mine = Holder(platform.node(), os.getpid(), process, now, now, stale_seconds)
        begun = _now()
        if not storage.create(_url(output_url, number), _bytes(mine)):
            continue  # another one was faster: it will be among the living
        rivals = {n: each for n, each in _holders(output_url).items() if n != number}
        if any(not each.stale for each in rivals.values()):  # came between our look and our file
            storage.remove(_url(output_url, number))
            continue
        for old, each in rivals.items():
            show(f"took over the lease of {each}, which is {'dead' if each.dead else 'stale'}")
            storage.remove(_url(output_url, old))
        return Lease(output_url, number, mine, begun)


def _refusal(output_url: str, holder: Holder) -> str:
    stale = datetime.fromtimestamp(holder.renewed + holder.stale_seconds, UTC)
    return (
        f"{output_url} is being worked on by {holder}; wait until that job has ended, or choose "
        f"another folder (if it has died, its lease ends at {stale:%H:%M:%S} UTC)"
    )


def _holders(output_url: str) -> dict[int, Holder]:
    """The holders of all leases there, by number."""
    holders = {}
    for number in _numbers(output_url):
        url = _url(output_url, number)
        with suppress(FileNotFoundError):  # ended since
            try:
                holders[number] = Holder(**json.loads(storage.read(url)))
            except (ValueError, TypeError) as error:
                rule = "is no lease of this version; if no job is at work there, remove it"
                raise RuntimeError(f"{url} {rule}") from error
    return dict(sorted(holders.items()))


def _numbers(output_url: str) -> list[int]:
    try:
        names = [entry.relative_path for entry in storage.files(storage.join(output_url, FOLDER))]
    except FileNotFoundError:
        return []
    return [int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdecimal()]


def _url(output_url: str, number: int) -> str:
    return storage.join(output_url, FOLDER, f"{number:06d}.json")


def _bytes(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()


def _now() -> float:
    """Seconds that go on while a machine is suspended, which `time.monotonic` on Linux does not."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


def _process(pid: int) -> str | None:
    """Boot, PID namespace, number and start of a running process; None if there is none."""
    try:
        about = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return None
    if about[0] in "ZX":  # ended, though its parent hasn't asked how
        return None
    return f"{boot} {namespace} {pid} {about[19]}"
