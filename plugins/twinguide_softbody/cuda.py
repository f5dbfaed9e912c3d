"""One body on a CUDA device: the kernels of `kernels/cuda.cu`, launched in one fixed order.

What launches is apart from what is launched: `Device` compiles the text by CuPy; `Shim` runs the same text, compiled
by the C compiler, thread after thread, so that the sequence below and every kernel are tested where no device is.
"""

from __future__ import annotations

import ctypes
import importlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from twinguide.compute import array_module

from . import backends, native
from .body import Array
from .layout import Layout
from .machine import Arrays, Host, Memory, System

THREADS = 64  # to a block: most kernels hold a few dozen registers, and small bodies should still fill the device
SEGMENTS, LAST = 1024, 32  # as in system.h
_SCALARS = 8


class Launcher(Protocol):
    """Memory, and the means to run a kernel over `count` items."""

    memory: Memory

    def system(self, system: System) -> object:
        """Return the system where the kernels can read it."""
        ...

    def launch(
        self, name: str, system: object, count: int, pointers: tuple[int, int, int], x: float, y: float, k: int
    ) -> None:
        """Run a kernel."""
        ...


class Shim:
    """The kernels' text on the CPU, built by the C compiler; raises NoCompiler without one."""

    def __init__(self) -> None:
        self._library = native.library("shim.c", ())
        self.memory: Memory = Host()

    def system(self, system: System) -> System:
        """Return the system itself."""
        return system

    def launch(
        self, name: str, system: object, count: int, pointers: tuple[int, int, int], x: float, y: float, k: int
    ) -> None:
        """Run every thread of a kernel in turn."""
        assert isinstance(system, System)
        a, b, c = (ctypes.c_void_p(p) for p in pointers)
        run = getattr(self._library, f"run_{name}")
        run(ctypes.byref(system), ctypes.c_int(count), a, b, c, ctypes.c_double(x), ctypes.c_double(y), ctypes.c_int(k))


