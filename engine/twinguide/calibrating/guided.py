"""Calibrate a tool's tip as a step of the run: swing it in a divot, watch what is known so far, accept or redo."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import degrees, inf
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twinguide.calibrating.pivot import divot_of, result_of
from twinguide.calibrating.result import PivotResult, write_result
from twinguide.clock import MS, SECOND
from twinguide.errors import CalibrationError
from twinguide.wording import text
from twinguide_calibration import CalibrationRefused, PivotFit, calibrate_pivot, compare_pivots
from twinguide_calibration.pivot import SIDES

Array = NDArray[np.float64]
LOOK_NS = 500 * MS  # between two looks at what is known so far
LOOKED_AT = 100  # samples of a look: enough for the wearer, a few milliseconds of a frame
SWING_NS = 10 * SECOND
CONE_DEG = 20.0  # that the wearer is asked for, from the middle to all sides
P95_MAX_M = 1.0e-3  # of the tip; more is refused

Samples = Callable[[str, int], tuple[int, Array]]  # (tool, since [ns]) -> newest [ns], poses (n, 4, 4)
Known = Callable[[str, PivotResult], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Swing:
    """What was seen of one swing."""

    begun_ns: int
    newest_ns: int
    matrices: tuple[Array, ...] = ()  # each (n, 4, 4)


class GuidedPivot:
    """The tools that are still to be calibrated, in order; it waits for a swing, then for the wearer's word."""

    def __init__(self, tools: Mapping[str, str], samples: Samples, known: Known, folder: Path | None = None) -> None:
        """Take the tools and the frame each is seen in, their samples, who is told the result, and where it is kept."""
        self._seen_in, self._left, self._samples, self._known, self._folder = tools, list(tools), samples, known, folder
        self._swing: _Swing | None = None
        self._looked_ns = 0
        self._fit: PivotFit | None = None
        self.note = ""  # why the last swing was refused, or its tip not kept
        self.rows = self._wanted()  # what the wearer reads of it

    @property
    def tool(self) -> str:
        """The tool that is calibrated now; nothing when all are."""
        return self._left[0] if self._left else ""

    @property
    def waits_for(self) -> str:
        """What a person has to do now."""
        if self._fit is not None:
            return "confirm"
        return "" if self._swing else f"swing {self.tool}"

    def carry_out(self, command: str, tool: str, t_ns: int) -> str:
        """Begin a swing, accept the tip that it gave, or discard it; return why that is refused, or nothing."""
        if command == "swing":
            return self.begin(tool, t_ns)
        if command == "reject":
            self.redo()
        elif self._fit is None:
            return "there is no tip to accept yet"
        else:
            try:
                self.accept()
            except CalibrationError as error:
                self.note = str(error)  # the tip is used all the same
        return ""

    def begin(self, tool: str, t_ns: int) -> str:
        """Listen to the tool from `t_ns` [ns] on; return why not, or nothing."""
        if self._swing or self._fit or tool != self.tool:
            return f"wanted {self.waits_for or 'the end of the swing'!r}, got a swing of {tool!r}"
        self._swing, self._looked_ns, self.note = _Swing(t_ns, t_ns), t_ns, ""
        return ""

    def redo(self) -> None:
        """Throw away what was swung."""
        self._swing = self._fit = None
        self.rows, self.note = self._wanted(), ""

    def accept(self) -> None:
        """Use the tip from now on, and keep it as a result file; raise CalibrationError where that cannot be."""
        assert self._fit is not None
        result = _result(self.tool, self._seen_in[self.tool], self._fit)
        self._known(self._left.pop(0), result)
        self.redo()
        if self._folder is not None:
            write_result(result, self._folder / f"{result.of}.toml")

    def update(self, t_ns: int) -> bool:
        """Look at the swing every half second; return whether there is something new to read."""
        swing = self._swing
        if swing is None or t_ns < self._looked_ns + LOOK_NS:
            return False
        self._looked_ns = t_ns
        newest_ns, matrices = self._samples(self.tool, swing.newest_ns + 1)
        swing = self._swing = _Swing(swing.begun_ns, max(newest_ns, swing.newest_ns), (*swing.matrices, matrices))
        together = np.concatenate(swing.matrices)
        if t_ns - swing.begun_ns < SWING_NS:
            self.rows = self._progress(together, (t_ns - swing.begun_ns) / SECOND)
        else:
            self._finish(together)
        return True

    def _wanted(self) -> tuple[str, ...]:
        return (text("swing_wanted", name=self.tool, of=CONE_DEG),) if self.tool else ()

    def _progress(self, matrices: Array, seconds: float) -> tuple[str, ...]:
        """Return how far the swing is: time, cone, residual, and what is known of the tip by now."""
        first = text("swing_time", seconds=seconds, of=SWING_NS / SECOND, count=len(matrices))
        try:
            fit = calibrate_pivot(matrices[:: 1 + len(matrices) // LOOKED_AT], p95_max=inf)
        except CalibrationRefused as error:
            return (first, str(error))
        return (first, *_told(fit))

    def _finish(self, matrices: Array) -> None:
        self._swing = None
        try:
            self._fit = calibrate_pivot(matrices, p95_max=P95_MAX_M)
        except CalibrationRefused as error:
            self.rows, self.note = self._wanted(), text("swing_refused", reason=str(error))
            return
        self.rows = (*_told(self._fit), *self._fit.notes, text("swing_done"))


def _told(fit: PivotFit) -> tuple[str, str]:
    cone = text("swing_cone", cone_deg=degrees(fit.swing_rad), of=CONE_DEG, sides=fit.sides, all=SIDES)
    return cone, text("swing_tip", residual_mm=fit.sigma * 1e3, p95_mm=fit.tip_p95 * 1e3)


def _result(tool: str, seen_in: str, fit: PivotFit) -> PivotResult:
    """Return a swing of this run as a result that scenarios read; the session's own recording holds the samples."""
    alone = compare_pivots([fit])
    divot = divot_of("session.mcap", seen_in, fit, alone, np.arange(len(fit.residuals)))
    return result_of(tool, (divot,), (fit,), alone, (), fit.notes)
