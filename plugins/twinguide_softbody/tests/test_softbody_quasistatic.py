"""The solver: exact where theory is, warm and cold, and never left inverted."""

import numpy as np
import pytest
import scipy.sparse as sp

from twinguide.errors import CaseError
from twinguide_softbody import jit_elements, native
from twinguide_softbody.arrays import MATERIALS
from twinguide_softbody.body import Body, Springs, joined
from twinguide_softbody.mesh import block, quadratic
from twinguide_softbody.newton import Newton
from twinguide_softbody.quasistatic import Solver

SIDE = 0.1  # [m]


def block_body(n: int, order: int = 1, gravity: float = 0.0) -> Body:
    vertices, tetrahedra = block(n, SIDE)
    if order == 2:
        vertices, tetrahedra = quadratic(vertices, tetrahedra)
    count = len(tetrahedra)
    return Body(vertices, tetrahedra, np.full(count, 5000.0), np.full(count, 0.45), 1000.0, (0.0, 0.0, -gravity))


def on_nodes(body: Body, nodes: np.ndarray, stiffness: float) -> Springs:
    weights = sp.csr_matrix((np.ones(len(nodes)), (range(len(nodes)), nodes)), shape=(len(nodes), len(body.vertices)))
    return Springs(weights, np.tile(stiffness * np.eye(3), (len(nodes), 1, 1)))


def driven(n: int, *, order: int = 1, stiffness: float = 1e3, **options) -> tuple[Solver, np.ndarray]:
    """A block held at x = 0 whose middle of the far face is driven; return the solver and the springs' points."""
    body = block_body(n, order)
    x, y, z = body.vertices.T
    nodes = np.flatnonzero((x > 0.999 * SIDE) & (abs(y - SIDE / 2) < SIDE / 5) & (abs(z - SIDE / 2) < SIDE / 5))
    return Solver(body, on_nodes(body, nodes, stiffness), x < 1e-9, backend="cpu", **options), body.vertices[nodes]


def path(frame: int) -> np.ndarray:
    """Breathing of some 8 to 15 mm at 90 Hz [m]."""
    phase = 2 * np.pi * frame / 90
    return np.array([8e-3 * np.sin(0.5 * phase), 10e-3 * np.sin(0.35 * phase), 15e-3 * np.sin(0.25 * phase)])


def rms(difference: np.ndarray) -> float:
    return float(np.sqrt((difference**2).sum(axis=1).mean()))


@pytest.mark.parametrize("material", MATERIALS)
@pytest.mark.parametrize("order", [1, 2])
def test_an_affine_field_is_reproduced(order, material):
    body = block_body(2, order)
    rng = np.random.default_rng(0)
    inside = ((body.vertices > 1e-9) & (body.vertices < SIDE - 1e-9)).all(axis=1)
    edge = np.flatnonzero(~inside)
    affine = np.eye(3) + 0.1 * rng.standard_normal((3, 3))
    solver = Solver(body, on_nodes(body, edge, 2e11), material=material, backend="cpu")
    solved = solver.solve((body.vertices @ affine.T)[edge])
    # the surface pulls with up to 5 N at springs of 2e11 N/m: 3e-11 m; the float64 forces add less
    np.testing.assert_allclose(solved.positions, body.vertices @ affine.T, rtol=0, atol=1e-10)


def test_the_block_sags_as_an_independent_library_has_it():
    body = block_body(6, gravity=9.81)
    free = Springs(sp.csr_matrix((0, len(body.vertices))), np.zeros((0, 3, 3)))
    solved = Solver(body, free, body.vertices[:, 0] < 1e-9, backend="cpu").solve(np.zeros((0, 3)))
    tip = body.vertices[:, 0] > SIDE - 1e-9
    sag_mm = 1e3 * (body.vertices - solved.positions)[tip, 2].mean()
    assert sag_mm == pytest.approx(51.548, abs=1e-3)  # scikit-fem on this mesh: 51.548
    assert solved.converged
    assert solved.smallest_j > 0.5


def test_quadratic_elements_do_not_lock():
    sags = {}
    for n, order in ((6, 1), (3, 2)):
        body = block_body(n, order, gravity=1.0)
        free = Springs(sp.csr_matrix((0, len(body.vertices))), np.zeros((0, 3, 3)))
        solved = Solver(body, free, body.vertices[:, 0] < 1e-9, backend="cpu").solve(np.zeros((0, 3)))
        sags[order] = (body.vertices - solved.positions)[body.vertices[:, 0] > SIDE - 1e-9, 2].mean()
    # the same nodes: an eighth of the elements, quadratic, give way at least 5 % more; both lie above the truth
    assert sags[2] > 1.05 * sags[1]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("stiffness", [1e2, 1e6])
def test_steps_follow_the_converged_solution(order, stiffness):
    solver, points = driven(3 if order == 2 else 5, order=order, stiffness=stiffness)
    solver.solve(points)
    for frame in range(1, 45):
        solved = solver.step(points + path(frame))
        assert solved.converged
    reference, _ = driven(3 if order == 2 else 5, order=order, stiffness=stiffness)
    exact = reference.solve(points + path(44)).positions
    error = rms(solved.positions - exact)
    assert error < 5e-6  # [m], a tenth of what guidance asks of the solver
    assert solved.solver_error_m > 0.2 * error


