"""What every headset answers, real or simulated: the frame's time, poses at that time, two eyes, and what changed.

    headset.start()
    while running:
        events = headset.poll()
        timing = headset.wait_frame()          # blocks until it is time to make the frame seen at t_display_ns
        head, views = headset.head(timing.t_display_ns), headset.views()
        if timing.should_render:
            for eye, framebuffer in headset.eyes():
                draw(scene, views[eye], framebuffer)
        headset.end_frame()                    # always, also where nothing was drawn
    headset.stop()

Frames: `stage` is the room (right-handed, +Y up, metres), `headset` the point between the eyes, `eye_left`,
`eye_right` each eye (+X right, +Y up, -Z forward), `grip_left`, `aim_left`, ... the controllers as OpenXR defines them.
No module of GL or OpenXR is imported here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from twinguide.frames import Transform

if TYPE_CHECKING:
    import moderngl

# Something useful to do while a frame is waited for: until a time [ns], or until a descriptor (-1: none) can be read.
Meanwhile = Callable[[int, int], object]
BlendMode = Literal["opaque", "additive", "alpha"]
HandName = Literal["left", "right"]
EventKind = Literal["session_state", "space_changed", "lost", "recovered", "stopping"]
HANDS: tuple[HandName, HandName] = ("left", "right")
EYE_FRAMES = ("eye_left", "eye_right")


@dataclass(frozen=True, slots=True)
class View:
    """One eye of one frame: its pose in the stage, its field of view and the size of its picture.

    `fov` is (left, right, up, down) [rad] with OpenXR's signs: left and down are negative. Size in pixels.
    """

    stage_from_eye: Transform
    fov: tuple[float, float, float, float]
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Hand:
    """One controller at the frame's display time; poses are None where they are not tracked.

    `trigger` and `squeeze` are 0..1; `buttons` holds those pressed now, of `trigger`, `squeeze`, `a`, `b`, `menu`.
    """

    pose_grip: Transform | None = None  # stage_from_grip_left
    pose_aim: Transform | None = None  # stage_from_aim_left
    trigger: float = 0.0
    squeeze: float = 0.0
    buttons: frozenset[str] = field(default_factory=frozenset[str])
    active: bool = False


@dataclass(frozen=True, slots=True)
class HeadsetEvent:
    """Something that changed since the last poll.

    `session_state`: `state` is OpenXR's name for it in lower case (`focused`, ...). `space_changed`: from `t_ns` on the
    stage lies elsewhere in the room, so what was placed in it by registration is void. `lost`: the runtime went away,
    frames go on without it. `recovered`: it is back. `stopping`: the wearer or the runtime asked for the end.
    """

    kind: EventKind
    t_ns: int
    reason: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class FrameTiming:
    """When the next frame will be seen [ns of the run's clock], and how it was paced.

    `t_wake_ns` is when `wait_frame` returned, `late_ns` how long after the moment it aimed at, and `skipped` the
    display periods since the last frame for which none was made. `sigma_ns` is how unsure the display time is, by how
    late the last frames were and for how long each stayed in view.
    """

    t_display_ns: int
    period_ns: int
    should_render: bool
    t_wake_ns: int = 0
    late_ns: int = 0
    skipped: int = 0
    sigma_ns: int = 0


@dataclass(frozen=True, slots=True)
class FrameCounts:
    """Frames begun, of these ended after their display period was over (`late`), and periods without a frame."""

    frames: int = 0
    late: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class HeadsetInfo:
    """What was found and chosen; may change when a lost runtime is recovered."""

    name: str
    runtime: str
    blend_mode: BlendMode
    view_size: tuple[int, int]  # pixels of one eye
    space: Literal["stage", "local"] = "stage"
    period_ns: int = 11_111_111


class Headset(Protocol):
    """A headset with a runtime, or a simulated one. Not safe for more than one thread."""

    @property
    def info(self) -> HeadsetInfo:
        """What was found and chosen; complete after `start`."""
        ...

    @property
    def ctx(self) -> moderngl.Context | None:
        """The GL context to render in, current in the loop's thread; None where nothing is to be rendered."""
        ...

    @property
    def counts(self) -> FrameCounts:
        """How the frames were paced so far."""
        ...

    def start(self) -> None:
        """Open the headset; raise HeadsetError, with the remedy, where there is none."""
        ...

    def poll(self) -> list[HeadsetEvent]:
        """Return what changed since the last call; never blocks."""
        ...

    def wait_frame(self, meanwhile: Meanwhile | None = None) -> FrameTiming:
        """Wait until the next frame should be made; returns at the nominal pace while the runtime is lost.

        `meanwhile` is called, perhaps more than once, in the caller's thread; it may ask where the head was.
        """
        ...

    def head(self, t_ns: int) -> Transform | None:
        """Return `stage_from_headset` at `t_ns` [ns], past or to come; None where the head is not tracked."""
        ...

    def views(self) -> tuple[View, View]:
        """Return the left and right eye at the frame's display time, the best known where `head` is None."""
        ...

    def hands(self) -> Mapping[HandName, Hand]:
        """Return both controllers at the frame's display time."""
        ...

    def eyes(self) -> Iterator[tuple[int, moderngl.Framebuffer]]:
        """Yield (0, left) and (1, right) framebuffer to draw into; nothing where the runtime is lost.

        Each is held only during its turn of the loop. Leaving the loop early shows nothing in this frame.
        """
        ...

    def end_frame(self) -> int:
        """Hand the frame to the display; return when it is seen [ns]: as promised, or later where it took too long."""
        ...

    def haptic(self, hand: HandName, seconds: float, amplitude: float) -> None:
        """Pulse a controller for `seconds` [s] with `amplitude` 0..1; nothing where it cannot."""
        ...

    def stop(self) -> None:
        """End the session and give everything back; may be called twice."""
        ...
