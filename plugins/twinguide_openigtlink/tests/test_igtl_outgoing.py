"""The twin to 3D Slicer: known points in RAS, the newest surface, and only the commands that are allowed."""

import logging
import socket
import time
from types import SimpleNamespace

import numpy as np
import pytest

from twinguide.case import Body, Surface
from twinguide.frames import Transform as Rigid
from twinguide.messages import Ack, BulkRef, Exposure, Inbox, PoseWire, Registration, Shown, Solution
from twinguide.messages import Command as OurCommand
from twinguide_openigtlink import Client, Command, Packet, PolyData, Transform
from twinguide_openigtlink.outgoing import Outgoing
from twinguide_openigtlink.plugin import OutgoingOptions

CORNERS = np.array([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 0.1]])
FACES = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], dtype=np.int32)


def case():
    body = Body(CORNERS, np.array([[0, 1, 2, 3]], dtype=np.int32), {})
    return SimpleNamespace(
        organ="liver",
        structures={"liver": SimpleNamespace(moves=True)},
        body=lambda: body,
        surface=lambda name: Surface(CORNERS, FACES),
    )


@pytest.fixture
def slicer():
    """A part that sends, with a client beside it; `hear` steps the part until a message fits."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    moved = np.add(CORNERS, (0.0, 0.0, 0.01)).astype(np.float32)
    options = OutgoingOptions(port=port, commands=("confirm",))
    ctx = SimpleNamespace(options=options, case=case(), log=logging.getLogger("test"), bulk=lambda ref: moved)
    part = Outgoing(ctx)
    with Client(port=port) as client:
        reader = client.reader()
        client.start()
        assert client.connect(5.0)
        said = []

        def hear(fits, messages=()):
            until, inbox = time.monotonic() + 5.0, Inbox([("loop", m) for m in messages])
            while True:
                said.extend(part.step(time.monotonic_ns(), inbox))
                inbox = Inbox()
                for arrival in reader.take(0.02):
                    if fits(arrival.packet):
                        return arrival.packet
                assert time.monotonic() < until, "nothing fitting came"

        def step_until(true):
            until = time.monotonic() + 5.0
            while not true():
                assert time.monotonic() < until
                said.extend(part.step(time.monotonic_ns(), Inbox()))
                time.sleep(0.01)

        yield SimpleNamespace(hear=hear, send=client.send, said=said, step_until=step_until)
    part.close()


def test_a_newcomer_gets_the_surface_at_rest_in_ras_and_millimetres(slicer):
    packet = slicer.hear(lambda p: isinstance(p.content, PolyData))
    assert packet.device == "Twin_liver"
    assert packet.content.points_mm[1].tolist() == [-100.0, 0.0, 0.0]
    assert np.array_equal(packet.content.triangles(), FACES)


def test_a_solution_moves_the_surface(slicer):
    slicer.hear(lambda p: isinstance(p.content, PolyData))
    solution = Solution(
        t_ns=5, of="liver", vertices=BulkRef("v", 0, 1, "f4", (4, 3)), level="full", residual=0.0, sigma_m=0.001,
        smallest_j=1.0, deadline_met=True,
    )  # fmt: skip
    packet = slicer.hear(lambda p: isinstance(p.content, PolyData) and p.content.points_mm[0, 2] > 0.0, [solution])
    assert packet.content.points_mm[0].tolist() == pytest.approx([0.0, 0.0, 10.0])


def shown(target):
    head = wire("stage", "head", [0.0, 1.6, 0.0])
    empty = dict.fromkeys(
        ("target_covariance", "target_displacement", "target_displacement_covariance", "target_stage",
         "target_stage_covariance", "entry")
    )  # fmt: skip
    return Shown(
        frame=1, step="guide", stage_from_head=head, stage_from_view=(head, head), structures={}, tools={},
        target=target, tips={}, tip_covariances={}, directions={}, findings=(), text=(), stage_us={}, input_age_ms={},
        **empty,
    )  # fmt: skip


def wire(target, source, place):
    return PoseWire.of(Rigid.of(target, source, translation=np.array(place)), np.eye(6))


def test_the_needle_and_the_target_lie_in_the_image_in_ras(slicer):
    # image = reference shifted by (0, 0, -1); tracker = reference shifted by (1, 0, 0); needle at (1.1, 0.2, 0.3).
    messages = [
        Registration(version=1, state="confirmed", reference_from_image=wire("reference", "image", [0.0, 0.0, 1.0])),
        Exposure(
            sigma_t_ns=0,
            tools={
                "reference": wire("tracker", "reference", [1.0, 0.0, 0.0]),
                "needle": wire("tracker", "needle", [1.1, 0.2, 0.3]),
            },
        ),
        shown((0.01, 0.02, 1.03)),
    ]
    needle = slicer.hear(lambda p: p.device == "NeedleToImage", messages)
    assert isinstance(needle.content, Transform)
    # In LPS the needle lies at (0.1, 0.2, 0.3 - 1); RAS turns the first two.
    assert needle.content.matrix_mm[:3, 3] == pytest.approx([-100.0, -200.0, -700.0], abs=1e-3)
    assert needle.content.matrix_mm[:3, :3] == pytest.approx(np.diag([-1.0, -1.0, 1.0]), abs=1e-6)
    target = slicer.hear(lambda p: p.device == "Twin_Target")
    assert target.content.points[0].position_mm == pytest.approx((-10.0, -20.0, 30.0), abs=1e-3)


def test_only_a_command_that_the_scenario_allows_reaches_the_engine(slicer):
    slicer.send(Packet(Command(3, "TwinGuide.stop"), "Slicer"))
    refused = slicer.hear(lambda p: isinstance(p.content, Command) and p.content.answer)
    assert (refused.content.id, refused.metadata["Status"]) == (3, "FAIL")
    assert slicer.said == []
    slicer.send(Packet(Command(4, "TwinGuide.confirm"), "Slicer"))
    slicer.step_until(lambda: slicer.said)
    (command,) = slicer.said
    assert (type(command), command.kind) == (OurCommand, "confirm")
    done = slicer.hear(
        lambda p: isinstance(p.content, Command) and p.content.id == 4, [Ack(id=command.id, accepted=True)]
    )
    assert done.metadata["Status"] == "SUCCESS"
