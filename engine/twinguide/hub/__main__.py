"""Run the hub: `python -m twinguide.hub`, its spec as one line of JSON on standard input, which then stays open."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
from pathlib import Path

import msgspec

from twinguide.errors import TwinGuideError
from twinguide.hosting.plan import HubReady, HubSpec, registry_of
from twinguide.hosting.process import adopt_orphans, name_process
from twinguide.hub.server import Hub
from twinguide.hub.zygote import fork_zygote


def main() -> None:
    """Serve until the run ends; afterwards remove what an app that has died cannot."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the app's: it then stops the hub in order
    name_process("tg-hub")
    spec = msgspec.json.decode(sys.stdin.buffer.readline(), type=HubSpec)
    folder = Path(spec.folder)
    sockets = folder / f"hub-{spec.generation}"
    try:
        sockets.mkdir(mode=0o700)
        adopt_orphans()
        registry = registry_of(spec.plan)
        if spec.plan.record:
            importlib.import_module("twinguide.hosting.recorder")  # once, for the process that forks it
        hub = Hub(spec, sockets, registry, fork_zygote(registry))
    except TwinGuideError as error:
        _answer(HubReady({}, str(error)))
        raise SystemExit(1) from error
    _answer(HubReady(hub.keys))
    parent = os.getppid()
    try:
        hub.run(sys.stdin.fileno())
    finally:
        hub.close()
        shutil.rmtree(sockets, ignore_errors=True)
        if os.getppid() != parent:
            shutil.rmtree(folder, ignore_errors=True)


def _answer(ready: HubReady) -> None:
    print(msgspec.json.encode(ready).decode(), flush=True)


main()
