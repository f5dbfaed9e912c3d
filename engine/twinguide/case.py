"""A case: one patient's surfaces, mesh, distance grids, landmarks and plan, as everything else reads them.

A case is a folder. `case.toml` is for people; its arrays lie beside it in `.npz` files whose SHA-256 it holds. All
lengths are metres and all points are in `image` (CT, LPS); only keys that end in `_mm` are millimetres.
Importing, which needs heavy libraries, is `twinguide.importing`.
"""

from __future__ import annotations

import hashlib
import io
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinguide.case_file import AGAIN, CASE_FILE, CaseFile, Risk, Role, StructureRow, Vec3, check
from twinguide.distances import DistanceGrid, DistanceGrids
from twinguide.errors import CaseError
from twinguide.flaws import flaw_of
from twinguide.frames import Array

TARGET_OFF_M = 0.005  # a thick CT slice: by so much may a target miss its structure
PATH_M = (0.010, 0.250)  # from entry to target: no wall is thinner, and no needle for biopsy or ablation longer
MOVING_ROLES: tuple[Role, ...] = ("organ", "tumour", "vessel", "bile", "cyst")  # these follow the organ, the rest stays


@dataclass(frozen=True, slots=True)
class Structure:
    """What a structure is and means for a needle; its geometry is `Case.surface(name)`."""

    name: str
    role: Role
    risk: Risk
    colour: Vec3  # display-encoded sRGB, 0..1
    margin_m: float
    tolerance_m: float  # predicted 95 % error up to which it is shown unmarked
    file: str
    generated: bool  # made by the importer, not seen in the patient
    sha256: str
    young_pa: float  # [Pa]; 0: the organ's own
    young_sigma_pa: float
    poisson: float
    note: str

    @property
    def moves(self) -> bool:
        """Whether it follows the organ's breathing."""
        return self.role in MOVING_ROLES


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """A closed triangle surface: vertices [m], (n, 3), in image; triangles, (m, 3), counter-clockwise from outside."""

    vertices: Array
    triangles: NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """The organ's tetrahedra: vertices [m], (n, 3), in image; tetrahedra, (m, 4), of positive volume.

    `fractions` maps an inner structure to its share of each tetrahedron's volume, (m,), 0..1.
    """

    vertices: Array
    tetrahedra: NDArray[np.int32]
    fractions: dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class Landmark:
    """A point [m], (3,), in image, that can be touched: fitted to, or kept back for verification."""

    name: str
    position: Array
    kind: Literal["fiducial", "verification"]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A straight path from entry to target [m], (3,) each, in image."""

    entry: Array
    target: Array
    target_structure: str
    note: str = ""

    @property
    def length_m(self) -> float:
        """Return the path's length [m]."""
        return float(np.linalg.norm(self.target - self.entry))


