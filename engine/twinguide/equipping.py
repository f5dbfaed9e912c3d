"""Which headset a run has; of a simulated one, whose head and hands: the world's, a recorded wearer's, a trainee's."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Literal

import numpy as np

from twinguide.case import Case
from twinguide.clock import MS, Clock
from twinguide.errors import HeadsetError, ScenarioError
from twinguide.frames import Transform
from twinguide.headset import HANDS, Hand, Headset
from twinguide.hookspecs import World
from twinguide.hosting.session import Session
from twinguide.messages import HandRecord, Shown
from twinguide.preparing import Run
from twinguide.registry import made
from twinguide.rehearsal import ATTEMPT_S, laid_down, needle_of, onlooker, trainee
from twinguide.xr.scripted import HandsKeyframed, HandSource, HeadKeyframed


def choose_backend(run: Run) -> Literal["openxr", "simulated"]:
    """Return the scenario's headset; `auto` takes OpenXR where a runtime answers and time is real."""
    settings, clock = run.scenario.headset, run.scenario.clock
    if settings.backend == "simulated":
        return "simulated"
    from twinguide.xr.probe import probe

    found = probe()
    if found.available and clock == "real":
        return "openxr"
    if settings.backend == "openxr":
        remedies = ["" if clock == "real" else "Add --clock real.", found.remedy]
        got = f"{found.text}, clock {clock}"
        raise HeadsetError("an OpenXR runtime and the real clock", got, "", " ".join(filter(None, remedies)))
    run.say(f"no OpenXR ({found.text}, clock {clock}): using the simulated headset")
    return "simulated"


def make_headset(
    run: Run, case: Case, session: Session, clock: Clock, *, draw: bool, hands: HandSource | None = None
) -> Headset:
    """Return the headset that the plan names; `hands` are what a simulated one tells of its controllers."""
    s = run.scenario
    if session.plan.about["headset"] == "openxr":
        from twinguide.xr.openxr import HeadsetOpenXR

        return HeadsetOpenXR(clock, s.headset.blend)
    from twinguide.xr.simulated import HeadsetSimulated, SimulatedOptions

    world = next((part for part in run.declared if isinstance(part, World) and part.head), None)
    head = world and made(world.head, session.context(world.name), where=f"part {world.name}", method="reported")

    def since_begun(t_ns: int) -> int:
        return t_ns - headset.begun_ns  # a played wearer begins with the first frame, however long the start took

    if s.headset.recorded:
        head, held = recorded_wearer(Path(s.headset.recorded), since_begun)
        hands = held or hands
    if s.mode == "rehearse":
        head, hands = head or onlooker(), hands or _trainee(run, case, since_begun)
    half = np.radians(s.headset.fov_deg) / 2
    options = SimulatedOptions(
        size=(s.headset.width, s.headset.height),
        fov=(-half, half, half, -half),
        rate_hz=s.loop.rate_hz,
        display_latency_ns=round(s.headset.display_latency_ms * MS),
        blend_mode=s.headset.blend[0],
        render=draw,
    )
    headset = HeadsetSimulated(clock, head, hands, options)
    return headset


def recorded_wearer(folder: Path, since: Callable[[int], int]) -> tuple[HeadKeyframed, HandsKeyframed | None]:
    """Return a recorded session's head and hands, by the time `since` their first frame; None where it has no hands.

    Raises ScenarioError where the session has no frames.
    """
    from twinguide.playback import read

    shown = {one.message.t_ns: one.message for one in read(folder) if isinstance(one.message, Shown)}
    if not shown:
        raise ScenarioError("a session with frames", str(folder), "[headset] recorded", "Name another session folder.")
    first_ns = min(shown)
    frames = [(t_ns - first_ns, shown[t_ns]) for t_ns in sorted(shown)]
    head = HeadKeyframed([(t_ns, frame.stage_from_head.pose(t_ns).transform) for t_ns, frame in frames], since)
    if not any(frame.hands for _, frame in frames):
        return head, None
    left, right = ([(t_ns, _hand(frame.hands.get(name))) for t_ns, frame in frames] for name in HANDS)
    return head, HandsKeyframed(left, right, since)


def _hand(told: HandRecord | None) -> Hand:
    if told is None:
        return Hand()
    grip, aim = (wire and wire.pose(0).transform for wire in (told.grip, told.aim))
    return Hand(grip, aim, told.trigger, told.squeeze, frozenset(told.buttons), active=True)


def _trainee(run: Run, case: Case, since: Callable[[int], int]) -> HandSource:
    s, plan = run.scenario, case.plan
    stage_from_image = laid_down(plan.target) @ Transform.of("reference", "image")
    tip = np.array(s.tools[needle_of(s.tools)].tip_mm) * 1e-3
    attempts = ceil(s.seconds / ATTEMPT_S[-1])
    keys = trainee(stage_from_image, plan.entry, plan.target, tip, seed=s.seed, attempts=attempts)
    return HandsKeyframed(right=keys, since=since)
