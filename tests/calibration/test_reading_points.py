import json

import numpy as np
import pytest

from twinguide_calibration import CalibrationRefused
from twinguide_calibration.reading import has_pairs, pair_points, read_cloud, read_pairs, read_points

PLACES = {"nose": (1.0, 2.0, 3.0), "ear": (-40.0, 5.5, 60.0), "chin": (7.0, -80.0, 9.0)}


def markups(path, places=PLACES, axes="LPS", **more):
    points = [{"id": str(i), "label": n, "position": list(p), "positionStatus": "defined"} for i, (n, p) in
              enumerate(places.items())]  # fmt: skip
    markup = {"type": "Fiducial", "coordinateSystem": axes, "controlPoints": points} | more
    path.write_text(json.dumps({"@schema": "markups-schema-v1.0.3.json#", "markups": [markup]}))
    return path


def test_markups_in_lps_are_read_as_they_are_in_metres(tmp_path):
    points = read_points(markups(tmp_path / "a.mrk.json", coordinateUnits="mm"))
    assert points.names == ("nose", "ear", "chin")
    assert points.points[1] == pytest.approx([-0.040, 0.0055, 0.060])


def test_markups_in_ras_are_turned_into_lps(tmp_path):
    points = read_points(markups(tmp_path / "a.mrk.json", axes="RAS"))
    assert points.points[1] == pytest.approx([0.040, -0.0055, 0.060])


@pytest.mark.parametrize(("unit", "scale"), [("mm", 1e-3), ("m", 1.0), (["mm", "UCUM", "millimeter"], 1e-3)])
def test_the_unit_is_taken_from_the_file(tmp_path, unit, scale):
    points = read_points(markups(tmp_path / "a.mrk.json", coordinateUnits=unit))
    assert points.points[0] == pytest.approx(np.array([1.0, 2.0, 3.0]) * scale)


def test_points_not_yet_placed_are_left_out_and_told(tmp_path):
    path = markups(tmp_path / "a.mrk.json")
    tables = json.loads(path.read_text())
    tables["markups"][0]["controlPoints"][1]["positionStatus"] = "undefined"
    path.write_text(json.dumps(tables))
    points = read_points(path)
    assert points.names == ("nose", "chin")
    assert points.notes == ("not placed, left out: ear",)


@pytest.mark.parametrize(
    ("more", "says"),
    [({"coordinateUnits": "furlong"}, "furlong"), ({"axes": "XYZ"}, "XYZ"), ({"controlPoints": []}, "none")],
)
def test_markups_that_cannot_be_understood_are_refused(tmp_path, more, says):
    with pytest.raises(CalibrationRefused, match=says):
        read_points(markups(tmp_path / "a.mrk.json", **more))


def test_a_name_that_comes_twice_is_refused(tmp_path):
    path = markups(tmp_path / "a.mrk.json")
    path.write_text(path.read_text().replace('"ear"', '"nose"'))
    with pytest.raises(CalibrationRefused, match="'nose' more than once"):
        read_points(path)


def test_markups_cut_anywhere_are_refused(tmp_path):
    whole = markups(tmp_path / "a.mrk.json").read_text()
    cut = tmp_path / "b.mrk.json"
    for length in range(len(whole)):
        cut.write_text(whole[:length])
        with pytest.raises(CalibrationRefused):
            read_points(cut)


NEWER = """# Markups fiducial file version = 4.11
# CoordinateSystem = LPS
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
vtkMRMLMarkupsFiducialNode_0,1,2,3,0,0,0,1,1,1,0,"nose, tip",,
"""
OLDER = """# Fiducial List file points.fcsv
# version = 2
# numPoints = 1
# columns = label,x,y,z,sel,vis
nose,1,2,3,1,1
"""


def test_a_fiducial_list_states_its_axes(tmp_path):
    (tmp_path / "a.fcsv").write_text(NEWER)
    points = read_points(tmp_path / "a.fcsv")
    assert points.names == ("nose, tip",)
    assert points.points[0] == pytest.approx([0.001, 0.002, 0.003])


