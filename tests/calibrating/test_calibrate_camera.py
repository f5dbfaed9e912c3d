import shutil

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2", reason="cameras need OpenCV: pip install 'twinguide[camera]'")

from twinguide.calibrating.result import CameraResult, read_result  # noqa: E402 - after the skip
from twinguide_calibration.boards import board_of  # noqa: E402
from twinguide_calibration.camera import read_camera  # noqa: E402
from twinguide_calibration.rigid import exponential  # noqa: E402

SIZE = (400, 300)
K = np.array([[380.0, 0.0, 203.0], [0.0, 384.0, 146.0], [0.0, 0.0, 1.0]])
SQUARE = 0.03
BOARD = f"chessboard:6x4:{SQUARE * 1e3:g}"


def squares():
    dark = np.add.outer(np.arange(5), np.arange(7)) % 2 == 0
    return np.where(dark, 20, 235).astype(np.uint8).repeat(60, 0).repeat(60, 1)


def picture(i, spoilt=False, board=None):
    """Look at a board of 7 x 5 squares, tilted to another side in each picture; no distortion."""
    texture = np.pad(squares() if board is None else board, 60, constant_values=235)
    turn = exponential(0.55 * np.array([np.cos(2.4 * i), np.sin(2.4 * i), 0.2]))
    middle = np.array([0.06 * np.cos(1.7 * i), 0.04 * np.sin(2.3 * i), 0.31 + 0.05 * np.sin(i)])
    corners = np.array([[-4.5, -3.5, 0], [4.5, -3.5, 0], [4.5, 3.5, 0], [-4.5, 3.5, 0]]) * SQUARE
    seen = (corners @ turn.T + middle) @ K.T
    pixels = (seen[:, :2] / seen[:, 2:] + 0.5) * 3 - 0.5
    texels = np.array([[-0.5, -0.5], [539.5, -0.5], [539.5, 419.5], [-0.5, 419.5]])
    warp = cv2.getPerspectiveTransform(texels.astype(np.float32), pixels.astype(np.float32))
    large = cv2.warpPerspective(texture, warp, (SIZE[0] * 3, SIZE[1] * 3), borderValue=150)
    small = cv2.resize(large, SIZE, interpolation=cv2.INTER_AREA).astype(float)
    if spoilt:  # the board moved while the picture was read out
        small[150:] = np.roll(small[150:], 5, axis=1)
    noise = np.random.default_rng(i).normal(0.0, 2.0, small.shape)
    return np.clip(small + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for i in range(12):
        cv2.imwrite(str(folder / f"{i:02}.png"), picture(i, spoilt=i == 7))
    (folder / "._00.png").write_bytes(b"a desktop's notes about 00.png")
    return folder


def test_a_camera_is_found_from_a_folder_with_a_bad_picture_left_out(run, tmp_path, pictures):
    code, text = run("calibrate", "camera", pictures, "--board", BOARD, "--out", tmp_path / "c.toml")
    assert code == 0, text
    result = read_result(tmp_path / "c.toml", CameraResult)
    m = np.array(result.matrix_px)
    off = (np.array([m[0, 0], m[1, 1], m[0, 2], m[1, 2]]) - [380.0, 384.0, 203.0, 146.0]) / np.array(result.sigma[:4])
    assert np.abs(off).max() < 5.0  # the corners' errors in drawn pictures are not quite independent
    assert np.sqrt(np.diag(np.array(result.covariance))) == pytest.approx(np.array(result.sigma))
    assert "px at the corners (95 %)" in text
    assert [result.pictures[row] for row in result.rejected] == ["07.png"]
    assert "contradicted by the other pictures, left out: 07.png" in text
    assert sum("07.png" in line for line in text.splitlines()) == 1
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    assert read_camera(tmp_path / "c.toml").size == SIZE


def test_a_few_pictures_of_another_size_are_left_out_by_name(run, tmp_path, pictures):
    shutil.copytree(pictures, tmp_path / "p")
    for name in ("03.png", "05.png"):
        whole = cv2.imread(str(tmp_path / "p" / name))
        cv2.imwrite(str(tmp_path / "p" / name), np.pad(whole, ((0, 1), (0, 1), (0, 0))))
    code, text = run("calibrate", "camera", tmp_path / "p", "--board", BOARD, "--out", tmp_path / "c.toml")
    assert code == 0, text
    assert "note: of another size, left out: 03.png, 05.png" in text
    result = read_result(tmp_path / "c.toml", CameraResult)
    assert result.image_size_px == SIZE
    assert not {"03.png", "05.png"} & set(result.pictures)


def test_a_video_gives_the_frames_that_show_something_new(run, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 25, SIZE)
    for i in range(8):
        for _ in range(3):  # the board is held still for a while
            writer.write(cv2.cvtColor(picture(i), cv2.COLOR_GRAY2BGR))
    writer.release()
    code, text = run("calibrate", "camera", tmp_path / "v.avi", "--board", BOARD, "--out", tmp_path / "c.toml")
    assert code == 0, text
    assert read_result(tmp_path / "c.toml", CameraResult).samples == 8
    assert "16 of 24 pictures not used" in text


def written(folder, kind):
    folder.mkdir()
    for i in range(5):
        image = picture(i)
        if kind == "sizes" and i in (1, 3):
            image = image[:200]
        cv2.imwrite(str(folder / f"{i}.png"), image)
    if kind == "torn":
        (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:50])
    return folder


