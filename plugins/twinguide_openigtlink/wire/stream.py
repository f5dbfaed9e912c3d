"""A stream of bytes to messages: pieces of any size in, whole messages out, and past damage to the next good one.

The protocol has no mark where a message begins. Where the bytes do not fit a header, or a body does not fit its CRC,
the next place whose 58 bytes look like a header *and* whose body fits its CRC is taken. A damaged size could make a
reader wait for bytes that never come: when a body stays away for `patience_ns`, whole good messages behind its header
are looked for, and end the waiting.
"""

from __future__ import annotations

import re
import time
from collections import Counter, deque
from dataclasses import dataclass

from .fields import crc
from .packet import HEADER, Header, Packet, unpack
from .refused import MessageRefused

# A lookahead, so that a false header does not hide the true one that begins within it.
LOOKS_LIKE_A_HEADER = re.compile(rb"(?s)(?=(\x00[\x01\x02][A-Z][A-Z0-9_\x00]{11}[\x00\x20-\xff]{20}.{8}\x00{4}.{12}))")
# Nothing but its form vouches for a header without a body: one that was cut short runs into the next message's.
# Four letters, for a time stamp may look like one; no type of the protocol has fewer.
RUNS_INTO_THE_NEXT = re.compile(rb"\x00[\x01\x02][A-Z]{3}[A-Z_][A-Z0-9_\x00]{8}")
EFFORT_BYTES = 1 << 28  # checked in one call, some 20 ms: many false headers must not hold the reader up
OVERLAP = 3  # bytes: the two of a header's version, and one before them
FOREVER_NS = 1 << 62


@dataclass(frozen=True)
class Limits:
    """What a reader takes: a larger body is not waited for, it is passed over as damage."""

    body_bytes: int = 1 << 27  # a CT of 512 x 512 x 250; below 4 GiB
    metadata_bytes: int = 1 << 16
    patience_ns: int = 50_000_000


