from types import SimpleNamespace

import numpy as np
import pytest

from twinguide.deformation import Deformation
from twinguide.embedding import LOOSE_M, embed
from twinguide.errors import BusError
from twinguide.messages import BulkRef, Solution

TARGET = np.array([0.04, 0.05, 0.06])


def block(n=4, size=0.1):
    axis = np.linspace(0, size, n + 1)
    vertices = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    strides = np.array([(n + 1) ** 2, n + 1, 1])
    cells = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) @ strides
    paths = [(0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (1, 0, 2), (2, 1, 0)]
    tetrahedra = np.concatenate([cells[:, None] + np.cumsum([0, *strides[list(p)]]) for p in paths])
    return SimpleNamespace(vertices=vertices, tetrahedra=tetrahedra.astype(np.int32))


BODY = block()
NEAR = np.array([[0.02, 0.02, 0.02], [0.03, 0.02, 0.02]])  # at the origin's corner
FAR = np.array([[0.08, 0.09, 0.08], [0.09, 0.09, 0.08]])
LOOSE = np.array([[0.05, 0.05, 0.1 + 2 * LOOSE_M], [0.05, 0.05, 0.1 + LOOSE_M / 2]])


LEVELS = {"full": 3.0, "partial": 4.0, "rigid": 5.591}


@pytest.fixture
def deformation():
    return made()


def made(levels=None):
    surfaces = {"near": NEAR, "far": FAR, "loose": LOOSE}
    case = SimpleNamespace(
        body=lambda: BODY,
        surface=lambda name: SimpleNamespace(vertices=surfaces[name]),
        plan=SimpleNamespace(target=TARGET),
        organ="x",
    )
    return Deformation(case, surfaces, levels)


def solution(t_ns=0, sigma_m=0.002, level="full", of="x", reason=""):
    ref = BulkRef("r", 0, 1, "<f4", BODY.vertices.shape)
    return Solution(
        t_ns=t_ns, of=of, vertices=ref, level=level, reason=reason,
        residual=0.0, sigma_m=sigma_m, smallest_j=1.0, deadline_met=True,
    )  # fmt: skip


def test_a_structure_carries_the_error_of_the_vertices_around_it(deformation):
    sigma = np.linalg.norm(BODY.vertices, axis=1) * 0.02  # grows with the distance from a corner
    deformation.take(solution(), BODY.vertices, sigma)
    near, far, _ = np.sqrt(deformation.variances)
    # The distance is convex, so that interpolation lies above it, by less than a cell's half width.
    for found, points in ((near, NEAR), (far, FAR)):
        exact = 0.02 * np.sqrt((np.linalg.norm(points, axis=1) ** 2).mean())
        assert exact <= found < exact + 0.02 * 0.0125


def test_the_target_carries_the_error_at_its_own_place_and_only_where_it_is_told(deformation):
    deformation.take(solution(), BODY.vertices, np.full(len(BODY.vertices), 0.001))
    np.testing.assert_allclose(deformation.target_covariance, np.eye(3) * 1e-6, rtol=1e-12)
    deformation.take(solution(1), BODY.vertices)
    np.testing.assert_array_equal(deformation.target_covariance, 0.0)
    np.testing.assert_allclose(deformation.variances, 0.002**2, rtol=1e-12)


@pytest.mark.parametrize("spoil", [lambda s: s[:-1], lambda s: np.where(np.arange(len(s)) == 3, np.nan, s)])
def test_errors_that_cannot_be_used_give_way_to_the_solutions_own(deformation, spoil):
    deformation.take(solution(), BODY.vertices, spoil(np.full(len(BODY.vertices), 0.01)))
    np.testing.assert_allclose(deformation.variances, 0.002**2, rtol=1e-12)


def test_what_lies_outside_may_as_well_stay_the_further_the_more(deformation):
    moved = BODY.vertices + np.array([0.0, 0.0, 0.012])
    deformation.take(solution(), moved, np.zeros(len(BODY.vertices)))
    _, covariance = deformation.at(deformation.embed(LOOSE))
    # Uniform between staying and moving along has 1/12 of the square; over three axes a third of it each.
    full = 0.012**2 / 12 / 3
    np.testing.assert_allclose(covariance[0], np.eye(3) * full, rtol=1e-9)
    np.testing.assert_allclose(covariance[1], np.eye(3) * full / 4, rtol=1e-9)
    assert deformation.variances[0] < 1e-30
    assert deformation.variances[2] == pytest.approx(full * 5 / 8)


def test_points_are_asked_for_with_their_covariance(deformation):
    places = np.array([[0.011, 0.052, 0.093], [0.07, 0.03, 0.02]])
    asked = deformation.embed(places)
    np.testing.assert_allclose(deformation.at(asked)[0], places, atol=1e-15)
    gradient = np.array([[0.02, 0.1, 0.0], [0.0, -0.05, 0.0], [0.03, 0.0, 0.04]])
    sigma = 0.001 + 0.01 * BODY.vertices[:, 0]
    deformation.take(solution(), BODY.vertices @ (np.eye(3) + gradient), sigma)
    found, covariance = deformation.at(asked)
    np.testing.assert_allclose(found, places @ (np.eye(3) + gradient), atol=1e-12)
    np.testing.assert_allclose(covariance[:, 1, 1], (0.001 + 0.01 * places[:, 0]) ** 2, rtol=1e-12)


def test_an_outdated_solution_leaves_no_error_behind(deformation):
    deformation.take(solution(5), BODY.vertices + 0.01, np.full(len(BODY.vertices), 0.001))
    deformation.forget_before(6)
    assert deformation.solution is None
    np.testing.assert_array_equal(deformation.variances, 0.0)
    np.testing.assert_array_equal(deformation.at_target(), 0.0)


def test_without_the_declared_solvers_word_the_shape_is_as_unsure_as_its_worst_level():
    deformation = made(LEVELS)
    for _ in range(2):
        assert "is not solved" in deformation.fault
        np.testing.assert_allclose(deformation.variances, 0.002**2, rtol=1e-12)  # 5.591 mm hold 95 %
        np.testing.assert_allclose(deformation.at(deformation.embed(NEAR))[1], [0.002**2 * np.eye(3)] * 2, rtol=1e-12)
        deformation.take(solution(5), BODY.vertices, np.full(len(BODY.vertices), 0.001))
        assert deformation.fault == ""
        np.testing.assert_allclose(deformation.variances, 0.001**2, rtol=1e-12)
        deformation.forget_before(6)


@pytest.mark.parametrize("level", ["partial", "rigid"])
def test_a_lowered_level_is_said_with_its_reason(level):
    deformation = made(LEVELS)
    deformation.take(solution(level=level, reason="the probe contradicts the target"), BODY.vertices)
    assert deformation.fault.endswith("the probe contradicts the target")
    deformation.take(solution(1), BODY.vertices)
    assert deformation.fault == ""


def test_a_solver_that_only_moves_the_organ_as_one_is_at_its_best():
    deformation = made({"rigid": 6.0})
    deformation.take(solution(level="rigid"), BODY.vertices)
    assert deformation.fault == ""


@pytest.mark.parametrize("wrong", [{"level": "superb"}, {"of": "spleen"}])
def test_a_solution_that_nobody_declared_is_refused(wrong):
    deformation = made(LEVELS)
    with pytest.raises(BusError, match=next(iter(wrong.values()))):
        deformation.take(solution(**wrong), BODY.vertices)


def test_errors_of_neighbours_are_averaged_and_not_their_squares():
    embedding = embed(BODY, NEAR)
    sigma = np.full(len(BODY.vertices), 0.003)
    np.testing.assert_allclose(embedding.sigma(sigma, BODY.vertices, BODY.vertices), 0.003, rtol=1e-12)
