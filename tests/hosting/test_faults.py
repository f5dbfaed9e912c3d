"""What is killed, hangs, raises or lies costs its own messages, never the run."""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from twinguide.hosting.plan import HubSpec, registry_of
from twinguide.hosting.remote import Remote
from twinguide.hub import zygote
from twinguide.hub.server import Hub
from twinguide.messages import Registration

FAULTY = "faulty_plugin.py"


def frames(session, start: int, count: int) -> list[tuple[str, object]]:
    """Run `count` frames of 20 ms from frame `start` in virtual time; return what came."""
    got = []
    for frame in range(start, start + count):
        session.advance(frame * 20_000_000)
        got += [(header.source, message) for header, message in session.drain()]
    return got


def children_of(pid: int) -> set[int]:
    return {int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def beats(session) -> list[int]:
    session.advance(session.now_ns())
    return [m.count for h, m in session.drain() if h.source == "heart"]


# ---- real time ------------------------------------------------------------------------------------------------------


def test_a_killed_part_is_started_again(runs, until):
    session = runs(["heart", "ear"], plugin=FAULTY, clock="real")
    pid = session.part_states["heart"].pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: session.part_states["heart"].restarts == 1, session)
    until(lambda: session.part_states["heart"].state == "running", session)
    assert "SIGKILL" in session.part_states["heart"].reason  # it runs, and says why it had to be started anew
    assert session.part_states["heart"].pid != pid
    assert session.part_states["ear"].restarts == 0
    assert beats(session) is not None
    until(lambda: bool(beats(session)))


@pytest.mark.parametrize("fault", ["spin", "stop", "sleep"])
def test_a_hanging_part_is_ended_and_started_again(runs, until, fault):
    session = runs(["heart"], plugin=FAULTY, clock="real", options={"heart": {"fault": fault}}, hung_after_s=0.4)
    until(lambda: session.part_states["heart"].restarts >= 1, session)
    assert "no progress for" in session.part_states["heart"].reason


def test_a_part_that_raises_is_started_again_with_its_reason_told(runs, until):
    session = runs(["heart"], plugin=FAULTY, clock="real", options={"heart": {"fault": "raise", "after": 3}})
    until(lambda: session.part_states["heart"].state == "restarting", session)
    assert session.failed == ["heart"]  # should the run end now
    until(lambda: session.part_states["heart"].restarts >= 1, session)
    assert session.part_states["heart"].reason == "ValueError: the cable is out"
    log = (runs.folder / "logs" / "heart.log").read_text()
    assert "Traceback" in log


def test_a_reason_of_several_lines_is_told_whole(runs, until):
    session = runs(["heart"], plugin=FAULTY, clock="real", options={"heart": {"fault": "raise-at-length", "after": 3}})
    until(lambda: session.part_states["heart"].restarts >= 1, session)
    assert session.part_states["heart"].reason == "ValueError: the cable is out; look at both ends"


def test_a_part_that_logs_without_end_does_not_fill_the_disk(runs, until):
    runs(["heart"], plugin=FAULTY, clock="real", options={"heart": {"fault": "chatter"}})
    log = runs.folder / "logs" / "heart.log"
    until(lambda: log.is_file() and "emptied at 16 MB" in log.read_text()[:100])


def test_what_a_part_sends_beyond_all_measure_is_refused_and_the_others_lose_nothing(runs, until):
    session = runs(["heart", "heart2"], plugin=FAULTY, clock="real", options={"heart": {"fault": "flood"}})
    until(lambda: any("more than 5000 messages of heart in a second" in r.reason for r in session.refusals), session)
    counts: list[int] = []

    def heard() -> bool:
        session.advance(session.now_ns())
        counts.extend(m.count for h, m in session.drain() if h.source == "heart2")
        return len(counts) > 50

    until(heard)
    assert counts == list(range(counts[0], counts[0] + len(counts)))
    assert session.failed == []


