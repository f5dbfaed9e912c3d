"""What comes: trackers, located structures, pictures, readings, as streams of the bus; sockets in a thread of ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinguide import Array as ArrayWire
from twinguide import Context, Exposure, ImageTarget, Inbox, Lost, Message, PoseWire, Transform, TwinGuideError
from twinguide.clock import MS, SECOND
from twinguide.frames import pose_covariance

from .border import RAS_LPS, from_markers
from .client import Client
from .clocks import SenderClocks
from .endpoints import Endpoint, Server
from .gathering import TRACKED, Frame, Gathering, place_of, turned
from .link import Arrival, Link
from .lockstep import Marked
from .plugin import IncomingOptions, ToolRow
from .streams import Note, Reading, WireEntry, WireNumbers, WirePicture, WirePictures
from .wire import (
    Image,
    ImageMeta,
    MessageRefused,
    NumberArray,
    Packet,
    Points,
    SensorData,
    StartTracking,
    Status,
    Text,
    unit_of,
)

FIXED_SIGMA = (1e-3, 1e-4)  # mm, degrees: of a tool that is the sender's own frame; a covariance must not be singular
RINGS = 8  # devices whose arrays have a ring of their own; the others share one
SAY_AGAIN_NS = SECOND


class Incoming:
    """Takes every message that arrived, never waits, and says what is lost."""

    def __init__(self, ctx: Context) -> None:
        """Start to listen or to connect. In virtual time the other end must be the part igtl_served."""
        self._ctx = ctx
        self._options: IncomingOptions = ctx.options
        self._gathering = Gathering(self._options)
        o = self._options
        self._clocks = SenderClocks(o, lambda: ctx.device_clock(o.latency_ms, o.latency_sigma_ms), ctx.log)
        self._rings: dict[str, str] = {}  # by device
        self._odd_units: set[str] = set()  # devices of which it was said
        self._lost = 0  # messages of which it was said
        self._heard_ns = self._seen_ns = self._said_ns = 0  # any message, a frame, a complaint
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

    def step(self, t_ns: int, inbox: Inbox) -> Iterator[Message]:
        """Publish what has arrived by `t_ns` [ns]; raise PluginError where virtual time has no such sender."""
        for arrival in self._reader.take() if self._marked is None else self._marked.take(t_ns):
            self._heard_ns = arrival.t_ns
            yield from self._take(arrival)
        for frame in self._gathering.due(t_ns):
            yield self._exposure(frame)
        if self._reader.lost > self._lost:
            self._ctx.log.warning("%d messages are lost: they come faster than they are taken", self._reader.lost)
            self._lost = 2 * self._reader.lost  # said again when it is twice as bad
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
                t_ns, _ = self._clocks.time(arrival.link, packet.stamp_ns, arrival.t_ns)
                yield ImageTarget(t_ns=t_ns, of=of, position=(x, y, z), covariance=covariance)
        if isinstance(content, Status):
            self._gathering.status(packet.device, content)
            yield Note(t_ns=arrival.t_ns, of=packet.device, kind="status", text=f"{content.meaning}: {content.text}")
        elif isinstance(content, Text):
            yield Note(t_ns=arrival.t_ns, of=packet.device, kind="text", text=content.text)
        elif isinstance(content, (Image, NumberArray)):
            yield from self._bulky(arrival, content)
        elif isinstance(content, ImageMeta):
            entries = tuple(WireEntry(e.name, e.id, e.modality, e.size) for e in content.images)
            yield WirePictures(t_ns=arrival.t_ns, of=packet.device, pictures=entries)
        elif isinstance(content, SensorData):
            yield self._reading(arrival, content)
        elif not isinstance(content, (*TRACKED, Points)):
            self._ctx.log.debug("%s of %s passed over", content.type_name, packet.device)

    def _exposure(self, frame: Frame) -> Exposure:
        self._seen_ns = frame.first.t_ns
        t_ns, sigma_ns = self._clocks.time(frame.first.link, frame.stamp_ns, frame.first.t_ns)
        tools: dict[str, PoseWire] = {}
        for tool, matrix in frame.poses.items():
            pose = Transform("tracker", tool, matrix)
            tools[tool] = PoseWire.of(pose, covariance_of(self._options.tools[tool], pose))
        return Exposure(t_ns=t_ns, sigma_t_ns=sigma_ns, tools=tools, lost=frame.lost)

    def _bulky(self, arrival: Arrival, content: Image | NumberArray) -> Iterator[WirePicture | WireNumbers]:
        """Share an array and publish where it lies; say so where it cannot be shared."""
        packet = arrival.packet
        t_ns, sigma_ns = self._clocks.time(arrival.link, packet.stamp_ns, arrival.t_ns)
        values = content.voxels if isinstance(content, Image) else real(content.values)
        if packet.device not in self._rings and len(self._rings) < RINGS:
            self._rings[packet.device] = f"array-{len(self._rings)}"
        ring = self._rings.get(packet.device, "arrays")
        try:
            ref = self._ctx.share(ring, values.astype(values.dtype.newbyteorder("="), copy=False))
        except (OSError, TwinGuideError) as error:  # the memory that is shared is full
            self._ctx.log.warning("%s of %s is lost: %s", content.type_name, packet.device, error)
            return
        if isinstance(content, Image):
            world = ArrayWire.of(world_from_index(content))
            yield WirePicture(t_ns=t_ns, of=packet.device, sigma_t_ns=sigma_ns, voxels=ref, world_from_index=world)
        else:
            yield WireNumbers(t_ns=t_ns, of=packet.device, sigma_t_ns=sigma_ns, values=ref)

    def _reading(self, arrival: Arrival, content: SensorData) -> Reading:
        packet = arrival.packet
        t_ns, sigma_ns = self._clocks.time(arrival.link, packet.stamp_ns, arrival.t_ns)
        try:
            power, units = unit_of(content.unit)
        except MessageRefused as error:
            if packet.device not in self._odd_units:
                self._odd_units = {packet.device, *list(self._odd_units)[:RINGS]}
                self._ctx.log.warning("readings of %s without their unit: %s", packet.device, error)
            power, units = 0, {}
        scale = 10.0**power
        if "g" in units:  # the wire's gram, SI's kilogram
            scale *= 1e-3 ** units["g"]
        named = {"kg" if unit == "g" else unit: exponent for unit, exponent in units.items()}
        text = " ".join(unit if e == 1 else f"{unit}^{e}" for unit, e in named.items())
        values = tuple(value * scale for value in content.values)
        return Reading(t_ns=t_ns, of=packet.device, sigma_t_ns=sigma_ns, values=values, unit=text)

    def _silence(self, t_ns: int) -> Iterator[Lost]:
        """Say once a second that no tool is told of, and why."""
        if t_ns - self._seen_ns < self._options.silent_ms * MS or t_ns - self._said_ns < SAY_AGAIN_NS:
            return
        self._said_ns = t_ns
        why = self._why_silent(t_ns)
        for tool, row in self._options.tools.items():
            if not row.fixed:
                yield Lost(t_ns=t_ns, of=tool, reason=why)

    def _why_silent(self, t_ns: int) -> str:
        if not self._endpoint.links:
            return getattr(self._endpoint, "problem", "") or "nobody has connected"
        refused = next((link.decoder.last_refusal for link in self._endpoint.links if link.decoder.last_refusal), "")
        if t_ns - self._heard_ns < self._options.silent_ms * MS:
            return f"the sender tells of other things only{self._gathering.others()}"
        silent = f"connected, but silent for {(t_ns - self._heard_ns) / SECOND:.1f} s" if self._heard_ns else "silent"
        return f"{silent}; refused: {refused}" if refused else silent


def world_from_index(image: Image) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return where the indices of an image's voxels lie [m], shape (4, 4), in LPS; they may be a part of the whole."""
    world = image.world_from_index_mm()
    world[:3, 3] += world[:3, :3] @ image.start
    world[:3] *= 1e-3
    return RAS_LPS @ world if image.axes == "ras" else world


def real(values: NDArray[Any]) -> NDArray[Any]:
    """Return numbers with real and imaginary part on a last axis of 2, where they are complex."""
    if values.dtype.kind != "c":
        return values
    return np.stack([np.real(values), np.imag(values)], axis=-1)


def covariance_of(row: ToolRow, pose: Transform) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return a pose's covariance, shape (6, 6), in the tool's frame, as the scenario's table states it."""
    if row.markers_mm and not row.fixed and min(row.noise_mm) > 0.0:
        return from_markers(pose.rotation, np.array(row.markers_mm) * 1e-3, np.array(row.noise_mm) * 1e-3)
    sigma_mm, sigma_deg = FIXED_SIGMA if row.fixed else (row.sigma_mm, row.sigma_deg)
    return pose_covariance(np.radians(sigma_deg), sigma_mm * 1e-3)
