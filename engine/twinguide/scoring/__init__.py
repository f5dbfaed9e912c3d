"""Score a session from its recording alone: what was shown against what was true, as `summary.json` and `timing.json`.

`summary.json` is a function of the run's virtual content: the same seed gives the same bytes. What the wall clock had
a hand in goes to `timing.json`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from msgspec.structs import replace

from twinguide.bus.topics import RECORDER
from twinguide.clock import SECOND
from twinguide.files import write_whole
from twinguide.frames import p95_from_covariance
from twinguide.ledger import missed_between, spread
from twinguide.messages import PartState, Refusal, Registration, RunEnd, Shown, Truth, WorkflowState
from twinguide.recording import BROKEN_OFF
from twinguide.scoring.comparing import ErrorTrack, Series, inside95, series_of
from twinguide.scoring.evidence import Evidence
from twinguide.scoring.marking import findings_raised, marked_by, marked_share
from twinguide.scoring.modelling import out_of_model

ABOUT_THE_RUN = ("title", "mode", "clock", "headset", "case_hash")  # what neither clock nor folder touches


@dataclass(frozen=True, eq=False)
class Scores:
    """What a session comes to."""

    summary: dict[str, Any]
    timing: dict[str, Any]
    series: Series  # what the errors rest on, frame by frame


def error_score(track: ErrorTrack) -> dict[str, float] | None:
    """Return mean, p95, max, rms [mm], p95 and rms as predicted [mm], and coverage; None where no frame counts."""
    known = track.known & np.isfinite(track.covariance).all(axis=(1, 2))
    if not known.any():
        return None
    size, covariance = track.size[known] * 1e3, track.covariance[known]
    predicted = [p95_from_covariance(c) * 1e3 for c in covariance]
    return {
        "mean": _round(size.mean()),
        "p95": _round(np.percentile(size, 95)),
        "max": _round(size.max()),
        "rms": _round(np.sqrt(np.mean(np.square(size)))),
        "predicted_p95": _round(np.mean(predicted)),
        "predicted_rms": _round(1e3 * float(np.einsum("nii->n", covariance).mean()) ** 0.5),
        "coverage": _round(np.mean(inside95(track.error[known], covariance))),
    }


def _round(value: float | np.floating[Any]) -> float:
    return round(float(value), 6) + 0.0  # -0.0 and 0.0 are one figure


def score(evidence: Evidence) -> Scores:
    """Return the figures of a session; those that cannot be known are None, with the reason under `not_scored`."""
    frames, series = evidence.guide(), series_of(evidence)
    figures, scored, reasons = _errors(evidence, frames, series)
    about = {key: evidence.metadata[key] for key in ABOUT_THE_RUN if key in evidence.metadata}
    marked = marked_share(evidence)
    summary = {
        "seed": evidence.metadata.get("seed"),
        **about,
        "ended": _ended(evidence, frames),
        "frames": len(frames),
        "frames_drawn": sum(f.drawn for f in frames),
        "frames_all_steps": len(evidence.of(Shown)),
        "frames_scored": scored,
        **figures,
        "marked_fraction": None if marked is None else _round(marked),
        "marked_by": {name: _round(share) for name, share in marked_by(evidence).items()},
        "out_of_model": out_of_model(evidence),
        "findings": findings_raised(evidence),
        "puncture": _puncture(evidence, frames),
        "registration": _registration(evidence),
        "workflow": _workflow(evidence),
        "plugins": _placements(evidence),
        "not_scored": reasons,
    }
    return Scores(summary, timing_of(evidence), series)


def _ended(evidence: Evidence, guided: list[Shown]) -> dict[str, Any]:
    """Return why the run ended, None where it broke off, for how long it guided of what was asked [s], and if early.

    How long is what was recorded of it: frames may be missing at either end of a run that lasted as asked.
    """
    last, asked_s = evidence.of(Shown)[-1:], evidence.metadata.get("seconds")
    guided_s = (last[0].t_ns - guided[0].t_ns) / SECOND if guided else 0.0
    end = next(iter(evidence.of(RunEnd)), None)
    why = {"reason": end and end.reason, "early": end is None or end.early}
    return {**why, "guided_s": _round(guided_s), "asked_s": asked_s}


def _errors(
    evidence: Evidence, frames: list[Shown], series: Series
) -> tuple[dict[str, Any], dict[str, int], dict[str, str]]:
    """Return the errors' figures, how many frames they rest on, and why some are None."""
    tracks = {"target": series.target, "needle": series.needle, "overlay": series.overlay}
    figures = {f"{name}_error_mm": error_score(track) for name, track in tracks.items()}
    breathing = error_score(series.breathing)
    figures["breathing_error_mm"] = breathing and {key: breathing[key] for key in ("mean", "p95", "predicted_p95")}
    scored = {name: int(track.known.sum()) for name, track in {**tracks, "breathing": series.breathing}.items()}
    reasons = {key: _why_not(evidence, frames) for key, value in figures.items() if value is None}
    if not head_is_simulated(evidence):
        figures["overlay_error_mm"], scored["overlay"] = None, 0
        reasons["overlay_error_mm"] = "the true pose of a headset that is not simulated is unknown"
    return figures, scored, reasons


def head_is_simulated(evidence: Evidence) -> bool:
    """Tell whether the truth knows the pose of the head that the frames were made for."""
    return evidence.metadata.get("headset", "simulated") == "simulated"


