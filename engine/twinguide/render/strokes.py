"""Strokes and text on the GPU: instances in buffers that are made once and grow only when they must."""

from __future__ import annotations

from collections.abc import Sequence

import moderngl
import numpy as np
from numpy.typing import NDArray

from twinguide.frames import Array, Transform
from twinguide.render import hanging
from twinguide.render.context import load_program, make_array, uniform_of
from twinguide.render.glyphs import EM_PER_UNIT, Atlas
from twinguide.render.marks import FrameMarks, LineRow, LoopRow, Words
from twinguide.render.panels import Page

SEGMENTS = 40  # of a closed stroke
LINE_NUMBERS, LOOP_NUMBERS = 16, 20  # as struct Line and struct Loop
LINES_BINDING, LOOPS_BINDING = 2, 3


class Instances:
    """Rows of float32 for a shader, in memory and on the GPU; the room doubles when it is used up."""

    def __init__(self, ctx: moderngl.Context, numbers: int, capacity: int) -> None:
        self.rows: NDArray[np.float32] = np.zeros((capacity, numbers), dtype=np.float32)
        self.count = 0
        self.buffer = ctx.buffer(reserve=self.rows.nbytes, dynamic=True)

    def reserve(self, count: int) -> None:
        """Make room for `count` rows more."""
        needed = self.count + count
        if needed > len(self.rows):
            larger = np.zeros((max(needed, 2 * len(self.rows)), self.rows.shape[1]), dtype=np.float32)
            larger[: self.count] = self.rows[: self.count]
            self.rows = larger

    def upload(self) -> None:
        """Send the rows in use."""
        if self.rows.nbytes > self.buffer.size:
            self.buffer.orphan(self.rows.nbytes)
        if self.count:
            self.buffer.write(self.rows[: self.count])

    def bind(self, binding: int) -> None:
        """Let the shaders read the rows at `binding`."""
        self.buffer.bind_to_storage_buffer(binding)

    def release(self) -> None:
        """Free the buffer."""
        self.buffer.release()


class Strokes:
    """Lines and loops: first those that surfaces may hide, then those on top of everything."""

    def __init__(self, ctx: moderngl.Context) -> None:
        self._lines, self._loops = Instances(ctx, LINE_NUMBERS, 256), Instances(ctx, LOOP_NUMBERS, 64)
        self._line_program = load_program(ctx, "line", fragment="stroke")
        self._loop_program = load_program(ctx, "loop", {"SEGMENTS": SEGMENTS}, fragment="stroke")
        self._uniforms = {
            program: (uniform_of(program, "first_instance"), uniform_of(program, "behind"))
            for program in (self._line_program, self._loop_program)
        }
        self._line_array = make_array(ctx, self._line_program)
        self._loop_array = make_array(ctx, self._loop_program)
        self._below = (0, 0)  # lines and loops that surfaces may hide

    def take(self, marks: FrameMarks) -> None:
        """Take one frame's strokes."""
        self._below = (len(marks.lines), len(marks.loops))
        self._fill(self._lines, [*marks.lines, *marks.top_lines])
        self._fill(self._loops, [*marks.loops, *marks.top_loops])

    @staticmethod
    def _fill(instances: Instances, rows: list[LineRow] | list[LoopRow]) -> None:
        instances.count = 0
        instances.reserve(len(rows))
        instances.count = len(rows)
        if rows:
            instances.rows[: len(rows)] = rows
        instances.upload()

    def draw_hidden_by_surfaces(self, ctx: moderngl.Context) -> None:
        """Draw what lies before the surfaces in full and what lies behind them dotted and dim."""
        for behind, depth_func in ((1.0, ">"), (0.0, "<=")):
            ctx.depth_func = depth_func
            self._draw(behind, (0, self._below[0]), (0, self._below[1]))

    def draw_on_top(self) -> None:
        """Draw what nothing may hide; the depth test is off."""
        lines, loops = self._below
        self._draw(0.0, (lines, self._lines.count - lines), (loops, self._loops.count - loops))

    def _draw(self, behind: float, lines: tuple[int, int], loops: tuple[int, int]) -> None:
        for instances, binding, program, array, part, vertices in (
            (self._loops, LOOPS_BINDING, self._loop_program, self._loop_array, loops, 2 * (SEGMENTS + 1)),
            (self._lines, LINES_BINDING, self._line_program, self._line_array, lines, 4),
        ):
            if part[1]:
                instances.bind(binding)
                first, hidden = self._uniforms[program]
                first.value, hidden.value = part[0], behind
                array.render(moderngl.TRIANGLE_STRIP, vertices=vertices, instances=part[1])

    def release(self) -> None:
        """Free the GL objects."""
        for owned in (
            self._line_array, self._loop_array, self._line_program, self._loop_program, self._lines, self._loops
        ):  # fmt: skip
            owned.release()


class Quads:
    """Glyphs and plates of one frame, drawn in one call."""

    def __init__(self, ctx: moderngl.Context, atlas: Atlas) -> None:
        self._instances = Instances(ctx, hanging.QUAD_NUMBERS, 1024)
        self._program = load_program(ctx, "quad")
        names = ("origin", "right", "up", "place", "colour", "style")
        layout = ("4f 4f 4f 4f 4f 4f/i", *(f"in_{name}" for name in names))
        self._array = make_array(ctx, self._program, [(self._instances.buffer, *layout)])
        height, width = atlas.pixels.shape
        self._texture = ctx.texture((width, height), 1, np.ascontiguousarray(atlas.pixels), alignment=1)
        self._texture.filter = moderngl.LINEAR, moderngl.LINEAR
        self._texture.repeat_x = self._texture.repeat_y = False
        self._program["em_per_unit"] = EM_PER_UNIT

    def begin(self) -> None:
        """Forget the last frame's."""
        self._instances.count = 0

    def add_page(self, page: Page, place: hanging.Hanging) -> None:
        """Add a set text where it hangs."""
        self._instances.reserve(len(page.rectangles))
        self._instances.count += hanging.quads(page, place, self._instances.rows[self._instances.count :])

    def add_labels(
        self, labels: Sequence[Page], words: Sequence[Words], places: Array, head: Transform, sight: hanging.Sight
    ) -> None:
        """Add short texts that face the wearer; see `hanging.label_quads`."""
        self._instances.reserve(sum(len(label.rectangles) for label in labels))
        room = self._instances.rows[self._instances.count :]
        self._instances.count += hanging.label_quads(labels, words, places, head=head, sight=sight, out=room)

    def add_sign_of_life(self, page: Page, place: hanging.Hanging, frame: int) -> None:
        """Add the bar that turns with every frame."""
        self._instances.reserve(2)
        self._instances.count += hanging.sign_of_life(page, place, frame, self._instances.rows[self._instances.count :])

    def corners(self) -> Array:
        """Return two opposite corners of each rectangle so far [m], shape (2 n, 3), in stage."""
        rows = self._instances.rows[: self._instances.count].astype(np.float64)
        return np.concatenate([rows[:, 0:3], rows[:, 0:3] + rows[:, 4:7] + rows[:, 8:11]])

    def upload(self) -> None:
        """Send them to the GPU."""
        self._instances.upload()

    def draw(self) -> None:
        """Draw them over what is there."""
        if self._instances.count:
            self._texture.use(0)
            self._array.render(moderngl.TRIANGLE_STRIP, vertices=4, instances=self._instances.count)

    def release(self) -> None:
        """Free the GL objects."""
        for owned in (self._array, self._program, self._texture, self._instances):
            owned.release()
