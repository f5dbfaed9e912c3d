"""What the wearer sees when something goes wrong: one healthy run, and one with fault after fault."""

from itertools import pairwise

import numpy as np
import pytest

MARKED = ("degraded", "hidden", "unconfirmed")
JUMPED_M = np.array([0.016, 0.0, -0.012])  # of the headset's room, for good
# After guidance began:
OCCLUDE_S, SILENT_S, COUGH_S, UNSEEN_S, BODY_S, JUMP_S = 2.0, 6.0, 10.0, 15.0, 18.0, 21.0
CAMERA_S, BUMP_S = 29.0, 37.0
MOVED_M = 0.03 * np.array([0.36, -0.48, 0.8])  # of all that the camera sees, in tracker


@pytest.fixture(scope="module")
def healthy(watch_module):
    """All frames of a run without a fault, 30 s into guidance."""
    run = watch_module()
    run.until(lambda shown: shown.step == "guide")
    run.for_seconds(30.0)
    return run.frames


def guided(frames):
    return [f for f in frames if f.step == "guide"]


def fault(kind, at_s, **more):
    return {"kind": kind, "at_s": round(at_s, 3), **more}


@pytest.fixture(scope="module")
def story(watch_module, healthy):
    """Answer the frames between two times of a run with one fault after the other, and when guidance began [s]."""
    begun = guided(healthy)[0].t_ns * 1e-9
    faults = [
        fault("occlude", begun + OCCLUDE_S, of=["needle"], seconds=1.0),
        fault("cough", begun + COUGH_S),
        fault("occlude", begun + UNSEEN_S, of=["reference"], seconds=1.5),
        fault("occlude", begun + BODY_S, of=["headset_body"], seconds=2.0),
        fault("headset_jump", begun + JUMP_S, seconds=1000.0),
        fault("camera", begun + CAMERA_S),
        fault("bump", begun + BUMP_S),
    ]
    run = watch_module(faults=faults)
    run.until(lambda shown: shown.t_ns * 1e-9 >= begun + SILENT_S)
    taken, fed = run.loop.twin.take, ("tracker", "breathing", "softbody")  # what a dead camera silences
    run.loop.twin.take = lambda source, message, now: None if source in fed else taken(source, message, now)
    run.for_seconds(1.6)
    run.loop.twin.take = taken
    run.until(lambda shown: shown.t_ns * 1e-9 >= begun + JUMP_S - 0.1)
    run.places = []
    for at_s in (JUMP_S, CAMERA_S, BUMP_S):
        run.until(lambda shown, at_s=at_s: shown.t_ns * 1e-9 >= begun + at_s - 0.1)
        run.places.append(run.loop.wearer.stage_from_tracker(run.frames[-1].t_ns))
    run.until(lambda shown: shown.t_ns * 1e-9 >= begun + BUMP_S + 1.0, limit_s=200.0)
    run.until(lambda shown: shown.step == "guide", limit_s=250.0)

    def between(start, end):
        return [f for f in run.frames if begun + start <= f.t_ns * 1e-9 < begun + end]

    between.places = run.places
    return between


def basis(frame):
    """Return what findings and panel rest on beside the step of the procedure."""
    return frame.structures["target"].state, frame.gate_open, "needle" in frame.tips


def states(frames, name):
    return [f.structures[name].state for f in frames]


def test_a_healthy_run_is_unmarked(healthy):
    frames = guided(healthy)
    with_marks = [f for f in frames if any(s.state in MARKED for s in f.structures.values())]
    assert len(with_marks) <= 0.02 * len(frames)


def test_the_needle_reaches_the_target_as_shown(healthy):
    frames = [f for f in guided(healthy) if f.gate_open and "needle" in f.tips]
    assert np.linalg.norm(np.subtract(frames[-1].tips["needle"], frames[-1].target)) < 4e-3


def test_findings_are_one_frame_old_at_most_and_new_at_every_step(healthy):
    pairs = list(pairwise(healthy))
    kept = [b.findings == a.findings for a, b in pairs if b.frame % 2 and a.step == b.step and basis(a) == basis(b)]
    anew = [b.findings != a.findings for a, b in pairs if b.frame % 2 == 0 and b.step == "guide" and "needle" in b.tips]
    assert len(kept) > 2000
    assert all(kept)
    assert len(anew) > 1000
    assert np.mean(anew) > 0.95  # the organ breathes: no two frames find the same distances
    turning = [b for a, b in pairs if a.step != b.step]
    assert all(b.text != a.text for a, b in pairs if a.step != b.step)
    assert any(b.frame % 2 for b in turning)  # also where the frame is an odd one


def test_findings_are_made_anew_in_the_frame_in_which_what_they_rest_on_turns(story):
    turning = [(a, b) for a, b in pairwise(story(0.0, BUMP_S + 1.0)) if basis(a) != basis(b)]
    assert {b.frame % 2 for _, b in turning} == {0, 1}
    assert all(finding.t_ns == b.t_ns for _, b in turning for finding in b.findings if finding.name == "depth")
    assert not any(f.name == "depth" for _, b in turning if basis(b)[0] == "hidden" for f in b.findings)


def test_before_the_registration_nothing_is_shown(healthy):
    early = [f for f in healthy if f.step in ("setup", "register")]
    assert len(early) > 900
    assert all(f.target is None and s.state == "hidden" for f in early for s in f.structures.values())


def test_before_the_wearer_confirms_everything_is_marked_unconfirmed(healthy):
    shown = [f for f in healthy if f.step == "confirm"]
    assert {s.state for f in shown for s in f.structures.values()} == {"unconfirmed"}


