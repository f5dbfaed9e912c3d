"""The result file of a calibration: strict, versioned TOML, written once and read by scenarios.

Names that end in `_mm`, `_deg`, `_px` or `_ms` are in those units; transforms and covariances are in metres and radians
as `frames.py` says (4x4 row by row; covariance over rotation, then translation, in the source frame).
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import numpy as np
import tomli_w
from msgspec import Meta

from twinguide.calibrating.checks import Array, Rows, Rows4, check_covariance, check_finite, check_matrix
from twinguide.errors import CalibrationError
from twinguide.files import write_whole
from twinguide.frames import Pose, Transform
from twinguide_calibration.error import region_limit

FORMAT = "twinguide.calibration/1"
ROW = re.compile(r"\[\n((?:\s+[-+.\deinfa]+,\n){1,12})\s*\]")  # up to twelve numbers: a matrix's row

Vec3 = tuple[float, float, float]
Rows3 = tuple[Vec3, Vec3, Vec3]
NonNegative = Annotated[float, Meta(ge=0)]
R = TypeVar("R", bound="Result")


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file that the result was made from."""

    file: str
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Result(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What all results tell: of what, made when, by what, from which files, and how well the samples fit."""

    format: Literal["twinguide.calibration/1"] = FORMAT
    of: str
    made: datetime
    made_by: str
    sources: tuple[Source, ...]
    samples: Annotated[int, Meta(ge=1)]
    rejected: tuple[int, ...]  # rows of the input that the fit left out; of several inputs, of the residuals
    residuals: tuple[float, ...]  # of the samples, in `residual_unit`
    residual_unit: Literal["mm", "px", "m", "rad", "ms"] = "mm"
    notes: tuple[str, ...] = ()


class Divot(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One recording of a swing about a point that stood still, and what it tells by itself."""

    file: str
    samples: Annotated[int, Meta(ge=1)]
    rejected: tuple[int, ...]  # rows of the file
    tip_mm: Vec3
    apart_mm: NonNegative  # from the tip of all recordings together
    pivot_mm: Vec3
    pivot_in: str  # the frame of `pivot_mm`
    swing_deg: NonNegative  # how far the tool was swung from its middle ...
    sides: Annotated[int, Meta(ge=0, le=8)]  # ... and to how many of 8 sides
    sigma_mm: NonNegative
    covariance: Rows  # (6, 6) [m2], tip in the tool's frame, then pivot


class PivotResult(Result, frozen=True, kw_only=True, tag="pivot"):
    """Where a tool's tip is, from turning it about one fixed point or several: residuals divot after divot."""

    tip_mm: Vec3  # in the tool's frame, of all divots together
    tip_covariance_mm2: Rows3
    tip_p95_mm: NonNegative  # of the random error
    systematic_p95_mm: NonNegative  # what a slow error of the tracker may add
    freedom: Annotated[float, Meta(gt=0)]
    agreement: Annotated[float, Meta(ge=0, le=1)]  # how often divots that agree scatter so much; of one, 1
    divots: Annotated[tuple[Divot, ...], Meta(min_length=1)]


class RigidResult(Result, frozen=True, kw_only=True):
    """How one frame lies in another."""

    target: str
    source: str
    matrix: Rows4  # target_from_source [m]
    covariance: Rows  # (6, 6)
    freedom: Annotated[float, Meta(gt=0)]
    fre_mm: NonNegative  # rms; says nothing about the error at a target
    tre_p95_mm: dict[str, float] = {}  # predicted, at named targets
    case_hash: str = ""  # of the case whose `image` this is, where one was named


class PointsResult(RigidResult, frozen=True, kw_only=True, tag="points"):
    """A registration from paired points."""

    names: tuple[str, ...]


class SurfaceResult(RigidResult, frozen=True, kw_only=True, tag="surface"):
    """A registration of touched or scanned surface points to a model."""

    inlier_share: Annotated[float, Meta(ge=0, le=1)]


class HandEyeResult(Result, frozen=True, kw_only=True, tag="handeye"):
    """Two fixed transforms from two moving ones: `a x = z b`."""

    a: str
    b: str
    x_name: str
    z_name: str
    x: Rows4
    z: Rows4
    covariance: Rows  # (12, 12): x, then z
    freedom: Annotated[float, Meta(gt=0)]
    x_p95_mm: NonNegative  # at the origin of its source
    z_p95_mm: NonNegative
    offset_ms: float  # what is added to b's stamps to reach a's
    offset_sigma_ms: NonNegative  # inf: not looked for


class CameraResult(Result, frozen=True, kw_only=True, tag="camera"):
    """A camera's intrinsics and distortion, as OpenCV defines them."""

    board: str
    pictures: tuple[str, ...]  # in the order of the residuals
    image_size_px: tuple[int, int]
    matrix_px: Rows3
    distortion: tuple[float, ...]  # k1 k2 p1 p2 k3
    covariance: Rows  # (9, 9): fx fy cx cy [px], then the distortion; 0 of what stays 0
    sigma: tuple[float, ...]  # 1 sigma of each
    centre_p95_px: NonNegative  # what 95 % of errors are within where a known direction is seen: in the middle ...
    corner_p95_px: NonNegative  # ... and at the worst corner; inf: the distortion folds the picture over there
    rms_px: NonNegative


class TimeResult(Result, frozen=True, kw_only=True, tag="time"):
    """How much later one stream tells of the same motion than another."""

    a: str
    b: str
    by: Literal["turning", "moving"]
    lag_ms: float
    lag_sigma_ms: NonNegative
    explained: float  # share of b's motion that a explains


class ClockResult(Result, frozen=True, kw_only=True, tag="clock"):
    """How a device's clock runs against the host's: `host = device + offset + drift (device - origin)`."""

    origin_s: float  # on the device's clock
    offset_ms: float  # at the origin, with the link's least delay in it
    offset_sigma_ms: NonNegative
    drift_ppm: float
    drift_sigma_ppm: NonNegative
    covariance: Rows  # (2, 2): offset [s], drift


KINDS: tuple[type[Result], ...] = (
    PivotResult,
    PointsResult,
    SurfaceResult,
    HandEyeResult,
    CameraResult,
    TimeResult,
    ClockResult,
)


def stamp() -> dict[str, Any]:
    """Return when and by what a result is made."""
    return {"made": datetime.now(UTC).replace(microsecond=0), "made_by": f"twinguide {version('twinguide')}"}


def source_of(path: Path) -> Source:
    """Return a file's name and the SHA-256 of its content; of a folder, that of all its files."""
    digest = hashlib.sha256()
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        if path.is_dir():
            digest.update(file.relative_to(path).as_posix().encode())
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return Source(file=path.name, sha256=digest.hexdigest())


def write_result(result: Result, path: Path) -> None:
    """Write a result as TOML, whole or not at all; raise CalibrationError where the file cannot be written."""
    tables = msgspec.to_builtins(result, builtin_types=(datetime,))
    tables["sha256"] = _digest(tables)  # a number that is changed later is noticed
    try:
        write_whole(path, ROW.sub(_on_one_line, tomli_w.dumps(tables)))
    except OSError as error:
        raise CalibrationError("a place for the result", str(error), str(path), "Choose another with --out.") from error


def _on_one_line(match: re.Match[str]) -> str:
    return f"[{', '.join(line.strip(' ,') for line in match[1].splitlines())}]"


def _digest(tables: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tables, sort_keys=True, default=str).encode()).hexdigest()


