"""Choose the machine that a body is solved on: the compiled text, Numba where there is no compiler, or CUDA."""

from __future__ import annotations

import logging
from typing import Literal

from .attachment import Attachment
from .layout import Layout
from .machine import Machine, Native
from .native import NoCompiler
from .newton import Newton

Backend = Literal["auto", "cpu", "cuda"]
# An estimate, never measured: 560 launches of one graph take 1 ms, in which a CPU core solves 7k tetrahedra.
WORTH_A_DEVICE = 50_000  # elements
_log = logging.getLogger(__name__)


def machine_for(backend: Backend, lay: Layout, material: str, threads: int) -> Machine:
    """Return the machine for a laid-out body; `auto` takes CUDA for large bodies where a device answers.

    Raises PluginError where `cuda` is asked for and cannot be had.
    """
    if backend == "cuda" or (backend == "auto" and len(lay.connectivity) >= WORTH_A_DEVICE):
        from .cuda import Cuda, device  # CuPy and its driver are loaded only where they are asked for

        launcher = device(backend)
        if launcher is not None:
            return Cuda(lay, material, launcher)
    machine = on_cpu(lay, material, threads)
    if not isinstance(machine, Native):
        _log.warning("the solver runs on Numba, several times slower: no C compiler, or none that builds the kernels")
    return machine


def newton_on(machine: Machine, lay: Layout, attachment: Attachment) -> Newton:
    """Return Newton's method on a machine: decided by the CPU as it goes, or queued for a device."""
    if isinstance(machine, Native):
        return Newton(lay, machine, attachment)
    from .cuda import Cuda  # as above
    from .queued import Queued

    return Queued(lay, machine, attachment) if isinstance(machine, Cuda) else Newton(lay, machine, attachment)


def on_cpu(lay: Layout, material: str, threads: int) -> Machine:
    """Return the compiled text's machine, or Numba's where it cannot be built."""
    try:
        return Native(lay, material, threads)
    except NoCompiler:
        from .jit import Jit  # Numba takes a second to load

        return Jit(lay, material, threads)
