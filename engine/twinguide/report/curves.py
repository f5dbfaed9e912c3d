"""The report's sections that stand over time: each takes the evidence and returns HTML, or nothing where none is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinguide.frames import p95_from_covariance
from twinguide.ledger import latency_cost_mm
from twinguide.messages import Displacement, Gate, Shown, Vec3, WorkflowState
from twinguide.report import page, plots
from twinguide.report.plots import Span
from twinguide.scoring import Scores
from twinguide.scoring.evidence import Evidence, needle_of
from twinguide.scoring.marking import MARKED

Array = NDArray[np.float64]


def errors(evidence: Evidence, scores: Scores) -> str:
    """Return the errors over time by source."""
    series = scores.series
    if not series.target.known.any():
        return ""
    tracks = {
        name: getattr(series, name).size * 1e3 for name in ("target", "breathing", "registration", "needle", "overlay")
    }
    predicted = [p95_from_covariance(c) * 1e3 if np.isfinite(c).all() else np.nan for c in series.target.covariance]
    uri = plots.errors(evidence.seconds(series.t_ns), tracks, np.array(predicted), _out_of_model(scores))
    caption = (
        "Error by source. Breathing: the part that motion brings; registration: the target's error without it. "
        "Means by source do not add; mean squares do."
    )
    return page.picture(uri, caption, "errors over time")


def breathing(evidence: Evidence, frames: Sequence[Shown], scores: Scores) -> str:
    """Return how the target moved, as shown and as it was, and the times out of model."""
    shown = _points([f.target_displacement for f in frames])
    if not np.isfinite(shown).any():
        return ""
    true = evidence.true_point("displacement").at(scores.series.t_ns)
    gate = _spans(evidence, [(g.t_ns, g.open) for g in evidence.of(Gate)])
    uri = plots.breathing(evidence.seconds(scores.series.t_ns), shown * 1e3, true * 1e3, _out_of_model(scores), gate)
    return page.picture(uri, "The target's motion in reference, as shown and as it was.", "breathing fit") + page.table(
        ("out of model from [s]", "to [s]", "reason", "false"),
        [tuple(e.values()) for e in scores.summary["out_of_model"]["episodes"]],
    )


def horizon(evidence: Evidence, frames: Sequence[Shown]) -> str:
    """Return how far ahead of its samples each frame was, and how long each stream was silent."""
    seen = [{name for name, r in {**f.structures, **f.tools}.items() if r.state != "hidden"} for f in frames]
    names = [n for n in ("target", *(frames[0].tools if frames else ())) if any(n in shown for shown in seen)]
    if not names:
        return ""
    records = {name: [f.structures.get(name) or f.tools.get(name) for f in frames] for name in names}
    horizon = {
        n: np.array([r.horizon_ms if r and r.state != "hidden" else np.nan for r in rows])
        for n, rows in records.items()
    }
    silence = {n: np.array([r.silence if r else np.nan for r in rows]) for n, rows in records.items()}
    states = [(f.t_ns, f.structures["target"].state in MARKED) for f in frames if "target" in f.structures]
    t_s = evidence.seconds(np.array([f.t_ns for f in frames]))
    uri = plots.horizon(t_s, horizon, silence, _spans(evidence, states))
    caption = "Horizon: display time minus sample time, bridged by prediction. Silence: since the newest sample came."
    return page.picture(uri, caption, "horizon and silence over time")


def approach(evidence: Evidence, frames: Sequence[Shown]) -> str:
    """Return the needle's way to the target."""
    t_ns = np.array([f.t_ns for f in frames], dtype=np.int64)
    needle = needle_of(frames)
    tip, target = _points([f.tips.get(needle) for f in frames]), _points([f.target for f in frames])
    if not np.isfinite(tip).any():
        return ""
    entry, along = _points([f.entry for f in frames]), _points([f.directions.get(needle) for f in frames])
    path = target - entry
    path /= np.linalg.norm(path, axis=1, keepdims=True)
    depth = np.sum((tip - entry) * path, axis=1)
    angle = np.degrees(np.arccos(np.clip(np.sum(along * path, axis=1), -1.0, 1.0)))
    true = np.linalg.norm(evidence.true_point("needle_tip").at(t_ns) - evidence.true_point("target").at(t_ns), axis=1)
    shown = np.linalg.norm(tip - target, axis=1)
    uri = plots.approach(evidence.seconds(t_ns), shown * 1e3, true * 1e3, depth * 1e3, angle)
    return page.picture(uri, "The needle's way: path from the planned entry to the moved target.", "needle approach")


