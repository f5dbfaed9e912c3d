"""The simulated patient against what it states of itself."""

import msgspec
import numpy as np
import pytest

from twinguide import Act, Inbox, Pose
from twinguide.messages import BodiesSeen, Calibration, EchoSeen, Truth
from twinguide_patient.head import Head
from twinguide_patient.options import Fault
from twinguide_patient.room import furnish
from twinguide_patient.world import Patient

STEP_NS = round(1e9 / 180)


def play(patient, seconds, acts=(), start_s=0.0):
    """Return all messages; `acts` are (time [s], Act)."""
    acts, messages = sorted(acts, key=lambda a: a[0]), []
    for k in range(round(start_s * 180), round((start_s + seconds) * 180)):
        due = [a for t, a in acts if k <= t * 180 < k + 1]
        messages += patient.step(k * STEP_NS, Inbox([("operator", a) for a in due]))
    return messages


def of(messages, kind):
    return [m for m in messages if isinstance(m, kind)]


def points(messages, name):
    return np.array([m.points[name] for m in of(messages, Truth)])


def test_same_seed_gives_the_same_bits_and_another_seed_does_not(context):
    acts = [(0.2, Act(kind="touch", of="f0")), (0.5, Act(kind="needle", velocity=(0.01, 0, 0)))]
    runs = [msgspec.msgpack.encode(play(Patient(context(seed)), 2.0, acts)) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_target_moves_as_far_as_stated_and_rests_at_end_expiration(context):
    moved = points(play(Patient(context()), 32.0), "displacement")
    assert np.linalg.norm(moved[0]) < 1e-5  # the CT's phase; 1e-5: the lag's tail of Lujan's sixth power
    travel = np.linalg.norm(moved, axis=1)
    assert 0.9 * 0.8 * 15.8e-3 < travel.max() < 1.1 * 1.2 * 15.8e-3  # patients 10 %, cycles 2.5 x 8 %
    assert 0.25 < np.mean(travel) / travel.max() < 0.4  # sine to the sixth has a mean of 0.31


def test_target_lags_behind_the_chest_by_the_stated_phase(context):
    ctx = context(period_variation=0.0, amplitude_variation=0.0, surrogate_variation=0.0, vibration_mm=0.0)
    patient = Patient(ctx)
    messages = play(patient, 8.0)
    target = np.linalg.norm(points(messages, "displacement"), axis=1)
    chest = np.array([m.tools["chest"].position for m in of(messages, BodiesSeen)])
    chest = np.linalg.norm(chest - chest[0], axis=1)
    lag_s = (np.argmax(target[:720]) - np.argmax(chest[:720])) / 180
    lag_rad = patient._breathing.lag_rad
    assert lag_s == pytest.approx(lag_rad / np.pi * 4.0, abs=1.1 / 180)  # one step of the grid


def test_a_held_breath_stays_at_the_phase_of_the_ct(context):
    messages = play(Patient(context()), 12.0, [(1.0, Act(kind="breathe", of="hold"))])
    held = [m for m in of(messages, Truth) if m.flags["breathing"] == "hold"]
    assert len(held) > 180 * 5
    assert max(np.linalg.norm(m.points["displacement"]) for m in held) < 1e-4


def test_who_is_let_go_breathes_before_the_next_hold(context):
    hold, free = Act(kind="breathe", of="hold"), Act(kind="breathe", of="free")
    messages = play(Patient(context()), 20.0, [(0.1, hold), (8.0, free), (8.01, hold)])
    moved = np.linalg.norm(points(messages, "displacement"), axis=1)
    assert moved[8 * 180 :].max() > 5e-3
    assert moved[-1] < 1e-4


def test_the_organ_deforms_and_does_not_only_shift(context):
    tissue = Patient(context())._tissue
    field = tissue.organ(tissue.target + np.array([[0.0, 0, 0], [0, 0, 0.08], [0, 0, -0.08]]), 1.0)
    np.testing.assert_allclose(field[0], tissue.motion)
    assert np.linalg.norm(field[1]) > np.linalg.norm(field[2]) + 2e-3  # the dome moves most


def test_material_points_are_found_again(context):
    tissue = Patient(context())._tissue
    place = tissue.target + np.array([0.03, -0.02, 0.04])
    moved = place + tissue.organ(place[None], 1.0)[0] + [0.001, 0, 0]
    np.testing.assert_allclose(tissue.material(moved, 1.0, np.array([0.001, 0, 0])), place, atol=1e-6)


def test_the_pointer_reaches_the_landmark_and_rests_with_a_tremor(context):
    offset = (2e-4, -3e-4, 1e-4)
    acts = [(0.0, Act(kind="breathe", of="hold")), (0.1, Act(kind="touch", of="f0", offset=offset))]
    ctx = context()
    messages = play(Patient(ctx), 4.0, acts)
    truths = of(messages, Truth)[2 * 180 :]
    place = truths[0].poses["reference_from_image"].pose(0).transform.apply(ctx.case.landmarks["f0"].position)
    tips = np.array([m.points["pointer_tip"] for m in truths]) - place - offset
    np.testing.assert_allclose(tips.mean(axis=0), 0.0, atol=5e-5)
    assert tips.std(axis=0) == pytest.approx(1e-4, rel=0.5)  # 24 sinusoids over two seconds scatter by a third


def test_tracked_pointer_and_stated_tip_agree_to_the_stated_sigma(context):
    ctx = context()
    messages = play(Patient(ctx), 3.0, [(0.1, Act(kind="touch", of="f1"))])
    body, truth = of(messages, BodiesSeen)[-1], of(messages, Truth)[-1]
    reference_from_tracker = truth.poses["tracker_from_reference"].pose(0).transform.inverse()
    pointer = reference_from_tracker @ body.tools["pointer"].pose(0).transform
    tip = pointer.apply(np.array(ctx.options.pointer_tip_mm) * 1e-3)
    assert 0 < np.linalg.norm(tip - truth.points["pointer_tip"]) < 5e-4  # 0.1 mm an axis


def test_the_needle_follows_the_hand_and_bends_in_tissue(context):
    ctx = context()
    patient = Patient(ctx)
    reference_from_image = patient._room.reference_from_image
    inward = reference_from_image.rotation @ (ctx.case.plan.target - ctx.case.plan.entry)
    inward = inward / np.linalg.norm(inward) * 0.02
    messages = play(patient, 6.25, [(0.0, Act(kind="needle", velocity=tuple(inward)))])
    tips = points(messages, "needle_tip")
    assert np.linalg.norm(tips[180] - tips[0]) == pytest.approx(0.02, rel=1e-3)  # before the skin: as told
    stray = patient._needle.true_tip() - patient._needle.hand.tip
    assert patient._needle.depth_m == pytest.approx(0.1, abs=0.005)
    assert np.linalg.norm(stray) == pytest.approx(1e-3 * (patient._needle.depth_m / 0.1) ** 2, rel=1e-6)


def test_a_vessel_on_the_way_is_hit_and_one_beside_it_is_not(context):
    ctx = context()
    patient = Patient(ctx)
    inward = patient._room.reference_from_image.rotation @ (ctx.case.plan.target - ctx.case.plan.entry)
    velocity = tuple(inward / np.linalg.norm(inward) * 0.02)
    acts = [(0.0, Act(kind="breathe", of="hold")), (0.0, Act(kind="needle", velocity=velocity))]
    hits = [m.flags["hit"] for m in of(play(patient, 4.5, acts), Truth)]
    assert hits[180] == ""
    assert hits[-1] == "portal_vein"


def test_tools_that_lie_are_occluded_and_have_no_tip(context):
    messages = play(Patient(context()), 0.5, [(0.2, Act(kind="needle"))])
    assert of(messages, BodiesSeen)[0].occluded == ("needle", "pointer")
    assert of(messages, BodiesSeen)[-1].occluded == ("pointer",)
    assert "needle_tip" not in of(messages, Truth)[0].points


def test_senseless_acts_are_passed_over(context, caplog):
    acts = [
        (0.0, Act(kind="touch", of="nose")),
        (0.1, Act(kind="needle", velocity=(float("nan"), 0, 0))),
        (0.2, Act(kind="withdraw", of="sponge")),
    ]
    messages = play(Patient(context()), 0.5, acts)
    assert len(caplog.records) == 3
    assert of(messages, BodiesSeen)[-1].occluded == ("needle", "pointer")


def test_truth_chain_closes_from_stage_to_image(context):
    ctx = context(vibration_mm=0.0)
    patient = Patient(ctx)
    pose = {k: w.pose(0).transform for k, w in of(play(patient, 0.1), Truth)[-1].poses.items()}
    chain = pose["stage_from_tracker"] @ pose["tracker_from_reference"] @ pose["reference_from_image"]
    np.testing.assert_allclose(chain.matrix, patient._room.stage_from_image.matrix, atol=1e-9)


def test_stated_calibration_is_off_as_its_covariance_says(context):
    squares = []
    for seed in range(120):
        ctx = context(seed)
        room = furnish(ctx.seed, ctx.options, ctx.case)
        point = np.array([0, 0, 1.4])
        error = (room.stage_from_tracker.apply(point) - room.told.apply(point))[:, None]
        c = Pose(room.told, 0, room.told_covariance).point_covariance(point)
        squares.append((error.T @ np.linalg.inv(c) @ error).item())
    assert np.mean(squares) == pytest.approx(3.0, rel=0.25)  # chi-square, 3 degrees of freedom, 120 draws: 1 sigma 7 %


def test_calibration_is_repeated_every_second(context):
    messages = of(play(Patient(context()), 3.2), Calibration)
    assert [round(m.t_ns * 1e-9) for m in messages] == [0, 1, 2, 3]
    assert messages[0].name == "stage_from_tracker"


@pytest.mark.parametrize("stated_mm", [500, 620])
def test_the_wearer_looks_at_the_entry_from_the_stated_distance_to_the_target(context, stated_mm):
    ctx = context(eye_to_target_mm=float(stated_mm))
    room = Patient(ctx)._room
    head = Head(ctx).true(3_000_000_000)
    target = room.stage_from_image.apply(ctx.case.plan.target)
    assert np.linalg.norm(head.inverse().apply(target)) == pytest.approx(stated_mm * 1e-3, abs=0.05)  # sway
    in_view = head.inverse().apply(room.entry_in_stage)
    assert -in_view[2] > 10 * np.hypot(*in_view[:2])  # OpenXR looks along -z
    assert head.rotation[1, 1] > 0.3  # upright


def test_reported_head_jitters_as_stated_and_is_a_function_of_time(context):
    head, again = Head(context()), Head(context())
    times = np.arange(0, 60, 0.05) * 1e9
    deltas = [head.true(int(t)).inverse() @ head.reported(int(t)) for t in times]
    shift = np.array([d.translation for d in deltas])
    turn = np.array([[d.rotation[2, 1], d.rotation[0, 2], d.rotation[1, 0]] for d in deltas])
    assert shift.std(axis=0) == pytest.approx(2e-4, rel=0.15)  # 24 sinusoids over a minute
    assert turn.std(axis=0) == pytest.approx(np.radians(0.1), rel=0.15)
    assert np.array_equal(head.reported(int(times[7])).matrix, again.reported(int(times[7])).matrix)


def test_a_headset_jump_moves_what_is_reported_and_not_what_is_true(context):
    head = Head(context(faults=(Fault(kind="headset_jump", at_s=2.0),)))
    before, after = ((head.reported(t).translation - head.true(t).translation) for t in (1_900_000_000, 2_100_000_000))
    assert np.linalg.norm(before) < 2e-3
    assert np.linalg.norm(after) == pytest.approx(0.02, abs=2e-3)


def test_a_tracker_that_is_moved_sees_all_elsewhere_and_in_the_room_nothing_has_moved(context):
    messages = play(Patient(context(faults=(Fault(kind="camera", at_s=1.0),), vibration_mm=0.0)), 2.0)
    bodies, truths = of(messages, BodiesSeen), of(messages, Truth)
    for name in ("reference", "needle"):
        moved = np.subtract(bodies[-1].tools[name].position, bodies[0].tools[name].position)
        assert np.linalg.norm(moved) == pytest.approx(0.03)
    first, last = (
        truth.poses["stage_from_tracker"].pose(0).transform @ truth.poses["tracker_from_reference"].pose(0).transform
        for truth in (truths[0], truths[-1])
    )
    np.testing.assert_allclose(last.matrix, first.matrix, atol=1e-12)


def test_a_bump_moves_the_reference_and_the_truth_follows(context):
    messages = play(Patient(context(faults=(Fault(kind="bump", at_s=1.0),), vibration_mm=0.0)), 2.0)
    first, last = of(messages, Truth)[0].poses, of(messages, Truth)[-1].poses
    step = np.subtract(last["tracker_from_reference"].position, first["tracker_from_reference"].position)
    assert np.linalg.norm(step) == pytest.approx(7e-3, rel=1e-6)
    chains = [
        p["tracker_from_reference"].pose(0).transform @ p["reference_from_image"].pose(0).transform
        for p in (first, last)
    ]
    np.testing.assert_allclose(chains[0].matrix, chains[1].matrix, atol=1e-9)  # the patient has not moved


def test_a_creep_carries_the_reference_off_at_a_steady_pace_and_is_flagged(context):
    fault = Fault(kind="creep", at_s=1.0, seconds=4.0)
    truths = of(play(Patient(context(faults=(fault,), vibration_mm=0.0)), 6.0), Truth)
    places = np.array([m.poses["tracker_from_reference"].position for m in truths])
    moved = np.linalg.norm(places - places[0], axis=1)
    np.testing.assert_allclose(moved[[180, 3 * 180, 5 * 180, -1]], [0.0, 2e-3, 4e-3, 4e-3], atol=1e-9)
    assert {m.flags["breathing"] for m in truths[:180]} == {"regular"}
    assert {m.flags["breathing"] for m in truths[182:]} == {"creep"}


def test_a_cough_is_fast_flagged_and_over(context):
    fault = Fault(kind="cough", at_s=5.0)
    with_cough, without = (play(Patient(context(faults=f)), 7.0) for f in ((fault,), ()))
    extra = np.linalg.norm(points(with_cough, "displacement") - points(without, "displacement"), axis=1)
    assert extra.max() == pytest.approx(0.012, rel=0.01)
    assert extra[: 5 * 180].max() == 0.0
    assert extra[-180:].max() == 0.0
    assert {m.flags["breathing"] for m in of(with_cough, Truth)} == {"regular", "cough"}


def test_a_phase_jump_changes_the_lag_for_good(context):
    plain = {"period_variation": 0.0, "amplitude_variation": 0.0, "surrogate_variation": 0.0, "vibration_mm": 0.0}
    messages = play(Patient(context(**plain, faults=(Fault(kind="phase_jump", at_s=2.0, lag_rad=0.6),))), 12.0)
    target = np.linalg.norm(points(messages, "displacement"), axis=1)[4 * 180 :]
    chest = np.array([m.tools["chest"].position for m in of(messages, BodiesSeen)])
    chest = np.linalg.norm(chest - chest[0], axis=1)[4 * 180 :]
    first = np.argmax(chest[:720])
    lag_s = np.argmax(target[first : first + 500]) / 180
    assert lag_s == pytest.approx((0.25 + 0.6) / np.pi * 4.0, abs=0.15)  # the patient's own lag varies by 40 %
    assert of(messages, Truth)[-1].flags["breathing"] == "jump"


def test_an_occluded_tool_is_named_while_it_lasts(context):
    fault = Fault(kind="occlude", at_s=0.2, seconds=0.3, of=("reference",))
    seen = of(play(Patient(context(faults=(fault,))), 1.0), BodiesSeen)
    hidden = [m.t_ns * 1e-9 for m in seen if "reference" in m.occluded]
    assert hidden[0] == pytest.approx(0.2, abs=0.006)
    assert hidden[-1] == pytest.approx(0.5, abs=0.006)


def test_echo_shows_the_true_target(context):
    messages = play(Patient(context()), 3.0)
    truth = {m.t_ns: m.points["target"] for m in of(messages, Truth)}
    assert all(m.position == truth[m.t_ns] for m in of(messages, EchoSeen))
    assert len(of(messages, EchoSeen)) == 180


def test_the_target_moves_with_the_push_of_the_needle_and_slips_back(context):
    ctx = context(period_variation=0.0)
    patient = Patient(ctx)
    image = ctx.case.plan
    velocity = patient._room.reference_from_image.rotation @ (image.target - image.entry)
    velocity = tuple(velocity / np.linalg.norm(velocity) * 0.02)
    go, stop = Act(kind="needle", velocity=velocity), Act(kind="needle")
    messages = play(patient, 12.0, [(0, Act(kind="breathe", of="hold")), (0.0, go), (6.0, stop)])
    pushed = np.linalg.norm(points(messages, "displacement"), axis=1)
    assert 5e-4 < pushed.max() < 2.1e-3
    assert pushed[-1] < 2e-5