def test_steps_keep_up_with_a_sensor_over_many_nodes():
    body = block_body(5)
    n = len(body.vertices)
    far = np.flatnonzero(body.vertices[:, 0] > SIDE - 1e-9)
    weights = sp.csr_matrix((np.full(len(far), 1 / len(far)), (np.zeros(len(far), int), far)), shape=(1, n))
    solver = Solver(body, Springs(weights, 1e5 * np.eye(3)[None]), body.vertices[:, 0] < 1e-9, backend="cpu")
    point = weights @ body.vertices
    for frame in range(20):
        solved = solver.step(point + path(frame))
    assert solved.converged
    # 1e5 N/m against some 500 N/m of the block (E A / L, more at a held end): half a percent
    np.testing.assert_allclose(weights @ solved.positions, point + path(19), rtol=0, atol=6e-3 * np.abs(path(19)).max())


def test_a_jump_of_ten_centimetres_inverts_nothing_and_settles():
    solver, points = driven(4)
    for frame in range(3):
        solver.step(points + path(frame))
    leap = points + np.array([0.06, -0.08, 0.0])
    for _ in range(20):
        solved = solver.step(leap)
        assert solved.smallest_j > 0
    assert solved.converged


def test_the_same_targets_give_the_same_bits():
    runs = []
    for _ in range(2):
        solver, points = driven(4)
        rng = np.random.default_rng(1)
        runs.append(
            [solver.step(points + path(k) + 1e-4 * rng.standard_normal(points.shape)).positions for k in range(60)]
        )
    assert all((a == b).all() for a, b in zip(*runs, strict=True))


def test_a_softer_spring_lets_go():
    solver, points = driven(4)
    solver.step(points + path(20))
    held = solver.step(points + path(20)).positions
    solver.stiffen(1e-3 * solver.springs.stiffness)
    for _ in range(8):
        solved = solver.step(points + path(20))
    assert rms(solved.positions - solver.body.vertices) < 0.2 * rms(held - solver.body.vertices)


def test_other_springs_take_over_where_the_body_stands():
    solver, points = driven(4)
    for frame in range(20):
        solver.step(points + path(frame))
    corner = np.flatnonzero((solver.body.vertices > SIDE - 1e-9).all(axis=1))
    solver.attach(on_nodes(solver.body, corner, 1e4))
    for _ in range(10):
        solved = solver.step(solver.body.vertices[corner])
    assert solved.converged
    assert rms(solved.positions - solver.body.vertices) < 1e-5  # all that pulls holds the corner where it rests


def test_a_point_that_slides_costs_neither_the_guess_nor_the_next_matrix(monkeypatch):
    solver, points = driven(5)
    vertices, hold, made, assemble = solver.body.vertices, solver.springs, [], Newton.assemble
    monkeypatch.setattr(Newton, "assemble", lambda self: (made.append(k), assemble(self)))
    line = np.flatnonzero((np.abs(vertices[:, 1] - 0.6 * SIDE) < 1e-9) & (vertices[:, 2] > SIDE - 1e-9))  # along x
    for k in range(48):
        node, share = divmod(0.55 + 0.08 * k, 1.0)
        row = sp.csr_matrix(([1 - share, share], ([0, 0], line[int(node) :][:2])), shape=(1, len(vertices)))
        solver.attach(joined(hold, Springs(row, np.diag([1e-3, 1e-3, 1e2])[None])))
        targets = np.concatenate([points + path(k), row @ vertices - [0.0, 0.0, 0.003]])
        solved = solver.step(targets)
    assert len([k for k in made if k >= 8]) == 5  # of 40 steps: each serves eight
    truth = Solver(solver.body, solver.springs, vertices[:, 0] < 1e-9, backend="cpu").solve(targets).positions
    assert rms(solved.positions - truth) < 2e-6  # [m], as smooth targets leave; 7e-6 where nothing is guessed


def test_many_further_parts_go_into_the_matrix_as_one_does():
    body = block_body(5)
    corners = body.elements[::7]
    rows = (np.full(4 * 40, 0.25), corners[:40].ravel(), np.arange(0, 164, 4))
    all_of = Springs(sp.csr_matrix(rows, shape=(40, len(body.vertices))), np.tile(10 * np.eye(3), (40, 1, 1)))
    one, other = (Springs(all_of.weights[k], all_of.stiffness[k]) for k in (slice(20), slice(20, 40)))
    hold = on_nodes(body, np.flatnonzero(body.vertices[:, 2] < 1e-9), 1e3)
    found = []
    for springs in (joined(hold, all_of), joined(hold, one, other)):  # 20 and 20 are more than may stay out of it
        targets = springs.weights @ body.vertices
        targets[-40:, 2] += 0.004
        found.append(Solver(body, springs, backend="cpu").solve(targets).positions)
    assert rms(found[0] - body.vertices) > 1e-4  # [m], it moved
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-9)  # [m]: both converge to float64's forces


