import numpy as np
import pytest

from twinguide_breathing.gate import LOOKS_AHEAD, UNKNOWN, GateLimits, GateState, decide
from twinguide_breathing.model import HORIZONS_S, Prediction

LIMITS = GateLimits(displacement_m=2e-3, speed_m_s=5e-3, reopen=0.8)
OPEN = GateState(True, "end of expiration")
COUNT = len(HORIZONS_S)


def predicted(distance_mm=0.0, speed_mm_s=0.0, sigma_mm=0.0, last_mm=None):
    displacement = np.full((COUNT, 3), [0.0, 0.0, distance_mm * 1e-3])
    if last_mm is not None:
        displacement[LOOKS_AHEAD - 1, 2] = last_mm * 1e-3
    covariance = np.repeat(np.eye(3)[None] * (sigma_mm * 1e-3) ** 2, COUNT, axis=0)
    velocity = np.full((COUNT, 3), [0.0, 0.0, speed_mm_s * 1e-3])
    return Prediction(displacement, covariance, velocity, np.zeros((COUNT, 2)))


@pytest.mark.parametrize(
    ("prediction", "from_closed", "from_open"),
    [
        (predicted(1.5), True, True),
        (predicted(1.8), False, True),  # between the limit and four fifths of it: stays as it was
        (predicted(2.1), False, False),
        (predicted(0.0, speed_mm_s=3.9), True, True),
        (predicted(0.0, speed_mm_s=4.5), False, True),
        (predicted(0.0, speed_mm_s=5.5), False, False),
        (predicted(1.0, sigma_mm=0.5), False, False),  # 95 % of a 3-D normal lie within 2.8 sigma: 2.4 mm
        (predicted(0.5, last_mm=2.5), False, False),  # it will have left within the horizon
    ],
)
def test_the_gate_keeps_its_limits_with_hysteresis(prediction, from_closed, from_open):
    assert decide(UNKNOWN, prediction, LIMITS, 1.0).open is from_closed
    assert decide(OPEN, prediction, LIMITS, 1.0).open is from_open


def test_a_closed_gate_says_why_and_has_no_seconds_left():
    far, fast = decide(OPEN, predicted(3.0), LIMITS, 1.0), decide(OPEN, predicted(0.0, 9.0), LIMITS, 1.0)
    assert "3.0 mm from rest" in far.reason
    assert "9 mm/s" in fast.reason
    assert far.seconds_left == fast.seconds_left == 0.0


def test_an_open_gate_tells_the_seconds_left_and_none_when_the_breath_is_held_on():
    assert decide(OPEN, predicted(0.0), LIMITS, 1.5).seconds_left == 1.5
    held = decide(OPEN, predicted(0.0), LIMITS, -3.0)
    assert held.open
    assert held.seconds_left == 0.0


def test_what_is_unknown_is_closed():
    assert not UNKNOWN.open
