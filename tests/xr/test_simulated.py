import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinguide.clock import MS, SECOND, ClockVirtual
from twinguide.errors import HeadsetError
from twinguide.frames import Transform, rotation_from_vector
from twinguide.headset import Hand
from twinguide.xr.pacing import Pacer
from twinguide.xr.scripted import HandsKeyframed, HeadKeyframed, HeadSway, look_at
from twinguide.xr.simulated import HeadsetSimulated, RuntimeLoss, SimulatedOptions, SpaceChange

NO_GL = SimulatedOptions(render=False)


class HeadStill:
    def reported(self, t_ns):
        return Transform.of("stage", "headset", translation=np.array([0.0, 1.6, 0.0]))


class ClockSlow:
    """A clock that each reading moves by a fixed cost, so that lateness can be told exactly without waiting."""

    def __init__(self):
        self.t_ns = 0

    def now_ns(self):
        return self.t_ns


def test_virtual_frames_follow_the_period_without_adding_up_rounding():
    clock = ClockVirtual()
    headset = HeadsetSimulated(clock, options=NO_GL)
    headset.start()
    timings = [headset.wait_frame() for _ in range(901)]
    assert timings[900].t_wake_ns == 10 * SECOND
    assert {t.t_display_ns - t.t_wake_ns for t in timings} == {22 * MS}
    assert headset.counts.frames == 901
    assert headset.counts.skipped == 0


def test_an_overrun_skips_the_missed_periods_and_keeps_the_grid():
    clock = ClockSlow()
    pacer = Pacer(clock, rate_hz=100.0, display_latency_ns=20 * MS)
    assert pacer.wait().t_display_ns == 20 * MS
    clock.t_ns = 34 * MS  # the frame took 34 ms: the slots at 10 and 20 ms went by, the one at 30 ms is running
    pacer.end()
    timing = pacer.wait()
    assert timing.t_display_ns == 50 * MS
    assert (timing.skipped, timing.late_ns) == (2, 4 * MS)
    assert (pacer.counts.frames, pacer.counts.late, pacer.counts.skipped) == (2, 1, 2)


def test_a_frame_in_time_is_neither_late_nor_skips():
    clock = ClockSlow()
    pacer = Pacer(clock, rate_hz=100.0, display_latency_ns=0)
    pacer.wait()
    clock.t_ns = 10 * MS
    pacer.end()
    assert pacer.wait().skipped == 0
    assert pacer.counts.late == 0


def paced(durations_ms):
    """Return when frames at 100 Hz that take so long each are promised and seen, the sigma of that, and how far ahead
    of its begin each is promised; all [ms].
    """
    clock, frames = ClockVirtual(), []
    pacer = Pacer(clock, rate_hz=100.0, display_latency_ns=20 * MS)
    for duration_ms in durations_ms:
        timing = pacer.wait()
        clock.advance_to(timing.t_wake_ns + round(duration_ms * MS))
        ahead_ns = timing.t_display_ns - timing.t_wake_ns
        frames.append((timing.t_display_ns, pacer.end(), timing.sigma_ns, ahead_ns))
    return np.array(frames).T / MS


def test_frames_that_take_too_long_are_promised_for_when_they_are_seen():
    promised, seen, sigma, _ = paced([64.0] * 12)
    np.testing.assert_array_equal(seen[:2] - promised[:2], [60.0, 60.0])  # nobody knew yet
    assert (seen[2:] - promised[2:] <= 10.0).all()  # six slots, or seven: by where in its slot a frame is begun
    assert 50.0 / np.sqrt(3.0) < sigma[-1] < 60.0 / np.sqrt(3.0)  # each picture stays five or six periods too long


def test_a_single_hiccup_is_told_as_late_and_is_not_taken_for_the_pace():
    promised, seen, sigma, _ = paced([5.0] * 10 + [45.0] + [5.0] * 10)
    late = seen - promised
    assert late[10] == 40.0
    assert np.count_nonzero(late) == 1
    assert sigma[10] == 0.0
    assert 15.0 < sigma[11] < 20.0  # one in eight, 40 ms late and 30 ms too long in view
    assert sigma[-1] == 0.0


