"""Scores against sessions whose errors are known in closed form."""

import json
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from twinguide.bus.catalogue import Catalogue
from twinguide.equipping import recorded_wearer
from twinguide.errors import RecordingError, ScenarioError
from twinguide.frames import Transform, p95_from_covariance, rotation_from_vector, vector_from_rotation
from twinguide.messages import PoseWire, Shown
from twinguide.recording import Recorder
from twinguide.scoring import score, write_scores
from twinguide.scoring.comparing import CHI2_95, inside95
from twinguide.scoring.evidence import PointTrack, PoseTrack, load
from twinguide.scoring.marking import findings_raised

LINE_MM = 0.001  # breathing over 10 ms of true samples, by lines: at most 15 mm/s2 * (0.01 s)^2 / 8 = 0.0002 mm
CHORD_MM = 0.002  # the head's sway by great arcs, as seen 1.5 m away


def summary_of(folder):
    return score(load(folder)).summary


def test_a_perfect_session_has_no_error(session):
    summary = summary_of(session())
    for name in ("target", "needle", "overlay"):
        assert summary[f"{name}_error_mm"]["max"] <= CHORD_MM
        assert summary[f"{name}_error_mm"]["coverage"] == 1.0
    assert summary["breathing_error_mm"]["p95"] <= LINE_MM
    assert summary["frames"] == 360
    assert summary["frames_drawn"] == 120
    assert summary["marked_fraction"] == 0.0
    assert summary["not_scored"] == {}


def test_constant_errors_come_back_by_source(session):
    folder = session(constant={"target": (3e-3, 0, 4e-3), "breathing": (0, 2e-3, 0), "needle": (0, 0, -1.5e-3)})
    summary = summary_of(folder)
    assert summary["target_error_mm"]["mean"] == pytest.approx(5.0, abs=LINE_MM)
    assert summary["breathing_error_mm"]["p95"] == pytest.approx(2.0, abs=LINE_MM)
    assert summary["needle_error_mm"]["max"] == pytest.approx(1.5, abs=LINE_MM)
    assert summary["overlay_error_mm"]["mean"] == pytest.approx(5.0, abs=CHORD_MM)  # the stage only turns it


def test_the_headset_s_own_error_reaches_the_overlay_and_nothing_else(session):
    wrong = np.eye(4)
    wrong[:3, 3] = (0.0, 0.0, 2e-3)
    summary = summary_of(session(reported_from_true_head=wrong))
    assert summary["overlay_error_mm"]["mean"] == pytest.approx(2.0, abs=CHORD_MM)
    assert summary["target_error_mm"]["max"] <= LINE_MM


def test_a_wrong_head_turn_costs_its_angle_times_the_distance(session):
    turned = np.eye(4)
    turned[:3, :3] = rotation_from_vector(np.array([0.0, 0.002, 0.0]))
    folder = session(reported_from_true_head=turned, head_sways=False)
    evidence = load(folder)
    shown = evidence.guide()[0]
    head = shown.stage_from_head.pose(0).transform
    x, _, z = head.inverse().apply(np.array(shown.target_stage))
    assert summary_of(folder)["overlay_error_mm"]["max"] >= 0.9 * np.hypot(x, z) * 2.0  # 2 mrad about y, in mm


def test_an_honest_covariance_predicts_the_p95_and_covers_95_percent(session):
    folder = session(seconds=30.0, sigma={"target": 0.8e-3, "needle": 0.8e-3}, said_sigma=0.8e-3)
    summary = summary_of(folder)
    for name in ("target", "needle", "overlay"):
        figures = summary[f"{name}_error_mm"]
        # 2700 independent frames: 1 sigma of the coverage is 0.42 %, of the p95 about 1 %; 4 sigma are allowed
        assert figures["coverage"] == pytest.approx(0.95, abs=0.017)
        assert figures["p95"] == pytest.approx(figures["predicted_p95"], rel=0.06)
    assert summary["target_error_mm"]["predicted_p95"] == pytest.approx(p95_from_covariance(np.eye(3) * 0.64), rel=1e-5)


def test_a_boastful_covariance_is_found_out(session):
    folder = session(seconds=10.0, sigma={"target": 1.6e-3}, said_sigma=0.8e-3)
    assert summary_of(folder)["target_error_mm"]["coverage"] < 0.5


def test_frames_without_a_target_are_marked_and_not_scored(session):
    summary = summary_of(session(hidden=(1.0, 2.0)))
    assert summary["frames_scored"]["target"] == 360 - 90
    assert summary["marked_fraction"] == pytest.approx(0.25)
    assert summary["marked_by"] == {"target": 0.25}


