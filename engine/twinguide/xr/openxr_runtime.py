"""An OpenXR instance: what the runtime is and offers, and its clock. Every other file has its `xr` from here."""
# pyopenxr has no stubs and annotates ctypes types where it takes integers: pyright cannot judge its calls.
# pyright: reportArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from twinguide.clock import SECOND
from twinguide.errors import FrameError, HeadsetError
from twinguide.frames import Transform, rotation_from_quaternion
from twinguide.headset import BlendMode

try:
    import xr
except Exception as error:  # without libGL pyopenxr fails with an AttributeError from PyOpenGL
    raise HeadsetError(
        "to load pyopenxr",
        f"{type(error).__name__}: {error}",
        next_step="Install the system's GL: apt-get install libgl1 libegl1; then pip install 'pyopenxr>=1.1.6501'.",
    ) from error

__all__ = ["Runtime", "RuntimeTime", "choose_blend_mode", "headset_error", "transform_of", "xr"]

API_VERSION = xr.Version(1, 0, 34)  # what this code needs: runtimes of OpenXR 1.0 are welcome
EGL = "XR_MNDX_egl_enable"
GL = "XR_KHR_opengl_enable"
TIMESPEC = "XR_KHR_convert_timespec_time"
STEREO = xr.ViewConfigurationType.PRIMARY_STEREO
BLEND_MODES: dict[BlendMode, xr.EnvironmentBlendMode] = {
    "alpha": xr.EnvironmentBlendMode.ALPHA_BLEND,
    "additive": xr.EnvironmentBlendMode.ADDITIVE,
    "opaque": xr.EnvironmentBlendMode.OPAQUE,
}
FAR_NS = 10 * SECOND  # no runtime predicts further than this: a display time beyond it is a runtime's fault
LEAD_PERIODS = 2  # from the end of xrWaitFrame to the light, where the runtime's clock cannot be converted


def headset_error(wanted: str, error: Exception, next_step: str = "") -> HeadsetError:
    """Return a HeadsetError for a failed OpenXR call."""
    return HeadsetError(wanted, f"{type(error).__name__}: {error}", "the OpenXR runtime", next_step)


def choose_blend_mode(offered: Sequence[BlendMode], preferred: Sequence[BlendMode]) -> BlendMode:
    """Return the first preferred mode that is offered, else the runtime's own first choice."""
    if not offered:
        raise HeadsetError("a blend mode", "none offered", "the OpenXR runtime")
    for mode in preferred:
        if mode in offered:
            return mode
    return offered[0]


def transform_of(pose: xr.Posef, source: str) -> Transform | None:
    """Return `stage_from_<source>` of an OpenXR pose; None where it is not finite or has no rotation."""
    q, p = pose.orientation, pose.position
    try:
        rotation = rotation_from_quaternion((q.x, q.y, q.z, q.w))
        return Transform.of("stage", source, rotation, np.array([p.x, p.y, p.z]))
    except FrameError:
        return None


