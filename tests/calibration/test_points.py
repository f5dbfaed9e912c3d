"""Point registration against analytic truth and Monte Carlo."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from twinguide_calibration import CalibrationRefused, align_points, register_layouts, register_points, tre_covariance

FIDUCIALS = np.array([[60, 0, 0], [-50, 30, 5], [10, 80, -8], [-20, -70, 4], [70, 60, 10], [-65, -30, -12]]) * 1e-3
TOOL = np.array([[0, 0, 0], [50, 0, 4], [10, 46, -3], [-34, 22, 12]]) * 1e-3
ANISOTROPIC = np.diag([0.1e-3, 0.1e-3, 0.45e-3]) ** 2


def rigid(seed):
    rng = np.random.default_rng(seed)
    return Rotation.random(random_state=seed).as_matrix(), rng.normal(size=3)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), n=st.integers(3, 12))
def test_exact_points_give_the_exact_transform(seed, n):
    rotation, translation = rigid(seed)
    source = np.random.default_rng(seed).normal(size=(n, 3)) * 0.1
    fit = register_points(source, source @ rotation.T + translation, np.tile(ANISOTROPIC, (n, 1, 1)))
    # 1e-9: float64 over metres, well under a nanometre
    np.testing.assert_allclose(fit.rotation, rotation, atol=1e-9)
    np.testing.assert_allclose(fit.translation, translation, atol=1e-9)
    assert fit.fre_rms < 1e-9


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_moving_the_target_frame_moves_the_fit_with_it(seed):
    rng = np.random.default_rng(seed)
    target = FIDUCIALS + rng.normal(size=FIDUCIALS.shape) * 1e-3
    turn, shift = rigid(seed + 1)
    covariances = np.tile(ANISOTROPIC, (6, 1, 1))
    first = register_points(FIDUCIALS, target, covariances)
    moved = register_points(FIDUCIALS, target @ turn.T + shift, turn @ covariances @ turn.T)
    np.testing.assert_allclose(moved.rotation, turn @ first.rotation, atol=1e-7)
    np.testing.assert_allclose(moved.covariance, first.covariance, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("seed", range(20))
def test_noisy_planar_points_never_give_a_reflection(seed):
    plane = TOOL * [1, 1, 0]
    noise = np.random.default_rng(seed).normal(size=plane.shape) * 1e-3
    assert np.linalg.det(register_points(plane, plane + noise).rotation) == pytest.approx(1.0)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(4, 12),
    flat=st.sampled_from([0.0, 0.05, 1.0]),
    noise=st.sampled_from([0.0, 1e-3, 0.1]),
    mirror=st.sampled_from([1.0, -1.0]),
)
def test_bare_alignment_is_the_least_squares_rotation_of_an_svd(seed, n, flat, noise, mirror):
    rng = np.random.default_rng(seed)
    turn, shift = rigid(seed)
    source = rng.normal(size=(n, 3)) * [0.1, 0.07, 0.05 * flat]
    target = (source * [1.0, 1.0, mirror]) @ turn.T + shift + rng.normal(size=(n, 3)) * noise
    weights = rng.uniform(0.5, 2.0, n)
    for points in (source, target):  # by chance on a line: refused
        extents = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
        assume(extents[1] > 0.02 * extents[0])
    about_s, about_t = weights @ source / weights.sum(), weights @ target / weights.sum()
    rotation, translation = align_points(source, target, weights)
    values = np.linalg.svd((weights[:, None] * (target - about_t)).T @ (source - about_s), compute_uv=False)
    wanted = Rotation.align_vectors(target - about_t, source - about_s, weights)[0].as_matrix()
    # rounding, grown by how little holds the turn: the two smaller values, of which the last counts against it mirrored
    held = max((values[1] - values[2]) / values[0], 1e-4)
    np.testing.assert_allclose(rotation, wanted, atol=1e-13 / held)
    np.testing.assert_allclose(translation, about_t - wanted @ about_s, atol=1e-13 / held)


def test_a_mirrored_ball_of_points_still_gets_a_rotation():
    axes = np.concatenate([np.eye(3), -np.eye(3)]) * 0.1
    rotation, _ = align_points(axes, -axes)
    assert np.linalg.det(rotation) == pytest.approx(1.0)
    # every turn by half about any axis leaves the least that can be left: 4/3 of the points' square
    assert np.sum((-axes - axes @ rotation.T) ** 2) == pytest.approx(4.0 / 3.0 * np.sum(axes**2))


def test_mirrored_points_are_refused_as_swapped_axes():
    with pytest.raises(CalibrationRefused, match=r"reflection.*axes"):
        register_points(FIDUCIALS, FIDUCIALS[:, [1, 0, 2]] + np.random.default_rng(0).normal(size=(6, 3)) * 1e-4)


@pytest.mark.parametrize("bad", [np.full((6, 3), np.inf), FIDUCIALS[:4], FIDUCIALS.ravel(), FIDUCIALS[:2]])
def test_bare_alignment_refuses_what_cannot_carry_it(bad):
    with pytest.raises(CalibrationRefused):
        align_points(bad, FIDUCIALS)


def test_millimetres_against_metres_are_refused():
    with pytest.raises(CalibrationRefused, match="1000 times as large"):
        register_points(FIDUCIALS, FIDUCIALS * 1e3)


@pytest.mark.parametrize(
    ("layout", "point"), [(FIDUCIALS, [0.0, 0.02, -0.1]), (TOOL, [0.0, 0.0, -0.18]), (TOOL[:3], [0.0, 0.0, -0.1])]
)
def test_predicted_tre_is_within_five_percent_of_monte_carlo_under_anisotropic_noise(layout, point):
    trials, n = 6000, len(layout)
    rotation, translation = rigid(3)
    rng = np.random.default_rng(4)
    noise = rng.normal(size=(trials, n, 3)) * np.sqrt(np.diag(ANISOTROPIC))
    target = layout @ rotation.T + translation + noise
    source = np.broadcast_to(layout, target.shape)
    fits = register_layouts(source, target, np.tile(ANISOTROPIC, (trials, n, 1, 1)))
    truth = rotation @ point + translation
    errors = np.array([fit.apply(np.array(point)) for fit in fits]) - truth
    measured = np.sqrt((errors**2).sum(axis=1).mean())
    predicted = np.mean([np.trace(tre_covariance(fit, np.array([point]))[0]) for fit in fits]) ** 0.5
    assert predicted == pytest.approx(measured, rel=0.05)  # the project's figure; Monte Carlo itself is good to 1 %


def test_predicted_covariance_is_shaped_as_monte_carlo_finds_it():
    rotation, translation = rigid(8)
    rng = np.random.default_rng(9)
    noise = rng.normal(size=(6000, 6, 3)) * np.sqrt(np.diag(ANISOTROPIC))
    target = FIDUCIALS @ rotation.T + translation + noise
    fits = register_layouts(np.broadcast_to(FIDUCIALS, target.shape), target, np.tile(ANISOTROPIC, (6000, 6, 1, 1)))
    delta = np.array(
        [
            [*Rotation.from_matrix(f.rotation.T @ rotation).as_rotvec(), *f.rotation.T @ (translation - f.translation)]
            for f in fits
        ]
    )
    whitened = np.einsum("ki,kij,kj->k", delta, np.linalg.inv([f.covariance for f in fits]), delta)
    assert whitened.mean() == pytest.approx(6.0, rel=0.05)  # chi-square with 6 degrees of freedom
    assert np.mean([f.misfit for f in fits]) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("turns", [0.0, 0.7])
def test_an_error_that_all_points_share_is_in_the_fit_and_its_covariance(turns):
    rng = np.random.default_rng(12)
    rotation, translation = rigid(8)
    point, own, tip = np.array([0.0, 0.02, -0.1]), 3e-4, 2e-4
    truth, distances, naive = rotation @ point + translation, [], []
    for _ in range(2000):
        held = Rotation.from_rotvec(turns * rng.normal(size=(6, 3))).as_matrix()  # how the tool was held at each touch
        shared = tip * held
        noise = own * rng.normal(size=(6, 3)) + shared @ rng.normal(size=3)
        target = FIDUCIALS @ rotation.T + translation + noise
        covariances = own**2 * np.eye(3) + shared @ shared.transpose(0, 2, 1)
        for fit, into in (
            (register_points(FIDUCIALS, target, covariances, shared), distances),
            (register_points(FIDUCIALS, target, covariances), naive),
        ):
            error = fit.apply(point) - truth
            into.append(error @ np.linalg.solve(tre_covariance(fit, point[None])[0], error))
    assert np.mean(distances) == pytest.approx(3.0, rel=0.06)  # chi-square with 3 degrees of freedom; good to 2 %
    assert np.mean(np.array(distances) < 7.815) > 0.935
    assert np.mean(naive) > 1.15 * np.mean(distances)


def test_shared_errors_give_the_generalised_least_squares_of_the_whole_covariance():
    rng = np.random.default_rng(13)
    shared = 2e-4 * Rotation.random(6, rng=rng).as_matrix()
    target = FIDUCIALS + 3e-4 * rng.normal(size=(6, 3)) + shared @ rng.normal(size=3)
    fit = register_points(FIDUCIALS, target, 9e-8 * np.eye(3) + shared @ shared.transpose(0, 2, 1), shared)
    flat = shared.reshape(18, 3)
    weights = np.linalg.inv(9e-8 * np.eye(18) + flat @ flat.T)

    def cost(delta):
        turn = fit.rotation @ Rotation.from_rotvec(delta[:3]).as_matrix()
        residual = (target - FIDUCIALS @ turn.T - fit.translation - fit.rotation @ delta[3:]).ravel()
        return residual @ weights @ residual

    least, sigma = cost(np.zeros(6)), np.sqrt(np.diag(fit.covariance))
    information = np.linalg.inv(fit.covariance)
    for k, axis in enumerate(np.eye(6)):  # a parabola along each axis, its curvature the information's
        up, down = (cost(sign * sigma * axis) - least for sign in (1.0, -1.0))
        assert (up + down) / 2 == pytest.approx(information[k, k] * sigma[k] ** 2, rel=0.02)
        assert abs(up - down) / (2 * (up + down)) < 0.01  # [sigma] from the fit to the minimum
    assert fit.misfit == pytest.approx(least / 12, rel=1e-3)


def test_shared_errors_larger_than_the_covariance_that_contains_them_are_refused():
    shared = np.tile(1e-3 * np.eye(3), (6, 1, 1))
    with pytest.raises(CalibrationRefused, match="less what all share, is not positive definite"):
        register_points(FIDUCIALS, FIDUCIALS, np.tile(1e-8 * np.eye(3), (6, 1, 1)), shared)
    with pytest.raises(CalibrationRefused, match=r"wanted finite shared errors of shape \(6, 3\) and k"):
        register_points(FIDUCIALS, FIDUCIALS, np.tile(1e-5 * np.eye(3), (6, 1, 1)), shared[:5])
    with pytest.raises(CalibrationRefused, match="covariances beside what their errors share"):
        register_points(FIDUCIALS, FIDUCIALS, None, shared)


def test_target_covariance_is_the_jacobians_whole_product():
    rng = np.random.default_rng(2)
    fit = register_points(FIDUCIALS + 0.2, FIDUCIALS @ rigid(6)[0].T + rng.normal(size=(6, 3)) * 1e-3)
    point, step = np.array([0.1, -0.2, 0.3]), 1e-6

    def moved(delta):
        turned = Rotation.from_rotvec(delta[:3]).as_matrix() @ point + delta[3:]
        return fit.rotation @ turned + fit.translation

    jacobian = np.column_stack([(moved(step * e) - moved(-step * e)) / (2 * step) for e in np.eye(6)])
    expected = jacobian @ fit.covariance @ jacobian.T
    np.testing.assert_allclose(tre_covariance(fit, point[None])[0], expected, rtol=1e-6, atol=1e-12)


def test_weights_beat_none_under_anisotropic_noise():
    rotation, translation = rigid(3)
    noise = np.random.default_rng(5).normal(size=(800, 6, 3)) * np.sqrt(np.diag(ANISOTROPIC))
    target = FIDUCIALS @ rotation.T + translation + noise
    source = np.broadcast_to(FIDUCIALS, target.shape)
    point = np.array([0.0, 0.0, -0.1])
    truth = rotation @ point + translation
    rms = [
        np.sqrt(np.mean([((f.apply(point) - truth) ** 2).sum() for f in register_layouts(source, target, c)]))
        for c in (None, np.tile(ANISOTROPIC, (800, 6, 1, 1)))
    ]
    assert rms[1] < 0.97 * rms[0]  # the same noise for both, so 800 trials tell 4 % from none


def test_noise_size_is_estimated_where_no_covariance_is_given():
    rng = np.random.default_rng(1)
    target = FIDUCIALS + rng.normal(size=(3000, 6, 3)) * 0.3e-3
    fits = register_layouts(np.broadcast_to(FIDUCIALS, target.shape), target)
    point = np.array([[0.0, 0.0, -0.1]])
    measured = np.mean([((f.apply(point) - point) ** 2).sum() for f in fits])
    predicted = np.mean([np.trace(tre_covariance(f, point)[0]) for f in fits])
    assert predicted == pytest.approx(measured, rel=0.1)  # squares: twice the 5 % of the rms


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (FIDUCIALS[:2], "at least 3"),
        (np.outer([0.0, 1.0, 2.0, 3.0], [0.05, 0.02, 0.01]), "on a line"),
        (np.ones((4, 3)), "coincide"),
        (np.where(np.eye(4, 3) > 0, np.nan, TOOL), "finite"),
        (np.zeros((4, 2)), "shape"),
    ],
)
def test_points_that_cannot_carry_a_fit_are_refused(source, reason):
    with pytest.raises(CalibrationRefused, match=reason):
        register_points(source, source)


def test_nearly_collinear_points_are_refused_for_their_noise():
    source = np.array([[0, 0, 0], [30, 0, 0], [60, 0, 0], [90, 1.5, 0]]) * 1e-3
    covariances = np.tile(np.eye(3) * 1e-3**2, (4, 1, 1))
    with pytest.raises(CalibrationRefused, match="rotation unknown"):
        register_points(source, source, covariances)


def test_a_covariance_that_is_not_positive_definite_is_refused():
    with pytest.raises(CalibrationRefused, match="positive definite"):
        register_points(TOOL, TOOL, np.zeros((4, 3, 3)))
