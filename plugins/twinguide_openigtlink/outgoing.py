"""What goes out: the twin to 3D Slicer, at stated rates, in the image's frame. A slow viewer gets the newest only."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from twinguide import (
    Ack,
    Command,
    Context,
    Exposure,
    Inbox,
    Message,
    PoseWire,
    Registration,
    Shown,
    Solution,
    Transform,
    TwinGuideError,
)
from twinguide.clock import SECOND
from twinguide.embedding import Embedding, embed
from twinguide.messages import Calibration

from .border import Names, between_axes, name_of, shortened, wire_matrix
from .client import Client
from .endpoints import Endpoint, Server
from .link import Arrival, Link
from .plugin import OutgoingOptions
from .wire import Capability, Fiducial, Packet, Points, PolyData, Query, Status, Text
from .wire import Command as WireCommand
from .wire import Transform as WireTransform

SENT = ("TRANSFORM", "POLYDATA", "POINT", "STRING", "STATUS", "CAPABILITY", "RTS_COMMAND")
COMMAND_NAME_BYTES = 128  # a foreign name, read as another encoding, may have become longer
FINDINGS, FINDING_LETTERS = 64, 80  # told at once: a STRING ends at 65535 bytes
ASKS_WAITING = 64  # commands of the other side that are not yet carried out


class Outgoing:
    """Keeps what was last known and sends it when its time has come."""

    def __init__(self, ctx: Context) -> None:
        """Embed the case's structures in the body, and listen or connect."""
        self._ctx = ctx
        self._options: OutgoingOptions = ctx.options
        names = self._options.structures
        self._structures = [n for n in ctx.case.structures if names is None or n in names]
        body = ctx.case.body()
        self._triangles = {n: ctx.case.surface(n).triangles for n in self._structures}
        self._rest = {n: ctx.case.surface(n).vertices for n in self._structures}
        self._embedded: dict[str, Embedding] = {
            n: embed(body, self._rest[n]) for n in self._structures if ctx.case.structures[n].moves
        }
        self._names = Names()
        for name in self._structures:
            self._names.of(f"Twin_{name}")
        if self._names.cut:
            ctx.log.warning("names of more than 20 bytes are cut for the wire: %s", self._names.cut)
        self._body_shape = body.vertices.shape
        self._frames: dict[str, Transform] = {}  # image_from_reference, stage_from_tracker, tracker_from_<tool>
        self._shown: Shown | None = None
        self._solution: Solution | None = None
        self._due_ns: dict[str, int] = {}
        self._fresh = threading.Event()  # somebody has connected who knows nothing yet
        self._asked: deque[tuple[Link, WireCommand]] = deque(maxlen=ASKS_WAITING)
        self._pending: dict[str, tuple[Link, WireCommand]] = {}
        self._endpoint = self._open().start()

    def _open(self) -> Endpoint:
        o = self._options
        if o.listen:
            return Server(o.port, o.host, on_arrival=self._hear, on_link=self._greet)
        return Client(o.host, o.port, on_arrival=self._hear, on_link=self._greet)

    def _greet(self, link: Link) -> None:
        if link.open:
            self._fresh.set()

    def _hear(self, arrival: Arrival) -> None:
        """Answer a query, keep a command for the next step; called in the sockets' thread."""
        content = arrival.packet.content
        if isinstance(content, Query) and content == Query("GET", "CAPABILITY"):
            self._endpoint.send(Packet(Capability(SENT), "TwinGuide"), arrival.link)
        elif isinstance(content, Query) and content == Query("GET", "STATUS"):
            self._endpoint.send(Packet(Status(), "TwinGuide"), arrival.link)
        elif isinstance(content, WireCommand) and not content.answer:
            self._asked.append((arrival.link, content))

    def step(self, t_ns: int, inbox: Inbox) -> Iterator[Message]:
        """Send what is due at `t_ns` [ns], and publish the commands that the scenario allows."""
        for message in inbox:
            self._learn(message)
        for ack in inbox.of(Ack):
            self._answer(ack)
        while self._asked:
            yield from self._ask(t_ns, *self._asked.popleft())
        if not self._endpoint.links:
            return
        fresh = self._fresh.is_set()
        self._fresh.clear()
        if fresh:
            self._send_rest(t_ns)
        if self._solution is not None and self._due("surfaces", self._options.surfaces_hz, t_ns):
            self._send_surfaces()
        if self._due("poses", self._options.poses_hz, t_ns):
            self._send_poses()
        if self._due("findings", self._options.findings_hz, t_ns):
            self._send_findings()

    def close(self) -> None:
        """Close the sockets; a part's process closes them by ending."""
        self._endpoint.close()

    def _learn(self, message: Message) -> None:
        match message:
            case Registration():
                self._frames.pop("image_from_reference", None)
                if message.reference_from_image is not None:
                    self._keep(message.reference_from_image, message.t_ns, inverse=True)
            case Calibration() if message.name == "stage_from_tracker":
                self._keep(message.pose, message.t_ns)
            case Exposure():
                for tool in (*message.lost, *message.tools):
                    self._frames.pop(f"tracker_from_{tool}", None)
                for wire in message.tools.values():
                    self._keep(wire, message.t_ns)
            case Shown():
                self._shown = message
            case Solution() if message.of == self._ctx.case.organ:
                self._solution = message
            case _:
                pass

    def _keep(self, wire: PoseWire, t_ns: int, *, inverse: bool = False) -> None:
        try:
            transform = wire.pose(t_ns).transform
        except TwinGuideError as error:
            self._ctx.log.warning("a pose passed over: %s", error)
            return
        transform = transform.inverse() if inverse else transform
        self._frames[f"{transform.target}_from_{transform.source}"] = transform

    def _due(self, what: str, rate_hz: float, t_ns: int) -> bool:
        """Return whether it is time for the next of `rate_hz`; on the mean they keep it, whatever the steps' rate."""
        due_ns = self._due_ns.get(what, t_ns)
        if rate_hz <= 0.0 or t_ns < due_ns:
            return False
        period_ns = round(SECOND / rate_hz)
        self._due_ns[what] = (due_ns if t_ns - due_ns < period_ns else t_ns) + period_ns
        return True

    # ---- what is sent -----------------------------------------------------------------------------------------------

    @property
    def _ras(self) -> bool:
        return self._options.axes == "ras"

    def _points_mm(self, points: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return points [m], shape (n, 3), in image, in the viewer's axes [mm]."""
        out = points.astype(np.float32) * np.float32(1e3)
        if self._ras:
            out[:, :2] *= -1.0
        return out

    def _send(self, content: WireTransform | PolyData | Points | Text, device: str, t_ns: int) -> None:
        stamp_ns = self._wall_ns(t_ns)
        self._endpoint.send(Packet(content, self._names.of(device), stamp_ns), newest_only=True)

    def _wall_ns(self, t_ns: int) -> int:
        """Return a time of the run as UTC, which is what the wire's stamps mean."""
        return time.time_ns() - time.monotonic_ns() + t_ns

    def _send_rest(self, t_ns: int) -> None:
        """Send each structure as the CT shows it: once to each newcomer."""
        for name in self._structures:
            self._send_surface(name, self._rest[name], t_ns)

    def _send_surface(self, name: str, vertices: NDArray[np.floating], t_ns: int) -> None:
        surface = PolyData.of_triangles(self._points_mm(vertices), self._triangles[name])
        self._send(surface, f"Twin_{name}", t_ns)

    def _send_surfaces(self) -> None:
        solution, self._solution = self._solution, None
        vertices = None if solution is None else self._ctx.bulk(solution.vertices)
        if solution is None or vertices is None or vertices.shape != self._body_shape:
            return  # nothing new, or overwritten while we were busy
        for name, embedding in self._embedded.items():
            self._send_surface(name, embedding.apply(vertices), solution.t_ns)

    def _send_poses(self) -> None:
        image_from_tracker = self._image_from_tracker()
        shown = self._shown
        if shown is None or image_from_tracker is None:
            return
        t_ns = shown.t_ns
        for tool in self._options.tools:
            pose = self._frames.get(f"tracker_from_{tool}")
            if pose is not None:
                self._send_pose(image_from_tracker @ pose, t_ns)
        self._send_pose(self._frames["image_from_reference"], t_ns)
        stage = self._frames.get("stage_from_tracker")
        if stage is not None:
            head = shown.stage_from_head.pose(t_ns).transform
            self._send_pose(image_from_tracker @ stage.inverse() @ head, t_ns)
        if shown.target is not None:
            target = self._frames["image_from_reference"].apply(np.array(shown.target))
            x, y, z = self._points_mm(target[None])[0].tolist()
            self._send(Points((Fiducial("target", (x, y, z), "Target", (255, 0, 0, 255)),)), "Twin_Target", t_ns)

    def _image_from_tracker(self) -> Transform | None:
        image = self._frames.get("image_from_reference")
        reference = self._frames.get(f"tracker_from_{self._options.reference}")
        if image is None or reference is None:
            return None
        inverse = reference.inverse()
        return image @ Transform.unchecked("reference", inverse.source, inverse.matrix)

    def _send_pose(self, pose: Transform, t_ns: int) -> None:
        matrix = between_axes(pose.matrix, target_ras=self._ras, source_ras=False)
        self._send(WireTransform(wire_matrix(matrix)), name_of("image", pose.source), t_ns)

    def _send_findings(self) -> None:
        if self._shown is None:
            return
        found = [
            {"name": f.name, "of": f.of, "value": f.value, "sigma": f.sigma, "unit": f.unit, "severity": f.severity,
             "text": f.text[:FINDING_LETTERS]}
            for f in self._shown.findings[:FINDINGS]
        ]  # fmt: skip
        said = json.dumps({"step": self._shown.step, "findings": found}, allow_nan=False)
        self._send(Text(said), "Twin_Findings", self._shown.t_ns)

    # ---- what is asked ----------------------------------------------------------------------------------------------

    def _ask(self, t_ns: int, link: Link, asked: WireCommand) -> Iterator[Command]:
        """Publish a command that the scenario allows; refuse any other at once."""
        kind, _, argument = asked.name.removeprefix("TwinGuide.").partition(" ")
        allowed = {str(name) for name in self._options.commands}
        if kind not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            self._reply(link, asked, ok=False, text=f"{kind!r} is not a command that the scenario allows: {known}")
            return
        name = f"igtl-{link.peer}-{asked.id}"
        self._pending[name] = (link, asked)
        yield Command(t_ns=t_ns, id=name, kind=kind, argument=argument or asked.text)  # pyright: ignore[reportArgumentType]

    def _answer(self, ack: Ack) -> None:
        waiting = self._pending.pop(ack.id, None)
        if waiting is not None:
            self._reply(*waiting, ok=ack.accepted, text=ack.reason)

    def _reply(self, link: Link, asked: WireCommand, *, ok: bool, text: str) -> None:
        """Answer as 3D Slicer expects it: RTS_COMMAND of the same number, the result as XML and as metadata."""
        word = "SUCCESS" if ok else "FAIL"
        xml = f'<Command><Result success="{str(ok).lower()}"/></Command>'
        content = WireCommand(asked.id, shortened(asked.name, COMMAND_NAME_BYTES), xml, answer=True)
        self._endpoint.send(Packet(content, "TwinGuide", metadata={"Status": word, "Message": text}), link)
