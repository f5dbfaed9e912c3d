"""What the loop asks of Python and Linux, so that its frames wait neither for a collection nor for another process."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator
from contextlib import contextmanager

FIRST = os.sched_param(1)  # the lowest real-time priority: before every ordinary process, behind the kernel's own


@contextmanager
def quiet_collector() -> Generator[None]:
    """Freeze what was loaded and collect only the young: a full collection takes longer than a frame."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


@contextmanager
def first_in_line() -> Generator[bool]:
    """Let this thread go before every ordinary process, and yield whether Linux grants it.

    An ordinary thread that wakes for its frame waits out another's time slice, some 4 ms. The loop sleeps most of its
    time, so nobody starves; Linux keeps 5 % of each core from real-time threads besides. What this thread starts is
    ordinary again (SCHED_RESET_ON_FORK): parts must not inherit it.
    """
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, FIRST)
    except OSError:  # not root, and no rtprio in limits.conf
        yield False
        return
    try:
        yield True
    finally:  # the flag stays: who may not have a real-time priority without asking may not take it away
        os.sched_setscheduler(0, policy | os.SCHED_RESET_ON_FORK, priority)
