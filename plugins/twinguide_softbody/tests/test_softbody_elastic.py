import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import spsolve

from twinguide.errors import CaseError
from twinguide_softbody import elastic

YOUNG, POISSON = 5000.0, 0.45


def test_patch_test_an_affine_boundary_gives_the_affine_interior(box):
    body = box(shake=0.2)
    k = elastic.stiffness(body.vertices, body.tetrahedra, np.full(len(body.tetrahedra), YOUNG), POISSON).tocsr()
    gradient = np.array([[0.02, -0.01, 0.03], [0.0, 0.05, 0.01], [-0.04, 0.02, 0.01]])
    exact = (body.vertices @ gradient.T + [0.001, 0.002, -0.003]).ravel()
    free = np.repeat(body.inner, 3)
    found = spsolve(k[free][:, free].tocsc(), -k[free][:, ~free] @ exact[~free])
    np.testing.assert_allclose(found, exact[free], atol=1e-10)  # linear shape functions hold an affine field exactly


@settings(max_examples=15, deadline=None)
@given(st.lists(st.floats(-0.01, 0.01), min_size=6, max_size=6))
def test_a_small_rigid_motion_costs_no_force(box, numbers):
    body = box(shake=0.2)
    k = elastic.stiffness(body.vertices, body.tetrahedra, np.full(len(body.tetrahedra), YOUNG), POISSON)
    moved = np.array(numbers[:3]) + np.cross(np.array(numbers[3:]), body.vertices)
    assert np.abs(k @ moved.ravel()).max() < 1e-12 * abs(k).max()


def test_stiffness_is_symmetric_and_positive_but_for_six_rigid_motions(box):
    body = box((2, 2, 2), shake=0.2)
    k = elastic.stiffness(body.vertices, body.tetrahedra, np.full(len(body.tetrahedra), YOUNG), POISSON).toarray()
    np.testing.assert_allclose(k, k.T, atol=1e-12 * np.abs(k).max())
    values = np.linalg.eigvalsh(k)
    assert np.abs(values[:6]).max() < 1e-10 * values[-1]
    assert values[6] > 1e-6 * values[-1]


def test_a_hanging_bar_stretches_by_rho_g_l_squared_over_two_e(box):
    length, density, gravity = 0.2, 1000.0, 9.81
    body = box((2, 2, 20), (0.02, 0.02, length))
    k = elastic.stiffness(body.vertices, body.tetrahedra, np.full(len(body.tetrahedra), YOUNG), 0.0).tocsr()
    volumes = elastic.shape_gradients(body.vertices, body.tetrahedra)[1]
    weight = np.zeros_like(body.vertices)
    np.add.at(weight[:, 2], body.tetrahedra.ravel(), np.repeat(-density * gravity * volumes / 4, 4))
    free = np.repeat(body.vertices[:, 2] < length - 1e-9, 3)
    u = np.zeros(3 * len(body.vertices))
    u[free] = spsolve(k[free][:, free].tocsc(), weight.ravel()[free])
    tip = u.reshape(-1, 3)[body.vertices[:, 2] < 1e-9, 2]
    # Nodal values of a one-dimensional bar are exact; the uneven shares of corner nodes leave 1 %.
    assert tip.mean() == pytest.approx(-density * gravity * length**2 / (2 * YOUNG), rel=0.01)


def test_a_stretched_block_pulls_with_the_stress_of_hookes_law(box):
    body = box((3, 3, 3), (0.1, 0.1, 0.1), shake=0.2)
    k = elastic.stiffness(body.vertices, body.tetrahedra, np.full(len(body.tetrahedra), YOUNG), POISSON)
    strain = np.array([[0.01, 0.004, 0.0], [0.004, -0.02, 0.003], [0.0, 0.003, 0.03]])
    force = (k @ (body.vertices @ strain).ravel()).reshape(-1, 3)
    shear, lame = YOUNG / (2 * (1 + POISSON)), YOUNG * POISSON / ((1 + POISSON) * (1 - 2 * POISSON))
    stress = lame * np.trace(strain) * np.eye(3) + 2 * shear * strain
    # A uniform stress loads each vertex of the boundary by stress times its area vector (divergence theorem).
    areas = elastic.vertex_areas(body.vertices, elastic.boundary(body.tetrahedra))
    np.testing.assert_allclose(force, areas @ stress, atol=1e-10)


def test_stiffness_mixes_by_volume_fraction():
    shares = {
        "tumour": np.array([0.0, 0.5, 1.0], dtype=np.float32),
        "cyst": np.array([0.2, 0.0, 0.0], dtype=np.float32),
    }
    young = elastic.mixed_young(5000.0, shares, {"tumour": 20000.0, "cyst": 0.0})
    np.testing.assert_allclose(young, [5000.0, 12500.0, 20000.0])


def test_the_boundary_of_a_box_closes_and_has_its_area(box):
    body = box((3, 2, 2), (0.3, 0.2, 0.1))
    areas = elastic.vertex_areas(body.vertices, elastic.boundary(body.tetrahedra))
    np.testing.assert_allclose(areas.sum(axis=0), 0.0, atol=1e-15)
    top = areas[body.vertices[:, 2] > 0.1 - 1e-9]
    assert top[:, 2].sum() == pytest.approx(0.3 * 0.2)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda v, t: (v, t[:, [1, 0, 2, 3]]), "inverted"),
        (lambda v, t: (np.where(np.arange(len(v))[:, None] == 7, np.nan, v), t), "finite vertices; got vertex 7"),
        (lambda v, t: (v * [1, 1, 1e-5], t), "quality"),
        (lambda v, t: (np.concatenate([v, v + 1.0]), np.concatenate([t, t + len(v)]).astype(np.int32)), "2 pieces"),
        (lambda v, t: (np.concatenate([v, [[1.0, 1.0, 1.0]]]), t), "2 pieces"),
        (lambda v, t: (v, t + 1), "name its vertices"),
        (lambda v, t: (v, t[:0]), "name its vertices"),
        (lambda v, t: (v[:, :2], t), "tetrahedra .m, 4."),
    ],
)
def test_a_mesh_that_cannot_be_solved_on_is_refused_with_the_reason(box, spoil, reason):
    body = box((2, 2, 2))
    elastic.check_mesh(body.vertices, body.tetrahedra)
    with pytest.raises(CaseError, match=reason):
        elastic.check_mesh(*spoil(body.vertices, body.tetrahedra))