def timeline(evidence: Evidence, frames: Sequence[Shown], scores: Scores) -> str:
    """Return what held when."""
    states = sorted(evidence.of(WorkflowState), key=lambda s: s.version)
    if not states:
        return ""
    steps: list[tuple[float, float, str]] = []
    starts = [s for i, s in enumerate(states) if i == 0 or states[i - 1].step != s.step]
    ends = evidence.seconds(np.array([*(s.t_ns for s in starts[1:]), evidence.end_ns])).tolist()
    for state, end_s in zip(starts, ends, strict=True):
        steps.append((evidence.seconds(state.t_ns).item(), end_s, state.step))
    marked = _spans(evidence, [(f.t_ns, any(r.state in MARKED for r in f.structures.values())) for f in frames])
    rows = {"workflow": steps}
    if gates := [(g.t_ns, g.open) for g in evidence.of(Gate)]:
        rows["gate open"] = [(*span, "") for span in _spans(evidence, gates)]
    if evidence.of(Displacement):
        rows["out of model"] = [(*span, "") for span in _out_of_model(scores)]
    rows["structures marked"] = [(*span, "") for span in marked]
    return page.picture(plots.timeline(rows), "What held when; the lower rows while guiding.", "timeline")


def latency(frames: Sequence[Shown], scores: Scores) -> str:
    """Return how old each input was when shown, and what that would have cost."""
    ages = scores.timing["input_age_ms"]
    speeds = {
        "target": _speed95(frames, "target"),
        **{n: _speed95(frames, n) for n in (frames[0].tools if frames else ())},
    }
    rows: list[list[object]] = []
    for name, speed in speeds.items():
        if name in ages and speed is not None:
            source = {"target": "breathing", needle_of(frames): "needle"}.get(name, name)
            found: dict[str, Any] = scores.summary.get(f"{source}_error_mm") or {}
            cost = latency_cost_mm(ages[name]["p50"] * 1e6, speed)
            rows.append([name, ages[name]["p50"], ages[name]["p99"], speed * 1e3, cost, found.get("p95")])
    head = (
        "input",
        "age p50 [ms]",
        "age p99 [ms]",
        "speed p95 [mm/s]",
        "cost if not bridged [mm]",
        "what remained, p95 [mm]",
    )
    said = "Age at display time; cost: the median age times the speed that 95 % of the frames stay under."
    return page.table(head, rows) + (page.text(said) if rows else "")


def _speed95(frames: Sequence[Shown], name: str) -> float | None:
    """Return the 95th percentile [m/s] of how fast something shown moved, over 0.1 s so that noise counts little."""
    places = _points([f.target_displacement if name == "target" else f.tips.get(name) for f in frames])
    t_s = np.array([f.t_ns for f in frames], dtype=np.int64) * 1e-9
    if len(frames) < 20:
        return None
    stride = max(1, round(0.1 / max(float(np.median(np.diff(t_s))), 1e-3)))
    speed = np.linalg.norm(places[stride:] - places[:-stride], axis=1) / (t_s[stride:] - t_s[:-stride])
    speed = speed[np.isfinite(speed)]
    return float(np.percentile(speed, 95)) if len(speed) else None


def _out_of_model(scores: Scores) -> list[Span]:
    return [(e["from_s"], e["to_s"]) for e in scores.summary["out_of_model"]["episodes"]]


def _spans(evidence: Evidence, samples: Sequence[tuple[int, bool]]) -> list[Span]:
    """Return when [s] a condition held while guiding, from (time [ns], held) samples, oldest first."""
    frames = evidence.guide()
    if not frames:
        return []
    first_ns, last_ns = frames[0].t_ns, frames[-1].t_ns
    spans: list[Span] = []
    since: int | None = None
    for t_ns, held in [*samples, (last_ns, False)]:
        at_ns = min(max(t_ns, first_ns), last_ns)
        if held and since is None:
            since = at_ns
        elif not held and since is not None:
            if at_ns > since:
                spans.append((evidence.seconds(since).item(), evidence.seconds(at_ns).item()))
            since = None
    return spans


def _points(values: Sequence[Vec3 | None]) -> Array:
    return np.array([v if v is not None else (np.nan,) * 3 for v in values], dtype=float).reshape(-1, 3)
