import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinguide.errors import CaseError
from twinguide_softbody import constraints, mesh
from twinguide_softbody.constraints import FREE_SIGMA_M, Surroundings
from twinguide_softbody.measured import Steadiness

VERTICES, TETRAHEDRA = mesh.block(4, 0.1)
CENTRE = np.array([[0.04, 0.05, 0.06]])
SURE = np.eye(3)[None] * 1e-6


def measured(rest, mean, covariance=SURE, radius_m=0.0):
    return constraints.points_of(VERTICES, TETRAHEDRA, rest, mean, covariance, radius_m)


def test_a_spring_halves_the_way_where_the_sensor_is_as_unsure_as_the_organ_is_free():
    # A point of compliance c on a spring k = e/s^2 goes to d k/(1/c + k) = d e c/(e c + s^2).
    compliance = np.eye(3) * 2e-3
    energy = constraints.energy_scale(compliance)
    for sigma, share in ((FREE_SIGMA_M, 0.5), (FREE_SIGMA_M / 10, 1 / 1.01)):
        (spring,) = constraints.stiffness(np.eye(3)[None] * sigma**2, energy)
        assert spring[0, 0] / (1 / 2e-3 + spring[0, 0]) == pytest.approx(share)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=9, max_size=9), st.floats(0.001, 1.0))
def test_stiffness_is_the_energy_times_the_inverse_covariance(numbers, energy):
    half = np.array(numbers).reshape(3, 3) * 1e-2
    covariance = half @ half.T + np.eye(3) * 1e-6
    (spring,) = constraints.stiffness(covariance[None], energy)
    np.testing.assert_allclose(spring @ covariance, np.eye(3) * energy, atol=1e-6 * energy)


def test_certainty_is_bounded():
    (spring,) = constraints.stiffness(np.diag([1e-6, 1.0, 0.0])[None], 1.0)
    np.testing.assert_allclose(np.diag(spring), [1e6, 1.0, 1 / constraints.LEAST_SIGMA_M**2])


def test_a_patch_averages_to_its_centre_on_any_mesh():
    for cells, radius in ((2, 0.001), (4, 0.03), (7, 0.02)):
        vertices, _ = mesh.block(cells, 0.1)
        weights = constraints.patch_weights(vertices, CENTRE[0], radius)
        assert weights.sum() == pytest.approx(1.0, abs=1e-6)
        np.testing.assert_allclose(weights @ vertices, CENTRE[0], atol=1e-6)


def test_the_surface_is_held_by_its_area_whatever_the_mesh():
    for cells in (2, 5):
        held = constraints.surroundings(*mesh.block(cells, 0.1), 5e3, Surroundings(dome=3.0, rest=1.0))
        dome, rest = held
        # The top is the dome, bottom and back (+y) are the rest: stiffness per area is the modulus over the size.
        assert dome.stiffness.sum() == pytest.approx(3 * 5e3 / 0.1 * 0.01)
        assert rest.stiffness.sum() == pytest.approx(2 * 5e3 / 0.1 * 0.01)


def test_what_is_not_held_has_no_springs():
    assert constraints.surroundings(VERTICES, TETRAHEDRA, 5e3, Surroundings(dome=0.0, rest=0.0)) == []


def test_points_ride_in_their_tetrahedra():
    rest = np.array([[0.013, 0.021, 0.07], [0.05, 0.05, 0.05]])
    points = measured(rest, rest, np.repeat(SURE, 2, axis=0))
    np.testing.assert_allclose(points.weights @ VERTICES, rest, atol=1e-12)


@pytest.mark.parametrize(
    ("rest", "mean", "covariance", "reason"),
    [
        (CENTRE, CENTRE[:, :2], SURE, "points .k, 3."),
        (CENTRE, np.full((1, 3), np.nan), SURE, "finite"),
        (CENTRE, CENTRE, -SURE, "negative variance"),
        (CENTRE + np.array([0.07, 0.0, 0.07]), CENTRE, SURE, "mm outside"),
        (CENTRE + 0.2, CENTRE, SURE, "one 0.21 m away"),
    ],
)
def test_a_boundary_condition_that_cannot_be_used_is_refused(rest, mean, covariance, reason):
    with pytest.raises(CaseError, match=reason):
        measured(rest, mean, covariance)


@pytest.mark.parametrize("radius_m", [0.0, 0.02])
@pytest.mark.parametrize("far_m", [1e30, 1e160, 1e308])
def test_places_at_rest_beyond_all_measure_are_refused_before_they_are_weighed(far_m, radius_m):
    with pytest.raises(CaseError, match=f"one {far_m:.3g} m away".replace("+", "[+]")):
        measured(np.full((1, 3), far_m), CENTRE, SURE, radius_m)


