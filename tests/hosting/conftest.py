from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from twinguide.hosting.plan import PartPlan, RunPlan
from twinguide.hosting.session import Session
from twinguide.registry import Registry

HERE = Path(__file__).parent


class Runs:
    """Makes sessions of parts in plugin files, and closes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.open: list[Session] = []

    def __call__(
        self,
        names: Sequence[str],
        *,
        plugin: str = "chain_plugin.py",
        placement: Literal["inside", "process"] = "process",
        placements: dict[str, Literal["inside", "process"]] | None = None,
        clock: Literal["real", "virtual"] = "virtual",
        options: dict[str, dict[str, Any]] | None = None,
        interpreter: str = "",
        start: bool = True,
        **settings: Any,
    ) -> Session:
        parts = tuple(
            PartPlan(n, (placements or {}).get(n, placement), (options or {}).get(n, {}), interpreter) for n in names
        )
        plan = RunPlan(
            run_id="test", seed=settings.pop("seed", 7), clock=clock, parts=parts, discover=False,
            session_folder=str(self.folder), plugin_files=(str(HERE / plugin),),
            **({"record": False, "start_deadline_s": 20.0, "hung_after_s": 10.0} | settings),
        )  # fmt: skip
        session = Session(plan, Registry.load([HERE / plugin], discover=False))
        self.open.append(session)
        if start:
            session.start()
        return session

    def close(self) -> None:
        for session in self.open:
            session.close()


@pytest.fixture
def runs(tmp_path):
    runs = Runs(tmp_path)
    yield runs
    runs.close()


def wait_until(true: Callable[[], bool], session: Session | None = None, seconds: float = 30.0) -> None:
    """Wait for something that other processes bring about; fail loudly where it never comes."""
    until = time.monotonic() + seconds
    while not true():
        if session is not None:
            session.advance(session.now_ns())
            session.drain()
        assert time.monotonic() < until, f"waited {seconds} s in vain"
        time.sleep(0.005)


@pytest.fixture
def until():
    return wait_until


@pytest.fixture
def keys_of():
    """Return the secret keys of a session's own clients, for tests in which one of them has turned."""
    return lambda session: {name: key.encode() for name, key in session._remote._link._keys.items()}


def process_gone(pid: int) -> bool:
    """Tell whether a process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.fixture
def gone():
    return process_gone


def drained_hash(session: Session, seconds: float, frame_hz: float = 90.0) -> tuple[str, int]:
    """Run a virtual session frame by frame; return the hash of all that the loop received, and how much it was."""
    digest, count = hashlib.sha256(), 0
    for frame in range(round(seconds * frame_hz)):
        session.advance(round(frame * 1e9 / frame_hz))
        for header, message in session.drain():
            digest.update(msgspec.msgpack.encode((header, message)))
            count += 1
    return digest.hexdigest(), count


@pytest.fixture
def run_hash():
    return drained_hash
