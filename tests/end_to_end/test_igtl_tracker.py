"""The simulated tracker over the wire beside itself on the bus: one run, one truth, the same errors."""

import itertools
import socket
import time

import numpy as np
import pytest

from twinguide.checking import check
from twinguide.clock import MS, SECOND
from twinguide.frames import rotation_from_quaternion, vector_from_rotation
from twinguide.hosting.plan import PartPlan, RunPlan
from twinguide.hosting.session import Session
from twinguide.messages import BodiesSeen, Exposure
from twinguide.playback import read
from twinguide.scenario import find, load

SECONDS = 7.0
SETTLED_NS = 2_000_000_000  # the first of a device's stamps tell its clock to some milliseconds only


def table_of(registry):
    """Return the scenario's own table at the border, on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    parts = find("liver_puncture_igtl", registry)["parts"]
    return {
        "igtl": parts["igtl"]["options"] | {"port": port},
        "igtl_served": parts["igtl_served"]["options"] | {"port": port},
    }


@pytest.fixture(scope="module")
def recorded(registry, demo_case, tmp_path_factory):
    """Messages of a run of patient, tracker, and the same tracker served over the wire."""
    folder = tmp_path_factory.mktemp("igtl")
    names, table = ("patient", "tracker", "igtl_served", "igtl"), table_of(registry)
    plan = RunPlan(
        run_id="igtl", seed=3, clock="real", parts=tuple(PartPlan(n, "process", table.get(n, {})) for n in names),
        session_folder=str(folder), case_folder=str(demo_case.folder),
    )  # fmt: skip
    with Session(plan, registry) as session:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            session.advance(session.now_ns())
            session.drain()
            time.sleep(0.01)
        assert all(state.state == "running" for state in session.part_states.values()), session.part_states
    return list(read(folder, registry.catalogue()))


@pytest.fixture(scope="module")
def errors(recorded):
    """Errors of poses [m, rad], shape (n, 6), and of lost tools, by source."""
    seen = [r.message for r in recorded if isinstance(r.message, BodiesSeen)]
    times = np.array([m.t_ns for m in seen])
    found = {"tracker": [], "igtl": []}
    first = min(r.message.t_ns for r in recorded if isinstance(r.message, Exposure))
    for r in recorded:
        if not isinstance(r.message, Exposure) or r.message.t_ns < first + SETTLED_NS:
            continue
        at = int(np.searchsorted(times, r.message.t_ns))
        if 0 < at < len(seen):
            share = (r.message.t_ns - times[at - 1]) / (times[at] - times[at - 1])
            for name, wire in r.message.tools.items():
                if name in seen[at - 1].tools and name in seen[at].tools:
                    found[r.source].append(error_of(wire, seen[at - 1].tools[name], seen[at].tools[name], share))
    return {name: np.array(rows) for name, rows in found.items()}


def error_of(wire, before, after, share):
    true = np.array(before.position) * (1 - share) + np.array(after.position) * share
    turn = rotation_from_quaternion(before.quaternion).T @ rotation_from_quaternion(wire.quaternion)
    return [*vector_from_rotation(turn), *(np.array(wire.position) - true)]


def test_the_scenario_of_the_wire_can_be_run_and_differs_in_its_tracker_and_clock_alone(registry):
    wire, plain = (load(registry.scenarios[name]) for name in ("liver_puncture_igtl", "liver_puncture"))
    check(wire, registry)
    assert set(wire.parts) - set(plain.parts) == {"igtl", "igtl_served"}
    assert set(plain.parts) - set(wire.parts) == {"tracker"}
    for key in ("case", "mode", "seed", "seconds", "headset", "registration", "tools", "target_tolerance_mm"):
        assert getattr(wire, key) == getattr(plain, key), key


def test_every_exposure_of_the_served_tracker_arrives(recorded, errors):
    times = sorted(r.message.t_ns for r in recorded if isinstance(r.message, Exposure) and r.source == "igtl")
    gaps = np.diff([t for t in times if t > times[0] + SETTLED_NS]) * 1e-6
    assert np.median(gaps) == pytest.approx(1000 / 60, rel=0.02)
    assert len(errors["igtl"]) > 0.9 * len(errors["tracker"])


def test_the_errors_over_the_wire_are_those_of_the_bus_within_ten_per_cent(errors):
    sizes = {name: np.sqrt((rows**2).mean(axis=0)) for name, rows in errors.items()}
    for part in (slice(0, 3), slice(3, 6)):
        bus, wire = (np.linalg.norm(sizes[name][part]) for name in ("tracker", "igtl"))
        assert wire == pytest.approx(bus, rel=0.10)


def test_stamps_of_the_wire_and_of_the_bus_agree_within_what_both_state(recorded):
    # Both photograph at the same instants of the same simulated clock: each has a twin at its own stamp.
    rows = [r for r in recorded if isinstance(r.message, Exposure)]
    bus, wire = ([r.message for r in rows if r.source == source] for source in ("tracker", "igtl"))
    stamps = np.array([m.t_ns for m in bus])
    settled = [m for m in wire if m.t_ns > wire[0].t_ns + SETTLED_NS]
    offsets = [np.abs(stamps - m.t_ns).min() for m in settled]
    sigma = np.hypot(np.median([m.sigma_t_ns for m in bus]), np.median([m.sigma_t_ns for m in settled]))
    assert np.median(offsets) < 2.0 * sigma  # 95 %


def test_the_wires_clock_tells_its_own_uncertainty(recorded):
    sigmas = [r.message.sigma_t_ns for r in recorded if isinstance(r.message, Exposure) and r.source == "igtl"]
    assert all(0 < s < 50e6 for s in sigmas)
    assert all(b >= 0 for a, b in itertools.pairwise(sigmas))


@pytest.mark.parametrize("placement", ["inside", "process"])
def test_in_virtual_time_the_wire_brings_what_the_bus_does(registry, demo_case, tmp_path, placement):
    # The served tracker draws the same noise; the wire rounds poses to float32, and its clock is another.
    names, table = ("patient", "tracker", "igtl_served", "igtl"), table_of(registry)
    plan = RunPlan(
        run_id="igtl", seed=3, clock="virtual", session_folder=str(tmp_path), case_folder=str(demo_case.folder),
        parts=tuple(PartPlan(n, placement, table.get(n, {})) for n in names),
    )  # fmt: skip
    with Session(plan, registry) as session:
        for t_ns in range(0, 2 * SECOND, 20 * MS):
            session.advance(t_ns)
            session.drain()
    rows = [r for r in read(tmp_path, registry.catalogue()) if isinstance(r.message, Exposure)]
    bus, wire = ([r.message for r in rows if r.source == source] for source in ("tracker", "igtl"))
    assert len(wire) > 100
    for ours, theirs in zip(bus, wire, strict=False):
        assert set(ours.tools) == set(theirs.tools)
        assert set(ours.lost) == set(theirs.lost)
        for name, pose in ours.tools.items():
            assert theirs.tools[name].position == pytest.approx(pose.position, abs=1e-6)
        assert theirs.t_ns - ours.t_ns == pytest.approx(0, abs=3 * theirs.sigma_t_ns)
