"""The procedure: set up, calibrate, register, verify, confirm, train, guide, review; and what voids a step.

Guidance does not start before the registration was verified on landmarks not used for it and confirmed by the wearer.
A bumped reference voids the registration; a jump of the headset suspends it until the wearer confirms again, as does a
tracker that was moved, where the headset's room is followed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinguide.calibrating.guided import GuidedPivot
from twinguide.clock import MS, SECOND
from twinguide.errors import RegistrationRefused
from twinguide.messages import Ack, Command, Landmark, Message, PoseWire, Registration, WorkflowState
from twinguide.registering import (
    Landmarks,
    Touch,
    known_registration,
    landmark_of,
    register,
    unused_landmarks,
    verification_error,
)
from twinguide.scenario import RegistrationSettings
from twinguide.wording import text

START_S = 2.0  # for which a rehearsal's start screen states the intended use

WAITS_FOR = {"setup": "start", "confirm": "confirm", "train": "training"}  # by step
Step = Literal["setup", "calibrate", "register", "verify", "confirm", "train", "guide", "review"]


class Workflow:
    """Where the procedure stands. Commands move it on; `changes()` hands out what has changed, to be published."""

    def __init__(
        self,
        settings: RegistrationSettings,
        landmarks: Landmarks,
        target: NDArray[np.float64],
        *,
        trains: bool,
        touch: Callable[[int, int], Touch],
        forget: Callable[[], None] = lambda: None,
        pivot: GuidedPivot | None = None,
    ) -> None:
        """Take landmarks and the target [m] in image, and `touch(since_ns, until_ns)`, which reads the pointer.

        `forget` is called where what was learnt no longer holds. With `pivot` the run begins by calibrating the tips of
        its tools.
        """
        self._settings = settings
        self._case_landmarks = landmarks
        self._target = target
        self._trains = trains
        self._touch = touch
        self._forget = forget
        self._pivot = pivot
        self._landmarks = landmarks  # a registration that is known is verified on those that it has not used
        self._marks: dict[str, Landmark] = {}  # where they were touched
        self._touch_begun: tuple[str, int] | None = None  # of a landmark, when [ns]
        self._answers: dict[str, Ack] = {}
        self._rehearses = False
        self._starts_ns = 0  # when a rehearsal begins by itself
        self._settled = True  # whether the headset knows where it is
        self.trained = not trains
        self.overlay_on = True
        self.step: Step = "setup"
        self.registration = Registration(version=0, state="absent", reason="not registered yet")
        self.state = WorkflowState(step="setup", waits_for="start", version=0)
        self._changes: list[Message] = [self.registration, self.state]

    # ---- what a person does -----------------------------------------------------------------------------------------

    def command(self, command: Command, t_ns: int) -> Ack:
        """Carry out a command once, however often it is repeated, and answer it."""
        if command.id in self._answers:
            return self._answers[command.id]
        refusal = self._carry_out(command, t_ns)
        ack = Ack(t_ns=t_ns, id=command.id, accepted=not refusal, reason=refusal)
        self._answers[command.id] = ack
        return ack

    def _carry_out(self, command: Command, t_ns: int) -> str:
        """Return why a command is refused, or nothing."""
        match command.kind, self.step:
            case "start", "setup" if self._rehearses:
                self._go("guide", t_ns)
            case "start", "setup" if self._pivot:
                self._go("calibrate", t_ns)
            case "start", "setup":
                self._begin_registration(t_ns)
            case "swing" | "confirm" | "reject", "calibrate" if self._pivot:
                return self._calibrate(self._pivot, command, t_ns)
            case "touch", "register" | "verify":
                return self._begin_touch(command.argument, t_ns)
            case "confirm", "confirm" if not self._settled:
                return text("stage_wait")
            case "confirm", "confirm":
                self._change_registration(t_ns, state="confirmed", reason="")
                self._go("guide" if self.trained else "train", t_ns)
            case "overlay", _:
                self.overlay_on = not self.overlay_on
            case "reject" | "train" | "verify", _ if self._rehearses:
                return "a rehearsal has no registration and no breathing"
            case "verify", "train" | "guide" if self._landmarks.verification:
                self._verify_anew(t_ns)
            case "train", "guide" if self._trains:
                self._unlearn()
                self._go("train", t_ns)
            case "reject", "verify" | "confirm" | "train" | "guide":
                self.void("rejected by the wearer", t_ns)
            case "stop", _:
                self._go("review", t_ns)
            case _:
                return f"{command.kind!r} does not belong to the step {self.step!r}"
        return ""

    def _calibrate(self, pivot: GuidedPivot, command: Command, t_ns: int) -> str:
        """Go on with the tips that are to be calibrated, then register; return why that is refused, or nothing."""
        if refusal := pivot.carry_out(command.kind, command.argument, t_ns):
            return refusal
        if pivot.tool:
            self._go("calibrate", t_ns, pivot.note)
        else:
            self._begin_registration(t_ns, pivot.note)
        return ""

    def _begin_registration(self, t_ns: int, note: str = "") -> None:
        """Verify the registration that the scenario brings, on landmarks that it has not used; or touch fiducials."""
        known = self._settings.known
        if known is None:
            self._go("register", t_ns, note)
            return
        self._landmarks = unused_landmarks(known, self._case_landmarks)
        self.registration = known_registration(known, self._target)
        self._change_registration(t_ns, state="made", reason="")
        self._go("verify", t_ns, note)

    def _begin_touch(self, name: str, t_ns: int) -> str:
        remaining = self._remaining()
        if name not in remaining:
            return f"wanted one of {remaining}, got {name!r}"
        self._touch_begun = (name, t_ns)
        return ""

    def _remaining(self) -> list[str]:
        return self._landmarks.remaining(self.step, self._marks)

    # ---- what happens -----------------------------------------------------------------------------------------------

    def update(self, t_ns: int, *, all_trained: bool, settled: bool = True, seen: bool = True) -> None:
        """Move on where the time, the training, or a headset that has found its place again allows it.

        `seen` tells whether pictures are shown: a start screen is there only then.
        """
        if self._rehearses and self.step == "setup" and seen:
            self._starts_ns = self._starts_ns or t_ns + round(START_S * SECOND)
            if t_ns >= self._starts_ns:
                self._go("guide", t_ns)
        if settled != self._settled or (settled and self.registration.state == "suspended"):
            self._settled = settled
            self._settle(t_ns)
        if self.step == "calibrate" and self._pivot and self._pivot.update(t_ns):
            self._go("calibrate", t_ns, self._pivot.note)
        if self._touch_begun and t_ns >= self._touch_begun[1] + round(self._settings.dwell_ms * MS):
            name, since = self._touch_begun
            self._touch_begun = None
            self._take_touch(name, since, t_ns)
        if all_trained and not self.trained:
            self.trained = True
            if self.step == "train":
                self._go("guide", t_ns)

    def void(self, reason: str, t_ns: int, *, moved: bool = False) -> None:
        """Discard the registration and the touches for it; with `moved`, what was learnt in `reference` as well."""
        if self.step in ("setup", "calibrate", "review") or self._rehearses:
            return
        self._marks.clear()
        self._touch_begun = None
        self._landmarks = self._case_landmarks
        if moved:
            self._unlearn()
        if self.registration.state not in ("absent", "void"):
            self._change_registration(t_ns, state="void", reason=reason)
        self._go("register", t_ns, reason)

    def _unlearn(self) -> None:
        self.trained = not self._trains
        self._forget()

    def suspend(self, reason: str, t_ns: int) -> None:
        """Hide the overlay until the wearer confirms again; registration and training are kept.

        It is shown again, unconfirmed, once the headset has found its place; at once where that is given, not followed.
        A touch that is under way has to be repeated: what sees it may lie elsewhere now.
        """
        if self._touch_begun:
            self._touch_begun = None
            self._go(self.step, t_ns, reason)
        if self.registration.state == "confirmed" and self.step not in ("setup", "review"):
            self._change_registration(t_ns, state="suspended", reason=reason)
            self._go("confirm", t_ns, reason)

    def _settle(self, t_ns: int) -> None:
        """Show the overlay again, unconfirmed, for the wearer to check, once it has a place; or wait for that."""
        if self._settled and self.registration.state == "suspended":
            self._change_registration(t_ns, state="verified", reason="")
        if self.step == "confirm":
            self._go("confirm", t_ns, self.state.note)

    def place(self, reference_from_image: PoseWire, t_ns: int) -> None:
        """Place the twin without a patient, for rehearsal: registered by definition, without error.

        It begins when the wearer starts it, or once the start screen was there for `START_S`.
        """
        self._rehearses = True
        self.registration = Registration(version=0, state="absent", reference_from_image=reference_from_image)
        self._change_registration(t_ns, state="confirmed", reason="rehearsal: no patient")
        self.trained = True

    def changes(self) -> list[Message]:
        """Return the state messages since the last call, oldest first."""
        changes, self._changes = self._changes, []
        return changes

    def _take_touch(self, name: str, since_ns: int, t_ns: int) -> None:
        touch, s = self._touch(since_ns, t_ns), self._settings
        try:
            mark = landmark_of(name, touch, touch_sigma_m=s.touch_sigma_mm * 1e-3, still_m=s.still_mm * 1e-3)
            self._marks[name] = mark
            if self.step == "register" and not self._remaining():
                self._register(t_ns)
            elif self.step == "verify":
                self._verify(mark, t_ns)
            else:
                self._go(self.step, t_ns)
        except RegistrationRefused as error:
            self._go(self.step, t_ns, str(error))

    def _register(self, t_ns: int) -> None:
        marks = [self._marks[name] for name in self._landmarks.fiducials]
        try:
            self.registration = register(marks, self._landmarks.image, self._target, self.registration.version)
        except RegistrationRefused:
            self._marks.clear()
            raise
        self._change_registration(t_ns, state="made", reason="")
        self._go("verify" if self._landmarks.verification else "confirm", t_ns)

    def _verify(self, mark: Landmark, t_ns: int) -> None:
        error, predicted = verification_error(mark, self._landmarks.image[mark.name], self.registration)
        errors = {**self.registration.verification_mm, mark.name: error * 1e3}
        bounds = {**self.registration.verification_p95_mm, mark.name: predicted * 1e3}
        limit = self._settings.verify_limit_mm
        if error * 1e3 > limit:
            off = f"{mark.name}, not used for the fit, is off by {error * 1e3:.1f} mm"
            reason = f"{off} (limit {limit:.1f}, predicted 95 % {predicted * 1e3:.1f})"
            self.void(f"verification failed: {reason}", t_ns, moved=self.registration.verified_ns > 0)  # it fitted once
            return
        remaining = self._remaining()
        figures = {"verification_mm": errors, "verification_p95_mm": bounds, "verified_ns": t_ns}
        self._change_registration(t_ns, state="made" if remaining else "verified", reason="", **figures)
        self._go("verify" if remaining else "confirm", t_ns)

    def _verify_anew(self, t_ns: int) -> None:
        """Ask for the landmarks not used by the fit once more; until they fit, what is shown is unconfirmed."""
        for name in self._landmarks.verification:
            self._marks.pop(name, None)
        self._change_registration(t_ns, state="made", verification_mm={}, verification_p95_mm={})
        self._go("verify", t_ns)

    # ---- states -----------------------------------------------------------------------------------------------------

    def _change_registration(self, t_ns: int, **fields: object) -> None:
        version = self.registration.version + 1
        self.registration = msgspec.structs.replace(self.registration, t_ns=t_ns, version=version, **fields)
        self._changes.append(self.registration)

    def _go(self, step: Step, t_ns: int, note: str = "") -> None:
        self.step = step
        version, touched = self.state.version + 1, tuple(self._marks)
        waits, progress = WAITS_FOR.get(step, ""), tuple[str, ...]()
        if step == "calibrate" and self._pivot:
            waits, progress = self._pivot.waits_for, self._pivot.rows
        elif step in ("register", "verify"):
            waits, progress = self._landmarks.progress(step, touched)
        elif step == "confirm" and not self._settled:
            waits = "settling"
        self.state = WorkflowState(
            t_ns=t_ns, step=step, waits_for=waits, note=note, version=version, touched=touched, progress=progress
        )
        self._changes.append(self.state)
