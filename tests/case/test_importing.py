import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from twinguide.case import Case, DistanceGrid, Surface
from twinguide.errors import CaseError
from twinguide.hookspecs import Anatomy
from twinguide.importing import import_case
from twinguide.importing.landmarks import read_landmarks
from twinguide.importing.planning import LENGTH_M, target_of
from twinguide.importing.plausibility import check_side
from twinguide.preparing import check_phase
from twinguide.registry import Registry

RIGHT_FRONT = [-60.0, -30.0, 0.0]


def run(source, out, organ, **given):
    options = {
        "units": "mm",
        "axes": "lps",
        "breathing_phase": "end-expiration",
        "organs": [organ],
        "progress": lambda what, share: None,
    } | given
    return import_case(source, out, **options)


def shared_patient():
    shared = Path(os.environ.get("TWINGUIDE_DATA", Path(__file__).parents[3] / "shared" / "data"))
    if not (shared / "liver-patient").is_dir():
        pytest.skip(f"no patient data at {shared}; set TWINGUIDE_DATA")
    return shared / "liver-patient"


def test_the_report_names_every_structure_its_volume_and_what_is_missing(imported):
    rows = {row.structure: row for row in imported[1].rows}
    assert list(rows) == ["ball", "skin", "tumour", "vein"]
    assert rows["ball"].volume_ml == pytest.approx(4 / 3 * np.pi * 45**3 / 1e3, rel=0.01)
    assert "coincident points merged" in rows["ball"].repairs[0]  # STL is a soup
    assert imported[1].missing == Case.load(imported[0]).missing == ("ribs",)


def test_progress_starts_at_zero_never_goes_back_and_ends_at_one(imported):
    shares = [share for _, share in imported[2]]
    assert shares[0] == 0.0
    assert shares[-1] == 1.0
    assert shares == sorted(shares)


def test_the_same_patient_gives_the_same_case_and_another_does_not(imported, patient, organ, tmp_path):
    run(patient(tmp_path / "source"), tmp_path / "again", organ)
    assert Case.load(tmp_path / "again").content_hash == Case.load(imported[0]).content_hash
    run(patient(tmp_path / "other" / "source", scale=1.01), tmp_path / "changed", organ)
    assert Case.load(tmp_path / "changed").content_hash != Case.load(imported[0]).content_hash


def test_the_plan_keeps_every_margin_measured_against_the_exact_geometry(imported):
    plan = Case.load(imported[0]).plan
    assert plan.target == pytest.approx(np.array([-0.055, -0.035, 0.0]), abs=1e-5)
    path = plan.entry + np.linspace(0, 1, 500)[:, None] * (plan.target - plan.entry)
    vein = np.linalg.norm(path - [-0.060, -0.010, 0.010], axis=1) - 0.005
    assert vein.min() > 0.004 - 0.3e-3  # the grid's own error at 3 mm
    in_organ = np.linalg.norm(path - [-0.060, -0.030, 0.0], axis=1) < 0.045
    in_tumour = np.linalg.norm(path - plan.target, axis=1) < 0.009
    length = np.linalg.norm(plan.target - plan.entry)
    assert (in_organ & ~in_tumour).mean() * length > 0.010 - 0.3e-3
    assert length < LENGTH_M
    assert plan.entry[1] < plan.target[1]  # from the front: the patient lies on the back


def test_landmarks_surround_the_entry_and_are_not_on_a_line(imported):
    case = Case.load(imported[0])
    kinds = [landmark.kind for landmark in case.landmarks.values()]
    assert (kinds.count("fiducial"), kinds.count("verification")) == (6, 3)
    points = np.array([landmark.position for landmark in case.landmarks.values()])
    assert np.linalg.norm(points - case.plan.entry, axis=1).max() < 0.085
    fiducials = points[:6]
    assert np.linalg.svd(fiducials - fiducials.mean(axis=0), compute_uv=False)[1] > 0.03


