import ast
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE_LINES = 500
FUNCTION_LINES = 60
HEADINGS = ("What it shows", "Frames in and out", "Messages in and out", "How it was validated")
SOURCES = [
    file
    for folder in ("engine", "calibration", "plugins", "tools", "benchmarks", "examples")
    for file in sorted((ROOT / folder).rglob("*.py"))
    if "tests" not in file.parts
]


@pytest.mark.parametrize("file", SOURCES, ids=lambda f: f.relative_to(ROOT).as_posix())
def test_a_file_and_its_functions_stay_short(file):
    text = file.read_text()
    assert text.count("\n") <= FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < FUNCTION_LINES, node.name


def test_the_frame_loop_fits_its_promise():
    assert (ROOT / "engine/twinguide/loop.py").read_text().count("\n") <= 200


PLUGINS = sorted(folder for folder in (ROOT / "plugins").iterdir() if (folder / "plugin.py").exists())


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda f: f.name)
def test_a_plugin_answers_the_four_questions_and_has_tests(plugin):
    readme = (plugin / "README.md").read_text()
    for heading in HEADINGS:
        assert f"## {heading}" in readme
    assert list((plugin / "tests").glob("test_*.py"))


def test_every_plugin_folder_is_an_entry_point_and_every_entry_point_a_folder():
    import tomllib

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["twinguide.plugins.v0"]
    assert {f"{folder.name}.plugin" for folder in PLUGINS} == set(declared.values())


def test_every_shader_says_its_inputs_spaces_and_units():
    shaders = [f for f in (ROOT / "shaders").iterdir() if f.suffix in (".vert", ".frag", ".geom", ".comp", ".glsl")]
    assert shaders
    for shader in shaders:
        head = "".join(line for line in shader.read_text().splitlines()[:12] if line.startswith("//"))
        assert len(head) > 60, f"{shader.name} has no header"
        if shader.suffix != ".glsl":
            assert "Out:" in head, f"{shader.name} does not say what it hands on"
            assert any(s in head for s in ("stage", "image", "reference", "clip", "screen", "sRGB")), shader.name


def test_no_downloaded_or_built_thing_is_kept():
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: an unpacked source tree has no list of kept files")
    kept = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    bad = [name for name in kept if name.endswith((".so", ".mcap", ".webm", ".mp4", ".vtk", ".whl", ".npz"))]
    assert bad == []
