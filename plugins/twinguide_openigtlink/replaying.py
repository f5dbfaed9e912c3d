"""Recordings as messages in time: sequences of PLUS and 3D Slicer (`.igs.mha`), and sessions of ours (MCAP)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from twinguide import Exposure
from twinguide.errors import RecordingError
from twinguide.playback import read
from twinguide_calibration import CalibrationRefused
from twinguide_calibration.reading import read_poses

from .border import Names, name_of
from .served import tools_of
from .wire import Packet, TrackingData, Transform

BETWEEN_LOOPS_NS = 33_000_000


@dataclass(frozen=True)
class Cue:
    """A message and when it is due, in nanoseconds from the recording's beginning."""

    t_ns: int
    packet: Packet


def read_recording(path: Path, rate_hz: float = 30.0) -> list[Cue]:
    """Return a recording's messages in time; raise RecordingError naming file and reason.

    `rate_hz` is for sequences without time stamps.
    """
    cues = _session(path) if path.suffix == ".mcap" or path.is_dir() else _sequence(path, rate_hz)
    if not cues:
        raise RecordingError("a recording with poses", "none", str(path))
    return sorted(cues, key=lambda cue: cue.t_ns)


def played(cues: list[Cue], speed: float, *, loop: bool) -> Iterator[Cue]:
    """Return a recording's messages at another speed, again and again with `loop`.

    The stamps keep pace, as a device's clock would: they are never told twice, and a loop does not set them back.
    """
    begun = 0
    while True:
        for cue in cues:
            t_ns = begun + round(cue.t_ns / speed)
            yield Cue(t_ns, replace(cue.packet, stamp_ns=cue.packet.stamp_ns + t_ns - cue.t_ns))
        if not loop:
            return
        begun += round(cues[-1].t_ns / speed) + BETWEEN_LOOPS_NS


def _sequence(path: Path, rate_hz: float) -> list[Cue]:
    try:
        recording = read_poses(path)
    except CalibrationRefused as error:
        raise RecordingError(str(error)) from error
    cues, names = list[Cue](), Names()
    firsts = [track.times_ns[0] for track in recording.tracks.values() if track.times_ns is not None and len(track)]
    first_ns = int(min(firsts, default=0))
    for track in recording.tracks.values():
        times = track.frames * (1e9 / rate_hz) if track.times_ns is None else track.times_ns
        for t, rotation, translation in zip(times, track.rotations, track.translations, strict=True):
            matrix = np.eye(4)
            matrix[:3, :3], matrix[:3, 3] = rotation, translation * 1e3
            packet = Packet(Transform(matrix), names.of(name_of(track.target, track.source)), max(int(t), 1))
            cues.append(Cue(int(t) - first_ns, packet))
    return cues


def _session(path: Path) -> list[Cue]:
    """Return a session's exposures as TDATA, due when they were published."""
    names = Names()

    def name(tool: str) -> str:
        return names.of(name_of("tracker", tool))

    cues = [
        Cue(r.t_pub_ns, Packet(TrackingData(tools_of(r.message, name)), "Tracker", max(r.message.t_ns, 1)))
        for r in read(path if path.is_dir() else path.parent)
        if isinstance(r.message, Exposure)
    ]
    first = min((cue.t_ns for cue in cues), default=0)
    return [Cue(cue.t_ns - first, cue.packet) for cue in cues]
