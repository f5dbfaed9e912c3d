"""Clocks and lags against known ones."""

import numpy as np
import pytest

from twinguide_calibration import CalibrationRefused, fit_clock, interpolate_poses, motion_lag, place_lag, pose_lag
from twinguide_calibration.rigid import compose, difference, exponential


def arrivals(seed, n=3000, offset=3.2, drift=40e-6):
    rng = np.random.default_rng(seed)
    device = np.sort(rng.uniform(0.0, 60.0, n))
    return device, device + offset + drift * device + rng.exponential(2e-3, n)


def test_the_clocks_line_lies_under_the_arrivals_with_its_error_told():
    for seed in range(20):
        fit = fit_clock(*arrivals(seed))
        error = fit.to_host(30.0) - (30.0 + 3.2 + 40e-6 * 30.0)
        assert 0.0 < error < 3.0 * np.sqrt(fit.covariance[0, 0])  # the envelope's earliest is late by its own scatter
        assert abs(fit.drift - 40e-6) < 4.0 * np.sqrt(fit.covariance[1, 1])


def test_repeated_stamps_are_dropped_and_told():
    device, host = arrivals(1)
    device[10], host[10] = device[9], host[9]
    assert "1 repeated" in fit_clock(device, host).notes[0]


def test_stamps_that_run_backwards_are_refused():
    device, host = arrivals(1)
    with pytest.raises(CalibrationRefused, match="backwards"):
        fit_clock(device[::-1], host)


def test_a_clock_that_was_set_while_recorded_is_refused():
    device, host = arrivals(1)
    host[1000:] += 0.5
    with pytest.raises(CalibrationRefused, match="set or restarted"):
        fit_clock(device, host)


def breath(t):
    return np.sin(2 * np.pi * 0.25 * t) + 0.4 * np.sin(2 * np.pi * 0.61 * t + 1) + 0.2 * np.sin(2 * np.pi * 1.3 * t)


def test_a_lag_between_motions_of_other_scale_and_axis_is_found_with_its_sigma():
    errors, told = [], []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        fast, slow = np.arange(0.0, 30.0, 1 / 60), np.arange(0.0, 30.0, 1 / 20)
        a = breath(fast) + rng.normal(size=len(fast)) * 0.01
        b = np.outer(breath(slow - 0.123), [3.0, -1.0]) + 5.0 + rng.normal(size=(len(slow), 2)) * 0.05
        fit = motion_lag(fast, a, slow, b)
        errors.append(fit.lag_s - 0.123)
        told.append(fit.sigma_s)
    assert np.abs(np.mean(errors)) < 1e-3
    assert np.std(errors) == pytest.approx(np.mean(told), rel=0.5)  # 30 trials know a scatter to 13 %
    assert np.max(np.abs(errors)) < 4e-3


def test_no_common_motion_is_refused():
    rng = np.random.default_rng(0)
    times = np.arange(0.0, 10.0, 0.02)
    with pytest.raises(CalibrationRefused, match="explains"):
        motion_lag(times, rng.normal(size=500), times, rng.normal(size=500))


def test_a_lag_of_poses_is_found_without_any_calibration():
    times = np.arange(0.0, 20.0, 1 / 50)

    def body(t):
        return compose(
            exponential(0.4 * np.stack([breath(t), breath(1.3 * t), breath(0.7 * t)], axis=1)), np.zeros((len(t), 3))
        )

    fixed = compose(exponential(np.array([0.3, -1.0, 0.5])), np.array([0.1, 0.2, 0.3]))
    rng = np.random.default_rng(0)
    a = body(times)
    b = fixed @ body(times - 0.07) @ fixed
    b[:, :3, :3] = b[:, :3, :3] @ exponential(rng.normal(size=(len(times), 3)) * 1e-3)
    fit = pose_lag(times, a, times, b)
    assert fit.lag_s == pytest.approx(0.07, abs=2e-3)


def carried(times, lever_m, lag_s, rng):
    """Return poses of a body that turns and moves, and the places, in another frame, of a point it carries, late."""

    def body(t):
        turn = 0.5 * np.stack([breath(1.1 * t), breath(1.7 * t + 1), breath(0.9 * t + 2)], axis=1)
        return compose(exponential(turn), 0.1 * np.stack([breath(0.8 * t), breath(1.4 * t + 3), 0 * t], axis=1))

    other = compose(exponential(np.array([0.3, -1.0, 0.5])), np.array([0.1, 0.2, 0.3]))
    late = other @ body(times - lag_s) @ np.append(lever_m, 1.0)
    return body(times), late[:, :3] + rng.normal(size=(len(times), 3)) * 2e-4


