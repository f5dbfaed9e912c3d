"""Two streams of poses from one file or two: what hand-eye calibration and the finding of a lag begin with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twinguide.calibrating.inputs import open_poses
from twinguide_calibration import CalibrationRefused
from twinguide_calibration.reading import PoseRecording, Track, fresh_rows, without_repeats
from twinguide_calibration.rigid import compose

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Streams:
    """Two tracks, and what their files told of them."""

    a: Track
    b: Track
    one_file: bool
    notes: tuple[str, ...]


def open_streams(paths: tuple[Path, ...], a: str, b: str) -> Streams:
    """Return track `a` of the first file and `b` of the last; raise CalibrationRefused naming what there is.

    An empty name means the file's one track.
    """
    if len(paths) not in (1, 2):
        raise CalibrationRefused(f"wanted one file or two; got {len(paths)}")
    alone = len(paths) == 1
    recordings = [open_poses(path) for path in paths]
    first, second = recordings[0], recordings[-1]
    if alone and not (a and b):
        raise CalibrationRefused(
            f"wanted --a and --b, two tracks of {first.file}; there is {', '.join(first.tracks) or 'none'}"
        )
    one, two = (recording.track(name) if name else recording.only() for recording, name in ((first, a), (second, b)))
    if one.rotations.shape == two.rotations.shape and np.array_equal(one.rotations, two.rotations):
        raise CalibrationRefused(
            f"wanted two streams of poses; got {one.name} twice, turn for turn the same",
            "Name two tracks with --a and --b, or give another file.",
        )
    notes = [*_notes(first, one), *_notes(second, two)]
    if one.name == two.name:  # of two files that name nothing
        one, two = _told_apart(one, "a"), _told_apart(two, "b")
    return Streams(one, two, alone, tuple(dict.fromkeys(notes)))


def _told_apart(track: Track, letter: str) -> Track:
    return replace(track, target=f"{track.target}_{letter}", source=f"{track.source}_{letter}")


def _notes(recording: PoseRecording, track: Track) -> list[str]:
    return [note for note in recording.notes if track.source in note or "_from_" not in note]


def has_stamps(streams: Streams) -> bool:
    """Tell whether either stream of two files has time stamps; refuse rows that nothing pairs.

    Without stamps they are paired row by row, which wants as many of either in the files.
    """
    if streams.a.times_ns is not None or streams.b.times_ns is not None:
        return True
    if streams.a.told != streams.b.told:
        raise CalibrationRefused(
            f"wanted time stamps, or rows in pairs; got {streams.a.told} of {streams.a.name} and {streams.b.told} of "
            f"{streams.b.name}, without stamps",
            "Record with time stamps, or write both poses of a station into the same row.",
        )
    return False


def paired(streams: Streams) -> tuple[Track, Track, tuple[str, ...]]:
    """Return the poses of frames in which both were seen, once each pair; raise CalibrationRefused where that is none.

    Also what was left out.
    """
    _, rows, others = np.intersect1d(streams.a.frames, streams.b.frames, return_indices=True)
    if not len(rows):
        raise CalibrationRefused(f"wanted frames with both {streams.a.name} and {streams.b.name}; got none")
    one, two = streams.a.take(rows), streams.b.take(others)
    flat = [part.reshape(len(rows), -1) for part in (one.rotations, one.translations, two.rotations, two.translations)]
    fresh = fresh_rows(np.concatenate(flat, axis=1))
    lonely = [(track, len(track) - len(rows)) for track in (streams.a, streams.b) if not streams.one_file]
    notes = [
        f"{track.name}: {count} of {len(track)} rows without a partner, left out" for track, count in lonely if count
    ]
    notes += [f"{(~fresh).sum()} pairs of poses repeat another to the last digit, left out"] * (not fresh.all())
    return one.take(fresh), two.take(fresh), tuple(notes)


def timed(streams: Streams) -> tuple[Array, Track, Array, Track, tuple[str, ...]]:
    """Return each stream's stamps [s] from their common start, and its poses without repeats.

    Raises CalibrationRefused where a file has no time stamps.
    """
    tracks: list[Track] = []
    notes: list[str] = []
    for track in (streams.a, streams.b):
        fresh, repeats = without_repeats(track, returns=True)
        notes += [f"{track.name}: {repeats} poses repeat the one before to the last digit, left out"] * bool(repeats)
        if fresh.times_ns is None:
            raise CalibrationRefused(f"wanted time stamps; {track.name} has none", "Record with time stamps.")
        tracks.append(fresh)
    one, two = tracks
    assert one.times_ns is not None
    assert two.times_ns is not None
    start = min(int(one.times_ns[0]), int(two.times_ns[0]))
    times = [np.asarray((stamps - start) * 1e-9, dtype=np.float64) for stamps in (one.times_ns, two.times_ns)]
    return times[0], one, times[1], two, tuple(notes)


def matrices(track: Track) -> Array:
    """Return a track's poses, shape (n, 4, 4)."""
    return compose(track.rotations, track.translations)
