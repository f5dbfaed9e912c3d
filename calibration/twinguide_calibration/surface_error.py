"""How well a patch holds a pose: covariance, correlated residuals, and the directions left free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial.distance import pdist, squareform  # pyright: ignore[reportMissingTypeStubs]

from twinguide_calibration.linear import eigen
from twinguide_calibration.rigid import Array, adjoint, as_floats, skew
from twinguide_calibration.weights import SIGNIFICANT, Biweight, estimate_freedom, estimate_variance, tukey

SLIPPERY = 0.03  # root of the smallest over the largest eigenvalue: less, and the surface itself lets it slide
FREE_M = 1.5e-3  # 1 sigma at the organ's extent; more, and noise alone leaves the direction open
MOST_SEEMING = 0.9  # of what a direction seems to be held by: the direction is as good as free
SAMPLED = 200  # points among which correlation is looked for
BINS = 12


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceError:
    """What is known of a surface's own error: sigma [m] along the normal, alike over `length_m` [m]."""

    sigma_m: float
    length_m: float = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class FreeDirection:
    """A motion that the patch does not hold: turning about, or sliding along, an axis, unit, shape (3,), in source.

    `through` [m], shape (3,), is a point of a turning axis; `sigma` [rad or m] how far it is known.
    """

    kind: Literal["turn", "slide"]
    axis: Array
    through: Array
    sigma: float

    def __str__(self) -> str:
        axis = ", ".join(f"{v:.2f}" for v in self.axis)
        if self.kind == "slide":
            return f"slides along ({axis}) by {self.sigma * 1e3:.1f} mm (1 sigma)"
        place = ", ".join(f"{v * 1e3:.0f}" for v in self.through)
        return f"turns about ({axis}) through ({place}) mm by {np.degrees(self.sigma):.1f} deg (1 sigma)"


