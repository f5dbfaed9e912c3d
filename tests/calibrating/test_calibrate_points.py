import json
import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from twinguide.calibrating.result import PointsResult, pose_of, read_result
from twinguide_calibration import CalibrationRefused, register_points

NAMES = ["nasion", "left ear", "right ear", "chin", "brow", "temple"]
IMAGE = np.array([[0, -95, 20], [75, 5, 0], [-72, 8, 3], [4, -80, -75], [-30, -88, 50], [66, -50, 42.0]])
TURN = Rotation.from_euler("xyz", [20, 30, 40], degrees=True).as_matrix()
MOVE = np.array([10.0, 20.0, 900.0])


def markups(path, places, names=NAMES):
    points = [
        {"label": n, "position": list(p), "positionStatus": "defined"} for n, p in zip(names, places, strict=True)
    ]
    markup = {"coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": points}
    path.write_text(json.dumps({"markups": [markup]}))
    return path


def touched(noise=0.3, seed=1):
    return IMAGE @ TURN.T + MOVE + np.random.default_rng(seed).normal(0.0, noise, IMAGE.shape)


@pytest.fixture
def image(tmp_path):
    return markups(tmp_path / "image.mrk.json", IMAGE)


def test_touched_points_are_registered_with_the_error_at_the_target(run, tmp_path, image):
    patient = markups(tmp_path / "patient.mrk.json", touched())
    targets = markups(tmp_path / "targets.mrk.json", [[0.0, 20.0, 10.0]], ["tumour"])
    code, text = run("calibrate", "points", image, patient, "--targets", targets, "--out", tmp_path / "r.toml")
    assert code == 0, text
    result = read_result(tmp_path / "r.toml", PointsResult)
    pose = pose_of(result)
    assert (pose.transform.target, pose.transform.source) == ("reference", "image")
    error = pose.transform.apply(np.array([0.0, 0.02, 0.01])) - (TURN @ [0.0, 20.0, 10.0] + MOVE) * 1e-3
    # 3 degrees of freedom estimated from 12: 99.9 % of the F distribution is 10.8, times 3
    assert error @ np.linalg.solve(pose.point_covariance(np.array([0.0, 0.02, 0.01])), error) < 3 * 10.8
    assert 0.1 < result.tre_p95_mm["tumour"] < 1.0
    assert result.names == tuple(NAMES)
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_the_order_of_the_points_does_not_matter(run, tmp_path, image):
    places = touched()
    one = markups(tmp_path / "one.mrk.json", places)
    two = markups(tmp_path / "two.mrk.json", places[::-1], NAMES[::-1])
    run("calibrate", "points", image, one, "--out", tmp_path / "one.toml")
    run("calibrate", "points", image, two, "--out", tmp_path / "two.toml")
    first, second = (read_result(tmp_path / f"{name}.toml", PointsResult) for name in ("one", "two"))
    assert np.array(first.matrix) == pytest.approx(np.array(second.matrix), abs=1e-12)


NUMBERED = [f"T-{i}" for i in range(6)]


def test_two_lists_are_paired_by_order_where_asked_and_the_result_says_so(run, tmp_path, image):
    patient = markups(tmp_path / "patient.mrk.json", touched(), NUMBERED)
    targets = markups(tmp_path / "targets.mrk.json", [[0.0, 20.0, 10.0], [0.0, 0.0, 10.0]], ["tumour", "tumour"])
    code, text = run("calibrate", "points", image, patient, "--out", tmp_path / "r.toml")
    assert (code, "pair lists in the same order with --by order" in text) == (1, True), text
    options = ["--by", "order", "--targets", targets, "--out", tmp_path / "r.toml"]
    code, text = run("calibrate", "points", image, patient, *options)
    assert code == 0, text
    result = read_result(tmp_path / "r.toml", PointsResult)
    assert np.array(result.matrix)[:3, :3] == pytest.approx(TURN, abs=0.02)  # 0.3 mm on points 100 mm apart
    assert "paired by order: nasion with T-0, left ear with T-1" in " ".join(result.notes)
    assert [*result.tre_p95_mm] == ["1", "2"]  # two of one name go by their rows as well


@pytest.mark.parametrize(
    ("order", "says"),
    [
        ([1, 0, 2, 3, 4, 5], "With (nasion and left ear|left ear and nasion) exchanged"),
        ([5, 4, 3, 2, 1, 0], "in the order temple, brow, chin, right ear, left ear, nasion 0"),
        ([1, 2, 3, 4, 5, 0], "in the order temple, nasion, left ear, right ear, chin, brow 0"),
    ],
    ids=["two exchanged", "backwards", "one farther"],
)
def test_a_list_in_another_order_is_refused_with_the_order_that_fits(run, tmp_path, image, order, says):
    patient = markups(tmp_path / "patient.mrk.json", touched()[order], NUMBERED)
    code, text = run("calibrate", "points", image, patient, "--by", "order", "--out", tmp_path / "r.toml")
    assert (code, bool(re.search(says, text.replace("\n", " ")))) == (1, True), text
    assert not (tmp_path / "r.toml").exists()


