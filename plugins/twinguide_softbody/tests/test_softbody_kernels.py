"""The element text on every machine: against its own energy, against each other, and run twice."""

import time
from threading import Event

import numpy as np
import pytest
import scipy.sparse as sp

from twinguide.errors import CaseError
from twinguide_softbody import native
from twinguide_softbody.arrays import MATERIALS
from twinguide_softbody.attachment import Attachment, difference
from twinguide_softbody.body import Body, Springs, joined
from twinguide_softbody.cuda import Cuda
from twinguide_softbody.jit import Jit
from twinguide_softbody.launchers import Shim
from twinguide_softbody.layout import layout
from twinguide_softbody.machine import Native
from twinguide_softbody.mesh import block, quadratic
from twinguide_softbody.newton import Newton
from twinguide_softbody.precondition import DELAY, EVERY, Coarse

compiled = pytest.mark.skipif(native.compiler() is None, reason="no C compiler on this machine")
MACHINES = [
    pytest.param(Native, marks=compiled, id="c"),
    pytest.param(Jit, id="numba"),
    pytest.param(lambda lay, material, threads: Cuda(lay, material, Shim()), marks=compiled, id="cuda-text"),
]


def body_of(order: int, n: int = 2) -> Body:
    vertices, tetrahedra = block(n, 0.1)
    if order == 2:
        vertices, tetrahedra = quadratic(vertices, tetrahedra)
    rng = np.random.default_rng(3)
    young = 5000.0 * rng.uniform(0.5, 2.0, len(tetrahedra))
    return Body(vertices, tetrahedra, young, np.full(len(tetrahedra), 0.45), 1000.0, (1.0, 2.0, -9.81))