def read_result(path: Path, *kinds: type[R]) -> R:
    """Read a result of one of the kinds; raise CalibrationError naming file and key.

    Refuses files of another kind or version, unknown keys, numbers that are not finite, matrices that are not rigid,
    covariances that are none, and files that were changed after they were written.
    """
    where = str(path)
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise CalibrationError("a readable result file", str(error), where) from error
    except tomllib.TOMLDecodeError as error:
        raise CalibrationError("valid TOML", str(error), where, "Is the file complete? Calibrate again.") from error
    if tables.get("format") != FORMAT:
        remedy = "Calibrate again with this version, or update TwinGuide."
        raise CalibrationError(f"format = {FORMAT!r}", repr(tables.get("format")), where, remedy)
    told = tables.pop("sha256", None)
    by_name = {str(kind.__struct_config__.tag): kind for kind in kinds}
    kind = by_name.get(str(tables.get("kind")))
    if kind is None:
        raise CalibrationError(f"a result of {' or '.join(by_name)}", repr(tables.get("kind")), f"{where}, kind")
    try:
        result = msgspec.convert(tables, kind)
    except msgspec.ValidationError as error:
        raise CalibrationError("known keys with values of their type", str(error), where) from error
    _check(result, where)
    if told != _digest(tables):
        got = "another: it was changed after it was written" if told else "none told"
        raise CalibrationError("the content that the file's hash tells", got, f"{where}, sha256", "Calibrate again.")
    return result


def pose_of(result: RigidResult) -> Pose:
    """Return the rigid transform of a result; its time is 0.

    The covariance is widened by what its size is uncertain itself (Hotelling 1931), so that bounds of 95 % hold that
    are taken from it as from one that is known.
    """
    transform = Transform(result.target, result.source, np.array(result.matrix))
    widening = region_limit(3, result.freedom) / region_limit(3)
    return Pose(transform, 0, np.array(result.covariance) * widening)


def _check(result: Result, where: str) -> None:
    for name in result.__struct_fields__:
        value: Any = getattr(result, name)
        if isinstance(value, float | tuple):
            check_finite(name, value, where)
    for divot in result.divots if isinstance(result, PivotResult) else ():
        for name in divot.__struct_fields__:
            check_finite(name, getattr(divot, name), f"{where}, divots of {divot.file}")
        check_covariance(divot.covariance, 6, f"{where}, covariance of {divot.file}")
    for name, size in (("covariance", None), ("tip_covariance_mm2", 3)):
        rows: Any = getattr(result, name, None)
        if rows is not None:
            check_covariance(rows, size or _size(result), f"{where}, {name}")
    for name in ("matrix", "x", "z"):
        rows = getattr(result, name, None)
        if rows is not None:
            check_matrix(rows, f"{where}, {name}")


def _size(result: Result) -> int:
    """Return how many values a result's covariance is over."""
    sizes: dict[type[Result], int] = {HandEyeResult: 12, CameraResult: 9, ClockResult: 2}
    return sizes.get(type(result), 6)


def rows_of(values: Array) -> tuple[tuple[float, ...], ...]:
    """Return a matrix, shape (n, m), as nested tuples for a result file."""
    return tuple(tuple(float(value) for value in row) for row in values.tolist())


def symmetric(values: Array) -> tuple[tuple[float, ...], ...]:
    """Return a covariance, shape (n, n), as exactly symmetric nested tuples."""
    return rows_of((values + values.T) / 2.0)
