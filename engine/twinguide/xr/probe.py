"""Which OpenXR runtime is configured here, and whether it answers, for `twinguide doctor`.

The runtime's library is loaded in a forked child: what it does to its process, crashing included, stays there, and the
child is killed where it does not answer in time. A fork and not a new interpreter, because it is quicker and runs on
the same dynamic loader. Only ctypes is used: to import pyopenxr takes longer than the whole probe may.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import os
import platform
import select
import signal
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twinguide.clock import SECOND

PATIENCE_S = 0.25  # for the runtime to answer: every run that may choose its headset waits for it
NEEDED = ("XR_KHR_opengl_enable", "XR_MNDX_egl_enable")
API_VERSION = 1 << 48  # OpenXR 1.0.0
TYPE_EXTENSION, TYPE_CREATE, TYPE_PROPERTIES = 2, 3, 32  # XrStructureType
ERRORS = {-2: "it failed: is its service running?", -6: "it failed to initialise", -51: "its library cannot be loaded"}


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found: `available` where a session can be tried; else `reason` and `remedy` say why not."""

    available: bool
    manifest: str = ""  # the file that names the runtime
    runtime: str = ""
    version: str = ""
    extensions: tuple[str, ...] = ()
    reason: str = ""
    remedy: str = ""

    @property
    def text(self) -> str:
        """Say in one line what was found."""
        if self.available:
            return f"{self.runtime}, {len(self.extensions)} extensions"
        return f"{self.reason} ({self.manifest})" if self.manifest else self.reason


class _Extension(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("name", ctypes.c_char * 128),
        ("version", ctypes.c_uint32),
    )


class _CreateInfo(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("application", ctypes.c_char * 128),
        ("application_version", ctypes.c_uint32),
        ("engine", ctypes.c_char * 128),
        ("engine_version", ctypes.c_uint32),
        ("api_version", ctypes.c_uint64),
        ("layer_count", ctypes.c_uint32),
        ("layers", ctypes.c_void_p),
        ("extension_count", ctypes.c_uint32),
        ("extensions", ctypes.c_void_p),
    )


class _Properties(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint32),
        ("next", ctypes.c_void_p),
        ("version", ctypes.c_uint64),
        ("name", ctypes.c_char * 128),
    )


def runtime_manifest(environment: Mapping[str, str]) -> Path | None:
    """Return the file that names the active runtime, where the OpenXR loader looks for it, or None."""
    named = environment.get("XR_RUNTIME_JSON")
    if named:
        return Path(named)
    home = environment.get("XDG_CONFIG_HOME") or str(Path(environment.get("HOME", "~")).expanduser() / ".config")
    system = (environment.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":")
    for folder in (home, *system, "/etc"):
        for name in (f"active_runtime.{platform.machine()}.json", "active_runtime.json"):
            path = Path(folder) / "openxr/1" / name
            if path.is_file():
                return path
    return None


def probe() -> Probe:
    """Ask for the runtime that this process would use; takes at most 0.3 s and never raises for a lack."""
    manifest = runtime_manifest(os.environ)
    if manifest is None:
        reason, remedy = "no OpenXR runtime is configured", "Install and activate one (Monado, SteamVR, WiVRn)"
        return Probe(False, reason=reason, remedy=f"{remedy}, or use --headset simulated.")
    where = str(manifest)
    if not manifest.is_file():
        return Probe(False, where, reason="the runtime's file is missing", remedy="Correct XR_RUNTIME_JSON.")
    loader = _loader()
    if loader is None:
        remedy = "pip install 'pyopenxr>=1.1.6501'."
        return Probe(False, where, reason="pyopenxr's OpenXR loader is not installed", remedy=remedy)
    answer = _ask_in_child(loader)
    extensions = tuple(answer.get("extensions", ()))
    found = Probe(False, where, answer.get("runtime", ""), answer.get("version", ""), extensions)
    if "error" in answer:
        return _with(found, answer["error"], "Start the runtime (monado-service, SteamVR) and connect the headset.")
    missing = [name for name in NEEDED if name not in extensions]
    if missing:
        return _with(found, f"the runtime lacks {', '.join(missing)}", "Use a runtime that renders from EGL: Monado.")
    return Probe(True, where, found.runtime, found.version, extensions)


