import select
import subprocess
import sys
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from twinguide.clock import MS, SECOND, ClockReal, ClockVirtual
from twinguide.errors import HeadsetError, RenderError, RuntimeLost
from twinguide.render.context import create_context
from twinguide.xr import openxr
from twinguide.xr.deadline import Caller
from twinguide.xr.openxr import HeadsetOpenXR
from twinguide.xr.openxr_connection import Connection
from twinguide.xr.openxr_graphics import GL_RGBA8, GL_SRGB8_ALPHA8, ContextEgl
from twinguide.xr.openxr_input import PROFILES, bindings
from twinguide.xr.openxr_runtime import RuntimeTime, choose_blend_mode


def test_a_negative_display_time_is_not_believed():
    time = RuntimeTime(None, exact=False)
    assert time.display(-5, 11 * MS, 7 * SECOND) == 7 * SECOND + 22 * MS
    assert time.display(0, 11 * MS, 7 * SECOND) == 7 * SECOND + 22 * MS


def test_without_a_clock_conversion_the_earliest_wake_up_sets_the_mapping():
    time = RuntimeTime(None, exact=False)
    for frame, late in enumerate((3 * MS, 0, 8 * MS)):  # the runtime's epoch lies 100 s after the host's
        shown = time.display(frame * 11 * MS + SECOND, 11 * MS, 101 * SECOND + (frame - 2) * 11 * MS + late)
    assert shown == 101 * SECOND + 22 * MS
    assert time.to_xr(time.to_host(12345)) == 12345


def test_a_display_time_of_another_epoch_is_not_believed():
    time = RuntimeTime(None, exact=False)
    time.display(SECOND, 11 * MS, 100 * SECOND)
    assert time.display(3600 * SECOND, 11 * MS, 101 * SECOND) == 101 * SECOND + 22 * MS


def test_the_first_preferred_blend_mode_that_is_offered_is_chosen():
    assert choose_blend_mode(("opaque", "additive"), ("alpha", "additive", "opaque")) == "additive"
    assert choose_blend_mode(("opaque", "alpha"), ("opaque", "alpha")) == "opaque"
    assert choose_blend_mode(("opaque",), ("alpha",)) == "opaque"
    with pytest.raises(HeadsetError, match="blend mode"):
        choose_blend_mode((), ("alpha",))


@pytest.mark.parametrize("profile", PROFILES)
def test_every_controller_offers_grip_aim_trigger_and_pulse_to_both_hands(profile):
    offered = bindings(profile)
    for action in ("grip", "aim", "trigger", "haptic"):
        assert {path.split("/")[3] for name, path in offered if name == action} == {"left", "right"}
    assert len(set(offered)) == len(offered)
    assert not any(":" in path for _, path in offered)


def test_a_call_that_hangs_does_not_hold_its_caller():
    caller, released = Caller("test"), threading.Event()
    hung = caller.submit(released.wait)
    with pytest.raises(TimeoutError):
        hung.result(0.01)
    released.set()
    assert hung.result(5) is True
    with pytest.raises(ZeroDivisionError):
        caller.submit(lambda: 1 // 0).result(5)
    caller.close()


def test_a_bell_that_was_hushed_rings_for_the_next_answer_only():
    caller = Caller("test")
    for _ in range(1000):
        caller.submit(int).result(5)
        caller.hush()
        assert not select.select([caller.bell], [], [], 0)[0]
        assert not select.select([caller.bell], [], [], 1e-4)[0]
    answer = caller.submit(lambda: 3)
    assert select.select([caller.bell], [], [], 5)[0]
    assert answer.result(5) == 3
    caller.close()


@pytest.fixture
def contexts():
    """The loop's GL context, current here, and a runtime's beside it, current in a thread of its own."""
    try:
        ctx = create_context()
    except RenderError as error:
        pytest.skip(str(error))
    egl, caller = ContextEgl(), Caller("runtime")
    caller.submit(egl.enter).result(5)
    yield ctx, egl, caller
    caller.submit(egl.leave).result(5)
    caller.close()
    ctx.release()


@pytest.mark.parametrize("internal_format", [GL_SRGB8_ALPHA8, GL_RGBA8])
def test_a_picture_reaches_the_runtimes_image_bit_for_bit(contexts, internal_format):
    ctx, egl, caller = contexts
    size = (61, 37)
    drawn = np.random.default_rng(1).integers(0, 256, (37, 61, 4), dtype=np.uint8)  # alpha too: the room shows through
    image = ctx.texture(size, 4, internal_format=internal_format)
    picture = ctx.texture(size, 4, drawn.tobytes(), internal_format=GL_SRGB8_ALPHA8)
    fence = egl.fence()
    caller.submit(lambda: (egl.await_fence(fence), egl.copy(picture.glo, image.glo, size))).result(5)
    seen = ctx.framebuffer([image]).read(components=4, alignment=1)
    np.testing.assert_array_equal(np.frombuffer(seen, np.uint8).reshape(drawn.shape), drawn)
    assert ctx.error == "GL_NO_ERROR"


def test_a_picture_that_gl_does_not_copy_is_a_loss_and_not_an_empty_image(contexts):
    ctx, egl, caller = contexts
    picture = ctx.texture((8, 8), 4)
    with pytest.raises(RuntimeLost, match="GL error"):
        caller.submit(lambda: egl.copy(picture.glo, picture.glo + 1000, (8, 8))).result(5)


def test_a_context_that_is_lost_does_not_end_in_a_loop(contexts, monkeypatch):
    _, egl, caller = contexts
    monkeypatch.setattr(egl, "_error", lambda: 0x507)
    with pytest.raises(RuntimeLost, match="GL error 0x507"):
        caller.submit(lambda: egl.copy(0, 0, (8, 8))).result(5)


def test_a_context_that_egl_refuses_is_given_back(monkeypatch):
    released = []
    context = SimpleNamespace(release=lambda: released.append(True))
    monkeypatch.setattr(openxr, "create_context", lambda: context)
    monkeypatch.setattr(openxr, "ContextEgl", lambda: 1 // 0)
    headset = HeadsetOpenXR(ClockReal())
    with pytest.raises(ZeroDivisionError):
        headset.start()
    assert released == [True]
    assert headset.ctx is None


def test_a_runtime_that_does_not_answer_is_lost_with_what_to_do_should_it_never_answer():
    released = threading.Event()
    connection = Connection(
        SimpleNamespace(leave=int),
        ClockReal(),
        application="test",
        blend_preference=("opaque",),
        hang_s=0.01,
        report=lambda event: None,
    )
    with pytest.raises(RuntimeLost, match="never does, end this run, start runtime and run anew"):
        connection.ask(lambda: released.wait(5))
    released.set()
    connection.close()


def test_a_virtual_clock_is_refused():
    with pytest.raises(HeadsetError, match="--headset simulated"):
        HeadsetOpenXR(ClockVirtual())


def test_a_headset_that_was_not_started_says_so_and_stops_quietly():
    headset = HeadsetOpenXR(ClockReal())
    with pytest.raises(HeadsetError, match="start"):
        headset.wait_frame()
    headset.stop()


def test_missing_gl_libraries_are_named_with_the_packages():
    program = (
        "import sys; sys.modules['OpenGL'] = None\n"
        "from twinguide.errors import HeadsetError\n"
        "try:\n    import twinguide.xr.openxr\n"
        "except HeadsetError as error:\n    print(error)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert "apt-get install libgl1 libegl1" in said
