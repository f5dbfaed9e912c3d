"""Touch landmarks, register the CT to the patient, and verify on landmarks not used for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from twinguide.case import Case
from twinguide.errors import RegistrationRefused
from twinguide.frames import Pose, Transform, p95_from_covariance
from twinguide.messages import Array, Landmark, PoseWire, Registration
from twinguide.scenario import Registered
from twinguide.wording import text
from twinguide_calibration import CalibrationRefused, register_points

TREMBLE_M = 0.001  # of a hand that holds a pointer on a spot
Points = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class Landmarks:
    """A case's landmarks [m], shape (3,), in image, and which of them are touched to register and to verify."""

    image: Points
    fiducials: Sequence[str]
    verification: Sequence[str]

    @staticmethod
    def of(case: Case) -> Landmarks:
        """Return a case's landmarks."""
        marks = case.landmarks.values()
        return Landmarks(
            image={mark.name: mark.position for mark in marks},
            fiducials=[mark.name for mark in marks if mark.kind == "fiducial"],
            verification=[mark.name for mark in marks if mark.kind == "verification"],
        )

    def wanted(self, step: str) -> Sequence[str]:
        """Return the landmarks that a step is about."""
        return self.fiducials if step == "register" else self.verification

    def remaining(self, step: str, touched: Collection[str]) -> list[str]:
        """Return the landmarks that are still to be touched in a step, in order."""
        return [name for name in self.wanted(step) if name not in touched]

    def progress(self, step: str, touched: Collection[str]) -> tuple[str, tuple[str, ...]]:
        """Return what a step waits for, and how far it is, as the wearer reads it."""
        remaining, count = self.remaining(step, touched), len(self.wanted(step))
        return f"touch {next(iter(remaining), '')}", (text("touched", done=count - len(remaining), all=count),)


@dataclass(frozen=True, slots=True, eq=False)
class Touch:
    """Pointer samples while a landmark was touched: tips [m] in reference, their covariance, the surrogate's motion."""

    tips: NDArray[np.float64]  # (n, 3)
    covariance: NDArray[np.float64]  # (3, 3) [m2], of one sample
    common: NDArray[np.float64]  # (3, 3) [m2], that averaging does not reduce: the reference's
    surrogate_motion_m: float  # infinite where it was not seen
    reference_seen: bool = True
    shared: NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, 3)))  # [m], the tip's in all touches


def landmark_of(name: str, touch: Touch, *, touch_sigma_m: float, still_m: float) -> Landmark:
    """Return where a landmark was touched, averaged; raise RegistrationRefused where it cannot be used.

    `touch_sigma_m` [m] is how well a person hits a landmark, per axis; averaging does not reduce it.
    """
    if len(touch.tips) < 8:
        raise RegistrationRefused(
            "8 or more sightings of the pointer while touching", str(len(touch.tips)), name, "Turn it to the camera."
        )
    if not touch.reference_seen:
        raise RegistrationRefused(
            "the reference in view while touching", "not seen", name, "Clear the camera's view and touch again."
        )
    if not isfinite(touch.surrogate_motion_m):
        raise RegistrationRefused(
            "the chest marker in view", "not seen", name, "Turn it to the camera and touch again."
        )
    if touch.surrogate_motion_m > still_m:
        raise RegistrationRefused(
            f"breathing held at the CT's phase (chest still within {still_m * 1e3:.1f} mm)",
            f"{touch.surrogate_motion_m * 1e3:.1f} mm", name, "Ask for a breath-hold and touch again.",
        )  # fmt: skip
    scatter = float(np.sqrt(np.var(touch.tips, axis=0).sum()))
    stated = float(np.sqrt(np.trace(touch.covariance)))
    if scatter > 2.0 * stated + TREMBLE_M:
        raise RegistrationRefused(
            f"a pointer held still within {(2.0 * stated + TREMBLE_M) * 1e3:.1f} mm",
            f"{scatter * 1e3:.1f} mm", name, "Hold it on the landmark and touch again.",
        )  # fmt: skip
    # The median of n samples has pi/2 times the variance of their mean (Kendall & Stuart, 14.6).
    noise = touch.covariance * (np.pi / 2) / len(touch.tips) + touch.common + np.eye(3) * touch_sigma_m**2
    x, y, z = np.median(touch.tips, axis=0).tolist()
    return Landmark(name, (x, y, z), Array.of(noise + touch.shared @ touch.shared.T), Array.of(touch.shared))


def register(landmarks: Sequence[Landmark], image: Points, target: NDArray[np.float64], version: int) -> Registration:
    """Fit `reference_from_image` to touched landmarks, and predict the error at the target.

    `image` holds the landmarks [m], shape (3,), in image; `target` [m], shape (3,), in image. Raises
    RegistrationRefused where the points cannot carry it.
    """
    source = np.array([image[mark.name] for mark in landmarks])
    positions = np.array([mark.position for mark in landmarks])
    covariances = np.array([mark.covariance.numpy() for mark in landmarks])
    shared = np.array([mark.shared.numpy() for mark in landmarks])
    try:
        fit = register_points(source, positions, covariances, shared)
    except CalibrationRefused as error:
        raise RegistrationRefused("fiducials that carry a registration", str(error), "registration") from error
    pose = Pose(Transform.of("reference", "image", fit.rotation, fit.translation), 0, fit.covariance)
    return Registration(
        version=version,
        state="made",
        reference_from_image=PoseWire.of(pose.transform, pose.covariance),
        fre_mm=fit.fre_rms * 1e3,
        tre_p95_mm=p95_from_covariance(pose.point_covariance(target)) * 1e3,
        landmarks=tuple(landmarks),
        shared=None if fit.shared is None else Array.of(fit.shared),
    )


def unused_landmarks(known: Registered, landmarks: Landmarks) -> Landmarks:
    """Verify a known registration on landmarks kept back, else on fiducials, that its fit has not used."""
    kept_back = [name for name in landmarks.verification if name not in known.landmarks]
    fiducials = [name for name in landmarks.fiducials if name not in known.landmarks]
    return replace(landmarks, verification=kept_back or fiducials)


def known_registration(known: Registered, target: NDArray[np.float64]) -> Registration:
    """Return a registration made before the run, with the error that it predicts at the target [m], in image."""
    pose = Pose(Transform("reference", "image", np.array(known.matrix)), 0, np.array(known.covariance))
    return Registration(
        version=0,
        state="made",
        reference_from_image=PoseWire.of(pose.transform, pose.covariance),
        fre_mm=known.fre_mm,
        tre_p95_mm=p95_from_covariance(pose.point_covariance(target)) * 1e3,
    )


def verification_error(mark: Landmark, image: NDArray[np.float64], registration: Registration) -> tuple[float, float]:
    """Return (measured, predicted 95 %) error [m] at a landmark kept back from the fit, `image` [m], shape (3,).

    What the fit's touches have in common with this one, the pointer's tip, is hardly seen here and not counted twice.
    """
    assert registration.reference_from_image is not None
    pose = registration.reference_from_image.pose(0)
    error = np.array(mark.position) - pose.transform.apply(image)
    expected = pose.point_covariance(image) + mark.covariance.numpy()
    if registration.shared is not None:
        cross = pose.point_jacobian(image) @ registration.shared.numpy() @ mark.shared.numpy().T
        expected = expected + cross + cross.T
    return float(np.linalg.norm(error)), p95_from_covariance(expected)
