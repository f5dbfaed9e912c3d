"""Kill the demo's own parts, each a process of its own, while it guides: what the wearer sees, and what comes back."""

import itertools
import os
import signal

import pytest

from twinguide.messages import PartState

KILLED = ("softbody", "tracker", "breathing")  # in this order: the last one forgets what it has learnt


@pytest.fixture(scope="module")
def killed(watch_module):
    """Answer the frames after each kill, by part."""
    run = watch_module(*[f"parts.{name}.placement=process" for name in KILLED])
    run.until(lambda shown: shown.step == "guide")
    run.for_seconds(1.0)
    frames = {}
    for name in KILLED:
        os.kill(run.loop.session.part_states[name].pid, signal.SIGKILL)
        frames[name] = run.for_seconds(2.0)
        if name == "softbody":
            run.until(lambda shown: shown.structures["liver"].state == "valid")  # started again, as fast as it can
    frames["states"] = dict(run.loop.session.part_states)
    return frames


@pytest.mark.parametrize("name", KILLED)
def test_a_killed_part_is_started_again_and_the_frames_go_on(killed, name):
    assert killed["states"][name].state == "running"
    assert killed["states"][name].restarts == 1
    times = [f.t_ns for f in killed[name]]
    assert max(b - a for a, b in itertools.pairwise(times)) < 12e6  # not one of the display's 11.1 ms is left out


def test_without_the_solver_the_organ_follows_its_target_rigidly_and_is_marked(killed):
    livers = [f.structures["liver"] for f in killed["softbody"]]
    assert [state for state, _ in itertools.groupby(v.state for v in livers)][:2] == ["valid", "degraded"]
    marked = [v for v in livers if v.state == "degraded"]
    assert marked[0].reason == "the organ's shape is not solved"
    assert max(v.p95_mm for v in marked) >= 5.1  # the contract's for a rigid organ, and the motion's own on top
    assert all(f.target is not None and f.structures["target"].state == "valid" for f in killed["softbody"])


def test_a_restarted_tracker_gives_the_needle_back(killed):
    assert "needle" in killed["tracker"][-1].tips
    assert killed["tracker"][-1].structures["ribs"].state == "valid"


def test_a_restarted_motion_model_has_forgotten_and_says_so(killed):
    last = killed["breathing"][-1]
    assert last.structures["liver"].state == "degraded"
    assert last.structures["liver"].reason == "motion unknown"
    assert last.structures["target"].p95_mm > 20.0  # an unknown breath is centimetres, and is not told as less
    assert last.structures["ribs"].state == "valid"
    assert not last.gate_open


def test_the_wearer_reads_that_nothing_is_recorded_any_more(watch_module):
    run = watch_module(scenario="liver_rehearsal")
    run.until(lambda shown: shown.step == "guide")
    reason = "disk full, nothing more is recorded: No space left on device"
    run.loop.session.part_states["recorder"] = PartState(
        part="recorder", state="dead", placement="process", reason=reason
    )
    rows = run.for_seconds(0.1)[-1].text
    assert f"CAUTION recorder: dead, {reason}" in rows
