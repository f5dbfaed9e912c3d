"""`case.toml`, row by row as it stands, and what its types cannot check: names, points and every file's hash."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta

from twinguide.errors import CaseError

CASE_FILE = "case.toml"
FORMAT = 1
AGAIN = "Import the patient again."
Role = Literal["organ", "tumour", "vessel", "bile", "bone", "pleura", "skin", "cyst", "other"]
Risk = Literal["target", "critical", "pass", "none"]
BreathingPhase = Literal["end-expiration", "end-inspiration", "free-breathing", "unknown"]
Vec3 = tuple[float, float, float]
Share = Annotated[float, Meta(ge=0, le=1)]
UpToAMetre = Annotated[float, Meta(ge=0, le=1000)]  # [mm]
Stiffness = Annotated[float, Meta(ge=0, le=1e12)]  # [Pa]; diamond has as much


class StructureRow(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """One [[structures]] table of case.toml."""

    name: str
    role: Role
    risk: Risk
    colour: tuple[Share, Share, Share]
    margin_mm: UpToAMetre
    tolerance_mm: UpToAMetre
    young_pa: Stiffness = 0.0
    young_sigma_pa: Stiffness = 0.0
    poisson: Annotated[float, Meta(ge=0, lt=0.5)] = 0.45
    source: str = ""
    file: str
    sha256: str
    distance_file: str = ""
    distance_sha256: str = ""
    generated: bool = False
    note: str = ""


class LandmarkRow(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """One [[landmarks]] table of case.toml."""

    name: str
    kind: Literal["fiducial", "verification"]
    position: Vec3


class PlanRow(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The [plan] table of case.toml."""

    target_structure: str
    entry: Vec3
    target: Vec3
    note: str = ""


class BodyRow(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The [body] table of case.toml."""

    file: str
    sha256: str
    note: str = ""


class Provenance(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where a case comes from: the importer, its libraries, and the SHA-256 of each source file."""

    importer: str
    source: str
    libraries: dict[str, str]
    files: dict[str, str]


class CaseFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The whole of case.toml."""

    format: int
    title: str
    organ: str
    units: Literal["m"]
    axes: Literal["lps"]
    source_units: Literal["mm", "m"]
    source_axes: Literal["lps", "ras"]
    laterality: str
    breathing_phase: BreathingPhase  # of the scan that the surfaces come from
    missing: list[str]
    structures: list[StructureRow]
    body: BodyRow
    landmarks: list[LandmarkRow]
    plan: PlanRow
    provenance: Provenance


def check(content: CaseFile, folder: Path) -> None:
    """Raise CaseError for another format, names that refer to nothing, points that are none, and changed files."""
    where = str(folder / CASE_FILE)
    if content.format != FORMAT:
        raise CaseError(f"format = {FORMAT}", f"format = {content.format}", where, AGAIN)
    names = [row.name for row in content.structures]
    for kind, given in (("structures", names), ("landmarks", [row.name for row in content.landmarks])):
        if len(set(given)) != len(given):
            raise CaseError(f"different names in [[{kind}]]", str(sorted(given)), where)
    for key, name in (("organ", content.organ), ("plan.target_structure", content.plan.target_structure)):
        if name not in names:
            raise CaseError(f"{key} to name one of the structures {names}", repr(name), where)
    points: Mapping[str, Vec3] = {
        "plan.entry": content.plan.entry,
        "plan.target": content.plan.target,
        **{f"landmarks.{row.name}.position": row.position for row in content.landmarks},
    }
    for key, point in points.items():
        if not np.isfinite(point).all() or np.abs(point).max() > 5.0:
            raise CaseError(f"{key} in metres, within a room", str(point), where)
    for row in content.structures:
        _check_hash(folder / row.file, row.sha256)
        if row.distance_file:
            _check_hash(folder / row.distance_file, row.distance_sha256)
    _check_hash(folder / content.body.file, content.body.sha256)


def _check_hash(path: Path, sha256: str) -> None:
    if not path.is_file():
        raise CaseError("a file that case.toml names", "nothing", str(path), AGAIN)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise CaseError(
            f"sha256 {sha256[:12]}...", f"{found[:12]}...", str(path),
            f"The file was changed after the import. {AGAIN}",
        )  # fmt: skip
