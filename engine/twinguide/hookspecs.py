"""Every extension point, on one page. A hook is called once, at load, and only *declares* parts.

A part names its class by string (`"package.module:Class"`), so it is imported only where it runs: inside the loop's
process or in its own. The host owns the loop; a part answers `step(t_ns, inbox) -> messages` and never blocks it, never
opens a socket of ours, never sees GL. A part's class is made as `Class(ctx)` with a `Context`.

    Sensor("force", make="acme.driver:Driver", publishes={"force": Topic(Force, rate_hz=200)}, rate_hz=200)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import msgspec
import pluggy

from twinguide.messages import Message

if TYPE_CHECKING:
    import logging

    import numpy as np
    from numpy.typing import NDArray

    from twinguide.case import Case
    from twinguide.clock import ClockMapping
    from twinguide.inbox import Inbox
    from twinguide.messages import BulkRef

ENTRY_POINT_GROUP = "twinguide.plugins.v0"
hookspec = pluggy.HookspecMarker("twinguide")
hookimpl = pluggy.HookimplMarker("twinguide")

Qos = Literal["stream", "bulk", "state", "command", "health", "world", "truth"]


class Hooks(Protocol):
    """What a plugin module may implement, with `@hookimpl`."""

    @hookspec
    def parts(self) -> Iterable[Part]:  # pyright: ignore[reportReturnType]
        """Declare the parts that this plugin offers; a scenario picks them by name."""

    @hookspec
    def scenarios(self) -> Mapping[str, Path]:  # pyright: ignore[reportReturnType]
        """Declare scenario files by name, so that `twinguide run NAME` finds them."""

    @hookspec
    def commands(self) -> Mapping[str, str]:  # pyright: ignore[reportReturnType]
        """Declare click commands as `{name: "package.module:command"}`; `twinguide NAME` imports one when asked."""


@dataclass(frozen=True)
class Topic:
    """One message type that a part publishes; the topic's name is `v1/<qos>/<part>/<name>`."""

    message: type[Message]
    qos: Qos = "stream"
    rate_hz: float = 0.0  # 0: irregular, never silent


class NoOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part without options."""


@dataclass(frozen=True)
class Part:
    """What all parts declare.

    `publishes` maps a topic's short name to its message type; one type stands for one topic of a part, so a step simply
    returns messages. `subscribes` lists message types, whoever publishes them. A `rate_hz` makes steps on time, a type
    in `wakes_on` makes one on arrival; a part may have both. Guidance, Overlay and Organ are not stepped and have none
    of these four. `options` is a msgspec Struct with `forbid_unknown_fields=True`; its keys are what a scenario may
    set. A name has 1 to 32 of `a-z 0-9 _ -`, and begins with a letter or digit.
    """

    name: str
    make: str
    publishes: Mapping[str, Topic] = field(default_factory=dict[str, Topic])
    subscribes: Sequence[type[Message]] = ()
    wakes_on: Sequence[type[Message]] = ()
    rate_hz: float = 0.0
    options: type[msgspec.Struct] = NoOptions
    placement: Literal["inside", "process"] = "process"

    order: ClassVar[int] = 0  # lockstep: parts due at the same time step in this order, equals concurrently
    nice: ClassVar[int] = 0  # the host process's niceness


@dataclass(frozen=True)
class World(Part):
    """The simulated patient and room: the only publisher of truth.

    `head`, if given, names a class `Head(ctx)` with `true(t_ns)` and `reported(t_ns)`, each a `stage_from_head`
    Transform: the simulated headset asks it for `reported`, the world publishes `true` as truth.
    """

    head: str = ""
    order: ClassVar[int] = 0
    nice: ClassVar[int] = 5


@dataclass(frozen=True)
class Sensor(Part):
    """A device, real or simulated. `observes` lists the world messages that only a simulated sensor may see."""

    observes: Sequence[type[Message]] = ()
    order: ClassVar[int] = 1
    nice: ClassVar[int] = 5


@dataclass(frozen=True)
class Motion(Part):
    """A model of how the anatomy moves: publishes `Displacement`, may train first (`Training`)."""

    trains: bool = False
    order: ClassVar[int] = 2
    nice: ClassVar[int] = 5


@dataclass(frozen=True)
class Contract:
    """What a solver promises: its deadline, and each level's 95 % error [mm]."""

    deadline_ms: float
    levels: Mapping[str, float]


