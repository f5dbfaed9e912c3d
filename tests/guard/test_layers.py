import ast
import re
from pathlib import Path

import pytest

import twinguide

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "engine/twinguide"
LOWEST = {
    "errors": set(),
    "clock": set(),
    "frames": {"errors"},
    "messages": {"errors", "frames"},
    "headset": {"frames"},
}
OWNERS = {  # heavy packages, and the only files that may import them
    "pluggy": ("engine/twinguide/hookspecs.py", "engine/twinguide/registry.py", "engine/twinguide/doctor.py"),
    "zmq": ("engine/twinguide/bus/", "engine/twinguide/hub/", "engine/twinguide/hosting/"),
    "xr": "engine/twinguide/xr/",
    "moderngl": "engine/twinguide/render/",
    "cupy": "engine/twinguide/compute.py",
    "av": "engine/twinguide/render/",
    "mcap": "engine/twinguide/",
    "netgen": "engine/twinguide/importing/",
    "itkwasm_mesh_io": "engine/twinguide/importing/",
    "trimesh": ("engine/twinguide/importing/", "plugins/twinguide_liver/"),
    "igl": ("engine/twinguide/importing/", "plugins/twinguide_liver/"),
    "matplotlib": "engine/twinguide/",
    "cv2": ("calibration/twinguide_calibration/", "plugins/twinguide_markers/"),
    "h5py": "calibration/twinguide_calibration/reading/",
}


def sources(*folders):
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py")) if "tests" not in file.parts]
    assert files
    return files


def imports(file, *, typing_too=False):
    """Return the modules that a file imports at run time, absolute."""
    found = set()
    skip = set()
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if not typing_too and isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            skip.update(id(inner) for inner in ast.walk(node))
    for node in ast.walk(tree):
        if id(node) in skip:
            continue
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


@pytest.mark.parametrize("module", LOWEST)
def test_the_lowest_layer_knows_only_what_lies_below(module):
    allowed = {f"twinguide.{name}" for name in LOWEST[module]}
    ours = {".".join(name.split(".")[:2]) for name in imports(ENGINE / f"{module}.py") if name.startswith("twinguide.")}
    assert ours <= allowed


def test_the_hub_knows_hosting_both_know_the_bus_and_none_looks_up():
    for room, above in {"bus": ("hosting", "hub"), "hosting": ("hub",)}.items():
        for file in sorted((ENGINE / room).glob("*.py")):
            reached = {name for name in imports(file, typing_too=True) if name.startswith("twinguide.")}
            assert not {name for name in reached if name.split(".")[1] in above}, file


def test_the_calibration_library_knows_nothing_of_ours():
    for file in sources("calibration"):
        ours = {n for n in imports(file, typing_too=True) if n.split(".")[0].startswith("twinguide")}
        assert all(name.startswith("twinguide_calibration") for name in ours), file


def test_nothing_imports_a_plugin():
    plugins = {folder.name for folder in (ROOT / "plugins").iterdir() if (folder / "plugin.py").exists()}
    for file in sources("engine", "calibration", "plugins"):
        own = file.relative_to(ROOT / "plugins").parts[0] if file.is_relative_to(ROOT / "plugins") else ""
        others = {name.split(".")[0] for name in imports(file, typing_too=True)} & plugins - {own}
        assert not others, f"{file} imports {others}"


def test_plugins_import_themselves_relatively_so_that_their_folder_can_leave():
    for file in sources("plugins"):
        own = file.relative_to(ROOT / "plugins").parts[0]
        assert not {n for n in imports(file) if n.split(".")[0] == own}, file


def test_a_plugin_imports_what_the_docs_list_and_each_name_from_one_place():
    modules = set(re.findall(r"^\| `(twinguide\.\w+)` \|", (ROOT / "docs/plugins.md").read_text(), re.MULTILINE))
    names = {f"twinguide.{name}" for name in twinguide.__all__}
    again = {f"{module}.{name}" for module in modules for name in twinguide.__all__}
    used = set()
    for file in sources("plugins"):
        ours = {name for name in imports(file, typing_too=True) if name.startswith("twinguide.")} - names
        used |= {".".join(name.split(".")[:2]) for name in ours}
        assert used <= modules, f"{file} imports {used - modules}"
        assert not ours & again, f"{file} imports {ours & again}, which `twinguide` gives"
    assert used == modules  # nothing is listed that no plugin needs


def test_a_plugin_uses_no_private_name():
    for file in sources("plugins"):
        private = {n for n in imports(file) if n.startswith("twinguide") and n.rsplit(".", 1)[-1].startswith("_")}
        assert not private, f"{file} imports {private}"


@pytest.mark.parametrize("package", OWNERS)
def test_a_heavy_package_is_imported_only_by_its_owner(package):
    for file in sources("engine", "calibration", "plugins"):
        if package in {name.split(".")[0] for name in imports(file)}:
            assert file.relative_to(ROOT).as_posix().startswith(OWNERS[package]), file


def test_the_page_of_the_design_puts_every_module_in_one_room():
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs/architecture.md").read_text(), re.MULTILINE)
    named = [name for row in rows for names in re.findall(r"`(.*?)`", row) for name in names.split()]
    modules = {file.stem for file in ENGINE.glob("*.py")} - {"__init__", "__main__"}
    packages = {file.parent.name for file in ENGINE.glob("*/__init__.py")}
    assert sorted(name for name in named if name != "shaders/") == sorted(modules | packages)


def test_declaring_a_plugin_imports_nothing_heavy():
    heavy = {*OWNERS, "scipy", "numba"}
    for file in sources("plugins"):
        if file.name == "plugin.py":
            assert not {name.split(".")[0] for name in imports(file)} & heavy, file
