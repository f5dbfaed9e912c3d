"""Where what Python code prints and logs goes: a file of the session's folder, never between the run's own lines."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable, Generator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

FORMAT = "%(asctime)s %(name)s %(levelname)s %(message)s"


class _Lossy(io.FileIO):
    """A file that drops what a full disk does not take: it costs no part that prints."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def log_stream(fd: int) -> io.TextIOWrapper:
    """Return a stream for text into an open file, line by line; closing it closes the file."""
    return io.TextIOWrapper(io.BufferedWriter(_Lossy(fd, "w")), "utf-8", "replace", line_buffering=True)


def aloud(say: Callable[[str], object]) -> Callable[[str], None]:
    """Return what says a line where its caller prints now, whatever takes that place meanwhile."""
    stdout, stderr = sys.stdout, sys.stderr

    def said(line: str) -> None:
        with redirect_stdout(stdout), redirect_stderr(stderr):
            say(line)

    return said


@contextlib.contextmanager
def printed_to(log: Path) -> Generator[None]:
    """Append to a file what Python code prints and logs meanwhile: the parts inside print where the others do.

    The file stays open for what was handed it meanwhile, by a part's `logging.basicConfig`, and lives on.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    ours = logging.getLogger("twinguide")
    level = ours.level
    stream = log_stream(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(FORMAT))
    logging.getLogger().addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        with redirect_stdout(stream), redirect_stderr(stream):
            yield
    finally:
        ours.setLevel(level)
        logging.getLogger().removeHandler(handler)
        stream.flush()
