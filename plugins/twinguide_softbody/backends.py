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
_log = logging.getLogger(__name__)


def machine_for(backend: Backend, lay: Layout, material: str, threads: int) -> Machine:
    """Return the machine for a laid-out body; `auto` is the CPU, as no device has run the kernels yet.

    Raises PluginError where `cuda` is asked for and cannot be had.
    """
    if backend == "cuda":
        from .cuda import Cuda  # CuPy and its driver are loaded only where they are asked for
        from .launchers import device

        return Cuda(lay, material, device())
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
