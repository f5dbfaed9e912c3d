"""Count from the recording what the wearer saw marked, and which findings were raised."""

from __future__ import annotations

from collections.abc import Sequence

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


def findings_raised(frames: Sequence[Shown]) -> dict[str, dict[str, dict[str, int]]]:
    """Return finding -> severity -> how often it was raised anew, and in how many frames it stood."""
    counts: dict[str, dict[str, dict[str, int]]] = {}
    standing: set[tuple[str, str, str]] = set()
    for frame in frames:
        now = {(f.name, f.of, f.severity) for f in frame.findings}
        for name, severity in {(name, severity) for name, _, severity in now}:
            row = counts.setdefault(name, {}).setdefault(severity, {"raised": 0, "frames": 0})
            row["frames"] += 1
            row["raised"] += sum(key[::2] == (name, severity) for key in now - standing)
        standing = now
    return {name: dict(sorted(rows.items())) for name, rows in sorted(counts.items())}