class Device:
    """A CUDA device through CuPy, on the stream that is current."""

    def __init__(self, cupy: Any) -> None:  # noqa: ANN401
        self._cupy = cupy
        options = ("--std=c++14", f"-I{native.KERNELS}")
        self._module = cupy.RawModule(code=(native.KERNELS / "cuda.cu").read_text(), options=options)
        self._kernels: dict[str, Any] = {}
        self.memory: Memory = DeviceMemory(cupy)

    def system(self, system: System) -> object:
        """Copy the system to the device."""
        return self._cupy.asarray(np.frombuffer(bytes(system), np.uint8))

    def launch(
        self, name: str, system: object, count: int, pointers: tuple[int, int, int], x: float, y: float, k: int
    ) -> None:
        """Queue a kernel; nothing waits."""
        kernel = self._kernels.get(name) or self._kernels.setdefault(name, self._module.get_function(name))
        a, b, c = (np.uintp(p) for p in pointers)
        arguments = (system, np.int32(count), a, b, c, np.float64(x), np.float64(y), np.int32(k))
        kernel((-(-count // THREADS),), (THREADS,), arguments)


class DeviceMemory:
    """A device's memory."""

    def __init__(self, cupy: Any) -> None:  # noqa: ANN401
        self._cupy = cupy

    def take(self, values: NDArray[Any], kind: type) -> Any:  # noqa: ANN401
        """Return a copy of `values` on the device; at least one item, so that it has an address."""
        return self._cupy.asarray(np.ascontiguousarray(values, dtype=kind))

    def pointer(self, array: Any) -> int:  # noqa: ANN401
        """Return the address of an array."""
        return int(array.data.ptr)

    def write(self, array: Any, values: NDArray[Any]) -> None:  # noqa: ANN401
        """Copy values of the CPU into an array."""
        array[...] = self._cupy.asarray(values, dtype=array.dtype)

    def read(self, array: Any) -> NDArray[Any]:  # noqa: ANN401
        """Return a copy of an array on the CPU."""
        return array.get()


def device(backend: backends.Backend) -> Device | None:
    """Return a device, None where `auto` finds none; raise PluginError where `cuda` cannot be had."""
    module = array_module(backend)
    return None if module is np else Device(importlib.import_module("cupy"))


class Cuda:
    """Passes over one body by CUDA's kernels; the same calls as `machine.Native`, arrays in the launcher's memory."""

    def __init__(self, lay: Layout, material: str, launcher: Launcher) -> None:
        self._launcher, self._lay = launcher, lay
        self.arrays = Arrays(lay, material, 1, launcher.memory)
        self._host = backends.on_cpu(lay, material, 1)  # the coarse factor is the worker's, on the CPU
        n, m = len(lay.order), len(lay.connectivity)
        self._n, self._m = n, m
        for name, size in (("product", max(3 * n, m)), ("sums", 2 * (SEGMENTS + LAST)), ("scalars", _SCALARS)):
            self.arrays.set(name, np.zeros(size), np.float64)
        self._held = launcher.memory.take(lay.held, np.uint8)
        self._chunk_of = launcher.memory.take(lay.chunk_of, np.int32)
        self._raw, self._system = b"", None

    def evaluate(self, u: Array, force: Array) -> tuple[float, float]:
        """Write the elements' forces at displacements u; return energy [J] and smallest J."""
        self._run("force_elements", self._m, u)
        self._run("gather_forces", self._n, None, force)
        energy = self._total(self._m)
        self._run("least_segments", SEGMENTS, k=self._m)
        least = self._read("sums")[:SEGMENTS].min()
        return energy, float(least)

    def balance(
        self, u: Array, element: Array, targets: Array, share: float, right: Array
    ) -> tuple[float, float, float, float]:
        """Write what is out of balance; return energy [J] of springs and load, and squares of the three forces."""
        springs, size, energy = self.arrays.system.springs, 3 * self._n, 0.0
        self._run("load_nodes", size, None, right, x=share)
        work = self._dot(right, u)
        if springs:
            asked = self.arrays.memory.take(targets, np.float64)
            self._run("spring_pulls", springs, u, right, asked)
            energy = self._total(springs)
            self._run("pull_nodes", 1, None, right)
        outer, inner = self._dot(right, right), self._dot(element, element)
        self._run("hold", size, self._held, right, element)
        return energy - work, self._dot(right, right), inner, outer

    def tangent(self, u: Array) -> None:
        """Assemble the matrix [N/m] and the nodes' part of its preconditioner at displacements u."""
        system = self.arrays.system
        self._run("tangent_elements", self._m, u)
        self._run("gather_uppers", system.uppers)
        self._run("gather_diagonals", self._n)
        self._run("touch", system.touched)
        self._run("invert_diagonals", self._n, self._held)
        self.prepare_wide()

    def prepare_wide(self) -> None:
        """Write (1 + S w D^-1 w')^-1 S of the springs over many nodes: a small matter, the host's."""
        system, host = self.arrays.system, self._host.arrays
        if not system.wide:
            return
        host.system.wide = system.wide
        for name in ("wide_start", "wide_node", "wide_weight", "wide_stiffness", "wide_inner"):
            host.set(name, self._read(name), self.arrays[name].dtype.type)
        host.write("inverse", self._read("inverse"))
        self._host.prepare_wide()
        self.arrays.write("wide_inner", host["wide_inner"])

    def solve(
        self, right: Array, d: Array, most: int, relative: float, absolute: float = 0.0
    ) -> tuple[int, float, float, bool]:
        """Write d with K d = right; return iterations, norms sqrt(r'M^-1 r) before and after, negative curvature.

        All iterations are queued at once: the device decides which of them move, nothing waits for the host.
        """
        n = self._n
        self._run("size_of", n, right)
        self._run("least_segments", SEGMENTS, k=n)
        self._run("begin", 1)
        self._run("start", n, right)
        for _ in range(most + 1):
            self._iteration(most, relative, absolute)
        self._run("finish", n, None, d)
        rz, first, _, _, _, negative, count, scale = self._read("scalars").tolist()
        return int(count), scale * max(first, 0.0) ** 0.5, scale * max(rz, 0.0) ** 0.5, bool(negative)

    def _iteration(self, most: int, relative: float, absolute: float) -> None:
        system, n = self.arrays.system, self._n
        self._run("descend", n)
        self._run("restrict_chunks", 8 * system.chunks)
        self._run("restrict_lattice", system.lattice)
        self._run("sum_segments", SEGMENTS, k=n)
        self._run("sum_last", LAST)
        self._run("wide_points", system.wide)
        self._run("wide_draw", 3 * system.wide)
        self._run("coarse_rows", 3 * system.lattice)
        self._run("weigh", 1, x=relative, y=absolute, k=most)
        self._run("turn", n, self._chunk_of)
        self._run("wide_points", system.wide, k=1)
        self._run("forward", n)
        self._run("sum_segments", SEGMENTS, y=1, k=n)
        self._run("sum_last", LAST, y=1)
        self._run("stride", 1)

    def coarse_inverse(self, values: NDArray[np.float32], added: Array, work: Array, out: NDArray[np.float32]) -> bool:
        """Write (P'KP + added)^-1 [m/N] on the CPU; false where it is not positive definite."""
        return self._host.coarse_inverse(values, added, work, out)

    def dots(self, rows: Array, v: Array, out: Array) -> None:
        """Write the dot products of v with each of `rows`, (count, n, 3)."""
        out[...] = [self._dot(row, v) for row in rows]

    def rms(self, v: Array) -> float:
        """Return the root of the mean squared length of v's rows."""
        return float(np.sqrt(self._dot(v, v) / self._n))

    def combine(self, base: Array, rows: Array, share: Array, out: Array) -> None:
        """Write base plus share times rows, (count, n, 3)."""
        for j, factor in enumerate(share):
            self._run("add_scaled", 3 * self._n, out if j else base, out, rows[j], x=float(factor))

    def spring_points(self, v: Array, out: Array) -> None:
        """Write the springs' weighted means of v, (springs, 3), to the CPU."""
        if self.arrays.system.springs:
            self._run("spring_pulls", self.arrays.system.springs, v)
            out[...] = self._read("pull")

    def _dot(self, first: Array, second: Array) -> float:
        self._run("product_of", 3 * self._n, first, second)
        return self._total(3 * self._n)

    def _total(self, count: int) -> float:
        self._run("sum_segments", SEGMENTS, k=count)
        return float(self._read("sums")[:SEGMENTS].sum())

    def _read(self, name: str) -> NDArray[Any]:
        return self.arrays.memory.read(self.arrays[name])

    def _run(
        self,
        name: str,
        count: int,
        a: Array | None = None,
        b: Array | None = None,
        c: Array | None = None,
        *,
        x: float = 0.0,
        y: float = 0.0,
        k: int = 0,
    ) -> None:
        if not count:
            return
        raw = bytes(self.arrays.system)
        if raw != self._raw:
            self._raw, self._system = raw, self._launcher.system(self.arrays.system)
        where = self.arrays.memory.pointer
        pointers = (0 if a is None else where(a), 0 if b is None else where(b), 0 if c is None else where(c))
        self._launcher.launch(name, self._system, count, pointers, x, y, k)
