import contextlib
import importlib
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from twinguide.calibrating.result import HandEyeResult, rows_of, stamp, write_result
from twinguide.case import Case
from twinguide.checking import check
from twinguide.errors import CaseError, PluginError, ScenarioError
from twinguide.flaws import Origin
from twinguide.frames import rotation_from_vector
from twinguide.hookspecs import Sensor, Topic
from twinguide.messages import Displacement, Exposure, Message, Solution
from twinguide.registry import Registry, resolve
from twinguide.scenario import Scenario, Tool, calibrated, convert, find, load, overridden
from twinguide.staging import mount_of

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


def test_a_wrong_value_beside_a_setting_is_told_with_its_file():
    with pytest.raises(ScenarioError, match=r"got 0\.0; in s\.toml, loop\.rate_hz"):
        overridden(tomllib.loads(GOOD + "[loop]\nrate_hz = 0.0"), ["loop.draw_every=2"], "s.toml")
    with pytest.raises(ScenarioError, match=r"'rate'; in s\.toml, loop"):
        overridden(tomllib.loads(GOOD + "[loop]\nrate = 1.0"), ["loop.draw_every=2"], "s.toml")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        (
            "headset.widht=100",
            r"one of the keys backend, width, .*'widht'; in --set headset\.widht=100. Did you mean 'width'\?",
        ),
        ("clock=fats", r"one of 'real', 'virtual'; got 'fats'; in --set clock=fats$"),
        ("clock=3", r"one of 'real', 'virtual'; got 3; in --set clock=3$"),
        ("parts.puncture.placement=3", r"one of 'inside', 'process'; got 3; in .*parts\.puncture\.placement=3$"),
        ("headset.blend=[]", r"wanted a list of length >= 1; got \[\]"),
        ("clock=vitual", r"Did you mean 'virtual'\?"),
        ("tools.needle.tip_mm=[1,2]", r"a list of length 3; got \[1, 2\]; in --set tools\.needle\.tip_mm=\[1,2\]$"),
        (
            "tools.needle.mount={at_mm=[0,0,0],sigma_m=1}",
            r"'sigma_m'; in --set .*, tools\.needle\.mount\.sigma_m\. Did you .*'sigma_mm'",
        ),
        ("headset.blend=['alfa']", r"one of 'alpha', 'additive', 'opaque'.*in --set headset\.blend=\['alfa'\]$"),
        ("parts.puncture.placement=outside", r"one of 'inside', 'process'; got 'outside'; in .*parts\.puncture\.pl"),
        ("loop.rate_hz=-1", r"wanted a number >= 1; got -1; in --set loop\.rate_hz=-1$"),
        ("loop.rate_hz=0.001", r"wanted a number >= 1; got 0\.001; in --set loop\.rate_hz"),
        ("tools.needle.tip_mm=[nan,0,0]", r"a number >= -5000; got \[nan, 0, 0\]; in --set tools\.needle\.tip_mm"),
        ("tools.needle.tip_mm=[1e300,0,0]", r"a number <= 5000; got \[1e\+300, 0, 0\]; in --set tools\.needle\.tip"),
        ("tools.needle.mount={at_mm=[0,inf,0]}", r"a number <= 5000; got .*, tools\.needle\.mount\.at_mm$"),
        ("tools.needle.mount={at_mm=[0,0,0],turn_deg=[1e9,0,0]}", r"<= 360; got .*, tools\.needle\.mount\.turn_deg$"),
        (
            "tools.needle.mount={at_mm=[0,0,0],covariance=[[1.0,2.0]]}",
            r"wanted 6 rows of 6; got \[2\]; in --set .*, tools\.needle\.mount\.covariance$",
        ),
        ("tools.needle.tip_covariance_mm2=[[nan,0,0],[0,1,0],[0,0,1]]", r"a number >= .*tip_covariance_mm2="),
        ("tools.needle.tip_covariance_mm2=[[1,0,0],[0,-1,0],[0,0,1]]", r"negative variance -1; in --set .*_mm2="),
        (
            "registration.known={matrix=[[1,0,0,1e300],[0,1,0,0],[0,0,1,0],[0,0,0,1]],covariance=[]}",
            r"a number <= 1000000; got .*, registration\.known\.matrix$",
        ),
        ("case=''", r"wanted text of length >= 1; got ''; in --set case=''$"),
        (".=1", r"wanted KEY=VALUE, with a dotted KEY; got '\.=1'; in --set \.=1\. Write it as loop\.rate_hz=60"),
        ("foo", r"wanted KEY=VALUE, .*; got 'foo'; in --set foo\. Write it as"),
        (
            "registration={bump_mm=-3.0}",
            r"a number > 0; got -3\.0; in --set registration={bump_mm=-3\.0}, registration\.bump_mm$",
        ),
        ("seed=many", r"wanted a whole number; got 'many'; in --set seed=many$"),
        ("record=1", r"wanted true or false; got 1; in --set record=1$"),
        ("clcok=real", r"'clcok'; in --set clcok=real. Did you mean 'clock'\?"),
        ("tools.needle={}", r"wanted the key 'role'; got no keys; in --set tools\.needle={}$"),
    ],
)
def test_a_wrong_key_is_told_with_its_place_and_what_was_meant(setting, says):
    with pytest.raises(ScenarioError, match=says):
        overridden(tomllib.loads(GOOD), [setting])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["parts.breathing.options.lag=1"], r"'lag'; in --set parts\.breathing\.options\.lag=1"),
        (["parts.tracker.options={noise=1}"], r"'noise'; in --set parts\.tracker\.options={noise=1}, parts\.tr.*noise"),
        (["tools.needle.role=pointer"], r"one tool each.*in s\.toml, tools, --set tools\.needle\.role=pointer$"),
        (["tools.chest.calibrate=pivot", "seed=3"], r"role 'surrogate'; in --set tools\.chest\.calibrate=pivot"),
        (["headset.recorded='x'"], r"one head.*in --set headset\.recorded='x'"),
        (
            ["parts.operator.interpreter='/no/python'"],
            r"a Python that has TwinGuide; got '/no/python': .*No such file.*; in --set parts\.operator\.interpreter=",
        ),
        (["parts.operator.interpreter='/bin/cat'"], r"got '/bin/cat': .*in --set parts\.operator.*Install TwinGuide"),
    ],
)
def test_what_does_not_go_together_is_told_with_the_setting_that_brought_it(registry, settings, says):
    with pytest.raises(ScenarioError, match=says):
        check(overridden(find("liver_puncture", registry), settings), registry, Origin("s.toml", tuple(settings)))