def test_the_scan_s_breathing_phase_is_carried_and_only_end_expiration_is_guided(patient, organ, tmp_path):
    run(patient(tmp_path / "source"), tmp_path / "out", organ, breathing_phase="end-inspiration")
    phase = Case.load(tmp_path / "out").breathing_phase
    assert phase == "end-inspiration"
    said = []
    with pytest.raises(CaseError, match="scan at end-expiration"):
        check_phase(phase, ["breathing"], said.append)
    check_phase(phase, [], said.append)
    check_phase("end-expiration", ["breathing"], said.append)
    assert said == []
    check_phase("unknown", ["breathing"], said.append)
    assert "unknown" in said[0]


def test_a_mirrored_patient_and_wrong_axes_are_refused(patient, organ, tmp_path):
    with pytest.raises(CaseError, match=r"ball on the patient's right.*on the left"):
        run(patient(tmp_path / "mirrored", mirror=-1.0), tmp_path / "a", organ)
    with pytest.raises(CaseError, match="check --axes"):
        run(patient(tmp_path / "source"), tmp_path / "b", organ, axes="ras")
    assert not (tmp_path / "a" / "case.toml").exists()


def test_a_side_that_nothing_tells_is_said_to_be_unchecked(organ):
    ball = Surface(np.array([[0.0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]]) - 0.025, np.zeros((0, 3), np.int32))
    tetra = Surface(ball.vertices * [1e-3, 1, 1], np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]], np.int32))
    unsided = Anatomy("ball", "organ", ("ball",), (1, 1, 1))
    assert check_side({"ball": tetra}, {"ball": unsided}).startswith("unchecked")


@pytest.mark.parametrize(("scale", "told"), [(1e-3, "Did you mean --units m?"), (20.0, "mm wide with units mm")])
def test_units_that_give_no_patient_are_refused_with_a_guess_at_the_right_ones(patient, organ, tmp_path, scale, told):
    with pytest.raises(CaseError, match=r"ball of 30 to 600 mm") as refused:
        run(patient(tmp_path / "source", scale=scale), tmp_path / "out", organ)
    assert told in str(refused.value)


def test_a_missing_skin_is_generated_outside_everything_and_marked(patient, organ, tmp_path):
    report = run(patient(tmp_path / "source", skin=False), tmp_path / "out", organ)
    case = Case.load(tmp_path / "out")
    assert case.structures["skin"].generated
    assert "generated" in case.structures["skin"].note
    assert [row.generated for row in report.rows if row.structure == "skin"] == [True]
    to_ball = np.linalg.norm(case.surface("skin").vertices - np.array(RIGHT_FRONT) * 1e-3, axis=1) - 0.045
    assert to_ball.min() == pytest.approx(0.025, abs=0.0015)  # a wall of 25 mm, contoured on a 10 mm grid


def test_the_source_s_own_plan_and_landmarks_are_taken(patient, organ, tmp_path):
    source = patient(tmp_path / "source")
    (source / "plan.toml").write_text(
        'target_structure = "tumour"\nentry = [-60.0, -90.0, 0.0]\ntarget = [-55, -35, 0]\n'
    )
    rows = ["name,kind,x,y,z", "A,fiducial,0,-100,0", "B,fiducial,-50,-94,0", "C,fiducial,-50,-80,50"]
    (source / "landmarks.csv").write_text("\n".join([*rows, "D,verification,-50,-80,-50"]))
    run(source, tmp_path / "out", organ)
    case = Case.load(tmp_path / "out")
    assert case.plan.entry == pytest.approx(np.array([-0.060, -0.090, 0.0]))
    assert case.landmarks["D"].kind == "verification"
    assert "landmarks.csv" in case.provenance.files


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name,kind,x,y\n", "columns"),
        ("name,kind,x,y,z\nA,fiducial,1,2,three\n", "line 2"),
        ("name,kind,x,y,z\nA,screw,1,2,3\n", "screw"),
        ("name,kind,x,y,z\nA,fiducial,0,0,0\nB,fiducial,50,0,0\nC,fiducial,99,0,0\n", "one line"),
        ("name,kind,x,y,z\nA,fiducial,0,0,0\nB,fiducial,50,0,0\n", "at least three"),
        ("name,kind,x,y,z\nA,fiducial,0,0,0\nB,fiducial,50,0,nan\nC,fiducial,0,50,0\n", "line 3"),
    ],
)
def test_bad_landmarks_are_refused_by_line(tmp_path, text, told):
    (tmp_path / "landmarks.csv").write_text(text)
    with pytest.raises(CaseError, match=told):
        read_landmarks(tmp_path / "landmarks.csv", "mm", "lps")


