"""A small patient with known geometry: a ball of an organ with a ball of a tumour, in an ellipsoid of skin."""

import numpy as np
import pytest
import trimesh

from twinguide.hookspecs import Anatomy, Organ

RED = (0.8, 0.2, 0.2)
BALL = Organ(
    "ball",
    make="",
    structures=(
        Anatomy("ball", "organ", ("ball",), RED, risk="pass", young_pa=5000.0, young_sigma_pa=1000.0, side="right"),
        Anatomy("tumour", "tumour", ("tumour",), RED, risk="target", young_pa=20000.0, poisson=0.46),
        Anatomy("vein", "vessel", ("vein",), RED, risk="critical", margin_mm=4.0),
        Anatomy("ribs", "bone", ("rib",), RED, risk="critical", margin_mm=2.0),
        Anatomy("skin", "skin", ("skin",), RED),
    ),
)
CENTRE_MM = np.array([-60.0, -30.0, 0.0])  # right of the midline, towards the front
RADIUS_MM = 45.0


def ball(centre, radius, subdivisions=4):
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=1.0)
    return trimesh.Trimesh(mesh.vertices * radius + np.asarray(centre, dtype=float), mesh.faces, process=False)


def write_patient(folder, *, skin=True, mirror=1.0, scale=1.0):
    folder.mkdir(parents=True, exist_ok=True)
    meshes = {
        "ball.stl": ball(CENTRE_MM, RADIUS_MM),
        "tumour.ply": ball([-55.0, -35.0, 0.0], 9.0, 3),
        "vein.obj": ball([-60.0, -10.0, 10.0], 5.0, 3),
    }
    if skin:
        meshes["skin.ply"] = ball([0.0, 0.0, 0.0], [150.0, 100.0, 140.0], 5)
    for name, mesh in meshes.items():
        faces = mesh.faces if mirror > 0 else mesh.faces[:, ::-1]
        trimesh.Trimesh(mesh.vertices * [mirror, 1.0, 1.0] * scale, faces, process=False).export(folder / name)
    return folder


@pytest.fixture(scope="session")
def organ():
    return BALL


@pytest.fixture(scope="session")
def patient():
    return write_patient


@pytest.fixture(scope="session")
def imported(tmp_path_factory):
    """The patient's case folder and its report, imported once."""
    from twinguide.importing import import_case

    folder = tmp_path_factory.mktemp("imported")
    steps = []
    report = import_case(
        write_patient(folder / "source"), folder / "case", units="mm", axes="lps",
        breathing_phase="end-expiration", organs=[BALL], progress=lambda what, share: steps.append((what, share)),
    )  # fmt: skip
    return folder / "case", report, steps


@pytest.fixture(scope="session")
def shell():
    """A function that writes a ball [mm] to a file."""
    return lambda path, centre, radius: ball(centre, radius, 3).export(path)
