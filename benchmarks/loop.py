"""Pace the frame loop in real time beside three busy solver-class processes, and say how often it was late.

    python benchmarks/loop.py --seconds 60 --out benchmarks/results/loop.json

The whole demo runs as it would (hub, recorder, every part in its own process) but for the pictures, and three more
processes of a solver's niceness keep both cores busy. A frame is late that ended after its display period was over.
`cost_ms` is what a frame took outside waiting, `own_ms` the part of it in which the loop's thread itself ran: the rest
went to other processes. `listening_ms` is that thread's time while it waited for the frame: for what came meanwhile.
`first_in_line` says whether Linux granted the loop real-time priority.
The frame budget at 90 Hz is 11.1 ms. Measured in guidance, where a frame costs most; the preparation before it takes
about a minute.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import resource
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from twinguide.headset import FrameTiming, Meanwhile

BUSY = '''
import numpy as np
from twinguide import Contract, Lost, Solver, Topic, hookimpl

@hookimpl
def parts():
    return [
        Solver(f"busy{k}", make="busy_solvers:Busy", publishes={"lost": Topic(Lost)}, rate_hz=90.0,
               contract=Contract(deadline_ms=11.0, levels={"rigid": 6.0}))
        for k in range(3)
    ]

class Busy:
    """Multiply matrices for some 10 ms a step: more than the period leaves."""

    def __init__(self, ctx):
        self.a = ctx.rng().normal(size=(400, 400))

    def step(self, t_ns, inbox):
        for _ in range(4):
            self.a = np.linalg.qr(self.a @ self.a)[0]
        return []
'''


def _percentiles(values: np.ndarray) -> dict[str, float]:
    return dict(
        zip(("p50", "p90", "p99", "max"), np.percentile(values, (50, 90, 99, 100)).round(3).tolist(), strict=True)
    )


def _switches() -> int:
    """Return how often this thread was made to give its core away."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def _own_time_of(headset: Any) -> list[int]:
    """Return a list whose only entry is this thread's time when the headset's wait last ended [ns]."""
    wait, since = headset.wait_frame, [0]

    def wait_frame(meanwhile: Meanwhile) -> FrameTiming:
        timing = wait(meanwhile)
        since[0] = time.thread_time_ns()
        return timing

    headset.wait_frame = wait_frame
    return since


def measure(seconds: float, busy: bool, ordinary: bool = False) -> dict:
    """Run for some seconds and return late frames, cost and lateness; `ordinary`: without real-time priority."""
    from twinguide import app
    from twinguide.promptness import first_in_line, quiet_collector
    from twinguide.registry import Registry
    from twinguide.scenario import find, overridden

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        plugin = Path(folder) / "busy_solvers.py"
        plugin.write_text(BUSY)
        registry = Registry.load([plugin] if busy else [])
        tables = find("liver_puncture", registry)
        for k in range(3 if busy else 0):
            tables["parts"][f"busy{k}"] = {}
        scenario = overridden(tables, ["clock=real", "headset.backend=simulated"])
        run = app.Run(scenario, registry, Path(folder) / "s", print)
        run.out.mkdir()
        case = app.prepare_case(run)
        loop = app.compose_loop(run, case, stack, draw=False)
        full = []
        gc.callbacks.append(
            lambda phase, info: full.append(info) if info["generation"] == 2 and phase == "start" else None
        )
        granted = not ordinary and stack.enter_context(first_in_line())
        own, listening = list[int](), list[int]()
        own_since = _own_time_of(loop.headset)
        with quiet_collector():
            full.clear()
            while loop.frame().step != "guide":
                pass
            before, first, switches = loop.headset.counts, loop.ledger.frames, _switches()
            while loop.ledger.frames - first < seconds * scenario.loop.rate_hz:
                began = time.thread_time_ns()
                loop.frame()
                own.append(time.thread_time_ns() - own_since[0])
                listening.append(own_since[0] - began)
            counts, switches = loop.headset.counts, _switches() - switches
            collections = len(full)
        stages = loop.ledger.rows()[first:] / 1e6
        cost = stages[:, 1:].sum(axis=1)
        frames = counts.frames - before.frames
        return {
            "busy_processes": 3 if busy else 0,
            "first_in_line": granted,
            "frames": frames,
            "late": counts.late - before.late,
            "skipped": counts.skipped - before.skipped,
            "late_percent": 100.0 * (counts.late - before.late + counts.skipped - before.skipped) / frames,
            "cost_ms": _percentiles(cost),
            "own_ms": _percentiles(np.array(own) / 1e6),
            "listening_ms": _percentiles(np.array(listening) / 1e6),
            "pre_empted": switches,
            "cost_histogram_ms": np.histogram(cost, bins=[0, 0.5, 1, 1.5, 2, 3, 5, 8, 11.1, 1e3])[0].tolist(),
            "stage_p50_ms": dict(zip(loop.ledger.stages, np.median(stages, axis=0).round(3).tolist(), strict=True)),
            "stage_p99_ms": dict(
                zip(loop.ledger.stages, np.percentile(stages, 99, axis=0).round(3).tolist(), strict=True)
            ),
            "full_collections_in_frames": collections,
        }


def main() -> None:
    """Measure without and with busy processes, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--busy-only", action="store_true")
    parser.add_argument("--ordinary", action="store_true", help="do not ask for real-time priority")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    machine = f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.machine()}"
    result = {"machine": machine, "load_before": os.getloadavg()[0]}
    result["runs"] = [
        measure(args.seconds, busy, args.ordinary) for busy in ([True] if args.busy_only else [False, True])
    ]
    print(json.dumps(result, indent=2))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
