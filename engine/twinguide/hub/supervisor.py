"""The supervisor, parent of all parts: ends those that hang, restarts those that end, gives up on crash loops."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from twinguide.bus.topics import LOOP, RECORDER
from twinguide.clock import SECOND
from twinguide.hosting.ending import FINAL_EXIT, Ending, ending_of, last_line
from twinguide.hosting.plan import STARVED
from twinguide.hosting.process import used_ns, waited_ns
from twinguide.messages import PartState

State = Literal["starting", "running", "dead", "hung", "restarting", "quarantined", "stopped"]
RESTARTS = 3  # a part is quarantined after more of them
RESTARTS_NS = 10 * SECOND  # in this time
HANGS = 3  # or after so many in a row, each after less than that time of work
SILENT_PERIODS = 3
RECORDER_SILENT_NS = 5 * SECOND  # a slow disk is not a hang
GRACE_NS = SECOND  # for a part to end after it was asked


@dataclass
class Child:
    """One part's process, over all its restarts."""

    name: str
    silent_ns: int  # real time: how long without a packet is a hang; 0: not watched
    boot: int
    log: Path
    state: State = "starting"
    pid: int = 0
    pidfd: int = -1
    begun_ns: int = 0  # when its newest process was asked for; 0: not yet
    log_start: int = 0
    restarts: int = 0
    recent: deque[int] = field(default_factory=deque[int])
    hangs: int = 0  # in a row: to find one takes longer than crashes may lie apart
    hang_reason: str = ""  # why the supervisor ended this process
    restart_reason: str = ""  # why the process before this one ended
    kill_at_ns: int = 0
    used_ns: int | None = None  # of a core, in all, when its silence was first noticed


