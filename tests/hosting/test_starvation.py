"""A part that gets no core of a busy machine is late, not hung: to end it would only cost it more."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from twinguide.clock import MS, SECOND
from twinguide.hub.supervisor import Child, Supervisor

SPIN = "import os; os.sched_setaffinity(0, {CORE}); print(flush=True)\nwhile True: pass"


@pytest.fixture
def spinning():
    """Start a process that takes all it can get of one core, as an ordinary or as an idle one."""
    started = []
    core = min(os.sched_getaffinity(0))

    def start(*, idle=False):
        process = subprocess.Popen([sys.executable, "-c", SPIN.replace("CORE", str(core))], stdout=subprocess.PIPE)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()  # it is bound to its core
        if idle:
            os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))
        return process.pid

    yield start
    for process in started:
        process.kill()
        process.communicate()


def watched(tmp_path, pid, seconds, state="running"):
    """Return what a supervisor makes of a process that says nothing for some time; to begin it has 0.6 s."""
    begun = time.monotonic_ns()
    child = Child("part", 200 * MS, 1, tmp_path / "log", state=state, pid=pid, pidfd=os.pidfd_open(pid), begun_ns=begun)
    told = []
    supervisor = Supervisor({"part": child}, lambda _: None, lambda *_: None, told.append, lambda _: begun, 600 * MS)
    while time.monotonic_ns() < begun + seconds * SECOND and child.state == state:
        supervisor.check(virtual=False)
        time.sleep(0.02)
    os.close(child.pidfd)
    return child.state


def test_a_part_that_waits_for_a_core_is_left_to_wait(tmp_path, spinning):
    spinning()
    starved = spinning(idle=True)
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this kernel keeps no scheduler statistics")
    assert watched(tmp_path, starved, 1.0) == "running"


def test_a_part_that_stands_still_is_a_hang(tmp_path, spinning):
    stopped = spinning()
    os.kill(stopped, signal.SIGSTOP)
    assert watched(tmp_path, stopped, 1.5) == "hung"


def test_a_part_that_begins_on_a_busy_machine_has_its_time_there(tmp_path, spinning):
    part, *_ = [spinning() for _ in range(4)]  # it has a quarter of its core: 0.25 s of its own in one
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this kernel keeps no scheduler statistics")
    assert watched(tmp_path, part, 1.0, "starting") == "starting"


def test_a_part_that_stands_still_at_its_beginning_is_a_hang(tmp_path, spinning):
    stopped = spinning()
    os.kill(stopped, signal.SIGSTOP)
    assert watched(tmp_path, stopped, 1.5, "starting") == "hung"
