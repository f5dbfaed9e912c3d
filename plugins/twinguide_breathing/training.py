"""Gather what the breathing model is trained on."""

from __future__ import annotations

import numpy as np

from twinguide import ImageTarget, Training

from .marker import ChestSample
from .model import LEAST_IMAGES, BreathingModel, Recording, TooLittle


class TrainingLog:
    """Chest samples and images since the training began at `start_ns` [ns]."""

    def __init__(self, start_ns: int) -> None:
        self.start_ns = start_ns
        self._chest: list[ChestSample] = []
        self._images: list[ImageTarget] = []

    def add_chest(self, sample: ChestSample) -> None:
        """Keep a sample; times run forwards only."""
        if not self._chest or sample.t_ns > self._chest[-1].t_ns:
            self._chest.append(sample)

    def add_image(self, image: ImageTarget) -> None:
        """Keep an image unless its numbers are not finite or it carries no uncertainty."""
        covariance = image.covariance.numpy()
        if np.isfinite(image.position).all() and covariance.shape == (3, 3) and np.trace(covariance) > 0:
            self._images.append(image)

    def recording(self) -> Recording:
        """Return what was gathered, times in seconds of the run's clock; raise TooLittle where it is empty."""
        if len(self._images) < LEAST_IMAGES or len(self._chest) < 2:
            raise TooLittle(f"wanted {LEAST_IMAGES} images; got {len(self._images)}, {len(self._chest)} chest samples")
        return Recording(
            np.array([s.t_ns for s in self._chest]) * 1e-9,
            np.array([s.position for s in self._chest]),
            np.mean([s.covariance for s in self._chest], axis=0),
            np.array([i.t_ns for i in self._images]) * 1e-9,
            np.array([i.position for i in self._images]),
            np.mean([i.covariance.numpy() for i in self._images], axis=0),
            np.mean([s.baseline_covariance for s in self._chest], axis=0),
        )


def trained(model: BreathingModel, t_ns: int) -> Training:
    """Report a finished training at `t_ns` [ns]."""
    lag, familiar = model.lag, model.familiar
    full = model.displacement(np.array([[model.resting + model.travel, 0.0]]))[0]
    figures = {
        "lag_ms": lag.lag_s * 1e3,
        "lag_sigma_ms": lag.sigma_s * 1e3,
        "delay_ms": lag.delay_s * 1e3,
        "delay_sigma_ms": lag.delay_sigma_s * 1e3,
        "image_residual_mm": float(np.sqrt(np.trace(model.noise) / 3)) * 1e3,
        "target_travel_mm": float(np.linalg.norm(full)) * 1e3,
        "chest_travel_mm": abs(model.travel) * 1e3,
        "period_s": float(familiar.periods.mean()),
    }
    note = f"target moves {figures['target_travel_mm']:.0f} mm; images {figures['lag_ms']:.0f} ms late"
    return Training(t_ns=t_ns, progress=1.0, done=True, note=note, figures=figures)
