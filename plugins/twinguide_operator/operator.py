"""The simulated operator: reads the display after a reaction time, and moves hands that tremble.

It knows the procedure, never the truth: landmarks are touched when the display asks for them, the registration is
confirmed when its verification is shown, and the needle is steered by where needle, path and target *appear*.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from twinguide import Ack, Act, Command, Context, Inbox, Message, Shown, WorkflowState
from twinguide.clock import MS, SECOND

from .plugin import OperatorOptions
from .steering import Steering

HOLD_S = 5.0  # a patient asked to hold reaches end-expiration within one breath of 4 s, give or take
REACH_S = 1.3  # to bring the pointer to a landmark
DWELL_S = 0.7  # to keep it there, somewhat longer than the engine listens
PICK_UP_S = 1.5  # to bring a tool to the divot
CONE_RAD = 0.5  # of a swing from the middle
HELD_TOUCHES = 3  # landmarks touched in one breath-hold
RETRY_NS = 100 * MS
Script = Iterator[tuple[float, list[Message]]]  # (seconds to wait afterwards, messages)


class OperatorSimulated:
    """Answer what the workflow asks for, in order."""

    def __init__(self, ctx: Context) -> None:
        self._options: OperatorOptions = ctx.options
        self._rng = ctx.rng()
        self._seen: deque[Shown] = deque(maxlen=64)
        self._state = WorkflowState(step="setup", waits_for="", version=-1)
        self._busy_until_ns = 0
        self._script: Script = iter(())
        self._pending: dict[str, tuple[Command, int]] = {}
        self._commands = 0
        self._touches = 0
        self._leaving = False
        self._steering = Steering(self._options, self._rng)

    def step(self, t_ns: int, inbox: Inbox) -> list[Message]:
        """Look, then act."""
        for message in inbox:
            match message:
                case Shown():
                    self._seen.append(message)
                case WorkflowState() if message.version > self._state.version:
                    self._take_state(message, t_ns)
                case Ack():
                    self._pending.pop(message.id, None)
                case _:
                    pass
        return [*self._repeated(t_ns), *self._acts(t_ns)]

    def _take_state(self, state: WorkflowState, t_ns: int) -> None:
        if (state.step, state.waits_for) == (self._state.step, self._state.waits_for) and not state.note:
            self._state = state
            return
        self._leaving = self._state.step == "guide" and state.step != "guide"
        self._state = state
        self._script = self._script_of(state)
        self._busy_until_ns = t_ns + self._reaction_ns()

    def _script_of(self, state: WorkflowState) -> Script:
        """Yield what to do in this state."""
        match state.step:
            case "setup":
                yield 1.0, []
                yield 0.0, [self._command("start")]
            case "calibrate" if state.waits_for.startswith("swing "):
                tool = state.waits_for.removeprefix("swing ")
                yield PICK_UP_S, [Act(kind="swing", of=tool, turn=(CONE_RAD, 0.0, 0.0))]
                yield 0.0, [self._command("swing", tool)]
            case "calibrate" if state.waits_for == "confirm":
                yield 1.0, [Act(kind="withdraw", of="pointer")]
                yield 0.0, [self._command("confirm")]
            case "register" | "verify" if state.waits_for.startswith("touch "):
                yield from self._touch(state.waits_for.removeprefix("touch "))
            case "confirm":
                yield 2.0, [Act(kind="withdraw", of="pointer"), Act(kind="breathe", of="free")]
                yield 0.0, [self._command("confirm")]
            case _:
                pass

    def _touch(self, landmark: str) -> Script:
        if self._touches % HELD_TOUCHES == 0:
            yield HOLD_S, [Act(kind="breathe", of="free"), Act(kind="breathe", of="hold")]
        self._touches += 1
        x, y, z = (self._rng.normal(0.0, self._options.touch_sigma_mm * 1e-3, 3)).tolist()
        yield REACH_S, [Act(kind="touch", of=landmark, offset=(x, y, z))]
        yield DWELL_S, [self._command("touch", landmark)]

    def _acts(self, t_ns: int) -> list[Message]:
        if self._leaving:
            self._leaving = False
            return self._steering.rest()
        if t_ns < self._busy_until_ns:
            return []
        if self._state.step == "guide":
            return self._steering.act(self._seen_late(t_ns))
        step = next(self._script, None)
        if step is None:
            return []
        wait_s, messages = step
        self._busy_until_ns = t_ns + round(wait_s * SECOND)
        for message in messages:
            if isinstance(message, Command):
                self._pending[message.id] = (message, t_ns)
        return messages

    def _seen_late(self, t_ns: int) -> Shown | None:
        """Return the newest frame that the operator has had time to react to."""
        before = t_ns - round(self._options.reaction_s * SECOND)
        return next((shown for shown in reversed(self._seen) if shown.t_ns <= before), None)

    def _command(self, kind: str, argument: str = "") -> Command:
        self._commands += 1
        return Command(id=f"operator-{self._commands}", kind=kind, argument=argument)  # pyright: ignore[reportArgumentType]

    def _repeated(self, t_ns: int) -> list[Message]:
        """Return the commands that nobody has acknowledged in time, to be sent again under the same id."""
        late = [command for command, sent_ns in self._pending.values() if t_ns - sent_ns >= RETRY_NS]
        for command in late:
            self._pending[command.id] = (command, t_ns)
        return list(late)

    def _reaction_ns(self) -> int:
        return round(self._options.reaction_s * SECOND * float(self._rng.uniform(0.8, 1.2)))
