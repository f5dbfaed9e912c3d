#!/usr/bin/env python3
"""Run a program against Monado, a real OpenXR runtime, without root, display or graphics card.

    tools/monado.py fetch                                             unpack Monado and Mesa into the cache (once)
    tools/monado.py run -- .venv/bin/twinguide run SCENARIO --headset openxr
    tools/monado.py run --head 0 1.45 0.1 --look 0 1 -0.4 -- ...      a wearer who stands there and looks at a point
    tools/monado.py run --display xvfb -- python -m pytest tests/xr   with a compositor whose picture can be read

Monado and Mesa (lavapipe, llvmpipe) come from Debian trixie through this machine's own apt: about 165 MB to download
and 600 MB on disk, by default in ~/.cache/twinguide/monado (TWINGUIDE_MONADO names another folder). Service and
program run on the dynamic loader of that folder, so an older host's Python works as it is. Needs apt-get and dpkg-deb
(Debian or Ubuntu), no other rights than to write into the cache. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from monado_prefix import MonadoError, fetch, libraries
from monado_puppet import Puppet

# Set for the program, and wrong for children that run on the host's own libraries: they drop these.
GL_VARIABLES = (
    "VK_DRIVER_FILES",
    "VK_ICD_FILENAMES",
    "VK_LOADER_LAYERS_DISABLE",
    "__EGL_VENDOR_LIBRARY_FILENAMES",
    "LIBGL_DRIVERS_PATH",
    "GBM_BACKENDS_PATH",
)
READY_S = 20.0


def environment(prefix: Path, runtime: Path) -> dict[str, str]:
    """Return the variables under which a program finds this Monado, with its socket in `runtime`."""
    values = (prefix / "vulkan.json", prefix / "vulkan.json", "~implicit~", prefix / "egl.json")
    folders = (libraries(prefix) / "dri", libraries(prefix) / "gbm")
    gl = dict(zip(GL_VARIABLES, map(str, (*values, *folders)), strict=True))
    return {**gl, "XDG_RUNTIME_DIR": str(runtime), "XR_RUNTIME_JSON": str(prefix / "openxr.json")}


def command(prefix: Path, program: str, *arguments: str) -> list[str]:
    """Return the command that runs a program of the prefix or of the host on the prefix's loader and libraries."""
    own = prefix / "root/usr/bin" / program
    found = str(own) if own.is_file() else shutil.which(program)
    if found is None:
        raise MonadoError(f"no program {program!r} on this machine or in {prefix}")
    with Path(found).open("rb") as file:  # a script's interpreter is what the loader can run
        line = file.readline().decode(errors="replace")
    if line.startswith("#!"):
        interpreter, *options = line[2:].split()
        return command(prefix, interpreter, *options, found, *arguments)
    loader = next(path for path in sorted((prefix / "root/usr").glob("lib*/ld-linux-*.so.*")))
    lib = libraries(prefix)
    # Maintainer scripts, which do not run here, would make the last three visible.
    path = ":".join(map(str, (lib, prefix / "root/usr/lib", lib / "blas", lib / "lapack", lib / "pulseaudio")))
    return [str(loader), "--library-path", path, "--argv0", found, found, *arguments]


