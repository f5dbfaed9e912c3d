"""Marks: where the geometry says, of the size that the error has, in the shape that the state asks for."""

from dataclasses import replace

import numpy as np
import pytest

from twinguide.frames import Pose, Transform
from twinguide.render import marks
from twinguide.render.pictures import read_pixels
from twinguide.scene import Ellipsoid, Label, Line, Point, Ring, Status, mark_fault

UPRIGHT = Pose(Transform.of("stage", "reference"), 0, np.zeros((6, 6)))
WHITE = (1.0, 1.0, 1.0)
FOCAL = 512 / np.tan(0.5)  # [px] of the eyes below
PLACE = marks.Field(np.zeros(3), np.array([0.08, 0.06, 0.05]), np.eye(3)[0], np.eye(3)[1], np.array([0, 0, 0.5]), 0.001)


@pytest.fixture
def drawn(scene_of, eyes_of, picture):
    """Return a function that draws marks alone, half a metre straight ahead, and gives red as an array."""
    head, (view, _) = eyes_of((1024, 1024), half_fov=0.5, ipd=0.0)

    def draw(*given, **changes):
        empty = {"structures": {}, "tools": {}, "target": None, "entry": None, "panel": ()}
        scene = scene_of(**{**empty, "stage_from_reference": UPRIGHT, **changes})
        plain, marked = (picture(replace(scene, marks=m), view, head=head).astype(int) for m in ((), given))
        return np.abs(marked - plain)[..., 0]  # letters and panel are in both

    return draw


def extent(pixels):
    """Return the middle and the half size [px], each (x, y), of what is lit by more than half."""
    rows, columns = np.nonzero(pixels > 100)
    low, high = np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()]) + 1
    return (low + high) / 2, (high - low) / 2


def test_a_line_joins_the_pixels_of_its_ends(drawn):
    line = Line(np.array([[-0.03, -0.02, 0.0], [0.05, 0.04, 0.0]]), WHITE, width_px=1.0)
    middle, half = extent(drawn(line))
    assert middle == pytest.approx([512 + 0.01 * FOCAL / 0.5, 512 - 0.01 * FOCAL / 0.5], abs=1.5)
    assert half == pytest.approx([0.04 * FOCAL / 0.5, 0.03 * FOCAL / 0.5], abs=2.0)  # the stroke's own width


def test_a_ring_has_its_radius_and_faces_along_its_normal(drawn):
    _, half = extent(drawn(Ring(np.zeros(3), np.array([0.0, 0.0, 1.0]), 0.03, WHITE)))
    assert half == pytest.approx([0.03 * FOCAL / 0.5] * 2, abs=3.0)  # half a stroke of 4 px and its softness
    _, half = extent(drawn(Ring(np.zeros(3), np.array([0.0, 1.0, 0.0]), 0.03, WHITE)))
    assert half[0] > 5 * half[1]  # seen from the side


def test_an_ellipsoid_s_outline_is_the_exact_one_in_perspective(drawn):
    """A sphere of radius r at distance d shows a circle of tangent r / sqrt(d^2 - r^2), not r / d."""
    sigma, scale, distance = 0.05, 2.7955, 0.5
    radius = scale * sigma
    _, half = extent(drawn(Ellipsoid(np.zeros(3), np.eye(3) * sigma**2, WHITE)))
    true = FOCAL * radius / np.sqrt(distance**2 - radius**2)
    assert half == pytest.approx([true, true], abs=3.0)
    assert true - FOCAL * radius / distance > 8.0  # the test can tell both apart


def test_an_ellipsoid_shows_the_error_along_each_axis(drawn):
    turn = np.array([[0.6, -0.8, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]])
    covariance = turn @ np.diag([0.012, 0.004, 0.001]) ** 2 @ turn.T
    _, half = extent(drawn(Ellipsoid(np.zeros(3), covariance, WHITE, scale=2.0)))
    expected = 2.0 * np.sqrt(np.diag(covariance)[:2]) * FOCAL / 0.5
    assert half == pytest.approx(expected, abs=3.0)


