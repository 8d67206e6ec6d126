"""Claims about pix2pix.lease."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pix2pix import faults, lease, storage
from tests.conftest import FaultyProxy, S3Server
from tests.leases import abandoned

HOLDER = """if True:
    import signal, sys, time
    from pix2pix import lease
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    with lease.held(sys.argv[1], stale_seconds=float(sys.argv[2])):
        print("held", flush=True)
        time.sleep(60)"""


@pytest.fixture(params=["local", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return f"{request.getfixturevalue('s3').bucket_url()}/output"
    return str(tmp_path / "output")


def files(output: str) -> list[str]:
    try:
        return sorted(entry.relative_path for entry in storage.files(f"{output}/lease"))
    except FileNotFoundError:
        return []


def holder(output: str, stale_seconds: float) -> subprocess.Popen:
    command = [sys.executable, "-c", HOLDER, output, str(stale_seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen, number: int) -> None:
    process.send_signal(number)
    process.wait()
    process.stdout.close()


def test_a_second_job_is_told_who_holds_the_output_and_the_end_frees_it(output: str) -> None:
    with lease.held(output) as held:
        held.check()
        with (
            pytest.raises(RuntimeError, match=rf"process {os.getpid()} on .* since .* UTC"),
            lease.held(output),
        ):
            pass
        held.check()
        assert files(output) == ["000001.json"]
    assert files(output) == []
    with lease.held(output) as held:
        held.check()


@pytest.mark.parametrize("stale", [False, True])
def test_of_sixteen_one_wins(output: str, stale: bool) -> None:
    if stale:
        abandoned(output)
    elif output.startswith("s3:"):
        pytest.skip("SeaweedFS takes 5 s to settle a race; one will do")
    start, told, done = threading.Barrier(16), list[str](), threading.Event()

    def job(_: int) -> bool:
        start.wait()
        try:
            with lease.held(output, told.append) as held:
                done.wait(30)
                held.check()
        except RuntimeError:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        futures = [threads.submit(job, number) for number in range(16)]
        while sum(future.done() for future in futures) < 15:
            time.sleep(0.01)
        assert files(output) == ["000002.json" if stale else "000001.json"]
        done.set()
        assert sum(future.result() for future in futures) == 1
    line = "took over the lease of process 1 on elsewhere"
    assert [line] * stale == [each[: len(line)] for each in told]


def test_a_killed_holder_of_this_machine_is_taken_over_at_once(output: str) -> None:
    process = holder(output, 120)
    with pytest.raises(RuntimeError, match=f"process {process.pid} on"), lease.held(output):
        pass
    process.kill()  # and not waited for: a zombie holds nothing
    told: list[str] = []
    begun = time.monotonic()
    while True:
        try:
            with lease.held(output, told.append) as held:
                held.check()
            break
        except RuntimeError:
            assert time.monotonic() - begun < 5
    end(process, signal.SIGKILL)
    assert told == [line for line in told if "which is dead" in line]
    assert len(told) == 1


def test_an_interrupted_holder_leaves_nothing(tmp_path: Path) -> None:
    process = holder(str(tmp_path), 120)
    end(process, signal.SIGINT)
    assert process.returncode == -signal.SIGINT
    assert files(str(tmp_path)) == []


def test_another_process_with_the_same_number_is_not_the_holder(tmp_path: Path) -> None:
    output = str(tmp_path)
    with lease.held(output):
        about = json.loads(storage.read(f"{output}/lease/000001.json"))
        *others, start = about["process"].split()
        earlier = about | {"process": " ".join([*others, str(int(start) - 1)])}
        storage.write(f"{output}/lease/000001.json", json.dumps(earlier).encode())
        with lease.held(output, lambda line: None):
            assert files(output) == ["000002.json"]


@pytest.mark.parametrize("other", ["host", "boot", "namespace"])
def test_processes_elsewhere_are_not_taken_for_dead(tmp_path: Path, other: str) -> None:
    boot, namespace, *_ = lease._process(os.getpid()).split()
    process = {
        "host": f"{boot} {namespace} 999999999 1",
        "boot": f"another {namespace} 999999999 1",
        "namespace": f"{boot} pid:[1] 999999999 1",
    }[other]
    host = "elsewhere" if other == "host" else lease.platform.node()
    now = time.time()
    assert not lease.Holder(host, 999999999, process, now, now, 120).stale


def test_the_living_stay_the_holders_beyond_the_stale_seconds(output: str) -> None:
    with lease.held(output, stale_seconds=3) as held:
        time.sleep(4)
        held.check()
        with pytest.raises(RuntimeError, match="is being worked on"), lease.held(output):
            pass


def test_who_is_patient_takes_what_becomes_stale_and_respects_what_is_renewed(
    tmp_path: Path,
) -> None:
    output, told = str(tmp_path), list[str]()
    abandoned(output, seconds_ago=2, stale_seconds=3)
    with pytest.raises(RuntimeError, match="is being worked on"), lease.held(output):
        pass
    begun = time.monotonic()
    with lease.held(output, told.append, patient=True):
        assert 0.5 < time.monotonic() - begun < 3
    assert [line.split()[0] for line in told] == ["waiting", "took"]
    with (
        lease.held(output, stale_seconds=3),
        pytest.raises(RuntimeError, match="is being worked on"),
        lease.held(output, told.append, patient=True),
    ):
        pass


def test_who_lost_the_lease_learns_it_and_leaves_the_new_one_alone(output: str) -> None:
    held = lease._taken(storage.absolute(output), print, 2, patient=False)
    storage.write(f"{output}/lease/000002.json", storage.read(f"{output}/lease/000001.json"))
    limit = time.monotonic() + 5
    while held.lost is None and time.monotonic() < limit:
        time.sleep(0.02)
    with pytest.raises(RuntimeError, match=r"lost the lease of .*another job took it over"):
        held.check()
    held.end()
    assert "000002.json" in files(output)


def test_other_processes_of_a_job_see_who_came_after_it(output: str) -> None:
    with lease.held(output, stale_seconds=30) as held:
        lease.refuse_others(output, held.holder.nonce)
        with pytest.raises(RuntimeError, match=rf"taken over by process {os.getpid()} on"):
            lease.refuse_others(output, "of the one before")
        abandoned(output, number=2)
        with pytest.raises(RuntimeError, match="taken over by process 1 on elsewhere"):
            lease.refuse_others(output, held.holder.nonce)
        for number in (1, 2):
            storage.remove(f"{output}/lease/00000{number}.json")
        with pytest.raises(RuntimeError, match="was taken over: this job writes nothing more"):
            lease.refuse_others(output, held.holder.nonce)


def test_who_cannot_renew_gives_up_before_others_may_take_over(
    s3: S3Server, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "ATTEMPTS", 1)
    output = f"{s3.bucket_url()}/output"
    with lease.held(output, stale_seconds=4) as held:
        proxy.left = 0
        begun = time.monotonic()
        while lease._now() - held.renewed <= 2:
            held.check()
            time.sleep(0.02)
        with pytest.raises(RuntimeError, match="could not be renewed for 2 s"):
            held.check()
        assert time.monotonic() - begun < 3
        proxy.left = None
    assert files(output) == ["000001.json"]  # it may be another's by now


def test_a_suspended_holder_does_not_renew_what_it_lost(tmp_path: Path) -> None:
    output = str(tmp_path)
    process = holder(output, 0.9)
    process.send_signal(signal.SIGSTOP)
    time.sleep(1)
    with lease.held(output, lambda line: None):
        pass
    with lease.held(output):  # number 1 again, as the suspended process's was
        process.send_signal(signal.SIGCONT)
        time.sleep(0.5)
        (name,) = files(output)
        about = json.loads(storage.read(f"{output}/lease/{name}"))
        assert about["pid"] == os.getpid()
    end(process, signal.SIGKILL)


def test_a_file_that_is_no_lease_is_named(tmp_path: Path) -> None:
    storage.write(f"{tmp_path}/lease/000001.json", b"{}")
    with pytest.raises(RuntimeError, match=r"000001\.json is no lease"), lease.held(str(tmp_path)):
        pass
