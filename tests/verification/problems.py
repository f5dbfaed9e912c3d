"""The bodies of the verification: each function builds one, solves it and returns the number that `cases.py` judges.

SI units. Forces are springs a thousand times softer than the body, drawn from afar; held faces are springs of STIFF.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from block_reference import BEDDED_GRAVITY, bed_stiffness

from twinguide_softbody.body import Body, Springs
from twinguide_softbody.mesh import block, boundary, quadratic
from twinguide_softbody.quasistatic import Solved, Solver

YOUNG, POISSON = 5000.0, 0.45
SHEAR = YOUNG / (2 * (1 + POISSON))
BEDDED = json.loads(Path(__file__).with_name("block_reference.json").read_text())["bedded"]["sag_m"]
STIFF = 1e6  # [N/m]: a body of centimetres has some 50, so a held point gives by 1e-4 of what it would


@dataclass(frozen=True)
class Hold:
    """Springs at single nodes or weighted means of nodes: rows of weights, targets [m] and stiffness [N/m]."""

    rows: list[dict[int, float]]
    targets: list[np.ndarray]
    stiffness: list[np.ndarray]

    def __add__(self, other: Hold) -> Hold:
        return Hold(self.rows + other.rows, self.targets + other.targets, self.stiffness + other.stiffness)


def hold(nodes: np.ndarray, targets: np.ndarray, axes: str = "xyz", stiffness: float = STIFF) -> Hold:
    """Hold `nodes` at `targets` [m], shape (k, 3), along some axes."""
    matrix = np.diag([stiffness * (axis in axes) for axis in "xyz"])
    return Hold([{int(n): 1.0} for n in nodes], list(targets), [matrix] * len(nodes))


def pull(weights: dict[int, float], at: np.ndarray, force: np.ndarray, reach: float = 10.0) -> Hold:
    """Pull a weighted mean of nodes, expected to come to `at` [m], by `force` [N]: a spring `reach` metres long."""
    return Hold(
        [weights],
        [at + reach * force / np.linalg.norm(force)],
        [np.outer(force, force) / np.linalg.norm(force) / reach],
    )


def solve(body: Body, held: Hold, **options: str) -> tuple[Solver, Solved]:
    """Return the solver and its cold, converged solution."""
    entries = [(row, node, w) for row, weights in enumerate(held.rows) for node, w in weights.items()]
    rows, nodes, weights = zip(*entries, strict=True)
    matrix = sp.csr_matrix((weights, (rows, nodes)), shape=(len(held.rows), len(body.vertices)))
    solver = Solver(body, Springs(matrix, np.array(held.stiffness)), backend="cpu", **options)
    solved = solver.solve(np.array(held.targets))
    assert solved.converged, f"not converged: residual {solved.residual:.1e}"
    return solver, solved


def reaction(held: Hold, solved: Solved) -> np.ndarray:
    """Return the force [N], shape (3,), with which the springs of `held` pull on the body."""
    total = np.zeros(3)
    for weights, target, stiffness in zip(held.rows, held.targets, held.stiffness, strict=True):
        total += stiffness @ (target - sum(w * solved.positions[n] for n, w in weights.items()))
    return total


def mesh(
    cells: int | tuple[int, int, int], size: float | tuple[float, float, float], order: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return a block's vertices [m] and tetrahedra of order 1 or 2."""
    vertices, tetrahedra = block(cells, size)
    return quadratic(vertices, tetrahedra) if order == 2 else (vertices, tetrahedra)


def on(vertices: np.ndarray, axis: int, value: float) -> np.ndarray:
    """Return the nodes whose coordinate is `value` [m]."""
    return np.flatnonzero(np.abs(vertices[:, axis] - value) < 1e-9)


def face_weights(vertices: np.ndarray, elements: np.ndarray, axis: int, value: float) -> dict[int, float]:
    """Return the share of each node in an even traction on a flat face: of corners, or of midsides alone."""
    faces = boundary(elements[:, :4])
    faces = faces[(np.abs(vertices[faces][:, :, axis] - value) < 1e-9).all(axis=1)]
    corners = vertices[faces]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    if elements.shape[1] == 10:
        middles = {tuple(np.round(p, 9)): n for n, p in enumerate(vertices)}
        ends = (corners + corners[:, [1, 2, 0]]) / 2
        faces = np.array([[middles[tuple(np.round(p, 9))] for p in face] for face in ends])
    out: dict[int, float] = {}
    for face, area in zip(faces, areas / areas.sum(), strict=True):
        for node in face:
            out[int(node)] = out.get(int(node), 0.0) + area / 3
    return out


