"""The renderer: one eye after the other in one path, from a frozen scene to premultiplied, display-encoded pixels.

Order: backdrop, surfaces (solid, then x-ray), strokes that surfaces hide, text, and on top what must never be hidden:
target, error and tip. Colour is premultiplied by alpha in every mode. `opaque` has a dark backdrop; `additive` and
`alpha` start from black and transparent, so what is not drawn shows the real world.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import moderngl
import numpy as np

from twinguide.errors import RenderError
from twinguide.frames import Array, Transform
from twinguide.headset import BlendMode, View
from twinguide.render import camera, hanging, marks, panels
from twinguide.render.context import load_program, make_array
from twinguide.render.glyphs import make_atlas
from twinguide.render.meshes import DrawnSurface, SurfaceInput, Surfaces
from twinguide.render.strokes import Quads, Strokes
from twinguide.scene import Scene, StructureView

DEFAULT_FIELD_M = 0.10  # half size of the field where there is no surface
SAMPLES = (0, 2, 4)
OUTLINE_DIRECTIONS = 200
SHAFT_POINTS = np.linspace(0.0, marks.SHAFT_M, 9)[:, None]  # [m] behind the tip


class Renderer:
    """Draws scenes of one case; owns its GL objects until `release`."""

    def __init__(
        self, ctx: moderngl.Context, surfaces: Mapping[str, SurfaceInput], *, show_skin: bool = False, samples: int = 0
    ) -> None:
        """Upload the surfaces.

        `show_skin` draws its contour, for displays that do not show the patient; `samples` > 0 smooths edges by
        multisampling, at about three times the cost on a CPU.
        """
        if samples not in SAMPLES:
            raise RenderError(f"samples of {SAMPLES}", str(samples))
        self._ctx, self._samples = ctx, samples
        self.panel_spot = hanging.LEVEL_RIGHT  # by the field, where the panel hung last
        self._surfaces = Surfaces(ctx, surfaces, show_skin)
        atlas = make_atlas()
        self._typesetter = panels.Typesetter(atlas)
        self._strokes, self._quads = Strokes(ctx), Quads(ctx, atlas)
        self._backdrop = load_program(ctx, "backdrop")
        self._backdrop_array = make_array(ctx, self._backdrop)
        self._camera = np.zeros((), dtype=camera.CAMERA)
        self._camera_buffer = ctx.buffer(reserve=camera.CAMERA.itemsize, dynamic=True)
        self._multisampled: tuple[tuple[int, int], list[moderngl.Renderbuffer], moderngl.Framebuffer] | None = None
        self._taken: tuple[Scene, Transform, hanging.Sight] | None = None  # what the buffers hold
        self._organ, self._centre, self._extent = _field_of(surfaces)
        self._outline = _outline_of(surfaces[self._organ].vertices) if self._organ else np.empty((0, 3))

    def draw(
        self,
        scene: Scene,
        view: View,
        target: moderngl.Framebuffer,
        blend: BlendMode,
        *,
        head: Transform | None = None,
        views: Sequence[View] = (),
    ) -> None:
        """Draw one eye into a framebuffer with depth; `head` (stage_from_headset) places what faces the wearer.

        Without `head`, the eye's own pose stands for it: right for parallel displays only. Text hangs where all `views`
        of the frame see it: without them, where this one does.
        """
        if target.size != (view.width, view.height) or not _has_depth(target):
            got = f"{target.size}, depth {_has_depth(target)}"
            raise RenderError(f"a framebuffer of {(view.width, view.height)} with depth", got)
        head = head or view.stage_from_eye
        sight = hanging.Sight.of(*(views or (view,)))
        if (scene, head, sight) != self._taken:
            self._take(scene, head, sight)
        self._take_eye(scene, view, see_through=blend != "opaque")
        canvas = self._canvas(target)
        canvas.use()
        canvas.color_mask, canvas.depth_mask = (True, True, True, True), True
        canvas.viewport = (0, 0, view.width, view.height)
        canvas.clear(0.0, 0.0, 0.0, 0.0)
        self._draw_layers(canvas, blend)
        if canvas is not target:
            self._ctx.copy_framebuffer(target, canvas)
            target.use()  # so that the canvas may be released: GL refuses to come back to a deleted one

    def _draw_layers(self, canvas: moderngl.Framebuffer, blend: BlendMode) -> None:
        ctx = self._ctx
        self._camera_buffer.bind_to_uniform_block(0)
        ctx.blend_func = moderngl.ONE, moderngl.ONE_MINUS_SRC_ALPHA
        if blend == "opaque":
            ctx.enable_only(moderngl.NOTHING)
            self._backdrop_array.render(moderngl.TRIANGLES, vertices=3)
        ctx.enable_only(moderngl.DEPTH_TEST | moderngl.CULL_FACE | moderngl.BLEND)
        ctx.depth_func = "<"
        self._surfaces.draw_solid()
        canvas.depth_mask = False  # what is transparent hides nothing
        self._surfaces.draw_xray()
        ctx.enable_only(moderngl.DEPTH_TEST | moderngl.BLEND)
        self._strokes.draw_hidden_by_surfaces(ctx)
        ctx.enable_only(moderngl.BLEND)
        self._quads.draw()
        self._strokes.draw_on_top()
        canvas.depth_mask = True

    def _take(self, scene: Scene, head: Transform, sight: hanging.Sight) -> None:
        """Make what both eyes of a frame share."""
        stage = _stage_of(scene)
        drawn, middle, shown = marks.FrameMarks(), None, {}
        if stage and scene.twin.reference_from_image:
            middle = stage.apply(scene.twin.reference_from_image.apply(self._centre))
            if scene.overlay_on:
                shown = _drawn_surfaces(scene, stage, scene.twin.reference_from_image)
                drawn = marks.build(scene, self._field(stage, head, middle))
        self._surfaces.show(shown)
        self._strokes.take(drawn)
        self._quads.begin()
        if stage and drawn.words:
            labels = [
                self._typesetter.label(words.text, hanging.label_width(words.size, sight)) for words in drawn.words
            ]
            places = stage.apply(np.array([words.position for words in drawn.words]))
            self._quads.add_labels(labels, drawn.words, places, head, sight)
        self._set_panel(scene, head, sight, middle)  # over all labels: its numbers are to be read
        self._quads.upload()
        self._taken = scene, head, sight

    def _field(self, stage: Transform, head: Transform, middle: Array) -> marks.Field:
        reference_from_head = stage.rotation.T @ head.rotation
        distance = float(np.linalg.norm(middle - head.translation))
        return marks.Field(
            centre=self._centre,
            extent=self._extent,
            right=reference_from_head[:, 0],
            up=reference_from_head[:, 1],
            eye=camera.place_in(stage, head.translation),
            metres_per_pixel=distance / camera.PIXELS_PER_TANGENT,
            organ=self._organ,
        )

    def _set_panel(self, scene: Scene, head: Transform, sight: hanging.Sight, middle: Array | None) -> None:
        radius = float(self._extent.max()) + 1.75 * marks.LETTER_GAP_M  # its letters too
        room = hanging.panel_room(sight, None if middle is None else radius)
        page = self._typesetter.page(panels.panel_rows(scene), room.width, room.height, room.sides == hanging.BESIDE)
        kept, spot = self._kept(scene), self.panel_spot
        place = hanging.hang(page, head, middle, radius, sight, kept=kept, before=spot, sides=room.sides)
        self.panel_spot = place.spot
        self._quads.add_page(page, place)
        self._quads.add_sign_of_life(page, place, scene.frame)

    def _kept(self, scene: Scene) -> hanging.Kept:
        """Return what the panel keeps free: tips, target and entry, then the organ, the needle's shaft and all labels.

        The labels are those of this frame, set before.
        """
        twin, stage = scene.twin, _stage_of(scene)
        if stage is None or twin.reference_from_image is None:
            return hanging.Kept(np.empty((0, 3)))
        tools = [tool for tool in twin.tools.values() if tool.status.state != "hidden"]
        firm = [tool.tip.position for tool in tools]
        firm += [point for point in (twin.target and twin.target.position, twin.entry) if point is not None]
        organ = twin.structures.get(self._organ)
        outline = twin.reference_from_image.apply(self._outline) + (organ.shift if organ else 0.0)
        shafts = [tool.tip.position - SHAFT_POINTS * tool.direction for tool in tools if tool.role == "needle"]
        points = np.concatenate([np.reshape(firm, (-1, 3)), outline, *shafts])
        return hanging.Kept(np.concatenate([stage.apply(points), self._quads.corners()]), len(firm))

    def _take_eye(self, scene: Scene, view: View, see_through: bool) -> None:
        twin, stage = scene.twin, _stage_of(scene)
        on = stage is not None and scene.overlay_on
        tips = [tool.tip.position for tool in twin.tools.values() if tool.status.state != "hidden"] if on else []
        focus = twin.target.position if on and twin.target else None
        camera.fill_camera(self._camera, view, stage, tips=tips, focus=focus, see_through=see_through)
        self._camera_buffer.write(self._camera)

    def _canvas(self, target: moderngl.Framebuffer) -> moderngl.Framebuffer:
        """Return where to draw: the target itself, or a multisampled buffer of its size, resolved into it per eye."""
        if self._samples == 0:
            return target
        if self._multisampled is None or self._multisampled[0] != target.size:
            self._release_multisampled()
            colour = self._ctx.renderbuffer(target.size, 4, samples=self._samples)
            depth = self._ctx.depth_renderbuffer(target.size, samples=self._samples)
            self._multisampled = target.size, [colour, depth], self._ctx.framebuffer([colour], depth)
        return self._multisampled[2]

    def _release_multisampled(self) -> None:
        if self._multisampled is not None:
            for owned in (self._multisampled[2], *self._multisampled[1]):
                owned.release()
            self._multisampled = None

    def release(self) -> None:
        """Free every GL object of the renderer; the context stays."""
        self._release_multisampled()
        for owned in (
            self._surfaces, self._strokes, self._quads, self._backdrop_array, self._backdrop, self._camera_buffer
        ):  # fmt: skip
            owned.release()


def _has_depth(framebuffer: moderngl.Framebuffer) -> bool:
    return bool(framebuffer.depth_attachment)  # None where there is none


def _field_of(surfaces: Mapping[str, SurfaceInput]) -> tuple[str, Array, Array]:
    """Return name, middle and half size [m], each shape (3,), in image, of the organ, else of the first surface."""
    organs = [name for name, surface in surfaces.items() if surface.role == "organ"] or [*surfaces][:1]
    if not organs:
        return "", np.zeros(3), np.full(3, DEFAULT_FIELD_M)
    vertices = surfaces[organs[0]].vertices
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    return organs[0], (low + high) / 2, (high - low) / 2


def _outline_of(vertices: Array) -> Array:
    """Return the vertices [m], shape (n, 3), that are the farthest in some direction: the outline from any side."""
    directions = np.random.default_rng(0).normal(size=(OUTLINE_DIRECTIONS, 3))
    return vertices[np.unique((vertices @ directions.T).argmax(axis=0))]


def _stage_of(scene: Scene) -> Transform | None:
    """Return stage_from_reference where there is a place for the twin, else None."""
    twin = scene.twin
    if scene.start_screen or twin.reference_from_image is None or twin.stage_from_reference is None:
        return None
    return twin.stage_from_reference.transform


def _drawn_surfaces(scene: Scene, stage: Transform, reference_from_image: Transform) -> dict[str, DrawnSurface]:
    """Return how each structure is drawn; the rigid transform is the same for all but its motion."""
    base = stage.matrix @ reference_from_image.matrix

    def one(view: StructureView) -> DrawnSurface:
        matrix = base.copy()
        matrix[:3, 3] += stage.rotation @ view.shift
        return DrawnSurface(view.status.state, matrix, view.vertices, view.version)

    return {name: one(view) for name, view in scene.twin.structures.items()}
