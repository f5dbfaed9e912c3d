"""Scenes that run against a real runtime, each in a process of its own; they tell what happened as lines of JSON."""

import json
import os
import select
import sys
import threading
import time

import numpy as np
from monado_puppet import Puppet

from twinguide.clock import ClockReal
from twinguide.errors import HeadsetError
from twinguide.xr import openxr_connection
from twinguide.xr.openxr import HeadsetOpenXR, OpenXROptions
from twinguide.xr.probe import probe

COLOURS = ((0.8, 0.2, 0.4, 1.0), (0.2, 0.6, 1.0, 1.0))
BOARDS = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3))  # eye, row from the top, column: display-encoded
PATIENCE_S = 25.0


def tell(kind, **content):
    print(json.dumps({"kind": kind, **content}), flush=True)


def paint(eye, framebuffer):
    framebuffer.clear(*COLOURS[eye])


def paint_board(eye, framebuffer):
    width, height = framebuffer.width // 8, framebuffer.height // 8
    for row, column in np.ndindex(8, 8):
        patch = (column * width, (7 - row) * height, width, height)
        framebuffer.clear(*BOARDS[eye, row, column] / 255, 1.0, viewport=patch)


class Told:
    """Run frames and keep what the headset told."""

    def __init__(self, blend_preference=("alpha", "additive", "opaque"), **options):
        self.headset = HeadsetOpenXR(ClockReal(), blend_preference, OpenXROptions(**options))
        self.headset.start()
        self.events, self.timings, self.met, self.paint = [], [], [], paint

    @property
    def states(self):
        return [event.state for event in self.events if event.kind == "session_state"]

    def frame(self, each=lambda headset, timing: None):
        for event in self.headset.poll():
            self.events.append(event)
            if event.kind != "session_state":
                tell(event.kind, reason=event.reason, t_ns=event.t_ns)
        timing = self.headset.wait_frame(self._meanwhile)
        self.timings.append(timing)
        each(self.headset, timing)
        if timing.should_render:
            for eye, framebuffer in self.headset.eyes():
                self.paint(eye, framebuffer)
        self.headset.end_frame()
        return timing

    def _meanwhile(self, until_ns, bell):
        """Ask where the head was, as the loop does of what comes while it waits, and wait on."""
        self.met.append(self.headset.head(time.monotonic_ns() - 20_000_000))
        select.select([bell] if bell >= 0 else [], [], [], max(0.0, (until_ns - time.monotonic_ns()) * 1e-9))

    def until(self, done, each=lambda headset, timing: None):
        """Run frames until `done()`; the last of them has been drawn."""
        give_up = time.monotonic() + PATIENCE_S
        while not done():
            self.frame(each)
            if time.monotonic() > give_up:
                raise TimeoutError(f"waited {PATIENCE_S} s; states {self.states}")

    def rendered(self, count):
        first = len(self.timings)
        self.until(lambda: sum(t.should_render for t in self.timings[first:]) >= count)

    def stop(self):
        self.headset.stop()
        self.events += self.headset.poll()


def session():
    told = Told()
    told.rendered(20)
    errors = told.headset.ctx.error
    for hand in ("left", "right"):
        told.headset.haptic(hand, 0.05, 0.5)
    told.rendered(2)
    told.stop()
    info, timings = told.headset.info, [t for t in told.timings if t.should_render]
    tell(
        "result",
        states=told.states,
        gl_error=errors,
        info={"name": info.name, "blend": info.blend_mode, "space": info.space, "size": info.view_size},
        leads_ms=[(t.t_display_ns - t.t_wake_ns) / 1e6 for t in timings],
        steps=np.diff([t.t_display_ns for t in timings]).tolist(),
        period_ns=timings[-1].period_ns,
        context_released=told.headset.ctx is None,
    )