def patch(order: int) -> float:
    """Return the largest error [m] of an affine map imposed on the surface alone."""
    vertices, elements = mesh(3, 0.1, order)
    inside = (vertices > 1e-9).all(axis=1) & (vertices < 0.1 - 1e-9).all(axis=1)
    moved = vertices.copy()
    corners = inside[: elements[:, :4].max() + 1].nonzero()[0]
    if order == 1:  # unstructured inside; midside nodes would have to follow
        moved[corners] += np.random.default_rng(1).uniform(-0.008, 0.008, (len(corners), 3))
    deformation = np.array([[1.1, 0.2, 0.0], [-0.05, 0.9, 0.1], [0.0, 0.15, 1.05]])
    body = Body(moved, elements, YOUNG, POISSON)
    _, solved = solve(body, hold(np.flatnonzero(~inside), moved[~inside] @ deformation.T, stiffness=1e8))
    return float(np.abs(solved.positions - moved @ deformation.T).max())


def uniaxial(stretch: float, young: float = YOUNG, poisson: float = POISSON, **options: str) -> float:
    """Return the nominal stress [Pa] at a stretch, sides free."""
    vertices, elements = mesh(2, 0.1, 1)
    far, stiff = on(vertices, 0, 0.1), STIFF * young / YOUNG
    driven = hold(far, vertices[far] * np.array([stretch, 1, 1]), "x", stiff)
    held = driven
    for axis, name in enumerate("xyz"):
        nodes = on(vertices, axis, 0.0)
        held = held + hold(nodes, vertices[nodes], name, stiff)
    _, solved = solve(Body(vertices, elements, young, poisson), held, **options)
    return float(reaction(driven, solved)[0]) / 0.01


def shear(amount: float) -> float:
    """Return the shear stress P12 [Pa] of simple shear x += amount y, all of the surface driven."""
    vertices, elements = mesh(3, 0.1, 1)
    surface = np.unique(boundary(elements))
    moved = vertices + amount * vertices[:, 1:2] * np.array([1.0, 0, 0])
    _, solved = solve(Body(vertices, elements, YOUNG, POISSON), hold(surface, moved[surface]))
    u = solved.positions - vertices
    f = u[elements]  # P12 by volume's mean, from the constant gradient of each tetrahedron
    edges = np.linalg.inv(vertices[elements[:, 1:]] - vertices[elements[:, :1]])
    gradient = np.einsum("mkj,mki->mij", f[:, 1:] - f[:, :1], edges.transpose(0, 2, 1)) + np.eye(3)
    lam = YOUNG * POISSON / ((1 + POISSON) * (1 - 2 * POISSON)) + SHEAR
    j = np.linalg.det(gradient)
    stress = SHEAR * gradient + (lam * (j - 1) - SHEAR)[:, None, None] * j[:, None, None] * np.linalg.inv(
        gradient
    ).transpose(0, 2, 1)
    return float(stress[:, 0, 1].mean())


LENGTH, THICK = 0.2, 0.005  # the elastica's beam [m]: 40 times longer than thick
INERTIA = YOUNG * THICK**4 / 12  # E I [N m2]


def beam(
    size: tuple[float, float, float], cells: tuple[int, int, int], poisson: float, density: float, order: int = 2
) -> tuple[Body, Hold]:
    """Return a beam along x, held at x = 0, its weight along -z."""
    vertices, elements = mesh(cells, size, order)
    root = on(vertices, 0, 0.0)
    return Body(vertices, elements, YOUNG, poisson, density, (0.0, 0.0, -9.81)), hold(root, vertices[root])


def tip(body: Body, solved: Solved, length: float) -> np.ndarray:
    """Return the displacement [m] of the end face's middle."""
    far = on(body.vertices, 0, length)
    return (solved.positions - body.vertices)[far].mean(axis=0)


def cantilever(poisson: float = POISSON, order: int = 2) -> float:
    """Return the tip's deflection [m] under 5e-5 N: Euler and Bernoulli's beam, 20 cm long and 2 cm thick.

    Linear tetrahedra are on the same nodes as quadratic ones.
    """
    cells = (20, 2, 2) if order == 2 else (40, 4, 4)
    body, held = beam((0.2, 0.02, 0.02), cells, poisson, 0.0, order)
    force = np.array([0.0, 0.0, -5e-5])
    weights = face_weights(body.vertices, body.elements, 0, 0.2)
    _, solved = solve(body, held + pull(weights, np.array([0.2, 0.01, 0.008]), force, 1.0))
    return -float(tip(body, solved, 0.2)[2])


