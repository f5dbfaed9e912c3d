import numpy as np
import pytest
from click.testing import CliRunner

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
