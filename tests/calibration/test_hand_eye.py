"""Hand-eye and robot-world calibration against truth, coverage, offset in time, planted defects."""

import numpy as np
import pytest
from scipy.signal import lfilter
from scipy.spatial.transform import Rotation

from twinguide_calibration import CalibrationRefused, covers, solve_hand_eye, solve_hand_eye_timed
from twinguide_calibration.rigid import compose, difference, exponential, inverse, perturb

NOISE = (np.radians(0.1), 0.2e-3)


def setting(seed):
    rng = np.random.default_rng(seed)
    x = compose(Rotation.random(random_state=seed).as_matrix(), rng.normal(size=3) * 0.08)
    z = compose(Rotation.random(random_state=seed + 1).as_matrix(), rng.normal(size=3))
    return x, z, rng


def noisy(rng, poses, noise):
    n = len(poses)
    return perturb(poses, np.concatenate([rng.normal(size=(n, 3)) * s for s in noise], axis=1))


def poses(seed, n=60, noise=NOISE, turn=0.5):
    x, z, rng = setting(seed)
    base = Rotation.random(random_state=seed + 2).as_matrix()
    a = compose(base @ exponential(rng.normal(size=(n, 3)) * turn), rng.normal(size=(n, 3)) * 0.3)
    b = inverse(z) @ a @ x
    return noisy(rng, a, noise), noisy(rng, b, noise), x, z


def test_exact_poses_give_exact_transforms():
    a, b, x, z = poses(1, noise=(0.0, 0.0))
    fit = solve_hand_eye(a, b)
    np.testing.assert_allclose(fit.x, x, atol=1e-8)
    np.testing.assert_allclose(fit.z, z, atol=1e-8)


@pytest.mark.parametrize("n", [60, 8])
def test_the_95_percent_region_of_x_and_z_covers_the_truth(n):
    held, rejected = [], 0
    for seed in range(120):
        a, b, x, z = poses(seed, n)
        fit = solve_hand_eye(a, b, p95_max=1.0)
        rejected += len(fit.rejected)
        errors = np.concatenate([difference(x, fit.x), difference(z, fit.z)])
        held.append(covers(errors, fit.covariance, fit.freedom))
    assert np.mean(held) > 0.88  # 120 trials: 95 % - 3 standard errors of 2 %, and what the model lacks
    assert rejected <= 1  # all pairs are sound; by a scale known from few, weights for a known one reject 1 of 200


def test_stated_covariances_are_carried_through_the_lever():
    covariance = np.diag([NOISE[0] ** 2] * 3 + [NOISE[1] ** 2] * 3)
    distances = []
    for seed in range(60):
        a, b, x, z = poses(seed)
        fit = solve_hand_eye(a, b, covariance_a=covariance, covariance_b=covariance)
        errors = np.concatenate([difference(x, fit.x), difference(z, fit.z)])
        distances.append(errors @ np.linalg.solve(fit.covariance, errors))
    assert np.mean(distances) == pytest.approx(12.0, rel=0.16)  # chi-square of 12; 60 trials know its mean to 5 %


def test_a_fifth_of_wrong_pairs_is_rejected():
    a, b, x, _ = poses(4)
    b[:12] = perturb(b[:12], np.random.default_rng(0).normal(size=(12, 6)) * 0.1)
    fit = solve_hand_eye(a, b)
    assert set(range(12)) <= set(fit.rejected)
    assert np.linalg.norm(difference(x, fit.x)[3:]) < 0.5e-3  # three sigma at these poses


@pytest.mark.parametrize("offset", [-0.08, 0.0, 0.13])
def test_the_offset_between_the_clocks_is_found_with_x_and_z(offset):
    x, z, rng = setting(5)
    times = np.arange(0.0, 20.0, 1 / 60)

    def body(t):
        turns = np.stack([0.5 * np.sin(1.1 * t), 0.4 * np.sin(1.7 * t + 1), 0.4 * np.sin(0.9 * t + 2)], axis=1)
        moves = np.stack([0.2 * np.sin(0.8 * t), 0.1 * np.sin(1.3 * t), 0.1 * np.cos(t)], axis=1)
        return compose(exponential(turns), moves)

    a = noisy(rng, body(times), NOISE)
    later = np.arange(0.5, 19.5, 1 / 31)
    b = noisy(rng, inverse(z) @ body(later + offset) @ x, NOISE)
    fit = solve_hand_eye_timed(times, a, later, b)
    assert abs(fit.offset_s - offset) < 4.0 * fit.offset_sigma_s + 1e-4  # 0.1 ms: what linear interpolation bends
    assert fit.offset_sigma_s < 1e-3
    assert np.linalg.norm(difference(x, fit.x)[3:]) < 0.5e-3


