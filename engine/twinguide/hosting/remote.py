"""The parts in processes, as the loop's process sees them: lockstep's marks, and restarts of the hub."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from twinguide.bus.packets import Packet
from twinguide.bus.topics import LOOP, RECORDER
from twinguide.clock import SECOND
from twinguide.errors import BusError
from twinguide.hosting.host import READY
from twinguide.hosting.link import HUB_START_S, HubLink
from twinguide.hosting.plan import STARVED, Control, RunPlan
from twinguide.hosting.router import Router
from twinguide.hosting.schedule import Member, Schedule
from twinguide.messages import DoneMark, PartState, StepMark

log = logging.getLogger("twinguide.hosting")

RECORDER_DEADLINE_S = 30.0
HUB_RESTARTS = 3  # it stays down after more of them
HUB_RESTARTS_S = 10.0  # in this time
SETTLED_S = 0.5  # dead for so long: it will not be started again


class Remote:
    """All parts in processes, by way of one hub at a time; nothing here raises once the run has begun.

    `receive` takes in what has come; `states` holds what is known of each part, and learns what the hub cannot tell.
    """

    def __init__(
        self,
        plan: RunPlan,
        folder: Path,
        names: list[str],
        router: Router,
        schedule: Schedule,
        receive: Callable[[], None],
        states: dict[str, PartState],
    ) -> None:
        self._plan, self._folder, self._names = plan, folder, list(names)
        self._router, self._schedule = router, schedule
        self._receive, self._states = receive, states
        self._recorder = Member(RECORDER, 0, 0.0, alive=False)
        self._link: HubLink | None = None
        self._connected = False
        self._generation = 0  # of the hub
        self._deaths: deque[float] = deque()
        self._done: dict[str, DoneMark] = {}
        self._changed_s: dict[str, float] = {}

    @property
    def hub_pid(self) -> int:
        """The hub's process; 0 where there is none."""
        return self._link.pid if self._link else 0

    # ---- the hub -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the hub's process; `bring_up` waits for it."""
        self._generation += 1
        self._connected = False
        self._link = HubLink(self._plan, self._folder, self._generation)

    def bring_up(self, t_ns: int) -> None:
        """Wait for the hub, connect, and have it launch the parts; raise BusError where it does not start."""
        if self._link is None or not self._link.up(HUB_START_S):
            raise BusError(f"a hub that is up after {HUB_START_S} s", "silence")
        self._connect(t_ns)

    def _connect(self, t_ns: int) -> None:
        assert self._link is not None
        for (name, topic), reason in self._link.connect(self._router.asks()).items():
            self._router.refuse(name, topic, reason, t_ns)
        self._connected = True
        for packet in self._router.states():
            self._link.send(packet)
        self._link.control(Control("", "launch"))

    def wait_ready(self, names: Iterable[str] | None = None) -> None:
        """Wait until each part, or each named one, can be stepped, or was given up, or its time to begin is over.

        In virtual time that is all that a busy machine may take: a part that joined later would change what comes out.
        """
        names = self._names if names is None else names
        until = time.monotonic() + self._plan.start_deadline_s * (STARVED if self._plan.virtual else 1) + 1.0
        while time.monotonic() < until and self._link is not None and not self._link.dead():
            self._receive()
            if all(self._settled(name, self._states.get(name)) for name in names):
                return
            self._link.wait(0.1)

    def _settled(self, name: str, state: PartState | None) -> bool:
        if state is None:
            return False
        if state.state == "dead":
            return time.monotonic() - self._changed_s[name] > SETTLED_S
        if state.state == "running":
            return not self._plan.virtual or self._member(name).alive
        return state.state in ("quarantined", "stopped")

    def look_after(self, t_ns: int) -> None:
        """Restart the hub and all parts where it has died; in real time without waiting for them."""
        if self._link is None:
            return
        try:
            if self._link.dead():
                if self._restart_hub(t_ns) and self._plan.virtual:
                    self.bring_up(t_ns)
                    self.wait_ready()  # virtual time can wait, and no step is left out
            elif not self._connected and self._link.up(0):
                self._connect(t_ns)
            elif self._plan.virtual and self._plan.record and not self._recorder.alive:
                self.wait_ready((RECORDER,))  # what was published meanwhile would never be kept
        except BusError as error:
            self._give_up(str(error))

    def _restart_hub(self, t_ns: int) -> bool:
        """Say what died with the hub and start it again; False where it died too often."""
        assert self._link is not None
        self._link.close()
        again = f", time {self._generation}" if self._generation > 1 else ""
        reason = f"the hub has died{again}: {self._link.exit_reason()}"
        log.error("%s", reason)
        now = time.monotonic()
        self._deaths.append(now)
        while now - self._deaths[0] > HUB_RESTARTS_S:
            self._deaths.popleft()
        if len(self._deaths) > HUB_RESTARTS:
            self._give_up(f"the hub died {len(self._deaths)} times in {HUB_RESTARTS_S:g} s")
            return False
        for name in self._names:
            state = PartState(part=name, state="restarting", placement="process", reason=reason, t_ns=t_ns)
            self._states[name] = state
            self.state_changed(state)
        self.begin()
        return True

    def _give_up(self, reason: str) -> None:
        log.error("the run goes on without its processes: %s", reason)
        if self._link is not None:
            self._link.close()
        self._link = None
        self._connected = False
        for name in self._names:
            self._states[name] = PartState(part=name, state="quarantined", placement="process", reason=reason)
            self._member(name).alive = False

    def stats(self) -> dict[str, Any]:
        """Return the hub's counts, parts and topics; raise BusError where it does not answer."""
        if self._link is None:
            return {}
        return self._link.control(Control("", "stats")).stats

    def close(self) -> None:
        """End the hub and all it runs, the recorder last."""
        if self._link is not None:
            self._link.stop()
            self._link = None

    # ---- packets -----------------------------------------------------------------------------------------------------

    def send(self, packet: Packet) -> None:
        """Send a packet, where there is a hub to take it."""
        if self._link is not None and self._connected:
            self._link.send(packet)

    def receive(self) -> Packet | None:
        """Return the next packet from the hub, or None."""
        return self._link.client.receive() if self._link is not None and self._connected else None

    def wait(self, ns: int, bell: int) -> bool:
        """Wait for a packet for at most `ns` [ns], or until `bell` can be read; False where none came, or none can."""
        return ns > 0 and self._link is not None and self._connected and self._link.wait(ns / SECOND, bell)

    def doze(self, ns: int, bell: int) -> None:
        """Wait for at most `ns` [ns], or until `bell` can be read, whatever comes."""
        if self._link is not None and self._connected:
            self._link.doze(ns / SECOND, bell)

    # ---- lockstep ----------------------------------------------------------------------------------------------------

    def _member(self, name: str) -> Member:
        """Return a part as lockstep sees it; in real time processes are not stepped from here."""
        return self._recorder if name == RECORDER else self._schedule.members.get(name, Member(name, 0, 0.0))

    def state_changed(self, state: PartState) -> None:
        """Note what the supervisor says of a part: one that is gone is not waited for."""
        if state.part in self._names:
            self._changed_s[state.part] = time.monotonic()
            if state.failed or state.state == "stopped":
                self._member(state.part).alive = False

    def done(self, mark: DoneMark, t_ns: int) -> None:
        """Take a part's mark: its step is over, or it says that it can be stepped."""
        if mark.round != READY:
            self._done[mark.part] = mark
        elif mark.part == RECORDER:
            self._recorder.alive = True
        elif mark.part in self._schedule.members:
            self._schedule.revive(mark.part, t_ns if self._schedule.round else t_ns - 1)

    def ask_steps(self, names: set[str], t_ns: int, round_: int) -> None:
        """Let parts step: a mark to each, behind all that was published before."""
        for name in sorted(names):
            mark = StepMark(part=name, round=round_, t_ns=t_ns)
            self._router.emit(LOOP, mark, t_ns, round_, f"sync/{LOOP}/{name}")

    def await_done(self, names: set[str], round_: int, deadline_s: float = 0.0) -> list[tuple[str, str]]:
        """Wait for the marks of all these steps; return what they published as (source, tag).

        A part that died is not waited for; one that is late is ended, and joins again once it is restarted.
        """
        deadline_s = deadline_s or self._plan.step_deadline_s
        waiting = set(names)
        published: list[tuple[str, str]] = []
        until = time.monotonic() + deadline_s
        while waiting and self._link is not None and self._connected:
            self._receive()
            for name in sorted(waiting):
                mark = self._done.get(name)
                if mark is not None and mark.round == round_:
                    published += [(name, tag) for tag in mark.published]
                    waiting.discard(name)
                elif not self._member(name).alive:
                    waiting.discard(name)
            remaining_s = until - time.monotonic()
            if not waiting or self._link.dead():
                break
            if remaining_s <= 0:
                self._restart_late(waiting, deadline_s)
                break
            self._link.wait(remaining_s)
        return published

    def _restart_late(self, names: set[str], deadline_s: float) -> None:
        assert self._link is not None
        for name in sorted(names):
            self._member(name).alive = False
            log.error("part %s: no end of its step after %g s", name, deadline_s)
            try:
                self._link.control(Control("", "restart", name, f"no end of its step after {deadline_s:g} s"))
            except BusError as error:
                log.error("the hub: %s", error)

    def sync_recorder(self, t_ns: int) -> None:
        """Wait until the recorder has written what was published so far, so that it never falls far behind."""
        if self._recorder.alive:
            round_ = self._schedule.round
            self.ask_steps({RECORDER}, t_ns, round_)
            self.await_done({RECORDER}, round_, RECORDER_DEADLINE_S)
