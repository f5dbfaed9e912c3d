import tomllib
from pathlib import Path

import pytest

from twinguide.errors import PluginError, ScenarioError
from twinguide.registry import Registry
from twinguide.scenario import Scenario, check, convert, find, load, overridden

GOOD = """
title = "t"
case = "folder"
[tools.needle]
role = "needle"
[parts.puncture]
"""


@pytest.fixture(scope="module")
def registry():
    return Registry.load()


def test_a_plain_scenario_is_read(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text(GOOD)
    scenario = load(file)
    assert scenario.loop.rate_hz == 90.0
    assert scenario.tools["needle"].role == "needle"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (GOOD + "[loop]\nrate_hz = -1.0", r"rate_hz"),
        (GOOD + "[loop]\nrate = 90.0", "rate"),
        (GOOD + "[headset]\nbackend = 'hololens'", r"backend"),
        (GOOD.replace("[parts.puncture]", ""), "parts"),
        (GOOD.replace('"needle"', '"spoon"'), "role"),
        (GOOD[:30], "TOML"),
        ("\x00", "TOML"),
    ],
    ids=["negative", "unknown key", "unknown choice", "missing", "wrong role", "truncated", "binary"],
)
def test_a_faulty_scenario_names_the_key(tmp_path, text, says):
    file = tmp_path / "s.toml"
    file.write_text(text)
    with pytest.raises(ScenarioError, match=says) as caught:
        load(file)
    assert str(file) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ScenarioError, match=r"nowhere\.toml"):
        load(tmp_path / "nowhere.toml")


def test_a_part_that_nobody_declares_is_refused_with_those_there_are(registry):
    scenario = convert(tomllib.loads(GOOD.replace("puncture", "teleport")), Scenario, "test")
    with pytest.raises(PluginError, match=r"teleport.*puncture"):
        check(scenario, registry)


def test_an_option_that_a_part_does_not_take_is_named(registry):
    scenario = convert(tomllib.loads(GOOD + "[parts.puncture.options]\nangel_caution_deg = 3.0"), Scenario, "test")
    with pytest.raises(ScenarioError, match="angel_caution_deg"):
        check(scenario, registry)


def test_settings_are_laid_over_a_scenario():
    tables = tomllib.loads(GOOD)
    scenario = overridden(tables, ["seed=7", "headset.width=512", "parts.puncture.placement=inside"])
    assert (scenario.seed, scenario.headset.width, scenario.parts["puncture"].placement) == (7, 512, "inside")


def test_a_tool_that_lacks_is_named(registry):
    with pytest.raises(ScenarioError, match="pointer"):
        check(convert(tomllib.loads(GOOD), Scenario, "test"), registry)


@pytest.mark.parametrize(
    "setting", ["seed", "title.x=1", "seed=-1", "seconds=inf", "headset.blend=[]", "loop.rate_hz=nan"]
)
def test_a_setting_that_does_not_fit_is_refused(setting):
    with pytest.raises(ScenarioError):
        overridden(tomllib.loads(GOOD), [setting])


def test_a_plugins_scenario_is_found_by_name(registry):
    assert find("liver_puncture", registry)["case"] == "generate:liver"
    with pytest.raises(ScenarioError, match="liver_puncture"):
        find("spleen_puncture", registry)


def test_every_scenario_that_ships_is_valid(registry):
    for path in registry.scenarios.values():
        assert isinstance(path, Path)
        check(load(path), registry)
