"""What drives a body, with how sure it is, as springs: points, patches, the surface's surroundings, a pressed probe.

The energy scale. Let the body's shape u be distributed as exp(-W(u)/e): the elastic energy W says which shapes are
likely, and e how freely. A measured point, P u = m with covariance S, makes the likeliest shape the minimum of

    W(u) + e/2 (P u - m)' S^-1 (P u - m),

so that a constraint is a spring of stiffness e S^-1. What e is follows from the point's own compliance c [m/N]: without
the measurement its variance is e c, which must be what is known of the organ's place without it, `FREE_SIGMA_M`^2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from twinguide.embedding import embed
from twinguide.errors import CaseError

from .mesh import EDGES, MIDDLES, Indices, boundary, face_areas, midsides, shape_functions

Array = NDArray[np.float64]
FREE_SIGMA_M = 0.01  # of an organ's place that nothing measures, per axis: 15 mm from rest to full breath
LEAST_SIGMA_M = 1e-4  # no sensor is surer; what claims to be would make the system singular
SLIDE_SIGMA_M = 0.1  # along a surface that does not hold: free
STRAIN = 0.25  # 1 sigma of a tissue's strain: what two points may differ by, over their distance
CONTRADICTION = 16.27  # squared deviations that one of 1000 triples of normal errors exceeds (chi-square, 3)
FARTHEST_M = 0.1  # from where the CT shows it: no organ of a patient at rest moves so far
JUMP_M = 0.02  # from one input to the next: 1.2 m/s at 60 Hz; a cough moves the liver by a tenth of that
MOST_SHARE = 3.0  # of the target's motion, by which what surrounds an organ moves: more would tear it apart
SLID_M = 0.005  # by which a point may slide over the body and still be the same: short against how its motion varies

ROUNDING = 1e-6  # of a covariance's size: float32's
WHERE = "a boundary condition"


class _Body:
    """What `embed` asks for."""

    def __init__(self, vertices: Array, tetrahedra: Indices) -> None:
        self.vertices, self.tetrahedra = vertices, np.ascontiguousarray(tetrahedra[:, :4])


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Vertices on springs whose far ends follow a share of the drive: a part of the surface, lumped.

    `stiffness` [N/m], shape (k,), on `nodes`, shape (k,). `share` and the logarithm of the stiffness are assumptions,
    known to `share_sigma` and `log_sigma`.
    """

    name: str
    nodes: NDArray[np.intp]
    stiffness: Array
    share: float
    share_sigma: float
    log_sigma: float


@dataclass(frozen=True, slots=True)
class Surroundings:
    """How the surface is held: stiffness per area [the organ's modulus over its size], and shares of motion.

    None of it is measured in a patient. The spreads are assumptions too: shares to an eighth, stiffness to a factor of
    two. `turn_sigma` [rad/m], per axis, is how far the surroundings turn about the target per metre of its motion.
    Three markers in a liver (Bertholet 2016, IJROBP 95:802, 29 patients) moved over 10.5 mm and turned over 3.6 deg on
    average of the axes, noise included; that takes 0.40 mm rms off one marker's prediction by another (0.86 mm without,
    0.54 mm with it, of which a turn's fit takes half of the noise). Of 3.2 mm rms of motion and at 4 cm, which is an
    assumption, that is 2.2 rad/m: the least that these figures allow.
    """

    dome: float = 3.0
    rest: float = 1.0
    dome_share: float = 1.2
    rest_share: float = 0.8
    share_sigma: float = 0.12
    log_sigma: float = 0.7
    turn_sigma: float = 2.2

    def __post_init__(self) -> None:
        """Refuse what is not a number, or below 0, and shares beyond MOST_SHARE."""
        for field in fields(self):
            share, value = field.name.endswith("_share"), getattr(self, field.name)
            if not 0.0 <= value < np.inf or (share and value > MOST_SHARE):
                wanted = f"{field.name} of 0 to {MOST_SHARE:g}" if share else f"{field.name} of 0 or more"
                raise CaseError(wanted, f"{value}", "the surroundings")


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """Measured points of a body: `weights` csr (k, n), `rest` and `mean` [m], (k, 3), `covariance` [m2], (k, 3, 3)."""

    weights: sp.csr_matrix
    rest: Array
    mean: Array
    covariance: Array

    def of(self, which: NDArray[np.intp]) -> Points:
        """Return the points of these numbers."""
        rows = sp.csr_matrix(sp.csr_matrix(self.weights)[which])
        return Points(rows, self.rest[which], self.mean[which], self.covariance[which])


