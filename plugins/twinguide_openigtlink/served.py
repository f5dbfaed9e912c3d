"""A simulated sensor of any plugin, served over the wire as a device would be: its own process, clock and names."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from twinguide import Exposure, Inbox, Message, Part
from twinguide.errors import PluginError
from twinguide.frames import rotation_from_quaternion

from . import lockstep
from .border import Names, name_of
from .endpoints import Server
from .plugin import ServedOptions
from .wire import Packet, QuaternionTool, QuaternionTrackingData, Status, Tool, TrackingData, Transform

if TYPE_CHECKING:
    import logging

    from twinguide import Context
    from twinguide.case import Case
    from twinguide.clock import ClockMapping

NOT_PRESENT = 16  # page "Status"


@dataclass(frozen=True)
class Inner:
    """The context of the sensor inside: its own name and options, the rest the outer part's."""

    name: str
    options: Any
    outer: Context

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.outer.seed

    @property
    def real_time(self) -> bool:
        """Whether the run's clock is real."""
        return self.outer.real_time

    @property
    def case(self) -> Case:
        """The run's case."""
        return self.outer.case

    @property
    def log(self) -> logging.Logger:
        """The outer part's log."""
        return self.outer.log

    def rng(self, stream: str = "") -> np.random.Generator:
        """Return the generator that the sensor would have by itself: over the wire it makes the same noise."""
        words = [self.seed & 0xFFFFFFFF, self.seed >> 32]
        return np.random.default_rng([*words, zlib.crc32(self.name.encode()), zlib.crc32(stream.encode())])

    def device_clock(self, latency_ms: float = 0.0, sigma_ms: float = 0.0) -> ClockMapping:
        """Return a mapping from a device's clock to the host's."""
        return self.outer.device_clock(latency_ms, sigma_ms)


class Served:
    """Steps the sensor inside and sends its exposures instead of publishing them."""

    def __init__(self, ctx: Context) -> None:
        """Make the sensor and listen; raise PluginError where the scenario names none."""
        self._options: ServedOptions = ctx.options
        part = declared(self._options.plugin, self._options.part)
        options = msgspec.convert(self._options.options, part.options)
        module, _, name = part.make.partition(":")
        self._sensor = getattr(importlib.import_module(module), name)(Inner(part.name, options, ctx))
        self._lost: dict[str, str] = {}
        self._names = Names()
        self._lockstep = not ctx.real_time
        hear = (lambda arrival: lockstep.answer(self._server, arrival)) if self._lockstep else None
        self._server = Server(self._options.port, self._options.host, on_arrival=hear).start()
        ctx.log.info("serving %s at %s:%d", part.name, *self._server.address)

    def step(self, t_ns: int, inbox: Inbox) -> Iterator[Message]:
        """Send what the sensor inside would have published by `t_ns` [ns]; publish nothing."""
        if self._lockstep:
            lockstep.await_reader(self._server)
        for message in self._sensor.step(t_ns, inbox):
            if isinstance(message, Exposure):
                self._send(message)
        if self._lockstep:
            lockstep.mark(self._server, t_ns)
        yield from ()

    def close(self) -> None:
        """Close the sockets; a part's process closes them by ending."""
        self._server.close()

    def _send(self, exposure: Exposure) -> None:
        o = self._options
        stamp_ns = device_ns(exposure.t_ns, o.clock_offset_s, o.clock_drift_ppm)
        self._tell_lost(exposure, stamp_ns)
        if o.form == "TRANSFORM":
            for tool in tools_of(exposure, self._name):
                self._server.send(Packet(Transform(tool.matrix_mm), tool.name, stamp_ns, o.version))
            return
        tools, turns = tools_of(exposure, self._name), quaternions(exposure, self._name)
        content = TrackingData(tools) if o.form == "TDATA" else QuaternionTrackingData(turns)
        self._server.send(Packet(content, "Tracker", stamp_ns, o.version))

    def _name(self, tool: str) -> str:
        return self._names.of(self._options.names.get(tool, name_of("tracker", tool)))

    def _tell_lost(self, exposure: Exposure, stamp_ns: int) -> None:
        """Send a STATUS for each tool that is lost, or seen again, since the last exposure."""
        for tool in {*self._lost, *exposure.lost}:
            if (tool in self._lost) != (tool in exposure.lost):
                lost = tool in exposure.lost
                status = Status(NOT_PRESENT, 0, "Missing", exposure.lost[tool]) if lost else Status(1, 0, "OK", "seen")
                self._server.send(Packet(status, self._name(tool), stamp_ns, self._options.version))
        self._lost = dict(exposure.lost)


def declared(plugin: str, name: str) -> Part:
    """Return a part as its plugin declares it; raise PluginError where there is none."""
    try:
        found = {part.name: part for part in importlib.import_module(plugin).parts()}
    except (ImportError, AttributeError) as error:
        raise PluginError("a plugin's module", f"{plugin!r}: {error}", "the option plugin") from error
    if name not in found:
        raise PluginError(f"a part {name!r}", ", ".join(found) or "none", f"plugin {plugin}")
    return found[name]


def device_ns(t_ns: int, offset_s: float, drift_ppm: float) -> int:
    """Return what a device's clock shows [ns] at a host time [ns]: it runs slow by so many millionths."""
    return round(offset_s * 1e9) + t_ns - round(t_ns * (drift_ppm * 1e-6 / (1.0 + drift_ppm * 1e-6)))


def tools_of(exposure: Exposure, name: Callable[[str], str]) -> tuple[Tool, ...]:
    """Return an exposure's tools as TDATA has them, each by its name on the wire."""
    found: list[Tool] = []
    for tool, wire in exposure.tools.items():
        matrix = np.eye(4)
        matrix[:3, :3] = rotation_from_quaternion(wire.quaternion)
        matrix[:3, 3] = np.array(wire.position) * 1e3
        found.append(Tool(name(tool), matrix))
    return tuple(found)


def quaternions(exposure: Exposure, name: Callable[[str], str]) -> tuple[QuaternionTool, ...]:
    """Return an exposure's tools as QTDATA has them, each by its name on the wire."""
    found: list[QuaternionTool] = []
    for tool, wire in exposure.tools.items():
        x, y, z = (1e3 * value for value in wire.position)
        found.append(QuaternionTool(name(tool), (x, y, z), wire.quaternion))
    return tuple(found)
