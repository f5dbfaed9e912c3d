"""What a recording tells, in order and as arrays: the one input of scoring and report.

Everything is sorted by the run's clock, never by arrival, so the same run gives the same evidence bit for bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from twinguide.bus.catalogue import Catalogue
from twinguide.clock import MS
from twinguide.errors import RecordingError
from twinguide.messages import Message, PoseWire, Shown, Truth, Vec3
from twinguide.playback import Recorded, Recording
from twinguide.recording import BulkCopy

Array = NDArray[np.float64]
Times = NDArray[np.int64]
M = TypeVar("M", bound=Message)
LONGEST_GAP_NS = 100 * MS  # breathing accelerates by 25 mm/s2: a line over 100 ms is off by 0.03 mm


def needle_of(frames: Iterable[Shown]) -> str:
    """Return the name of the tool of role needle; recordings older than the roles in them call it `needle`."""
    return next((name for f in frames for name, record in f.tools.items() if record.role == "needle"), "needle")


@dataclass(frozen=True, eq=False)
class PointTrack:
    """A true point over time: times [ns], shape (n,), and values [m], shape (n, 3)."""

    t_ns: Times
    values: Array

    @staticmethod
    def of(samples: Iterable[tuple[int, Vec3]]) -> PointTrack:
        """Build from (time [ns], point [m]), oldest first; of two samples at one time the first stays."""
        unique = dict(reversed(list(samples)))
        times = np.array(sorted(unique), dtype=np.int64)
        return PointTrack(times, np.array([unique[t] for t in times.tolist()], dtype=float).reshape(-1, 3))

    def at(self, t_ns: Times) -> Array:
        """Return the point [m], shape (m, 3), at times [ns], shape (m,), by lines; NaN outside and in gaps."""
        before, share, known = _between(self.t_ns, t_ns)
        if not known.any():
            return np.full((len(t_ns), 3), np.nan)
        points = self.values[before] * (1.0 - share) + self.values[before + 1] * share
        return np.where(known[:, None], points, np.nan)


@dataclass(frozen=True, eq=False)
class PoseTrack:
    """A true pose over time: times [ns], shape (n,), positions [m], shape (n, 3), quaternions xyzw, shape (n, 4)."""

    t_ns: Times
    positions: Array
    quaternions: Array

    @staticmethod
    def of(samples: Iterable[tuple[int, PoseWire]]) -> PoseTrack:
        """Build from (time [ns], pose), oldest first."""
        unique = dict(reversed(list(samples)))
        times = np.array(sorted(unique), dtype=np.int64)
        poses = [unique[t] for t in times.tolist()]
        positions = np.array([p.position for p in poses], dtype=float).reshape(-1, 3)
        return PoseTrack(times, positions, np.array([p.quaternion for p in poses], dtype=float).reshape(-1, 4))

    def at(self, t_ns: Times) -> tuple[Array, Array]:
        """Return rotations, shape (m, 3, 3), and positions [m], shape (m, 3), at times [ns]; NaN where unknown.

        Positions go along lines, rotations along great arcs (Shoemake 1985).
        """
        before, share, known = _between(self.t_ns, t_ns)
        if not known.any():
            return np.full((len(t_ns), 3, 3), np.nan), np.full((len(t_ns), 3), np.nan)
        positions = self.positions[before] * (1.0 - share) + self.positions[before + 1] * share
        rotations = rotations_from_quaternions(_slerp(self.quaternions[before], self.quaternions[before + 1], share))
        return np.where(known[:, None, None], rotations, np.nan), np.where(known[:, None], positions, np.nan)


def _between(times: Times, t_ns: Times) -> tuple[Times, Array, NDArray[np.bool_]]:
    """Return for each time the sample before it, the share of the way to the next, shape (m, 1), and if it is known."""
    if len(times) < 2:
        return np.zeros(len(t_ns), np.int64), np.zeros((len(t_ns), 1)), np.zeros(len(t_ns), np.bool_)
    before = np.clip(np.searchsorted(times, t_ns, side="right") - 1, 0, len(times) - 2)
    gap = times[before + 1] - times[before]
    share = (t_ns - times[before]) / gap
    known = ((gap <= LONGEST_GAP_NS) & (share >= 0.0) & (share <= 1.0)) | (share == 0.0)
    return before, share[:, None], known


def _slerp(a: Array, b: Array, share: Array) -> Array:
    cosine = np.sum(a * b, axis=1, keepdims=True)
    b = np.where(cosine < 0.0, -b, b)  # the shorter of the two arcs
    angle = np.arccos(np.clip(np.abs(cosine), 0.0, 1.0))
    sine = np.where(angle < 1e-6, 1.0, np.sin(angle))
    weight_a = np.where(angle < 1e-6, 1.0 - share, np.sin((1.0 - share) * angle) / sine)
    weight_b = np.where(angle < 1e-6, share, np.sin(share * angle) / sine)
    return weight_a * a + weight_b * b


def rotations_from_quaternions(q: Array) -> Array:
    """Return rotations, shape (n, 3, 3), of quaternions xyzw, shape (n, 4), of any length but zero."""
    x, y, z, w = (q / np.linalg.norm(q, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.array(rows).transpose(2, 0, 1)


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that stands in a session's recording but the bulk."""

    folder: Path
    metadata: dict[str, Any]
    damage: tuple[str, ...]  # what could not be read
    gaps: dict[str, int]  # source -> messages that never came, by its sequence
    topics: dict[str, int]  # topic -> messages
    segments: int
    by_kind: Mapping[type[Message], tuple[Recorded, ...]]  # oldest content first
    start_ns: int  # the oldest publication: real clocks do not begin at zero
    end_ns: int  # the newest

    def of(self, kind: type[M]) -> list[M]:
        """Return all messages of a type, oldest content first."""
        return [message for _, message in self.published(kind)]

    def published(self, kind: type[M]) -> list[tuple[int, M]]:
        """Return (publication time [ns], message) of a type, oldest content first."""
        return [(r.t_pub_ns, r.message) for r in self.by_kind.get(kind, ()) if isinstance(r.message, kind)]

    def seconds(self, t_ns: int | Times) -> Array:
        """Return when times [ns], of any shape, were in the run [s]; what was before its first message is at 0."""
        return np.maximum(np.asarray(t_ns, dtype=np.int64) - self.start_ns, 0) * 1e-9

    def sources(self, kind: type[Message]) -> list[str]:
        """Return which parts published a type."""
        return sorted({r.source for r in self.by_kind.get(kind, ())})

    def guide(self) -> list[Shown]:
        """Return the frames shown while guiding."""
        return [shown for shown in self.of(Shown) if shown.step == "guide"]

    def true_point(self, name: str) -> PointTrack:
        """Return a true point's track; empty where the run had no truth."""
        return PointTrack.of((t.t_ns, t.points[name]) for t in self.of(Truth) if name in t.points)

    def true_pose(self, name: str) -> PoseTrack:
        """Return a true pose's track; empty where the run had no truth."""
        return PoseTrack.of((t.t_ns, t.poses[name]) for t in self.of(Truth) if name in t.poses)


