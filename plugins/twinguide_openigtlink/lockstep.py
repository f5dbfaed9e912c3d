"""Virtual time over a socket, between a served sensor and its reader: the same bits in every run.

The server marks the end of each of its steps with a text that bears the step's time. The reader asks for a STATUS,
which comes behind all that was sent before, and takes what was marked before its own step. What a step at the same
instant has sent, already or not yet, waits for the next.
"""

from __future__ import annotations

import time
from dataclasses import replace

from twinguide.errors import PluginError

from .endpoints import Endpoint, Reader, Server
from .link import Arrival
from .wire import Packet, Query, Status, Text

MARK = "TwinGuide.step"  # the device name of marks, queries and answers
WAIT_S = 4.0  # less than what the engine grants a step


def answer(server: Server, arrival: Arrival) -> None:
    """Answer a reader's query; called in the sockets' thread."""
    if arrival.packet.device == MARK and arrival.packet.content == Query("GET", "STATUS"):
        server.send(Packet(Status(), MARK), arrival.link)


def await_reader(server: Server) -> None:
    """Wait for a reader to connect; raise PluginError where none does."""
    until = time.monotonic() + WAIT_S
    while not server.links:
        _check(until, "nobody connected")
        time.sleep(0.001)


def mark(server: Server, t_ns: int) -> None:
    """Say that all of the step at `t_ns` [ns] has been sent."""
    server.send(Packet(Text("step"), MARK, t_ns))


class Marked:
    """What a served sensor sends, step by step of virtual time."""

    def __init__(self, endpoint: Endpoint, reader: Reader) -> None:
        self._endpoint, self._reader = endpoint, reader
        self._marked: list[Arrival] = []
        self._open: list[Arrival] = []  # not marked yet

    def take(self, t_ns: int) -> list[Arrival]:
        """Return what was sent in the steps before `t_ns` [ns], arriving at their times; raise PluginError."""
        until = time.monotonic() + WAIT_S
        while not self._endpoint.send(Packet(Query("GET", "STATUS"), MARK)):
            _check(until, getattr(self._endpoint, "problem", "") or "nobody connected")
            time.sleep(0.001)
        answered = False
        while not answered:
            _check(until, "no answer")
            for arrival in self._reader.take(0.1):  # some of the present instant may follow the answer
                answered |= self._sort(arrival)
        taken = [a for a in self._marked if a.t_ns < t_ns]
        self._marked = [a for a in self._marked if a.t_ns >= t_ns]
        return taken

    def _sort(self, arrival: Arrival) -> bool:
        """Keep a message, and return whether it is the answer."""
        packet = arrival.packet
        if packet.device != MARK:
            self._open.append(arrival)
        elif isinstance(packet.content, Text):
            self._marked += [replace(a, t_ns=packet.stamp_ns) for a in self._open]
            self._open.clear()
        return packet.device == MARK and isinstance(packet.content, Status)


def _check(until: float, got: str) -> None:
    if time.monotonic() > until:
        raise PluginError(
            "the part igtl_served at the other end, in virtual time", got, "igtl", 'A device needs clock = "real".'
        )