def test_a_part_may_run_in_another_python_that_has_twinguide(registry):
    check(overridden(find("liver_puncture", registry), [f"parts.operator.interpreter='{sys.executable}'"]), registry)


def test_another_python_is_looked_for_beside_the_scenario_that_names_it(tmp_path, monkeypatch, registry):
    folder = tmp_path / "ward"
    (folder / "own/bin").mkdir(parents=True)
    file = folder / "s.toml"
    text = registry.scenarios["liver_puncture"].read_text()
    file.write_text(text.replace("[parts.operator]", '[parts.operator]\ninterpreter = "own/bin/python"'))
    monkeypatch.chdir(tmp_path)
    for tables in (load(file), overridden(find(str(file), registry), [])):
        with pytest.raises(ScenarioError, match=rf"got '{folder}/own/bin/python': .*No such file"):
            check(tables, registry)
    (folder / "own/bin/python").symlink_to(sys.executable)
    assert (
        load(file).parts["operator"].interpreter == f"{folder}/own/bin/python"
    )  # the link: it finds its packages by it
    given = overridden(find(str(file), registry), ["parts.operator.interpreter=ward/own/bin/python"])
    assert given.parts["operator"].interpreter == "ward/own/bin/python"  # of the command line: from where it is given


def test_a_part_that_nobody_declares_is_told_with_the_setting_that_asked_for_it(registry):
    settings = ("parts.teleport={}",)
    with pytest.raises(PluginError, match=r"teleport.*; in --set parts\.teleport={}\. Install its plugin"):
        check(overridden(find("liver_puncture", registry), settings), registry, Origin("s.toml", settings))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        ("zzqx.driver:Driver", r"wanted a module 'zzqx'; got 'zzqx\.driver:Driver'; there is nothing like it"),
        ("twinguide_imagin.device:Imaging", r"wanted a module 'twinguide_imagin'; .*there is twinguide_imaging"),
        ("own_parts.drivers:Device", r"wanted a module 'own_parts\.drivers'; .*there is driver;.*part 'force', make\."),
        ("own_parts.driver:Devise", r"wanted 'Devise' in 'own_parts\.driver'; .*there is Device; in .*parts\.force:"),
        ("own_parts:Devise", r"wanted 'Devise' in 'own_parts'; .*there is Device;"),
        ("own_parts.driver.Device", r"wanted \"package\.module:name\"; got 'own_parts\.driver\.Device'"),
        ("own_parts.driver:Device", ""),
        ("own_parts.driver:Alias", ""),
        ("own_parts:Device", ""),
        ("own_parts.open:Anything", ""),  # as it tells no names before it runs
        ("own_parts.broken:Anything", ""),  # as its import tells
        ("own_parts.matched:Device", ""),
        ("own_parts.keyed:Device", ""),
        ("own_parts.held:Anything", ""),
        ("own_parts.swapped:Anything", ""),
        ("math:hypot", ""),
    ],
)
def test_a_part_whose_class_is_not_there_is_refused_before_the_run(tmp_path, monkeypatch, registry, make, says):
    package = tmp_path / "own_parts"
    package.mkdir()
    (package / "__init__.py").write_text("class Device: ...\n")
    (package / "driver.py").write_text("raise SystemExit\nclass Device: ...\nfrom os import path as Alias\n")
    (package / "open.py").write_text("from math import *\n")
    (package / "broken.py").write_text("class\n")
    (package / "matched.py").write_text("match int:\n    case Device: ...\n")
    (package / "keyed.py").write_text("import importlib\nimportlib.import_module(__name__).Device = int\n")
    (package / "held.py").write_text("locals()['Any' + 'thing'] = int\n")
    (package / "swapped.py").write_text("import sys\nsys.modules[__name__] = type('', (), {'Any' + 'thing': int})\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("own_parts")
    parts = registry.parts | {"force": Sensor("force", make=make, rate_hz=10)}
    own = replace(registry, parts=parts, plugin_of=registry.plugin_of | {"force": "own_parts"})
    scenario = overridden(find("liver_puncture", own), ["parts.force={}"])
    try:
        with pytest.raises(PluginError, match=says) if says else contextlib.nullcontext():
            check(scenario, own)
        elsewhere = overridden(find("liver_puncture", own), [f"parts.force.interpreter='{sys.executable}'"])
        with pytest.raises(PluginError) if ":" not in make else contextlib.nullcontext():
            check(elsewhere, own)  # of whose modules nothing is known here
    finally:
        sys.modules.pop("own_parts")


@pytest.mark.parametrize("name", ["own-force", "own.v1.2"])
def test_a_plugin_file_whose_name_is_no_identifier_may_name_its_own_class(tmp_path, name):
    text = (
        "from twinguide import Overlay, hookimpl\n@hookimpl\ndef parts():\n    return [Overlay('force', make=MAKE)]\n"
    )
    (tmp_path / f"{name}.py").write_text(f"MAKE = __name__ + ':Force'\n{text}class Force: ...\n")
    try:
        own = Registry.load([tmp_path / f"{name}.py"])
        check(overridden(find("liver_puncture", own), ["parts.force={}"]), own)
        assert resolve(own.part("force").make).__name__ == "Force"
    finally:
        sys.modules.pop(name)


def test_a_scenario_that_notepad_saved_is_read_and_a_key_that_stands_twice_is_told_as_that(tmp_path):
    file = tmp_path / "s.toml"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load(file).title == "t"
    file.write_text(GOOD + "[tools.needle]\n")
    with pytest.raises(ScenarioError, match=r"\(at line \d.*a key may stand once") as caught:
        load(file)
    assert "complete" not in str(caught.value)


def test_a_plugin_file_that_is_not_there_is_told_with_its_option(tmp_path):
    with pytest.raises(PluginError, match=r"got nothing there; in --plugin .*/lost\.py\. Check the path"):
        Registry.load([tmp_path / "lost.py"])


def test_a_case_is_looked_for_beside_the_scenario_that_names_it(tmp_path):
    (tmp_path / "s.toml").write_text(GOOD)
    assert load(tmp_path / "s.toml").case == str(tmp_path / "folder")
    with pytest.raises(CaseError, match=f"{tmp_path}/folder, which is not there"):
        Case.load(load(tmp_path / "s.toml").case)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ScenarioError, match=r"nowhere\.toml"):
        load(tmp_path / "nowhere.toml")