class RuntimeTime:
    """Map OpenXR's time, whose epoch belongs to the instance, to the host's monotonic clock and back.

    By XR_KHR_convert_timespec_time where it is there. Without it the end of each xrWaitFrame is taken to lie
    two periods before the display time, which is uncertain by about a period.
    """

    def __init__(self, instance: xr.Instance, exact: bool) -> None:
        self._instance, self.exact = instance, exact
        self._offset_ns: int | None = None

    def observe(self, display_xr: int, period_ns: int, woken_ns: int) -> None:
        """Learn from one frame: display time [XrTime], its period [ns], the host's time after xrWaitFrame [ns]."""
        if not self.exact and display_xr > 0:
            offset = woken_ns + LEAD_PERIODS * period_ns - display_xr
            # A late wake-up makes the offset too large, never too small: keep the smallest.
            self._offset_ns = offset if self._offset_ns is None else min(offset, self._offset_ns)

    def to_host(self, xr_time: int) -> int:
        """Return the host time [ns] of an XrTime."""
        if not self.exact:
            return xr_time + (self._offset_ns or 0)
        spec = xr.convert_time_to_timespec_time_khr(self._instance, ctypes.c_long(xr_time))
        return spec.tv_sec * SECOND + spec.tv_nsec

    def to_xr(self, t_ns: int) -> int:
        """Return the XrTime of a host time [ns]."""
        if not self.exact:
            return t_ns - (self._offset_ns or 0)
        spec = xr.timespec(t_ns // SECOND, t_ns % SECOND)
        return int(xr.convert_timespec_time_to_time_khr(self._instance, spec).value)

    def display(self, display_xr: int, period_ns: int, woken_ns: int) -> int:
        """Return the host time [ns] at which a frame is seen, guarded: runtimes have told negative times."""
        self.observe(display_xr, period_ns, woken_ns)
        if display_xr > 0:
            t_ns = self.to_host(display_xr)
            if woken_ns - SECOND < t_ns < woken_ns + FAR_NS:
                return t_ns
        return woken_ns + LEAD_PERIODS * period_ns


@dataclass(frozen=True)
class Runtime:
    """An instance with its head-mounted system; made by `open`, ended by `close`."""

    instance: xr.Instance
    system: Any
    name: str
    system_name: str
    blend_modes: tuple[BlendMode, ...]
    view_size: tuple[int, int]
    time: RuntimeTime

    @staticmethod
    def open(application: str) -> Runtime:
        """Connect to the runtime; raise HeadsetError where there is none, it lacks EGL, or no headset is there."""
        try:
            extensions = {e.extension_name.decode() for e in xr.enumerate_instance_extension_properties()}
            missing = {EGL, GL} - extensions
            if missing:
                raise HeadsetError(
                    "a runtime that renders from EGL", f"one without {', '.join(sorted(missing))}", "OpenXR extensions"
                )
            enabled = [EGL, GL, *([TIMESPEC] if TIMESPEC in extensions else [])]
            described = xr.ApplicationInfo(application, 1, "TwinGuide", 1, API_VERSION)
            create = xr.InstanceCreateInfo(application_info=described, enabled_extension_names=enabled)
            instance = xr.create_instance(create)
        except xr.XrException as error:
            remedy = "Start the runtime, or see `twinguide doctor`; `--headset simulated` needs none."
            raise headset_error("an OpenXR runtime", error, remedy) from error
        try:
            return _describe(instance, TIMESPEC in extensions)
        except xr.XrException as error:
            xr.destroy_instance(instance)
            remedy = "Connect the headset and wake it."
            raise headset_error("a headset with two eyes", error, remedy) from error

    def close(self) -> None:
        """Destroy the instance and all that was made from it; quiet where the runtime is gone."""
        try:
            xr.destroy_instance(self.instance)
        except xr.XrException:
            return  # nothing is left to give back


def _describe(instance: xr.Instance, exact_time: bool) -> Runtime:
    properties = xr.get_instance_properties(instance)
    system = xr.get_system(instance, xr.SystemGetInfo(xr.FormFactor.HEAD_MOUNTED_DISPLAY))
    names: dict[int, BlendMode] = {mode.value: name for name, mode in BLEND_MODES.items()}
    offered = [int(mode) for mode in xr.enumerate_environment_blend_modes(instance, system, STEREO)]
    view = xr.enumerate_view_configuration_views(instance, system, STEREO)[0]
    return Runtime(
        instance,
        system,
        f"{properties.runtime_name.decode()} {xr.Version(properties.runtime_version)}",
        xr.get_system_properties(instance, system).system_name.decode(),
        tuple(names[mode] for mode in offered if mode in names),
        (int(view.recommended_image_rect_width), int(view.recommended_image_rect_height)),
        RuntimeTime(instance, exact_time),
    )
