import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from twinguide.errors import FrameError
from twinguide.frames import (
    Pose,
    Transform,
    largest_variance,
    p95_from_covariance,
    pose_covariance,
    quaternion_from_rotation,
    rotation_from_quaternion,
    rotation_from_vector,
    vector_from_rotation,
)

vectors = arrays(np.float64, 3, elements=st.floats(-3.0, 3.0))


def transform(target, source, turn, shift):
    return Transform.of(target, source, rotation_from_vector(turn), shift)


def test_a_pose_s_covariance_has_the_rotation_before_the_translation():
    np.testing.assert_allclose(pose_covariance(0.1, 0.002), np.diag([0.01] * 3 + [4e-6] * 3), rtol=1e-12)


@given(vectors, vectors)
def test_a_transform_and_its_inverse_cancel(turn, shift):
    a_from_b = transform("a", "b", turn, shift)
    identity = a_from_b @ a_from_b.inverse()
    assert (identity.target, identity.source) == ("a", "a")
    np.testing.assert_allclose(identity.matrix, np.eye(4), atol=1e-12)


@given(vectors)
def test_a_rotation_survives_its_quaternion_and_its_vector(turn):
    rotation = rotation_from_vector(turn)
    np.testing.assert_allclose(rotation_from_quaternion(quaternion_from_rotation(rotation)), rotation, atol=1e-12)
    np.testing.assert_allclose(rotation_from_vector(vector_from_rotation(rotation)), rotation, atol=1e-9)


def test_a_quarter_turn_about_z_maps_x_to_y():
    a_from_b = transform("a", "b", np.array([0.0, 0.0, np.pi / 2]), np.array([1.0, 0.0, 0.0]))
    np.testing.assert_allclose(a_from_b.apply(np.array([1.0, 0.0, 0.0])), [1.0, 1.0, 0.0], atol=1e-15)


def test_transforms_that_do_not_meet_are_refused_by_name():
    with pytest.raises(FrameError, match="tracker_from_needle @ image_from_reference"):
        Transform.of("tracker", "needle") @ Transform.of("image", "reference")


@pytest.mark.parametrize(
    "matrix",
    [np.diag([1.0, 1.0, -1.0, 1.0]), np.diag([2.0, 2.0, 2.0, 1.0]), np.full((4, 4), np.nan), np.eye(3)],
    ids=["mirrored", "scaled", "not a number", "3x3"],
)
def test_what_is_not_rigid_is_refused(matrix):
    with pytest.raises(FrameError, match="a_from_b"):
        Transform("a", "b", matrix)


def test_a_chained_covariance_agrees_with_sampling():
    rng = np.random.default_rng(4)
    a = transform("a", "b", rng.normal(size=3), rng.normal(size=3))
    b = transform("b", "c", rng.normal(size=3), rng.normal(size=3))
    sigma_a, sigma_b = np.diag([1e-3] * 3 + [2e-3] * 3) ** 2, np.diag([3e-3, 1e-3, 2e-3, 1e-3, 1e-3, 4e-3]) ** 2
    point = np.array([0.1, -0.2, 0.15])
    predicted = (Pose(a, 0, sigma_a) @ Pose(b, 0, sigma_b)).point_covariance(point)

    def disturbed(pose, covariance):
        delta = rng.normal(size=6) * np.sqrt(np.diag(covariance))
        return pose.matrix @ transform("x", "x", delta[:3], delta[3:]).matrix

    homogeneous = np.append(point, 1.0)
    points = np.array([(disturbed(a, sigma_a) @ disturbed(b, sigma_b) @ homogeneous)[:3] for _ in range(20_000)])
    # 20,000 samples know a variance to 1 %; 4 sigma of that
    np.testing.assert_allclose(np.cov(points.T), predicted, atol=0.04 * np.trace(predicted))


def test_an_inverted_covariance_agrees_with_sampling():
    rng = np.random.default_rng(5)
    a = transform("a", "b", rng.normal(size=3), rng.normal(size=3))
    sigma = np.diag([1e-3, 2e-3, 1e-3, 2e-3, 1e-3, 3e-3]) ** 2
    point = np.array([0.3, 0.1, -0.2])
    predicted = Pose(a, 0, sigma).inverse().point_covariance(point)
    deltas = rng.normal(size=(20_000, 6)) * np.sqrt(np.diag(sigma))
    points = np.array(
        [
            (np.linalg.inv(a.matrix @ transform("x", "x", d[:3], d[3:]).matrix) @ np.append(point, 1.0))[:3]
            for d in deltas
        ]
    )
    np.testing.assert_allclose(np.cov(points.T), predicted, atol=0.04 * np.trace(predicted))


@pytest.mark.parametrize("variances", [(1, 1, 1), (1, 0.3, 0.1), (1, 1e-6, 1e-6), (1, 1, 0.01)])
def test_the_95_percent_radius_holds_95_percent(variances):
    rng = np.random.default_rng(6)
    covariance = np.diag(variances) * 1e-6
    radius = p95_from_covariance(covariance)
    inside = np.linalg.norm(rng.normal(size=(200_000, 3)) * np.sqrt(variances) * 1e-3, axis=1) < radius
    assert inside.mean() == pytest.approx(0.95, abs=0.004)  # the approximation's own error


def test_no_error_has_no_radius():
    assert p95_from_covariance(np.zeros((3, 3))) == 0.0


def test_an_absurd_covariance_raises_nothing_and_is_as_large_as_it_is():
    assert p95_from_covariance(np.eye(3) * 1e160) > 1e79
    assert largest_variance(np.diag([1e160, 1.0, 1.0])) > 1e159


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (0, 1), (2, 1)])
def test_a_covariance_that_is_not_finite_exceeds_every_tolerance(number, place):
    covariance = np.eye(3) * 1e-6
    covariance[place] = number
    assert p95_from_covariance(covariance) == np.inf


@given(vectors, st.lists(st.one_of(st.just(1.0), st.floats(0.0, 1.0)), min_size=3, max_size=3))
def test_the_largest_variance_is_the_one_along_the_longest_axis(turn, variances):
    rotation = rotation_from_vector(turn)
    covariance = rotation @ np.diag(variances) @ rotation.T * 1e-6
    # Two equal ones: the arc cosine keeps half of the digits.
    assert largest_variance(covariance) == pytest.approx(max(variances) * 1e-6, rel=1e-7, abs=1e-18)
