"""The panel: legible, complete, beside the field, from one catalogue."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinguide import wording
from twinguide.errors import RenderError
from twinguide.frames import Transform
from twinguide.headset import View
from twinguide.render import hanging, panels
from twinguide.render.glyphs import BORDER_EM, CAPITAL_EM, make_atlas
from twinguide.render.marks import Words
from twinguide.scene import Status

ATLAS = make_atlas()
BALL = np.random.default_rng(1).normal(size=(300, 3))
BALL /= np.linalg.norm(BALL, axis=1)[:, None]
HEAD = Transform.of("stage", "headset", translation=np.array([0.0, 1.5, 0.4]))


def view_of(half_fov, pixels):
    return View(HEAD, (-half_fov, half_fov, half_fov, -half_fov), pixels, pixels)


@pytest.mark.parametrize(("half_fov", "pixels"), [(0.436, 800), (0.785, 800), (0.8, 1024), (0.9, 2000)])
def test_capitals_are_at_least_0_6_degrees_and_nine_pixels_high(half_fov, pixels):
    sight = hanging.Sight.of(view_of(half_fov, pixels))
    capital = sight.em * CAPITAL_EM
    assert np.rad2deg(np.arctan(capital)) >= 0.6
    assert capital * sight.density >= 9.0


def test_a_drawn_capital_has_the_height_that_was_promised(renderer, scene_of, eyes_of, picture):
    """Measure a row of text on the screen, in degrees."""
    head, (left, _) = eyes_of((1024, 1024), half_fov=0.5, ipd=0.0)
    scene = scene_of(tools={}, target=None, entry=None, panel=(("normal", "HHHH"),), reference_from_image=None)
    scene = replace(scene, overlay_on=True)
    page_row = picture(scene, left, head=head)[..., :3].max(axis=2) > 120
    sight = hanging.Sight.of(left)
    columns = slice(512 - 350, 512 - 150)
    rows = np.flatnonzero(page_row[:, columns].any(axis=1))
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1)
    heights = [len(run) for run in runs]
    expected = sight.em * CAPITAL_EM * sight.density
    assert any(abs(height - expected) <= 2 for height in heights), (heights, expected)
    assert np.rad2deg(np.arctan(max(heights) / sight.density)) >= 0.6


@given(st.text(max_size=200), st.floats(8, 40))
def test_wrapped_lines_fit_and_lose_no_word(words, width):
    lines = panels.wrap(ATLAS, words, width)
    assert [w for one in lines for w in one.split(" ") if w] == [w for w in words.split(" ") if w]
    for one in lines:
        assert ATLAS.width(one) <= width + 1e-4 or " " not in one


def about(middle, radius, *firm):
    """Return what the panel keeps free of a ball, seen from anywhere, and of points."""
    return hanging.Kept(np.concatenate([np.reshape(firm, (-1, 3)), middle + radius * BALL]), len(firm))


def held(page, place, firm=(), before="right", radius=0.12, sight=None, **more):
    """Return where a page hangs by a field at a place before the head [m], firm points in head's axes too."""
    spot = before if isinstance(before, hanging.Spot) else hanging.Spot(before)
    kept = about(HEAD.apply(np.array(place)), radius, *(HEAD.apply(np.array(point)) for point in firm))
    sight = sight or hanging.Sight.of(view_of(0.454, 720))
    return hanging.hang(page, HEAD, HEAD.apply(np.array(place)), radius, sight, kept=kept, before=spot, **more)


def seen(page, at):
    """Return the panel's left, right, bottom and top as tangents, and its depth [m]."""
    corner = HEAD.inverse().apply(at.corner)
    depth = -corner[2]
    (left, top), em = corner[:2] / depth, at.em / depth
    return left, left + page.width * em, top - page.height * em, top, depth


@given(
    st.floats(-0.5, 0.5),
    st.floats(-0.4, 0.4),
    st.floats(0.3, 1.2),
    st.floats(0.5, 0.9),
    st.sampled_from(
        [hanging.Spot(side, slide) for side in ("left", "right", "above", "below") for slide in (-1, 0, 1)]
    ),
)
def test_the_panel_never_leaves_the_view(x, y, depth, half_fov, spot):
    sight = hanging.Sight.of(view_of(half_fov, 900))
    room = hanging.panel_room(sight, 0.1)
    rows = (("title", "Guidance"), ("normal", "To the target 12.3 mm"))
    page = panels.Typesetter(ATLAS).page(rows, room.width, room.height, room.sides == hanging.BESIDE)
    sides = hanging.BESIDE if spot.side in hanging.BESIDE else hanging.OVER
    for radius in (0.1, 0.0):  # 0: as good as nothing to keep free, so that it stays at the spot
        at = held(page, (x, y, -depth), before=spot, radius=radius, sight=sight, sides=sides)
        left, right, bottom, top, _ = seen(page, at)
        limit = np.tan(half_fov) + 1e-6
        assert -limit <= left < right <= limit
        assert -limit <= bottom < top <= limit