def changed(seed, share, *, in_x=(0.0, 0.0, 0.0), in_z=(0.0, 0.0, 0.0), n=120):
    """Return pairs of poses of which the last share is from another X or Z, shifted so [m], and the first X."""
    a, b, x, z = poses(seed, n=n)
    k, (other_x, other_z) = round(share * n), (compose(np.eye(3), np.array(shift)) for shift in (in_x, in_z))
    b[-k:] = noisy(np.random.default_rng(seed), inverse(z @ other_z) @ a[-k:] @ x @ other_x, NOISE)
    return a, b, x


@pytest.mark.parametrize("share", [0.2, 0.35, 0.5])
def test_a_marker_that_moved_on_its_body_is_refused_saying_when(share):
    a, b, _ = changed(6, share, in_x=(0.01, 0.0, 0.0))
    with pytest.raises(CalibrationRefused, match=r"agree on another X, (9|10)\.\d mm.*moved on its body"):
        solve_hand_eye(a, b)


def test_a_tracker_that_was_moved_is_told_and_x_is_that_of_all():
    a, b, x = changed(7, 0.3, in_z=(0.05, 0.0, 0.0))
    fit = solve_hand_eye(a, b)
    assert any("another Z" in note and "X is the same" in note for note in fit.notes)
    assert np.linalg.norm(difference(x, fit.x)[3:]) < 0.5e-3  # three sigma at these poses


def test_pairs_that_are_noisier_for_a_time_are_left_out_and_told_however_many():
    a, b, x, _ = poses(8, n=200)
    b[:90] = noisy(np.random.default_rng(1), b[:90], (np.radians(3.0), 6e-3))
    fit = solve_hand_eye(a, b)
    assert 0.4 * 200 < len(fit.rejected) < 0.5 * 200
    assert any("beyond the noise of the others" in note for note in fit.notes)
    assert covers(difference(x, fit.x), fit.covariance[:6, :6], fit.freedom)


def test_an_error_that_follows_the_pose_and_drifts_widens_the_covariance_though_the_poses_come_in_any_order():
    widened = []
    for seed in range(20):
        a, b, _, _ = poses(seed, n=120)
        lean = 4e-3 * np.sin(np.linspace(0.0, 3.0, 120))[:, None] * a[:, :3, 2]
        widened.append(solve_hand_eye(a, perturb(b, np.hstack([np.zeros((120, 3)), lean]))).inflation)
    assert np.median(widened) > 2.0  # without the drift 1


def test_pairs_just_beyond_the_noise_of_the_others_are_its_tail_and_counted_in():
    held, stated = 0, np.diag(np.repeat([0.1, 0.05], 3) ** 2)
    for seed in range(20):
        a, b, _, _ = poses(seed, n=27)
        rng = np.random.default_rng(seed)
        for rows in (slice(0, 3), slice(10, 16), slice(26, 27)):  # a camera's errors where it stays for a while
            b[rows] = perturb(b[rows], rng.normal(size=6) * np.repeat(NOISE, 3) * 6.0)
        fit = solve_hand_eye(a, b, p95_max=1.0)
        of_all = solve_hand_eye(a, b, covariance_b=stated, p95_max=10.0)  # by noise that leaves none out
        held += bool(covers(difference(of_all.x, fit.x)[3:], fit.covariance[3:6, 3:6], fit.freedom))
    assert held >= 17  # without the tail 6 of 20
    with pytest.raises(CalibrationRefused, match=r"just beyond the noise.*counted in\. Look for what it follows"):
        solve_hand_eye(a, b, p95_max=5e-4)


