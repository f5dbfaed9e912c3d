"""Where poses come from: files of other systems, or TwinGuide's own recordings."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from twinguide.bus.catalogue import Catalogue
from twinguide.calibrating.result import Source, source_of
from twinguide.case import Case
from twinguide.case_file import CASE_FILE
from twinguide.errors import BusError, CalibrationError, FrameError
from twinguide.frames import Pose
from twinguide.messages import Exposure, PoseWire, Registration, Shown
from twinguide.playback import Recording
from twinguide_calibration import CalibrationRefused
from twinguide_calibration.reading import By, NamedPoints, PoseRecording, Track, read_points, read_poses


@contextmanager
def refusals(next_step: str = "") -> Generator[None]:
    """Turn a refusal of the calibration library into an error of the engine."""
    try:
        yield
    except CalibrationRefused as error:
        raise CalibrationError(str(error), next_step=next_step) from error


def open_poses(path: Path) -> PoseRecording:
    """Read poses from a sequence file, a CSV, or a session (its folder, or `session.mcap`).

    Raises CalibrationError for what cannot be used.
    """
    if not path.exists():
        raise CalibrationError("a recording", "no such file", str(path), "Look at its name.")
    if path.is_dir():
        return read_session(path)
    if path.suffix == ".mcap":
        return read_session(path.parent)
    with refusals():
        return read_poses(path)


def open_points(path: Path, by: By = "name") -> tuple[NamedPoints, str]:
    """Read named points, and the content hash of the case that they are from, where they are.

    From a file, from a case's folder (its landmarks, in `image`), or from a session (the landmarks last touched for its
    registration, in `reference`). Raises CalibrationRefused or CalibrationError for what cannot be used.
    """
    if (path / CASE_FILE).is_file():
        case = Case.load(path)
        places = np.array([mark.position for mark in case.landmarks.values()]).reshape(-1, 3)
        return NamedPoints(path.name, tuple(case.landmarks), places), case.content_hash
    if path.is_dir() or path.suffix == ".mcap":
        return _touched(path if path.is_dir() else path.parent), ""
    return read_points(path, by), ""


def _touched(folder: Path) -> NamedPoints:
    made: Registration | None = None
    for recorded in Recording(folder, Catalogue([Registration])):
        if isinstance(recorded.message, Registration) and recorded.message.landmarks:
            made = recorded.message
    if made is None:
        raise CalibrationError("a session with touched landmarks", "none", str(folder))
    places = np.array([mark.position for mark in made.landmarks])
    covariances = np.array([mark.covariance.numpy() for mark in made.landmarks])
    shared = np.array([mark.shared.numpy() for mark in made.landmarks])
    return NamedPoints(folder.name, tuple(mark.name for mark in made.landmarks), places, covariances, shared=shared)


def hashed(paths: tuple[Path, ...]) -> tuple[Source, ...]:
    """Return the inputs' names and hashes."""
    return tuple(source_of(path) for path in paths)


def read_session(folder: Path) -> PoseRecording:
    """Read a session's tracks: `tracker_from_<tool>` of all exposures, `stage_from_head` and controllers as shown.

    Raises RecordingError where there is no recording, CalibrationError where it holds no pose.
    """
    recording = Recording(folder, Catalogue([Exposure, Shown]))
    poses: dict[str, list[tuple[int, Pose]]] = {}
    faulty = exposures = shown = 0
    for recorded in recording:
        match recorded.message:
            case Exposure(t_ns=t_ns, tools=tools):
                found, number = list(tools.values()), exposures
                exposures += 1
            case Shown(t_ns=t_ns, stage_from_head=wire, controllers=controllers):
                found, number = [wire, *controllers.values()], shown
                shown += 1
            case _:
                continue
        for wire in found:
            pose = _pose(wire, t_ns)
            if pose is None:
                faulty += 1
            else:
                poses.setdefault(f"{wire.target}_from_{wire.source}", []).append((number, pose))
    notes = [f"damaged: {text}" for text in recording.damage]
    notes += [f"{faulty} poses that are not rigid or not finite, left out"] * bool(faulty)
    if not poses:
        raise CalibrationError("a session with tracked tools", f"{exposures} exposures without a pose", str(folder))
    tracks: dict[str, Track] = {}
    for name, rows in poses.items():
        tracks[name], late = _track(rows)
        notes += [f"{name}: {late} samples not later than the one before, left out"] * bool(late)
    return PoseRecording(folder.name, tracks, tuple(notes))


def _pose(wire: PoseWire, t_ns: int) -> Pose | None:
    try:
        return wire.pose(t_ns)
    except (FrameError, BusError):
        return None


def _track(rows: list[tuple[int, Pose]]) -> tuple[Track, int]:
    """Return a track of poses in the order of their time, and how many repeated a time."""
    rows = sorted(rows, key=lambda row: row[1].t_ns)
    times = np.array([pose.t_ns for _, pose in rows], dtype=np.int64)
    fresh = np.concatenate([[True], np.diff(times) > 0])
    matrices = np.array([pose.transform.matrix for _, pose in rows])[fresh]
    frames = np.array([number for number, _ in rows], dtype=np.int64)[fresh]
    one = rows[0][1].transform
    track = Track(one.target, one.source, matrices[:, :3, :3], matrices[:, :3, 3], frames, times[fresh])
    return track, int((~fresh).sum())
