"""Compose one run from a scenario: case, parts, headset, twin, loop; leave a valid folder, whatever ends it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinguide.calibrating.guided import GuidedPivot
from twinguide.case import Case
from twinguide.checking import check
from twinguide.clock import SECOND, Clock, ClockReal, ClockVirtual
from twinguide.composing import finding_fault
from twinguide.equipping import choose_backend, make_headset
from twinguide.flaws import UNTOLD, Origin
from twinguide.folder import earlier_kept, make_folder
from twinguide.frames import NO_COVARIANCE, Transform, pose_covariance
from twinguide.guarding import HUNG_S, BreakOff, Guarded
from twinguide.headset import Headset
from twinguide.hookspecs import Guidance, Motion, Operator, Overlay, Solver
from twinguide.hosting.plan import PartPlan, RunPlan
from twinguide.hosting.printing import aloud, printed_to
from twinguide.hosting.session import Session
from twinguide.ledger import Ledger
from twinguide.loop import STAGES, Loop
from twinguide.messages import Displacement, PoseWire, RunEnd, Solution
from twinguide.person import Person, keyboard
from twinguide.preparing import Run, Say, exposure_hz, named_files, prepare_case
from twinguide.promptness import first_in_line, quiet_collector
from twinguide.registering import Landmarks
from twinguide.registry import Registry, made
from twinguide.rehearsal import Rehearsal, laid_down, needle_of
from twinguide.scenario import Scenario
from twinguide.scene import mark_fault
from twinguide.staging import Staging, mount_of
from twinguide.touching import read_swing, read_touch
from twinguide.twin import Twin
from twinguide.wearer import Wearer
from twinguide.workflow import Workflow
from twinguide.xr.scripted import HandSource

if TYPE_CHECKING:  # a run without pictures imports no GL
    from twinguide.footage import Footage
    from twinguide.render.pipeline import Renderer

LOCKSTEP_HUNG_S = 60.0  # of a part called in the frame: its first call may compile for long
PREPARATION_LIMIT_S = 300.0  # of the run's clock, from setup to guidance


def run_scenario(
    scenario: Scenario,
    registry: Registry,
    out: Path,
    *,
    say: Say,
    draw: bool = True,
    file: Path | None = None,
    settings: Iterable[str] = (),
) -> str:
    """Run a scenario into the session folder `out`, and return a line about what it left.

    `say` is told each line as it comes; what the parts print meanwhile goes to the session's logs. Errors name the
    `file` that it was read from, if any, or the `dotted.key=value` of the settings laid over it.

    Raises ScenarioError, PluginError, CaseError or HeadsetError before the first frame; an earlier session in `out` is
    then as it was. From then on the folder stays valid: an interrupt, a lost runtime or a full disk ends the run, not
    the recording.
    """
    origin = Origin(str(file), tuple(settings)) if file else UNTOLD
    check(scenario, registry, origin)
    needed = [*named_files(scenario, registry), *registry.files, *([file] if file and file.is_file() else [])]
    with make_folder(out, needed):
        return _run(Run(scenario, registry, out, aloud(say), origin), draw=draw)


def _run(run: Run, *, draw: bool) -> str:
    settings = msgspec.structs.replace(run.scenario.headset, backend=choose_backend(run))
    run = replace(run, scenario=msgspec.structs.replace(run.scenario, headset=settings))
    scenario, say = run.scenario, run.say
    see = ""
    with ExitStack() as stack:
        with earlier_kept(run.out), ExitStack() as starting:
            starting.enter_context(printed_to(run.out / "logs" / "loop.log"))
            case = prepare_case(run)
            say(f"case {case.title}: {len(case.structures)} structures, target {case.plan.target_structure}")
            loop = compose_loop(run, case, starting, draw=draw)
            stack.enter_context(starting.pop_all())
        if scenario.clock == "real":
            stack.enter_context(first_in_line())
        with quiet_collector():
            try:
                ended = drive(loop, run)
            except Exception as error:  # whatever it was: what is recorded is kept and reported
                logging.getLogger(__name__).exception("the run ended by an error")
                ended = RunEnd(reason=f"error: {type(error).__name__}: {error}", early=True)
                see = f"; see {run.out / 'logs' / 'loop.log'}"
        loop.session.publish(msgspec.structs.replace(ended, t_ns=loop.session.now_ns()))
    say(f"ended: {ended.reason}{see}")
    if failed := loop.session.failed:
        own = [run.out / "logs" / f"{name}.log" for name in failed]
        logs = dict.fromkeys(str(log if log.is_file() else log.with_name("loop.log")) for log in own)
        say(f"parts that failed: {', '.join(failed)}; see {', '.join(logs)}")
    if refused := loop.session.refused:
        say(f"parts with refused messages: {', '.join(f'{name} ({n} or more)' for name, n in refused.items())}")
    if not scenario.record or not loop.frames:
        return "nothing was recorded"
    from twinguide.report import build_report

    return f"report: {build_report(run.out, run.registry.catalogue(), say)}"


def compose_loop(run: Run, case: Case, stack: ExitStack, *, draw: bool, hands: HandSource | None = None) -> Loop:
    """Start parts and headset, each to be closed by `stack`, and return the loop over them.

    `hands` are what a simulated headset tells of its controllers.
    """
    scenario = run.scenario
    virtual = scenario.clock == "virtual"
    clock: Clock = ClockVirtual() if virtual else ClockReal()
    rate_hz = exposure_hz(run)
    session = stack.enter_context(Session(plan_of(run, case), run.registry))
    headset = make_headset(run, case, session, clock, draw=draw, hands=hands)
    stack.callback(headset.stop)
    headset.start()
    still = not any(topic.message is Displacement for part in run.declared for topic in part.publishes.values())
    twin = Twin(case, scenario, session.bulk, rate_hz, _levels(run), still=still)
    workflow = _workflow(run, case, twin)
    rehearsal = _lay_down(twin, workflow, case, scenario) if scenario.mode == "rehearse" else None
    operated = any(isinstance(part, Operator) for part in run.declared)
    person = None if operated else Person(stack.enter_context(keyboard()))
    draw_every = (scenario.loop.draw_every_before, scenario.loop.draw_every) if virtual else (1, 1)
    renderer = _renderer(headset, case, stack)
    footage = _footage(run, headset, session, draw_every[1], stack) if renderer else None
    break_off = BreakOff(LOCKSTEP_HUNG_S if virtual else HUNG_S)
    stack.callback(break_off.close)
    guarded = partial(_guarded, session, break_off)
    drawable = partial(mark_fault, known={"target", *case.structures, *scenario.tools})
    return Loop(
        headset=headset,
        wearer=Wearer(headset, _staging(scenario)),
        session=session,
        twin=twin,
        workflow=workflow,
        ledger=Ledger(STAGES),
        head_covariance=_head_covariance(scenario),
        guidance=[guarded(p, "assess", finding_fault) for p in run.declared if isinstance(p, Guidance)],
        overlays=[guarded(p, "marks", drawable) for p in run.declared if isinstance(p, Overlay)],
        renderer=renderer,
        footage=footage,
        rehearsal=rehearsal,
        person=person,
        draw_every=draw_every,
    )


def plan_of(run: Run, case: Case) -> RunPlan:
    """Return what hub and hosts are told."""
    s = run.scenario
    parts = [
        PartPlan(name, placed.placement or run.registry.part(name).placement, placed.options, placed.interpreter)
        for name, placed in s.parts.items()
    ]
    return RunPlan(
        run_id=f"{os.getpid()}", seed=s.seed, clock=s.clock, parts=tuple(parts), session_folder=str(run.out.resolve()),
        case_folder=str(case.folder.resolve()), plugin_files=tuple(str(file) for file in run.registry.files),
        record=s.record,
        about={
            "title": s.title, "mode": s.mode, "seconds": s.seconds,
            "headset": choose_backend(run) if s.headset.backend == "auto" else s.headset.backend,
            "case": case.title, "case_hash": case.content_hash,
        },
    )  # fmt: skip


def _levels(run: Run) -> Mapping[str, float]:
    """Return the levels of the part that solves for the organ's shape, each with its 95 % error [mm]; none without."""
    solvers = (part for part in run.declared if isinstance(part, Solver))
    solving = (part for part in solvers if any(topic.message is Solution for topic in part.publishes.values()))
    return next((part.contract.levels for part in solving), dict[str, float]())