def test_the_panel_hangs_beside_the_field_where_there_is_room():
    sight = hanging.Sight.of(view_of(0.785, 800))
    page = panels.Typesetter(ATLAS).page((("title", "Guidance"),), hanging.panel_room(sight, 0.1).width)
    left, _, bottom, top, depth = seen(page, held(page, (0.0, 0.0, -0.55), radius=0.1, sight=sight))
    assert left * depth > 0.1
    assert (bottom + top) / 2 == pytest.approx(0.0)
    assert depth == pytest.approx(0.55)
    _, right, *_ = seen(page, held(page, (0.0, 0.0, -0.55), before="left", radius=0.1, sight=sight))
    assert right * depth < -0.1


GUIDING = (("title", "Guidance"), *(("normal", f"row {number}") for number in range(14)))


def test_the_panel_takes_the_spot_where_it_fits_and_follows_no_sway():
    page = panels.Typesetter(ATLAS).page(GUIDING[:11], 13.0)

    def at(x, before):
        return held(page, (x, 0.0, -0.55), before=before, radius=0.095)

    assert at(0.08, "right").spot.side == "left"  # the field is on the right of the view
    assert at(-0.08, "left").spot.side == "right"
    for before in ("left", "right"):
        settled = at(0.0, before).spot
        assert settled.slide  # level with the field it would cover some of it on either side
        assert {at(x, settled).spot for x in np.linspace(-0.012, 0.012, 9)} == {settled}


@pytest.mark.parametrize("rows", [4, 10, 13])
@pytest.mark.parametrize("y", [-0.05, 0.0, 0.05])
@pytest.mark.parametrize("x", [-0.1, -0.05, 0.0, 0.05, 0.1])
def test_the_panel_covers_nothing_of_the_field_for_either_eye(x, y, rows):
    """In the demo's view; the letters stand nearer to the wearer than the panel, where the eyes see them apart."""
    page = panels.Typesetter(ATLAS).page(GUIDING[:rows], 13.0)
    middle, radius = np.array([x, y, -0.55]), 0.095
    at = held(page, middle, before="right", radius=radius)
    left, right, bottom, top, depth = seen(page, at)
    ball = middle + radius * BALL
    for eye in (-0.032, 0.032):
        u, v = ((ball[:, :2] - (eye, 0.0)) / -ball[:, 2:]).T
        shifted = u + eye / depth  # where the panel's plane is seen behind it
        assert not ((shifted > left) & (shifted < right) & (v > bottom) & (v < top)).any()


def test_the_panel_leaves_a_tip_that_comes_behind_it_and_stays_for_one_beside_it():
    page = panels.Typesetter(ATLAS).page(GUIDING[:6], 13.0)
    place = (0.08, 0.0, -0.55)
    before = held(page, place, before="left")
    left, right, bottom, top, depth = seen(page, before)
    behind = depth * np.array([(left + right) / 2, (bottom + top) / 2, -1.0])
    assert before.spot == hanging.Spot("left")
    left, right, bottom, top, _ = seen(page, held(page, place, (behind,), before=before.spot))
    assert not (left < behind[0] / depth < right and bottom < behind[1] / depth < top)
    beside = behind + np.array([0.0, 0.6 * (top - bottom) * depth, 0.0])
    assert held(page, place, (beside,), before=before.spot).spot == before.spot


def test_the_text_does_not_flow_anew_when_the_head_moves():
    """The width hangs on the display alone: mirrored eyes and every pose of the head give the same."""
    fov = (-0.7, 0.5, 0.6, -0.6)
    left, right = (hanging.Sight.of(View(HEAD, f, 800, 800)) for f in (fov, (-fov[1], -fov[0], *fov[2:])))
    assert left == right
    assert hanging.panel_room(left, 0.1) == hanging.panel_room(right, 0.1)


