"""Declare what comes from OpenIGTLink, what goes to it, and a simulated sensor served over it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from twinguide import (
    Ack,
    Command,
    Exposure,
    ImageTarget,
    Lost,
    Part,
    Registration,
    Sensor,
    Shown,
    Solution,
    Topic,
    hookimpl,
)
from twinguide.messages import BodiesSeen, Calibration

from .streams import Note, Reading, WireNumbers, WirePicture, WirePictures

Positive = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Name = Annotated[str, Meta(min_length=1, max_length=20)]
Vec3mm = tuple[float, float, float]


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table whose unknown keys are errors."""


class ToolRow(Strict, frozen=True, kw_only=True):
    """How one tool is called on the wire, and how sure its pose is."""

    name: Annotated[str, Meta(max_length=20)] = ""  # "NeedleToTracker", or a tool's name in TDATA; empty with `fixed`
    inverted: bool = False  # the wire has needle_from_tracker
    fixed: bool = False  # it is the sender's own frame: the identity, always seen (poses told in the reference's frame)
    sigma_mm: Positive = 0.25  # stated error, 1 sigma per axis
    sigma_deg: Positive = 0.1
    markers_mm: tuple[Vec3mm, ...] = ()  # with `noise_mm`, instead: the covariance is that of a fit to these markers
    noise_mm: Vec3mm = (0.0, 0.0, 0.0)  # per marker along the camera's axes, 1 sigma


class TargetRow(Strict, frozen=True, kw_only=True):
    """A structure that the sender locates, by POINT, POSITION or TRANSFORM, in the reference's frame."""

    name: Name  # the message's device name
    sigma_mm: Positive = 1.5  # per axis


class IncomingOptions(Strict, frozen=True, kw_only=True):
    """Where from, and the table that maps the wire's names to ours."""

    host: str = "127.0.0.1"
    port: Port = 18944
    listen: bool = False  # be the server: for a 3D Slicer or a device that connects to us
    tools: dict[str, ToolRow] = {}
    targets: dict[str, TargetRow] = {}
    axes: Literal["own", "ras"] = "own"  # ras: the sender tells a patient's axes on both sides, as 3D Slicer does
    latency_ms: NonNegative = 0.0  # from the event to its earliest arrival, as the device's maker states it
    latency_sigma_ms: NonNegative = 1.0
    rate_hz: Positive = 60.0  # at which the tracker's exposures are expected: by it the twin judges their silence
    gather_ms: Positive = 8.0  # how long the single transforms of one instant are waited for
    silent_ms: Positive = 100.0  # of no message at all, after which all tools are lost
    request: Literal["", "TDATA", "QTDATA"] = ""  # ask for it with STT_
    interval_ms: Annotated[int, Meta(ge=0)] = 0
    identity_is_lost: bool = True  # a tool at exactly the identity is how some senders say that they do not see it

    def __post_init__(self) -> None:
        names = [row.name for row in self.tools.values() if not row.fixed]
        if missing := [tool for tool, row in self.tools.items() if not row.fixed and not row.name]:
            raise ValueError(f"tool {missing[0]} has neither a name on the wire nor fixed = true")
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two tools are called {twice[0]!r} on the wire")


class OutgoingOptions(Strict, frozen=True, kw_only=True):
    """Where to, how often, and what the other side may ask."""

    host: str = "127.0.0.1"
    port: Port = 18945
    listen: bool = True
    axes: Literal["ras", "lps"] = "ras"  # of the image; 3D Slicer expects RAS
    structures: tuple[str, ...] | None = None  # None: all
    tools: tuple[str, ...] = ("needle", "pointer")
    reference: str = "reference"
    surfaces_hz: NonNegative = 10.0  # 0: never
    poses_hz: NonNegative = 30.0
    findings_hz: NonNegative = 2.0
    commands: tuple[Literal["start", "touch", "confirm", "reject", "train", "overlay", "stop"], ...] = ()


class ServedOptions(Strict, frozen=True, kw_only=True):
    """A simulated sensor in place of a device: which, and how its clock and names appear on the wire."""

    plugin: str = "twinguide_tracker.plugin"
    part: str = "tracker"
    options: dict[str, Any] = {}
    host: str = "127.0.0.1"
    port: Port = 18944
    names: dict[str, str] = {}  # tool -> name on the wire; default "NeedleToTracker"
    form: Literal["TDATA", "QTDATA", "TRANSFORM"] = "TDATA"
    version: Annotated[int, Meta(ge=1, le=2)] = 2
    clock_offset_s: NonNegative = 100.0  # what its clock shows at the run's zero
    clock_drift_ppm: float = 20.0


@hookimpl
def parts() -> Iterable[Part]:
    """Declare the border's two directions and the served sensor."""
    return [
        Sensor(
            "igtl",
            make="twinguide_openigtlink.incoming:Incoming",
            publishes={
                "exposure": Topic(Exposure, rate_hz=60.0),
                "target": Topic(ImageTarget),
                "lost": Topic(Lost),
                "picture": Topic(WirePicture, qos="bulk"),
                "pictures": Topic(WirePictures),
                "numbers": Topic(WireNumbers, qos="bulk"),
                "reading": Topic(Reading),
                "note": Topic(Note),
            },
            rate_hz=250.0,
            options=IncomingOptions,
        ),
        Sensor(
            "igtl_out",
            make="twinguide_openigtlink.outgoing:Outgoing",
            subscribes=[Solution, Registration, Calibration, Shown, Exposure, Ack],
            publishes={"command": Topic(Command, qos="command")},
            rate_hz=60.0,
            options=OutgoingOptions,
        ),
        Sensor(
            "igtl_served",
            make="twinguide_openigtlink.served:Served",
            observes=[BodiesSeen],
            rate_hz=500.0,  # a sample waits for a step by 2 ms at most
            options=ServedOptions,
        ),
    ]


@hookimpl
def commands() -> Mapping[str, str]:
    """Name the bench: `twinguide igtl listen|serve|replay|probe`."""
    return {"igtl": "twinguide_openigtlink.bench:igtl"}


@hookimpl
def scenarios() -> Mapping[str, Path]:
    """Name the scenario files in this folder."""
    return {file.stem: file for file in sorted((Path(__file__).parent / "scenarios").glob("*.toml"))}
