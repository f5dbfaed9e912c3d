"""A registration of touched surface points to a model of the surface."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import permutations, product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twinguide.calibrating.inputs import hashed, open_poses, refusals
from twinguide.calibrating.outcome import Outcome, shortened
from twinguide.calibrating.picture import draw_surface
from twinguide.calibrating.result import (
    PivotResult,
    PointsResult,
    SurfaceResult,
    pose_of,
    read_result,
    rows_of,
    stamp,
    symmetric,
)
from twinguide.case import Case
from twinguide.errors import CalibrationError
from twinguide.importing.reading import Axes, Units, read_surface, to_image
from twinguide_calibration import (
    CalibrationRefused,
    SurfaceFit,
    SurfaceModel,
    register_surface_starts,
    surface_model,
    tre_p95,
)
from twinguide_calibration.reading import read_cloud, read_transform, relative, without_repeats
from twinguide_calibration.rigid import compose

Array = NDArray[np.float64]
PATCHES = 8  # of a surface, about which touched points may lie
CLOUDS = (".csv", ".tsv", ".txt", ".json", ".fcsv")


@dataclass(frozen=True)
class Touched:
    """Where surface points come from when they are a tip's path: the tool's track, the body it is told in, the tip."""

    tool: str
    reference: str
    tip: Path | None


@dataclass(frozen=True)
class Model:
    """Where the surface comes from: a mesh with its units and axes, or a case's folder and one of its structures."""

    path: Path
    units: Units | None
    axes: Axes | None
    structure: str


def surface(path: Path, model: Model, start: Path | None, touched: Touched, source: str, target: str) -> Outcome:
    """Register points of a file, or the path of a calibrated tip, to a model's surface.

    `start` names a result of `points`, in either direction, or an ITK transform that lies near; without it the model is
    tried from all sides. Raises CalibrationError with reason and remedy, also where the patch does not hold the pose.
    """
    with refusals():
        points, notes = _points(path, touched)
        vertices, faces, case_hash = _surface(model)
        shape = surface_model(vertices, faces)
        fit = register_surface_starts(points, shape, _starts(start, points, shape, target, source))
    if not fit.constrained:
        open_ways = "; ".join(str(way) for way in fit.free)
        got = f"a patch that {open_ways}" if fit.free else f"{len(fit.rivals)} other places that fit as well"
        raise CalibrationError(
            "points that hold the pose in all directions", got, path.name, "Touch more sides: edges, ridges, the back."
        )
    known = np.isfinite(fit.residuals)
    result = SurfaceResult(
        of=f"{target}_from_{source}",
        sources=hashed((path, model.path)),
        samples=int(known.sum()),
        rejected=tuple(fit.rejected.tolist()),
        residuals=tuple((1e3 * np.abs(fit.residuals[known])).tolist()),
        notes=shortened((*notes, *fit.notes)),
        target=target,
        source=source,
        matrix=rows_of(fit.transform),  # pyright: ignore[reportArgumentType]
        covariance=symmetric(fit.covariance),
        freedom=float(fit.freedom),
        fre_mm=1e3 * fit.sigma,
        tre_p95_mm={"middle of the points": 1e3 * float(tre_p95(fit, points[known].mean(axis=0)[None])[0])},
        case_hash=case_hash if target == "image" else "",
        inlier_share=fit.inlier_share,
        **stamp(),
    )
    return Outcome(result, _table(result, fit), partial(draw_surface, points, shape, fit))


def _surface(model: Model) -> tuple[Array, NDArray[np.int64], str]:
    """Return vertices [m] in image, faces, and the content hash of the case that they are from, if they are."""
    if not model.path.is_dir():
        if model.units is None or model.axes is None:
            raise CalibrationRefused(f"wanted --units and --axes of {model.path.name}; they are never guessed")
        vertices, faces = read_surface(model.path)
        return to_image(vertices, model.units, model.axes), faces, ""
    case = Case.load(model.path)
    if model.structure not in case.structures:
        there = ", ".join(case.structures)
        raise CalibrationRefused(f"wanted --structure, one of {there}; got {model.structure or 'none'}")
    shape = case.surface(model.structure)
    return shape.vertices, shape.triangles.astype(np.int64), case.content_hash


def _points(path: Path, touched: Touched) -> tuple[Array, tuple[str, ...]]:
    """Return surface points [m], shape (n, 3), of a file of points, or of a tip's path."""
    if touched.tip is None and path.suffix.lower() in CLOUDS:
        return read_cloud(path)
    if touched.tip is None:
        raise CalibrationRefused(
            "a recording of poses needs --tip, the result of `calibrate pivot`", "Or give a CSV of points."
        )
    tip = np.array(read_result(touched.tip, PivotResult).tip_mm) * 1e-3
    recording = open_poses(path)
    track = recording.track(touched.tool) if touched.tool else recording.only()
    if touched.reference:
        track = relative(track, recording.track(touched.reference))
    track, _ = without_repeats(track)
    return track.rotations @ tip + track.translations, recording.notes


def _starts(start: Path | None, points: Array, model: SurfaceModel, target: str, source: str) -> list[Array]:
    """Return where to begin: the place given, else the points' middle at `_places` of the model, to all 24 sides."""
    if start is not None and start.suffix.lower() == ".toml":
        near = pose_of(read_result(start, PointsResult)).transform
        if (near.target, near.source) == (source, target):
            near = near.inverse()
        if (near.target, near.source) != (target, source):
            raise CalibrationError(f"a start {target}_from_{source}", f"{near.target}_from_{near.source}", str(start))
        return [near.matrix]
    if start is not None:
        return [read_transform(start).parent_from_child]
    middle = np.nanmean(points, axis=0)  # rows that are not finite are left out, and told, where they are fitted
    turns = [
        np.eye(3)[list(order)] * signs for order in permutations(range(3)) for signs in product((1.0, -1.0), repeat=3)
    ]
    sides = [turn for turn in turns if np.linalg.det(turn) > 0.0]
    return [compose(turn, to - turn @ middle) for to in _places(model.samples) for turn in sides]


def _places(samples: Array) -> list[Array]:
    """Return the middle of a model's samples (n, 3), and the ways' middles from it to `PATCHES` that lie apart."""
    middle, far = samples.mean(axis=0), np.full(len(samples), np.inf)
    places, last = [middle], samples[0]
    for _ in range(PATCHES):
        far = np.minimum(far, ((samples - last) ** 2).sum(axis=1))
        last = samples[int(far.argmax())]
        places.append((middle + last) / 2.0)
    return places


def _table(result: SurfaceResult, fit: SurfaceFit) -> tuple[tuple[str, str], ...]:
    place = "  ".join(f"{1e3 * value:.2f}" for value in fit.transform[:3, 3])
    return (
        (result.of, f"{place} mm"),
        *((f"95 % error at {name}", f"{value:.2f} mm") for name, value in result.tre_p95_mm.items()),
        ("residual", f"{result.fre_mm:.3f} mm (1 sigma of the points that fit)"),
        ("points", f"{result.samples}, {len(result.rejected)} rejected"),
        ("verdict", "the points hold the pose in all directions"),
    )
