import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from twinguide.calibrating.result import SurfaceResult, pose_of, read_result
from twinguide_calibration.poses import refuse_mixed

TURN = Rotation.from_euler("xyz", [12, -8, 20], degrees=True).as_matrix()
MOVE = np.array([0.03, -0.02, 0.4])


@pytest.fixture(scope="module")
def organ(tmp_path_factory):
    """Return a file [mm] of a lump without any symmetry, and the mesh in metres."""
    mesh = trimesh.creation.icosphere(subdivisions=4, radius=1.0)
    x, y, z = mesh.vertices.T
    swell = 1.0 + 0.25 * np.sin(2.5 * x + 0.4) * y + 0.2 * np.cos(3.0 * z) * x + 0.15 * y * z
    mesh.vertices = mesh.vertices * swell[:, None] * [0.09, 0.06, 0.04]
    path = tmp_path_factory.mktemp("organ") / "organ.stl"
    scaled = mesh.copy()
    scaled.apply_scale(1e3)
    scaled.export(path)
    return path, mesh


def patch(mesh, keep, count=600, noise=5e-4, seed=1):
    """Return noisy points [m] of part of the surface, told in the patient's frame."""
    points, _ = trimesh.sample.sample_surface(mesh, 6000, seed=seed)
    points = np.asarray(points)[keep(np.asarray(points))][:count]
    return (points + np.random.default_rng(seed).normal(0.0, noise, points.shape) - MOVE) @ TURN


def csv(path, points):
    rows = "\n".join(",".join(f"{1e3 * v:.4f}" for v in row) for row in points)
    path.write_text(f"x_mm,y_mm,z_mm\n{rows}\n")
    return path


def start_file(path, off):
    """Write an ITK transform near the true place: a node's `to parent` is the inverse of what the file holds."""
    near = np.eye(4)
    near[:3, :3] = TURN @ Rotation.from_rotvec(off).as_matrix()
    near[:3, 3] = MOVE + 0.004
    stored = np.linalg.inv(near)
    numbers = " ".join(f"{v:.12g}" for v in [*stored[:3, :3].ravel(), *(1e3 * stored[:3, 3])])
    path.write_text(
        "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
        f"Parameters: {numbers}\nFixedParameters: 0 0 0\n"
    )
    return path


MODEL = ("--units", "mm", "--axes", "lps")


def test_a_wide_patch_is_placed_from_a_start_nearby(run, tmp_path, organ):
    path, mesh = organ
    points = patch(mesh, lambda p: p[:, 2] > -0.01)
    points[::12] += 0.02  # wild points
    start = start_file(tmp_path / "start.tfm", [0.08, -0.06, 0.05])
    file = csv(tmp_path / "p.csv", points)
    code, text = run(
        "calibrate", "surface", file, "--model", path, *MODEL, "--start", start, "--out", tmp_path / "s.toml"
    )
    assert code == 0, text
    result = read_result(tmp_path / "s.toml", SurfaceResult)
    pose = pose_of(result)
    assert (pose.transform.target, pose.transform.source) == ("image", "reference")
    assert pose.transform.translation == pytest.approx(MOVE, abs=1.5e-3)
    assert np.abs(pose.transform.rotation - TURN).max() < 0.01
    assert len(result.rejected) >= 40
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_a_patch_that_slides_is_refused_naming_the_direction(run, tmp_path):
    ball = trimesh.creation.icosphere(subdivisions=4, radius=50.0)
    ball.export(tmp_path / "ball.stl")
    points, _ = trimesh.sample.sample_surface(ball, 400, seed=1)
    file = csv(tmp_path / "p.csv", np.asarray(points) * 1e-3)
    code, text = run(
        "calibrate", "surface", file, "--model", tmp_path / "ball.stl", *MODEL, "--out", tmp_path / "s.toml"
    )
    assert (code, "turns about" in text) == (1, True), text
    assert not (tmp_path / "s.toml").exists()


@pytest.mark.parametrize(
    ("scale", "says"), [(1e3, "metres"), (0.0005, "metres")], ids=["points too large", "points too small"]
)
def test_points_in_another_unit_are_refused(run, tmp_path, organ, scale, says):
    path, mesh = organ
    file = csv(tmp_path / "p.csv", patch(mesh, lambda p: p[:, 2] > 0) * scale)
    code, text = run("calibrate", "surface", file, "--model", path, *MODEL, "--out", tmp_path / "s.toml")
    assert (code, says in text) == (1, True), text


def test_too_few_points_are_refused(run, tmp_path, organ):
    file = csv(tmp_path / "p.csv", patch(organ[1], lambda p: p[:, 2] > 0)[:5])
    code, text = run("calibrate", "surface", file, "--model", organ[0], *MODEL, "--out", tmp_path / "s.toml")
    assert (code, "at least" in text) == (1, True), text


