"""A scenario: what one run is made of, as strict TOML; an error names the key."""

from __future__ import annotations

import tomllib
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec
from msgspec import Meta

from twinguide.calibrating.checks import check_covariance, check_rigid
from twinguide.calibrating.named import mount_of, registration_of, tip_of
from twinguide.errors import CalibrationError, ScenarioError
from twinguide.flaws import UNTOLD, Origin, flaw_of
from twinguide.registry import Registry

Positive = Annotated[float, Meta(gt=0, le=1e6)]
NonNegative = Annotated[float, Meta(ge=0, le=1e6)]
Finite = Annotated[float, Meta(ge=-1e6, le=1e6)]
InReach = Annotated[float, Meta(ge=-5000, le=5000)]  # [mm]: within a room
Turn = Annotated[float, Meta(ge=-360, le=360)]  # [deg]
Vec3mm = tuple[InReach, InReach, InReach]
Rows = tuple[tuple[Finite, ...], ...]
Row3 = tuple[Finite, Finite, Finite]
Rows3 = tuple[Row3, Row3, Row3]
Row4 = tuple[Finite, Finite, Finite, Finite]
Rows4 = tuple[Row4, Row4, Row4, Row4]
S = TypeVar("S")


class Strict(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table whose unknown keys are errors."""


class LoopSettings(Strict, frozen=True, kw_only=True):
    """The frame loop."""

    rate_hz: Annotated[float, Meta(ge=1, le=1000)] = 90.0
    draw_every: Annotated[int, Meta(ge=1)] = 1  # in virtual time: draw every n-th frame of guidance ...
    draw_every_before: Annotated[int, Meta(ge=1)] = 1  # ... and of what comes before it


class HeadsetSettings(Strict, frozen=True, kw_only=True):
    """The headset: which, and what is stated about its tracking."""

    backend: Literal["auto", "openxr", "simulated"] = "auto"
    width: Annotated[int, Meta(ge=64, le=4096)] = 800
    height: Annotated[int, Meta(ge=64, le=4096)] = 800
    fov_deg: Annotated[float, Meta(gt=10, lt=150)] = 90.0  # simulated: across and down, of each eye
    recorded: str = ""  # simulated: a session folder; head and hands move as its wearer's did
    display_latency_ms: NonNegative = 22.0
    blend: Annotated[tuple[Literal["alpha", "additive", "opaque"], ...], Meta(min_length=1)] = (
        "alpha",
        "additive",
        "opaque",
    )
    sigma_mm: NonNegative = 0.2  # stated jitter of its own tracking, per axis
    sigma_deg: NonNegative = 0.1
    controller_sigma_mm: NonNegative = 1.0  # stated error of a controller that is a tool, per axis; no time averages it
    controller_sigma_deg: NonNegative = 0.3


class Mount(Strict, frozen=True, kw_only=True):
    """How a tracked body is fixed to the headset, `headset_from_<tool>`, and how well that is known."""

    at_mm: Vec3mm
    turn_deg: tuple[Turn, Turn, Turn] = (0.0, 0.0, 0.0)  # rotation vector
    sigma_mm: NonNegative = 0.1  # per axis
    sigma_deg: NonNegative = 0.03
    covariance: Rows | None = None  # (6, 6) [rad, m] in the tool's frame; where given, in place of the sigmas


class Tool(Strict, frozen=True, kw_only=True):
    """A tracked tool: what it is for, and its calibrated tip in the tool's frame.

    `calibration` names a result file of `twinguide calibrate pivot`, beside the scenario; its tip and covariance then
    stand in place of `tip_mm` and `tip_sigma_mm`. For a tool of role `headset`, the body on the headset from which
    `stage_from_tracker` is followed, it names one of `twinguide calibrate handeye`, in place of `mount`.
    """

    role: Literal["reference", "needle", "pointer", "surrogate", "headset"]
    tip_mm: Vec3mm = (0.0, 0.0, 0.0)
    tip_sigma_mm: NonNegative = 0.1  # per axis
    tip_covariance_mm2: Rows3 | None = None  # in the tool's frame; where given, in place of tip_sigma_mm
    calibration: str = ""
    calibrate: Literal["", "pivot"] = ""  # `pivot`: the run begins with swinging it in a divot
    controller: Literal["", "left", "right"] = ""  # it is this hand's: seen by the headset, its grip the tool's frame
    fixed: bool = False  # a reference that is the headset's room itself: no tracker, and a patient who lies still
    mount: Mount | None = None
    bends_mm: NonNegative = 0.0  # 1 sigma of a needle's bending at full depth, lateral
    pushes_mm: NonNegative = 0.0  # 1 sigma of how far tissue at the tip follows a needle that advances at 10 mm/s
    tolerance_mm: Positive = 6.0  # the predicted 95 % error of its tip up to which it is shown unmarked


class Registered(Strict, frozen=True, kw_only=True):
    """A registration made before the run, `reference_from_image`, and how well it is known."""

    matrix: Rows4
    covariance: Rows  # (6, 6) [rad, m] in image, as normal bounds may be taken from
    fre_mm: NonNegative = 0.0
    landmarks: tuple[str, ...] = ()  # that the fit has used: no proof of it
    case_hash: str = ""  # of the case that it was made for, where that is known


class RegistrationSettings(Strict, frozen=True, kw_only=True):
    """How landmarks are touched and checked.

    `calibration` names a result file of `twinguide calibrate points` or `surface`, beside the scenario: the run then
    begins with its verification, and fiducials are touched only where that fails.
    """

    calibration: str = ""
    known: Registered | None = None
    touch_sigma_mm: Positive = 0.3  # per axis: how well a person hits a landmark
    dwell_ms: Positive = 400.0
    still_mm: Positive = 1.5  # the chest's motion while touching, above which it is not the CT's breathing phase
    verify_limit_mm: Positive = 4.0  # a landmark not used for the fit may be off by this much
    bump_mm: Positive = 3.0  # a step of the reference body that voids


class Placement(Strict, frozen=True, kw_only=True):
    """One part of the run."""

    placement: Literal["inside", "process"] | None = None  # left out: as the part declares
    interpreter: str = ""  # the Python of another environment, beside the scenario, to run the part in a process there
    options: dict[str, Any] = {}  # as the part's plugin declares them


class Scenario(Strict, frozen=True, kw_only=True):
    """One run."""

    title: str  # for people
    case: Annotated[str, Meta(min_length=1)]  # a case folder, beside the scenario's file, or "generate:<organ>"
    mode: Literal["guide", "rehearse"] = "guide"  # rehearse: without a patient, a controller is the needle
    clock: Literal["real", "virtual"] = "real"  # virtual: in lockstep, the same bits from the same seed
    seed: Annotated[int, Meta(ge=0)] = 1
    seconds: Positive = 40.0  # of guidance
    record: bool = True  # into session.mcap; without it there is no report
    target_tolerance_mm: Positive = 5.0  # the predicted 95 % error up to which the target is shown unmarked
    loop: LoopSettings = LoopSettings()
    headset: HeadsetSettings = HeadsetSettings()
    registration: RegistrationSettings = RegistrationSettings()
    tools: dict[str, Tool] = {}
    parts: dict[str, Placement]


def read(path: Path) -> dict[str, Any]:
    """Return the tables of a scenario file; raise ScenarioError naming the file."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))  # as Notepad saves
    except (OSError, UnicodeDecodeError) as error:
        raise ScenarioError("a readable scenario file", str(error), str(path)) from error
    except tomllib.TOMLDecodeError as error:
        next_step = "Mend it there: a key may stand once, texts stand in quotes; docs/scenario.md has the keys."
        raise ScenarioError("valid TOML", str(error), str(path), next_step) from error


def load(path: Path) -> Scenario:
    """Read a scenario file and the results that it names; raise ScenarioError naming file and key."""
    origin = Origin(str(path))
    return calibrated(convert(_anchored(read(path), path.parent), Scenario, origin), origin)


def _anchored(tables: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a scenario's tables with each file and folder that it names looked for beside it."""

    def inner(value: Any) -> dict[str, Any]:  # noqa: ANN401 - whatever TOML holds
        return cast("dict[str, Any]", value) if isinstance(value, dict) else {}

    named = [(tables, "case"), (tables.get("headset"), "recorded"), (tables.get("registration"), "calibration")]
    named += [(tool, "calibration") for tool in inner(tables.get("tools")).values()]
    named += [(part, "interpreter") for part in inner(tables.get("parts")).values()]
    for given, key in named:
        table = inner(given)
        value = table.get(key)
        if isinstance(value, str) and value and not value.startswith("generate:"):
            table[key] = str(folder.resolve() / value)
    return tables


def calibrated(scenario: Scenario, origin: Origin = UNTOLD) -> Scenario:
    """Return the scenario with what the results say that it names; raise ScenarioError naming the key."""
    tools: dict[str, Tool] = {}
    for name, tool in scenario.tools.items():
        for key, rows, size in (
            ("tip_covariance_mm2", tool.tip_covariance_mm2, 3),
            ("mount.covariance", tool.mount and tool.mount.covariance, 6),
        ):
            if rows is not None:
                with _told_of(f"tools.{name}.{key}", origin):
                    check_covariance(rows, size, "")
        if tool.calibration:
            with _told_of(f"tools.{name}.calibration", origin):
                given = Path(tool.calibration)
                keys = {"mount": Mount(**mount_of(given))} if tool.role == "headset" else tip_of(given)
                tools[name] = msgspec.structs.replace(tool, **keys)
    settings = scenario.registration
    if settings.calibration:
        with _told_of("registration.calibration", origin):
            known = Registered(**registration_of(Path(settings.calibration)))
            settings = msgspec.structs.replace(settings, known=known)
    elif settings.known is not None:
        with _told_of("registration.known", origin):
            check_rigid(settings.known.matrix, settings.known.covariance, "known")
    return msgspec.structs.replace(scenario, tools=scenario.tools | tools, registration=settings)


@contextmanager
def _told_of(key: str, origin: Origin) -> Generator[None]:
    try:
        yield
    except CalibrationError as error:
        where = ", ".join(part for part in (origin.of(key), error.where) if part)
        raise ScenarioError(error.wanted, error.got, where, error.next_step) from error


def convert(tables: Any, kind: type[S], origin: Origin, under: str = "") -> S:  # noqa: ANN401 - whatever TOML holds
    """Return the tables `under` a dotted key as a Struct; raise ScenarioError naming the key and its origin."""
    if flaw := flaw_of(tables, kind, under):
        raise ScenarioError(flaw.wanted, flaw.got, origin.of(flaw.path), flaw.next_step)
    return msgspec.convert(tables, kind)


def locate(name: str, registry: Registry) -> Path:
    """Return a scenario's file, or that of one that a plugin brings by name; raise ScenarioError for neither."""
    path = Path(name)
    if path.suffix != ".toml" and name in registry.scenarios:
        path = registry.scenarios[name]
    if not path.is_file():
        known = ", ".join(sorted(registry.scenarios)) or "none"
        raise ScenarioError("a scenario file, or the name of an installed one", f"{name!r}", f"known: {known}")
    return path


def find(name: str, registry: Registry) -> dict[str, Any]:
    """Return the tables of a scenario file, or of one that a plugin brings by name."""
    path = locate(name, registry)
    return _anchored(read(path), path.parent)


def overridden(tables: dict[str, Any], settings: Iterable[str], where: str = "the scenario") -> Scenario:
    """Return the scenario with `dotted.key=value` settings laid over it; values are TOML, or else plain text.

    Raises ScenarioError naming the key and the setting, or `where` the tables come from.
    """
    origin = Origin(where, tuple(settings))
    for setting in origin.settings:
        key, equals, value = setting.partition("=")
        *path, last = key.strip().split(".")
        if not equals or not all((*path, last)):
            next_step = "Write it as loop.rate_hz=60: docs/scenario.md has the keys."
            raise ScenarioError("KEY=VALUE, with a dotted KEY", repr(setting), f"--set {setting}", next_step)
        try:
            parsed = tomllib.loads(f"v = {value}")["v"]
        except tomllib.TOMLDecodeError:
            parsed = value
        table = tables
        for part in path:
            inner: Any = table.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ScenarioError("a table", f"{part!r}, which is a value", f"--set {setting}")
            table = cast("dict[str, Any]", inner)
        table[last] = parsed
    return calibrated(convert(tables, Scenario, origin), origin)
