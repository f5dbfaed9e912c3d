"""Breathing: Lujan's waveform, cycle by cycle, seen at the chest and, later, at the target."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .options import PatientOptions

POWER = 6  # Lujan 1999: z = z0 - b cos^(2n)(pi t / tau - phi), n = 3


@dataclass(frozen=True, slots=True)
class Breath:
    """How far inspired, 0 at end-expiration (the CT's phase), about 1 at full inspiration."""

    chest: float
    target: float
    held: bool


class Breathing:
    """A phase that runs through cycles of seeded period and amplitude, and stops at end-expiration when asked."""

    def __init__(self, rng: np.random.Generator, options: PatientOptions) -> None:
        self._rng, self._options = rng, options
        self._cycles: list[tuple[float, float, float]] = []  # period [s], amplitude of target, of chest
        self.lag_rad = options.lag_rad * (1.0 + 0.2 * float(np.clip(rng.normal(), -2, 2)))
        self._phase = 0.0  # [cycles]
        self._hold, self._held = False, False
        self._earliest_hold = 0.0  # [cycles]: who was let go breathes once before the next hold

    def ask(self, *, hold: bool) -> None:
        """Ask the patient to hold the breath at the next end-expiration, or to go on for a breath at least."""
        self._hold = hold
        if not hold and self._held:
            self._earliest_hold = self._phase + 1.0

    def advance(self, dt_s: float) -> None:
        """Breathe on for `dt_s` [s]."""
        while dt_s > 0:
            cycle = int(self._phase)
            self._held = self._hold and self._phase == cycle and cycle >= self._earliest_hold
            if self._held:
                return
            period = self._cycle(cycle)[0]
            left_s = (cycle + 1 - self._phase) * period
            if dt_s < left_s:
                self._phase += dt_s / period
                return
            self._phase = float(cycle + 1)
            dt_s -= left_s

    def now(self, leap_cycles: float = 0.0, added_lag_rad: float = 0.0) -> Breath:
        """Return the breath at chest and target; a fault may leap over cycles and add to the lag [rad]."""
        phase = self._phase + leap_cycles
        behind = phase - (self.lag_rad + added_lag_rad) / np.pi  # Lujan's argument runs through pi in a cycle
        return Breath(self._wave(phase, 2), self._wave(behind, 1), self._held)

    def _wave(self, phase: float, column: int) -> float:
        cycle = int(np.floor(phase))
        return self._cycle(max(cycle, 0))[column] * float(np.sin(np.pi * (phase - cycle))) ** POWER

    def _cycle(self, index: int) -> tuple[float, float, float]:
        while len(self._cycles) <= index:
            o = self._options
            period, amplitude, chest = np.clip(self._rng.normal(size=3), -2.5, 2.5)
            both = 1.0 + o.amplitude_variation * amplitude
            self._cycles.append(
                (o.period_s * (1.0 + o.period_variation * period), both, both * (1.0 + o.surrogate_variation * chest))
            )
        return self._cycles[index]
