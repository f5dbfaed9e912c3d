"""What a scenario may set of the simulated patient."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Vec3mm = tuple[float, float, float]
NonNegative = Annotated[float, Meta(ge=0)]


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One fault at a time of the run.

    `cough`: two fast pulses of `size_mm` in 0.8 s. `phase_jump`: breathing leaps by a quarter of a cycle within 0.25 s,
    and from then on the target lags by `lag_rad` more. `bump`: the reference body moves by `size_mm` on the patient;
    `creep`: likewise, within `seconds`. `camera`: the tracker is moved by `size_mm` within 0.3 s.
    `headset_jump`: the headset's own tracking leaps by `size_mm`, and finds back after `seconds`. `occlude`: the camera
    does not see the tools `of` for `seconds`.
    """

    kind: Literal["cough", "phase_jump", "bump", "creep", "camera", "headset_jump", "occlude"]
    at_s: NonNegative
    size_mm: NonNegative | None = None  # cough 12, bump 7, creep 4, camera 30, headset_jump 20
    lag_rad: float = 0.6
    of: tuple[str, ...] = ()
    seconds: NonNegative = 1.0


class PatientOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Breathing, tools and room; what is seeded varies about these values."""

    motion_mm: Vec3mm = (1.0, -5.0, -15.0)  # of the target at full inspiration, LPS: left, forward, down
    chest_motion_mm: Vec3mm = (0.3, -9.0, -2.5)  # of the abdomen's skin under the chest marker
    period_s: Annotated[float, Meta(ge=1.0)] = 4.0
    period_variation: Annotated[float, Meta(ge=0, le=0.3)] = 0.08  # 1 sigma a cycle
    amplitude_variation: Annotated[float, Meta(ge=0, le=0.3)] = 0.08  # 1 sigma a cycle, chest and target together
    surrogate_variation: Annotated[float, Meta(ge=0, le=0.3)] = 0.01  # 1 sigma a cycle, of the chest alone
    lag_rad: float = 0.25  # of the target behind the chest, in Lujan's argument
    drift_mm_per_min: float = 0.0  # of the target's baseline, which the chest does not show
    needle_tip_mm: Vec3mm = (0.0, 0.0, -180.0)  # as the scenario states it; the true one differs
    pointer_tip_mm: Vec3mm = (0.0, 0.0, -150.0)
    tip_sigma_mm: NonNegative = 0.1  # per axis, of true against stated tips
    eye_to_target_mm: Annotated[float, Meta(ge=300, le=2000)] = 500.0  # as in published chains of error
    headset_body_at_mm: Vec3mm = (0.0, 70.0, 40.0)  # of the body on the headset, in its frame; the true one differs
    headset_body_turn_deg: Vec3mm = (-30.0, 10.0, 0.0)  # rotation vector
    headset_body_sigma_mm: NonNegative = 0.1  # per axis, of the true against the stated mount
    headset_body_sigma_deg: NonNegative = 0.03
    bend_mm: NonNegative = 1.0  # of the needle's tip at 100 mm in tissue
    pointer_tremor_mm: NonNegative = 0.1  # rms per axis
    vibration_mm: NonNegative = 0.02  # rms per axis, of the table under the camera
    head_jitter_mm: NonNegative = 0.2  # rms per axis, of the headset's own tracking
    head_jitter_deg: NonNegative = 0.1
    calibration_sigma_deg: NonNegative = 0.05  # per axis, of the stated stage_from_tracker
    calibration_sigma_mm: NonNegative = 0.3
    faults: tuple[Fault, ...] = ()
