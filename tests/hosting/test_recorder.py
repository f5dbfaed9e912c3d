from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import msgspec
import pytest

from twinguide.bus.catalogue import Catalogue
from twinguide.hosting.recorder import bulk_in, holds_bulk
from twinguide.messages import BulkRef, Message, Registration, Solution, Truth
from twinguide.playback import Recording
from twinguide.recording import BulkCopy, segments
from twinguide.registry import Registry

HERE = Path(__file__).parent
CHAIN = ["earth", "gauge", "model", "plate"]


def catalogue() -> Catalogue:
    made = Registry.load([HERE / "chain_plugin.py"], discover=False).catalogue()
    made.add(BulkCopy)
    return made


def run_frames(session, count: int, start: int = 0) -> list:
    got = []
    for frame in range(start, start + count):
        session.advance(round(frame * 1e9 / 90))
        got += session.drain()
    return got


def by_topic(folder: Path) -> dict[str, list]:
    topics: dict[str, list] = {}
    for item in Recording(folder, catalogue()):
        topics.setdefault(item.topic, []).append(item)
    return topics


def sequence_of(topics: dict[str, list], source: str) -> list[int]:
    """Return the numbers of a source's messages, copies of bulk apart."""
    return sorted(
        i.seq for name, items in topics.items() for i in items if i.source == source and "/values" not in name
    )


@pytest.mark.parametrize("placement", ["inside", "process"])
def test_everything_is_recorded_truth_and_world_too_and_nothing_is_lost(runs, placement):
    session = runs(CHAIN, placement=placement, record=True)
    got = run_frames(session, 180)
    session.publish(Registration(version=1, state="made"))
    session.close()
    topics = by_topic(runs.folder)
    assert len(topics["v1/truth/earth/truth"]) == 359  # 180 Hz up to 1.989 s, both ends in
    assert len(topics["v1/world/earth/pulse"]) == 359
    assert [item.message.version for item in topics["v1/state/loop/registration"]] == [1]
    assert len(topics["v1/stream/gauge/reading"]) == len([1 for header, _ in got if header.source == "gauge"])
    assert not any(topic.startswith("sync/") for topic in topics)
    for name in CHAIN:
        seqs = sequence_of(topics, name)
        assert seqs == list(range(1, len(seqs) + 1))


def test_bulk_is_copied_at_the_stated_rate_and_is_the_array_that_was_shown(runs):
    session = runs(CHAIN, record=True)
    run_frames(session, 360)
    session.close()
    topics = by_topic(runs.folder)
    copies = topics["v1/stream/plate/solution/values"]
    assert 6 <= len(copies) <= 9  # 2 Hz over 4 s
    estimates = {item.message.value for item in topics["v1/stream/model/estimate"]}
    for copy in copies:
        values = copy.message.values.numpy()
        assert values.shape == (100, 3)
        assert min(abs(float(values[0, 0]) - value) for value in estimates) < 1e-5


class Leaf(msgspec.Struct):
    ref: BulkRef | None = None
    inner: tuple[Leaf, ...] = ()


class Cloud(Message, frozen=True, kw_only=True, tag="test.cloud/1"):
    parts: tuple[BulkRef, ...]
    named: dict[str, BulkRef | None]
    tree: Leaf


def test_references_to_bulk_are_found_wherever_a_message_holds_them():
    refs = [BulkRef("r", k, k, "<f8", (3,)) for k in range(4)]
    tree = Leaf(inner=(Leaf(ref=refs[3]), Leaf()))
    cloud = Cloud(parts=(refs[0], refs[1]), named={"a": refs[2], "b": None}, tree=tree)
    assert list(bulk_in(cloud)) == refs
    assert holds_bulk(Cloud)
    assert holds_bulk(Solution)
    assert not holds_bulk(Truth)


def test_the_recording_is_the_same_inside_and_in_processes(runs, tmp_path):
    recorded = []
    for k, placement in enumerate(("inside", "process", "process")):
        runs.folder = tmp_path / str(k)
        session = runs(CHAIN, placement=placement, record=True)
        run_frames(session, 90)
        session.close()
        topics = by_topic(runs.folder)
        recorded.append(
            {
                topic: [(i.source, i.seq, i.round, i.t_pub_ns, repr(i.message)) for i in items]
                for topic, items in topics.items()
                if topic.startswith(("v1/stream", "v1/truth", "v1/world"))
            }
        )
    assert recorded[0] == recorded[1] == recorded[2]


def test_a_killed_recorder_goes_on_in_a_new_segment_and_nothing_of_later_is_lost(runs, until):
    session = runs(CHAIN, record=True)
    first = run_frames(session, 90)
    os.kill(session.part_states["recorder"].pid, signal.SIGKILL)

    def noticed() -> bool:
        session.drain()
        return session.part_states["recorder"].restarts == 1

    until(noticed)
    later = run_frames(session, 90, 90)  # virtual time waits for the next recorder
    session.close()
    assert len(later) >= len(first) - 2
    assert [path.name for path in segments(runs.folder)] == ["session.mcap", "session-2.mcap"]
    truths = [item.message.t_ns for item in by_topic(runs.folder)["v1/truth/earth/truth"]]
    assert min(truths) == 0
    assert sum(t_ns > 89e9 / 90 for t_ns in truths) == 180  # at 180 Hz, every one of these 90 frames'


def test_the_recording_is_finished_when_the_hub_is_killed_and_goes_on_with_the_next_hub(runs):
    session = runs(["earth", "gauge"], record=True)
    run_frames(session, 90)
    os.kill(session.hub_pid, signal.SIGKILL)
    run_frames(session, 90, 90)
    session.close()
    recording = Recording(runs.folder, catalogue())
    truths = [item.message.t_ns for item in recording if isinstance(item.message, Truth)]
    assert recording.damage == []  # the recorder of a dead hub still closes its file
    assert len(recording.segments) == 2
    assert min(truths) == 0
    assert max(truths) > 1.9e9


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 8 MiB; the test is skipped where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=False)


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
        while True:
            filler.write(bytes(4096))


def test_a_full_disk_ends_the_recorder_with_the_reason_and_the_run_goes_on(runs, until, small_disk):
    runs.folder = small_disk
    session = runs(CHAIN, record=True)
    run_frames(session, 45)
    until(lambda: (small_disk / "session.mcap").stat().st_size > 4096)  # flushed once: what is older is safe
    fill(small_disk)
    frame = 45

    def ended() -> bool:
        nonlocal frame
        run_frames(session, 45, frame)
        frame += 45
        return session.part_states["recorder"].state == "dead"

    until(ended)
    assert session.part_states["recorder"].reason.startswith("disk full")
    assert session.part_states["recorder"].restarts == 0
    assert any(line.startswith("part recorder: dead: disk full") for line in session.news())  # while the run goes on
    assert len(run_frames(session, 90, frame)) > 100
    session.close()
    assert any(isinstance(item.message, Truth) for item in Recording(small_disk, catalogue()))


def test_in_real_time_all_is_recorded_up_to_the_end(runs, until):
    session = runs(CHAIN, clock="real", record=True)
    count = 0

    def enough() -> bool:
        nonlocal count
        session.advance(session.now_ns())
        count += len(session.drain())
        return count > 200

    until(enough)
    session.close()
    topics = by_topic(runs.folder)
    for name in CHAIN:
        seqs = sequence_of(topics, name)
        assert seqs == list(range(1, len(seqs) + 1))
    assert topics["v1/state/earth/part"][-1].message.state == "stopped"
