from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from twinguide.calibrating.result import write_result
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


@pytest.fixture
def scenario(tmp_path, monkeypatch, pivot_result):
    """Return a scenario file with its result beside it, seen from another folder."""
    (tmp_path / "s.toml").write_text(SCENARIO)
    write_result(pivot_result, tmp_path / "tips/pointer.toml")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "s.toml"


def test_a_scenario_takes_the_tip_of_the_result_that_lies_beside_it(scenario, pivot_result):
    tool = load(scenario).tools["pointer"]
    assert tool.tip_mm == pivot_result.tip_mm
    assert tool.tip_covariance_mm2 == pivot_result.tip_covariance_mm2


def test_a_result_can_be_set_on_the_command_line(scenario, pivot_result):
    tables = find(str(scenario), Registry.load(discover=False))
    assert overridden(tables, []).tools["pointer"].tip_mm == pivot_result.tip_mm
    tables["tools"]["pointer"].pop("calibration")
    assert overridden(tables, []).tools["pointer"].tip_mm == (0.0, 0.0, -99.0)
    set_here = overridden(tables, ['tools.pointer.calibration="../tips/pointer.toml"'])
    assert set_here.tools["pointer"].tip_mm == pivot_result.tip_mm


@pytest.mark.parametrize(("old", "new"), [("", None), ('"pivot"', '"points"'), ("tip_mm", "tip_m")])
def test_a_result_that_is_missing_or_faulty_is_refused_naming_the_tool(scenario, old, new):
    path = scenario.parent / "tips/pointer.toml"
    path.unlink() if new is None else path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ScenarioError, match=r"tools\.pointer\.calibration, .*pointer\.toml"):
        load(scenario)


def test_the_tips_covariance_turns_with_the_tool(scenario, pivot_result):
    tool = load(scenario).tools["pointer"]
    turn = Rotation.from_euler("y", 90, degrees=True).as_matrix()
    pose = Pose(Transform.of("reference", "pointer", turn), 0, np.zeros((6, 6)))
    view = tool_view("pointer", tool, pose, Status("valid"), None)
    # a quarter turn about y: what was along the tool's z lies along x
    assert view.tip.covariance == pytest.approx(np.diag([3e-4, 2e-4, 1e-4]) * 1e-6, abs=1e-18)
    assert view.tip.position == pytest.approx(turn @ np.array(pivot_result.tip_mm) * 1e-3)


def test_the_calibrated_scenario_can_be_recorded_and_read_back_without_the_file(scenario):
    import msgspec

    from twinguide.scenario import Scenario

    ready = load(scenario)
    Path(ready.tools["pointer"].calibration).unlink()
    assert msgspec.convert(msgspec.to_builtins(ready), Scenario) == ready
