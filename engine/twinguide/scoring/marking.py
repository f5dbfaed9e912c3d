"""Count from the recording what the wearer saw marked, and which findings were raised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import inf
from typing import Any

from twinguide.messages import Act, Shown
from twinguide.scoring.evidence import Evidence

MARKED = {"degraded", "hidden", "unconfirmed"}  # `predicted` bridges a healthy horizon: no mark


def marked_share(evidence: Evidence) -> float | None:
    """Return the share of guide frames with any structure or tool in use marked, 0..1; None without frames."""
    frames = evidence.guide()
    in_use = _tools_in_use(evidence, frames)
    return sum(bool(_marked(f, in_use)) for f in frames) / len(frames) if frames else None


def marked_by(evidence: Evidence) -> dict[str, float]:
    """Return for each structure and tool that was ever marked its share of the guide frames, 0..1."""
    frames = evidence.guide()
    in_use = _tools_in_use(evidence, frames)
    counts: dict[str, int] = {}
    for frame in frames:
        for name in _marked(frame, in_use):
            counts[name] = counts.get(name, 0) + 1
    return {name: count / len(frames) for name, count in sorted(counts.items())}


def _marked(frame: Shown, in_use: dict[str, tuple[int, int]]) -> list[str]:
    marked = [name for name, record in frame.structures.items() if record.state in MARKED]
    for name, record in frame.tools.items():
        first_ns, last_ns = in_use.get(name, (0, -1))
        if record.state in MARKED and first_ns <= frame.t_ns <= last_ns:
            marked.append(name)
    return marked


def _tools_in_use(evidence: Evidence, frames: Sequence[Shown]) -> dict[str, tuple[int, int]]:
    """Return from when until when [ns] each tool was in hand while guiding: a tool on its tray is hidden, not marked.

    It is in hand from its first appearance until it is laid down on purpose; one lost for good stays in use.
    """
    spans: dict[str, tuple[int, int]] = {}
    for frame in frames:
        for name, record in frame.tools.items():
            if name not in spans and record.state not in MARKED:
                spans[name] = (frame.t_ns, frames[-1].t_ns)
    for act in evidence.of(Act):
        first_ns, last_ns = spans.get(act.of, (0, -1))
        if act.kind == "withdraw" and first_ns <= act.t_ns <= last_ns:
            spans[act.of] = (first_ns, act.t_ns)
    return spans


def findings_raised(evidence: Evidence) -> dict[str, dict[str, dict[str, Any]]]:
    """Return finding -> severity -> how often it was raised anew, in how many frames it stood, and when first [s].

    `of` tells the same by the structure that it was raised on, "" for none, with the least of its lower bounds [mm].
    """
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    frames: Counter[tuple[str, str]] = Counter()
    standing: dict[tuple[str, str, str], float] = {}
    for frame in evidence.of(Shown):
        now: dict[tuple[str, str, str], float] = {}
        for f in frame.findings:
            bound = f.lower95 if f.lower95 is not None and f.unit == "mm" else inf
            now[f.name, f.severity, f.of] = min(bound, now.get((f.name, f.severity, f.of), inf))
        frames.update({(name, severity) for name, severity, _ in now})
        at_s = round(evidence.seconds(frame.t_ns).item(), 6)
        for key, bound in now.items():
            row = rows.setdefault(key, {"raised": 0, "frames": 0, "first_s": at_s, "lower95_mm": inf})
            row["raised"] += key not in standing
            row["frames"] += 1
            row["lower95_mm"] = min(bound, row["lower95_mm"])
        standing = now
    return _by_severity(rows, frames)


def _by_severity(
    rows: dict[tuple[str, str, str], dict[str, Any]], frames: Counter[tuple[str, str]]
) -> dict[str, dict[str, dict[str, Any]]]:
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for (name, severity, of), row in sorted(rows.items()):
        new: dict[str, Any] = {"raised": 0, "frames": frames[name, severity], "first_s": row["first_s"], "of": {}}
        whole = found.setdefault(name, {}).setdefault(severity, new)
        whole["raised"] += row["raised"]
        whole["first_s"] = min(whole["first_s"], row["first_s"])
        bound = row["lower95_mm"]
        whole["of"][of] = row | {"lower95_mm": round(bound, 6) + 0.0 if bound < inf else None}
    return found
