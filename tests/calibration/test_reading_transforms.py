import numpy as np
import pytest

from twinguide_calibration import CalibrationRefused
from twinguide_calibration.reading import read_poses, read_transform

# a quarter turn about z and a shift, about a centre: y = A (x - c) + c + t, in the resampling direction, LPS, mm
AFFINE = """#Insight Transform File V1.0
#Transform 0
Transform: AffineTransform_double_3_3
Parameters: 0 -1 0 1 0 0 0 0 1 10 20 30
FixedParameters: 1 0 0
"""


def tfm(tmp_path, text):
    (tmp_path / "a.tfm").write_text(text)
    return read_transform(tmp_path / "a.tfm")


def test_itks_own_direction_maps_a_known_point(tmp_path):
    # (5, 0, 0) -> A (4, 0, 0) + (1, 0, 0) + t = (0, 4, 0) + (11, 20, 30) mm
    place = tfm(tmp_path, AFFINE).resampling @ [0.005, 0.0, 0.0, 1.0]
    assert place[:3] == pytest.approx([0.011, 0.024, 0.030], abs=1e-15)


def test_what_moves_a_node_is_the_inverse_of_what_the_file_stores(tmp_path):
    place = tfm(tmp_path, AFFINE).parent_from_child @ [0.011, 0.024, 0.030, 1.0]
    assert place[:3] == pytest.approx([0.005, 0.0, 0.0], abs=1e-15)


def test_slicers_screen_shows_the_same_transform_in_ras(tmp_path):
    place = tfm(tmp_path, AFFINE).ras() @ [-0.011, -0.024, 0.030, 1.0]
    assert place[:3] == pytest.approx([-0.005, 0.0, 0.0], abs=1e-15)


EULER = AFFINE.replace("AffineTransform", "Euler3DTransform")
EULER = EULER.replace("0 -1 0 1 0 0 0 0 1 10 20 30", "0 0 1.5707963267948966 10 20 30")
VERSOR = AFFINE.replace("AffineTransform", "VersorRigid3DTransform")
VERSOR = VERSOR.replace("0 -1 0 1 0 0 0 0 1 10", "0 0 0.7071067811865476 10")


@pytest.mark.parametrize("text", [EULER, VERSOR], ids=["Euler angles", "versor"])
def test_rigid_parametrisations_give_the_same_turn(tmp_path, text):
    assert tfm(tmp_path, text).resampling == pytest.approx(tfm(tmp_path, AFFINE).resampling, abs=1e-12)


def test_euler_angles_turn_about_z_then_x_then_y_unless_the_file_says_zyx(tmp_path):
    text = EULER.replace("0 0 1.5707963267948966", "0.3 0.5 0.7")
    turned = tfm(tmp_path, text).resampling[:3, :3]
    other = tfm(tmp_path, text.replace("Parameters: 1 0 0", "Parameters: 1 0 0 1")).resampling[:3, :3]
    # ITK: R = Rz Rx Ry by default, so R e_y = Rz Rx e_y; Rz Ry Rx with ComputeZYX, so R e_x = Rz Ry e_x
    assert turned[:, 1] == pytest.approx([-np.sin(0.7) * np.cos(0.3), np.cos(0.7) * np.cos(0.3), np.sin(0.3)])
    assert other[:, 0] == pytest.approx([np.cos(0.7) * np.cos(0.5), np.sin(0.7) * np.cos(0.5), -np.sin(0.5)])


@pytest.mark.parametrize("misspelt", [False, True], ids=["as now", "as older ITK spelt it"])
def test_hdf5_holds_the_same_transform(tmp_path, misspelt):
    h5py = pytest.importorskip("h5py", reason="h5py reads .h5 transforms: pip install 'twinguide[files]'")
    prefix = "Tranform" if misspelt else "Transform"
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("TransformGroup/0")
        group["TransformType"] = np.array([b"AffineTransform_double_3_3"])
        group[f"{prefix}Parameters"] = np.array([0, -1, 0, 1, 0, 0, 0, 0, 1, 10, 20, 30], dtype=float)
        group[f"{prefix}FixedParameters"] = np.array([1.0, 0, 0])
    assert read_transform(tmp_path / "a.h5").resampling == pytest.approx(tfm(tmp_path, AFFINE).resampling)


