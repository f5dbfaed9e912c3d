"""Messages against byte sequences written out by hand from the protocol's pages, and a CRC computed bit by bit."""

import struct

import numpy as np
import pytest

from twinguide_openigtlink import (
    Attribute,
    Capability,
    Command,
    Decoder,
    Fiducial,
    Image,
    ImageEntry,
    ImageMeta,
    MessageRefused,
    NumberArray,
    Packet,
    Points,
    PolyData,
    Position,
    QuaternionTool,
    QuaternionTrackingData,
    Query,
    Reply,
    SensorData,
    StartTracking,
    Status,
    Text,
    Tool,
    TrackingData,
    Transform,
    Unknown,
    unit_code,
    unit_of,
)

ONE, TWO, HALF, MINUS = "3f800000", "40000000", "3f000000", "bf800000"
ZERO = "00000000"


def crc_by_bits(data):
    """CRC-64 of ECMA-182, annex B: shift each bit through the polynomial, most significant first."""
    value = 0
    for byte in data:
        value ^= byte << 56
        for _ in range(8):
            value = (value << 1 ^ 0x42F0E1EBA9EA3693 if value >> 63 else value << 1) & (1 << 64) - 1
    return value


def padded(text, size):
    return text.encode().ljust(size, b"\0")


def message(kind, device, content, *, version=1, stamp="0000000000000000", head=b"", tail=b""):
    body = head + content + tail
    return (
        struct.pack(">H", version)
        + padded(kind, 12)
        + padded(device, 20)
        + bytes.fromhex(stamp)
        + len(body).to_bytes(8, "big")
        + crc_by_bits(body).to_bytes(8, "big")
        + body
    )


