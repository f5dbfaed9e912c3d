"""Build the kernels with the system's C compiler at first use, keep the library, and call it.

The library lies under `~/.cache/twinguide` by the hash of its text, its flags, the compiler and the processor, written
beside and renamed, so that parts that start at once cannot see half a file. Where nothing can be kept (a home that is
read-only, or none), each process builds its own: seconds at its start, and the same speed after.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

KERNELS = Path(__file__).parent / "kernels"
FLAGS = (
    "-O3",
    "-std=gnu11",
    "-march=native",
    "-ffp-contract=fast",  # fused products: fewer roundings, and the same ones on every run of one library
    "-fno-math-errno",
    "-fno-trapping-math",
    "-Wno-psabi",  # vectors are passed to inlined functions only
    "-shared",
    "-fPIC",
    "-fvisibility=hidden",
)
_SECONDS = 120
_PLACE = ctypes.c_char * 0  # of no size, as an array may be empty
NONE = "no C compiler: none of $CC, cc, gcc, clang is on the path and finds math.h (Debian, Ubuntu: gcc libc6-dev)"


class NoCompiler(Exception):
    """Say why the kernels could not be built here."""


def compiler() -> str | None:
    """Return the C compiler to use, of $CC, cc, gcc and clang the first that finds the C library's headers, or None."""
    names = [os.environ.get("CC", ""), "cc", "gcc", "clang"]
    return next((found for name in names if name and (found := shutil.which(name)) and _has_headers(found)), None)


@lru_cache(maxsize=4)
def _has_headers(cc: str) -> bool:
    command, headers = [cc, "-fsyntax-only", "-xc", "-"], b"#include <math.h>\n#include <stdint.h>\n"
    try:
        told = subprocess.run(command, input=headers, capture_output=True, check=False, timeout=_SECONDS)
    except (OSError, subprocess.SubprocessError):  # a file that is no program, or one that hangs
        return False
    return told.returncode == 0


@lru_cache(maxsize=4)
def library(source: str = "cpu.c", extra: tuple[str, ...] = ("-fopenmp",)) -> ctypes.CDLL:
    """Return the library of one kernel text, built if it is new; raise NoCompiler with the reason."""
    cc = compiler()
    if cc is None:
        raise NoCompiler(NONE)
    errors: list[str] = []
    alone = (*FLAGS, *(flag for flag in extra if flag != "-fopenmp"))  # a clang without its OpenMP still runs
    for flags in dict.fromkeys([(*FLAGS, *extra), alone]):
        try:
            return _load(cc, source, flags)
        except (OSError, subprocess.SubprocessError) as error:
            errors.append(str(getattr(error, "stderr", "") or error)[-500:])
    raise NoCompiler(f"{cc} cannot build {source}: " + " | ".join(errors))


def _load(cc: str, source: str, flags: tuple[str, ...]) -> ctypes.CDLL:
    name = f"{source.split('.')[0]}-{_fingerprint(cc, source, flags)}.so"
    try:
        path = cache() / name
        if not path.exists():
            _build(cc, source, flags, path)
        return ctypes.CDLL(str(path))
    except (OSError, RuntimeError):  # no home, no right to write there or to run what lies there, or a spoilt file
        with tempfile.TemporaryDirectory(prefix="twinguide-") as folder:
            _build(cc, source, flags, Path(folder) / name)
            return ctypes.CDLL(str(Path(folder) / name))  # stays loaded when its file is gone


def pointer(array: NDArray[Any]) -> Any:  # noqa: ANN401 - what ctypes passes by reference has no public type
    """Return where an array lies, as a kernel's argument: in a third of the time that `array.ctypes` takes."""
    return ctypes.byref(_PLACE.from_buffer(array.data))


def cache() -> Path:
    """Return the folder where what is built is kept; raise OSError or RuntimeError where there is none."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    (base / "twinguide").mkdir(parents=True, exist_ok=True)
    return base / "twinguide"


def _build(cc: str, source: str, flags: tuple[str, ...], path: Path) -> None:
    handle, name = tempfile.mkstemp(suffix=".so", dir=path.parent)
    os.close(handle)
    try:
        command = [cc, *flags, str(KERNELS / source), "-o", name, "-lm"]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=_SECONDS)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)


def fingerprint(source: str = "reduced.c") -> str:
    """Return the hash of the kernels, compiler and processor; raise NoCompiler without one."""
    cc = compiler()
    if cc is None:
        raise NoCompiler(NONE)
    return _fingerprint(cc, source, FLAGS)


def _fingerprint(cc: str, source: str, flags: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for path in sorted(KERNELS.iterdir()):
        if path.is_file():
            digest.update(path.name.encode() + path.read_bytes())
    version = subprocess.run([cc, "--version"], capture_output=True, text=True, timeout=_SECONDS).stdout
    digest.update("\n".join([cc, source, version, _processor(), *flags]).encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    """Return what -march=native looks at: a home may be shared between machines."""
    try:
        found = re.search(r"^(flags|Features)\s*:.*$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return platform.machine() + (found.group(0) if found else platform.processor())