def test_a_part_that_nobody_declares_is_refused_with_those_there_are(registry):
    scenario = convert(tomllib.loads(GOOD.replace("puncture", "teleport")), Scenario, Origin("test"))
    with pytest.raises(PluginError, match=r"teleport.*puncture"):
        check(scenario, registry)


def test_an_option_that_a_part_does_not_take_is_named(registry):
    scenario = convert(
        tomllib.loads(GOOD + "[parts.puncture.options]\nangel_caution_deg = 3.0"), Scenario, Origin("test")
    )
    with pytest.raises(ScenarioError, match="angel_caution_deg"):
        check(scenario, registry)


class Still(Message, frozen=True, tag="test.still/1"):
    pass


@pytest.mark.parametrize(
    ("kind", "own", "says"),
    [
        (Exposure, "tracker", "one tracker at most"),
        (Displacement, "breathing", "one motion model at most"),
        (Solution, "softbody", "one solver at most"),
    ],
)
def test_two_sources_of_what_the_twin_takes_from_one_are_refused_by_name(registry, kind, own, says):
    second = Sensor("second", make="math:hypot", publishes={"still": Topic(Still), "told": Topic(kind)})
    plugin_of = {**registry.plugin_of, "second": "own"}
    both = replace(registry, parts={**registry.parts, "second": second}, plugin_of=plugin_of)
    tables = find("liver_puncture", registry)
    check(overridden(tables, []), both)
    with pytest.raises(ScenarioError, match=f"{says}.*{own} and second.*Leave one out"):
        check(overridden(tables, ["parts.second={}"]), both)


