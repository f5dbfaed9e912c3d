import numpy as np
import pytest

from twinguide_calibration import CalibrationRefused
from twinguide_calibration.rigid import compose, exponential, logarithm

cv2 = pytest.importorskip("cv2", reason="cameras and boards need OpenCV: pip install 'twinguide[camera]'")

from twinguide_calibration.board_pose import board_pose  # noqa: E402 - after the skip
from twinguide_calibration.boards import (  # noqa: E402 - after the skip
    BoardView,
    Camera,
    board_of,
    charuco_board,
    chessboard,
    dictionary_of,
    find_board,
    grid_board,
    marker_board,
    single_marker,
)

SIZE = (640, 480)
K = np.array([[600.0, 0.0, 322.0], [0.0, 605.0, 236.0], [0.0, 0.0, 1.0]])
CAMERA = Camera(K, np.array([-0.1, 0.05, 0.001, -0.0005, 0.0]), SIZE)
SCALE = 3  # pixels are drawn as the mean of so many squared


def draw(texture, metres_per_texel, corner, pose, camera=CAMERA, noise=2.0, seed=1):
    """Look at a flat texture whose first texel's outer corner lies at `corner` in board, x right and y down in it."""
    width, height = camera.size
    step = (np.arange(width * SCALE) + 0.5) / SCALE - 0.5
    down = (np.arange(height * SCALE) + 0.5) / SCALE - 0.5
    pixels = np.stack(np.meshgrid(step, down), axis=-1).reshape(-1, 1, 2)
    rays = cv2.undistortPoints(pixels, camera.matrix, camera.distortion).reshape(-1, 2)
    rays = np.concatenate([rays, np.ones((len(rays), 1))], axis=1) @ pose[:3, :3]
    eye = -pose[:3, :3].T @ pose[:3, 3]
    board = eye + rays * (-eye[2] / rays[:, 2])[:, None]
    texels = ((board[:, :2] - corner[:2]) * [1.0, corner[2]] / metres_per_texel - 0.5).astype(np.float32)
    shape = (height * SCALE, width * SCALE)
    seen = cv2.remap(
        texture, texels[:, 0].reshape(shape), texels[:, 1].reshape(shape), cv2.INTER_LINEAR, borderValue=160
    )
    small = cv2.resize(seen, camera.size, interpolation=cv2.INTER_AREA).astype(float)
    rng = np.random.default_rng(seed)
    return np.clip(small + rng.normal(0.0, noise, small.shape), 0, 255).astype(np.uint8)


def facing(turn=(0.25, -0.2, 0.1), place=(-0.08, -0.06, 0.5)):
    """Return camera_from_board of a board with x right and y down, turned from facing the camera by a vector [rad]."""
    return compose(exponential(np.array(turn)), np.array(place))


def towards(turn, distance):
    """Return camera_from_marker of a marker (y up) before the camera, turned from facing it by a vector [rad]."""
    half_about_x = exponential(np.array([np.pi, 0.0, 0.0]))
    return compose(half_about_x @ exponential(np.array(turn)), np.array([0.0, 0.0, distance]))


def charuco():
    board = charuco_board(7, 5, 0.025, 0.018, "4x4_50")
    texture = board.source.generateImage((7 * 80, 5 * 80), marginSize=0)
    return board, texture, 0.025 / 80, np.array([0.0, 0.0, 1.0])


def grid():
    board = grid_board(3, 2, 0.05, 0.01, "apriltag_36h11")
    texture = np.full((2 * 240 - 40, 3 * 240 - 40), 255, dtype=np.uint8)
    for n in range(6):
        row, column = divmod(n, 3)
        marker = cv2.aruco.generateImageMarker(dictionary_of("apriltag_36h11"), n, 200)
        texture[row * 240 : row * 240 + 200, column * 240 : column * 240 + 200] = marker
    texture = np.pad(texture, 60, constant_values=255)
    return board, texture, 0.05 / 200, np.array([-0.015, -0.015, 1.0])


def chess():
    board = chessboard(6, 4, 0.025)
    dark = (np.add.outer(np.arange(5), np.arange(7)) % 2 == 0).repeat(80, axis=0).repeat(80, axis=1)
    texture = np.pad(np.where(dark, 20, 235).astype(np.uint8), 60, constant_values=235)
    outer = -0.025 - 60 * 0.025 / 80
    return board, texture, 0.025 / 80, np.array([outer, outer, 1.0])


