"""Import one patient from a folder of surfaces into a case folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twinguide.case import Body, Landmark, Plan, Surface
from twinguide.case_file import (
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
from twinguide.hookspecs import Anatomy, Organ
from twinguide.importing.cleaning import clean
from twinguide.importing.geometry import grid_of, signed_distance, volume_of
from twinguide.importing.landmarks import place_landmarks, read_landmarks
from twinguide.importing.meshing import body_of
from twinguide.importing.planning import Obstacles, read_plan, search_entry, target_of
from twinguide.importing.plausibility import check_side, check_size
from twinguide.importing.reading import (
    Axes,
    Units,
    choose_organ,
    expect_target,
    find_surfaces,
    match,
    read_surface,
    sha256_of,
    to_image,
)
from twinguide.importing.skin import NOTE, generate_skin
from twinguide.importing.writing import write_arrays, write_case

SINGLE_SHELL = ("organ", "skin")
IN_THE_BODY = ("tumour", "vessel", "bile", "cyst")
TRIANGLES = 2000  # of the body's boundary, for about 4500 tetrahedra: what a 90 Hz solver bears on two cores
GRID_M = 0.003
PADDING_M = 0.020
LIBRARIES = ("numpy", "scipy", "libigl", "trimesh", "netgen-mesher", "itkwasm-mesh-io-wasi")
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class ImportRow:
    """One structure of the report."""

    structure: str
    file: str
    vertices: int
    triangles: int
    volume_ml: float
    repairs: tuple[str, ...]
    generated: bool


@dataclass(frozen=True)
class ImportReport:
    """What an import did: a row a structure, what is missing, what was left out, and the checks in words."""

    rows: tuple[ImportRow, ...]
    missing: tuple[str, ...]
    left_out: tuple[str, ...]
    laterality: str
    body: str
    plan: str
    landmarks: str


@dataclass
class _Patient:
    """The patient as it grows during one import."""

    organ: Organ
    anatomy: dict[str, Anatomy]
    surfaces: dict[str, Surface]
    files: dict[str, str]
    repairs: dict[str, list[str]]
    left_out: list[str]
    generated: set[str]

    @property
    def organ_name(self) -> str:
        return next(name for name, anatomy in self.anatomy.items() if anatomy.role == "organ")


def import_case(
    source: Path, out: Path, *, units: Units, axes: Axes, breathing_phase: BreathingPhase, organs: Sequence[Organ],
    progress: Progress,
) -> ImportReport:  # fmt: skip
    """Import surfaces [units, axes and the scan's breathing phase as given, never guessed] into the case folder `out`.

    `progress(what, share)` is called as it goes, share 0..1. Raises CaseError; `out` then holds no case.toml.
    """
    _make_folder(out)
    patient = _read(source, units, axes, organs, progress)
    laterality = check_side(patient.surfaces, patient.anatomy)
    given = read_plan(source / "plan.toml", units, axes, list(patient.surfaces))
    file = source / "landmarks.csv"
    marks = read_landmarks(file, units, axes) if file.is_file() else None
    target = given.target_structure if given else _target(patient)
    skin = _skin(patient, progress, needed=given is None or marks is None)
    progress("meshing the organ", 0.35)
    organ_surface = patient.surfaces[patient.organ_name]
    inner = {name: s for name, s in patient.surfaces.items() if patient.anatomy[name].role in IN_THE_BODY}
    try:
        body, body_note = body_of(organ_surface, TRIANGLES, inner)
    except CaseError as error:
        where = f"{error.where} {patient.organ_name}, {patient.files[patient.organ_name]}"
        raise CaseError(error.wanted, error.got, where, error.next_step) from error
    grids = _grids(patient, progress)
    progress("planning", 0.90)
    plan = given or _plan(patient, target, skin, grids)
    landmarks = marks if marks is not None else place_landmarks(skin, plan.entry)
    where = "placed on the skin about the entry" if marks is None else "given with the source"
    progress("writing", 0.95)
    try:
        _write(source, out, units, axes, breathing_phase, patient, body, body_note, grids, plan, landmarks, laterality)
    except OSError as error:
        raise CaseError("a folder that can be written", str(error), str(out), "Choose another --out.") from error
    progress("done", 1.0)
    rows = tuple(
        ImportRow(
            name, patient.files[name], len(s.vertices), len(s.triangles), volume_of(s.vertices, s.triangles) * 1e6,
            tuple(patient.repairs[name]), name in patient.generated,
        )
        for name, s in patient.surfaces.items()
    )  # fmt: skip
    return ImportReport(
        rows, _missing(patient), tuple(patient.left_out), laterality, body_note, plan.note, f"{len(landmarks)} {where}"
    )


def _make_folder(out: Path) -> None:
    """Make the case's folder before the work, not after it."""
    if (out / "case.toml").exists():
        raise CaseError("a folder without a case", "one that has case.toml", str(out), "Choose another --out.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CaseError("a folder that can be made", str(error), str(out), "Choose another --out.") from error


def _read(source: Path, units: Units, axes: Axes, organs: Sequence[Organ], progress: Progress) -> _Patient:
    files = find_surfaces(source)
    organ = choose_organ(files, organs)
    patient = _Patient(organ, {}, {}, {}, {}, [], set())
    expect_target(source, files, organ)
    for number, path in enumerate(files):
        progress(f"reading {path.name}", 0.3 * number / len(files))
        anatomy = match(path.stem, organ.structures)
        if anatomy is None:
            patient.left_out.append(path.name)
            continue
        if anatomy.name in patient.files:
            got = f"{patient.files[anatomy.name]} and {path.name}"
            raise CaseError(f"one file for {anatomy.name}", got, str(source), "Join them, or rename one.")
        vertices, triangles = read_surface(path)
        progress(f"checking {path.name}, {len(triangles)} triangles", 0.3 * (number + 0.5) / len(files))
        vertices = to_image(vertices, units, axes)
        check_size(anatomy.name, anatomy.role, vertices, units)
        surface, repairs = clean(path.name, vertices, triangles, single=anatomy.role in SINGLE_SHELL)
        patient.anatomy[anatomy.name], patient.surfaces[anatomy.name] = anatomy, surface
        patient.files[anatomy.name], patient.repairs[anatomy.name] = path.name, repairs
    return patient


def _target(patient: _Patient) -> str:
    """Return the target's name; raise CaseError for one that lies wholly outside the organ."""
    target = next(name for name, anatomy in patient.anatomy.items() if anatomy.risk == "target")
    off = float(signed_distance(patient.surfaces[patient.organ_name], patient.surfaces[target].vertices).min())
    if off > 0:
        raise CaseError(
            f"{target} in the {patient.organ_name}, or touching it", f"it lies {off * 1e3:.0f} mm outside",
            patient.files[target], "Export both in one frame and the same units, or give a plan.toml: docs/case.md.",
        )  # fmt: skip
    return target


def _skin(patient: _Patient, progress: Progress, *, needed: bool) -> Surface:
    """Return the skin, generated where the source has none; empty where the organ has none and nothing needs it."""
    for name, anatomy in patient.anatomy.items():
        if anatomy.role == "skin":
            return patient.surfaces[name]
    skin = next((anatomy for anatomy in patient.organ.structures if anatomy.role == "skin"), None)
    if skin is None and needed:
        raise CaseError(
            "a skin, to search the entry and place landmarks on", f"none, and {patient.organ.name} declares none",
            next_step="Declare an Anatomy of role skin, or give both plan.toml and landmarks.csv: docs/case.md.",
        )  # fmt: skip
    if skin is None:
        return Surface(np.zeros((0, 3)), np.zeros((0, 3), dtype=np.int32))
    progress("generating a skin", 0.32)
    patient.surfaces[skin.name] = generate_skin(patient.surfaces.values())
    patient.anatomy[skin.name], patient.files[skin.name], patient.repairs[skin.name] = skin, "", [NOTE]
    patient.generated.add(skin.name)
    return patient.surfaces[skin.name]


def _grids(patient: _Patient, progress: Progress) -> dict[str, DistanceGrid]:
    """Return distance grids [m] of the organ, the targets and everything critical."""
    wanted = [n for n, a in patient.anatomy.items() if a.role == "organ" or a.risk in ("critical", "target")]
    grids: dict[str, DistanceGrid] = {}
    for number, name in enumerate(wanted):
        progress(f"distances to {name}", 0.5 + 0.4 * number / len(wanted))
        grids[name] = grid_of(patient.surfaces[name], GRID_M, PADDING_M)
    return grids


def _plan(patient: _Patient, target: str, skin: Surface, grids: dict[str, DistanceGrid]) -> Plan:
    critical = {
        name: (grids[name], anatomy.margin_mm * 1e-3)
        for name, anatomy in patient.anatomy.items()
        if anatomy.risk == "critical"
    }
    obstacles = Obstacles(critical, grids[patient.organ_name], grids[target])
    return search_entry(skin, target_of(patient.surfaces[target], grids[target]), target, obstacles)


def _missing(patient: _Patient) -> tuple[str, ...]:
    return tuple(anatomy.name for anatomy in patient.organ.structures if anatomy.name not in patient.surfaces)


def _write(
    source: Path, out: Path, units: Units, axes: Axes, breathing_phase: BreathingPhase, patient: _Patient, body: Body,
    body_note: str, grids: dict[str, DistanceGrid], plan: Plan, landmarks: Sequence[Landmark], laterality: str,
) -> None:  # fmt: skip
    arrays = {"vertices": body.vertices, "tetrahedra": body.tetrahedra}
    arrays |= {f"fraction:{name}": values for name, values in body.fractions.items()}
    used = [path for path in find_surfaces(source) if path.name in patient.files.values()]
    used += [path for path in (source / "landmarks.csv", source / "plan.toml") if path.is_file()]
    content = CaseFile(
        format=FORMAT,
        title=source.resolve().name,
        organ=patient.organ_name,
        units="m",
        axes="lps",
        source_units=units,
        source_axes=axes,
        laterality=laterality,
        breathing_phase=breathing_phase,
        missing=list(_missing(patient)),
        structures=[_write_structure(out, patient, name, grids.get(name)) for name in patient.surfaces],
        body=BodyRow("body.npz", write_arrays(out, "body.npz", arrays), body_note),
        landmarks=[LandmarkRow(mark.name, mark.kind, _vec3(mark.position)) for mark in landmarks],
        plan=PlanRow(plan.target_structure, _vec3(plan.entry), _vec3(plan.target), plan.note),
        provenance=Provenance(
            f"twinguide {version('twinguide')}",
            source.resolve().name,
            {name: version(name) for name in LIBRARIES},
            {path.name: sha256_of(path) for path in used},
        ),
    )
    write_case(out, content)


def _write_structure(out: Path, patient: _Patient, name: str, grid: DistanceGrid | None) -> StructureRow:
    surface, anatomy = patient.surfaces[name], patient.anatomy[name]
    file = f"surfaces/{name}.npz"
    sha256 = write_arrays(out, file, {"vertices": surface.vertices, "triangles": surface.triangles})
    grid_file, grid_sha256 = "", ""
    if grid is not None:
        grid_file = f"distances/{name}.npz"
        values = {"origin": grid.origin, "spacing": np.array(grid.spacing), "values": grid.values}
        grid_sha256 = write_arrays(out, grid_file, values)
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
