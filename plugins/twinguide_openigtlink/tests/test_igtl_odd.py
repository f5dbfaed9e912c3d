"""Peers that do odd things, by bytes that are written here: nothing dies, nothing hangs, no value is wrong."""

import logging
import socket
import struct
import time
from types import SimpleNamespace

import numpy as np
import pytest

from twinguide import BulkRef, Exposure, Inbox
from twinguide.bus.finite import first_flaw
from twinguide.clock import ClockMapping
from twinguide_openigtlink import Decoder, Image
from twinguide_openigtlink.bench import line_of
from twinguide_openigtlink.incoming import Incoming
from twinguide_openigtlink.link import Arrival
from twinguide_openigtlink.plugin import IncomingOptions, TargetRow, ToolRow
from twinguide_openigtlink.probing import figures
from twinguide_openigtlink.streams import Note, Reading

EYE = struct.pack(">12f", 1, 0, 0, 0, 1, 0, 0, 0, 1, 10, 20, 30)
NAN, HUGE = float("nan"), 3e38


def crc(data, table=[]):  # noqa: B006 - the table is made once
    """CRC-64 of ECMA-182 by bytes."""
    if not table:
        for byte in range(256):
            value = byte << 56
            for _ in range(8):
                value = (value << 1 ^ 0x42F0E1EBA9EA3693 if value >> 63 else value << 1) & (1 << 64) - 1
            table.append(value)
    value = 0
    for byte in data:
        value = table[value >> 56 ^ byte] ^ value << 8 & (1 << 64) - 1
    return value


def raw(kind, device=b"Dev", content=b"", *, version=1, stamp=1 << 32, grown=b"", heads=b"", texts=b"", size=None):
    body = content
    if version > 1:
        body = struct.pack(">HHII", 12 + len(grown), len(heads), len(texts), 0) + grown + content + heads + texts
    length = len(body) if size is None else size
    return struct.pack(">H12s20sQQQ", version, kind, device, stamp, length, crc(body)) + body


def metadata(encoding, *items):
    heads = struct.pack(">H", len(items)) + b"".join(struct.pack(">HHI", len(k), encoding, len(v)) for k, v in items)
    return {"heads": heads, "texts": b"".join(k + v for k, v in items)}


def tool(name, matrix=EYE):
    return struct.pack(">20sBx", name, 2) + matrix


def quaternion_tool(kind, *turn):
    return struct.pack(">20sBx7f", b"NeedleToTracker", kind, 1, 2, 3, *turn)


KINDS = (
    b"TRANSFORM", b"POSITION", b"QTRANS", b"TDATA", b"QTDATA", b"STATUS", b"POINT", b"POLYDATA", b"IMAGE", b"IMGMETA",
    b"LBMETA", b"STRING", b"SENSOR", b"NDARRAY", b"CAPABILITY", b"COMMAND", b"RTS_COMMAND", b"STT_TDATA", b"STP_TDATA",
    b"GET_TDATA", b"RTS_TDATA", b"GET_CAPABIL", b"GET_STATUS", b"STT_TRANS", b"RTS_TRANS", b"STT_BIND", b"VIDEO",
    b"TRAJ", b"X", b"_", b"GET_", b"GET__",
)  # fmt: skip
NAMES = (
    b"a\0b\0rubbish",
    b"F\xc3\xbcr",
    b"F\xfcr",
    b"\xff\xfe\xfd" * 6,
    b"  spaces in it  ",
    b"x" * 20,
    b"",
    b"\n\x1b[31m",
)
CASES = (
    {f"{kind} of {len(content)}": raw(kind, b"D", content) for kind in KINDS for content in (b"", b"\1", b"\xff" * 200)}
    | {f"{kind} of nothing, version 2": raw(kind, b"D", version=2) for kind in KINDS}
    | {f"device {name}": raw(b"TRANSFORM", name, EYE) for name in NAMES}
    | {f"tool {name}": raw(b"TDATA", b"T", 2 * tool(name)) for name in NAMES}
    | {
        f"metadata in encoding {code}": raw(
            b"TRANSFORM",
            b"NeedleToTracker",
            EYE,
            version=2,
            **metadata(code, (b"Status", b"\xff\xfeO\0"), (b"", b""), (b"\xff", b"\0\0"), (b"Status", b"MISSING")),
        )
        for code in (0, 3, 4, 106, 1013, 1014, 1015, 65535)
    }
    | {
        f"stamp {stamp:x}": raw(b"TDATA", b"T", tool(b"NeedleToTracker"), stamp=stamp)
        for stamp in (0, 1, 5 << 32, 1 << 63, 2**64 - 1)
    }
    | {f"QTDATA kind {kind}": raw(b"QTDATA", b"T", quaternion_tool(kind, 0, 0, 0, 1)) for kind in (0, 1, 2, 3, 4, 255)}
    | {
        "a header of version 3": raw(b"TRANSFORM", b"A", EYE, version=3),
        "metadata that lies of its count": raw(b"STRING", b"A", version=2, heads=b"\xff\xff"),
        "metadata that lies of its size": raw(
            b"STRING", b"A", version=2, heads=struct.pack(">HHHI", 1, 9, 3, 2**32 - 1), texts=b"x"
        ),
        "a quaternion of zeros": raw(b"QTDATA", b"T", quaternion_tool(2, 0, 0, 0, 0)),
        "a huge quaternion": raw(b"QTDATA", b"T", quaternion_tool(2, HUGE, 0, 0, HUGE)),
        "a position of zeros": raw(b"POSITION", b"NeedleToTracker", bytes(28)),
        "a matrix of zeros": raw(b"TRANSFORM", b"NeedleToTracker", bytes(48)),
        "a huge matrix": raw(b"TRANSFORM", b"NeedleToTracker", struct.pack(">12f", *[HUGE] * 12)),
        "a huge target": raw(b"TRANSFORM", b"Tumour", struct.pack(">12f", *[HUGE] * 12)),
        "readings that are none": raw(b"SENSOR", b"S", struct.pack(">BBQ2d", 2, 0, 0, NAN, NAN)),
        "a unit that overflows": raw(b"SENSOR", b"S", struct.pack(">BBQd", 1, 0, 7 << 60 | 2 << 54 | 7 << 50, 1e300)),
        "a unit that there is not": raw(b"SENSOR", b"S", struct.pack(">BBQd", 1, 0, 1 << 59, 1.0)),
        "an image of nothing": raw(b"IMAGE", b"I", struct.pack(">HBBBB3H12f6H", 1, 1, 3, 2, 1, *[0] * 21)),
        "an array of nothing": raw(b"NDARRAY", b"N", struct.pack(">BB2H", 3, 2, 65535, 0)),
        "a number without dimensions": raw(b"NDARRAY", b"N", b"\3\0\5"),
        "bytes behind a body": raw(b"TRANSFORM", b"NeedleToTracker", EYE) + b"more of it" * 9,
        "a body larger than announced": raw(b"TRANSFORM", b"NeedleToTracker", EYE, size=40),
        "a body smaller than announced": raw(b"TRANSFORM", b"NeedleToTracker", EYE, size=60),
        "a browser": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    }
)
GOOD = raw(b"STRING", b"GOOD", struct.pack(">HH", 3, 4) + b"good")


