"""A linear elastic body between soft springs, moved by its target: factored once, stepped by small products.

    minimise  1/2 u'Ku + 1/2 sum k_i |u_i - g_i d|^2 + 1/2 (Pu - d)' (Sigma/kappa)^-1 (Pu - d)

The body lies between springs on its surface whose far ends follow a share `g_i` of the target's displacement `d`: the
dome under the diaphragm more, back and underside less. The target's patch `P` is drawn to `d` by a spring as
compliant as `d` is uncertain. With `A = K + diag(k)` factored, `Z = A^-1 diag(k) g` and `Y = A^-1 P'` are found once:

    f = (PY + Sigma/kappa)^-1 (d - PZ d),      u = Z d + Y f                                      (Schur complement)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import splu

from twinguide.compute import Backend, array_module, as_numpy

from . import elastic

Array = NDArray[np.float64]

SOFTNESS = 0.02  # of the patch's own compliance that a displacement known to SOFT_SIGMA adds
SOFT_SIGMA = 1e-3  # [m]


@dataclass(frozen=True, slots=True, eq=False)
class Springs:
    """Springs on vertices: stiffness [N/m], shape (n,), and the share of the target's motion, shape (n,)."""

    stiffness: Array
    share: Array


@dataclass(frozen=True, slots=True)
class Surroundings:
    """How the surface is held: stiffness per area [the organ's modulus over its size], and shares of motion."""

    dome: float = 3.0
    rest: float = 1.0
    dome_share: float = 1.2
    rest_share: float = 0.8


@dataclass(frozen=True, slots=True, eq=False)
class Solved:
    """One step's result."""

    vertices: NDArray[np.float32]  # (n, 3) [m]
    at_patch: Array  # (3,) [m], the mean displacement of the target's patch
    residual: float  # [N/N]
    smallest_j: float


def surface_springs(vertices: Array, tetrahedra: NDArray[np.int32], young_pa: float, held: Surroundings) -> Springs:
    """Lay springs on the surface: the dome where it faces up the body (+z in LPS), the rest at back and underside."""
    areas = elastic.vertex_areas(vertices, elastic.boundary(tetrahedra))
    size = np.linalg.norm(areas, axis=1)
    normal = areas / np.maximum(size, 1e-12)[:, None]
    dome = normal[:, 2] > 0.5
    rest = ~dome & ((normal[:, 1] > 0.5) | (normal[:, 2] < -0.5))
    unit = young_pa / float(np.ptp(vertices, axis=0).max()) * size
    return Springs(
        unit * (held.dome * dome + held.rest * rest), np.where(dome, held.dome_share, held.rest_share)
    )  # fmt: skip


def patch_weights(vertices: Array, centre: Array, radius_m: float) -> Array:
    """Return weights, shape (n,), that fall smoothly to zero at `radius_m` [m] from `centre` and average to the centre.

    The mean of the weighted vertices is `centre` itself, so that the patch's mean motion is that of the point to first
    order, whatever the mesh (a Lagrange correction of Shepard's weights; the nearest eight vertices are always in).
    """
    distance = np.linalg.norm(vertices - centre, axis=1)
    reach = max(radius_m, 1.001 * float(np.sort(distance)[min(8, len(distance) - 1)]))
    base = np.maximum(1 - (distance / reach) ** 2, 0.0) ** 2
    basis = np.column_stack([np.ones(len(vertices)), (vertices - centre) / reach])
    moment = basis.T @ (base[:, None] * basis) + 1e-9 * np.eye(4)
    return base * (basis @ np.linalg.solve(moment, [1.0, 0.0, 0.0, 0.0]))


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """How a body answers a drive: the target's displacement `d` [m] and the force `f` [N] on its patch."""

    columns: Array  # (3 n, 6): Z and Y
    at_patch: Array  # (3, 6): PZ and PY
    strain: Array  # (3, 3, m, 6): each tetrahedron's displacement gradient
    imbalance: Array  # (6, 6): Gram matrix of A columns - loads [N], what the factor leaves
    applied: Array  # (6, 6): Gram matrix of the loads [N]

    @property
    def compliance(self) -> Array:
        """The patch's compliance PY [m/N], shape (3, 3)."""
        return self.at_patch[:, 3:]

    def drive(self, displacement: Array, covariance: Array) -> Array:
        """Return the drive, shape (6,), for a displacement [m], shape (3,), of covariance [m2], shape (3, 3)."""
        kappa = SOFT_SIGMA**2 / (SOFTNESS * np.trace(self.compliance) / 3)
        missing = displacement - self.at_patch[:, :3] @ displacement
        return np.concatenate([displacement, np.linalg.solve(self.compliance + covariance / kappa, missing)])

    def residual(self, drive: Array) -> float:
        """Return the imbalance of forces over the applied ones [N/N] under a drive, shape (6,)."""
        applied = float(drive @ self.applied @ drive)
        return float(np.sqrt(max(drive @ self.imbalance @ drive, 0.0) / applied)) if applied > 0 else 0.0


