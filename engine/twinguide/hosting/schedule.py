"""When parts step: by their rates, and when something they wake on was published. Pure bookkeeping, no processes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from twinguide.clock import SECOND

Published = Iterable[tuple[str, str]]  # (source, tag)
StepBatch = Callable[[list["Member"], int, int], Published]


@dataclass(eq=False)
class Member:
    """One part as the schedule sees it."""

    name: str
    order: int
    rate_hz: float
    alive: bool = True
    woken: bool = False
    ticks: int = 0  # steps by rate so far, also those that were missed
    late: int = 0  # steps by which others were left out

    def due_ns(self) -> int | None:
        """Return when the part's rate next makes a step [ns]; None where it has no rate or is not alive.

        Each instant is computed from its number, so that no rounding adds up.
        """
        return round(self.ticks * SECOND / self.rate_hz) if self.rate_hz and self.alive else None


class Schedule:
    """The parts of a run, stepped in the order of their class, equals together, each batch in a round of its own."""

    def __init__(self, members: Iterable[Member], wakes: Mapping[tuple[str, str], tuple[str, ...]]) -> None:
        self.members = {member.name: member for member in members}
        self._wakes = wakes
        self._orders = sorted({member.order for member in self.members.values()})
        self.round = 0  # of what the loop publishes now; a batch always has a larger one

    def wake(self, source: str, tag: str) -> None:
        """Mark the parts that wake on what a source has published."""
        for name in self._wakes.get((source, tag), ()):
            if name in self.members:
                self.members[name].woken = True

    def revive(self, name: str, t_ns: int) -> None:
        """Take a part in (again); steps whose time has passed are not made up for."""
        member = self.members[name]
        late = member.late
        member.alive = True
        member.woken = False
        self.skip_past(member, t_ns)
        member.late = late

    def skip_past(self, member: Member, t_ns: int) -> None:
        """Let a part's next step by rate lie after `t_ns` [ns]."""
        if not member.rate_hz:
            return
        ticks = max(member.ticks, int(t_ns * member.rate_hz // SECOND))
        while round(ticks * SECOND / member.rate_hz) <= t_ns:
            ticks += 1
        member.late += ticks - member.ticks > 1
        member.ticks = ticks

    def advance(self, t_ns: int, step: StepBatch) -> None:
        """Make every step that is due up to `t_ns` [ns] (virtual time), at its exact instant."""
        while (due := self._next_due()) is not None and due <= t_ns:
            self.run_at(due, step)
        if any(member.woken and member.alive for member in self.members.values()):
            self.run_at(t_ns, step)
        self.round += 1

    def _next_due(self) -> int | None:
        return min((due for m in self.members.values() if (due := m.due_ns()) is not None), default=None)

    def run_at(self, t_ns: int, step: StepBatch) -> None:
        """Step what is due or woken at `t_ns` [ns], order by order.

        What wakes a part of a later order wakes it at this same instant; the others at the next one.
        """
        for order in self._orders:
            batch: list[Member] = []
            for member in self.members.values():
                if member.order != order or not member.alive:
                    continue
                due = member.due_ns()
                if member.woken or (due is not None and due <= t_ns):
                    batch.append(member)
                    member.woken = False
                    self.skip_past(member, t_ns)
            if batch:
                self.round += 1
                for source, tag in step(batch, t_ns, self.round):
                    self.wake(source, tag)