@pytest.mark.parametrize("swapped", [False, True])
def test_x_and_z_must_both_be_known_where_they_are_used(swapped):
    a, b, _, _ = poses(2, n=12, noise=(np.radians(0.5), 2e-3))
    a, b = (inverse(a), inverse(b)) if swapped else (a, b)  # exchanges x and z
    fit = solve_hand_eye(a, b, p95_max=1.0)
    worse = "X" if fit.x_p95 > fit.z_p95 else "Z"
    with pytest.raises(CalibrationRefused, match=f"{worse} is known to {1e3 * max(fit.x_p95, fit.z_p95):.1f} mm"):
        solve_hand_eye(a, b, p95_max=(fit.x_p95 + fit.z_p95) / 2.0)
    solve_hand_eye(a, b, p95_max=1.01 * max(fit.x_p95, fit.z_p95))


def test_what_z_carries_is_told_in_the_middle_of_the_recorded_places_however_far_its_origin():
    a, b, _, _ = poses(3, n=12, noise=(np.radians(0.15), 5e-4))
    farther = np.eye(4)
    farther[:3, 3] = (0.0, 0.0, 2.0)  # of b's target
    near, far = solve_hand_eye(a, b, p95_max=1.0), solve_hand_eye(a, farther @ b, p95_max=1.0)
    assert far.z_p95 == pytest.approx(near.z_p95, rel=0.05)
    assert far.covariance[9:12, 9:12].max() > 4.0 * near.covariance[9:12, 9:12].max()  # at the origin itself


def test_a_robot_that_stands_still_most_of_the_time_gives_its_transforms():
    a, b, x, _ = poses(9, n=60)
    still = np.tile(np.eye(4), (140, 1, 1)) @ a[:1]  # the camera's noise alone, a hundredth of that in motion
    a, b = (
        np.concatenate([a, still]),
        np.concatenate([b, noisy(np.random.default_rng(1), still @ inverse(a[:1]) @ b[:1], (1e-5, 2e-6))]),
    )
    fit = solve_hand_eye(a, b)
    assert covers(difference(x, fit.x), fit.covariance[:6, :6], fit.freedom)


def test_a_robot_that_stops_at_each_pose_counts_with_every_pair():
    rng = np.random.default_rng(10)
    _, _, x, z = poses(10)
    a = np.repeat(compose(exponential(rng.normal(size=(8, 3)) * 0.5), rng.normal(size=(8, 3)) * 0.3), 50, axis=0)
    fit = solve_hand_eye(a, noisy(rng, inverse(z) @ a @ x, (2e-2, 4e-3)))
    assert not any("left out" in note for note in fit.notes)
    assert fit.x_p95 < 3e-3  # one pair of each stop: 9 mm
    assert covers(difference(x, fit.x), fit.covariance[:6, :6], fit.freedom)


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.1])
@pytest.mark.parametrize(("leaning", "noise_m"), [(0.01, 1e-3), (1e-6, 1e-7), (0.0, 0.0)])
def test_pairs_that_are_rejected_do_not_vouch_for_x(leaning, noise_m, shift):
    rng = np.random.default_rng(11)
    _, _, x, z = poses(11)
    turns = rng.normal(size=(200, 3)) * 0.5
    turns[:140, :2] *= leaning  # these agree, and turned about one axis
    a = compose(exponential(turns), rng.normal(size=(200, 3)) * 0.2)
    b = inverse(z) @ a @ x
    b[140:] = b[140:] @ compose(exponential(np.array([[0.0, 0.0, 0.3]])), np.array([[shift, 0.0, shift / 2.0]]))
    if not shift:
        b[140:] = noisy(rng, b[140:], (0.3, 0.3))
    with pytest.raises(CalibrationRefused, match=r"[XZ] is known to|moved on its body|leave X or Z open"):
        solve_hand_eye(a, noisy(rng, b, (3.0 * noise_m, noise_m)))


def test_wrong_pairs_of_one_pose_are_left_out_as_any_others():
    a, b, x, _ = poses(13, n=120)
    a[100:], b[100:] = a[100], perturb(b[100], np.array([0.0, 0.0, 0.3, 0.05, 0.0, 0.0]))  # the marker lay aside
    fit = solve_hand_eye(a, b)
    assert set(range(100, 120)) <= set(fit.rejected)
    assert np.linalg.norm(difference(x, fit.x)[3:]) < 0.5e-3  # three sigma at these poses


def test_turning_about_one_axis_alone_is_refused():
    x, z, rng = setting(6)
    a = compose(exponential(rng.normal(size=(40, 1)) * [0.0, 0.0, 0.6]), rng.normal(size=(40, 3)) * 0.3)
    with pytest.raises(CalibrationRefused, match=r"one axis alone.*second axis"):
        solve_hand_eye(a, inverse(z) @ a @ x)