def elastica(load: float, down: float, back: float, **options: str) -> np.ndarray:
    """Return the tip's (down, back) by length for a dead end load F L2 / E I."""
    body, held = beam((LENGTH, THICK, THICK), (40, 1, 1), 0.3, 0.0)
    weights = face_weights(body.vertices, body.elements, 0, LENGTH)
    force = np.array([0.0, 0.0, -load * INERTIA / LENGTH**2])
    at = np.array([LENGTH * (1 - back), THICK / 2, THICK / 2 - LENGTH * down])
    _, solved = solve(body, held + pull(weights, at, force), **options)
    moved = tip(body, solved, LENGTH) / LENGTH
    return np.array([-moved[2], -moved[0]])


def elastica_weight(load: float) -> np.ndarray:
    """Return the tip's (down, back) by length under the beam's own weight w L3 / E I."""
    density = load * INERTIA / (9.81 * THICK**2 * LENGTH**3)
    body, held = beam((LENGTH, THICK, THICK), (40, 1, 1), 0.3, density)
    _, solved = solve(body, held)
    moved = tip(body, solved, LENGTH) / LENGTH
    return np.array([-moved[2], -moved[0]])


def hanging(confined: bool) -> float:
    """Return how far a bar of 10 cm stretches under its weight, linear, sides free or confined [m]."""
    vertices, elements = mesh((10, 1, 1), (0.1, 0.01, 0.01), 2)
    body = Body(vertices, elements, YOUNG, POISSON, 1000.0, (9.81, 0.0, 0.0))
    root, every = on(vertices, 0, 0.0), np.arange(len(vertices))
    held = hold(root, vertices[root], "x")
    corner = on(vertices, 1, 0.0), on(vertices, 2, 0.0)
    sides = (every, every) if confined else corner
    held = held + hold(sides[0], vertices[sides[0]], "y") + hold(sides[1], vertices[sides[1]], "z")
    _, solved = solve(body, held, material="linear")
    return float(tip(body, solved, 0.1)[0])


def sphere() -> tuple[float, float]:
    """Return the outer displacement [m] and the inner pressure [Pa] of a thick sphere, its inner wall at +1.685714 mm.

    One part of 24, 0 <= y, z <= x: it lies between planes of symmetry.
    """
    inner, outer = 0.02, 0.04
    raw, tetrahedra = block((6, 6, 6), 1.0)
    direction = np.stack([np.ones(len(raw)), raw[:, 1], raw[:, 2]], axis=1)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    corners = (inner + (outer - inner) * raw[:, :1]) * direction
    vertices, elements = quadratic(corners, tetrahedra)
    straight, _ = quadratic(raw, tetrahedra)
    wall = on(straight, 0, 0.0)
    driven = hold(wall, vertices[wall] * (1 + 1.685714e-3 / inner))
    held = driven
    for axis, level, normal in ((1, 0.0, (0, 1, 0)), (2, 0.0, (0, 0, 1)), (1, 1.0, (1, -1, 0)), (2, 1.0, (1, 0, -1))):
        n = np.array(normal, dtype=float) / np.linalg.norm(normal)
        nodes = on(straight, axis, level)
        held = held + Hold([{int(k): 1.0} for k in nodes], list(vertices[nodes]), [STIFF * np.outer(n, n)] * len(nodes))
    _, solved = solve(Body(vertices, elements, YOUNG, POISSON), held, material="linear")
    far = on(straight[: len(corners)], 0, 1.0)
    moved = np.linalg.norm(solved.positions[far], axis=1) - np.linalg.norm(vertices[far], axis=1)
    force = reaction(driven, solved) @ np.array([1.0, 0, 0])
    faces = boundary(tetrahedra)
    faces = faces[(raw[faces][:, :, 0] < 1e-9).all(axis=1)]
    a, b, c = (corners[faces[:, k]] for k in range(3))
    area = np.abs(np.cross(b - a, c - a).sum(axis=0)[0]) / 2
    return float(moved.mean()), float(force / area)


def clamped(cells: int, order: int = 1) -> Solved:
    """Return the block of 10 cm on its held face x = 0, under gravity along -z."""
    vertices, elements = mesh(cells, 0.1, order)
    body = Body(vertices, elements, YOUNG, POISSON, 1000.0, (0.0, 0.0, -9.81))
    none = Springs(sp.csr_matrix((0, len(vertices))), np.zeros((0, 3, 3)))
    solved = Solver(body, none, np.abs(vertices[:, 0]) < 1e-9, backend="cpu").solve(np.zeros((0, 3)))
    assert solved.converged
    return solved