def springs_of(body: Body) -> Springs:
    """One spring on a node, one in an element, one over half the body."""
    n = len(body.vertices)
    weights = sp.lil_matrix((3, n))
    weights[0, n - 1] = 1.0
    weights[1, body.elements[0, :4]] = [0.1, 0.2, 0.3, 0.4]
    weights[2, : n // 2] = 2 / n
    return Springs(weights.tocsr(), np.array([np.diag([100.0, 200.0, 300.0]), 50 * np.eye(3), 400 * np.eye(3)]))


def prepared(make, order: int, material: str, n: int = 2):
    body = body_of(order, n)
    lay = layout(body, body.vertices[:, 0] < 1e-9)
    machine = make(lay, material, 1)
    machine.arrays.set("load", body.weight[lay.order], np.float64)
    attachment = Attachment(lay, springs_of(body), machine.arrays)
    rng = np.random.default_rng(0)
    u = 2e-3 * rng.standard_normal(body.vertices.shape)
    u[:, 1] += 0.01 * (body.vertices[:, 0] / 0.1) ** 2
    return lay, machine, attachment, np.ascontiguousarray(u[lay.order] * (lay.held == 0)[:, None])


def matrix_of(lay, machine) -> sp.csr_matrix:
    values = machine.arrays["values"][: len(lay.pattern.column)].reshape(-1, 3, 3).transpose(0, 2, 1)
    return sp.bsr_matrix((values.astype(float), lay.pattern.column, lay.pattern.row_start)).tocsr()


@pytest.mark.parametrize("material", MATERIALS)
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("make", MACHINES)
def test_forces_are_the_slope_of_the_energy(make, order, material):
    _, machine, _, u = prepared(make, order, material)
    direction = np.random.default_rng(1).standard_normal(u.shape)
    force, scratch, step = np.zeros_like(u), np.zeros_like(u), 1e-6
    machine.evaluate(u, force)
    ahead = machine.evaluate(u + step * direction, scratch)[0]
    behind = machine.evaluate(u - step * direction, scratch)[0]
    # central differences: an error of step^2 and of the energies' rounding over the step, 1e-7 together
    assert (ahead - behind) / (2 * step) == pytest.approx(-np.vdot(force, direction), rel=1e-6)


@pytest.mark.parametrize("material", MATERIALS)
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("make", MACHINES)
def test_an_affine_field_is_in_balance_inside(make, order, material):
    body = body_of(order)
    body = Body(body.vertices, body.elements, np.full(len(body.elements), 5000.0), body.poisson)
    lay = layout(body, np.zeros(len(body.vertices), dtype=bool))
    machine, vertices = make(lay, material, 1), body.vertices[lay.order]
    u, force = (
        np.ascontiguousarray(vertices @ np.random.default_rng(2).uniform(-0.2, 0.2, (3, 3))),
        np.zeros_like(vertices),
    )
    machine.evaluate(u, force)
    inside = ((vertices > 1e-9) & (vertices < 0.1 - 1e-9)).all(axis=1)
    assert inside.any()
    assert np.abs(force[inside]).max() < 1e-13 * np.abs(force).max()  # rounding of float64 alone


@pytest.mark.parametrize("material", ["neo_hookean", "linear"])  # the corotational tangent leaves out dR by design
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("make", MACHINES)
def test_the_matrix_is_the_slope_of_all_forces(make, order, material):
    lay, machine, attachment, u = prepared(make, order, material)
    machine.tangent(u)
    targets, direction = np.zeros((3, 3)), np.random.default_rng(1).standard_normal(u.shape)
    direction *= (lay.held == 0)[:, None]
    sides = []
    for step in (1e-6, -1e-6):
        force, right = np.zeros_like(u), np.zeros_like(u)
        machine.evaluate(u + step * direction, force)
        machine.balance(u + step * direction, force, targets, 1.0, right)
        sides.append(right)
    slope = -(sides[0] - sides[1]) / 2e-6
    wide = attachment.weights[[2]].multiply(lay.held == 0).tocsr()  # kept out of the matrix: of low rank
    low_rank = wide.T @ ((wide @ direction) @ attachment.stiffness[2])
    product = (matrix_of(lay, machine) @ direction.ravel()).reshape(-1, 3) + low_rank
    free = lay.held == 0
    # the matrix is float32: 1e-7 of entries, some ten to a row
    np.testing.assert_allclose(product[free], slope[free], atol=3e-6 * np.abs(slope).max())


def agree(one, other, order: int, material: str) -> None:
    answers = []
    for make in (one, other):
        lay, machine, attachment, u = prepared(make, order, material, n=3)
        force, right, d = np.zeros_like(u), np.zeros_like(u), np.zeros_like(u)
        energies = machine.evaluate(u, force)
        balance = machine.balance(u, force, np.full((3, 3), 2e-3), 0.7, right)
        machine.tangent(u)
        matrix = matrix_of(lay, machine)
        machine.tangent(0 * u)  # at rest the matrix is positive definite for every material
        coarse = Coarse(machine)
        coarse.refresh(attachment)
        coarse.close()
        count = machine.solve(right, d, 300, 1e-6)[0]
        answers.append((np.array(energies), force, np.array(balance), right, matrix.toarray(), d, count))
    for k, tolerance in ((0, 1e-13), (1, 1e-13), (2, 1e-12), (3, 1e-13), (4, 1e-6), (5, 2e-5)):
        # float64 parts to rounding; the float32 matrix to its own, the direction to that times a condition of 1e2
        mine, theirs = answers[0][k], answers[1][k]
        np.testing.assert_allclose(theirs, mine, rtol=0, atol=tolerance * np.abs(mine).max())
    assert abs(answers[0][6] - answers[1][6]) <= 2


@compiled
@pytest.mark.parametrize("material", MATERIALS)
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("make", MACHINES[1:])
def test_machines_agree(make, order, material):
    agree(Native, make, order, material)


@pytest.mark.parametrize("material", MATERIALS)
@pytest.mark.parametrize("order", [1, 2])
def test_registers_of_either_width_agree_with_numba(width, order, material):
    def made(lay, material, threads):
        machine = Native(lay, material, threads)
        machine._library = native.library(extra=width)
        return machine

    agree(Jit, made, order, material)


@compiled
def test_any_number_of_threads_gives_the_same_bits():
    results = []
    for threads in (1, 2, 3):
        _, machine, attachment, u = prepared(lambda a, b, _, t=threads: Native(a, b, t), 1, "neo_hookean", n=5)
        force, d = np.zeros_like(u), np.zeros_like(u)
        energies = machine.evaluate(u, force)
        machine.tangent(0.3 * u)
        coarse = Coarse(machine)
        coarse.refresh(attachment)
        coarse.close()
        machine.solve(force, d, 40, 0.0)
        results.append((energies, force, d))
    for energies, force, d in results[1:]:
        assert energies == results[0][0]
        assert (force == results[0][1]).all()
        assert (d == results[0][2]).all()


@pytest.mark.parametrize("make", MACHINES)
def test_an_inverted_element_is_seen(make):
    lay, machine, _, u = prepared(make, 1, "neo_hookean")
    u = 0 * u
    assert machine.evaluate(u, np.zeros_like(u))[1] == pytest.approx(1.0)
    u[lay.connectivity[5, 0]] += 0.2  # [m], far through the opposite face of a 5 cm element
    assert machine.evaluate(u, np.zeros_like(u))[1] < 0


@compiled
def test_the_solver_runs_on_the_cuda_text():
    body = body_of(1, 3)
    held = body.vertices[:, 0] < 1e-9
    lay = layout(body, held)
    poses = []
    for machine in (Native(lay, "neo_hookean", 1), Cuda(lay, "neo_hookean", Shim())):
        machine.arrays.set("load", body.weight[lay.order], np.float64)
        attachment = Attachment(lay, springs_of(body), machine.arrays)
        newton = Newton(lay, machine, attachment)
        for frame in range(6):
            newton.begin()
            newton.load(np.full((3, 3), 1e-3 * frame), 0.2)
            newton.guess()
            newton.assemble()
            newton.coarse.refresh(attachment)
            newton.iterate(40, 1e-6)
            newton.end()
        newton.coarse.close()
        poses.append(newton.displacements())
    assert np.abs(poses[0]).max() > 1e-3  # [m], it moved
    np.testing.assert_allclose(poses[1], poses[0], rtol=0, atol=1e-8)  # [m]: both converge to float64's forces


@compiled
def test_springs_joined_to_themselves_are_refused():
    one = Springs(sp.csr_matrix(np.eye(4)), np.tile(np.eye(3), (4, 1, 1)))
    with pytest.raises(CaseError, match=r"each part once; got one twice.*twice the stiffness"):
        joined(one, one)


@compiled
def test_springs_joined_of_parts_act_as_whole_ones_and_a_further_part_leaves_the_matrix_alone():
    body = body_of(1)
    lay = layout(body, body.vertices[:, 0] < 1e-9)
    whole = springs_of(body)
    one, two = (Springs(whole.weights[rows], whole.stiffness[rows]) for rows in ([0, 1], [1, 2]))
    both = Springs(sp.vstack([one.weights, two.weights]).tocsr(), np.concatenate([one.stiffness, two.stiffness]))
    machines = [Native(lay, "neo_hookean", 1) for _ in range(2)]
    first = Attachment(lay, one, machines[1].arrays)
    made = [
        Attachment(lay, both, machines[0].arrays),
        Attachment(lay, joined(one, two), machines[1].arrays, first.rows),
    ]
    assert made[1].rows[one] is first.rows[one]
    for name in ("spring_start", "spring_node", "spring_weight", "spring_stiffness"):
        assert np.array_equal(machines[0].arrays[name], machines[1].arrays[name])
    assert made[1].touches_as(first)
    assert not made[1].touches_as(made[0])
    right, found = np.random.default_rng(0).standard_normal((len(lay.order), 3)), []
    right *= (lay.held == 0)[:, None]
    for machine, attachment in zip(machines, made, strict=True):
        machine.tangent(0 * right)
        coarse = Coarse(machine)
        coarse.refresh(attachment)
        coarse.close()
        found.append(np.zeros_like(right))
        machine.solve(right, found[-1], 300, 1e-6)
    # to the solver's tolerance times a condition of 1e2, as between machines
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-4 * np.abs(found[0]).max())
    rows, more = difference(lay, first, made[1])  # what came is the second part alone
    assert len(rows) == 2
    assert np.array_equal(more, two.stiffness)


