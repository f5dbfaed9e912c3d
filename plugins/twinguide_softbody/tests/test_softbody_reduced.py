import numpy as np
import pytest
import scipy.sparse as sp
from scipy.optimize import nnls

from twinguide.errors import CaseError
from twinguide_softbody import native
from twinguide_softbody.body import Body, Springs
from twinguide_softbody.layout import pairs
from twinguide_softbody.mesh import FACES, block, quadratic
from twinguide_softbody.quasistatic import Solver
from twinguide_softbody.reduced import ACCEPT_M, Model, Reduced
from twinguide_softbody.reduction import Drive, Reduction, nonnegative, principal, settled, stress

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="the fast path needs a C compiler")
RANGE = np.diag([0.008, 0.010, 0.015])


@pytest.fixture(scope="module")
def held():
    vertices, tetrahedra = block(4, 0.1)
    body = Body(vertices, tetrahedra, 5000.0, 0.45, 1000.0, (0.0, 0.0, -3.0))
    patch = np.flatnonzero((vertices[:, 0] > 0.099) & (np.abs(vertices[:, 1:] - 0.05) < 0.026).all(axis=1))
    rows = sp.csr_matrix((np.ones(len(patch)), (np.arange(len(patch)), patch)), shape=(len(patch), len(vertices)))
    springs = Springs(rows, np.tile(1e4 * np.eye(3), (len(patch), 1, 1)))
    drive = Drive(vertices[patch], np.array([np.tile(d, (len(patch), 1)) for d in RANGE]))
    return body, springs, vertices[:, 0] < 1e-9, drive


def made(held, modes=12, model=None):
    body, springs, fixed, drive = held
    solver = Solver(body, springs, fixed, backend="cpu")
    return Reduced(solver, body, springs, fixed, drive, modes=modes, samples=12, model=model)


@pytest.mark.parametrize("modes", [2, 33])
def test_modes_that_the_kernels_have_no_room_for_are_refused(held, modes):
    with pytest.raises(CaseError, match="to 32 modes"):
        made(held, modes)


@pytest.fixture(scope="module")
def reduced(held):
    return made(held)


def truth(held, share):
    body, springs, fixed, drive = held
    return settled(Solver(body, springs, fixed, backend="cpu"), drive.targets(share), first=True)


def rms(a, b):
    return float(np.sqrt(((a - b) ** 2).sum(axis=1).mean()))


@pytest.mark.parametrize("share", [(0.3, -0.6, 0.9), (-0.9, 0.8, -0.7), (0.0, 0.0, 0.5)])
def test_inside_its_range_the_model_is_near_the_full_solution_and_says_so(held, reduced, share):
    solved = reduced.step(held[3].targets(np.array(share)))
    error = rms(solved.positions, truth(held, np.array(share)))
    assert solved.level == "reduced"
    assert error < ACCEPT_M  # the goal; 12 modes of 27 solutions leave about a tenth of it
    assert error < solved.solver_error_m + 2e-6  # SETTLED_M of both solvers


def test_outside_its_range_the_full_solver_answers(held, reduced):
    solved = reduced.step(held[3].targets(np.array([1.5, 0.0, 0.0])))
    assert solved.level == "full"


def test_targets_off_the_family_are_solved_in_full(held, reduced):
    targets = held[3].targets(np.zeros(3))
    targets[0, 2] += 0.004  # one point of the patch alone
    assert reduced.step(targets).level == "full"


def test_the_check_alone_would_refuse_what_lies_far_outside(held, reduced):
    # the range test is only quicker: the full body's balance itself must tell
    solved = reduced._reduced(held[3].targets(np.array([2.5, -2.0, 2.0])))
    error = rms(solved.positions, truth(held, np.array([2.5, -2.0, 2.0])))
    assert error > ACCEPT_M
    assert solved.solver_error_m > ACCEPT_M or not solved.converged


@pytest.mark.parametrize("order", [1, 2])
def test_the_check_finds_the_full_bodys_imbalance_and_its_smallest_volume(width, order):
    vertices, tetrahedra = quadratic(*block(3, 0.1)) if order == 2 else block(3, 0.1)
    young = 5000.0 * np.random.default_rng(1).uniform(0.5, 2.0, len(tetrahedra))
    body = Body(vertices + 0.3, tetrahedra, young, np.full(len(tetrahedra), 0.45), 1000.0, (0.0, 0.0, -3.0))
    drawn = np.flatnonzero(vertices[:, 0] > 0.099)
    rows = sp.csr_matrix((np.ones(len(drawn)), (np.arange(len(drawn)), drawn)), shape=(len(drawn), len(vertices)))
    springs, fixed = Springs(rows, np.tile(100.0 * np.eye(3), (len(drawn), 1, 1))), vertices[:, 0] < 1e-9
    x, y, z = vertices.T / 0.1
    modes = x[:, None] * np.stack([np.stack(c, 1) for c in ((y * z, x, y), (z, x * y, z * z), (x, z, x * y))])
    drive = Drive(body.vertices[drawn], 0.005 * modes[:, drawn])
    none = Reduction(drive, 0 * vertices, modes, np.zeros((1, 4, 9)), np.ones(1), np.ones((1, 2)))
    solver = Solver(body, springs, fixed, backend="cpu")
    reduced = Reduced(solver, body, springs, fixed, drive, model=Model(none, 1.0), threads=2)
    reduced._library = native.library("reduced.c", width)
    targets = drive.targets(np.array([1.0, -0.4, 0.6])) + 1e-3  # what the modes cannot follow, the springs pull at
    solved = reduced._reduced(targets)  # sampled points without stiffness: the springs alone move the modes
    newton = solver._newton
    newton.place(solved.positions[solver.layout.order] - solver._rest)
    newton.load(targets - drive.rest)
    # float32 of positions within 0.1 m of the middle, over edges of 33 mm, is 1e-6 of their strains, of 0.1
    assert reduced._out[1] == pytest.approx(newton.balance.left, rel=1e-4)
    assert reduced._out[2] == pytest.approx(np.linalg.norm(newton._force), rel=1e-4)
    assert solved.smallest_j == pytest.approx(newton.balance.smallest_j, rel=1e-5)
    assert 0.1 < solved.smallest_j < 0.99