@pytest.mark.parametrize("turn", [0.5, 0.04])  # [rad] where it is small, turns differ by little either way
def test_a_stream_given_the_wrong_way_round_is_refused(turn):
    a, b, _, _ = poses(7, turn=turn)
    with pytest.raises(CalibrationRefused, match="inverted"):
        solve_hand_eye(a, inverse(b))


def test_a_mirrored_stream_is_refused():
    a, b, _, _ = poses(8)
    mirror = np.diag([1.0, 1.0, -1.0, 1.0])
    with pytest.raises(CalibrationRefused, match="mirrored"):
        solve_hand_eye(a, mirror @ b @ mirror)


@pytest.mark.parametrize(("lever", "moved"), [(0.2, 0.003), (0.5, 0.005)])
def test_a_mirrored_stream_is_refused_however_long_the_lever_and_little_the_way(lever, moved):
    rng = np.random.default_rng(12)
    sigma = np.repeat([np.radians(0.1), 2e-4], 3)
    x, z = compose(exponential(rng.normal(size=3)), np.array([lever, 0.0, 0.0])), compose(np.eye(3), rng.normal(size=3))
    a = compose(exponential(rng.normal(size=(60, 3)) * 0.35), rng.normal(size=(60, 3)) * moved)
    b = perturb(inverse(z) @ a @ x, sigma * rng.normal(size=(60, 6)))
    assert np.linalg.norm(solve_hand_eye(a, b).x[:3, 3] - x[:3, 3]) < 1e-3
    b[:, :3, 3] *= -1.0
    with pytest.raises(CalibrationRefused, match="mirrored"):
        solve_hand_eye(a, b)


def test_shuffled_pairs_are_refused():
    a, b, _, _ = poses(9)
    with pytest.raises(CalibrationRefused):
        solve_hand_eye(a, b[np.random.default_rng(0).permutation(len(b))])


def test_too_few_poses_are_refused():
    a, b, _, _ = poses(10, n=4)
    with pytest.raises(CalibrationRefused, match="at least 5"):
        solve_hand_eye(a, b)


def test_hardly_any_turning_is_refused():
    a, b, _, _ = poses(11, turn=0.005)
    with pytest.raises(CalibrationRefused, match="Turn the body"):
        solve_hand_eye(a, b)


# 95 % are 57 of 60 and 190 of 200; fewer than 51, or than 178 or all, come by chance less than once in a hundred, in a
# thousand runs. The seeds are fixed. With the lever turned the wrong way round 60 runs of 80 poses held 39, 46 and 54;
# sizes of the noise taken from the residuals without what the fit took of them, 160 of 200 where both are noisy.
@pytest.mark.parametrize(("count", "runs", "held"), [(80, 60, range(51, 61)), (15, 200, range(178, 200))])
@pytest.mark.parametrize(("noise_a", "noise_b"), [(1.0, 0.1), (1.0, 1.0), (0.1, 1.0)])
def test_the_stated_error_holds_on_a_long_lever_however_few_the_poses(noise_a, noise_b, count, runs, held):
    sigma, inside = np.repeat([np.radians(0.1), 2e-4], 3), 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        x, z = (compose(exponential(rng.normal(size=3)), rng.normal(size=3)) for _ in "xz")
        a = compose(exponential(rng.normal(size=(count, 3)) * 0.5), rng.normal(size=(count, 3)) * 0.3)
        b = perturb(inverse(z) @ a @ x, noise_b * sigma * rng.normal(size=(count, 6)))
        fit = solve_hand_eye(perturb(a, noise_a * sigma * rng.normal(size=(count, 6))), b, p95_max=1.0)
        error = np.concatenate([difference(x, fit.x), difference(z, fit.z)])
        inside += bool(covers(error, fit.covariance, fit.freedom))
    assert inside in held


@pytest.mark.parametrize("ratio", [1.02, 0.98, 5.0])
def test_lengths_of_another_unit_or_board_are_refused_with_their_ratio(ratio):
    for seed in range(20):
        a, b, _, _ = poses(seed, n=30)
        solve_hand_eye(a, b)
        b[:, :3, 3] *= ratio
        with pytest.raises(CalibrationRefused, match="another size of the board") as refused:
            solve_hand_eye(a, b)
        assert float(refused.value.reason.split()[3]) == pytest.approx(ratio, rel=2e-3)  # ten sigma


