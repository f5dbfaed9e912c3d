"""A real runtime for the tests: Monado from tools/monado.py, and clients that run beside it as their own processes."""

import importlib
import json
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIENT = Path(__file__).with_name("client.py")
LIMIT_S = 60.0  # of a client: one whose loop a runtime has stopped would never tell it


@pytest.fixture(scope="session")
def monado_tool():
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        yield importlib.import_module("monado")
    finally:
        sys.path.remove(str(ROOT / "tools"))


@pytest.fixture(scope="session")
def monado_prefix(monado_tool):
    try:
        return monado_tool.fetch()
    except monado_tool.MonadoError as error:
        pytest.skip(f"no OpenXR runtime here: {error}")


@pytest.fixture(scope="session")
def monado(monado_tool, monado_prefix):
    """A service that idles through the whole session; not for tests that end it."""
    service = monado_tool.Service(monado_prefix)
    try:
        service.start()
        yield service
    finally:
        service.close()


@pytest.fixture
def monado_own(monado_tool, monado_prefix):
    """A service of the test's own, to kill and stop; not started."""
    service = monado_tool.Service(monado_prefix)
    try:
        yield service
    finally:
        service.close()


@pytest.fixture
def run_client(monado_tool):
    """Start client.py's scene against a service; what it tells is read line by line."""
    clients = []

    def run(scene, service, **environment):
        clients.append(Client(monado_tool, scene, service, environment))
        return clients[-1]

    yield run
    for client in clients:
        client.end()


class Client:
    """One client process; `expect(kind)` reads on until it tells that, `result()` until its end."""

    def __init__(self, tool, scene, service, environment):
        command = tool.command(service.prefix, sys.executable, str(CLIENT), scene)
        tools = {"PYTHONPATH": str(ROOT / "tools")}
        self.process = subprocess.Popen(
            command,
            env={**service.client_environment, **tools, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.told = []
        self.errors = deque(maxlen=40)
        self._drain = threading.Thread(target=lambda: self.errors.extend(self.process.stderr))
        self._drain.start()
        self._limit = threading.Timer(LIMIT_S, self.process.kill)
        self._limit.start()

    def expect(self, kind):
        for line in self.process.stdout:
            if line.startswith("{"):
                self.told.append(json.loads(line))
                if self.told[-1]["kind"] == kind:
                    return self.told[-1]
        pytest.fail(f"the client ended without telling {kind!r}: {''.join(self.errors)}")

    def go_on(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def result(self):
        told = self.expect("result")
        assert self.process.wait(20) == 0, "".join(self.errors)
        return told

    def end(self):
        self._limit.cancel()
        self.process.kill()
        self.process.wait()
        self._drain.join()
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.stderr.close()
