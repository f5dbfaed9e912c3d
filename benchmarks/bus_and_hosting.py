"""Measure the bus and hosting: `python benchmarks/bus_and_hosting.py [--json FILE]`; the file is also its own plugin.

Lockstep: wall time of one chain of three processes (each wakes the next). Latency: from a part's publication to the
loop's drain through the hub, at the rate given. Start: from asking for a session to its first step, and from a kill to
the first message of the next life. Ring: one write and one copying read.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from twinguide.bus.ring import RingReader, RingWriter
from twinguide.hookspecs import Motion, Sensor, Topic, hookimpl
from twinguide.hosting.plan import PartPlan, RunPlan
from twinguide.hosting.session import Session
from twinguide.messages import Array, Exposure, Message, PoseWire
from twinguide.registry import Registry

POSE = PoseWire("tracker", "needle", (0.1, 0.2, 0.3), (0.0, 0.0, 0.0, 1.0), Array.of(np.eye(6)))


class First(Message, frozen=True, kw_only=True, tag="bench.first/1"):
    """Output of the chain's first process."""

    value: float


class Second(Message, frozen=True, kw_only=True, tag="bench.second/1"):
    """Output of the chain's second process."""

    value: float


class Third(Message, frozen=True, kw_only=True, tag="bench.third/1"):
    """Output of the chain's third process."""

    value: float


NEXT = {"first": First, "second": Second, "third": Third}


class Relay:
    """Publishes one small message a step."""

    def __init__(self, ctx) -> None:
        self.kind = NEXT[ctx.name]

    def step(self, t_ns, inbox):
        """Answer at once."""
        return [self.kind(t_ns=t_ns, value=float(len(inbox)))]


class Camera:
    """Publishes one pose a step."""

    def __init__(self, ctx) -> None:
        pass

    def step(self, t_ns, inbox):
        """Stamp the pose as late as possible."""
        return [Exposure(t_ns=time.monotonic_ns(), sigma_t_ns=0, tools={"needle": POSE})]


@hookimpl
def parts():
    """Declare the parts of these measurements."""
    here, exposure = "bus_and_hosting", {"exposure": Topic(Exposure)}
    return [
        Sensor("first", make=f"{here}:Relay", rate_hz=1000, publishes={"out": Topic(First)}),
        Motion("second", make=f"{here}:Relay", wakes_on=[First], publishes={"out": Topic(Second)}),
        Motion("third", make=f"{here}:Relay", wakes_on=[Second], publishes={"out": Topic(Third)}),
        Sensor("camera60", make=f"{here}:Camera", rate_hz=60, publishes=exposure),
        Sensor("camera1000", make=f"{here}:Camera", rate_hz=1000, publishes=exposure),
    ]


def session_of(names, clock, folder, *, record=False, placement="process"):
    """Return a session, not yet started."""
    file = Path(__file__).resolve()
    plan = RunPlan(
        run_id="bench", seed=1, clock=clock, parts=tuple(PartPlan(n, placement) for n in names), discover=False,
        plugin_files=(str(file),), record=record, session_folder=str(folder),
    )  # fmt: skip
    return Session(plan, Registry.load([file], discover=False))


def lockstep_ms(folder, placement, steps=2000):
    """Return the wall time [ms] of one step of three chained parts."""
    with session_of(["first", "second", "third"], "virtual", folder, placement=placement) as session:
        session.advance(100_000_000)
        begun = time.perf_counter()
        session.advance(100_000_000 + steps * 1_000_000)
        took = time.perf_counter() - begun
        got = len(session.drain())
    return {"chain_ms": 1e3 * took / steps, "step_ms": 1e3 * took / steps / 3, "messages": got}


def latency_us(folder, name, seconds=4.0):
    """Return the percentiles of the time [us] from a pose's stamp in its process to the loop that waits for it."""
    late = []
    with session_of([name], "real", folder) as session:
        link = session._remote._link  # a waiting reader, not one that looks at 90 Hz
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            link.wait(0.1)
            session.advance(session.now_ns())
            late += [time.monotonic_ns() - m.t_ns for _, m in session.drain() if isinstance(m, Exposure)]
    p50, p99 = np.percentile(np.array(late[10:]) / 1e3, [50, 99])
    return {"p50": round(float(p50)), "p99": round(float(p99)), "messages": len(late)}


def start_ms(folder):
    """Return the times [ms] of a session's start with three processes and a recorder, and of a restart after a kill."""
    begun = time.perf_counter()
    session = session_of(["first", "second", "camera60"], "real", folder, record=True)
    session.start()
    started = time.perf_counter() - begun
    session.drain()
    os.kill(session.part_states["camera60"].pid, signal.SIGKILL)
    killed, back = time.monotonic_ns(), 0
    while not back:
        session.advance(session.now_ns())
        back = next((m.t_ns for h, m in session.drain() if h.source == "camera60" and h.boot == 2), 0)
        time.sleep(0.001)
    closing = time.perf_counter()
    session.close()
    return {
        "session": 1e3 * started,
        "restart_after_kill": (back - killed) / 1e6,
        "close": 1e3 * (time.perf_counter() - closing),
    }


def ring_ms(folder, megabytes, count=60):
    """Return the medians [ms] of one write and one copying read of an array."""
    writer, reader = RingWriter(Path(folder) / f"ring{megabytes}", megabytes * 2**20), None
    values = np.random.default_rng(1).random(megabytes * 2**17)
    reader, writes, reads = RingReader(Path(folder)), [], []
    for _ in range(count):
        begun = time.perf_counter()
        ref = writer.write(values)
        writes.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        reader.read(ref)
        reads.append(time.perf_counter() - begun)
    return {"write": 1e3 * float(np.median(writes)), "read": 1e3 * float(np.median(reads))}


def main():
    """Measure all and print, or save, the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    to = parser.parse_args().json
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        figures = {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
            "lockstep_process": lockstep_ms(folder, "process"),
            "lockstep_inside": lockstep_ms(folder, "inside"),
            "pose_us_60hz": latency_us(folder, "camera60"),
            "pose_us_1khz": latency_us(folder, "camera1000"),
            "start_ms": start_ms(folder),
            "ring_1mb_ms": ring_ms(folder, 1),
            "ring_8mb_ms": ring_ms(folder, 8),
        }
    text = json.dumps(figures, indent=2)
    sys.stdout.write(text + "\n")
    if to:
        to.write_text(text + "\n")


if __name__ == "__main__":
    main()
