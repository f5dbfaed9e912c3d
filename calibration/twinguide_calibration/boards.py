"""Boards and markers, and where their corners are in a picture.

Detection is OpenCV's, with AprilTag corner refinement, which decides the accuracy of a small marker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinguide_calibration.refused import CalibrationRefused
from twinguide_calibration.rigid import Array, Ints

try:
    import cv2
except ImportError as error:
    raise ImportError("cameras and boards need OpenCV: pip install 'twinguide[camera]'") from error

Image = NDArray[np.uint8]
# [px] In the pinned OpenCV, AprilTag and ChArUco corners count from a pixel's rim (opencv#25539), all others from its
# middle, as the camera's matrix does; `tests/calibration/test_boards.py` measures it.
HALF = 0.5
MOST_SQUARES = 100  # a side of a board: more is a slip of the pen, and takes hours to look for
MIRRORED_LEAST = 4  # of a board's markers in the mirror image: fewer may be chance


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """A pinhole camera with OpenCV's distortion: `matrix` (3, 3) [px], `distortion` (k,), `size` (width, height)."""

    matrix: Array
    distortion: Array
    size: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Board:
    """Markers or a pattern whose corners are known: `points` [m] by the corner's number.

    A marker's corner is number `4 id + k`, clockwise from its top left; a chessboard's inner corners count row by row.
    """

    name: str
    points: Mapping[int, Array]
    kind: str  # markers | charuco | chessboard
    source: Any  # OpenCV's board; of a chessboard its (columns, rows) of inner corners
    dictionary: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class BoardView:
    """A board's corners in one picture: `ids` (n,), `pixels` (n, 2), and the same corners `points` (n, 3) [m]."""

    ids: Ints
    pixels: Array
    points: Array


def dictionary_of(name: str) -> cv2.aruco.Dictionary:
    """Return a marker dictionary by name, `4x4_50` or `apriltag_36h11`; raise CalibrationRefused for another."""
    key = f"DICT_{name.upper().removeprefix('DICT_')}"
    number = getattr(cv2.aruco, key, None) or getattr(cv2.aruco, key.replace("H", "h"), None)
    if number is None and key != "DICT_4X4_50":  # number 0 is 4x4_50
        known = sorted(entry[5:].lower() for entry in dir(cv2.aruco) if entry.startswith("DICT_"))
        raise CalibrationRefused(f"wanted a dictionary of markers; got {name!r}", f"Known: {', '.join(known)}.")
    return cv2.aruco.getPredefinedDictionary(number or 0)


def charuco_board(
    columns: int, rows: int, square_m: float, marker_m: float, dictionary: str, legacy: bool = False
) -> Board:
    """Return a chessboard of `columns` x `rows` squares [m] with markers in the white ones.

    `legacy` is the pattern of boards drawn before OpenCV 4.6, whose even rows begin with a marker. The board's origin
    is its top left outer corner, x to the right, y down, z into the board.
    """
    board = cv2.aruco.CharucoBoard((columns, rows), square_m, marker_m, dictionary_of(dictionary))
    board.setLegacyPattern(legacy)
    corners = np.asarray(board.getChessboardCorners(), dtype=np.float64)
    points = dict(enumerate(corners))
    return Board(f"charuco {columns}x{rows}", points, "charuco", board, dictionary)


def marker_board(corners: Mapping[int, Array], dictionary: str) -> Board:
    """Return a rigid set of markers: each id's four corners [m], shape (4, 3), clockwise from the top left."""
    points = {4 * name + k: np.asarray(four, dtype=np.float64)[k] for name, four in corners.items() for k in range(4)}
    ids = np.array(sorted(corners), dtype=np.int32)
    objects = [np.asarray(corners[int(name)], dtype=np.float32) for name in ids]
    board = cv2.aruco.Board(objects, dictionary_of(dictionary), ids)
    return Board(f"{len(ids)} markers", points, "markers", board, dictionary)


def single_marker(name: int, side_m: float, dictionary: str) -> Board:
    """Return one marker; its origin is the middle, x to the right, y up, z out of it towards the viewer."""
    h = side_m / 2.0
    return marker_board({name: np.array([[-h, h, 0.0], [h, h, 0.0], [h, -h, 0.0], [-h, -h, 0.0]])}, dictionary)


