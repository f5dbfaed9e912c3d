"""One eye's numbers for the shaders: projection, where the tips are on the screen, how fine the display is. No GL."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from twinguide.errors import RenderError
from twinguide.frames import Array, Transform
from twinguide.headset import View

NEAR, FAR = 0.05, 20.0  # [m]; with 24 bits of depth still 0.3 um apart at arm's length
HOLES = 3  # tips that stay uncovered; a fourth tool in the field would not be kept free
PIXELS_PER_TANGENT = 500.0  # of a display of 9 pixels a degree: widths in pixels are meant for it
HOLE_M = 0.0045  # kept free around a tip [m]
CORE_PIXELS = 2.5  # the tip itself, which not even its own marks may cover
NO_HOLE = (0.0, 0.0, 0.0, 1.0)

# std140, row_major: as `camera.glsl` declares it
CAMERA = np.dtype(
    [
        ("clip_from_stage", "f4", (4, 4)),
        ("clip_from_reference", "f4", (4, 4)),
        ("sight_corner", "f4", 4),
        ("sight_right", "f4", 4),
        ("sight_up", "f4", 4),
        ("eye_in_stage", "f4", 4),
        ("eye_in_reference", "f4", 4),
        ("viewport", "f4", 4),  # width, height [px], pixel scale, depth of the field [m]
        ("flags", "f4", 4),  # see-through, pixels per tangent, unused, unused
        ("holes", "f4", (HOLES, 4)),  # as `hole_of`
        ("cores", "f4", (HOLES, 4)),
    ]
)


def clip_from_eye(fov: tuple[float, float, float, float], near: float = NEAR, far: float = FAR) -> Array:
    """Return the projection, shape (4, 4), of a field of view (left, right, up, down) [rad], left and down negative.

    The eye looks along -Z; depth -1 lies at `near`, +1 at `far` [m]. Raises RenderError where the field is empty.
    """
    left, right, up, down = np.tan(fov)
    if not (right > left and up > down):
        raise RenderError("a field of view with left < right and down < up", str(fov))
    m = np.zeros((4, 4))
    m[0, 0], m[0, 2] = 2.0 / (right - left), (right + left) / (right - left)
    m[1, 1], m[1, 2] = 2.0 / (up - down), (up + down) / (up - down)
    m[2, 2], m[2, 3] = -(far + near) / (far - near), -2.0 * far * near / (far - near)
    m[3, 2] = -1.0
    return m


def clip_from_stage(view: View) -> Array:
    """Return the whole projection of one eye, shape (4, 4)."""
    rotation, place = view.stage_from_eye.rotation, view.stage_from_eye.translation
    eye_from_stage = np.eye(4)
    eye_from_stage[:3, :3], eye_from_stage[:3, 3] = rotation.T, -place @ rotation
    return clip_from_eye(view.fov) @ eye_from_stage


def place_in(target_from_source: Transform, point: Array) -> Array:
    """Return a point [m], shape (3,), of the transform's target in its source; no transform is made for it."""
    return (point - target_from_source.translation) @ target_from_source.rotation


def pixel_of(matrix: Array, point: Array, width: int, height: int) -> tuple[float, float] | None:
    """Return where a point [m], shape (3,), falls [px from below left]; None behind the eye.

    `matrix` is clip_from_(the point's frame), shape (4, 4).
    """
    x, y, _, w = matrix[:, :3] @ point + matrix[:, 3]
    if w < NEAR:
        return None
    return float((x / w * 0.5 + 0.5) * width), float((y / w * 0.5 + 0.5) * height)


def pixels_per_tangent(view: View) -> float:
    """Return how many pixels a unit of tangent takes, at the middle of the picture."""
    return view.height / float(np.tan(view.fov[2]) - np.tan(view.fov[3]))


def pixel_scale(view: View) -> float:
    """Return the factor on line widths that keeps them visible on dense displays."""
    return float(np.clip(pixels_per_tangent(view) / PIXELS_PER_TANGENT, 0.8, 4.0))


def hole_of(x: float, y: float, radius: float) -> tuple[float, float, float, float]:
    """Return a hole as hole.glsl takes it: nothing within `radius` [px] of (x, y) [px], all from 1.5 px further on."""
    slope = 1.0 / ((radius + 1.5) ** 2 - radius**2)
    return x, y, slope, -(radius**2) * slope


def fill_camera(
    record: NDArray[np.void],
    view: View,
    stage_from_reference: Transform | None,
    *,
    tips: Iterable[Array],
    focus: Array | None,
    see_through: bool,
) -> None:
    """Fill a record of `CAMERA` for one eye; `tips` and `focus` [m], each shape (3,), in reference."""
    eye = view.stage_from_eye
    projection = clip_from_stage(view)
    clip_from_reference = projection @ (stage_from_reference.matrix if stage_from_reference else np.eye(4))
    eye_in_reference = place_in(stage_from_reference, eye.translation) if stage_from_reference else np.zeros(3)
    scale, density = pixel_scale(view), pixels_per_tangent(view)
    record["clip_from_stage"], record["clip_from_reference"] = projection, clip_from_reference
    left, right, up, down = np.tan(view.fov)
    record["sight_corner"][:3] = eye.rotation @ (left, down, -1.0)
    record["sight_right"][:3] = eye.rotation[:, 0] * (right - left) / view.width
    record["sight_up"][:3] = eye.rotation[:, 1] * (up - down) / view.height
    record["eye_in_stage"][:3], record["eye_in_reference"][:3] = eye.translation, eye_in_reference
    depth = 0.0 if focus is None else float(clip_from_reference[3, :3] @ focus + clip_from_reference[3, 3])
    record["viewport"] = view.width, view.height, scale, max(depth, 0.0)
    count = 0
    for tip in tips:
        pixel = pixel_of(clip_from_reference, tip, view.width, view.height) if count < HOLES else None
        if pixel is not None:
            depth = max(NEAR, float(np.linalg.norm(tip - eye_in_reference)))
            radius = max(HOLE_M / depth * density, 2.0 * CORE_PIXELS * scale)
            record["holes"][count] = hole_of(*pixel, radius)
            record["cores"][count] = hole_of(*pixel, CORE_PIXELS * scale)
            count += 1
    record["holes"][count:] = record["cores"][count:] = NO_HOLE
    record["flags"] = float(see_through), density, 0.0, 0.0
