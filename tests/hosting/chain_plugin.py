"""Three chained parts for the tests of hosting: a clock-like source, a model with noise, a solver that shares bulk."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from twinguide.hookspecs import Context, Motion, Part, Sensor, Solver, Topic, World, hookimpl
from twinguide.inbox import Inbox
from twinguide.messages import Array, BulkRef, Lost, Message, Solution, Truth


class Pulse(Message, frozen=True, kw_only=True, tag="chain.pulse/1"):
    """What the world lets sensors see."""

    value: float


class Reading(Message, frozen=True, kw_only=True, tag="chain.reading/1"):
    """What the sensor says."""

    value: float
    history: Array


class Estimate(Message, frozen=True, kw_only=True, tag="chain.estimate/1"):
    """What the model says, and of how much."""

    value: float
    inputs: tuple[tuple[str, int], ...]


class Earth:
    def __init__(self, ctx: Context) -> None:
        self.rng = ctx.rng()

    def step(self, t_ns: int, inbox: Inbox) -> Iterable[Message]:
        value = float(self.rng.normal())
        truth = Truth(t_ns=t_ns, points={"target": (value, 0.0, 0.0)}, poses={})
        return [Pulse(t_ns=t_ns, value=value), truth]


class Gauge:
    def __init__(self, ctx: Context) -> None:
        self.rng = ctx.rng("noise")
        self.kept: list[float] = []

    def step(self, t_ns: int, inbox: Inbox) -> Iterable[Message]:
        self.kept += [m.value for m in inbox.of(Pulse)]
        value = float(np.mean(self.kept[-8:] or [0.0]) + self.rng.normal(0, 0.1))
        return [Reading(t_ns=t_ns, value=value, history=Array.of(self.kept[-8:]))]


class Model:
    def __init__(self, ctx: Context) -> None:
        self.sum = 0.0

    def step(self, t_ns: int, inbox: Inbox) -> Iterable[Message]:
        self.sum += sum(m.value for m in inbox.of(Reading))
        inputs = tuple((source, m.t_ns) for source, m in inbox.items())
        return [Estimate(t_ns=t_ns, value=self.sum, inputs=inputs)]


class Plate:
    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx

    def step(self, t_ns: int, inbox: Inbox) -> Iterable[Message]:
        newest = inbox.last(Estimate)
        if newest is None:
            return []
        ref: BulkRef = self.ctx.share("vertices", np.full((100, 3), newest.value, dtype=np.float32))
        return [
            Solution(
                t_ns=t_ns, of="plate", vertices=ref, level="full", residual=0.0, sigma_m=1e-3, smallest_j=1.0,
                deadline_met=True,
            )
        ]  # fmt: skip


class Word(Message, frozen=True, kw_only=True, tag="chain.word/1"):
    """What one of two equals says."""

    heard: tuple[tuple[str, int], ...]


class Peer:
    """Tells what it heard of its equals, who step at the same instants."""

    def __init__(self, ctx: Context) -> None:
        pass

    def step(self, t_ns: int, inbox: Inbox) -> Iterable[Message]:
        return [Word(t_ns=t_ns, heard=tuple((source, m.t_ns) for source, m in inbox.items()))]


class Gist(Message, frozen=True, kw_only=True, tag="chain.gist/1"):
    """What a slow part heard of many, in the order in which it heard it."""

    heard: tuple[tuple[str, int], ...]


class Listener:
    """Tells what came since its last step, from whom and in which order."""

    def __init__(self, ctx: Context) -> None:
        pass

    def step(self, t_ns: int, inbox: Inbox) -> Iterable[Message]:
        return [Gist(t_ns=t_ns, heard=tuple((source, m.t_ns) for source, m in inbox.items()))]


class Nosy:
    """Keeps what it should never get, and says so."""

    def __init__(self, ctx: Context) -> None:
        self.seen = 0

    def step(self, t_ns: int, inbox: Inbox) -> Iterable[Message]:
        self.seen += len(inbox)
        return [Lost(t_ns=t_ns, of="secrets", reason=str(self.seen))]


@hookimpl
def parts() -> list[Part]:
    return [
        World("earth", make="chain_plugin:Earth", rate_hz=180,
              publishes={"pulse": Topic(Pulse, qos="world"), "truth": Topic(Truth, qos="truth")}),
        Sensor("gauge", make="chain_plugin:Gauge", rate_hz=60, observes=[Pulse], publishes={"reading": Topic(Reading)}),
        Motion("model", make="chain_plugin:Model", subscribes=[Reading], wakes_on=[Reading],
               publishes={"estimate": Topic(Estimate)}),
        Solver("plate", make="chain_plugin:Plate", rate_hz=30, subscribes=[Estimate],
               publishes={"solution": Topic(Solution)}),
        Sensor("peer-a", make="chain_plugin:Peer", rate_hz=60, subscribes=[Word], publishes={"word": Topic(Word)}),
        Sensor("peer-b", make="chain_plugin:Peer", rate_hz=60, subscribes=[Word], publishes={"word": Topic(Word)}),
        Motion("listener", make="chain_plugin:Listener", rate_hz=7, subscribes=[Word, Reading, Estimate],
               publishes={"gist": Topic(Gist)}),
        Motion("nosy", make="chain_plugin:Nosy", rate_hz=10, subscribes=[Truth, Pulse],
               publishes={"lost": Topic(Lost)}),
    ]  # fmt: skip
