import msgpack
import numpy as np
import pytest

from twinguide.bus.catalogue import Catalogue, tag_of
from twinguide.errors import BusError, PluginError
from twinguide.frames import Transform
from twinguide.inbox import Inbox
from twinguide.messages import Array, Exposure, Lost, Message, PoseWire


class Force(Message, frozen=True, kw_only=True, tag="acme.force/1"):
    force_n: tuple[float, float, float]


class Impostor(Message, frozen=True, kw_only=True, tag="acme.force/1"):
    other: int = 0


def exposure():
    wire = PoseWire.of(Transform.of("tracker", "needle", translation=np.array([0.0, 0.1, 1.5])), np.eye(6) * 1e-6)
    return Exposure(t_ns=7, sigma_t_ns=1, tools={"needle": wire}, lost={"pointer": "occluded"})


def test_every_core_message_has_a_tag_of_its_own():
    tags = Catalogue().types
    assert len(tags) == len({tag_of(kind) for kind in tags.values()})


def test_a_message_survives_the_wire_and_msgpack_reads_it_without_a_schema():
    catalogue = Catalogue()
    payload = catalogue.encode(exposure())
    assert catalogue.decode("twinguide.exposure/1", payload) == exposure()
    plain = msgpack.unpackb(payload)
    assert plain["type"] == "twinguide.exposure/1"
    assert plain["tools"]["needle"]["position"] == [0.0, 0.1, 1.5]


def test_a_plugin_brings_its_own_message():
    catalogue = Catalogue([Force])
    force = Force(t_ns=1, force_n=(0.0, 0.0, 1.5))
    assert catalogue.decode("acme.force/1", catalogue.encode(force)) == force


def test_a_tag_taken_twice_is_refused():
    with pytest.raises(PluginError, match=r"acme\.force/1"):
        Catalogue([Force, Impostor])


def test_a_message_without_owner_and_version_is_refused():
    class Plain(Message, frozen=True, kw_only=True, tag="plain"):
        pass

    with pytest.raises(PluginError, match=r"owner\.name/major"):
        tag_of(Plain)


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (msgpack.packb({"type": "acme.force/1", "force_n": [0.0, "x", 0.0]}), r"force_n\[1\]"),
        (msgpack.packb({"type": "acme.force/1"}), "force_n"),
        (b"\xff\x00garbage", "acme.force/1"),
        (b"", "acme.force/1"),
        (b"\x91" * 5000, "acme.force/1"),
    ],
)
def test_a_malformed_payload_is_refused_with_the_path(payload, says):
    with pytest.raises(BusError, match=says):
        Catalogue([Force]).decode("acme.force/1", payload)


def test_an_unknown_tag_is_refused():
    with pytest.raises(BusError, match=r"acme\.unknown/1"):
        Catalogue().decode("acme.unknown/1", b"")


def test_an_array_whose_bytes_do_not_fit_its_shape_is_refused():
    with pytest.raises(BusError, match="16 bytes"):
        Array("f8", (3,), bytes(16)).numpy()


def test_the_inbox_answers_by_type_oldest_first():
    a, b, lost = exposure(), exposure(), Lost(of="needle", reason="cable")
    inbox = Inbox([("tracker", a), ("force", lost), ("tracker", b)])
    assert inbox.of(Exposure) == [a, b]
    assert inbox.last(Lost) is lost
    assert inbox.last(Force) is None
    assert len(inbox) == 3