def test_severities_are_told_by_shape_and_word():
    rows = (("advisory", "a"), ("caution", "b"), ("warning", "c"))
    page = panels.Typesetter(ATLAS).page(rows, 20.0)
    icons = {ATLAS.index[name] for name in ("advisory", "caution", "warning")}
    corners = {tuple(ATLAS.corners[i]) for i in icons}
    assert corners <= {tuple(place) for place in page.place}
    for kind, word in wording.SEVERITY_WORDS.items():
        expected = [tuple(ATLAS.corners[i]) for i in ATLAS.indices(word)]
        placed = [tuple(place) for place in page.place]
        assert any(placed[i : i + len(word)] == expected for i in range(len(placed))), kind


def test_icons_differ_in_shape():
    def cell(name):
        left, bottom, right, top = ATLAS.corners[ATLAS.index[name]]
        h, w = ATLAS.pixels.shape
        return ATLAS.pixels[round(top * h) : round(bottom * h), round(left * w) : round(right * w)] > 127

    shapes = [cell(name) for name in ("advisory", "caution", "warning")]
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert (shapes[a] ^ shapes[b]).sum() > 0.08 * shapes[a].sum()


def test_too_many_rows_are_counted_and_not_lost_silently():
    rows = tuple(("normal", f"row {n}") for n in range(60))
    page = panels.Typesetter(ATLAS).page(rows, 20.0)
    room = panels.MOST_EM - 2.0 * panels.LINE_EM - panels.GAP_EM  # of the row that counts
    more = wording.text("more_rows", count=60 - int(room / panels.LINE_EM))
    expected = [tuple(ATLAS.corners[i]) for i in ATLAS.indices(more)]
    assert [tuple(place) for place in page.place][-len(more) :] == expected


SMALL_VIEWS = {  # half angles of view [rad] and pixels
    "320x240": (0.454, 0.454, 320, 240),
    "320x240 of square pixels": (0.454, 0.35, 320, 240),
    "640x480": (0.454, 0.454, 640, 480),
    "43 by 29 degrees": (0.375, 0.253, 1440, 936),
}


@pytest.mark.parametrize("name", SMALL_VIEWS)
@pytest.mark.parametrize("severe", [(), ("caution",), ("caution", "warning", "caution")])
def test_in_a_small_view_the_panel_keeps_off_the_organ_and_says_the_gravest(name, severe):
    """At arm's length: clear of its middle half at least, where even three lines of text leave no more."""
    aside, up, width, height = SMALL_VIEWS[name]
    sight = hanging.Sight.of(View(HEAD, (-aside, aside, up, -up), width, height))
    radius, why = 0.12, "the chest moves as it never did in training"
    calm = [("normal", f"calm row {n}") for n in range(6)]
    rows = (("title", "Guidance"), *calm, *((kind, f"{kind} {why}") for kind in severe))
    room = hanging.panel_room(sight, radius)
    page = panels.Typesetter(ATLAS).page(rows, room.width, room.height, room.sides == hanging.BESIDE)
    at = held(page, (0.0, 0.0, -0.55), radius=radius, sight=sight, sides=room.sides)
    left, top = HEAD.inverse().apply(at.corner)[:2]
    right, bottom = left + page.width * at.em, top - page.height * at.em
    assert np.hypot(max(left, -right, 0.0), max(bottom, -top, 0.0)) > (1.0 if name == "640x480" else 0.5) * radius
    assert max(-left, right) <= 0.55 * np.tan(aside)
    assert max(top, -bottom) <= 0.55 * np.tan(up)
    glyphs = [tuple(place) for place in page.place]
    gravest = "WARNING" if "warning" in severe else "CAUTION" if severe else "calm row"
    wanted = [tuple(ATLAS.corners[i]) for i in ATLAS.indices(gravest)]
    assert any(glyphs[i : i + len(wanted)] == wanted for i in range(len(glyphs)))


