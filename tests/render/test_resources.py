"""GL objects: every one is freed, none is made in a frame; what is missing is named with its remedy."""

import ctypes

import numpy as np
import pytest

from twinguide.errors import RenderError
from twinguide.render import context
from twinguide.render.meshes import SurfaceInput, vertex_triangles
from twinguide.render.pipeline import Renderer

KINDS = ("Buffer", "Texture", "Framebuffer", "Renderbuffer", "VertexArray", "Program", "Shader")
DELETE_STATUS = 0x8B80
NAMES = 6000  # more than the objects that all tests here make together: a driver may not hand names out again


@pytest.fixture
def living(ctx):
    """Return a function that counts the living GL objects of each kind by asking the driver.

    A driver may keep a program that its owner has deleted while some state still points to it: such do not count.
    """
    loader = ctx.mglo._context.load_opengl_function
    ask = {kind: ctypes.CFUNCTYPE(ctypes.c_ubyte, ctypes.c_uint)(loader(f"glIs{kind}")) for kind in KINDS}
    reads = ctypes.CFUNCTYPE(None, ctypes.c_uint, ctypes.c_uint, ctypes.POINTER(ctypes.c_int))
    state = {kind: reads(loader(f"glGet{kind}iv")) for kind in ("Program", "Shader")}

    def lives(kind, name):
        deleted = ctypes.c_int(0)
        if ask[kind](name) and kind in state:
            state[kind](name, DELETE_STATUS, deleted)
        return bool(ask[kind](name)) and not deleted.value

    return lambda: {kind: sum(lives(kind, name) for name in range(1, NAMES)) for kind in KINDS}


@pytest.mark.parametrize("samples", [0, 4])
def test_a_released_renderer_leaves_no_gl_object(ctx, living, surfaces, scene_of, eyes_of, canvas_of, samples):
    canvas = canvas_of()
    before = living()
    renderer = Renderer(ctx, surfaces, samples=samples)
    head, views = eyes_of()
    for view in views:
        renderer.draw(scene_of(), view, canvas.framebuffer, "alpha", head=head)
    during = living()
    renderer.release()
    assert living() == before
    assert during["Buffer"] > before["Buffer"] + 10  # the count sees what it should see


def test_frames_make_no_gl_object(renderer, living, scene_of, eyes_of, canvas_of):
    canvas, (head, views) = canvas_of(), eyes_of()
    renderer.draw(scene_of(), views[0], canvas.framebuffer, "alpha", head=head)
    before = living()
    for frame in range(5):
        for view in views:
            renderer.draw(scene_of(frame=frame), view, canvas.framebuffer, "alpha", head=head)
    assert living() == before


def test_a_frame_leaves_no_gl_error(ctx, renderer, scene_of, eyes_of, canvas_of):
    _ = ctx.error  # forget what others left
    head, views = eyes_of()
    for blend in ("opaque", "additive", "alpha"):
        renderer.draw(scene_of(), views[0], canvas_of().framebuffer, blend, head=head)
        assert ctx.error == "GL_NO_ERROR"


def test_more_marks_than_there_was_room_for_are_all_drawn(renderer, scene_of, eyes_of, picture):
    from twinguide.scene import Line

    points = np.stack([np.linspace(-0.1, 0.0, 2001), np.zeros(2001), np.full(2001, 0.085)], axis=1)
    _, (left, _) = eyes_of()
    pixels = picture(scene_of(marks=(Line(points, (1.0, 0.0, 1.0)),), tools={}), left)
    magenta = (pixels[..., 0] > 200) & (pixels[..., 1] < 60) & (pixels[..., 2] > 200)
    assert magenta.any(axis=0).sum() > 50  # the whole line, 0.1 m wide


def test_normals_on_the_gpu_point_outwards_and_follow_the_vertices(ctx, shapes):
    from twinguide.render.context import load_compute, load_program
    from twinguide.render.meshes import SurfaceOnGpu

    vertices, triangles = shapes["sphere"]((0.0, 0.0, 0.0), 0.05)
    program, compute = load_program(ctx, "mesh"), load_compute(ctx, "normals")
    surface = SurfaceOnGpu(
        ctx, {(False, False): program}, "ball", SurfaceInput(vertices, triangles, (1.0, 1.0, 1.0), "organ")
    )
    stretch = np.array([1.0, 0.5, 2.0])
    for scale, version in ((np.ones(3), None), (stretch, 1)):
        moved = (vertices * scale).astype(np.float32)
        if version is not None:
            assert surface.update(moved, version)
        surface.compute_normals(compute)
        ctx.memory_barrier()
        normals = np.frombuffer(surface._normals.read(), dtype=np.float32).reshape(-1, 3).astype(float)
        normals /= np.linalg.norm(normals, axis=1, keepdims=True)
        true = moved / scale.astype(float) ** 2
        true /= np.linalg.norm(true, axis=1, keepdims=True)
        assert (normals * true).sum(axis=1).min() > 0.98  # 24 rings: facets are a few degrees off the true surface
    for owned in (surface, program, compute):
        owned.release()


def test_each_vertex_knows_its_triangles():
    rows, members = vertex_triangles(np.array([[0, 1, 2], [2, 1, 3]], dtype=np.int32), 5)
    assert [members[rows[i] : rows[i + 1]].tolist() for i in range(5)] == [[0], [0, 1], [0, 1], [1], []]


def test_a_surface_that_does_not_fit_itself_is_refused(ctx):
    bad = SurfaceInput(np.zeros((3, 3)), np.array([[0, 1, 7]], dtype=np.int32), (1.0, 1.0, 1.0), "organ")
    with pytest.raises(RenderError, match=r"triangles of 3 vertices.*liver"):
        Renderer(ctx, {"liver": bad})


def test_missing_gl_names_the_packages(monkeypatch):
    def refuse(**_):
        raise ImportError("libEGL.so not loaded")

    monkeypatch.setattr(context.moderngl, "create_context", refuse)
    with pytest.raises(RenderError, match="libegl1 libgl1"):
        context.create_context()


def test_a_shader_that_does_not_compile_is_named(ctx, tmp_path, monkeypatch):
    (tmp_path / "broken.vert").write_text("#version 450 core\nvoid main() { gl_Position = nonsense; }\n")
    (tmp_path / "broken.frag").write_text("#version 450 core\nvoid main() {}\n")
    monkeypatch.setattr(context, "shader_folder", lambda: tmp_path)
    with pytest.raises(RenderError, match=r"nonsense.*broken"):
        context.load_program(ctx, "broken")
    with pytest.raises(RenderError, match="absent"):
        context.load_program(ctx, "absent")


def test_every_shader_states_what_it_takes():
    for path in context.shader_folder().iterdir():
        head = path.read_text().splitlines()[:4]
        assert any(one.startswith("//") for one in head), path.name
