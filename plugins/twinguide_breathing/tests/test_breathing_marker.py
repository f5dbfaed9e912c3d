import numpy as np
import pytest

from twinguide import Pose, Transform
from twinguide.frames import rotation_from_vector
from twinguide_breathing.marker import ReferenceFilter, locate_chest

SIGMA = np.array([6e-3, 6e-3, 2e-3, 1e-4, 1e-4, 4e-4])  # of one exposure: 6 mrad and 0.4 mm
TRUE = Transform.of("tracker", "reference", rotation_from_vector(np.array([0.2, -2.0, 0.4])), np.array([0.1, 0.2, 1.4]))


def seen(rng, true=TRUE, t_ns=0):
    delta = rng.normal(size=6) * SIGMA
    noise = Transform.of("reference", "reference", rotation_from_vector(delta[:3]), delta[3:])
    return Pose(true @ noise, t_ns, np.diag(SIGMA**2))


def test_filtering_takes_the_levered_noise_away_as_the_root_of_the_count():
    point = np.array([0.25, 0.1, 0.0])  # 27 cm from the reference: 6 mrad are 1.6 mm there
    errors = []
    for seed in range(60):
        rng, reference = np.random.default_rng(seed), ReferenceFilter(window_s=2.0)
        for _ in range(120):
            filtered = reference.add(seen(rng))
        errors.append(filtered.transform.inverse().apply(TRUE.apply(point)) - point)
        promised = filtered.inverse().point_covariance(TRUE.apply(point))
    rms = np.sqrt(np.mean(np.square(errors), axis=0))
    np.testing.assert_allclose(rms, np.sqrt(np.diag(promised)), rtol=0.25)  # 60 draws: 9 % each, 2.7 sigma
    assert np.linalg.norm(rms) < 2.5e-4


def test_a_single_odd_pose_is_passed_over():
    rng, reference = np.random.default_rng(0), ReferenceFilter(window_s=1.0)
    for _ in range(60):
        before = reference.add(seen(rng)).transform
    odd = Transform.of("tracker", "reference", TRUE.rotation, TRUE.translation + 0.05)
    after = reference.add(Pose(odd, 0, np.diag(SIGMA**2))).transform
    np.testing.assert_array_equal(after.matrix, before.matrix)


def test_a_reference_that_has_truly_moved_is_followed_within_a_sixth_of_a_second():
    rng, reference = np.random.default_rng(1), ReferenceFilter(window_s=3.0)
    for _ in range(180):
        reference.add(seen(rng))
    moved = Transform.of("tracker", "reference", TRUE.rotation, TRUE.translation + np.array([0.0, 0.01, 0.0]))
    for _ in range(10):
        filtered = reference.add(seen(rng, moved))
    assert np.linalg.norm(filtered.transform.translation - moved.translation) < 3e-3


def test_the_chest_is_told_in_reference_with_its_covariance_turned():
    chest = Transform.of("tracker", "chest", rotation_from_vector(np.array([1.0, 0, 0])), np.array([0.3, 0.1, 1.3]))
    own = np.diag([0, 0, 0, 1e-8, 4e-8, 9e-8])
    sample = locate_chest(Pose(TRUE, 7, np.zeros((6, 6))), Pose(chest, 7, own))
    np.testing.assert_allclose(sample.position, TRUE.inverse().apply(chest.translation), atol=1e-12)
    turn = TRUE.rotation.T @ chest.rotation
    np.testing.assert_allclose(sample.covariance, turn @ own[3:, 3:] @ turn.T, atol=1e-15)
    np.testing.assert_allclose(sample.baseline_covariance, 0.0, atol=1e-15)


def test_the_uncertain_reference_moves_a_far_chest_more_than_a_near_one():
    near, far = (
        locate_chest(
            Pose(TRUE, 0, np.diag(SIGMA**2)),
            Pose(TRUE @ Transform.of("reference", "chest", None, np.array([d, 0.0, 0.0])), 0, np.zeros((6, 6))),
        )
        for d in (0.05, 0.5)
    )
    assert np.trace(far.baseline_covariance) > 20 * np.trace(near.baseline_covariance)
    assert np.sqrt(far.baseline_covariance[2, 2]) == pytest.approx(np.hypot(0.5 * 6e-3, 4e-4), rel=1e-6)
