"""The broker: takes packets from known publishers, gives them to granted readers, keeps the last of each state."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import zmq

from twinguide.bus.catalogue import Catalogue
from twinguide.bus.client import DEPTH, endpoint
from twinguide.bus.packets import (
    END,
    PAYLOAD_LIMIT,
    Outlet,
    Refusals,
    frames_from_packet,
    header_from_frame,
)
from twinguide.bus.topics import HUB, LOOP, Permissions
from twinguide.clock import SECOND
from twinguide.errors import BusError
from twinguide.messages import Message, Refusal

BATCH = 256  # packets forwarded before the other sockets are looked at
MOST_HZ = 5000  # packets of one publisher in real time, beyond any device's: the loop and the recorder read them all
BIND_S = 1.0  # an address is still taken for a moment after its owner closed it


@dataclass(frozen=True)
class Publisher:
    """What one key may publish: wire topic -> (topic, tag)."""

    name: str
    topics: dict[bytes, tuple[str, str]]


class Broker:
    """The hub's sockets for data: PULL in (nothing is lost in a slow join), XPUB_MANUAL out (each topic is granted)."""

    def __init__(self, folder: Path, permissions: Permissions, catalogue: Catalogue, *, virtual: bool) -> None:
        self._permissions = permissions
        self._virtual = virtual
        self._publishers: dict[bytes, Publisher] = {}
        self._keys: dict[str, bytes] = {}
        self._cache: dict[bytes, list[bytes]] = {}
        self._refusals = Refusals()
        self._outlets = Outlet(HUB, 1, {Refusal: f"v1/health/{HUB}/refusal"}, catalogue)
        self._sent: dict[str, tuple[int, int]] = {}  # client -> the last second in which it published, and how much
        self._loop_ns = 0  # the run's virtual time, as the loop's newest packet tells it
        self.seen_ns: dict[str, int] = {}  # client -> when its last packet came, monotonic
        self.counts: Counter[str] = Counter()
        self.context = zmq.Context()
        self.incoming = self._bound(zmq.PULL, folder, "in")
        self.outgoing = self._bound(zmq.XPUB, folder, "out")

    def _bound(self, kind: int, folder: Path, name: str) -> zmq.Socket[bytes]:
        socket = self.context.socket(kind)
        socket.set_hwm(0 if self._virtual else DEPTH)
        socket.setsockopt(zmq.MAXMSGSIZE, PAYLOAD_LIMIT)
        socket.setsockopt(zmq.LINGER, 500)
        if kind == zmq.XPUB:
            socket.setsockopt(zmq.XPUB_MANUAL, 1)
        bind(socket, endpoint(folder, name))
        return socket

    def admit(self, name: str) -> str:
        """Make a new secret key for a client and return it; its earlier one is void."""
        earlier = self._keys.pop(name, b"")
        self._publishers.pop(earlier, None)
        key = secrets.token_hex(16)
        topics = {d.name.encode() + END: (d.name, d.tag) for d in self._permissions.published_by(name).values()}
        self._keys[name] = key.encode()
        self._publishers[key.encode()] = Publisher(name, topics)
        return key

    def now_ns(self) -> int:
        """Return the run's time [ns]: the host's clock, or the loop's virtual one as last heard."""
        return self._loop_ns if self._virtual else time.monotonic_ns()

    def forward(self) -> None:
        """Forward what has come in, at most a batch."""
        for _ in range(BATCH):
            try:
                frames = self.incoming.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            publisher = self._publishers.get(frames[0])
            flaw = self._flaw(publisher, frames) if publisher else "the key is not one of this run"
            if flaw:
                self._refuse(publisher.name if publisher else "?", _text(frames[1:2]), flaw)
                continue
            if frames[1].startswith(b"v1/state/"):
                self._cache[frames[1]] = frames[1:]
            self.outgoing.send_multipart(frames[1:])
            self.counts["forwarded"] += 1

    def _flaw(self, publisher: Publisher, frames: list[bytes]) -> str:
        """Return why a known publisher's packet is refused; note its progress where it is not."""
        topic = publisher.topics.get(frames[1]) if len(frames) == 4 else None
        if topic is None:
            return f"{publisher.name} does not declare it" if len(frames) == 4 else f"a packet of {len(frames)} frames"
        try:
            header = header_from_frame(frames[2])
        except BusError as error:
            return str(error)
        if header.source != publisher.name or header.tag != topic[1]:
            return f"{publisher.name} must send {topic[1]}, not {header.tag} in the name of {header.source}"
        self.seen_ns[publisher.name] = time.monotonic_ns()
        if not self._virtual and self._floods(publisher.name, header.t_pub_ns // SECOND):
            return f"more than {MOST_HZ} messages of {publisher.name} in a second"
        if publisher.name == LOOP:
            self._loop_ns = header.t_pub_ns
        return ""

    def _floods(self, name: str, second: int) -> bool:
        """Count what was published in a second; what a busy machine brings late and all at once is no flood."""
        last, count = self._sent.get(name, (second, 0))
        count = count + 1 if second == last else 1
        self._sent[name] = second, count
        return count > MOST_HZ

    def grant(self) -> None:
        """Answer requests for topics."""
        while True:
            try:
                request = self.outgoing.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            if request[:1] != b"\x01":
                continue  # a subscriber leaves: its pipe takes its grants along
            fields = request[1:].split(END)
            if len(fields) != 3 or not fields[1] or self._keys.get(_text(fields[:1])) != fields[1]:
                self._refuse("?", _text(fields[2:3]) or _text(fields[:1]), "a subscription without a key of this run")
                continue
            self._answer(_text(fields[:1]), _text(fields[2:3]))

    def _answer(self, name: str, topic: str) -> None:
        alone = b"@" + name.encode() + END
        with contextlib.suppress(zmq.ZMQError):  # the asker may have gone already
            self.outgoing.setsockopt(zmq.SUBSCRIBE, alone)
            if not topic:
                self.outgoing.send_multipart([alone, b"ready"])
                return
            if reason := self._permissions.refusal(name, topic):
                self._refuse(name, topic, reason)
                self.outgoing.send_multipart([alone, b"refused", topic.encode(), reason.encode()])
                return
            wire = b"v1/" if topic == "*" else topic.encode() + END
            self.outgoing.setsockopt(zmq.SUBSCRIBE, wire)
            for cached, frames in self._cache.items():
                if cached.startswith(wire):
                    self.outgoing.send_multipart([alone, b"state", *frames])

    def _refuse(self, name: str, topic: str, reason: str) -> None:
        self.counts["refused"] += 1
        refusal = self._refusals.add(name, topic, reason, self.now_ns())
        if refusal is not None:
            self.publish(refusal, f"v1/health/{HUB}/refusal")

    def publish(self, message: Message, topic: str) -> None:
        """Publish a message of the hub's own."""
        packet = self._outlets.pack(message, self.now_ns(), topic=topic)
        if isinstance(packet, str):
            raise BusError("a message of the hub that can be sent", packet)
        frames = frames_from_packet(packet)
        if topic.startswith("v1/state/"):
            self._cache[frames[0]] = frames
        self.outgoing.send_multipart(frames)

    def tell_stop(self, name: str) -> None:
        """Ask one client to end, behind everything that was published before."""
        self.outgoing.send_multipart([b"@" + name.encode() + END, b"stop"])

    def close(self) -> None:
        """Close the sockets."""
        self.incoming.close(0)
        self.outgoing.close()
        self.context.term()


def bind(socket: zmq.Socket[bytes], address: str) -> None:
    """Bind, and try again for a second where the address is still taken; raise BusError after that."""
    until = time.monotonic() + BIND_S
    while True:
        try:
            socket.bind(address)
            return
        except zmq.ZMQError as error:
            if time.monotonic() > until:
                raise BusError("an address to bind", f"{address}: {error}", "the hub") from error
            time.sleep(0.005)


def _text(frames: list[bytes]) -> str:
    """Return the first frame as text that can be shown, whoever sent it."""
    return frames[0][:96].removesuffix(END).decode("ascii", "replace") if frames else ""