@pytest.mark.parametrize(("kind", "says"), [("sizes", "one size"), ("torn", "cannot be read")])
def test_faulty_pictures_are_refused_naming_the_fault(run, tmp_path, kind, says):
    code, text = run(
        "calibrate", "camera", written(tmp_path / "p", kind), "--board", BOARD, "--out", tmp_path / "c.toml"
    )
    assert code == 1
    assert says in text
    assert not (tmp_path / "c.toml").exists()


@pytest.mark.parametrize(
    ("board", "says"),
    [
        ("chessboard:9x7:30", "it in none of 12"),
        ("chessboard:7x5:30", "one fewer a side than its squares"),
        ("chess:6x4:30", "Write it as"),
        ("chessboard:6x4", "Write it as"),
    ],
)
def test_a_board_that_is_not_the_one_seen_is_refused(run, tmp_path, pictures, board, says):
    code, text = run("calibrate", "camera", pictures, "--board", board, "--out", tmp_path / "c.toml")
    assert (code, says in text) == (1, True), text


def test_a_board_found_in_few_of_many_pictures_is_taken_to_be_another(run, tmp_path):
    folder = written(tmp_path / "p", "whole")
    for i in range(5, 9):
        cv2.imwrite(str(folder / f"{i}.png"), np.full(SIZE[::-1], 128, dtype=np.uint8))
    for i in range(2):
        (folder / f"{i}.png").unlink()
    code, text = run("calibrate", "camera", folder, "--board", BOARD, "--out", tmp_path / "c.toml")
    assert (code, "it in 3 of 7" in text, "Check --board" in text) == (1, True, True), text


def test_no_result_is_written_among_the_pictures_that_the_next_run_would_read(run, pictures):
    before = sorted(pictures.iterdir())
    code, text = run("calibrate", "camera", pictures, "--board", BOARD, "--out", pictures / "deep" / "c.toml")
    assert (code, "outside the folder of pictures" in text) == (1, True)
    assert sorted(pictures.iterdir()) == before


def test_one_mirrored_picture_is_left_out_by_name_and_mirrored_ones_alone_are_refused(run, tmp_path):
    text = f"charuco:7x5:{SQUARE * 1e3:g}/{SQUARE * 7e2:g}:4x4_50"
    drawn = board_of(text).source.generateImage((420, 300), marginSize=0)
    for folder, mirrored in (("one", [3]), ("all", range(10))):
        (tmp_path / folder).mkdir()
        for i in range(10):
            image = picture(i, board=drawn)
            cv2.imwrite(str(tmp_path / folder / f"{i}.png"), image[:, ::-1] if i in mirrored else image)
    command = ("calibrate", "camera", "--board", text, "--out", tmp_path / "c.toml")
    code, told = run(*command, tmp_path / "all")
    assert (code, "9.png: the picture is mirrored" in told) == (1, True), told
    code, told = run(*command, tmp_path / "one")
    assert (code, "3.png: the picture is mirrored" in told) == (0, True), told
    assert read_result(tmp_path / "c.toml", CameraResult).samples == 9


def test_an_empty_folder_is_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    code, text = run("calibrate", "camera", tmp_path / "empty", "--board", BOARD, "--out", tmp_path / "c.toml")
    assert (code, "got none" in text) == (1, True)
