from datetime import UTC, datetime

import numpy as np
import pytest
from scipy.stats import chi2, f

from twinguide.calibrating.result import (
    KINDS,
    PivotResult,
    PointsResult,
    pose_of,
    read_result,
    source_of,
    write_result,
)
from twinguide.errors import CalibrationError

QUARTER = ((0.0, -1.0, 0.0, 0.1), (1.0, 0.0, 0.0, 0.2), (0.0, 0.0, 1.0, 0.3), (0.0, 0.0, 0.0, 1.0))
POINTS = PointsResult(
    of="image",
    made=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    made_by="twinguide 0.1.0",
    sources=(),
    samples=3,
    rejected=(),
    residuals=(0.1, 0.2, 1.0 / 3.0),
    target="reference",
    source="image",
    matrix=QUARTER,
    covariance=tuple(map(tuple, (np.eye(6) * 1e-8).tolist())),
    freedom=9.0,
    fre_mm=0.3,
    tre_p95_mm={"tumour, left": 1.25},
    names=("a", "b", "c"),
)


def test_a_result_comes_back_as_it_was_written_to_the_last_bit(tmp_path, pivot_result):
    for result in (pivot_result, POINTS):
        write_result(result, tmp_path / "deep/r.toml")
        assert read_result(tmp_path / "deep/r.toml", type(result)) == result


def test_a_registration_maps_a_known_point_and_its_covariance_is_widened_by_what_its_size_is_uncertain():
    pose = pose_of(POINTS)
    assert pose.transform.apply(np.array([0.01, 0.0, 0.0])) == pytest.approx([0.1, 0.21, 0.3])
    widening = f.ppf(0.95, 3, POINTS.freedom) / (chi2.ppf(0.95, 3) / 3.0)
    assert pose.covariance == pytest.approx(np.eye(6) * 1e-8 * widening)


def test_a_matrix_stands_row_by_row(tmp_path):
    write_result(POINTS, tmp_path / "r.toml")
    assert "[0.0, -1.0, 0.0, 0.1]," in (tmp_path / "r.toml").read_text()


FAULTS = {
    "a newer format": ('"twinguide.calibration/1"', '"twinguide.calibration/2"', "update TwinGuide"),
    "another kind": ('kind = "pivot"', 'kind = "points"', "result of pivot"),
    "an unknown key": ("samples = 3", "samples = 3\nsample = 3", "sample"),
    "a missing key": ("samples = 3\n", "", "samples"),
    "a wrong type": ("samples = 3", 'samples = "3"', "samples"),
    "not finite": ("tip_p95_mm = 0.2", "tip_p95_mm = nan", "tip_p95_mm"),
    "a negative error": ("tip_p95_mm = 0.2", "tip_p95_mm = -0.2", "tip_p95_mm"),
    "a broken hash": ("0" * 64, "0" * 63, "sha256"),
    "a covariance that is not symmetric": ("[0.0001, 0.0, 0.0]", "[0.0001, 1e-5, 0.0]", "symmetric"),
    "a negative variance": ("[0.0001, 0.0, 0.0]", "[-0.0001, 0.0, 0.0]", "negative variance"),
    "a covariance of another size": ("[0.0001, 0.0, 0.0]", "[0.0001, 0.0]", "tip_covariance_mm2"),
}


@pytest.mark.parametrize(("old", "new", "says"), FAULTS.values(), ids=FAULTS)
def test_a_faulty_result_file_is_refused_naming_the_fault(tmp_path, pivot_result, old, new, says):
    path = tmp_path / "r.toml"
    write_result(pivot_result, path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(CalibrationError, match=says) as caught:
        read_result(path, PivotResult)
    assert "r.toml" in str(caught.value)


def test_a_matrix_that_is_not_rigid_is_refused(tmp_path):
    write_result(POINTS, tmp_path / "r.toml")
    (tmp_path / "r.toml").write_text(
        (tmp_path / "r.toml").read_text().replace("[0.0, -1.0, 0.0, 0.1]", "[0, -2, 0, 0.1]")
    )
    with pytest.raises(CalibrationError, match="rigid"):
        read_result(tmp_path / "r.toml", PointsResult)


def test_a_result_file_cut_anywhere_is_refused(tmp_path, pivot_result):
    write_result(pivot_result, tmp_path / "r.toml")
    whole = (tmp_path / "r.toml").read_text()
    for length in range(0, len(whole) - 3, 11):
        (tmp_path / "r.toml").write_text(whole[:length])
        with pytest.raises(CalibrationError):
            read_result(tmp_path / "r.toml", PivotResult)


def test_an_input_is_known_by_its_content(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"abc")
    # the published test vector of FIPS 180-2
    assert source_of(tmp_path / "a.csv").sha256 == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    before = source_of(tmp_path).sha256
    (tmp_path / "a.csv").write_bytes(b"abd")
    assert source_of(tmp_path).sha256 != before


def test_every_kind_has_a_name_of_its_own():
    tags = [kind.__struct_config__.tag for kind in KINDS]
    assert tags == ["pivot", "points", "surface", "handeye", "camera", "time", "clock"]
