"""A client of the hub: sends packets, asks for topics, receives what was granted."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import zmq

from twinguide.bus.packets import END, PAYLOAD_LIMIT, Packet, frames_from_packet, packet_from_frames
from twinguide.errors import BusError

log = logging.getLogger("twinguide.bus")

DEPTH = 100_000  # packets kept for a slow reader in real time; lockstep keeps all
LINGER_MS = 1000


def endpoint(folder: Path, name: str) -> str:
    """Return the address of one of the hub's sockets: `in`, `out` or `ctl`."""
    return f"ipc://{folder / name}"


class BusClient:
    """One connection to the hub, for one part or, in the loop's process, for several.

    `keys` maps each client name to its secret token. A subscription is a request that the hub checks:
    `name NUL token NUL topic`. What the hub has to say to a client alone comes under `@name`.
    """

    def __init__(self, folder: Path, keys: Mapping[str, str], *, lossless: bool) -> None:
        self._keys = {name: key.encode() for name, key in keys.items()}
        self._context = zmq.Context()
        depth = 0 if lossless else DEPTH
        self._out = self._context.socket(zmq.PUSH)
        self._in = self._context.socket(zmq.XSUB)
        for socket in (self._out, self._in):
            socket.set_hwm(depth)
            socket.setsockopt(zmq.MAXMSGSIZE, 2 * PAYLOAD_LIMIT)
            socket.setsockopt(zmq.RECONNECT_IVL, 10)
        self._out.connect(endpoint(folder, "in"))
        self._in.connect(endpoint(folder, "out"))
        self._early: list[Packet] = []  # came while `subscribe` waited
        self.ready: set[str] = set()  # names whose subscriptions stand
        self.refused: dict[tuple[str, str], str] = {}  # (name, topic) -> reason
        self.stop = False  # the hub asked for the end
        self.dropped = 0  # packets that the hub did not take in time
        self.malformed = 0

    @property
    def socket(self) -> zmq.Socket[bytes]:
        """The socket to poll for incoming packets."""
        return self._in

    def send(self, packet: Packet) -> None:
        """Send a packet under its source's key; it is dropped and counted where the hub is too far behind."""
        self.send_frames(self._keys[packet.header.source], frames_from_packet(packet))

    def send_frames(self, key: bytes, frames: list[bytes]) -> None:
        """Send wire frames under a key."""
        try:
            self._out.send_multipart([key, *frames], zmq.NOBLOCK)
        except zmq.Again:
            self.dropped += 1

    def ask(self, name: str, topics: Iterable[str]) -> None:
        """Ask for topics in a client's name; `ready` holds the name once all were granted or refused."""
        self.ready.discard(name)
        for topic in (*topics, ""):
            self._in.send(b"\x01" + END.join((name.encode(), self._keys[name], topic.encode())))

    def subscribe(self, name: str, topics: Iterable[str], timeout_s: float) -> dict[str, str]:
        """Ask for topics and wait until the hub has answered; return the refused ones with the reason."""
        self.ask(name, topics)
        until = time.monotonic() + timeout_s
        while True:
            while (packet := self._receive()) is not None:
                self._early.append(packet)
            if name in self.ready:
                break
            if not self._in.poll(max(0, round((until - time.monotonic()) * 1000))):
                raise BusError(f"the hub's answer to {name} within {timeout_s} s", "none")
        return {topic: reason for (client, topic), reason in self.refused.items() if client == name}

    def receive(self) -> Packet | None:
        """Return the next packet, or None where nothing waits."""
        return self._early.pop(0) if self._early else self._receive()

    def _receive(self) -> Packet | None:
        while True:
            try:
                frames = self._in.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return None
            if frames[0].startswith(b"@"):
                frames = self._note(frames)
            if frames:
                try:
                    return packet_from_frames(frames)
                except BusError:
                    self.malformed += 1

    def _note(self, frames: list[bytes]) -> list[bytes]:
        """Take what the hub says to this client alone; return the frames of a cached packet, if it is one."""
        name = frames[0].removesuffix(END).decode()[1:]
        kind = frames[1]
        if kind == b"ready":
            self.ready.add(name)
        elif kind == b"refused":
            self.refused[name, frames[2].decode()] = frames[3].decode()
        elif kind == b"stop":
            self.stop = True
        return frames[2:] if kind == b"state" else []

    def close(self, linger_ms: int = LINGER_MS) -> None:
        """Close the sockets; what was sent is flushed for at most `linger_ms`."""
        if self.dropped or self.malformed:
            log.warning("%d packets not taken by the hub, %d malformed ones received", self.dropped, self.malformed)
        self._out.close(linger_ms)
        self._in.close(0)
        self._context.term()
