"""Nobody sees or says on the bus what was not granted, whatever sockets it opens."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
import pytest
import zmq

from twinguide.bus.catalogue import Header
from twinguide.bus.client import BusClient, endpoint
from twinguide.bus.topics import LOOP, Permissions
from twinguide.errors import PluginError, TopicRefused
from twinguide.hookspecs import Motion, Sensor, Topic, World
from twinguide.hosting.plan import Control, ControlReply
from twinguide.messages import BodiesSeen, Lost, Truth

FAULTY = "faulty_plugin.py"
ENCODE = msgspec.msgpack.encode


def world() -> World:
    topics = {"bodies": Topic(BodiesSeen, qos="world"), "truth": Topic(Truth, qos="truth")}
    return World("patient", make="x:X", publishes=topics)


def test_truth_is_for_the_recorder_alone():
    rules = Permissions({"patient": world(), "spy": Motion("spy", make="x:X", subscribes=[Truth])}, records=True)
    topic = "v1/truth/patient/truth"
    assert "recorder and the scorer only" in rules.refusal("spy", topic)
    assert "recorder and the scorer only" in rules.refusal(LOOP, topic)
    assert rules.refusal("recorder", topic) == ""
    assert topic not in rules.wanted_by(LOOP)


def test_the_world_is_for_sensors_that_observe_it():
    parts = {
        "patient": world(),
        "camera": Sensor("camera", make="x:X", observes=[BodiesSeen]),
        "deaf": Sensor("deaf", make="x:X", subscribes=[BodiesSeen]),
        "model": Motion("model", make="x:X", subscribes=[BodiesSeen]),
    }
    rules = Permissions(parts)
    topic = "v1/world/patient/bodies"
    assert rules.refusal("camera", topic) == ""
    for name in ("deaf", "model", LOOP):
        assert "observe" in rules.refusal(name, topic)


def test_only_a_world_may_publish_truth():
    liar = Sensor("liar", make="x:X", publishes={"truth": Topic(Truth, qos="truth")})
    with pytest.raises(TopicRefused, match="only a World"):
        Permissions({"liar": liar})


@pytest.mark.parametrize("name", ["loop", "hub", "recorder", "a/b", "", "A"])
def test_names_that_would_collide_on_the_bus_are_refused(name):
    with pytest.raises(TopicRefused):
        Permissions({name: Sensor(name, make="x:X")})


def test_a_topic_is_not_open_to_those_who_do_not_list_its_type():
    parts = {"a": Sensor("a", make="x:X", publishes={"lost": Topic(Lost)}), "b": Motion("b", make="x:X")}
    assert "does not list" in Permissions(parts).refusal("b", "v1/stream/a/lost")
    assert "no part of this run declares" in Permissions(parts).refusal("b", "v1/stream/a/other")


@pytest.mark.parametrize("placement", ["inside", "process"])
def test_a_part_that_asks_for_truth_and_world_gets_nothing_and_is_named(runs, placement):
    session = runs(["earth", "nosy"], placement=placement)
    seen = []
    for frame in range(50):
        session.advance(frame * 20_000_000)
        seen += [message.reason for header, message in session.drain() if header.source == "nosy"]
    assert seen == ["0"] * 10  # 10 Hz for one second, and nothing ever in its inbox
    refused = {(r.part, r.topic) for r in session.refusals}
    assert refused == {("nosy", "v1/truth/earth/truth"), ("nosy", "v1/world/earth/pulse")}


def test_unknown_options_are_refused_before_anything_starts(runs):
    session = runs(["heart"], plugin=FAULTY, placement="inside", options={"heart": {"falt": "raise"}}, start=False)
    session.start()
    assert session.part_states["heart"].state == "dead"
    assert "falt" in session.part_states["heart"].reason
    with pytest.raises(PluginError, match="falt"):
        session.context("heart")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fault": "nann"}, "one of '', 'raise', "),
        ({"fault": 3}, "one of '', 'raise', "),
        ({"after": -1}, "wanted an 'after' of 0 or more; got {'after': -1}; in parts.heart.options"),
    ],
)
def test_an_option_that_is_none_is_refused_with_those_that_there_are(runs, options, said):
    session = runs(["heart"], plugin=FAULTY, placement="inside", options={"heart": options})
    assert said in session.part_states["heart"].reason


# ---- raw sockets ----------------------------------------------------------------------------------------------------


@pytest.fixture
def raw(runs):
    """A run in real time, and a stranger's own ZeroMQ context beside it."""
    session = runs(["earth", "gauge"], clock="real")
    context = zmq.Context()
    yield session, context, Path(session.folder) / "hub-1"
    context.destroy(0)