def free_port() -> int:
    """Return a TCP port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Service:
    """One Monado service with a runtime folder, home and port of its own, so that several can run side by side.

    `driver` is `remote` (poses and buttons come over TCP on `port`, which Monado opens on all interfaces) or
    `simulated` (a head that wobbles, two resting controllers). `display` is an X display such as `:78`, or empty for
    Monado's null compositor.
    """

    def __init__(self, prefix: Path, driver: str = "remote", display: str = "") -> None:
        self.prefix, self.port = prefix, free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="tg-xr-"))  # short: a socket's path has at most 107 characters
        self.runtime = self.folder / "run"
        self.runtime.mkdir(mode=0o700)
        self.log = self.folder / "service.log"
        self._process: subprocess.Popen[bytes] | None = None
        settings = {"active": driver, "remote": {"version": 0, "port": self.port, "view_count": 2}}
        (self.folder / ".config/monado").mkdir(parents=True)
        (self.folder / ".config/monado/config_v0.json").write_text(json.dumps(settings))
        self._settings = {
            "XRT_NO_STDIN": "1",
            "HOME": str(self.folder),
            "XDG_CONFIG_HOME": str(self.folder / ".config"),
        }
        if driver == "remote":
            self._settings["P_OVERRIDE_ACTIVE_CONFIG"] = "remote"
        else:
            simulated = ("SIMULATED_ENABLE", "1"), ("SIMULATED_LEFT", "simple"), ("SIMULATED_RIGHT", "simple")
            self._settings.update(simulated)
        if display:
            names = ("XRT_COMPOSITOR_FORCE_XCB", "XRT_COMPOSITOR_XCB_FULLSCREEN")
            self._settings.update(dict.fromkeys(names, "1"), DISPLAY=display, XRT_COMPOSITOR_SCALE_PERCENTAGE="100")
        else:
            self._settings["XRT_COMPOSITOR_NULL"] = "1"

    @property
    def client_environment(self) -> dict[str, str]:
        """Return the whole environment for a client of this service."""
        return {**os.environ, **environment(self.prefix, self.runtime), "TWINGUIDE_MONADO_PORT": str(self.port)}

    def start(self) -> None:
        """Start the service and wait until it answers; raise MonadoError with the end of its log where it does not."""
        ready = self.runtime / "monado_comp_ipc"
        for left_behind in (ready, self.runtime / "monado.pid"):
            left_behind.unlink(missing_ok=True)
        keeper = shutil.which("setpriv")  # it lets the service die with this process, however that ends
        bound = [keeper, "--pdeathsig", "KILL"] if keeper else []
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*bound, *command(self.prefix, "monado-service")],
                env={**self.client_environment, **self._settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_S
        while not ready.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise MonadoError(f"monado-service did not start: {self.log.read_text(errors='replace')[-500:]}")
            time.sleep(0.02)

    def send(self, sent: signal.Signals) -> None:
        """Send the service a signal: SIGKILL is a crash, SIGSTOP a hang, SIGCONT its end."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(sent)
            if sent == signal.SIGKILL:
                self._process.wait()

    def stop(self) -> None:
        """End the service, whatever state it is in."""
        self.send(signal.SIGCONT)
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5.0)
            except subprocess.TimeoutExpired:
                self.send(signal.SIGKILL)

    def close(self) -> None:
        """End the service and remove its folder."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def xvfb(size: tuple[int, int] = (1920, 1080)) -> Iterator[tuple[str, Path]]:
    """Run an X server without a screen; yield its display and the XWD file in which its picture always stands."""
    server = shutil.which("Xvfb")
    if server is None:
        raise MonadoError("the compositor's picture needs Xvfb: apt-get install xvfb")
    folder = Path(tempfile.mkdtemp(prefix="tg-x-"))
    read, write = os.pipe()
    screen = f"{size[0]}x{size[1]}x24"
    options = ["-displayfd", str(write), "-screen", "0", screen, "-nolisten", "tcp", "-fbdir", str(folder)]
    process = subprocess.Popen([server, *options], pass_fds=(write,), stderr=subprocess.DEVNULL)
    os.close(write)
    try:
        with os.fdopen(read) as answer:
            number = answer.readline().strip()
        if not number:
            raise MonadoError(f"Xvfb did not start, exit status {process.wait(5.0)}")
        yield f":{number}", folder / "Xvfb_screen0"
    finally:
        process.terminate()
        process.wait(5.0)
        shutil.rmtree(folder, ignore_errors=True)


def run(program: Sequence[str], driver: str, display: str, wearer: Puppet | None) -> int:
    """Run a program beside a service of its own and return its exit status."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # so that the service is ended too
    with contextlib.ExitStack() as stack:
        screen = stack.enter_context(xvfb())[0] if display == "xvfb" else ""
        service = Service(fetch(), driver, screen)
        stack.callback(service.close)
        service.start()
        if wearer is not None:
            wearer.connect(service.port)
            stack.callback(wearer.close)
            wearer.send()
        return subprocess.run(command(service.prefix, *program), env=service.client_environment).returncode


def main() -> int:
    """Answer the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = parser.add_subparsers(dest="action", required=True)
    actions.add_parser("fetch", help="unpack Monado and Mesa into the cache, once")
    runner = actions.add_parser("run", help="run a program beside a service of its own")
    runner.add_argument("--driver", choices=["simulated", "remote"], default="remote")
    runner.add_argument("--head", nargs=3, type=float, metavar=("X", "Y", "Z"), help="where the eyes are [m], in stage")
    runner.add_argument("--look", nargs=3, type=float, metavar=("X", "Y", "Z"), help="at which point [m], in stage")
    runner.add_argument("--display", choices=["null", "xvfb"], default="null")
    runner.add_argument("program", nargs=argparse.REMAINDER, help="-- PROGRAM ARGUMENTS")
    chosen = parser.parse_args()
    try:
        if chosen.action == "fetch":
            print(fetch())
            return 0
        program = chosen.program[1:] if chosen.program[:1] == ["--"] else chosen.program
        wearer = Puppet(position=tuple(chosen.head)) if chosen.head else None
        if wearer is not None and chosen.look:
            wearer.look_at(tuple(chosen.look))
        return run(program or [sys.executable], chosen.driver, chosen.display, wearer)
    except MonadoError as error:
        print(f"monado: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
