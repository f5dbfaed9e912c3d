"""Write a case folder: in a folder of its own until it is whole, then moved, `case.toml` last."""

from __future__ import annotations

import errno
import hashlib
import io
import json
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinguide.case import Body, Case, Landmark, Plan, Surface
from twinguide.case_file import (
    CASE_FILE,
    FORMAT,
    BodyRow,
    BreathingPhase,
    CaseFile,
    LandmarkRow,
    PlanRow,
    Provenance,
    StructureRow,
    Vec3,
)
from twinguide.distances import DistanceGrid
from twinguide.errors import CaseError
from twinguide.files import write_whole
from twinguide.hookspecs import Anatomy, Organ
from twinguide.importing.reading import Axes, Units, sha256_of

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LIBRARIES = ("numpy", "scipy", "libigl", "trimesh", "netgen-mesher", "itkwasm-mesh-io-wasi")
HEADER = "# A TwinGuide case. Lengths in metres and points in LPS, except keys that end in _mm.\n\n"


@dataclass(frozen=True)
class Source:
    """A folder of surfaces, and what is told of them."""

    folder: Path
    units: Units
    axes: Axes
    phase: BreathingPhase


@dataclass
class Patient:
    """The patient as it grows during one import; the tables are by structure."""

    organ: Organ
    anatomy: dict[str, Anatomy] = field(default_factory=dict[str, Anatomy])
    surfaces: dict[str, Surface] = field(default_factory=dict[str, Surface])  # [m], in image
    files: dict[str, str] = field(default_factory=dict[str, str])  # the source's; empty where generated
    repairs: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    grids: dict[str, DistanceGrid] = field(default_factory=dict[str, DistanceGrid])
    left_out: list[str] = field(default_factory=list[str])  # files that are no structure
    generated: set[str] = field(default_factory=set[str])  # structures that the source lacks

    @property
    def organ_name(self) -> str:
        """Return the name of the structure that is the organ."""
        return next(name for name, anatomy in self.anatomy.items() if anatomy.role == "organ")

    @property
    def missing(self) -> tuple[str, ...]:
        """Return the names of the structures that the organ's plugin knows and the patient lacks."""
        return tuple(anatomy.name for anatomy in self.organ.structures if anatomy.name not in self.surfaces)


@dataclass(frozen=True)
class Made:
    """What an import makes of a patient beside the surfaces, with its notes."""

    laterality: str
    plan: Plan
    landmarks: list[Landmark]
    landmarks_from: str
    body: Body
    body_note: str


@contextmanager
def scratch(out: Path) -> Generator[Path]:
    """Make the case's folder before the work, and in it one to write into; leave neither after an error."""
    if (out / CASE_FILE).exists():
        raise CaseError("a folder without a case", f"one that has {CASE_FILE}", str(out), "Choose another --out.")
    new = not out.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        made = TemporaryDirectory(prefix=".importing-", dir=out)
    except OSError as error:
        raise CaseError("a folder that can be made", str(error), str(out), _remedy(error)) from error
    try:
        with made as folder:
            yield Path(folder)
    except BaseException:
        if new:
            with suppress(OSError):
                out.rmdir()
        raise


def write(given: Source, patient: Patient, made: Made, folder: Path, out: Path) -> None:
    """Write the case into a folder, read it as everything else will, and move it to `out`."""
    try:
        text = HEADER + toml(msgspec.to_builtins(_content(given, patient, made, folder)))
        write_whole(folder / CASE_FILE, text.encode(errors="replace").decode())  # a file's name may be no UTF-8
        Case.load(folder)
        _move(folder, out)
    except OSError as error:
        raise CaseError(
            "a folder that can be written", error.strerror or str(error), str(out), _remedy(error)
        ) from error
    except CaseError as error:
        where = f"what {given.folder} would make"
        next_step = "Check its plan.toml, landmarks.csv and names, and what the organ's plugin declares."
        raise CaseError(error.wanted, error.got, where, next_step) from error


