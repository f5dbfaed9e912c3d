import re
import subprocess
import sys

import numpy as np
import pytest

from twinguide.case import Case, DistanceGrid
from twinguide.errors import CaseError

CENTRE = np.array([-0.060, -0.030, 0.0])
RADIUS = 0.045


def edited(folder, tmp_path, old, new):
    """A copy of a case with one text in case.toml replaced."""
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.rglob("*.npz"):
        (copy / path.relative_to(folder)).parent.mkdir(exist_ok=True)
        (copy / path.relative_to(folder)).write_bytes(path.read_bytes())
    text = (folder / "case.toml").read_text()
    assert old in text
    (copy / "case.toml").write_text(text.replace(old, new, 1))
    return copy


def test_a_case_tells_roles_margins_and_stiffness_in_si_units(imported):
    case = Case.load(imported[0])
    assert case.organ == "ball"
    assert (case.source_units, case.source_axes, case.breathing_phase) == ("mm", "lps", "end-expiration")
    vein = case.structures["vein"]
    assert (vein.role, vein.risk, vein.margin_m) == ("vessel", "critical", pytest.approx(0.004))
    assert case.structures["tumour"].young_pa == 20000.0
    assert not case.structures["skin"].generated


def test_a_surface_lies_where_the_source_says_in_metres(imported):
    surface = Case.load(imported[0]).surface("ball")
    radii = np.linalg.norm(surface.vertices - CENTRE, axis=1)
    assert np.allclose(radii, RADIUS, atol=1e-8)  # STL stores 32-bit floats: 4e-6 mm at 60 mm


def test_a_distance_grid_knows_the_distance_to_a_ball(imported):
    grid = Case.load(imported[0]).distance("ball")
    rng = np.random.default_rng(0)
    points = CENTRE + rng.uniform(-0.06, 0.06, size=(500, 3))
    truth = np.linalg.norm(points - CENTRE, axis=1) - RADIUS
    far_from_centre = np.linalg.norm(points - CENTRE, axis=1) > 0.012
    # trilinear at 3 mm: h^2/8 times the curvature 2/r, at 12 mm 0.19 mm; the icosphere's facets are 0.1 mm inside
    assert np.abs(grid.at(points) - truth)[far_from_centre].max() < 0.3e-3


def test_a_distance_grid_knows_how_the_distance_rises(imported):
    points = CENTRE + np.random.default_rng(2).uniform(-0.04, 0.04, size=(500, 3))
    offsets = points - CENTRE
    radii = np.linalg.norm(offsets, axis=1)
    outer = radii > 0.012
    _, rises = Case.load(imported[0]).distances(["ball"]).with_rise(points[None])
    # within a cell of 3 mm: as far as the slope z / r changes over its height, 3 mm / r
    assert (np.abs(rises[0] - offsets[:, 2] / radii)[outer] < 3.5e-3 / radii[outer]).all()


