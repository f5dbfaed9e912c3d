"""A small process that forks parts: imports and plugins are loaded once, a part starts in milliseconds.

It is forked by the hub before the hub has threads or sockets, and never has any itself. Each part is forked twice, so
that it is adopted by the hub, which then sees its end itself. The part's spec, with its secret key, comes to the part
on a file descriptor: this process never reads it.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from functools import partial

import msgspec

from twinguide.hosting.host import run_child
from twinguide.hosting.process import die_with, name_process
from twinguide.registry import Registry

REQUEST_LIMIT = 256  # bytes


class Forked(msgspec.Struct, frozen=True):
    """A part's process has been forked."""

    name: str
    boot: int
    pid: int


def fork_zygote(registry: Registry) -> socket.socket:
    """Fork the process that forks parts; return the socket to it, which reads empty when it has died."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    hub = os.getpid()
    if os.fork() == 0:
        ours.close()
        _exit_after(lambda: _serve(theirs, registry, hub))
    theirs.close()
    ours.setblocking(False)
    return ours


def ask(zygote: socket.socket, name: str, boot: int, spec_fd: int, log_fd: int) -> None:
    """Ask for a part's process; its `Forked` comes back on the socket. Raise OSError where the zygote has died."""
    request = msgspec.json.encode(Forked(name, boot, 0))
    socket.send_fds(zygote, [request], [spec_fd, log_fd])


def _serve(link: socket.socket, registry: Registry, hub: int) -> None:
    die_with(hub)
    name_process("tg-zygote")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    gc.collect()
    gc.freeze()  # shared pages stay shared
    while True:
        request, fds, _, _ = socket.recv_fds(link, REQUEST_LIMIT, 2)
        if not request:
            return
        middle = os.fork()
        if middle == 0:
            _exit_after(partial(_fork_part, link, registry, request, fds))
        for fd in fds:
            os.close(fd)
        os.waitpid(middle, 0)


def _fork_part(link: socket.socket, registry: Registry, request: bytes, fds: list[int]) -> None:
    """Fork the part and end, so that it is adopted by the hub."""
    pid = os.fork()
    if pid:
        forked = msgspec.structs.replace(msgspec.json.decode(request, type=Forked), pid=pid)
        link.send(msgspec.json.encode(forked))
        return
    link.close()
    for target, fd in ((0, fds[0]), (1, fds[1]), (2, fds[1])):
        os.dup2(fd, target)
    os.closerange(3, max(fds) + 1)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    run_child(registry)


def _exit_after(work: Callable[[], None]) -> None:
    """Do the work, then exit without returning into the stack that was forked along."""
    code = 1
    try:
        work()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
