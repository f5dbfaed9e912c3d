"""The wearer's head: where it truly is, and where the headset's own tracking says it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from twinguide import Transform
from twinguide.frames import rotation_from_vector

from . import faults
from .noise import Wobble, generator
from .options import PatientOptions
from .room import furnish, look_at

if TYPE_CHECKING:
    from twinguide import Context

SWAY_M = np.array([0.015, 0.008, 0.012])
GAZE_M = 0.02


class Head:
    """A wearer who looks at the entry and sways; pure functions of (seed, options, case, time)."""

    def __init__(self, ctx: Context) -> None:
        self._options: PatientOptions = ctx.options
        self._room = furnish(ctx.seed, self._options, ctx.case)
        rng = generator(ctx.seed, "head")
        self._sway = Wobble(rng, 6, (0.05, 0.4))
        self._jitter = Wobble(rng, 6, (0.3, 8.0))

    def true(self, t_ns: int) -> Transform:
        """Return the true stage_from_headset at `t_ns` [ns]."""
        sway = self._sway.at(t_ns * 1e-9)
        eye = self._room.head_in_stage + SWAY_M * sway[:3]
        return look_at("headset", eye, self._room.entry_in_stage + GAZE_M * sway[3:], forward=-1.0)

    def reported(self, t_ns: int) -> Transform:
        """Return stage_from_headset at `t_ns` [ns] as the headset's tracking reports it: jitter, and its faults."""
        noise = self._jitter.at(t_ns * 1e-9)
        jitter = np.eye(4)
        jitter[:3, :3] = rotation_from_vector(noise[:3] * np.radians(self._options.head_jitter_deg))
        jitter[:3, 3] = noise[3:] * self._options.head_jitter_mm * 1e-3
        matrix = self.true(t_ns).matrix @ jitter
        matrix[:3, 3] += faults.headset_jump(self._options.faults, t_ns * 1e-9)
        return Transform.unchecked("stage", "headset", matrix)