def test_a_panel_keeps_the_gravest_rows():
    calm, why = tuple(("normal", f"calm row {n}") for n in range(12)), "the chest moves as it never did in training"
    rows = (
        ("title", "Guidance"),
        *calm,
        ("caution", why),
        ("warning", "path goes through portal vein"),
        ("caution", why),
    )
    page = panels.Typesetter(ATLAS).page(rows, 13.0, 18.0)
    glyphs = [tuple(place) for place in page.place]

    def first(words):
        wanted = [tuple(ATLAS.corners[i]) for i in ATLAS.indices(words)]
        return next((i for i in range(len(glyphs)) if glyphs[i : i + len(wanted)] == wanted), None)

    assert first("path goes through") is not None
    assert first("the chest moves") is not None  # the first of both
    shown = sum(first(f"calm row {n}") is not None for n in range(12))
    assert 0 < shown < 12
    left_out = 12 - shown + 1
    assert first(wording.text("more_rows", count=left_out)) is not None
    assert [first(word) is not None for word in ("WARNING", "CAUTION")] == [True, True]


def test_a_warning_longer_than_the_room_is_cut_and_not_left_out():
    page = panels.Typesetter(ATLAS).page((("title", "Guidance"), ("warning", "why " * 90)), 14.0, 12.0)
    wanted = [tuple(ATLAS.corners[i]) for i in ATLAS.indices("why …")]
    glyphs = [tuple(place) for place in page.place]
    assert any(glyphs[i : i + len(wanted)] == wanted for i in range(len(glyphs)))
    assert page.height <= 12.0


@pytest.mark.parametrize("calm", [0, 1, 4])
def test_where_the_one_row_with_room_is_cut_it_still_counts_the_others(calm):
    rows = (("title", "Guidance"), *[("normal", "calm row")] * calm, ("caution", "why " * 40))
    page = panels.Typesetter(ATLAS).page(rows, 20.0, 7.0, headed=False)
    glyphs = [tuple(place) for place in page.place]
    for words in ("CAUTION", wording.text("one_of", count=2 + calm, row="why"), "why …"):
        wanted = [tuple(ATLAS.corners[i]) for i in ATLAS.indices(words)]
        assert any(glyphs[i : i + len(wanted)] == wanted for i in range(len(glyphs))), words
    assert page.height <= 7.0


@pytest.mark.parametrize("half_fov", [0.35, 0.454, 0.785])
@pytest.mark.parametrize("pixels", [320, 400, 720])
@pytest.mark.parametrize(
    "text", ["UNCONFIRMED: verify the landmarks", "DEGRADED: out of model: the chest…\nUNCONFIRMED"]
)
def test_long_state_words_are_whole_for_both_eyes_in_every_view(half_fov, pixels, text):
    sight = hanging.Sight.of(view_of(half_fov, pixels))
    label = panels.Typesetter(ATLAS).label(text, hanging.label_width(0.75, sight))
    letters = sum(len(ATLAS.indices(word)) for word in text.split())
    assert letters <= len(label.rectangles) <= len(text)  # no word is lost; a break takes a space's place
    out = np.zeros((200, 24), dtype=np.float32)
    limit = np.tan(half_fov)
    for u, v, depth in itertools.product((-0.8, 0.0, 0.7), (-0.9, 0.0, 0.9), (0.3, 0.55, 1.0)):
        place = np.array([u * (limit * depth - 0.032), v * limit * depth, -depth])  # in view of both eyes
        words = [Words(place, text, (1.0, 1.0, 1.0))]
        count = hanging.label_quads([label], words, HEAD.apply(place)[None], head=HEAD, sight=sight, out=out)
        corners = HEAD.inverse().apply(
            np.concatenate([out[:count, 0:3], out[:count, 0:3] + out[:count, 4:7] + out[:count, 8:11]]).astype(float)
        )
        for eye in (-0.032, 0.032):
            assert np.abs((corners[:, 0] - eye) / depth).max() <= limit
        assert np.abs(corners[:, 1] / depth).max() <= limit + BORDER_EM * sight.em  # about a glyph


@pytest.mark.parametrize("lift", [0.0, 2.0])
@pytest.mark.parametrize("v", [-1.0, -0.7, 0.0, 0.7, 1.0])
def test_a_label_taller_than_half_its_width_is_whole_in_a_flat_view(v, lift):
    aside, up, text = 0.2, 0.113, "degraded: out of model: the…\nnot confirmed: error 6.1 mm…\ndegraded: solver silent…"
    sight = hanging.Sight.of(View(HEAD, (-aside, aside, up, -up), 1280, 720))
    label = panels.Typesetter(ATLAS).label(text, hanging.label_width(0.75, sight))
    assert label.height > 0.5 * label.width
    place, out = np.array([0.0, v * np.tan(up), -1.0]) * 0.55, np.zeros((200, 24), dtype=np.float32)
    words = [Words(place, text, (1.0, 1.0, 1.0), lift=lift)]
    count = hanging.label_quads([label], words, HEAD.apply(place)[None], head=HEAD, sight=sight, out=out)
    low = out[:count, 1].astype(float) - HEAD.translation[1]
    reach = np.abs([low, low + out[:count, 9]]).max() / 0.55
    assert reach <= np.tan(up) + BORDER_EM * sight.em  # about a glyph