@pytest.mark.parametrize("lever_m", [[0.0, 0.0, 0.0], [0.1, -0.2, 0.3]])
def test_a_lag_is_found_by_a_carried_points_places_however_the_body_turns(lever_m):
    times = np.arange(0.0, 20.0, 1 / 50)
    for seed in range(10):
        a, b = carried(times, lever_m, 0.043, np.random.default_rng(seed))
        fit = place_lag(times, a, times, b)
        assert abs(fit.lag_s - 0.043) < 4.0 * fit.sigma_s + 2e-4  # 0.2 ms: what linear interpolation bends
        assert fit.sigma_s < 1e-3
        assert fit.explained > 0.99


def test_poses_that_were_not_seen_are_left_out_and_told():
    times = np.arange(0.0, 20.0, 1 / 50)
    a, b = carried(times, [0.1, -0.2, 0.3], 0.043, np.random.default_rng(3))
    a[::16] = 0.0
    fit = place_lag(times, a, times, b)
    assert abs(fit.lag_s - 0.043) < 4.0 * fit.sigma_s + 1e-3  # 1 ms: what lines across the gaps bend
    assert any("63 of 1000" in note for note in fit.notes)


def test_places_of_a_point_that_another_body_carries_are_refused():
    times = np.arange(0.0, 20.0, 1 / 50)
    for seed in range(10):
        a, _ = carried(times, [0.1, -0.2, 0.3], 0.0, np.random.default_rng(seed))
        with pytest.raises(CalibrationRefused, match="explain"):
            place_lag(times, a, times, turning(times, seed)[:, :3, 0])


def test_poses_that_hardly_turn_are_refused():
    times = np.arange(0.0, 10.0, 0.02)
    still = np.tile(np.eye(4), (500, 1, 1))
    with pytest.raises(CalibrationRefused, match="hardly turned"):
        pose_lag(times, still, times, still)


def turning(t, seed):
    rates, phases = np.random.default_rng(seed).uniform([[0.1], [0.0]], [[0.9], [6.0]], (2, 3))
    return compose(exponential(0.4 * np.sin(2 * np.pi * rates * t[:, None] + phases)), np.zeros((len(t), 3)))


def test_poses_of_two_bodies_that_turn_each_in_its_own_way_are_refused():
    times = np.arange(0.0, 15.0, 1 / 50)
    for seed in range(5):
        with pytest.raises(CalibrationRefused, match="turn alike"):
            pose_lag(times, turning(times, seed), times, turning(times, seed + 10))


def test_streams_whose_clocks_count_from_other_zeros_are_refused_with_that_reason():
    times = np.arange(0.0, 15.0, 1 / 50)
    with pytest.raises(CalibrationRefused, match="different zeros"):
        pose_lag(times, turning(times, 1), times + 1.7e9, turning(times, 1))


@pytest.mark.parametrize("step_s", [0.002, 0.02, 1.0])
def test_a_clock_that_was_set_half_way_is_refused_and_one_that_was_not_never(step_s):
    device = np.arange(3000) / 60.0
    for seed in range(40):
        arrival = device * (1 + 2e-5) + 0.002 + np.random.default_rng(seed).exponential(0.003, 3000)
        fit_clock(device, arrival)
        arrival[1500:] += step_s
        with pytest.raises(CalibrationRefused, match=r"no line .* largest step is 2[456]"):
            fit_clock(device, arrival)


@pytest.mark.parametrize("find", ["turning", "moving"])
def test_a_motion_that_repeats_within_the_search_tells_no_lag(find):
    times = np.arange(0.0, 15.0, 1 / 50)

    def body(t):
        wave = np.sin(2 * np.pi * t / 0.8)
        return compose(exponential(np.outer(wave, [0.5, 0.15, 0.0])), 0.1 * np.outer(wave, [1.0, 0.0, 0.2]))

    a, b = body(times), body(times - 0.045)
    b[:, :3, 3] += np.random.default_rng(0).normal(size=(len(times), 3)) * 2e-4
    with pytest.raises(CalibrationRefused, match=r"repeats every 0\.[48]0? s"):
        pose_lag(times, a, times, b) if find == "turning" else place_lag(times, a, times, b[:, :3, 3])


@pytest.mark.parametrize("late_s", [0.0, 0.004, 0.05])
def test_a_lag_that_changes_is_refused_beyond_a_frame_and_told_below(late_s):
    times = np.arange(0.0, 20.0, 1 / 50)
    shown = times + np.where(times > 10.0, late_s, 0.0)
    for seed in range(5):
        b = turning(times - 0.07, seed)
        b[:, :3, :3] = b[:, :3, :3] @ exponential(np.random.default_rng(seed).normal(size=(len(times), 3)) * 1e-3)
        if late_s > 0.02:
            with pytest.raises(CalibrationRefused, match=r"lag changes from 7\d.* to 11\d"):
                pose_lag(times, turning(times, seed), shown, b)
            continue
        fit = pose_lag(times, turning(times, seed), shown, b)
        assert abs(fit.lag_s - 0.07 - late_s / 2.0) < 4.0 * fit.sigma_s + 1e-3  # 1 ms: what lines over 20 ms bend
        assert any("lag changes" in note for note in fit.notes) == (late_s > 0.0)


