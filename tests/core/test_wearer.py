import pytest

from twinguide.clock import MS, SECOND
from twinguide.frames import Transform
from twinguide.wearer import Wearer

FRAME = SECOND // 90


class Worn:
    """A headset that is tracked but for one gap [ns]."""

    def __init__(self, lost_ns):
        self._lost_ns = lost_ns

    def head(self, t_ns):
        return None if SECOND <= t_ns < SECOND + self._lost_ns else Transform.of("stage", "headset")


def jumps(lost_ns):
    wearer = Wearer(Worn(lost_ns))
    told = []
    for t_ns in range(0, 4 * SECOND, FRAME):
        wearer.look(t_ns)
        told.append(wearer.take_jump())
    return [jump for jump in told if jump]


@pytest.mark.parametrize(("lost_ms", "told"), [(0, 0), (100, 0), (2000, 1)])
def test_a_headset_that_was_put_off_may_be_elsewhere_when_it_is_back(lost_ms, told):
    found = jumps(lost_ms * MS)
    assert len(found) == told
    assert all("not tracked for 2.0 s" in jump for jump in found)