def test_a_probe_holds_along_the_normal_and_slides_along_the_skin():
    tip = np.array([0.05, 0.05, 0.092])  # 8 mm into the top
    points = constraints.pressed(VERTICES, TETRAHEDRA, tip, 0.02, 0.0005)
    # The top is flat and far from its edges, whose faces still weigh a little.
    np.testing.assert_allclose(points.rest, [[0.05, 0.05, 0.1]], atol=1e-4)
    np.testing.assert_allclose(points.mean, [tip])
    np.testing.assert_allclose(np.sqrt(np.diag(points.covariance[0])), [0.1, 0.1, 0.0005], rtol=1e-2)
    assert constraints.pressed(VERTICES, TETRAHEDRA, np.array([0.05, 0.05, 0.101]), 0.02, 0.0005) is None


def test_points_that_cannot_both_be_true_are_named_the_surer_first():
    near = CENTRE + np.array([[0.01, 0.0, 0.0]])
    a = measured(CENTRE, CENTRE + np.array([[0.0, 0.0, 0.01]]), SURE)
    stretched = measured(near, near + np.array([[0.0, 0.0, 0.012]]), 4 * SURE)
    torn = measured(near, near + np.array([[0.0, 0.0, -0.03]]), 4 * SURE)
    assert constraints.contradictions([a, stretched]) == []
    assert constraints.contradictions([a, torn]) == [(0, 1)]
    assert constraints.contradictions([torn, a]) == [(1, 0)]
    assert constraints.contradictions([]) == []


def test_far_points_may_differ_by_what_tissue_strains():
    far = CENTRE + np.array([[0.05, 0.0, 0.0]])
    assert (
        constraints.contradictions([measured(CENTRE, CENTRE), measured(far, far + np.array([[0.0, 0.0, -0.03]]))]) == []
    )


def far(steady, *means, rest=(0.0,), own=0.0, along=None):
    """Say how far points on a line [m] have jumped."""
    rest, mean = (np.array([[x, 0.0, 0.0] for x in v]) for v in (rest, means))
    axis = np.array([1.0, 0.0, 0.0])
    return steady.jumps(rest, mean, rest + own * axis, None if along is None else rest + along * axis).round(6).tolist()


def test_a_jump_is_told_and_believed_once_three_inputs_agree():
    steady = Steadiness()
    told = [far(steady, x)[0] for x in (0.0, 0.015, 0.115, 0.115, 0.115, 0.115)]
    assert told == [0.0, 0.0, 0.1, 0.1, 0.0, 0.0]


def test_a_single_wild_input_leaves_no_trace_and_what_is_no_number_never_agrees():
    steady = Steadiness()
    told = [far(steady, x)[0] for x in (0.0, 1.0, 0.0, 1.0, 0.0)]
    assert told == [0.0, 1.0, 0.0, 1.0, 0.0]
    assert all(np.isnan(far(steady, np.nan)[0]) for _ in range(5))
    assert far(steady, 0.0) == [0.0]


def test_each_point_is_known_again_by_its_place_at_rest_whatever_the_count():
    steady = Steadiness()
    assert far(steady, 0.0, 0.05, rest=(0.0, 0.05)) == [0.0, 0.0]
    assert far(steady, 0.05, 0.1, 0.1, rest=(0.05, 0.0, 0.1)) == [0.0, 0.1, 0.0]  # the second is the first of before
    assert far(steady, 0.1, rest=(0.0,)) == [0.1]
    assert far(steady, 0.1, 0.05, rest=(0.0, 0.05)) == [0.0, 0.0]  # agreed on; the other comes anew


def test_a_point_that_is_new_is_measured_against_where_the_body_has_it():
    assert far(Steadiness(), 0.01, 0.03, rest=(0.0, 0.05), own=0.005) == [0.0, 0.025]


def test_most_points_together_are_believed_only_once_the_target_is_with_them():
    rest, moved = (0.0, 0.05, 0.1, 0.15), (0.04, 0.09, 0.14, 0.15)
    for along, told in ((0.0, [0.04, 0.04, 0.04, 0.0]), (0.03, [0.0] * 4)):
        steady = Steadiness()
        far(steady, *rest, rest=rest)
        for _ in range(4):
            last = far(steady, *moved, rest=rest, along=along)
        assert last == told
