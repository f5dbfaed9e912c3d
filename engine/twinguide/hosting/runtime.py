"""The run's own folder for sockets and rings: made 0700, held by a lock, removed at the end; stale ones too."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from twinguide.errors import BusError

PREFIX = "twinguide-"
LOCK = "lock"
PATH_LIMIT = 80  # characters; a Unix socket's whole address may have 107
FRESH_S = 60.0  # a folder whose lock was never held may belong to a run that is just beginning


@dataclass(frozen=True)
class RuntimeFolder:
    """A run's folder and the lock that tells others that it is in use."""

    path: Path
    lock_fd: int

    def remove(self) -> None:
        """Remove the folder and let go of the lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self.lock_fd)


def make_runtime_folder(base: Path | None = None) -> RuntimeFolder:
    """Make a folder in memory-backed storage where there is some; first remove those whose owner has died."""
    base = base or _base()
    _remove_stale(base)
    path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))  # 0700
    if len(str(path)) > PATH_LIMIT:
        path.rmdir()
        raise BusError(f"a path of at most {PATH_LIMIT} characters for sockets", str(path), next_step="Set TMPDIR.")
    fd = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(fd, fcntl.LOCK_EX)
    os.write(fd, b"held")
    return RuntimeFolder(path, fd)


def _base() -> Path:
    named = os.environ.get("XDG_RUNTIME_DIR", "")
    candidates = [Path("/dev/shm"), *([Path(named)] if named else []), Path(tempfile.gettempdir())]
    return next(path for path in candidates if path.is_dir() and os.access(path, os.W_OK | os.X_OK))


def _remove_stale(base: Path) -> None:
    for path in base.glob(PREFIX + "*"):
        try:
            if path.stat().st_uid != os.getuid() or path.is_symlink():
                continue
            lock = path / LOCK
            if not lock.exists() or lock.stat().st_size == 0:
                if time.time() - path.stat().st_mtime > FRESH_S:
                    shutil.rmtree(path, ignore_errors=True)
                continue
            with lock.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the owner's death has freed it
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue  # in use, or somebody else removed it first
