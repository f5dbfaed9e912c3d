"""Logs of other systems, against poses written in their columns."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from twinguide_calibration import CalibrationRefused
from twinguide_calibration.reading import read_poses

PLACES_M = np.random.default_rng(0).uniform(-0.4, 0.4, (30, 3))
NUMBERS = ["Q0", "Qx", "Qy", "Qz", "Tx", "Ty", "Tz", "Error", "Markers"]
TURNS = Rotation.random(30, random_state=1)


def written(path, rows, header=(), delimiter=" "):
    lines = [*header, *(delimiter.join(str(cell) for cell in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_tum_trajectory_is_read_by_its_eight_columns(tmp_path):
    rows = np.column_stack([1.4e9 + 0.1 * np.arange(30), PLACES_M, TURNS.as_quat()]).tolist()
    for name, header in (("a.txt", ["# timestamp tx ty tz qx qy qz qw"]), ("a.tum", []), ("a.csv", [])):
        recording = read_poses(written(tmp_path / name, rows, header))
        track = recording.only()
        assert track.translations == pytest.approx(PLACES_M, abs=1e-12)
        assert track.rotations == pytest.approx(TURNS.as_matrix(), abs=1e-9)
        assert np.diff(track.times_ns) == pytest.approx(1e8, abs=1e3)  # a float of 1.4e9 s is known to 0.2 us
        assert recording.notes == (f"{name} has no header: read as a TUM trajectory, s, m, and quaternions x y z w",)


def test_a_trajectory_that_was_cut_or_is_in_millimetres_is_refused(tmp_path):
    rows = np.column_stack([np.arange(30.0), PLACES_M, TURNS.as_quat()]).tolist()
    with pytest.raises(CalibrationRefused, match=r"wanted 8 numbers a row; got '29\.0 .*' in row 30; in a\.txt"):
        read_poses(written(tmp_path / "a.txt", [*rows[:-1], rows[-1][:5]]))
    with pytest.raises(CalibrationRefused, match="millimetres taken for metres"):
        read_poses(written(tmp_path / "b.txt", [[t, 1e3 * x, 1e3 * y, 1e3 * z, *q] for t, x, y, z, *q in rows]))


def test_euroc_s_ground_truth_is_read_by_its_header(tmp_path):
    stamps = 1403715524907143168 + 5_000_000 * np.arange(30)
    scalar_first = np.roll(TURNS.as_quat(), 1, axis=1)
    rows = [[t, *p, *q, 0.1, 0.2] for t, p, q in zip(stamps, PLACES_M, scalar_first, strict=True)]
    columns = ["p_RS_R_x [m]", "p_RS_R_y [m]", "p_RS_R_z [m]", "q_RS_w []", "q_RS_x []", "q_RS_y []", "q_RS_z []"]
    for between, first in ((", ", "#timestamp"), (",", "#timestamp [ns]")):  # as different writers spell it
        header = [between.join([first, *columns, "v_RS_R_x [m s^-1]", "v_RS_R_y [m s^-1]"])]
        track = read_poses(written(tmp_path / "data.csv", rows, header, ",")).only()
        assert track.translations == pytest.approx(PLACES_M, abs=1e-12)
        assert track.rotations == pytest.approx(TURNS.as_matrix(), abs=1e-9)
        assert np.diff(track.times_ns) == pytest.approx(5e6, abs=1e3)


def ndi(tools, states):
    """Return header and rows of NDI's table for as many tools; a tool that is not OK has no numbers."""
    one = ["Port 2: NDI 8700340  s/n:34802401", "Frame", "Face", "State", *NUMBERS]
    rows = []
    for row, (place, turn) in enumerate(zip(1e3 * PLACES_M, np.roll(TURNS.as_quat(), 1, axis=1), strict=True)):
        cells = [tools]
        for tool in range(tools):
            state = states[tool][row]
            numbers = [*turn, *(place + 100.0 * tool), 0.2] if state == "OK" else [""] * 8
            cells += [one[0], 66856 + row, 1, state, *numbers, 0]
        rows.append(cells)
    return ["\t".join(["Tools", *one * tools])], rows


def test_a_table_of_ndi_s_is_read_in_millimetres_with_what_was_not_seen_left_out(tmp_path):
    header, rows = ndi(1, [["OK"] * 30])
    track = read_poses(written(tmp_path / "a.tsv", rows, header, "\t")).only()
    assert track.translations == pytest.approx(PLACES_M, abs=1e-12)
    assert track.rotations == pytest.approx(TURNS.as_matrix(), abs=1e-9)
    header, rows = ndi(2, [["OK"] * 30, ["OK", "MISSING", *["OK"] * 28]])
    recording = read_poses(written(tmp_path / "b.tsv", rows, header, "\t"))
    one, two = recording.track("tool1"), recording.track("tool2")
    assert (len(one), len(two)) == (30, 29)
    assert two.translations[1] == pytest.approx(PLACES_M[2] + 0.1, abs=1e-12)
    assert two.frames[:3].tolist() == [0, 2, 3]
    assert any("tracker_from_tool2: 1 rows marked as not valid" in note for note in recording.notes)
    header, rows = ndi(1, [["MISSING"] * 30])
    with pytest.raises(CalibrationRefused, match=r"none that is told as OK; in c\.tsv. Record with the tool in view"):
        read_poses(written(tmp_path / "c.tsv", rows, header, "\t"))


def test_a_table_of_ndi_s_own_sample_is_read_by_its_header_and_states(tmp_path):
    header, rows = ndi(1, [["OK"] * 30])
    header = ["#" + header[0].replace("State", "TransformStatus")]
    rows = [["Enabled" if cell == "OK" else cell for cell in row] for row in rows]
    track = read_poses(written(tmp_path / "a.csv", rows, [header[0].replace("\t", ",")], ",")).only()
    assert track.translations == pytest.approx(PLACES_M, abs=1e-12)


def test_a_row_that_was_cut_off_is_left_out_and_decimal_commas_are_named(tmp_path):
    header, rows = ndi(1, [["OK"] * 30])
    assert len(read_poses(written(tmp_path / "a.tsv", [*rows[:-1], rows[-1][:8]], header, "\t")).only()) == 29
    commas = [[str(cell).replace(".", ",") for cell in row] for row in rows]
    with pytest.raises(CalibrationRefused, match=r"wanted numbers; got .* in row 1; .*decimal points, not commas"):
        read_poses(written(tmp_path / "b.tsv", commas, header, "\t"))


def test_quaternions_and_places_of_no_unit_are_no_table_of_ndi_s(tmp_path):
    rows = np.column_stack([np.roll(TURNS.as_quat(), 1, axis=1), PLACES_M])[:9].tolist()
    with pytest.raises(CalibrationRefused, match="unit"):
        read_poses(written(tmp_path / "a.csv", rows, ["q0,qx,qy,qz,tx,ty,tz"], ","))
