import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from twinguide.calibrating.lag import moved, turned
from twinguide.calibrating.result import ClockResult, HandEyeResult, TimeResult, read_result

X = np.eye(4)
X[:3, :3], X[:3, 3] = Rotation.from_rotvec([0.3, -0.5, 0.2]).as_matrix(), [40.0, -25.0, 60.0]
Z = np.eye(4)
Z[:3, :3], Z[:3, 3] = Rotation.from_rotvec([-1.0, 0.4, 0.8]).as_matrix(), [500.0, 200.0, -1200.0]
TIMES = np.arange(600) / 60.0 + 50.0


def heads(times, *, axes=3):
    """Return poses [mm], shape (n, 4, 4), of a head that looks about; with one axis it only nods."""
    t = times - 50.0
    turn = 0.5 * np.stack([np.sin(1.3 * t), np.sin(1.9 * t + 1), np.sin(2.7 * t + 2)], axis=1)
    turn[:, axes:] = 0.0
    poses = np.tile(np.eye(4), (len(t), 1, 1))
    poses[:, :3, :3] = Rotation.from_rotvec(turn).as_matrix()
    poses[:, :3, 3] = 100.0 * np.stack([np.sin(0.9 * t), np.cos(1.1 * t), np.sin(1.7 * t)], axis=1)
    return poses


def noisy(poses, seed, mm=0.2, deg=0.05):
    rng = np.random.default_rng(seed)
    out = poses.copy()
    out[:, :3, :3] = (
        poses[:, :3, :3] @ Rotation.from_rotvec(rng.normal(0, np.radians(deg), (len(poses), 3))).as_matrix()
    )
    out[:, :3, 3] += rng.normal(0.0, mm, (len(poses), 3))
    return out


def markers(poses):
    """Return b of `a x = z b`."""
    return np.linalg.inv(Z) @ poses @ X


@pytest.fixture
def together(sequence, tmp_path):
    a = heads(TIMES)
    tracks = {"HeadToStage": noisy(a, 1), "MarkerToTracker": noisy(markers(a), 2)}
    return sequence(tmp_path / "both.igs.mha", tracks, TIMES)


def test_both_transforms_are_found_from_one_file(run, tmp_path, together):
    names = ("--a", "stage_from_head", "--b", "tracker_from_marker")
    code, text = run("calibrate", "handeye", together, *names, "--out", tmp_path / "h.toml")
    assert code == 0, text
    result = read_result(tmp_path / "h.toml", HandEyeResult)
    assert (result.x_name, result.z_name) == ("head_from_marker", "stage_from_tracker")
    assert np.array(result.x)[:3, 3] * 1e3 == pytest.approx(X[:3, 3], abs=0.3)  # 0.2 mm over 600 pairs
    # 1.2 m away a turn of 0.05 deg is 1 mm; over 600 pairs a twentieth
    assert np.array(result.z)[:3, 3] * 1e3 == pytest.approx(Z[:3, 3], abs=0.5)
    assert np.array(result.covariance).shape == (12, 12)
    assert result.offset_sigma_ms == float("inf")
    at_z = float(re.search(r"([\d.]+) mm at z", text)[1])
    apart = noisy(heads(TIMES), 1) @ X @ np.linalg.inv(noisy(markers(heads(TIMES)), 2))
    assert at_z == pytest.approx(np.sqrt(((apart[:, :3, 3] - Z[:3, 3]) ** 2).sum(axis=1).mean()), rel=0.02)
    assert (tmp_path / "h.png").read_bytes().startswith(b"\x89PNG")


def test_two_files_with_clocks_apart_give_the_offset_too(run, sequence, tmp_path):
    slow = np.arange(250) / 30.0 + 50.8
    one = sequence(tmp_path / "one.igs.mha", {"HeadToStage": noisy(heads(TIMES), 1)}, TIMES)
    two = sequence(tmp_path / "two.igs.mha", {"MarkerToTracker": noisy(markers(heads(slow)), 2)}, slow - 0.045)
    code, text = run("calibrate", "handeye", one, two, "--out", tmp_path / "h.toml")
    assert code == 0, text
    result = read_result(tmp_path / "h.toml", HandEyeResult)
    assert result.offset_ms == pytest.approx(45.0, abs=5 * result.offset_sigma_ms)
    assert result.offset_sigma_ms < 3.0
    assert "clocks" in text


