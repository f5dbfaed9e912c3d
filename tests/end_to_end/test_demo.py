"""The README's demo, as a newcomer runs it: from the command line, every part in its own process, with pictures."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from twinguide.app import run_scenario
from twinguide.loop import Loop
from twinguide.scenario import find, overridden

SMALL = ["--set", "headset.width=192", "--set", "headset.height=192", "--draw-every", "30"]
LONG = "x" * 5000  # longer than any system takes a name
LEFT = ("session.mcap", "stereo.webm", "summary.json", "timing.json", "report.html", "case/case.toml")


OWN = """
from twinguide import Lost, Sensor, Topic, hookimpl

@hookimpl
def parts():
    return [Sensor("own", make="acme_own:Own", publishes={"lost": Topic(Lost)}, rate_hz=10)]
"""


TALKS = """
from twinguide import Guidance, hookimpl

@hookimpl
def parts():
    return [Guidance("talks", make="acme_talks:Talks")]

class Talks:
    def __init__(self, ctx):
        self.log = ctx.log

    def assess(self, twin):
        print("a word of its own")
        self.log.warning("and another")
        return []
"""


def twinguide(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "twinguide", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=280,
        **options,
    )


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """The same two seconds of guidance, twice, from nothing."""
    folders = [tmp_path_factory.mktemp("demo") / "session" for _ in range(2)]
    for folder in folders:
        done = twinguide("demo", "--seconds", 2, "--seed", 3, "--clock", "virtual", "--out", folder, *SMALL)
        assert done.returncode == 0, done.stdout + done.stderr
    return folders


def test_a_demo_leaves_everything_that_it_promises(demos):
    for name in LEFT:
        assert (demos[0] / name).stat().st_size > 0, name
    assert len(list((demos[0] / "stills").glob("*.png"))) >= 6


def test_the_same_seed_gives_the_same_summary_to_the_byte(demos):
    assert (demos[0] / "summary.json").read_bytes() == (demos[1] / "summary.json").read_bytes()


def test_the_same_seed_gives_the_same_pictures_to_the_byte(demos):
    first, second = ({p.name: p.read_bytes() for p in (d / "stills").glob("*.png")} for d in demos)
    assert first == second


def test_the_summary_has_the_figures_of_a_healthy_run(demos):
    summary = json.loads((demos[0] / "summary.json").read_text())
    assert summary["frames"] == pytest.approx(2 * 90, abs=2)
    for name in ("target", "needle", "overlay"):
        assert {"mean", "p95", "max", "predicted_p95", "coverage"} <= set(summary[f"{name}_error_mm"])
    assert summary["target_error_mm"]["mean"] < 2.5  # two seconds of one registration; the study over seeds is narrower
    assert summary["marked_fraction"] <= 0.02
    assert summary["plugins"]["tracker"]["placement"] == "process"
    assert (summary["ended"]["reason"], summary["ended"]["early"]) == ("2 s of guidance", False)


def test_a_report_is_rebuilt_from_the_recording_alone(demos):
    before = (demos[1] / "summary.json").read_bytes()
    for name in ("summary.json", "timing.json", "report.html"):
        (demos[1] / name).unlink()
    done = twinguide("report", demos[1])
    assert done.returncode == 0, done.stderr
    assert (demos[1] / "summary.json").read_bytes() == before
    assert (demos[1] / "report.html").exists()


@pytest.mark.parametrize(
    ("ending", "clock"), [(signal.SIGINT, "virtual"), (signal.SIGTERM, "real"), (signal.SIGHUP, "virtual")]
)
def test_ctrl_c_an_end_that_is_asked_for_and_a_closed_terminal_leave_a_valid_folder(demo_case, tmp_path, ending, clock):
    out = tmp_path / "session"
    (tmp_path / "acme_talks.py").write_text(TALKS)
    arguments = ["demo", "--out", out, "--set", f"case={demo_case.folder}", "--clock", clock, *SMALL]
    arguments += ["--plugin", tmp_path / "acme_talks.py", "--set", "parts.talks={}"]
    run = subprocess.Popen(
        [sys.executable, "-m", "twinguide", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=lambda: signal.signal(ending, signal.SIG_DFL),  # ignored by a job of a shell, or of nohup
    )
    for line in run.stdout:
        assert "a word of its own" not in line  # of a part inside, between the run's own lines
        assert "setup" not in line or "   0.00 s  setup" in line  # since its first frame, not since the machine started
        if "register" in line:
            break
    time.sleep(1.0)
    if ending == signal.SIGHUP:
        run.stdout.close()  # with the terminal
    run.send_signal(ending)
    rest = ""
    if ending != signal.SIGHUP:
        run.send_signal(ending)  # twice, as `timeout` does: to the process and to its group
        for line in run.stdout:
            rest += line
            run.send_signal(ending)  # by who is impatient
            if "report" in line:
                break
        while run.poll() is None:  # and on the way out, to the very end
            run.send_signal(ending)
            time.sleep(0.01)
    run.wait(timeout=120)
    if ending != signal.SIGHUP:
        assert run.returncode == 0, rest
        assert "interrupted" in rest
    assert (out / "report.html").exists()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["frames_all_steps"] > 0
    assert summary["ended"] == {"reason": "interrupted", "guided_s": 0.0, "asked_s": 40.0, "early": True}
    printed = (out / "logs" / "loop.log").read_text()
    assert "a word of its own\n" in printed
    assert "twinguide.part.talks WARNING and another\n" in printed


LINGERS = """
import threading