def test_five_poses_tell_lengths_of_another_board_from_sound_ones():
    for seed in range(12):
        a, b, _, _ = poses(seed, n=5)
        solve_hand_eye(a, b)
        b[:, :3, 3] *= 1.05
        with pytest.raises(CalibrationRefused, match=r"lengths are 1\.0[45]"):
            solve_hand_eye(a, b)


def test_a_slow_motion_is_not_called_fast_where_frames_were_lost():
    for seed in range(6):
        times_a, a, times_b, b, x, _ = swung(seed, 3.0, 60)
        seen = np.random.default_rng(seed).random(len(times_a)) > 0.15
        fit = solve_hand_eye_timed(times_a[seen], a[seen], times_b[::3], b[::3])
        assert not any("fast for a's samples" in note for note in fit.notes)
        assert np.linalg.norm(difference(x, fit.x)[3:]) < 2.0 * fit.x_p95  # where 95 % stay within 1: none of 6


@pytest.mark.parametrize("wander_m", [0.0, 1e-3])
def test_a_body_that_turns_about_a_point_is_not_taken_for_one_of_another_unit(wander_m):
    for seed in range(15):
        x, z, rng = setting(seed)
        turns = exponential(rng.normal(size=(60, 3)) * 0.4)
        places = [0.5, 0.2, 0.8] - turns @ [0.0, 0.05, -0.12] + rng.normal(size=(60, 3)) * wander_m
        a = compose(turns, places)
        fit = solve_hand_eye(noisy(rng, a, NOISE), noisy(rng, inverse(z) @ a @ x, NOISE))
        assert np.linalg.norm(difference(x, fit.x)[3:]) < 2.0 * fit.x_p95  # where 95 % stay within 1: none of 30


def swinging(lag, period, second, seed=3, slow=0.0):
    """Return two streams of a body that swings with a period [s], `second` of it across, the later one by a lag [s].

    Their errors are fresh in each pose, and, `slow` times as large, last half a second.
    """
    x, z, rng = setting(seed)
    times_a, times_b = np.arange(0.0, 10.0, 1 / 90), np.arange(1.0, 9.0, 1 / 60)

    def body(t):
        one, two = np.sin(2 * np.pi * t / period), np.cos(2 * np.pi * t / period)
        turn = 0.5 * np.stack([one, second * two, 0 * t], axis=1)
        return compose(exponential(turn), 0.1 * np.stack([one, two, 0.2 * np.sin(2 * np.pi * t / period + 1)], axis=1))

    streams = []
    for times, exact in ((times_a, body(times_a)), (times_b, inverse(z) @ body(times_b - lag) @ x)):
        kept = np.exp(-2.0 * np.diff(times[:2]))[0]
        fresh = rng.normal(size=(len(times), 6)) * np.repeat([1e-3, 1.5e-4], 3)
        lasting = lfilter([np.sqrt(1.0 - kept**2)], [1.0, -kept], rng.normal(size=fresh.shape), axis=0)
        streams += [times, perturb(exact, fresh + slow * lasting * np.repeat([1e-3, 1.5e-4], 3))]
    return tuple(streams), x


@pytest.mark.parametrize("lag", [0.05, 0.28, -0.22])
def test_of_the_lags_at_which_a_repeated_motion_turns_alike_the_one_is_taken_at_which_it_moves_alike(lag):
    streams, x = swinging(lag, 1.0, 0.3)
    fit = solve_hand_eye_timed(*streams)
    assert fit.offset_s == pytest.approx(-lag, abs=1e-3)
    # between poses 11 ms apart a straight line is 0.3 mrad off, a third of the noise, and alike at each swing: of 15
    # seeds the worst is 1.8 times the stated 95 %
    assert np.linalg.norm(difference(x, fit.x)[3:]) < 2.0 * fit.x_p95


@pytest.mark.parametrize(("lag", "period"), [(0.28, 1.0), (0.24, 0.5)])
def test_slow_errors_of_a_tracker_do_not_choose_among_the_offsets_of_a_repeated_motion(lag, period):
    for seed in range(8):
        fit = solve_hand_eye_timed(*swinging(lag, period, 0.3, seed, slow=2.0)[0], p95_max=0.05)
        assert abs(fit.offset_s + lag) < 4.0 * fit.offset_sigma_s + 2e-3  # 2 ms: what slow errors bend


