"""What is believed of measured points: each by itself, against where it was last or, if it is new, the body has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from twinguide.errors import CaseError

from .body import Array, stacked
from .constraints import JUMP_M, SLID_M, Points, contradictions, faults

MOST_POINTS = 24  # that are measured besides the target: the errors' columns grow with them
AGREE = 3  # inputs until a jump that stays is believed
TOGETHER = 3  # points at least that jump as one
Mask = NDArray[np.bool_]


class Steadiness:
    """Tell jumps of points that drive from motion: a jump that stays is believed after three inputs that agree.

    A point is known again by its place at rest. Most points together are not an organ's deformation: they are believed
    once the target is with them, as in a patient who moves.
    """

    def __init__(self) -> None:
        self._rest = np.zeros((0, 3))
        self._last = self._new = np.full((1, 3), np.nan)  # the last row is of those that are not known
        self._agree = np.zeros(1)

    def jumps(self, rest: Array, mean: Array, own: Array, along: Array | None = None) -> Array:
        """Return how far points [m], (k, 3), have jumped since they were last believed, (k,); 0 where they have not.

        `own` [m], (k, 3), is what stands for the last of those that are not known, `along` where the target's motion
        alone would have them.
        """
        at = self._found(rest)
        last = np.where((at < len(self._rest))[:, None], self._last[at], own)
        agree = np.where(_near(mean, self._new[at]), self._agree[at] + 1, 1)
        steady, stayed = _near(mean, last), agree >= AGREE
        if along is not None and most_of(stayed & ~steady):
            apart = np.median((mean - along)[stayed & ~steady], axis=0)
            stayed &= np.linalg.norm(apart) < JUMP_M
        believed = steady | stayed
        self._rest, none = rest, np.full((1, 3), np.nan)
        self._last = np.concatenate([np.where(believed[:, None], mean, last), none])
        self._new = np.concatenate([np.where(believed[:, None], np.nan, mean), none])
        self._agree = np.append(np.where(believed, 0.0, agree), 0.0)
        return np.where(believed, 0.0, np.linalg.norm(mean - last, axis=1))

    def _found(self, rest: Array) -> NDArray[np.intp]:
        """Return each point's row in the last input; one more than there are for those that were not in it."""
        if not len(self._rest):
            return np.zeros(len(rest), dtype=np.intp)
        if np.array_equal(rest, self._rest):  # as in most frames, at a tenth of a tree's time
            return np.arange(len(rest))
        return np.asarray(KDTree(self._rest).query(rest, distance_upper_bound=SLID_M)[1], dtype=np.intp)


class Measured:
    """Judge measured points, whose names are those of what measures: what is not believed is left out, and said.

    The same `Points` given again are no new input.
    """

    def __init__(self, vertices: Array) -> None:
        self._vertices = vertices
        self._steady: dict[str, Steadiness] = {}
        self._known: dict[str, tuple[Points, Points | None, str]] = {}  # as given, what is believed, why not all

    def forget(self) -> None:
        """Believe nothing of what was: points are placed anew, and are to be where the body has them."""
        self._steady.clear()
        self._known.clear()

    def believed(self, given: Mapping[str, Points], pose: Array, target: Array) -> tuple[dict[str, Points], list[str]]:
        """Return the points that are believed, by name, and why others are not.

        `pose` [m], (n, 3), is where the body was last, `target` [m], (3,), how far the target has moved. Raises
        CaseError for points of another body.
        """
        if not isinstance(given, Mapping) or not all(isinstance(one, Points) for one in given.values()):
            fix = 'Give {"name": points}, of `points_of` or `pressed`.'
            raise CaseError("measured points by the name of what measures", f"{given!r:.60}", "a step", fix)
        for name in self._known.keys() - given.keys():
            del self._steady[name], self._known[name]
        for name, points in given.items():
            if name not in self._known or self._known[name][0] is not points:
                self._known[name] = (points, *self._judged(name, points, pose, target))
        kept = {name: self._known[name][1:] for name in given}
        believed = {name: one for name, (one, _) in kept.items() if one is not None and len(one.rest)}
        return believed, [why for _, why in kept.values() if why]

    def _judged(self, name: str, points: Points, pose: Array, target: Array) -> tuple[Points | None, str]:
        _check(name, points, len(pose))
        bad = faults(points)
        steady = self._steady.setdefault(name, Steadiness())
        own = points.rest + points.weights @ (pose - self._vertices)
        jumps = steady.jumps(points.rest, points.mean, own, points.rest + target)
        jumped = ~np.any([where for where, _ in bad], axis=0) & (jumps > 0)
        why = f"jumped by {1e3 * jumps[jumped].max(initial=0):.0f} mm"
        if most_of(jumped):
            why += " together: register anew if the reference or what measures was moved"
        bad.append((jumped, why))
        left_out = np.any([where for where, _ in bad], axis=0)
        if not left_out.any():
            return points, ""
        which = name if left_out.all() else f"{left_out.sum()} of {len(left_out)} points of {name}"
        told = f"{which} left out: {', '.join(why for where, why in bad if where.any())}"
        return None if left_out.all() else points.of(np.flatnonzero(~left_out)), told


