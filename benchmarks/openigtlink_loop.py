"""Pace the engine's own frame loop beside pictures and surfaces over OpenIGTLink.

    python benchmarks/openigtlink_loop.py --seconds 15

The whole puncture runs in real time as it would (hub, recorder, each part in its process), without drawing, with the
parts `igtl` and `igtl_out`. In guidance, for `--seconds` each: nothing on the wire; 640x480 pictures at 30 Hz in; 1 MB
of POLYDATA at 30 Hz in; and the twin's deforming surfaces at 30 Hz out to a viewer. Device and viewer are processes of
their own. A frame is late that ended after its display period was over. Results go to the key `loop_90_hz` of
`benchmarks/results/openigtlink.json`. The preparation before guidance takes about a minute.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from twinguide import Solution
from twinguide_openigtlink import Client, Image, Packet, PolyData, Server

OUT = Path(__file__).parent / "results" / "openigtlink.json"
SPAWN = mp.get_context("spawn")
RATE_HZ = 30.0
PHASES = ("alone", "picture_in", "surface_in", "surfaces_out")


def device(pipe: Connection) -> None:
    """Send what the pipe asks for, `picture_in` or `surface_in`, on time, until it asks for something else."""
    rng = np.random.default_rng(1)
    points = rng.normal(size=(24_000, 3))  # 12 bytes a point, 16 a triangle: 1 MB
    contents = {
        "picture_in": Image.of(rng.integers(0, 255, (1, 480, 640), dtype=np.uint8), np.eye(4)),
        "surface_in": PolyData.of_triangles(points, rng.integers(0, len(points), (45_000, 3))),
    }
    with Server(0).start() as server:
        pipe.send(server.address[1])
        asked, count, due = "alone", 0, time.monotonic()
        while asked != "end":
            if pipe.poll():
                pipe.send({"bytes": len(contents[asked].pack()) if asked in contents else 0, "messages": count})
                asked, count, due = pipe.recv(), 0, time.monotonic()
            if asked in contents:
                count += server.send(Packet(contents[asked], asked, time.time_ns()))
            due += 1.0 / RATE_HZ
            time.sleep(max(due - time.monotonic(), 0.0))


def viewer(pipe: Connection, port: int) -> None:
    """Connect when asked to, take surfaces until told to stop, and tell how many came and how large they were."""
    if pipe.recv() == "end":
        return
    sizes: list[int] = []
    with Client(port=port) as client:
        while not pipe.poll():
            arrival = client.receive(0.05)
            if arrival is not None and isinstance(arrival.packet.content, PolyData):
                sizes.append(len(arrival.packet.content.pack()))
    pipe.send({"bytes": float(np.mean(sizes or [0])), "messages": len(sizes)})
    pipe.recv()


def measure(seconds: float) -> dict[str, Any]:
    """Run the puncture and return each phase's late frames and what went over the wire."""
    from twinguide import app
    from twinguide.promptness import first_in_line, quiet_collector
    from twinguide.registry import Registry
    from twinguide.scenario import find, overridden

    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        told, asked = SPAWN.Pipe()
        seen, looked = SPAWN.Pipe()
        started(stack, device, asked)
        ports = (told.recv(), free_port())
        started(stack, viewer, looked, ports[1])
        registry = Registry.load()
        tables = find("liver_puncture", registry)
        tables["parts"] |= {
            "igtl": {"options": {"port": ports[0]}},
            "igtl_out": {"options": {"port": ports[1], "surfaces_hz": RATE_HZ}},
        }
        scenario = overridden(tables, ["clock=real", "headset.backend=simulated"])
        run = app.Run(scenario, registry, Path(folder) / "s", print)
        run.out.mkdir()
        loop = app.compose_loop(run, app.prepare_case(run), stack, draw=False)
        solutions = counted(loop.session)
        found: dict[str, Any] = {"first_in_line": stack.enter_context(first_in_line()), "seconds_each": seconds}
        with quiet_collector():
            while loop.frame().step != "guide":
                pass
            for phase in PHASES:
                told.send(phase)
                if phase == "surfaces_out":
                    seen.send("look")
                solutions.clear()
                found[phase] = paced(loop, seconds, scenario.loop.rate_hz) | {"solutions": len(solutions)}
            seen.send("enough")
            for pipe in (told, seen):
                pipe.send("end")
            _, _, pictures, surfaces, _ = (told.recv() for _ in range(5))  # of what was asked for before
            found["picture_in"]["wire"], found["surface_in"]["wire"] = pictures, surfaces
            found["surfaces_out"]["wire"] = seen.recv()
        return found


def counted(session: Any) -> list[Solution]:
    """Return a list to which each of the solver's results is added as the loop takes it."""
    drain, found = session.drain, list[Solution]()

    def drained() -> Any:
        taken = drain()
        found.extend(message for _, message in taken if isinstance(message, Solution))
        return taken

    session.drain = drained
    return found


def paced(loop: Any, seconds: float, rate_hz: float) -> dict[str, Any]:
    """Make frames for some seconds and return how many were late, and what they cost [ms]."""
    before, first = loop.headset.counts, loop.ledger.frames
    while loop.ledger.frames - first < seconds * rate_hz:
        loop.frame()
    counts = loop.headset.counts
    cost = loop.ledger.rows()[first:, 1:].sum(axis=1) / 1e6
    p50, p99, most = np.percentile(cost, (50, 99, 100)).round(3).tolist()
    return {
        "frames": counts.frames - before.frames, "late": counts.late - before.late,
        "skipped": counts.skipped - before.skipped, "cost_p50_ms": p50, "cost_p99_ms": p99, "cost_max_ms": most,
    }  # fmt: skip


def started(stack: ExitStack, work: Callable[..., object], *arguments: object) -> None:
    """Start a process that ends with the stack."""
    process = SPAWN.Process(target=work, args=arguments, daemon=True)
    process.start()
    stack.callback(process.kill)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def main() -> None:
    """Measure, print, and keep the figures beside the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="of each phase")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    found = measure(args.seconds)
    print(json.dumps(found, indent=2))
    kept = json.loads(args.out.read_text()) if args.out.is_file() else {}
    kept["loop_90_hz"] = found
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(kept, indent=2) + "\n")


if __name__ == "__main__":
    main()