def test_a_reset_goes_back_to_rest_and_refuses_an_inverted_pose():
    solver, points = driven(3)
    solver.step(points + path(30))
    solver.reset()
    assert (solver.positions == solver.body.vertices).all()
    with pytest.raises(CaseError, match="invert"):
        solver.reset(-solver.body.vertices)
    with pytest.raises(CaseError, match=r"positions of shape \(64, 3\); got \(3, 3\)"):
        solver.reset(solver.body.vertices[:3])


def test_a_body_that_nothing_holds_falls_and_never_says_that_it_stands():
    body = block_body(4, gravity=9.81)
    solved = Solver(body, on_nodes(body, np.array([0]), 0.0), backend="cpu").solve(body.vertices[:1])
    assert not solved.converged
    assert solved.residual > 0.9
    still = block_body(2)  # without weight it stands, and no force has a size
    assert Solver(still, on_nodes(still, np.array([0]), 0.0), backend="cpu").solve(still.vertices[:1]).converged


@pytest.mark.parametrize("fault", ["shape", "nan"])
def test_targets_that_are_none_are_refused(fault):
    solver, points = driven(3)
    targets = points[:1] if fault == "shape" else np.where(np.arange(len(points))[:, None] == 1, np.nan, points)
    with pytest.raises(CaseError, match="finite targets"):
        solver.step(targets)
    assert solver.step(points).converged  # and the pose is as it was


def test_springs_that_do_not_fit_are_refused():
    body = block_body(2)
    with pytest.raises(CaseError, match="positive semidefinite"):
        on_nodes(body, np.array([0]), -1.0)
    with pytest.raises(CaseError, match="nodes"):
        Solver(body, on_nodes(block_body(3), np.array([0]), 1.0), backend="cpu")
    for stiffness in (1e40, np.nan):
        with pytest.raises(CaseError, match=r"stiffness of 1e\+12 N/m at most; got row 0"):
            on_nodes(body, np.array([0]), stiffness)
    with pytest.raises(CaseError, match="finite weights; got 1 that are not"):
        Springs(np.nan * on_nodes(body, np.array([0]), 1.0).weights, np.eye(3)[None])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"material": "rubber"}, "a material of"),
        ({"threads": -3}, "threads of 1 or more"),
        ({"threads": 0}, "threads of 1 or more"),
        ({"fixed": [0, 1, 2]}, r"fixed of 27 truth values; got int64 of shape \(3,\)"),
    ],
)
def test_options_that_are_none_are_refused(options, told):
    body = block_body(2)
    with pytest.raises(CaseError, match=told):
        Solver(body, on_nodes(body, np.array([0]), 1.0), **{"backend": "cpu", **options})


def test_a_solver_that_was_closed_says_so():
    solver, points = driven(2)
    solver.close()
    with pytest.raises(CaseError, match="one that was closed"):
        solver.step(points)


@pytest.mark.skipif(native.compiler() is None, reason="no C compiler on this machine")
def test_the_library_is_built_once_and_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    native.library.cache_clear()
    native.library()
    (built,) = (tmp_path / "twinguide").iterdir()
    stamp = built.stat().st_mtime_ns
    native.library.cache_clear()
    native.library()
    assert [p.name for p in (tmp_path / "twinguide").iterdir()] == [built.name]
    assert built.stat().st_mtime_ns == stamp
    native.library.cache_clear()


@pytest.mark.skipif(native.compiler() is None, reason="no C compiler on this machine")
@pytest.mark.parametrize("spoilt", ["no folder to keep it", "a spoilt library"])
def test_the_library_is_built_for_one_process_where_none_can_be_kept(monkeypatch, tmp_path, spoilt):
    monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, "-O0"))  # how fast it runs is not asked here
    kept = tmp_path / "kept"
    monkeypatch.setenv("XDG_CACHE_HOME", str(kept))
    if spoilt == "a spoilt library":
        native.library.cache_clear()
        native.library("shim.c", ())
        (library,) = (kept / "twinguide").iterdir()
        library.unlink()  # what is loaded stays whole
        library.write_bytes(b"half a file")
    else:
        kept.write_text("a file where the folder would be")
    native.library.cache_clear()
    assert native.library("shim.c", ()).run_gather_forces
    native.library.cache_clear()


def test_numba_compiles_where_it_may_keep_nothing(monkeypatch):
    def refuse(*_):
        raise RuntimeError("no locator available")

    monkeypatch.setattr("numba.core.caching.FunctionCache.__init__", refuse)
    assert jit_elements.compiled(lambda x: x + 1)(2) == 3


def test_without_a_compiler_numba_finds_the_same_pose(monkeypatch, caplog):
    with_compiler, points = driven(2)
    with monkeypatch.context() as patched:
        patched.setenv("PATH", "")
        patched.delenv("CC", raising=False)
        native.library.cache_clear()
        without, _ = driven(2)
    native.library.cache_clear()
    assert "Numba" in caplog.text
    for frame in range(10):
        one, other = with_compiler.step(points + path(frame)), without.step(points + path(frame))
    assert rms(one.positions - other.positions) < 1e-7  # [m]: both have converged to that
