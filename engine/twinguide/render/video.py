"""Write what was shown as a video: VP9 in WebM, the same bytes for the same pictures."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import av.error
import numpy as np

from twinguide.errors import RecordingError
from twinguide.render.pictures import Pixels

CODEC = "libvpx-vp9"  # free of patent licences and of copyleft, unlike the H.264 encoders that PyAV also carries
# Fastest settings that keep text readable; one thread and no row threading, so that every run gives the same bytes.
OPTIONS = {"deadline": "realtime", "cpu-used": "8", "crf": "30", "b": "0", "row-mt": "0", "g": "120"}
BT709 = 1


@contextmanager
def _refusals_of(path: Path) -> Generator[None]:
    """Raise RecordingError where the disk or the encoder refuses."""
    try:
        yield
    except (OSError, av.error.FFmpegError) as error:
        raise RecordingError("a video file that can be written", str(error), str(path)) from error


class VideoWriter:
    """Encode pictures at a steady rate; also a context manager. A file that was cut off plays up to the cut."""

    def __init__(self, path: Path, width: int, height: int, fps: float) -> None:
        """Open `path` (.webm) for pictures of width x height [px], both even, at `fps` [1/s]; the folder is made."""
        if width % 2 or height % 2 or width < 2 or height < 2:
            raise RecordingError("a video of even width and height", f"{width} x {height}", str(path))
        self.path, self.frames, self._shape = path, 0, (height, width, 3)
        rate = Fraction(fps).limit_denominator(1001)
        with _refusals_of(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # `bitexact` leaves out the random identifiers that WebM otherwise carries.
            self._container: Any = av.open(str(path), "w", format="webm", options={"fflags": "+bitexact"})
        self._stream: Any = self._container.add_stream(CODEC, rate=rate, options=OPTIONS)
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        context = self._stream.codec_context
        context.thread_count, context.time_base = 1, 1 / rate
        context.colorspace = context.color_primaries = context.color_trc = BT709

    def write(self, pixels: Pixels) -> None:
        """Append one picture, shape (height, width, 3), top row first; raise RecordingError where it cannot."""
        if pixels.shape != self._shape:
            raise RecordingError(f"a picture of shape {self._shape}", str(pixels.shape), str(self.path))
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        frame.pts, frame.time_base = self.frames, self._stream.codec_context.time_base
        self._mux(frame)
        self.frames += 1

    def _mux(self, frame: av.VideoFrame | None) -> None:
        with _refusals_of(self.path):
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file, or raise RecordingError; may be called twice."""
        if self._container is None:
            return
        try:
            if self.frames:
                self._mux(None)
        finally:
            container, self._container = self._container, None
            with _refusals_of(self.path):
                container.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
