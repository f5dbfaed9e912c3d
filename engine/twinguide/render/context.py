"""The GL context without a display, the eyes' framebuffers, and programs from the files in `shaders/`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import moderngl

from twinguide.errors import RenderError

GL_VERSION = 450
PACKAGES = "libegl1 libgl1"
INCLUDE = re.compile(r'^#include "([\w.]+)"$', re.MULTILINE)


def create_context(device_index: int = 0) -> moderngl.Context:
    """Return a GL 4.5 core context on EGL, without a window; raise RenderError naming the packages where it cannot.

    Give it back with `ctx.release()`.
    """
    try:
        settings: Any = {"backend": "egl", "device_index": device_index}  # typed as a dict of dicts in the stubs
        ctx = moderngl.create_context(require=GL_VERSION, standalone=True, **settings)
    except Exception as error:  # glcontext raises Exception itself, ValueError or ImportError by what is missing
        raise RenderError(
            f"OpenGL {GL_VERSION // 100}.{GL_VERSION % 100 // 10} core through EGL",
            f"{type(error).__name__}: {error}",
            f"EGL device {device_index}",
            f"On Debian or Ubuntu: apt-get install {PACKAGES}",
        ) from error
    return ctx


def eye_framebuffers(
    ctx: moderngl.Context, size: tuple[int, int], internal_format: int | None = None
) -> list[moderngl.Framebuffer]:
    """Return a framebuffer of a size [px] for each eye: depth, and a texture of 8 bits a channel or GL's format."""
    textures = [ctx.texture(size, 4, internal_format=internal_format) for _ in range(2)]
    return [ctx.framebuffer([texture], ctx.depth_renderbuffer(size)) for texture in textures]


def release_eyes(framebuffers: list[moderngl.Framebuffer]) -> None:
    """Give the framebuffers of `eye_framebuffers` back, with what they hold."""
    for framebuffer in framebuffers:
        for owned in (framebuffer, *framebuffer.color_attachments, framebuffer.depth_attachment):
            owned.release()
    framebuffers.clear()


def shader_folder() -> Path:
    """Return the checkout's `shaders` folder, else the copy inside the installed package."""
    # An editable install leaves a stale copy in the package, so the checkout comes first.
    checkout = Path(__file__).parents[3] / "shaders"
    return checkout if (checkout / "mesh.vert").is_file() else Path(__file__).parents[1] / "_shaders"


def shader_source(name: str, folder: Path | None = None) -> str:
    """Return a shader's text with every line `#include "file"` replaced by that file; raise RenderError if missing."""
    folder = folder or shader_folder()
    try:
        source = (folder / name).read_text(encoding="utf-8")
    except OSError as error:
        raise RenderError(f"the shader {name!r}", str(error), str(folder), "Install TwinGuide again.") from error
    return INCLUDE.sub(lambda found: shader_source(found[1], folder), source)


def load_program(
    ctx: moderngl.Context, name: str, define: Mapping[str, int] | None = None, fragment: str = ""
) -> moderngl.Program:
    """Compile `name.vert` and `fragment.frag` (default `name.frag`); raise RenderError with the compiler's words."""
    try:
        return ctx.program(
            vertex_shader=_defined(shader_source(f"{name}.vert"), define),
            fragment_shader=_defined(shader_source(f"{fragment or name}.frag"), define),
        )
    except moderngl.Error as error:
        raise RenderError("a shader that compiles", str(error).strip(), name) from error


def load_compute(ctx: moderngl.Context, name: str) -> moderngl.ComputeShader:
    """Compile `name.comp`; raise RenderError with the compiler's words."""
    try:
        return ctx.compute_shader(shader_source(f"{name}.comp"))
    except moderngl.Error as error:
        raise RenderError("a shader that compiles", str(error).strip(), name) from error


def make_array(
    ctx: moderngl.Context,
    program: moderngl.Program,
    content: Sequence[tuple[moderngl.Buffer | str, ...]] = (),
    index: moderngl.Buffer | None = None,
) -> moderngl.VertexArray:
    """Return a vertex array of buffers (buffer, format, attributes), or one whose shader reads buffers by itself."""
    return ctx.vertex_array(program, [*content], index_buffer=index)  # pyright: ignore[reportUnknownMemberType]


def uniform_of(program: moderngl.Program, name: str) -> moderngl.Uniform:
    """Return a program's uniform; raise RenderError where it has none of that name."""
    found = program.get(name, None)
    if not isinstance(found, moderngl.Uniform):
        raise RenderError(f"a uniform {name!r}", repr(found), next_step="Compare the shader with its caller.")
    return found


def defined(**switches: bool) -> dict[str, int]:
    """Return what to define for a program, of those switches that are on."""
    return {name: 1 for name, on in switches.items() if on}


def _defined(source: str, define: Mapping[str, int] | None) -> str:
    version, rest = source.split("\n", 1)
    lines = [f"#define {key} {value}" for key, value in (define or {}).items()]
    return "\n".join([version, *lines, rest])
