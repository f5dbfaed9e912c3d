import os
import subprocess
import sys

import pytest

from twinguide.promptness import first_in_line

TELL = "import os; print(os.sched_getscheduler(0))"
GIVE_UP_THE_RIGHT = """
import os
from twinguide.promptness import first_in_line
with first_in_line():
    os.seteuid(65534)
print(os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK)
"""


def granted() -> bool:
    with first_in_line() as real_time:
        return real_time


def told_by(code: str) -> int:
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def test_the_thread_is_ordinary_again_afterwards():
    with first_in_line() as real_time:
        within = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
    assert within == (os.SCHED_RR if real_time else os.SCHED_OTHER)
    assert os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK == os.SCHED_OTHER


@pytest.mark.skipif(not granted(), reason="Linux grants no real-time priority here")
def test_what_is_started_within_is_ordinary():
    with first_in_line():
        assert told_by(TELL) == os.SCHED_OTHER


@pytest.mark.skipif(not granted() or os.geteuid() != 0, reason="only root can give up the right to a priority")
def test_a_user_without_the_right_to_change_the_flag_leaves_in_peace():
    assert told_by(GIVE_UP_THE_RIGHT) == os.SCHED_OTHER
