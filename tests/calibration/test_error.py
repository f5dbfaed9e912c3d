"""How errors show at a point, chains of transforms, and recorded poses before they are used."""

import numpy as np
import pytest

import twinguide_calibration
from twinguide_calibration import (
    CalibrationRefused,
    Link,
    chain_budget,
    check_poses,
    check_stamps,
    covers,
    error_map,
    fitzpatrick_west,
    layout_covariance,
    p95_radius,
    register_points,
    register_similarity,
    tre_p95,
)
from twinguide_calibration.rigid import compose, exponential, inverse, logarithm, perturb, skew

FIDUCIALS = np.array([[60, 0, 0], [-50, 30, 5], [10, 80, -8], [-20, -70, 4], [70, 60, 10], [-65, -30, -12]]) * 1e-3


def test_every_public_name_can_be_had():
    for name in twinguide_calibration.__all__:
        assert getattr(twinguide_calibration, name) is not None


@pytest.mark.parametrize("n", [3, 4, 6, 12, 20])
def test_the_95_percent_radius_holds_95_percent_with_noise_of_unknown_size(n):
    rng = np.random.default_rng(n)
    source = rng.normal(size=(n, 3)) * 0.06
    target = np.array([[0.02, 0.05, -0.1]])
    held = []
    for _ in range(400):
        fit = register_points(source, source + rng.normal(size=(n, 3)) * 2e-4)
        held.append(np.linalg.norm(fit.apply(target) - target) <= tre_p95(fit, target)[0])
    assert 0.91 < np.mean(held) < 0.985  # 400 trials: 95 % +- 3 standard errors of 1.1 %


def test_the_sandwich_predicts_plain_least_squares_under_anisotropic_noise_where_fitzpatrick_west_does_not():
    rng = np.random.default_rng(1)
    tool = np.array([[0, 0, 0], [50, 0, 4], [10, 46, -3]]) * 1e-3
    noise = np.array([1e-4, 1e-4, 4.5e-4])
    tip = np.array([[0.0, -0.1, 0.0]])
    predicted = layout_covariance(tool, np.tile(np.diag(noise**2), (3, 1, 1)))
    errors = [register_points(tool, tool + rng.normal(size=(3, 3)) * noise).apply(tip)[0] - tip[0] for _ in range(3000)]
    measured = np.sqrt(np.mean(np.sum(np.square(errors), axis=1)))
    jacobian = np.concatenate([-skew(tip[0]), np.eye(3)], axis=1)
    assert np.sqrt(np.trace(jacobian @ predicted @ jacobian.T)) == pytest.approx(measured, rel=0.05)
    assert fitzpatrick_west(tool, np.sqrt((noise**2).sum()), tip)[0] < 0.8 * measured


def test_weights_that_are_the_noises_own_give_the_fits_covariance():
    noise = np.tile(np.diag([1e-8, 1e-8, 2e-7]), (6, 1, 1))
    fit = register_points(FIDUCIALS, FIDUCIALS, noise)
    expected = layout_covariance(FIDUCIALS, noise, np.linalg.inv(noise))
    np.testing.assert_allclose(fit.covariance, expected, rtol=1e-6)


def test_a_map_over_a_surface_is_least_amid_the_fiducials():
    fit = register_points(FIDUCIALS, FIDUCIALS + np.random.default_rng(0).normal(size=(6, 3)) * 3e-4)
    line = np.outer(np.linspace(0.0, 0.3, 7), [0.0, 0.0, 1.0])
    assert np.all(np.diff(error_map(fit, line).p95) > 0.0)


@pytest.mark.parametrize("shape", [[1, 1, 1], [1, 0.01, 0.01], [1, 1, 0.01], [3, 2, 1]])
def test_the_radius_of_any_ellipsoid_holds_95_percent(shape):
    draws = np.random.default_rng(0).normal(size=(200_000, 3)) * shape
    radius = p95_radius(np.diag(np.square(shape, dtype=float)))
    assert np.mean(np.linalg.norm(draws, axis=1) < radius) == pytest.approx(0.95, abs=0.006)


def test_a_chains_shares_add_up_and_name_the_worst_link():
    rng = np.random.default_rng(3)
    sigmas = {"tracker": (1e-3, 1e-4), "registration": (1e-4, 3e-4), "tip": (0.0, 2e-4)}
    links = [
        Link(
            name,
            compose(exponential(rng.normal(size=3)), rng.normal(size=3) * 0.3),
            np.diag([turn**2] * 3 + [move**2] * 3) + 1e-18 * np.eye(6),
        )
        for name, (turn, move) in sigmas.items()
    ]
    point = np.array([0.05, 0.0, 0.1])
    budget = chain_budget(links, point)
    truth = np.append(point, 1.0)
    ends = []
    for _ in range(4000):
        end = truth
        for link in reversed(links):
            end = perturb(link.transform, rng.normal(size=6) * np.sqrt(np.diag(link.covariance))) @ end
        ends.append(end[:3])
    np.testing.assert_allclose(np.cov(np.array(ends).T), budget.covariance, atol=0.08 * np.trace(budget.covariance))
    assert sum(share.fraction for share in budget.shares) == pytest.approx(1.0)
    assert max(budget.shares, key=lambda share: share.rms).name == "tracker"