def test_a_machine_that_keeps_up_again_is_promised_as_before():
    promised, seen, sigma, waited = paced([64.0] * 10 + [5.0] * 20)
    np.testing.assert_array_equal(seen[10:], promised[10:])
    np.testing.assert_array_equal(np.diff(promised)[-8:], 10.0)
    assert waited[-1] == 20.0
    assert sigma[-1] == 0.0


def test_stalls_of_seconds_are_not_waited_for_again():
    _, seen, _, ahead = paced([5.0, 4000.0, 3000.0] + [5.0] * 20)
    assert ahead.max() <= 20.0 + 300.0
    assert seen[-1] - seen[2] < 600.0
    assert ahead[-1] == 20.0


@given(st.lists(st.floats(1.0, 300.0), min_size=2, max_size=40))
def test_no_frame_is_seen_before_it_is_promised_or_finished(durations_ms):
    promised, seen, _, _ = paced(durations_ms)
    assert (seen >= promised).all()
    assert (np.diff(promised) >= 10.0 - 1e-6).all()


def test_eyes_stand_an_ipd_apart_and_their_fields_mirror():
    fov = (-0.9, 0.7, 0.8, -0.85)
    headset = HeadsetSimulated(ClockVirtual(), HeadStill(), options=SimulatedOptions(render=False, fov=fov, ipd=0.07))
    headset.start()
    headset.wait_frame()
    left, right = headset.views()
    np.testing.assert_allclose(left.stage_from_eye.translation, [-0.035, 1.6, 0.0], atol=1e-15)
    np.testing.assert_allclose(right.stage_from_eye.translation, [0.035, 1.6, 0.0], atol=1e-15)
    assert left.fov == fov
    assert right.fov == (-0.7, 0.9, 0.8, -0.85)
    assert left.stage_from_eye.source == "eye_left"


def test_each_eye_has_a_framebuffer_of_its_own():
    headset = HeadsetSimulated(ClockVirtual(), options=SimulatedOptions(size=(8, 4)))
    headset.start()
    try:
        headset.wait_frame()
        for eye, framebuffer in headset.eyes():
            framebuffer.clear(float(eye), 0.0, 1.0, 1.0)
        pictures = [np.frombuffer(framebuffer.read(components=4), np.uint8) for _, framebuffer in headset.eyes()]
        assert (pictures[0].reshape(-1, 4) == (0, 0, 255, 255)).all()
        assert (pictures[1].reshape(-1, 4) == (255, 0, 255, 255)).all()
        assert len(pictures[0]) == 8 * 4 * 4
    finally:
        headset.stop()
    assert headset.ctx is None


def test_without_rendering_no_eye_is_offered_and_gl_is_not_touched():
    headset = HeadsetSimulated(ClockVirtual(), options=NO_GL)
    headset.start()
    assert headset.wait_frame().should_render is False
    assert list(headset.eyes()) == []
    assert headset.ctx is None


def test_a_space_change_moves_the_poses_and_is_announced_once():
    moved = Transform.of("stage", "stage", rotation_from_vector(np.array([0, 0.1, 0])), np.array([0.02, 0.0, 0.0]))
    options = SimulatedOptions(render=False, space_changes=(SpaceChange(50 * MS, moved, "re-localised"),))
    clock = ClockVirtual()
    headset = HeadsetSimulated(clock, HeadStill(), options=options)
    headset.start()
    headset.poll()
    clock.advance_to(49 * MS)
    assert headset.poll() == []
    np.testing.assert_array_equal(headset.head(49 * MS).translation, [0.0, 1.6, 0.0])
    clock.advance_to(50 * MS)
    (event,) = headset.poll()
    assert (event.kind, event.t_ns, event.reason) == ("space_changed", 50 * MS, "re-localised")
    np.testing.assert_allclose(headset.head(50 * MS).matrix, (moved @ HeadStill().reported(0)).matrix, atol=1e-15)
    assert headset.poll() == []


