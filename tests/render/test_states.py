"""What the wearer is told: hidden draws nothing, states differ in shape, the tip stays free, the picture lives."""

from dataclasses import replace

import numpy as np
import pytest

from twinguide.frames import Pose, Transform
from twinguide.render.camera import clip_from_stage, pixel_of
from twinguide.scene import Ellipsoid, Label, Line, Point, Ring, Status, StructureView, ToolView


def with_status(scene, status, *names):
    structures = {
        name: replace(view, status=status) if not names or name in names else view
        for name, view in scene.twin.structures.items()
    }
    return replace(scene, twin=replace(scene.twin, structures=structures))


def bare(scene_of, **changes):
    """A scene of surfaces alone."""
    return scene_of(tools={}, target=None, entry=None, panel=(), **changes)


WIDE = {"size": (800, 800), "half_fov": 0.7, "ipd": 0.0}  # room for the panel on the right of the field
FIELD = (slice(0, 800), slice(0, 490))  # left of the panel


def grey(pixels):
    return pixels[..., :3].astype(float).mean(axis=2)


def test_a_hidden_structure_draws_nothing_and_the_panel_says_why(scene_of, eyes_of, picture):
    from twinguide.render.panels import panel_text

    _, (left, _) = eyes_of(**WIDE)
    scene = bare(scene_of)
    hidden = with_status(scene, Status("hidden", reason="error too large"), "tumour", "portal")
    absent = replace(hidden, twin=replace(hidden.twin, structures={"liver": hidden.twin.structures["liver"]}))
    assert np.array_equal(picture(hidden, left)[FIELD], picture(absent, left)[FIELD])
    assert not np.array_equal(picture(hidden, left)[FIELD], picture(scene, left)[FIELD])
    assert any("HIDDEN tumour, portal: error too large" in row for row in panel_text(hidden))


def test_predicted_is_drawn_exactly_as_valid(scene_of, eyes_of, picture):
    _, (left, _) = eyes_of()
    valid, predicted = bare(scene_of), with_status(bare(scene_of), Status("predicted"))
    assert np.array_equal(picture(valid, left), picture(predicted, left))


@pytest.mark.parametrize(("state", "name"), [("degraded", "tumour"), ("degraded", "liver"), ("unconfirmed", "liver")])
def test_a_doubtful_structure_has_stripes_that_are_not_drawn_at_all(scene_of, eyes_of, picture, state, name):
    """Shape and not brightness: within the valid body, the marked one goes from as lit as before to nothing."""
    _, (left, _) = eyes_of(**WIDE)
    scene = bare(scene_of)
    scene = replace(scene, twin=replace(scene.twin, structures={name: scene.twin.structures[name]}))
    valid = grey(picture(scene, left)[FIELD])
    marked = grey(picture(with_status(scene, Status(state)), left)[FIELD])
    body = valid > 60
    assert body.sum() > 200
    assert (marked[body] < 5).mean() > 0.2
    assert (marked[body] > 0.95 * valid[body]).mean() > 0.2


def test_an_unconfirmed_target_is_an_outline_without_a_body(scene_of, eyes_of, picture):
    _, (left, _) = eyes_of(**WIDE)
    scene = bare(scene_of)
    scene = replace(scene, twin=replace(scene.twin, structures={"tumour": scene.twin.structures["tumour"]}))
    valid = picture(scene, left)
    outline = picture(with_status(scene, Status("unconfirmed")), left)
    rows, columns = np.nonzero((valid[..., 3] == 255) & (valid[..., 2] < 0.8 * valid[..., 0]))  # yellow: the tumour
    row, column = int(rows.mean()), int(columns.mean())
    assert valid[row - 3 : row + 4, column - 3 : column + 4, 3].min() == 255
    assert outline[row - 3 : row + 4, column - 3 : column + 4, 3].max() < 60


def test_degraded_and_unconfirmed_cannot_be_taken_for_each_other(scene_of, eyes_of, picture):
    _, (left, _) = eyes_of((512, 512), half_fov=0.2)
    shapes = [
        grey(picture(with_status(bare(scene_of), Status(state)), left)) > 30 for state in ("degraded", "unconfirmed")
    ]
    assert (shapes[0] ^ shapes[1])[120:400, 120:330].mean() > 0.05


def test_the_state_and_its_reason_stand_in_words_at_the_organ(scene_of, eyes_of):
    from twinguide.render import marks

    scene = with_status(bare(scene_of), Status("unconfirmed", reason="not confirmed"))
    place = marks.Field(np.zeros(3), np.full(3, 0.08), np.eye(3)[0], np.eye(3)[1], np.array([0, 0, 0.5]), 0.001)
    words = [one.text for one in marks.build(scene, place).words]
    assert words.count("UNCONFIRMED: not confirmed") == 1  # once, not once a structure


