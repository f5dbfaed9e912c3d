"""Which critical structures the needle's true tip has entered."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from twinguide.case import Case

Array = NDArray[np.float64]
SURE_M = 0.001  # an interpolated grid is not wrong by more


class Collisions:
    """Remembers each critical structure entered; a distance is sampled again only when the tip can have closed it."""

    def __init__(self, case: Case) -> None:
        critical = [s for s in case.structures.values() if s.risk == "critical" and s.name in case.gridded]
        self._grids = {s.name: case.distance(s.name) for s in critical}
        self._rigid = {s.name for s in critical if s.role in ("bone", "skin")}
        self._clear_m = dict.fromkeys(self._grids, 0.0)  # how far the tip may move before the next look
        self._last: dict[bool, Array] = {}
        self._entered: set[str] = set()

    @property
    def names(self) -> str:
        """Return the structures entered, sorted, joined by commas."""
        return ",".join(sorted(self._entered))

    def test(self, tip: Array, material: Array) -> None:
        """Look at the tip [m], shape (3,), in image, and at the CT's place of the organ tissue that is now there."""
        places = {True: tip, False: material}  # bone stays where the CT shows it, all else moves with the organ
        moved = {rigid: _distance(place, self._last.get(rigid, place)) for rigid, place in places.items()}
        self._last = places
        for name, grid in self._grids.items():
            rigid = name in self._rigid
            self._clear_m[name] -= moved[rigid]
            if name in self._entered or self._clear_m[name] > 0:
                continue
            distance = float(grid.at(places[rigid][None])[0])
            self._clear_m[name] = distance - SURE_M
            if distance < 0:
                self._entered.add(name)


def _distance(a: Array, b: Array) -> float:
    return float(np.sqrt(((a - b) ** 2).sum()))
