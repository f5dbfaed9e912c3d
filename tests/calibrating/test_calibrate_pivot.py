import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from twinguide.calibrating.result import PivotResult, read_result, source_of

TIP = np.array([1.0, -2.0, -150.0])


def pose(rotation=None, place=(0.0, 0.0, 0.0)):
    matrix = np.eye(4)
    matrix[:3, :3] = np.eye(3) if rotation is None else rotation
    matrix[:3, 3] = place
    return matrix


def swung(*, tip=(1.0, -2.0, -150.0), pivot=(50.0, 20.0, -900.0), cone_deg=35.0, count=240, noise=0.15, seed=1):
    """Return poses [mm], shape (n, 4, 4), of a tool swung about a fixed point on its tip."""
    rng = np.random.default_rng(seed)
    poses = []
    for i in range(count):
        around, lean = 2 * np.pi * i / 60, np.radians(cone_deg) * abs(np.sin(2 * np.pi * i / 240))
        turn = Rotation.from_rotvec([lean * np.cos(around), lean * np.sin(around), 0.0]).as_matrix()
        poses.append(pose(turn, np.array(pivot) - turn @ tip + rng.normal(0.0, noise, 3)))
    return np.array(poses)


def test_a_tip_is_found_written_and_drawn(run, sequence, tmp_path):
    file = sequence(tmp_path / "a.igs.mha", {"StylusToTracker": swung()})
    code, text = run("calibrate", "pivot", file, "--out", tmp_path / "tip.toml")
    assert code == 0, text
    result = read_result(tmp_path / "tip.toml", PivotResult)
    off = np.array(result.tip_mm) - TIP
    # 3 degrees of freedom: 99.9 % of chi-square is 16.3
    assert off @ np.linalg.solve(np.array(result.tip_covariance_mm2), off) < 16.3
    assert np.linalg.norm(off) < 0.2
    assert result.sources == (source_of(file),)
    assert (result.of, result.divots[0].pivot_in, result.samples, len(result.residuals)) == (
        "stylus",
        "tracker",
        240,
        240,
    )
    assert (tmp_path / "tip.png").read_bytes().startswith(b"\x89PNG")
    assert "swing" in text


def test_wild_samples_are_rejected_by_their_frame_numbers(run, sequence, tmp_path):
    poses = swung()
    poses[[30, 77, 200], :3, 3] += [12.0, -9.0, 14.0]
    poses[50] = np.nan
    file = sequence(tmp_path / "a.igs.mha", {"StylusToTracker": poses})
    code, _ = run("calibrate", "pivot", file, "--out", tmp_path / "tip.toml")
    result = read_result(tmp_path / "tip.toml", PivotResult)
    assert code == 0
    assert {30, 77, 200} <= set(result.divots[0].rejected)
    assert "1 rows marked as not valid" in result.notes[0]
    assert np.linalg.norm(np.array(result.tip_mm) - TIP) < 0.2


def test_a_divot_on_a_moving_body_is_found_in_that_body(run, sequence, tmp_path):
    body = np.tile(np.eye(4), (240, 1, 1))
    body[:, :3, 3] = np.stack([np.linspace(0, 80, 240), 40 * np.sin(np.arange(240) / 30), np.zeros(240)], axis=1)
    tracks = {"StylusToTracker": body @ swung(), "BodyToTracker": body}
    file = sequence(tmp_path / "a.igs.mha", tracks)
    code, text = run(
        "calibrate", "pivot", file, "--tool", "stylus", "--reference", "body", "--out", tmp_path / "t.toml"
    )
    assert code == 0, text
    result = read_result(tmp_path / "t.toml", PivotResult)
    assert result.divots[0].pivot_in == "body"
    assert np.array(result.divots[0].pivot_mm) == pytest.approx([50.0, 20.0, -900.0], abs=0.2)
    code, text = run("calibrate", "pivot", file, "--tool", "stylus", "--out", tmp_path / "u.toml")
    assert code == 1, "in the tracker's frame this point does not stand still"


REFUSED = {
    "a cone of 6 degrees": (swung(cone_deg=6.0), r"cone of 6 deg .* Swing to \d+ deg or more"),
    "five poses": (swung(count=5), "at least 6"),
    "a tip that slips": (swung(noise=8.0), "divot"),
    "a tool that stands still": (np.tile(swung(count=1), (50, 1, 1)), "wanted at least 6|hardly turned"),
}


