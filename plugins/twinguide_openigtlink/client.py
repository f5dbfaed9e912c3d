"""A client that comes back: it looks its host up, dials, and dials again, and never waits for any of it."""

from __future__ import annotations

import errno
import os
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from .endpoints import LOOK_S, PORT, QUEUE_BYTES, Endpoint
from .link import Arrival, Link
from .wire import Limits

SPIN_S = 0.0003  # `receive` looks again and again before it sleeps: to be woken takes longer than many answers
RETRY_S = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
LASTED_S = 1.0  # a link that ended sooner was none: who hangs up at once is not called ever again without a rest
Address = tuple[Any, Any, int, str, Any]  # as getaddrinfo tells it


class Lookup:
    """A host's addresses, asked for in a thread of their own: a name server may take half a minute."""

    def __init__(self, host: str, port: int, tell: Callable[[], None]) -> None:
        self.addresses: list[Address] = []
        self.problem = ""
        self.done = False
        self._tell = tell
        threading.Thread(target=self._ask, args=(host, port), name="lookup", daemon=True).start()

    def _ask(self, host: str, port: int) -> None:
        try:
            self.addresses = list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except (OSError, UnicodeError) as error:  # a name that IDNA cannot have
            self.problem = getattr(error, "strerror", None) or str(error)
        self.done = True
        self._tell()


class Client(Endpoint):
    """Connects, and connects again whenever the link is gone; `problem` tells why there is none.

    Each of the host's addresses is given `dial_s`; nothing here waits for a name server.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = PORT,
        limits: Limits | None = None,
        queue_bytes: int = QUEUE_BYTES,
        on_arrival: Callable[[Arrival], object] | None = None,
        on_link: Callable[[Link], object] | None = None,
        dial_s: float = 3.0,
    ) -> None:
        super().__init__(limits, queue_bytes, on_arrival, on_link)
        self.host, self.port = host, port
        self.problem = "not connected yet"
        self._lookup: Lookup | None = None
        self._addresses: deque[Address] = deque()  # of the host, not tried yet
        self._dialling: socket.socket | None = None
        self._dial_s, self._dial_until = dial_s, 0.0
        self._inbox: deque[Arrival] = deque()
        self._failures = 0
        self._next_s = self._since_s = 0.0

    @property
    def connected(self) -> bool:
        """Whether there is a link."""
        return bool(self.links)

    def connect(self, timeout_s: float = 5.0) -> bool:
        """Poll until connected, at most `timeout_s`; return whether it is."""
        until = time.monotonic() + timeout_s
        while not self.connected and (left := until - time.monotonic()) > 0.0:
            if self._thread is None:
                self.poll(min(left, LOOK_S))
            else:
                time.sleep(min(left, 0.005))
        return self.connected

    def receive(self, timeout_s: float) -> Arrival | None:
        """Return the next message, polling in the calling thread; None where none came in `timeout_s`.

        For simple programs and the shortest round trip; not beside `start`.
        """
        begun = time.monotonic()
        while not self._inbox:
            passed = time.monotonic() - begun
            left = timeout_s - passed
            self._inbox.extend(self.poll(0.0 if passed < SPIN_S else max(left, 0.0)))
            if left <= 0.0:
                break
        return self._inbox.popleft() if self._inbox else None

    def _tend(self) -> None:
        now = time.monotonic()
        if self._dialling is not None and now >= self._dial_until:
            self._hang_up(f"no answer within {self._dial_s:g} s")
        if self.links or self._dialling is not None:
            return
        if self._addresses:
            self._dial(self._addresses.popleft())
        elif self._lookup is None and now >= self._next_s:
            self._lookup = Lookup(self.host, self.port, self._wake)
        elif self._lookup is not None and self._lookup.done:
            found, self._lookup = self._lookup, None
            self._addresses.extend(found.addresses)
            if self._addresses:
                self._dial(self._addresses.popleft())
            else:
                self._failed(f"{self.host}: {found.problem}")

    def _dial(self, address: Address) -> None:
        family, kind, proto, _, place = address
        try:
            self._dialling = socket.socket(family, kind, proto)
        except OSError as error:
            self._failed(f"{self.host}:{self.port}: {error.strerror}")
            return
        self._dialling.setblocking(False)
        self._dial_until = time.monotonic() + self._dial_s
        number = self._dialling.connect_ex(place)
        self._selector.register(self._dialling, selectors.EVENT_WRITE)
        if number not in (0, errno.EINPROGRESS, errno.EWOULDBLOCK):
            self._hang_up(os.strerror(number))

    def _hang_up(self, why: str) -> None:
        sock, self._dialling = self._dialling, None
        assert sock is not None
        self._selector.unregister(sock)
        sock.close()
        self.problem = f"{self.host}:{self.port}: {why}"
        if not self._addresses:
            self._failed(self.problem)

    def _patience(self, timeout_s: float) -> float:
        if self.links or self._lookup is not None:
            return timeout_s
        until = self._dial_until if self._dialling is not None else self._next_s
        return max(min(timeout_s, until - time.monotonic()), 0.0)

    def _ready(self, key: selectors.SelectorKey, mask: int) -> None:
        sock = self._dialling
        assert sock is not None
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number:
            self._hang_up(os.strerror(number))
            return
        self._dialling = None
        self._selector.unregister(sock)
        self._addresses.clear()
        self.problem, self._since_s = "", time.monotonic()
        self._adopt(sock, f"{self.host}:{self.port}")

    def _failed(self, why: str) -> None:
        self.problem = why
        self._next_s = time.monotonic() + RETRY_S[min(self._failures, len(RETRY_S) - 1)]
        self._failures += 1

    def _forget(self, link: Link) -> None:
        super()._forget(link)
        if time.monotonic() - self._since_s > LASTED_S:
            self._failures = 0
        self._failed(link.why)

    def close(self) -> None:
        """Close the link and stop coming back."""
        super().close()
        if self._dialling is not None:
            self._dialling.close()
