"""Run the puncture with its tracker on the bus and over the wire, seed by seed, and compare the errors.

    python benchmarks/openigtlink_scenario.py --seeds 1 7 --seconds 20 --workers 2

The wire's server is in a process of its own. In virtual time both runs are the same to the bit each time; `--clock
real` compares runs in real time, of which the scheduler makes others each time. Errors are root mean squares in mm, as
in `summary.json`; `ratio` is the wire's over the bus's, of one seed and of all seeds pooled. No pictures are made.
Seeds that were run before, for as many seconds, are kept.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import socket
from pathlib import Path
from typing import Any

import numpy as np
from accuracy import summary_of

OUT = Path(__file__).parent / "results" / "openigtlink_scenario.json"
NAMES = ("target", "needle", "overlay")
SERVER = "igtl_served"


def one_run(job: tuple[str, int, float, str]) -> dict[str, Any]:
    """Run one scenario with one seed, and return its summary."""
    name, seed, seconds, clock = job
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = [f"seed={seed}", f"seconds={seconds}", f"clock={clock}", "headset.backend=simulated"]
    if name.endswith("igtl"):
        settings += [f"parts.{part}.options.port={port}" for part in ("igtl", SERVER)]
    return summary_of(name, settings, lambda part: clock == "virtual" and part != SERVER)


def main() -> None:
    """Run, print a line per seed and the pooled figures, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs=2, default=(1, 7), metavar=("FIRST", "END"))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--clock", choices=("virtual", "real"), default="virtual")
    parser.add_argument("--workers", type=int, default=1, help="runs at once; leave it at 1 for the real clock")
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    seeds = range(*args.seeds)
    jobs = [
        (name, seed, args.seconds, args.clock) for seed in seeds for name in ("liver_puncture", "liver_puncture_igtl")
    ]
    rows: list[dict[str, Any]] = []
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        done = pool.imap(one_run, jobs)
        for seed in seeds:
            bus, wire = next(done), next(done)
            rows.append({"seed": seed} | {name: compared(bus, wire, name) for name in NAMES})
            print(json.dumps(rows[-1]), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    kept = json.loads(args.out.read_text()) if args.out.is_file() else {}
    before = kept.get(args.clock, {"seconds_each": args.seconds, "seeds": []})
    if before["seconds_each"] == args.seconds:
        rows = sorted([r for r in before["seeds"] if r["seed"] not in seeds] + rows, key=lambda row: row["seed"])
    pooled = {name: pool_of(rows, name) for name in NAMES}
    print(json.dumps(pooled, indent=2))
    kept[args.clock] = {"seconds_each": args.seconds, "pooled": pooled, "seeds": rows}
    args.out.write_text(json.dumps(kept, indent=2) + "\n")


def compared(bus: dict[str, Any], wire: dict[str, Any], name: str) -> dict[str, float]:
    """Return the rms errors [mm] of a run over the bus and one over the wire, and their ratio."""
    sizes = [run[f"{name}_error_mm"]["rms"] for run in (bus, wire)]
    return {"bus_mm": sizes[0], "wire_mm": sizes[1], "ratio": sizes[1] / sizes[0]}


def pool_of(rows: list[dict[str, Any]], name: str) -> dict[str, float]:
    """Return the rms errors [mm] over all seeds, and their ratio."""
    bus, wire = (float(np.sqrt(np.mean([row[name][key] ** 2 for row in rows]))) for key in ("bus_mm", "wire_mm"))
    return {"bus_mm": bus, "wire_mm": wire, "ratio": wire / bus}


if __name__ == "__main__":
    main()