def test_an_inverted_link_carries_its_covariance():
    rng = np.random.default_rng(4)
    link = Link("a_from_b", compose(exponential(rng.normal(size=3)), rng.normal(size=3)), np.diag([1e-6] * 6))
    back = link.inverse("b_from_a")
    there_and_back = chain_budget(
        [Link("twice", back.inverse("a").transform, back.inverse("a").covariance)], np.ones(3)
    )
    np.testing.assert_allclose(there_and_back.covariance, chain_budget([link], np.ones(3)).covariance, rtol=1e-9)


def test_a_scale_is_found_with_its_sigma():
    rng = np.random.default_rng(5)
    turn, held = exponential(np.array([0.3, 1.0, -2.0])), []
    for _ in range(200):
        target = 1.25 * FIDUCIALS @ turn.T + [0.1, 0.2, 0.3] + rng.normal(size=(6, 3)) * 5e-4
        fit = register_similarity(FIDUCIALS, target)
        held.append(covers(np.array([fit.scale - 1.25]), np.array([[fit.scale_sigma**2]]), fit.freedom))
    assert 0.90 < np.mean(held) < 0.995  # 200 trials: 95 % +- 3 standard errors of 1.5 %


@pytest.mark.parametrize("angle", [0.0, 1e-10, 1e-5, 1.0, 3.14159])
def test_logarithm_inverts_exponential(angle):
    vector = angle * np.array([1.0, 2.0, -2.0]) / 3.0
    np.testing.assert_allclose(logarithm(exponential(vector)), vector, atol=1e-9)


def poses(n=20):
    rng = np.random.default_rng(0)
    return compose(exponential(rng.normal(size=(n, 3))), rng.normal(size=(n, 3)))


def test_missing_poses_are_dropped_and_told():
    given = poses()
    given[3], given[7] = np.nan, 0.0
    checked = check_poses(given)
    assert len(checked.kept) == 18
    assert "2 of 20" in checked.notes[0]


def test_rotations_off_by_less_than_a_thousandth_are_projected_and_told():
    given = poses()
    given[:, :3, :3] *= 1.0003
    checked = check_poses(given)
    assert "orthonormal" in checked.notes[0]
    turned = checked.matrices[:, :3, :3]
    np.testing.assert_allclose(turned @ np.swapaxes(turned, 1, 2), np.broadcast_to(np.eye(3), (20, 3, 3)), atol=1e-12)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: p * np.array([[1.01] * 3 + [1]] * 3 + [[1] * 4]), "orthonormal"),
        (lambda p: p @ np.diag([1.0, 1.0, -1.0, 1.0]), "mirror image"),
        (lambda p: p + 3e2 * np.eye(4, k=3), "millimetres"),
        (lambda p: np.swapaxes(p, 1, 2), "transpose"),
        (lambda p: p[:0], "at least"),
        (lambda p: p[:, :3], "shape"),
        (lambda p: p * np.nan, "at least"),
    ],
)
def test_what_is_no_rigid_pose_is_refused(spoil, message):
    with pytest.raises(CalibrationRefused, match=message):
        check_poses(spoil(poses()))


def test_refusals_count_rows_from_one_whatever_was_left_out_before():
    given = poses(100)
    given[:5], given[20, 3, 0] = np.nan, 0.1
    with pytest.raises(CalibrationRefused, match=r"in row 21\."):
        check_poses(given)


def test_stamps_are_put_right_where_they_may_be_and_refused_where_not():
    times = np.arange(100.0)
    times[5] = times[4]
    times[50] = 20.0
    stamps = check_stamps(times)
    assert len(stamps.kept) == 98
    assert "1 repeated" in stamps.notes[0]
    assert "backwards" in stamps.notes[1]
    with pytest.raises(CalibrationRefused, match="backwards"):
        check_stamps(times[::-1])
    with pytest.raises(CalibrationRefused, match="equal"):
        check_stamps(np.ones(10))
    with pytest.raises(CalibrationRefused, match="finite"):
        check_stamps(np.array([]))


def test_inverse_undoes():
    np.testing.assert_allclose(inverse(poses()) @ poses(), np.broadcast_to(np.eye(4), (20, 4, 4)), atol=1e-12)


def test_a_few_rows_that_are_no_poses_are_left_out_and_told_and_more_are_refused():
    given = poses(100)
    given[3, :3, :3] *= 1.01
    given[50, :3, 3] = 400.0
    checked = check_poses(given)
    assert set(range(100)) - set(checked.kept.tolist()) == {3, 50}
    assert "2 rows not rigid (worst off by 0.02) or farther than 30 m, left out" in checked.notes[0]
    given[:6, :3, 3] = 400.0
    with pytest.raises(CalibrationRefused, match="millimetres taken for metres"):
        check_poses(given)


def test_three_looks_from_about_the_origin_are_stations_like_others():
    for seed in range(100):
        rng = np.random.default_rng(seed)
        places = rng.uniform(-0.3, 0.3, (12, 3))
        places[:3] = rng.normal(size=(3, 3)) * 3e-3
        given = compose(exponential(rng.uniform(-0.5, 0.5, (12, 3))), places)
        assert len(check_poses(given).matrices) == 12
        far = given[:, :3, 3] + [0.6, 0.0, 0.4]
        far[::3] *= 1e-3
        given[:, :3, 3] = far
        with pytest.raises(CalibrationRefused, match="Millimetres and metres are mixed"):
            check_poses(given)
