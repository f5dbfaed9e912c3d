"""Signals to a process that runs more than once, as a program that calls `main` does."""

import subprocess
import sys

import pytest

TWICE = """
import signal
from twinguide.ending import heed, ignore, leave

def run():
    heeded = heed()
    try:
        signal.raise_signal(signal.SIGTERM)
        print("went on")
    except KeyboardInterrupt:
        print("interrupted")
    return heeded

signal.signal(signal.SIGTERM, signal.SIG_DFL)
heeded = run()
{end}
run()
"""


@pytest.mark.parametrize("end", ["", "ignore(heeded); leave(heeded)"])  # by an error, and well
def test_a_second_run_in_a_process_is_interrupted_as_the_first(end):
    done = subprocess.run([sys.executable, "-c", TWICE.format(end=end)], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["interrupted", "interrupted"], done.stderr
    assert done.returncode == 0