def test_outside_its_grid_a_distance_is_a_lower_bound_and_not_a_useless_one(imported):
    grid = Case.load(imported[0]).distance("ball")
    directions = np.random.default_rng(1).normal(size=(300, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for reach in (0.1, 0.2, 0.5):
        truth = reach - RADIUS
        found = grid.at(CENTRE + reach * directions)
        assert (found <= truth + 0.3e-3).all()
        assert (found >= 0.55 * truth).all()


def test_a_point_that_is_not_finite_gives_nan_and_harms_no_other():
    grid = DistanceGrid(np.zeros(3), 1.0, np.ones((3, 3, 3), dtype=np.float32))
    found = grid.at(np.array([[1.0, 1.0, 1.0], [np.nan, 0.0, 0.0], [np.inf, 0.0, 0.0]]))
    assert found[0] == 1.0
    assert np.isnan(found[1:]).all()


def test_a_structure_without_a_grid_is_named_with_those_that_have_one(imported):
    case = Case.load(imported[0])
    with pytest.raises(CaseError, match="ball, tumour, vein"):
        case.distance("skin")
    with pytest.raises(CaseError, match="spleen"):
        case.surface("spleen")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("format = 1", "format = 9", "format = 9"),
        ('role = "vessel"', 'role = "plumbing"', "structures"),
        ("breathing_phase", "breathing_faze", "breathing_faze"),
        ('organ = "ball"', 'organ = "cube"', "cube"),
        ("margin_mm = 4.0", 'margin_mm = "much"', "margin_mm"),
        ("[plan]\n", "[plan]\nspeed = 1\n", "speed"),
        ("units", "= [", "case.toml"),
        ("margin_mm = 4.0", "margin_mm = nan", r"structures\.vein\.margin_mm: a number >= 0; got nan; in .*case\.toml"),
        ("margin_mm = 4.0", "margin_mm = -3", r"structures\.vein\.margin_mm: a number >= 0; got -3"),
        ("tolerance_mm = 10.0", "tolerance_mm = inf", r"tolerance_mm: a number <= 1000; got inf"),
        ("tolerance_mm = 10.0", "tolerance_mm = nan", r"tolerance_mm: a number >= 0; got nan"),
        ("[0.8, 0.2, 0.2]", "[nan, -5, 1e300]", r"structures\.ball\.colour: a number >= 0; got \[nan, -5, 1e\+300\]"),
        ("young_pa = 5000.0", "young_pa = -1", r"young_pa: a number >= 0; got -1"),
        ("poisson = 0.45", "poisson = 0.5", r"poisson: a number < 0\.5; got 0\.5"),
        ("title", "title = 'twice'\ntitle", r"Cannot overwrite a value \(at line .*Import the patient again"),
        ('target_structure = "tumour"', 'target_structure = "skin"', "a distance grid of 'skin'; got grids of ball"),
    ],
)
def test_a_wrong_key_is_named(imported, tmp_path, old, new, told):
    with pytest.raises(CaseError, match=told):
        Case.load(edited(imported[0], tmp_path, old, new))


@pytest.mark.parametrize(
    ("entry", "target", "told"),
    [
        ([-0.055, -0.035, 0.0], [-0.055, -0.035, 0.0], r"a path of 10 to 250 mm.*got 0 mm from entry.*case\.toml"),
        ([-0.06, -0.4, 0.0], [-0.055, -0.035, 0.0], r"a path of 10 to 250 mm.*got 365 mm"),
        ([0.98, 1.0, 1.0], [1.0, 1.0, 1.0], r"a target in the tumour, or within 5 mm.*\[1000\.0, .*\[plan\].*in LPS"),
        ([-0.06, -0.09, 0.0], [-0.055, -0.015, 0.0], r"a target in the tumour, or within 5 mm.*8 mm off"),
    ],
)
def test_a_plan_without_a_needle_s_path_or_with_a_target_in_empty_air_is_refused(
    imported, tmp_path, entry, target, told
):
    plan = re.search(r"^entry = .*\ntarget = .*$", (imported[0] / "case.toml").read_text(), re.MULTILINE)[0]
    with pytest.raises(CaseError, match=told):
        Case.load(edited(imported[0], tmp_path, plan, f"entry = {entry}\ntarget = {target}"))


@pytest.mark.parametrize("target", [[-0.055, -0.035, 0.0], [-0.055, -0.0211, 0.0], [-0.0411, -0.035, 0.0]])
def test_a_plan_that_an_import_takes_is_read_again(imported, tmp_path, target):
    plan = re.search(r"^entry = .*\ntarget = .*$", (imported[0] / "case.toml").read_text(), re.MULTILINE)[0]
    copy = edited(imported[0], tmp_path, plan, f"entry = [-0.06, -0.09, 0.0]\ntarget = {target}")
    (copy / "case.toml").write_bytes(b"\xef\xbb\xbf" + (copy / "case.toml").read_bytes())  # as Notepad saves
    np.testing.assert_array_equal(Case.load(copy).plan.target, target)


def test_a_changed_file_is_refused_by_its_hash(imported, tmp_path):
    copy = edited(imported[0], tmp_path, "format = 1", "format = 1")
    path = copy / "surfaces" / "vein.npz"
    data = bytearray(path.read_bytes())
    data[-300] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CaseError, match=r"vein\.npz"):
        Case.load(copy)
    path.unlink()
    with pytest.raises(CaseError, match=r"vein\.npz"):
        Case.load(copy)


def test_a_folder_without_a_case_says_how_to_make_one(tmp_path):
    with pytest.raises(CaseError, match="case import"):
        Case.load(tmp_path)


def test_reading_a_case_imports_no_mesh_library():
    code = "import sys, twinguide.case; print([m for m in ('igl', 'trimesh', 'scipy') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