def test_a_robot_that_goes_its_way_to_and_fro_is_followed_all_the_time(run, sequence, tmp_path):
    way = np.round(300.0 * (1.0 - np.cos(2.0 * np.pi * TIMES / 5.0))) / 100.0  # [s] as its encoders round it
    later = TIMES + 0.004
    one = sequence(tmp_path / "one.igs.mha", {"FlangeToBase": heads(way)}, TIMES)
    seen = noisy(markers(heads(3.0 * (1.0 - np.cos(2.0 * np.pi * later / 5.0)))), 2)
    two = sequence(tmp_path / "two.igs.mha", {"MarkerToTracker": seen}, later - 0.045)
    code, text = run("calibrate", "handeye", one, two, "--out", tmp_path / "h.toml")
    assert code == 0, text
    result = read_result(tmp_path / "h.toml", HandEyeResult)
    assert result.samples > 0.9 * len(TIMES)


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        (heads(TIMES, axes=1), markers(heads(TIMES, axes=1)), "axis|axes"),
        (heads(TIMES), heads(TIMES[::-1]), "no rotation aligns the two streams"),
        (heads(TIMES[:4]), markers(heads(TIMES[:4])), "at least"),
    ],
    ids=["one axis", "two bodies", "four pairs"],
)
def test_poses_that_cannot_carry_the_transforms_are_refused(run, sequence, tmp_path, a, b, says):

    tracks = {"HeadToStage": noisy(a, 1), "MarkerToTracker": noisy(b, 2)}
    file = sequence(tmp_path / "x.igs.mha", tracks, TIMES[: len(a)])
    code, text = run("calibrate", "handeye", file, "--a", "head", "--b", "marker", "--out", tmp_path / "h.toml")
    assert code == 1
    assert re.search(says, text), text
    assert not (tmp_path / "h.toml").exists()


def test_the_tracks_of_one_file_must_be_named(run, together):
    code, text = run("calibrate", "handeye", together)
    assert (code, "stage_from_head, tracker_from_marker" in text) == (1, True)


@pytest.mark.parametrize("by", ["turning", "moving"])
def test_a_lag_is_found_with_its_error(run, sequence, tmp_path, by):
    # the stream is told 37 ms late: what it shows at t happened at t - 37 ms
    b = markers(heads(TIMES - 0.037))
    file = sequence(
        tmp_path / "x.igs.mha", {"HeadToStage": noisy(heads(TIMES), 1), "ImageToTracker": noisy(b, 2)}, TIMES
    )
    names = ("--a", "head", "--b", "image", "--by", by)
    code, text = run("calibrate", "time", file, *names, "--out", tmp_path / "t.toml")
    assert code == 0, text
    result = read_result(tmp_path / "t.toml", TimeResult)
    assert result.lag_ms == pytest.approx(37.0, abs=max(4 * result.lag_sigma_ms, 0.5))
    assert result.lag_sigma_ms < 3.0
    assert result.explained > 0.95
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("told", [turned, moved])
def test_what_is_drawn_lies_over_each_other_once_the_lag_is_taken_off(told):
    later = TIMES[60:-60]
    a, b = (poses * ([[1, 1, 1, 1e-3]] * 3 + [[1, 1, 1, 1]]) for poses in (heads(TIMES), markers(heads(later - 0.05))))
    of_a, of_b = told(TIMES, a, later, b, 0.05)
    assert np.ptp(of_b) > 20.0  # deg, mm
    assert np.interp(later, TIMES + 0.05, of_a) == pytest.approx(of_b, abs=0.05)  # a chord of 1/60 s cuts off so much


def test_two_files_that_name_nothing_are_told_apart(run, tmp_path):
    for name, poses in (("one", heads(TIMES)), ("two", markers(heads(TIMES)))):
        rows = (
            f"{t},{','.join(f'{v:.6f}' for v in (*p[:3, 3], *Rotation.from_matrix(p[:3, :3]).as_quat()))}"
            for t, p in zip(TIMES, noisy(poses, 1), strict=True)
        )
        (tmp_path / f"{name}.csv").write_text("\n".join(["t_s,x_mm,y_mm,z_mm,qx,qy,qz,qw", *rows]))
    files = (tmp_path / "one.csv", tmp_path / "two.csv")
    code, text = run("calibrate", "handeye", *files, "--no-offset", "--out", tmp_path / "h.toml")
    assert code == 0, text
    result = read_result(tmp_path / "h.toml", HandEyeResult)
    assert (result.x_name, result.z_name) == ("tool_a_from_tool_b", "tracker_a_from_tracker_b")


def test_a_stream_that_stands_still_has_no_lag(run, sequence, tmp_path):
    still = np.tile(np.eye(4), (600, 1, 1))
    file = sequence(tmp_path / "x.igs.mha", {"AToT": noisy(still, 1), "BToT": noisy(still, 2)}, TIMES)
    code, text = run("calibrate", "time", file, "--a", "a", "--b", "b", "--out", tmp_path / "t.toml")
    assert code == 1
    assert "little" in text or "hardly" in text or "explain" in text, text


