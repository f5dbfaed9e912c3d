import ast
import inspect
from contextlib import ExitStack
from pathlib import Path

import pytest

from twinguide.app import Run, compose_loop, plan_of
from twinguide.errors import PluginError
from twinguide.hookspecs import Hooks
from twinguide.hosting.plan import permissions_of
from twinguide.registry import Registry
from twinguide.scenario import find, overridden

ROOT = Path(__file__).parents[2]
HOOKS = {name: f for name, f in vars(Hooks).items() if inspect.isfunction(f) and not name.startswith("_")}
FROZEN = {  # a hook's arguments may be added to within a major, never renamed or removed
    "parts": (),
    "scenarios": (),
    "commands": (),
}


def test_hook_signatures_are_frozen():
    assert {name: tuple(inspect.signature(f).parameters)[1:] for name, f in HOOKS.items()} == FROZEN


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_is_documented_with_its_exact_signature(name):
    arguments = ", ".join(FROZEN[name])
    assert f"### {name}({arguments})" in (ROOT / "docs/plugins.md").read_text()


def test_every_declared_part_is_documented():
    tree = ast.parse((ROOT / "engine/twinguide/hookspecs.py").read_text())
    kinds = [
        n.name for n in tree.body if isinstance(n, ast.ClassDef) and any(ast.unparse(b) == "Part" for b in n.bases)
    ]
    text = (ROOT / "docs/plugins.md").read_text()
    assert len(kinds) >= 8
    for kind in kinds:
        assert f"`{kind}`" in text


def plugin(tmp_path, text):
    file = tmp_path / "acme.py"
    file.write_text("from twinguide import Sensor, Topic, Lost, hookimpl\n" + text)
    return Registry.load([file], discover=False)


def test_a_plugin_file_is_loaded_by_its_parts_hook(tmp_path):
    text = (
        "@hookimpl\ndef parts():\n"
        "    return [Sensor('force', make='acme:Driver', publishes={'lost': Topic(Lost)}, rate_hz=9)]\n"
    )
    registry = plugin(tmp_path, text)
    assert registry.plugin_of == {"force": "acme"}


def test_a_scenarios_hook_names_files(tmp_path):
    registry = plugin(
        tmp_path, "from pathlib import Path\n@hookimpl\ndef scenarios():\n    return {'x': Path('x.toml')}\n"
    )
    assert registry.scenarios == {"x": Path("x.toml")}


COMMAND = """
import click
@hookimpl
def commands():
    return {"bench": "acme:bench"}
@click.command()
def bench():
    click.echo("on the bench")
"""


def test_a_plugins_command_is_imported_only_when_it_is_asked_for(tmp_path, monkeypatch):
    from click.testing import CliRunner

    from twinguide.cli import main

    registry = plugin(tmp_path, COMMAND)
    assert registry.commands == {"bench": "acme:bench"}
    monkeypatch.setattr(Registry, "load", staticmethod(lambda *_, **__: registry))
    ran = CliRunner().invoke(main, ["bench"])
    assert (ran.exit_code, ran.output) == (0, "on the bench\n")
    assert "bench" in CliRunner().invoke(main, ["--help"]).output
    registry.commands["bench"] = "nowhere_to_be_found:bench"
    for words in (["bench"], ["bench", "--fast", "file"]):
        ran = CliRunner().invoke(main, words)
        assert ran.exit_code == 1
        assert "nowhere_to_be_found" in ran.output
    ran = CliRunner().invoke(main, ["--help"])  # still helps with all others
    assert ran.exit_code == 0
    assert "Broken:" in ran.output
    assert "doctor" in ran.output


def test_a_plugin_cannot_take_the_programs_own_commands(tmp_path, monkeypatch):
    from twinguide.cli import main

    registry = plugin(tmp_path, COMMAND.replace('"bench"', '"run"'))
    monkeypatch.setattr(Registry, "load", staticmethod(lambda *_, **__: registry))
    import click

    assert main.get_command(click.Context(main), "run") is main.commands["run"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("@hookimpl\ndef partz():\n    return []\n", "partz"),
        ("@hookimpl\ndef parts(scene):\n    return []\n", "scene"),
        ("@hookimpl\ndef parts():\n    return [Sensor('a', make='m:A', rate_hz=9), Sensor('a', make='m:B')]\n", "'a'"),
        (
            "@hookimpl\ndef parts():\n    two = {'x': Topic(Lost), 'y': Topic(Lost)}\n"
            "    return [Sensor('a', make='m:A', publishes=two)]\n",
            "twice",
        ),
        ("@hookimpl\ndef parts():\n    return Sensor('a', make='m:A', rate_hz=9)\n", "a list of parts.*plugin acme"),
        ("@hookimpl\ndef parts():\n    return ['a']\n", "got 'a'; in plugin acme"),
        (
            "@hookimpl\ndef parts():\n    return [Sensor('Gexc', make='m:A', rate_hz=9)]\n",
            "a-z0-9.*'Gexc'.*plugin acme",
        ),
        (
            "@hookimpl\ndef parts():\n    return [Sensor('a', make='m:A', rate_hz=9, publishes={'x': Lost})]\n",
            "a Topic as 'x'.*plugin acme",
        ),
        ("@hookimpl\ndef parts():\n    return [Sensor('a', make='m:A')]\n", "`rate_hz` or `wakes_on`.*plugin acme"),
        (
            "from twinguide import Overlay\n@hookimpl\ndef parts():\n"
            "    return [Overlay('a', make='m:A', subscribes=[Lost], rate_hz=9)]\n",
            "this Overlay has none; got `subscribes`, `rate_hz`; in plugin acme: part 'a'",
        ),
        ("import nowhere_to_be_found\n", "nowhere_to_be_found"),
        ("def f(:\n", "SyntaxError"),
    ],
    ids=[
        "unknown hook",
        "wrong argument",
        "name taken",
        "type twice",
        "no list",
        "no part",
        "bad name",
        "no topic",
        "never stepped",
        "steps where there are none",
        "missing import",
        "broken",
    ],
)
def test_a_faulty_plugin_is_refused_with_the_reason(tmp_path, text, says):
    with pytest.raises(Exception, match=says) as caught:
        plugin(tmp_path, text)
    assert type(caught.value).__name__ == "PluginError"