def poses():
    """Scripted head and hands, read back through the whole chain."""
    puppet = Puppet(position=(0.1, 1.7, 0.3), quaternion=(0.0, float(np.sin(0.25)), 0.0, float(np.cos(0.25))), ipd=0.07)
    puppet.left.active = False
    puppet.right.position, puppet.right.trigger, puppet.right.a = (0.21, 1.12, -0.43), 0.75, True
    puppet.connect(int(os.environ["TWINGUIDE_MONADO_PORT"]))
    puppet.send()
    told, seen = Told(), {}
    told.rendered(5)

    def look(headset, timing):
        left, right = headset.views()
        hands = headset.hands()
        seen.update(
            head=headset.head(timing.t_display_ns).matrix.tolist(),
            head_met=told.met[-1].matrix.tolist(),
            head_before=headset.head(timing.t_display_ns - 10_000_000).matrix.tolist(),
            eyes=[view.stage_from_eye.matrix.tolist() for view in (left, right)],
            fov=[left.fov, right.fov],
            right_grip=hands["right"].pose_grip.matrix.tolist(),
            has_aim=hands["right"].pose_aim is not None,
            trigger=hands["right"].trigger,
            buttons=sorted(hands["right"].buttons),
            active={name: hand.active for name, hand in hands.items()},
        )

    told.frame(look)
    puppet.right.trigger, puppet.right.a, puppet.right.b = 0.0, False, True
    puppet.send()
    told.rendered(2)
    later = sorted(told.headset.hands()["right"].buttons)
    told.frame(lambda headset, timing: later.extend(sorted(headset.hands()["right"].buttons)))
    told.stop()
    puppet.close()
    tell("result", **seen, later=later)


def ready(layer):
    """Tell the test that it is time to act: now, or once the call that it named is about to reach the runtime."""

    def tell_and_wait():
        tell("ready")
        sys.stdin.readline()

    if layer:
        layer.before[os.environ["AT"]] = tell_and_wait
    else:
        tell("ready")


def layer_if_named():
    if "AT" not in os.environ:
        return None
    from layer import Layer

    return Layer()


def survive():
    """Run through whatever the test does to the runtime, until frames are shown again."""
    layer = layer_if_named()
    told = Told(hang_after_s=0.4)
    context = told.headset.ctx
    buffer = context.buffer(np.arange(8, dtype=np.float32).tobytes())  # GL that lives on through the loss
    told.rendered(5)
    ready(layer)
    told.until(lambda: any(event.kind == "recovered" for event in told.events))
    told.rendered(10)
    lost, recovered = (next(e for e in told.events if e.kind == kind) for kind in ("lost", "recovered"))
    meanwhile = [t for t in told.timings if lost.t_ns < t.t_wake_ns < recovered.t_ns]
    alive = np.frombuffer(buffer.read(), dtype=np.float32).tolist()
    same = told.headset.ctx is context
    told.stop()
    tell(
        "result",
        frames_meanwhile=len(meanwhile),
        seconds_lost=(recovered.t_ns - lost.t_ns) / 1e9,
        period_ns=meanwhile[0].period_ns if meanwhile else 0,
        rendered_meanwhile=sum(t.should_render for t in meanwhile),
        kinds=[event.kind for event in told.events if event.kind != "session_state"],
        buffer=alive,
        same_context=same,
        states=told.states,
    )


def lost_at_stop():
    """Stop while the runtime is away."""
    layer = layer_if_named()
    told = Told()
    told.rendered(5)
    ready(layer)
    told.until(lambda: any(event.kind == "lost" for event in told.events))
    told.stop()
    tell("result")


def absent():
    try:
        HeadsetOpenXR(ClockReal()).start()
    except HeadsetError as error:
        tell("result", error=str(error))


def probed():
    found = probe()
    tell("result", available=found.available, text=found.text, remedy=found.remedy, extensions=found.extensions)


def wrong():
    """Make one call that core validation must catch, to prove that it listens."""
    from twinguide.xr.openxr_runtime import Runtime, xr

    runtime = Runtime.open("wrong")
    try:
        xr.get_system(runtime.instance, xr.SystemGetInfo(xr.FormFactor.HEAD_MOUNTED_DISPLAY, type=xr.StructureType(12)))
    except xr.XrException as error:
        tell("caught", error=str(error))
    runtime.close()
    tell("result")


