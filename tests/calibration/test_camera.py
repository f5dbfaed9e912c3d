import numpy as np
import pytest

from twinguide_calibration import CalibrationRefused
from twinguide_calibration.rigid import compose, exponential

cv2 = pytest.importorskip("cv2", reason="cameras and boards need OpenCV: pip install 'twinguide[camera]'")

from twinguide_calibration.boards import BoardView, chessboard  # noqa: E402 - after the skip
from twinguide_calibration.camera import calibrate_camera  # noqa: E402

SIZE = (640, 480)
TRUE = np.array([600.0, 605.0, 322.0, 236.0, -0.12, 0.06, 0.001, -0.0005, 0.0])  # fx fy cx cy k1 k2 p1 p2 k3
K = np.array([[TRUE[0], 0.0, TRUE[2]], [0.0, TRUE[1], TRUE[3]], [0.0, 0.0, 1.0]])
BOARD = chessboard(8, 6, 0.03)
IDS = np.array(sorted(BOARD.points))
POINTS = np.array([BOARD.points[int(i)] for i in IDS])
SIGMA = 0.15


def view_at(pose, rng, board=POINTS, sigma=SIGMA):
    turn, _ = cv2.Rodrigues(pose[:3, :3])
    pixels, _ = cv2.projectPoints(POINTS, turn, pose[:3, 3].copy(), K, TRUE[4:])
    return BoardView(IDS, pixels.reshape(-1, 2) + rng.normal(0.0, sigma, (len(IDS), 2)), board)


def views(count=14, tilt=0.5, seed=1, **more):
    """Return views of a board in all corners of the picture, tilted by about `tilt` [rad]."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        around = 2.4 * i
        turn = exponential(tilt * np.array([np.cos(around), np.sin(around), 0.3 * np.sin(3 * around)]))
        middle = np.array([0.10 * np.cos(1.7 * i), 0.08 * np.sin(2.3 * i), 0.42 + 0.1 * np.sin(i)])
        made.append(view_at(compose(turn, middle - turn @ POINTS.mean(axis=0)), rng, **more))
    return made


def values(fit):
    m = fit.camera.matrix
    return np.concatenate([[m[0, 0], m[1, 1], m[0, 2], m[1, 2]], fit.camera.distortion])


def seen(matrix, bent):
    """Return where the true camera's directions of the middle and the corners are seen."""
    pixels = np.array([[320.0, 240.0], [0.0, 0.0], [640.0, 0.0], [0.0, 480.0], [640.0, 480.0]])
    rays = cv2.undistortPointsIter(pixels[:, None], K, TRUE[4:], None, None, (3, 200, 1e-9))[:, 0]
    return cv2.projectPoints(np.hstack([rays, np.ones((5, 1))]), np.zeros(3), np.zeros(3), matrix, bent)[0][:, 0]


def test_a_known_camera_is_found_within_its_stated_error():
    squares, all_squares, within = [], [], []
    for seed in range(8):
        fit = calibrate_camera(views(seed=seed), SIZE)
        error, free = values(fit) - TRUE, fit.sigma > 0.0
        squares += ((error[:4] / fit.sigma[:4]) ** 2).tolist()
        all_squares.append(error[free] @ np.linalg.solve(fit.covariance[np.ix_(free, free)], error[free]) / free.sum())
        off = np.linalg.norm(seen(fit.camera.matrix, fit.camera.distortion) - seen(K, TRUE[4:]), axis=1)
        within += [off[0] < fit.centre_p95_px, off[1:].max() < fit.corner_p95_px]
        assert len(fit.rejected) == 0
    # the mean of 32 squares of one sigma each, eight independent fits of four correlated numbers: 0.5 about 1
    assert 0.4 < np.mean(squares) < 1.8
    assert 0.5 < np.mean(all_squares) < 1.6  # chi-square of 64 over 64, three sigma: 0.5 about 1
    assert sum(within) >= 13  # of 16; fewer come by chance once in a hundred
    assert fit.rms_px == pytest.approx(SIGMA * np.sqrt(2.0), rel=0.1)
    assert 0.4 < fit.covered <= 1.0


@pytest.mark.parametrize("shift", [np.array([6.0, 0.0]), "exchanged", "blurred"])
def test_a_picture_that_does_not_belong_is_left_out(shift):
    made = views(seed=2)
    rng = np.random.default_rng(5)
    pixels = made[4].pixels.copy()
    if isinstance(shift, str):
        pixels = (
            pixels[::-1] + [8.0, 0.0] * rng.random((48, 1))
            if shift == "exchanged"
            else pixels + rng.normal(0, 3, (48, 2))
        )
    else:
        pixels[:24] += shift  # half of the board moved while the shutter was open
    made[4] = BoardView(made[4].ids, pixels, made[4].points)
    fit = calibrate_camera(made, SIZE)
    assert fit.rejected.tolist() == [4]
    assert "left out: 4" in " ".join(fit.notes)
    assert np.abs((values(fit) - TRUE)[:4] / fit.sigma[:4]).max() < 4.0  # one in 4,000 of four