EXCHANGED = ["left ear", "nasion", *NAMES[2:]]
SPOILT = touched() + np.array([[0, 0, 0]] * 3 + [[25.0, 0, 9]] + [[0, 0, 0]] * 2)
REFUSED = {
    "two names exchanged": (touched(), EXCHANGED, "nasion and left ear exchanged|left ear and nasion exchanged"),
    "one point off": (SPOILT, NAMES, "Without chin .* would be left"),
    "metres": (touched() * 1e-3, NAMES, "metres"),
    "inches": (touched() / 25.4, NAMES, "metres"),
    "a mirror image": (touched() * [-1, 1, 1], NAMES, "mirror images .* swapped"),
    "two points": (touched()[:2], NAMES[:2], "at least 3"),
    "other names": (touched(), [f"F-{i}" for i in range(6)], "same name"),
    "another patient": (np.random.default_rng(3).normal(0, 70, (6, 3)), NAMES, "wanted|unknown"),
}


@pytest.mark.parametrize(("places", "names", "says"), REFUSED.values(), ids=REFUSED)
def test_points_that_do_not_belong_together_are_refused_with_the_remedy(run, tmp_path, image, places, names, says):
    patient = markups(tmp_path / "patient.mrk.json", places, names)
    code, text = run("calibrate", "points", image, patient, "--out", tmp_path / "r.toml")
    assert code == 1
    assert re.search(says, text), text
    assert not (tmp_path / "r.toml").exists()


def test_points_on_a_line_are_refused(run, tmp_path):
    line = np.outer(np.arange(6.0), [10.0, 20.0, 30.0])
    one, two = markups(tmp_path / "a.mrk.json", line), markups(tmp_path / "b.mrk.json", line)
    code, text = run("calibrate", "points", one, two, "--out", tmp_path / "r.toml")
    assert (code, "line" in text) == (1, True)


def test_stated_errors_that_the_residuals_belie_are_refused(run, tmp_path, image):
    patient = markups(tmp_path / "patient.mrk.json", touched())
    code, text = run("calibrate", "points", image, patient, "--sigma-mm", "0.02", "--out", tmp_path / "r.toml")
    assert (code, "chance" in text) == (1, True)


def test_stated_errors_set_the_covariance(run, tmp_path, image):
    patient = markups(tmp_path / "patient.mrk.json", touched())
    code, _ = run("calibrate", "points", image, patient, "--sigma-mm", "0.3", "--out", tmp_path / "r.toml")
    result = read_result(tmp_path / "r.toml", PointsResult)
    assert (code, result.freedom) == (0, float("inf"))


def test_pairs_come_from_one_csv(run, tmp_path):
    header = "name," + ",".join(f"{side}_{axis}_mm" for side in ("source", "target") for axis in "xyz")
    rows = [
        ",".join([n, *map(str, [*a, *b])]) for n, a, b in zip(NAMES, IMAGE.tolist(), touched().tolist(), strict=True)
    ]
    (tmp_path / "p.csv").write_text("\n".join([header, *rows, ""]))
    code, text = run("calibrate", "points", tmp_path / "p.csv", "--out", tmp_path / "r.toml")
    assert code == 0, text
    assert np.array(read_result(tmp_path / "r.toml", PointsResult).matrix)[:3, :3] == pytest.approx(TURN, abs=0.02)


def test_wrong_pairs_are_left_out_where_asked_and_named(run, tmp_path):
    rng = np.random.default_rng(4)
    places = rng.uniform(-100, 100, (12, 3))
    names = [f"p{i}" for i in range(12)]
    seen = places @ TURN.T + MOVE + rng.normal(0.0, 0.3, places.shape)
    wrong = [1, 5, 6, 10]
    seen[wrong] += rng.uniform(20.0, 60.0, (4, 3))
    files = (
        markups(tmp_path / "a.mrk.json", places, names),
        markups(tmp_path / "b.mrk.json", seen, names),
        "--out",
        tmp_path / "r.toml",
    )
    code, text = run("calibrate", "points", *files)
    assert code == 1
    code, text = run("calibrate", "points", *files, "--robust")
    assert (code, "--sigma-mm" in text) == (1, True)
    code, text = run("calibrate", "points", *files, "--robust", "--sigma-mm", 0.3)
    assert code == 0, text
    result = read_result(tmp_path / "r.toml", PointsResult)
    assert result.rejected == tuple(wrong)
    assert "p5 (" in result.notes[-1]
    assert np.array(result.matrix)[:3, :3] == pytest.approx(TURN, abs=0.01)  # 0.3 mm over 100 mm


def test_a_result_is_not_written_over_by_its_picture(run, tmp_path, image):
    patient = markups(tmp_path / "patient.mrk.json", touched())
    code, text = run("calibrate", "points", image, patient, "--out", tmp_path / "r.png")
    assert (code, ".toml" in text, (tmp_path / "r.png").exists()) == (2, True, False)


