from pathlib import Path

import msgspec
import pytest

from twinguide.errors import ScenarioError
from twinguide.preparing import Run, exposure_hz, make_folder, named_files, prepare_case
from twinguide.registry import Registry
from twinguide.scenario import find, overridden


def test_a_folder_that_a_run_writes_is_refused_and_left_alone_until_the_run_ends(tmp_path):
    out = tmp_path / "session"
    with make_folder(out):
        (out / "session.mcap").write_text("first")
        with pytest.raises(ScenarioError, match="another run writes"):
            make_folder(out)
        assert (out / "session.mcap").read_text() == "first"
    with make_folder(out):
        assert not (out / "session.mcap").exists()


def test_a_folder_that_holds_what_the_run_needs_is_not_emptied(tmp_path, monkeypatch):
    out = tmp_path / "session"
    with make_folder(out):
        (out / "case").mkdir()
        (out / "calibration").mkdir()
        (out / "calibration/needle.toml").write_text("tip")
    monkeypatch.chdir(tmp_path)
    told = {
        "case": "session/case",
        "parts": {"x": [{"file": str(out / "calibration/needle.toml")}, 3, "liver", "long" * 2000, "\0"]},
    }
    for needed in (list(named_files(told)), [out / "calibration/needle.toml"], [out]):
        with pytest.raises(ScenarioError, match=r"needs outside.*another folder with --out"):
            make_folder(out, needed)
        assert (out / "calibration/needle.toml").read_text() == "tip"
    assert list(named_files(told)) == [Path("session/case"), out / "calibration/needle.toml"]
    make_folder(tmp_path / "other", named_files(told)).close()


def test_an_out_that_can_be_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/x/y")):
        with pytest.raises(ScenarioError, match=r"a folder that can be written.*--out. Name another folder"):
            make_folder(out)


def test_an_organ_that_cannot_be_generated_is_refused_with_those_that_can():
    registry = Registry.load()
    scenario = overridden(find("liver_puncture", registry), ['case="generate:kidney"'])
    with pytest.raises(ScenarioError, match=r"with a generator: liver; got 'generate:kidney'; in case"):
        prepare_case(Run(scenario, registry, Path(), print))


def test_what_is_no_session_is_left_alone(tmp_path):
    (tmp_path / "thesis.docx").write_text("years")
    with pytest.raises(ScenarioError, match="Name another folder"):
        make_folder(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.docx"]


@pytest.mark.parametrize(("setting", "rate"), [("seed=1", 60.0), ("parts.tracker.options.rate_hz=20.0", 20.0)])
def test_the_tracker_s_own_rate_is_what_its_silence_is_judged_by(setting, rate):
    registry = Registry.load()
    scenario = overridden(find("liver_puncture", registry), [setting])
    assert exposure_hz(Run(scenario, registry, Path(), print)) == rate
    without = msgspec.structs.replace(scenario, parts={"patient": scenario.parts["patient"]})
    assert exposure_hz(Run(without, registry, Path(), print)) == 60.0
