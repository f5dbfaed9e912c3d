"""The whole program on a real OpenXR runtime: loop, hub, recorder and pictures, in real time."""

import itertools
import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from twinguide.messages import PartState, Shown
from twinguide.playback import read


def start(tool, service, case, out, *settings):
    arguments = [
        "-m",
        "twinguide",
        "run",
        "liver_rehearsal",
        "--headset",
        "openxr",
        "--clock",
        "real",
        "--out",
        str(out),
    ]
    arguments += ["--set", f'case="{case.folder}"', *settings]
    command = tool.command(service.prefix, sys.executable, *arguments)
    return subprocess.Popen(
        command, env=service.client_environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture(scope="module")
def session(monado_tool, monado, demo_case, tmp_path_factory):
    """Four seconds of rehearsal on Monado."""
    out = tmp_path_factory.mktemp("monado") / "session"
    run = start(monado_tool, monado, demo_case, out, "--set", "seconds=4")
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 0, said
    return out


def test_a_run_on_a_real_runtime_leaves_a_session(session):
    summary = json.loads((session / "summary.json").read_text())
    assert summary["headset"] == "openxr"
    assert summary["frames"] > 20
    assert summary["frames_drawn"] > 10
    assert (session / "report.html").exists()


def test_both_eyes_were_drawn_and_differ(session):
    picture = np.asarray(Image.open(next((session / "stills").glob("*.png"))))
    left, right = np.split(picture, 2, axis=1)
    assert left.max() > 100
    assert right.max() > 100
    assert not np.array_equal(left, right)


def test_display_times_only_go_forward_on_the_hosts_clock(session):
    frames = [r.message for r in read(session) if isinstance(r.message, Shown)]
    assert all(a.t_ns < b.t_ns for a, b in itertools.pairwise(frames))
    guided = [frame.t_ns for frame in frames if frame.step == "guide"]
    assert guided[-1] - guided[0] == pytest.approx(4e9, rel=0.1)


def test_the_runs_parts_run_on_the_hosts_own_libraries(session):
    states = [r.message for r in read(session) if isinstance(r.message, PartState)]
    assert {s.part for s in states} >= {"recorder"}
    assert not [s for s in states if s.state in ("dead", "hung", "quarantined")]


def test_a_killed_runtime_is_survived_by_the_run(monado_tool, monado_own, demo_case, tmp_path):
    monado_own.start()
    run = start(monado_tool, monado_own, demo_case, tmp_path / "session", "--set", "seconds=8")
    for line in run.stdout:
        if " guide" in line:
            break
    monado_own.send(signal.SIGKILL)
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 0, said
    shown = [r.message for r in read(tmp_path / "session") if isinstance(r.message, Shown)]
    assert shown[-1].t_ns - shown[0].t_ns > 7e9
    assert any("Headset tracking lost" in row for row in shown[-1].text)  # nothing was laid over, it says
    assert not shown[-1].drawn
