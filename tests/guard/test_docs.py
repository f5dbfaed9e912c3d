import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import click
import numpy as np
import pytest
from click.testing import CliRunner

from twinguide.cli import main
from twinguide.messages import Inbox
from twinguide.registry import Registry, resolve

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
