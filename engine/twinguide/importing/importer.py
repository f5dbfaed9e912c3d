"""Import one patient from a folder of surfaces into a case folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from twinguide.case import Plan, Surface, check_plan
from twinguide.case_file import BreathingPhase
from twinguide.errors import CaseError
from twinguide.hookspecs import Organ
from twinguide.importing.cleaning import clean
from twinguide.importing.geometry import grid_of, signed_distance, volume_of
from twinguide.importing.landmarks import UNVERIFIED, place_landmarks, read_landmarks
from twinguide.importing.meshing import body_of
from twinguide.importing.planning import (
    Obstacles,
    check_target,
    read_plan,
    search_entry,
    share_outside,
    target_of,
    told,
)
from twinguide.importing.plausibility import check_side, check_size
from twinguide.importing.reading import (
    IN_THE_SAME,
    Axes,
    Units,
    choose_organ,
    expect_target,
    find_surfaces,
    match,
    read_surface,
    to_image,
)
from twinguide.importing.skin import NOTE, check_on_skin, generate_skin
from twinguide.importing.writing import Made, Patient, Source, scratch, write

SINGLE_SHELL = ("organ", "skin")
IN_THE_BODY = ("tumour", "vessel", "bile", "cyst")
TRIANGLES = 2000  # of the body's boundary, for about 4500 tetrahedra: what a 90 Hz solver bears on two cores
GRID_M = 0.003
PADDING_M = 0.020
OUT_SHARE = 0.01  # of a target's volume outside the organ: from here on it is stated
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


def import_case(
    source: Path, out: Path, *, units: Units, axes: Axes, breathing_phase: BreathingPhase, organs: Sequence[Organ],
    progress: Progress,
) -> ImportReport:  # fmt: skip
    """Import surfaces [units, axes and the scan's breathing phase as given, never guessed] into the case folder `out`.

    `progress(what, share)` is called as it goes, share 0..1. Raises CaseError; `out` is then as it was, or, where the
    finished files could not all be moved into it, holds some of them without the `case.toml` that makes a case.
    """
    given = Source(source, units, axes, breathing_phase)
    with scratch(out) as folder:
        patient = _read(given, organs, progress)
        made = _make(given, patient, progress)
        progress("writing", 0.95)
        write(given, patient, made, folder, out)
    progress("done", 1.0)
    rows = tuple(
        ImportRow(
            name, patient.files[name], len(s.vertices), len(s.triangles), volume_of(s.vertices, s.triangles) * 1e6,
            tuple(patient.repairs[name]), name in patient.generated,
        )
        for name, s in patient.surfaces.items()
    )  # fmt: skip
    landmarks = f"{len(made.landmarks)} {made.landmarks_from}"
    plan = told(made.plan, _obstacles(patient, made.plan.target_structure))
    return ImportReport(
        rows, patient.missing, tuple(patient.left_out), made.laterality, made.body_note, plan, landmarks
    )


def _make(given: Source, patient: Patient, progress: Progress) -> Made:
    """Make plan, landmarks, distances and the organ's mesh, which takes longest, once all else is known to be sound."""
    laterality = check_side(patient.surfaces, patient.anatomy)
    plan_file, marks_file = given.folder / "plan.toml", given.folder / "landmarks.csv"
    plan = read_plan(plan_file, given.units, given.axes, list(patient.surfaces))
    marks = read_landmarks(marks_file, given.units, given.axes) if marks_file.is_file() else None
    skin = _skin(patient, progress, needed=plan is None or marks is None)
    generated = bool(patient.generated)
    far: list[str] = []
    if plan is not None:
        off_m = float(signed_distance(patient.surfaces[plan.target_structure], plan.target[None])[0])
        check_plan(plan, off_m, str(plan_file), IN_THE_SAME)
        far += check_on_skin({"the entry": plan.entry}, skin, generated, str(plan_file))
    if marks is not None:
        points = {f"landmark {mark.name}": mark.position for mark in marks}
        far += check_on_skin(points, skin, generated, str(marks_file))
    for name in patient.generated:
        patient.repairs[name] += far
    plan = _plan(patient, plan, skin, str(plan_file), progress)
    landmarks = place_landmarks(skin, plan.entry) if marks is None else marks
    where = "placed on the skin about the entry" if marks is None else "given with the source"
    if all(mark.kind == "fiducial" for mark in landmarks):
        where += f"; {UNVERIFIED}"
    progress("meshing the organ", 0.7)
    inner = {name: s for name, s in patient.surfaces.items() if patient.anatomy[name].role in IN_THE_BODY}
    try:
        body, note = body_of(patient.surfaces[patient.organ_name], TRIANGLES, inner)
    except CaseError as error:
        named = f"{error.where} {patient.organ_name}, {patient.files[patient.organ_name]}"
        raise CaseError(error.wanted, error.got, named, error.next_step) from error
    return Made(laterality, plan, landmarks, where, body, note)


def _read(given: Source, organs: Sequence[Organ], progress: Progress) -> Patient:
    files = find_surfaces(given.folder)
    organ = choose_organ(files, organs)
    patient = Patient(organ)
    expect_target(given.folder, files, organ)
    for number, path in enumerate(files):
        progress(f"reading {path.name}", 0.3 * number / len(files))
        anatomy = match(path.stem, organ.structures)
        if anatomy is None:
            patient.left_out.append(path.name)
            continue
        if anatomy.name in patient.files:
            got = f"{patient.files[anatomy.name]} and {path.name}"
            raise CaseError(f"one file for {anatomy.name}", got, str(given.folder), "Join them, or rename one.")
        vertices, triangles = read_surface(path)
        progress(f"checking {path.name}, {len(triangles)} triangles", 0.3 * (number + 0.5) / len(files))
        vertices = to_image(vertices, given.units, given.axes)
        check_size(anatomy.name, anatomy.role, vertices, given.units)
        surface, repairs = clean(path.name, vertices, triangles, single=anatomy.role in SINGLE_SHELL)
        patient.anatomy[anatomy.name], patient.surfaces[anatomy.name] = anatomy, surface
        patient.files[anatomy.name], patient.repairs[anatomy.name] = path.name, repairs
    return patient


def _skin(patient: Patient, progress: Progress, *, needed: bool) -> Surface:
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


def _plan(patient: Patient, given: Plan | None, skin: Surface, file: str, progress: Progress) -> Plan:
    """Return the plan, given in a file or searched; fill the patient's grids, state what is out."""
    organ = patient.organ_name
    target = given.target_structure if given else next(n for n, a in patient.anatomy.items() if a.risk == "target")
    _fill_grids(patient, target, progress)
    grids = patient.grids
    middle = given.target if given else target_of(patient.surfaces[target], grids[target])
    where = file if given else patient.files[target]
    check_target(target, middle, patient.surfaces[target], patient.surfaces[organ], where)
    out = share_outside(grids[target], grids[organ])
    if out > OUT_SHARE:
        patient.repairs[target].append(f"WARNING: {out:.0%} of it lies outside the {organ}; left as it is")
    progress("planning", 0.65)
    return given or search_entry(skin, middle, target, _obstacles(patient, target))


def _obstacles(patient: Patient, target: str) -> Obstacles:
    critical = {
        name: (patient.grids[name], anatomy.margin_mm * 1e-3)
        for name, anatomy in patient.anatomy.items()
        if anatomy.risk == "critical" and name != target
    }
    return Obstacles(critical, patient.grids[patient.organ_name], patient.grids[target])


def _fill_grids(patient: Patient, target: str, progress: Progress) -> None:
    """Make distance grids [m] of the organ, the targets and everything critical."""
    wanted = [
        name for name, a in patient.anatomy.items()
        if a.role == "organ" or a.risk in ("critical", "target") or name == target
    ]  # fmt: skip
    for number, name in enumerate(wanted):
        progress(f"distances to {name}", 0.35 + 0.3 * number / len(wanted))
        patient.grids[name] = grid_of(patient.surfaces[name], GRID_M, PADDING_M)