@pytest.mark.parametrize("make", [charuco, grid, chess])
def test_a_board_drawn_at_a_known_place_is_found_there(make):
    board, texture, texel, corner = make()
    truth = facing()
    view = find_board(draw(texture, texel, corner, truth), board)
    pose = board_pose(view, CAMERA)
    off = np.linalg.inv(pose.camera_from_board) @ truth
    assert np.linalg.norm(off[:3, 3]) < 5e-4  # [m] at 0.5 m, with 0.1 px of 600 px focal length
    assert np.linalg.norm(logarithm(off[:3, :3])) < np.radians(0.3)
    assert pose.rms_px < 0.3


@pytest.mark.parametrize("make", [charuco, grid, chess])
def test_corners_are_found_without_a_bias(make):
    board, texture, texel, corner = make()
    off = []
    for seed, turn in enumerate([(0.25, -0.2, 0.1), (-0.3, 0.2, 0.4)]):
        truth = facing(turn)
        view = find_board(draw(texture, texel, corner, truth, seed=seed), board)
        true = corners_of(board, truth)
        off.append(view.pixels - true.pixels[np.searchsorted(true.ids, view.ids)])
    # half a pixel is what the conventions of OpenCV's detectors differ by; a tenth is their own bias at most
    assert np.abs(np.concatenate(off).mean(axis=0)).max() < 0.12


def test_a_single_marker_faces_the_camera_with_y_up():
    board = single_marker(7, 0.04, "4x4_50")
    texture = np.pad(cv2.aruco.generateImageMarker(dictionary_of("4x4_50"), 7, 240), 60, constant_values=255)
    # x right, y up, z to the viewer: the camera sees it turned by half a turn about x
    truth = towards([0.4, 0.3, 0.0], 0.3)
    corner = np.array([-0.03, 0.03, -1.0])  # texture rows run against y
    pose = board_pose(find_board(draw(texture, 0.04 / 240, corner, truth), board), CAMERA)
    off = np.linalg.inv(pose.camera_from_board) @ truth
    assert np.linalg.norm(off[:3, 3]) < 1.5e-3
    assert np.linalg.norm(logarithm(off[:3, :3])) < np.radians(1.5)


def test_a_picture_without_the_board_gives_none():
    blank = np.full((480, 640), 128, dtype=np.uint8)
    assert find_board(blank, single_marker(1, 0.04, "4x4_50")) is None
    assert find_board(blank, charuco()[0]) is None
    assert find_board(blank, chess()[0]) is None


@pytest.mark.parametrize("make", [charuco, grid])
def test_a_mirrored_picture_of_markers_is_refused(make):
    board, texture, texel, corner = make()
    with pytest.raises(CalibrationRefused, match="mirrored"):
        find_board(draw(texture, texel, corner, facing())[:, ::-1], board, thorough=True)


def test_a_picture_of_a_stream_is_looked_at_once():
    board, texture, texel, corner = charuco()
    assert find_board(draw(texture, texel, corner, facing())[:, ::-1], board) is None


def corners_of(board, pose, noise=None):
    ids = np.array(sorted(board.points))
    points = np.array([board.points[int(i)] for i in ids])
    turn, _ = cv2.Rodrigues(pose[:3, :3])
    pixels, _ = cv2.projectPoints(points, turn, pose[:3, 3].copy(), CAMERA.matrix, CAMERA.distortion)
    pixels = pixels.reshape(-1, 2)
    return BoardView(ids, pixels if noise is None else pixels + noise, points)


@pytest.mark.parametrize(("turn", "place"), [((0.5, -0.4, 0.1), (-0.05, -0.03, 0.4)), ((0.9, 0.2, 1.0), (0.0, 0, 0.3))])
def test_the_covariance_of_a_pose_is_that_of_its_errors(turn, place):
    board, truth, sigma, rng = grid()[0], facing(turn, place), 0.25, np.random.default_rng(3)
    squares, inside = [], 0
    for _ in range(400):
        pose = board_pose(corners_of(board, truth, rng.normal(0.0, sigma, (24, 2))), CAMERA, sigma_px=sigma)
        off = np.linalg.inv(pose.camera_from_board) @ truth
        delta = np.concatenate([logarithm(off[:3, :3]), off[:3, 3]])
        squares.append(float(delta @ np.linalg.solve(pose.covariance, delta)))
        inside += squares[-1] < 12.592  # 95 % of chi-square with 6 degrees of freedom
    # the covariance may only grow with the residuals: by 8 % on the mean for 42 degrees of freedom
    assert 5.0 < np.mean(squares) < 6.4
    assert 0.93 < inside / 400 < 0.99


