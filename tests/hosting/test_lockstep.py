from __future__ import annotations

import pytest

from twinguide.clock import SECOND
from twinguide.messages import Registration

CHAIN = ["earth", "gauge", "model", "plate", "peer-a", "peer-b", "listener"]


def test_two_process_parts_give_identical_hashes_over_four_runs(runs, run_hash):
    results = []
    for _ in range(4):
        session = runs(["earth", "gauge"])
        results.append(run_hash(session, 1.0))
        session.close()
    assert results[0][1] >= 60  # 60 Hz readings for one second
    assert len(set(results)) == 1


def test_another_seed_gives_another_hash(runs, run_hash):
    hashes = set()
    for seed in (1, 2):
        session = runs(["earth", "gauge"], placement="inside", seed=seed)
        hashes.add(run_hash(session, 0.5))
    assert len(hashes) == 2


def test_parts_inside_and_in_processes_give_the_same_bits(runs, run_hash):
    results = set()
    mixed = {"earth": "inside", "model": "inside"}
    for placement, placements in (("inside", {}), ("process", {}), ("process", mixed)):
        session = runs(CHAIN, placement=placement, placements=placements)
        assert bool(session.hub_pid) == (placement == "process")
        results.add(run_hash(session, 1.0))
        session.close()
    assert len(results) == 1


@pytest.mark.parametrize("placement", ["inside", "process"])
def test_equals_hear_each_other_only_at_the_next_instant(runs, placement):
    session = runs(["peer-a", "peer-b"], placement=placement)
    session.advance(SECOND)
    words = [(header, message) for header, message in session.drain() if header.source.startswith("peer")]
    assert len(words) == 122
    for header, word in words:
        others = {source for source, _ in word.heard}
        assert others <= {"peer-a", "peer-b"} - {header.source}
        assert all(t_ns < word.t_ns for _, t_ns in word.heard)
    assert sum(len(word.heard) for _, word in words) == 120


@pytest.mark.parametrize("placement", ["inside", "process"])
def test_what_the_loop_says_is_heard_at_the_next_instant(runs, placement):
    session = runs(["waiter"], plugin="faulty_plugin.py", placement=placement)
    session.advance(0)
    for version in (1, 2):
        session.publish(Registration(version=version, state="made"))
        assert session.drain() == []
        session.advance(version * SECOND)
        assert [message.version for _, message in session.drain()] == [version]