class Decoder:
    """Reads one stream; `refused` counts, by reason, what was passed over, and `skipped_bytes` how much."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.refused: Counter[str] = Counter()
        self.skipped_bytes = 0
        self.last_refusal = ""
        self._buffer = bytearray()
        self._base = 0  # where in the stream the buffer begins; so are `_likely` and `_searched` told
        self._likely: deque[int] = deque()  # what looks like a header and is not disproved, searched once only
        self._searched = 0
        self._last = b""  # read, and perhaps the next message's own
        self._trusted = True  # the buffer begins where a message ended, or the stream began
        self._since_ns: int | None = None  # when the wait for the first message's body began
        self._look_ns = 0

    @property
    def pending_bytes(self) -> int:
        """How many bytes wait for the rest of their message."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview, now_ns: int | None = None) -> list[Packet]:
        """Return the messages that `data` completes, oldest first; never raises on bad bytes.

        `now_ns` is a monotonic time [ns], by default the present; feed nothing after a while to end a wait.
        """
        self._buffer += data
        return self._read(time.monotonic_ns() if now_ns is None else now_ns)

    def end(self) -> list[Packet]:
        """Return what good messages lie behind one that will never be whole, and forget the rest."""
        found = self._read(FOREVER_NS)
        self._skip(len(self._buffer), "cut off")
        return found

    def _read(self, now_ns: int) -> list[Packet]:
        found: list[Packet] = []
        while len(self._buffer) >= HEADER.size:
            header = self._header_at(0)
            end = HEADER.size + header.body_size if header else 0
            if header and self._trusted and len(self._buffer) < end:
                if not self._give_up(now_ns):
                    break
            elif header and len(self._buffer) >= end and self._fits(0, header):
                self._open(header, end, found)
            elif not self._resynchronise("not a header" if header is None else "wrong CRC"):
                break
        return found

    def _header_at(self, at: int) -> Header | None:
        """Return the header at a place of the buffer, or None where its fields cannot be a header's."""
        raw = bytes(self._buffer[at : at + HEADER.size])
        header = Header.unpack(raw)
        if header.version not in (1, 2) or not 0x20 < raw[2] < 0x7F or header.body_size > self.limits.body_bytes:
            return None
        return None if header.body_size == 0 and RUNS_INTO_THE_NEXT.search(raw, 1) else header

    def _fits(self, at: int, header: Header) -> bool:
        begin = at + HEADER.size
        with memoryview(self._buffer) as whole, whole[begin : begin + header.body_size] as body:
            return crc(body) == header.crc

    def _open(self, header: Header, end: int, found: list[Packet]) -> None:
        body = bytes(self._buffer[HEADER.size : end])
        self._last = bytes(self._buffer[end - OVERLAP : end])
        self._drop(end)
        self._trusted, self._since_ns = True, None
        try:
            found.append(unpack(header, body, self.limits.metadata_bytes))
        except MessageRefused as error:
            self.refused["content"] += 1
            self.skipped_bytes += end
            self.last_refusal = f"{header.type} of {header.device!r}: {error}"

    def _give_up(self, now_ns: int) -> bool:
        """Pass over a header whose body stays away, if a whole good message lies behind it."""
        if self._since_ns is None:
            self._since_ns, self._look_ns = now_ns, now_ns + self.limits.patience_ns
        if now_ns < self._look_ns:
            return False
        self._look_ns = now_ns + self.limits.patience_ns
        at = self._next_good()
        if at < 0:
            return False
        self._skip(at, "body stayed away")
        return True

    def _resynchronise(self, reason: str) -> bool:
        """Go to the next good message; without one, keep what may be the beginning of it and return False."""
        if self._trusted and reason == "not a header":
            self._put_back()
        at = self._next_good()
        self._trusted, self._since_ns = at >= 0, None
        if at < 0:
            tail = max(len(self._buffer) - HEADER.size + 1, 1)
            at = min(self._likely[0] - self._base if self._likely else tail, tail)
            reason = reason if at else ""
        self._skip(at, reason)
        return self._trusted

    def _put_back(self) -> None:
        """Give the last bytes back: a message cut short by zeros was whole with the first zeros of the next."""
        self._buffer[:0] = self._last
        self._base -= len(self._last)
        self._searched = min(self._searched, self._base)
        self.skipped_bytes -= len(self._last)
        self._last = b""

    def _next_good(self) -> int:
        """Return where the next whole message with the right CRC begins behind the buffer's first byte, or -1.

        A likely header whose body is not all here yet stays likely, one with a wrong CRC does not. What the effort of
        one call does not reach is left to the next.
        """
        self._search()
        waiting, effort = list[int](), EFFORT_BYTES
        found = -1
        while self._likely and found < 0 and effort > 0:
            at = self._likely.popleft() - self._base
            header = self._header_at(at) if at >= 0 else None
            if header is None:
                continue
            if at + HEADER.size + header.body_size > len(self._buffer):
                waiting.append(at + self._base)
                continue
            effort -= header.body_size
            found = at if at > 0 and self._fits(at, header) else -1
        self._likely.extendleft(reversed(waiting))
        return found

    def _search(self) -> None:
        """Add what looks like a header in the bytes that were not searched yet."""
        begin = max(self._searched - self._base, 0)
        matches = LOOKS_LIKE_A_HEADER.finditer(self._buffer, begin)
        self._likely.extend(match.start(1) + self._base for match in matches)
        self._searched = self._base + max(len(self._buffer) - HEADER.size + 1, begin)

    def _skip(self, count: int, reason: str) -> None:
        if count:
            self.refused[reason] += 1
            self.last_refusal = f"{reason}: {count} bytes passed over"
            self.skipped_bytes += count
            self._drop(count)

    def _drop(self, count: int) -> None:
        del self._buffer[:count]
        self._base += count
        while self._likely and self._likely[0] < self._base:
            self._likely.popleft()
