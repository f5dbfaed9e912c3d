from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from twinguide.calibrating.result import Divot, PivotResult, write_result
from twinguide.errors import ScenarioError
from twinguide.frames import Pose, Transform
from twinguide.registry import Registry
from twinguide.scenario import find, load, overridden
from twinguide.scene import Status
from twinguide.tooling import tool_view

SCENARIO = """
title = "t"
case = "c"
[tools.pointer]
role = "pointer"
tip_mm = [0.0, 0.0, -99.0]
calibration = "tips/pointer.toml"
[parts]
"""
RESULT = PivotResult(
    of="stylus",
    made=datetime(2026, 1, 2, tzinfo=UTC),
    made_by="a test",
    sources=(),
    samples=100,
    rejected=(),
    residuals=(0.1,),
    tip_mm=(1.0, -2.0, -150.0),
    tip_covariance_mm2=((0.01, 0.0, 0.0), (0.0, 0.04, 0.0), (0.0, 0.0, 0.25)),
    tip_p95_mm=1.0,
    systematic_p95_mm=0.1,
    freedom=200.0,
    agreement=1.0,
    divots=(
        Divot(
            file="a.mha",
            samples=3,
            rejected=(2,),
            tip_mm=(1.0, -2.0, -150.0),
            apart_mm=0.0,
            pivot_mm=(0.0, 0.0, 0.0),
            pivot_in="tracker",
            swing_deg=40.0,
            sides=8,
            sigma_mm=0.1,
            covariance=tuple(map(tuple, (np.eye(6) * 1e-8).tolist())),
        ),
    ),
)


@pytest.fixture
def scenario(tmp_path, monkeypatch):
    """Return a scenario file with its result beside it, seen from another folder."""
    (tmp_path / "s.toml").write_text(SCENARIO)
    write_result(RESULT, tmp_path / "tips/pointer.toml")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "s.toml"


def test_a_scenario_takes_the_tip_of_the_result_that_lies_beside_it(scenario):
    tool = load(scenario).tools["pointer"]
    assert tool.tip_mm == RESULT.tip_mm
    assert tool.tip_covariance_mm2 == RESULT.tip_covariance_mm2


def test_a_result_can_be_set_on_the_command_line(scenario):
    tables = find(str(scenario), Registry.load(discover=False))
    assert overridden(tables, []).tools["pointer"].tip_mm == RESULT.tip_mm
    tables["tools"]["pointer"].pop("calibration")
    assert overridden(tables, []).tools["pointer"].tip_mm == (0.0, 0.0, -99.0)
    set_here = overridden(tables, ['tools.pointer.calibration="../tips/pointer.toml"'])
    assert set_here.tools["pointer"].tip_mm == RESULT.tip_mm


@pytest.mark.parametrize(("old", "new"), [("", None), ('"pivot"', '"points"'), ("tip_mm", "tip_m")])
def test_a_result_that_is_missing_or_faulty_is_refused_naming_the_tool(scenario, old, new):
    path = scenario.parent / "tips/pointer.toml"
    path.unlink() if new is None else path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ScenarioError, match=r"\[tools\.pointer\] .*pointer\.toml"):
        load(scenario)


def test_the_tips_covariance_turns_with_the_tool(scenario):
    tool = load(scenario).tools["pointer"]
    turn = Rotation.from_euler("y", 90, degrees=True).as_matrix()
    pose = Pose(Transform.of("reference", "pointer", turn), 0, np.zeros((6, 6)))
    view = tool_view("pointer", tool, pose, Status("valid"), None)
    # a quarter turn about y: what was along the tool's z lies along x
    assert view.tip.covariance == pytest.approx(np.diag([0.25, 0.04, 0.01]) * 1e-6, abs=1e-18)
    assert view.tip.position == pytest.approx(turn @ np.array(RESULT.tip_mm) * 1e-3)


def test_the_calibrated_scenario_can_be_recorded_and_read_back_without_the_file(scenario):
    import msgspec

    from twinguide.scenario import Scenario

    ready = load(scenario)
    Path(ready.tools["pointer"].calibration).unlink()
    assert msgspec.convert(msgspec.to_builtins(ready), Scenario) == ready
