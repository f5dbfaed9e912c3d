"""One process of the hub, as the loop's process sees it: its start, its control socket, its end."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, cast

import msgspec
import zmq

from twinguide.bus.client import LINGER_MS, BusClient, endpoint
from twinguide.bus.packets import Packet
from twinguide.bus.topics import LOOP
from twinguide.errors import BusError
from twinguide.hosting.ending import last_line
from twinguide.hosting.plan import Control, ControlReply, HubReady, HubSpec, RunPlan, logs_folder
from twinguide.hosting.process import clean_environment

HUB_START_S = 20.0  # imports on a cold disk
CONTROL_S = 5.0
STOP_S = 40.0  # the recorder has 30 of them


class HubLink:
    """Start a process of the hub and keep what leads to it; `connect` once it is `up`."""

    def __init__(self, plan: RunPlan, folder: Path, generation: int) -> None:
        try:
            spec = msgspec.json.encode(HubSpec(plan, str(folder), generation))
        except UnicodeEncodeError as error:
            what = "paths and words that are UTF-8"
            raise BusError(what, str(error), next_step="Rename the folder, or set LC_ALL=C.UTF-8.") from error
        self._sockets = folder / f"hub-{generation}"
        self._virtual = plan.virtual
        self._log = logs_folder(plan, folder) / "hub.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "twinguide.hub"],  # -P: no module of the user's folder is ours
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                env=clean_environment(), start_new_session=True,
            )  # fmt: skip
        self._pidfd = os.pidfd_open(self._process.pid)
        with contextlib.suppress(BrokenPipeError):  # it has died already: `up` says why
            self._stdin.write(spec + b"\n")
            self._stdin.flush()
        self._keys: dict[str, str] = {}
        self._client: BusClient | None = None
        self._control: zmq.Socket[bytes] | None = None
        self._context = zmq.Context()

    @property
    def _stdin(self) -> IO[bytes]:
        return cast("IO[bytes]", self._process.stdin)

    @property
    def pid(self) -> int:
        """The hub's process."""
        return self._process.pid

    @property
    def client(self) -> BusClient:
        """The connection to the hub; raise BusError before `connect`."""
        if self._client is None:
            raise BusError("a hub that is up", "none yet")
        return self._client

    def up(self, timeout_s: float) -> bool:
        """Wait for the hub to be ready; raise BusError with its reason where it refuses or dies."""
        if self._keys:
            return True
        stdout = cast("IO[bytes]", self._process.stdout)
        if not select.select([stdout], [], [], timeout_s)[0]:
            return False
        line = stdout.readline()
        if not line:
            raise BusError("a hub that starts", self.exit_reason(), str(self._log))
        ready = msgspec.json.decode(line, type=HubReady)
        if ready.error:
            raise BusError("a hub that starts", ready.error)
        self._keys = ready.keys
        return True

    def connect(self, asks: dict[str, list[str]]) -> dict[tuple[str, str], str]:
        """Connect, ask for each client's topics; return the refused (client, topic) with the reason."""
        self._client = BusClient(self._sockets, self._keys, lossless=self._virtual)
        refused: dict[tuple[str, str], str] = {}
        for name, topics in asks.items():
            for topic, reason in self._client.subscribe(name, topics, CONTROL_S).items():
                refused[name, topic] = reason
        self._control = self._context.socket(zmq.DEALER)
        self._control.setsockopt(zmq.LINGER, 0)
        self._control.connect(endpoint(self._sockets, "ctl"))
        return refused

    def dead(self) -> bool:
        """Tell whether the hub's process has ended."""
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def exit_reason(self) -> str:
        """Return how the hub ended."""
        code = self._process.wait(1.0)
        if code < 0:
            return f"killed by {signal.Signals(-code).name}"
        return last_line(self._log, self._log_start) or f"exit code {code} without a word"

    def send(self, packet: Packet) -> None:
        """Send a packet, if the hub is connected."""
        if self._client is not None:
            self._client.send(packet)

    def wait(self, seconds: float, bell: int = -1) -> bool:
        """Wait for a packet; False once the time is up, the hub has ended, or `bell`, a descriptor, can be read.

        ZeroMQ's poll counts in whole milliseconds, too coarse within a frame. Its descriptor tells only of changes, so
        the socket is asked for what it has before each wait.
        """
        socket = self.client.socket
        ends = (self._pidfd, bell) if bell >= 0 else (self._pidfd,)
        until = time.monotonic() + seconds
        while True:
            waiting = bool(socket.poll(0))
            remaining_s = until - time.monotonic()
            ready = select.select([socket, *ends], [], [], 0.0 if waiting else max(0.0, remaining_s))[0]
            if remaining_s <= 0.0 or any(end in ready for end in ends):
                return False
            if waiting:
                return True

    def doze(self, seconds: float, bell: int = -1) -> None:
        """Wait as `wait` does, but whatever packets come."""
        select.select([self._pidfd, *([bell] if bell >= 0 else [])], [], [], max(0.0, seconds))

    def control(self, request: Control) -> ControlReply:
        """Ask the hub for something; raise BusError where it does not answer."""
        if self._control is None:
            raise BusError("a hub that is up", "none yet")
        request = msgspec.structs.replace(request, key=self._keys[LOOP])
        self._control.send(msgspec.json.encode(request))
        if not self._control.poll(round(CONTROL_S * 1000)):
            raise BusError(f"the hub's answer to {request.do!r} within {CONTROL_S} s", "none", f"hub {self.pid}")
        return msgspec.json.decode(self._control.recv(), type=ControlReply)

    def stop(self) -> None:
        """Have the hub end all parts, and the recorder when it has written all; then close."""
        if self._control is not None and not self.dead():
            with contextlib.suppress(BusError):
                self.control(Control("", "stop"))
        self.close()

    def close(self) -> None:
        """Close the hub's standard input, which ends it; wait for that, and kill it where it takes too long."""
        if self._client is not None:
            self._client.close(0 if self.dead() else LINGER_MS)
            self._client = None
        if self._control is not None:
            self._control.close()
            self._control = None
        self._context.term()
        with contextlib.suppress(OSError):
            self._stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        cast("IO[bytes]", self._process.stdout).close()
        with contextlib.suppress(OSError):
            os.close(self._pidfd)
