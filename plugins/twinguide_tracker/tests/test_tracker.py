"""The simulated tracker against what it declares."""

import zlib
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from twinguide import Exposure, Inbox, PoseWire, Transform
from twinguide.clock import MS, SECOND, ClockMapping
from twinguide.messages import BodiesSeen
from twinguide_tracker.camera import Camera
from twinguide_tracker.plugin import TrackerOptions
from twinguide_tracker.tracker import Tracker

TIP = np.array([0.0, 0.0, -0.18])
TURN = Rotation.from_euler("xyz", [0.7, -0.4, 0.3]).as_matrix()
PLACE = np.array([0.1, -0.05, 1.5])


def context(seed=1, **options):
    return SimpleNamespace(
        options=TrackerOptions(**options),
        rng=lambda stream="": np.random.default_rng([seed, zlib.crc32(stream.encode())]),
        device_clock=lambda latency_ms, sigma_ms: ClockMapping(round(latency_ms * MS), round(sigma_ms * MS)),
    )


def world(t_ns, names=("needle", "reference"), speed=0.0, occluded=()):
    pose = Transform.of("tracker", "tool", TURN, PLACE + np.array([speed, 0.0, 0.0]) * t_ns * 1e-9)
    wire = PoseWire.of(pose, np.zeros((6, 6)))
    return BodiesSeen(t_ns=t_ns, tools={n: msgspec.structs.replace(wire, source=n) for n in names}, occluded=occluded)


def play(tracker, seconds, start_ns=0, **kinds):
    """Return (time of the step [ns], exposure) pairs."""
    out = []
    for k in range(round(seconds * 180)):
        t_ns = start_ns + round(k * SECOND / 180)
        out += [(t_ns, e) for e in tracker.step(t_ns, Inbox([("patient", world(t_ns, **kinds))]))]
    return out


def test_sixty_exposures_a_second_each_with_all_tools():
    exposures = [e for _, e in play(Tracker(context(dropouts_per_min=0.0)), 5.0)]
    assert len(exposures) == pytest.approx(300, abs=2)
    assert all(set(e.tools) == {"needle", "reference"} and not e.lost for e in exposures)


def test_a_sample_arrives_with_the_declared_latency():
    ages = np.array([(t - e.t_ns) / MS for t, e in play(Tracker(context()), 60.0)][300:])
    # 14 ms, and up to 5.6 ms more for the next step of 180 Hz
    assert ages.mean() == pytest.approx(14.0 + 2.8, abs=1.0)
    assert ages.min() > 10.0


@pytest.mark.parametrize("start_ns", [0, 987_654_321_000_000])
def test_stamps_are_true_on_the_hosts_clock_in_spite_of_offset_drift_and_latency(start_ns):
    tracker = Tracker(context(clock_drift_ppm=80.0, noise_mm=(1e-4, 1e-4, 1e-4), dropouts_per_min=0.0))
    pairs = play(tracker, 30.0, start_ns=start_ns, speed=0.2)
    true_s = np.array([(e.tools["needle"].position[0] - PLACE[0]) / 0.2 for _, e in pairs])
    error_ms = (np.array([e.t_ns for _, e in pairs]) * 1e-9 - true_s) * 1e3
    assert np.abs(error_ms[60 * 5 :]).max() < 1.0  # half the link's jitter; 1 ms is 0.2 mm at a hand's 0.2 m/s
    assert np.abs(error_ms).max() < 4.0  # the first seconds know a few arrivals only
    assert all(e.sigma_t_ns > 0 for _, e in pairs)


def test_stated_covariance_is_that_of_the_noise():
    exposures = [e for _, e in play(Tracker(context()), 40.0)]
    poses = [e.tools["needle"].pose(0) for e in exposures if "needle" in e.tools]
    delta = np.array(
        [
            [
                *Rotation.from_matrix(p.transform.rotation.T @ TURN).as_rotvec(),
                *(p.transform.rotation.T @ (PLACE - p.transform.translation)),
            ]
            for p in poses
        ]
    )
    whitened = np.einsum("ki,kij,kj->k", delta, np.linalg.inv([p.covariance for p in poses]), delta)
    assert whitened.mean() == pytest.approx(6.0, rel=0.05)  # chi-square of 6; 2400 draws are good to 1.2 %
    assert np.mean(whitened < 12.592) == pytest.approx(0.95, abs=0.02)  # its 95 % quantile