def test_an_unknown_plugin_file_is_named(tmp_path):
    with pytest.raises(PluginError, match="nothing_here"):
        Registry.load([tmp_path / "nothing_here.py"], discover=False)


@pytest.mark.parametrize("name", ["json", "numpy"])
def test_a_plugin_file_that_would_stand_in_for_another_module_is_refused(tmp_path, name):
    file = tmp_path / f"{name}.py"
    file.write_text("")
    with pytest.raises(PluginError, match="Rename it"):
        Registry.load([file], discover=False)


def test_all_first_party_plugins_load():
    assert Registry.load().refused == {}


def compose(tmp_path, monkeypatch, demo_case, module, text, part):
    """Compose the rehearsal with a `part` of a plugin whose `module` has this text."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"{module}.py").write_text(text)
    file = tmp_path / f"{module}_plugin.py"
    file.write_text(f"from twinguide import Guidance, World, hookimpl\n@hookimpl\ndef parts():\n    return [{part}]\n")
    registry = Registry.load([file])
    inside = [f"parts.{name}.placement=inside" for name in ("puncture", "own")]
    ready = overridden(find("liver_rehearsal", registry), [f"case={demo_case.folder}", "record=false", *inside])
    with ExitStack() as stack:
        compose_loop(Run(ready, registry, tmp_path, print), demo_case, stack, draw=False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("class Tip:\n    def __init__(self, ctx:\n", "SyntaxError"),
        ("Tip = Tap\n", "NameError"),
        ("Tap = 1\n", "no attribute"),
    ],
)
def test_guidance_that_cannot_be_imported_is_refused_with_the_reason(tmp_path, monkeypatch, demo_case, text, says):
    module = f"acme_{says.replace(' ', '_')}"
    with pytest.raises(PluginError, match=says):
        compose(tmp_path, monkeypatch, demo_case, module, text, f"Guidance('own', make='{module}:Tip')")


def placed(tmp_path, demo_case, *settings):
    registry = Registry.load()
    ready = overridden(find("liver_puncture", registry), settings)
    plan = plan_of(Run(ready, registry, tmp_path, print), demo_case)
    return plan, registry


def test_a_scenario_gives_a_part_another_interpreter(tmp_path, demo_case):
    plan, registry = placed(tmp_path, demo_case, "parts.tracker.interpreter=/x/python")
    assert plan.part("tracker").interpreter == "/x/python"
    assert "tracker" in permissions_of(plan, registry).remote


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (["parts.puncture.placement=process"], "what the loop calls.*process; in part puncture"),
        (["parts.tracker.placement=inside", "parts.tracker.interpreter=/x/python"], "interpreter.*in part tracker"),
        (["parts.puncture.interpreter=/x/python"], "interpreter.*in part puncture"),
    ],
)
def test_a_placement_that_would_be_passed_over_is_refused(tmp_path, demo_case, settings, says):
    with pytest.raises(PluginError, match=says):
        permissions_of(*placed(tmp_path, demo_case, *settings))


@pytest.mark.parametrize(
    ("module", "text", "says"),
    [
        ("acme_broken", "1 / 0\n", "ZeroDivisionError"),
        ("acme_raises", "def Head(ctx):\n    raise KeyError('camera')\n", "KeyError: 'camera'"),
        ("acme_lacks", "def Head(ctx):\n    return 1\n", "a method 'reported'; got int"),
    ],
)
def test_a_world_whose_head_cannot_be_made_is_refused_with_the_reason(
    tmp_path, monkeypatch, demo_case, module, text, says
):
    part = f"World('own', make='{module}:World', head='{module}:Head', rate_hz=1)"
    with pytest.raises(PluginError, match=rf"{module}:Head.*{says}.*in part own"):
        compose(tmp_path, monkeypatch, demo_case, module, text, part)
