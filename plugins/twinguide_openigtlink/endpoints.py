"""OpenIGTLink over TCP: what a server and a client share, and the server of many connections.

Both are pumped by `poll`, in whatever thread calls it; `start` gives them a thread of their own. A reader gets every
message; one that asks for it gets only the newest of each type and device. Nothing here waits for a slow peer.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Self

from .link import Arrival, Link
from .wire import Limits, Packet, Status

LOG = logging.getLogger(__name__)
PORT = 18944  # OpenIGTLink's own, by IANA
QUEUE_BYTES = 1 << 25
LOOK_S = 0.05
LINKS_AT_ONCE = 64
CALLERS_AT_ONCE = 8  # then the links have their turn, of which some may have ended
BUSY = 6  # page "Status"


class Reader:
    """A bounded box of arrivals. Full, it loses the oldest and counts it in `lost`."""

    def __init__(self, limit: int = 65536, *, newest_only: bool = False) -> None:
        self.lost = 0
        self._limit, self._newest_only = limit, newest_only
        self._all: deque[Arrival] = deque()
        self._newest: dict[tuple[str, str], Arrival] = {}
        self._ready = threading.Condition()

    def put(self, arrivals: list[Arrival]) -> None:
        """Add arrivals, oldest first."""
        with self._ready:
            if self._newest_only:
                for a in arrivals:
                    self._newest[a.packet.content.type_name, a.packet.device] = a
            else:
                self._all.extend(arrivals)
                while len(self._all) > self._limit:
                    self._all.popleft()
                    self.lost += 1
            self._ready.notify_all()

    def take(self, timeout_s: float = 0.0) -> list[Arrival]:
        """Return and forget what is there, oldest first; wait for at most `timeout_s` for something to come."""
        with self._ready:
            if timeout_s > 0.0 and not (self._all or self._newest):
                self._ready.wait(timeout_s)
            found = [*self._all, *self._newest.values()]
            self._all.clear()
            self._newest.clear()
            return found


class Endpoint:
    """What server and client share: links, a selector over them, readers, and perhaps a thread.

    `on_arrival` and `on_link` are called in the polling thread, for each message and each link that opens or
    closes.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        queue_bytes: int = QUEUE_BYTES,
        on_arrival: Callable[[Arrival], object] | None = None,
        on_link: Callable[[Link], object] | None = None,
    ) -> None:
        self.links: tuple[Link, ...] = ()
        self._limits, self._queue_bytes = limits or Limits(), queue_bytes
        self._on_arrival, self._on_link = on_arrival, on_link
        self._selector = selectors.DefaultSelector()
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._selector.register(self._wake_in, selectors.EVENT_READ)
        self._readers: tuple[Reader, ...] = ()
        self._thread: threading.Thread | None = None
        self._closing = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reader(self, limit: int = 65536, *, newest_only: bool = False) -> Reader:
        """Return a new box that gets every message from now on, or only the newest of each type and device."""
        made = Reader(limit, newest_only=newest_only)
        self._readers = (*self._readers, made)
        return made

    def send(self, packet: Packet, to: Link | None = None, *, newest_only: bool = False) -> int:
        """Send to one link or to all; return how many took it. `newest_only`: let it replace one that still waits.

        Raises MessageRefused where the message cannot be packed.
        """
        links = self.links if to is None else (to,)
        if not links:
            return 0
        data = packet.pack()
        key = (packet.content.type_name, packet.device) if newest_only else None
        taken = sum(link.send(data, key) for link in links)
        if any(link.wants_to_write or not link.open for link in links):
            self._wake()
        return taken

    def _wake(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake; or closed meanwhile
            self._wake_out.send(b"\0")

    def start(self) -> Self:
        """Poll in a thread of its own from now on."""
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)
        self._thread.start()
        return self

    def _run(self) -> None:
        while not self._closing:
            self.poll(0.5)

    def poll(self, timeout_s: float = 0.0) -> list[Arrival]:
        """Read and write what can be, waiting for at most `timeout_s`; return the messages that came."""
        self._tend()
        if any(link.decoder.pending_bytes for link in self.links):
            timeout_s = min(timeout_s, LOOK_S)
        found: list[Arrival] = []
        for key, mask in self._selector.select(self._patience(timeout_s)):
            if isinstance(key.data, Link):
                if mask & selectors.EVENT_WRITE:
                    key.data.write()
                if mask & selectors.EVENT_READ:
                    found += key.data.read()
            elif key.fileobj is self._wake_in:
                with contextlib.suppress(BlockingIOError):
                    self._wake_in.recv(4096)
            else:
                self._ready(key, mask)
        for link in self.links:
            if link.decoder.pending_bytes:
                found += link.look_again()
        self._deliver(found)
        self._settle()
        return found

    def _deliver(self, found: list[Arrival]) -> None:
        if self._on_arrival is not None:
            for arrival in found:
                try:
                    self._on_arrival(arrival)
                except Exception:  # whatever a peer has sent to bring it about: the others go on
                    LOG.exception("an arrival from %s could not be handled", arrival.link.peer)
        if found:
            for reader in self._readers:
                reader.put(found)

    def _settle(self) -> None:
        """Let closed links go, and watch for writing only those that have something to write."""
        for link in self.links:
            if link.ended and not link.wants_to_write:
                link.close("the peer closed it")  # not before it has had the answer to what it asked last
            if not link.open:
                self._forget(link)
                continue
            wanted = 0 if link.ended else selectors.EVENT_READ
            wanted |= selectors.EVENT_WRITE if link.wants_to_write else 0
            if link.watched != wanted:
                self._selector.modify(link, wanted, link)
                link.watched = wanted

    def _adopt(self, sock: socket.socket, peer: str) -> None:
        link = Link(sock, peer, self._limits, self._queue_bytes)
        self._selector.register(link, link.watched, link)
        self.links = (*self.links, link)
        if self._on_link is not None:
            self._on_link(link)

    def _forget(self, link: Link) -> None:
        self._selector.unregister(link)
        link.release()
        self.links = tuple(other for other in self.links if other is not link)
        if self._on_link is not None:
            self._on_link(link)

    def _tend(self) -> None:
        """Do what is due before waiting."""

    def _patience(self, timeout_s: float) -> float:
        return timeout_s

    def _ready(self, key: selectors.SelectorKey, mask: int) -> None:
        """Take what is not a link's: a listening or a connecting socket."""
        raise NotImplementedError

    def close(self) -> None:
        """Close all links and end the thread."""
        self._closing = True
        self._wake()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(2.0)
        for link in self.links:
            link.close()
            self._forget(link)
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()


