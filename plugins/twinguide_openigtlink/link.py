"""One TCP connection: bytes out through a bounded queue, messages in, nothing ever waited for."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from dataclasses import dataclass

from .wire import Decoder, Limits, Packet

READ_BYTES = 1 << 18
READS_AT_ONCE = 16  # then others have their turn
KEEPALIVE = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 1), ("TCP_KEEPCNT", 3))  # [s, s, times]: a dead peer in 8 s


@dataclass(frozen=True)
class Arrival:
    """A message with the moment its last byte was read [ns, CLOCK_MONOTONIC], and where it came from."""

    packet: Packet
    t_ns: int
    link: Link


@dataclass
class Waiting:
    """A message in the queue; `key` names what a newer one may replace while no byte of it is sent."""

    data: memoryview
    key: tuple[str, str] | None


class Link:
    """A connected socket. `send` may be called from any thread, the rest from the endpoint's own."""

    def __init__(self, sock: socket.socket, peer: str, limits: Limits, queue_bytes: int) -> None:
        self.peer, self.decoder = peer, Decoder(limits)
        self.sent = self.received = self.dropped = self.replaced = 0  # messages
        self.open = True
        self.ended = False  # the peer says nothing more, and may still listen
        self.why = ""  # it was closed
        self.watched = selectors.EVENT_READ  # what its endpoint's selector looks for
        self._sock, self._queue_bytes = sock, queue_bytes
        self._queue: deque[Waiting] = deque()
        self._queued = 0
        self._lock = threading.Lock()
        self._room = memoryview(bytearray(READ_BYTES))
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

    def fileno(self) -> int:
        """Return the socket's number, for a selector."""
        return self._sock.fileno()

    @property
    def wants_to_write(self) -> bool:
        """Whether bytes wait to be sent."""
        return bool(self._queue)

    def send(self, data: bytes, key: tuple[str, str] | None = None) -> bool:
        """Send a packed message, at once where the socket takes it; return False where it was dropped.

        With a `key` it replaces a message of the same key that still waits, so that a slow reader gets the newest.
        """
        with self._lock:
            if not self.open:
                return False
            if key is not None and self._replace(data, key):
                return True
            if self._queue and self._queued + len(data) > self._queue_bytes:
                self.dropped += 1
                return False
            self._queue.append(Waiting(memoryview(data), key))
            self._queued += len(data)
            self._flush()
            return True

    def _replace(self, data: bytes, key: tuple[str, str]) -> bool:
        for waiting in list(self._queue)[1:]:  # the first may be half sent
            if waiting.key == key:
                self._queued += len(data) - len(waiting.data)
                waiting.data = memoryview(data)
                self.replaced += 1
                return True
        return False

    def write(self) -> None:
        """Send what waits, as far as the socket takes it."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._queue:
                waiting = self._queue[0]
                count = self._sock.send(waiting.data)
                self._queued -= count
                if count < len(waiting.data):
                    waiting.data = waiting.data[count:]
                    return
                self._queue.popleft()
                self.sent += 1
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._close(str(error))

    def read(self) -> list[Arrival]:
        """Return the messages that have come."""
        found: list[Arrival] = []
        try:
            for _ in range(READS_AT_ONCE):
                count = self._sock.recv_into(self._room)
                t_ns = time.monotonic_ns()
                if not count:
                    self.ended = True
                    return found + self._arrivals(self.decoder.end(), t_ns)
                found += self._arrivals(self.decoder.feed(self._room[:count], t_ns), t_ns)
                if count < READ_BYTES:
                    return found
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self.close(str(error))
        return found

    def look_again(self) -> list[Arrival]:
        """Return messages behind one whose body stays away."""
        t_ns = time.monotonic_ns()
        return self._arrivals(self.decoder.feed(b"", t_ns), t_ns)

    def _arrivals(self, packets: list[Packet], t_ns: int) -> list[Arrival]:
        self.received += len(packets)
        return [Arrival(packet, t_ns, self) for packet in packets]

    def close(self, why: str = "closed here") -> None:
        """Close the socket; the first reason given is kept."""
        with self._lock:
            self._close(why)

    def _close(self, why: str) -> None:
        if self.open:
            self.open, self.why = False, why
            self._queue.clear()
            self._queued = 0
            with contextlib.suppress(OSError):  # the peer was first
                self._sock.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Give the socket's number back, once no selector watches it any more."""
        with self._lock:
            self._sock.close()