@pytest.mark.parametrize("inverted", [False, True])
def test_a_registration_from_points_is_a_start_in_either_direction(run, tmp_path, organ, inverted):
    path, mesh = organ
    touched = np.array([[0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1], [-0.1, 0, 0.05]])
    sides = {"source": touched, "target": touched @ TURN.T + MOVE}
    names = ["source", "target"]
    frames = ("--source", "reference", "--target", "image")
    if inverted:
        sides, frames = {"source": sides["target"], "target": touched}, ("--source", "image", "--target", "reference")
    rows = ["name," + ",".join(f"{side}_{axis}_m" for side in names for axis in "xyz")]
    rows += [f"p{i}," + ",".join(f"{v:.9f}" for side in names for v in sides[side][i]) for i in range(4)]
    (tmp_path / "pairs.csv").write_text("\n".join(rows))
    code, text = run("calibrate", "points", tmp_path / "pairs.csv", *frames, "--out", tmp_path / "points.toml")
    assert code == 0, text
    file = csv(tmp_path / "touched.csv", patch(mesh, lambda p: p[:, 2] > -0.01))
    out = ("--start", tmp_path / "points.toml", "--out", tmp_path / "s.toml")
    code, text = run("calibrate", "surface", file, "--model", path, *MODEL, *out)
    assert code == 0, text
    matrix = np.array(read_result(tmp_path / "s.toml", SurfaceResult).matrix)
    assert matrix[:3] == pytest.approx(np.column_stack([TURN, MOVE]), abs=3e-3)


def test_a_start_between_other_frames_is_refused(run, tmp_path, organ):
    path, mesh = organ
    (tmp_path / "pairs.csv").write_text(
        "source_x_mm,source_y_mm,source_z_mm,target_x_mm,target_y_mm,target_z_mm\n"
        "0,0,0,1,0,0\n90,0,0,91,0,0\n0,80,0,1,80,0\n0,0,70,1.1,0,70\n"
    )
    run("calibrate", "points", tmp_path / "pairs.csv", "--target", "tracker", "--out", tmp_path / "points.toml")
    file = csv(tmp_path / "touched.csv", patch(mesh, lambda p: p[:, 2] > -0.01))
    code, text = run("calibrate", "surface", file, "--model", path, *MODEL, "--start", tmp_path / "points.toml")
    assert (code, "wanted a start image_from_reference; got tracker_from_image" in text) == (1, True)


def test_points_at_one_end_of_a_long_organ_are_placed_without_a_start(run, tmp_path, organ):
    mesh = organ[1].copy()
    mesh.vertices = mesh.vertices * [1.6, 1.0, 1.0]
    path = tmp_path / "long.stl"
    mesh.copy().apply_scale(1e3).export(path)
    points = patch(mesh, lambda p: (p[:, 0] < -0.08) & (p[:, 1] > 0.0), count=150)
    file, out = csv(tmp_path / "p.csv", points), tmp_path / "s.toml"
    code, text = run("calibrate", "surface", file, "--model", path, *MODEL, "--out", out)
    assert code == 0, text  # with the middles laid together alone, all 24 sides end 0.8 m away
    place = pose_of(read_result(out, SurfaceResult)).transform.translation
    assert place == pytest.approx(MOVE, abs=5e-3)  # of an origin 0.1 m away, by points of 0.5 mm


def test_points_that_are_not_finite_are_left_out_and_told_without_a_start(run, tmp_path, organ):
    points = patch(organ[1], lambda p: p[:, 2] > -0.01, count=150)
    points[3:9] = np.nan
    file = csv(tmp_path / "p.csv", points)
    code, text = run("calibrate", "surface", file, "--model", organ[0], *MODEL, "--out", tmp_path / "s.toml")
    assert (code, "6 points were not finite" in text) == (0, True), text


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_points_of_which_some_are_told_in_metres_are_refused_as_mixed_units(run, tmp_path, organ, share):
    points = patch(organ[1], lambda p: p[:, 2] > -0.01, count=150)
    points[np.random.default_rng(2).permutation(150)[: int(share * 150)]] *= 1e-3
    file = csv(tmp_path / "p.csv", points)
    code, text = run("calibrate", "surface", file, "--model", organ[0], *MODEL, "--out", tmp_path / "s.toml")
    assert (code, f"{int(share * 150)} of 150 places" in text, "metres are mixed" in text) == (1, True, True), text


def test_points_about_their_own_origin_are_of_one_unit():
    for seed in range(200):
        rng = np.random.default_rng(seed)
        points = rng.normal(size=(rng.integers(12, 400), 3)) * 0.05
        numbers, dabs = np.arange(len(points)), len(points) // 10
        points[:dabs] = rng.normal(size=(dabs, 3)) * 2e-4
        refuse_mixed(points, numbers, "points")  # a tenth of them dabbed at the origin
        dabs = len(points) // 4
        points[:dabs] = points[-1] * 0.02 + rng.normal(size=(dabs, 3)) * 5e-4
        refuse_mixed(points, numbers, "points")  # a quarter of them at one place, near it
