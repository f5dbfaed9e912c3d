"""The marker tracker as a part: pictures in, exposures out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from twinguide import Exposure, Inbox, PoseWire, Transform, TwinGuideError
from twinguide.clock import MS
from twinguide_calibration import CalibrationRefused
from twinguide_calibration.board_pose import BoardPose, board_pose
from twinguide_calibration.boards import Board, board_of, find_board, find_markers, view_of
from twinguide_calibration.camera import read_camera

from .plugin import MarkersOptions
from .source import Frame, open_source

if TYPE_CHECKING:
    from twinguide import Context

Array = NDArray[np.float64]
PRIOR_NS = 500 * MS  # an older pose says nothing about which of two is right
VIDEO_SIGMA_NS = MS  # of a file's own time stamps


class Markers:
    """A camera that knows which boards to look for; of two poses that fit alike the earlier picture's decides."""

    def __init__(self, ctx: Context) -> None:
        o: MarkersOptions = ctx.options
        self._options = o
        try:
            self._camera = read_camera(Path(o.calibration))
            self._boards = {tool: board_of(text) for tool, text in o.tools.items()}
        except CalibrationRefused as error:
            raise TwinGuideError(str(error)) from error
        _distinct(self._boards)
        self._source = open_source(o.source, o.latency_ms)
        live = o.source.startswith("camera:")
        self._sigma_t_ns = round(o.latency_sigma_ms * MS) if live else VIDEO_SIGMA_NS
        self._earlier: dict[str, tuple[int, Array]] = {}  # tool -> when [ns], camera_from_tool

    def step(self, t_ns: int, inbox: Inbox) -> Iterator[Exposure]:
        """Look at the newest picture, if there is one."""
        ended = self._source.ended
        frame = self._source.newest(t_ns)
        if frame is not None:
            yield self._look(frame)
        elif self._source.ended and not ended:
            lost = dict.fromkeys(self._boards, "the pictures have ended")
            yield Exposure(t_ns=t_ns, sigma_t_ns=self._sigma_t_ns, tools={}, lost=lost)

    def _look(self, frame: Frame) -> Exposure:
        tools: dict[str, PoseWire] = {}
        lost: dict[str, str] = {}
        find = cache(partial(find_markers, frame.grey))  # once a dictionary, for all its boards
        for tool, board in self._boards.items():
            pose = self._pose_of(tool, board, frame, find)
            if isinstance(pose, str):
                lost[tool] = pose
            else:
                self._earlier[tool] = (frame.t_ns, pose.camera_from_board)
                tools[tool] = _wire(tool, pose)
        return Exposure(t_ns=frame.t_ns, sigma_t_ns=self._sigma_t_ns, tools=tools, lost=lost)

    def _pose_of(
        self, tool: str, board: Board, frame: Frame, find: Callable[[str], dict[int, Array]]
    ) -> BoardPose | str:
        """Return where a tool's board is to the camera, or why it is lost; `find` gives a dictionary's markers."""
        high, wide = frame.grey.shape
        if (wide, high) != self._camera.size:
            return "pictures of {}x{} px, calibrated at {}x{}".format(wide, high, *self._camera.size)
        prior = self._prior(tool, frame.t_ns)
        try:
            seen = view_of(find(board.dictionary), board) if board.kind == "markers" else find_board(frame.grey, board)
            if seen is None:
                return "not in the camera's view"
            pose = board_pose(
                seen,
                self._camera,
                prior=prior,
                sigma_px=self._options.sigma_px,
                residual_max_px=self._options.residual_max_px,
            )
        except CalibrationRefused as error:
            return error.reason
        if pose.ambiguous and prior is None:
            return "two poses fit alike: tilt it, or bring it nearer"
        return pose

    def _prior(self, tool: str, t_ns: int) -> Array | None:
        when_ns, pose = self._earlier.get(tool, (0, None))
        return pose if pose is not None and t_ns - when_ns < PRIOR_NS else None


def _distinct(boards: dict[str, Board]) -> None:
    """Refuse two tools that bear the same marker."""
    owners: dict[tuple[str, int], str] = {}
    for tool, board in boards.items():
        for corner in board.points if board.kind == "markers" else ():
            key = (board.dictionary, corner // 4)
            if owners.setdefault(key, tool) != tool:
                raise TwinGuideError(
                    "a marker for one tool only", f"marker {key[1]} of {key[0]} on {owners[key]} and {tool}", "tools"
                )


def _wire(tool: str, pose: BoardPose) -> PoseWire:
    matrix = pose.camera_from_board
    return PoseWire.of(Transform.of("tracker", tool, matrix[:3, :3], matrix[:3, 3]), pose.covariance)
