"""Recordings as messages in time: sessions and sequences, heard by a client that is really connected."""

import socket
import threading

import numpy as np
import pytest
from click.testing import CliRunner

from twinguide import Exposure, PoseWire, Transform
from twinguide.bus.catalogue import Catalogue, Header
from twinguide.recording import Recorder
from twinguide_openigtlink import Client, TrackingData
from twinguide_openigtlink import Transform as WireTransform
from twinguide_openigtlink.bench import igtl
from twinguide_openigtlink.replaying import played, read_recording

SEQUENCE = """ObjectType = Image
NDims = 3
DimSize = 1 1 3
ElementType = MET_UCHAR
""" + "".join(
    f"Seq_Frame{i:04d}_{name}Transform = 1 0 0 {10 * i} 0 1 0 0 0 0 1 0 0 0 0 1\n"
    f"Seq_Frame{i:04d}_{name}TransformStatus = OK\n"
    f"Seq_Frame{i:04d}_Timestamp = {0.05 * i}\n"
    for i in range(3)
    for name in ("LeftRetractorBladeToTracker", "LeftRetractorBladeToReference")
)


@pytest.fixture
def session(tmp_path):
    """A recorded session: a needle that wanders, out of sight every fifth exposure."""
    catalogue = Catalogue([Exposure])
    recorder = Recorder(tmp_path / "session", catalogue)
    for i in range(30):
        pose = Transform.of("tracker", "needle", translation=np.array([0.001 * i, 0.002, -1.0]))
        tools = {"needle": PoseWire.of(pose, np.eye(6) * 1e-8)} if i % 5 else {}
        message = Exposure(t_ns=i * 10_000_000, sigma_t_ns=0, tools=tools, lost={} if tools else {"needle": "hidden"})
        recorder.write(
            "v1/stream/tracker/exposure",
            Header("twinguide.exposure/1", "tracker", 1, i, message.t_ns + 14_000_000, i),
            catalogue.encode(message),
        )
    recorder.close()
    return tmp_path / "session"


def heard(*arguments, count):
    """Run `twinguide igtl replay` and return what a client beside it hears, and what the command says."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = []
    command = threading.Thread(
        target=lambda: said.append(CliRunner().invoke(igtl, ["replay", *map(str, arguments), "--port", str(port)]))
    )
    command.start()
    with Client(port=port) as client:
        assert client.connect(10.0)
        got = [client.receive(5.0) for _ in range(count)]
        command.join(10.0)
    assert said[0].exit_code == 0, said[0].output
    return [arrival.packet for arrival in got], said[0].output


@pytest.mark.parametrize("inner", ["", "session.mcap"])
def test_a_recorded_session_is_heard_as_it_was(session, inner):
    packets, said = heard(session / inner, count=30)
    assert "30 messages over 0.3 s: Tracker" in said
    assert all(isinstance(packet.content, TrackingData) for packet in packets)
    assert [[t.name for t in p.content.tools] for p in packets[4:7]] == [["NeedleToTracker"], [], ["NeedleToTracker"]]
    places = [p.content.tools[0].matrix_mm[:3, 3] for p in packets if p.content.tools]
    assert places[3] == pytest.approx([4.0, 2.0, -1000.0])
    assert np.diff([p.stamp_ns for p in packets[1:]]) == pytest.approx(10_000_000, abs=2)  # ns: the stamp's fraction


def test_a_sequence_is_heard_with_names_that_stay_apart(tmp_path):
    (tmp_path / "a.igs.mha").write_bytes(SEQUENCE.encode() + b"ElementDataFile = LOCAL\n" + bytes(3))
    packets, _ = heard(tmp_path / "a.igs.mha", count=6)
    assert {packet.device for packet in packets} == {"LeftRetractorBladeTo", "LeftRetractorBlade~2"}
    assert all(isinstance(packet.content, WireTransform) for packet in packets)
    assert sorted({packet.content.matrix_mm[0, 3] for packet in packets}) == [0.0, 10.0, 20.0]


def test_a_loop_at_another_speed_has_stamps_that_go_on_and_keep_pace(session):
    cues = read_recording(session)
    looped = played(cues, 2.0, loop=True)
    got = [next(looped) for _ in range(70)]
    due = np.array([cue.t_ns for cue in got])
    stamps = np.array([cue.packet.stamp_ns for cue in got])
    assert (np.diff(due) > 0).all()
    assert np.diff(stamps) == pytest.approx(np.diff(due), abs=2)
    assert due[29] == 290_000_000 // 2