def test_elements_are_paired_by_faces_each_once_and_few_stay_alone():
    _, tetrahedra = block(6, 0.1)
    elements = np.sort(tetrahedra.astype(np.int32), axis=1)
    one, other = pairs(elements)
    alone = one == other
    assert sorted([*one // 4, *other[~alone] // 4]) == list(range(len(elements)))
    faces = [np.sort(np.take_along_axis(elements[side // 4], FACES[side % 4], axis=1), axis=1) for side in (one, other)]
    assert np.array_equal(*faces)
    assert alone.mean() < 0.16  # of pairs; a matching that leaves none is possible, and not sought


def test_targets_that_are_no_numbers_leave_the_model_usable(held, reduced):
    targets = held[3].targets(np.zeros(3))
    reduced._reduced(np.full_like(targets, np.nan))
    assert reduced.step(targets).level == "reduced"


def test_training_twice_gives_the_same_bits(held, reduced):
    again = made(held)
    assert np.array_equal(again.reduction.modes, reduced.reduction.modes)
    assert np.array_equal(again.reduction.weights, reduced.reduction.weights)
    targets = held[3].targets(np.array([0.2, 0.4, -0.3]))
    other = made(held, model=reduced.model)  # as it is kept from run to run
    assert np.array_equal(again.step(targets).positions, other.step(targets).positions)


def test_sampled_points_carry_the_whole_volume(held, reduced):
    # not asked of the weights, so a check of them: forces on affine modes need it (0.001 m3; 15 %: few such modes)
    assert reduced.reduction.weights.sum() == pytest.approx(1e-3, rel=0.15)
    assert len(reduced.reduction.weights) < 384 / 1.5
    assert reduced.reduction.weights.min() > 0


def test_weights_of_an_exact_mixture_are_found():
    rng = np.random.default_rng(3)
    matrix, wanted = rng.normal(size=(30, 80)), np.zeros(80)
    wanted[[5, 17, 60]] = 2.0, 0.5, 1.0
    assert nonnegative(matrix, matrix @ wanted, 1e-10, 40) == pytest.approx(wanted, abs=1e-8)


def test_where_no_weights_fit_the_nearest_are_found():
    rng = np.random.default_rng(5)
    matrix, right = np.abs(rng.normal(size=(30, 80))).astype(np.float32), rng.normal(size=30)
    matrix[:, 7] = 0.0  # a point that no mode strains
    matrix[:, 9] = matrix[:, 8]
    nearest, off = nnls(matrix.astype(float), right)
    found = nonnegative(matrix, right, 1e-10, 80)
    assert np.linalg.norm(matrix @ found - right) == pytest.approx(off, rel=1e-6)  # columns are alike to 1e-12
    assert np.delete(found, [8, 9]) == pytest.approx(np.delete(nearest, [8, 9]), abs=1e-6)


def test_principal_fields_span_what_they_are_made_of():
    rng = np.random.default_rng(4)
    two = rng.normal(size=(2, 30))
    fields = (rng.normal(size=(9, 2)) @ two).reshape(9, 10, 3)
    kept = principal(fields, 5)
    assert len(kept) == 2
    assert np.linalg.matrix_rank(np.concatenate([kept.reshape(2, 30), two]), tol=1e-8) == 2


def test_the_stress_is_the_energys_slope():
    mu, lame = np.array([1724.0]), np.array([15517.0])
    lam = lame + mu

    def energy(f):
        return mu / 2 * ((f**2).sum() - 3) + lam / 2 * (np.linalg.det(f) - 1 - mu / lam) ** 2

    f, h = np.eye(3) + 0.2 * np.random.default_rng(5).normal(size=(3, 3)), 1e-6
    slope = np.zeros((3, 3))
    for i, j in np.ndindex(3, 3):
        step = np.zeros((3, 3))
        step[i, j] = h
        slope[i, j] = ((energy(f + step) - energy(f - step)) / (2 * h))[0]
    assert stress(f[None], mu, lame)[0] == pytest.approx(slope, rel=1e-6, abs=1e-3)