@pytest.fixture(scope="module")
def part():
    """A part that listens, and how to let it publish until a good message has come."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    context = SimpleNamespace(
        name="igtl", real_time=True, log=logging.getLogger("test"),
        options=IncomingOptions(
            port=port, listen=True, tools={"needle": ToolRow(name="NeedleToTracker")},
            targets={"tumour": TargetRow(name="Tumour")},
        ),
        share=lambda ring, values: BulkRef(ring, 0, 1, str(values.dtype), values.shape),
        device_clock=lambda latency_ms=0.0, sigma_ms=0.0: ClockMapping(),
    )  # fmt: skip
    made = Incoming(context)

    def good():
        got, until = [], time.monotonic() + 5.0
        while not any(isinstance(m, Note) and m.of == "GOOD" for m in got):
            assert time.monotonic() < until, "the good message behind it never came"
            got += made.step(time.monotonic_ns(), Inbox())
            time.sleep(0.0005)
        return got

    yield SimpleNamespace(port=port, good=good)
    made.close()


def test_whatever_a_peer_sends_the_good_message_behind_it_is_published(part):
    for name, data in CASES.items():
        with socket.create_connection(("127.0.0.1", part.port)) as peer:
            peer.sendall(data + GOOD)
            for message in part.good():
                flaw = "" if isinstance(message, Reading) else first_flaw(message)
                assert not flaw, f"{name}: {flaw}"


def test_fifty_peers_at_once_are_all_heard(part):
    peers = [socket.create_connection(("127.0.0.1", part.port)) for _ in range(50)]
    for peer in peers:
        peer.sendall(raw(b"TDATA", b"T", tool(b"NeedleToTracker")) + GOOD)
    heard = frames = 0
    while heard < 50:
        got = part.good()
        heard += sum(isinstance(m, Note) and m.of == "GOOD" for m in got)
        frames += sum(isinstance(m, Exposure) for m in got)
    assert frames == 50
    for peer in peers:
        peer.close()


def test_whatever_a_peer_sends_can_be_printed_and_measured():
    packets = [packet for data in CASES.values() for packet in Decoder().feed(data)]
    arrivals = [Arrival(packet, i, None) for i, packet in enumerate(packets)]
    assert len(arrivals) > 80
    assert all(line_of(arrival).isprintable() for arrival in arrivals)
    assert len(figures(arrivals, {}, 0).streams) > 20


@pytest.mark.parametrize(
    ("field", "text"),
    [
        (b"F\xc3\xbcr", "Für"),
        (b"F\xfcr\0\0", "Für"),
        (b"Blo\xdf\0", "Bloß"),
        (b"Gef\xc3", "Gef"),
        (b"a\0\xff\xff", "a"),
    ],
    ids=["UTF-8", "Latin-1", "Latin-1 at its end", "a letter cut in two", "rubbish behind the zero"],
)
def test_a_name_is_read_as_its_sender_meant_it(field, text):
    from twinguide_openigtlink.wire.fields import text_of

    assert text_of(field) == text


@pytest.mark.parametrize("order", ["<", ">"], ids=["little endian", "big endian"])
@pytest.mark.parametrize(
    ("code", "kind"), [(2, "i1"), (3, "u1"), (4, "i2"), (5, "u2"), (6, "i4"), (7, "u4"), (10, "f4"), (11, "f8")]
)
def test_a_part_of_a_colour_image_has_its_values_in_either_byte_order(order, code, kind):
    values = np.arange(2 * 2 * 3 * 3).reshape(2, 2, 3, 3).astype(kind)  # k, j, i, components
    head = struct.pack(
        ">HBBBB3H12f6H", 1, 3, code, 1 if order == ">" else 2, 1, 5, 4, 3,
        2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 2, 2, 1, 3, 2, 2,
    )  # fmt: skip
    (packet,) = Decoder().feed(raw(b"IMAGE", b"I", head + values.astype(np.dtype(kind).newbyteorder(order)).tobytes()))
    assert isinstance(packet.content, Image)
    assert np.array_equal(packet.content.voxels, values)
    assert (packet.content.size, packet.content.start, packet.content.axes) == ((5, 4, 3), (2, 2, 1), "ras")
