"""A sender's clock: learnt through jitter and drift, learnt anew where it jumps, one for each sender."""

import logging
from types import SimpleNamespace

import numpy as np
import pytest

from twinguide.clock import MS, SECOND, ClockMapping
from twinguide_openigtlink.clocks import SenderClock, SenderClocks
from twinguide_openigtlink.plugin import IncomingOptions

LOG = logging.getLogger("test")


class Peer(SimpleNamespace):
    __hash__ = object.__hash__


@pytest.mark.parametrize("zero_s", [0.0, 1_700_000_000.0], ids=["own zero", "UTC"])
@pytest.mark.parametrize("law", ["uniform", "exponential"])
def test_a_senders_clock_is_known_to_a_millisecond_after_ten_seconds_of_5_ms_jitter(zero_s, law):
    rng = np.random.default_rng(4)
    clock = SenderClock(lambda: ClockMapping(2 * MS), LOG)
    errors = []
    for i in range(60 * 20):
        host_ns = 1000 * SECOND + round(i * SECOND / 60)
        stamp_ns = round(zero_s * SECOND) + SECOND + round((host_ns - 1000 * SECOND) * (1 - 50e-6))
        jitter_ms = rng.uniform(0.0, 5.0) if law == "uniform" else rng.exponential(5.0)
        t_ns, sigma_ns = clock.time(stamp_ns, host_ns + round((2.0 + jitter_ms) * MS))
        errors.append((abs(t_ns - host_ns) / MS, sigma_ns / MS))
    error, sigma = np.array(errors).T
    assert error[600:].max() < 1.0  # the goal: an offset within 1 ms after 10 s
    assert sigma[600:].max() < 1.0
    assert (error[60:] < 3.0 * sigma[60:]).all()


def test_a_clock_that_is_set_is_learnt_anew_and_a_held_up_delivery_is_not_taken_for_one(caplog):
    clock = SenderClock(ClockMapping, LOG)
    for i in range(10):
        clock.time(SECOND + i * SECOND // 10, 500 * SECOND + i * SECOND // 10)
    held, _ = clock.time(2 * SECOND, 503 * SECOND)  # two seconds late
    assert held == pytest.approx(501 * SECOND, abs=MS)
    assert not caplog.text
    jumped, _ = clock.time(900 * SECOND, 504 * SECOND)
    assert jumped == pytest.approx(504 * SECOND, abs=MS)
    assert "jumped" in caplog.text


def test_a_clock_that_jumps_with_each_message_is_said_once_in_a_while(caplog):
    clock = SenderClock(ClockMapping, LOG)
    for i in range(500):
        t_ns, _ = clock.time((i % 2) * 900 * SECOND + SECOND, 500 * SECOND + i * 10 * MS)
        assert abs(t_ns - 500 * SECOND - i * 10 * MS) < 4 * SECOND
    assert len(caplog.records) == 1


def test_two_senders_have_two_clocks():
    clocks = SenderClocks(IncomingOptions(latency_ms=3.0), ClockMapping, LOG)
    plus, slicer = Peer(open=True), Peer(open=True)
    for i in range(100):
        now = 500 * SECOND + i * 10 * MS
        assert clocks.time(plus, SECOND + i * 10 * MS, now)[0] == pytest.approx(now, abs=MS)
        assert clocks.time(slicer, 1_700_000_000 * SECOND + i * 10 * MS, now)[0] == pytest.approx(now, abs=MS)


@pytest.mark.parametrize("stamp", [0, 2**32 * SECOND - 1], ids=["zeros", "ones"])
def test_a_stamp_that_stands_for_none_leaves_the_arrival_less_its_latency(stamp):
    clocks = SenderClocks(IncomingOptions(latency_ms=3.0, latency_sigma_ms=2.0), ClockMapping, LOG)
    assert clocks.time(Peer(open=True), stamp, 5 * SECOND) == (5 * SECOND - 3 * MS, 2 * MS)
