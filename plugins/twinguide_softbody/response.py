"""How a body answers small drives, and how that answer hangs on what is not known: stiffness, surroundings, the mesh.

About rest, with A the stiffness of body and springs and T the drive of the springs' far ends,

    A u = W' k T z,         du/dp = A^-1 (W' dk/dp (T z - W u) + W' k dT/dp z - dK/dp u),

found once for unit drives z and kept as columns, so that a frame costs a product. A drive is the target's displacement
and that of every other measured point. Small-strain stiffness by
quadrature on 4- or 10-node tetrahedra (Zienkiewicz & Taylor 2000, ch. 6); the mesh's own error from the same body on
quadratic tetrahedra, solved by conjugate gradients on two levels: the corners by the linear factor, edges smoothed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, SuperLU, cg, splu

from .body import EDGES, Body, points
from .constraints import Held, patch_weights
from .materials import Mixture
from .mesh import face_areas, quadratic

Array = NDArray[np.float64]
Solve = Callable[[Array], Array]
MESH_RTOL = 0.01  # of an error's estimate: more is not known of it


@dataclass(frozen=True, slots=True, eq=False)
class Response:
    """Columns for unit drives: `columns` (3 n, q) [m/m]; `unknown` (p, 3 n, q), each for one sigma of one unknown."""

    columns: Array
    unknown: Array
    names: Sequence[str]
    noise: Array  # (n, 3, 3) [m2]: what the errors of the measured points do to each vertex


@dataclass(frozen=True, slots=True, eq=False)
class Drive:
    """What holds and drives: a patch about `centre` [m], (3,), its spring [N/m], (3, 3), and the surface's springs.

    `measured` are other points, csr (k, n), their stiffness [N/m] and covariance [m2], shape (k, 3, 3) each.
    """

    centre: Array
    radius_m: float
    spring: Array
    held: Sequence[Held]
    measured: tuple[sp.csr_matrix, Array, Array] | None = None


def stiffness(body: Body, young_pa: Array) -> sp.csc_matrix:
    """Return the small-strain stiffness [N/m], csc (3 n, 3 n), of a body with moduli [Pa], shape (m,)."""
    rule = points(body.elements.shape[1])
    shear = young_pa / (2 * (1 + body.poisson))
    lame = 2 * shear * body.poisson / (1 - 2 * body.poisson)
    size = 3 * body.elements.shape[1]
    blocks = np.zeros((len(body.elements), body.elements.shape[1], 3, body.elements.shape[1], 3))
    for share, by_corner in zip(rule.share, rule.by_corner, strict=True):
        g = np.einsum("ac,mcx->max", by_corner, body.gradients)
        v = share * body.volumes
        dots = np.einsum("m,mix,mjx->mij", shear * v, g, g)
        blocks += np.einsum("m,mia,mjb->miajb", lame * v, g, g)
        blocks += np.einsum("m,mib,mja->miajb", shear * v, g, g) + np.einsum("mij,ab->miajb", dots, np.eye(3))
    dofs = (3 * body.elements[:, :, None] + np.arange(3)).reshape(-1, size)
    rows, columns = np.repeat(dofs, size, axis=1).ravel(), np.tile(dofs, size).ravel()
    shape = (3 * len(body.vertices),) * 2
    return sp.csc_matrix((blocks.ravel(), (rows, columns)), shape=shape)


def respond(body: Body, mixture: Mixture, drive: Drive) -> Response:
    """Answer unit drives of a body of 4-node tetrahedra and the sensitivities to what is not known."""
    count = len(body.vertices)
    solve, loads = _system(body, mixture, drive)
    columns = solve(loads)
    right, names = [], []
    for tissue, name, share in zip(mixture.tissues, mixture.names, mixture.shares, strict=True):
        if share.any() and tissue.young_sigma_pa > 0:
            right.append(-tissue.log_sigma * (stiffness(body, tissue.young_pa * share) @ columns))
            names.append(f"stiffness of {name}")
    ends = np.pad(np.tile(np.eye(3), (count, 1)), ((0, 0), (0, loads.shape[1] - 3)))  # they follow the target alone
    for held in drive.held:
        spring = np.repeat(_diagonal([held], count), 3)[:, None]
        right += [held.log_sigma * spring * (held.share * ends - columns), held.share_sigma * spring * ends]
        names += [f"springs of {held.name}", f"share of {held.name}"]
    found = solve(np.concatenate(right, axis=1)).reshape(3 * count, len(right), -1)
    unknown = np.ascontiguousarray(found.transpose(1, 0, 2))
    noise = np.zeros((count, 3, 3))
    if drive.measured is not None:
        own = columns[:, 3:].reshape(count, 3, -1, 3)
        bounded = np.where(np.isfinite(drive.measured[2]), drive.measured[2], 0.0)  # a free direction answers nothing
        noise = np.einsum("nxka,kab,nykb->nxy", own, bounded, own, optimize=True)
    return Response(columns, unknown, names, noise)


def mesh_error(body: Body, mixture: Mixture, drive: Drive) -> Array:
    """Return what quadratic tetrahedra answer to the target's unit drives beyond linear ones, shape (3 n, 3).

    Measured points are left out: under a point's own spring the difference is local, and has no limit.
    """
    alone = replace(drive, measured=None)
    solve, loads = _system(body, mixture, alone)
    return _on_quadratic(body, mixture, alone, solve, solve(loads))


def _system(body: Body, mixture: Mixture, drive: Drive) -> tuple[Solve, Array]:
    """Return a solver of body and springs, and the loads [N/m], shape (3 n, q), of unit drives."""
    count = len(body.vertices)
    plain = stiffness(body, mixture.young_pa) + sp.diags_array(np.repeat(_diagonal(drive.held, count), 3))
    mean = _per_axis(patch_weights(body.vertices, drive.centre, drive.radius_m))
    loads = _surface_loads(drive.held, count) + mean @ drive.spring
    if drive.measured is not None:
        rows = sp.kron(drive.measured[0], sp.eye_array(3)).tocsc()
        pull = rows.T @ sp.block_diag(list(drive.measured[1]), format="csc")
        plain, loads = plain + pull @ rows, np.concatenate([loads, pull.toarray()], axis=1)
    return _with_patch(splu(plain.tocsc()), mean, drive.spring), loads


def patch_compliance(body: Body, mixture: Mixture, held: Sequence[Held], patch: Array) -> Array:
    """Return the compliance [m/N], shape (3, 3), of a patch, weights (n,), of a body that nothing but `held` holds."""
    diagonal = np.repeat(_diagonal(held, len(body.vertices)), 3)
    system = (stiffness(body, mixture.young_pa) + sp.diags_array(diagonal)).tocsc()
    mean = np.kron(patch[:, None], np.eye(3))
    return np.asarray(mean.T @ splu(system).solve(mean), dtype=np.float64)


def _with_patch(factor: SuperLU, mean: Array, spring: Array) -> Solve:
    """Return a solver of (A0 + P' k P) x = b from the factor of A0: the patch is wide, its rank three (Woodbury)."""
    reached = factor.solve(mean)
    small = np.linalg.inv(np.eye(3) + spring @ (mean.T @ reached)) @ spring

    def solve(right: Array) -> Array:
        first = factor.solve(np.ascontiguousarray(right))
        return first - reached @ (small @ (mean.T @ first))

    return solve


def _per_axis(values: Array) -> Array:
    """Return values, shape (n,), for each of three axes, shape (3 n, 3)."""
    return np.kron(values[:, None], np.eye(3)).astype(np.float64)


def _diagonal(held: Sequence[Held], count: int) -> Array:
    out = np.zeros(count)
    for one in held:
        out[one.nodes] += one.stiffness
    return out


def _surface_loads(held: Sequence[Held], count: int) -> Array:
    pull = np.zeros(count)
    for one in held:
        pull[one.nodes] += one.stiffness * one.share
    return _per_axis(pull)


def _on_quadratic(body: Body, mixture: Mixture, drive: Drive, solve: Solve, columns: Array) -> Array:
    """Return what the same body answers on quadratic tetrahedra, at the corners, beyond `columns`."""
    vertices, elements = quadratic(body.vertices, body.elements)
    fine = Body(vertices, elements, body.young_pa, body.poisson)
    count = len(body.vertices)
    take = sp.csr_matrix(_halfway(fine, count))
    held = _on_midsides(body, take, drive.held)
    system = (stiffness(fine, mixture.young_pa) + sp.diags_array(np.repeat(_diagonal(held, len(vertices)), 3))).tocsr()
    mean = _per_axis(patch_weights(vertices, drive.centre, drive.radius_m))
    loads = _surface_loads(held, len(vertices)) + mean @ drive.spring
    take = sp.kron(take, sp.eye_array(3)).tocsr()
    smooth = 1.0 / (system.diagonal() + np.einsum("ni,ij,nj->n", mean, drive.spring, mean))

    def apply(x: Array) -> Array:
        return system @ x + mean @ (drive.spring @ (mean.T @ x))

    def precondition(r: Array) -> Array:
        return take @ solve(take.T @ r) + smooth * r

    shape = (3 * len(vertices),) * 2
    a: Any = LinearOperator(shape, apply, dtype=np.float64)  # pyright: ignore[reportCallIssue] scipy's stub
    m: Any = LinearOperator(shape, precondition, dtype=np.float64)  # pyright: ignore[reportCallIssue]
    start = take @ columns
    # Relative to the linear answer's own residual: it is the difference that is asked for.
    scale = [float(np.linalg.norm(loads[:, k] - apply(start[:, k]))) for k in range(loads.shape[1])]
    found = [
        cg(a, loads[:, k], x0=start[:, k], rtol=0.0, atol=MESH_RTOL * scale[k], maxiter=300, M=m)[0]
        for k in range(loads.shape[1])
    ]
    return np.stack(found, axis=1)[: 3 * count] - columns


def _on_midsides(body: Body, take: sp.csr_matrix, held: Sequence[Held]) -> list[Held]:
    """Lay the surface's springs on a quadratic mesh: as much per area, on the midsides.

    A quadratic function's integral over a triangle is a third of the area times each midside's value, and nothing of
    the corners' (Zienkiewicz & Taylor 2000, table 5.2).
    """
    count, total = len(body.vertices), len(np.asarray(take.indptr)) - 1
    corners = np.asarray(take.indices)[np.asarray(take.indptr)[count] :].reshape(-1, 2)
    known = np.sort(corners, axis=1).astype(np.int64) @ [count, 1]
    order = np.argsort(known)
    out: list[Held] = []
    for one in held:
        ends = np.sort(one.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1).astype(np.int64) @ [count, 1]
        nodes = count + order[np.searchsorted(known, ends, sorter=order)]
        thirds = np.repeat(np.linalg.norm(face_areas(body.vertices, one.faces), axis=1) / 3.0, 3)
        spring = one.per_area * np.bincount(nodes, thirds, total)
        where = np.flatnonzero(spring)
        out.append(replace(one, nodes=where, stiffness=spring[where]))
    return out


def _halfway(fine: Body, count: int) -> sp.csr_matrix:
    """Return the interpolation, csr (n2, n), of corners to all nodes of a quadratic mesh."""
    ends, middle = fine.elements[:, EDGES].reshape(-1, 2), fine.elements[:, 4:].ravel()
    middle, first = np.unique(middle, return_index=True)
    rows = np.concatenate([np.arange(count), np.repeat(middle, 2)])
    columns = np.concatenate([np.arange(count), ends[first].ravel()])
    values = np.concatenate([np.ones(count), np.full(2 * len(middle), 0.5)])
    return sp.csr_matrix((values, (rows, columns)), shape=(len(fine.vertices), count))