def bedded_sag(cells: int, order: int) -> float:
    """Return the mean sag [m] of the far face of the block of `block_reference.py` on its bed, a quarter of gravity."""
    vertices, elements = mesh(cells, 0.1, order)
    body = Body(vertices, elements, YOUNG, POISSON, 1000.0, (0.0, 0.0, -9.81 * BEDDED_GRAVITY))
    rows, stiffness = bed_springs(vertices, elements)
    targets = [sum(w * vertices[n] for n, w in row.items()) for row in rows]
    _, solved = solve(body, Hold(rows, targets, [k * np.eye(3) for k in stiffness]))
    weights = face_weights(vertices, elements, 0, 0.1)
    return -sum(w * float(solved.positions[n, 2] - vertices[n, 2]) for n, w in weights.items())


# Strang and Fix's rule of degree 4 on a triangle: barycentric coordinates and shares of the area.
_A, _B = 0.445948490915965, 0.091576213509771
TRIANGLE = [(p, 0.223381589678011) for p in ((_A, _A, 1 - 2 * _A), (_A, 1 - 2 * _A, _A), (1 - 2 * _A, _A, _A))]
TRIANGLE += [(p, 0.109951743655322) for p in ((_B, _B, 1 - 2 * _B), (_B, 1 - 2 * _B, _B), (1 - 2 * _B, _B, _B))]


def bed_springs(vertices: np.ndarray, elements: np.ndarray) -> tuple[list[dict[int, float]], list[float]]:
    """Return springs at the integration points of the face x = 0: the bed's stiffness times their areas [N/m]."""
    faces = boundary(elements[:, :4])
    faces = faces[(vertices[faces][:, :, 0] < 1e-9).all(axis=1)]
    known = {tuple(np.round(p, 9)): n for n, p in enumerate(vertices)}
    rows, stiffness = [], []
    for face in faces:
        a, b, c = vertices[face]
        area = np.linalg.norm(np.cross(b - a, c - a)) / 2
        for (u, v, w), share in TRIANGLE:
            if elements.shape[1] == 4:
                row = dict(zip(map(int, face), (u, v, w), strict=True))
            else:
                mid = [known[tuple(np.round(p, 9))] for p in ((a + b) / 2, (b + c) / 2, (c + a) / 2)]
                values = (u * (2 * u - 1), v * (2 * v - 1), w * (2 * w - 1), 4 * u * v, 4 * v * w, 4 * w * u)
                row = dict(zip([*map(int, face), *mid], values, strict=True))
            rows.append(row)
            at = (u * a + v * b + w * c)[:, None]
            stiffness.append(float(bed_stiffness(at)[0]) * area * share)
    return rows, stiffness


def clamped_sag(cells: int) -> float:
    """Return the mean drop [m] of the far face's nodes."""
    vertices, solved = mesh(cells, 0.1, 1)[0], clamped(cells)
    far = on(vertices, 0, 0.1)
    return -float((solved.positions - vertices)[far, 2].mean())


def frequency() -> float:
    """Return the first axial frequency [Hz] of a bar of 10 cm held at one end, from its stiffness and lumped masses.

    The stiffness comes from solutions: each section pulled alone gives a column of the compliance between sections.
    """
    cells, force = 20, 1e-6
    vertices, elements = mesh((cells, 1, 1), (0.1, 0.01, 0.01), 1)
    body = Body(vertices, elements, YOUNG, 0.0)
    sections = [on(vertices, 0, x) for x in np.linspace(0, 0.1, cells + 1)]
    held = hold(sections[0], vertices[sections[0]])
    columns = []
    for section in sections[1:]:
        weights = {int(n): 1 / len(section) for n in section}
        _, solved = solve(
            body, held + pull(weights, vertices[section].mean(axis=0), np.array([force, 0, 0])), material="linear"
        )
        columns.append([float((solved.positions - vertices)[s, 0].mean()) / force for s in sections[1:]])
    mass = np.full(cells, 1000.0 * 1e-4 * 0.1 / cells)
    mass[-1] /= 2
    compliance = np.array(columns) * np.sqrt(mass[:, None] * mass)
    return float(1 / np.sqrt(np.linalg.eigvalsh((compliance + compliance.T) / 2)[-1]) / (2 * np.pi))
