import pytest

from twinguide.clock import SECOND
from twinguide.trust import Presence, Stream, Trust

PERIOD = SECOND // 60


def judge(trust, p95_mm, silence=0.5, fault=""):
    return trust.judge(p95_mm * 1e-3, silence, 45_000_000, PERIOD, fault)


def test_a_healthy_structure_is_unmarked():
    status = judge(Trust(0.005), 2.0)
    assert (status.state, status.reason) == ("valid", "")


def test_an_error_over_the_tolerance_degrades_with_hysteresis():
    trust = Trust(0.005)
    assert judge(trust, 5.1).state == "degraded"
    assert judge(trust, 4.9).state == "degraded"  # above 85 % of the tolerance
    assert judge(trust, 4.2).state == "valid"
    assert judge(trust, 4.9).state == "valid"


def test_a_fault_that_comes_and_goes_lifts_no_mark_of_the_error():
    trust = Trust(0.005)
    assert judge(trust, 5.1).state == "degraded"
    for fault in ("out of model: cough", "") * 3:
        assert judge(trust, 4.8, fault=fault).state == "degraded"


@pytest.mark.parametrize(("tolerance_m", "p95_mm"), [(float("nan"), 28.0), (0.005, float("nan"))])
def test_an_error_that_is_no_number_or_has_no_limit_is_marked(tolerance_m, p95_mm):
    trust = Trust(tolerance_m)
    assert [judge(trust, p95_mm).state for _ in range(2)] == ["degraded", "degraded"]


def test_the_reason_names_the_error_and_what_it_must_fall_below():
    trust = Trust(0.005)
    assert judge(trust, 7.25).reason == "error 7.2 mm > 5.0 mm"
    assert judge(trust, 4.6).reason == "error 4.6 mm > 4.2 mm"


def test_a_large_error_while_the_model_is_at_fault_leaves_no_mark_behind():
    trust = Trust(0.005)
    assert judge(trust, 28.0, fault="breathing not learnt").reason == "breathing not learnt"
    assert judge(trust, 4.9).state == "valid"


@pytest.mark.parametrize(
    ("silence", "state"), [(2.9, "valid"), (3.0, "predicted"), (59.0, "predicted"), (61.0, "hidden")]
)
def test_silence_changes_the_state_after_three_periods_and_hides_after_a_second(silence, state):
    assert judge(Trust(0.005), 2.0, silence).state == state


def test_a_model_that_speaks_against_itself_degrades():
    assert judge(Trust(0.005), 1.0, fault="out of model: cough").reason == "out of model: cough"


@pytest.mark.parametrize(("silence", "state"), [(10.0, "degraded"), (61.0, "hidden")])
def test_a_reference_out_of_sight_of_a_tracker_that_is_heard_is_no_silent_tracker(silence, state):
    status = Trust(0.005).judge(0.002, silence, 45_000_000, PERIOD, "out of model", "reference: not in view")
    assert (status.state, status.reason) == (state, "reference: not in view")


def test_a_stream_never_heard_is_silent_for_ever():
    stream = Stream(PERIOD)
    assert stream.silence(0) == float("inf")
    stream.heard_ns = 0
    assert stream.silence(3 * PERIOD) == 3.0


def test_a_tool_appears_after_five_samples_and_goes_at_the_third_miss():
    presence = Presence()
    for _ in range(4):
        presence.hit()
    assert not presence.present
    presence.hit()
    assert presence.present
    presence.miss("occluded")
    presence.miss("occluded")
    assert presence.present
    presence.miss("occluded")
    assert not presence.present
    assert presence.reason == "occluded"
    for _ in range(4):
        presence.hit()
    presence.miss("occluded")
    for _ in range(4):
        presence.hit()
    assert not presence.present  # five in a row


def test_a_tool_that_the_trackers_silence_took_is_not_back_with_its_first_sample():
    presence = Presence()
    for _ in range(9):
        presence.hit()
    presence.lose("tracker silent")
    for _ in range(4):
        presence.hit()
    assert not presence.present
    assert presence.reason == "tracker silent"
    presence.hit()
    assert presence.present