def test_a_recorded_head_beside_a_simulated_one_is_refused(registry):
    setting = ["headset.recorded='session'"]
    with pytest.raises(ScenarioError, match=r"one head.*that of patient"):
        check(overridden(find("liver_puncture", registry), setting), registry)
    check(overridden(find("liver_rehearsal", registry), setting), registry)


def test_settings_are_laid_over_a_scenario():
    tables = tomllib.loads(GOOD)
    scenario = overridden(tables, ["seed=7", "headset.width=512", "parts.puncture.placement=inside"])
    assert (scenario.seed, scenario.headset.width, scenario.parts["puncture"].placement) == (7, 512, "inside")


def test_a_tool_that_lacks_is_named(registry):
    with pytest.raises(ScenarioError, match="pointer"):
        check(convert(tomllib.loads(GOOD), Scenario, Origin("test")), registry)


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


BODY = {"role": "headset", "mount": {"at_mm": [0.0, 70.0, 40.0], "turn_deg": [-30.0, 0.0, 0.0]}}


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ({"role": "headset"}, "handeye"),
        ({"role": "surrogate", "calibrate": "pivot"}, "role pointer or needle; got role 'surrogate'"),
        (BODY, "one body"),
    ],
    ids=["a body without a mount", "a body without a tip", "a second body"],
)
def test_a_tool_that_cannot_do_its_part_is_refused_by_name(registry, tool, said):
    tables = find("liver_puncture", registry)
    tables["tools"]["thing"] = tool
    with pytest.raises(ScenarioError, match=said) as refused:
        check(overridden(tables, []), registry)
    assert "thing" in str(refused.value)


def test_a_stated_mount_says_where_the_body_is_and_how_well_that_is_known():
    mount = mount_of("body", convert(BODY, Tool, Origin("test")))
    np.testing.assert_allclose(mount.transform.translation, [0.0, 0.07, 0.04])
    np.testing.assert_allclose(mount.transform.rotation @ [0.0, 1.0, 0.0], [0.0, np.sqrt(0.75), -0.5])
    np.testing.assert_allclose(np.sqrt(np.diag(mount.covariance)), [np.radians(0.03)] * 3 + [1e-4] * 3)


def test_a_mount_comes_from_a_hand_eye_calibration_with_its_covariance(tmp_path):
    x = np.eye(4)
    x[:3, :3], x[:3, 3] = rotation_from_vector(np.array([0.2, -0.4, 0.1])), [0.01, 0.07, 0.03]
    covariance = np.diag(np.arange(1.0, 13.0)) * 1e-8
    told = {"a": "head", "b": "body", "x_name": "x", "z_name": "z", "offset_ms": 0.0, "offset_sigma_ms": np.inf}
    sizes = {"samples": 9, "rejected": (), "residuals": (), "freedom": 42.0, "x_p95_mm": 0.1, "z_p95_mm": 0.2}
    result = HandEyeResult(
        of="head and body", sources=(), x=rows_of(x), z=rows_of(np.eye(4)), covariance=rows_of(covariance),
        **told, **sizes, **stamp(),
    )  # fmt: skip
    write_result(result, tmp_path / "handeye.toml")
    tool = Tool(role="headset", calibration=str(tmp_path / "handeye.toml"))
    mount = mount_of("body", calibrated(Scenario(title="t", case="c", parts={}, tools={"body": tool})).tools["body"])
    np.testing.assert_allclose(mount.transform.matrix, x, atol=1e-12)
    np.testing.assert_allclose(mount.covariance, covariance[:6, :6])
    assert (mount.transform.target, mount.transform.source) == ("headset", "body")
