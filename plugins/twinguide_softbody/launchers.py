"""What launches the kernels of `kernels/cuda.cu`: a CUDA device, or the same text on a CPU, thread after thread."""

from __future__ import annotations

import ctypes
import importlib
import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinguide.compute import array_module
from twinguide.errors import PluginError

from . import native
from .arrays import Host, Memory, System

THREADS = 64  # to a block: most kernels hold a few dozen registers, and small bodies should still fill the device


class Shim:
    """The kernels' text on the CPU, by its first thread first or last; raises NoCompiler without a C compiler."""

    def __init__(self, *, backwards: bool = False) -> None:
        self._library = native.library("shim.c", ("-DBACKWARDS=1",) if backwards else ())
        self._captured: list[tuple[Any, ...]] | None = None
        self.memory: Memory = Host()

    def system(self, system: System) -> System:
        """Return a copy of the system, as a device has it."""
        return System.from_buffer_copy(system)

    def launch(
        self, name: str, system: object, count: int, pointers: tuple[int, int, int], x: float, y: float, k: int
    ) -> None:
        """Run every thread of a kernel in turn."""
        if self._captured is not None:
            self._captured.append((name, system, count, pointers, x, y, k))
            return
        assert isinstance(system, System)
        a, b, c = (ctypes.c_void_p(p) for p in pointers)
        run = getattr(self._library, f"run_{name}")
        run(ctypes.byref(system), ctypes.c_int(count), a, b, c, ctypes.c_double(x), ctypes.c_double(y), ctypes.c_int(k))

    def capture(self, flow: Callable[[], None]) -> object:
        """Return the kernels that `flow` launches."""
        self._captured = captured = []
        try:
            flow()
        finally:
            self._captured = None
        return captured

    def replay(self, captured: Any) -> None:  # noqa: ANN401
        """Run what was captured."""
        for kernel in captured:
            self.launch(*kernel)


class Device:
    """A CUDA device through CuPy; everything on one stream, so that no kernel meets what another still writes."""

    def __init__(self, cupy: Any) -> None:  # noqa: ANN401
        text = (native.KERNELS / "cuda.cu").read_text()
        module = cupy.RawModule(code=text, options=("--std=c++14", f"-I{native.KERNELS}"))
        names = re.findall(r"^KERNEL\((\w+)\)", text, re.MULTILINE)
        self._kernels = {name: module.get_function(name) for name in names}
        for kernel in self._kernels.values():
            _ = kernel.num_regs  # loads it: a kernel may be captured only where nothing is left to load
        self._stream = cupy.cuda.Stream(non_blocking=True)
        self.memory: Memory = DeviceMemory(cupy, self._stream)

    def system(self, system: System) -> object:
        """Copy the system to the device."""
        return self.memory.take(np.frombuffer(bytes(system), np.uint8), np.uint8)

    def launch(
        self, name: str, system: object, count: int, pointers: tuple[int, int, int], x: float, y: float, k: int
    ) -> None:
        """Queue a kernel; nothing waits."""
        a, b, c = (np.uintp(p) for p in pointers)
        arguments = (system, np.int32(count), a, b, c, np.float64(x), np.float64(y), np.int32(k))
        with self._stream:
            self._kernels[name]((-(-count // THREADS),), (THREADS,), arguments)

    def capture(self, flow: Callable[[], None]) -> object:
        """Return a CUDA graph of what `flow` launches."""
        with self._stream:
            self._stream.begin_capture()
            try:
                flow()
            finally:
                graph = self._stream.end_capture()
        return graph

    def replay(self, captured: Any) -> None:  # noqa: ANN401
        """Launch the graph; nothing waits."""
        captured.launch(self._stream)


class DeviceMemory:
    """A device's memory, by way of one stream."""

    def __init__(self, cupy: Any, stream: Any) -> None:  # noqa: ANN401
        self._cupy, self._stream = cupy, stream
        self._pinned = importlib.import_module("cupyx").empty_pinned  # what is copied to it is not copied twice

    def take(self, values: NDArray[Any], kind: type) -> Any:  # noqa: ANN401
        """Return a copy of `values` on the device."""
        with self._stream:
            array = self._cupy.empty(values.shape, kind)
        self.write(array, values)
        return array

    def pointer(self, array: Any) -> int:  # noqa: ANN401
        """Return the address of an array; 0 of one that is empty."""
        return int(array.data.ptr)

    def write(self, array: Any, values: NDArray[Any]) -> None:  # noqa: ANN401
        """Copy values of the CPU into an array, which holds them in one piece."""
        array.set(np.ascontiguousarray(np.broadcast_to(values, array.shape), array.dtype), self._stream)

    def read(self, array: Any) -> NDArray[Any]:  # noqa: ANN401
        """Return a copy of an array on the CPU: wait for all that is queued."""
        return array.get(self._stream, out=self._pinned(array.shape, array.dtype))


def device() -> Device:
    """Return a device; raise PluginError where none can be had, or where it cannot build the kernels."""
    cupy = array_module("cuda")
    try:
        return Device(cupy)
    except Exception as error:
        wanted, got = "a CUDA device that builds the kernels", f"{type(error).__name__}: {error}"
        raise PluginError(wanted, got, 'backend "cuda"', 'Take "cpu".') from error
