"""Judge from the recording how a motion model watched over itself: `out of model` episodes against the true error."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinguide.clock import MS, SECOND
from twinguide.messages import Displacement, Truth
from twinguide.scoring.evidence import Evidence, Times

Array = NDArray[np.float64]
LARGE_ERROR_M = 3e-3  # the error at which a model has to say that it no longer holds
CALM_NS = 1 * SECOND  # an error this long below the limit is over; the next one is another
EXCUSE_NS = 2 * SECOND  # an episode this soon after a cough or a jump has its reason in it


@dataclass(frozen=True)
class Episode:
    """A time out of model [ns] while guiding."""

    start_ns: int
    end_ns: int
    reason: str
    false: bool  # the truth knows neither a large error nor an irregular breath


def out_of_model(evidence: Evidence) -> dict[str, Any]:
    """Return episodes, false ones, and the latency [s] from each large true error to the word out of model.

    A negative latency is a warning given before the error was large; None is a large error without a word.
    """
    t_ns, error = model_error(evidence)
    found = _episodes(evidence, t_ns, error)
    onsets = _onsets(t_ns, error)
    latencies = [_latency_s(onset, found) for onset in onsets]

    def at_s(t_ns: int) -> float:
        return round(evidence.seconds(t_ns).item(), 6)

    return {
        "episodes": [
            {"from_s": at_s(e.start_ns), "to_s": at_s(e.end_ns), "reason": e.reason, "false": e.false} for e in found
        ],
        "false": sum(e.false for e in found),
        "large_errors_from_s": [at_s(onset) for onset in onsets],
        "latency_s": latencies,
    }


def _episodes(evidence: Evidence, t_ns: Times, error: Array) -> list[Episode]:
    """Return the times out of model while guiding, by publication, oldest first."""
    frames = evidence.guide()
    published = sorted(evidence.published(Displacement), key=lambda item: item[0])
    if not frames:
        return []
    first_ns, last_ns = frames[0].t_ns, frames[-1].t_ns
    found: list[Episode] = []
    since: tuple[int, str] | None = None
    for at_ns, message in [item for item in published if item[0] <= last_ns]:
        if not message.in_model and since is None:
            since = (at_ns, message.reason)
        elif message.in_model and since is not None:
            found.append(_episode(evidence, since, at_ns, t_ns, error))
            since = None
    if since is not None:
        found.append(_episode(evidence, since, last_ns, t_ns, error))
    return [e for e in found if e.end_ns >= first_ns]


def _episode(evidence: Evidence, since: tuple[int, str], end_ns: int, t_ns: Times, error: Array) -> Episode:
    start_ns, reason = since
    during = (t_ns >= start_ns) & (t_ns <= end_ns)
    large = bool((error[during] > LARGE_ERROR_M).any())
    breaths = {
        t.flags.get("breathing", "regular") for t in evidence.of(Truth) if start_ns - EXCUSE_NS <= t.t_ns <= end_ns
    }
    return Episode(start_ns, end_ns, reason, false=bool(evidence.of(Truth)) and not large and breaths <= {"regular"})


def model_error(evidence: Evidence) -> tuple[Times, Array]:
    """Return display times [ns] of the guide frames and the model's true error at them [m], each shape (n,).

    The model's newest word before the frame is asked for the display time, whether it was shown or withheld.
    """
    published = sorted(evidence.published(Displacement), key=lambda item: item[0])
    known_ns = [at_ns for at_ns, _ in published]
    frames = evidence.guide()
    t_ns = np.array([f.t_ns for f in frames], dtype=np.int64)
    said = np.full((len(frames), 3), np.nan)
    for row, frame in enumerate(frames):
        newest = bisect_right(known_ns, frame.t_ns) - 1
        if newest >= 0:
            said[row] = _at(published[newest][1], frame.t_ns)
    return t_ns, np.linalg.norm(said - evidence.true_point("displacement").at(t_ns), axis=1)


def _at(message: Displacement, t_ns: int) -> Array:
    """Return a trajectory's mean [m], shape (3,), at a time [ns]; beyond its ends it stays where it ends."""
    times = np.array(message.times_ns, dtype=float) - t_ns
    mean = message.mean.numpy()
    return np.array([np.interp(0.0, times, mean[:, axis]) for axis in range(3)])


def _onsets(t_ns: Times, error: Array) -> list[int]:
    """Return the times [ns] at which the error grew large, each after at least a second of calm."""
    onsets: list[int] = []
    last_ns = -CALM_NS
    for at_ns, size in zip(t_ns.tolist(), error.tolist(), strict=True):
        if size > LARGE_ERROR_M:
            if at_ns - last_ns >= CALM_NS:
                onsets.append(at_ns)
            last_ns = at_ns
    return onsets


def _latency_s(onset_ns: int, found: list[Episode]) -> float | None:
    """Return from a large error [ns] to the episode that covers or follows it within the calm time [s]."""
    near = [e for e in found if e.start_ns - CALM_NS <= onset_ns <= e.end_ns + 10 * MS]
    return round((near[0].start_ns - onset_ns) * 1e-9, 6) if near else None
