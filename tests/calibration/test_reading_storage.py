import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from twinguide_calibration import CalibrationRefused
from twinguide_calibration.reading import read_poses

cv2 = pytest.importorskip("cv2", reason="OpenCV reads its own files: pip install 'twinguide[camera]'")


def poses(count, seed=0):
    rng = np.random.default_rng(seed)
    matrices = np.tile(np.eye(4), (count, 1, 1))
    matrices[:, :3, :3] = Rotation.random(count, random_state=seed).as_matrix()
    matrices[:, :3, 3] = rng.uniform(-0.5, 0.5, (count, 3))
    return matrices


def storage(path, matrices):
    file = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    file.write("frameCount", 4)
    for name, matrix in matrices.items():
        file.write(name, matrix)
    file.release()
    return path


def test_numbered_pairs_of_poses_are_read_in_metres(tmp_path):
    hands, eyes = poses(12), poses(12, seed=1)
    pairs = {f"T{k}_{i}": side[i] for i in range(12) for k, side in ((1, hands), (2, eyes)) if (k, i) != (2, 3)}
    recording = read_poses(storage(tmp_path / "pairs.yml", pairs))
    hand, eye = recording.track("T1"), recording.track("t2_from_t2_parent")
    assert hand.translations == pytest.approx(hands[:, :3, 3], abs=1e-12)
    assert hand.frames.tolist() == [*range(12)]
    # one of the second is missing, and asked for by the inverse's name it is the inverse
    assert eye.frames.tolist() == [0, 1, 2, *range(4, 12)]
    assert eye.rotations[4] == pytest.approx(eyes[5, :3, :3].T, abs=1e-12)
    assert recording.notes == ("pairs.yml states no unit: taken as metres",)


def test_matrices_that_are_no_poses_are_refused_with_what_to_write(tmp_path):
    with pytest.raises(CalibrationRefused, match=r"got handToEye, K_0; in a\.yml.*Write a CSV with the columns name"):
        read_poses(storage(tmp_path / "a.yml", {"handToEye": np.eye(4), "K_0": np.eye(3)}))
    far = poses(12)
    far[:, :3, 3] *= 1e3
    with pytest.raises(CalibrationRefused, match="taken for metres"):
        read_poses(storage(tmp_path / "b.yml", {f"T1_{i}": m for i, m in enumerate(far)}))


def test_a_storage_cut_anywhere_or_of_another_kind_is_refused(tmp_path):
    whole = storage(tmp_path / "a.yml", {f"T1_{i}": m for i, m in enumerate(poses(2))}).read_bytes()
    others = [whole[:length] for length in range(40, whole.index(b"T1_1"), 40)]
    for data in (*others, b"a: [1,\n  {{{\n", b"%YAML:1.0\n---\n- 1\n"):
        (tmp_path / "b.yml").write_bytes(data)
        with pytest.raises(CalibrationRefused, match="Write a CSV with the columns"):
            read_poses(tmp_path / "b.yml")
