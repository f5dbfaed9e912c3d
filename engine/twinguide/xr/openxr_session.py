"""One OpenXR session: its state machine, its spaces and its frames. What is lost with the runtime lives here."""
# pyopenxr has no stubs and annotates ctypes types where it takes integers: pyright cannot judge its calls.
# pyright: reportArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from twinguide.clock import Clock
from twinguide.errors import RuntimeLost
from twinguide.frames import Transform
from twinguide.headset import EYE_FRAMES, BlendMode, Hand, HandName, HeadsetEvent, View
from twinguide.xr.openxr_graphics import ContextEgl, Swapchain, require_gl
from twinguide.xr.openxr_input import ControllerInput
from twinguide.xr.openxr_runtime import BLEND_MODES, STEREO, Runtime, choose_blend_mode, transform_of, xr

TRACKED = xr.SpaceLocationFlags.ALL.value  # orientation and position, both valid and tracked
VALID = (xr.ViewStateFlags.ORIENTATION_VALID_BIT | xr.ViewStateFlags.POSITION_VALID_BIT).value
EVENTS: Mapping[int, Any] = {
    xr.StructureType.EVENT_DATA_SESSION_STATE_CHANGED.value: xr.EventDataSessionStateChanged,
    xr.StructureType.EVENT_DATA_REFERENCE_SPACE_CHANGE_PENDING.value: xr.EventDataReferenceSpaceChangePending,
    xr.StructureType.EVENT_DATA_INSTANCE_LOSS_PENDING.value: xr.EventDataInstanceLossPending,
}


@dataclass(frozen=True)
class Frame:
    """What the runtime told about one frame: its times, and every pose at its display time."""

    display_xr: int
    t_display_ns: int
    period_ns: int
    woken_ns: int
    should_render: bool
    head: Transform | None
    located: Sequence[xr.View]  # as last known; empty where the runtime has had no pose at all
    views: tuple[View, View] | None
    hands: Mapping[HandName, Hand]