def test_an_ellipsoid_without_extent_is_still_drawn_and_no_error(drawn):
    assert drawn(Ellipsoid(np.zeros(3), np.zeros((3, 3)), WHITE)).max() > 100


def test_an_ellipsoid_around_the_eye_is_not_drawn(drawn):
    assert drawn(Ellipsoid(np.array([0.0, 0.0, 0.5]), np.eye(3), WHITE)).max() == 0


def test_a_line_that_passes_the_eye_is_cut_there_and_not_mirrored(drawn):
    pixels = drawn(Line(np.array([[0.05, 0.05, 0.0], [0.05, 0.05, 3.0]]), WHITE))
    rows, columns = np.nonzero(pixels > 100)
    assert len(rows) > 0
    assert rows.max() < 512
    assert columns.min() > 512


FAULTY = (
    "a string",
    Line([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]], WHITE),
    Line(np.zeros((2, 2)), WHITE),
    Ring(np.array([0.0, np.nan, 0.0]), np.array([0.0, 0.0, 1.0]), 0.01, WHITE),
    Ring(np.zeros(3), np.array([0.0, 0.0, 1.0]), float("inf"), WHITE),
    Ellipsoid(np.zeros(3), np.full((3, 3), np.nan), WHITE),
    Label(np.zeros(2), "text"),
    Label(np.zeros(3), None),
    Label(np.zeros(3), "text", of=["liver"]),
    Line(np.zeros((2, 3)), (1.0,)),
    Line(np.zeros((2, 3)), ((1.0, 1.0), 1.0, 1.0)),
    Line(np.zeros((2, 3)), WHITE, width_px=None),
    Ring(np.zeros(3), np.array([0.0, 0.0, 1.0]), 0.01, (np.nan, 0.0, 0.0)),
    Ring(np.zeros(3), np.array([0.0, 0.0, 1.0]), -1.0, WHITE),
    Ring(np.zeros(3), np.array([0.0, 0.0, 1.0]), 0.01, (5.0, 0.0, 0.0)),
)


@pytest.mark.parametrize("mark", FAULTY)
def test_a_plugin_s_faulty_mark_is_named_and_does_not_end_the_frame(drawn, mark):
    assert "wanted" in mark_fault(mark)
    assert drawn(mark).max() == 0


def test_a_covariance_that_rounding_made_indefinite_is_drawn(drawn):
    covariance = np.diag([0.01**2, 0.005**2, -1e-12])
    assert drawn(Ellipsoid(np.zeros(3), covariance, WHITE)).max() > 100
    good = Ring(np.zeros(3), np.array([0.0, 0.0, 1.0]), 0.02, WHITE)
    assert mark_fault(good) == ""


def test_a_label_is_drawn_at_its_point(drawn):
    middle, half = extent(drawn(Label(np.array([0.06, 0.07, 0.0]), "HHH")))
    assert middle == pytest.approx([512 + 0.06 * FOCAL / 0.5, 512 - 0.07 * FOCAL / 0.5], abs=3.0)
    assert half[0] > half[1]


def test_orientation_letters_stand_on_the_sides_that_lps_says(scene_of):
    turn = Transform.of("reference", "image", np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([0.1, 0.0, 0.0]))
    place = replace(PLACE, eye=np.array([0.3, 0.0, 0.4]), right=np.array([0.8, 0.0, -0.6]))  # none behind another
    words = {one.text: one.position for one in marks.build(scene_of(reference_from_image=turn), place).words}
    for letter, side in zip("RLAPIS", np.kron(np.eye(3), [[-1], [1]]), strict=True):
        in_image = turn.inverse().apply(words[letter])
        assert in_image @ side > PLACE.extent @ np.abs(side)  # outside the organ, on that side
        assert in_image == pytest.approx((in_image @ side) * side, abs=1e-12)