def test_a_needle_on_its_tray_is_no_mark_and_a_lost_one_is(session):
    tray = summary_of(session("tray", needle_from=1.0, needle_laid_down=3.0))
    assert tray["marked_fraction"] == pytest.approx(0.0, abs=1.5 / 360)  # the frame of laying it down may count
    assert tray["frames_scored"]["needle"] == 180
    lost = summary_of(session("lost", needle_from=1.0, needle_lost=(2.0, 4.0)))
    assert lost["marked_fraction"] == pytest.approx(0.5)


def test_a_needle_of_another_name_is_scored_as_the_needle(session):
    off = {"constant": {"needle": (0.0, 0.0, -1.5e-3)}, "needle_from": 1.0}
    plain, named = (summary_of(session(name, needle_name=name, **off)) for name in ("needle", "trocar"))
    assert named["needle_error_mm"] == plain["needle_error_mm"]
    assert named["needle_error_mm"]["p95"] == pytest.approx(1.5)


def test_a_cough_named_in_time_has_its_latency_and_is_not_false(session):
    report = summary_of(session(cough_at=2.0, word_at=2.2))["out_of_model"]
    assert report["false"] == 0
    assert len(report["episodes"]) == 1
    # the word goes out with the first of the 30 Hz trajectories at or after 2.2 s, the error shows in a 90 Hz frame
    assert report["latency_s"] == [pytest.approx(0.2, abs=1 / 30 + 1 / 90)]


def test_a_cough_that_nobody_names_is_a_missing_word(session):
    report = summary_of(session(cough_at=2.0))["out_of_model"]
    assert report["episodes"] == []
    assert report["latency_s"] == [None]


def test_a_word_without_reason_is_false(session):
    report = summary_of(session(word_at=1.0))["out_of_model"]
    assert report["false"] == 1
    assert report["latency_s"] == []


def test_a_word_just_after_a_cough_or_with_a_large_error_is_not_false(session):
    after = summary_of(session("after", cough_at=1.0, word_at=2.0))["out_of_model"]
    assert (len(after["episodes"]), after["false"]) == (1, 0)
    unflagged = summary_of(session("unflagged", cough_at=2.0, word_at=2.2, flag_cough=False))["out_of_model"]
    assert (len(unflagged["episodes"]), unflagged["false"]) == (1, 0)


def test_findings_are_counted_as_raised_and_as_frames(session):
    told = summary_of(session())["findings"]
    first_s = 11.0  # the run begins 10 s before guidance, and a second into it the needle is off its path
    row = {"raised": 2, "frames": 90, "first_s": first_s}
    assert told == {"angle": {"caution": {**row, "of": {"": {**row, "lower95_mm": None}}}}}


@pytest.mark.parametrize(
    ("changes", "guided_s", "early"),
    [
        ({"seconds": 2.0, "asked_s": 1.0}, 179 / 90, False),
        ({"seconds": 2.0, "asked_s": 40.0, "ended": "interrupted", "early": True}, 179 / 90, True),
        ({"seconds": 2.0, "asked_s": 40.0, "ended": "40 s of guidance"}, 179 / 90, False),  # some were not recorded
        ({"seconds": 2.0, "asked_s": 1.0, "ended": ""}, 179 / 90, True),  # whatever it holds, more may have come
        ({"seconds": 0.0, "asked_s": 40.0, "ended": "interrupted", "early": True}, 0.0, True),
    ],
)
def test_a_run_that_ended_early_or_whose_end_is_not_recorded_is_told_apart(session, changes, guided_s, early):
    ended = summary_of(session(**changes))["ended"]
    assert ended["reason"] == (changes.get("ended", "as asked") or None)
    assert ended["guided_s"] == pytest.approx(guided_s, abs=1e-6)
    assert (ended["asked_s"], ended["early"]) == (changes["asked_s"], early)


def test_the_puncture_is_judged_by_the_truth_at_the_end(session):
    puncture = summary_of(session())["puncture"]
    assert puncture["structures_hit"] == ["rib"]
    # after 4 s the breath is back at its start, so what is left is the last 20 ms of the 25 mm/s approach
    assert puncture["tip_error_mm"] == pytest.approx(0.5, abs=0.3)


def test_the_same_run_gives_the_same_bytes_whatever_the_order_of_arrival(session):
    first, second = session("a"), session("b", shuffle=5, stage_us=900)
    for folder in (first, second):
        write_scores(folder, score(load(folder)))
    assert (first / "summary.json").read_bytes() == (second / "summary.json").read_bytes()
    assert (first / "timing.json").read_bytes() != (second / "timing.json").read_bytes()


def test_another_seed_gives_other_figures(session):
    first = summary_of(session("a", sigma={"target": 1e-3}))
    second = summary_of(session("b", sigma={"target": 1e-3}, seed=2))
    assert first["target_error_mm"] != second["target_error_mm"]


