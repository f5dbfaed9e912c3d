"""The hub's loop: broker, supervisor and control socket, woken by whatever comes first."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import zmq

from twinguide.bus.client import endpoint
from twinguide.bus.topics import LOOP, RECORDER, topic_name
from twinguide.clock import MS, SECOND
from twinguide.hosting.plan import ChildSpec, Control, ControlReply, HubSpec, logs_folder, permissions_of
from twinguide.hosting.process import clean_environment
from twinguide.hub import zygote
from twinguide.hub.broker import Broker, bind
from twinguide.hub.supervisor import RECORDER_SILENT_NS, Child, Supervisor, silence_allowed_ns
from twinguide.messages import PartState
from twinguide.registry import Registry

TICK_MS = 20
RECORDER_GRACE_NS = 30 * SECOND  # for what a slow disk has not yet taken
MOST_LOGGED = 16 << 20  # bytes of a part's log
BOOTS = 1000  # of a part in one generation of the hub
QUIET_NS = 50 * MS  # after the last part has ended: what it sent is still on its way
log = logging.getLogger(__name__)


class Hub:
    """The hub of a run, from its start to its end."""

    def __init__(self, spec: HubSpec, sockets: Path, registry: Registry, forks: socket.socket | None) -> None:
        self._spec = spec
        self._plan = spec.plan
        self._sockets = sockets
        self._forks = forks
        self._permissions = permissions_of(spec.plan, registry)
        self._logs = logs_folder(spec.plan, Path(spec.folder))
        self._logs.mkdir(parents=True, exist_ok=True)
        self._broker = Broker(sockets, self._permissions, registry.catalogue(), virtual=self._plan.virtual)
        self._control = self._broker.context.socket(zmq.ROUTER)
        self._control.setsockopt(zmq.LINGER, 500)
        bind(self._control, endpoint(sockets, "ctl"))
        children = {name: self._child(name) for name in self._permissions.remote}
        self._supervisor = Supervisor(
            children, self._spawn, self._watch, self._tell,
            lambda name: self._broker.seen_ns.get(name, 0), round(self._plan.start_deadline_s * SECOND),
        )  # fmt: skip
        inside = [p.name for p in self._plan.parts if p.name not in self._permissions.remote]
        self.keys = {name: self._broker.admit(name) for name in (LOOP, *inside)}
        self._poller = zmq.Poller()
        self._actions: dict[object, Callable[[], None]] = {}
        self._quiet_since_ns = 0
        self._done = False

    def _child(self, name: str) -> Child:
        rate = 0.0 if name == RECORDER else self._permissions.parts[name].rate_hz
        silent = RECORDER_SILENT_NS if name == RECORDER else silence_allowed_ns(rate, self._plan.hung_after_s)
        return Child(name, silent, (self._spec.generation - 1) * BOOTS + 1, self._logs / f"{name}.log")

    def run(self, stdin: int) -> None:
        """Serve until all is stopped; the end of standard input means that the app has died."""
        self._on(self._broker.incoming, self._broker.forward)
        self._on(self._broker.outgoing, self._broker.grant)
        self._on(self._control, self._serve)
        self._on(stdin, lambda: self._app_ended(stdin))
        if self._forks is not None:
            self._on(self._forks.fileno(), self._read_forks)
        gc.collect()
        gc.freeze()
        gc.disable()
        ticked_ns = 0
        while not self._done:
            for key, _ in self._poller.poll(TICK_MS):
                if action := self._actions.get(key):
                    action()
            if time.monotonic_ns() - ticked_ns > TICK_MS * MS:
                ticked_ns = time.monotonic_ns()
                self._tick()

    def close(self) -> None:
        """Close the sockets and end what is left."""
        for child in self._supervisor.children.values():
            self._supervisor.kill(child)
        self._control.close()
        self._broker.close()

    def _on(self, key: zmq.Socket[bytes] | int, action: Callable[[], None]) -> None:
        self._poller.register(key, zmq.POLLIN)
        self._actions[key] = action

    def _off(self, key: int) -> None:
        self._poller.unregister(key)
        del self._actions[key]

    def _tick(self) -> None:
        gc.collect(0)
        self._bound_logs()
        self._supervisor.check(virtual=self._plan.virtual)
        if not self._plan.virtual:
            self._supervisor.check_loop(round(self._plan.hung_after_s * SECOND))
        if self._supervisor.stopping:
            self._go_on_stopping()

    def _bound_logs(self) -> None:
        for name in (LOOP, *self._supervisor.children):
            file = self._logs / f"{name}.log"
            with contextlib.suppress(OSError):  # no log yet
                if file.stat().st_size > MOST_LOGGED:
                    file.write_text(f"emptied at {MOST_LOGGED >> 20} MB: the disk is the recording's\n")
                    log.warning("%s emptied at %d MB", file, MOST_LOGGED >> 20)

    # ---- children ----------------------------------------------------------------------------------------------------

    def _spawn(self, child: Child) -> None:
        """Have a part's process forked; start it from nothing for another interpreter, or once the zygote has died."""
        spec_fd = self._spec_file(child)
        log_fd = os.open(child.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        interpreter = "" if child.name == RECORDER else self._plan.part(child.name).interpreter
        try:
            if self._forks is not None and not interpreter:
                try:
                    zygote.ask(self._forks, child.name, child.boot, spec_fd, log_fd)
                    return
                except OSError:
                    self._lose_zygote()  # which starts this one too
                    return
            self._start(child, interpreter or sys.executable, spec_fd, log_fd)
        finally:
            os.close(spec_fd)
            os.close(log_fd)

    def _spec_file(self, child: Child) -> int:
        """Return a memory file with the child's spec and its new secret key."""
        key = self._broker.admit(child.name)
        spec = ChildSpec(
            self._plan, child.name, child.boot, key, self._spec.folder, str(self._sockets), os.getpid()
        )  # fmt: skip
        fd = os.memfd_create("spec")
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(msgspec.json.encode(spec))
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def _start(self, child: Child, interpreter: str, spec_fd: int, log_fd: int) -> None:
        actions = [(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in ((0, spec_fd), (1, log_fd), (2, log_fd))]
        arguments = [interpreter, "-P", "-m", "twinguide.hosting"]
        try:
            pid = os.posix_spawn(interpreter, arguments, clean_environment(), file_actions=actions)
        except OSError as error:
            os.write(log_fd, f"{interpreter}: {error}\n".encode())
            pid = os.posix_spawn("/bin/false", ["false"], {})  # ends at once: takes the way of every part that dies
        self._supervisor.started(child.name, child.boot, pid)

    def _read_forks(self) -> None:
        try:
            self._take_forked()
        except BlockingIOError:
            return
        except OSError:
            pass
        self._lose_zygote()

    def _take_forked(self) -> None:
        """Take all that the zygote has answered; raise BlockingIOError where it lives, return where it has died."""
        assert self._forks is not None
        while answer := self._forks.recv(zygote.REQUEST_LIMIT):
            forked = msgspec.json.decode(answer, type=zygote.Forked)
            self._supervisor.started(forked.name, forked.boot, forked.pid)

    def _lose_zygote(self) -> None:
        if self._forks is None:
            return
        with contextlib.suppress(OSError):
            self._take_forked()  # what it forked before it died runs
        self._off(self._forks.fileno())
        self._forks.close()
        self._forks = None
        for child in self._supervisor.children.values():
            if child.begun_ns and child.state in ("starting", "restarting") and child.pidfd < 0:
                self._spawn(child)  # asked for, and never forked

    def _watch(self, pidfd: int, name: str) -> None:
        self._on(pidfd, lambda: self._ended(pidfd, name))

    def _ended(self, pidfd: int, name: str) -> None:
        self._broker.forward()  # what it sent last comes before the news of its end
        if self._supervisor.children[name].pidfd == pidfd:
            self._off(pidfd)
            if self._supervisor.ended(name) < 0:
                self._watch(pidfd, name)

    def _tell(self, state: PartState) -> None:
        stamped = msgspec.structs.replace(state, t_ns=self._broker.now_ns())
        self._broker.publish(stamped, topic_name("state", state.part, "part"))

    # ---- control and the end -----------------------------------------------------------------------------------------

    def _serve(self) -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                frames = self._control.recv_multipart(zmq.NOBLOCK)
                reply = self._reply(frames[-1])
                self._control.send_multipart([frames[0], msgspec.json.encode(reply)])

    def _reply(self, frame: bytes) -> ControlReply:
        try:
            request = msgspec.json.decode(frame, type=Control)
        except msgspec.DecodeError:
            return ControlReply(ok=False)
        if request.key != self.keys[LOOP]:
            return ControlReply(ok=False)
        ok = True
        match request.do:
            case "launch":
                self._supervisor.launch()
            case "restart":
                ok = self._supervisor.restart(request.part, request.reason)
            case "stop":
                self._supervisor.stopping = True
            case "stats":
                return ControlReply(ok=True, stats=self._stats())
        return ControlReply(ok)

    def _stats(self) -> dict[str, object]:
        children = self._supervisor.children.values()
        parts = {c.name: {"state": c.state, "pid": c.pid, "restarts": c.restarts, "boot": c.boot} for c in children}
        return {"counts": dict(self._broker.counts), "parts": parts, "topics": sorted(self._permissions.topics)}

    def _app_ended(self, stdin: int) -> None:
        if not os.read(stdin, 4096):
            self._off(stdin)
            self._supervisor.stopping = True

    def _go_on_stopping(self) -> None:
        """End the parts, let their last packets come in, then end the recorder, behind all of them."""
        supervisor = self._supervisor
        if parts := supervisor.alive(recorder=False):
            for child in parts:
                supervisor.ask_to_end(child, self._broker.tell_stop)
            return
        now = time.monotonic_ns()
        self._quiet_since_ns = self._quiet_since_ns or now
        if now - self._quiet_since_ns < QUIET_NS:
            return
        if recorder := supervisor.alive(recorder=True):
            supervisor.ask_to_end(recorder[0], self._broker.tell_stop, RECORDER_GRACE_NS)
            return
        self._done = True