def test_an_older_fiducial_list_is_ras_and_says_so(tmp_path):
    (tmp_path / "a.fcsv").write_text(OLDER)
    points = read_points(tmp_path / "a.fcsv")
    assert points.points[0] == pytest.approx([-0.001, -0.002, 0.003])
    assert "RAS" in points.notes[0]


@pytest.mark.parametrize(
    "text", ["", "# columns = x\n", OLDER.replace("= 1\n", "= 2\n"), OLDER.replace(",2,3,1,1", "")]
)
def test_a_fiducial_list_that_is_torn_is_refused(tmp_path, text):
    (tmp_path / "a.fcsv").write_text(text)
    with pytest.raises(CalibrationRefused):
        read_points(tmp_path / "a.fcsv")


NOT_A_LIST = {
    "a folder": (None, "Name the file itself"),
    "empty": (b" \r\n", "got an empty file.*Save it anew"),
    "compressed": (b"\x1f\x8b\x08\x00\xff", "got a compressed file.*Unpack it"),
    "Latin-1": ("name,x_mm,y_mm,z_mm\nSch\u00e4del,1,2,3\n".encode("latin-1"), "byte 0xe4 at 23.*Save it as UTF-8"),
    "UTF-16": ("name,x_mm,y_mm,z_mm\n".encode("utf-16"), "byte 0xff at 0.*Save it as UTF-8"),
}


@pytest.mark.parametrize("suffix", ["csv", "fcsv", "mrk.json"])
@pytest.mark.parametrize(("data", "says"), NOT_A_LIST.values(), ids=NOT_A_LIST)
def test_a_file_that_is_no_text_is_refused_with_the_next_step(tmp_path, suffix, data, says):
    path = tmp_path / f"a.{suffix}"
    path.mkdir() if data is None else path.write_bytes(data)
    with pytest.raises(CalibrationRefused, match=says):
        read_points(path)


@pytest.mark.parametrize("controls", ["[5]", '{"a": 1}', "null", '[{"label": "a", "position": 5}]'])
def test_json_of_another_kind_is_refused(tmp_path, controls):
    (tmp_path / "a.mrk.json").write_text(f'{{"markups": [{{"controlPoints": {controls}}}]}}')
    with pytest.raises(CalibrationRefused, match=r"controlPoints.*Save the point list anew"):
        read_points(tmp_path / "a.mrk.json")


def csv(path, text):
    path.write_text(text)
    return path


def test_a_csv_says_its_unit_in_the_column_names(tmp_path):
    points = read_points(csv(tmp_path / "a.csv", "name;x_mm;y_mm;z_mm;sigma_mm\na;1;2;3;0.5\n"))
    assert points.points[0] == pytest.approx([0.001, 0.002, 0.003])
    assert points.covariances[0] == pytest.approx(np.eye(3) * 0.0005**2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,x,y,z\na,1,2,3\n", "never guessed"),
        ("name,x_mm,x_m,y_mm,z_mm\na,1,1,2,3\n", "one column x_mm or x_m"),
        ("name,x_mm,x_mm,y_mm,z_mm\na,1,1,2,3\n", "twice"),
        ("name,x_mm,y_mm,z_mm\na,1,2,three\n", "three"),
        ("name,x_mm,y_mm,z_mm\na,1,2,\n", "finite"),
        ("name,x_mm,y_mm,z_mm\na,1,2\nb,1,2,3\n", "4 cells"),
        ("name,x_mm,y_mm,z_mm\n", "none"),
        ("label,l,p,s,defined\nF-1,1,2,3,1\n", r"3D Slicer exports: save the list as \.mrk\.json"),
        ("name,x_mm,y_mm,z_mm\na,1,5,2,5,3,0\nb,4,5,5,0,6,0\n", "decimal points"),
        ("name;x_mm;y_mm;z_mm\na;1,5;2;3\n", "decimal points"),
        ("hand,0.1,0.2,0.3\neye,1,2,3\n", "header that names the columns"),
        ("", "empty"),
        ("x_mm,y_mm,z_mm\n1,2,3\n", "name"),
    ],
)
def test_a_csv_that_cannot_be_understood_is_refused_with_the_reason(tmp_path, text, says):
    with pytest.raises(CalibrationRefused, match=says):
        read_points(csv(tmp_path / "a.csv", text))