def test_a_long_reason_at_the_organ_is_cut_at_a_word_and_told_in_full_in_the_panel(scene_of):
    from twinguide.render import marks
    from twinguide.render.panels import panel_text

    why = "out of model: the chest moves as it never did while training (x1.8 of the limit)"
    scene = with_status(bare(scene_of), Status("degraded", reason=why))
    place = marks.Field(np.zeros(3), np.full(3, 0.08), np.eye(3)[0], np.eye(3)[1], np.array([0, 0, 0.5]), 0.001)
    words = [one.text for one in marks.build(scene, place).words if len(one.text) > 1]
    assert words == ["DEGRADED: out of model: the chest…"]
    assert any(why in row for row in panel_text(scene))


def test_letters_go_with_a_hidden_organ(scene_of, eyes_of, picture):
    _, (left, _) = eyes_of(**WIDE)
    shown = with_status(bare(scene_of), Status("hidden", "the reference was bumped"), "tumour", "portal", "skin")
    void = with_status(bare(scene_of), Status("hidden", "the reference was bumped"))
    assert picture(void, left)[FIELD].max() == 0
    assert picture(shown, left)[FIELD].max() > 100


def test_what_lies_behind_the_panel_does_not_disturb_its_words(scene_of, eyes_of, picture):
    _, (left, _) = eyes_of((800, 800), half_fov=0.7, ipd=0.0)
    clear = bare(scene_of)
    rows = replace(clear, panel=(("title", "Guidance"), *[("normal", "Angle 1.4")] * 6))
    over = replace(rows, marks=(Label(np.array([0.07, -0.32, 0.009]), "H" * 18),))  # too near for the panel to evade it
    plain, crossed = (picture(scene, left).astype(int) for scene in (rows, over))
    panel = (slice(360, 440), slice(560, 780))
    label = np.abs(picture(replace(over, panel=()), left).astype(int) - picture(clear, left))[panel]
    assert label.max() > 200  # it is there, where no panel is
    assert np.abs(crossed - plain)[panel].max() <= 0.08 * 255 + 1  # the plate's opacity, and a rounding


def test_the_needle_tip_is_never_covered(renderer, scene_of, eyes_of, picture):
    """Marks of every kind are piled upon the tip; on see-through displays nothing is lit there."""
    head, views = eyes_of((512, 512), half_fov=0.3)
    base = scene_of()
    tip = base.twin.tools["needle"].tip.position
    pile = (
        Line(np.array([tip - 0.02, tip + 0.02]), (1.0, 0.0, 0.0), width_px=12.0),
        Ring(tip, np.array([0.0, 1.0, 0.0]), 0.0005, (1.0, 0.0, 0.0)),
        Ellipsoid(tip, np.eye(3) * 1e-10, (1.0, 0.0, 0.0)),
        Label(tip, "MMMMMMMM"),
    )
    moved = {
        n: replace(v, shift=tip - s) for (n, v), s in zip(base.twin.structures.items(), np.zeros((4, 3)), strict=True)
    }
    scene = replace(base, marks=pile, twin=replace(base.twin, structures=moved, target=Point(tip, np.eye(3) * 1e-7)))
    matrix = base.twin.stage_from_reference.transform.matrix
    for view in views:
        x, y = pixel_of(clip_from_stage(view) @ matrix, tip, 512, 512)
        column, row = int(x), int(512 - y)
        for blend in ("alpha", "additive"):
            near = picture(scene, view, blend, head)[row - 1 : row + 2, column - 1 : column + 2]
            assert near.max() == 0
        opaque = picture(scene, view, "opaque", head)[row - 1 : row + 2, column - 1 : column + 2]
        assert opaque[..., 1].max() > 120  # no real needle to be seen there: the drawn one reaches its tip
        assert (opaque[..., 0] <= opaque[..., 1]).all()  # and nothing red lies over it


def test_a_lost_tool_is_not_drawn_and_the_panel_says_so(scene_of, eyes_of, picture):
    from twinguide.render.panels import panel_text

    _, (left, _) = eyes_of(**WIDE)
    lost = scene_of(tools={}, lost={"needle": Status("hidden", reason="occluded")})
    never = scene_of(tools={})
    assert np.array_equal(picture(lost, left)[FIELD], picture(never, left)[FIELD])
    assert not np.array_equal(picture(scene_of(), left)[FIELD], picture(never, left)[FIELD])
    assert "CAUTION needle lost: occluded" in panel_text(lost)