@pytest.mark.parametrize("command", ["time", "handeye"])
def test_an_offset_beyond_the_search_is_told_and_found_by_looking_farther(run, sequence, tmp_path, command):
    one = sequence(tmp_path / "one.igs.mha", {"HeadToStage": noisy(heads(TIMES), 1)}, TIMES)
    two = sequence(tmp_path / "two.igs.mha", {"MarkerToTracker": noisy(markers(heads(TIMES)), 2)}, TIMES + 0.06)
    search = ("calibrate", command, one, two, "--out", tmp_path / "t.toml", "--lag-max-ms")
    code, text = run(*search, "50")
    assert (code, "where the search ends" in text, "Look farther" in text) == (1, True, True)
    code, text = run(*search, "100")
    assert code == 0, text


def test_without_stamps_no_lag_is_guessed(run, tmp_path, together):
    lines = [line for line in together.read_text().splitlines() if "Timestamp" not in line]
    together.write_text("\n".join([*lines, ""]))
    code, text = run("calibrate", "time", together, "--a", "head", "--b", "marker", "--out", tmp_path / "t.toml")
    assert (code, "time stamps" in text) == (1, True)


def test_a_stream_against_itself_is_refused(run, tmp_path, together):
    for command in ("handeye", "time"):
        code, text = run("calibrate", command, together, "--a", "head", "--b", "head", "--out", tmp_path / "h.toml")
        assert code == 1
        assert "stage_from_head twice" in text


def write_clock(path, *, drift=2e-5, offset_s=1000.0, delays=True, header="device_ms,arrival_s"):
    rng = np.random.default_rng(1)
    device = np.arange(3000) / 60.0
    late = 0.002 + rng.exponential(0.003, len(device)) * delays
    rows = "\n".join(f"{1e3 * d:.4f},{d * (1 + drift) + offset_s + w:.7f}" for d, w in zip(device, late, strict=True))
    path.write_text(f"{header}\n{rows}\n")
    return path


def test_offset_and_drift_of_a_devices_clock_are_found_with_their_uncertainty(run, tmp_path):
    code, text = run("calibrate", "time", write_clock(tmp_path / "probe.csv"), "--out", tmp_path / "c.toml")
    assert code == 0, text
    result = read_result(tmp_path / "c.toml", ClockResult)
    assert abs(result.drift_ppm - 20.0) < 3.0 * result.drift_sigma_ppm < 3.0  # 50 s, told to 0.03 ms
    # at the origin the drift adds to the offset; the least delay of 2 ms is in it
    true_ms = 1e3 * (1000.0 + 0.002 + 2e-5 * result.origin_s)
    assert abs(result.offset_ms - true_ms) < 3.0 * result.offset_sigma_ms < 0.3
    assert (result.residual_unit, result.samples) == ("ms", 3000)
    assert "ppm" in text
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_stamps_without_a_unit_or_with_too_few_pairs_are_refused(run, tmp_path):
    code, text = run("calibrate", "time", write_clock(tmp_path / "a.csv", header="device,arrival_s"))
    assert (code, "device_s, device_ms" in text) == (1, True)
    (tmp_path / "b.csv").write_text("device_s,arrival_s\n1,2\n2,3\n")
    code, text = run("calibrate", "time", tmp_path / "b.csv")
    assert (code, "at least 80 pairs" in text) == (1, True)


def table(path, poses):
    """Write poses [mm] as a CSV without time stamps, NaN ones as empty cells."""
    rows = [
        ",".join(f"{v:.6f}" for v in (*p[:3, 3], *Rotation.from_matrix(p[:3, :3]).as_quat()))
        if np.isfinite(p).all()
        else "," * 6
        for p in np.array(poses)
    ]
    path.write_text("\n".join(["x_mm,y_mm,z_mm,qx,qy,qz,qw", *rows]))
    return path


def stations(count=12):
    """Return poses [mm] of a robot's hand and of a board in its camera, both noisy."""
    rng = np.random.default_rng(5)
    a = np.tile(np.eye(4), (count, 1, 1))
    a[:, :3, :3] = Rotation.from_rotvec(rng.uniform(-0.6, 0.6, (count, 3))).as_matrix()
    a[:, :3, 3] = rng.uniform(-150.0, 150.0, (count, 3)) + np.array([600.0, 0.0, 400.0])
    return noisy(a, 6), noisy(markers(a), 7)


def test_stations_without_stamps_are_paired_row_by_row_each_pair_once(run, tmp_path):
    a, b = stations()
    for copies in (1, 5):
        one, two = (table(tmp_path / f"{k}.csv", np.concatenate([p] * copies)) for k, p in (("a", a), ("b", b)))
        code, text = run("calibrate", "handeye", one, two, "--out", tmp_path / f"{copies}.toml")
        assert code == 0, text
    once, pasted = (read_result(tmp_path / f"{copies}.toml", HandEyeResult) for copies in (1, 5))
    assert pasted.x_p95_mm == pytest.approx(once.x_p95_mm, rel=1e-6)
    assert "48 pairs of poses repeat another" in " ".join(pasted.notes)