def test_points_are_paired_by_name_whatever_their_order(tmp_path):
    one = read_points(markups(tmp_path / "a.mrk.json"))
    two = read_points(markups(tmp_path / "b.mrk.json", dict(reversed([*PLACES.items(), ("extra", (0, 0, 1))]))))
    pairs = pair_points(one, two)
    assert pairs.names == ("nose", "ear", "chin")
    assert pairs.source == pytest.approx(pairs.target)
    assert pairs.notes == ("without a partner, left out: extra",)


def test_sets_without_common_names_are_refused_with_both_lists(tmp_path):
    one = read_points(markups(tmp_path / "a.mrk.json"))
    two = read_points(markups(tmp_path / "b.mrk.json", {f"F-{i}": (i, 0, 0) for i in range(4)}))
    with pytest.raises(CalibrationRefused, match=r"nose, ear, chin.*F-0"):
        pair_points(one, two)


def test_pairs_come_from_one_csv(tmp_path):
    header = "name,source_x_m,source_y_m,source_z_m,target_x_mm,target_y_mm,target_z_mm"
    path = csv(tmp_path / "p.csv", f"{header}\na,1,2,3,4,5,6\n")
    assert has_pairs(path)
    pairs = read_pairs(path)
    assert (pairs.source[0].tolist(), pairs.names) == ([1.0, 2.0, 3.0], ("a",))
    assert pairs.target[0] == pytest.approx([0.004, 0.005, 0.006])


def test_columns_that_nothing_is_known_of_are_left_out_and_told(tmp_path):
    text = "name,operator,x_mm,y_mm,z_mm,quality\na,Eve,1,2,3,good\nb,Eve,4,5,6,0.9\n"
    points = read_points(csv(tmp_path / "a.csv", text))
    assert points.points.tolist() == [[1e-3, 2e-3, 3e-3], [4e-3, 5e-3, 6e-3]]
    assert points.notes == ("a.csv: columns that nothing is known of, left out: operator, quality",)


def test_a_point_without_three_numbers_is_named(tmp_path):
    point = {"label": "nasion", "position": [None, 1.0, 2.0], "positionStatus": "defined"}
    (tmp_path / "a.mrk.json").write_text(json.dumps({"markups": [{"controlPoints": [point]}]}))
    with pytest.raises(CalibrationRefused, match="three numbers at nasion"):
        read_points(tmp_path / "a.mrk.json")


SLICER5 = """# Markups fiducial file version = 5.4
# CoordinateSystem = LPS
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
1,1,2,3,0,0,0,1,1,1,0,nose,,,2,0
2,0,0,0,0,0,0,1,1,1,0,ear,,,0,0
3,,,,0,0,0,1,1,1,0,brow,,,1,0
4,-322,0,-36,0,0,0,1,1,1,0,chin,,,3,0
5,4,5,6,0,0,0,1,1,0,0,lip,,,2,0
6,7,8,9,0,0,0,1,1,1,0,,,,2,0
"""


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("before_status", ["", "\r"], ids=["", "with a carriage return"])
def test_a_newer_fiducial_list_says_which_points_are_placed_and_selected(tmp_path, end, before_status):
    text = SLICER5.replace("\n", end)
    for status in "0123":
        text = text.replace(f",,{status},0", f",{before_status},{status},0")
    (tmp_path / "a.fcsv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    points = read_points(tmp_path / "a.fcsv")
    assert points.names == ("nose", "6")
    assert points.points == pytest.approx(np.array([[1.0, 2.0, 3.0], [7.0, 8.0, 9.0]]) * 1e-3)
    assert points.notes == ("not placed, left out: ear, brow, chin", "not selected, left out: lip")
    assert points.left_out == (1, 2, 3, 4)
    assert len(read_cloud(tmp_path / "a.fcsv")[0]) == 2


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (",1,1,0,", ",1,0,0,", r"got none \(not placed.*not selected.*Place and select"),
        (",2,0\n", ",7,0\n", r"\['7', '0'\] of nose beyond them"),
        ("nose", "nose, tip", r"\['', '2', '0'\] of nose beyond them"),
    ],
    ids=["none is selected", "another status", "a comma without quotes"],
)
def test_a_newer_fiducial_list_without_a_usable_point_is_refused(tmp_path, old, new, says):
    (tmp_path / "a.fcsv").write_text(SLICER5.replace(old, new))
    with pytest.raises(CalibrationRefused, match=says):
        read_points(tmp_path / "a.fcsv")


