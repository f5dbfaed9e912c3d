"""A run that begins with a registration made before it, by touching the organ's surface."""

import numpy as np
import pytest
from click.testing import CliRunner

from twinguide.cli import main
from twinguide.messages import Registration
from twinguide_patient.options import PatientOptions
from twinguide_patient.room import furnish


@pytest.fixture(scope="module")
def truth(demo_case):
    return furnish(1, PatientOptions(), demo_case).reference_from_image


@pytest.fixture(scope="module")
def touched(demo_case, truth, tmp_path_factory):
    """Return `touched(offset_m) -> result`: the liver's front touched with 0.5 mm noise, the start 5 mm off."""

    def make(offset_m):
        folder = tmp_path_factory.mktemp("surface")
        rng, shape = np.random.default_rng(1), demo_case.surface("liver")
        front = shape.vertices[shape.vertices[:, 1] < np.quantile(shape.vertices[:, 1], 0.4)]
        seen = truth.apply(front[rng.permutation(len(front))[:400]]) + rng.normal(0.0, 5e-4, (400, 3)) + offset_m
        rows = "\n".join(f"{x:.3f},{y:.3f},{z:.3f}" for x, y, z in 1e3 * seen)
        (folder / "cloud.csv").write_text(f"x_mm,y_mm,z_mm\n{rows}\n")
        resampling = truth.matrix.copy()  # what ITK keeps is the inverse of how the reference lies in the image
        resampling[:3, 3] = 1e3 * resampling[:3, 3] + 5.0
        numbers = " ".join(f"{v:.12g}" for v in [*resampling[:3, :3].ravel(), *resampling[:3, 3]])
        (folder / "start.tfm").write_text(
            "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
            f"Parameters: {numbers}\nFixedParameters: 0 0 0\n"
        )
        command = ["calibrate", "surface", folder / "cloud.csv", "--model", demo_case.folder, "--structure", "liver"]
        command += ["--start", folder / "start.tfm", "--out", folder / "surface.toml"]
        ran = CliRunner().invoke(main, [str(word) for word in command])
        assert ran.exit_code == 0, ran.output
        return folder / "surface.toml"

    return make


def test_it_is_verified_by_touching_and_leads_to_confirmation(watch_module, touched, truth, demo_case):
    run = watch_module(f"registration.calibration={touched(0.0)}")
    run.until(lambda shown: shown.step == "verify", limit_s=10.0)
    shown = run.until(lambda shown: shown.step == "confirm", limit_s=60.0)
    assert "register" not in {frame.step for frame in run.frames}
    registration = run.loop.workflow.registration
    assert set(registration.verification_mm) == {"V1", "V2", "V3"}
    assert any(row.startswith("Verified at V1") for row in shown.text)
    target, pose = demo_case.plan.target, registration.reference_from_image.pose(0)
    error_mm = 1e3 * np.linalg.norm(pose.transform.apply(target) - truth.apply(target))
    assert error_mm < 2.0 * registration.tre_p95_mm < 4.0  # one draw; a sound one is within the bound


def test_one_that_is_off_is_voided_by_its_verification_and_fiducials_are_touched(watch_module, touched):
    run = watch_module(f"registration.calibration={touched(0.015)}")
    run.until(lambda shown: shown.step == "register", limit_s=60.0)
    registration: Registration = run.loop.workflow.registration
    assert registration.state == "void"
    assert "verification failed: V1" in registration.reason
    assert run.loop.workflow.state.waits_for == "touch F1"
