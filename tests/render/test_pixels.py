"""Exact pixels: what is drawn is what was asked for, to the last bit; software GL is deterministic."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from twinguide.errors import RenderError
from twinguide.frames import Pose, Transform
from twinguide.render.meshes import SurfaceInput
from twinguide.render.pictures import picture_hash, save_png
from twinguide.render.pipeline import Renderer
from twinguide.scene import StructureView

UPRIGHT = Pose(Transform.of("stage", "reference"), 0, np.zeros((6, 6)))


@pytest.fixture
def cube(ctx, shapes):
    """A renderer of one solid cube, 10 cm wide, and the scene of it alone, seen straight on."""
    surface = SurfaceInput(*shapes["box"]((0.0, 0.0, 0.0), 0.05), (0.5, 0.25, 0.75), "tumour")
    made = Renderer(ctx, {"cube": surface})
    yield made
    made.release()


def alone(scene_of, status, **changes):
    structures = {"cube": StructureView("cube", status, np.zeros(3))}
    return scene_of(
        structures=structures, tools={}, target=None, entry=None, panel=(), stage_from_reference=UPRIGHT, **changes
    )


def test_a_face_seen_straight_on_has_exactly_the_colour_that_its_light_gives(cube, scene_of, eyes_of, picture):
    scene = alone(scene_of, scene_of().twin.structures["tumour"].status)
    _, (left, _) = eyes_of(ipd=0.0)
    pixels = picture(scene, left, by=cube)
    row, column = 108, 144  # off the orientation letter in the middle
    aside = (np.array([column, row]) + 0.5 - 128) / 128 * np.tan(0.4)
    facing = 1.0 / np.sqrt(1.0 + aside @ aside)
    # Light from the forehead: sqrt(colour^2 (0.1 + 0.95 facing^2) + 0.22 facing^40) times the role's brightness 1.1.
    linear = np.array([0.5, 0.25, 0.75]) ** 2 * (0.10 + 0.95 * facing**2) + 0.22 * facing**40
    expected = np.minimum(np.sqrt(linear) * 1.1, 1.0) * 255
    assert np.abs(pixels[row, column, :3] - np.rint(expected)).max() <= 1  # one level: rounding of the shader's floats
    assert pixels[row, column, 3] == 255


def test_a_cube_covers_exactly_the_pixels_that_its_projection_gives(cube, scene_of, eyes_of, picture):
    scene = alone(scene_of, scene_of().twin.structures["tumour"].status)
    _, (left, _) = eyes_of(ipd=0.0)
    pixels = picture(scene, left, by=cube)
    # Half width 0.05 m, front face 0.45 m away, 128 px are tan(0.4): 33.6 px to each side of the middle.
    row = np.flatnonzero(pixels[112, :, 3] == 255)
    half = 0.05 / 0.45 / np.tan(0.4) * 128
    inside = np.flatnonzero(np.abs(np.arange(256) + 0.5 - 128) < half)
    assert np.array_equal(row[np.isin(row, np.arange(60, 200))], inside)


def test_what_is_not_drawn_is_black_and_transparent_on_see_through_displays(renderer, scene_of, eyes_of, picture):
    _, (left, _) = eyes_of()
    for blend in ("alpha", "additive"):
        pixels = picture(scene_of(), left, blend)
        assert pixels[2, 2].tolist() == [0, 0, 0, 0]
    opaque = picture(scene_of(), left, "opaque")
    assert opaque[..., 3].min() == 255


def test_colour_is_premultiplied_so_never_above_alpha(renderer, scene_of, eyes_of, picture):
    _, (left, _) = eyes_of()
    pixels = picture(scene_of(), left, "alpha").astype(int)
    assert (pixels[..., :3].max(axis=2) <= pixels[..., 3] + 1).all()  # one level of rounding


def test_the_guidance_view_leaves_most_of_the_field_unlit(renderer, scene_of, eyes_of, picture, lit_share):
    _, (left, _) = eyes_of((512, 512), half_fov=0.55)
    for blend in ("additive", "opaque"):
        assert 0.005 < lit_share(picture(scene_of(), left, blend)) < 0.25


def test_the_same_scene_gives_the_same_hash_again(renderer, scene_of, eyes_of, canvas_of):
    head, (left, _) = eyes_of()
    hashes = set()
    for _ in range(3):
        canvas = canvas_of()
        renderer.draw(scene_of(), left, canvas.framebuffer, "opaque", head=head)
        hashes.add(picture_hash(canvas.rgb()))
    assert len(hashes) == 1


FRESH = """
import sys; sys.path.insert(0, {folder!r})
import conftest as c
from twinguide.render.context import create_context
from twinguide.render.pictures import picture_hash, read_pixels
from twinguide.render.pipeline import Renderer
from twinguide.render.meshes import SurfaceInput
ctx = create_context()
surfaces = {{"liver": SurfaceInput(*c.sphere((0.0, 0.0, 0.0), 0.08), (0.75, 0.38, 0.32), "organ"),
            "tumour": SurfaceInput(*c.sphere(c.TARGET, 0.012), (0.95, 0.80, 0.30), "tumour")}}
