"""The recorder's process: it is given everything, truth too, and writes it; nobody waits for its disk."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any, cast, get_args

import msgspec
import zmq

from twinguide.bus.catalogue import Header
from twinguide.bus.client import BusClient
from twinguide.bus.packets import Outlet, Packet, message_from_packet
from twinguide.bus.ring import RingReader
from twinguide.bus.topics import RECORDER, topic_name
from twinguide.errors import BusError
from twinguide.hosting.ending import FINAL_EXIT
from twinguide.hosting.host import HEALTH_NS, READY, SUBSCRIBE_S
from twinguide.hosting.plan import ChildSpec, permissions_of, rings_folder
from twinguide.hosting.process import die_with
from twinguide.messages import BulkRef, DoneMark, Health, Message, StepMark
from twinguide.recording import Recorder
from twinguide.registry import Registry

POLL_MS = 50
BATCH = 1000  # packets written before the file is synced and progress told
DRAIN_S = 2.0  # for what lies in the socket, where a signal ends the recorder and not the hub


class RecorderHost:
    """Tap the bus into a `Recorder`; copy bulk at its lower rate; answer lockstep's marks."""

    def __init__(self, spec: ChildSpec, registry: Registry) -> None:
        """Subscribe to everything, and open the recording's next segment."""
        self._catalogue = registry.catalogue()
        permissions = permissions_of(spec.plan, registry)
        self._virtual = spec.plan.virtual
        self._recorder = Recorder(Path(spec.plan.session_folder), self._catalogue)
        self._recorder.metadata(about(spec, registry))
        self._rings = RingReader(rings_folder(Path(spec.folder)))
        kinds = {d.message: d.tag for d in permissions.topics.values()}
        self._bulky = {tag for kind, tag in kinds.items() if holds_bulk(kind)}
        self._newest: dict[str, Packet] = {}  # topic -> the newest packet that refers to bulk not copied yet
        topics: dict[type[Message], str] = {DoneMark: f"sync/{RECORDER}/done"}
        topics[Health] = topic_name("health", RECORDER, "health")
        self._outlet = Outlet(RECORDER, spec.boot, topics, self._catalogue)
        self._client = BusClient(Path(spec.sockets), {spec.name: spec.key}, lossless=self._virtual)
        self._client.subscribe(RECORDER, permissions.wanted_by(RECORDER), SUBSCRIBE_S)
        self._health_ns = 0
        self._ended = False
        signal.signal(signal.SIGTERM, self._end)

    def _end(self, _number: int, _frame: FrameType | None) -> None:
        self._ended = True

    def run(self) -> None:
        """Write until the hub asks for the end, or has died, or the disk takes no more."""
        gc.collect()
        gc.freeze()
        if self._virtual:
            self._publish(DoneMark(part=RECORDER, round=READY), 0)
        while not (self._client.stop or self._ended or self._recorder.failed):
            self._tell_health()
            self._client.socket.poll(POLL_MS, zmq.POLLIN)
            self._drain()
            self._recorder.tick()
        until = time.monotonic() + DRAIN_S
        while self._ended and time.monotonic() < until and self._client.socket.poll(POLL_MS, zmq.POLLIN):
            self._drain()

    def close(self) -> str:
        """Finish the recording and leave the bus; return why nothing more could be written, if so."""
        self._copy_bulk()
        self._recorder.close()
        for source, count in sorted(self._recorder.drops.items()):
            logging.warning("%d messages of %s never came", count, source)
        self._client.close()
        return self._recorder.failed

    def _drain(self) -> None:
        for packet in islice(iter(self._client.receive, None), BATCH):
            if packet.topic.startswith("sync/"):
                self._answer(packet)
                continue
            self._recorder.write(packet.topic, packet.header, packet.payload)
            if packet.header.tag in self._bulky:
                self._newest[packet.topic] = packet
                if not self._virtual:
                    self._copy_bulk()

    def _answer(self, packet: Packet) -> None:
        """Answer lockstep's mark: all before it is written, and, as nobody goes on meanwhile, bulk still stands."""
        mark = message_from_packet(packet, self._catalogue)
        if isinstance(mark, StepMark):
            self._copy_bulk()
            self._recorder.tick()
            self._publish(DoneMark(part=RECORDER, round=mark.round, t_ns=mark.t_ns), mark.t_ns)

    def _copy_bulk(self) -> None:
        for topic, packet in list(self._newest.items()):
            if not self._recorder.bulk_due(topic, packet.header.t_pub_ns):
                continue
            del self._newest[topic]
            message = message_from_packet(packet, self._catalogue)
            for ref in bulk_in(message):
                self._copy(topic, packet.header, ref)

    def _copy(self, topic: str, header: Header, ref: BulkRef) -> None:
        try:
            values = self._rings.read(ref)
        except BusError as error:
            logging.warning("%s: %s", topic, error)
            return
        if values is not None:
            self._recorder.write_bulk(topic, header, ref, values)

    def _tell_health(self) -> None:
        now = time.monotonic_ns()
        if not self._virtual and now - self._health_ns >= HEALTH_NS:
            self._health_ns = now
            self._publish(Health(part=RECORDER, steps=self._recorder.written, t_ns=now), now)

    def _publish(self, message: Message, t_ns: int) -> None:
        packet = self._outlet.pack(message, t_ns)
        if not isinstance(packet, str):
            self._client.send(packet)


def about(spec: ChildSpec, registry: Registry) -> dict[str, object]:
    """Return the facts of a run that its recording carries."""
    plan = spec.plan
    parts = {p.name: {"placement": p.placement, "plugin": registry.plugin_of[p.name]} for p in plan.parts}
    run = {
        "run_id": plan.run_id,
        "seed": plan.seed,
        "clock": plan.clock,
        "plugins": parts,
        "segment_of_boot": spec.boot,
    }
    return {**run, **plan.about}


def holds_bulk(kind: Any, within: tuple[Any, ...] = ()) -> bool:  # noqa: ANN401 - any annotation
    """Return whether a type may refer to bulk: itself, in a container, or in a field; `within` are those around it."""
    if kind is BulkRef or kind in within:
        return kind is BulkRef
    around: tuple[Any, ...] = (*within, kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return any(holds_bulk(field.type, around) for field in msgspec.structs.fields(kind))
    return any(holds_bulk(argument, around) for argument in get_args(kind))


def bulk_in(value: object) -> Iterator[BulkRef]:
    """Yield every reference to bulk that a message holds, in its fields' order."""
    inner: Iterable[object] = ()
    if isinstance(value, BulkRef):
        yield value
    elif isinstance(value, msgspec.Struct):
        inner = (getattr(value, name) for name in value.__struct_fields__)
    elif isinstance(value, dict):
        inner = cast("dict[object, object]", value).values()
    elif isinstance(value, (tuple, list)):
        inner = cast("Iterable[object]", value)
    for one in inner:
        yield from bulk_in(one)


def run_recorder(spec: ChildSpec, registry: Registry) -> None:
    """Record until the end; leave with FINAL_EXIT, the reason on the last line of the log, where the disk fails."""
    die_with(spec.hub_pid, signal.SIGTERM)  # not SIGKILL: it finishes its file
    host = RecorderHost(spec, registry)
    try:
        host.run()
    finally:
        failed = host.close()
    if failed:
        print(failed, file=sys.stderr, flush=True)
        os._exit(FINAL_EXIT)