def _placements(evidence: Evidence) -> dict[str, Any]:
    """Return part -> placement and plugin, as the run was planned, else as was said of it; and how it failed, if so."""
    newest = last_states(evidence)
    told = evidence.metadata.get("plugins")
    said = {name: {"placement": s.placement} for name, s in newest.items()}
    planned = cast(dict[str, dict[str, Any]], told) if isinstance(told, dict) else said
    failed = {n: {"state": s.state, "reason": s.reason} for n, s in newest.items() if s.failed}
    return {name: plan | failed.get(name, {}) for name, plan in sorted(planned.items())}


def last_states(evidence: Evidence) -> dict[str, PartState]:
    """Return how each part was when the run ended, with its newest reason: what was stopped then, as it was before."""
    last: dict[str, PartState] = {}
    for told in evidence.of(PartState):
        before = last.get(told.part)
        last[told.part] = replace(told, state=before.state) if before and told.state == "stopped" else told
    if BROKEN_OFF in evidence.metadata and not evidence.of(RunEnd):  # it could not record its own end
        last[RECORDER] = PartState(
            part=RECORDER, state="dead", placement="process", reason=evidence.metadata[BROKEN_OFF]
        )
    return dict(sorted(last.items()))


def _why_not(evidence: Evidence, frames: list[Shown]) -> str:
    if not frames:
        return "no frame was shown while guiding"
    if not evidence.of(Truth):
        return "the recording holds no truth: only a simulated world knows it"
    return "not shown, or without truth, in any guide frame"


def _puncture(evidence: Evidence, frames: list[Shown]) -> dict[str, Any]:
    """Return where the needle was when guidance ended [mm from the target], and what it went through; None: unknown."""
    truths = [t for t in evidence.of(Truth) if frames and t.t_ns <= frames[-1].t_ns]
    hit = sorted({name for t in truths for name in t.flags.get("hit", "").split(",") if name})
    last = truths[-1].points if truths else {}
    if "needle_tip" not in last or "target" not in last:
        return {"tip_error_mm": None, "structures_hit": hit if truths else None}
    miss = np.subtract(last["needle_tip"], last["target"])
    return {"tip_error_mm": _round(np.linalg.norm(miss) * 1e3), "structures_hit": hit}


def _registration(evidence: Evidence) -> dict[str, Any] | None:
    made = [r for r in evidence.of(Registration) if r.reference_from_image is not None]
    if not made or evidence.metadata.get("mode") == "rehearse":  # there, by definition and without error
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
            steps.append({"step": state.step, "at_s": _round(evidence.seconds(state.t_ns).item())})
    return steps


def timing_of(evidence: Evidence) -> dict[str, Any]:
    """Return what depends on the machine: missed frames, stage times, ages, restarts, drops."""
    frames = evidence.of(Shown)
    times_ns = [f.t_ns for f in frames]
    usual_ns = int(np.median(np.diff(times_ns))) if len(frames) > 1 else 0
    periods_ns = [f.period_ns or usual_ns for f in frames]  # older recordings do not tell it
    spans = zip(pairwise(times_ns), periods_ns[1:], strict=True)
    missed = sum(missed_between(before, after, period) for (before, after), period in spans if period)
    return {
        "frames": len(frames),
        "missed_frames": missed,
        "period_ms": float(np.median(periods_ns)) * 1e-6 if frames else 0.0,
        "stage_ms": _spreads([f.stage_us for f in frames], 1e-3),
        "input_age_ms": _spreads([_ages_ms(f) for f in frames], 1.0),
        "restarts": _restarts(evidence),
        "refused": refusals(evidence),
        "recording": {
            "messages": sum(evidence.topics.values()),
            "segments": evidence.segments,
            "never_came": evidence.gaps,
            "damage": list(evidence.damage),
        },
    }


def _restarts(evidence: Evidence) -> dict[str, int]:
    """Return how often each part was started anew, alone or with the hub: one life after the first per process."""
    processes: dict[str, set[int]] = {}
    for state in evidence.of(PartState):
        processes.setdefault(state.part, set()).update({state.pid} - {0})
    return {part: max(len(pids) - 1, 0) for part, pids in sorted(processes.items())}


def refusals(evidence: Evidence) -> list[dict[str, Any]]:
    """Return what was refused of which part, why, and how often at least: the 1st, 2nd, 4th ... time is recorded."""
    most: dict[tuple[str, str, str], int] = {}
    for r in evidence.of(Refusal):  # of hub, loop and each reader, which count for themselves
        kind = (r.part, r.topic, r.reason)
        most[kind] = max(r.count, most.get(kind, 0))
    return [dict(zip(("part", "topic", "reason", "count"), (*of, n), strict=True)) for of, n in sorted(most.items())]


def _ages_ms(frame: Shown) -> dict[str, float]:
    """Return how old each input was when shown [ms]; what was hidden has no age."""
    hidden = {name for name, r in {**frame.structures, **frame.tools}.items() if r.state == "hidden"}
    return {name: age for name, age in frame.input_age_ms.items() if name not in hidden}


def _spreads(rows: list[dict[str, int]] | list[dict[str, float]], scale: float) -> dict[str, dict[str, float]]:
    names = sorted({name for row in rows for name in row})
    return {name: spread([row[name] * scale for row in rows if name in row]) for name in names}


def write_scores(folder: Path, scores: Scores) -> None:
    """Write `summary.json` and `timing.json`; raise OSError where the disk refuses."""
    for name, figures in (("summary.json", scores.summary), ("timing.json", scores.timing)):
        write_whole(folder / name, json.dumps(figures, indent=2, allow_nan=False) + "\n")