@dataclass(frozen=True, slots=True, eq=False)
class Verdict:
    """Covariance (6, 6) in source, its freedom, by how much correlation widened it, and the free directions."""

    covariance: Array
    freedom: float
    inflation: float
    free: tuple[FreeDirection, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """The points that fit: places [m] about their centre, shape (n, 3), with all that their error hangs on, in source.

    The Jacobian (n, 6) is of the residuals [m], shape (n,), about the centre; `bends` (n, 3, 3) [1/m] are the surface's
    shape operators there; `sigma` [m] is the noise per axis and `extent` [m] the lever at which a turn is judged.
    """

    places: Array
    jacobian: Array
    residuals: Array
    bends: Array
    sigma: float
    kind: Biweight
    extent: float


def assess(patch: Patch, centre: Array, model_error: SurfaceError | None) -> Verdict:
    """Return how well a patch about `centre` [m] holds the pose.

    The covariance is `H^-1 (v G + sum_ij c(d_ij) J_i J_j') H^-1` with the correlation c of residuals by distance, where
    there is any. G is the information seen, `sum w J'J` with the weights over their mean, as a point that hardly fits
    hardly holds: noise along the surface turns each normal, so that the points seem to hold more than they do, and H is
    what is left of it without that (errors in variables, Fuller 1987).
    """
    size = float(np.sqrt((patch.places**2).sum(axis=1).mean()))
    scale = np.array([1.0 / size] * 3 + [1.0] * 3)
    scaled = patch.jacobian * scale
    squares = patch.residuals**2
    weights = tukey(squares, patch.kind, patch.sigma)
    weights /= weights.mean()
    values, vectors = eigen((scaled.T * weights) @ scaled)
    root, left = _held(patch, weights, scale, values, vectors)
    bread: Array = root / left @ root.T
    variance = estimate_variance(squares, patch.kind, patch.sigma, 6)
    plain = variance * (root / left**2 @ root.T)
    extra = _correlated(patch, scaled, model_error)
    total = plain + bread @ extra @ bread
    inflation = float(np.trace(total) / max(np.trace(plain), 1e-300))
    covariance = total * np.outer(scale, scale)
    freedom = max(min(estimate_freedom(squares, patch.kind, patch.sigma, 6), len(squares) / inflation - 6.0), 3.0)
    free = _free(covariance, values, vectors, centre, scale, patch.extent)
    back = np.eye(4)
    back[:3, 3] = centre
    carried = adjoint(back)
    return Verdict(carried @ covariance @ carried.T, freedom, inflation, free)


def _held(patch: Patch, weights: Array, scale: Array, values: Array, vectors: Array) -> tuple[Array, Array]:
    """Return axes Q (columns), shape (6, 6), with `Q' G Q = I`, and what truly holds them, shape (6,): H told in Q.

    Noise of variance s2 adds `s2 sum w B'B` to the information that is seen. `B (a, t) = K (t + a x p) + n x a` is how
    the surface's normal turns against the point under a motion, K being the shape operator.
    """
    places, normals = patch.places, patch.jacobian[:, 3:]
    turned = np.concatenate([skew(normals) - patch.bends @ skew(places), patch.bends], axis=2) * scale
    turned = (turned * np.sqrt(weights)[:, None, None]).reshape(-1, 6)
    root = vectors / np.sqrt(np.maximum(values, max(1e-9 * values[-1], 1e-300)))
    share, axes = eigen(patch.sigma**2 * root.T @ (turned.T @ turned) @ root)
    return root @ axes, 1.0 - np.minimum(share, MOST_SEEMING)


def _free(
    covariance: Array, values: Array, vectors: Array, centre: Array, scale: Array, extent: float
) -> tuple[FreeDirection, ...]:
    """Return the directions that the surface's shape lets slide, or that noise leaves open at its extent."""
    found = [
        _direction(vectors[:, k] * scale, covariance, centre) for k in range(6) if values[k] < SLIPPERY**2 * values[-1]
    ]
    lever = np.array([extent] * 3 + [1.0] * 3)
    at_extent, axes = eigen(covariance * np.outer(lever, lever))
    if not found:
        found = [_direction(axes[:, k] / lever, covariance, centre) for k in range(6) if at_extent[k] > FREE_M**2]
    return tuple(found)


def _direction(motion: Array, covariance: Array, centre: Array) -> FreeDirection:
    """Return the motion (turn [rad], shift [m] at the centre) as a turn about an axis or a slide along one."""
    turn, shift = motion[:3], motion[3:]
    angle, length = float(np.sqrt(turn @ turn)), float(np.sqrt(shift @ shift))
    reach = 1.0 if angle < 1e-12 else length / angle
    if reach < 1.0:  # m: an axis nearer than that is felt as a turn
        axis = turn / angle
        through = centre + np.cross(turn, shift) / angle**2
        return FreeDirection("turn", axis, through, float(np.sqrt(axis @ covariance[:3, :3] @ axis)))
    axis = shift / length
    return FreeDirection("slide", axis, centre, float(np.sqrt(axis @ covariance[3:, 3:] @ axis)))


def _correlated(patch: Patch, scaled: Array, model_error: SurfaceError | None) -> Array:
    """Return the sum over pairs of `c(d_ij) J_i J_j'`, shape (6, 6), from residuals alike at neighbouring points."""
    count = len(patch.residuals)
    if count < 30:
        return np.zeros((6, 6))
    chosen = np.random.default_rng(count).permutation(count)[:SAMPLED]
    place, value, jac = patch.places[chosen], patch.residuals[chosen], scaled[chosen]
    apart = as_floats(pdist(place))
    product = squareform(np.outer(value, value), checks=False)
    share, length = _correlogram(apart, product / patch.sigma**2)
    kernel = share * patch.sigma**2 * np.exp(-apart / max(length, 1e-9))
    if model_error is not None:
        kernel += model_error.sigma_m**2 * np.exp(-apart / model_error.length_m)
    elif share == 0.0:
        return np.zeros((6, 6))
    grown = (count / len(chosen)) ** 2
    total: Array = jac.T @ squareform(kernel) @ jac * grown
    values, vectors = eigen(total)
    return (vectors * np.maximum(values, 0.0)) @ vectors.T


def _correlogram(apart: Array, product: Array) -> tuple[float, float]:
    """Return share and length [m] of an exponential correlation by distance; zero where none is significant.

    `apart` [m] and the whitened residuals' `product`, shape (p,), are of pairs.
    """
    reach = float(apart.max()) / 2.0
    if reach == 0.0:
        return 0.0, 0.0
    index = np.minimum((apart * (BINS / reach)).astype(np.int64), BINS)
    count = np.bincount(index, minlength=BINS + 1)[:BINS]
    rho = np.bincount(index, product, minlength=BINS + 1)[:BINS] / np.maximum(count, 1)
    believed = rho > SIGNIFICANT / np.sqrt(np.maximum(count, 1))
    leading = int(np.argmin(believed)) if not believed.all() else BINS
    if leading == 0:
        return 0.0, 0.0
    middle = (np.arange(BINS) + 0.5) * reach / BINS
    length = float((rho[:leading] * middle[:leading]).sum() / rho[:leading].sum()) + float(middle[0])
    return float(np.clip(rho[0] * np.exp(middle[0] / length), 0.0, 1.0)), length