def _with(found: Probe, reason: str, remedy: str) -> Probe:
    return Probe(False, found.manifest, found.runtime, found.version, found.extensions, reason, remedy)


def _loader() -> Path | None:
    """Return pyopenxr's copy of the OpenXR loader without importing pyopenxr."""
    spec = importlib.util.find_spec("xr")
    if spec is None or spec.origin is None:
        return None
    paths = sorted((Path(spec.origin).parent / "library").glob(f"**/{platform.machine()}/**/libopenxr_loader.so*"))
    direct = Path(spec.origin).parent / "library/libopenxr_loader.so"
    return direct if direct.is_file() else next(iter(paths), None)


def _ask_in_child(loader: Path) -> dict[str, Any]:
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the child runs nothing of theirs
        child = os.fork()
    if child == 0:
        _answer(loader, write)
    os.close(write)
    data = b""
    deadline = time.monotonic_ns() + round(PATIENCE_S * SECOND)
    try:
        while True:
            left = max(0, deadline - time.monotonic_ns()) / SECOND
            if not select.select([read], [], [], left)[0]:
                return {"error": f"the runtime did not answer in {PATIENCE_S:g} s", **_parsed(data)}
            block = os.read(read, 65536)
            if not block:
                return _parsed(data) or {"error": "the runtime's library ended its process"}
            data += block
    finally:
        os.close(read)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _parsed(data: bytes) -> dict[str, Any]:
    """Return the child's lines of JSON, later ones over earlier ones; an unfinished line is left out."""
    merged: dict[str, Any] = {}
    for line in data.splitlines(keepends=True):
        if line.endswith(b"\n"):
            merged.update(json.loads(line))
    return merged


def _answer(loader: Path, pipe: int) -> None:
    """Tell what the runtime says, in the forked child, and end it."""
    try:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        library = ctypes.CDLL(str(loader))
        for tell in (_extensions, _properties):
            os.write(pipe, json.dumps(tell(library)).encode() + b"\n")
    except Exception as error:
        os.write(pipe, json.dumps({"error": str(error)}).encode() + b"\n")
    finally:
        os._exit(0)


def _checked(result: int) -> None:
    if result < 0:
        raise OSError(ERRORS.get(result, f"OpenXR error {result}"))


def _extensions(library: ctypes.CDLL) -> dict[str, Any]:
    call, count = library.xrEnumerateInstanceExtensionProperties, ctypes.c_uint32()
    _checked(call(None, 0, ctypes.byref(count), None))
    found = (_Extension * count.value)(*[_Extension(type=TYPE_EXTENSION) for _ in range(count.value)])
    _checked(call(None, count, ctypes.byref(count), found))
    return {"extensions": sorted(extension.name.decode() for extension in found)}


def _properties(library: ctypes.CDLL) -> dict[str, Any]:
    """Connect once: only an instance shows whether the runtime's service runs."""
    info = _CreateInfo(type=TYPE_CREATE, application=b"TwinGuide doctor", api_version=API_VERSION)
    instance, properties = ctypes.c_void_p(), _Properties(type=TYPE_PROPERTIES)
    _checked(library.xrCreateInstance(ctypes.byref(info), ctypes.byref(instance)))
    _checked(library.xrGetInstanceProperties(instance, ctypes.byref(properties)))
    version = properties.version
    return {
        "runtime": properties.name.decode(),
        "version": f"{version >> 48}.{version >> 32 & 0xFFFF}.{version & 0xFFFFFFFF}",
    }
