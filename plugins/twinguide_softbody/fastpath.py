"""Keep a body's fast model (`reduced.py`) between runs: trained by a process of its own, used where it lies at a start.

Never trained nor taken over while frames run: what a run answers does not hang on when a worker finishes, only on what
was there when it began. Models lie beside the kernels, by the hash of all that they are made of, the newest few.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from . import native
from .body import Array, Body, Springs
from .quasistatic import Solver
from .reduced import Model, Reduced
from .reduction import Drive, Reduction

RANGE_M = np.diag([0.008, 0.012, 0.020])  # of the target along x, y, z in LPS: a deep breath moves a liver most along z
MODES, SAMPLES = 16, 20
KEPT = 16  # models: some MB each
MAKING = "a later start has one if this run lasts for the 10 to 30 s that making it takes on idle cores"
_log = logging.getLogger(__name__)
_TEXT = ("fastpath.py", "layout.py", "quasistatic.py", "newton.py", "reduced.py", "reduction.py")


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """What a model is made of: a body, its springs, and the family of their targets."""

    body: Body
    springs: Springs
    drive: Drive

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return everything as named arrays."""
        body, weights = self.body, self.springs.weights
        return {
            **{"vertices": body.vertices, "elements": body.elements, "young": body.young_pa, "poisson": body.poisson},
            **{"data": weights.data, "indices": weights.indices, "indptr": weights.indptr},
            **{"stiffness": self.springs.stiffness, "rest": self.drive.rest, "directions": self.drive.directions},
        }

    @staticmethod
    def of(a: dict[str, NDArray[Any]]) -> Job:
        """Return the job of named arrays."""
        body = Body(a["vertices"], a["elements"], a["young"], a["poisson"])
        shape = (len(a["indptr"]) - 1, len(body.vertices))
        springs = Springs(sp.csr_matrix((a["data"], a["indices"], a["indptr"]), shape=shape), a["stiffness"])
        return Job(body, springs, Drive(a["rest"], a["directions"]))

    def path(self) -> Path:
        """Return where the model of this job is kept."""
        digest = hashlib.sha256(native.fingerprint().encode())
        for text in _TEXT:
            digest.update((Path(__file__).parent / text).read_bytes())
        for name, values in self.arrays().items():
            digest.update(f"{name} {values.dtype} {values.shape}".encode() + np.ascontiguousarray(values).tobytes())
        return native.cache() / f"reduced-{digest.hexdigest()[:24]}.npz"


def family(rest: Array, shares: Array) -> Drive:
    """Return the targets of springs at `rest` [m], (k, 3), that follow `shares`, (k,), of the drive within RANGE_M."""
    return Drive(rest, shares[None, :, None] * RANGE_M[:, None, :])


def load(path: Path) -> Model | None:
    """Return the model kept at `path`; None where there is none that can be read."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            parts = {name: kept[name] for name in kept.files}
        ratio = float(parts.pop("ratio"))
        drive = Drive(parts.pop("rest"), parts.pop("directions"))
        with suppress(OSError):  # one that may only be read serves all the same
            path.touch()
        return Model(Reduction(drive=drive, **parts), ratio)
    except (OSError, ValueError, KeyError, TypeError, BadZipFile):
        return None


def train(job: Job) -> Path:
    """Make the model of a job here and now, some 10 to 30 s, and keep it; return where."""
    solver = Solver(job.body, job.springs, backend="cpu")
    model = Reduced(solver, job.body, job.springs, None, job.drive, modes=MODES, samples=SAMPLES).model
    r, path = model.reduction, job.path()
    parts = {name: getattr(r, name) for name in ("mean", "modes", "gradient", "weights", "moduli")}
    parts |= {"rest": r.drive.rest, "directions": r.drive.directions}
    handle, name = tempfile.mkstemp(suffix=".npz", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as out:
            np.savez(out, ratio=model.ratio, **parts)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
    models = sorted(path.parent.glob("reduced-*.npz"), key=lambda p: p.stat().st_mtime)
    for old in models[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def train_apart(job: Job) -> subprocess.Popen[bytes]:
    """Start a process of low priority that makes the model of a job and ends with this one, at the latest."""
    handle, name = tempfile.mkstemp(suffix=".job.npz")
    command, quiet = [sys.executable, "-P", "-m", "twinguide_softbody.training", name], subprocess.DEVNULL
    try:
        with os.fdopen(handle, "wb") as out:
            np.savez(out, **job.arrays())  # pyright: ignore[reportArgumentType] NumPy's stub takes no arrays by name
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True)
    except BaseException:
        Path(name).unlink()
        raise
    atexit.register(process.communicate)  # which closes its input and waits for it
    return process


def ready(solver: Solver, job: Job) -> Reduced | None:
    """Return the fast path of a solver's body where its model is kept; else have it trained, for the next start.

    None too where the kernels are not compiled: the fast path needs them.
    """
    try:
        path = job.path()
        model = load(path)
        if model is not None:
            return Reduced(solver, job.body, job.springs, None, job.drive, threads=1, model=model)
    except (native.NoCompiler, OSError, RuntimeError) as error:  # no compiler, or no place to keep anything
        _log.warning("no fast path: solved in full; %s", error)
        return None
    told = MAKING
    try:
        if not os.access(path.parent, os.W_OK):
            raise OSError(f"{path.parent} cannot be written")
        train_apart(job)
    except OSError as error:
        told = f"none can be made: {error}"
    _log.warning("no model for the fast path yet: solved in full; %s", told)
    return None
