import hashlib

import numpy as np
import pytest
import trimesh

from twinguide import Organ
from twinguide.case import Case
from twinguide.errors import CaseError
from twinguide.importing import import_case
from twinguide.registry import Registry
from twinguide_liver import vessels
from twinguide_liver.generator import generate
from twinguide_liver.plugin import STRUCTURES

COARSE = 2.0  # triangles of twice the size: quick, and thin vessels may fall apart, which the importer states
SEEDS = range(5)


@pytest.fixture(scope="module", params=SEEDS)
def patient(request, tmp_path_factory):
    """One seeded patient through the very importer that any other passes."""
    folder = tmp_path_factory.mktemp("patient")
    generate(folder / "source", request.param, COARSE)
    organ = Organ("liver", make="", structures=STRUCTURES)
    report = import_case(
        folder / "source",
        folder / "case",
        units="mm",
        axes="lps",
        breathing_phase="end-expiration",
        organs=[organ],
        progress=lambda *_: None,
    )
    return Case.load(folder / "case"), report


def digest(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_every_seed_gives_a_sane_anatomy_on_the_right_side(patient):
    case, report = patient
    volumes = {row.structure: row.volume_ml for row in report.rows}
    assert 1200 < volumes["liver"] < 1850  # healthy adults: about 1.1 to 2 L
    assert 0.8 < volumes["tumour"] < 10  # 15 to 25 mm across
    assert 5 < volumes["gallbladder"] < 50
    assert case.laterality.startswith("checked: liver on the right")
    assert report.missing == ("arteries", "gastric_vein", "biliary_tract", "cysts")
    assert not any(row.generated for row in report.rows)


def test_every_seed_has_its_tumour_deep_in_the_liver_and_clear_of_vessels(patient):
    case, _ = patient
    points = case.surface("tumour").vertices
    assert case.distance("liver").at(points).max() < -0.008
    for name in ("portal_vein", "hepatic_veins", "gallbladder"):
        assert case.distance(name).at(points).min() > 0.001


def test_every_seed_keeps_bones_and_gallbladder_out_of_the_liver(patient):
    case, _ = patient
    liver = case.distance("liver")
    assert liver.at(case.surface("ribs").vertices).min() > 0.0
    share_inside = (liver.at(case.surface("gallbladder").vertices) < -0.001).mean()
    assert share_inside < 0.05  # it lies in its bed, on the coarse grid not to the millimetre


def test_every_seed_can_be_punctured(patient):
    case, _ = patient
    assert case.plan.target_structure == "tumour"
    path = case.plan.entry + np.linspace(0, 1, 300)[:, None] * (case.plan.target - case.plan.entry)
    for name, structure in case.structures.items():
        if structure.risk == "critical":
            assert case.distance(name).at(path).min() > structure.margin_m - 0.5e-3  # steps of the path


def test_fiducials_lie_on_the_skin_about_the_entry(patient):
    case, _ = patient
    skin = trimesh.Trimesh(case.surface("skin").vertices, case.surface("skin").triangles, process=False)
    points = np.array([landmark.position for landmark in case.landmarks.values()])
    gap = np.linalg.norm(skin.vertices[:, None] - points[None], axis=2).min(axis=0)
    assert gap.max() < 0.020  # no further than the skin's own vertices at 26 mm
    assert np.linalg.norm(points - case.plan.entry, axis=1).max() < 0.085
    assert np.linalg.norm(points.mean(axis=0) - case.plan.entry) < 0.04  # round about it, not beside it


def test_the_same_seed_writes_the_same_files_and_another_seed_other_ones(tmp_path):
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        generate(tmp_path / name, seed, COARSE)
    a, b, c = (digest(tmp_path / name) for name in "abc")
    assert a == b
    assert not set(a.values()) & set(c.values())


def test_a_generated_patient_given_as_ras_is_refused(tmp_path):
    generate(tmp_path / "source", 0, COARSE)
    organ = Organ("liver", make="", structures=STRUCTURES)
    with pytest.raises(CaseError, match="liver on the patient's right"):
        import_case(
            tmp_path / "source",
            tmp_path / "case",
            units="mm",
            axes="ras",
            breathing_phase="end-expiration",
            organs=[organ],
            progress=lambda *_: None,
        )


def test_a_branch_thins_by_murrays_law():
    tissue = np.random.default_rng(0).uniform(-50, 50, size=(400, 3)) + np.array([0, 0, 80])
    free = vessels.Avoid()
    tree = vessels.grow(tissue, np.zeros(3), np.array([0.0, 0.0, 1.0]), 8.0, 1, avoid=[free], keep=free)
    roots = [radius for start, _, radius, _ in tree if not start.any()]
    assert len(roots) == 2
    assert sum(radius**3 for radius in roots) == pytest.approx(8.0**3)


def test_a_branch_that_would_pierce_the_tumour_is_not_grown():
    tissue = np.random.default_rng(0).normal(size=(50, 3)) + np.array([0, 0, 60])
    tumour = vessels.Avoid(np.array([[0.0, 0.0, 50.0]]), np.array([25.0]))
    assert vessels.grow(tissue, np.zeros(3), np.array([0.0, 0, 1]), 5.0, 2, avoid=[vessels.Avoid()], keep=tumour) == []


def test_the_registry_finds_the_liver_and_where_its_numbers_come_from():
    organs = {organ.name: organ for organ in Registry.load().organs()}
    assert organs["liver"].make == "twinguide_liver.generator:generate"
    assert all(anatomy.source for anatomy in organs["liver"].structures)
