"""The simulated world: one step moves the patient and the hands, and shows what light, sound and truth are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from twinguide import Act, Inbox, Message, PoseWire, Transform
from twinguide import Array as ArrayWire
from twinguide.clock import SECOND
from twinguide.frames import quaternion_from_rotation, rotation_from_vector
from twinguide.messages import BodiesSeen, Calibration, EchoSeen, Truth, Vec3

from . import faults
from .breathing import Breath, Breathing
from .collision import Collisions
from .head import Head
from .noise import Wobble, generator
from .options import PatientOptions
from .room import furnish
from .tissue import push_at, pushed
from .tools import Held, Needle, Pointer, axes_along

if TYPE_CHECKING:
    from twinguide import Context

Array = NDArray[np.float64]
EXACT = ArrayWire.of(np.zeros((6, 6)))
ECHO_EVERY = 3  # steps: sound brings 60 pictures a second
CALIBRATION_EVERY_NS = SECOND
COUGH_AT_TARGET = np.array([0.0, -0.3, 0.95])  # the diaphragm is thrown up
COUGH_AT_CHEST = np.array([0.0, 0.5, 0.1])  # the abdomen's wall is drawn in
CHEST_AXES = axes_along(np.array([0.2, -1.0, 0.3]))
CHEST_TILT = np.radians([2.0, 0.0, 0.5])  # of the chest marker at full inspiration
DIVOT_M = np.array([-0.05, -0.02, -0.26])  # from the entry: in the holder of the reference body, over the pelvis
PARKED_M = np.array([0.0, 0.0, -0.8])  # from the entry: an instrument table beyond the feet


@dataclass(frozen=True, slots=True, eq=False)
class Moment:
    """What is true at one time, in image [m] where it is a place."""

    t_ns: int
    breath: Breath
    breathing: str
    reference_from_image: Transform
    target: Array
    chest: Array
    needle_tip: Array | None
    pointer: Held | None


class Patient:
    """The patient, the room and the hands in it; the only part that knows the truth."""

    def __init__(self, ctx: Context) -> None:
        options: PatientOptions = ctx.options
        self._log, self._options, self._plan = ctx.log, options, ctx.case.plan
        self._landmarks = {name: mark.position for name, mark in ctx.case.landmarks.items()}
        self._room = furnish(ctx.seed, options, ctx.case)
        self._tissue = self._room.tissue
        self._tracker_from_stage = self._room.stage_from_tracker.inverse()
        self._tracker_from_image = (self._tracker_from_stage @ self._room.stage_from_image).matrix
        self._stage_from_tracker = _wire("stage", "tracker", self._room.stage_from_tracker.matrix)
        self._head = Head(ctx)
        self._breathing = Breathing(generator(ctx.seed, "breathing"), options)
        self._vibration = Wobble(generator(ctx.seed, "vibration"), 3, (3.0, 15.0))
        tremor = Wobble(generator(ctx.seed, "tremor"), 3, (4.0, 11.0))
        self._pointer = Pointer(tremor, options.pointer_tremor_mm * 1e-3)
        hand = generator(ctx.seed, "needle")
        self._needle = Needle(hand, self._plan.entry, self._plan.target, options.bend_mm * 1e-3)
        self._collisions = Collisions(ctx.case)
        self._push_m = 0.0
        self._last_ns: int | None = None
        self._calibration_due_ns = 0
        self._steps = 0

    def step(self, t_ns: int, inbox: Inbox) -> Iterator[Message]:
        """Carry out what hands were told, move the world to `t_ns` [ns], and publish what is seen and what is true."""
        reference_from_image = self._reference_from_image(t_ns * 1e-9)
        for act in inbox.of(Act):
            self._obey(act, t_ns * 1e-9, reference_from_image.rotation.T)
        self._move((t_ns - self._last_ns) * 1e-9 if self._last_ns is not None else 0.0)
        self._last_ns = t_ns
        now, head = self._moment(t_ns, reference_from_image), self._head.true(t_ns)
        bodies = self._bodies(now, head)
        yield bodies
        if self._steps % ECHO_EVERY == 0:
            position = _vec(reference_from_image.apply(now.target))
            yield EchoSeen(t_ns=t_ns, of=self._plan.target_structure, position=position)
        if t_ns >= self._calibration_due_ns:
            self._calibration_due_ns = t_ns + CALIBRATION_EVERY_NS
            pose = PoseWire.of(self._room.told, self._room.told_covariance)
            yield Calibration(t_ns=t_ns, name="stage_from_tracker", pose=pose)
        yield self._truth(now, head, bodies.tools["reference"])
        self._steps += 1

    def _obey(self, act: Act, t_s: float, image_from_reference: Array) -> None:
        """Carry one act out; one that makes no sense is logged and passed over."""
        if not np.isfinite([act.offset, act.velocity, act.turn]).all():
            self._log.warning("wanted an act of finite numbers; got %s: passed over", act)
        elif act.kind == "touch" and act.of in self._landmarks:
            place = self._on_skin(self._landmarks[act.of], self._breath(t_s), t_s)
            self._pointer.touch(act.of, place, np.array(act.offset), t_s)
        elif act.kind == "swing" and act.of == "pointer":
            self._pointer.swing(self._plan.entry + DIVOT_M, act.turn[0], t_s)
        elif act.kind == "needle":
            self._needle.move(image_from_reference @ act.velocity, image_from_reference @ act.turn)
        elif act.kind == "withdraw" and act.of in ("needle", "pointer"):
            (self._needle if act.of == "needle" else self._pointer).lay_down()
        elif act.kind == "breathe" and act.of in ("hold", "free"):
            self._breathing.ask(hold=act.of == "hold")
        else:
            self._log.warning("wanted a known landmark, tool or breath; got %s %r: passed over", act.kind, act.of)

    def _move(self, dt_s: float) -> None:
        self._breathing.advance(dt_s)
        before = self._needle.depth_m
        self._needle.advance(dt_s)
        depth = self._needle.depth_m
        self._push_m = pushed(self._push_m, depth - before if depth > 0 else 0.0, dt_s)

    def _moment(self, t_ns: int, reference_from_image: Transform) -> Moment:
        t_s = t_ns * 1e-9
        breath, extra = self._breath(t_s), self._extra(t_s)
        target = self._plan.target + self._tissue.organ(self._plan.target[None], breath.target)[0] + extra
        tip = self._needle.true_tip()
        if tip is not None:
            target = target + push_at(target, tip, self._needle.direction, self._push_m)
            if self._needle.depth_m > 0:
                self._collisions.test(tip, self._tissue.material(tip, breath.target, extra))
        pointer = self._pointer.swinging(t_s)
        if self._pointer.landmark:
            place = self._on_skin(self._landmarks[self._pointer.landmark], breath, t_s)
            pointer = self._pointer.held(t_s, place + reference_from_image.rotation.T @ self._pointer.offset)
        chest = self._on_skin(self._tissue.chest, breath, t_s)
        return Moment(t_ns, breath, self._flag(breath, t_s), reference_from_image, target, chest, tip, pointer)

    def _bodies(self, now: Moment, head: Transform) -> BodiesSeen:
        """Return the bodies as the camera would see them."""
        parked = np.eye(4)
        parked[:3, 3] = self._plan.entry + PARKED_M
        chest = np.eye(4)
        chest[:3, :3], chest[:3, 3] = rotation_from_vector(CHEST_TILT * now.breath.chest) @ CHEST_AXES, now.chest
        in_hand = {"needle": self._needle.hand, "pointer": now.pointer}
        poses = {name: parked if held is None else held.pose(self._room.tips[name]) for name, held in in_hand.items()}
        poses |= {"reference": now.reference_from_image.inverse().matrix, "chest": chest}
        t_s = now.t_ns * 1e-9
        poses = {name: self._tracker_from_image @ pose for name, pose in poses.items()}
        poses["headset_body"] = (self._tracker_from_stage @ head @ self._room.headset_from_body).matrix
        tremble = self._vibration.at(t_s) * self._options.vibration_mm * 1e-3  # of the camera, and so of all it sees
        off = tremble + faults.camera(self._options.faults, t_s)
        for pose in poses.values():
            pose[:3, 3] += off
        laid = {name for name, held in in_hand.items() if held is None}
        return BodiesSeen(
            t_ns=now.t_ns,
            tools={name: _wire("tracker", name, pose) for name, pose in sorted(poses.items())},
            occluded=tuple(sorted(laid | faults.occluded(self._options.faults, t_s))),
        )

    def _truth(self, now: Moment, head: Transform, tracker_from_reference: PoseWire) -> Truth:
        reference = now.reference_from_image
        places = {"target": now.target, "needle_tip": now.needle_tip}
        places["pointer_tip"] = None if now.pointer is None else now.pointer.tip
        points = {name: _vec(reference.apply(place)) for name, place in places.items() if place is not None}
        points["displacement"] = _vec(reference.rotation @ (now.target - self._plan.target))
        return Truth(
            t_ns=now.t_ns,
            points=points,
            poses={
                "stage_from_tracker": self._tracker(now.t_ns * 1e-9),
                "stage_from_head": _wire("stage", "headset", head.matrix),
                "reference_from_image": _wire("reference", "image", reference.matrix),
                "tracker_from_reference": tracker_from_reference,
            },
            flags={"breathing": now.breathing, "hit": self._collisions.names},
        )

    def _tracker(self, t_s: float) -> PoseWire:
        """Return the true stage_from_tracker."""
        off = faults.camera(self._options.faults, t_s)
        if not off.any():
            return self._stage_from_tracker
        moved = self._room.stage_from_tracker @ Transform.of("tracker", "tracker", None, -off)
        return _wire("stage", "tracker", moved.matrix)

    def _breath(self, t_s: float) -> Breath:
        return self._breathing.now(*faults.phase_jump(self._options.faults, t_s))

    def _reference_from_image(self, t_s: float) -> Transform:
        fixed = self._room.reference_from_image
        bump = faults.bump(self._options.faults, t_s)
        return Transform.of("reference", "image", fixed.rotation, fixed.translation - bump) if bump.any() else fixed

    def _on_skin(self, place: Array, breath: Breath, t_s: float) -> Array:
        cough = faults.cough(self._options.faults, t_s) * COUGH_AT_CHEST
        return place + self._tissue.skin(place[None], breath.chest)[0] + cough

    def _extra(self, t_s: float) -> Array:
        """Return what displaces the whole organ beside breathing [m], shape (3,): cough, and drift along breathing."""
        motion = self._tissue.motion
        drift = self._options.drift_mm_per_min * 1e-3 * t_s / 60.0 / float(np.sqrt(motion @ motion))
        return faults.cough(self._options.faults, t_s) * COUGH_AT_TARGET + drift * motion

    def _flag(self, breath: Breath, t_s: float) -> str:
        if faults.cough(self._options.faults, t_s) > 0:
            return "cough"
        if faults.phase_jump(self._options.faults, t_s)[0] > 0:
            return "jump"
        if faults.crept(self._options.faults, t_s) > 0:
            return "creep"
        return "hold" if breath.held else "regular"


def _wire(target: str, source: str, matrix: Array) -> PoseWire:
    x, y, z, w = quaternion_from_rotation(matrix[:3, :3]).tolist()
    return PoseWire(target, source, _vec(matrix[:3, 3]), (x, y, z, w), EXACT)


def _vec(v: Array) -> Vec3:
    x, y, z = v.tolist()
    return (x, y, z)
