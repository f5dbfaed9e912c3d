import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from twinguide import Exposure, PoseWire, Transform
from twinguide.bus.catalogue import Catalogue, Header
from twinguide.calibrating.inputs import open_poses
from twinguide.calibrating.result import PivotResult, PointsResult, read_result
from twinguide.messages import Array, Landmark, Registration
from twinguide.recording import Recorder

TIP = np.array([0.001, -0.002, -0.150])
PIVOT = np.array([0.05, 0.02, -0.9])


@pytest.fixture
def session(tmp_path):
    """Return a session's folder: a pointer swung about its tip, every tenth exposure without it."""
    catalogue = Catalogue([Exposure])
    recorder = Recorder(tmp_path / "session", catalogue)
    rng = np.random.default_rng(1)
    for i in range(300):
        around, lean = 2 * np.pi * i / 60, 0.6 * abs(np.sin(2 * np.pi * i / 240))
        turn = Rotation.from_rotvec([lean * np.cos(around), lean * np.sin(around), 0.0]).as_matrix()
        pose = Transform.of("tracker", "pointer", turn, PIVOT - turn @ TIP + rng.normal(0, 1.5e-4, 3))
        wire = PoseWire.of(pose, np.eye(6) * 1e-8)
        seen = i % 10 != 3
        message = Exposure(
            t_ns=i * 16_666_667,
            sigma_t_ns=0,
            tools={"pointer": wire} if seen else {},
            lost={} if seen else {"pointer": "hidden"},
        )
        header = Header("twinguide.exposure/1", "tracker", 1, i, message.t_ns, i)
        recorder.write("v1/stream/tracker/exposure", header, catalogue.encode(message))
    recorder.close()
    return tmp_path / "session"


@pytest.mark.parametrize("inner", ["", "session.mcap"])
def test_a_tip_is_found_from_a_recorded_session(run, tmp_path, session, inner):
    code, text = run("calibrate", "pivot", session / inner, "--tool", "pointer", "--out", tmp_path / "tip.toml")
    assert code == 0, text
    result = read_result(tmp_path / "tip.toml", PivotResult)
    assert np.array(result.tip_mm) == pytest.approx(1e3 * TIP, abs=0.2)
    assert result.samples == 270


def test_a_session_keeps_the_exposures_numbers_and_times(session):
    track = open_poses(session).track("tracker_from_pointer")
    assert track.frames[:4].tolist() == [0, 1, 2, 4]
    assert track.times_ns[3] == 4 * 16_666_667


def test_a_torn_session_gives_what_stands_in_it(session):
    whole = (session / "session.mcap").read_bytes()
    (session / "session.mcap").write_bytes(whole[: len(whole) * 2 // 3])
    recording = open_poses(session)
    assert 0 < len(recording.only()) < 270
    assert "damaged" in recording.notes[0]


def test_a_folder_that_is_no_session_is_refused(run, tmp_path):
    code, text = run("calibrate", "pivot", tmp_path, "--out", tmp_path / "tip.toml")
    assert (code, "session.mcap" in text) == (1, True)


def test_the_landmarks_last_touched_in_a_session_are_registered_to_those_of_the_case(run, tmp_path, demo_case):
    turn = Rotation.from_rotvec([0.2, 0.4, -1.0]).as_matrix()
    catalogue, marks = Catalogue([Registration]), []
    for mark in demo_case.landmarks.values():
        x, y, z = (turn @ mark.position).tolist()
        covariance, shared = np.eye(3) * 1.01e-6, np.eye(3) * 1e-3  # nearly all of it is the tip's
        marks.append(Landmark(mark.name, (x, y, z), Array.of(covariance), Array.of(shared)))
    recorder = Recorder(tmp_path / "session", catalogue)
    for seq, touched in enumerate([marks[:2], marks, []]):  # the last voids: it holds none
        made = Registration(t_ns=seq, version=seq, state="made", landmarks=tuple(touched))
        header = Header("twinguide.registration/1", "twinguide", 1, seq, seq, seq)
        recorder.write("v1/state/twinguide/registration", header, catalogue.encode(made))
    recorder.close()
    code, text = run("calibrate", "points", demo_case.folder, tmp_path / "session", "--out", tmp_path / "r.toml")
    assert code == 0, text
    result = read_result(tmp_path / "r.toml", PointsResult)
    assert (result.names, result.case_hash) == (tuple(demo_case.landmarks), demo_case.content_hash)
    np.testing.assert_allclose(np.array(result.matrix)[:3, :3], turn, atol=1e-9)
    assert result.freedom == np.inf  # each landmark's own error was recorded
    assert result.covariance[3][3] > 0.99e-6  # no averaging over landmarks reduces what they share
