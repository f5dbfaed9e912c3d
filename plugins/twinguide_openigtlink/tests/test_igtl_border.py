"""The border: units, axes, names, validity, clocks, each with a known point."""

import dataclasses
import logging
import time
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from twinguide import BulkRef, Exposure, ImageTarget, Inbox, Lost
from twinguide.bus.ring import NAME as RING_NAME
from twinguide.clock import MS, SECOND, ClockMapping
from twinguide.errors import FrameError
from twinguide.frames import rotation_from_vector
from twinguide_calibration import register_layouts
from twinguide_calibration.reading.sequences import frames_of_name
from twinguide_openigtlink import (
    Fiducial,
    Image,
    ImageEntry,
    ImageMeta,
    NumberArray,
    Packet,
    Points,
    Position,
    SensorData,
    Server,
    Status,
    Text,
    Tool,
    TrackingData,
    Transform,
    unit_code,
)
from twinguide_openigtlink.border import Names, between_axes, from_markers, matrix_of, name_of
from twinguide_openigtlink.gathering import Gathering
from twinguide_openigtlink.incoming import Incoming
from twinguide_openigtlink.link import Arrival
from twinguide_openigtlink.plugin import IncomingOptions, TargetRow, ToolRow
from twinguide_openigtlink.streams import Note, Reading, WireEntry, WireNumbers, WirePicture, WirePictures

TABLE = {"needle": ToolRow(name="NeedleToTracker"), "reference": ToolRow(name="ReferenceToTracker")}


def matrix(x=0.0, y=0.0, z=100.0, turn=(0.0, 0.0, 0.1)):
    m = np.eye(4)
    m[:3, :3] = rotation_from_vector(np.array(turn))
    m[:3, 3] = (x, y, z)
    return m


@pytest.mark.parametrize(("source", "name"), [("probe", "ProbeToTracker"), ("stylus_tip", "StylusTipToTracker")])
def test_the_name_that_plus_gives_is_read_from_right_to_left(source, name):
    assert name_of("tracker", source) == name
    assert frames_of_name(name) == ("tracker", source)


def test_millimetres_become_metres_and_the_known_point_stays_where_it_is():
    ours = matrix_of(Transform(matrix(10.0, 20.0, 30.0, (0.0, 0.0, np.pi / 2))))
    assert ours @ [0.1, 0.0, 0.0, 1.0] == pytest.approx([0.010, 0.120, 0.030, 1.0])


def test_a_position_and_a_transform_tell_the_same():
    m = matrix(1.0, 2.0, 3.0, (0.0, 0.0, np.pi / 2))
    half = np.sqrt(0.5)
    assert matrix_of(Position((1.0, 2.0, 3.0), (0.0, 0.0, half, half))) == pytest.approx(matrix_of(Transform(m)))


def test_rounding_is_mended_and_a_scaled_or_mirrored_matrix_is_refused():
    mended = matrix_of(Transform(matrix().astype(np.float32).astype(float)))
    assert mended[:3, :3] @ mended[:3, :3].T == pytest.approx(np.eye(3), abs=1e-12)
    for bad in (np.diag([1.01, 1.01, 1.01, 1.0]), np.diag([1.0, 1.0, -1.0, 1.0])):
        with pytest.raises(FrameError, match="rotation"):
            matrix_of(Transform(bad))


def test_a_patient_told_in_ras_is_turned_on_both_sides():
    # A point 1 to the right and 2 to the front in RAS is (-1, -2) in LPS.
    shift = np.eye(4)
    shift[:3, 3] = (1.0, 2.0, 3.0)
    assert between_axes(shift, target_ras=True, source_ras=True)[:3, 3].tolist() == [-1.0, -2.0, 3.0]
    turned = between_axes(matrix(), target_ras=True, source_ras=True)
    assert np.linalg.det(turned) == pytest.approx(1.0)


def test_the_covariance_from_markers_is_that_of_the_fit_itself():
    markers = np.array([[32.0, 13.0, 10.0], [-17.0, -16.0, 3.0], [-29.0, 27.0, 4.0], [14.0, -24.0, -17.0]]) * 1e-3
    noise = np.array([0.1, 0.1, 0.45]) * 1e-3
    rotation = rotation_from_vector(np.array([0.4, -0.8, 0.3]))
    seen = markers @ rotation.T + [0.1, 0.2, 0.9]
    (fit,) = register_layouts(markers[None], seen[None], np.broadcast_to(np.diag(noise**2), (1, 4, 3, 3)), 3)
    # The fit's own estimate: the same information matrix, built otherwise; equal to rounding.
    assert from_markers(rotation, markers, noise) == pytest.approx(fit.covariance, rel=1e-6, abs=1e-16)


# ---- gathering ------------------------------------------------------------------------------------------------------


