import os

import pytest

from twinguide.headset import Hand
from twinguide.messages import WorkflowState
from twinguide.person import Person


def state(waits_for):
    return WorkflowState(step="x", waits_for=waits_for, version=1)


def pressed(*buttons):
    return {"left": Hand(), "right": Hand(buttons=frozenset(buttons), active=True)}


@pytest.mark.parametrize(
    ("waits_for", "kind", "argument"),
    [("start", "start", ""), ("touch F2", "touch", "F2"), ("confirm", "confirm", "")],
)
def test_the_button_does_what_the_display_waits_for(waits_for, kind, argument):
    (command,) = Person().commands(pressed("a"), state(waits_for))
    assert (command.kind, command.argument) == (kind, argument)


def test_a_held_button_counts_once_and_again_after_it_was_let_go():
    person = Person()
    said = [
        list(person.commands(hands, state("start"))) for hands in (pressed("a"), pressed("a"), pressed(), pressed("a"))
    ]
    assert [len(commands) for commands in said] == [1, 0, 0, 1]
    assert said[0][0].id != said[3][0].id


def test_nothing_is_said_while_the_display_waits_for_nothing():
    assert list(Person().commands(pressed("a"), state("training"))) == []


def test_b_rejects_and_menu_stops():
    person = Person()
    assert {c.kind for c in person.commands(pressed("b", "menu"), state(""))} == {"reject", "stop"}


def test_keys_say_the_same():
    read, write = os.pipe()
    person = Person(read)
    os.write(write, b" xvq")
    assert [c.kind for c in person.commands(pressed(), state("confirm"))] == ["confirm", "verify", "stop"]
    assert list(person.commands(pressed(), state("confirm"))) == []
