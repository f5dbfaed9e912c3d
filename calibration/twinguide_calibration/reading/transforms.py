"""ITK transform files (`.tfm`, `.txt`, `.h5`): how one frame lies in another, in metres and LPS.

Two traps. ITK's transform is the *resampling* direction: it maps points of the fixed (output) frame into the moving
one; 3D Slicer stores a node's `from parent` there, so the node's `to parent`, which is what moves things, is its
inverse. And the numbers are LPS, while Slicer's screen shows RAS.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinguide_calibration.reading.tables import text_of
from twinguide_calibration.reading.tracks import Rows, checked
from twinguide_calibration.refused import CalibrationRefused

Array = NDArray[np.float64]
MILLIMETRE = 1e-3
RAS_FROM_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
LINEAR = ("AffineTransform", "MatrixOffsetTransformBase", "Rigid3DTransform")  # 9 + 3 numbers
ANEW = "Save the transform anew from 3D Slicer, as .tfm or .h5."
VERSOR = ("VersorRigid3DTransform",)  # x, y, z of the versor, then the translation
EULER = ("Euler3DTransform",)  # turns about x, y, z, then the translation


@dataclass(frozen=True, slots=True, eq=False)
class LinearTransform:
    """A rigid transform from a file: `parent_from_child` as Slicer's node has it, in LPS and metres."""

    file: str
    parent_from_child: Array  # (4, 4)
    resampling: Array  # (4, 4): as ITK stores it, child_from_parent
    notes: tuple[str, ...] = ()

    def ras(self) -> Array:
        """Return `parent_from_child`, shape (4, 4) [m], told in RAS axes, as Slicer shows it."""
        return RAS_FROM_LPS @ self.parent_from_child @ RAS_FROM_LPS


def read_transform(path: Path) -> LinearTransform:
    """Read one rigid transform from an ITK file.

    Raises CalibrationRefused for an empty or torn file, several transforms, one that is not linear, and matrices that
    are not rigid.
    """
    readers = {".h5": _hdf5, ".hdf5": _hdf5, ".hdf": _hdf5, ".tfm": _text, ".txt": _text}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise CalibrationRefused(f"wanted a transform as .tfm or .h5; got {path.suffix or 'no suffix'}; {path}", ANEW)
    kind, parameters, fixed = reader(path)
    matrix = _matrix(kind, parameters, fixed, path.name)
    rows = Rows("fixed", "moving", matrix[None], np.zeros(1, dtype=np.int64), None)
    track, notes = checked(rows, MILLIMETRE, path.name)
    resampling = np.eye(4)
    resampling[:3, :3], resampling[:3, 3] = track.rotations[0], track.translations[0]
    inverse = track.inverse()
    parent_from_child = np.eye(4)
    parent_from_child[:3, :3], parent_from_child[:3, 3] = inverse.rotations[0], inverse.translations[0]
    return LinearTransform(path.name, parent_from_child, resampling, tuple(notes))


def _matrix(kind: str, parameters: Array, fixed: Array, where: str) -> Array:
    """Return `y = A (x - c) + c + t` as a matrix, shape (4, 4), in the file's millimetres."""
    name, *stated = kind.split("_")
    if stated not in (["double", "3", "3"], ["float", "3", "3"]):
        raise CalibrationRefused(f"wanted a transform from 3 to 3 dimensions; got {kind!r}; in {where}", ANEW)
    wanted = 12 if name in LINEAR else 6
    if name not in (*LINEAR, *VERSOR, *EULER):
        raise CalibrationRefused(f"wanted a linear transform; got {name}; in {where}. Warps hold no rigid pose.")
    if len(parameters) != wanted:
        raise CalibrationRefused(f"wanted {wanted} parameters of {name}; got {len(parameters)}; in {where}", ANEW)
    if not np.isfinite(told := np.concatenate([parameters, fixed])).all():
        raise CalibrationRefused(f"wanted finite numbers; got {told.tolist()}; in {where}", ANEW)
    linear = parameters[:9].reshape(3, 3) if name in LINEAR else _turn(name, parameters[:3], fixed, where)
    centre = fixed[:3] if len(fixed) >= 3 else np.zeros(3)
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, parameters[-3:] + centre - linear @ centre
    return matrix


