"""Keep what the wearer saw: a stereo video, and a still at each step and every ten seconds of guidance."""

from __future__ import annotations

import hashlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from twinguide.clock import MS, SECOND
from twinguide.errors import TwinGuideError
from twinguide.messages import Picture
from twinguide.render.pictures import picture_hash, read_pixels, save_png
from twinguide.render.video import VideoWriter
from twinguide.scene import Scene

if TYPE_CHECKING:
    import moderngl

Pixels = NDArray[np.uint8]
STILL_DELAY_NS = 500 * MS  # into a step, so that its text and marks stand
STILL_EVERY_NS = 10 * SECOND
END = "no more pictures are kept"
log = logging.getLogger(__name__)


class Footage:
    """Take both eyes of a frame, and keep them side by side.

    In virtual time each drawn frame is encoded before the next. In real time a thread encodes, stills among them, and a
    frame that finds it busy is left out of the video, never out of the headset; `left_out` counts them.
    """

    def __init__(self, folder: Path, size: tuple[int, int], fps: Callable[[], float], *, threaded: bool) -> None:
        """Take each eye's size [px]; `fps` [1/s] is asked at the first frame: before it, a runtime has not told it."""
        self._stills = folder / "stills"
        self._stills.mkdir(parents=True, exist_ok=True)
        self._size = width, height = size
        self._pair = np.zeros((height - height % 2, 2 * width, 3), dtype=np.uint8)  # a video's height is even
        self._path, self._fps = folder / "stereo.webm", fps
        self._video: VideoWriter | None = None
        self._step, self._due_ns, self._count = "", 0, 0
        self.left_out = 0
        self.fault = ""  # why no more pictures are kept
        self.digest = hashlib.sha256()  # of all pixels kept
        self._written: deque[Picture] = deque()  # stills that nobody has been told of
        self._queue: queue.Queue[tuple[Pixels, int, str] | None] | None = queue.Queue(maxsize=2) if threaded else None
        self._thread = threading.Thread(target=self._encode, daemon=True) if threaded else None
        if self._thread:
            self._thread.start()

    def take(self, eye: int, framebuffer: moderngl.Framebuffer) -> None:
        """Read one eye's pixels."""
        if framebuffer.size != self._size:  # a lost runtime came back as another headset
            self.fault = self.fault or f"{END}: wanted views of {self._size}, got {framebuffer.size} pixels"
            return
        width = self._size[0]
        self._pair[:, eye * width : (eye + 1) * width] = read_pixels(framebuffer)[: len(self._pair)]

    def keep(self, scene: Scene) -> list[Picture]:
        """Hand the pair to the video, and return the stills that have been written since the last call."""
        t_ns = scene.twin.t_display_ns
        name = self._still_due(t_ns, scene.twin.workflow.step)
        if self._queue is None:
            self.digest.update(self._pair.tobytes())
            self._write(self._pair, t_ns, name)
        elif self._queue.full():
            self.left_out += 1
            return self._told()  # a still that is due is the next frame's
        elif not self.fault:
            self._queue.put_nowait((self._pair.copy(), t_ns, name))
        if name:
            self._count, self._due_ns = self._count + 1, t_ns + STILL_EVERY_NS
        return self._told()

    def _still_due(self, t_ns: int, step: str) -> str:
        """Return the name of the still that this frame is to become, or nothing."""
        if step != self._step:
            self._step, self._due_ns = step, t_ns + STILL_DELAY_NS
        return f"{self._count + 1:02d}_{step}.png" if t_ns >= self._due_ns else ""

    def _told(self) -> list[Picture]:
        return [self._written.popleft() for _ in range(len(self._written))]

    def _encode(self) -> None:
        assert self._queue is not None
        while (taken := self._queue.get()) is not None:
            self._write(*taken)

    def _write(self, pair: Pixels, t_ns: int, still: str) -> None:
        """Encode a pair, and as a still if it has a name; a full disk, say, ends the pictures, not the run."""
        if self.fault:
            return
        try:
            if self._video is None:
                self._video = VideoWriter(self._path, pair.shape[1], pair.shape[0], self._fps())
            self._video.write(pair)
            if still:
                save_png(pair, self._stills / still)
                self._written.append(Picture(t_ns=t_ns, name=still, sha256=picture_hash(pair)))
        except Exception as error:  # whatever it was: the thread must live to be joined
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Keep and log the first failure; a bug is told with its traceback, what the disk refuses in one line."""
        if not self.fault:
            self.fault = f"{END}: {error or type(error).__name__}"
            log.error("%s", self.fault, exc_info=None if isinstance(error, (OSError, TwinGuideError)) else error)

    def close(self) -> list[Picture]:
        """Finish the video; return the stills written last, and in virtual time a video's digest as one more."""
        if self._queue and self._thread:
            self._queue.put(None)
            self._thread.join()
        try:
            if self._video:
                self._video.close()
        except Exception as error:  # whatever it was: the run's report is still to be written
            self._fail(error)
        told = self._told()
        if self._video and not self._queue:
            told.append(Picture(name=self._path.name, sha256=self.digest.hexdigest()))
        return told
