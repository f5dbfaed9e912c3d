"""One array module for code that runs on the CPU or on a CUDA device: NumPy or CuPy, asked for by name."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Literal

import numpy as np

from twinguide.errors import PluginError

Backend = Literal["auto", "cpu", "cuda"]


def array_module(backend: Backend) -> Any:  # noqa: ANN401 - numpy, or cupy, which may be absent
    """Return numpy or cupy; `auto` takes cupy where a device answers. Raise PluginError where `cuda` cannot be had."""
    if backend == "cpu":
        return np
    reason = _why_no_cuda()
    if not reason:
        return importlib.import_module("cupy")
    if backend == "auto":
        return np
    raise PluginError("a CUDA device and CuPy", reason, 'backend "cuda"', 'Install twinguide[cuda], or take "cpu".')


def _why_no_cuda() -> str:
    """Return why CuPy cannot be used here, or nothing."""
    if importlib.util.find_spec("cupy") is None:
        return "no module cupy"
    try:
        cupy = importlib.import_module("cupy")
        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "" if count else "no device"