def zoomed(share, aside_px=0.0):
    """Return views of which half were taken with a longer lens, or one that sits aside."""
    made, shift = views(count=16), np.array([aside_px, 0.0])
    seen = [v.pixels + ((v.pixels - K[:2, 2]) * share + shift) * (i >= 8) for i, v in enumerate(made)]
    return [BoardView(view.ids, pixels, view.points) for view, pixels in zip(made, seen, strict=True)]


@pytest.mark.parametrize(("share", "aside_px"), [(0.03, 0.0), (0.0, 13.0)])
def test_a_lens_that_moved_between_the_pictures_is_told_and_counted_in(share, aside_px):
    fit = calibrate_camera(zoomed(share, aside_px), SIZE)
    assert "contradict one another" in " ".join(fit.notes)
    either = TRUE[:4] * [1 + share, 1 + share, 1, 1] + [0.0, 0.0, aside_px, 0.0]
    assert (np.abs(values(fit)[:4] - (TRUE[:4] + either) / 2.0) < 2.0 * fit.sigma[:4]).all()
    assert (np.abs(either - TRUE[:4]) / 2.0 < 4.0 * fit.sigma[:4]).all()


def test_two_bad_pictures_do_not_hide_each_other():
    made = views(seed=3, count=16)
    for row, seed in ((3, 1), (9, 2)):
        noise = np.random.default_rng(seed).normal(0.0, 4.0, (48, 2))
        made[row] = BoardView(made[row].ids, made[row].pixels + noise, made[row].points)
    assert calibrate_camera(made, SIZE).rejected.tolist() == [3, 9]


def swapped():
    """A board taken to be 6 x 8 where it is 8 x 6."""
    wrong = chessboard(6, 8, 0.03)
    return np.array([wrong.points[int(i)] for i in IDS])


REFUSED = {
    "three pictures": (lambda: views(3), "at least 4"),
    "one picture again and again": (lambda: views(1) * 12, "got 1 of 12"),
    "a board that was not tilted": (lambda: views(tilt=0.05), "Tilt the board"),
    "rows for columns": (lambda: views(board=swapped()), "px rms|OpenCV|do not agree|no camera"),
    "squares that are not square": (
        lambda: views(board=POINTS * [1.0, 1.25, 1.0]),
        "px rms|no camera|do not agree|unknown",
    ),
    "two cameras": (lambda: zoomed(0.0, 60.0), "contradict one another. Did zoom"),
    "hopeless corners": (lambda: views(sigma=6.0), "px rms|do not agree|unknown"),
    "nothing": (lambda: [], "got 0 of 0"),
}


@pytest.mark.parametrize(("make", "says"), REFUSED.values(), ids=REFUSED)
def test_pictures_that_cannot_carry_a_camera_are_refused(make, says):
    with pytest.raises(CalibrationRefused, match=says):
        calibrate_camera(make(), SIZE)


def middle(seed):
    rng, made = np.random.default_rng(seed), []
    for i in range(14):
        turn = exponential(0.5 * np.array([np.cos(2.4 * i), np.sin(2.4 * i), 0.0]))
        made.append(view_at(compose(turn, np.array([0.0, 0.0, 0.9]) - turn @ POINTS.mean(axis=0)), rng))
    return made


def test_a_board_seen_in_the_middle_only_is_flagged_with_what_it_leaves_open_at_the_corners():
    fit = calibrate_camera(middle(1), SIZE)
    told = " ".join(fit.notes)
    assert "distortion is a guess" in told
    assert "the board reaches the corners" in told
    assert fit.corner_p95_px > 8.0 > fit.centre_p95_px  # px, a hundredth of the diagonal


def test_distortion_that_the_pictures_do_not_tell_stays_0_and_what_they_tell_is_kept():
    fit = calibrate_camera(middle(2), SIZE)
    assert fit.camera.distortion[[1, 4]].tolist() == [0.0, 0.0]
    assert fit.sigma[[5, 8]].tolist() == [0.0, 0.0]
    assert "do not tell k3" in " ".join(fit.notes)
    assert "do not tell k2" in " ".join(fit.notes)
    assert calibrate_camera(views(), SIZE).camera.distortion[1] == pytest.approx(TRUE[5], abs=0.01)  # 1 sigma: 0.002