class Supervisor:
    """Start, watch, restart and end children.

    `spawn(child)` asks for a process, whose pid comes by `started`; `watch(pidfd, name)` has the hub's loop wait for
    its end; `tell(state)` publishes; `seen(name)` is when the child's last packet came [ns, monotonic].
    """

    def __init__(
        self,
        children: Mapping[str, Child],
        spawn: Callable[[Child], None],
        watch: Callable[[int, str], None],
        tell: Callable[[PartState], None],
        seen: Callable[[str], int],
        start_deadline_ns: int,
    ) -> None:
        self.children = dict(children)
        self._spawn = spawn
        self._watch = watch
        self._tell = tell
        self._seen = seen
        self._start_deadline_ns = start_deadline_ns
        self._loop_state: State = "starting"
        self._waiting: list[Child] = []  # for the recorder
        self.stopping = False

    def launch(self) -> None:
        """Start every child: the recorder first, and the others once it listens, or cannot."""
        if RECORDER in self.children:
            self._begin(self.children[RECORDER], "starting")
        self._waiting = [child for child in self.children.values() if child.name != RECORDER]
        self._launch_waiting()

    def _launch_waiting(self) -> None:
        recorder = self.children.get(RECORDER)
        if recorder is None or recorder.state not in ("starting", "restarting"):
            for child in self._waiting:
                self._begin(child, "starting")
            self._waiting = []

    def _begin(self, child: Child, state: State, reason: str = "") -> None:
        child.begun_ns = time.monotonic_ns()
        child.hang_reason = ""
        child.restart_reason = reason
        child.log_start = child.log.stat().st_size if child.log.exists() else 0
        self._become(child, state, reason)
        self._spawn(child)

    def _become(self, child: Child, state: State, reason: str = "") -> None:
        child.state = state
        self._tell(
            PartState(
                part=child.name, state=state, placement="process", reason=reason, pid=child.pid, restarts=child.restarts
            )
        )

    def started(self, name: str, boot: int, pid: int) -> None:
        """Take the pid of a child's new process."""
        child = self.children[name]
        if boot == child.boot:
            child.pid = pid
            child.pidfd = os.pidfd_open(pid)
            self._watch(child.pidfd, name)
            if self.stopping:
                self.kill(child)

    def ended(self, name: str) -> int:
        """Reap a child whose pidfd tells its end; restart it, or give it up. Return the pidfd, closed."""
        child = self.children[name]
        self._end_group(child.pid)  # before it is reaped: until then its number is nobody else's
        ending = ending_of(child.pidfd)
        if ending is None:
            return -1  # not adopted yet: its pidfd stays readable
        pidfd = child.pidfd
        child.pidfd = -1
        os.close(pidfd)
        reason = child.hang_reason or self._reason(child, ending)
        if self.stopping:
            self._become(child, "stopped", reason if child.hang_reason or ending.code else child.restart_reason)
        else:
            self._become(child, "dead", reason)
            if ending.code != FINAL_EXIT:
                self._start_again(child, reason)
        return pidfd

    def _reason(self, child: Child, ending: Ending) -> str:
        line = last_line(child.log, child.log_start)
        return ending.signal or line or f"exit code {ending.code} without a word"

    def _start_again(self, child: Child, reason: str) -> None:
        now = time.monotonic_ns()
        while child.recent and now - child.recent[0] > RESTARTS_NS:
            child.recent.popleft()
        early = self._seen(child.name) - child.begun_ns < RESTARTS_NS
        child.hangs = (child.hangs + 1 if early else 1) if child.hang_reason else 0
        if child.hangs >= HANGS:
            self._become(child, "quarantined", f"hung {HANGS} times in a row: {reason}")
            return
        if len(child.recent) >= RESTARTS:
            self._become(child, "quarantined", f"ended {RESTARTS + 1} times in {RESTARTS_NS // SECOND} s: {reason}")
            return
        child.recent.append(now)
        child.restarts += 1
        child.boot += 1
        child.pid = 0
        child.used_ns = None
        self._begin(child, "restarting", reason)

    def restart(self, name: str, reason: str) -> bool:
        """End a child that the loop's process found too slow; its end restarts it."""
        child = self.children.get(name)
        if child is None or child.pidfd < 0 or child.state not in ("running", "starting", "restarting"):
            return False
        self._end_hung(child, reason)
        return True

    def _end_hung(self, child: Child, reason: str) -> None:
        child.hang_reason = reason
        self._become(child, "hung", reason)
        self.kill(child)

    def kill(self, child: Child) -> None:
        """End a child and all that it started."""
        if child.pidfd >= 0:
            self._end_group(child.pid)
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)

    def _end_group(self, pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has no group of its own yet, or nobody is left in it
            os.killpg(pid, signal.SIGKILL)

    def check(self, *, virtual: bool) -> None:
        """Look for children that have begun to work, that hang, or that take too long to end."""
        if not self.stopping:
            self._launch_waiting()
        now = time.monotonic_ns()
        for child in self.children.values():
            seen = self._seen(child.name)
            if child.state in ("starting", "restarting") and child.pidfd >= 0:
                if seen > child.begun_ns:
                    self._become(child, "running", child.restart_reason)
                elif now - child.begun_ns > self._start_deadline_ns and not child.hang_reason:
                    self._expect_ready(child, now - child.begun_ns)
            elif child.state == "running" and not virtual and not self.stopping:
                self._expect_progress(child, now - seen)
            if child.kill_at_ns and now > child.kill_at_ns:
                child.kill_at_ns = 0
                child.hang_reason = child.hang_reason or "killed: it did not end when asked"
                self.kill(child)

    def _expect_ready(self, child: Child, ns: int) -> None:
        """End a child that is not ready for too long [ns]; its time without a core of a busy machine does not count."""
        waited = waited_ns(child.pid)
        if max(ns - waited, ns // STARVED) > self._start_deadline_ns:
            without_core = f"{waited / SECOND:.0f} s of them without a core"
            self._end_hung(child, f"not ready after {ns / SECOND:.0f} s, {without_core}")

    def _expect_progress(self, child: Child, silence_ns: int) -> None:
        """End a child that is silent for too long [ns]; one that waits for a core is given its time there instead."""
        if silence_ns < child.silent_ns // 2:
            child.used_ns = None
            return
        used = used_ns(child.pid)
        if child.used_ns is None:
            child.used_ns = used
        if used is not None and child.used_ns is not None:
            since_ns = max(used - child.used_ns + child.silent_ns // 2, silence_ns // STARVED)
        else:
            since_ns = silence_ns
        if since_ns > child.silent_ns:
            self._end_hung(child, f"no progress for {silence_ns / SECOND:.2f} s")

    def check_loop(self, silent_ns: int) -> None:
        """Say when the loop itself stalls (real time), and when it goes on; it is never ended from here."""
        seen = self._seen(LOOP)
        if not seen or self.stopping:
            return
        silence = time.monotonic_ns() - seen
        state: State = "hung" if silence > silent_ns else "running"
        if state != self._loop_state:
            self._loop_state = state
            reason = f"no frame for {silence / SECOND:.2f} s" if state == "hung" else ""
            self._tell(PartState(part=LOOP, state=state, placement="inside", reason=reason))

    def ask_to_end(self, child: Child, tell_stop: Callable[[str], None], grace_ns: int = GRACE_NS) -> None:
        """Ask a child to end, and end it after its grace."""
        if child.pidfd >= 0 and not child.kill_at_ns and child.state != "stopped":
            tell_stop(child.name)
            child.kill_at_ns = time.monotonic_ns() + grace_ns

    def alive(self, *, recorder: bool) -> list[Child]:
        """Return the living children: the recorder, or all others."""
        return [c for c in self.children.values() if c.pidfd >= 0 and (c.name == RECORDER) == recorder]


def silence_allowed_ns(rate_hz: float, hung_after_s: float) -> int:
    """Return how long a free-running part may be silent [ns]: 3 of its periods, but not less than `hung_after_s`."""
    return round(max(SILENT_PERIODS / rate_hz if rate_hz else 0.0, hung_after_s) * SECOND)