def arrival(content, device="", stamp=SECOND, t_ns=SECOND, metadata=None):
    return Arrival(Packet(content, device, stamp, metadata=metadata or {}), t_ns, None)


def gathering(**options):
    return Gathering(IncomingOptions(tools=TABLE, **options))


def test_tdata_is_one_frame_and_an_absent_tool_is_lost():
    (frame,) = gathering().add(arrival(TrackingData((Tool("NeedleToTracker", matrix()),))))
    assert frame.poses["needle"][2, 3] == pytest.approx(0.1)
    assert frame.lost == {"reference": "not among the tools that the tracker sent"}


def test_transforms_of_one_stamp_are_one_frame():
    g = gathering()
    assert list(g.add(arrival(Transform(matrix()), "NeedleToTracker"))) == []
    (frame,) = g.add(arrival(Transform(matrix()), "ReferenceToTracker"))
    assert set(frame.poses) == {"needle", "reference"}


def test_a_newer_stamp_or_a_while_ends_the_wait_for_the_others():
    g = gathering()
    list(g.add(arrival(Transform(matrix()), "NeedleToTracker", SECOND)))
    (frame,) = g.add(arrival(Transform(matrix()), "NeedleToTracker", SECOND + 5, SECOND + 5))
    assert (frame.stamp_ns, set(frame.poses)) == (SECOND, {"needle"})
    assert list(g.due(SECOND + 7 * MS)) == []
    (frame,) = g.due(SECOND + 9 * MS)
    assert frame.lost.keys() == {"reference"}


@pytest.mark.parametrize(
    "metadata", [{"Status": "MISSING"}, {"TransformStatus": "INVALID"}, {"NeedleToTrackerStatus": "OUT_OF_VIEW"}]
)
def test_a_tool_that_the_tracker_calls_missing_has_no_pose(metadata):
    g = gathering()
    list(g.add(arrival(Transform(matrix()), "NeedleToTracker", metadata=metadata)))
    (frame,) = g.add(arrival(Transform(matrix()), "ReferenceToTracker"))
    assert "needle" not in frame.poses
    assert "tracker says" in frame.lost["needle"]


def test_a_status_keeps_a_tool_lost_until_it_says_ok():
    g = gathering()
    both = TrackingData((Tool("NeedleToTracker", matrix()), Tool("ReferenceToTracker", matrix())))
    g.status("NeedleToTracker", Status(16, text="out of the volume"))
    (frame,) = g.add(arrival(both))
    assert frame.lost == {"needle": "the tracker says: out of the volume"}
    g.status("NeedleToTracker", Status(1))
    (frame,) = g.add(arrival(both))
    assert not frame.lost


def test_the_identity_stands_for_a_tool_that_is_not_seen():
    (frame,) = gathering().add(arrival(TrackingData((Tool("NeedleToTracker", np.eye(4)),))))
    assert "identity" in frame.lost["needle"]


def test_an_inverted_row_and_a_fixed_one_meet_in_the_senders_own_frame():
    rows = {"needle": ToolRow(name="RefToNeedle", inverted=True), "reference": ToolRow(fixed=True)}
    g = Gathering(IncomingOptions(tools=rows))
    (frame,) = g.add(arrival(Transform(matrix(0.0, 0.0, 100.0, (0.0, 0.0, 0.0))), "RefToNeedle"))
    assert frame.poses["needle"][:3, 3].tolist() == [0.0, 0.0, -0.1]
    assert np.array_equal(frame.poses["reference"], np.eye(4))


def test_names_that_are_not_in_the_table_are_told_to_who_waits_for_others():
    g = gathering()
    assert list(g.add(arrival(Transform(matrix()), "StylusToTracker"))) == []
    assert g.foreign == {"StylusToTracker": 1}
    (frame,) = g.add(arrival(TrackingData((Tool("StylusToTracker", matrix()),))))
    assert frame.lost["needle"].endswith("; it tells of StylusToTracker, which no row of the table names")


def test_a_flood_of_names_is_not_kept():
    g = gathering()
    for i in range(1000):
        list(g.add(arrival(Transform(matrix()), f"Tool{i}")))
    assert len(g.foreign) < 100


@pytest.mark.parametrize("stamps", [(SECOND, SECOND + 2 * MS), (0, 0)], ids=["each its own", "none"])
def test_transforms_without_a_common_stamp_are_one_frame_if_they_come_together(stamps):
    g = gathering()
    got = []
    for at in range(0, 3 * 16 * MS, 16 * MS):
        for name, stamp, later in zip(("NeedleToTracker", "ReferenceToTracker"), stamps, (0, 2 * MS), strict=True):
            got += g.add(arrival(Transform(matrix()), name, stamp and stamp + at, SECOND + at + later))
    assert [set(frame.poses) for frame in got] == [{"needle", "reference"}] * 3