def test_a_torn_hdf5_is_refused(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py reads .h5 transforms: pip install 'twinguide[files]'")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["TransformGroup/0/TransformType"] = np.array([b"AffineTransform_double_3_3"])
    whole = (tmp_path / "a.h5").read_bytes()
    for length in (0, 8, 100, len(whole) // 2, len(whole)):
        (tmp_path / "a.h5").write_bytes(whole[:length])
        with pytest.raises(CalibrationRefused):
            read_transform(tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("#Insight Transform File V1.0\n", "one transform"),
        (AFFINE.replace("AffineTransform", "BSplineTransform"), "BSplineTransform"),
        (AFFINE.replace("_3_3", "_2_2"), "3 dimensions"),
        (AFFINE.replace("_double_3_3", ""), "3 dimensions"),
        (AFFINE.replace("20 30", "20"), "12 parameters"),
        (AFFINE.replace("10 20", "nan 20"), "finite numbers.*Save the transform anew"),
        (AFFINE.replace(": 1 0 0", ": inf 0 0"), "finite numbers"),
        (AFFINE.replace("0 -1 0", "0 -2 0"), "orthonormal"),
        (AFFINE.replace("0 -1 0", "0 1 0"), "right-handed"),
        (AFFINE.replace("10 20", "ten 20"), "ten"),
        (AFFINE + AFFINE, "one transform"),
        (VERSOR.replace("0.7071067811865476", "2"), "versor"),
    ],
)
def test_what_is_no_rigid_transform_is_refused_with_the_reason(tmp_path, text, says):
    with pytest.raises(CalibrationRefused, match=says):
        tfm(tmp_path, text)


def test_a_transform_with_other_line_ends_and_a_byte_order_mark_is_the_same(tmp_path):
    (tmp_path / "b.tfm").write_bytes(b"\xef\xbb\xbf" + AFFINE.replace("\n", "\r\n").encode())
    assert read_transform(tmp_path / "b.tfm").resampling == pytest.approx(tfm(tmp_path, AFFINE).resampling)


def test_a_transform_cut_anywhere_is_refused_or_whole(tmp_path):
    whole = tfm(tmp_path, AFFINE).resampling
    for length in range(AFFINE.index("FixedParameters") + 16):
        with pytest.raises(CalibrationRefused):
            tfm(tmp_path, AFFINE[:length])
    assert tfm(tmp_path, AFFINE.rstrip()).resampling == pytest.approx(whole)


POSES = """t_s,name,x_mm,y_mm,z_mm,qx,qy,qz,qw,valid
0.00,tracker_from_pen,1,2,3,0,0,0.7071067811865476,0.7071067811865476,1
0.02,tracker_from_pen,2,2,3,0,0,0.7071067811865476,0.7071067811865476,1
0.02,tracker_from_body,9,2,3,0,0,0,1,OK
0.04,tracker_from_pen,3,2,3,0,0,0,1,INVALID
"""


def test_poses_come_from_a_csv_with_quaternions(tmp_path):
    (tmp_path / "a.csv").write_text(POSES)
    recording = read_poses(tmp_path / "a.csv")
    pen = recording.track("pen")
    assert pen.rotations[0] @ [1.0, 0.0, 0.0] == pytest.approx([0.0, 1.0, 0.0], abs=1e-12)
    assert pen.translations[1] == pytest.approx([0.002, 0.002, 0.003])
    assert pen.times_ns.tolist() == [0, 20_000_000]
    assert pen.frames[1] == recording.track("body").frames[0]  # equal stamps are one exposure


def test_poses_come_from_a_csv_with_matrices(tmp_path):
    header = "t_ns,x_m,y_m,z_m," + ",".join(f"r{i}{j}" for i in range(3) for j in range(3))
    (tmp_path / "a.csv").write_text(f"{header}\n5,1,2,3,0,-1,0,1,0,0,0,0,1\n7,1,2,3,0,-1,0,1,0,0,0,0,1\n")
    track = read_poses(tmp_path / "a.csv").only()
    assert track.rotations[0] @ [1.0, 0.0, 0.0] == pytest.approx([0.0, 1.0, 0.0])
    assert track.times_ns.tolist() == [5, 7]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("qx,qy", "qa,qb"), "qx, qy, qz, qw"),
        (("0.7071067811865476,0.7071067811865476", "1,1"), "unit quaternions"),
        (("tracker_from_pen", "pen"), "names like"),
        (("x_mm", "x"), "never guessed"),
        (("x_mm,y_mm,z_mm", "x_m,y_mm,z_m"), "unit"),
    ],
)
def test_a_csv_of_poses_that_cannot_be_understood_is_refused(tmp_path, change, says):
    text = POSES.replace(*change)
    (tmp_path / "a.csv").write_text(text.replace(",3,", ",300,") if says == "unit" else text)
    with pytest.raises(CalibrationRefused, match=says):
        read_poses(tmp_path / "a.csv")


def test_a_row_is_told_as_people_count_the_files_own(tmp_path):
    header = "t_s,name,x_m,y_m,z_m," + ",".join(f"r{i}{j}" for i in range(3) for j in range(3))
    sound, mirrored = "1,2,3,1,0,0,0,1,0,0,0,1", "1,2,3,1,0,0,0,1,0,0,0,-1"
    rows = f"0,a_from_b,{sound}\n0,a_from_c,{sound}\n1,a_from_b,{sound}\n1,a_from_c,{mirrored}\n"
    (tmp_path / "a.csv").write_text(f"{header}\n{rows}")
    with pytest.raises(CalibrationRefused, match=r"mirror image .* first in row 4"):
        read_poses(tmp_path / "a.csv")


def test_a_frames_number_that_is_missing_is_refused(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("frame,x_mm,y_mm,z_mm,qx,qy,qz,qw\n0,1,2,3,0,0,0,1\n,1,2,4,0,0,0,1\n")
    with pytest.raises(CalibrationRefused, match="number of the frame"):
        read_poses(path)
