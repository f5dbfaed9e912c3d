"""Calls that may never return, made on a thread of their own so that the caller waits only up to a deadline."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class Caller:
    """Make one call after the other on a daemon thread; a call that hangs costs the thread, not the program.

    `bell` is a descriptor that can be read once a call has been answered since the last `hush`; it rings just before
    the future has the answer.
    """

    def __init__(self, name: str) -> None:
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._jobs: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Return the future of a call; its `result(seconds)` raises TimeoutError while there is none."""
        future: Future[T] = Future()
        self._jobs.put((call, future))
        return future

    def hush(self) -> None:
        """Let the bell stand still until the next answer."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.bell)

    def close(self) -> None:
        """Let the thread end after the calls made so far."""
        self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            call, future = job
            settle: Callable[[Any], None] = future.set_result
            try:
                answer = call()
            except BaseException as error:  # it belongs to whoever asks for the result
                answer, settle = error, future.set_exception
            os.eventfd_write(self.bell, 1)  # first: who has the answer may hush the bell for good
            settle(answer)
        os.close(self.bell)