def heed(own: Points, measured: Mapping[str, Points]) -> tuple[Points | None, Points | None, list[str]]:
    """Return the points that are heeded, those that surer ones or the target (`own`) contradict, and who is left out.

    Where the target is the less sure of two, its word stands all the same.
    """
    given = list(measured.values())
    if not given:
        return None, None, []
    worse = {(b or a) - 1 for a, b in contradictions([own, *given])}  # the target is number 0 there
    names = [name for name, points in measured.items() for _ in points.rest]
    kept = [i for i in range(len(names)) if i not in worse]
    beyond = set(kept[MOST_POINTS:])
    told = _told(names, worse, "contradicts the target or a surer point")
    told += _told(names, beyond, f"beyond {MOST_POINTS} points")
    return _joined(given, worse | beyond), _joined(given, set(kept)), told


def _told(names: Sequence[str], left_out: set[int], why: str) -> list[str]:
    """Say of each sensor how many of its points are left out."""
    counts = {name: (sum(names[i] == name for i in left_out), names.count(name)) for name in dict.fromkeys(names)}
    whose = {name: name if k == n else f"{k} of {n} points of {name}" for name, (k, n) in counts.items() if k}
    return [f"{one} left out: {why}" for one in whose.values()]


def _joined(measured: Sequence[Points], without: set[int]) -> Points | None:
    """Join measured points, but for those numbered in `without`."""
    if len(measured) == 1 and not without:
        return measured[0]
    total = sum(len(p.rest) for p in measured)
    kept = [i for i in range(total) if i not in without]
    if not kept:
        return None
    weights = stacked([p.weights for p in measured])
    rest, mean, covariance = (np.concatenate([getattr(p, n) for p in measured]) for n in ("rest", "mean", "covariance"))
    return Points(weights, rest, mean, covariance).of(np.array(kept))


def dispute(vertices: Array, positions: Array, disputed: Points | None, believed: Array) -> Array:
    """Return how far each vertex [m], (n,), is from where disputed points would have it.

    `believed` [m], (k, 3), is where those rest that are surer. The others may be right all the same: all of their
    distance at their own places and none at those that are believed, between and beyond them shared by squared
    distances (Shepard 1968). As a length, for what `SoftBody.rigid` says.
    """
    if disputed is None:
        return np.zeros(len(positions))
    gap = np.linalg.norm(disputed.mean - disputed.weights @ positions, axis=1)
    near = cdist(vertices, believed, "sqeuclidean").min(axis=1)[:, None]
    apart = cdist(vertices, disputed.rest, "sqeuclidean")
    return np.asarray((gap * near / np.maximum(near + apart, 1e-12)).max(axis=1), dtype=np.float64)


def slid(a: Points | None, b: Points | None) -> float:
    """Return how far the points sit from where they sat in the body [m]; infinite where they came or went."""
    if a is None or b is None:
        return 0.0 if a is b else np.inf
    return float(np.abs(a.rest - b.rest).max()) if a.rest.shape == b.rest.shape else np.inf


def most_of(which: Mask) -> bool:
    """Tell whether so many points are meant that they can no longer be single ones that erred."""
    return bool(which.sum() >= TOGETHER and which.mean() > 0.5)


def _check(name: str, points: Points, count: int) -> None:
    """Refuse points of another body, and such as are none."""
    wanted, shape = (len(points.rest), count), points.weights.shape
    sums = np.asarray(points.weights.sum(axis=1)).ravel()
    if shape != wanted or not np.abs(sums - 1.0).max(initial=0.0) <= 1e-3:
        got = f"weights of shape {shape}" if shape != wanted else "weights that do not sum to 1"
        fix = "Make them by points_of, of this body's vertices and tetrahedra."
        raise CaseError(f"weights {wanted} of this body's vertices", got, f"measured points {name!r}", fix)


def _near(a: Array, b: Array) -> Mask:
    return np.linalg.norm(a - b, axis=1) < JUMP_M