def surroundings(vertices: Array, tetrahedra: Indices, young_pa: float, held: Surroundings) -> list[Held]:
    """Lay springs on the surface: the dome where it faces up the body (+z in LPS), the rest at back and underside.

    A linear function's integral over a triangle is a third of the area times each corner's value; a quadratic one's
    times each midside's, and nothing of the corners' (Zienkiewicz & Taylor 2000, table 5.2).
    """
    faces = boundary(tetrahedra)
    carriers = faces if tetrahedra.shape[1] == 4 else boundary(tetrahedra, MIDDLES)
    areas = face_areas(vertices, faces)
    normal = areas / np.maximum(np.linalg.norm(areas, axis=1), 1e-12)[:, None]
    dome = normal[:, 2] > 0.5
    rest = ~dome & ((normal[:, 1] > 0.5) | (normal[:, 2] < -0.5))
    unit = young_pa / float(np.ptp(vertices, axis=0).max())
    kinds = [("dome", dome, held.dome, held.dome_share), ("rest", rest, held.rest, held.rest_share)]
    out: list[Held] = []
    for name, where, stiff, share in kinds:
        if stiff > 0 and where.any():
            thirds = np.repeat(np.linalg.norm(areas[where], axis=1) / 3.0, 3)
            summed: Array = np.bincount(carriers[where].ravel(), thirds, len(vertices)).astype(np.float64)
            lumped = unit * stiff * summed
            nodes = np.flatnonzero(lumped)
            known = (share, held.share_sigma, held.log_sigma)
            out.append(Held(name, nodes, lumped[nodes], *known))
    return out


def point_weights(vertices: Array, tetrahedra: Indices, points: Array) -> sp.csr_matrix:
    """Return weights, csr (k, n), that take vertices to points [m], shape (k, 3): the tetrahedron's own at each."""
    riding = embed(_Body(vertices, tetrahedra), points)
    if tetrahedra.shape[1] == 4:
        return sp.csr_matrix(riding.matrix)
    nodes = np.concatenate([riding.indices, midsides(tetrahedra, riding.indices[:, EDGES])], axis=1)
    rows = np.repeat(np.arange(len(points)), 10)
    values = shape_functions(riding.weights).ravel()
    weights = sp.csr_matrix((values, (rows, nodes.ravel())), shape=(len(points), len(vertices)))
    weights.eliminate_zeros()
    return weights


def patch_reach(vertices: Array, centre: Array, radius_m: float) -> float:
    """Return the radius [m] of a patch about `centre` [m], shape (3,): as asked, or wide enough for eight vertices."""
    distance = np.linalg.norm(vertices - centre, axis=1)
    return max(radius_m, 1.001 * float(np.sort(distance)[min(8, len(distance) - 1)]))


def patch_weights(vertices: Array, centre: Array, radius_m: float) -> Array:
    """Return weights, shape (n,), that fall smoothly to zero at the patch's reach [m] and average to the centre.

    The mean of the weighted vertices is `centre` itself, so that the patch's mean motion is that of the point to first
    order, whatever the mesh (a Lagrange correction of Shepard's weights).
    """
    reach = patch_reach(vertices, centre, radius_m)
    base = np.maximum(1 - (np.linalg.norm(vertices - centre, axis=1) / reach) ** 2, 0.0) ** 2
    basis = np.column_stack([np.ones(len(vertices)), (vertices - centre) / reach])
    moment = basis.T @ (base[:, None] * basis) + 1e-9 * np.eye(4)
    return base * (basis @ np.linalg.solve(moment, [1.0, 0.0, 0.0, 0.0]))


