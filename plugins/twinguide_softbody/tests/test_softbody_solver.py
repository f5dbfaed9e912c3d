import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinguide.compute import array_module
from twinguide.embedding import embed
from twinguide.errors import CaseError, PluginError
from twinguide_softbody.solver import SoftBody, Springs, Surroundings, patch_weights, surface_springs

YOUNG, POISSON = 5000.0, 0.45
TARGET = np.array([0.045, 0.06, 0.055])
SIZE = (0.12, 0.12, 0.12)
CERTAIN = np.eye(3) * 0.0003**2


def backends():
    try:
        array_module("cuda")
    except PluginError as error:
        return ["cpu", pytest.param("cuda", marks=pytest.mark.skip(reason=str(error)))]
    return ["cpu", "cuda"]


@pytest.fixture(scope="module", params=backends())
def soft(request, box):
    body = box((8, 8, 8), SIZE, shake=0.15)
    springs = surface_springs(body.vertices, body.tetrahedra, YOUNG, Surroundings())
    return body, SoftBody(body.vertices, body.tetrahedra, YOUNG, POISSON, TARGET, springs, backend=request.param)


def moved_target(body, solved):
    return embed(body, TARGET[None]).apply(solved.vertices)[0] - TARGET


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-0.015, 0.015), min_size=3, max_size=3))
def test_the_target_goes_where_it_is_sent_to_within_its_sigma(soft, numbers):
    body, solver = soft
    wanted = np.array(numbers)
    solved = solver.solve(wanted, CERTAIN)
    assert np.linalg.norm(moved_target(body, solved) - wanted) < 0.0003
    assert solved.smallest_j > 0.5
    assert solved.residual < 1e-9


def test_an_uncertain_target_yields_to_its_surroundings_more(soft):
    _, solver = soft
    wanted = np.array([0.0, -0.005, 0.015])
    reached = [solver.solve(wanted, np.eye(3) * sigma**2).at_patch for sigma in (0.0, 0.001, 0.005, 0.5)]
    misses = [float(np.linalg.norm(at - wanted)) for at in reached]
    assert misses[0] < 1e-12
    assert misses == sorted(misses)
    assert misses[1] < 0.001  # still within its sigma


def test_the_answer_is_linear_in_the_displacement(soft):
    body, solver = soft
    d = np.array([0.001, -0.005, 0.015])
    one = solver.solve(d, CERTAIN).vertices - body.vertices
    half = solver.solve(d / 2, CERTAIN).vertices - body.vertices
    np.testing.assert_allclose(one, 2 * half, atol=5e-8)  # single precision of 0.1 m is 7e-9


def test_what_is_driven_alike_moves_as_one(box):
    body = box((4, 4, 4), SIZE)
    springs = surface_springs(body.vertices, body.tetrahedra, YOUNG, Surroundings(dome_share=1.0, rest_share=1.0))
    solver = SoftBody(body.vertices, body.tetrahedra, YOUNG, POISSON, TARGET, springs, backend="cpu")
    d = np.array([0.002, -0.005, 0.015])
    solved = solver.solve(d, CERTAIN)
    np.testing.assert_allclose(solved.vertices - body.vertices, np.broadcast_to(d, body.vertices.shape), atol=2e-8)
    assert solved.smallest_j == pytest.approx(1.0, abs=1e-9)


def test_the_dome_moves_more_than_the_underside(soft):
    body, solver = soft
    d = np.array([0.0, 0.0, 0.015])
    u = (solver.solve(d, CERTAIN).vertices - body.vertices)[:, 2]
    top, bottom = body.vertices[:, 2] > SIZE[2] - 1e-9, body.vertices[:, 2] < 1e-9
    assert u[top].mean() > d[2] > u[bottom].mean() > 0.5 * d[2]


def test_the_compliance_is_symmetric_and_positive(soft):
    _, solver = soft
    np.testing.assert_allclose(solver.response.compliance, solver.response.compliance.T, rtol=1e-9)  # Maxwell and Betti
    assert np.linalg.eigvalsh(solver.response.compliance).min() > 0


def test_stiffer_tissue_at_the_target_is_deformed_less(box):
    body = box((8, 8, 8), SIZE)
    held = Springs(np.where(body.vertices[:, 2] < 1e-9, 100.0, 0.0), np.zeros(len(body.vertices)))
    centres = body.vertices[body.tetrahedra].mean(axis=1)
    hard = np.where(np.linalg.norm(centres - TARGET, axis=1) < 0.03, 20 * YOUNG, YOUNG)
    spreads = []
    for young in (YOUNG, hard):
        solver = SoftBody(body.vertices, body.tetrahedra, young, POISSON, TARGET, held, backend="cpu")
        u = solver.solve(np.array([0.0, 0.0, 0.01]), CERTAIN).vertices - body.vertices
        near = np.linalg.norm(body.vertices - TARGET, axis=1) < 0.025
        spreads.append(float(u[near, 2].std()))
    assert spreads[1] < 0.5 * spreads[0]


def test_a_coarse_patch_still_averages_to_the_target(box):
    body = box((4, 4, 4), SIZE)
    weights = patch_weights(body.vertices, TARGET, 0.001)
    assert weights.sum() == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(weights @ body.vertices, TARGET, atol=1e-6)


def test_a_body_turned_inside_out_tells_a_negative_volume_ratio(soft):
    _, solver = soft
    assert solver.solve(np.array([0.0, 0.0, 3.0]), np.zeros((3, 3))).smallest_j < 0.2


def test_a_broken_mesh_is_refused_at_load(box):
    body = box((2, 2, 2))
    springs = Springs(np.ones(len(body.vertices)), np.ones(len(body.vertices)))
    with pytest.raises(CaseError, match="inverted"):
        SoftBody(body.vertices, body.tetrahedra[:, [1, 0, 2, 3]], YOUNG, POISSON, TARGET, springs, backend="cpu")


def test_the_smallest_volume_ratio_is_that_of_the_moved_vertices(soft):
    body, solver = soft
    solved = solver.solve(np.array([0.004, -0.01, 0.02]), CERTAIN)
    edges = [
        v[body.tetrahedra][:, 1:] - v[body.tetrahedra][:, :1] for v in (solved.vertices.astype(float), body.vertices)
    ]
    ratios = np.linalg.det(edges[0]) / np.linalg.det(edges[1])
    assert solved.smallest_j == pytest.approx(ratios.min(), abs=1e-5)  # single precision of vertices over 15 mm edges