def test_a_crash_loop_is_quarantined_and_the_others_go_on(runs, until):
    session = runs(["heart", "ear"], plugin=FAULTY, clock="real", options={"heart": {"fault": "raise-on-start"}})
    until(lambda: session.part_states["heart"].state == "quarantined", session)
    assert "no device on this port" in session.part_states["heart"].reason
    assert session.part_states["heart"].restarts == 3
    assert session.part_states["ear"].state == "running"


def test_a_killed_hub_is_started_again_with_all_parts_and_states(runs, until, gone):
    session = runs(["heart", "waiter"], plugin=FAULTY, clock="real")
    session.publish(Registration(version=4, state="made"))
    old_hub, old_part = session.hub_pid, session.part_states["heart"].pid
    os.kill(old_hub, signal.SIGKILL)
    until(lambda: session.hub_pid != old_hub, session)
    assert session.news() == ["parts heart, waiter: restarting: the hub has died: killed by SIGKILL"]
    versions: list[int] = []

    def registration_is_known_again() -> bool:
        session.advance(session.now_ns())
        versions.extend(m.version for h, m in session.drain() if h.source == "waiter" and h.boot > 1)
        return 4 in versions

    until(registration_is_known_again)
    until(lambda: session.part_states["heart"].state == "running", session)
    assert session.news() == ["parts heart, waiter: runs again"]
    assert session.part_states["heart"].pid != old_part
    until(lambda: gone(old_part))
    os.kill(session.hub_pid, signal.SIGKILL)
    until(lambda: "time 2: killed by SIGKILL" in session.part_states["heart"].reason, session)
    assert session.news() == ["parts heart, waiter: restarting: the hub has died, time 2: killed by SIGKILL"]


def test_a_hub_that_died_and_was_replaced_within_a_frame_is_told_all_the_same(runs, until):
    session = runs(["heart"], plugin=FAULTY)  # lockstep waits for the new one
    old_hub = session.hub_pid
    os.kill(old_hub, signal.SIGKILL)
    until(lambda: session.hub_pid != old_hub, session)
    assert session.part_states["heart"].state == "running"
    assert session.news() == ["part heart: runs again: the hub has died: killed by SIGKILL"]
    assert session.news() == []


def test_a_killed_zygote_costs_only_time(runs, until, gone):
    session = runs(["heart"], plugin=FAULTY, clock="real")
    (zygote,) = children_of(session.hub_pid) - {session.part_states["heart"].pid}
    os.kill(zygote, signal.SIGKILL)
    until(lambda: gone(zygote))
    os.kill(session.part_states["heart"].pid, signal.SIGKILL)
    until(lambda: session.part_states["heart"].restarts == 1, session)
    until(lambda: session.part_states["heart"].state == "running", session)


@pytest.mark.parametrize("record", [False, True])
def test_without_a_zygote_every_part_still_begins_once_and_after_the_recorder(runs, monkeypatch, gone, until, record):
    def bring_up(remote, t_ns):
        assert remote._link.up(20.0)
        (zygote,) = children_of(remote.hub_pid)
        os.kill(zygote, signal.SIGKILL)
        until(lambda: gone(zygote))
        time.sleep(0.2)  # the hub looks at it ten times
        brought_up(remote, t_ns)

    brought_up = Remote.bring_up
    monkeypatch.setattr(Remote, "bring_up", bring_up)
    session = runs(["heart", "ear"], plugin=FAULTY, clock="real", record=record)
    pids = {state.part: state.pid for state in session.part_states.values()}
    assert {pid for pid in children_of(session.hub_pid) if not gone(pid)} == set(pids.values())
    assert next(iter(pids)) == ("recorder" if record else "heart")
    assert session.news() == []