@compiled
@pytest.mark.parametrize("waits", [True, False])
def test_a_late_factor_is_waited_for_or_taken_over_by_the_first_step_that_finds_it(monkeypatch, waits):
    _, machine, attachment, u = prepared(Native, 1, "neo_hookean")
    machine.tangent(0 * u)
    coarse, go, real = Coarse(machine), Event(), machine.coarse_inverse
    coarse.refresh(attachment)
    coarse.waits = waits
    machine.arrays["coarse"][...] = 0.0  # until a factor is taken over

    def late(*arrays):
        go.wait(0.2 if waits else 20.0)
        return real(*arrays)

    monkeypatch.setattr(machine, "coarse_inverse", late)
    for _ in range(2 * EVERY + DELAY - 1):
        coarse.tick(attachment)
    assert machine.arrays["coarse"].any() == waits
    go.set()
    for _ in range(200):
        coarse.tick(attachment)
        if machine.arrays["coarse"].any():
            break
        time.sleep(0.01)
    assert machine.arrays["coarse"].any()
    coarse.close()


@pytest.mark.parametrize("content", [b"#!/bin/sh\nexit 1\n", bytes(range(256))], ids=["no headers", "no program"])
def test_a_compiler_that_is_none_is_passed_over(tmp_path, monkeypatch, content):
    cc = tmp_path / "headless"
    cc.write_bytes(content)
    cc.chmod(0o755)
    monkeypatch.setenv("CC", str(cc))
    assert native.compiler() != str(cc)


@compiled
def test_an_array_that_is_not_in_one_piece_is_refused_and_not_misread():
    _, machine, _, u = prepared(Native, 1, "neo_hookean")
    with pytest.raises(TypeError, match="not C contiguous"):
        machine.evaluate(np.asfortranarray(u), np.zeros_like(u))