def test_both_poses_of_a_small_far_marker_are_kept_and_the_earlier_pose_decides():
    board = single_marker(0, 0.02, "4x4_50")
    truth = towards([0.3, 0.0, 0.0], 0.8)
    view = corners_of(board, truth)
    plain = board_pose(view, CAMERA)
    assert plain.ambiguous
    assert plain.other is not None
    right = board_pose(view, CAMERA, prior=plain.camera_from_board)
    wrong = board_pose(view, CAMERA, prior=plain.other)
    assert right.camera_from_board == pytest.approx(plain.camera_from_board, abs=1e-9)
    assert wrong.camera_from_board == pytest.approx(plain.other, abs=1e-9)
    assert np.linalg.norm(logarithm(plain.other[:3, :3].T @ truth[:3, :3])) > np.radians(20)


def test_a_near_tilted_marker_is_not_ambiguous():
    truth = towards([0.9, 0.2, 0.0], 0.2)
    assert not board_pose(corners_of(single_marker(0, 0.06, "4x4_50"), truth), CAMERA).ambiguous


@pytest.mark.parametrize("gap_m", [0.014, 0.006])
def test_a_wrong_layout_is_refused_by_its_residual(gap_m):
    seen = corners_of(grid()[0], facing())
    wrong = grid_board(3, 2, 0.05, gap_m, "apriltag_36h11")
    view = BoardView(seen.ids, seen.pixels, np.array([wrong.points[int(i)] for i in seen.ids]))
    with pytest.raises(CalibrationRefused, match="layout"):
        board_pose(view, CAMERA)


def test_two_markers_that_are_exchanged_are_refused():
    right = grid()[0]
    exchanged = {n: np.array([right.points[4 * m + k] for k in range(4)]) for n, m in enumerate((1, 0, 2, 3, 4, 5))}
    seen = corners_of(right, facing())
    wrong = marker_board(exchanged, "apriltag_36h11")
    view = BoardView(seen.ids, seen.pixels, np.array([wrong.points[int(i)] for i in seen.ids]))
    with pytest.raises(CalibrationRefused, match="layout"):
        board_pose(view, CAMERA)


def test_a_body_of_markers_that_is_not_flat_is_placed_too():
    flat = {n: np.array(four) for n, four in ((n, [grid()[0].points[4 * n + k] for k in range(4)]) for n in range(3))}
    flat[2] = flat[2] @ exponential(np.array([0.0, -0.8, 0.0])).T
    board, truth = marker_board(flat, "apriltag_36h11"), facing()
    pose = board_pose(corners_of(board, truth), CAMERA)
    assert pose.camera_from_board == pytest.approx(truth, abs=1e-7)
    assert pose.other is None


@pytest.mark.parametrize(("rows", "says"), [([0, 1, 2], "4 corners"), ([0, 1, 4, 5, 8, 9], "on a line")])
def test_too_few_corners_are_refused(rows, says):
    view = corners_of(grid()[0], facing())
    rows = np.array(rows)
    with pytest.raises(CalibrationRefused, match=says):
        board_pose(BoardView(view.ids[rows], view.pixels[rows], view.points[rows]), CAMERA)


def test_an_unknown_dictionary_is_refused_naming_the_known_ones():
    with pytest.raises(CalibrationRefused, match="4x4_50"):
        dictionary_of("9x9_7")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("charuco:7x5:25/18:4x4_50", 24),
        ("charuco:7x5:25/18:4x4_50:legacy", 24),
        ("chessboard:8x6:30mm", 48),
        ("grid:3x2:50/10:apriltag_36h11", 24),
        ("marker:7:40:4x4_50", 4),
    ],
)
def test_a_line_describes_a_board(text, count):
    assert len(board_of(text).points) == count


def test_a_described_board_has_its_sizes():
    board = board_of("grid:3x2:50/10:apriltag_36h11")
    assert board.points[4 * 5 + 2] == pytest.approx([0.17, 0.11, 0.0])  # marker 5's lower right corner
    assert np.ptp([*board_of("marker:7:40:4x4_50").points.values()], axis=0) == pytest.approx([0.04, 0.04, 0.0])


@pytest.mark.parametrize(
    "text",
    ["", "charuco", "charuco:7x5:18/25:4x4_50", "chessboard:8:30", "chessboard:8x6:0", "chessboard:8x6:nan",
     "grid:3x2:50:4x4_50",
     "marker:x:40:4x4_50", "marker:7:40:nothing", "dots:3x2:5"],
)  # fmt: skip
def test_a_line_that_describes_no_board_is_refused_with_the_forms(text):
    with pytest.raises(CalibrationRefused, match=r"Write it as|Known"):
        board_of(text)