def grid_board(columns: int, rows: int, marker_m: float, gap_m: float, dictionary: str, first: int = 0) -> Board:
    """Return `columns` x `rows` markers a gap [m] apart, numbered row by row from the top left.

    The origin is the grid's top left corner, x to the right, y down, z into the board, as OpenCV's GridBoard.
    """
    pitch, m = marker_m + gap_m, marker_m
    square = np.array([[0.0, 0.0, 0.0], [m, 0.0, 0.0], [m, m, 0.0], [0.0, m, 0.0]])
    places = {(row * columns + column): (column, row) for row in range(rows) for column in range(columns)}
    corners = {first + n: square + np.array([c * pitch, r * pitch, 0.0]) for n, (c, r) in places.items()}
    return marker_board(corners, dictionary)


def chessboard(columns: int, rows: int, square_m: float) -> Board:
    """Return a chessboard of `columns` x `rows` inner corners, `square_m` [m] apart; the origin is the first."""
    points = {r * columns + c: np.array([c * square_m, r * square_m, 0.0]) for r in range(rows) for c in range(columns)}
    return Board(f"chessboard {columns}x{rows}", points, "chessboard", (columns, rows))


def find_board(image: Image, board: Board, *, thorough: bool = False) -> BoardView | None:
    """Return a board's corners in a grey or BGR picture, or None where it is not seen.

    `thorough` is for stills: it takes several times as long where no board is, finds a chessboard in shadow too, and
    raises CalibrationRefused for a picture that is mirrored, which only markers show: a chessboard's mirror image is a
    chessboard, and the camera that fits it is the mirrored one.
    """
    grey: Image = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), dtype=np.uint8) if image.ndim == 3 else image
    if board.kind == "chessboard":
        found = _chessboard_corners(grey, board.source, thorough)
    elif board.kind == "charuco":
        found = _charuco_corners(grey, board.source)
    else:
        found = _marker_corners(grey, board)
    if found is None:
        if thorough:
            _refuse_mirrored(grey, board)
        return None
    ids, pixels = found
    known = np.array([int(i) in board.points for i in ids], dtype=bool)
    if not known.any():
        return None
    ids = ids[known]
    return BoardView(ids, pixels[known], np.array([board.points[int(i)] for i in ids]))


def _refuse_mirrored(grey: Image, board: Board) -> None:
    if board.kind == "chessboard":
        return
    flipped = find_markers(np.ascontiguousarray(grey[:, ::-1]), board.dictionary)
    shown = len(flipped.keys() & set(np.ravel(board.source.getIds()).tolist()))
    if shown >= MIRRORED_LEAST:
        raise CalibrationRefused(
            f"the picture is mirrored: {shown} of the board's markers show in its mirror image alone",
            "Turn off mirroring (a selfie view?) where the pictures are taken, and take them anew.",
        )


def _parameters() -> cv2.aruco.DetectorParameters:
    parameters = cv2.aruco.DetectorParameters()
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_APRILTAG
    return parameters


def find_markers(grey: Image, dictionary: str) -> dict[int, Array]:
    """Return all markers of a dictionary in a grey picture: id -> corners [px], shape (4, 2); not those seen twice."""
    detector = cv2.aruco.ArucoDetector(dictionary_of(dictionary), _parameters())
    corners, ids, _ = detector.detectMarkers(grey)
    if ids is None:  # pyright: ignore[reportUnnecessaryComparison] - OpenCV returns None without markers
        return {}
    seen = [int(i) for i in np.asarray(ids).ravel()]
    return {
        name: np.asarray(four, dtype=np.float64).reshape(4, 2) - HALF
        for name, four in zip(seen, corners, strict=True)
        if seen.count(name) == 1
    }