def test_an_organ_that_cannot_be_meshed_is_named_with_its_file(patient, organ, tmp_path, monkeypatch):
    monkeypatch.setattr("twinguide.importing.importer.TRIANGLES", 10)  # they bound no ball's likeness
    with pytest.raises(CaseError, match=r"10 triangles can bound.*in meshing ball, ball\.stl"):
        run(patient(tmp_path / "source"), tmp_path / "out", organ)


def test_two_files_of_one_structure_are_refused(patient, organ, tmp_path):
    source = patient(tmp_path / "source")
    (source / "tumour_2.ply").write_bytes((source / "tumour.ply").read_bytes())
    with pytest.raises(CaseError, match=r"tumour\.ply and tumour_2\.ply"):
        run(source, tmp_path / "out", organ)


def test_files_of_no_known_organ_are_refused_and_a_stranger_is_left_out_visibly(patient, organ, tmp_path):
    source = patient(tmp_path / "source")
    (source / "gizmo.ply").write_bytes((source / "tumour.ply").read_bytes())
    assert run(source, tmp_path / "out", organ).left_out == ("gizmo.ply",)
    (source / "ball.stl").unlink()
    with pytest.raises(CaseError, match=r"ball \(ball\); got none in .*declared in six lines: docs/plugins.md"):
        run(source, tmp_path / "none", organ)


def test_a_lacking_target_is_told_before_anything_is_read(patient, organ, tmp_path):
    source = patient(tmp_path / "source")
    (source / "tumour.ply").unlink()
    (source / "ball.stl").write_bytes(b"never read")
    with pytest.raises(CaseError, match=r"one of the words tumour; got ball\.stl, skin\.ply, vein\.obj"):
        run(source, tmp_path / "out", organ)


def test_a_target_outside_the_organ_is_told_before_it_is_meshed(patient, organ, shell, tmp_path):
    source = patient(tmp_path / "source")
    shell(source / "tumour.ply", [-60.0, -30.0, 300.0], 9.0)
    steps = []
    with pytest.raises(
        CaseError,
        match=r"the target point of the tumour in the organ, or within 100 mm of it.*; got it lies 255 mm outside",
    ):
        run(source, tmp_path / "out", organ, progress=lambda what, share: steps.append(what))
    assert not any("mesh" in step for step in steps)


def test_an_organ_without_a_skin_imports_where_plan_and_landmarks_are_given(patient, organ, tmp_path):
    source = patient(tmp_path / "source", skin=False)
    bare = replace(organ, structures=[anatomy for anatomy in organ.structures if anatomy.role != "skin"])
    (source / "plan.toml").write_text('target_structure = "tumour"\nentry = [-60, -90, 0]\ntarget = [-55, -35, 0]\n')
    with pytest.raises(CaseError, match=r"a skin.*ball declares none.*both plan\.toml and landmarks\.csv"):
        run(source, tmp_path / "refused", bare)
    rows = ["name,kind,x,y,z", "A,fiducial,0,-100,0", "B,fiducial,-50,-94,0", "C,fiducial,-50,-80,50"]
    (source / "landmarks.csv").write_text("\n".join([*rows, "D,verification,-50,-80,-50"]))
    run(source, tmp_path / "out", bare)
    assert list(Case.load(tmp_path / "out").structures) == ["ball", "tumour", "vein"]


