"""Look at the machine: what is there, what lacks, and the remedy for each lack."""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from twinguide.errors import TwinGuideError
from twinguide.promptness import first_in_line

PACKAGES = ("numpy", "scipy", "moderngl", "pyopenxr", "pyzmq", "pluggy", "msgspec", "mcap", "av", "cupy-cuda12x")


@dataclass(frozen=True)
class Check:
    """One thing looked at; `lack` is something that TwinGuide does without, `fault` something that it cannot."""

    name: str
    state: Literal["ok", "lack", "fault"]
    found: str
    remedy: str = ""


def examine() -> list[Check]:
    """Return every check, without starting anything that stays."""
    return [_machine(), _priority(), _gl(), _openxr(), _cuda(), *_packages(), *_plugins()]


def as_tables(checks: list[Check]) -> list[dict[str, str]]:
    """Return the checks as plain tables, for JSON."""
    return [asdict(check) for check in checks]


def _machine() -> Check:
    cores = len(os.sched_getaffinity(0))
    found = f"{cores} cores, Python {platform.python_version()}, {platform.platform(terse=True)}"
    if cores < 2:
        return Check("machine", "lack", found, "Two cores or more keep the frame loop and the parts apart.")
    return Check("machine", "ok", found)


def _priority() -> Check:
    with first_in_line() as granted:
        if granted:
            return Check("real-time priority", "ok", "granted: the frame loop goes before ordinary processes")
    remedy = "Add '@audio - rtprio 10' to /etc/security/limits.conf, join the group, and log in again."
    return Check("real-time priority", "lack", "refused: a frame may wait some 4 ms for another process", remedy)


def _gl() -> Check:
    try:
        from twinguide.render.context import create_context

        ctx = create_context()
    except TwinGuideError as error:
        return Check("GL", "fault", str(error), "On Debian or Ubuntu: apt-get install libegl1 libgl1")
    found = f"{ctx.info['GL_RENDERER']}, GL {ctx.version_code / 100:.1f}"
    ctx.release()
    if "llvmpipe" in found:
        return Check("GL", "ok", found + " (software: for a headset's frame rate use a GPU and its driver)")
    return Check("GL", "ok", found)


def _openxr() -> Check:
    from twinguide.xr.probe import probe

    found = probe()
    return Check("OpenXR runtime", "ok" if found.available else "lack", found.text, found.remedy)


def _cuda() -> Check:
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Check("CUDA", "lack", "no NVIDIA driver (libcuda.so.1)", "Solvers run on the CPU; nothing to do.")
    count = ctypes.c_int(0)
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value == 0:
        return Check("CUDA", "lack", "driver without a device", "Check nvidia-smi.")
    if _version("cupy-cuda12x") is None:
        return Check("CUDA", "lack", f"{count.value} device(s), but no CuPy", "pip install 'twinguide[cuda]'")
    return Check("CUDA", "ok", f"{count.value} device(s)")


def _packages() -> list[Check]:
    found = {name: _version(name) for name in PACKAGES}
    missing = [name for name, number in found.items() if number is None and name != "cupy-cuda12x"]
    text = ", ".join(f"{name} {number}" for name, number in found.items() if number)
    if missing:
        return [Check("packages", "fault", text, f"pip install {' '.join(missing)}")]
    return [Check("packages", "ok", text)]


def _plugins() -> list[Check]:
    from twinguide.registry import Registry

    registry = Registry.load()
    plugins = sorted({*registry.plugin_of.values()})
    checks = [
        Check(f"plugin {name}", "fault", why, "Repair or uninstall it.") for name, why in registry.refused.items()
    ]
    if not plugins:
        remedy = "pip install twinguide brings its own; is this environment the one it was installed in?"
        return [*checks, Check("plugins", "fault", "none found", remedy)]
    parts = ", ".join(
        f"{plugin}: {' '.join(p for p, q in registry.plugin_of.items() if q == plugin)}" for plugin in plugins
    )
    return [*checks, Check("plugins", "ok", parts)]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
