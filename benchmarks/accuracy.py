"""Run the demo over seeds, without pictures, and compare the errors with what the budget predicts.

    python benchmarks/accuracy.py --seeds 100 112 --seconds 20 --workers 2 --out benchmarks/results/accuracy.json

Each seed is another patient, another registration and another breathing. Errors are in mm at the target: `target` in
reference, `breathing` its moving part, `needle` at the tip, `overlay` in stage with the headset's error. A run's
registration is one draw, so `coverage` of single runs scatters; the pooled root mean squares are compared:
`measured_over_predicted` is rms error over rms of what the covariance says.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def summary_of(name: str, settings: Sequence[str], inside: Callable[[str], bool]) -> dict[str, Any]:
    """Run a scenario without pictures and return its summary; `inside` tells of each part whether it runs inside."""
    from twinguide.app import run_scenario
    from twinguide.registry import Registry
    from twinguide.scenario import find, overridden

    folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
    try:
        registry = Registry.load()
        tables = find(name, registry)
        placed = [f"parts.{part}.placement=inside" for part in tables["parts"] if inside(part)]
        scenario = overridden(tables, [*placed, *settings])
        run_scenario(scenario, registry, folder / "s", say=lambda line: None, draw=False)
        return json.loads((folder / "s/summary.json").read_text())
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def one_run(job: tuple[int, float, tuple[str, ...]]) -> dict[str, Any]:
    """Run one seed, and return its summary."""
    seed, seconds, settings = job
    return summary_of("liver_puncture", [f"seed={seed}", f"seconds={seconds}", *settings], lambda part: True)


def main() -> None:
    """Run, print a line per seed and the pooled figures, and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs=2, default=(100, 112), metavar=("FIRST", "END"))
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    jobs = [(seed, args.seconds, tuple(args.settings)) for seed in range(*args.seeds)]
    runs = []
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        for job, run in zip(jobs, pool.imap(one_run, jobs), strict=True):
            runs.append(run)
            cells = [
                f"{n} {run[f'{n}_error_mm']['mean']:.2f}/{run[f'{n}_error_mm']['p95']:.2f}"
                for n in ("breathing", "target", "needle", "overlay")
            ]
            print(f"seed {job[0]}: {'  '.join(cells)}  marked {run['marked_fraction']:.3f}", flush=True)
    pooled = {}
    for name in ("breathing", "target", "needle", "overlay"):
        rows = [run[f"{name}_error_mm"] for run in runs]
        pooled[name] = {key: float(np.mean([row[key] for row in rows])) for key in ("mean", "p95")}
        pooled[name]["worst_mean"] = max(row["mean"] for row in rows)
        pooled[name]["worst_p95"] = max(row["p95"] for row in rows)
        if "coverage" in rows[0]:
            pooled[name]["coverage"] = float(np.mean([row["coverage"] for row in rows]))
    for name in ("target", "overlay"):
        measured = np.sqrt(np.mean([run[f"{name}_error_mm"]["rms"] ** 2 for run in runs]))
        predicted = np.sqrt(np.mean([run[f"{name}_error_mm"]["predicted_rms"] ** 2 for run in runs]))
        pooled[name]["measured_over_predicted"] = float(measured / predicted)
    pooled["marked_fraction"] = float(np.mean([run["marked_fraction"] for run in runs]))
    pooled["false_alarms"] = int(sum(run["out_of_model"]["false"] for run in runs))
    pooled["runs"], pooled["seconds_each"] = len(runs), args.seconds
    print(json.dumps(pooled, indent=2))
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(pooled, indent=2) + "\n")


if __name__ == "__main__":
    main()
