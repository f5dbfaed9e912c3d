"""Where pictures come from: a camera of the machine, or a video file played at its own pace."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from twinguide import TwinGuideError
from twinguide.clock import SECOND

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A grey picture, shape (height, width), and its exposure [ns] on the run's clock."""

    grey: Image
    t_ns: int


class VideoFile:
    """A file's frames, each due at its own time after the first step; frames overtaken by a later one are skipped."""

    def __init__(self, path: Path) -> None:
        self._video = cv2.VideoCapture(str(path)) if path.is_file() else None
        if self._video is None or not self._video.isOpened():
            got = "one that cannot be opened" if path.is_file() else "no such file"
            raise TwinGuideError("a video", got, str(path), "Name a file that OpenCV reads, or camera:0.")
        rate = self._video.get(cv2.CAP_PROP_FPS)
        self._period_s = 1.0 / rate if 0.0 < rate < 1e4 else 1.0 / 30.0
        self._start_ns: int | None = None
        self._count = 0
        self.ended = False

    def newest(self, t_ns: int) -> Frame | None:
        """Return the newest frame that is due at `t_ns` [ns], or None where none is."""
        self._start_ns = t_ns if self._start_ns is None else self._start_ns
        due = 1 + int((t_ns - self._start_ns) * 1e-9 / self._period_s)
        image, taken = None, 0
        while self._video is not None and self._count < due and not self.ended:
            there = self._video.grab()
            self.ended = not there
            taken += there
            self._count += there
        if taken and self._video is not None:
            _, image = self._video.retrieve()
        if image is None:
            return None
        exposed_ns = self._start_ns + round((self._count - 1) * self._period_s * SECOND)
        return Frame(_grey(image), exposed_ns)


class LiveCamera:
    """A camera of the machine; a frame's exposure is its arrival less the stated latency."""

    def __init__(self, number: int, latency_ms: float) -> None:
        self._video = cv2.VideoCapture(number)
        self._latency_ns = round(latency_ms * 1e6)
        if not self._video.isOpened():
            raise TwinGuideError("a camera", "none that opens", f"camera:{number}", "Is it plugged in, or in use?")
        self._video.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # an old frame is worse than a late one
        self.ended = False

    def newest(self, t_ns: int) -> Frame | None:
        """Return the next frame; waits for it, a frame's time at most."""
        began_ns = time.monotonic_ns()
        there, image = self._video.read()
        self.ended = not there
        if not there:
            return None
        return Frame(_grey(image), t_ns + time.monotonic_ns() - began_ns - self._latency_ns)


def _grey(image: Any) -> Image:  # noqa: ANN401 - whatever OpenCV returns
    flat = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if image.ndim == 3 else image
    return np.asarray(flat, dtype=np.uint8)


def open_source(text: str, latency_ms: float) -> VideoFile | LiveCamera:
    """Open what `source` names; raise TwinGuideError where it cannot be had."""
    kind, colon, number = text.partition(":")
    if kind == "camera" and colon and number.isdecimal():
        return LiveCamera(int(number), latency_ms)
    return VideoFile(Path(text))