@pytest.mark.parametrize("read", [False, True])  # the request that it answers last
def test_what_a_zygote_forked_before_it_died_is_not_begun_again(runs, monkeypatch, read):
    def ask(link, name, *rest):
        asked(link, name, *rest)
        if read:
            theirs.recv(zygote.REQUEST_LIMIT)
        theirs.send(msgspec.json.encode(zygote.Forked(name, 1, forked.pid)))
        theirs.close()

    asked = zygote.ask
    monkeypatch.setattr(zygote, "ask", ask)
    session = runs(["heart", "ear"], plugin=FAULTY, clock="real", start=False)
    (session.folder / "hub-1").mkdir()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    spec = HubSpec(session.plan, str(session.folder), 1)
    with subprocess.Popen(["sleep", "5"], start_new_session=True) as forked:
        hub = Hub(spec, session.folder / "hub-1", registry_of(session.plan), ours)
        hub._on(ours.fileno(), hub._read_forks)
        hub._supervisor.launch()
        pids = {name: child.pid for name, child in hub._supervisor.children.items()}
        hub.close()
    os.waitpid(pids["ear"], 0)
    assert pids["heart"] == forked.pid


def test_a_stalled_loop_is_said(runs):
    session = runs(["heart"], plugin=FAULTY, clock="real", hung_after_s=0.3)
    session.advance(session.now_ns())
    time.sleep(0.8)  # the loop does nothing
    session.drain()
    assert session.part_states["loop"].state == "hung"


# ---- lockstep -------------------------------------------------------------------------------------------------------


def test_a_part_killed_in_lockstep_is_left_out_until_it_is_back(runs, until):
    session = runs(["heart", "heart2"], plugin=FAULTY)
    frames(session, 0, 10)
    os.kill(session.part_states["heart"].pid, signal.SIGKILL)
    sources: list[str] = []
    frame = 10

    def back() -> bool:
        nonlocal frame
        got = frames(session, frame, 1)
        frame += 1
        sources.extend(source for source, _ in got)
        return session.part_states["heart"].restarts == 1 and [s for s, _ in got].count("heart") == 1

    until(back)
    assert sources.count("heart2") == frame - 10  # the other one did not miss a step


@pytest.mark.parametrize("fault", ["spin", "stop"])
def test_a_part_that_hangs_in_lockstep_is_ended_after_the_deadline(runs, until, fault):
    session = runs(["heart", "heart2"], plugin=FAULTY, options={"heart": {"fault": fault}}, step_deadline_s=2.0)
    got = frames(session, 0, 20)
    assert [source for source, _ in got].count("heart2") == 20
    until(lambda: session.part_states["heart"].restarts >= 1, session)
    assert "no end of its step after 2 s" in session.part_states["heart"].reason


def test_a_part_that_always_hangs_is_quarantined_with_its_reason(runs, until):
    fault = {"fault": "spin", "after": 1}
    session = runs(["heart", "heart2"], plugin=FAULTY, options={"heart": fault}, step_deadline_s=0.7)
    frame = 0

    def quarantined() -> bool:
        nonlocal frame
        frame += 1
        frames(session, frame, 1)
        return session.part_states["heart"].state == "quarantined"

    until(quarantined)
    told = session.part_states["heart"]
    assert (told.reason, told.restarts) == ("hung 3 times in a row: no end of its step after 0.7 s", 2)


def test_a_hub_killed_in_lockstep_is_replaced_and_the_run_goes_on(runs, until):
    session = runs(["heart"], plugin=FAULTY)
    frames(session, 0, 10)
    os.kill(session.hub_pid, signal.SIGKILL)
    frame = 10

    def back() -> bool:
        nonlocal frame
        frame += 1
        return any(source == "heart" and message.count == 1 for source, message in frames(session, frame, 1))

    until(back)


def test_a_part_inside_that_raises_is_dead_and_the_others_go_on(runs):
    session = runs(
        ["heart", "heart2"], plugin=FAULTY, placement="inside", options={"heart": {"fault": "raise", "after": 3}}
    )
    got = [source for source, _ in frames(session, 0, 10)]
    assert got.count("heart") == 2
    assert got.count("heart2") == 10
    assert session.part_states["heart"].state == "dead"
    assert session.part_states["heart"].reason == "ValueError: the cable is out"