def points_of(
    vertices: Array, tetrahedra: Indices, rest: Array, mean: Array, covariance: Array, radius_m: float = 0.0
) -> Points:
    """Take measured points [m], shape (k, 3): where they are at rest and now; with a radius, patches around them [m].

    Raises CaseError where the arrays do not fit, are not finite, or lie far from the body.
    """
    points = placed(vertices, tetrahedra, rest, mean, covariance, radius_m)
    for bad, why in faults(points):
        if bad.any():
            fix = "Give what was measured in image, in metres."
            raise CaseError("points that can be used", f"{int(bad.sum())} of {len(bad)}: {why}", WHERE, fix)
    return points


def placed(
    vertices: Array, tetrahedra: Indices, rest: Array, mean: Array, covariance: Array, radius_m: float
) -> Points:
    """Return points as `points_of` does, whatever `mean` and `covariance` are; the rest is refused alike."""
    vertices, tetrahedra = np.asarray(vertices, dtype=np.float64), np.asarray(tetrahedra)
    rest, mean, covariance = (np.asarray(a, dtype=np.float64) for a in (rest, mean, covariance))
    check_shapes(rest, mean, covariance)
    if not np.isfinite(rest).all():
        raise CaseError("finite places at rest", "some that are not", WHERE)
    if not 0.0 <= radius_m <= float(np.ptp(vertices, axis=0).max()):
        raise CaseError("a radius of 0 to the body's size", f"{radius_m:g} m", WHERE, "Give it in metres.")
    wanted, fix = "points on the body at rest", "Give `rest` in image, in metres."
    apart = np.abs(rest - vertices.mean(axis=0)).max(initial=0.0)
    if not apart <= np.ptp(vertices, axis=0).max() + JUMP_M:  # so far off, weights are no numbers
        raise CaseError(wanted, f"one {apart:.3g} m away", WHERE, fix)
    if radius_m > 0 and len(rest):
        weights = sp.csr_matrix(np.stack([patch_weights(vertices, centre, radius_m) for centre in rest]))
    else:
        weights = point_weights(vertices, tetrahedra, rest)
    off = np.linalg.norm(weights @ vertices - rest, axis=1)
    if not off.max(initial=0.0) <= JUMP_M:
        got = f"point {int(off.argmax())} {off.max() * 1e3:.0f} mm outside"
        raise CaseError(wanted, got, WHERE, fix)
    return Points(weights, rest, mean, covariance)


def faults(points: Points) -> list[tuple[NDArray[np.bool_], str]]:
    """Return which points, (k,), cannot be used, each with the reason."""
    numbers = np.concatenate([points.mean, points.covariance.reshape(-1, 9)], axis=1)
    finite: NDArray[np.bool_] = np.asarray(np.isfinite(numbers).all(axis=1))
    wrong = finite & ~is_covariance(points.covariance)
    away = np.where(finite, np.linalg.norm(points.mean - points.rest, axis=1), 0.0)
    far = away > FARTHEST_M
    most = f"{1e3 * away.max(initial=0.0):.0f} mm away from where they rest"
    return [(~finite, "not finite"), (wrong, "a covariance with a negative variance or no symmetry"), (far, most)]


def is_covariance(c: Array) -> NDArray[np.bool_]:
    """Tell which finite matrices [m2], (..., 3, 3), may be covariances: symmetric, and of no negative variance."""
    c = np.where(np.isfinite(c), c, 0.0)
    size = np.abs(c).max(axis=(-2, -1))
    skew = np.abs(c - np.swapaxes(c, -2, -1)).max(axis=(-2, -1))
    least = np.linalg.eigvalsh(c).min(axis=-1)
    return (skew <= ROUNDING * size) & (least >= -ROUNDING * size)