QUARTER_TURN = np.array([[0.0, -1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 2.0], [0.0, 0.0, 1.0, 0.5], [0.0, 0.0, 0.0, 1.0]])
COLUMNS = "".join([ZERO, ONE, ZERO, MINUS, ZERO, ZERO, ZERO, ZERO, ONE, ONE, TWO, HALF])  # column after column
CASES = {
    "TRANSFORM": (Transform(QUARTER_TURN), bytes.fromhex(COLUMNS)),
    "POSITION": (
        Position((1.0, 2.0, 0.5), (0.0, 0.0, -1.0, 0.0)),
        bytes.fromhex(ONE + TWO + HALF + ZERO + ZERO + MINUS + ZERO),
    ),
    "TDATA": (
        TrackingData((Tool("Probe", QUARTER_TURN, 3),)),
        padded("Probe", 20) + b"\x03\x00" + bytes.fromhex(COLUMNS),
    ),
    "QTDATA": (
        QuaternionTrackingData((QuaternionTool("Probe", (1.0, 2.0, 0.5), (0.0, 0.0, 0.0, 1.0), 1),)),
        padded("Probe", 20) + b"\x01\x00" + bytes.fromhex(ONE + TWO + HALF + ZERO * 3 + ONE),
    ),
    "STT_TDATA": (StartTracking(50, "Patient"), bytes.fromhex("00000032") + padded("Patient", 32)),
    "STT_QTDATA": (StartTracking(0, "", "QTDATA"), bytes(36)),
    "STP_TDATA": (Query("STP", "TDATA"), b""),
    "RTS_TDATA": (Reply("TDATA", False), b"\x01"),
    "GET_TRANS": (Query("GET", "TRANSFORM"), b""),
    "STATUS": (
        Status(16, 0x200, "Error", "gone"),
        bytes.fromhex("0010" + "0000000000000200") + padded("Error", 20) + b"gone\0",
    ),
    "STRING": (Text("Leber"), bytes.fromhex("0003" + "0005") + b"Leber"),
    "SENSOR": (
        # Bits 0000 001011 0001 000001 0001: no prefix, newton 0x0B to the power of 1, metre 0x01 to the power of 1.
        SensorData((1.0,), unit_code(0, {"N": 1, "m": 1})),
        bytes.fromhex("01" + "00" + "02c4110000000000" + "3ff0000000000000"),
    ),
    "NDARRAY": (
        NumberArray(np.array([[1, -2, 3]], dtype="i2")),
        bytes.fromhex("04" + "02" + "0001" + "0003" + "0001" + "fffe" + "0003"),
    ),
    "CAPABILITY": (Capability(("TDATA", "STATUS")), padded("TDATA", 12) + padded("STATUS", 12)),
    "COMMAND": (
        Command(7, "Stop", "<Command/>"),
        bytes.fromhex("00000007") + padded("Stop", 128) + bytes.fromhex("0003" + "0000000a") + b"<Command/>",
    ),
    "POINT": (
        Points((Fiducial("tip", (1.0, 2.0, 0.5), "Landmark", (255, 0, 128, 255), 1.0, "CT"),)),
        padded("tip", 64)
        + padded("Landmark", 32)
        + bytes.fromhex("ff0080ff" + ONE + TWO + HALF + ONE)
        + padded("CT", 20),
    ),
    "POLYDATA": (
        PolyData(
            np.eye(3, dtype="f4"),
            polygons=np.array([3, 0, 1, 2], dtype="u4"),
            attributes=(Attribute("ab", np.array([[1.0], [2.0], [0.5]], dtype="f4")),),
        ),
        struct.pack(">10I", 3, 0, 0, 0, 0, 1, 16, 0, 0, 1)
        + bytes.fromhex(ONE + ZERO * 3 + ONE + ZERO * 3 + ONE)
        + struct.pack(">4I", 3, 0, 1, 2)
        + bytes.fromhex("00" + "01" + "00000003")  # kind, components, number
        + b"ab\0\0"  # a name ends with a zero; one more makes the names even
        + bytes.fromhex(ONE + TWO + HALF),
    ),
    "IMAGE": (
        Image(np.array([[[1, 2]]], dtype="u2"), np.diag([0.5, 1.0, 2.0]), np.array([1.0, 2.0, 0.5]), "ras"),
        bytes.fromhex("0001" + "01" + "05" + "02" + "01" + "000200010001")
        + bytes.fromhex(HALF + ZERO * 3 + ONE + ZERO * 3 + TWO + ONE + TWO + HALF)
        + bytes.fromhex("000000000000" + "000200010001" + "0100" + "0200"),
    ),
    "IMGMETA": (
        ImageMeta((ImageEntry("CT", "ct1", "CT", "Doe", "42", 1_500_000_000, (2, 3, 4), 4),)),
        padded("CT", 64)
        + padded("ct1", 20)
        + padded("CT", 32)
        + padded("Doe", 64)
        + padded("42", 64)
        + bytes.fromhex("0000000180000000" + "000200030004" + "04" + "00"),
    ),
}  # fmt: skip


def test_the_crc_is_that_of_ecma_182():
    # 6C40DF5F0B497347 is the check value that catalogues of CRCs give for CRC-64/ECMA-182.
    assert crc_by_bits(b"123456789") == 0x6C40DF5F0B497347
    packet = Packet(Unknown("X", b"123456789"), version=1).pack()
    assert packet[50:58] == bytes.fromhex("6C40DF5F0B497347")


def test_the_body_of_an_empty_request_has_a_crc_of_zero():
    assert Packet(Query("GET", "STATUS"), version=1).pack()[42:58] == bytes(16)


@pytest.mark.parametrize("kind", CASES)
def test_a_message_is_written_as_the_protocol_says(kind):
    content, expected = CASES[kind]
    assert Packet(content, "Device", version=1).pack() == message(kind, "Device", expected)


@pytest.mark.parametrize("kind", CASES)
def test_a_message_is_read_as_the_protocol_says(kind):
    content, expected = CASES[kind]
    (packet,) = Decoder().feed(message(kind, "Device", expected))
    assert (packet.device, packet.version, packet.content.type_name) == ("Device", 1, kind)
    assert type(packet.content) is type(content)
    assert packet.content.pack() == expected


