"""The twin to 3D Slicer: known points in RAS, the newest surface, and only the commands that are allowed."""

import json
import logging
import socket
import time
from types import SimpleNamespace

import numpy as np
import pytest

from twinguide import Ack, BulkRef, Exposure, Finding, Inbox, PoseWire, Registration, Shown, Solution
from twinguide import Command as OurCommand
from twinguide import Transform as Rigid
from twinguide.case import Body, Surface
from twinguide.messages import Calibration
from twinguide_openigtlink import Capability, Client, Command, Packet, PolyData, Query, Server, Status, Transform
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


def context(options):
    moved = np.add(CORNERS, (0.0, 0.0, 0.01)).astype(np.float32)
    return SimpleNamespace(options=options, case=case(), log=logging.getLogger("test"), bulk=lambda ref: moved)


@pytest.fixture
def slicer():
    """A part that sends, with a client beside it; `hear` steps the part until a message fits."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    part = Outgoing(context(OutgoingOptions(port=port, commands=("confirm",))))
    with Client(port=port) as client:
        reader = client.reader()
        client.start()
        assert client.connect(5.0)
        said, heard = [], set()

        def hear(fits, messages=()):
            until, inbox = time.monotonic() + 5.0, Inbox([("loop", m) for m in messages])
            while True:
                said.extend(part.step(time.monotonic_ns(), inbox))
                inbox = Inbox()
                for arrival in reader.take(0.02):
                    heard.add(arrival.packet.device)
                    if fits(arrival.packet):
                        return arrival.packet
                assert time.monotonic() < until, "nothing fitting came"

        def step_until(true):
            until = time.monotonic() + 5.0
            while not true():
                assert time.monotonic() < until
                said.extend(part.step(time.monotonic_ns(), Inbox()))
                time.sleep(0.01)

        yield SimpleNamespace(hear=hear, send=client.send, said=said, heard=heard, step_until=step_until)
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


def shown(target, findings=()):
    head = wire("stage", "head", [0.0, 1.6, 0.0])
    empty = dict.fromkeys(
        ("target_covariance", "target_displacement", "target_displacement_covariance", "target_stage",
         "target_stage_covariance", "entry")
    )  # fmt: skip
    return Shown(
        frame=1, step="guide", stage_from_head=head, stage_from_view=(head, head), structures={}, tools={},
        target=target, tips={}, tip_covariances={}, directions={}, findings=findings, text=(), stage_us={},
        input_age_ms={}, **empty,
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


def test_it_says_how_it_is_and_what_it_can_when_asked(slicer):
    slicer.send(Packet(Query("GET", "STATUS"), "", 0, 1))
    assert slicer.hear(lambda p: isinstance(p.content, Status)).content.ok
    slicer.send(Packet(Query("GET", "CAPABILITY"), "", 0, 1))
    assert "POLYDATA" in slicer.hear(lambda p: isinstance(p.content, Capability)).content.types


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


def test_a_command_whose_name_cannot_be_said_again_is_refused_all_the_same(slicer):
    class Foreign(Command):
        def pack(self):
            return Command(self.id, "").pack().replace(bytes(128), b"\xff" * 128)  # not UTF-8, and all of the field

    slicer.send(Packet(Foreign(9, ""), "Slicer"))
    refused = slicer.hear(lambda p: isinstance(p.content, Command) and p.content.answer)
    assert (refused.content.id, refused.metadata["Status"]) == (9, "FAIL")


def test_the_head_lies_in_the_image_and_is_gone_without_its_room(slicer):
    # stage = tracker turned half about z and shifted by (0, 0, 2); the head 1.6 above the stage's origin.
    messages = [
        Registration(version=1, state="confirmed", reference_from_image=wire("reference", "image", [0.0, 0.0, 1.0])),
        Exposure(sigma_t_ns=0, tools={"reference": wire("tracker", "reference", [1.0, 0.0, 0.0])}),
        shown((0.01, 0.02, 1.03)),
    ]
    assert slicer.hear(lambda p: p.device == "ReferenceToImage", messages)
    assert "HeadToImage" not in slicer.heard
    turned = Rigid.of("stage", "tracker", np.diag([-1.0, -1.0, 1.0]), np.array([0.0, 0.0, 2.0]))
    room = Calibration(name="stage_from_tracker", pose=PoseWire.of(turned, np.eye(6)))
    head = slicer.hear(lambda p: p.device == "HeadToImage", [room])
    # Head in stage (0, 1.6, 0), in tracker (0, -1.6, -2), in reference (-1, -1.6, -2), in image (-1, -1.6, -3) LPS.
    assert head.content.matrix_mm[:3, 3] == pytest.approx([1000.0, 1600.0, -3000.0], abs=1e-2)
    assert head.content.matrix_mm[:3, :3] == pytest.approx(np.eye(3), abs=1e-6)  # half a turn, and RAS half back


def test_findings_are_told_as_text_that_a_program_can_read(slicer):
    finding = Finding(
        name="depth", of="needle", value=42.5, sigma=0.7, unit="mm", severity="caution", text="42 mm"
    )  # fmt: skip
    packet = slicer.hear(lambda p: p.device == "Twin_Findings", [shown(None, (finding,))])
    said = json.loads(packet.content.text)
    assert said["step"] == "guide"
    assert said["findings"] == [
        {"name": "depth", "of": "needle", "value": 42.5, "sigma": 0.7, "unit": "mm", "severity": "caution",
         "text": "42 mm"}
    ]  # fmt: skip


def test_more_findings_than_the_wire_takes_are_told_as_far_as_it_does(slicer):
    many = tuple(
        Finding(name="f", value=1.0, sigma=0.1, unit="mm", severity="caution", text="long " * 100) for _ in range(300)
    )
    packet = slicer.hear(lambda p: p.device == "Twin_Findings", [shown(None, many)])
    assert 50 <= len(json.loads(packet.content.text)["findings"]) < 300


def test_it_can_be_the_client_of_a_slicer_that_listens_and_comes_back_to_it():
    with Server(0).start() as first:
        port = first.address[1]
        part = Outgoing(context(OutgoingOptions(port=port, listen=False)))
        try:
            assert surface_at(first, part).device == "Twin_liver"
            first.close()
            with Server(port).start() as second:
                assert surface_at(second, part).device == "Twin_liver"  # who comes back knows nothing
        finally:
            part.close()


def surface_at(server, part):
    """Step a part until a surface has come at a server."""
    reader, until = server.reader(), time.monotonic() + 5.0
    while True:
        assert time.monotonic() < until
        list(part.step(time.monotonic_ns(), Inbox()))
        for arrival in reader.take(0.02):
            if isinstance(arrival.packet.content, PolyData):
                return arrival.packet


@pytest.mark.parametrize("rate_hz", [7.0, 30.0, 59.0])
def test_a_rate_is_kept_on_the_mean_though_steps_come_at_another(rate_hz):
    with socket.create_server(("127.0.0.1", 0)) as free:
        part = Outgoing(context(OutgoingOptions(port=free.getsockname()[1], listen=False)))
    try:
        steps = (round(i * 1e9 / 60) for i in range(600))
        assert sum(part._due("poses", rate_hz, t_ns) for t_ns in steps) == pytest.approx(10 * rate_hz, abs=2)
    finally:
        part.close()