def load(folder: Path, catalogue: Catalogue | None = None) -> Evidence:
    """Read a session's recording; raise RecordingError where it holds no message at all."""
    recording = Recording(folder, catalogue)
    topics: Counter[str] = Counter()
    lives: dict[tuple[str, int], set[int]] = {}
    kinds: dict[type[Message], list[Recorded]] = {}
    published_ns: list[int] = []
    for item in recording:
        topics[item.topic] += 1
        lives.setdefault((item.source, item.boot), set()).add(item.seq)
        published_ns.append(item.t_pub_ns)
        if isinstance(item.message, Message) and not isinstance(item.message, BulkCopy):
            kinds.setdefault(type(item.message), []).append(item)
    if not topics:
        got = "; ".join(recording.damage) or "none"
        raise RecordingError("a recording with messages", got, str(folder), "The run ended before its first message.")
    return Evidence(
        folder=folder,
        metadata=recording.metadata,
        damage=tuple(recording.damage),
        gaps=_gaps(lives),
        topics=dict(sorted(topics.items())),
        segments=len(recording.segments),
        by_kind={kind: tuple(sorted(items, key=_order)) for kind, items in kinds.items()},
        start_ns=min(published_ns),
        end_ns=max(published_ns),
    )


def _order(item: Recorded) -> tuple[int, int, int, str, int, int]:
    content_ns = item.message.t_ns if isinstance(item.message, Message) else 0
    return content_ns, item.t_pub_ns, item.round, item.source, item.boot, item.seq


def _gaps(lives: Mapping[tuple[str, int], set[int]]) -> dict[str, int]:
    """Return how many numbers each source's sequence lacks between the first and the last of each life."""
    gaps: Counter[str] = Counter()
    for (source, _), numbers in sorted(lives.items()):
        gaps[source] += max(numbers) - min(numbers) + 1 - len(numbers)
    return {source: count for source, count in gaps.items() if count}
