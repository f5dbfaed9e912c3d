"""What comes: trackers, located structures, pictures, readings, as streams of the bus; sockets in a thread of ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from twinguide import Array as ArrayWire
from twinguide import Exposure, ImageTarget, Inbox, Lost, Message, PoseWire
from twinguide.clock import MS, SECOND
from twinguide.frames import Transform

from .border import RAS_LPS, from_markers, isotropic
from .client import Client
from .endpoints import Endpoint, Server
from .gathering import TRACKED, Frame, Gathering, place_of, turned
from .link import Arrival, Link
from .lockstep import Marked
from .plugin import IncomingOptions, ToolRow
from .streams import Note, Reading, WirePicture
from .wire import Image, MessageRefused, Packet, Points, SensorData, StartTracking, Status, Text, unit_of

if TYPE_CHECKING:
    from twinguide import Context

FIXED_SIGMA = (1e-3, 1e-4)  # mm, degrees: of a tool that is the sender's own frame; a covariance must not be singular
JUMP_NS = SECOND  # a stamp that is off by more may be another clock's: the sender was started again
HELD_UP_NS = 3 * SECOND  # nothing is held up for longer
SAY_AGAIN_NS = SECOND


class Incoming:
    """Takes every message that arrived, never waits, and says what is lost."""

    def __init__(self, ctx: Context) -> None:
        """Start to listen or to connect. In virtual time the other end must be the part igtl_served."""
        self._ctx = ctx
        self._options: IncomingOptions = ctx.options
        self._gathering = Gathering(self._options)
        self._clock = self._fresh_clock()
        self._mapped = False
        self._late_since_ns = 0
        self._heard_ns = self._said_ns = 0
        self._endpoint = self._open()
        self._reader = self._endpoint.reader()
        self._marked = None if ctx.real_time else Marked(self._endpoint, self._reader)
        self._endpoint.start()

    def _open(self) -> Endpoint:
        o = self._options
        if o.listen:
            return Server(o.port, o.host, on_link=self._greet)
        return Client(o.host, o.port, on_link=self._greet)

    def _greet(self, link: Link) -> None:
        """Ask a new peer for what the scenario wants; called in the sockets' thread."""
        if link.open and self._options.request:
            start = StartTracking(self._options.interval_ms, "", self._options.request)
            self._endpoint.send(Packet(start, "", 0, 1), link)

    def _fresh_clock(self):  # noqa: ANN202 - the engine's own mapping
        return self._ctx.device_clock(self._options.latency_ms, self._options.latency_sigma_ms)

    def step(self, t_ns: int, inbox: Inbox) -> Iterator[Message]:
        """Publish what has arrived by `t_ns` [ns]; raise PluginError where virtual time has no such sender."""
        for arrival in self._reader.take() if self._marked is None else self._marked.take(t_ns):
            self._heard_ns = arrival.t_ns
            yield from self._take(arrival)
        for frame in self._gathering.due(t_ns):
            yield self._exposure(frame)
        yield from self._silence(t_ns)

    def close(self) -> None:
        """Close the sockets; a part's process closes them by ending."""
        self._endpoint.close()

    def _take(self, arrival: Arrival) -> Iterator[Message]:
        packet = arrival.packet
        content = packet.content
        if isinstance(content, TRACKED):
            for frame in self._gathering.add(arrival):
                yield self._exposure(frame)
        for of, row in self._options.targets.items():
            if packet.device == row.name and (place := place_of(content)) is not None:
                x, y, z = turned(place, ras=self._options.axes == "ras").tolist()
                covariance = ArrayWire.of(np.eye(3) * (row.sigma_mm * 1e-3) ** 2)
                t_ns, _ = self._time(packet.stamp_ns, arrival.t_ns)
                yield ImageTarget(t_ns=t_ns, of=of, position=(x, y, z), covariance=covariance)
        if isinstance(content, Status):
            self._gathering.status(packet.device, content)
            yield Note(t_ns=arrival.t_ns, of=packet.device, kind="status", text=f"{content.meaning}: {content.text}")
        elif isinstance(content, Text):
            yield Note(t_ns=arrival.t_ns, of=packet.device, kind="text", text=content.text)
        elif isinstance(content, Image):
            yield self._picture(packet, content, arrival.t_ns)
        elif isinstance(content, SensorData):
            yield self._reading(packet, content, arrival.t_ns)
        elif not isinstance(content, (*TRACKED, Points)):
            self._ctx.log.debug("%s of %s passed over", content.type_name, packet.device)

    def _time(self, stamp_ns: int, arrival_ns: int) -> tuple[int, int]:
        """Return when something was, on the host's clock, and how sure that is [ns, 1 sigma]."""
        if not stamp_ns:
            latency, sigma = self._options.latency_ms * MS, self._options.latency_sigma_ms * MS
            return arrival_ns - round(latency), round(sigma)
        self._late_since_ns = self._late_since_ns or arrival_ns
        if self._mapped and self._has_jumped(self._clock.to_host(stamp_ns) - arrival_ns, arrival_ns):
            self._ctx.log.warning("the sender's clock has jumped: it is learnt anew")
            self._clock = self._fresh_clock()
        self._clock.add(stamp_ns, arrival_ns)
        self._mapped = True
        return self._clock.to_host(stamp_ns), round(self._clock.sigma_ns)

    def _has_jumped(self, ahead_ns: int, arrival_ns: int) -> bool:
        """Tell a clock that was set from a delivery that was held up: that one is late, never early, and passes."""
        if ahead_ns > -JUMP_NS:
            self._late_since_ns = arrival_ns
        return ahead_ns > JUMP_NS or arrival_ns - self._late_since_ns > HELD_UP_NS

    def _exposure(self, frame: Frame) -> Exposure:
        t_ns, sigma_ns = self._time(frame.stamp_ns, frame.arrival_ns)
        tools: dict[str, PoseWire] = {}
        for tool, matrix in frame.poses.items():
            pose = Transform("tracker", tool, matrix)
            tools[tool] = PoseWire.of(pose, covariance_of(self._options.tools[tool], pose))
        return Exposure(t_ns=t_ns, sigma_t_ns=sigma_ns, tools=tools, lost=frame.lost)

    def _picture(self, packet: Packet, image: Image, arrival_ns: int) -> WirePicture:
        t_ns, sigma_ns = self._time(packet.stamp_ns, arrival_ns)
        world = image.world_from_index_mm()
        world[:3] *= 1e-3
        world = RAS_LPS @ world if image.axes == "ras" else world
        voxels = image.voxels.astype(image.voxels.dtype.newbyteorder("="), copy=False)
        ref = self._ctx.share(f"picture-{packet.device.lower()}" if packet.device.isalnum() else "picture", voxels)
        return WirePicture(
            t_ns=t_ns, of=packet.device, sigma_t_ns=sigma_ns, voxels=ref, world_from_index=ArrayWire.of(world)
        )

    def _reading(self, packet: Packet, content: SensorData, arrival_ns: int) -> Reading:
        t_ns, sigma_ns = self._time(packet.stamp_ns, arrival_ns)
        try:
            power, units = unit_of(content.unit)
        except MessageRefused as error:
            self._ctx.log.warning("a reading of %s without its unit: %s", packet.device, error)
            power, units = 0, {}
        scale = 10.0**power
        if "g" in units:  # the wire's gram, SI's kilogram
            scale *= 1e-3 ** units["g"]
        named = {"kg" if unit == "g" else unit: exponent for unit, exponent in units.items()}
        text = " ".join(unit if e == 1 else f"{unit}^{e}" for unit, e in named.items())
        values = tuple(value * scale for value in content.values)
        return Reading(t_ns=t_ns, of=packet.device, sigma_t_ns=sigma_ns, values=values, unit=text)

    def _silence(self, t_ns: int) -> Iterator[Lost]:
        """Say once a second that nothing comes, and why."""
        if t_ns - self._heard_ns < self._options.silent_ms * MS or t_ns - self._said_ns < SAY_AGAIN_NS:
            return
        self._said_ns = t_ns
        if self._endpoint.links:
            why = f"connected, but silent for {(t_ns - self._heard_ns) / SECOND:.1f} s" if self._heard_ns else "silent"
        else:
            why = getattr(self._endpoint, "problem", "") or "nobody has connected"
        for tool, row in self._options.tools.items():
            if not row.fixed:
                yield Lost(t_ns=t_ns, of=tool, reason=why)


def covariance_of(row: ToolRow, pose: Transform) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return a pose's covariance, shape (6, 6), in the tool's frame, as the scenario's table states it."""
    if row.fixed:
        return isotropic(*FIXED_SIGMA)
    if row.markers_mm and min(row.noise_mm) > 0.0:
        return from_markers(pose.rotation, np.array(row.markers_mm) * 1e-3, np.array(row.noise_mm) * 1e-3)
    return isotropic(row.sigma_mm, row.sigma_deg)
