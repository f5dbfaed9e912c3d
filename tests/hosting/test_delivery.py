"""Who gets what, when: late joiners, wake-ups, bulk, clean ends."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import venv
from pathlib import Path

import numpy as np
import pytest

from twinguide.clock import MS, SECOND
from twinguide.hosting.runtime import make_runtime_folder
from twinguide.messages import Registration, Solution

FAULTY = "faulty_plugin.py"
HERE = Path(__file__).parent


def test_a_late_joiner_gets_the_newest_state(runs, until):
    session = runs(["waiter"], plugin=FAULTY, clock="real")
    for version in (1, 2, 3):
        session.publish(Registration(version=version, state="made"))
    versions: list[tuple[int, int]] = []

    def told(boot: int) -> bool:
        session.advance(session.now_ns())
        versions.extend((h.boot, m.version) for h, m in session.drain() if h.source == "waiter")
        return (boot, 3) in versions

    until(lambda: told(1))
    os.kill(session.part_states["waiter"].pid, signal.SIGKILL)
    until(lambda: told(2))
    assert [version for boot, version in versions if boot == 2] == [3]  # the cache holds the newest only


def test_a_part_wakes_on_a_message_and_sleeps_otherwise(runs, until):
    session = runs(["waiter"], plugin=FAULTY, clock="real")
    until(lambda: "waiter" in session.health, session)
    for version in range(5):
        session.publish(Registration(version=version, state="made"))
        got: list[int] = []
        until(lambda g=got, s=session: g.extend(m.version for _, m in s.drain()) or bool(g), session=None)
        assert got == [version]
    until(lambda: session.health["waiter"].steps == 5, session)


def test_what_comes_while_the_loop_waits_is_taken_and_the_wait_does_not_end_early(runs, until):
    session = runs(["heart"], plugin=FAULTY, clock="real")
    until(lambda: "heart" in session.health, session)  # on a busy machine its process takes seconds to start
    until_ns = session.now_ns() + SECOND
    assert "heart" in [header.source for header, _ in session.listen(until_ns)]
    assert session.now_ns() > until_ns - MS // 10  # a tenth of a millisecond is nothing to a frame


def test_nobody_listens_to_a_hub_that_is_gone_nor_in_virtual_time(runs, gone, until):
    session = runs(["heart"], plugin=FAULTY, clock="real")
    os.kill(session.hub_pid, signal.SIGKILL)
    until(lambda: gone(session.hub_pid))
    session.drain()
    began_ns = session.now_ns()
    assert not list(session.listen(began_ns + 20 * SECOND))
    assert session.now_ns() - began_ns < 10 * SECOND  # no spinning on a dead hub
    virtual = runs(["heart"], plugin=FAULTY)
    assert not list(virtual.listen(20 * SECOND))
    assert virtual.now_ns() == 0


def test_a_part_inside_wakes_on_a_message_from_a_process(runs, until):
    session = runs(["heart", "ear"], plugin=FAULTY, clock="real", placements={"ear": "inside"})
    seen: list[int] = []

    def heard() -> bool:
        session.advance(session.now_ns())
        seen.extend(m.seen for h, m in session.drain() if h.source == "ear")
        return bool(seen) and seen[-1] >= 5

    until(heard)
    assert seen == sorted(set(seen))  # no step without a new beat


def test_shared_arrays_reach_the_loop_and_match_what_was_sent(runs):
    session = runs(["earth", "gauge", "model", "plate"])
    checked = 0
    for frame in range(90):
        session.advance(round(frame * 1e9 / 90))
        messages = [m for _, m in session.drain()]
        for solution in (m for m in messages if isinstance(m, Solution)):
            values = session.bulk(solution.vertices)
            assert values is not None
            assert values.shape == (100, 3)
            assert values.dtype == np.float32
            assert len(np.unique(values)) == 1
            checked += 1
    assert checked >= 25


def test_another_interpreter_runs_a_part_by_the_module(runs):
    session = runs(["heart"], plugin=FAULTY, interpreter=sys.executable)
    session.advance(100_000_000)
    assert len(session.drain()) == 6
    assert b"twinguide.hosting" in Path(f"/proc/{session.part_states['heart'].pid}/cmdline").read_bytes()


OTHER = """
import sys
from twinguide import Lost

class Device:
    def __init__(self, ctx):
        pass

    def step(self, t_ns, inbox):
        return [Lost(t_ns=t_ns, of="device", reason=sys.prefix)]
"""
DECLARED = """
from twinguide import Lost, Sensor, Topic, hookimpl

@hookimpl
def parts():
    return [Sensor("device", make="only_in_the_other:Device", publishes={"lost": Topic(Lost)}, rate_hz=10)]