def test_a_short_label_stays_at_its_place_and_one_out_of_view_stays_out():
    sight = hanging.Sight.of(view_of(0.454, 320))
    label = panels.Typesetter(ATLAS).label("S", hanging.label_width(0.8, sight))
    out = np.zeros((9, 24), dtype=np.float32)

    def middle(place):
        words = [Words(np.array(place), "S", (1.0, 1.0, 1.0), 0.8)]
        hanging.label_quads([label], words, HEAD.apply(np.array(place))[None], head=HEAD, sight=sight, out=out)
        corner = out[0, 0:3] - HEAD.translation
        return corner[0] + out[0, 4] / 2, corner[1] + out[0, 9] / 2

    assert middle((0.1, 0.05, -0.5)) == pytest.approx((0.1, 0.05), abs=2e-3)
    assert middle((0.5, 0.0, -0.5))[0] > 0.5 * np.tan(0.454) + 0.032


def test_an_unknown_character_shows_as_a_question_mark():
    assert ATLAS.indices("嗨µ²").tolist() == [ATLAS.index[c] for c in "?u2"]


def test_an_unknown_text_or_a_missing_value_is_named():
    with pytest.raises(RenderError, match="no_such_text"):
        wording.text("no_such_text")
    with pytest.raises(RenderError, match="value_mm"):
        wording.text("target_depth")


def test_every_display_state_and_severity_has_a_word():
    assert set(wording.STATE_WORDS) == {"valid", "predicted", "degraded", "hidden", "unconfirmed"}
    words = [w for w in wording.STATE_WORDS.values() if w] + list(wording.SEVERITY_WORDS.values())
    assert len(set(words)) == len(words)


def test_the_panel_says_why_a_tool_is_degraded(scene_of):
    scene = scene_of()
    poor = Status("degraded", "error 4.0 mm > 3.0 mm")
    tools = {name: replace(view, status=poor) for name, view in scene.twin.tools.items()}
    assert tools
    rows = panels.panel_text(replace(scene, twin=replace(scene.twin, tools=tools)))
    assert [row for row in rows if "error 4.0 mm > 3.0 mm" in row and next(iter(tools)) in row]


def test_the_panel_says_why_the_target_is_degraded(scene_of):
    scene = scene_of()
    poor = replace(scene, twin=replace(scene.twin, target_status=Status("degraded", "error 3.2 mm > 2.5 mm")))
    assert [row for row in panels.panel_text(poor) if "target: error 3.2 mm > 2.5 mm" in row]
    assert not any("target" in row for row in panels.panel_text(replace(scene, panel=())))


def test_many_structures_in_one_state_are_told_by_those_that_are_not(scene_of):
    poor, scene = Status("degraded", "breathing not learnt"), scene_of()
    views = {n: replace(v, status=poor) if n != "skin" else v for n, v in scene.twin.structures.items()}
    twin = replace(scene.twin, structures=views, target_status=poor)
    assert "CAUTION DEGRADED all but skin: breathing not learnt" in panels.panel_text(replace(scene, twin=twin))
    tools = {n: replace(v, status=poor) for n, v in twin.tools.items()}
    rows = panels.panel_text(replace(scene, twin=replace(twin, tools=tools)))
    assert "CAUTION DEGRADED needle, all but skin: breathing not learnt" in rows


def test_a_reason_is_told_once_with_what_it_hides(scene_of):
    why = "the tracker was moved"
    scene = replace(scene_of(), panel=(("title", "Register: touch F1 with the pointer"), ("caution", why)))
    hidden = {n: replace(v, status=Status("hidden", why)) for n, v in scene.twin.structures.items()}
    void = replace(scene, twin=replace(scene.twin, structures=hidden, target=None))
    assert panels.panel_text(void) == ("Register: touch F1 with the pointer", f"CAUTION HIDDEN all: {why}")
    assert f"CAUTION {why}" in panels.panel_text(scene)  # where nothing else tells it