def test_what_is_odd_about_an_accepted_registration_is_noted(run, tmp_path, image):
    off = touched()
    off[3] += [0.0, 0.0, 8.0]
    square = np.array([[50.0, 50, 0], [-50, 50, 0], [-50, -50, 0], [50, -50, 0]])
    moved = square @ TURN.T + MOVE + np.random.default_rng(1).normal(0.0, 0.3, square.shape)
    pasted = np.concatenate([touched(), touched()])
    for source, target, says in (
        (IMAGE, off, "Without chin"),
        (IMAGE, (touched() - MOVE) * 1.02 + MOVE, "times as large as the source"),
        (square, moved, "fits as well: are the names right"),
        (np.concatenate([IMAGE, IMAGE]), pasted, "repeat another pair"),
    ):
        names = NAMES[: len(source)] if len(source) < 12 else [*NAMES, *(f"{name} 2" for name in NAMES)]
        one, two = (markups(tmp_path / f"{k}.mrk.json", p, names) for k, p in (("s", source), ("t", target)))
        code, text = run("calibrate", "points", one, two, "--out", tmp_path / "r.toml")
        assert code == 0, text
        assert says in " ".join(read_result(tmp_path / "r.toml", PointsResult).notes)
    two = markups(tmp_path / "sound.mrk.json", touched())
    run("calibrate", "points", image, two, "--out", tmp_path / "r.toml")
    assert read_result(tmp_path / "r.toml", PointsResult).notes == ()


def test_points_in_metres_said_to_be_millimetres_are_refused(run, tmp_path):
    one, two = (markups(tmp_path / f"{k}.mrk.json", p * 1e-3) for k, p in (("s", IMAGE), ("t", touched())))
    code, text = run("calibrate", "points", one, two, "--out", tmp_path / "r.toml")
    assert (code, "The unit is not the one stated" in text) == (1, True)


def two_sets(tmp_path, second, *more):
    """Return the command's words for 20 pairs, the first `second` of them of another pose, and rows to begin with."""
    places = np.random.default_rng(3).uniform(-80.0, 80.0, (20, 3))
    target = places @ TURN.T + MOVE
    target[:second] = places[:second] + np.array([500.0, 0.0, 0.0])
    order = [*more, *range(20)]
    names = [f"p{row}" for row in range(len(order))]
    one, two = (markups(tmp_path / f"{k}.mrk.json", p[order], names) for k, p in (("s", places), ("t", target)))
    return "calibrate", "points", one, two, "--robust", "--sigma-mm", "0.4", "--out", tmp_path / "r.toml"


def test_a_second_set_of_pairs_that_agree_is_told_and_refused_from_half_as_many_on(run, tmp_path):
    code, text = run(*two_sets(tmp_path, 6))
    assert code == 0, text
    assert "6 of them agree on another pose" in " ".join(read_result(tmp_path / "r.toml", PointsResult).notes)
    for second in (7, 10):
        code, text = run(*two_sets(tmp_path, second))
        assert (code, "two sets of pairs agree" in text, "p0, p1" in text, "p18, p19" in text) == (1, True, True, True)


def test_wrong_pairs_are_told_by_their_rows_in_the_file_though_one_is_there_twice(run, tmp_path):
    code, text = run(*two_sets(tmp_path, 3, 9, 9))
    assert code == 0, text
    assert read_result(tmp_path / "r.toml", PointsResult).rejected == (2, 3, 4)


def test_no_other_order_is_named_for_many_points_without_symmetry(run, tmp_path):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        places = rng.uniform(-80.0, 80.0, (20, 3))
        target = places @ TURN.T + MOVE + rng.normal(0.0, 2.0, places.shape)
        names = [str(row) for row in range(20)]
        one, two = (markups(tmp_path / f"{k}.mrk.json", p, names) for k, p in (("s", places), ("t", target)))
        code, text = run("calibrate", "points", one, two, "--fre-max-mm", "5", "--out", tmp_path / "r.toml")
        assert code == 0, text
        assert "fits as well" not in " ".join(read_result(tmp_path / "r.toml", PointsResult).notes)


def test_a_pair_that_is_not_finite_is_named(run, tmp_path, image):
    places = touched()
    places[3, 1] = np.nan
    code, text = run("calibrate", "points", image, markups(tmp_path / "t.mrk.json", places))
    assert (code, "at chin; in t.mrk.json" in text) == (1, True), text
    columns = ",".join(f"{side}_{axis}_mm" for side in ("source", "target") for axis in "xyz")
    for head, says in (("", "at 4"), ("name,", "at chin")):
        rows = [
            ",".join([name] * bool(head) + [f"{v}" for v in (*s, *t)])
            for name, s, t in zip(NAMES, IMAGE, places, strict=True)
        ]
        (tmp_path / "pairs.csv").write_text("\n".join([head + columns, *rows]))
        code, text = run("calibrate", "points", tmp_path / "pairs.csv")
        assert (code, f"empty cell {says}; in pairs.csv" in text) == (1, True), text
    with pytest.raises(CalibrationRefused, match="in row 4"):
        register_points(IMAGE, places)
