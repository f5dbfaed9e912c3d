"""A served sensor and its reader in virtual time: every run the same, whatever the threads do."""

import logging
import random
import socket
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

from twinguide import Exposure, Inbox, PoseWire, Transform
from twinguide.clock import MS, SECOND, ClockMapping
from twinguide.errors import PluginError
from twinguide.messages import BodiesSeen
from twinguide_openigtlink import Server, lockstep
from twinguide_openigtlink.incoming import Incoming
from twinguide_openigtlink.plugin import IncomingOptions, ServedOptions, ToolRow
from twinguide_openigtlink.served import Served


def context(options):
    return SimpleNamespace(
        name="igtl", options=options, real_time=False, seed=5, log=logging.getLogger("test"),
        device_clock=lambda latency_ms=0.0, sigma_ms=0.0: ClockMapping(round(latency_ms * MS), round(sigma_ms * MS)),
    )  # fmt: skip


def bodies(t_ns):
    place = np.array([0.01 * np.sin(t_ns / SECOND), 0.0, -1.0])
    needle = PoseWire.of(Transform.of("tracker", "needle", translation=place), np.zeros((6, 6)))
    return BodiesSeen(t_ns=t_ns, tools={"needle": needle}, occluded=())


def run(disturbance):
    """Step both ends for a second of virtual time, those of an instant in any order; return what was published."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    served = Served(context(ServedOptions(port=port)))
    reader = Incoming(context(IncomingOptions(port=port, tools={"needle": ToolRow(name="NeedleToTracker")})))
    said = []
    try:
        for t_ns in range(0, SECOND, 2 * MS):
            inbox = Inbox([("world", bodies(t_ns))])
            sends = threading.Thread(target=lambda t=t_ns, i=inbox: list(served.step(t, i)))
            sends.start()
            time.sleep(disturbance.random() * 0.001)
            if t_ns % (4 * MS) == 0:
                said += reader.step(t_ns, Inbox())
            sends.join()
    finally:
        reader.close()
        served.close()
    return said


def test_lockstep_over_a_socket_gives_the_same_messages_in_every_run():
    first, second = (run(random.Random(seed)) for seed in (1, 2))
    exposures = [m for m in first if isinstance(m, Exposure)]
    assert len(exposures) > 50
    assert first == second


def test_lockstep_without_the_served_part_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(lockstep, "WAIT_S", 0.3)
    with Server(0).start() as mute:
        reader = Incoming(context(IncomingOptions(port=mute.address[1])))
        try:
            with pytest.raises(PluginError, match="igtl_served"):
                list(reader.step(0, Inbox()))
        finally:
            reader.close()