def test_frames_keep_their_pace_through_a_lost_runtime():
    options = SimulatedOptions(render=False, losses=(RuntimeLoss(100 * MS, 300 * MS),))
    headset = HeadsetSimulated(ClockVirtual(), HeadStill(), options=options)
    headset.start()
    kinds, heads, wakes = [], [], []
    for _ in range(60):
        kinds += [event.kind for event in headset.poll()]
        wakes.append(headset.wait_frame().t_wake_ns)
        heads.append(headset.head(wakes[-1]))
        headset.views()
        headset.end_frame()
    assert kinds == ["session_state", "lost", "recovered"]
    assert set(np.diff(wakes)) <= {11_111_111, 11_111_112}  # 90 Hz in whole nanoseconds
    lost = [head is None for head in heads]
    assert lost == [100 * MS <= t < 300 * MS for t in wakes]


def test_scripted_hands_move_between_keyframes_and_buttons_hold():
    def grip(x):
        return Transform.of("stage", "grip_right", translation=np.array([x, 1.0, 0.0]))

    hands = HandsKeyframed(
        right=[
            (0, Hand(pose_grip=grip(0.0), active=True, trigger=0.0)),
            (SECOND, Hand(pose_grip=grip(1.0), active=True, trigger=1.0, buttons=frozenset({"a"}))),
            (2 * SECOND, Hand()),
        ]
    )
    half = hands(SECOND // 2)["right"]
    assert half.trigger == pytest.approx(0.5)
    assert half.pose_grip.translation[0] == pytest.approx(0.5)
    assert half.buttons == frozenset()
    assert hands(SECOND * 3 // 2)["right"].buttons == {"a"}
    assert hands(3 * SECOND)["right"].active is False
    assert hands(0)["left"].active is False


def test_a_recorded_head_passes_through_its_samples():
    times = np.array([0, 10, 30]) * MS
    positions = np.array([[0, 0, 0], [1, 0, 0], [1, 2, 0]], dtype=float)
    turns = [rotation_from_vector(np.array([0.0, turn, 0.0])) for turn in (0.0, np.pi / 2, np.pi)]
    poses = [Transform.of("stage", "headset", turn, place) for turn, place in zip(turns, positions, strict=True)]
    head = HeadKeyframed([(int(t), pose) for t, pose in zip(times, poses, strict=True)])
    for t, position in zip(times, positions, strict=True):
        np.testing.assert_allclose(head.reported(int(t)).translation, position, atol=1e-12)
    between = head.reported(20 * MS)
    np.testing.assert_allclose(between.translation, [1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(between.rotation, rotation_from_vector(np.array([0, 0.75 * np.pi, 0])), atol=1e-12)
    np.testing.assert_array_equal(head.reported(-5).translation, positions[0])
    np.testing.assert_array_equal(head.reported(99 * SECOND).translation, positions[2])


def test_a_recording_out_of_order_is_refused():
    with pytest.raises(HeadsetError, match="ascending"):
        HeadKeyframed([(t, Transform.of("stage", "headset")) for t in (0, 2, 1)])
    with pytest.raises(HeadsetError, match=r"got \[\]"):
        HeadKeyframed([])


@given(st.integers(0, 3600 * SECOND))
def test_the_default_head_looks_at_the_field_from_arms_length(t_ns):
    head = HeadSway()
    pose = head.reported(t_ns)
    ahead = pose.inverse().apply(head.field)
    assert abs(ahead[0]) < 1e-9
    assert abs(ahead[1]) < 1e-9
    assert -0.62 < ahead[2] < -0.50  # 0.57 m away, swaying by 6 mm per axis
    assert pose.rotation[1, 0] == pytest.approx(0.0, abs=1e-12)  # level: the eyes' axis stays horizontal


def test_looking_straight_down_is_refused_with_the_reason():
    with pytest.raises(HeadsetError, match="vertical"):
        look_at(np.array([0.0, 2.0, 0.0]), np.array([0.0, 1.0, 0.0]))