def _turn(name: str, parameters: Array, fixed: Array, where: str) -> Array:
    x, y, z = parameters.tolist()
    if name in VERSOR:
        if x * x + y * y + z * z > 1.0:
            raise CalibrationRefused(f"wanted a versor of length up to 1; got {parameters.tolist()}; in {where}")
        w = np.sqrt(1.0 - x * x - y * y - z * z)
        k = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
        return np.eye(3) + 2.0 * w * k + 2.0 * k @ k
    turns = [_about(axis, angle) for axis, angle in enumerate((x, y, z))]
    zyx = len(fixed) > 3 and fixed[3] != 0.0  # ITK's ComputeZYX
    return turns[2] @ turns[1] @ turns[0] if zyx else turns[2] @ turns[0] @ turns[1]


def _about(axis: int, angle: float) -> Array:
    c, s = np.cos(angle), np.sin(angle)
    matrix = np.eye(3)
    i, j = ((1, 2), (2, 0), (0, 1))[axis]
    matrix[i, i] = matrix[j, j] = c
    matrix[i, j], matrix[j, i] = -s, s
    return matrix


def _text(path: Path) -> tuple[str, Array, Array]:
    lines = text_of(path).splitlines()
    if not lines[0].startswith("#Insight Transform File"):
        raise CalibrationRefused(f"wanted `#Insight Transform File V1.0`; got {lines[0][:40]!r}; in {path.name}", ANEW)
    values: dict[str, list[str]] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if colon and not line.startswith("#"):
            values.setdefault(name.strip(), []).append(value.strip())
    if len(values.get("Transform", [])) != 1 or len(values.get("Parameters", [])) != 1:
        got = f"{len(values.get('Transform', []))}, with {len(values.get('Parameters', []))} lines of parameters"
        raise CalibrationRefused(f"wanted one transform; got {got}; in {path.name}. Was it cut off, or a composite?")
    if "FixedParameters" not in values:
        raise CalibrationRefused(f"wanted a line FixedParameters; got none; in {path.name}. Was the file cut off?")
    try:
        parameters, fixed = (
            np.array([float(word) for word in values[name][0].split()]) for name in ("Parameters", "FixedParameters")
        )
    except ValueError as error:
        raise CalibrationRefused(f"wanted numbers; got {error}; in {path.name}", "Write decimal points.") from error
    return values["Transform"][0], parameters, fixed


def _hdf5(path: Path) -> tuple[str, Array, Array]:
    try:
        import h5py  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as error:
        raise CalibrationRefused(
            f"wanted h5py to read {path.name}; it is not installed. pip install 'twinguide[files]', or save as .tfm."
        ) from error
    try:
        with h5py.File(path, "r") as file:
            group: Any = file["TransformGroup"]
            kinds = [str(np.asarray(group[key]["TransformType"]).ravel()[0], "ascii") for key in sorted(group)]
            kept = [key for key, kind in zip(sorted(group), kinds, strict=True) if "Composite" not in kind]
            if len(kept) != 1:
                raise CalibrationRefused(f"wanted one transform; got {', '.join(kinds) or 'none'}; in {path.name}")
            one: Any = group[kept[0]]
            kind = next(kind for kind in kinds if "Composite" not in kind)
            # older ITK wrote the dataset's name with a letter missing
            parameters = _first(one, "TransformParameters", "TranformParameters")
            fixed = _first(one, "TransformFixedParameters", "TranformFixedParameters")
    except CalibrationRefused:
        raise
    except (OSError, KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError) as error:
        got = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CalibrationRefused(f"wanted ITK's TransformGroup; got {got}; in {path.name}", ANEW) from error
    return kind, parameters, fixed


def _first(group: Any, *names: str) -> Array:  # noqa: ANN401 - h5py has no types
    name = next((name for name in names if name in group), names[0])
    return np.asarray(group[name], dtype=np.float64).ravel()
