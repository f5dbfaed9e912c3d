import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "monado.py"


def test_a_machine_without_apt_is_told_what_is_missing(monado_tool, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(monado_tool.MonadoError, match="apt-get"):
        monado_tool.fetch(tmp_path / "none")


def test_two_services_run_side_by_side(monado, monado_own):
    monado_own.start()
    assert monado_own.port != monado.port
    assert monado_own.runtime != monado.runtime


def test_a_program_runs_beside_its_own_service_and_its_status_comes_back(monado_prefix):
    program = "import os, pathlib, sys; sys.exit(7 if pathlib.Path(os.environ['XDG_RUNTIME_DIR']).exists() else 1)"
    done = subprocess.run([sys.executable, TOOL, "run", "--", sys.executable, "-c", program], timeout=60)
    assert done.returncode == 7


def test_a_script_runs_by_the_interpreter_that_it_names(monado_tool, monado_prefix, tmp_path):
    script = tmp_path / "tool"
    script.write_text(f"#!{sys.executable} -B\n")
    script.chmod(0o755)
    assert monado_tool.command(monado_prefix, str(script), "a")[-4:] == [sys.executable, "-B", str(script), "a"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_service_dies_with_the_tool(monado_prefix, how):
    program = "import os, sys; print(os.environ['XDG_RUNTIME_DIR'], flush=True); sys.stdin.read()"
    command = [sys.executable, TOOL, "run", "--", sys.executable, "-c", program]
    tool = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    runtime = Path(tool.stdout.readline().strip())
    pid = int((runtime / "monado.pid").read_text())
    assert Path(f"/proc/{pid}").exists()
    tool.send_signal(how)
    tool.wait(20)
    tool.stdin.close()
    tool.stdout.close()
    shutil.rmtree(runtime.parent, ignore_errors=True)  # a killed tool cannot
    for _ in range(100):
        if not alive(pid):
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the service outlived the tool")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