def _head_covariance(scenario: Scenario) -> NDArray[np.float64]:
    return pose_covariance(np.radians(scenario.headset.sigma_deg), scenario.headset.sigma_mm * 1e-3)


def _staging(scenario: Scenario) -> Staging | None:
    """Return what follows the headset's room, where the scenario has a body on the headset."""
    bodies = [(name, tool) for name, tool in scenario.tools.items() if tool.role == "headset"]
    if not bodies or scenario.mode == "rehearse":
        return None
    name, tool = bodies[0]
    return Staging(name, mount_of(name, tool), _head_covariance(scenario))


def _workflow(run: Run, case: Case, twin: Twin) -> Workflow:
    return Workflow(
        run.scenario.registration,
        Landmarks.of(case),
        case.plan.target,
        trains=any(isinstance(part, Motion) and part.trains for part in run.declared),
        touch=partial(read_touch, twin.bodies),
        forget=twin.forget_training,
        pivot=_pivot(run, twin),
    )


def _pivot(run: Run, twin: Twin) -> GuidedPivot | None:
    """Return what calibrates the tips that the scenario asks for; their results go to the session folder."""
    wanted = {name: tool for name, tool in run.scenario.tools.items() if tool.calibrate == "pivot"}
    tools = {name: "stage" if tool.controller else "tracker" for name, tool in wanted.items()}
    swing = partial(read_swing, twin.bodies)
    return GuidedPivot(tools, swing, twin.bodies.calibrate, run.out / "calibration") if tools else None