def live(session, seconds: float) -> None:
    """Let a run in real time go on for a while."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        session.advance(session.now_ns())
        time.sleep(0.01)


@pytest.mark.parametrize(
    "request_",
    [
        b"",
        b"v1/",
        b"v1/truth/earth/truth",
        b"v1/truth/earth/truth\0",
        b"gauge\0" + b"0" * 32 + b"\0v1/truth/earth/truth",
        b"recorder\0\0*",
        b"@recorder\0",
    ],
)
def test_a_subscription_without_a_key_gets_nothing(raw, until, request_):
    session, context, sockets = raw
    spy = context.socket(zmq.SUB)
    spy.connect(endpoint(sockets, "out"))
    spy.setsockopt(zmq.SUBSCRIBE, request_)
    until(lambda: any(r.part == "?" for r in session.refusals), session)
    live(session, 0.2)  # truth is published all the while
    assert not spy.poll(0)


def test_a_part_with_its_own_key_does_not_get_truth_by_raw_sockets(runs, until, keys_of):
    """The key of the loop stands for any part's: the grant depends on the name, not on the socket."""
    session = runs(["earth", "gauge"], clock="real")
    spy = BusClient(Path(session.folder) / "hub-1", {"loop": keys_of(session)["loop"].decode()}, lossless=False)
    refused = spy.subscribe("loop", ["v1/truth/earth/truth", "v1/world/earth/pulse", "v1/stream/gauge/reading"], 5.0)
    assert set(refused) == {"v1/truth/earth/truth", "v1/world/earth/pulse"}
    topics = set()

    def heard() -> bool:
        while (packet := spy.receive()) is not None:
            topics.add(packet.topic)
        return bool(topics)

    until(heard, session)
    live(session, 0.2)
    heard()
    spy.close()
    assert topics == {"v1/stream/gauge/reading"}


HEADER = ENCODE(Header("chain.reading/1", "gauge", 1, 1, 0, 0))


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ([b"", b"v1/stream/gauge/reading\0", HEADER, b"\x80"], "key is not one"),
        ([b"x" * 32, b"v1/stream/gauge/reading\0", HEADER, b"\x80"], "key is not one"),
        ([b"KEY", b"v1/stream/gauge/reading\0", HEADER, b"\x80"], "does not declare"),
        ([b"KEY", b"v1/shown/frame\0", HEADER, b"\x80"], "in the name of gauge"),
        ([b"KEY", b"v1/shown/frame\0", b"\xc1", b"\x80"], "header"),
        ([b"KEY", b"v1/shown/frame\0", b"\x96\xa1\x80" + HEADER[1:], b"\x80"], "header"),
        ([b"KEY", b"v1/shown/frame\0", b"\x00" * 70_000, b"\x80"], "header"),
        ([b"KEY", b"v1/shown/frame\0"], "2 frames"),
        ([b"KEY"], "frames"),
    ],
)
def test_a_packet_that_is_not_the_senders_to_send_is_refused_and_counted(raw, until, keys_of, frames, said):
    session, context, sockets = raw
    key = keys_of(session)["loop"]
    push = context.socket(zmq.PUSH)
    push.connect(endpoint(sockets, "in"))
    push.send_multipart([key if frame == b"KEY" else frame for frame in frames])
    until(lambda: any(said in r.reason for r in session.refusals), session)
    assert session.part_states["gauge"].state == "running"


REGISTRATION = ENCODE(Header("twinguide.registration/1", "loop", 1, 10_000, 0, 0))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x91" * 100_000,
        b"\xdf\xff\xff\xff\xff",
        ENCODE({"type": "twinguide.registration/1", "version": "four", "state": "made"}),
        ENCODE({"type": "twinguide.registration/1", "version": 4, "state": "made", "fre_mm": float("nan")}),
        ENCODE({"type": "twinguide.shown/1", "frame": 3}),
        ENCODE({"type": "twinguide.registration/1", "version": 4, "state": "made"}) + b"\x00",
    ],
)
def test_a_malformed_payload_is_dropped_by_its_reader_and_told_of_its_sender(runs, until, keys_of, payload):
    session = runs(["heart", "waiter"], plugin=FAULTY, clock="real")
    client = BusClient(Path(session.folder) / "hub-1", {}, lossless=False)
    client.send_frames(keys_of(session)["loop"], [b"v1/state/loop/registration\0", REGISTRATION, payload])
    until(lambda: any((r.part, r.topic) == ("loop", "v1/state/loop/registration") for r in session.refusals), session)
    assert session.part_states["waiter"].state == "running"
    assert session.part_states["waiter"].restarts == 0
    client.close()


def test_an_oversize_packet_ends_its_senders_connection_not_the_hub(raw, keys_of):
    session, context, sockets = raw
    key = keys_of(session)["loop"]
    push = context.socket(zmq.PUSH)
    push.connect(endpoint(sockets, "in"))
    push.send_multipart([key, b"v1/shown/frame\0", HEADER, bytes(17 * 2**20)])
    live(session, 0.3)
    assert session.stats()["parts"]["gauge"]["state"] == "running"


def test_the_control_socket_obeys_the_loop_alone(raw):
    session, context, sockets = raw
    stranger = context.socket(zmq.DEALER)
    stranger.connect(endpoint(sockets, "ctl"))
    for request in (b"nonsense", msgspec.json.encode(Control("0" * 32, "stop"))):
        stranger.send(request)
        assert stranger.poll(10_000)
        assert not msgspec.json.decode(stranger.recv(), type=ControlReply).ok
    live(session, 0.2)
    assert session.part_states["gauge"].state == "running"
    assert session.stats()["parts"]["gauge"]["state"] == "running"