def test_a_body_that_lay_still_for_half_of_the_recording_tells_its_lag():
    times = np.arange(0.0, 20.0, 1 / 60)
    for seed in range(30):
        rng = np.random.default_rng(seed)

        def waves(t):
            moving = np.clip(t - 12.0, 0.0, 1.0)
            return np.outer(moving * breath(t), [1.0, -0.5])

        a, b = (waves(times - late) + rng.normal(size=(len(times), 2)) * 0.02 for late in (0.0, 0.07))
        fit = motion_lag(times, a, times, b)
        assert abs(fit.lag_s - 0.07) < 4.0 * fit.sigma_s + 2e-4  # 0.2 ms: what linear interpolation bends


@pytest.mark.parametrize("seed", range(3))
def test_a_motion_of_which_one_half_repeats_tells_its_lag(seed):
    rng = np.random.default_rng(seed)
    rates, phases, sizes = rng.uniform(0.2, 1.5, 6), rng.uniform(0, 6.28, (6, 3)), rng.uniform(0.3, 1, (6, 3))

    def turns(t):
        irregular = sum(sizes[k] * np.sin(6.28 * rates[k] * t[:, None] + phases[k]) for k in range(6)) / 3
        rocking = 0.5 * np.sin(6.28 * t[:, None] / 0.7) * np.ones(3)
        late = 1 / (1 + np.exp(-(t[:, None] - 9.0) / 0.2))
        return irregular * (1 - late) + rocking * late

    def poses(t):
        noise = rng.normal(0, np.radians(0.3), (len(t), 3))
        return compose(exponential(0.5 * turns(t) + noise), 0.1 * turns(t))

    a, b = np.arange(0, 20, 1 / 60), np.arange(0.007, 20, 1 / 50)
    assert pose_lag(a, poses(a), b, poses(b - 0.08)).lag_s == pytest.approx(0.08, abs=1e-3)


def test_a_drift_of_three_in_a_hundred_is_refused_though_each_half_is_smeared():
    times = np.arange(0.0, 20.0, 1 / 50)
    a, _ = carried(0.5 * times, [0.05, -0.1, 0.15], 0.0, np.random.default_rng(1))
    late = times - 0.05 - 0.03 * (times - 10.0)
    _, b = carried(0.5 * late, [0.05, -0.1, 0.15], 0.0, np.random.default_rng(2))
    with pytest.raises(CalibrationRefused, match=r"lag changes from .* ppm: clocks drift by 500 ppm at most"):
        place_lag(times, a, times, b)


def test_a_fast_swing_is_known_between_its_samples_to_the_sixth_order():
    times, at, rate = np.arange(0.0, 2.0, 1 / 50), np.linspace(0.1, 1.9, 777), 2 * np.pi / 0.5

    def swing(t):
        return compose(
            exponential(np.outer(np.sin(rate * t), [0.4, 0.0, 0.0])), np.outer(np.sin(rate * t), [0.1, 0, 0])
        )

    found, known = interpolate_poses(times, swing(times), at)
    assert known.all()
    apart = np.abs(difference(found, swing(at))).max(axis=0)
    bound = 5.0 * (rate / 50) ** 6 / 1024 * 1.01  # of the amplitude; a cubic is off by 75 times as much
    assert apart[0] < 0.4 * bound
    assert apart[3:].max() < 0.1 * bound


def test_stamps_of_another_unit_are_refused_with_their_ratio():
    device, host = arrivals(1)
    with pytest.raises(CalibrationRefused, match=r"a second of the device takes 1000.* s .*another unit"):
        fit_clock(device, host * 1e3)


def test_the_drift_of_a_short_recording_is_known_as_well_as_stated():
    ratios = []
    for seed in range(100):
        device = np.arange(80) / 60.0
        try:
            fit = fit_clock(device, device * (1 + 2e-5) + np.random.default_rng(seed).exponential(0.003, 80))
        except CalibrationRefused:
            continue
        ratios.append((fit.drift - 2e-5) / np.sqrt(fit.covariance[1, 1]))
    assert len(ratios) > 94
    assert 0.7 < np.sqrt(np.mean(np.square(ratios))) < 1.4  # 1, and 100 trials know it to 7 %; of 20 stamps 4 to 16
    with pytest.raises(CalibrationRefused, match="at least 80"):
        fit_clock(device[:40], device[:40])