def test_a_tool_that_comes_again_begins_a_new_frame_however_soon():
    g = gathering()
    list(g.add(arrival(Transform(matrix()), "NeedleToTracker", SECOND)))
    (frame,) = g.add(arrival(Transform(matrix()), "NeedleToTracker", SECOND + MS, SECOND + MS))
    assert frame.lost.keys() == {"reference"}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ({"a": {"name": "AToTracker"}, "b": {"name": "AToTracker"}}, "two tools are called 'AToTracker'"),
        ({"a": {}}, "tool a has neither a name"),
    ],
)
def test_a_table_that_cannot_be_meant_is_refused(rows, said):
    with pytest.raises(msgspec.ValidationError, match=said):
        msgspec.convert({"tools": rows}, IncomingOptions)


def test_names_are_cut_to_the_wires_twenty_bytes_and_stay_apart():
    names = Names()
    wanted = ["Twin_left_hepatic_vein_a", "Twin_left_hepatic_vein_b", "Twin_liver", "Twin_Gefäße_der_Leber_"]
    got = [names.of(name) for name in wanted]
    assert got == ["Twin_left_hepatic_ve", "Twin_left_hepatic_~2", "Twin_liver", "Twin_Gefäße_der_Le"]
    assert [names.of(name) for name in wanted] == got
    assert set(names.cut) == {wanted[0], wanted[1], wanted[3]}
    assert all(len(name.encode()) <= 20 for name in got)


# ---- the part -------------------------------------------------------------------------------------------------------


class Shelf:
    """Keeps what a part shares, as a ring would."""

    def __init__(self):
        self.kept = []

    def __call__(self, ring, values):
        self.kept.append(np.array(values))
        return BulkRef(ring, 0, len(self.kept), str(values.dtype), values.shape)


def context(options, *, real_time=True, share=None):
    return SimpleNamespace(
        name="igtl",
        options=options,
        real_time=real_time,
        log=logging.getLogger("test"),
        share=share or Shelf(),
        device_clock=lambda latency_ms=0.0, sigma_ms=0.0: ClockMapping(round(latency_ms * MS), round(sigma_ms * MS)),
    )


@pytest.fixture
def wired():
    """Make a part of options, connected to a server that sends it packets; return what it publishes."""
    with Server(0) as server:
        server.start()
        made = []

        def run(packets, share=None, **options):
            host, port = server.address
            part = Incoming(context(IncomingOptions(host=host, port=port, **options), share=share))
            made.append(part)
            until = time.monotonic() + 5.0
            while not server.links:
                assert time.monotonic() < until
                time.sleep(0.002)
            for packet in packets:
                server.send(packet)
            server.send(Packet(Text("end"), "Test"))
            got = []
            while not any(isinstance(m, Note) and m.text == "end" for m in got):
                assert time.monotonic() < until
                got += part.step(time.monotonic_ns(), Inbox())
                time.sleep(0.002)
            return got

        yield run
        for part in made:
            part.close()


def test_a_tracker_becomes_exposures_with_the_covariance_that_the_table_states(wired):
    both = TrackingData((Tool("NeedleToTracker", matrix(1.0, 2.0, 3.0)), Tool("ReferenceToTracker", matrix())))
    got = [m for m in wired([Packet(both, "Tracker", 5 * SECOND)], tools=TABLE) if isinstance(m, Exposure)]
    (exposure,) = got
    needle = exposure.tools["needle"]
    assert (needle.target, needle.source) == ("tracker", "needle")
    assert needle.position == pytest.approx((0.001, 0.002, 0.003))
    wanted = np.diag([np.radians(0.1) ** 2] * 3 + [0.25e-3**2] * 3)
    assert needle.covariance.numpy() == pytest.approx(wanted)


def test_a_located_structure_a_picture_and_a_reading_become_messages_in_si(wired):
    shelf = Shelf()
    image = Image.of(np.arange(6, dtype="u1").reshape(1, 2, 3), np.diag([2.0, 2.0, 2.0, 1.0]), "ras")
    force = SensorData((1.0, 2.0), unit_code(-3, {"N": 1}))
    mass = SensorData((5.0,), unit_code(0, {"g": 1}))
    packets = [
        Packet(Points((Fiducial("t", (10.0, 20.0, 30.0)),)), "Tumour", SECOND),
        Packet(image, "Ultrasound", SECOND),
        Packet(force, "Force", SECOND),
        Packet(mass, "Scale", SECOND),
    ]
    got = wired(packets, share=shelf, targets={"tumour": TargetRow(name="Tumour")}, axes="ras")
    (target,) = [m for m in got if isinstance(m, ImageTarget)]
    assert target.position == pytest.approx((-0.010, -0.020, 0.030))
    (picture,) = [m for m in got if isinstance(m, WirePicture)]
    assert np.array_equal(shelf.kept[0], image.voxels)
    assert picture.world_from_index.numpy()[:3, :3] == pytest.approx(np.diag([-0.002, -0.002, 0.002]))
    readings = {m.of: m for m in got if isinstance(m, Reading)}
    assert (readings["Force"].values, readings["Force"].unit) == ((0.001, 0.002), "N")
    assert (readings["Scale"].values, readings["Scale"].unit) == ((0.005,), "kg")