def _guarded(
    session: Session, break_off: BreakOff, part: Guidance | Overlay, method: str, flaw: Callable[[Any], str]
) -> Guarded[Any]:
    asked = made(part.make, session.context(part.name), where=f"part {part.name}", method=method)
    budget_ms = inf if session.plan.virtual else part.budget_ms  # there nothing must depend on how long anything takes
    return Guarded(part.name, getattr(asked, method), budget_ms, flaw, partial(session.withdraw, part.name), break_off)


def _lay_down(twin: Twin, workflow: Workflow, case: Case, scenario: Scenario) -> Rehearsal:
    """Place the patient before the wearer, and let the needle follow a hand."""
    twin.bodies.place(laid_down(case.plan.target))
    workflow.place(PoseWire.of(Transform.of("reference", "image"), NO_COVARIANCE), 0)
    return Rehearsal(needle_of(scenario.tools))


def _renderer(headset: Headset, case: Case, stack: ExitStack) -> Renderer | None:
    """Return what draws into the headset; None where that is not drawn into."""
    if headset.ctx is None:
        return None
    from twinguide.render.meshes import surfaces_of
    from twinguide.render.pipeline import Renderer

    opaque = headset.info.blend_mode == "opaque"  # a rehearsal's patient has a skin, a real one needs none drawn
    renderer = Renderer(headset.ctx, surfaces_of(case), show_skin=opaque)
    stack.callback(renderer.release)
    return renderer


def _footage(run: Run, headset: Headset, session: Session, every: int, stack: ExitStack) -> Footage:
    """Return what keeps the pictures, one of `every` frames; the last are told when `stack` closes."""
    from twinguide.footage import Footage

    threaded = run.scenario.clock == "real"
    footage = Footage(
        run.out, headset.info.view_size, lambda: SECOND / (headset.info.period_ns * every), threaded=threaded
    )
    stack.callback(lambda: [session.publish(picture) for picture in footage.close()])
    return footage


def drive(loop: Loop, run: Run) -> RunEnd:
    """Make frames until guidance has lasted its seconds, someone stops, or nothing more can come; return which."""
    guided_ns: int | None = None
    first_ns, step = 0, ""
    try:
        while not loop.stopping:
            shown = loop.frame()
            first_ns = first_ns or shown.t_ns
            news = [*loop.session.news(), *loop.wearer.news(), *([shown.step] if shown.step != step else [])]
            for line in news:
                run.say(f"{(shown.t_ns - first_ns) / SECOND:7.2f} s  {line}")
            step = shown.step
            if step == "guide" and guided_ns is None:
                guided_ns = shown.t_ns
            if guided_ns is not None and shown.t_ns - guided_ns >= run.scenario.seconds * SECOND:
                return RunEnd(reason=f"{run.scenario.seconds:g} s of guidance")
            if step == "review":
                return RunEnd(reason="stopped")
            if loop.person is None and guided_ns is None and shown.t_ns - first_ns > PREPARATION_LIMIT_S * SECOND:
                waits_for = loop.workflow.state.waits_for
                return RunEnd(reason=f"preparation did not end: {step} waits for {waits_for!r}", early=True)
    except KeyboardInterrupt:
        return RunEnd(reason="interrupted", early=True)
    return RunEnd(reason=loop.stopping, early=True)