def test_an_out_that_cannot_be_a_folder_is_told_before_the_work(patient, organ, tmp_path):
    (tmp_path / "file").write_text("mine")
    steps = []
    for out in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CaseError, match=r"a folder that can be made.*Choose another --out"):
            run(patient(tmp_path / "source"), out, organ, progress=lambda what, share: steps.append(what))
    assert steps == []


def test_a_path_that_cannot_be_is_refused_with_what_the_best_one_lacks(patient, organ, shell, tmp_path):
    source = patient(tmp_path / "source")
    (source / "vein.obj").unlink()

    shell(source / "vein.obj", [-55.0, -35.0, 0.0], 14.0)
    with pytest.raises(CaseError, match="the margin of vein by"):
        run(source, tmp_path / "out", organ)


def test_a_case_is_not_written_over(imported, patient, organ, tmp_path):
    with pytest.raises(CaseError, match="Choose another --out"):
        run(patient(tmp_path / "source"), imported[0], organ)


def test_the_target_of_a_hollow_tumour_lies_in_its_wall():
    index = np.moveaxis(np.indices((41, 41, 41)), 0, -1) * 1e-3
    ring = np.hypot(np.linalg.norm(index[..., :2] - 0.020, axis=-1) - 0.012, index[..., 2] - 0.020) - 0.005
    from twinguide.importing.geometry import contour, lattice

    points, shape = lattice(np.zeros(3), np.full(3, 0.040), 1e-3)
    surface = contour(ring.reshape(-1), points, shape, 0.0)
    found = target_of(surface, DistanceGrid(np.zeros(3), 1e-3, ring.astype(np.float32)))
    radius = np.hypot(*(found[:2] - 0.020))
    assert np.hypot(radius - 0.012, found[2] - 0.020) < 0.0015  # the ring's middle, on a 1 mm grid


def test_a_real_liver_imports_with_its_specks_stated_and_skin_generated(tmp_path):
    organs = Registry.load().organs() or pytest.skip("the liver plugin is not installed")
    report = import_case(
        shared_patient(),
        tmp_path / "case",
        units="mm",
        axes="lps",
        breathing_phase="end-expiration",
        organs=organs,
        progress=lambda *_: None,
    )
    rows = {row.structure: row for row in report.rows}
    assert rows["liver"].volume_ml == pytest.approx(2316, abs=1)  # the data's own README
    assert rows["tumour"].volume_ml == pytest.approx(97, abs=1)
    assert rows["liver"].repairs == ("5 specks of less than 1 mm3 dropped",)
    assert rows["skin"].generated
    assert set(report.missing) == {"ribs", "pleura"}
    case = Case.load(tmp_path / "case")
    body = case.body()
    corner = body.vertices[body.tetrahedra]
    sizes = np.linalg.det(corner[:, 1:] - corner[:, :1]) / 6
    assert sizes.min() > 0
    assert sizes.sum() * 1e6 == pytest.approx(2316, rel=0.05)
    assert (sizes * body.fractions["tumour"]).sum() * 1e6 == pytest.approx(97, rel=0.05)
    assert not list((tmp_path / "case").glob("*.part"))


def test_a_real_liver_given_as_ras_is_refused(tmp_path):
    # LPS is right: the bulk then lies on the right, and the gallbladder in front of and below the liver's middle
    source = shared_patient()
    organs = Registry.load().organs() or pytest.skip("the liver plugin is not installed")
    with pytest.raises(CaseError, match="liver on the patient's right"):
        import_case(
            source,
            tmp_path / "case",
            units="mm",
            axes="ras",
            breathing_phase="end-expiration",
            organs=organs,
            progress=lambda *_: None,
        )
