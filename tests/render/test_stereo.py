"""The eyes differ as the geometry says: a point's disparity is focal length times baseline over depth."""

from dataclasses import replace

import numpy as np
import pytest

from twinguide.frames import Pose, Transform
from twinguide.headset import View
from twinguide.render.camera import clip_from_eye, clip_from_stage, pixel_of
from twinguide.render.meshes import SurfaceInput
from twinguide.render.pipeline import Renderer
from twinguide.scene import Status, StructureView

IPD = 0.063


def centre_of(pixels):
    """Return where the middle of what is lit lies [px], weighed by alpha."""
    weight = pixels[..., 3].astype(float)
    rows, columns = np.indices(weight.shape)
    return (weight * (columns + 0.5)).sum() / weight.sum(), (weight * (rows + 0.5)).sum() / weight.sum()


@pytest.mark.parametrize("depth", [0.35, 0.5, 0.9])
def test_disparity_is_focal_length_times_baseline_over_depth(ctx, shapes, scene_of, eyes_of, picture, depth):
    place = np.array([-0.05, 0.06, 0.0])  # away from the orientation letters
    ball = SurfaceInput(*shapes["sphere"](place, 0.004), (1.0, 0.05, 0.05), "tumour")
    organ = SurfaceInput(*shapes["sphere"]((0.0, 0.0, 0.0), 0.1), (0.8, 0.4, 0.4), "organ")  # has letters; not shown
    renderer = Renderer(ctx, {"ball": ball, "organ": organ})
    stage = Pose(Transform.of("stage", "reference", translation=np.array([0.0, 0.0, 0.5 - depth])), 0, np.zeros((6, 6)))
    scene = scene_of(
        structures={"ball": StructureView("ball", Status("valid"), np.zeros(3))},
        tools={}, target=None, entry=None, panel=(), stage_from_reference=stage,
    )  # fmt: skip
    head, views = eyes_of((1024, 1024), half_fov=0.6, ipd=IPD)  # room for the panel beside the ball
    places = []
    for view in views:
        pixels = picture(scene, view, head=head, by=renderer).copy()
        pixels[pixels[..., 0] <= 1.5 * pixels[..., 2] + 2] = 0  # all that is not the red ball
        places.append(centre_of(pixels))
    renderer.release()
    focal = 512 / np.tan(0.6)  # [px]
    assert places[0][0] - places[1][0] == pytest.approx(focal * IPD / depth, abs=0.5)
    assert places[0][1] == pytest.approx(places[1][1], abs=0.1)


def test_projection_follows_openxr_for_an_asymmetric_field(eyes_of):
    fov = (-0.9, 0.7, 0.6, -0.8)
    m = clip_from_eye(fov)
    for angle, axis, sign in ((fov[0], 0, -1), (fov[1], 0, 1), (fov[2], 1, 1), (fov[3], 1, -1)):
        edge = np.array([0.0, 0.0, -2.0, 1.0])
        edge[axis] = 2.0 * np.tan(angle)
        clip = m @ edge
        assert clip[axis] / clip[3] == pytest.approx(sign)


def test_a_point_lands_where_the_pinhole_says(eyes_of):
    _, (left, _) = eyes_of((400, 300), half_fov=0.5)
    x, y = pixel_of(clip_from_stage(left), np.array([0.05, 0.02, 0.0]), 400, 300)
    assert x == pytest.approx(200 + 200 * (0.05 + IPD / 2) / 0.5 / np.tan(0.5))
    assert y == pytest.approx(150 + 150 * 0.02 / 0.5 / np.tan(0.5))
    assert pixel_of(clip_from_stage(left), np.array([0.0, 0.0, 2.0]), 400, 300) is None


def test_panel_and_labels_have_the_disparity_of_the_field(renderer, scene_of, eyes_of, picture):
    """The panel hangs at the field's depth: its left border shifts as a point there does."""
    head, views = eyes_of((512, 512), half_fov=0.5, ipd=IPD)
    scene = scene_of()
    edges = []
    for view in views:
        lit = picture(scene, view, head=head)[150:360, :, 3] > 100
        edges.append(np.flatnonzero(lit.mean(axis=0) > 0.25).max())  # the plate's right end
    assert edges[0] - edges[1] == pytest.approx(256 / np.tan(0.5) * IPD / 0.5, abs=1.5)  # whole pixels at both ends


def test_canted_eyes_see_the_panel_in_one_place_given_the_head(renderer, scene_of, picture):
    def eye(sign):
        turn = np.array([[np.cos(0.1), 0, sign * np.sin(0.1)], [0, 1, 0], [-sign * np.sin(0.1), 0, np.cos(0.1)]])
        head = Transform.of("stage", "headset", translation=np.array([0.0, 0.0, 0.5]))
        place = Transform.of("headset", "eye", turn, np.array([sign * -IPD / 2, 0.0, 0.0]))
        return head, View(head @ place, (-0.6, 0.6, 0.5, -0.5), 512, 512)

    pictures = []
    for sign in (1.0, -1.0):
        head, view = eye(sign)
        pictures.append((head, view))
    head = pictures[0][0]
    scene = scene_of()
    hashes = [picture(scene, view, head=head).tobytes() for _, view in pictures]
    assert hashes[0] != hashes[1]


def test_eyes_of_unlike_fields_see_the_panel_at_one_place(scene_of, eyes_of, picture):
    """As they come from a headset's calibration: it is as far from the head, by the rays of both."""
    head, (left, right) = eyes_of((1024, 1024), half_fov=0.7, ipd=IPD)
    views = (replace(left, fov=(-0.74, 0.70, 0.70, -0.68)), replace(right, fov=(-0.66, 0.74, 0.66, -0.70)))
    scene = scene_of(tools={}, target=None, entry=None, structures={}, panel=(("normal", "word " * 40),))
    edges, tops = [], []
    for view in views:
        a, b, up, down = np.tan(view.fov)
        plate = picture(scene, view, head=head, views=views)[..., 3] > 128
        edges.append(a + (b - a) * np.flatnonzero(plate.sum(axis=0) > 50)[-1] / 1024)
        tops.append(up + (down - up) * np.flatnonzero(plate.sum(axis=1) > 50)[0] / 1024)
    assert IPD / (edges[0] - edges[1]) == pytest.approx(0.5, rel=0.03)  # a pixel is 1.3 %
    assert tops[0] == pytest.approx(tops[1], abs=3e-3)
