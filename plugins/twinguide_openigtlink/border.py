"""The border: millimetres, foreign axes and names on one side, metres, LPS and `a_from_b` on the other. Pure functions.

PLUS and 3D Slicer name a transform "AToB": it maps coordinates of A into B, so it is `b_from_a`. 3D Slicer tells
patients in RAS, and its messages do not say so; a tracker's own axes belong to no patient and are never turned.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twinguide.errors import FrameError
from twinguide.frames import rotation_from_quaternion, skew

from .wire import Position, QuaternionTool, Tool
from .wire import Transform as WireTransform

Array = NDArray[np.float64]
RAS_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # its own inverse
NAME_BYTES = 20  # of a device's and of a tool's name
ROUNDING = 1e-3  # of R R^T: float32 and printed matrices are mended, anything beyond is no rotation


def name_of(target: str, source: str) -> str:
    """Return the name that PLUS and 3D Slicer give: `tracker_from_my_tool` is "MyToolToTracker"."""
    return f"{_joined(source)}To{_joined(target)}"


def _joined(name: str) -> str:
    return "".join(word[:1].upper() + word[1:] for word in name.split("_"))


class Names:
    """Names that fit the wire's 20 bytes, each for one thing only: cut where they must be, numbered where cuts meet."""

    def __init__(self) -> None:
        self.cut: dict[str, str] = {}  # wanted -> on the wire, of those that did not fit
        self._of: dict[str, str] = {}

    def of(self, wanted: str) -> str:
        """Return the name on the wire of a wanted one, always the same."""
        if wanted not in self._of:
            self._of[wanted] = name = self._free(wanted.replace("\0", ""))
            if name != wanted:
                self.cut[wanted] = name
        return self._of[wanted]

    def _free(self, wanted: str) -> str:
        taken = set(self._of.values())
        for number in range(1, len(taken) + 2):
            end = "" if number == 1 else f"~{number}"
            name = shortened(wanted, NAME_BYTES - len(end)) + end
            if name not in taken:
                return name
        raise AssertionError("among n + 1 names one is not among n")


def shortened(name: str, size: int) -> str:
    """Return as much of a name as fits `size` bytes, whole letters only."""
    return name.encode(errors="replace")[:size].decode(errors="ignore")


def matrix_of(content: WireTransform | Position | Tool | QuaternionTool) -> Array:
    """Return a pose's matrix, shape (4, 4), translation in metres; raise FrameError where it is not rigid.

    What rounding has done to a rotation is mended to the nearest one (Higham 1986, the polar factor).
    """
    if isinstance(content, (WireTransform, Tool)):
        matrix = content.matrix_mm.copy()
    else:
        matrix = np.eye(4)
        matrix[:3, :3] = rotation_from_quaternion(content.quaternion)
        matrix[:3, 3] = content.position_mm
    matrix[:3, 3] *= 1e-3
    left, scales, right = np.linalg.svd(matrix[:3, :3])
    turn = left @ right
    if abs(scales - 1.0).max() > ROUNDING or np.linalg.det(turn) < 0.0:
        raise FrameError("a rotation", f"scales {scales.round(4).tolist()}, det {np.linalg.det(matrix[:3, :3]):.3f}")
    matrix[:3, :3] = turn
    return matrix


def wire_matrix(matrix: Array) -> Array:
    """Return a matrix in metres, shape (4, 4), as the wire has it: translation in millimetres."""
    out = matrix.copy()
    out[:3, 3] *= 1e3
    return out


def between_axes(matrix: Array, *, target_ras: bool, source_ras: bool) -> Array:
    """Return a transform, shape (4, 4), [m], with a patient frame on either side turned between RAS and LPS."""
    out = RAS_LPS @ matrix if target_ras else matrix
    return out @ RAS_LPS if source_ras else out


def from_markers(rotation: Array, markers: Array, noise: Array) -> Array:
    """Return the covariance, shape (6, 6), in the tool's frame, of a pose fitted to markers with weights.

    Markers [m], shape (n, 3), in the tool's frame; noise [m], shape (3,), 1 sigma along the camera's axes. The inverse
    of the Fisher information: `(sum J' S^-1 J)^-1` with `J = R [-skew(p), I]`, the perturbation on the right.
    """
    weight = rotation.T @ np.diag(noise**-2.0) @ rotation
    information = np.zeros((6, 6))
    for marker in markers:
        jacobian = np.hstack([-skew(marker), np.eye(3)])
        information += jacobian.T @ weight @ jacobian
    return np.asarray(np.linalg.inv(information), dtype=np.float64)