def test_a_run_without_truth_says_so_and_keeps_its_other_figures(session):
    summary = summary_of(session(truth=False, hidden=(1.0, 2.0)))
    assert summary["target_error_mm"] is None
    assert "truth" in summary["not_scored"]["target_error_mm"]
    assert summary["puncture"] == {"tip_error_mm": None, "structures_hit": None}
    assert summary["marked_fraction"] == pytest.approx(0.25)
    assert summary["registration"]["tre_p95_mm"] == 1.4
    assert summary["out_of_model"]["false"] == 0


def test_a_run_stopped_before_guidance_still_has_a_summary(session):
    folder = session(seconds=0.0)
    write_scores(folder, score(load(folder)))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["frames"] == 0
    assert summary["marked_fraction"] is None
    assert "no frame" in summary["not_scored"]["target_error_mm"]


def test_missed_frames_and_stages_stand_in_the_timing(session):
    timing = score(load(session(missed=7, stage_us=500))).timing
    assert timing["missed_frames"] == 7
    assert timing["stage_ms"]["draw"] == pytest.approx({"p50": 0.7, "p99": 0.7, "max": 0.7})
    assert timing["recording"]["never_came"] == {}


def test_a_slow_machine_owns_up_to_every_period_without_a_frame(session):
    timing = score(load(session(every=4))).timing
    assert timing["period_ms"] == pytest.approx(1e3 / 90, rel=1e-6)
    assert timing["missed_frames"] == pytest.approx(3 * timing["frames"], abs=3)  # none are counted before the first


def test_a_recording_that_does_not_tell_the_display_s_period_is_judged_by_the_usual_one(session):
    timing = score(load(session(period_ns=0, missed=7))).timing
    assert timing["period_ms"] == pytest.approx(1e3 / 90, rel=1e-3)
    assert timing["missed_frames"] == 7


def test_seconds_count_from_the_runs_first_message_whatever_its_clock(session):
    late = {"word_at": 2.0, "cough_at": 1.5, "constant": {"breathing": (0.004, 0.0, 0.0)}}
    summary = summary_of(session("at_zero", **late))
    assert summary["out_of_model"]["episodes"]
    assert summary_of(session("after_a_day", begun_s=86_400.0, **late)) == summary


def test_a_part_started_anew_is_counted_whoever_started_it(session):
    assert score(load(session(processes=(71, 72, 73)))).timing["restarts"]["tracker"] == 2
    assert score(load(session("once", processes=(71, 71)))).timing["restarts"]["tracker"] == 0


def test_a_finding_on_two_structures_stands_once_in_a_frame_and_each_has_its_nearest_bound(session):
    evidence = load(session())
    records = evidence.by_kind[Shown][100:102]
    angle = records[0].message.findings[0]

    def at(record, *bounds):
        near = [msgspec.structs.replace(angle, of=of, lower95=mm, unit="mm") for of, mm in bounds]
        return replace(record, message=msgspec.structs.replace(record.message, findings=(angle, *near)))

    shown = (at(records[0], ("rib", 4.0)), at(records[1], ("rib", -0.5), ("portal_vein", None)))
    found = findings_raised(replace(evidence, by_kind={Shown: shown}))["angle"]["caution"]
    structures = found.pop("of")
    first_s, second_s = (round(evidence.seconds(r.message.t_ns).item(), 6) for r in records)
    assert found == {"raised": 3, "frames": 2, "first_s": first_s}
    assert structures == {
        "": {"raised": 1, "frames": 2, "first_s": first_s, "lower95_mm": None},
        "portal_vein": {"raised": 1, "frames": 1, "first_s": second_s, "lower95_mm": None},
        "rib": {"raised": 1, "frames": 2, "first_s": first_s, "lower95_mm": -0.5},
    }


def test_parts_stand_with_plugin_and_placement_as_planned(session):
    summary = summary_of(session())
    assert summary["plugins"] == {"puncture": {"placement": "inside", "plugin": "twinguide_puncture"}}
    assert "run_id" not in summary  # another process number, another run of the same seed


def test_a_part_that_failed_for_good_stands_with_its_reason(session):
    told = summary_of(session(withdrawn="KeyError: 'probe'"))["plugins"]["puncture"]
    assert (told["placement"], told["state"], told["reason"]) == ("inside", "quarantined", "KeyError: 'probe'")


def test_the_overlay_of_a_headset_whose_true_pose_is_unknown_is_not_scored(session):
    summary = summary_of(session(headset="openxr"))
    assert summary["overlay_error_mm"] is None
    assert "headset" in summary["not_scored"]["overlay_error_mm"]
    assert summary["target_error_mm"] is not None


def test_a_torn_recording_is_scored_as_far_as_it_goes(session):
    folder = session()
    file = folder / "session.mcap"
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    scores = score(load(folder))
    assert scores.timing["recording"]["damage"]
    assert 0 < scores.summary["frames"] < 360