class SessionOpenXR:
    """A session that works in one EGL context and one thread, which makes it and makes every call of it.

    Only `locate_head` may run on another thread. Raises what OpenXR raises: the headset decides what is lost.
    """

    def __init__(
        self,
        runtime: Runtime,
        egl: ContextEgl,
        clock: Clock,
        preferred: Sequence[BlendMode],
        tell: Callable[[HeadsetEvent], None],
    ) -> None:
        self.runtime, self._egl, self._clock, self._tell = runtime, egl, clock, tell
        self.blend_mode: BlendMode = choose_blend_mode(runtime.blend_modes, preferred)
        self.state, self.running = "unknown", False
        require_gl(runtime)
        binding = egl.binding()
        pointer = ctypes.cast(ctypes.pointer(binding), ctypes.c_void_p)
        self._session = xr.create_session(
            runtime.instance, xr.SessionCreateInfo(system_id=runtime.system, next=pointer)
        )
        spaces = {int(kind) for kind in xr.enumerate_reference_spaces(self._session)}
        kind = xr.ReferenceSpaceType
        self._space_kind = kind.STAGE if kind.STAGE.value in spaces else kind.LOCAL
        self.space: Literal["stage", "local"] = "stage" if self._space_kind is kind.STAGE else "local"
        self._stage, self._view = (self._reference_space(chosen) for chosen in (self._space_kind, kind.VIEW))
        self._input = ControllerInput(runtime, self._session)
        self._eyes = [Swapchain(self._session, egl, runtime.view_size) for _ in EYE_FRAMES]
        self._located: Sequence[xr.View] = ()
        self._views: tuple[View, View] | None = None

    def _reference_space(self, kind: Any) -> xr.Space:  # noqa: ANN401 - an xr.ReferenceSpaceType
        return xr.create_reference_space(self._session, xr.ReferenceSpaceCreateInfo(reference_space_type=kind))

    # ---- events and state ------------------------------------------------------------------------------------------

    def _follow_events(self) -> None:
        """Tell every event that waits and answer it; raise RuntimeLost where one announces the loss."""
        while True:
            try:
                buffer = xr.poll_event(self.runtime.instance)
            except xr.EventUnavailable:
                return
            kind = EVENTS.get(int(buffer.type))
            if kind is not None:
                self._follow(ctypes.cast(ctypes.byref(buffer), ctypes.POINTER(kind)).contents)

    def _follow(self, told: Any) -> None:  # noqa: ANN401 - one of EVENTS' structures
        now = self._clock.now_ns()
        if isinstance(told, xr.EventDataInstanceLossPending):
            raise RuntimeLost("an OpenXR runtime", "the runtime announced its end")
        if isinstance(told, xr.EventDataSessionStateChanged):
            self._become(xr.SessionState(int(told.state)).name.lower(), now)
        elif int(told.reference_space_type) == self._space_kind.value:
            t_ns = self.runtime.time.to_host(int(told.change_time)) if told.change_time > 0 else now
            self._tell(HeadsetEvent("space_changed", t_ns, f"the runtime moved its {self.space} space"))

    def _become(self, state: str, now_ns: int) -> None:
        """Answer a change of state as OpenXR demands; raise RuntimeLost where the session is to be rebuilt."""
        self.state = state
        self._tell(HeadsetEvent("session_state", now_ns, state=state))
        if state == "ready":
            xr.begin_session(self._session, xr.SessionBeginInfo(STEREO))
            self.running = True
        elif state == "stopping":
            self.running = False
            xr.end_session(self._session)
        elif state == "exiting":
            self._tell(HeadsetEvent("stopping", now_ns, "the runtime ended the session"))
        elif state == "loss_pending":
            raise RuntimeLost("an OpenXR session", "the runtime announced that it is lost")

    def request_exit(self) -> None:
        """Ask for the way through stopping to exiting."""
        xr.request_exit_session(self._session)

    # ---- one frame -------------------------------------------------------------------------------------------------

    def turn(self) -> Frame | None:
        """Follow what the runtime tells, then return the next frame, begun; None where the session wants none."""
        self._follow_events()
        return self._begin_frame() if self.running else None

    def _begin_frame(self) -> Frame:
        """Block until the next frame should be made, begin it and ask for every pose at its display time."""
        state = xr.wait_frame(self._session, xr.FrameWaitInfo())
        woken = self._clock.now_ns()
        with contextlib.suppress(xr.FrameDiscarded):  # one was begun before and never ended: the runtime dropped it
            xr.begin_frame(self._session, xr.FrameBeginInfo())
        self._egl.finish()  # the last pictures are copied: they may be drawn over
        period = max(int(state.predicted_display_period), 1)
        t_display = self.runtime.time.display(int(state.predicted_display_time), period, woken)
        display_xr = int(state.predicted_display_time)
        if display_xr <= 0:
            display_xr = self.runtime.time.to_xr(t_display)
        info = xr.ViewLocateInfo(STEREO, display_xr, self._stage)
        view_state, located = xr.locate_views(self._session, info)
        if int(view_state.view_state_flags) & VALID == VALID:
            self._keep_views(located)
        head, hands = self._head_at(display_xr), self._input.read(self._stage, display_xr)
        render = bool(state.should_render)
        return Frame(display_xr, t_display, period, woken, render, head, self._located, self._views, hands)

    def _head_at(self, time: int) -> Transform | None:
        location = xr.locate_space(self._view, self._stage, time)
        if int(location.location_flags) & TRACKED != TRACKED:  # a guessed position must not carry an overlay
            return None
        return transform_of(location.pose, "headset")

    def locate_head(self, t_ns: int) -> Transform | None:
        """Return `stage_from_headset` at `t_ns` [ns]; None where it is not tracked."""
        return self._head_at(self.runtime.time.to_xr(t_ns))

    def _keep_views(self, located: Sequence[xr.View]) -> None:
        """Take both eyes as located; keep the last ones where a pose is unusable."""
        left, right = (self._as_view(eye, view) for eye, view in enumerate(located[:2]))
        if left is not None and right is not None:
            self._located, self._views = located, (left, right)

    def _as_view(self, eye: int, view: xr.View) -> View | None:
        pose, fov = transform_of(view.pose, EYE_FRAMES[eye]), view.fov
        if pose is None:
            return None
        angles = (float(fov.angle_left), float(fov.angle_right), float(fov.angle_up), float(fov.angle_down))
        return View(pose, angles, *self.runtime.view_size)

    def end_frame(self, frame: Frame, pictures: Sequence[int], drawn: int) -> None:
        """Hand over both eyes' pictures, or none where there are none.

        Pictures are GL textures, each as large as a view, drawn once the fence `drawn` is passed; frames that were
        never located have none.
        """
        layers: list[Any] = []
        layer = self._layer(frame.located)  # must outlive the call: the list holds only its address
        if pictures:
            self._egl.await_fence(drawn)
            for eye, picture in zip(self._eyes, pictures, strict=True):
                eye.show(picture)
            layers.append(ctypes.byref(layer))
        mode = BLEND_MODES[self.blend_mode]
        xr.end_frame(self._session, xr.FrameEndInfo(frame.display_xr, mode, layers=layers))

    def _layer(self, located: Sequence[xr.View]) -> xr.CompositionLayerProjection:
        pairs = zip(located, self._eyes, strict=False)
        eyes = [xr.CompositionLayerProjectionView(view.pose, view.fov, eye.sub_image()) for view, eye in pairs]
        flags = xr.CompositionLayerFlags.NONE
        if self.blend_mode == "alpha":  # without it the layer would cover the room where nothing is drawn
            flags = xr.CompositionLayerFlags.BLEND_TEXTURE_SOURCE_ALPHA_BIT
        return xr.CompositionLayerProjection(flags, self._stage, views=eyes)

    def pulse(self, hand: HandName, seconds: float, amplitude: float) -> None:
        """Shake a controller for `seconds` [s] with `amplitude` 0..1."""
        self._input.pulse(hand, seconds, amplitude)

    def close(self) -> None:
        """Give back session and instance; quiet where the runtime is gone."""
        with contextlib.suppress(xr.XrException):  # gone with its runtime
            xr.destroy_session(self._session)
        self.runtime.close()
