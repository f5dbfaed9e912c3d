"""Score a session from its recording alone: what was shown against what was true, as `summary.json` and `timing.json`.

`summary.json` is a function of the run's virtual content: the same seed gives the same bytes. What the wall clock had
a hand in goes to `timing.json`.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinguide.errors import RecordingError
from twinguide.evidence import Evidence, Times, load, rotations_from_quaternions
from twinguide.frames import p95_from_covariance
from twinguide.ledger import missed_between, spread
from twinguide.marking import findings_raised, marked_by, marked_share
from twinguide.messages import Array as WireArray
from twinguide.messages import Catalogue, PartState, Registration, Shown, Truth, Vec3, WorkflowState
from twinguide.modelling import out_of_model

Array = NDArray[np.float64]
CHI2_95 = 7.814727903251179  # 95 % quantile of chi-square with 3 degrees of freedom
SMALLEST_VARIANCE = 1e-14  # [m2], (0.1 um)2: keeps a flat covariance invertible, far below any sensor
ABOUT_THE_RUN = ("seed", "scenario", "mode", "clock", "headset")  # metadata that neither clock nor folder touches


@dataclass(frozen=True, eq=False)
class ErrorTrack:
    """Shown minus true [m] and the covariance that was shown [m2], per guide frame; NaN where not shown or unknown."""

    error: Array  # (n, 3)
    covariance: Array  # (n, 3, 3)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Return which frames count, shape (n,)."""
        return np.isfinite(self.error.sum(axis=1))

    @property
    def size(self) -> Array:
        """Return the length of the error [m], shape (n,)."""
        return np.linalg.norm(self.error, axis=1)


@dataclass(frozen=True, eq=False)
class Series:
    """The guide frames' errors by source, at their display times [ns], shape (n,)."""

    t_ns: Times
    target: ErrorTrack  # in reference
    breathing: ErrorTrack  # the part of it that motion brings
    registration: ErrorTrack  # the rest; without a covariance of its own
    needle: ErrorTrack
    overlay: ErrorTrack  # in stage, as the wearer perceives it: the headset's own error included


@dataclass(frozen=True)
class Scores:
    """What a session comes to."""

    summary: dict[str, Any]
    timing: dict[str, Any]


def series_of(evidence: Evidence) -> Series:
    """Compare every guide frame with the truth at its display time."""
    frames = evidence.guide()
    t_ns = np.array([f.t_ns for f in frames], dtype=np.int64)
    target, moved = _points([f.target for f in frames]), _points([f.target_displacement for f in frames])
    tip = _points([f.tips.get("needle") for f in frames])
    true_target = evidence.true_point("target").at(t_ns)
    true_moved = evidence.true_point("displacement").at(t_ns)
    target_error, breathing_error = target - true_target, moved - true_moved
    unknown = np.full((len(frames), 3, 3), np.nan)
    return Series(
        t_ns=t_ns,
        target=ErrorTrack(target_error, _covariances([f.target_covariance for f in frames])),
        breathing=ErrorTrack(breathing_error, _covariances([f.target_displacement_covariance for f in frames])),
        registration=ErrorTrack(target_error - breathing_error, unknown),
        needle=ErrorTrack(
            tip - evidence.true_point("needle_tip").at(t_ns),
            _covariances([f.tip_covariances.get("needle") for f in frames]),
        ),
        overlay=ErrorTrack(
            _perceived(evidence, frames, t_ns) - _in_stage(evidence, true_target, t_ns),
            _covariances([f.target_stage_covariance for f in frames]),
        ),
    )


def _perceived(evidence: Evidence, frames: list[Shown], t_ns: Times) -> Array:
    """Return where the wearer sees the target [m], shape (n, 3), in stage.

    The picture is made for the head that was reported and seen from the true one.
    """
    if not frames:
        return np.empty((0, 3))
    reported = rotations_from_quaternions(np.array([f.stage_from_head.quaternion for f in frames]))
    origin = np.array([f.stage_from_head.position for f in frames])
    in_head = np.einsum("nji,nj->ni", reported, _points([f.target_stage for f in frames]) - origin)
    rotation, position = evidence.true_pose("stage_from_head").at(t_ns)
    return np.einsum("nij,nj->ni", rotation, in_head) + position


