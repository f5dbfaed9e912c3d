"""Pictures one after another, from a folder of images or from a video; OpenCV reads them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twinguide_calibration.refused import CalibrationRefused

try:
    import cv2
except ImportError as error:
    raise ImportError("pictures and videos need OpenCV: pip install 'twinguide[camera]'") from error

Image = NDArray[np.uint8]
STILLS = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".pgm", ".ppm", ".webp"}


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One picture: its file or number, grey, shape (height, width), and its time in a video [s]."""

    name: str
    grey: Image
    t_s: float


def read_pictures(path: Path) -> Iterator[Picture]:
    """Yield the pictures of a folder in the order of their names, or all frames of a video.

    Raises CalibrationRefused where there is none, and where one cannot be read.
    """
    if not path.exists():
        raise CalibrationRefused(
            f"wanted a folder of images, or a video; got no such file; in {path}", "Check the path."
        )
    pictures = _stills(path) if path.is_dir() or path.suffix.lower() in STILLS else _frames(path)
    first = next(pictures, None)
    if first is None:
        raise CalibrationRefused(
            f"wanted pictures; got none; in {path}", f"Put them there: {', '.join(sorted(STILLS))}."
        )
    yield first
    yield from pictures


def _stills(path: Path) -> Iterator[Picture]:
    files = (
        sorted(f for f in path.iterdir() if f.suffix.lower() in STILLS and f.name[0] != ".")
        if path.is_dir()
        else [path]
    )
    for number, file in enumerate(files):
        image = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        if image is None:  # pyright: ignore[reportUnnecessaryComparison] - OpenCV returns None for a torn file
            raise CalibrationRefused(
                f"wanted an image; got one that cannot be read; in {file}", "Take it out, if it is none or torn."
            )
        yield Picture(file.name, np.asarray(image, dtype=np.uint8), float(number))


def _frames(path: Path) -> Iterator[Picture]:
    video = cv2.VideoCapture(str(path))
    try:
        if not video.isOpened():
            raise CalibrationRefused(f"wanted a video; got one that cannot be opened; in {path}", "Is it whole?")
        number = 0
        while True:
            t_s = video.get(cv2.CAP_PROP_POS_MSEC) * 1e-3
            there, image = video.read()
            if not there:
                return
            yield Picture(f"frame {number}", np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), dtype=np.uint8), t_s)
            number += 1
    finally:
        video.release()
