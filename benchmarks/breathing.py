"""Measure the breathing model on synthetic patients: `python benchmarks/breathing.py --seeds 1000 1040`.

Prints, over all seeds, the error at the horizon of a healthy tracker, its coverage by the predicted 95 % region, false
alarms in regular breathing, and how soon a cough or a jump of phase is noticed after the true error exceeds 3 mm.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np

from twinguide_breathing import model as breathing
from twinguide_breathing import waveform
from twinguide_breathing.lag import LagPrior
from twinguide_breathing.synthetic import Fault, Motion, Patient, simulate
from twinguide_breathing.watch import Watch

CHI2_95 = 7.815  # 3 degrees of freedom
TRAIN_S, TEST_S = 25.0, 120.0
HORIZONS_S = (0.036, 0.055)


@dataclass(frozen=True)
class Followed:
    """One run after its training: times [s], errors [m], squared Mahalanobis distances, and what the watch said."""

    times: np.ndarray
    errors: np.ndarray
    distances: np.ndarray
    predicted: np.ndarray  # root mean square error [m] that the covariance promises
    in_model: np.ndarray
    reasons: list[str]
    lag_error_s: float


def train(motion: Motion, image_sigma: float) -> breathing.BreathingModel:
    """Train on the first TRAIN_S seconds."""
    before = motion.times < TRAIN_S
    chest_times, chest = motion.times[before], motion.chest[before]
    images = np.eye(3) * image_sigma**2
    recording = breathing.Recording(
        chest_times, chest, motion.chest_covariance, motion.image_stamps, motion.image_positions, images
    )
    return breathing.fit(recording, LagPrior())


def follow(motion: Motion, patient: Patient, rng: np.random.Generator) -> Followed:
    """Predict at every sample after the training, at a horizon drawn between HORIZONS_S."""
    model = train(motion, patient.imaging_sigma)
    watch = Watch(model.familiar)
    values = model.projection.apply(motion.chest)
    rows = []
    for k in np.flatnonzero((motion.times > TRAIN_S + 1.0) & (motion.times < motion.times[-1] - 0.2)):
        now = motion.times[k]
        features = waveform.history_features(motion.times[k - 60 : k + 1], values[k - 60 : k + 1])
        verdict = watch.observe(now, values[k], features)
        mean, covariance = at_horizon(model.predict(features), rng.uniform(*HORIZONS_S), out := np.empty(1))
        truth = np.array([np.interp(now + out[0], motion.times, axis) for axis in motion.target.T])
        error = mean - truth
        distance = error @ np.linalg.solve(covariance, error)
        rows.append(
            (now, np.linalg.norm(error), distance, np.trace(covariance) ** 0.5, verdict.in_model, verdict.reason)
        )
    times, errors, distances, predicted, in_model, reasons = zip(*rows, strict=True)
    lag_error = model.lag.lag_s - patient.imaging_lag_s
    columns = (np.array(c) for c in (times, errors, distances, predicted, in_model))
    return Followed(*columns, list(reasons), lag_error)


def at_horizon(prediction: breathing.Prediction, horizon: float, out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate a prediction as the twin does, mean and covariance linearly; `out` receives the horizon."""
    out[0] = horizon
    knots = np.array(breathing.HORIZONS_S)
    i = int(np.searchsorted(knots, horizon)) - 1
    share = (horizon - knots[i]) / (knots[i + 1] - knots[i])
    mix = [(1 - share) * a[i] + share * a[i + 1] for a in (prediction.displacement, prediction.covariance)]
    return mix[0], mix[1]


def regular(seeds: range, patient: Patient) -> None:
    """Print accuracy, coverage and false alarms of regular breathing."""
    runs = []
    for seed in seeds:
        rng = np.random.default_rng((seed, 1))
        own = replace(patient, lag_rad=patient.lag_rad * (1 + 0.2 * float(np.clip(rng.normal(), -2, 2))))
        runs.append(follow(simulate(own, seed, TRAIN_S, TEST_S), own, rng))
    errors = 1e3 * np.concatenate([r.errors[r.in_model] for r in runs])
    predicted = 1e3 * np.concatenate([r.predicted[r.in_model] for r in runs])
    covered = np.concatenate([r.distances[r.in_model] < CHI2_95 for r in runs])
    alarms = [(seeds[i], r.reasons[int(np.argmin(r.in_model))]) for i, r in enumerate(runs) if not r.in_model.all()]
    minutes = len(runs) * TEST_S / 60
    lag_ms = 1e3 * np.array([r.lag_error_s for r in runs])
    print(f"regular breathing, {len(runs)} patients, {minutes:.0f} min")
    print(f"  error mm      mean {errors.mean():.2f}  p95 {np.quantile(errors, 0.95):.2f}  max {errors.max():.2f}")
    by_run = np.array([1e3 * np.quantile(r.errors[r.in_model], 0.95) for r in runs])
    print(f"  p95 by run mm median {np.median(by_run):.2f}  worst {by_run.max():.2f}")
    print(f"  rms mm        true {np.sqrt(np.mean(errors**2)):.2f}  predicted {np.sqrt(np.mean(predicted**2)):.2f}")
    print(f"  coverage of the 95 % region {100 * covered.mean():.1f} %")
    print(f"  imaging lag   error {lag_ms.mean():+.0f} ms mean, {np.sqrt(np.mean(lag_ms**2)):.0f} ms rms")
    print(f"  false alarms  {len(alarms)} ({10 * len(alarms) / minutes:.2f} in 10 min) {alarms}")


def faulty(seeds: range, patient: Patient, kind: str) -> None:
    """Print how soon a fault is noticed after the true error first exceeds 3 mm."""
    latencies, missed, harmless = [], 0, 0
    for seed in seeds:
        rng = np.random.default_rng((seed, 2))
        at = TRAIN_S + 20 + rng.uniform(0, patient.period_s)
        fault = Fault("cough", at, rng.uniform(0.010, 0.015)) if kind == "cough" else Fault("jump", at, 0.25, 0.6)
        run = follow(simulate(patient, seed, TRAIN_S, 40.0, (fault,)), patient, rng)
        after = run.times > at
        wrong = run.times[after & (run.errors > 0.003)]
        said = run.times[after & ~run.in_model]
        if not len(wrong):
            harmless += 1
        elif not len(said) or said[0] > wrong[0] + 0.5:
            missed += 1
        else:
            latencies.append(said[0] - wrong[0])
    worst = 1e3 * max(latencies, default=float("nan"))
    print(f"{kind}: {len(latencies)} in time, latest {worst:.0f} ms after 3 mm; {missed} missed, {harmless} harmless")


def main() -> None:
    """Run the studies over the seeds asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(1000, 1020), metavar=("FIRST", "END"))
    seeds = range(*parser.parse_args().seeds)
    patient = Patient()
    regular(seeds, patient)
    faulty(seeds, patient, "cough")
    faulty(seeds, patient, "jump")


if __name__ == "__main__":
    main()
