import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinguide.errors import CaseError
from twinguide_softbody import mesh
from twinguide_softbody.body import Body
from twinguide_softbody.mesh import EDGES


@settings(max_examples=20, deadline=None)
@given(st.tuples(*[st.integers(1, 4)] * 3), st.tuples(*[st.floats(0.02, 0.3)] * 3))
def test_a_block_is_filled_without_gap_or_overlap(cells, size):
    vertices, tetrahedra = mesh.block(cells, size)
    assert len(tetrahedra) == 6 * np.prod(cells)
    volumes = mesh.volumes(vertices, tetrahedra)
    assert volumes.min() > 0
    assert volumes.sum() == pytest.approx(np.prod(size))
    faces = mesh.boundary(tetrahedra)
    areas = mesh.face_areas(vertices, faces)
    np.testing.assert_allclose(areas.sum(axis=0), 0.0, atol=1e-15)
    top = (vertices[faces][:, :, 2] > size[2] * (1 - 1e-9)).all(axis=1)
    assert areas[top, 2].sum() == pytest.approx(size[0] * size[1])


def test_a_block_is_accepted_linear_and_quadratic():
    vertices, tetrahedra = mesh.block(3, 0.1)
    mesh.check_mesh(vertices, tetrahedra)
    mesh.check_mesh(*mesh.quadratic(vertices, tetrahedra))


def test_midside_nodes_are_shared_and_lie_halfway():
    vertices, tetrahedra = mesh.quadratic(*mesh.block(3, 0.1))
    assert len(vertices) == 7**3  # every midside node of Kuhn's block lies on the grid of half the spacing, once
    assert len(np.unique(vertices.round(9), axis=0)) == len(vertices)
    ends = vertices[tetrahedra[:, EDGES]]
    np.testing.assert_allclose(vertices[tetrahedra[:, 4:]], ends.mean(axis=2), atol=1e-15)


def test_quality_is_one_for_a_regular_tetrahedron_and_changes_sign_when_inverted():
    regular = np.array([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    assert abs(mesh.quality(regular, np.array([[0, 1, 2, 3]]))[0]) == pytest.approx(1.0)
    assert mesh.quality(regular, np.array([[0, 1, 2, 3], [1, 0, 2, 3]])).sum() == pytest.approx(0.0)


def _hinged(tetrahedra, count):
    """Return the tetrahedra of a second block, whose first vertex is the first one's last."""
    return np.where(tetrahedra == 0, count - 1, tetrahedra + count - 1)


def _outer(tetrahedra):
    """Return a face of the boundary, turned inward."""
    return mesh.boundary(tetrahedra)[0][::-1]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda v, t: (v, t[:, [1, 0, 2, 3]]), "inverted"),
        (lambda v, t: (v, np.vstack([t, t[5, [1, 2, 0, 3]]])), "1 duplicates, first 48"),
        (lambda v, t: (np.where(np.arange(len(v))[:, None] == 7, np.nan, v), t), "finite vertices; got vertex 7"),
        (lambda v, t: (v * [1, 1, 1e-5], t), "slivers"),
        (lambda v, t: (np.concatenate([v, v + 1.0]), np.concatenate([t, t + len(v)]).astype(np.int32)), "2 pieces"),
        (lambda v, t: (np.concatenate([v, v[1:] + 0.1]), np.concatenate([t, _hinged(t, len(v))])), "2 pieces.* hinge"),
        (
            lambda v, t: (np.concatenate([v, [[0.05] * 3]]), np.vstack([t, [*_outer(t), len(v)]])),
            "two on one side",
        ),
        (lambda v, t: (np.concatenate([v, [[0.5, 0.5, 0.5]]]), t), "1 loose, first 27"),
        (lambda v, t: (v, t + 1), "name its vertices"),
        (lambda v, t: (v, t[:0]), "name its vertices"),
        (lambda v, t: (v[:, :2], t), "tetrahedra .m, 4 or 10."),
        (lambda v, t: (v * 1000, t), "in metres"),
    ],
)
def test_a_mesh_that_cannot_be_solved_on_is_refused_with_the_reason(spoil, reason):
    with pytest.raises(CaseError, match=reason):
        mesh.check_mesh(*spoil(*mesh.block(2, 0.1)))


def test_three_tetrahedra_on_one_face_overlap_and_are_refused():
    vertices = np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, -1], [0.1, 0.1, 0.8]]) * 0.1
    tetrahedra = np.array([[0, 1, 2, 3], [0, 2, 1, 4], [0, 1, 2, 5]], dtype=np.int32)
    with pytest.raises(CaseError, match="overlap"):
        mesh.check_mesh(vertices, tetrahedra)


@pytest.mark.parametrize(("turns", "sound"), [(0.9, True), (1.15, False)])
def test_a_ring_that_runs_into_its_own_beginning_overlaps_and_is_refused(turns, sound):
    flat, tetrahedra = mesh.block((24, 2, 2), (1.0, 0.02, 0.02))
    angle, out = 2 * np.pi * turns * flat[:, 0], 0.04 + flat[:, 2]
    vertices = np.stack([out * np.cos(angle), flat[:, 1], -out * np.sin(angle)], axis=1)
    if sound:
        mesh.check_mesh(vertices, tetrahedra)
        return
    with pytest.raises(CaseError, match=r"do not overlap; got .* with their centre in another"):
        mesh.check_mesh(vertices, tetrahedra)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"young_pa": [5e3, np.nan] * 24}, "nan Pa and 0.45 at tetrahedron 1"),
        ({"young_pa": [0.0, 5e3] * 24}, "at tetrahedron 0"),
        ({"young_pa": [1.0, 1e6] * 24}, "1e5 times"),
        ({"young_pa": 1e40}, r"0.001 to 1e\+12 Pa"),
        ({"young_pa": 1e-30}, r"0.001 to 1e\+12 Pa"),
        ({"young_pa": [5e3] * 3}, r"one young_pa, or 48; got shape \(3,\)"),
        ({"poisson": 0.4999}, "Poisson's ratios above -1, 0.4995 at most; got 5000 Pa and 0.4999"),
        ({"poisson": -1.0}, "above -1"),
        ({"gravity": (0.0, 0.0, np.nan)}, "gravity .3,. "),
        ({"gravity": (0.0, -9.81)}, "gravity .3,. "),
        ({"density_kg_m3": -1.0}, "a density .kg/m3. of 0 or more"),
        ({"elements": mesh.block(2, 0.1)[1].astype(float)}, "whole numbers"),
        ({"vertices": mesh.block(2, 0.1)[0] * [1, 1, 1e-5]}, "slivers"),
    ],
)
def test_what_no_body_is_of_is_refused_with_the_reason(given, reason):
    vertices, tetrahedra = mesh.block(2, 0.1)
    with pytest.raises(CaseError, match=reason):
        Body(**{"vertices": vertices, "elements": tetrahedra, "young_pa": 5e3, "poisson": 0.45, **given})