def test_an_offset_that_a_repeated_motion_leaves_open_is_told_as_unsure():
    fit = solve_hand_eye_timed(*swinging(0.28, 0.5, 0.3)[0])
    assert fit.offset_sigma_s > 0.4
    assert any("the motion repeats" in note for note in fit.notes)


def test_an_offset_with_the_same_x_and_another_z_is_refused():
    x, z, rng = setting(3)
    times_a, times_b = np.arange(0.0, 12.0, 1 / 90), np.arange(1.5, 10.5, 1 / 60)

    def body(t):  # nods twice a round: half a round on it is as it was, seen from the other side
        nod = 0.4 * np.sin(4 * np.pi * t / 1.6)[:, None]
        round_ = exponential(np.outer(2 * np.pi * t / 1.6, [0.0, 0.0, 1.0]))
        nodding = compose(exponential(nod * [1.0, 0.0, 0.0]), nod * [0.0, 0.1, 0.2])
        return compose(round_, np.zeros((len(t), 3))) @ nodding

    a, b = noisy(rng, body(times_a), (1e-3, 1.5e-4)), noisy(rng, inverse(z) @ body(times_b) @ x, (1e-3, 1.5e-4))
    with pytest.raises(CalibrationRefused, match=r"repeats every 0\.8 s"):
        solve_hand_eye_timed(times_a, a, times_b, b, offset_max_s=0.9)


def test_a_body_that_goes_round_evenly_is_refused():
    for seed in range(3):
        with pytest.raises(CalibrationRefused, match=r"[Mm]ove irregularly|no X and Z settle"):
            solve_hand_eye_timed(*swinging(0.045, 0.8, 1.0, seed)[0])


def swung(seed, period_s, rate=20):
    """Return two streams of so many samples a second, half a 20th apart, of a body swung to and fro; the truth."""
    x, z, rng = setting(seed)
    rates, phases = rng.uniform(0.8, 1.3, 6) * 2 * np.pi / period_s, rng.uniform(0, 6, 6)

    def body(t):
        fast = np.sin(np.outer(t, rates) + phases)
        slow = np.sin(np.outer(t, 0.35 * rates) + phases + 1.0)
        return compose(exponential(0.35 * fast[:, :3] + 0.2 * slow[:, :3]), 0.08 * fast[:, 3:] + 0.05 * slow[:, 3:])

    times = np.arange(0.0, 10.0, 1 / rate)
    noise = np.radians(0.05), 1e-4
    a, b = body(times), inverse(z) @ body(times + 0.025) @ x
    return times, noisy(rng, a, noise), times - 0.025, noisy(rng, b, noise), x, z


def test_the_stated_error_of_fast_swings_holds_though_few_samples_tell_them():
    held, distances = [], []
    for seed in range(10):
        times_a, a, times_b, b, x, z = swung(seed, 0.5)
        fit = solve_hand_eye_timed(times_a, a, times_b, b)  # a cubic between samples refused a third for their lengths
        errors = np.concatenate([difference(x, fit.x), difference(z, fit.z)])
        held.append(covers(errors, fit.covariance, fit.freedom))
        distances.append(errors @ np.linalg.solve(fit.covariance, errors) / 12)
        assert abs(fit.offset_s - 0.05) < 4.0 * fit.offset_sigma_s
    assert np.sum(held) >= 8  # of 10 that hold in 95 %: fewer by chance once in a hundred times
    assert np.mean(distances) < 1.6  # 1, which 10 trials know to 13 %, over the F's heavier mean


def test_swings_too_fast_for_the_samples_are_named_as_that_and_not_as_another_unit():
    reasons = []
    for seed in range(6):
        times_a, a, times_b, b, _, _ = swung(seed, 0.3)
        try:
            fit = solve_hand_eye_timed(times_a, a, times_b, b)
        except CalibrationRefused as error:
            reasons.append(error.reason)
        else:
            reasons += fit.notes
    assert len(reasons) >= 6
    assert not any("lengths are" in reason for reason in reasons)
    assert sum("fast for a's samples" in reason for reason in reasons) >= 4
