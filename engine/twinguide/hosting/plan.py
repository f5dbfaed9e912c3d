"""What a run consists of, as the loop's process tells the hub, and the hub tells each part's process."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from twinguide.bus.topics import Permissions, steps
from twinguide.errors import BusError, PluginError
from twinguide.hookspecs import Guidance, Overlay, Part
from twinguide.registry import Registry

STARVED = 10  # times a deadline: so long a part may get no core of a machine that is too busy


class PartPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One part of a run: where it runs and with which options (of the keys that the part declares)."""

    name: str
    placement: Literal["inside", "process"]
    options: dict[str, Any] = {}
    interpreter: str = ""  # another Python to run it in a process; empty: the engine's own


class RunPlan(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One run: what the app makes of a scenario."""

    run_id: str
    seed: int
    clock: Literal["real", "virtual"]
    parts: tuple[PartPlan, ...]
    session_folder: str = ""  # recording and logs; empty: neither outlives the run
    case_folder: str = ""  # empty: parts that ask for a case are told so
    plugin_files: tuple[str, ...] = ()
    discover: bool = True  # load installed plugins too
    record: bool = True
    about: dict[str, Any] = {}  # goes into the recording's metadata
    step_deadline_s: float = 5.0  # lockstep: a part that takes longer is killed and started again
    start_deadline_s: float = 30.0  # for a part's constructor
    hung_after_s: float = 1.0  # real time: at least this, or 3 of the part's periods; less looks like a busy machine

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        if len(set(names)) != len(names):
            raise BusError("each part once", ", ".join(sorted(names)), f"the plan of run {self.run_id}")
        if self.record and not self.session_folder:
            raise BusError("a session folder for the recording", "none", f"the plan of run {self.run_id}")

    @property
    def virtual(self) -> bool:
        """Whether the run's clock is virtual, stepped in lockstep."""
        return self.clock == "virtual"

    def part(self, name: str) -> PartPlan:
        """Return one part's plan; raise BusError where there is none."""
        for part in self.parts:
            if part.name == name:
                return part
        raise BusError(f"a part {name!r} in the plan", ", ".join(p.name for p in self.parts) or "no parts")


class HubSpec(msgspec.Struct, frozen=True):
    """What the hub is told on its standard input."""

    plan: RunPlan
    folder: str  # the run's own folder for sockets and rings, 0700
    generation: int  # 1, and one more after each crash of the hub


class HubReady(msgspec.Struct, frozen=True):
    """What the hub answers on its standard output once its sockets are bound."""

    keys: dict[str, str]  # secret tokens of the loop and of the parts inside
    error: str = ""


class ChildSpec(msgspec.Struct, frozen=True):
    """What a part's process is told on its standard input."""

    plan: RunPlan
    name: str
    boot: int
    key: str
    folder: str  # the run's
    sockets: str  # the hub's, of its generation
    hub_pid: int


class Control(msgspec.Struct, frozen=True):
    """A request on the hub's control socket."""

    key: str
    do: Literal["launch", "stats", "restart", "stop"]
    part: str = ""
    reason: str = ""


class ControlReply(msgspec.Struct, frozen=True):
    """The hub's answer on its control socket."""

    ok: bool
    stats: dict[str, Any] = {}


def permissions_of(plan: RunPlan, registry: Registry) -> Permissions:
    """Return who may publish and see what in a run; raise PluginError or TopicRefused where it cannot be."""
    parts = {part.name: registry.part(part.name) for part in plan.parts}
    for placed in plan.parts:
        _check_placement(placed, parts[placed.name])
    inside = {p.name for p in plan.parts if p.placement == "inside" or not steps(parts[p.name])}
    return Permissions(parts, inside, records=plan.record)


def _check_placement(placed: PartPlan, part: Part) -> None:
    where = f"part {placed.name}"
    if isinstance(part, (Guidance, Overlay)) and (placed.placement == "process" or placed.interpreter):
        got = "process" if placed.placement == "process" else f"interpreter {placed.interpreter}"
        raise PluginError("placement inside, in this Python, for what the loop calls in its frame", got, where)
    if placed.placement == "inside" and placed.interpreter:
        raise PluginError("placement process for an interpreter of its own", "inside", where)


def registry_of(plan: RunPlan) -> Registry:
    """Load the plugins that a run needs; raise PluginError where one of its files is broken."""
    return Registry.load([Path(file) for file in plan.plugin_files], discover=plan.discover)


def rings_folder(folder: Path) -> Path:
    """Return the folder of the run's shared-memory rings."""
    return folder / "rings"


def logs_folder(plan: RunPlan, folder: Path) -> Path:
    """Return the folder of the logs: in the session's, else in the run's own."""
    return (Path(plan.session_folder) if plan.session_folder else folder) / "logs"
