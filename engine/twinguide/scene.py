"""What one frame shows: the twin at its display time, what guidance found, and the marks; frozen, no GL."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinguide.frames import CHI_95, Array, Pose, Transform
from twinguide.messages import DisplayState, Finding, Registration, WorkflowState


class Status(msgspec.Struct, frozen=True):  # made for every structure in every frame, in a tenth of a dataclass's time
    """How far to trust what is shown of one structure or tool."""

    state: DisplayState
    reason: str = ""
    silence: float = 0.0  # of its stream, in the stream's own periods
    horizon_ns: int = 0  # display time minus sample time
    p95_m: float = 0.0  # predicted 95 % error in reference


@dataclass(frozen=True, slots=True, eq=False)
class Point:
    """A point [m], shape (3,), in reference, with covariance [m2], shape (3, 3)."""

    position: Array
    covariance: Array


@dataclass(frozen=True, slots=True, eq=False)
class StructureView:
    """One structure of the twin at display time.

    Its vertices [m] lie in `image`; `vertices` is a float32 view, shape (n, 3), of the newest deformed ones, or None
    for the case's own surface. They appear at `reference_from_image.apply(vertices) + shift`.
    """

    name: str
    status: Status
    shift: Array  # (3,) [m], in reference: display-time motion on top of the vertices
    vertices: NDArray[np.float32] | None = None
    version: int = 0  # changes when `vertices` do


@dataclass(frozen=True, slots=True, eq=False)
class ToolView:
    """One tracked tool at display time."""

    name: str
    status: Status
    tip: Point
    direction: Array  # (3,) unit, in reference, from handle to tip
    role: str  # the scenario's: "needle", "pointer", ...; its name is anybody's choice


@dataclass(frozen=True, slots=True, eq=False)
class TwinView:
    """The whole twin at one display time; a lost tool is absent from `tools` and named in `lost`."""

    t_display_ns: int
    structures: Mapping[str, StructureView]
    tools: Mapping[str, ToolView]
    lost: Mapping[str, Status]
    registration: Registration
    reference_from_image: Transform | None
    stage_from_reference: Pose | None
    target: Point | None  # the target structure's planned point, moved
    displacement: Point | None  # how far it has moved from where the CT shows it
    entry: Array | None  # (3,) [m], in reference
    target_status: Status
    workflow: WorkflowState
    gate_open: bool = False
    gate_reason: str = ""
    gate_seconds: float = 0.0  # left of an open gate, as predicted
    stage_reason: str = ""  # why there is no `stage_from_reference`; nothing: the reference is not seen

    @property
    def needle(self) -> ToolView | None:
        """The tool of role needle, where it is seen."""
        return next((tool for tool in self.tools.values() if tool.role == "needle"), None)


@dataclass(frozen=True, slots=True, eq=False)
class Line:
    """A line through points [m], shape (n, 3), in reference."""

    points: Array
    colour: tuple[float, float, float]
    of: str = ""  # takes its state from this structure or tool
    width_px: float = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Ring:
    """A ring [m] in reference."""

    centre: Array
    normal: Array
    radius_m: float
    colour: tuple[float, float, float]
    of: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Ellipsoid:
    """An error ellipsoid: `scale` standard deviations of a covariance [m2], shape (3, 3), in reference."""

    centre: Array
    covariance: Array
    colour: tuple[float, float, float]
    scale: float = CHI_95
    of: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """A short text at a point [m] in reference."""

    position: Array
    text: str
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    of: str = ""


Mark = Line | Ring | Ellipsoid | Label
PanelRow = tuple[Literal["title", "normal", "advisory", "caution", "warning"], str]


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """One frozen picture at one display time."""

    twin: TwinView
    findings: tuple[Finding, ...]
    marks: tuple[Mark, ...]
    panel: tuple[PanelRow, ...]
    frame: int  # moves the sign of life
    overlay_on: bool = True
    start_screen: bool = False


MARK_SHAPES: dict[type, dict[str, tuple[int, ...]]] = {
    Line: {"points": (-1, 3), "colour": (3,), "width_px": ()},
    Ring: {"centre": (3,), "normal": (3,), "radius_m": (), "colour": (3,)},
    Ellipsoid: {"centre": (3,), "covariance": (3, 3), "scale": (), "colour": (3,)},
    Label: {"position": (3,), "colour": (3,)},
}
MARK_SIZES = ("radius_m", "width_px", "scale")


def mark_fault(mark: object, known: Collection[str] = ()) -> str:
    """Return why a mark cannot be drawn, or nothing; a plugin's mistake must not end the frame.

    `known` are the names that a mark may be of, where they are known: of any other it would never be seen.
    """
    if type(mark) not in MARK_SHAPES:
        return f"wanted a Line, Ring, Ellipsoid or Label, got {type(mark).__name__}"
    for name in ("of", "text"):
        if not isinstance(getattr(mark, name, ""), str):
            return f"{type(mark).__name__}.{name}: wanted text, got {getattr(mark, name)!r}"
    of: str = getattr(mark, "of", "")
    if known and of and of not in known:
        return f"{type(mark).__name__}.of: wanted one of {', '.join(sorted(known))}, got {of!r}"
    for name, shape in MARK_SHAPES[type(mark)].items():
        value: object = getattr(mark, name)
        if shape and name != "colour" and not isinstance(value, np.ndarray):
            return f"{type(mark).__name__}.{name}: wanted an array of shape {shape}, got {type(value).__name__}"
        try:
            numbers = np.asarray(value)
        except ValueError:  # rows of different lengths
            return f"{type(mark).__name__}.{name}: wanted shape {shape}, got {value!r}"
        sizes = zip(shape, numbers.shape, strict=False)
        if numbers.ndim != len(shape) or any(wanted not in (-1, found) for wanted, found in sizes):
            return f"{type(mark).__name__}.{name}: wanted shape {shape}, got {numbers.shape}"
        if numbers.dtype.kind not in "fiu" or not np.isfinite(numbers).all():
            return f"{type(mark).__name__}.{name}: wanted finite numbers, got {value}"
        if name in MARK_SIZES and numbers <= 0:
            return f"{type(mark).__name__}.{name}: wanted a size above zero, got {value}"
        if name == "colour" and ((numbers < 0) | (numbers > 1)).any():
            return f"{type(mark).__name__}.colour: wanted three parts of 0 to 1, got {value}"
    return ""
