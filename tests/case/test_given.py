"""What a source gives beside its surfaces: a plan, landmarks, and the place of the tumour in the organ."""

import re
import resource
import shutil
from dataclasses import replace

import numpy as np
import pytest
import trimesh

from twinguide.case import Case, Plan, Surface
from twinguide.errors import CaseError
from twinguide.importing import import_case
from twinguide.importing.geometry import contour, lattice
from twinguide.importing.landmarks import read_landmarks
from twinguide.importing.planning import Obstacles, check_target, obstacles_of, told
from twinguide.preparing import check_known
from twinguide.scenario import load

PLAN = 'target_structure = "tumour"\nentry = [-60.0, -90.0, 0.0]\ntarget = [-55.0, -35.0, 0.0]\n'  # of docs/case.md
MARKS = (
    "name,kind,x,y,z\numbilicus,fiducial,0.0,-100.0,0.0\nxiphoid,fiducial,-50.0,-94.0,0.0\n"
    "rib tip,fiducial,-50.0,-80.0,50.0\nnipple,verification,-50.0,-80.0,-50.0\n"
)
IN_METRES = re.sub(r"-?\d+\.0", lambda number: f"{float(number[0]) / 1e3:g}", MARKS)


@pytest.fixture
def given(patient, organ, shell, tmp_path):
    """A function that imports the ball's patient with a plan.toml and a landmarks.csv; the steps that it went."""

    def run(plan=None, marks=None, *, organ=organ, tumour=None, skin=True, source=None):
        if source is None:
            source = patient(tmp_path / "source", skin=skin)
        if tumour:
            shell(source / "tumour.ply", tumour, 9.0)
        for name, text in (("plan.toml", plan), ("landmarks.csv", marks)):
            if text is not None:
                (source / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        run.steps = []
        return import_case(
            source, tmp_path / "case", units="mm", axes="lps", breathing_phase="unknown", organs=[organ],
            progress=lambda what, share: run.steps.append(what),
        )  # fmt: skip

    return run


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (PLAN.replace("-35.0, 0.0", "-35.0, 300.0"), r"a target in the tumour.*291 mm off.*--units and --axes"),
        (PLAN.replace("-55.0, -35.0", "-0.055, -0.035"), r"a target in the tumour.*56 mm off.*--units and --axes"),
        (PLAN.replace("-55.0, -35.0", "55.0, 35.0"), r"a target in the tumour.*121 mm off.*--units and --axes"),
        (PLAN.replace("-90.0", "-35.0"), r"a path of 10 to 250 mm.*5 mm from entry to target"),
        (PLAN.replace("-90.0", "-9000.0"), r"a path of 10 to 250 mm.*8965 mm from entry to target"),
        (PLAN.replace("-90.0", "-50.0"), r"the entry on the skin, or within 30 mm.*mm inside"),
        (PLAN.replace("-90.0", "-150.0"), r"the entry on the skin, or within 30 mm.*mm outside"),
        (
            PLAN + "entery = [1, 2, 3]\n",
            "keys target_structure, entry, target and.*note.*unknown field `entery`.*case.md",
        ),
        (
            PLAN + 'author = "Dr X"\n',
            "and no others.*unknown field `author`.*Write anything else into note, or behind a #",
        ),
        (PLAN.replace("[-60.0, ", "["), "length 3, got 2.*entry"),
        (PLAN.replace("-90.0", '"a"'), "Expected `float`, got `str`.*entry"),
        (PLAN.replace("-90.0", "nan"), "two points of three numbers; got .*nan"),
        (PLAN.replace("tumour", "tumor"), "a structure of .*'tumor'"),
        ("", "missing required field"),
        (("# Plan f\u00fcr die Leber\n" + PLAN).encode("latin-1"), "text in UTF-8.*Save it as UTF-8"),
    ],
)
def test_a_plan_that_is_not_this_patient_s_is_refused_before_the_mesh_and_leaves_nothing(given, tmp_path, plan, told):
    with pytest.raises(CaseError, match=told) as refused:
        given(plan)
    assert "plan.toml" in str(refused.value)
    assert "landmarks.csv" not in str(refused.value)
    assert not any("mesh" in step or "distances" in step for step in given.steps)
    assert not (tmp_path / "case").exists()


