from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinguide.bus.catalogue import Catalogue
from twinguide.bus.finite import first_flaw
from twinguide.bus.packets import (
    PAYLOAD_LIMIT,
    Outlet,
    Packet,
    Refusals,
    frames_from_packet,
    message_from_packet,
    packet_from_frames,
)
from twinguide.errors import BusError
from twinguide.messages import Array, Exposure, Health, Lost, PoseWire

POSE = PoseWire("tracker", "needle", (0.0, 0.1, 0.2), (0.0, 0.0, 0.0, 1.0), Array.of(np.eye(6)))
CATALOGUE = Catalogue()


def exposure(**change) -> Exposure:
    return Exposure(t_ns=1, sigma_t_ns=2, tools={"needle": msgspec.structs.replace(POSE, **change)})


def outlet() -> Outlet:
    return Outlet("camera", 1, {Exposure: "v1/stream/camera/exposure", Lost: "v1/stream/camera/lost"}, CATALOGUE)


def test_a_message_survives_the_wire():
    packet = outlet().pack(exposure(), 5, 3)
    assert isinstance(packet, Packet)
    back = packet_from_frames(frames_from_packet(packet))
    assert back == packet
    assert (back.header.source, back.header.seq, back.header.round, back.header.t_pub_ns) == ("camera", 1, 3, 5)
    assert message_from_packet(back, CATALOGUE) == exposure()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"position": (0.0, math.nan, 0.0)}, "tools['needle'].position[1] is nan"),
        ({"quaternion": (0.0, 0.0, 0.0, math.inf)}, "quaternion[3] is inf"),
        ({"covariance": Array.of([1.0, math.nan, math.nan])}, "2 of 3"),
        ({"covariance": Array("f8", (6, 6), b"1234")}, "covariance"),
        ({"covariance": Array("O", (1,), bytes(8))}, "covariance"),
    ],
)
def test_what_nobody_can_use_is_withheld_with_its_place(change, said):
    reason = outlet().pack(exposure(**change), 0)
    assert isinstance(reason, str)
    assert said in reason


@given(st.recursive(
    st.floats() | st.integers() | st.text() | st.booleans() | st.none(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
))  # fmt: skip
def test_a_flaw_is_found_wherever_it_lies(value):
    def flawed(item) -> bool:
        if isinstance(item, float):
            return not math.isfinite(item)
        items = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        return any(flawed(i) for i in items)

    assert bool(first_flaw(value)) == flawed(value)


def test_numpy_numbers_are_refused_or_sent_but_never_raise():
    packet = outlet().pack(exposure(position=tuple(np.zeros(3))), 0)
    assert isinstance(packet, (Packet, str))


def test_undeclared_and_too_large_messages_are_withheld_and_leave_no_gap():
    out = outlet()
    assert "does not declare Health" in str(out.pack(Health(part="x", steps=1), 0))
    assert "16777216" in str(out.pack(Lost(of="x" * (PAYLOAD_LIMIT + 1), reason=""), 0))
    packet = out.pack(Lost(of="x", reason=""), 0)
    assert isinstance(packet, Packet)
    assert packet.header.seq == 1


@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=200))
def test_random_frames_never_raise_anything_but_a_bus_error(topic, header, payload):
    try:
        packet = packet_from_frames([topic, header, payload])
    except BusError:
        return
    assert isinstance(message_from_packet(packet, CATALOGUE), (str, msgspec.Struct))


@given(st.data())
def test_a_mutated_packet_is_a_message_or_a_reason(data):
    packet = outlet().pack(exposure(), 5, 3)
    assert isinstance(packet, Packet)
    payload = bytearray(packet.payload)
    for _ in range(data.draw(st.integers(1, 6))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    result = message_from_packet(Packet(packet.topic, packet.header, bytes(payload)), CATALOGUE)
    assert isinstance(result, (str, Exposure))
    if isinstance(result, Exposure):
        assert first_flaw(result) == ""


def test_refusals_are_told_ever_more_rarely_but_all_counted():
    refusals = Refusals()
    told = [r.count for _ in range(100) if (r := refusals.add("a", "t", "why", 0)) is not None]
    assert told == [1, 2, 4, 8, 16, 32, 64]
    assert refusals.counts["a", "t"] == 100


@given(
    st.sampled_from(["f8", "f4", "i4", "O", "nonsense", "f8,f8"]),
    st.lists(st.integers(-2, 5), max_size=3).map(tuple),
    st.binary(max_size=700) | st.lists(st.floats(), max_size=80).map(lambda v: np.array(v).tobytes()),
)
def test_an_array_is_sound_exactly_when_numpy_can_read_it_and_it_is_finite(dtype, shape, data):
    array = Array(dtype, shape, data)
    try:
        values = array.numpy()
        sound = values.shape == shape and values.dtype.kind in "biuf" and bool(np.isfinite(values).all())
    except BusError:
        sound = False
    assert (first_flaw(array) == "") == sound
