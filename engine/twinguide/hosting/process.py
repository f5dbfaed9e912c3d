"""What a process of ours asks of Linux: die with its parent, adopt orphans, know another by its pidfd."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 15, 36

# One thread a process for linear algebra, hashes alike in all, and none of the loop's GL or XR overrides.
CLEAN = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
OVERRIDES = (
    "LIBGL_",
    "__EGL_",
    "__GLX_",
    "EGL_",
    "GALLIUM_",
    "MESA_",
    "LP_",
    "VK_",
    "GBM_",
    "XR_",
    "XRT_",
    "LD_",
    "DISPLAY",
    "WAYLAND_",
)


def clean_environment() -> dict[str, str]:
    """Return this process's environment without overrides of GL, OpenXR and the linker, one BLAS thread."""
    return {k: v for k, v in os.environ.items() if not k.startswith(OVERRIDES)} | CLEAN


def adopt_orphans() -> None:
    """Become the parent of every orphaned descendant, so that a part forked elsewhere is this process's child."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1)


def name_process(name: str) -> None:
    """Let `ps` and `top` tell this process from its siblings by the first 15 characters of a name."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _prctl(PR_SET_NAME, ctypes.addressof(buffer))


def die_with(parent: int, with_signal: int = signal.SIGKILL) -> None:
    """Be sent a signal when the parent ends; end at once where it has ended already.

    A part is forked by way of a process that ends, and is adopted a moment later.
    """
    until = time.monotonic() + 2.0
    while os.getppid() != parent:
        if time.monotonic() > until:
            raise SystemExit(f"process {parent} has gone before this one could begin")
        time.sleep(0.0005)
    _prctl(PR_SET_PDEATHSIG, with_signal)
    if os.getppid() != parent:
        raise SystemExit(f"process {parent} has gone before this one could begin")


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {value}): {os.strerror(number)}")


def used_ns(pid: int) -> int | None:
    """Return how long a process has run [ns] that runs or waits for a core; None where it waits for something else."""
    folder = Path(f"/proc/{pid}")
    try:
        ready = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "R"
        return int((folder / "schedstat").read_text().split()[0]) if ready else None
    except (OSError, IndexError, ValueError):  # gone, or a kernel without scheduler statistics
        return None


def waited_ns(pid: int) -> int:
    """Return how long a process has waited for a core [ns], in all; 0 where that cannot be told."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
    except (OSError, IndexError, ValueError):  # gone, or a kernel without scheduler statistics
        return 0


def yield_to_others(nice: int) -> None:
    """Let this process, a session of its own, yield to less nice ones.

    Linux groups the processes of a session for its scheduler (sched_autogroup) and compares niceness only within a
    group, groups with one another by a niceness of their own: without it a solver takes as much of a core as the loop.
    """
    os.nice(nice)
    with contextlib.suppress(OSError):  # a kernel without autogroups, or with a stricter owner
        Path("/proc/self/autogroup").write_text(f"{nice}\n")