"""


def test_a_part_runs_in_another_environment_with_libraries_of_its_own(runs, tmp_path):
    other = tmp_path / "other"
    venv.create(other, symlinks=True, with_pip=False)
    (packages,) = other.glob("lib/python*/site-packages")
    ours = [path for path in sys.path if path.endswith("-packages")]
    lines = [f"import site; site.addsitedir({path!r})" for path in ours]  # with the .pth files in it
    (packages / "ours.pth").write_text("\n".join(lines))
    (packages / "only_in_the_other.py").write_text(OTHER)
    (tmp_path / "device_plugin.py").write_text(DECLARED)
    session = runs(["device"], plugin=str(tmp_path / "device_plugin.py"), interpreter=str(other / "bin/python"))
    session.advance(SECOND // 2)
    assert {message.reason for _, message in session.drain()} == {str(other)}
    assert importlib.util.find_spec("only_in_the_other") is None


def test_a_missing_interpreter_is_a_part_that_fails_with_the_reason(runs):
    session = runs(["heart", "heart2"], plugin=FAULTY, interpreter="/nowhere/python")
    assert session.part_states["heart"].state == "quarantined"
    assert "/nowhere/python" in session.part_states["heart"].reason


def test_keys_stand_on_no_command_line_and_in_no_environment(runs, keys_of):
    session = runs(["heart"], plugin=FAULTY, interpreter=sys.executable)
    pids = [session.hub_pid, session.part_states["heart"].pid]
    keys = keys_of(session).values()
    assert keys
    for pid in pids:
        for where in ("cmdline", "environ"):
            assert not any(key in Path(f"/proc/{pid}/{where}").read_bytes() for key in keys)


def test_the_hub_runs_without_gl_overrides_and_with_one_thread_for_algebra(runs, monkeypatch):
    monkeypatch.setenv("LIBGL_DRIVERS_PATH", "/x")
    monkeypatch.setenv("XR_RUNTIME_JSON", "/x")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
    session = runs(["heart"], plugin=FAULTY)
    environment = Path(f"/proc/{session.hub_pid}/environ").read_bytes()
    assert b"LIBGL_" not in environment
    assert b"XR_RUNTIME" not in environment
    assert b"OPENBLAS_NUM_THREADS=1\0" in environment


def test_the_folder_is_private_while_it_runs_and_gone_afterwards(runs, gone):
    session = runs(["heart"], plugin=FAULTY)
    assert session.folder.stat().st_mode & 0o777 == 0o700
    pids = [session.hub_pid, session.part_states["heart"].pid]
    session.close()
    assert not session.folder.exists()
    assert all(gone(pid) for pid in pids)


@pytest.fixture
def short_path():
    """A folder whose name leaves room for sockets, which pytest's own may not."""
    with tempfile.TemporaryDirectory(prefix="tg") as folder:
        yield Path(folder)


def test_folders_of_the_dead_are_removed_and_those_of_the_living_kept(short_path):
    tmp_path = short_path
    living = make_runtime_folder(tmp_path)
    code = f"""
        from pathlib import Path
        from twinguide.hosting.runtime import make_runtime_folder
        print(make_runtime_folder(Path({str(tmp_path)!r})).path)
    """
    dead = Path(subprocess.check_output([sys.executable, "-c", textwrap.dedent(code)], text=True).strip())
    assert dead.exists()
    mine = make_runtime_folder(tmp_path)
    assert not dead.exists()
    assert living.path.exists()
    for folder in (living, mine):
        folder.remove()


def test_a_folder_whose_lock_was_not_held_yet_is_removed_only_when_it_is_old(short_path):
    begun, old = (short_path / f"twinguide-{name}" for name in ("begun", "old"))
    for folder in (begun, old):
        folder.mkdir()
        (folder / "lock").touch()
    os.utime(old, (0, 0))
    make_runtime_folder(short_path).remove()
    assert begun.exists()
    assert not old.exists()


def test_parts_inside_are_told_of_the_end_and_an_error_of_one_keeps_nothing_from_ending(runs, caplog):
    options = {"heart": {"fault": "raise-at-end", "after": 1000}}
    session = runs(["heart", "heart2"], plugin=FAULTY, placement="inside", options=options)
    session.close()
    assert caplog.text.count("the heart has been told to stop") == 2
    assert "OSError: it was gone already" in caplog.text
    assert not session.folder.exists()


def test_the_death_of_the_app_ends_hub_and_parts_and_removes_the_folder(tmp_path, until, gone):
    code = f"""
        import sys
        from pathlib import Path
        from twinguide.hosting.plan import PartPlan, RunPlan
        from twinguide.hosting.session import Session
        from twinguide.registry import Registry
        file = Path({str(HERE / FAULTY)!r})
        plan = RunPlan(run_id="x", seed=1, clock="real", parts=(PartPlan("heart", "process"),), discover=False,
                       session_folder={str(tmp_path)!r}, plugin_files=(str(file),), record=False)
        session = Session(plan, Registry.load([file], discover=False))
        session.start()
        print(session.folder, session.hub_pid, session.part_states["heart"].pid, flush=True)
        sys.stdin.read()
    """
    app = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert app.stdout is not None
    folder, *pids = app.stdout.readline().split()
    app.kill()
    app.wait()
    app.stdout.close()
    app.stdin.close()
    until(lambda: all(gone(int(pid)) for pid in pids))
    until(lambda: not Path(folder).exists())
