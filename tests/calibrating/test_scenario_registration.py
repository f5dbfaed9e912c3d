from datetime import UTC, datetime

import numpy as np
import pytest

from twinguide.calibrating.result import PointsResult, SurfaceResult, write_result
from twinguide.case import Landmark
from twinguide.errors import CaseError, ScenarioError
from twinguide.frames import Pose, Transform, rotation_from_vector
from twinguide.preparing import check_known
from twinguide.registering import Landmarks, known_registration, unused_landmarks
from twinguide.registry import Registry
from twinguide.scenario import find, load, overridden

SCENARIO = """
title = "t"
case = "c"
[registration]
calibration = "made/registration.toml"
[parts]
"""
TRUE = Transform.of(
    "reference", "image", rotation_from_vector(np.array([0.3, -0.2, 1.0])), np.array([0.3, 0.01, -0.04])
)
ROOT = np.random.default_rng(1).normal(size=(6, 6)) * np.repeat([1e-3, 3e-4], 3)[:, None]
COVARIANCE = ROOT @ ROOT.T
POINT = np.array([0.05, -0.1, 0.2])


def result(pose, kind=PointsResult, **changed):
    own = {"names": ("F1", "F2", "F3")} if kind is PointsResult else {"inlier_share": 0.9}
    fields = {
        "of": "registration",
        "made": datetime(2026, 1, 2, tzinfo=UTC),
        "made_by": "a test",
        "sources": (),
        "samples": 3,
        "rejected": (),
        "residuals": (0.1,),
        "target": pose.transform.target,
        "source": pose.transform.source,
        "matrix": tuple(map(tuple, pose.transform.matrix.tolist())),
        "covariance": tuple(map(tuple, ((pose.covariance + pose.covariance.T) / 2).tolist())),
        "freedom": float("inf"),
        "fre_mm": 0.3,
        "case_hash": "c1",
        **own,
    }
    return kind(**(fields | changed))


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Return `made(result) -> scenario`, with the result beside a scenario that is read from another folder."""
    (tmp_path / "s.toml").write_text(SCENARIO)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    def make(made_result):
        write_result(made_result, tmp_path / "made/registration.toml")
        return tmp_path / "s.toml"

    return make


FORWARD = Pose(TRUE, 0, COVARIANCE)


@pytest.mark.parametrize("kind", [PointsResult, SurfaceResult])
@pytest.mark.parametrize("pose", [FORWARD, FORWARD.inverse()], ids=["forward", "told the other way"])
def test_a_registration_is_used_with_its_error_whichever_way_it_was_told(made, kind, pose):
    known = load(made(result(pose, kind))).registration.known
    registration = known_registration(known, POINT)
    used = registration.reference_from_image.pose(0)
    np.testing.assert_allclose(used.transform.matrix, TRUE.matrix, atol=1e-12)
    np.testing.assert_allclose(used.point_covariance(POINT), FORWARD.point_covariance(POINT), rtol=1e-9)
    assert (registration.state, registration.fre_mm) == ("made", 0.3)
    assert known.landmarks == (("F1", "F2", "F3") if kind is PointsResult else ())


def test_a_covariance_from_few_residuals_is_widened(made):
    few = load(made(result(FORWARD, freedom=6.0))).registration.known
    known = load(made(result(FORWARD))).registration.known
    ratio = np.array(few.covariance)[0][0] / np.array(known.covariance)[0][0]
    assert ratio == pytest.approx(3 * 4.757 / 7.815, rel=1e-3)  # 95 % quantiles of 3 F(3, 6) and of chi-square(3)


FAULTS = {
    "no file": (None, "readable"),
    "cut off": (lambda text: text[: len(text) // 2], "TOML|known keys"),
    "edited by hand": (lambda text: text.replace("fre_mm = 0.3", "fre_mm = 0.2"), "changed after it was written"),
    "without its hash": (lambda text: text[: text.index("sha256 = ")], "hash"),
    "a newer version": (lambda text: text.replace("calibration/1", "calibration/2"), "update TwinGuide"),
    "not finite": (lambda text: text.replace("fre_mm = 0.3", "fre_mm = nan"), "fre_mm"),
    "another kind": (lambda text: text.replace('"points"', '"pivot"'), "points or surface"),
}


@pytest.mark.parametrize(("spoil", "says"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_registration_is_refused_naming_key_and_file(made, spoil, says):
    scenario = made(result(FORWARD))
    path = scenario.parent / "made/registration.toml"
    path.unlink() if spoil is None else path.write_text(spoil(path.read_text()))
    with pytest.raises(ScenarioError, match=says) as caught:
        load(scenario)
    assert "registration.calibration" in str(caught.value)
    assert "registration.toml" in str(caught.value)


def test_a_registration_of_other_frames_is_refused(made):
    other = Pose(Transform("tracker", "image", TRUE.matrix), 0, COVARIANCE)
    with pytest.raises(ScenarioError, match="tracker_from_image"):
        load(made(result(other)))


def test_a_registration_stated_in_the_scenario_must_be_rigid(made):
    tables = find(str(made(result(FORWARD))), Registry.load(discover=False))
    tables["registration"] = {"known": {"matrix": (2.0 * np.eye(4)).tolist(), "covariance": COVARIANCE.tolist()}}
    with pytest.raises(ScenarioError, match=r"rigid.*known, matrix"):
        overridden(tables, [])


class Patient:
    """What of a case the check asks for."""

    title, content_hash = "p", "c1"

    def __init__(self, *names):
        self.landmarks = {n: Landmark(n, POINT, "verification" if n[0] == "V" else "fiducial") for n in names}


def test_a_registration_of_another_case_is_refused_and_an_unknown_one_is_said(made):
    said = []
    scenario = load(made(result(FORWARD, case_hash="c2")))
    with pytest.raises(CaseError, match="registration of this case"):
        check_known(scenario, Patient("V1"), said.append)
    check_known(load(made(result(FORWARD, case_hash=""))), Patient("V1"), said.append)
    assert "for which case" in said[0]


def test_a_registration_that_has_used_every_landmark_proves_nothing_and_is_refused(made):
    scenario = load(made(result(FORWARD)))
    check_known(scenario, Patient("F1", "F2", "F3", "F4"), print)
    with pytest.raises(CaseError, match="not used"):
        check_known(scenario, Patient("F1", "F2", "F3"), print)


def test_it_is_verified_on_landmarks_kept_back_or_else_on_fiducials_that_it_has_not_used(made):
    known = load(made(result(FORWARD, names=("F1", "V1")))).registration.known
    assert unused_landmarks(known, Landmarks({}, ["F1", "F2"], ["V1", "V2"])).verification == ["V2"]
    assert unused_landmarks(known, Landmarks({}, ["F1", "F2"], ["V1"])).verification == ["F2"]