@dataclass(frozen=True)
class Solver(Part):
    """A deformation solver: publishes `Solution` under its contract."""

    contract: Contract = Contract(deadline_ms=11.0, levels={"rigid": 6.0})
    order: ClassVar[int] = 3
    nice: ClassVar[int] = 10


@dataclass(frozen=True)
class Operator(Part):
    """A simulated person: sees `Shown` and states, answers with `Command` and `Act`."""

    order: ClassVar[int] = 4
    nice: ClassVar[int] = 5


@dataclass(frozen=True)
class Guidance(Part):
    """Measurements on a frame: `make` names a class with `assess(twin) -> findings`; inside, every second frame."""

    placement: Literal["inside"] = "inside"
    budget_ms: float = 1.0


@dataclass(frozen=True)
class Overlay(Part):
    """Extra marks in the picture: `make` names a class with `marks(twin) -> marks`; inside, data only, no GL."""

    placement: Literal["inside"] = "inside"
    budget_ms: float = 1.0


@dataclass(frozen=True)
class Anatomy:
    """A structure that an organ plugin knows: how files of it are named, and what it means for a needle."""

    name: str
    role: Literal["organ", "tumour", "vessel", "bile", "bone", "pleura", "skin", "cyst", "other"]
    match: Sequence[str]  # a file's stem containing one of these is this structure
    colour: tuple[float, float, float]  # display-encoded sRGB, 0..1
    risk: Literal["target", "critical", "pass", "none"] = "none"
    margin_mm: float = 0.0  # to keep from the needle
    tolerance_mm: float = 10.0  # the predicted 95 % error up to which it is shown unmarked
    young_pa: float = 0.0  # [Pa]; 0: the organ's own
    young_sigma_pa: float = 0.0
    poisson: float = 0.45
    side: Literal["left", "right", ""] = ""  # where it must lie in the patient, for the laterality check
    source: str = ""  # where margin and stiffness come from


@dataclass(frozen=True)
class Organ(Part):
    """An organ: its structures, and optionally `make` names `generate(folder, seed)`, which writes surfaces."""

    structures: Sequence[Anatomy] = ()


class Context(Protocol):
    """What a part's constructor is given; the same inside and in a process."""

    name: str
    options: Any  # the part's options Struct
    seed: int
    case: Case
    log: logging.Logger
    real_time: bool  # whether time passes while a step runs: not in lockstep, where to measure it would spoil the bits

    def rng(self, stream: str = "") -> np.random.Generator:
        """Return a generator seeded by the run's seed, the part's name and `stream`."""
        ...

    def device_clock(self, latency_ms: float = 0.0, sigma_ms: float = 0.0) -> ClockMapping:
        """Return a mapping from a device's clock to the host's."""
        ...

    def share(self, ring: str, values: NDArray[Any]) -> BulkRef:
        """Write an array [any unit, any shape] into the part's shared-memory ring and return where it lies."""
        ...

    def bulk(self, ref: BulkRef) -> NDArray[Any] | None:
        """Return a copy of a shared array, or None where it has been overwritten."""
        ...


class PartLike(Protocol):
    """What a part's class answers.

    A part placed inside the loop's process may also have a `close()`, called when the run ends; a process just ends.
    """

    def step(self, t_ns: int, inbox: Inbox) -> Iterable[Message]:
        """Do one step at `t_ns` [ns] with what arrived since the last, and return what to publish."""
        ...
