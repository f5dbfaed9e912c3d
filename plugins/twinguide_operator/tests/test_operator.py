import logging
from types import SimpleNamespace

import numpy as np
import pytest

from twinguide import Ack, Act, Command, Finding, Inbox, WorkflowState
from twinguide_operator.operator import OperatorSimulated
from twinguide_operator.plugin import OperatorOptions

STEP = 1_000_000_000 // 30


def context(seed=3):
    return SimpleNamespace(
        name="operator", options=OperatorOptions(), seed=seed, log=logging.getLogger("t"),
        rng=lambda stream="": np.random.default_rng(seed),
    )  # fmt: skip


class Seen(SimpleNamespace):
    """Looks like a `Shown` to the operator, without its other fields."""


@pytest.fixture(autouse=True)
def shown_by_shape(monkeypatch):
    monkeypatch.setattr("twinguide_operator.operator.Shown", Seen)


def run(operator, seconds, messages=lambda t: (), start=0):
    """Step at 30 Hz; return (t, message) pairs."""
    out = []
    for k in range(round(seconds * 30)):
        t = start + k * STEP
        out += [(t, m) for m in operator.step(t, Inbox([("loop", m) for m in messages(t)]))]
    return out


def state(step, waits_for="", version=1):
    return WorkflowState(step=step, waits_for=waits_for, version=version)


def once(*messages):
    left = list(messages)
    return lambda t: [left.pop(0)] if left else []


def test_an_unanswered_command_is_repeated_under_one_id_until_acknowledged():
    operator = OperatorSimulated(context())
    said = [m for _, m in run(operator, 3.0, once(state("setup", "start"))) if isinstance(m, Command)]
    assert {m.id for m in said} == {said[0].id}
    assert len(said) > 5
    later = run(operator, 1.0, once(Ack(id=said[0].id, accepted=True)), start=3_000_000_000)
    assert not [m for _, m in later if isinstance(m, Command)]


def test_a_landmark_is_touched_in_a_breath_hold_before_it_is_said():
    operator = OperatorSimulated(context())
    acts = run(operator, 9.0, once(state("register", "touch F1")))
    kinds = [m.kind if isinstance(m, Act) else f"say {m.kind} {m.argument}" for _, m in acts]
    assert kinds[:4] == ["breathe", "breathe", "touch", "say touch F1"]


def test_touching_errors_have_the_stated_spread():
    offsets = []
    for seed in range(150):
        acts = run(OperatorSimulated(context(seed)), 7.0, once(state("register", "touch F1")))
        offsets += [m.offset for _, m in acts if isinstance(m, Act) and m.kind == "touch"]
    # 450 numbers know a spread to 3.3 %; three sigma of that
    assert np.std(offsets) == pytest.approx(0.3e-3, rel=0.1)


class Bench:
    """A needle that obeys the hand exactly, before a target; the operator sees it as shown."""

    def __init__(self, gate_open=lambda t: True, findings=()):
        self.tip, self.direction = np.array([0.03, -0.02, 0.16]), np.array([0.3, 0.0, -1.0]) / np.hypot(0.3, 1.0)
        self.entry, self.target = np.array([0.0, 0.0, 0.1]), np.zeros(3)
        self.gate_open, self.findings = gate_open, findings
        self.deepest = np.inf
        self.moved_while_closed = 0.0

    def frames(self, t):
        return [
            Seen(
                t_ns=t,
                step="guide",
                target=tuple(self.target),
                entry=tuple(self.entry),
                tips={"needle": tuple(self.tip)},
                directions={"needle": tuple(self.direction)},
                gate_open=self.gate_open(t),
                findings=self.findings,
            )
        ]

    def drive(self, operator, seconds):
        for k in range(round(seconds * 30)):
            t = k * STEP
            told = [("loop", m) for m in ([state("guide")] if k == 0 else []) + self.frames(t)]
            for act in operator.step(t, Inbox(told)):
                velocity = np.array(act.velocity)
                if not self.gate_open(t) and self.tip[2] < 0.1 - 0.012:
                    self.moved_while_closed = max(self.moved_while_closed, float(np.linalg.norm(velocity)))
                self.tip = self.tip + velocity / 30
                self.direction = self.direction + np.cross(np.array(act.turn), self.direction) / 30
                self.direction /= np.linalg.norm(self.direction)
        return float(np.linalg.norm(self.tip - self.target))


def test_the_needle_reaches_the_target_by_what_is_shown():
    assert Bench().drive(OperatorSimulated(context()), 20.0) < 2e-3


def test_a_warning_stops_the_hand_before_the_tissue():
    warning = Finding(name="plan", value=0, sigma=0, unit="mm", severity="warning", text="too near")
    bench = Bench(findings=(warning,))
    assert bench.drive(OperatorSimulated(context()), 20.0) > 0.09


def test_the_needle_rests_while_the_gate_is_closed():
    bench = Bench(gate_open=lambda t: (t // 1_000_000_000) % 4 < 2)
    assert bench.drive(OperatorSimulated(context()), 40.0) < 3e-3
    # the reaction time carries the hand on for a moment after the gate closes; tremor of 1 mm/s per axis is no advance
    assert bench.moved_while_closed <= 0.030


def test_the_same_seed_gives_the_same_acts():
    def acts(seed):
        return run(OperatorSimulated(context(seed)), 9.0, once(state("register", "touch F1")))

    assert acts(5) == acts(5)
    assert acts(5) != acts(6)