target = ctx.framebuffer([ctx.texture((256, 256), 4)], ctx.depth_renderbuffer((256, 256)))
head, (left, right) = c.eyes()
renderer = Renderer(ctx, surfaces)
renderer.draw(c.make_scene(surfaces), left, target, "opaque", head=head)
print(picture_hash(read_pixels(target)))
"""


def test_a_fresh_process_gives_the_same_hash(ctx):
    script = FRESH.format(folder=str(Path(__file__).parent))
    runs = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True) for _ in "ab"]
    assert runs[0].stdout == runs[1].stdout
    assert len(runs[0].stdout.strip()) == 64


def test_both_eyes_share_one_frame_and_drawing_order_does_not_matter(renderer, scene_of, eyes_of, picture):
    scene = scene_of()
    head, (left, right) = eyes_of()
    first = picture(scene, left, head=head).copy(), picture(scene, right, head=head).copy()
    scene = replace(scene)
    second = picture(scene, right, head=head).copy(), picture(scene, left, head=head).copy()
    assert np.array_equal(first[0], second[1])
    assert np.array_equal(first[1], second[0])


def test_multisampling_resolves_each_eye_into_its_own_picture(ctx, surfaces, scene_of, eyes_of, picture):
    smooth = Renderer(ctx, surfaces, samples=4)
    head, (left, right) = eyes_of()
    seen = [picture(scene_of(), eye, head=head, by=smooth).copy() for eye in (left, right)]
    plain = [picture(scene_of(), eye, head=head) for eye in (left, right)]
    smooth.release()
    assert not np.array_equal(seen[0], seen[1])
    for one, other, wrong in zip(seen, plain, plain[::-1], strict=True):
        near = np.abs(one.astype(int) - other).mean()
        assert near < 0.5 * np.abs(one.astype(int) - wrong).mean()


def test_a_framebuffer_without_depth_or_of_another_size_is_refused(
    renderer, ctx, resting, scene_of, eyes_of, canvas_of
):
    _, (left, _) = eyes_of()
    texture = ctx.texture((256, 256), 4)
    flat = ctx.framebuffer([texture])
    with pytest.raises(RenderError, match="with depth"):
        renderer.draw(scene_of(), left, flat, "alpha")
    resting.use()
    flat.release()
    texture.release()
    with pytest.raises(RenderError, match=r"256, 256"):
        renderer.draw(scene_of(), left, canvas_of((128, 128)).framebuffer, "alpha")


def test_a_picture_is_saved_top_row_first(tmp_path):
    from PIL import Image

    pixels = np.zeros((2, 3, 3), dtype=np.uint8)
    pixels[0, 0] = 255, 10, 20
    path = save_png(np.concatenate([pixels, pixels], axis=1), tmp_path / "new" / "picture.png")
    read = np.asarray(Image.open(path))
    assert read.shape == (2, 6, 3)
    assert read[0, 0].tolist() == read[0, 3].tolist() == [255, 10, 20]
    assert picture_hash(pixels) == hashlib.sha256(pixels.tobytes()).hexdigest()