def test_a_good_plan_states_the_margins_that_it_keeps_and_its_length(given, tmp_path):
    said = given(b"\xef\xbb\xbf" + PLAN.encode(), MARKS).plan
    assert said == "55 mm to tumour; keeps all margins of what is in this case; when imported: given with the source"
    case = Case.load(tmp_path / "case")
    assert told(case.plan, obstacles_of(case)) == said


def test_what_a_plan_keeps_is_told_of_the_case_as_it_is_now(imported, tmp_path):
    shutil.copytree(imported[0], tmp_path / "case")
    file = tmp_path / "case" / "case.toml"
    before = Case.load(imported[0])
    wanted_mm = 1e3 * (before.structures["vein"].margin_m + 0.1)
    file.write_text(re.sub(r'(name = "vein".*?margin_mm = )[\d.]+', rf"\g<1>{wanted_mm}", file.read_text(), flags=re.S))
    edited = Case.load(tmp_path / "case")
    kept, short = (told(case.plan, obstacles_of(case)).partition("; when imported")[0] for case in (before, edited))
    assert kept == "55 mm to tumour; keeps all margins of what is in this case"
    assert re.fullmatch(r"55 mm to tumour; WARNING: falls short of the margin of vein by \d+\.\d mm", short)
    assert edited.plan.note == before.plan.note


