"""The loop's side of a run: its parts, inside and in processes, behind one small interface.

    with Session(plan, registry) as session:
        take(session.listen(until_ns))  # what comes while the frame waits
        session.advance(t_ns)  # step what is due
        take(session.stepped())
        session.publish(message)

A run whose parts are all inside and that records nothing has no hub: the same interface, the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from msgspec.structs import replace
from numpy.typing import NDArray

from twinguide.bus.catalogue import Header
from twinguide.bus.packets import Packet
from twinguide.bus.ring import RingReader
from twinguide.bus.topics import LOOP, RECORDER, steps
from twinguide.clock import MS, SECOND, ClockReal, ClockVirtual
from twinguide.hosting.context import PartContext
from twinguide.hosting.host import HEALTH_NS
from twinguide.hosting.inside import InsidePart
from twinguide.hosting.mailbox import Mailbox
from twinguide.hosting.plan import RunPlan, permissions_of, rings_folder
from twinguide.hosting.remote import Remote
from twinguide.hosting.router import Router
from twinguide.hosting.runtime import RuntimeFolder, make_runtime_folder
from twinguide.hosting.schedule import Member, Schedule
from twinguide.messages import BulkRef, DoneMark, Health, Message, PartState, Refusal
from twinguide.registry import Registry, resolve

RECORDER_SYNC_NS = SECOND // 2  # lockstep: the recorder catches up, and copies bulk, this often
ALL_ROUNDS = 2**62
LISTEN_NS = 2 * MS


class Session:
    """One run, from `start` to `close`."""

    def __init__(self, plan: RunPlan, registry: Registry, runtime_base: Path | None = None) -> None:
        """Check the plan; raise PluginError or TopicRefused where it cannot be run. Nothing is started yet."""
        self.plan = plan
        self._registry = registry
        self._permissions = permissions_of(plan, registry)
        self._clock = ClockVirtual() if plan.virtual else ClockReal()
        parts = self._permissions.parts
        self._inside = {
            name: InsidePart(part)
            for name, part in parts.items()
            if steps(part) and name not in self._permissions.remote
        }
        self._mailbox = Mailbox()
        mailboxes = {LOOP: self._mailbox} | {name: inside.mailbox for name, inside in self._inside.items()}
        self._router = Router(self._permissions, registry.catalogue(), mailboxes, self._send, self._watch)
        stepped = [*self._inside, *(n for n in self._permissions.remote if plan.virtual and n != RECORDER)]
        members = [Member(n, parts[n].order, parts[n].rate_hz, alive=n in self._inside) for n in stepped]
        self._schedule = Schedule(members, self._permissions.woken_by(stepped))
        self._runtime: RuntimeFolder = make_runtime_folder(runtime_base)
        self.folder = self._runtime.path  # sockets and rings
        self._bulk = RingReader(rings_folder(self.folder))
        self.part_states: dict[str, PartState] = {}
        self._remote = Remote(
            plan, self.folder, self._permissions.remote, self._router, self._schedule, self._receive, self.part_states
        )  # fmt: skip
        self._synced_ns = 0
        self._health_ns = 0
        self._advances = 0
        self._closed = False
        self.health: dict[str, Health] = {}  # newest of each part in a process; real time only
        self.refusals: list[Refusal] = []  # what was refused so far: the 1st, 2nd, 4th ... of each kind
        self._reported: set[tuple[str, str]] = set()  # by `news`: (part, reason)
        self._down: set[str] = set()  # parts of which `news` told a failure, and not yet that they run again

    def __enter__(self) -> Session:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ---- what the loop calls -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the hub and all parts, and wait until each can be stepped or has been given up.

        Raises BusError where the hub does not start. A part that fails does not raise: see `part_states`.
        """
        try:
            if self._permissions.remote:
                self._remote.begin()  # it imports while the parts inside are made
            for name, inside in self._inside.items():
                inside.make(lambda n=name, p=inside.part: resolve(p.make)(self.context(n)))
            if self._permissions.remote:
                self._remote.bring_up(self.now_ns())
            for name in self._inside:
                self._schedule.revive(name, self.now_ns() - 1)
                self._say_inside(name)
            self._router.say_denied(self.now_ns())
            if self._permissions.remote:
                self._remote.wait_ready()
        except BaseException:
            self.close()
            raise

    def publish(self, message: Message) -> None:
        """Publish a message of the loop; what is not in LOOP_TOPICS, or not finite, is withheld and counted."""
        round_ = self._schedule.round if self.plan.virtual else 0
        tag = self._router.emit(LOOP, message, self.now_ns(), round_)
        if tag:
            self._schedule.wake(LOOP, tag)

    def advance(self, t_ns: int) -> None:
        """Virtual time: make all steps up to `t_ns` [ns]. Real time: step parts inside that are due, with what came."""
        self._advances += 1
        self._remote.look_after(self.now_ns())
        if isinstance(self._clock, ClockVirtual):
            self._schedule.advance(t_ns, self._step)
            self._clock.advance_to(t_ns)
            if t_ns - self._synced_ns >= RECORDER_SYNC_NS:
                self._synced_ns = t_ns
                self._remote.sync_recorder(t_ns)
            return
        if self._inside:
            self._receive()
            self._schedule.run_at(t_ns, self._step)
        if t_ns - self._health_ns >= HEALTH_NS:  # by it the hub sees a stalled loop
            self._health_ns = t_ns
            self._router.emit(LOOP, Health(part=LOOP, steps=self._advances, t_ns=t_ns), t_ns, 0)

    def listen(self, until_ns: int, bell: int = -1) -> Iterator[tuple[Header, Message]]:
        """Yield what comes for the loop until `until_ns` [ns], or until `bell`, a descriptor, can be read.

        All but the last LISTEN_NS are slept through, which costs less. In virtual time nothing comes by waiting.
        """
        if self.plan.virtual:
            return
        self._remote.doze(until_ns - LISTEN_NS - self.now_ns(), bell)
        yield from self.drain()
        while self._remote.wait(until_ns - self.now_ns(), bell):
            yield from self.drain()

    def stepped(self) -> list[tuple[Header, Message]]:
        """Return what `advance` brought for the loop; what comes from processes in real time is left to `listen`."""
        return self.drain() if self.plan.virtual else self._mailbox.take(None)

    def drain(self) -> list[tuple[Header, Message]]:
        """Return what came for the loop since the last call; in virtual time by (round, source, seq)."""
        self._receive()
        return self._mailbox.take(ALL_ROUNDS if self.plan.virtual else None)

    def withdraw(self, name: str, reason: str) -> None:
        """Publish that a part called by the loop (guidance, overlay) is disabled for the rest of the run."""
        self._say_state(name, "quarantined", reason)

    def news(self) -> list[str]:
        """Return a line on each failure, end, new start or refused message of parts since the last call.

        Each reason is told once; where it was told of a failure, so is, without it, that the part runs again.
        """
        befell: dict[str, list[str]] = {}
        for state in self.part_states.values():
            running = state.state == "running"
            if running and state.part in self._down:
                self._down.discard(state.part)
                befell.setdefault("runs again", []).append(state.part)
            elif self._is_new(state.part, state.reason):
                befell.setdefault(f"{'runs again' if running else state.state}: {state.reason}", []).append(state.part)
                if state.failed:
                    self._down.add(state.part)
        for refusal in self.refusals:
            if self._is_new(refusal.part, refusal.reason):
                befell.setdefault(f"{refusal.topic} refused: {refusal.reason}", []).append(refusal.part)
        return [f"{_named(names)}: {told}" for told, names in befell.items()]

    def _is_new(self, part: str, reason: str) -> bool:
        new = bool(reason) and (part, reason) not in self._reported
        self._reported.add((part, reason))
        return new

    @property
    def failed(self) -> list[str]:
        """The parts that do not work now, also those that are being started again."""
        return sorted(s.part for s in self.part_states.values() if s.failed and s.part != LOOP)

    @property
    def refused(self) -> dict[str, int]:
        """How often each part was refused something, a message of its own or a topic, as far as it was told."""
        counts: dict[tuple[str, str], int] = {}
        for r in self.refusals:  # of hub, loop and each reader, which count for themselves
            counts[r.part, r.topic] = max(r.count, counts.get((r.part, r.topic), 0))
        return {part: sum(n for (of, _), n in counts.items() if of == part) for part, _ in sorted(counts)}

    def bulk(self, ref: BulkRef) -> NDArray[Any] | None:
        """Return a copy of a shared array, or None where it has been overwritten."""
        return self._bulk.read(ref)

    def now_ns(self) -> int:
        """Return the run's time [ns]."""
        return self._clock.now_ns()

    def context(self, name: str) -> PartContext:
        """Return the `Context` of a part that runs in this process: guidance, overlays, a world's head."""
        return PartContext(self.plan, self._registry.part(name), self.folder)

    @property
    def hub_pid(self) -> int:
        """The hub's process; 0 where the run has none."""
        return self._remote.hub_pid

    def stats(self) -> dict[str, Any]:
        """Return the hub's counts, parts and topics; raise BusError where it does not answer."""
        return self._remote.stats()

    def close(self) -> None:
        """End all parts, wait until the recorder has written everything, remove the runtime folder."""
        if self._closed:
            return
        self._closed = True
        for inside in self._inside.values():
            inside.close()
        try:
            self._remote.close()
        finally:
            self._runtime.remove()

    # ---- within ------------------------------------------------------------------------------------------------------

    def _send(self, packet: Packet) -> None:
        self._remote.send(packet)

    def _receive(self) -> None:
        while (packet := self._remote.receive()) is not None:
            self._router.deliver(packet)
            if not self.plan.virtual:  # in lockstep the marks of the finished steps tell it
                self._schedule.wake(packet.header.source, packet.header.tag)

    def _watch(self, header: Header, message: Message) -> bool:
        """Take what is about the run itself, which the loop need not see; return whether it was that."""
        match message:
            case DoneMark():
                self._remote.done(message, self.now_ns())
            case PartState():
                before = self.part_states.get(message.part)
                if before and message.placement == "process" and message.state in ("starting", "running"):
                    reason = message.reason or before.reason  # a new hub does not know how the old one ended
                    message = replace(message, reason=reason)
                self.part_states[message.part] = message
                self._remote.state_changed(message)
            case Health():
                self.health[message.part] = message
            case Refusal():
                self.refusals.append(message)
            case _:
                return False
        return True

    def _step(self, batch: list[Member], t_ns: int, round_: int) -> list[tuple[str, str]]:
        if isinstance(self._clock, ClockVirtual):
            self._clock.advance_to(t_ns)
        remote = {member.name for member in batch if member.name not in self._inside}
        self._remote.ask_steps(remote, t_ns, round_)
        published: list[tuple[str, str]] = []
        for member in batch:
            if member.name in self._inside:
                published += self._step_inside(member, t_ns, round_)
        return published + self._remote.await_done(remote, round_)

    def _step_inside(self, member: Member, t_ns: int, round_: int) -> list[tuple[str, str]]:
        name = member.name
        inside = self._inside[name]
        virtual = self.plan.virtual
        messages = inside.step(t_ns, round_ if virtual else None)
        if inside.fault:
            member.alive = False
            self._say_inside(name)
        tags = [self._router.emit(name, message, self.now_ns(), round_ if virtual else 0) for message in messages]
        return [(name, tag) for tag in tags if tag]

    def _say_inside(self, name: str) -> None:
        fault = self._inside[name].fault
        self._say_state(name, "dead" if fault else "running", fault)

    def _say_state(self, name: str, state: Literal["running", "dead", "quarantined"], reason: str) -> None:
        change = PartState(part=name, state=state, placement="inside", reason=reason, t_ns=self.now_ns())
        self.part_states[name] = change
        self._router.emit(LOOP, change, self.now_ns(), 0, f"v1/state/{name}/part")


def _named(parts: list[str]) -> str:
    return f"part{'s' if len(parts) > 1 else ''} {', '.join(parts)}"
