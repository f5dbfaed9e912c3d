"""Keep what the wearer saw: a stereo video, and a still at each step and every ten seconds of guidance."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from twinguide.clock import MS, SECOND
from twinguide.errors import RecordingError
from twinguide.messages import Picture
from twinguide.render.pictures import picture_hash, read_pixels, save_png
from twinguide.render.video import VideoWriter
from twinguide.scene import Scene

if TYPE_CHECKING:
    import moderngl

Pixels = NDArray[np.uint8]
STILL_DELAY_NS = 500 * MS  # into a step, so that its text and marks stand
STILL_EVERY_NS = 10 * SECOND


class Footage:
    """Take both eyes of a frame, and keep them side by side.

    In virtual time each drawn frame is encoded before the next. In real time a thread encodes, stills among them, and a
    frame that finds it busy is left out of the video, never out of the headset; `left_out` counts them.
    """

    def __init__(self, folder: Path, size: tuple[int, int], fps: float, *, threaded: bool) -> None:
        self._stills = folder / "stills"
        self._stills.mkdir(parents=True, exist_ok=True)
        width, height = size
        self._pair = np.zeros((height, 2 * width, 3), dtype=np.uint8)
        self._video = VideoWriter(folder / "stereo.webm", 2 * width, height, fps)
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
        width = self._pair.shape[1] // 2
        self._pair[:, eye * width : (eye + 1) * width] = read_pixels(framebuffer)

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
        """Encode a pair, and as a still if it has a name; a full disk ends the pictures, not the run."""
        if self.fault:
            return
        try:
            self._video.write(pair)
            if still:
                save_png(pair, self._stills / still)
                self._written.append(Picture(t_ns=t_ns, name=still, sha256=picture_hash(pair)))
        except (OSError, RecordingError) as error:
            self.fault = f"no more pictures are kept: {error}"

    def close(self) -> list[Picture]:
        """Finish the video; return the stills written last, and in virtual time the digest of all as one more."""
        if self._queue and self._thread:
            self._queue.put(None)
            self._thread.join()
        with contextlib.suppress(OSError, RecordingError):  # `fault` has said it already
            self._video.close()
        return self._told() + ([] if self._queue else [Picture(name="stereo.webm", sha256=self.digest.hexdigest())])
