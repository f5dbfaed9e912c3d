import json
import socket
import threading

import numpy as np
import pytest
from click.testing import CliRunner

from twinguide.errors import RecordingError
from twinguide_openigtlink import Client, Packet, Query, Reply, Server, StartTracking, Tool, TrackingData
from twinguide_openigtlink.bench import circles, igtl


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def run(*arguments):
    return CliRunner().invoke(igtl, [str(argument) for argument in arguments])


@pytest.mark.parametrize("command", ["listen", "probe"])
def test_a_closed_port_is_told_and_ends_with_an_error(command, closed_port):
    result = run(command, "--port", closed_port, "--seconds", 0.5)
    assert result.exit_code == 1
    assert "refused" in result.output
    assert "--port" in result.output


@pytest.mark.parametrize("command", ["listen", "probe"])
def test_a_silent_device_is_told_apart_from_none(command):
    with Server(0).start() as server:
        result = run(command, "--port", server.address[1], "--seconds", 0.5)
    assert (result.exit_code, "device is silent" in result.output) == (1, True)


@pytest.mark.parametrize("arguments", [("listen", "--seconds", 10, "--count", 1), ("probe", "--seconds", 1, "--json")])
def test_a_device_that_streams_when_asked_is_asked_and_heard(arguments):
    frame = Packet(TrackingData((Tool("NeedleToTracker", circles(["Needle"], 0.0).tools[0].matrix_mm),)), "Tracker", 1)
    server = Server(0, on_arrival=lambda arrival: server.send(frame, arrival.link))
    with server.start():
        result = run(*arguments, "--port", server.address[1], "--request", "TDATA")
    assert result.exit_code == 0, result.output
    if "--json" in arguments:
        report = json.loads(result.output[result.output.index("{") : result.output.rindex("}") + 1])
        assert [(s["type_name"], s["count"]) for s in report["streams"]] == [("TDATA", 1)]
    else:
        assert "NeedleToTracker" in result.output


@pytest.mark.parametrize(
    "arguments",
    [("serve", "--rate", 0), ("serve", "--tools", ","), ("serve", "--port", 99999), ("listen", "--port", -1)],
)
def test_options_that_cannot_be_are_refused_by_name(arguments):
    result = run(*arguments, "--seconds", 0.1)
    assert (result.exit_code, arguments[1] in result.output) == (2, True)


def test_who_asks_for_a_frame_in_a_while_gets_no_more(closed_port):
    serving = threading.Thread(target=run, args=("serve", "--port", closed_port, "--rate", 100, "--seconds", 3))
    serving.start()
    with Client(port=closed_port) as client:
        assert client.connect(5.0)
        client.send(Packet(StartTracking(100), "", 0, 1))
        stamps = []
        while len(stamps) < 10:
            arrival = client.receive(5.0)
            if isinstance(arrival.packet.content, Reply):
                stamps = []  # what was sent before it was asked
            else:
                stamps.append(arrival.packet.stamp_ns)
        client.send(Packet(Query("STP", "TDATA"), "", 0, 1))
        while not isinstance(client.receive(5.0).packet.content, Reply):
            pass
        assert client.receive(0.3) is None
    serving.join()
    assert np.diff(stamps[1:]) == pytest.approx(100_000_000, abs=2)


@pytest.mark.parametrize(
    ("host", "said"), [("127.0.0.1", "another program listens there"), ("203.0.113.1", "an address of this machine?")]
)
def test_a_port_that_cannot_be_had_is_told_with_what_to_try(host, said):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = run("serve", "--host", host, "--port", taken.getsockname()[1], "--seconds", 0.1)
    assert (result.exit_code, said in result.output) == (1, True), result.output


def test_a_recording_that_is_none_is_refused_naming_the_file_once(tmp_path):
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(RecordingError) as caught:
        CliRunner().invoke(igtl, ["replay", str(tmp_path / "empty.csv")], catch_exceptions=False)
    assert str(caught.value).count("empty.csv") == 1
