import numpy as np
import pytest

from twinguide.calibrating.guided import GuidedPivot
from twinguide.calibrating.result import PivotResult, read_result
from twinguide.clock import MS, SECOND
from twinguide.errors import CalibrationError
from twinguide.frames import rotation_from_vector

TIP, DIVOT = np.array([2e-3, -1e-3, -0.15]), np.array([0.1, 0.2, -1.5])


class Hand:
    """Swings a pointer in a divot, seen 60 times a second with 0.1 mm and 0.2 deg of noise."""

    def __init__(self, cone_deg):
        self.cone, self.rng = np.radians(cone_deg), np.random.default_rng(1)

    def samples(self, tool, since_ns):
        assert tool == "pointer"
        step = SECOND // 60
        first = -(-since_ns // step)
        times = [k * step for k in range(first, first + 30)]
        poses = np.tile(np.eye(4), (len(times), 1, 1))
        for pose, t_ns in zip(poses, times, strict=True):
            tilt = self.cone * np.sin(2 * np.pi * np.array([0.47, 0.31]) * t_ns * 1e-9)
            turn = rotation_from_vector(np.array([*tilt, 0.0])) @ rotation_from_vector(self.rng.normal(size=3) * 3.5e-3)
            pose[:3, :3], pose[:3, 3] = turn, DIVOT - turn @ TIP + self.rng.normal(size=3) * 1e-4
        return times[-1], poses


def guided(cone_deg, folder=None):
    hand, known = Hand(cone_deg), {}
    return GuidedPivot({"pointer": "tracker"}, hand.samples, known.__setitem__, folder), hand, known


def swing(pivot, t_ns=0):
    """Swing until it ends, and return what could be read meanwhile, in order."""
    assert pivot.begin("pointer", t_ns) == ""
    read = []
    while pivot.waits_for == "":
        t_ns += 100 * MS
        if pivot.update(t_ns):
            read.append(pivot.rows)
    return read


def test_a_swing_shows_progress_and_ends_in_a_tip_to_accept(tmp_path):
    pivot, _, known = guided(30.0, tmp_path / "calibration")
    assert pivot.waits_for == "swing pointer"
    read = swing(pivot)
    assert len(read) >= 19  # every half second of ten
    assert all("sides reached" in rows[1] and "Residual" in rows[2] for rows in read[3:-1])
    assert pivot.waits_for == "confirm"
    assert known == {}
    pivot.accept()
    assert pivot.tool == ""
    off = np.array(known["pointer"].tip_mm) * 1e-3 - TIP
    assert np.linalg.norm(off) < 2.0 * known["pointer"].tip_p95_mm * 1e-3 < 1e-3  # one draw; a sound one is within
    written = read_result(tmp_path / "calibration/pointer.toml", PivotResult)
    assert (written.tip_mm, written.divots) == (known["pointer"].tip_mm, known["pointer"].divots)


def test_a_swing_that_is_too_narrow_is_refused_with_the_remedy_and_done_again():
    pivot, hand, known = guided(0.8)
    swing(pivot)
    assert pivot.waits_for == "swing pointer"
    assert "Swing" in pivot.note
    hand.cone = np.radians(30.0)
    swing(pivot, 20 * SECOND)
    assert (pivot.note, pivot.waits_for) == ("", "confirm")
    assert known == {}


def test_a_tip_may_be_thrown_away_and_swung_anew():
    pivot, _, known = guided(30.0)
    swing(pivot)
    pivot.redo()
    assert (pivot.waits_for, known) == ("swing pointer", {})
    swing(pivot, 20 * SECOND)
    pivot.accept()
    assert list(known) == ["pointer"]


def test_a_swing_of_another_tool_or_a_second_one_is_refused():
    pivot, _, _ = guided(30.0)
    assert "swing pointer" in pivot.begin("needle", 0)
    assert pivot.begin("pointer", 0) == ""
    assert pivot.begin("pointer", 0) != ""


def test_a_folder_that_cannot_be_written_is_said_and_the_tip_is_used_all_the_same(tmp_path):
    (tmp_path / "calibration").write_text("a file")
    pivot, _, known = guided(30.0, tmp_path / "calibration")
    swing(pivot)
    with pytest.raises(CalibrationError, match="calibration"):
        pivot.accept()
    assert list(known) == ["pointer"]
