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
from twinguide.hosting.session import Session
from twinguide.ledger import Ledger
from twinguide.messages import Command, Exposure, Finding, Message, Shown
from twinguide.person import Person
from twinguide.rehearsal import Rehearsal
from twinguide.render.catalogue import text
from twinguide.scene import Mark, Scene
from twinguide.showing import shown_of
from twinguide.twin import Twin
from twinguide.wearer import Wearer
from twinguide.workflow import Workflow
from twinguide.xr.base import FrameTiming, Hand, HandName, Headset, View

if TYPE_CHECKING:  # a loop without pictures imports no GL
    from twinguide.footage import Footage
    from twinguide.render.pipeline import Renderer

log = logging.getLogger(__name__)
STAGES = ("wait", "bus", "twin", "guidance", "draw", "submit", "record")
SLOW_NS = 20 * MS  # of uncertainty about the display time, as where it shows 20 pictures a second
SAID_EVERY = 2  # frames: findings and panel are read, not looked at; structures are judged in the frames between


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
    _bad: dict[str, str] = field(default_factory=dict[str, str])  # which messages of whom -> what was wrong
    _scene: Scene | None = None  # of the last frame

    def frame(self) -> Shown:
        """Make one frame, seen at one display time, from what is known now."""
        timing = self.headset.wait_frame(self._listen)
        now = timing.t_wake_ns
        self.ledger.lap(0)

        for event in self.headset.poll():
            self.wearer.react(event)
            if event.kind == "stopping":  # lost and recovered: the twin lives on, pacing goes on
                self.stopping = event.reason or "the headset was closed"
        self.session.advance(now)
        self._take(self.session.stepped())
        hands = self.headset.hands()
        self._follow_hands(hands, timing.t_display_ns, now)
        self._follow_wearer(timing.t_display_ns, now)
        self.ledger.lap(1)

        draws, said, flow = self._draws(timing), self._said(), self.workflow
        view = self.twin.at(timing, flow.registration, flow.state, deform=draws, judge=bool(said))
        self.ledger.lap(2)

        findings = said.findings if said else ranked(f for part in self.guidance for f in part(view))
        marks = tuple(m for part in self.overlays for m in part(view))
        if self.rehearsal:
            self.rehearsal.watch(view, findings)
        panel = said.panel if said else panel_of(view, findings, self.twin.training_progress, self._faults(timing))
        on, starting = self.wearer.tracked and flow.overlay_on, flow.step == "setup"
        scene = self._scene = Scene(view, findings, marks, panel, self.frames, overlay_on=on, start_screen=starting)
        self.ledger.lap(3)

        views = self.headset.views()
        drawn = draws and self._draw(scene, views)
        self.ledger.lap(4)
        seen_ns = self.headset.end_frame()
        self.ledger.lap(5)

        head, times, held = self.wearer.head, self.ledger.newest_us(), self.twin.bodies.controllers
        shown = shown_of(scene, head, views, hands, self.head_covariance, times, seen_ns, held, drawn=drawn)
        for message in (*self.workflow.changes(), shown):
            self.session.publish(message)
        self.frames += 1
        if said:  # in the lighter frames; the young only: the old are frozen, see promptness.py
            gc.collect(0)
        self.ledger.lap(6)
        self.ledger.end_frame(timing.t_display_ns, timing.period_ns)
        return shown

    def _said(self) -> Scene | None:
        """Return the last frame, where its findings and panel stand for this one too; None where they are made anew."""
        before = self._scene
        due = before is None or self.frames % SAID_EVERY == 0 or before.twin.workflow.step != self.workflow.step
        return None if due else before

    def _draws(self, timing: FrameTiming) -> bool:
        every = self.draw_every[self.workflow.step == "guide"]
        return self.renderer is not None and timing.should_render and self.frames % every == 0

    def _draw(self, scene: Scene, views: tuple[View, View]) -> bool:
        assert self.renderer is not None
        drawn = False
        for eye, framebuffer in self.headset.eyes():
            blend = self.headset.info.blend_mode
            self.renderer.draw(scene, views[eye], framebuffer, blend, head=self.wearer.head)
            if self.footage:
                self.footage.take(eye, framebuffer)
            drawn = True
        if drawn and self.footage:
            for picture in self.footage.keep(scene):
                self.session.publish(picture)
        return drawn

    def _listen(self, until_ns: int, bell: int) -> None:
        self._take(self.session.listen(until_ns, bell))

    def _take(self, came: Iterable[tuple[Header, Message]]) -> None:
        for header, message in came:
            if isinstance(message, Command):
                self._obey(message, self.session.now_ns())
                continue
            what = f"{header.source}: unusable {type(message).__name__}"
            try:
                # when it was sent: the loop's own delay is nobody's silence
                self.twin.take(header.source, message, min(header.t_pub_ns, self.session.now_ns()))
                if isinstance(message, Exposure):
                    self.wearer.take(message)
                self._bad.pop(what, None)
            except Exception as error:  # a part's bad message must not end the frame
                self._bad[what] = f"{what}: {error}"
                log.debug("unusable message", exc_info=error)
            bumped, moved = self.twin.bodies.take_bump(), self.twin.bodies.take_move()
            if moved and self.wearer.follows:  # nothing on the patient: the room is found anew, and the wearer asked
                self.wearer.lose(moved, self.session.now_ns())
            elif bumped or moved:
                self.workflow.void(bumped or moved, self.session.now_ns(), moved=True)

    def _follow_wearer(self, t_display_ns: int, now_ns: int) -> None:
        """Hang the twin on the headset's room; guidance is suspended by a jump of it, and waits until it is found."""
        self.wearer.look(t_display_ns)
        jump = self.wearer.take_jump()
        if jump and self.twin.bodies.untracked:
            self.workflow.void(jump, now_ns, moved=True)  # nothing but the room held the patient
        elif jump:
            self.workflow.suspend(jump, now_ns)
        stage = self.wearer.stage_from_tracker(now_ns)
        if self.wearer.follows:
            self.twin.bodies.follow(stage, self.wearer.reason)
        settled = stage is not None or not self.wearer.follows
        self.workflow.update(now_ns, all_trained=self.twin.all_trained, settled=settled)

    def _obey(self, command: Command, now_ns: int) -> None:
        self.session.publish(self.workflow.command(command, now_ns))

    def _follow_hands(self, hands: Mapping[HandName, Hand], t_display_ns: int, now_ns: int) -> None:
        self.twin.bodies.follow_hands(hands, t_display_ns)
        for command in self.person.commands(hands, self.workflow.state) if self.person else ():
            self.session.publish(command)
            self._obey(command, now_ns)
            self.headset.haptic("right", 0.05, 0.3)
        attempt = self.rehearsal.follow(hands, self.twin.bodies, now_ns) if self.rehearsal else None
        if attempt:
            self.session.publish(attempt)
            self.headset.haptic("right", 0.1, 0.6)

    def _faults(self, timing: FrameTiming) -> list[str]:
        parts = [] if self.wearer.tracked else [text("head_lost")]
        parts += [text("slow", value_ms=timing.sigma_ns / MS)] if timing.sigma_ns > SLOW_NS else []
        parts += self._bad.values()
        told = (self.twin, *self.guidance, *self.overlays, self.wearer, self.footage)
        parts += [part.fault for part in told if part and part.fault]
        return parts + [f"{s.part}: {s.state}, {s.reason}" for s in self.session.part_states.values() if s.state in BAD]


BAD = ("dead", "hung", "restarting", "quarantined")