def _in_stage(evidence: Evidence, in_reference: Array, t_ns: Times) -> Array:
    """Carry true points [m], shape (n, 3), from reference into stage."""
    tracker, at_tracker = evidence.true_pose("tracker_from_reference").at(t_ns)
    stage, at_stage = evidence.true_pose("stage_from_tracker").at(t_ns)
    in_tracker = np.einsum("nij,nj->ni", tracker, in_reference) + at_tracker
    return np.einsum("nij,nj->ni", stage, in_tracker) + at_stage


def _points(values: list[Vec3 | None]) -> Array:
    return np.array([v if v is not None else (np.nan,) * 3 for v in values], dtype=float).reshape(-1, 3)


def _covariances(values: list[WireArray | None]) -> Array:
    unknown = np.full((3, 3), np.nan)
    return np.array([v.numpy() if v is not None else unknown for v in values], dtype=float).reshape(-1, 3, 3)


def inside95(error: Array, covariance: Array) -> NDArray[np.bool_]:
    """Tell which errors [m], shape (n, 3), lie in their 95 % ellipsoid, covariance [m2], shape (n, 3, 3)."""
    solved = np.linalg.solve(covariance + np.eye(3) * SMALLEST_VARIANCE, error[:, :, None])[:, :, 0]
    return np.sum(error * solved, axis=1) < CHI2_95


def error_score(track: ErrorTrack) -> dict[str, float] | None:
    """Return mean, p95, max [mm], the p95 that was predicted [mm] and its coverage; None where no frame counts."""
    known = track.known & np.isfinite(track.covariance).all(axis=(1, 2))
    if not known.any():
        return None
    size, covariance = track.size[known] * 1e3, track.covariance[known]
    predicted = [p95_from_covariance(c) * 1e3 for c in covariance]
    return {
        "mean": _round(size.mean()),
        "p95": _round(np.percentile(size, 95)),
        "max": _round(size.max()),
        "predicted_p95": _round(np.mean(predicted)),
        "coverage": _round(np.mean(inside95(track.error[known], covariance))),
    }


def _round(value: float | np.floating[Any]) -> float:
    return round(float(value), 6) + 0.0  # -0.0 and 0.0 are one figure


def score(evidence: Evidence) -> Scores:
    """Return the figures of a session; those that cannot be known are None, with the reason under `not_scored`."""
    frames, series = evidence.guide(), series_of(evidence)
    tracks = {"target": series.target, "needle": series.needle, "overlay": series.overlay}
    errors = {f"{name}_error_mm": error_score(track) for name, track in tracks.items()}
    breathing = error_score(series.breathing)
    if breathing is not None:
        breathing = {key: breathing[key] for key in ("mean", "p95", "predicted_p95")}
    errors["breathing_error_mm"] = breathing
    reason = _why_not(evidence, frames)
    summary = {
        **{key: evidence.metadata.get(key) for key in ABOUT_THE_RUN},
        "frames": len(frames),
        "frames_drawn": sum(f.drawn for f in frames),
        "frames_all_steps": len(evidence.of(Shown)),
        "frames_scored": {
            **{k: int(v.known.sum()) for k, v in tracks.items()},
            "breathing": int(series.breathing.known.sum()),
        },
        **errors,
        "marked_fraction": _maybe(marked_share(evidence)),
        "marked_by": {name: _round(share) for name, share in marked_by(evidence).items()},
        "out_of_model": out_of_model(evidence),
        "findings": findings_raised(evidence.of(Shown)),
        "puncture": _puncture(evidence, frames),
        "registration": _registration(evidence),
        "workflow": _workflow(evidence),
        "plugins": {state.part: state.placement for state in sorted(evidence.of(PartState), key=lambda s: s.part)},
        "not_scored": {key: reason for key, value in errors.items() if value is None},
    }
    return Scores(summary, timing_of(evidence))


