import numpy as np
import pytest

from twinguide.composing import MINUTE_NS, finding_fault, panel_of, ranked
from twinguide.frames import Transform
from twinguide.messages import Finding, Registration, WorkflowState
from twinguide.scene import Point, Status, ToolView, TwinView


def twin(
    step="guide", waits_for="", state="confirmed", target_state="valid", gate_open=True, gate_seconds=1.5, note="",
    reason="", progress=(), verified_min=0.0,
):  # fmt: skip
    covariance = np.eye(3) * 1e-6
    needle = ToolView("needle", Status("valid"), Point(np.zeros(3), covariance), np.array([0.0, 0.0, 1.0]), "needle")
    return TwinView(
        t_display_ns=round((verified_min + 1.0) * MINUTE_NS),
        structures={},
        tools={"needle": needle},
        lost={},
        registration=Registration(
            version=1,
            state=state,
            reason=reason,
            tre_p95_mm=1.25,
            verification_mm={"V1": 0.5, "V2": 2.25},
            verification_p95_mm={"V1": 1.75, "V2": 1.8},
            verified_ns=MINUTE_NS,
        ),
        reference_from_image=Transform.of("reference", "image"),
        stage_from_reference=None,
        target=Point(np.array([0.0, 0.0, 0.05]), covariance),
        displacement=None,
        entry=np.array([0.0, 0.0, -0.05]),
        target_status=Status(target_state, reason),
        workflow=WorkflowState(step=step, waits_for=waits_for, version=1, note=note, progress=progress),
        gate_open=gate_open,
        gate_reason="moving",
        gate_seconds=gate_seconds,
    )


def finding(name, severity, value=5.0, lower95=None, of=""):
    return Finding(name=name, value=value, sigma=1.0, unit="mm", severity=severity, text=name, lower95=lower95, of=of)


def rows(view, found=(), **said):
    return [f"{kind}: {row}".replace("\xa0", " ") for kind, row in panel_of(view, ranked(found), **said)]


def test_the_worst_finding_comes_first():
    found = [finding("a", "advisory"), finding("b", "warning"), finding("c", "caution")]
    assert [f.severity for f in ranked(found)] == ["warning", "caution", "advisory"]


def test_the_error_at_the_target_is_told_in_millimetres():
    # chi, 3 degrees of freedom, 95 %: 2.7955 sigma of 1 mm
    assert "normal: Target error 95 % 2.8 mm" in rows(twin())


def test_of_the_harmless_distances_only_the_least_is_told_and_every_harmful_one():
    found = [
        finding("distance", "advisory", 20.0, 18.0, "vein"),
        finding("distance", "advisory", 12.0, 10.0, "rib"),
        finding("distance", "warning", 1.0, -1.0, "artery"),
        finding("distance", "caution", 4.0, 2.0, "duct"),
    ]
    told = [row for row in rows(twin(), found) if "distance" in row]
    assert [row.split(":")[0] for row in told] == ["warning", "caution", "advisory"]
    assert "12.0 mm, at least 10.0" in told[-1]


def test_a_path_that_goes_through_a_structure_is_told_so_and_not_as_a_distance_below_zero():
    found = [
        finding("distance", "warning", -5.7, -5.8, "portal_vein"),
        finding("distance", "warning", 0.3, -0.8, "artery"),
        finding("plan", "warning", -2.0, of="rib"),
        finding("offset", "caution", -1.5, -2.0),
    ]
    told = rows(twin(), found)
    assert {"warning: path goes through portal vein", "warning: planned path goes through rib"} <= set(told)
    assert "warning: distance: 0.3 mm, at least 0.0" in told
    assert "caution: offset: -1.5 mm, at least -2.0" in told  # of no structure: whoever says so means it


def test_the_gate_is_told_with_its_seconds_or_its_reason():
    assert any("OPEN 1.5 s" in row for row in rows(twin()))
    assert "normal: Breath gate OPEN" in rows(twin(gate_seconds=0.0))  # for how long, nobody knows
    assert any("CLOSED: moving" in row for row in rows(twin(gate_open=False)))


def test_how_long_ago_landmarks_were_verified_is_told_after_a_while_and_asked_for_anew_in_the_end():
    assert not any("verified" in row for row in rows(twin(verified_min=4.9)))
    assert "normal: Landmarks verified 7 min ago" in rows(twin(verified_min=7.0))
    assert "caution: Landmarks verified 15 min ago: verify them anew" in rows(twin(verified_min=15.0))
    assert not any("min ago" in row for row in rows(twin(step="confirm", verified_min=15.0)))


@pytest.mark.parametrize("step", ["register", "verify"])
def test_the_title_names_the_landmark_to_touch(step):
    assert "F3" in rows(twin(step=step, waits_for="touch F3"))[0]


def test_the_registration_is_told_by_its_error_at_the_target_and_its_verification():
    told = rows(twin(step="confirm", state="verified"))
    assert any("1.2 mm" in row for row in told)
    assert any("V1: 0.5 mm" in row and "1.8 mm" in row for row in told)
    assert not any("FRE" in row for row in told)


def test_a_landmark_beyond_its_bound_is_a_caution_that_the_wearer_decides_on():
    told = [row for row in rows(twin(step="confirm", state="verified")) if "V2" in row]
    assert [row.startswith("caution") and "2.2 mm" in row and "1.8 mm" in row for row in told] == [True]


def test_how_far_a_step_is_stands_below_its_title():
    told = rows(twin(step="register", waits_for="touch F3", progress=("2 of 6 touched",)))
    assert told[1] == "normal: 2 of 6 touched"


def test_a_refused_touch_and_a_withdrawn_part_are_cautions():
    told = rows(twin(step="register", waits_for="touch F1", note="touch again"), faults=["x withdrawn"])
    assert {"caution: touch again", "caution: x withdrawn"} <= set(told)


def test_a_hidden_target_has_no_number():
    assert not any("Target error" in row for row in rows(twin(target_state="hidden")))


def test_a_finding_without_a_unit_is_told_by_its_text_alone():
    said = Finding(name="unchecked", value=1.0, sigma=0.0, unit="", severity="caution", text="not checked: pleura")
    assert "caution: not checked: pleura" in rows(twin(), [said])


GOOD = {"name": "depth", "value": 1.0, "sigma": 0.0, "unit": "mm", "severity": "advisory", "text": "depth"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"value": None}, {"value": np.float64(1.0)}, {"value": np.int64(1)}, {"value": float("nan")}, {"value": True},
        {"sigma": "0.1"}, {"text": None}, {"name": 3}, {"severity": "loud"}, {"severity": []}, {"lower95": "near"},
        {"value": 10**40}, {"text": "\ud800"},
    ],
    ids=repr,
)  # fmt: skip
def test_a_finding_that_could_not_be_ranked_or_recorded_is_named(wrong):
    assert finding_fault(Finding(**GOOD | wrong))


def test_a_good_finding_has_no_fault_and_anything_else_has():
    assert finding_fault(Finding(**GOOD)) == ""
    assert finding_fault(Finding(**GOOD | {"value": 3, "lower95": 1.5, "of": "liver"})) == ""
    assert "wanted a Finding, got str" in finding_fault("too deep")
