"""Parts that fail in the ways that parts fail, for the tests of hosting."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterable
from typing import Literal

import msgspec

from twinguide.hookspecs import Context, Part, Sensor, Solver, Topic, hookimpl
from twinguide.inbox import Inbox
from twinguide.messages import Array, Message, Registration

Fault = Literal[
    "", "raise", "raise-at-length", "raise-on-start", "raise-at-end", "chatter", "spin",
    "stop", "sleep", "nan", "nan-array", "untyped", "flood", "undeclared",
]  # fmt: skip


class Beat(Message, frozen=True, kw_only=True, tag="faulty.beat/1"):
    """One beat, and in which process."""

    count: int
    pid: int
    value: float = 0.0
    field: Array | None = None


class Echo(Message, frozen=True, kw_only=True, tag="faulty.echo/1"):
    """What a part saw."""

    seen: int
    version: int = -1


class Secret(Message, frozen=True, kw_only=True, tag="faulty.secret/1"):
    """Declared by nobody."""


class How(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What goes wrong, after how many beats."""

    fault: Fault = ""
    after: int = 5

    def __post_init__(self) -> None:
        if self.after < 0:
            raise ValueError("an 'after' of 0 or more")


class Heart:
    def __init__(self, ctx: Context) -> None:
        self.how: How = ctx.options
        self.count = 0
        if self.how.fault == "raise-on-start":
            raise ValueError("no device on this port")

    def close(self) -> None:
        logging.getLogger("faulty").warning("the heart has been told to stop")
        if self.how.fault == "raise-at-end":
            raise OSError("it was gone already")

    def step(self, t_ns: int, inbox: Inbox) -> Iterable[Message]:
        self.count += 1
        beat = Beat(t_ns=t_ns, count=self.count, pid=os.getpid())
        if self.count < self.how.after:
            return [beat]
        match self.how.fault:
            case "raise":
                raise ValueError("the cable is out")
            case "raise-at-length":
                raise ValueError("the cable is out\nlook at both ends")
            case "chatter":
                print("x" * (4 << 20), flush=True)
            case "spin":
                while True:
                    pass
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "sleep":
                time.sleep(3600)
            case "nan":
                return [msgspec.structs.replace(beat, value=float("nan"))]
            case "nan-array":
                return [msgspec.structs.replace(beat, field=Array.of([1.0, float("inf")]))]
            case "untyped":
                return [msgspec.structs.replace(beat, count="five")]
            case "flood":
                return [beat] * 1000
            case "undeclared":
                return [beat, Secret(t_ns=t_ns)]
            case _:
                pass
        return [beat]


class Ear:
    """Answers each beat at once."""

    def __init__(self, ctx: Context) -> None:
        self.seen, self.version = 0, -1

    def step(self, t_ns: int, inbox: Inbox) -> Iterable[Message]:
        self.seen += len(inbox.of(Beat))
        registration = inbox.last(Registration)
        if registration is not None:
            self.version = registration.version
        return [Echo(t_ns=t_ns, seen=self.seen, version=self.version)]


@hookimpl
def parts() -> list[Part]:
    beat, echo = {"beat": Topic(Beat)}, {"echo": Topic(Echo)}
    return [
        Sensor("heart", make="faulty_plugin:Heart", rate_hz=50, options=How, publishes=beat),
        Sensor("heart2", make="faulty_plugin:Heart", rate_hz=50, options=How, publishes=beat),
        Solver("ear", make="faulty_plugin:Ear", subscribes=[Beat, Registration], wakes_on=[Beat], publishes=echo),
        Solver("waiter", make="faulty_plugin:Ear", subscribes=[Registration], wakes_on=[Registration], publishes=echo),
    ]
