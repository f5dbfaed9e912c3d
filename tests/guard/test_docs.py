import re
import runpy
import shlex
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pytest
from click.testing import CliRunner

from twinguide import app
from twinguide.cli import main
from twinguide.inbox import Inbox
from twinguide.registry import Registry, resolve
from twinguide.scenario import find, overridden

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_plugin_of_the_ten_minutes_loads_and_steps(tmp_path):
    file = tmp_path / "acme_force.py"
    file.write_text(blocks(ROOT / "docs/plugins.md", "python")[0])
    registry = Registry.load([file], discover=False)
    part = registry.part("force")
    driver = resolve(part.make)(SimpleNamespace(rng=lambda stream="": np.random.default_rng(1)))
    (force,) = driver.step(5, Inbox())
    catalogue = registry.catalogue()
    assert catalogue.decode("acme.force/1", catalogue.encode(force)) == force


def test_the_organ_of_the_docs_is_taken_by_the_importer(tmp_path):
    (tmp_path / "kidney.py").write_text(next(b for b in blocks(ROOT / "docs/plugins.md", "python") if "Organ(" in b))
    (tmp_path / "kidney_right.stl").touch()
    options = ["--units", "mm", "--axes", "lps", "--breathing-phase", "unknown", "--out", tmp_path / "case"]
    given = ["case", "import", tmp_path, *options, "--plugin", tmp_path / "kidney.py"]
    ran = CliRunner().invoke(main, [str(word) for word in given])
    assert ran.exit_code == 1
    assert "a target, a file with one of the words tumour; got kidney_right.stl" in ran.output


def test_zero_is_no_way_to_draw():
    ran = CliRunner().invoke(main, ["demo", "--draw-every", "0"])
    assert ran.exit_code == 1
    assert "draw_every" in ran.output


@pytest.fixture(scope="module")
def examples_shown(demo_case, tmp_path_factory):
    """Run the page's examples together in the rehearsal; answer the loop and its frames."""
    folder = tmp_path_factory.mktemp("plugins")
    names = {"acme_tip": "tip", "acme_halo": "halo", "acme_sway": "sway", "acme_stiff": "stiff"}
    for file in names:
        (text,) = (b for b in blocks(ROOT / "docs/plugins.md", "python") if f'make="{file}:' in b)
        (folder / f"{file}.py").write_text(text)
    registry = Registry.load([folder / f"{file}.py" for file in names])
    parts = [f"parts.{name}.placement=inside" for name in names.values()]
    settings = [f"case={demo_case.folder}", "record=false", "parts.tip.options.near_mm=1000", *parts]
    ready = overridden(find("liver_rehearsal", registry), settings)
    with ExitStack() as stack:
        loop = app.compose_loop(app.Run(ready, registry, folder, print), demo_case, stack, draw=False)
        while loop.workflow.step != "guide":
            loop.frame()
        yield loop, [loop.frame() for _ in range(30)]


def test_the_page_s_guidance_finds_what_it_measures_and_takes_its_option(examples_shown):
    _, frames = examples_shown
    (tip,) = (f for f in frames[-1].findings if f.name == "tip")
    away_m = np.linalg.norm(np.subtract(frames[-1].tips["needle"], frames[-1].target))
    assert tip.value == pytest.approx(1e3 * away_m, abs=0.5)  # a finding may be one frame old
    assert tip.severity == "caution"


def test_the_page_s_overlay_draws_one_of_each_mark(examples_shown):
    loop, _ = examples_shown
    view = loop.twin.at(loop.headset.wait_frame(None), loop.workflow.registration, loop.workflow.state)
    marks = loop.overlays[0](view)
    assert [type(mark).__name__ for mark in marks] == ["Ring", "Line", "Ellipsoid", "Label"]


def test_the_page_s_motion_model_and_solver_move_the_organ_alike(examples_shown, demo_case):
    loop, frames = examples_shown
    moved = frames[-1].target_displacement
    assert moved[2] == pytest.approx(0.004 * np.sin(2e-9 * frames[-1].t_ns), rel=1e-2)  # straight between its times
    view = loop.twin.at(loop.headset.wait_frame(None), loop.workflow.registration, loop.workflow.state, deform=True)
    organ = view.structures[demo_case.organ]
    shift = organ.vertices - demo_case.surface(demo_case.organ).vertices  # by the solver, at 30 Hz
    assert np.ptp(shift, axis=0) == pytest.approx(0.0, abs=1e-6)
    assert np.linalg.norm(shift[0]) == pytest.approx(abs(moved[2]), abs=0.3e-3)


def test_the_page_s_examples_run_without_a_fault(examples_shown):
    loop, frames = examples_shown
    assert loop.session.news() == []
    assert {name: state.state for name, state in loop.session.part_states.items()} == {
        "stiff": "running", "sway": "running"
    }  # fmt: skip
    assert not any("unusable" in row for frame in frames for row in frame.text)
    assert [part.withdrawn for part in loop.guidance] == [""] * len(loop.guidance)


def commands():
    for page in PAGES:
        for block in blocks(page, "sh"):
            for line in block.splitlines():
                for part in re.split(
                    r"&&|-- ", line.partition("#")[0] if line.strip().startswith("twinguide") else line
                ):
                    words = shlex.split(part)
                    if words and words[0].rsplit("/", 1)[-1] == "twinguide":
                        yield " ".join(words)


@pytest.mark.parametrize("line", list(commands()))
def test_every_command_in_the_docs_is_one_that_the_program_takes(line):
    words = shlex.split(line)[1:]
    command = main
    context = click.Context(main)
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None, line
        command = found
    command.make_parser(context).parse_args(args=list(words))


def test_the_check_script_runs_the_readmes_test_line():
    (test_line,) = [b.strip() for b in blocks(ROOT / "README.md", "sh") if "pytest" in b]
    assert test_line in (ROOT / ".ci/run").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_picture_and_page_that_the_docs_name_is_there(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_every_file_of_ours_that_the_docs_name_is_there(page):
    for name in re.findall(
        r"`((?:engine|plugins|benchmarks|tools|docs|tests|calibration)/[\w/.*]+)`", page.read_text()
    ):
        assert list(ROOT.glob(name)), name


def test_the_page_of_a_scenarios_keys_is_what_the_code_reads():
    made = runpy.run_path(str(ROOT / "tools/scenario_page.py"))["page"]()
    assert (ROOT / "docs/scenario.md").read_text() == made, "run `python tools/scenario_page.py`"