def test_marks_take_the_state_of_what_they_belong_to(scene_of, eyes_of, picture):
    _, (left, _) = eyes_of(**WIDE)
    ring = Ring(np.array([-0.05, 0.0, 0.05]), np.array([0.0, 1.0, 0.0]), 0.015, (1.0, 0.2, 1.0), of="portal")
    gone = replace(ring, of="a tool that is lost")
    base = bare(scene_of)

    def drawn(scene):
        return picture(scene, left)[FIELD].copy()

    assert np.array_equal(drawn(replace(base, marks=(gone,))), drawn(base))
    whole = drawn(replace(base, marks=(ring,)))
    doubtful = with_status(base, Status("degraded", reason="late"), "portal")
    broken = drawn(replace(doubtful, marks=(ring,)))
    pink = [((p[..., 0] > 150) & (p[..., 1] < 110) & (p[..., 2] > 150)).sum() for p in (whole, broken)]
    assert 0 < pink[1] < 0.8 * pink[0]  # dashed


def test_the_sign_of_life_moves_in_every_frame(scene_of, eyes_of, picture):
    _, (left, _) = eyes_of()
    seen = {picture(scene_of(frame=frame), left).tobytes() for frame in range(12)}
    assert len(seen) == 12


def test_nothing_but_the_panel_is_drawn_where_the_twin_is_not_placed(scene_of, eyes_of, picture, lit_share):
    _, (left, _) = eyes_of()
    for changes in ({"reference_from_image": None}, {"stage_from_reference": None}, {"overlay_on": False}):
        bare_panel = scene_of(**changes, structures={}, tools={}, target=None, entry=None)
        pixels = picture(scene_of(**changes), left)
        assert np.array_equal(pixels, picture(bare_panel, left))
        assert lit_share(pixels) > 0.0


def test_the_start_screen_states_the_intended_use(scene_of, eyes_of, picture, lit_share):
    from twinguide.render.panels import panel_text

    _, (left, _) = eyes_of((512, 512), half_fov=0.5)
    scene = scene_of(start_screen=True)
    said = " ".join(panel_text(scene))
    assert "Research use only" in said
    assert "must not be the sole source of position information" in said
    pixels = picture(scene, left)
    assert lit_share(pixels) > 0.01
    without = scene_of(start_screen=True, structures={}, tools={}, target=None, entry=None)
    assert np.array_equal(pixels, picture(without, left))  # no overlay before the start


def test_display_time_motion_moves_the_surface_and_new_vertices_are_taken_once_a_version(
    renderer, surfaces, scene_of, eyes_of, picture
):
    _, (left, _) = eyes_of()
    base = bare(scene_of)
    shift = np.array([0.0, 0.0, 0.03])
    rest = surfaces["liver"].vertices.astype(np.float32)

    def with_liver(**changes):
        view = StructureView("liver", Status("valid"), np.zeros(3))
        return replace(base, twin=replace(base.twin, structures={"liver": replace(view, **changes)}))

    field = (slice(0, 256), slice(0, 150))
    by_shift = picture(with_liver(shift=shift), left)[field].copy()
    moved = (rest + shift.astype(np.float32)).astype(np.float32)
    by_vertices = picture(with_liver(vertices=moved, version=1), left)[field].copy()
    lit = by_shift[..., 3] > 0
    assert lit.any()
    # Hatching and letters aside, both are the same surface in the same place; float32 rounds them apart by a level.
    assert np.abs(by_shift.astype(int) - by_vertices)[lit].mean() < 1.0
    same_version = picture(with_liver(vertices=rest, version=1), left)[field].copy()
    assert np.array_equal(same_version, by_vertices)
    back = picture(with_liver(), left)[field]
    assert not np.array_equal(back, by_vertices)


def test_a_fourth_to_last_frame_of_the_room_is_found_for_tools_behind_the_wearer(scene_of, eyes_of, picture):
    behind = ToolView(
        "pointer", Status("valid"), Point(np.array([0.0, 3.0, 3.0]), np.eye(3) * 1e-8), np.eye(3)[2], "pointer"
    )
    _, (left, _) = eyes_of()
    scene = bare(scene_of)
    twin = replace(scene.twin, tools={"pointer": behind})
    pixels = picture(replace(scene, twin=twin), left)
    assert np.isfinite(pixels).all()
    assert pixels[2, 2].max() == 0


def test_the_stage_moves_the_whole_overlay(scene_of, eyes_of, picture):
    """Recentring the headset moves stage and head alike: the picture on the patient stays the same."""
    moved = Transform.of("stage", "stage", np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]), np.array([0.3, -0.1, 0.2]))
    scene, (head, (left, _)) = scene_of(), eyes_of()
    pose = scene.twin.stage_from_reference
    there = replace(
        scene, twin=replace(scene.twin, stage_from_reference=Pose(moved @ pose.transform, 0, pose.covariance))
    )
    first = picture(scene, left, head=head).astype(int).copy()
    second = picture(there, replace(left, stage_from_eye=moved @ left.stage_from_eye), head=moved @ head).astype(int)
    assert (np.abs(first - second).max(axis=2) > 8).mean() < 0.002  # float32 moves single pixels at edges
