"""Make the fast model of one job, kept for the next start: `python -m twinguide_softbody.training JOB.npz`.

Ends when its standard input does: with the process that started it in a session of its own.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np

from .fastpath import Job, train


def _end_with_parent(name: str) -> None:
    os.read(0, 1)  # not by sys.stdin, whose lock would abort Python where it ends
    Path(name).unlink(missing_ok=True)
    os.killpg(0, signal.SIGINT)  # the compiler too; on the way out files that were begun are removed


def main(name: str) -> None:
    """Train the job that lies in a file, and remove the file."""
    with np.load(name, allow_pickle=False) as kept:
        job = Job.of({key: kept[key] for key in kept.files})
    Path(name).unlink(missing_ok=True)
    if not job.path().exists():
        train(job)


if __name__ == "__main__":
    os.nice(19)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background may ignore it
    threading.Thread(target=_end_with_parent, args=sys.argv[1:], daemon=True).start()
    main(sys.argv[1])