def test_of_two_orientation_letters_in_one_place_the_nearer_is_drawn(scene_of):
    straight = Transform.of("reference", "image")  # seen along the body's axis, from above the head
    words = {one.text for one in marks.build(scene_of(reference_from_image=straight), PLACE).words}
    assert words == {"R", "L", "A", "P", "S"}


def test_the_path_has_a_tick_every_centimetre(scene_of):
    entry, target = np.zeros(3), np.array([0.0, 0.0, -0.073])
    changes = {"entry": entry, "target": Point(target, np.zeros((3, 3))), "tools": {}}
    place = replace(PLACE, eye=np.array([0.4, 0.0, 0.0]))
    lines = [row for row in marks.build(scene_of(**changes), place).lines if row[8:11] == marks.PATH_COLOUR]
    ticks = [np.add(row[0:3], row[4:7]) / 2 for row in lines[1:]]
    assert [tick[2] for tick in ticks] == pytest.approx([-0.01, -0.02, -0.03, -0.04, -0.05, -0.06])
    lengths = [np.linalg.norm(np.subtract(row[0:3], row[4:7])) for row in lines[1:]]
    assert lengths[4] > 1.5 * lengths[3]  # the fiftieth millimetre


def test_a_needle_is_drawn_as_one_by_its_role_whatever_its_name(scene_of):
    needle = scene_of().twin.tools["needle"]

    def strokes(**changes):
        built = marks.build(scene_of(tools={"trocar": replace(needle, name="trocar", **changes)}), PLACE)
        return built.lines, built.top_lines

    assert strokes() == (lambda built: (built.lines, built.top_lines))(marks.build(scene_of(), PLACE))
    assert strokes(role="pointer") != strokes()


def test_the_target_s_ring_is_broken_while_the_gate_is_closed(scene_of):
    rings = {
        state: [row for row in marks.build(scene_of(gate_open=state, tools={}), PLACE).top_loops if row[11] == 0.0]
        for state in (True, False)
    }
    assert [row[7] for row in rings[True]] == [0.0]
    assert [row[7] for row in rings[False]] == [4.0]


@pytest.mark.parametrize("state", ["degraded", "unconfirmed"])
def test_every_stroke_of_a_doubtful_target_is_dashed(scene_of, state):
    made = marks.build(scene_of(target_status=Status(state), tools={}), PLACE)
    path = next(row for row in made.lines if row[8:11] == marks.PATH_COLOUR)
    assert path[7] > 0
    assert all(row[7] > 0 for row in (*made.top_lines, *made.top_loops))


def test_pixels_are_read_top_row_first(renderer, scene_of, eyes_of, canvas_of):
    _, (left, _) = eyes_of()
    canvas = canvas_of()
    up = Line(np.array([[-0.02, 0.06, 0.085], [0.02, 0.06, 0.085]]), (1.0, 0.0, 1.0))
    scene = scene_of(marks=(up,), tools={}, stage_from_reference=UPRIGHT)
    renderer.draw(scene, left, canvas.framebuffer, "alpha")
    pixels = read_pixels(canvas.framebuffer)
    rows = np.nonzero((pixels[..., 0] > 200) & (pixels[..., 1] < 60))[0]
    assert len(rows) > 10
    assert rows.max() < 100  # +y of the stage is up: in the first rows


def test_a_mark_of_what_the_twin_does_not_have_is_refused_where_the_names_are_known():
    known = ("liver", "needle", "target")
    label = Label(np.zeros(3), "here", of="livver")
    assert mark_fault(label) == ""
    assert mark_fault(label, known) == "Label.of: wanted one of liver, needle, target, got 'livver'"
    assert mark_fault(Label(np.zeros(3), "here", of="needle"), known) == ""
    assert mark_fault(Label(np.zeros(3), "here"), known) == ""
