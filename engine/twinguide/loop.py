"""The frame loop, top to bottom: read `Loop.frame`, and you have seen the whole program."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from twinguide.bus.catalogue import Header
from twinguide.clock import MS
from twinguide.composing import panel_of, ranked
from twinguide.guarding import Guarded
from twinguide.headset import FrameTiming, Hand, HandName, Headset, View
from twinguide.hosting.session import Session
from twinguide.ledger import Ledger
from twinguide.messages import Command, Exposure, Finding, Message, Shown
from twinguide.person import Person
from twinguide.rehearsal import Rehearsal
from twinguide.scene import Mark, PanelRow, Scene
from twinguide.showing import shown_of
from twinguide.twin import Twin
from twinguide.wearer import Wearer
from twinguide.wording import text
from twinguide.workflow import Workflow

if TYPE_CHECKING:  # a loop without pictures imports no GL
    from twinguide.footage import Footage
    from twinguide.render.pipeline import Renderer

log = logging.getLogger(__name__)
STAGES = ("wait", "bus", "twin", "guidance", "draw", "submit", "record")
SLOW_NS = 20 * MS  # of uncertainty about the display time, as where it shows 20 pictures a second
GUIDANCE_EVERY = 2  # frames: findings and panel are read, not looked at; structures are judged in the frames between


@dataclass(eq=False)
class Loop:
    """One run's frame loop over its parts; `renderer` and `footage` are None where nothing is drawn."""

    headset: Headset
    wearer: Wearer
    session: Session
    twin: Twin
    workflow: Workflow
    ledger: Ledger
    head_covariance: NDArray[np.float64]  # (6, 6): the headset's stated tracking error
    guidance: list[Guarded[Finding]]
    overlays: list[Guarded[Mark]]
    renderer: Renderer | None = None
    footage: Footage | None = None
    rehearsal: Rehearsal | None = None
    person: Person | None = None
    draw_every: tuple[int, int] = (1, 1)  # before guidance, and in it
    frames: int = 0
    stopping: str = ""  # why the loop is to end
    _message_faults: dict[str, str] = field(default_factory=dict[str, str])  # type and sender -> what is wrong
    _findings: tuple[Finding, ...] = ()
    _panel: tuple[PanelRow, ...] = ()
    _assessed: tuple[object, ...] = ("",)  # the step, and what else findings and panel rest on

    def frame(self) -> Shown:
        """Make one frame, seen at one display time, from what is known now."""
        timing = self.headset.wait_frame(self._listen)
        now_ns = timing.t_wake_ns
        self.ledger.lap("wait")

        self._follow_headset()
        self.session.advance(now_ns)
        self._take(self.session.stepped())
        hands = self.headset.hands()
        self._follow_hands(hands, timing.t_display_ns, now_ns)
        self._follow_wearer(timing)
        self.ledger.lap("bus")

        flow = self.workflow
        draws = self._draws(timing)
        fresh = self.frames % GUIDANCE_EVERY == 0 or self._assessed[0] != flow.step
        view = self.twin.at(timing, flow.registration, flow.state, deform=draws, judge=not fresh)
        self.ledger.lap("twin")

        marks = tuple(mark for part in self.overlays for mark in part(view))
        basis = (flow.step, view.target_status.state, view.gate_open, view.needle is not None)
        if assessed := fresh or basis != self._assessed:
            self._assessed = basis
            self._findings = ranked(finding for part in self.guidance for finding in part(view))
            attempts = self.rehearsal.rows if self.rehearsal else ()
            self._panel = panel_of(view, self._findings, self.twin.training_progress, self._faults(timing), attempts)
        if self.rehearsal:
            self.rehearsal.watch(view, self._findings)
        overlay = self.wearer.tracked and flow.overlay_on
        start = flow.step == "setup"
        scene = Scene(view, self._findings, marks, self._panel, self.frames, overlay_on=overlay, start_screen=start)
        self.ledger.lap("guidance")

        views = self.headset.views()
        drawn = draws and self._draw(scene, views)
        self.ledger.lap("draw")
        seen_ns = self.headset.end_frame()
        self.ledger.lap("submit")

        shown = shown_of(
            scene, timing, seen_ns, views, hands, drawn=drawn, head_covariance=self.head_covariance,
            head=self.wearer.head, controllers=self.twin.bodies.controllers, stage_us=self.ledger.newest_us(),
        )  # fmt: skip
        for message in (*flow.changes(), shown):
            self.session.publish(message)
        self.frames += 1
        if not assessed:  # in the lighter frames; the young only: the old are frozen, see promptness.py
            gc.collect(0)
        self.ledger.lap("record")
        self.ledger.end_frame()
        return shown

    def _draws(self, timing: FrameTiming) -> bool:
        every = self.draw_every[self.workflow.step == "guide"]
        return self.renderer is not None and timing.should_render and self.frames % every == 0

    def _draw(self, scene: Scene, views: tuple[View, View]) -> bool:
        assert self.renderer is not None
        drawn, blend = False, self.headset.info.blend_mode
        for eye, framebuffer in self.headset.eyes():
            self.renderer.draw(scene, views[eye], framebuffer, blend, head=self.wearer.head, views=views)
            if self.footage:
                self.footage.take(eye, framebuffer)
            drawn = True
        if drawn and self.footage:
            for picture in self.footage.keep(scene):
                self.session.publish(picture)
        return drawn

    def _follow_headset(self) -> None:
        for event in self.headset.poll():
            self.wearer.react(event)
            if event.kind == "stopping":  # lost and recovered: the twin lives on, pacing goes on
                self.stopping = event.reason or "the headset was closed"

    def _listen(self, until_ns: int, bell: int) -> None:
        self._take(self.session.listen(until_ns, bell))

    def _take(self, messages: Iterable[tuple[Header, Message]]) -> None:
        for header, message in messages:
            if isinstance(message, Command):
                self.session.publish(self.workflow.command(message, self.session.now_ns()))
                continue
            kind = f"{header.source}: unusable {type(message).__name__}"
            try:
                # as of when it was sent: the loop's own delay is not the sender's silence
                self.twin.take(header.source, message, min(header.t_pub_ns, self.session.now_ns()))
                if isinstance(message, Exposure):
                    self.wearer.take(message)
                self._message_faults.pop(kind, None)
            except Exception as error:  # a part's bad message must not end the frame
                self._message_faults[kind] = f"{kind}: {error}"
                log.debug("unusable message", exc_info=error)
            move = self.twin.bodies.take_move()
            if move and move.of == "tracker" and self.wearer.follows:  # the room is found anew, and the wearer asked
                self.wearer.lose(move.reason, self.session.now_ns())
            elif move:
                self.workflow.void(move.reason, self.session.now_ns(), moved=True)

    def _follow_wearer(self, timing: FrameTiming) -> None:
        """Attach the twin to the headset's room; a jump of it suspends guidance until the room is found again."""
        now_ns = timing.t_wake_ns
        self.wearer.look(timing.t_display_ns)
        jump = self.wearer.take_jump()
        if jump and self.twin.bodies.untracked:
            self.workflow.void(jump, now_ns, moved=True)  # nothing but the room held the patient
        elif jump:
            self.workflow.suspend(jump, now_ns)
        stage = self.wearer.stage_from_tracker(now_ns)
        if self.wearer.follows:
            self.twin.bodies.follow(stage, self.wearer.reason)
        settled = stage is not None or not self.wearer.follows
        seen = timing.should_render or not self.renderer
        self.workflow.update(now_ns, all_trained=self.twin.all_trained, settled=settled, seen=seen)

    def _follow_hands(self, hands: Mapping[HandName, Hand], t_display_ns: int, now_ns: int) -> None:
        self.twin.bodies.follow_hands(hands, t_display_ns)
        for command in self.person.commands(hands, self.workflow.state) if self.person else ():
            self.session.publish(command)
            self.session.publish(self.workflow.command(command, now_ns))
            self.headset.haptic("right", 0.05, 0.3)
        begun = self.workflow.step == "guide"
        attempt = self.rehearsal.follow(hands, self.twin.bodies, now_ns, begun=begun) if self.rehearsal else None
        if attempt:
            self.session.publish(attempt)
            self.headset.haptic("right", 0.1, 0.6)

    def _faults(self, timing: FrameTiming) -> list[str]:
        faults = [] if self.wearer.tracked else [text("head_lost")]
        faults += [text("slow", value_ms=timing.sigma_ns / MS)] if timing.sigma_ns > SLOW_NS else []
        faults += self._message_faults.values()
        watched = (self.twin, *self.guidance, *self.overlays, self.wearer, self.footage)
        faults += [part.fault for part in watched if part and part.fault]
        return faults + [f"{s.part}: {s.state}, {s.reason}" for s in self.session.part_states.values() if s.failed]