class Server(Endpoint):
    """Listens; `port` 0 takes a free one, told by `address`. Raises OSError where the port is taken."""

    def __init__(
        self,
        port: int = PORT,
        host: str = "127.0.0.1",
        limits: Limits | None = None,
        queue_bytes: int = QUEUE_BYTES,
        on_arrival: Callable[[Arrival], object] | None = None,
        on_link: Callable[[Link], object] | None = None,
    ) -> None:
        self._listening = socket.create_server((host, port), backlog=LINKS_AT_ONCE)
        super().__init__(limits, queue_bytes, on_arrival, on_link)
        self._listening.setblocking(False)
        self._selector.register(self._listening, selectors.EVENT_READ)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port where it listens."""
        host, port = self._listening.getsockname()[:2]
        return host, port

    def _ready(self, key: selectors.SelectorKey, mask: int) -> None:
        try:
            for _ in range(CALLERS_AT_ONCE):  # else many who come and go keep others out
                self._welcome(*self._listening.accept())
        except (BlockingIOError, ConnectionError):  # nobody waits any more, or the caller has hung up already
            pass
        except OSError as error:
            LOG.warning("a connection could not be taken: %s", error)
            time.sleep(LOOK_S)  # no numbers left for sockets: it would be asked again at once

    def _welcome(self, sock: socket.socket, peer: tuple[str, int]) -> None:
        try:
            if len(self.links) < LINKS_AT_ONCE:
                self._adopt(sock, f"{peer[0]}:{peer[1]}")
                return
            LOG.warning("%s:%d was refused: %d links are open", *peer[:2], len(self.links))
            sock.setblocking(False)
            sock.send(Packet(Status(BUSY, 0, "Busy", f"{LINKS_AT_ONCE} links are open"), "", 0, 1).pack())
        except OSError:  # it has hung up meanwhile
            pass
        sock.close()

    def close(self) -> None:
        """Close the port and all links."""
        super().close()
        self._listening.close()
