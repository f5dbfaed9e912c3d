"""Pivot calibration against analytic truth, coverage of its covariance, planted defects."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from twinguide_calibration import CalibrationRefused, calibrate_pivot, compare_pivots, covers
from twinguide_calibration.weights import biweight, settle_scale, tukey

TIP = np.array([0.01, 0.02, -0.15])
NOISE_RAD = np.radians(0.1)
BENT = np.array([0.012, 0.02, -0.15])


def swing(seed, half_deg=30.0, n=200, noise_m=0.2e-3, noise_rad=NOISE_RAD, tip=TIP):
    """Return poses of a tool swung within a cone about a random place, their tip and pivot."""
    rng = np.random.default_rng(seed)
    lean = np.radians(half_deg) * np.sqrt(rng.uniform(size=n))
    side = rng.uniform(0.0, 2.0 * np.pi, n)
    twist = rng.uniform(-1.0, 1.0, n) * np.radians(half_deg)
    turns = Rotation.random(random_state=seed) * Rotation.from_rotvec(
        np.stack([lean * np.cos(side), lean * np.sin(side), twist], axis=1)
    )
    pivot = rng.normal(size=3) * 0.3
    poses = np.tile(np.eye(4), (n, 1, 1))
    poses[:, :3, :3] = (turns * Rotation.from_rotvec(rng.normal(size=(n, 3)) * noise_rad)).as_matrix()
    poses[:, :3, 3] = pivot - turns.as_matrix() @ tip + rng.normal(size=(n, 3)) * noise_m
    return poses, pivot


@pytest.mark.parametrize("half_deg", [20.0, 40.0, 80.0])
def test_exact_swings_give_the_exact_tip(half_deg):
    poses, pivot = swing(1, half_deg, noise_m=0.0, noise_rad=0.0)
    fit = calibrate_pivot(poses)
    np.testing.assert_allclose(fit.tip, TIP, atol=1e-8)  # float64 over metres, divided by the spread of the cone
    np.testing.assert_allclose(fit.pivot, pivot, atol=1e-8)


@pytest.mark.parametrize("n", [200, 10])
def test_the_95_percent_region_of_tip_and_pivot_covers_the_truth(n):
    held = []
    for seed in range(200):
        poses, pivot = swing(seed, 20.0, n)
        fit = calibrate_pivot(poses, p95_max=1.0)
        held.append(covers(np.concatenate([fit.tip - TIP, fit.pivot - pivot]), fit.covariance, fit.freedom))
    assert 0.90 < np.mean(held) < 0.995  # 200 trials: 95 % +- 3 standard errors of 1.5 %, and what the model lacks


def test_noisy_rotations_do_not_shorten_the_tool():
    errors = [calibrate_pivot(swing(seed, 5.0, n=2000)[0], p95_max=1.0).tip - TIP for seed in range(25)]
    along = np.array(errors) @ (TIP / np.linalg.norm(TIP))
    # Plain least squares is 0.12 mm short here (2 sigma^2 L / alpha^2); the mean of 25 errs by 0.035 mm.
    assert abs(along.mean()) < 0.08e-3


def test_a_tenth_of_wild_poses_is_rejected_and_changes_nothing():
    poses, _ = swing(3)
    wild = np.arange(0, 200, 10)
    spoilt = poses.copy()
    spoilt[wild, :3, 3] += np.random.default_rng(0).normal(size=(20, 3)) * 0.03
    fit = calibrate_pivot(spoilt)
    assert set(wild) <= set(fit.rejected)
    assert np.linalg.norm(fit.tip - calibrate_pivot(poses).tip) < 0.1e-3  # half of one sigma at this cone


def test_a_narrow_cone_is_refused_with_the_swing_that_would_do():
    with pytest.raises(CalibrationRefused, match=r"cone of 6 deg.*Swing to 20 deg or more"):
        calibrate_pivot(swing(2, 6.0)[0])


def test_a_narrow_and_noisy_cone_is_no_tool_that_turns_about_no_point():
    with pytest.raises(CalibrationRefused, match=r"Swing to \d+ deg or more"):
        calibrate_pivot(swing(2, 3.0, noise_m=1e-3)[0])


def test_a_narrow_cone_without_noise_is_refused_for_the_trackers_slow_error():
    with pytest.raises(CalibrationRefused, match="Swing to 20 deg"):
        calibrate_pivot(swing(2, 4.0, noise_m=0.0, noise_rad=0.0)[0])


def test_a_tool_that_does_not_turn_is_refused():
    with pytest.raises(CalibrationRefused, match="hardly turned"):
        calibrate_pivot(np.tile(np.eye(4), (50, 1, 1)))


def test_slow_errors_widen_the_covariance():
    poses, _ = swing(5)
    order = np.argsort(poses[:, 2, 2])
    slow = poses[order].copy()
    slow[:, :3, 3] += 1e-3 * np.sin(np.linspace(0.0, 9.0, 200))[:, None]
    white = poses[order].copy()
    white[:, :3, 3] += 1e-3 / np.sqrt(2) * np.random.default_rng(1).normal(size=(200, 1))
    assert calibrate_pivot(slow, p95_max=1.0).inflation > 4.0
    assert calibrate_pivot(white, p95_max=1.0).inflation < 1.5


def test_a_tip_that_slid_half_way_is_refused_or_told_wide():
    poses, _ = swing(6)
    poses[100:, :3, 3] += [0.02, 0.0, 0.0]
    with pytest.raises(CalibrationRefused):
        calibrate_pivot(poses)


def moved_on(share, **kinds):
    """Return swings of which the last share is of another kind: another tip, or another point."""
    poses, pivot = swing(8)
    later, other = swing(9, tip=kinds.get("tip", TIP))
    k = round(share * len(poses))
    poses[-k:], poses[-k:, :3, 3] = later[-k:], later[-k:, :3, 3] + pivot - other + kinds.get("point", 0.0)
    return poses


@pytest.mark.parametrize("share", [0.2, 0.3, 0.5])
def test_a_tip_that_bent_on_the_way_is_refused_saying_when(share):
    first = round(200 * (1.0 - share))
    with pytest.raises(CalibrationRefused, match=r"agree on another tip, (1\.[89]|2) mm away.*bent") as refused:
        calibrate_pivot(moved_on(share, tip=BENT))
    # half of 2 mm is left where both fit: the place is then known to a few poses
    assert abs(int(str(refused.value).split("between rows ")[1].split()[0]) - first) <= 10


def test_a_tip_that_slipped_onto_another_point_is_told_and_the_others_give_the_tip():
    poses = moved_on(0.2, point=np.array([0.003, 0.0, 0.0]))
    fit = calibrate_pivot(poses)
    assert "40, between rows 161 and 200, agree on another point, 2.9 mm off" in fit.notes[0]
    alone = calibrate_pivot(poses[:160]).tip
    assert np.linalg.norm(fit.tip - alone) < 0.03e-3  # half a sigma: one pose more or less at the limit


def test_two_points_in_one_recording_are_refused_and_named():
    with pytest.raises(CalibrationRefused, match=r"another point.*a recording of its own"):
        calibrate_pivot(moved_on(0.5, point=np.array([0.01, 0.0, 0.0])))


def test_a_tool_put_down_at_the_end_spoils_nothing():
    poses, _ = swing(3)
    poses[170:] = poses[170]
    poses[170:, :3, 3] += np.array([0.1, 0.0, 0.0]) + np.random.default_rng(1).normal(size=(30, 3)) * 0.1e-3
    assert np.linalg.norm(calibrate_pivot(poses).tip - TIP) < 0.1e-3


@pytest.mark.parametrize("slip_m", [0.01, 0.5])
@pytest.mark.parametrize("turned_rad", [0.0, 1e-4, 1e-3])
@pytest.mark.parametrize("still_first", [True, False])
def test_a_tool_that_lay_still_elsewhere_for_most_of_the_time_gives_no_tip(slip_m, turned_rad, still_first):
    swung, _ = swing(8, n=100)
    rng = np.random.default_rng(8)
    still = np.tile(swung[:1], (300, 1, 1))
    still[:, :3, 3] += [slip_m, 0.0, 0.0] + rng.normal(size=(300, 3)) * 0.05e-3
    still[:, :3, :3] = still[:, :3, :3] @ Rotation.from_rotvec(rng.normal(size=(300, 3)) * turned_rad).as_matrix()
    with pytest.raises(CalibrationRefused, match=r"(?i)swing (it|to) 20 deg"):
        calibrate_pivot(np.concatenate([still, swung] if still_first else [swung, still]))


def test_missing_poses_keep_their_rows():
    poses, _ = swing(7)
    poses[[3, 50]] = np.nan
    fit = calibrate_pivot(poses)
    assert np.flatnonzero(np.isnan(fit.residuals)).tolist() == [3, 50]
    assert "2 of 200" in fit.notes[0]


def test_several_divots_agree_and_a_bent_tool_does_not():
    fits = [calibrate_pivot(swing(seed)[0]) for seed in range(4)]
    together = compare_pivots(fits)
    assert together.consistent
    assert np.linalg.norm(together.tip - TIP) < 0.1e-3
    bent = calibrate_pivot(swing(9, tip=BENT)[0])
    assert not compare_pivots([*fits, bent]).consistent


def test_the_sides_reached_are_counted():
    assert calibrate_pivot(swing(1, 40.0)[0]).sides == 8
    assert calibrate_pivot(swing(1, 8.0)[0], p95_max=1.0).sides == 0
    t = np.linspace(0.0, 20.0, 400)
    there_and_back = np.stack([0.5 * np.sin(t), np.zeros(400), 0.5 * np.sin(1.7 * t)], axis=1)  # a plane, and a twist
    poses = np.tile(np.eye(4), (400, 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(there_and_back).as_matrix()
    tip = np.array([0.0, 0.0, -0.15])
    poses[:, :3, 3] = -poses[:, :3, :3] @ tip
    assert calibrate_pivot(poses).sides < 6


def test_divots_near_one_another_share_the_trackers_slow_error():
    poses, _ = swing(1)
    fits = [calibrate_pivot(poses), calibrate_pivot(swing(2)[0])]
    near, far = (compare_pivots([fits[0], replace(fits[1], pivot=fits[0].pivot + away)]) for away in (0.02, 0.2))
    assert far.systematic_p95 == pytest.approx(fits[0].systematic_p95 / np.sqrt(2.0), rel=0.1)
    assert near.systematic_p95 == pytest.approx(fits[0].systematic_p95, rel=0.1)  # the two swings differ by so much


def test_a_tip_that_slips_is_refused_for_that_and_not_for_its_swing():
    poses, _ = swing(3)
    poses[:, 0, 3] += 0.5e-3 * np.sin(np.arange(200) / 15.0)
    with pytest.raises(CalibrationRefused, match=r"the tip slips. Hold it firmly"):
        calibrate_pivot(poses, p95_max=0.5e-3)


def test_many_poses_beyond_the_noise_of_the_others_are_told():
    poses, _ = swing(4)
    poses[::4, :3, 3] += np.random.default_rng(4).normal(size=(50, 3)) * 0.05
    assert any("50 of 200 poses lie beyond the noise" in note for note in calibrate_pivot(poses).notes)


@pytest.mark.filterwarnings("error")
def test_wild_distances_by_a_scale_of_nothing_overflow_nothing():
    squares, kind = np.array([0.0, 1.0, 1e30]), biweight(3)
    assert tukey(squares, kind, 0.0).tolist() == [1.0, 0.0, 0.0]
    assert settle_scale(squares, kind, 0.0, 1) == 0.0