def _maybe(value: float | None) -> float | None:
    return None if value is None else _round(value)


def _why_not(evidence: Evidence, frames: list[Shown]) -> str:
    if not frames:
        return "no frame was shown while guiding"
    if not evidence.of(Truth):
        return "the recording holds no truth: only a simulated world knows it"
    return "not shown, or without truth, in any guide frame"


def _puncture(evidence: Evidence, frames: list[Shown]) -> dict[str, Any]:
    """Return where the needle was when guidance ended [mm from the target], and what it went through."""
    truths = [t for t in evidence.of(Truth) if frames and t.t_ns <= frames[-1].t_ns]
    hit = sorted({name for t in truths for name in t.flags.get("hit", "").split(",") if name})
    last = truths[-1].points if truths else {}
    if "needle_tip" not in last or "target" not in last:
        return {"tip_error_mm": None, "structures_hit": hit}
    miss = np.subtract(last["needle_tip"], last["target"])
    return {"tip_error_mm": _round(np.linalg.norm(miss) * 1e3), "structures_hit": hit}


def _registration(evidence: Evidence) -> dict[str, Any] | None:
    made = [r for r in evidence.of(Registration) if r.reference_from_image is not None]
    if not made:
        return None
    last = max(made, key=lambda r: r.version)
    return {
        "state": last.state,
        "fre_mm": _round(last.fre_mm),
        "tre_p95_mm": _round(last.tre_p95_mm),
        "verification_mm": {name: _round(error) for name, error in sorted(last.verification_mm.items())},
    }


def _workflow(evidence: Evidence) -> list[dict[str, Any]]:
    """Return the steps in order with the second each was entered."""
    steps: list[dict[str, Any]] = []
    for state in sorted(evidence.of(WorkflowState), key=lambda s: s.version):
        if not steps or steps[-1]["step"] != state.step:
            steps.append({"step": state.step, "at_s": _round(state.t_ns * 1e-9)})
    return steps


def timing_of(evidence: Evidence) -> dict[str, Any]:
    """Return what depends on the machine: missed frames, stage times, ages, restarts, drops."""
    frames = evidence.of(Shown)
    t_ns = [f.t_ns for f in frames]
    period_ns = int(np.median(np.diff(t_ns))) if len(t_ns) > 1 else 0
    missed = sum(missed_between(a, b, period_ns) for a, b in pairwise(t_ns)) if period_ns else 0
    restarts: dict[str, int] = {}
    for state in evidence.of(PartState):
        restarts[state.part] = max(state.restarts, restarts.get(state.part, 0))
    return {
        "frames": len(frames),
        "missed_frames": missed,
        "period_ms": period_ns * 1e-6,
        "stage_ms": _spreads([f.stage_us for f in frames], 1e-3),
        "input_age_ms": _spreads([f.input_age_ms for f in frames], 1.0),
        "restarts": dict(sorted(restarts.items())),
        "recording": {
            "messages": sum(evidence.topics.values()),
            "segments": evidence.segments,
            "never_came": evidence.gaps,
            "damage": list(evidence.damage),
        },
    }


def _spreads(rows: list[dict[str, int]] | list[dict[str, float]], scale: float) -> dict[str, dict[str, float]]:
    names = sorted({name for row in rows for name in row})
    return {name: spread([row[name] * scale for row in rows if name in row]) for name in names}


def write_scores(folder: Path, scores: Scores) -> None:
    """Write `summary.json` and `timing.json`; raise RecordingError where the disk refuses."""
    for name, figures in (("summary.json", scores.summary), ("timing.json", scores.timing)):
        write_whole(folder / name, json.dumps(figures, indent=2, allow_nan=False) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all; raise RecordingError where the disk refuses."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise RecordingError(
            f"room for {path.name}", str(error), str(path.parent), "Free some space, then run `twinguide report`."
        ) from error


def score_folder(folder: Path, catalogue: Catalogue | None = None) -> Scores:
    """Score a session folder and write its figures; raise RecordingError where it cannot be read or written."""
    scores = score(load(folder, catalogue))
    write_scores(folder, scores)
    return scores