def blend():
    """Show frames through a layer that offers the blend modes of see-through displays."""
    from layer import Layer

    layer = Layer()
    told = Told(blend_preference=tuple(os.environ["BLEND"].split(",")))
    told.rendered(4)
    told.headset.haptic("left", 0.05, 0.5)
    told.rendered(4)
    chosen = told.headset.info.blend_mode
    told.stop()
    tell("result", chosen=chosen, ended=layer.ended, pulses=layer.pulses, flags=layer.layer_flags)


def events():
    """Be told by a layer of a moved space, then of a session about to be lost."""
    from layer import Layer

    layer = Layer()
    told = Told()
    told.rendered(3)
    layer.move_space()
    told.until(lambda: any(event.kind == "space_changed" for event in told.events))
    changed = [event.reason for event in told.events if event.kind == "space_changed"]
    layer.announce_loss()
    told.until(lambda: any(event.kind == "recovered" for event in told.events))
    told.rendered(3)
    told.stop()
    tell("result", changed=changed, kinds=[e.kind for e in told.events if e.kind != "session_state"])


def spoiled():
    """Be told poses that are none; then usable ones again."""
    from layer import Layer

    puppet = Puppet()
    puppet.connect(int(os.environ["TWINGUIDE_MONADO_PORT"]))
    puppet.send()
    layer, seen = Layer(), []
    told = Told()
    told.rendered(5)

    def look(headset, timing):
        left, right = headset.views()
        hand = headset.hands()["right"]
        eyes = [view.stage_from_eye.matrix.tolist() for view in (left, right)]
        head = headset.head(timing.t_display_ns)
        seen.append([head is not None, hand.pose_grip is not None, hand.pose_aim is not None, hand.active, eyes])

    for layer.spoil in (None, (0.0, 0.0, 0.0, 0.0), (float("nan"), 0.0, 0.0, 1.0), None):
        told.frame(look)
    met = [head is None for head in told.met[-4:]]
    told.stop()
    puppet.close()
    tell("result", seen=seen, met=met, kinds=[e.kind for e in told.events if e.kind != "session_state"])


def again():
    """Start, stop and start the same headset."""
    told, painted = Told(), []
    told.paint = lambda eye, framebuffer: painted.append(eye)
    told.rendered(3)
    told.stop()
    before, skipped = len(painted), told.headset.counts.skipped
    time.sleep(1.0)
    told.headset.start()
    told.rendered(3)
    skipped = told.headset.counts.skipped - skipped
    told.stop()
    tell("result", painted=[before, len(painted) - before], skipped=skipped)


def given_up():
    """Stop, or give up a start, while the runtime still makes the session; start again once it has."""
    from layer import Layer

    layer, made = Layer(), threading.Event()

    def dawdle():
        time.sleep(1.5)
        made.set()

    if os.environ["WHEN"] == "start":
        layer.before["xrCreateSwapchain"], openxr_connection.OPEN_S = dawdle, 0.3
        headset = HeadsetOpenXR(ClockReal(), options=OpenXROptions(hang_after_s=0.2))
        try:
            headset.start()
        except HeadsetError as error:
            tell("refused", error=str(error))
        openxr_connection.OPEN_S = 10.0
    else:
        told = Told(hang_after_s=0.2)
        told.rendered(3)
        layer.before["xrCreateSwapchain"] = dawdle
        layer.announce_loss()
        told.until(lambda: not layer.before)  # the opening has begun
        told.stop()
    in_time = not made.is_set()
    made.wait()
    time.sleep(2.0)
    told = Told()
    told.rendered(3)
    told.stop()
    tell("result", in_time=in_time)


def picture():
    """Show two boards of colours until told to end by a line on standard input."""
    told = Told()
    told.paint = paint_board
    told.rendered(5)
    tell("ready", size=told.headset.info.view_size, boards=BOARDS.tolist())
    told.until(lambda: select.select([sys.stdin], [], [], 0)[0])
    told.stop()
    tell("result")


if __name__ == "__main__":
    scenes = [session, poses, survive, lost_at_stop, absent, probed, wrong, blend, events]
    scenes += [spoiled, again, given_up, picture]
    {scene.__name__: scene for scene in scenes}[sys.argv[1]]()
