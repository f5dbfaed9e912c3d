from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinguide.embedding import embed
from twinguide.errors import CaseError


def box(n=4, size=0.1):
    """Return a cube of Kuhn tetrahedra, six to a cell."""
    axis = np.linspace(0, size, n + 1)
    vertices = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1).reshape(-1, 3)
    strides = np.array([(n + 1) ** 2, n + 1, 1])
    cells = np.stack(np.meshgrid(*[np.arange(n)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) @ strides
    paths = [(0, 1, 2), (1, 2, 0), (2, 0, 1), (0, 2, 1), (1, 0, 2), (2, 1, 0)]
    tetrahedra = []
    for a, b, c in paths:
        steps = np.cumsum([0, strides[a], strides[b], strides[c]])
        tetrahedra.append(cells[:, None] + steps)
    tetrahedra = np.concatenate(tetrahedra).astype(np.int32)
    corners = vertices[tetrahedra]
    negative = np.linalg.det(corners[:, 1:] - corners[:, :1]) < 0
    tetrahedra[negative] = tetrahedra[negative][:, [0, 2, 1, 3]]
    return SimpleNamespace(vertices=vertices, tetrahedra=tetrahedra)


BODY = box()
RNG = np.random.default_rng(0)
INSIDE = RNG.uniform(0.0, 0.1, (500, 3))
OUTSIDE = np.concatenate([RNG.uniform(0.1001, 0.13, (100, 3)), RNG.uniform(-0.03, -0.0001, (100, 3))])


def test_points_are_reproduced_at_rest_wherever_they_lie():
    for points in (INSIDE, OUTSIDE, BODY.vertices):
        np.testing.assert_allclose(embed(BODY, points).apply(BODY.vertices), points, atol=1e-15)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(-0.3, 0.3), min_size=12, max_size=12))
def test_points_inside_follow_any_affine_motion_exactly(numbers):
    gradient, shift = np.array(numbers[:9]).reshape(3, 3), np.array(numbers[9:])
    moved = embed(BODY, INSIDE).apply(BODY.vertices + BODY.vertices @ gradient.T + shift)
    np.testing.assert_allclose(moved, INSIDE + INSIDE @ gradient.T + shift, atol=1e-12)


def test_points_outside_keep_their_offset_under_translation():
    embedding = embed(BODY, OUTSIDE)
    assert embedding.outside().all()
    shift = np.array([0.01, -0.02, 0.005])
    np.testing.assert_allclose(embedding.apply(BODY.vertices + shift), OUTSIDE + shift, atol=1e-15)


def test_a_point_outside_never_moves_further_than_the_body():
    moves = RNG.normal(0, 0.005, BODY.vertices.shape)
    moved = embed(BODY, OUTSIDE * 3).apply(BODY.vertices + moves) - OUTSIDE * 3
    assert np.linalg.norm(moved, axis=1).max() <= np.linalg.norm(moves, axis=1).max() + 1e-12


def test_weights_are_a_partition_of_unity_and_single_precision_vertices_pass():
    embedding = embed(BODY, np.concatenate([INSIDE, OUTSIDE]))
    np.testing.assert_allclose(embedding.weights.sum(axis=1), 1.0, atol=1e-12)
    assert embedding.weights.min() >= 0
    assert not embed(BODY, INSIDE).outside().any()
    single = embedding.apply(BODY.vertices.astype(np.float32))
    np.testing.assert_allclose(single[: len(INSIDE)], INSIDE, atol=1e-8)  # 24 bits of 0.1 m


def test_a_long_thin_neighbour_does_not_hide_the_tetrahedron_that_holds_the_point():
    # Sixty tiny tetrahedra crowd around the point; the huge one that holds it has its centroid far away.
    huge = np.array([[0.0, 0, 0], [1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]])
    small = np.concatenate([0.02 * huge + [-0.03 - 0.02 * k, 0, 0] for k in range(60)])
    body = SimpleNamespace(
        vertices=np.concatenate([huge, small]), tetrahedra=np.arange(244, dtype=np.int32).reshape(61, 4)
    )
    embedding = embed(body, np.array([[0.01, 0.01, 0.01]]))
    assert set(embedding.indices[0]) == {0, 1, 2, 3}
    assert not embedding.outside().any()


@pytest.mark.parametrize("points", [np.zeros((3, 2)), np.array([[0.0, np.nan, 0.0]])])
def test_points_that_are_not_usable_are_refused(points):
    with pytest.raises(CaseError, match="finite points"):
        embed(BODY, points)
