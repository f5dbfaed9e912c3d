"""Keep what the wearer saw: a stereo video, and a still at each step and every ten seconds of guidance."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import threading
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

    In virtual time each drawn frame is encoded before the next. In real time a thread encodes, and a frame that finds
    it busy is left out of the video, never out of the headset; `left_out` counts them.
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
        self._queue: queue.Queue[Pixels | None] | None = queue.Queue(maxsize=2) if threaded else None
        self._thread = threading.Thread(target=self._encode, daemon=True) if threaded else None
        if self._thread:
            self._thread.start()

    def take(self, eye: int, framebuffer: moderngl.Framebuffer) -> None:
        """Read one eye's pixels."""
        width = self._pair.shape[1] // 2
        self._pair[:, eye * width : (eye + 1) * width] = read_pixels(framebuffer)

    def keep(self, scene: Scene) -> list[Picture]:
        """Hand the pair to the video, and return the still that this frame became, if it was due."""
        if self.fault:
            return []
        if self._queue is None:
            self.digest.update(self._pair.tobytes())
            self._write(self._pair)
        elif self._queue.full():
            self.left_out += 1
        else:
            self._queue.put_nowait(self._pair.copy())
        return self._still(scene)

    def _still(self, scene: Scene) -> list[Picture]:
        t_ns, step = scene.twin.t_display_ns, scene.twin.workflow.step
        if step != self._step:
            self._step, self._due_ns = step, t_ns + STILL_DELAY_NS
        if t_ns < self._due_ns:
            return []
        self._due_ns = t_ns + STILL_EVERY_NS
        self._count += 1
        name = f"{self._count:02d}_{step}.png"
        try:
            save_png(self._pair, self._stills / name)
        except OSError as error:
            self.fault = f"no more pictures are kept: {error}"
            return []
        return [Picture(t_ns=t_ns, name=name, sha256=picture_hash(self._pair))]

    def _encode(self) -> None:
        assert self._queue is not None
        while (pair := self._queue.get()) is not None:
            self._write(pair)

    def _write(self, pair: Pixels) -> None:
        """Encode a pair; a full disk ends the video, not the run."""
        if self.fault:
            return
        try:
            self._video.write(pair)
        except (OSError, RecordingError) as error:
            self.fault = f"no more pictures are kept: {error}"

    def close(self) -> list[Picture]:
        """Finish the video; return the digest of all pictures as one more."""
        if self._queue and self._thread:
            self._queue.put(None)
            self._thread.join()
        with contextlib.suppress(OSError, RecordingError):  # `fault` has said it already
            self._video.close()
        return [] if self._queue else [Picture(name="stereo.webm", sha256=self.digest.hexdigest())]
