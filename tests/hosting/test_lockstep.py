from __future__ import annotations

CHAIN = ["earth", "gauge", "model", "plate"]


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
