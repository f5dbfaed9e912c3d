"""What a bench wants to know of a device: rate, jitter, loss and clock offset of each stream, and what to mend."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from twinguide.clock import MS, ClockMapping

from .link import Arrival
from .wire import Content, MessageRefused, Position, QuaternionTrackingData, TrackingData, Transform

POSES = (Transform, Position, TrackingData, QuaternionTrackingData)
LOSS_MEND, JITTER_MEND_MS, DRIFT_MEND_PPM, SLOW_HZ = 0.001, 8.0, 100.0, 20.0
REPEATED_MEND = 0.05
STILL = 10  # messages of one stamp
DRIFT_AFTER_S = 20.0  # before, what looks like a drift is jitter


@dataclass(frozen=True)
class StreamFigures:
    """One type of message of one device."""

    type_name: str
    device: str
    count: int
    rate_hz: float
    interval_p99_ms: float
    jitter_ms: float  # standard deviation of arrival against the stamp's own time; NaN without stamps
    lost_share: float  # of the samples that the usual interval of stamps lets expect
    repeated_share: float  # content or stamp the same as before
    unstamped: bool
    kilobytes: float  # mean


@dataclass(frozen=True)
class ClockFigures:
    """The sender's clock against ours."""

    offset_s: float  # host's wall clock minus the sender's stamp, at the earliest arrivals
    drift_ppm: float
    sigma_ms: float
    to_utc_s: float  # sender's stamp minus UTC: near zero where it tells UTC


@dataclass(frozen=True)
class ProbeReport:
    """All that was found, and what to mend, worst first."""

    seconds: float
    streams: tuple[StreamFigures, ...]
    clock: ClockFigures | None
    refused: dict[str, int]
    mend: tuple[str, ...]


def figures(arrivals: list[Arrival], refused: dict[str, int], wall_minus_monotonic_ns: int) -> ProbeReport:
    """Return what arrivals, oldest first, tell of their sender."""
    groups: dict[tuple[str, str], list[Arrival]] = {}
    for a in arrivals:
        groups.setdefault((a.packet.content.type_name, a.packet.device), []).append(a)
    streams = tuple(_stream(kind, device, group) for (kind, device), group in sorted(groups.items()))
    clock = _clock(arrivals, wall_minus_monotonic_ns)
    seconds = (arrivals[-1].t_ns - arrivals[0].t_ns) / 1e9 if arrivals else 0.0
    return ProbeReport(seconds, streams, clock, refused, tuple(_mend(seconds, streams, clock, refused)))


def _stream(kind: str, device: str, group: list[Arrival]) -> StreamFigures:
    times = np.array([a.t_ns for a in group], dtype=np.int64)
    stamps = np.array([a.packet.stamp_ns for a in group], dtype=np.int64)
    seconds = (times[-1] - times[0]) / 1e9
    gaps = np.diff(times) / MS
    unstamped = not stamps.any()
    contents = [bytes_of(a.packet.content) for a in group]
    if isinstance(group[0].packet.content, POSES):
        repeated = sum(a == b for a, b in pairwise(contents))
    else:
        repeated = int((np.diff(stamps) == 0).sum())
    return StreamFigures(
        kind, device, len(group),
        rate_hz=float((len(group) - 1) / seconds) if seconds > 0 else 0.0,
        interval_p99_ms=float(np.percentile(gaps, 99)) if len(gaps) else float("nan"),
        jitter_ms=float("nan") if unstamped or len(group) < 3 else _jitter_ms(times, stamps),
        lost_share=0.0 if unstamped else _lost(stamps),
        repeated_share=repeated / max(len(group) - 1, 1),
        unstamped=unstamped,
        kilobytes=float(np.mean([len(content) for content in contents])) / 1e3,
    )  # fmt: skip


def bytes_of(content: Content) -> bytes:
    """Return a content's bytes; of one that could not be sent again, for its names are too long in UTF-8, its text."""
    try:
        return content.pack()
    except MessageRefused:
        return repr(content).encode()


def _jitter_ms(times: NDArray[np.int64], stamps: NDArray[np.int64]) -> float:
    if not np.ptp(stamps):  # a clock that stands still
        return float("nan")
    delay = (times - times[0]) - (stamps - stamps[0])
    slope, offset = np.polyfit((stamps - stamps[0]) / 1e9, delay / MS, 1)
    return float((delay / MS - slope * (stamps - stamps[0]) / 1e9 - offset).std())


def _lost(stamps: NDArray[np.int64]) -> float:
    """Return the share of samples that are missing between stamps, by the median interval."""
    steps = np.diff(stamps)
    steps = steps[steps > 0]
    if len(steps) < 10:
        return 0.0
    missing = float(np.maximum(np.round(steps / np.median(steps)) - 1, 0).sum())
    return missing / (len(steps) + missing)


def _clock(arrivals: list[Arrival], wall_minus_monotonic_ns: int) -> ClockFigures | None:
    stamped = [a for a in arrivals if a.packet.stamp_ns]
    if len(stamped) < 2:
        return None
    mapping = ClockMapping()
    for a in stamped:
        mapping.add(a.packet.stamp_ns, a.t_ns)
    last = stamped[-1].packet.stamp_ns
    wall = mapping.to_host(last) + wall_minus_monotonic_ns
    return ClockFigures((wall - last) / 1e9, mapping.drift * 1e6, mapping.sigma_ns / MS, (last - wall) / 1e9)


def _mend(
    seconds: float, streams: tuple[StreamFigures, ...], clock: ClockFigures | None, refused: dict[str, int]
) -> list[str]:
    said = [f"{count} times {why}: a broken sender, or another protocol on this port" for why, count in refused.items()]
    for s in streams:
        name = f"{s.type_name} {s.device or '(no name)'}"
        if s.lost_share > LOSS_MEND:
            said.append(f"{name}: {s.lost_share:.1%} lost before they reached us; look at the sender's rate limit")
        if s.unstamped:
            said.append(f"{name}: no time stamps; latency cannot be told from motion, switch them on in the sender")
        elif s.count > STILL and not s.jitter_ms >= 0.0:
            said.append(f"{name}: its time stamps stand still; let the sender stamp each message")
        if s.jitter_ms > JITTER_MEND_MS:
            said.append(f"{name}: {s.jitter_ms:.1f} ms of jitter; use a cable, or a sender on a quieter machine")
        if s.type_name in ("TRANSFORM", "POSITION", "TDATA", "QTDATA"):
            if 0.0 < s.rate_hz < SLOW_HZ:
                said.append(f"{name}: {s.rate_hz:.0f} Hz; a hand's motion wants {SLOW_HZ:.0f} Hz or more")
            if s.repeated_share > REPEATED_MEND:
                said.append(f"{name}: {s.repeated_share:.0%} repeat the pose before; it is sent faster than measured")
    if clock is not None and seconds > DRIFT_AFTER_S and abs(clock.drift_ppm) > DRIFT_MEND_PPM:
        said.append(f"the sender's clock drifts by {clock.drift_ppm:.0f} ppm; does it run NTP, or stamp by a timer?")
    return said
