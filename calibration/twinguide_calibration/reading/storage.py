"""OpenCV's FileStorage (`.yml`, `.yaml`): pairs of poses for hand-eye calibration, as robots' libraries keep them.

`T1_0`, `T2_0`, `T1_1`, ... are 4x4 matrices in metres, the number that of the pair. Their names tell no frames, so `T1`
is `t1_parent_from_t1`, and `t1_from_t1_parent` its inverse.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinguide_calibration.reading.tables import CSV_RECIPE, text_of
from twinguide_calibration.reading.tracks import PoseRecording, Rows, Track, checked
from twinguide_calibration.refused import CalibrationRefused

NUMBERED = re.compile(r"([A-Za-z]\w*?)_?(\d+)$")
METRE = 1.0


def read_storage(path: Path) -> PoseRecording:
    """Read tracks of poses; raise CalibrationRefused for a torn file, one without poses, and as `tracks.checked`."""
    rows: dict[str, dict[int, NDArray[np.float64]]] = {}
    found = _matrices(path)
    for key, matrix in found.items():
        match = NUMBERED.fullmatch(key)
        if match and matrix.shape == (4, 4):
            rows.setdefault(match[1].lower(), {})[int(match[2])] = matrix
    if not rows:
        got = ", ".join(found) or "no matrix"
        raise CalibrationRefused(f"wanted 4x4 matrices T1_0, T2_0, T1_1, ...; got {got}; in {path.name}", CSV_RECIPE)
    tracks: dict[str, Track] = {}
    notes = [f"{path.name} states no unit: taken as metres"]
    for name, poses in rows.items():
        told = Rows(f"{name}_parent", name, np.stack([*poses.values()]), np.array([*poses]), None)
        track, repairs = checked(told, METRE, path.name)
        tracks[track.name] = track
        notes += repairs
    return PoseRecording(path.name, tracks, tuple(notes))


def _matrices(path: Path) -> dict[str, NDArray[np.float64]]:
    """Return the file's matrices by name."""
    try:
        import cv2
    except ImportError as error:
        remedy = f"pip install 'twinguide[camera]'. {CSV_RECIPE}"
        raise CalibrationRefused(f"wanted OpenCV to read {path.name}; it is not installed", remedy) from error
    found: dict[str, NDArray[np.float64]] = {}
    try:
        storage = cv2.FileStorage(text_of(path), cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
        root: Any = storage.root()
        for key in root.keys():  # noqa: SIM118 - a FileNode is no mapping
            matrix = root.getNode(key).mat() if root.getNode(key).isMap() else None
            if matrix is not None:
                found[key] = np.asarray(matrix, dtype=np.float64)
        storage.release()
    except (TypeError, SystemError, cv2.error) as error:
        cause = error.__cause__ or error  # OpenCV's own is the cause of a SystemError
        got = getattr(cause, "err", "") or str(cause) or "nothing"
        raise CalibrationRefused(
            f"wanted a file of OpenCV's FileStorage; got {got}; in {path}", f"Is it whole? {CSV_RECIPE}"
        ) from error
    return found
