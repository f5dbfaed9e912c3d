from datetime import UTC, datetime

import numpy as np
import pytest
from click.testing import CliRunner

from twinguide.calibrating.result import Divot, PivotResult, Source
from twinguide.cli import main


@pytest.fixture
def run(tmp_path):
    """Return `run(*arguments) -> (exit code, what was printed)` of the command line, in a folder of its own."""

    def call(*arguments):
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.output

    return call


@pytest.fixture
def sequence():
    """Return a writer of sequence files."""
    return write_sequence


def write_sequence(path, tracks, times_s=None):
    """Write poses [mm], {name: (n, 4, 4)}, as PLUS does; NaN marks a frame in which the tool was not seen."""
    count = len(next(iter(tracks.values())))
    times_s = np.arange(count) / 60.0 + 100.0 if times_s is None else times_s
    lines = ["ObjectType = Image", "NDims = 3", f"DimSize = 0 0 {count}"]
    for i in range(count):
        for name, poses in tracks.items():
            seen = np.isfinite(poses[i]).all()
            values = " ".join(f"{v:.9g}" for v in (poses[i] if seen else np.eye(4)).ravel())
            lines.append(f"Seq_Frame{i:04}_{name}Transform = {values}")
            lines.append(f"Seq_Frame{i:04}_{name}TransformStatus = {'OK' if seen else 'INVALID'}")
        lines.append(f"Seq_Frame{i:04}_Timestamp = {times_s[i]:.6f}")
    path.write_text("\n".join([*lines, "ElementDataFile = LOCAL", ""]))
    return path


@pytest.fixture(scope="session")
def pivot_result():
    """Return the tip of a tool as its calibration tells it."""
    tip = (0.1, -0.2, -150.03)
    divot = Divot(
        file="a.mha",
        samples=3,
        rejected=(2,),
        tip_mm=tip,
        apart_mm=0.0,
        pivot_mm=(1.0, 2.0, 3.0),
        pivot_in="tracker",
        swing_deg=40.0,
        sides=8,
        sigma_mm=0.1,
        covariance=tuple(map(tuple, (np.eye(6) * 1e-8).tolist())),
    )
    return PivotResult(
        of="pointer",
        made=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        made_by="twinguide 0.1.0",
        sources=(Source(file="a.mha", sha256="0" * 64),),
        samples=3,
        rejected=(2,),
        residuals=(0.1, 0.2, 1.0 / 3.0),
        notes=("1 row left out",),
        tip_mm=tip,
        tip_covariance_mm2=tuple(map(tuple, np.diag([1e-4, 2e-4, 3e-4]).tolist())),
        tip_p95_mm=0.2,
        systematic_p95_mm=0.1,
        freedom=float("inf"),
        agreement=1.0,
        divots=(divot,),
    )