def test_error_at_the_needle_tip_is_as_predicted():
    poses = [e.tools["needle"].pose(0) for _, e in play(Tracker(context()), 40.0) if "needle" in e.tools]
    errors = np.array([p.transform.apply(TIP) - (TURN @ TIP + PLACE) for p in poses])
    predicted = np.sqrt(np.mean([np.trace(p.point_covariance(TIP)) for p in poses]))
    assert np.sqrt((errors**2).sum(axis=1).mean()) == pytest.approx(predicted, rel=0.05)


def test_same_seed_gives_the_same_bits():
    first, again, other = (
        msgspec.msgpack.encode([e for _, e in play(Tracker(context(seed)), 2.0)]) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_an_occluded_tool_is_lost_with_a_reason_and_the_others_stay():
    exposures = [e for _, e in play(Tracker(context(dropouts_per_min=0.0)), 1.0, occluded=("needle",))]
    assert all(set(e.tools) == {"reference"} for e in exposures)
    assert all("view" in e.lost["needle"] for e in exposures)


def test_lost_tools_come_in_the_same_order_in_every_process():
    hidden = tuple("qwertyuiop")  # a set of ten would be in order once in 3.6 million processes
    exposures = [e for _, e in play(Tracker(context(dropouts_per_min=0.0)), 0.2, occluded=hidden)]
    assert all(list(e.lost) == sorted(hidden) for e in exposures)


def test_dropouts_are_rare_short_and_told():
    exposures = [e for _, e in play(Tracker(context(dropouts_per_min=20.0)), 60.0)]
    dark = [bool(e.lost) for e in exposures]
    assert 8 < sum(dark) < 60  # 20 of one or two exposures each: 30 with a sigma of 7
    assert all(set(e.tools) | set(e.lost) == {"needle", "reference"} for e in exposures)
    longest = max(len(run) for run in "".join("x" if d else " " for d in dark).split())
    assert longest <= 2


def test_spheres_that_do_not_fit_their_layout_are_refused():
    options = TrackerOptions()
    spheres = np.array(options.spheres_mm) * 1e-3
    camera = Camera(spheres, np.array(options.noise_mm) * 1e-3)
    wrong = np.array([spheres, spheres * [1.0, 1.0, 1.0]])
    wrong[1, 0] += [0.004, 0.0, 0.0]  # a sphere knocked off its place by 4 mm
    good, bad = camera.fit(wrong + PLACE)
    assert not isinstance(good, str)
    assert isinstance(bad, str)
    assert "do not fit" in bad


def test_silence_of_the_world_gives_no_exposures_and_no_guess():
    tracker = Tracker(context())
    list(tracker.step(0, Inbox([("patient", world(0))])))
    late = list(tracker.step(2 * SECOND, Inbox([("patient", world(2 * SECOND))])))
    assert late == []
    assert [type(e) for e in tracker.step(3 * SECOND, Inbox())] == []


def test_the_layout_is_asymmetric_and_not_planar():
    spheres = np.array(TrackerOptions().spheres_mm)
    distances = sorted(np.linalg.norm(a - b) for i, a in enumerate(spheres) for b in spheres[:i])
    assert np.diff(distances).min() > 2.0  # [mm]: no two sides can be taken for each other
    assert 60 < distances[-1] < 75
    assert np.linalg.svd(spheres - spheres.mean(axis=0))[1][-1] > 5.0


def test_exposure_is_what_the_core_declares():
    message = play(Tracker(context()), 0.2)[0][1]
    assert isinstance(message, Exposure)
    assert message.tools["needle"].target == "tracker"
