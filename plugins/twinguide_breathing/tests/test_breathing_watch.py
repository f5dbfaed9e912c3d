import numpy as np
import pytest

from twinguide_breathing import model as breathing
from twinguide_breathing import waveform
from twinguide_breathing.lag import LagPrior
from twinguide_breathing.synthetic import Fault, Patient, simulate
from twinguide_breathing.watch import Watch

AT_S = 45.0


def watched(seed, faults=(), test_s=40.0, hold_s=0.0):
    """Return times [s], what the watch said in each, and the reasons, after 25 s of training."""
    motion = simulate(Patient(), seed, test_s=test_s, faults=faults)
    first = motion.times < 25.0
    images = np.eye(3) * 0.0015**2
    model = breathing.fit(
        breathing.Recording(
            motion.times[first],
            motion.chest[first],
            motion.chest_covariance,
            motion.image_stamps,
            motion.image_positions,
            images,
        ),
        LagPrior(),
    )
    values = model.projection.apply(motion.chest)
    if hold_s:
        values = held(values, model, int(hold_s * 60))
    watch, rows = Watch(model.familiar), []
    times = np.arange(len(values)) / 60.0
    for k in range(26 * 60, len(times)):
        features = waveform.history_features(times[k - 50 : k + 1], values[k - 50 : k + 1])
        verdict = watch.observe(times[k], values[k], features)
        rows.append((times[k], verdict.in_model, verdict.reason))
    t, in_model, reasons = zip(*rows, strict=True)
    return np.array(t), np.array(in_model), reasons


def held(values, model, samples):
    """Insert a breath hold at the first rest after AT_S."""
    level = (values - model.resting) / model.travel
    quiet = next(k for k in range(int(AT_S * 60), len(values)) if (np.abs(level[k - 30 : k + 30]) < 0.05).all())
    noise = np.random.default_rng(1).normal(0, model.projection.sigma, samples)
    return np.concatenate([values[:quiet], model.resting + noise, values[quiet:]])


@pytest.mark.parametrize("seed", [8001, 8002, 8003])
def test_regular_breathing_raises_no_alarm(seed):
    _, in_model, reasons = watched(seed, test_s=100.0)
    assert in_model.all(), set(reasons)


@pytest.mark.parametrize("seed", [8011, 8012, 8013])
def test_a_cough_is_noticed_within_half_a_second(seed):
    times, in_model, reasons = watched(seed, (Fault("cough", AT_S, 0.012),))
    assert in_model[times < AT_S].all()
    first = times[~in_model][0]
    assert AT_S < first < AT_S + 0.5
    assert "never did" in reasons[int(np.argmin(in_model))]
    assert "wait for a regular breath" in reasons[int(np.argmin(in_model))]  # what the wearer is to do


def test_after_a_cough_the_model_is_believed_again_after_a_regular_breath():
    times, in_model, _ = watched(8021, (Fault("cough", AT_S, 0.012),))
    assert in_model[-1]
    back = times[~in_model][-1]
    assert AT_S + 2.0 < back < AT_S + 14.0  # not at once, and within three of the longest breaths


@pytest.mark.parametrize("seed", [8031, 8032])
def test_after_a_jump_of_phase_the_model_stays_doubted(seed):
    times, in_model, reasons = watched(seed, (Fault("jump", AT_S, 0.25, 0.6),))
    assert in_model[times < AT_S].all()
    assert not in_model[times > AT_S + 5.0].any()
    assert "anew" in reasons[-1]


def test_holding_the_breath_at_rest_raises_no_alarm():
    _, in_model, reasons = watched(8041, hold_s=12.0)
    assert in_model.all(), set(reasons)