def view_of(markers: Mapping[int, Array], board: Board) -> BoardView | None:
    """Return the view of a board of markers from the markers found in a picture, or None where it has none."""
    ids = [4 * name + k for name in sorted(markers) for k in range(4) if 4 * name + k in board.points]
    if not ids:
        return None
    pixels = np.array([markers[i // 4][i % 4] for i in ids])
    return BoardView(np.array(ids, dtype=np.int64), pixels, np.array([board.points[i] for i in ids]))


def _marker_corners(grey: Image, board: Board) -> tuple[Ints, Array] | None:
    view = view_of(find_markers(grey, board.dictionary), board)
    return None if view is None else (view.ids, view.pixels)


def _charuco_corners(grey: Image, board: cv2.aruco.CharucoBoard) -> tuple[Ints, Array] | None:
    detector = cv2.aruco.CharucoDetector(board, cv2.aruco.CharucoParameters(), _parameters())
    corners, ids, _, _ = detector.detectBoard(grey)
    if ids is None or len(ids) < 4:  # pyright: ignore[reportUnnecessaryComparison] - OpenCV returns None
        return None
    return np.asarray(ids, dtype=np.int64).ravel(), np.asarray(corners, dtype=np.float64).reshape(-1, 2) - HALF


def _chessboard_corners(grey: Image, inner: tuple[int, int], thorough: bool) -> tuple[Ints, Array] | None:
    flags = cv2.CALIB_CB_ADAPTIVE_THRESH | cv2.CALIB_CB_NORMALIZE_IMAGE | cv2.CALIB_CB_FAST_CHECK
    found, corners = cv2.findChessboardCorners(grey, inner, None, flags)
    if not found and thorough:  # it also passes over sharp pictures with strong shadows or much around it
        found, corners = cv2.findChessboardCorners(grey, inner, None, flags & ~cv2.CALIB_CB_FAST_CHECK)
    if not found:
        return None
    pixels = np.asarray(corners, dtype=np.float32).reshape(-1, 1, 2)
    apart = np.linalg.norm(np.diff(pixels[: inner[0], 0], axis=0), axis=1).min()
    half = int(np.clip(apart * 0.4, 3, 11))  # the window must not reach the next corner
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 50, 1e-4)
    refined = cv2.cornerSubPix(grey, pixels, (half, half), (-1, -1), criteria)
    return np.arange(inner[0] * inner[1], dtype=np.int64), np.asarray(refined, dtype=np.float64).reshape(-1, 2)


def board_of(text: str) -> Board:
    """Return the board that a line describes, lengths in millimetres; raise CalibrationRefused saying the forms.

    `charuco:7x5:25/18:4x4_50` is squares of 25 mm with markers of 18 mm (`:legacy` at its end for the older pattern),
    `chessboard:8x6:30` counts inner corners, `grid:3x2:50/10:apriltag_36h11` is markers of 50 mm, 10 mm apart, and
    `marker:7:40:4x4_50` is marker 7 with sides of 40 mm.
    """
    forms = "charuco:7x5:25/18:4x4_50, chessboard:8x6:30, grid:3x2:50/10:apriltag_36h11 or marker:7:40:4x4_50"
    kind, *rest = text.split(":")
    try:
        if kind == "marker":
            name, side, dictionary = rest
            return single_marker(int(name), _millimetres(side, 1)[0], dictionary)
        columns, rows = (int(word) for word in rest[0].split("x"))
        if min(columns, rows) < 1 or columns * rows < 2 or max(columns, rows) > MOST_SQUARES:
            raise ValueError(f"{columns} x {rows}")
        if kind == "chessboard" and len(rest) == 2:
            return chessboard(columns, rows, _millimetres(rest[1], 1)[0])
        first, second = _millimetres(rest[1], 2)
        if kind == "charuco" and second < first and rest[3:] in ([], ["legacy"]):
            return charuco_board(columns, rows, first, second, rest[2], legacy=bool(rest[3:]))
        if kind == "grid" and len(rest) == 3:
            return grid_board(columns, rows, first, second, rest[2])
        raise ValueError(kind)
    except (ValueError, IndexError, cv2.error) as error:
        if isinstance(error, CalibrationRefused):
            raise
        raise CalibrationRefused(f"wanted a board; got {text!r}", f"Write it as {forms} (sizes in mm).") from error


def _millimetres(text: str, count: int) -> list[float]:
    sizes = [float(word) * 1e-3 for word in text.removesuffix("mm").split("/")]
    if len(sizes) != count or not all(0.0 < size < 10.0 for size in sizes):
        raise ValueError(text)
    return sizes