def respond(
    vertices: Array,
    tetrahedra: NDArray[np.int32],
    young_pa: Array,
    poisson: float,
    springs: Springs,
    patch: Array,
) -> Response:
    """Factor a body once and solve for its six columns; moduli [Pa], shape (m,), patch weights, shape (n,)."""
    system = elastic.stiffness(vertices, tetrahedra, young_pa, poisson)
    system = (system + sp.diags_array(np.repeat(springs.stiffness, 3))).tocsc()
    mean = np.kron(patch[:, None], np.eye(3))  # P', (3 n, 3)
    loads = np.concatenate([np.kron((springs.stiffness * springs.share)[:, None], np.eye(3)), mean], axis=1)
    columns = splu(system).solve(loads)
    gradients = elastic.shape_gradients(vertices, tetrahedra)[0]
    strain = np.einsum("miak,mib->abmk", columns.reshape(-1, 3, 6)[tetrahedra], gradients)
    left = np.asarray(system @ columns - loads)
    return Response(columns, mean.T @ columns, strain, left.T @ left, loads.T @ loads)


class SoftBody:
    """A body that is factored at load and can then be moved many times a second.

    Vertices [m], shape (n, 3), tetrahedra, shape (m, 4), Young's modulus [Pa], shape (m,) or one number, target [m],
    shape (3,); `backend` auto, cpu or cuda. Raises CaseError for a mesh that cannot be solved on.
    """

    def __init__(
        self,
        vertices: Array,
        tetrahedra: NDArray[np.int32],
        young_pa: Array | float,
        poisson: float,
        target: Array,
        springs: Springs,
        *,
        patch_radius_m: float = 0.012,
        backend: Backend = "auto",
    ) -> None:
        elastic.check_mesh(vertices, tetrahedra)
        xp = self._xp = array_module(backend)
        young = np.broadcast_to(np.asarray(young_pa, dtype=np.float64), (len(tetrahedra),))
        patch = patch_weights(vertices, target, patch_radius_m)
        self.response = respond(vertices, tetrahedra, young, poisson, springs, patch)
        self.backend = "cpu" if xp is np else "cuda"
        self._rest = vertices
        self._device_rest = xp.asarray(vertices)
        self._device_columns = xp.asarray(self.response.columns)
        self._device_strain = xp.asarray(self.response.strain)
        self._device_identity = xp.eye(3)[:, :, None]

    def solve(self, displacement: Array, covariance: Array) -> Solved:
        """Move the target by a displacement [m], shape (3,), of covariance [m2], shape (3, 3)."""
        xp, drive = self._xp, self.response.drive(displacement, covariance)
        driven = xp.asarray(drive)
        moved = self._device_rest + (self._device_columns @ driven).reshape(-1, 3)
        ratios = elastic.determinants(self._device_identity + self._device_strain @ driven)
        vertices = as_numpy(moved.astype(xp.float32))
        return Solved(vertices, self.response.at_patch @ drive, self.response.residual(drive), float(ratios.min()))

    def translate(self, displacement: Array) -> Solved:
        """Move the whole body by a displacement [m], shape (3,), undeformed."""
        return Solved((self._rest + displacement).astype(np.float32), displacement, 0.0, 1.0)