def test_version_2_carries_an_extended_header_and_metadata_around_the_content():
    head = bytes.fromhex("000c" + "0012" + "0000000d" + "00000009")  # 12 bytes; 18 and 13 of metadata; message 9
    tail = (
        bytes.fromhex("0002" + "0006" + "0003" + "00000002" + "0001" + "006a" + "00000004")
        + b"Status"
        + b"OK"
        + b"k"
        + "µm".encode()
        + b"s"
    )
    raw = message("STRING", "A", bytes.fromhex("00030001") + b"x", version=2, head=head, tail=tail)
    packet = Packet(Text("x"), "A", 0, 2, 9, {"Status": "OK", "k": "µms"})
    assert packet.pack() == raw
    assert Decoder().feed(raw) == [packet]


def test_an_extended_header_that_has_grown_is_passed_over():
    head = bytes.fromhex("0010" + "0000" + "00000000" + "00000001") + b"new!"
    (packet,) = Decoder().feed(message("STRING", "A", bytes.fromhex("00030001") + b"x", version=2, head=head))
    assert packet.content == Text("x")


def test_a_stamp_is_seconds_in_fixed_point():
    raw = message("STRING", "A", bytes.fromhex("00030001") + b"x", stamp="0000000140000000")
    (packet,) = Decoder().feed(raw)
    assert packet.stamp_ns == 1_250_000_000
    assert Packet(Text("x"), "A", 1_250_000_000, 1).pack() == raw


def test_the_example_of_the_unit_page_means_newton_metres():
    # "SensorData", sending 3-axis torque: its bits leave the exponents at zero where the page "Unit" would have one.
    assert unit_of(0b00000010_11000000_00010000 << 40) == (0, {"N": 1, "m": 1})
    assert unit_of(unit_code(-3, {"m": 1, "s": -2})) == (-3, {"m": 1, "s": -2})


def test_the_centre_of_an_image_lies_between_its_first_and_last_voxel():
    matrix = np.diag([0.5, 1.0, 2.0, 1.0])
    matrix[:3, 3] = (10.0, 20.0, 30.0)  # of voxel (0, 0, 0)
    image = Image.of(np.zeros((4, 3, 2), dtype="u1"), matrix)
    assert image.centre_mm.tolist() == [10.25, 21.0, 33.0]  # first + (size - 1) / 2 steps
    assert np.array_equal(image.world_from_index_mm(), matrix)


def test_a_part_of_an_image_keeps_the_whole_images_place():
    part = Image(np.zeros((1, 1, 2), dtype="u1"), np.eye(3), np.zeros(3), "lps", (4, 4, 1), (2, 3, 0))
    back = Image.unpack(part.pack())
    assert (back.whole, back.start, back.voxels.shape) == ((4, 4, 1), (2, 3, 0), (1, 1, 2))
    assert back.world_from_index_mm()[:3, 3].tolist() == [-1.5, -1.5, 0.0]


def test_a_position_may_leave_out_its_quaternion_or_its_w():
    assert Position.unpack(struct.pack(">3f", 1, 2, 3)) == Position((1.0, 2.0, 3.0), (0.0, 0.0, 0.0, 1.0))
    assert Position.unpack(struct.pack(">6f", 1, 2, 3, 0, 0, 0.5)).quaternion[3] == pytest.approx(np.sqrt(0.75))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (Packet(Text("x"), "a name of more than twenty"), "DEVICE_NAME"),
        (Packet(Text("x" * 70_000)), "65535"),
        (Packet(SensorData((0.0,) * 256)), "255 values"),
        (Packet(NumberArray(np.zeros(3, dtype="i8"))), "int64"),
        (Packet(PolyData(np.zeros((1, 3), "f4"), lines=np.array([5, 0], "u4"))), "LINES"),
        (Packet(Text("x"), version=1, metadata={"a": "b"}), "version 2"),
        (Packet(Text("x"), stamp_ns=-1), "1970"),
    ],
)
def test_what_does_not_fit_the_wire_is_refused_before_it_is_sent(content, says):
    with pytest.raises(MessageRefused, match=says):
        content.pack()
