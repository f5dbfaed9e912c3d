"""Run one part in its own process, free-running or in lockstep."""

from __future__ import annotations

import gc
import logging
import os
import sys
import time
import traceback
from pathlib import Path

import msgspec
import zmq

from twinguide.bus.catalogue import tag_of
from twinguide.bus.client import BusClient
from twinguide.bus.packets import Outlet, Refusals, message_from_packet
from twinguide.clock import MS, SECOND
from twinguide.hookspecs import PartLike, Sensor
from twinguide.hosting.context import PartContext
from twinguide.hosting.mailbox import Mailbox
from twinguide.hosting.plan import ChildSpec, permissions_of, registry_of
from twinguide.hosting.printing import FORMAT, log_stream
from twinguide.hosting.process import die_with, name_process, yield_to_others
from twinguide.messages import DoneMark, Health, Message, StepMark
from twinguide.registry import Registry, resolve

HEALTH_NS = 50 * MS  # between two reports of progress
SUBSCRIBE_S = 10.0
READY = -1  # the round of the mark by which a host says that it can be stepped


class Host:
    """One part, its connection to the hub, and the messages that wait for its next step."""

    def __init__(self, spec: ChildSpec, registry: Registry) -> None:
        """Make the part, then ask the hub for its topics, so that nothing piles up while it is made."""
        self.spec = spec
        self.part = registry.part(spec.name)
        self._catalogue = registry.catalogue()
        permissions = permissions_of(spec.plan, registry)
        topics = {d.message: d.name for d in permissions.published_by(spec.name).values()}
        self._outlet = Outlet(spec.name, spec.boot, topics, self._catalogue)
        self._refusals = Refusals()
        context = PartContext(spec.plan, self.part, Path(spec.folder), spec.boot)
        self._instance: PartLike = resolve(self.part.make)(context)
        self._client = BusClient(Path(spec.sockets), {spec.name: spec.key}, lossless=spec.plan.virtual)
        refused = self._client.subscribe(spec.name, permissions.wanted_by(spec.name), SUBSCRIBE_S)
        for topic, reason in refused.items():
            logging.warning("topic %s refused: %s", topic, reason)
        self._wakes_on = tuple(self.part.wakes_on)
        self._mailbox = Mailbox()
        self._marks: list[StepMark] = []
        self._woken = False
        self._steps = 0
        self._late = 0
        self._step_ns_max = 0  # since the last report of progress
        self._health_ns = 0  # when that was made

    def run(self) -> None:
        """Step the part until the hub asks for the end."""
        gc.collect()
        gc.freeze()
        gc.disable()  # collected after each step instead, youngest generation first
        (self._run_lockstep if self.spec.plan.virtual else self._run_free)()

    def close(self) -> None:
        """Leave the bus; what was sent is flushed."""
        self._client.close()

    # ---- free-running ------------------------------------------------------------------------------------------------

    def _run_free(self) -> None:
        period_ns = round(SECOND / self.part.rate_hz) if self.part.rate_hz else 0
        due_ns = time.monotonic_ns()
        self._tell_health(due_ns)
        while not self._client.stop:
            now = time.monotonic_ns()
            if (period_ns and now >= due_ns) or self._woken:
                if period_ns and now >= due_ns:
                    missed = (now - due_ns) // period_ns
                    self._late += missed > 0
                    due_ns += (missed + 1) * period_ns
                self._step(now, None)
                gc.collect(0)
            self._tell_health(time.monotonic_ns())
            self._wait(due_ns if period_ns else now + SECOND)
            self._receive()

    def _wait(self, due_ns: int) -> None:
        """Sleep until a packet comes, a step is due, or a report of progress is; to the microsecond, never busy."""
        until_ns = min(due_ns, self._health_ns + HEALTH_NS)
        remaining_ns = until_ns - time.monotonic_ns()
        if remaining_ns <= 0 or self._client.socket.poll(remaining_ns // MS):
            return
        time.sleep(max(0, until_ns - time.monotonic_ns()) / SECOND)  # poll counts whole milliseconds

    def _tell_health(self, now: int) -> None:
        if now - self._health_ns >= HEALTH_NS:
            self._health_ns = now
            health = Health(
                part=self.part.name, steps=self._steps, late=self._late,
                step_us_max=self._step_ns_max // 1000, t_ns=now,
            )  # fmt: skip
            self._publish(health, now, 0)
            self._step_ns_max = 0

    # ---- lockstep ----------------------------------------------------------------------------------------------------

    def _run_lockstep(self) -> None:
        self._mark_done(0, READY, ())
        while not self._client.stop:
            self._client.socket.poll(zmq.POLLIN)
            self._receive()
            while self._marks:
                mark = self._marks.pop(0)
                self._mark_done(mark.t_ns, mark.round, self._step(mark.t_ns, mark.round))
                gc.collect(0)

    def _mark_done(self, t_ns: int, round_: int, published: tuple[str, ...]) -> None:
        mark = DoneMark(part=self.part.name, round=round_, published=published, t_ns=t_ns)
        self._publish(mark, t_ns, max(round_, 0))

    # ---- both --------------------------------------------------------------------------------------------------------

    def _receive(self) -> None:
        while (packet := self._client.receive()) is not None:
            message = message_from_packet(packet, self._catalogue)
            if isinstance(message, str):
                self._refuse(packet.header.source, packet.topic, message, packet.header.t_pub_ns)
            elif isinstance(message, StepMark):
                self._marks.append(message)
            else:
                self._mailbox.put(packet.header, message)
                self._woken = self._woken or isinstance(message, self._wakes_on)

    def _step(self, t_ns: int, round_: int | None) -> tuple[str, ...]:
        """Step the part with what came before `round_` and publish its answer; return the published tags."""
        inbox = self._mailbox.inbox(round_)
        self._woken = False
        begun = time.perf_counter_ns()
        messages = list(self._instance.step(t_ns, inbox))
        self._step_ns_max = max(self._step_ns_max, time.perf_counter_ns() - begun)
        self._steps += 1
        pub_ns = time.monotonic_ns() if round_ is None else t_ns
        tags = [tag_of(type(m)) for m in messages if self._publish(m, pub_ns, round_ or 0)]
        return tuple(dict.fromkeys(tags))

    def _publish(self, message: Message, t_ns: int, round_: int) -> bool:
        packet = self._outlet.pack(message, t_ns, round_)
        if isinstance(packet, str):
            self._refuse(self.part.name, type(message).__name__, packet, t_ns)
            return False
        self._client.send(packet)
        return True

    def _refuse(self, sender: str, topic: str, reason: str, t_ns: int) -> None:
        refusal = self._refusals.add(sender, topic, reason, t_ns)
        if refusal is not None:
            logging.warning("%s: %s refused (%d times): %s", sender, topic, refusal.count, reason)
            packet = self._outlet.pack(refusal, t_ns)
            if not isinstance(packet, str):
                self._client.send(packet)


def run_child(registry: Registry | None = None) -> None:
    """Read the spec on standard input, and run the part that it names until the hub ends it.

    A registry that is loaded already saves loading it; a part's error ends the process, its last line the reason.
    """
    with os.fdopen(0, "rb", closefd=False) as stdin:  # not sys.stdin: a forked process inherits a spent one
        spec = msgspec.json.decode(stdin.read(), type=ChildSpec)
    name_process(f"tg-{spec.name}")
    os.setsid()  # whatever the part starts ends with it
    sys.stdout = sys.stderr = log_stream(2)
    logging.basicConfig(level=logging.INFO, format=FORMAT, stream=sys.stderr)
    if spec.name == "recorder":
        from twinguide.hosting.recorder import run_recorder

        if not spec.plan.virtual:
            yield_to_others(Sensor.nice)
        run_recorder(spec, registry or registry_of(spec.plan))
        return
    die_with(spec.hub_pid)
    registry = registry or registry_of(spec.plan)
    if not spec.plan.virtual:  # in lockstep all wait for each part: none yields to another program
        yield_to_others(max(0, registry.part(spec.name).nice))
    try:
        host = Host(spec, registry)
        try:
            host.run()
        finally:
            host.close()
    except Exception as error:
        traceback.print_exc()
        raise SystemExit("; ".join(f"{type(error).__name__}: {error}".splitlines())) from error