from twinguide import Overlay, hookimpl


@hookimpl
def parts():
    return [Overlay("lingers", make="acme_lingers:Lingers")]


class Lingers:
    def __init__(self, ctx):
        threading.Thread(target=threading.Event().wait).start()  # for ever

    def marks(self, twin):
        return []
"""


def test_a_process_that_a_part_s_thread_keeps_ends_by_one_signal_once_all_is_written(demo_case, tmp_path):
    (tmp_path / "acme_lingers.py").write_text(LINGERS)
    arguments = ["demo", "--out", tmp_path / "session", "--set", f"case={demo_case.folder}", "--set", "record=false"]
    arguments += ["--plugin", tmp_path / "acme_lingers.py", "--set", "parts.lingers={}", *SMALL]
    run = subprocess.Popen(
        [sys.executable, "-m", "twinguide", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    for line in run.stdout:
        if "register" in line:
            run.send_signal(signal.SIGTERM)
        if "nothing was recorded" in line:
            break
    with pytest.raises(subprocess.TimeoutExpired):
        run.wait(timeout=3.0)
    run.send_signal(signal.SIGTERM)
    assert run.wait(timeout=20) == 0


def test_an_error_of_the_run_is_told_with_its_log_and_recorded_without(monkeypatch, registry, demo_case, tmp_path):
    def frame(loop):
        if loop.frames == 10:
            raise RuntimeError("a bug")
        return made(loop)

    made = Loop.frame
    monkeypatch.setattr(Loop, "frame", frame)
    scenario, out, said = find("liver_rehearsal", registry), tmp_path / "session", []
    ready = overridden(scenario, [f"case={demo_case.folder}", "clock=virtual", "seconds=40.0"])
    run_scenario(ready, registry, out, say=said.append, draw=False)
    assert f"ended: error: RuntimeError: a bug; see {out}/logs/loop.log" in said
    ended = json.loads((out / "summary.json").read_text())["ended"]
    assert (ended["reason"], ended["early"]) == ("error: RuntimeError: a bug", True)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "nowhere"], "liver_puncture"),
        (["demo", "--set", "loop.rate_hz=-1"], "rate_hz"),
        (["demo", "--set", "parts.teleporter={}"], "teleporter"),
        (["demo", "--set", "case=/nonexistent"], "nonexistent"),
        (["report", "/nonexistent"], "nonexistent"),
        (["case", "show", "/nonexistent"], "nonexistent"),
        (["demo", "--plugin", "/nonexistent.py"], "nonexistent"),
        (["report", LONG], "File name too long"),
        (["case", "show", LONG], "File name too long"),
        (["demo", "--set", f"case='{LONG}'"], "File name too long"),
        (["demo", "--set", 'case="a\\u0000b"'], "null byte"),
        (["demo", "--out", "round"], "round"),
    ],
)
def test_bad_input_ends_with_one_clear_line_and_status_1(tmp_path, arguments, says):
    (tmp_path / "round").symlink_to("round")
    done = twinguide(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 1000


def test_what_the_system_refuses_is_told_with_how_to_see_where():
    refused = twinguide("report", LONG).stderr
    assert refused.startswith("OSError: wanted ")
    assert "in twinguide report. " in refused
    key, value = re.search(r"(\w+)=(1) in the environment", refused).groups()
    assert "Traceback" in twinguide("report", LONG, env={**os.environ, key: value}).stderr


def test_a_folder_that_the_locale_cannot_name_is_told_with_a_remedy(demo_case, tmp_path):
    latin = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = twinguide("demo", "--set", f"case={demo_case.folder}", "--out", "\xfc", cwd=tmp_path, env=os.environ | latin)
    assert "wanted paths and words that are UTF-8" in done.stderr
    assert "set LC_ALL=C.UTF-8" in done.stderr


def test_a_narrow_terminal_tells_structures_apart(demo_case, tmp_path):
    arguments = ["case", "show", demo_case.folder, "--stills", tmp_path]
    told = twinguide(*arguments, env={**os.environ, "COLUMNS": "40"}).stdout
    assert set(demo_case.structures) <= set(told.split())


def test_an_output_folder_with_other_things_in_it_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    done = twinguide("demo", "--out", tmp_path)
    assert done.returncode == 1
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_the_doctor_names_what_is_there_as_json():
    done = twinguide("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert {"machine", "GL", "OpenXR runtime", "CUDA", "packages", "plugins"} <= set(checks)
    assert all(check["state"] == "ok" or check["remedy"] for check in checks.values())


def test_plugins_are_listed(tmp_path):
    (tmp_path / "acme_own.py").write_text(OWN)
    done = twinguide("plugins", "list", "--json", "--plugin", tmp_path / "acme_own.py")
    assert {"tracker", "own"} <= {row["part"] for row in json.loads(done.stdout)["parts"]}
