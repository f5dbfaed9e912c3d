"""A camera from pictures of a board."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from twinguide.calibrating.inputs import hashed, refusals
from twinguide.calibrating.outcome import Outcome, shortened
from twinguide.calibrating.picture import draw_camera
from twinguide.calibrating.result import CameraResult, rows_of, stamp, symmetric
from twinguide.errors import CalibrationError

try:
    from twinguide_calibration.boards import Board, BoardView, Camera, board_of, find_board
    from twinguide_calibration.camera import VIEWS_LEAST, CameraFit, calibrate_camera
    from twinguide_calibration.reading.pictures import Picture, read_pictures
    from twinguide_calibration.refused import CalibrationRefused
except ImportError as error:
    raise CalibrationError(
        "OpenCV, for cameras", "it is not installed", next_step="pip install 'twinguide[camera]'"
    ) from error

Array = NDArray[np.float64]
MOVED = 0.03  # of the picture's width: a video's frame in which the board moved less shows nothing new
VIEWS_MOST = 60  # more cost minutes and gain nothing
LISTED_MOST = 8  # pictures named in a note
OTHERS_MOST = 0.2  # of the pictures, of another size: more are another camera's


def camera(path: Path, board_text: str, name: str, rms_max_px: float) -> Outcome:
    """Calibrate a camera from a folder of images or a video; raises CalibrationError with reason and remedy."""
    with refusals():
        board = board_of(board_text)
        seen, size, pictures, notes = _views(path, board)
        if len(seen) < min(VIEWS_LEAST, pictures):
            found = f"it in {len(seen) or 'none'} of {pictures}"
            inner = " A chessboard is given by its inner corners, one fewer a side than its squares."
            step = "Check --board (columns, rows, dictionary) and the light." + inner * (board.kind == "chessboard")
            raise CalibrationError(f"pictures of {board.name}", found, path.name, step)
        names = tuple(picture for picture, _ in seen)
        fit = calibrate_camera([view for _, view in seen], size, rms_max_px, names)
    result = CameraResult(
        of=name,
        sources=hashed((path,)),
        samples=len(seen),
        rejected=tuple(int(row) for row in fit.rejected),
        residuals=tuple(fit.residuals.tolist()),
        residual_unit="px",
        notes=shortened((*notes, *fit.notes)),
        board=board_text,
        pictures=names,
        image_size_px=size,
        matrix_px=rows_of(fit.camera.matrix),  # pyright: ignore[reportArgumentType]
        distortion=tuple(fit.camera.distortion.tolist()),
        covariance=symmetric(fit.covariance),
        sigma=tuple(fit.sigma.tolist()),
        centre_p95_px=fit.centre_p95_px,
        corner_p95_px=fit.corner_p95_px,
        rms_px=fit.rms_px,
        **stamp(),
    )
    return Outcome(result, _table(result, fit), partial(draw_camera, names, [view for _, view in seen], fit))


def _views(path: Path, board: Board) -> tuple[list[tuple[str, BoardView]], tuple[int, int], int, list[str]]:
    """Return the views that show something new, the pictures' size, how many there were, and which were left out.

    Of pictures that are refused the last refusal is raised where no view is left.
    """
    seen: list[tuple[str, BoardView]] = []
    wrong: list[str] = []
    without: list[str] = []
    sizes: dict[str, tuple[int, int]] = {}
    refusal: CalibrationRefused | None = None
    for picture in read_pictures(path):
        sizes[picture.name] = (picture.grey.shape[1], picture.grey.shape[0])
        if len(seen) == VIEWS_MOST:
            continue
        try:
            view = find_board(picture.grey, board, thorough=path.is_dir())
        except CalibrationRefused as error:
            wrong.append(f"{picture.name}: {error.reason}")
            refusal = CalibrationRefused(wrong[-1], error.remedy)
            continue
        if view is None:
            without.append(picture.name)
        elif _new(picture, view, [other for _, other in seen], path.is_dir()):
            seen.append((picture.name, view))
    size, others = _one_size(sizes, path.name)
    seen = [(name, view) for name, view in seen if name not in others]
    if refusal is not None and not seen:
        raise refusal
    count = len(sizes) - len(others)
    rest = count - len(seen) - len(wrong)
    wrong += [f"of another size, left out: {_listed(others)}"] * bool(others)
    if path.is_dir() and without:
        wrong.append(f"no {board.name} seen in {_listed(without)}")
        rest -= len(without)
    unused = f"{rest} of {count} pictures not used: no board, or nothing new"
    return seen, size, count, [*wrong, *[unused] * (rest > 0)]


def _one_size(sizes: Mapping[str, tuple[int, int]], where: str) -> tuple[tuple[int, int], list[str]]:
    """Return the size (width, height) of most pictures, by name, and the others' names; refuse many others."""
    size, most = Counter(sizes.values()).most_common(1)[0]
    others = [name for name, other in sizes.items() if other != size]
    if len(sizes) - most > OTHERS_MOST * len(sizes):
        width, height = sizes[others[0]]
        got = f"{width}x{height} in {_listed(others)}, {size[0]}x{size[1]} in {most}"
        raise CalibrationRefused(
            f"wanted pictures of one size; got {got}; in {where}",
            "Of two cameras, put each one's into a folder of its own; do not turn pictures.",
        )
    return size, others


def _listed(names: list[str]) -> str:
    return ", ".join(names[:LISTED_MOST]) + f" and {len(names) - LISTED_MOST} more" * (len(names) > LISTED_MOST)


def _new(picture: Picture, view: BoardView, earlier: list[BoardView], still: bool) -> bool:
    """Tell whether a video's frame shows the board elsewhere than all before; stills were chosen by hand."""
    if still:
        return True
    for other in earlier:
        _, rows, others = np.intersect1d(view.ids, other.ids, return_indices=True)
        if len(rows) >= min(len(view.ids), len(other.ids)) / 2:
            moved = np.linalg.norm(view.pixels[rows] - other.pixels[others], axis=1).mean()
            if moved < MOVED * picture.grey.shape[1]:
                return False
    return True


def _table(result: CameraResult, fit: CameraFit) -> tuple[tuple[str, str], ...]:
    camera: Camera = fit.camera
    values = [camera.matrix[0, 0], camera.matrix[1, 1], camera.matrix[0, 2], camera.matrix[1, 2], *camera.distortion]
    names = ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2", "k3")
    told = [
        (name, f"{value:.3f} px, 1 sigma {sigma:.3f}" if i < 4 else f"{value:.5f}, 1 sigma {sigma:.5f}")
        for i, (name, value, sigma) in enumerate(zip(names, values, fit.sigma, strict=True))
    ]
    return (
        *told,
        ("known to", f"{fit.centre_p95_px:.2f} px in the middle, {fit.corner_p95_px:.2f} px at the corners (95 %)"),
        ("residual", f"{result.rms_px:.3f} px rms"),
        ("coverage", f"{100 * fit.covered:.0f} % of the picture; tilted by up to {np.degrees(fit.tilt_rad):.0f} deg"),
        ("pictures", f"{result.samples}, {len(result.rejected)} rejected"),
    )