def check_shapes(rest: Array, mean: Array, covariance: Array) -> None:
    """Raise CaseError where measured points' arrays do not fit each other."""
    count = len(rest) if rest.ndim else 0
    if rest.shape != (count, 3) or mean.shape != (count, 3) or covariance.shape != (count, 3, 3):
        got = f"{rest.shape}, {mean.shape}, {covariance.shape}"
        raise CaseError("points (k, 3), (k, 3) and covariances (k, 3, 3)", got, WHERE)


def pressed(vertices: Array, tetrahedra: Indices, tip: Array, radius_m: float, sigma_m: float) -> Points | None:
    """Take a probe whose tip [m], shape (3,), is pressed into the body at rest: a patch of the skin, moved to the tip.

    The patch is held along the normal to `sigma_m` [m] and slides along the skin: a wet probe does not hold. None
    where the tip does not touch.
    """
    vertices, tip = (np.asarray(a, dtype=np.float64) for a in (vertices, tip))
    tetrahedra = np.asarray(tetrahedra)
    if tip.shape != (3,) or not (np.isfinite(tip).all() and radius_m > 0 and 0 < sigma_m < np.inf):
        got = f"{tip.tolist()}, {radius_m:g} m and {sigma_m:g} m"
        raise CaseError("a finite tip (3,), a radius and a sigma above 0", got, "a pressed probe")
    faces = boundary(tetrahedra)
    areas, centres = face_areas(vertices, faces), vertices[faces].mean(axis=1)
    distance = np.linalg.norm(centres - tip, axis=1)
    near = np.exp(-0.5 * ((distance - distance.min()) / radius_m) ** 2)  # the skin under the probe's face
    normal = near @ areas
    normal /= np.linalg.norm(normal)
    share = near * np.maximum(areas @ normal, 0.0)
    depth = float(share @ ((centres - tip) @ normal) / share.sum())
    if depth <= 0:
        return None
    rest = tip + depth * normal
    return points_of(vertices, tetrahedra, rest[None], tip[None], slippery(normal, sigma_m)[None], radius_m)


def slippery(normal: Array, sigma_m: float) -> Array:
    """Return a covariance [m2], shape (3, 3), of `sigma_m` [m] along a unit normal, shape (3,), and free across."""
    along = np.outer(normal, normal)
    return sigma_m**2 * along + SLIDE_SIGMA_M**2 * (np.eye(3) - along)


def energy_scale(compliance: Array) -> float:
    """Return e [J] for a point of compliance [m/N], shape (3, 3): see the top of this file."""
    return FREE_SIGMA_M**2 / (float(np.trace(compliance)) / 3)


def stiffness(covariance: Array, energy_j: float) -> Array:
    """Return springs' stiffness [N/m], shape (k, 3, 3), of covariances [m2]."""
    values, vectors = np.linalg.eigh(covariance)
    strength = energy_j / np.maximum(values, LEAST_SIGMA_M**2)
    return np.einsum("kij,kj,klj->kil", vectors, strength, vectors)


def contradictions(points: Sequence[Points]) -> list[tuple[int, int]]:
    """Return the pairs of measured points, numbered through, that cannot both be true of a tissue; the surer first.

    Two points may move apart by their errors and by `STRAIN` of their distance.
    """
    if not points:
        return []
    rest = np.concatenate([p.rest for p in points])
    moved = np.concatenate([p.mean for p in points]) - rest
    covariance = np.concatenate([p.covariance for p in points])
    trace = np.einsum("kii->k", covariance)
    i, j = np.triu_indices(len(rest), 1)
    allowed = (STRAIN * np.linalg.norm(rest[i] - rest[j], axis=1))[:, None, None] ** 2 * np.eye(3)
    total = covariance[i] + covariance[j] + allowed + LEAST_SIGMA_M**2 * np.eye(3)
    apart = moved[i] - moved[j]
    score = np.einsum("kx,kx->k", apart, np.linalg.solve(total, apart[..., None])[..., 0])
    pairs = zip(i[score > CONTRADICTION].tolist(), j[score > CONTRADICTION].tolist(), strict=True)
    return [(a, b) if trace[a] <= trace[b] else (b, a) for a, b in pairs]