@pytest.mark.parametrize(("poses", "says"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_carry_a_tip_is_refused_with_the_remedy_and_writes_nothing(run, sequence, tmp_path, poses, says):
    file = sequence(tmp_path / "a.igs.mha", {"StylusToTracker": poses})
    code, text = run("calibrate", "pivot", file, "--out", tmp_path / "tip.toml")
    assert code == 1
    assert text.startswith("CalibrationError: ")
    assert re.search(says, text), text
    assert not (tmp_path / "tip.toml").exists()


def test_two_divots_must_agree_on_the_tip(run, sequence, tmp_path):
    one = sequence(tmp_path / "one.igs.mha", {"StylusToTracker": swung(seed=1)})
    two = sequence(tmp_path / "two.igs.mha", {"StylusToTracker": swung(seed=2, pivot=(80.0, 0.0, -950.0))})
    bent = sequence(tmp_path / "bent.igs.mha", {"StylusToTracker": swung(seed=3, tip=(4.0, -2.0, -149.0))})
    code, text = run("calibrate", "pivot", one, two, "--out", tmp_path / "tip.toml")
    assert code == 0, text
    assert "recordings agree" in text
    result = read_result(tmp_path / "tip.toml", PivotResult)
    assert [divot.file for divot in result.divots] == ["one.igs.mha", "two.igs.mha"]
    assert result.samples == len(result.residuals) == sum(divot.samples for divot in result.divots)
    alone = max(np.trace(np.array(divot.covariance)[:3, :3]) for divot in result.divots) * 1e6
    assert np.trace(result.tip_covariance_mm2) < 0.6 * alone  # two alike halve the variance
    told = [line for line in text.splitlines() if line.startswith("tip ")]
    assert all(f"{value:.3f}" in told[0] for value in result.tip_mm)
    code, text = run("calibrate", "pivot", one, bent, "--out", tmp_path / "bent.toml")
    assert code == 1
    assert "bent or slipped" in text


def test_several_tools_in_a_file_must_be_told_apart(run, sequence, tmp_path):
    file = sequence(tmp_path / "a.igs.mha", {"StylusToTracker": swung(), "BodyToTracker": swung()})
    code, text = run("calibrate", "pivot", file)
    assert code == 1
    assert "tracker_from_stylus, tracker_from_body" in text


def test_a_missing_file_is_one_clear_line(run, tmp_path):
    code, text = run("calibrate", "pivot", tmp_path / "nothing.mha")
    assert (code, text.count("\n")) == (1, 1)
    assert "no such file" in text


@pytest.mark.parametrize("value", ["nan", "0", "-1", "inf"])
def test_a_limit_that_is_none_is_refused(run, sequence, tmp_path, value):
    file = sequence(tmp_path / "a.igs.mha", {"StylusToTracker": swung()})
    code, text = run("calibrate", "pivot", file, "--p95-max-mm", value, "--out", tmp_path / "tip.toml")
    assert (code, "wanted a number above zero" in text) == (2, True)


def test_a_recording_is_never_written_over(run, sequence, tmp_path):
    file = sequence(tmp_path / "a.igs.mha", {"StylusToTracker": swung()})
    before = file.read_bytes()
    code, text = run("calibrate", "pivot", file, "--out", file)
    assert (code, "wanted a result file, .toml" in text) == (2, True)
    assert file.read_bytes() == before


TOLD_OTHERWISE = {
    "inverse poses": (lambda poses: np.linalg.inv(poses), "tool_from_tracker was given"),
    "transposed rotations": (lambda poses: with_turns(poses, turns_of(poses).inv()), "Rotations transposed"),
    "quaternions w first": (
        lambda poses: with_turns(poses, Rotation.from_quat(np.roll(turns_of(poses).as_quat(), 1, axis=1))),
        "order w, x, y, z",
    ),
    "places with two axes exchanged": (lambda poses: with_places(poses, np.eye(3)[[0, 2, 1]]), "Places with y and z"),
    "places with an axis reversed": (lambda poses: with_places(poses, np.diag([-1, 1, 1])), "Places with x reversed"),
    "places of other instants": (lambda poses: with_turns(poses, turns_of(poses[::-1])), "They turn about no point"),
    "metres for millimetres": (
        lambda poses: poses * ([[1, 1, 1, 1e-3]] * 3 + [[1, 1, 1, 1]]),
        "metres taken for millimetres",
    ),
}


def turns_of(poses):
    return Rotation.from_matrix(poses[:, :3, :3])


def with_turns(poses, turns):
    out = poses.copy()
    out[:, :3, :3] = turns.as_matrix()
    return out


def with_places(poses, axes):
    out = poses.copy()
    out[:, :3, 3] = poses[:, :3, 3] @ axes.T
    return out


@pytest.mark.parametrize(("retell", "says"), TOLD_OTHERWISE.values(), ids=TOLD_OTHERWISE)
def test_poses_told_in_another_way_are_refused_and_the_way_is_named(run, sequence, tmp_path, retell, says):
    file = sequence(tmp_path / "a.igs.mha", {"StylusToTracker": retell(swung())})
    code, text = run("calibrate", "pivot", file, "--out", tmp_path / "tip.toml")
    assert code == 1
    assert says in text


def test_one_recording_given_twice_is_refused_and_rows_pasted_twice_count_once(run, sequence, tmp_path):
    once = sequence(tmp_path / "a.igs.mha", {"StylusToTracker": swung()})
    code, text = run("calibrate", "pivot", once, once, "--out", tmp_path / "tip.toml")
    assert (code, "recordings of their own" in text) == (1, True)
    run("calibrate", "pivot", once, "--out", tmp_path / "once.toml")
    pasted = sequence(tmp_path / "b.igs.mha", {"StylusToTracker": np.concatenate([swung()] * 3)})
    code, text = run("calibrate", "pivot", pasted, "--out", tmp_path / "pasted.toml")
    assert code == 0, text
    first, second = (read_result(tmp_path / f"{name}.toml", PivotResult) for name in ("once", "pasted"))
    assert second.tip_p95_mm == pytest.approx(first.tip_p95_mm, rel=1e-6)
    assert "480 poses repeat another" in second.notes[0]


def test_poses_that_may_be_inverse_are_told(run, sequence, tmp_path):
    near = swung(tip=(0.0, 0.0, -250.0), pivot=(30.0, 40.0, -300.0))
    for poses, told in ((np.linalg.inv(near), True), (near, False)):
        file = sequence(tmp_path / "a.igs.mha", {"StylusToTracker": poses})
        code, text = run("calibrate", "pivot", file, "--out", tmp_path / "tip.toml")
        assert code == 0, text
        assert ("are the poses inverse" in text) == told
