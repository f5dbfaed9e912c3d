"""Against another implementation, in both directions, for every type it knows."""

import socket
import time

import numpy as np
import pytest

from twinguide_openigtlink import (
    Client,
    Decoder,
    Fiducial,
    Image,
    Packet,
    Points,
    PolyData,
    Position,
    Server,
    Text,
    Transform,
)

pyigtl = pytest.importorskip("pyigtl", reason="pyigtl is not installed: pip install twinguide[test]")

MATRIX = np.array([[0.0, -1.0, 0.0, 10.5], [1.0, 0.0, 0.0, -20.25], [0.0, 0.0, 1.0, 30.0], [0.0, 0.0, 0.0, 1.0]])


def theirs(packet):
    """Read our bytes with their reader."""
    raw = packet.pack()
    message = pyigtl.messages.MessageBase.create_message(packet.content.type_name)
    fields = pyigtl.messages.MessageBase.parse_header(raw[:58])
    assert fields["body_size"] == len(raw) - 58
    assert pyigtl.messages.CRC64(raw[58:]) == int.from_bytes(raw[50:58], "big")
    message.unpack(fields, raw[58:])
    return message


def ours(message):
    """Read their bytes with our reader."""
    (packet,) = Decoder().feed(message.pack())
    return packet


@pytest.fixture(params=[1, 2], ids=["header version 1", "header version 2"])
def version(request):
    return request.param


def test_a_transform_crosses_both_ways(version):
    message = pyigtl.TransformMessage(MATRIX, timestamp=12.5, device_name="ProbeToTracker")
    message.header_version = version
    packet = ours(message)
    assert np.array_equal(packet.content.matrix_mm, MATRIX)
    assert (packet.device, packet.version) == ("ProbeToTracker", version)
    assert packet.stamp_ns == pytest.approx(12_500_000_000, abs=1)  # theirs loses a nanosecond in its own rounding
    assert packet.pack()[58:] == message.pack()[58:]
    back = theirs(Packet(Transform(MATRIX), "ProbeToTracker", 12_500_000_000, version))
    assert np.array_equal(back.matrix, MATRIX)
    assert back.timestamp == pytest.approx(12.5, abs=1e-8)


def test_metadata_crosses_both_ways():
    message = pyigtl.StringMessage("hello", device_name="A", timestamp=1.0)
    message.header_version, message.metadata = 2, {"Status": "OK", "Depth": "50"}
    assert ours(message).metadata == {"Status": "OK", "Depth": "50"}
    assert theirs(Packet(Text("x"), "A", metadata={"Status": "MISSING"})).metadata == {"Status": "MISSING"}


def test_a_string_crosses_both_ways(version):
    message = pyigtl.StringMessage("liver", device_name="A", timestamp=1.0)
    message.header_version = version
    assert ours(message).content == Text("liver")
    assert theirs(Packet(Text("liver"), "A", version=version)).string == "liver"


def test_points_cross_both_ways(version):
    message = pyigtl.PointMessage(
        [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], ["a", "b"], [[1, 2, 3, 4], [5, 6, 7, 8]], [0.5, 1.5], "G", "CT",
        timestamp=1.0, device_name="P",
    )  # fmt: skip
    message.header_version = version
    first = Fiducial("a", (1.0, 2.0, 3.0), "G", (1, 2, 3, 4), 0.5, "CT")
    packet = ours(message)
    assert packet.content.points[0] == first
    assert packet.pack()[58:] == message.pack()[58:]
    back = theirs(Packet(Points((first,)), "P", version=version))
    assert (back.names, back.groups, back.positions, back.owners) == (["a"], ["G"], [(1.0, 2.0, 3.0)], ["CT"])


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"])
@pytest.mark.parametrize("axes", ["ras", "lps"])
def test_an_image_crosses_both_ways(dtype, axes, version):
    voxels = np.arange(24).reshape(2, 3, 4).astype(dtype)
    matrix = MATRIX.copy()
    matrix[:3, :3] *= 0.5
    message = pyigtl.ImageMessage(voxels, matrix, axes, timestamp=1.0, device_name="I")
    message.header_version = version
    content = ours(message).content
    assert np.array_equal(content.voxels, voxels)
    assert content.axes == axes
    assert np.allclose(content.world_from_index_mm(), matrix, atol=1e-5)  # float32 of their centre
    back = theirs(Packet(Image.of(voxels, matrix, axes), "I", version=version))
    assert np.array_equal(back.image, voxels)
    assert back.world_coordinate_system == axes
    assert np.allclose(back.ijk_to_world_matrix, matrix, atol=1e-5)


def test_a_colour_image_crosses_both_ways():
    voxels = np.arange(2 * 3 * 4 * 3, dtype="u1").reshape(2, 3, 4, 3)
    assert np.array_equal(ours(pyigtl.ImageMessage(voxels, device_name="I", timestamp=1.0)).content.voxels, voxels)
    assert np.array_equal(theirs(Packet(Image.of(voxels, np.eye(4)), "I")).image, voxels)