def test_the_head_of_a_recording_can_be_worn_again(session):
    begin_ns = 5_000_000_000
    head, hands = recorded_wearer(session(), lambda t_ns: t_ns - begin_ns)
    assert hands is None  # its wearer held no controller
    frames = load(session("again")).of(Shown)
    first_ns = min(frame.t_ns for frame in frames)
    for frame in frames[::50]:
        worn = head.reported(frame.t_ns - first_ns + begin_ns)
        np.testing.assert_allclose(worn.translation, frame.stage_from_head.position, atol=1e-12)
        np.testing.assert_allclose(np.abs(worn.quaternion @ frame.stage_from_head.quaternion), 1.0, atol=1e-12)
    with pytest.raises(ScenarioError, match="a session with frames"):
        recorded_wearer(session("empty", seconds=0.0), int)


def test_a_recording_without_messages_is_refused(tmp_path):
    Recorder(tmp_path, Catalogue()).close()
    with pytest.raises(RecordingError, match="messages"):
        load(tmp_path)


def test_truth_is_interpolated_and_gaps_are_not_bridged():
    track = PointTrack.of([(0, (0.0, 0.0, 0.0)), (100_000_000, (1.0, 2.0, 3.0)), (400_000_000, (2.0, 2.0, 2.0))])
    at = track.at(np.array([-1, 25_000_000, 100_000_000, 200_000_000, 400_000_001]))
    np.testing.assert_allclose(at[1:3], [[0.25, 0.5, 0.75], [1.0, 2.0, 3.0]])
    assert np.isnan(at[[0, 3, 4]]).all()


def test_true_poses_go_along_the_great_arc_whatever_the_quaternion_s_sign():
    start = Transform.of("stage", "headset", rotation_from_vector(np.array([0.0, 0.0, 3.0])))
    end = Transform.of("stage", "headset", rotation_from_vector(np.array([0.0, 0.0, 3.4])))  # passes half a turn
    wires = [PoseWire.of(pose, np.zeros((6, 6))) for pose in (start, end)]
    if np.dot(wires[0].quaternion, wires[1].quaternion) > 0:  # make them differ in sign, as two devices' may
        wires[1] = msgspec.structs.replace(wires[1], quaternion=tuple(-q for q in wires[1].quaternion))
    rotation, _ = PoseTrack.of([(0, wires[0]), (50_000_000, wires[1])]).at(np.array([25_000_000]))
    np.testing.assert_allclose(rotation[0], rotation_from_vector(np.array([0.0, 0.0, 3.2])), atol=1e-12)


finite = st.floats(-3.0, 3.0)
vectors = st.tuples(finite, finite, finite).map(np.array)


@given(turn=vectors, errors=st.lists(vectors, min_size=1, max_size=8), spread=st.tuples(*[st.floats(0.1, 3.0)] * 3))
def test_the_95_percent_region_turns_with_the_frame(turn, errors, spread):
    rotation, error = rotation_from_vector(turn), np.array(errors) * 1e-3
    covariance = np.repeat(np.diag(np.square(spread))[None] * 1e-6, len(error), axis=0)
    distance = np.sum(error**2 / np.diagonal(covariance, axis1=1, axis2=2), axis=1)
    assume((np.abs(distance - CHI2_95) > 1e-3).all())  # on the border, rounding decides
    inside = inside95(error, covariance)
    np.testing.assert_array_equal(inside, distance < CHI2_95)
    np.testing.assert_array_equal(inside95(error @ rotation.T, rotation @ covariance @ rotation.T), inside)


@given(start=vectors, end=vectors, share=st.floats(0.0, 1.0))
def test_a_true_pose_between_two_samples_turns_by_its_share_about_one_axis(start, end, share):
    wires = [
        PoseWire.of(Transform.of("stage", "headset", rotation_from_vector(v), v), np.zeros((6, 6)))
        for v in (start, end)
    ]
    between = vector_from_rotation(rotation_from_vector(start).T @ rotation_from_vector(end))
    assume(np.linalg.norm(between) < 3.1)  # near half a turn the shorter arc is anyone's guess
    t_ns = round(share * 10_000_000)
    rotation, position = PoseTrack.of([(0, wires[0]), (10_000_000, wires[1])]).at(np.array([t_ns]))
    expected = rotation_from_vector(start) @ rotation_from_vector(between * t_ns / 10_000_000)
    np.testing.assert_allclose(rotation[0], expected, atol=1e-6)  # arccos near one loses half the digits
    np.testing.assert_allclose(position[0], start + (end - start) * t_ns / 10_000_000, atol=1e-12)


def test_a_hidden_needle_has_no_age(session):
    ages = score(load(session(needle_from=3.0))).timing["input_age_ms"]
    assert ages["needle"] == {"p50": 42.0, "p99": 42.0, "max": 42.0}