def test_a_part_of_a_picture_lies_where_it_does_in_the_whole(wired):
    whole = np.diag([2.0, 2.0, 2.0, 1.0])
    whole[:3, 3] = (10.0, 0.0, 0.0)
    part = Image.of(np.zeros((4, 5, 6), dtype="u1"), whole)
    part = dataclasses.replace(part, voxels=np.ones((1, 2, 3), dtype="u1"), start=(3, 2, 1))
    (picture,) = [m for m in wired([Packet(part, "Ultrasound", SECOND)]) if isinstance(m, WirePicture)]
    assert picture.voxels.shape == (1, 2, 3)
    assert picture.world_from_index.numpy()[:3, 3] == pytest.approx([0.016, 0.004, 0.002])


def test_arrays_and_lists_of_images_are_published_without_the_patients_name(wired):
    shelf = Shelf()
    images = ImageMeta((ImageEntry("Liver CT", "ct-1", "CT", "Doe^Jane", "4711", 5 * SECOND, (4, 3, 2)),))
    packets = [
        Packet(NumberArray(np.arange(6, dtype="i2").reshape(2, 3)), "Force map", SECOND),
        Packet(NumberArray(np.array([1 + 2j, 3 - 4j])), "Echo", SECOND),
        Packet(images, "Archive", SECOND),
    ]
    got = wired(packets, share=shelf)
    numbers = {m.of: m for m in got if isinstance(m, WireNumbers)}
    assert np.array_equal(shelf.kept[0], [[0, 1, 2], [3, 4, 5]])
    assert numbers["Force map"].values.shape == (2, 3)
    assert shelf.kept[1].tolist() == [[1.0, 2.0], [3.0, -4.0]]
    (pictures,) = [m for m in got if isinstance(m, WirePictures)]
    assert pictures.pictures == (WireEntry("Liver CT", "ct-1", "CT", (4, 3, 2)),)
    assert "Doe" not in str(pictures)
    assert "4711" not in str(pictures)


def test_arrays_of_many_devices_share_few_rings_and_one_that_finds_no_room_is_said(wired, caplog):
    rings = []

    def share(ring, values):
        rings.append(ring)
        if len(rings) == 30:
            raise OSError("no space left on device")
        return BulkRef(ring, 0, len(rings), str(values.dtype), values.shape)

    packets = [Packet(NumberArray(np.zeros(3)), f"Gerät {i}", SECOND) for i in range(30)]
    got = wired(packets, share=share)
    assert len(set(rings)) < 10
    assert all(RING_NAME.fullmatch(ring) for ring in rings)
    assert len([m for m in got if isinstance(m, WireNumbers)]) == 29
    assert "no space left" in caplog.text


def test_messages_that_came_too_fast_to_be_taken_are_said_to_be_lost(caplog):
    with Server(0) as server:
        server.start()
        part = Incoming(context(IncomingOptions(port=server.address[1])))
        try:
            until = time.monotonic() + 20.0
            while part._reader.lost == 0:  # 65536 are kept
                assert time.monotonic() < until
                server.send(Packet(Text("x"), "Flood"))
            assert len(list(part.step(time.monotonic_ns(), Inbox()))) >= 65536
            assert "faster than they are taken" in caplog.text
        finally:
            part.close()


def test_tools_are_lost_when_only_other_things_are_told_of():
    with Server(0) as server:
        server.start()
        part = Incoming(context(IncomingOptions(port=server.address[1], tools=TABLE, silent_ms=50.0)))
        try:
            lost, until = [], time.monotonic() + 5.0
            while not any("other things" in m.reason for m in lost):
                assert time.monotonic() < until, lost
                server.send(Packet(Text("alive"), "Heart"))
                time.sleep(0.005)
                lost += [m for m in part.step(time.monotonic_ns(), Inbox()) if isinstance(m, Lost)]
        finally:
            part.close()


def test_silence_is_told_with_its_reason():
    part = Incoming(context(IncomingOptions(port=1, tools=TABLE)))
    try:
        lost = [m for m in part.step(10 * SECOND, Inbox()) if isinstance(m, Lost)]
        assert {m.of for m in lost} == {"needle", "reference"}
    finally:
        part.close()
