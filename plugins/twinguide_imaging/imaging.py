"""The simulated ultrasound as a part: where the target was a while ago, with noise, stamped on arrival."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from twinguide import Array as ArrayWire
from twinguide import ImageTarget, Inbox, WorkflowState
from twinguide.clock import MS
from twinguide.messages import EchoSeen

from .plugin import ImagingOptions

if TYPE_CHECKING:
    from twinguide import Context

TRAINING = "train"
DARK_NS = 100 * MS  # over a longer gap in the world's samples no place is guessed


class Imaging:
    """A tracked probe: each step is a picture, and the target's place in it."""

    def __init__(self, ctx: Context) -> None:
        self._options: ImagingOptions = ctx.options
        self._sigma_m = self._options.sigma_mm * 1e-3
        self._covariance = ArrayWire.of(np.eye(3) * self._sigma_m**2)
        self._rng = ctx.rng("noise")
        self._echoes: deque[EchoSeen] = deque()
        self._on = not self._options.training_only

    def step(self, t_ns: int, inbox: Inbox) -> Iterator[ImageTarget]:
        """Publish where the target was `lag_ms` before `t_ns` [ns], stamped with `t_ns`: the lag stays unknown."""
        self._echoes.extend(inbox.of(EchoSeen))
        if self._options.training_only and (state := inbox.last(WorkflowState)) is not None:
            self._on = state.step == TRAINING
        then_ns = t_ns - round(self._options.lag_ms * MS)
        while len(self._echoes) > 1 and self._echoes[1].t_ns <= then_ns:
            self._echoes.popleft()
        noise = self._rng.normal(size=3) * self._sigma_m
        if not self._on or len(self._echoes) < 2:
            return
        before, after = self._echoes[0].t_ns, self._echoes[1].t_ns
        if before <= then_ns <= after <= before + DARK_NS:
            x, y, z = (self._between(then_ns) + noise).tolist()
            yield ImageTarget(t_ns=t_ns, of=self._echoes[0].of, position=(x, y, z), covariance=self._covariance)

    def _between(self, t_ns: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        before, after = self._echoes[0], self._echoes[1]
        share = (t_ns - before.t_ns) / max(after.t_ns - before.t_ns, 1)
        return (1 - share) * np.array(before.position) + share * np.array(after.position)
