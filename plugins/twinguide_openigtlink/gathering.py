"""Messages of a tracker to frames: all tools of one instant, and why those that are absent are absent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinguide import TwinGuideError

from .border import RAS_LPS, between_axes, matrix_of
from .link import Arrival
from .plugin import IncomingOptions, ToolRow
from .wire import Position, QuaternionTool, QuaternionTrackingData, Status, Tool, TrackingData, Transform

Array = NDArray[np.float64]
Posed = Transform | Position | Tool | QuaternionTool
TRACKED = (Transform, Position, TrackingData, QuaternionTrackingData)
SAYS_LOST = {"missing", "invalid", "out_of_view", "outofview", "false", "0", "error", "lost", "not_visible"}
FOREIGN_LIMIT, SOME = 64, 4  # names that are kept, and told
STATUS_KEYS = ("Status", "TransformStatus", "ToolStatus", "TransformValid")


@dataclass
class Frame:
    """One instant of a tracker, on its own clock: tracker_from_<tool> [m], shape (4, 4), and who is lost, why."""

    stamp_ns: int  # 0: the sender gives none
    first: Arrival
    poses: dict[str, Array] = field(default_factory=dict[str, Array])
    lost: dict[str, str] = field(default_factory=dict[str, str])


class Gathering:
    """Puts a tracker's messages together. TDATA is a frame by itself; transforms of one instant are.

    Senders that stamp each transform by itself, or none, are told by time: what lies within `gather_ms` is one instant,
    until a tool comes again.
    """

    def __init__(self, options: IncomingOptions) -> None:
        self._options = options
        self._tool_of = {row.name: tool for tool, row in options.tools.items() if row.name}
        self._fixed = [tool for tool, row in options.tools.items() if row.fixed]
        self._moving = [tool for tool, row in options.tools.items() if not row.fixed]
        self._targets = {row.name for row in options.targets.values()}
        self._wait_ns = round(options.gather_ms * 1e6)
        self._open: Frame | None = None
        self._bad: dict[str, str] = {}  # by a STATUS of the tool's own
        self.foreign: dict[str, int] = {}  # names that are not in the table, and how often they came

    def add(self, arrival: Arrival) -> Iterator[Frame]:
        """Take one message of a tracked type and return the frames that it completes."""
        packet = arrival.packet
        content = packet.content
        if not self._options.tools:
            return
        if isinstance(content, (TrackingData, QuaternionTrackingData)):
            frame = Frame(packet.stamp_ns, arrival)
            for tool in content.tools:
                self._place(frame, tool.name, tool, {})
            yield self._whole(frame)
        elif isinstance(content, (Transform, Position)):
            if self._tool_of.get(packet.device) is None:
                self._pass_over(packet.device)
                return
            if self._open is not None and not self._belongs(arrival, self._open):
                yield from self._finish()
            self._open = self._open or Frame(packet.stamp_ns, arrival)
            self._place(self._open, packet.device, content, packet.metadata)
            if all(tool in self._open.poses or tool in self._open.lost for tool in self._moving):
                yield from self._finish()

    def due(self, now_ns: int) -> Iterator[Frame]:
        """Return the frame that has waited long enough for the rest of its transforms."""
        if self._open is not None and now_ns - self._open.first.t_ns >= self._wait_ns:
            yield from self._finish()

    def status(self, device: str, status: Status) -> None:
        """Take a STATUS: of a tool it says whether the tool is seen, until it says otherwise."""
        tool = self._tool_of.get(device)
        if tool is not None:
            self._bad.pop(tool, None)
            if not status.ok:
                self._bad[tool] = f"the tracker says: {status.text or status.error or status.meaning}"

    def others(self) -> str:
        """Return the names that came and are not in the table, as the end of a sentence."""
        if not self.foreign:
            return ""
        return f"; it tells of {', '.join(sorted(self.foreign)[:SOME])}, which no row of the table names"

    def _belongs(self, arrival: Arrival, frame: Frame) -> bool:
        tool, stamp_ns = self._tool_of[arrival.packet.device], arrival.packet.stamp_ns
        if stamp_ns and stamp_ns == frame.stamp_ns:
            return True
        if tool in frame.poses or tool in frame.lost:
            return False
        if stamp_ns and frame.stamp_ns:
            return abs(stamp_ns - frame.stamp_ns) < self._wait_ns
        return arrival.t_ns - frame.first.t_ns < self._wait_ns

    def _pass_over(self, name: str) -> None:
        if name not in self._targets and (name in self.foreign or len(self.foreign) < FOREIGN_LIMIT):
            self.foreign[name] = self.foreign.get(name, 0) + 1

    def _finish(self) -> Iterator[Frame]:
        frame, self._open = self._open, None
        if frame is not None and (frame.poses or frame.lost):
            yield self._whole(frame)

    def _whole(self, frame: Frame) -> Frame:
        for tool in self._fixed:
            frame.poses[tool] = np.eye(4)
        for tool in self._moving:
            if tool in self._bad:
                frame.poses.pop(tool, None)
                frame.lost[tool] = self._bad[tool]
            elif tool not in frame.poses:
                frame.lost.setdefault(tool, f"not among the tools that the tracker sent{self.others()}")
        return frame

    def _place(self, frame: Frame, name: str, content: Posed, metadata: Mapping[str, str]) -> None:
        tool = self._tool_of.get(name)
        if tool is None:
            self._pass_over(name)
            return
        said = _says_lost(name, metadata)
        if said:
            frame.lost[tool] = f"the tracker says: {said}"
            return
        try:
            matrix = matrix_of(content)
        except TwinGuideError as error:
            frame.lost[tool] = f"its matrix is unusable: {error}"
            return
        if self._options.identity_is_lost and np.array_equal(matrix, np.eye(4)):
            frame.lost[tool] = "the identity, which stands for a tool that is not seen"
            return
        frame.poses[tool] = _ours(matrix, self._options.tools[tool], ras=self._options.axes == "ras")
        frame.lost.pop(tool, None)


def _ours(matrix: Array, row: ToolRow, *, ras: bool) -> Array:
    matrix = between_axes(matrix, target_ras=ras, source_ras=ras)
    if not row.inverted:
        return matrix
    out = np.eye(4)
    out[:3, :3] = matrix[:3, :3].T
    out[:3, 3] = -out[:3, :3] @ matrix[:3, 3]
    return out


def _says_lost(name: str, metadata: Mapping[str, str]) -> str:
    for key in (*STATUS_KEYS, f"{name}Status", f"{name}TransformStatus"):
        value = metadata.get(key, "")
        if value.strip().lower() in SAYS_LOST:
            return f"{key} {value}"
    return ""


def place_of(content: Any) -> Array | None:  # noqa: ANN401 - any content
    """Return the point [m], shape (3,), that a POINT (its first), POSITION or TRANSFORM tells, or None."""
    from .wire import Points

    if isinstance(content, Points):
        return np.array(content.points[0].position_mm) * 1e-3 if content.points else None
    if isinstance(content, Position):
        return np.array(content.position_mm) * 1e-3
    if isinstance(content, Transform):
        return content.matrix_mm[:3, 3] * 1e-3
    return None


def turned(place: Array, *, ras: bool) -> Array:
    """Return a point [m], shape (3,), of a patient told in RAS, in LPS; any other as it is."""
    return RAS_LPS[:3, :3] @ place if ras else place