@pytest.mark.parametrize("interpreter", ["", sys.executable], ids=["forked", "another interpreter"])
def test_a_module_s_name_in_the_working_folder_is_none_of_ours(runs, tmp_path, monkeypatch, interpreter):
    (tmp_path / "json.py").write_text("raise SystemExit('not the json that was meant')\n")
    monkeypatch.chdir(tmp_path)
    session = runs(["heart"], plugin=FAULTY, interpreter=interpreter)
    assert len(frames(session, 0, 5)) == 5


# ---- messages that nobody can use -----------------------------------------------------------------------------------


@pytest.mark.parametrize("placement", ["inside", "process"])
@pytest.mark.parametrize(("fault", "said"), [("nan", "value is nan"), ("nan-array", "1 of 2 numbers")])
def test_numbers_that_are_not_finite_are_withheld_and_counted(runs, placement, fault, said):
    session = runs(["heart"], plugin=FAULTY, placement=placement, options={"heart": {"fault": fault}})
    got = [m for _, m in frames(session, 0, 20)]
    assert [m.count for m in got] == [1, 2, 3, 4]  # from the fifth beat on they are withheld
    assert all(math.isfinite(m.value) for m in got)
    assert said in session.refusals[0].reason
    assert session.refusals[-1].count == 16
    assert session.part_states["heart"].state == "running"


@pytest.mark.parametrize("placement", ["inside", "process"])
def test_an_undeclared_message_is_withheld_and_the_declared_ones_come(runs, placement):
    session = runs(["heart"], plugin=FAULTY, placement=placement, options={"heart": {"fault": "undeclared"}})
    assert len(frames(session, 0, 20)) == 20
    assert "does not declare Secret" in session.refusals[0].reason


@pytest.mark.parametrize("placement", ["inside", "process"])
@pytest.mark.parametrize("names", [["heart"], ["heart", "ear"]])
def test_a_message_that_cannot_be_read_is_told_of_the_part_that_sent_it(runs, placement, names):
    options = {"heart": {"fault": "untyped"}}
    session = runs(names, plugin=FAULTY, placement=placement, options=options)
    frames(session, 0, 20)
    assert {(r.part, r.topic) for r in session.refusals} == {("heart", "v1/stream/heart/beat")}
    (line,) = session.news()
    assert line.startswith("part heart: v1/stream/heart/beat refused: ")
    assert "count" in line


# ---- what is told of it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("placement", ["inside", "process"])
@pytest.mark.parametrize(("fault", "said"), [("raise", "ValueError: the cable is out"), ("nan", "value is nan")])
def test_a_reason_is_news_once_and_a_part_that_works_on_has_not_failed(runs, placement, fault, said):
    session = runs(["heart", "heart2"], plugin=FAULTY, placement=placement, options={"heart": {"fault": fault}})
    assert session.news() == []
    news = []
    for frame in range(20):
        frames(session, frame, 1)
        news += session.news()
    assert [line for line in news if "runs again" not in line] == [line for line in news if said in line]
    assert len(news) == len(set(news)) >= 1
    assert all(line.startswith("part heart: ") for line in news)
    if fault == "nan":
        assert session.failed == []  # it works on
        assert session.refused == {"heart": 16}
    elif placement == "inside":
        assert session.failed == ["heart"]  # in a process it may be being started again


def test_a_part_that_never_starts_is_news_with_its_reason(runs):
    session = runs(["heart"], plugin=FAULTY, options={"heart": {"fault": "raise-on-start"}})
    (line,) = session.news()
    assert "quarantined" in line
    assert "no device on this port" in line
    assert session.failed == ["heart"]


def test_a_part_that_the_loop_withdraws_is_told_as_quarantined(runs):
    session = runs(["heart"], plugin=FAULTY, placement="inside")
    session.withdraw("heart", "KeyError: 'probe'")
    assert session.part_states["heart"].state == "quarantined"
    assert session.news() == ["part heart: quarantined: KeyError: 'probe'"]