def test_a_surface_that_they_send_is_read():
    # Only in this direction: pyigtl 0.3.4 cannot read POLYDATA (its reader subscripts a struct.Struct).
    points = np.eye(3, dtype="f4")
    message = pyigtl.PolyDataMessage(points=points, polygons=np.array([3, 0, 1, 2]), timestamp=1.0, device_name="S")
    content = ours(message).content
    assert np.array_equal(content.points_mm, points)
    assert content.triangles().tolist() == [[0, 1, 2]]
    assert PolyData.of_triangles(points, np.array([[0, 1, 2]])).pack() == message.pack()[58:]


def test_all_cells_of_a_surface_that_they_send_are_read():
    # Not their vertices: pyigtl 0.3.4 writes those in the machine's byte order, against the protocol.
    cells = {
        "lines": [2, 0, 1, 3, 2, 1, 0],
        "polygons": [3, 0, 1, 2, 4, 0, 1, 2, 3],
        "triangle_strips": [4, 3, 2, 1, 0],
    }
    arrays = {name: np.array(values) for name, values in cells.items()}
    message = pyigtl.PolyDataMessage(points=np.eye(4, 3, dtype="f4"), timestamp=1.0, device_name="S", **arrays)
    content = ours(message).content
    assert (content.lines.tolist(), content.polygons.tolist()) == (cells["lines"], cells["polygons"])
    assert content.strips.tolist() == cells["triangle_strips"]
    again = PolyData(content.points_mm, lines=content.lines, polygons=content.polygons, strips=content.strips)
    assert again.pack() == message.pack()[58:]


def test_a_position_of_theirs_is_refused_for_it_is_not_the_protocols():
    # pyigtl 0.3.4 writes 152 bytes a position (name, group, colour ...); the protocol has 28, and no more, in all.
    message = pyigtl.messages.PositionMessage([1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 1.0], timestamp=1.0, device_name="P")
    decoder = Decoder()
    good = Packet(Text("next"), "A")
    assert [p.content for p in decoder.feed(message.pack() + good.pack())] == [Text("next")]
    assert "28 bytes" in decoder.last_refusal
    assert theirs(Packet(Position((1.0, 2.0, 3.0)), "P")).positions == []


# ---- over sockets ---------------------------------------------------------------------------------------------------

VOXELS = np.arange(24, dtype="u2").reshape(2, 3, 4)
PAIRS = {  # their message, our content, and how to see that theirs is ours
    "transform": (
        lambda: pyigtl.TransformMessage(MATRIX, device_name="D", timestamp=1.0),
        Transform(MATRIX),
        lambda content: content.matrix_mm.tolist(),
        lambda message: message.matrix.tolist(),
    ),
    "string": (
        lambda: pyigtl.StringMessage("liver", device_name="D", timestamp=1.0),
        Text("liver"),
        lambda content: content.text,
        lambda message: message.string,
    ),
    "points": (
        lambda: pyigtl.PointMessage([[1.0, 2.0, 3.0]], ["a"], device_name="D", timestamp=1.0),
        Points((Fiducial("a", (1.0, 2.0, 3.0)),)),
        lambda content: [(point.name, point.position_mm) for point in content.points],
        lambda message: list(zip(message.names, map(tuple, message.positions), strict=True)),
    ),
    "image": (
        lambda: pyigtl.ImageMessage(VOXELS, device_name="D", timestamp=1.0),
        Image.of(VOXELS, np.eye(4)),
        lambda content: content.voxels.tolist(),
        lambda message: message.image.tolist(),
    ),
}
each_kind = pytest.mark.parametrize("kind", PAIRS)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def until(true):
    end = time.monotonic() + 10.0
    while not (found := true()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)
    return found


@each_kind
def test_our_server_and_their_client_hear_each_other(kind):
    make, content, value, value_of_theirs = PAIRS[kind]
    with Server(0).start() as server:
        reader = server.reader()
        client = pyigtl.OpenIGTLinkClient(*server.address)
        try:
            until(client.is_connected)
            client.send_message(make(), wait=True)
            (arrival,) = until(lambda: reader.take(0.05))
            assert value(arrival.packet.content) == value(content)
            until(lambda: server.links)
            server.send(Packet(content, "D", 10**9, 1))
            assert value_of_theirs(client.wait_for_message("D", timeout=10)) == value(content)
        finally:
            client.stop()


@each_kind
def test_our_client_and_their_server_hear_each_other(kind):
    make, content, value, value_of_theirs = PAIRS[kind]
    server = pyigtl.OpenIGTLinkServer(port=free_port())
    try:
        with Client("127.0.0.1", server.port) as client:
            reader = client.reader()
            client.start()
            assert client.connect(10.0)
            until(server.is_connected)
            server.send_message(make(), wait=True)
            (arrival,) = until(lambda: reader.take(0.05))
            assert value(arrival.packet.content) == value(content)
            client.send(Packet(content, "D", 10**9, 1))
            assert value_of_theirs(server.wait_for_message("D", timeout=10)) == value(content)
    finally:
        server.stop()