class Case:
    """One patient's case, read from its folder; arrays are read on first use and kept."""

    def __init__(self, folder: Path, content: CaseFile, content_hash: str) -> None:
        self.folder, self.content_hash = folder, content_hash
        self.title, self.organ, self.laterality = content.title, content.organ, content.laterality
        self.breathing_phase = content.breathing_phase
        self.source_units, self.source_axes = content.source_units, content.source_axes
        self.missing = tuple(content.missing)  # structures that the organ's plugin knows and the source lacks
        self.provenance = content.provenance
        self.body_note = content.body.note
        self.structures = {row.name: _structure(row) for row in content.structures}
        self.landmarks = {row.name: Landmark(row.name, np.array(row.position), row.kind) for row in content.landmarks}
        plan = content.plan
        self.plan = Plan(np.array(plan.entry), np.array(plan.target), plan.target_structure, plan.note)
        self._rows = {row.name: row for row in content.structures}
        self._body_file = content.body.file
        self._surfaces: dict[str, Surface] = {}
        self._distances: dict[str, DistanceGrid] = {}
        self._body: Body | None = None

    @staticmethod
    def load(folder: Path | str) -> Case:
        """Read and check a case folder; raise CaseError naming the file and the key that are wrong."""
        folder = Path(folder)
        path = folder / CASE_FILE
        if not path.is_file():
            got = str(folder.resolve()) + ("" if folder.exists() else ", which is not there")
            raise CaseError(f"a case folder with {CASE_FILE}", got, next_step="Run `twinguide case import`.")
        raw = path.read_bytes()
        try:
            tables = tomllib.loads(raw.decode("utf-8-sig"))
        except ValueError as error:  # no UTF-8, or no TOML
            raise CaseError("a case file as `twinguide case import` writes it", str(error), str(path), AGAIN) from error
        if flaw := flaw_of(tables, CaseFile):
            wanted = f"{flaw.path}: {flaw.wanted}" if flaw.path else flaw.wanted
            raise CaseError(wanted, flaw.got, str(path), flaw.next_step or AGAIN)
        content = msgspec.convert(tables, CaseFile)
        check(content, folder)
        case = Case(folder, content, hashlib.sha256(raw).hexdigest())
        grid = case.distance(case.plan.target_structure)
        off_m = float(grid.at(case.plan.target[None])[0]) - grid.spacing  # which is how far interpolation may miss
        check_plan(case.plan, off_m, f"{path}, [plan]", f"Its points are metres in LPS. {AGAIN}")
        return case

    def surface(self, name: str) -> Surface:
        """Return a structure's surface [m], in image; raise CaseError for an unknown name."""
        if name not in self._surfaces:
            row = self._row(name)
            arrays = read_arrays(self.folder / row.file, {"vertices": 2, "triangles": 2})
            self._surfaces[name] = Surface(arrays["vertices"].astype(np.float64), arrays["triangles"].astype(np.int32))
        return self._surfaces[name]

    def body(self) -> Body:
        """Return the organ's tetrahedral mesh [m], in image."""
        if self._body is None:
            arrays = read_arrays(self.folder / self._body_file, {"vertices": 2, "tetrahedra": 2})
            fractions = {key[9:]: a.astype(np.float32) for key, a in arrays.items() if key.startswith("fraction:")}
            self._body = Body(
                arrays["vertices"].astype(np.float64), arrays["tetrahedra"].astype(np.int32), fractions
            )  # fmt: skip
        return self._body

    def distance(self, name: str) -> DistanceGrid:
        """Return the signed distance grid [m] of a structure that has one; raise CaseError naming those that do."""
        if name not in self._distances:
            file = self._row(name).distance_file
            if not file:
                known = ", ".join(row.name for row in self._rows.values() if row.distance_file)
                where = str(self.folder / CASE_FILE)
                raise CaseError(f"a distance grid of {name!r}", f"grids of {known or 'nothing'}", where, AGAIN)
            arrays = read_arrays(self.folder / file, {"origin": 1, "spacing": 0, "values": 3})
            self._distances[name] = DistanceGrid(
                arrays["origin"].astype(np.float64), float(arrays["spacing"]), arrays["values"].astype(np.float32)
            )  # fmt: skip
        return self._distances[name]

    def distances(self, names: Iterable[str]) -> DistanceGrids:
        """Return the distance grids of several structures, to be asked in one go; raise CaseError as `distance`."""
        return DistanceGrids([self.distance(name) for name in names])

    @property
    def gridded(self) -> tuple[str, ...]:
        """Return the names of the structures with a distance grid."""
        return tuple(row.name for row in self._rows.values() if row.distance_file)

    def _row(self, name: str) -> StructureRow:
        if name not in self._rows:
            raise CaseError(f"a structure called {name!r}", f"{', '.join(self._rows)}", str(self.folder / CASE_FILE))
        return self._rows[name]


def _structure(row: StructureRow) -> Structure:
    return Structure(
        name=row.name, role=row.role, risk=row.risk, colour=row.colour,
        margin_m=row.margin_mm * 1e-3, tolerance_m=row.tolerance_mm * 1e-3,
        file=row.file, generated=row.generated, sha256=row.sha256,
        young_pa=row.young_pa, young_sigma_pa=row.young_sigma_pa, poisson=row.poisson, note=row.note,
    )  # fmt: skip


def check_plan(plan: Plan, off_m: float, where: str, next_step: str) -> None:
    """Refuse a plan whose target is `off_m` [m] outside its structure, or whose path no needle takes; CaseError."""
    if not off_m <= TARGET_OFF_M:
        raise CaseError(
            f"a target in the {plan.target_structure}, or within {TARGET_OFF_M * 1e3:.0f} mm of it",
            f"{np.round(plan.target * 1e3, 1).tolist()} mm (LPS), {off_m * 1e3:.0f} mm off", where, next_step,
        )  # fmt: skip
    low, high = PATH_M
    if not low <= plan.length_m <= high:
        raise CaseError(
            f"a path of {low * 1e3:.0f} to {high * 1e3:.0f} mm, as needles are",
            f"{plan.length_m * 1e3:.0f} mm from entry to target", where, "Give an entry on the skin.",
        )  # fmt: skip


def read_arrays(path: Path, dimensions: Mapping[str, int]) -> dict[str, NDArray[Any]]:
    """Return the arrays of an .npz file; raise CaseError where one is missing, of another dimension or not finite."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            arrays: dict[str, NDArray[Any]] = {key: file[key] for key in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise CaseError("an .npz file of arrays", f"{type(error).__name__}: {error}", str(path)) from error
    for key, count in dimensions.items():
        if key not in arrays or arrays[key].ndim != count:
            got = f"{arrays[key].ndim} dimensions" if key in arrays else f"only {sorted(arrays)}"
            raise CaseError(f"array {key!r} of {count} dimensions", got, str(path))
        if not np.isfinite(arrays[key]).all():
            raise CaseError(f"finite numbers in array {key!r}", "NaN or infinite", str(path))
    return arrays