def _content(given: Source, patient: Patient, made: Made, folder: Path) -> CaseFile:
    """Return what case.toml is to hold, after the arrays that it names are written into the folder."""
    arrays = {"vertices": made.body.vertices, "tetrahedra": made.body.tetrahedra}
    arrays |= {f"fraction:{name}": values for name, values in made.body.fractions.items()}
    used = sorted(given.folder / name for name in patient.files.values() if name)
    used += [path for path in (given.folder / "landmarks.csv", given.folder / "plan.toml") if path.is_file()]
    title = given.folder.resolve().name
    plan = made.plan
    return CaseFile(
        format=FORMAT,
        title=title,
        organ=patient.organ_name,
        units="m",
        axes="lps",
        source_units=given.units,
        source_axes=given.axes,
        laterality=made.laterality,
        breathing_phase=given.phase,
        missing=list(patient.missing),
        structures=[_write_structure(folder, patient, name) for name in patient.surfaces],
        body=BodyRow("body.npz", _write_arrays(folder, "body.npz", arrays), made.body_note),
        landmarks=[LandmarkRow(mark.name, mark.kind, _vec3(mark.position)) for mark in made.landmarks],
        plan=PlanRow(plan.target_structure, _vec3(plan.entry), _vec3(plan.target), plan.note),
        provenance=Provenance(
            f"twinguide {version('twinguide')}",
            title,
            {name: version(name) for name in LIBRARIES},
            {path.name: sha256_of(path) for path in used},
        ),
    )


def _write_structure(folder: Path, patient: Patient, name: str) -> StructureRow:
    surface, anatomy = patient.surfaces[name], patient.anatomy[name]
    file = f"surfaces/{name}.npz"
    sha256 = _write_arrays(folder, file, {"vertices": surface.vertices, "triangles": surface.triangles})
    grid_file, grid_sha256 = "", ""
    if grid := patient.grids.get(name):
        grid_file = f"distances/{name}.npz"
        values = {"origin": grid.origin, "spacing": np.array(grid.spacing), "values": grid.values}
        grid_sha256 = _write_arrays(folder, grid_file, values)
    return StructureRow(
        name=name, role=anatomy.role, risk=anatomy.risk, colour=anatomy.colour,
        margin_mm=anatomy.margin_mm, tolerance_mm=anatomy.tolerance_mm,
        young_pa=anatomy.young_pa, young_sigma_pa=anatomy.young_sigma_pa, poisson=anatomy.poisson,
        source=anatomy.source, file=file, sha256=sha256, distance_file=grid_file, distance_sha256=grid_sha256,
        generated=name in patient.generated, note="; ".join(patient.repairs[name]),
    )  # fmt: skip


def _vec3(point: NDArray[np.float64]) -> Vec3:
    x, y, z = (float(v) for v in point)
    return x, y, z


def _move(folder: Path, out: Path) -> None:
    """Move a whole case's files, `case.toml` last: a folder without it is no case."""
    for path in sorted(folder.rglob("*.*"), key=lambda path: path.name == CASE_FILE):
        to = out / path.relative_to(folder)
        to.parent.mkdir(exist_ok=True)
        path.replace(to)


def _remedy(error: OSError) -> str:
    """Return the next step where a folder cannot be written."""
    if error.errno in FULL:
        return "Make room there, lift the limit on sizes (ulimit -f, quota), or choose another --out."
    return "Choose another --out."


def _write_arrays(folder: Path, file: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Write an .npz file and return its SHA-256; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{key: np.asarray(a, order="C") for key, a in arrays.items()})
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """Return TOML of nested tables and arrays of tables; strings and numbers as JSON, which TOML shares."""
    lines: list[str] = []
    for key, value in table.items():
        if not isinstance(value, Mapping) and not _is_tables(value):
            lines.append(f"{_key(key)} = {_json(value)}")
    for key, value in table.items():
        name = f"{prefix}{_key(key)}"
        if isinstance(value, Mapping):
            lines += ["", f"[{name}]", toml(cast(Mapping[str, Any], value), name + ".").strip("\n")]
        elif _is_tables(value):
            for row in value:
                lines += ["", f"[[{name}]]", toml(row, name + ".").strip("\n")]
    return "\n".join(lines) + "\n"


def _is_tables(value: Any) -> bool:  # noqa: ANN401 - any value of TOML
    return isinstance(value, list) and any(isinstance(row, Mapping) for row in cast(list[Any], value))


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else _json(key)


def _json(value: Any) -> str:  # noqa: ANN401 - any value of TOML
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # which JSON leaves as it is