def test_points_not_selected_are_left_out_of_markups_as_well(tmp_path):
    path = markups(tmp_path / "a.mrk.json")
    tables = json.loads(path.read_text())
    tables["markups"][0]["controlPoints"][2]["selected"] = False
    path.write_text(json.dumps(tables))
    points = read_points(path)
    assert (points.names, points.notes) == (("nose", "ear"), ("not selected, left out: chin",))


FIVE = {f"F-{i}": (10.0 * i, float(i * i), 0.0) for i in range(1, 6)}


def test_lists_with_other_names_are_paired_by_order_where_asked(tmp_path):
    one = read_points(markups(tmp_path / "a.mrk.json", FIVE), "order")
    two = read_points(csv(tmp_path / "b.csv", "x_mm,y_mm,z_mm\n" + "1,2,3\n4,5,6\n7,8,9\n1,3,2\n4,6,5\n"), "order")
    pairs = pair_points(one, two, "order")
    assert pairs.names == tuple(FIVE)
    assert pairs.target[3] == pytest.approx([0.001, 0.003, 0.002])
    assert pairs.notes == ("paired by order: F-1 with 1, F-2 with 2, F-3 with 3, F-4 with 4, F-5 with 5",)


def test_by_order_a_point_that_is_not_placed_takes_its_partner_with_it(tmp_path):
    one = read_points(markups(tmp_path / "a.mrk.json", FIVE), "order")
    path = markups(tmp_path / "b.mrk.json", {f"T{name[1:]}": place for name, place in FIVE.items()})
    path.write_text(path.read_text().replace('"defined"', '"undefined"', 1))
    pairs = pair_points(one, read_points(path, "order"), "order")
    assert pairs.names == ("F-2", "F-3", "F-4", "F-5")
    assert pairs.source == pytest.approx(pairs.target)
    assert "without a partner, left out: F-1" in pairs.notes


def test_by_order_the_same_names_in_another_order_are_told(tmp_path):
    one = read_points(markups(tmp_path / "a.mrk.json", FIVE))
    two = read_points(markups(tmp_path / "b.mrk.json", dict(reversed(FIVE.items()))))
    assert "F-1, F-2, F-4, F-5 pair them otherwise" in pair_points(one, two, "order").notes[1]


def test_by_order_lists_of_other_lengths_are_refused(tmp_path):
    one = read_points(markups(tmp_path / "a.mrk.json", FIVE))
    two = read_points(markups(tmp_path / "b.mrk.json"))
    with pytest.raises(CalibrationRefused, match=r"5 in a.mrk.json and 3 in b.mrk.json\. Put each point in its"):
        pair_points(one, two, "order")


def test_lists_without_common_names_are_refused_with_the_way_by_order(tmp_path):
    one = read_points(markups(tmp_path / "a.mrk.json"))
    two = read_points(markups(tmp_path / "b.mrk.json", FIVE))
    with pytest.raises(CalibrationRefused, match="--by order"):
        pair_points(one, two)