def test_a_plan_that_misses_a_margin_is_warned_of_with_by_how_much(imported):
    case = Case.load(imported[0])
    obstacles = Obstacles({"vein": (case.distance("vein"), 0.004)}, case.distance("ball"), case.distance("tumour"))
    plan = Plan(np.array([-0.068, -0.092, 0.010]), np.array([-0.068, 0.0, 0.010]), "tumour", "given")
    said = told(plan, obstacles)
    found = re.fullmatch(
        r"92 mm to tumour; WARNING: falls short of the margin of vein by (.*) mm; when .*: given$", said
    )
    # past the middle of the vein, a ball of 5 mm, by 8 mm; h^2/8 times the curvature 2/r of a grid of 3 mm are 0.45 mm
    assert float(found[1]) == pytest.approx(1.0, abs=0.45)


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + MARKS.encode(),
        MARKS.replace(",", ";").replace("\n", "\r\n"),
        MARKS.replace(",", ";").replace(".0", ",0"),
        MARKS.replace(",", " , ").replace("name , kind , x , y , z", "Name , KIND , X , Y , Z"),
        MARKS.replace("fiducial", "Fiducial") + "\n,,,,\n",
        MARKS.replace("\n", ",, \n"),
        MARKS.replace(",", ";").replace("50.0\n", "50.0;;\n"),
    ],
)
def test_landmarks_are_read_as_spreadsheets_write_them(tmp_path, text):
    (tmp_path / "plain.csv").write_text(MARKS)
    (tmp_path / "odd.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    plain, odd = (read_landmarks(tmp_path / name, "mm", "ras") for name in ("plain.csv", "odd.csv"))
    assert [(mark.name, mark.kind) for mark in odd] == [(mark.name, mark.kind) for mark in plain]
    assert np.array_equal([mark.position for mark in odd], [mark.position for mark in plain])
    assert plain[1].position == pytest.approx([0.050, 0.094, 0.0])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (MARKS.replace("rib tip", "Rippe \u00fc").encode("latin-1"), "text in UTF-8.*CSV UTF-8"),
        (MARKS.encode("utf-16"), "text in UTF-8.*CSV UTF-8"),
        (MARKS.replace(",", "\t"), "the columns name,kind,x,y,z.*docs/case.md"),
        ("", "the columns name,kind,x,y,z; got none.*docs/case.md"),
        (MARKS.replace("-94.0,0.0", "-94.0,0.0,7"), "5 columns; got 6.*line 3.*docs/case.md"),
        (MARKS.replace("-94.0,0.0", "-94.0,"), "5 columns; got 4.*line 3.*docs/case.md"),
        (MARKS.replace("xiphoid", "xi\0phoid"), "a name.*line 3"),
        (MARKS.replace(",", ";").replace("-94.0", "1.094,0"), "three numbers.*line 3"),
        (IN_METRES, "one line.*--units and --axes"),
        (MARKS.replace("xiphoid", "umbilicus"), "names that differ.*Rename"),
    ],
)
def test_landmarks_that_cannot_be_read_or_used_are_refused_with_a_next_step(tmp_path, text, told):
    (tmp_path / "landmarks.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(CaseError, match=told):
        read_landmarks(tmp_path / "landmarks.csv", "mm", "lps")


@pytest.mark.parametrize(("y", "told"), [("-94000.0", r"939\d\d mm outside"), ("-494.0", r"39\d mm outside")])
def test_a_landmark_far_off_the_skin_is_refused_by_name(given, tmp_path, y, told):
    with pytest.raises(CaseError, match=rf"landmark xiphoid on the skin.*{told}.*landmarks\.csv"):
        given(PLAN, MARKS.replace("-94.0", y))
    assert not (tmp_path / "case").exists()


def test_a_tumour_that_bulges_out_of_the_organ_is_imported_with_its_share_outside(given, tmp_path):
    plan = 'target_structure = "tumour"\nentry = [-60, -92, 0]\ntarget = [-60, -74, 0]\n'
    report = given(plan, MARKS, tumour=[-60.0, -75.0, 0.0])  # its middle lies on the organ's edge
    case = Case.load(tmp_path / "case")
    found = re.search(r"WARNING: (\d+)% of it lies outside the ball", case.structures["tumour"].note)
    # two balls of 9 and 45 mm, 45 mm apart: 53.75 % of the small one is out (lens); about 113 points of the grid see it
    assert int(found[1]) == pytest.approx(53.75, abs=4)
    assert "WARNING" in next(row.repairs[-1] for row in report.rows if row.structure == "tumour")
    assert "falls short of the organ before the target by" in report.plan


@pytest.mark.parametrize(("plan", "place"), [(None, "tumour.ply"), (PLAN, "plan.toml")])
def test_a_tumour_apart_from_the_organ_is_refused_before_the_mesh_where_its_place_is_told(given, plan, place):
    if plan:
        plan = plan.replace("-90.0", "-105.0").replace("[-55.0, -35.0", "[-60.0, -90.0")
    told = r"a tumour that meets it.*15 mm outside, the surfaces 6 mm apart.*leaves the tumour out, join it.*one frame"
    with pytest.raises(CaseError, match=told) as refused:
        given(plan, tumour=[-60.0, -90.0, 0.0])
    assert refused.value.where.endswith(place)
    assert not any("mesh" in step for step in given.steps)


def test_a_vessel_that_leaves_the_organ_is_a_target_only_as_far_as_the_organ_carries_it():
    ball = trimesh.creation.icosphere(subdivisions=4)
    organ, vessel = (Surface(ball.vertices * size, ball.faces.astype(np.int32)) for size in (0.05, [0.01, 0.01, 0.3]))
    check_target("vessel", np.array([0.0, 0.0, 0.149]), vessel, organ, "here")
    with pytest.raises(CaseError, match=r"within 100 mm of it.*it lies 101 mm outside"):
        check_target("vessel", np.array([0.0, 0.0, 0.151]), vessel, organ, "here")


@pytest.mark.parametrize("plan", [None, PLAN.replace("[-55.0, -35.0", "[-60.0, -63.0")])
def test_a_tumour_that_the_organ_s_surface_leaves_out_is_imported(given, patient, tmp_path, plan):
    source = patient(tmp_path / "source")
    points, shape = lattice(np.array([-0.12, -0.09, -0.06]), np.array([0.0, 0.03, 0.06]), 0.003)
    organ = np.linalg.norm(points - [-0.060, -0.030, 0.0], axis=1) - 0.045
    tumour = np.linalg.norm(points - [-0.060, -0.063, 0.0], axis=1) - 0.015  # its middle 12 mm below the capsule
    for name, field in (("ball.stl", np.maximum(organ, -tumour)), ("tumour.ply", tumour)):
        surface = contour(field, points, shape, 0.0)
        trimesh.Trimesh(surface.vertices * 1e3, surface.triangles).export(source / name)
    given(plan, source=source)
    case = Case.load(tmp_path / "case")
    assert case.plan.target == pytest.approx(np.array([-0.060, -0.063, 0.0]), abs=0.5e-3)  # a grid of 3 mm is even
    assert re.search(r"WARNING: (9\d|100)% of it lies outside the ball", case.structures["tumour"].note)


def test_landmarks_of_the_trunk_are_taken_far_off_a_generated_skin_and_warned_of(given, tmp_path):
    marks = MARKS.replace("0.0,-100.0,0.0", "0.0,-115.0,-150.0").replace("rib tip", "iliac spine")
    marks = marks.replace("-50.0,-80.0,50.0", "-120.0,-81.0,-220.0")
    given(PLAN.replace("-90.0", "-165.0"), marks, skin=False)
    note = Case.load(tmp_path / "case").structures["skin"].note
    told = [float(off) for off in re.findall(r"WARNING: [a-z ]+ lies (\d+) mm outside it", note)]
    points = np.array([[-60, -165, 0], [0, -115, -150], [-120, -81, -220]])  # the entry, and two landmarks
    # a ball of 45 mm and a wall of 25, contoured on 10 mm: h^2/8 times the curvature are 0.2 mm; and whole millimetres
    assert told == pytest.approx(np.linalg.norm(points - [-60, -30, 0], axis=1) - 70, abs=1)
    assert "xiphoid" not in note


@pytest.mark.parametrize(
    ("point", "told"),
    [("-50.0,-600.0", "within 300 mm.*mm outside"), ("-60.0,-30.0", "within 60 mm.*mm inside")],
)
def test_a_landmark_that_no_generated_skin_explains_is_refused(given, point, told):
    with pytest.raises(
        CaseError, match=rf"xiphoid on the generated skin.*{told}.*landmarks\.csv.*add the skin's surface"
    ):
        given(PLAN, MARKS.replace("-50.0,-94.0", point), skin=False)


def test_a_case_without_a_verification_landmark_is_imported_to_rehearse_and_not_guided(given, tmp_path):
    report = given(PLAN, MARKS.replace("verification", "fiducial"))
    assert report.landmarks.endswith("WARNING: no verification landmark: such a case can be rehearsed, not guided")
    case = Case.load(tmp_path / "case")
    for mode in ("guide", "rehearse"):
        (tmp_path / mode).write_text(f'title = "t"\ncase = "case"\nmode = "{mode}"\n[parts]\n')
    check_known(load(tmp_path / "rehearse"), case, print)
    with pytest.raises(CaseError, match="one of kind verification"):
        check_known(load(tmp_path / "guide"), case, print)


def test_a_case_that_could_not_be_read_again_is_not_written(given, organ, tmp_path):
    bare = replace(organ, structures=[anatomy for anatomy in organ.structures if anatomy.role != "skin"])
    with pytest.raises(CaseError, match=r"landmarks\.xiphoid\.position in metres, within a room.*landmarks\.csv"):
        given(PLAN, MARKS.replace("-94.0", "-94000.0"), organ=bare, skin=False)
    assert not (tmp_path / "case").exists()


def test_a_full_disk_is_told_with_its_remedy_and_leaves_nothing_but_what_was_there(given, patient, tmp_path):
    source = patient(tmp_path / "source")
    (tmp_path / "case").mkdir()
    (tmp_path / "case" / "mine.txt").write_text("kept")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # the skin alone takes more
    try:
        with pytest.raises(CaseError, match=r"a folder that can be written; got File too large.*Make room there"):
            given(PLAN, MARKS, source=source)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in (tmp_path / "case").iterdir()] == ["mine.txt"]


def test_names_that_toml_or_utf_8_cannot_hold_make_a_case_that_can_be_read(given, patient, tmp_path):
    source = patient(tmp_path / "of \x7f\udcfc")
    (source / "tumour.ply").rename(source / "tumour \N{GRINNING FACE} \udcfc.ply")
    given(source=source)
    case = Case.load(tmp_path / "case")
    assert case.title == "of \x7f?"
    assert "tumour \N{GRINNING FACE} ?.ply" in case.provenance.files