@pytest.mark.parametrize(("slower", "drift"), [(0.25, 0.01), (0.5, 0.01), (0.25, -0.01)])
def test_a_drift_of_one_in_a_hundred_over_ten_seconds_of_slow_motion_is_refused(slower, drift):
    times = np.arange(0.0, 10.0, 1 / 50)
    for seed in range(2):
        begin, lever = 3.7 * seed, [0.05, -0.1, 0.15]
        a, _ = carried(begin + slower * times, lever, 0.0, np.random.default_rng(seed))
        late = times - 0.05 - drift * (times - 5.0)
        _, b = carried(begin + slower * late, lever, 0.0, np.random.default_rng(seed + 100))
        with pytest.raises(CalibrationRefused, match="ppm: clocks drift by 500 ppm at most"):
            place_lag(times, a, times, b)


@pytest.mark.parametrize("rate_a", [100, 400])
def test_fast_swings_seen_seldom_tell_a_drift_once_by_the_quicker_streams_samples(rate_a):
    times_a, times_b = np.arange(0.0, 200.0, 1 / rate_a), np.arange(0.0, 200.0, 1 / 15)
    for seed in range(2):
        rng = np.random.default_rng(seed)
        rates, phases = 4.0 * np.pi * rng.uniform(0.8, 1.3, 6), rng.uniform(0.0, 6.0, 6)  # swings of half a second

        def swings(t, rates=rates, phases=phases):
            fast, slow = (np.sin(np.outer(t, share * rates) + phases) for share in (1.0, 0.35))
            return fast + 0.5 * slow

        late = times_b - 0.05 - 4e-4 * (times_b - 100.0)
        a, b = (swings(t) + rng.normal(size=(len(t), 6)) * 1e-2 for t in (times_a, late))
        fit = motion_lag(times_a, a, times_b, b)
        assert abs(fit.lag_s - 0.05) < 4e-3  # waves that 20 ms to either side smear
        (told,) = fit.notes  # by what is fitted beside the lag, not by the halves too
        one, two = (float(part.split(" ms")[0]) for part in told.split("changes from ")[1].split(" to "))
        assert two - one == pytest.approx(40.0, abs=1.0)  # [ms]; differenced over frames of b 70, and refused
        assert fit.sigma_s == pytest.approx(20e-3, abs=1e-3)  # half of it, counted once


@pytest.mark.parametrize("slower", [0.15, 0.25, 1.0])
def test_clocks_that_run_alike_pass_however_slow_the_motion_and_the_sigma_holds(slower):
    times = np.arange(0.0, 10.0, 1 / 50)
    ratios, told = [], []
    for seed in range(8):
        begin, lever = 3.7 * seed, [0.05, -0.1, 0.15]
        a, _ = carried(begin + slower * times, lever, 0.0, np.random.default_rng(seed))
        late = times - 0.05 - 1e-4 * (times - 5.0)  # as far as quartz is off
        _, b = carried(begin + slower * late, lever, 0.0, np.random.default_rng(seed + 100))
        fit = place_lag(times, a, times, b)
        ratios.append((fit.lag_s - 0.05) / (fit.sigma_s + 5e-5))  # 50 us: the steps that a profile's minimum is told in
        told.append(any("too little motion" in note for note in fit.notes))
    assert np.sqrt(np.mean(np.square(ratios))) < 1.5  # 1, which 8 trials know to 25 %
    assert np.mean(told) > 0.5 if slower == 0.15 else not any(told)


def slow_noise(rng, n, k, samples):
    """Return noise of variance 1, shape (n, k), alike over about as many samples (an autoregression of order 1)."""
    kept = np.exp(-1.0 / samples)
    fresh = rng.normal(size=(n, k)) * np.sqrt(1.0 - kept**2)
    fresh[0] /= np.sqrt(1.0 - kept**2)
    for row in range(1, n):
        fresh[row] += kept * fresh[row - 1]
    return fresh


@pytest.mark.parametrize(
    ("find", "samples", "least"), [("turning", 20, 0.5), ("moving", 20, 0.5), ("moving", 200, 0.3)]
)
def test_the_sigma_holds_for_noise_that_is_alike_from_sample_to_sample(find, samples, least):
    times, ratios = np.arange(0.0, 20.0, 1 / 30), []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        a, b = (carried(3.7 * seed + times - lag, [0.0, 0.0, 0.0], 0.0, rng)[0] for lag in (0.0, 0.04))
        b[:, :3, :3] = b[:, :3, :3] @ exponential(5e-3 * slow_noise(rng, len(times), 3, samples))
        b[:, :3, 3] += 1e-3 * slow_noise(rng, len(times), 3, samples)
        fit = pose_lag(times, a, times, b) if find == "turning" else place_lag(times, a, times, b[:, :3, 3])
        ratios.append((fit.lag_s - 0.04) / fit.sigma_s)
    assert least < np.sqrt(np.mean(np.square(ratios))) < 1.35  # 1, and 25 trials know it to 14 %