def test_rows_without_a_partner_are_refused_or_told(run, tmp_path):
    a, b = stations()
    files = table(tmp_path / "a.csv", a), table(tmp_path / "b.csv", b[:9])
    code, text = run("calibrate", "handeye", *files, "--out", tmp_path / "h.toml")
    assert (code, "got 12 of" in text) == (1, True)
    code, text = run("calibrate", "handeye", *files, "--no-offset", "--out", tmp_path / "h.toml")
    assert code == 0, text
    assert "3 of 12 rows without a partner" in " ".join(read_result(tmp_path / "h.toml", HandEyeResult).notes)


def test_a_station_at_which_the_board_was_not_seen_leaves_the_other_rows_paired(run, tmp_path):
    a, b = stations()
    b[[2, 11]] = np.nan
    files = table(tmp_path / "a.csv", a), table(tmp_path / "b.csv", b)
    code, text = run("calibrate", "handeye", *files, "--out", tmp_path / "h.toml")
    assert code == 0, text
    result = read_result(tmp_path / "h.toml", HandEyeResult)
    assert result.samples == 10
    assert np.array(result.x)[:3, 3] * 1e3 == pytest.approx(X[:3, 3], abs=1.0)  # 0.2 mm and 0.05 deg on 1.2 m


def test_poses_that_are_both_inverse_are_told(run, tmp_path):
    a, b = stations()
    for told_as, told in ((np.linalg.inv, True), (np.array, False)):
        files = table(tmp_path / "a.csv", told_as(a)), table(tmp_path / "b.csv", told_as(b))
        code, text = run("calibrate", "handeye", *files, "--out", tmp_path / "h.toml")
        assert code == 0, text
        assert ("are the poses of both inverse" in text) == told


def test_a_unit_that_changes_from_station_to_station_is_refused(run, tmp_path):
    a, b = stations()
    a[::3, :3, 3] *= 1e-3
    code, text = run("calibrate", "handeye", table(tmp_path / "a.csv", a), table(tmp_path / "b.csv", b))
    assert (code, "Millimetres and metres are mixed" in text) == (1, True)


@pytest.mark.parametrize(
    ("word", "says"),
    [("Bad", "'Bad' in row 1"), ("", "'' in row 1"), ("Out of view", "the tip is known to")],
)
def test_a_word_that_does_not_say_whether_a_row_is_valid_is_named(run, tmp_path, word, says):
    path = table(tmp_path / "a.csv", stations()[0])
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([f"{header},valid", *(f"{row},{'OK' if k else word}" for k, row in enumerate(rows))]))
    code, text = run("calibrate", "pivot", path, "--out", tmp_path / "p.toml")
    assert (code, says in text, "Write 1 or 0" in text) == (1, True, "row" in says), text


def test_pairs_of_one_file_that_are_apart_in_time_are_told_with_the_remedy(run, sequence, tmp_path):
    for late_s in (0.02, 0.0):
        tracks = {"HeadToStage": noisy(heads(TIMES), 1), "MarkerToTracker": noisy(markers(heads(TIMES - late_s)), 2)}
        file = sequence(tmp_path / "late.igs.mha", tracks, TIMES)
        code, text = run("calibrate", "handeye", file, "--a", "head", "--b", "marker", "--out", tmp_path / "h.toml")
        assert code == 0, text
        assert ("--offset takes into account" in text) == (late_s > 0.0)


@pytest.mark.parametrize("inverted", [False, True], ids=["camera beside, board on the hand", "camera on the hand"])
def test_a_robots_camera_is_found_wherever_it_is_and_the_inverse_is_asked_for_by_its_name(run, tmp_path, inverted):
    a, b = stations()  # a x = z b: of a camera on the hand b is board_from_camera, and a file has its inverse
    names = ("base_from_hand", "camera_from_board")
    one, two = table(tmp_path / "a.csv", a), table(tmp_path / "b.csv", np.linalg.inv(b) if inverted else b)
    for path, name in ((one, names[0]), (two, names[1])):
        header, *rows = path.read_text().splitlines()
        path.write_text("\n".join([f"name,{header}", *(f"{name},{row}" for row in rows)]))
    wanted = "board_from_camera" if inverted else "camera_from_board"
    code, text = run("calibrate", "handeye", one, two, "--b", wanted, "--out", tmp_path / "h.toml")
    assert code == 0, text
    result = read_result(tmp_path / "h.toml", HandEyeResult)
    expected = ("hand_from_camera", "base_from_board") if inverted else ("hand_from_board", "base_from_camera")
    assert (result.x_name, result.z_name) == expected
    assert 1e3 * np.array(result.x)[:3, 3] == pytest.approx(X[:3, 3], abs=2 * result.x_p95_mm)