def test_an_occluded_needle_is_removed_named_and_comes_back(story):
    frames = story(OCCLUDE_S, OCCLUDE_S + 2.0)
    gone = [f for f in frames if "needle" not in f.tips]
    assert 0.95 < len(gone) / 90 < 1.25  # 1 s, three exposures to go, five to return
    assert {f.tools["needle"].state for f in gone} == {"hidden"}
    assert "needle" in frames[-1].tips
    assert set(states(frames, "liver")) == {"valid"}


def test_a_silent_tracker_is_bridged_then_marked_then_hidden_and_comes_back(story):
    frames = story(SILENT_S, SILENT_S + 1.6)
    seen = list(dict.fromkeys(states(frames, "liver")))
    assert seen[0] == "valid"
    assert seen.index("predicted") < seen.index("degraded") < seen.index("hidden")
    assert frames[-1].structures["liver"].reason == "tracker silent"
    assert "needle" not in frames[-1].tips
    assert not any(f.gate_open for f in frames[15:])  # whoever opened it has long been silent
    assert states(story(SILENT_S + 2.5, SILENT_S + 3.5), "liver")[-1] == "valid"


def test_a_reference_that_is_not_seen_is_said_and_hides_what_hangs_on_it(story):
    frames = story(UNSEEN_S + 0.2, UNSEEN_S + 1.5)
    assert {f.structures["ribs"].state for f in frames} <= {"degraded", "hidden"}
    assert frames[-1].structures["ribs"].state == "hidden"
    assert "reference" in frames[0].structures["ribs"].reason
    assert not any("needle" in f.tips for f in frames)
    assert states(story(UNSEEN_S + 2.5, UNSEEN_S + 3.5), "ribs")[-1] == "valid"


def test_a_cough_is_out_of_model_and_closes_the_gate(story):
    frames = story(COUGH_S, COUGH_S + 1.5)
    degraded = [f for f in frames if f.structures["target"].state == "degraded"]
    assert degraded
    assert "out of model" in degraded[0].structures["target"].reason
    assert not any(f.gate_open for f in degraded[3:])


def test_a_body_on_the_headset_out_of_sight_is_said_and_the_overlay_stays(story):
    frames = story(BODY_S + 1.2, BODY_S + 1.9)
    assert all(any("headset_body is not seen" in row for row in f.text) for f in frames)
    assert all(f.target_stage is not None for f in frames)
    assert not any("headset_body" in row for f in story(BODY_S + 2.5, JUMP_S - 0.1) for row in f.text)


def test_a_jump_of_the_headset_hides_the_overlay_until_its_room_is_found_and_the_wearer_confirms(story):
    frames = story(JUMP_S - 0.1, JUMP_S + 7.5)
    seen = [(f.step, f.structures["liver"].state) for f in frames]
    assert list(dict.fromkeys(seen)) == [("guide", "valid"), ("confirm", "hidden"), ("confirm", "unconfirmed")]
    assert seen[-1] == ("guide", "valid")
    hidden = [f for f in frames if f.structures["liver"].state == "hidden"]
    assert hidden[0].t_ns - frames[0].t_ns < 0.15e9
    assert "jumped" in hidden[-1].structures["liver"].reason
    assert 1.5 < (hidden[-1].t_ns - hidden[0].t_ns) * 1e-9 < 3.0  # eight sightings of 0.25 s settle it
    assert all(f.target_stage is None for f in hidden)


def test_after_a_lasting_jump_the_overlay_lies_right_again(story):
    before, after, _ = story.places
    point = before.transform.inverse().apply(np.array([0.0, 1.0, -0.4]))  # about the patient, in tracker
    moved = after.transform.apply(point) - before.transform.apply(point)
    sigma = np.sqrt(np.trace(before.point_covariance(point) + after.point_covariance(point)))
    assert np.linalg.norm(moved - JUMPED_M) < 3.0 * sigma < 5e-3


def test_a_tracker_that_is_moved_hides_the_overlay_until_the_wearer_confirms_and_voids_nothing(story):
    frames = story(CAMERA_S - 0.1, CAMERA_S + 7.5)
    seen = [(f.step, f.structures["ribs"].state) for f in frames]  # which do not breathe: the liver waits for a breath
    assert list(dict.fromkeys(seen)) == [("guide", "valid"), ("confirm", "hidden"), ("confirm", "unconfirmed")]
    assert seen[-1] == ("guide", "valid")
    hidden = next(f for f in frames if f.step == "confirm")
    assert hidden.t_ns - frames[0].t_ns < 0.4e9  # while it still moves
    assert hidden.structures["ribs"].reason == "the tracker was moved"


def test_after_the_tracker_was_moved_the_overlay_lies_right_again(story):
    _, before, after = story.places
    point = before.transform.inverse().apply(np.array([0.0, 1.0, -0.4]))  # about the patient, in tracker
    off = after.transform.apply(point + MOVED_M) - before.transform.apply(point)
    sigma = np.sqrt(np.trace(before.point_covariance(point) + after.point_covariance(point)))
    assert np.linalg.norm(off) < 3.0 * sigma < 5e-3


def test_a_bumped_reference_voids_the_registration_and_hides_the_overlay(story):
    frames = story(BUMP_S, BUMP_S + 1.0)
    hidden = next(k for k, f in enumerate(frames) if f.target is None)
    # camera latency 14 ms, three exposures of 16.7 ms, display 22 ms, a frame of 11 ms: 97 ms; an exposure to spare
    assert hidden <= 11
    assert frames[-1].step == "register"
    assert set(states(frames[hidden:], "liver")) == {"hidden"}
    assert "bumped" in frames[-1].structures["liver"].reason


def test_after_a_bump_everything_is_made_anew_before_guidance_goes_on(story):
    steps = list(dict.fromkeys(f.step for f in story(BUMP_S + 0.5, 500.0)))
    assert steps == ["register", "verify", "confirm", "train", "guide"]
