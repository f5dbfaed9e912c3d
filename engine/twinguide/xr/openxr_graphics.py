"""What OpenXR and GL share: the EGL context, and the swapchain of each eye as framebuffers."""
# pyopenxr has no stubs and annotates ctypes types where it takes integers: pyright cannot judge its calls.
# pyright: reportArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Generator
from typing import TYPE_CHECKING

from twinguide.clock import MS
from twinguide.errors import HeadsetError, RuntimeLost
from twinguide.xr.openxr_runtime import Runtime, xr

if TYPE_CHECKING:
    import moderngl

EGL_CONFIG_ID, EGL_NONE = 0x3028, 0x3038
GL_SRGB8_ALPHA8, GL_RGBA8 = 0x8C43, 0x8058
IMAGE_WAIT_NS = 500 * MS


class ContextEgl:
    """A moderngl context and its EGL handles, so that it can be handed to a runtime and made current again."""

    def __init__(self, ctx: moderngl.Context) -> None:
        """Take a context that is current in this thread."""
        self.ctx = ctx
        egl = ctypes.CDLL("libEGL.so.1")
        for name in ("eglGetCurrentContext", "eglGetCurrentDisplay", "eglGetProcAddress"):
            getattr(egl, name).restype = ctypes.c_void_p
        self._egl = egl
        self._context, self._display = egl.eglGetCurrentContext(), egl.eglGetCurrentDisplay()
        if not self._context or not self._display:
            raise HeadsetError("a GL context made by EGL", "none is current in this thread", "the headset's start")
        self._config = self._find_config()

    def _find_config(self) -> int | None:
        number, count, config = ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p()
        display = ctypes.c_void_p(self._display)
        self._egl.eglQueryContext(display, ctypes.c_void_p(self._context), EGL_CONFIG_ID, ctypes.byref(number))
        wanted = (ctypes.c_int * 3)(EGL_CONFIG_ID, number.value, EGL_NONE)
        self._egl.eglChooseConfig(display, wanted, ctypes.byref(config), 1, ctypes.byref(count))
        return config.value

    def restore(self) -> None:
        """Undo what runtimes do to GL: another current context, errors left behind."""
        if self._egl.eglGetCurrentContext() != self._context:
            self.ctx.__enter__()
        self.ctx.clear_errors()

    def binding(self) -> xr.GraphicsBindingEGLMNDX:
        """Return the structure that ties a session to this context."""
        binding = xr.GraphicsBindingEGLMNDX()
        handles = {"display": self._display, "config": self._config, "context": self._context}
        for name, kind, *_ in xr.GraphicsBindingEGLMNDX._fields_:
            if name in handles:
                setattr(binding, name, ctypes.cast(ctypes.c_void_p(handles[name]), kind))
        binding.get_proc_address = ctypes.cast(self._egl.eglGetProcAddress, xr.PFN_xrEglGetProcAddressMNDX)
        return binding


def require_gl(runtime: Runtime) -> None:
    """Ask for the runtime's GL requirements, as OpenXR demands before a session is made."""
    name = "xrGetOpenGLGraphicsRequirementsKHR"
    call = ctypes.cast(xr.get_instance_proc_addr(runtime.instance, name), xr.PFN_xrGetOpenGLGraphicsRequirementsKHR)
    requirements = xr.GraphicsRequirementsOpenGLKHR()
    result = xr.check_result(xr.Result(call(runtime.instance, runtime.system, ctypes.byref(requirements))))
    if result.is_exception():
        raise result


class EyeTarget:
    """One eye's swapchain: a framebuffer for each of its images, with one depth buffer for all."""

    def __init__(self, session: xr.Session, egl: ContextEgl, size: tuple[int, int]) -> None:
        offered = [int(code) for code in xr.enumerate_swapchain_formats(session)]
        chosen = next((code for code in (GL_SRGB8_ALPHA8, GL_RGBA8) if code in offered), None)
        if chosen is None:
            raise HeadsetError("SRGB8_ALPHA8 or RGBA8 images", f"formats {offered}", "the OpenXR runtime")
        usage = xr.SwapchainUsageFlags
        self.size, self._egl = size, egl
        self.swapchain = xr.create_swapchain(
            session,
            xr.SwapchainCreateInfo(
                usage_flags=usage.COLOR_ATTACHMENT_BIT | usage.SAMPLED_BIT,
                format=chosen,
                sample_count=1,
                width=size[0],
                height=size[1],
                face_count=1,
                array_size=1,
                mip_count=1,
            ),
        )
        images = xr.enumerate_swapchain_images(self.swapchain, xr.SwapchainImageOpenGLKHR)
        egl.restore()
        self._depth = egl.ctx.depth_renderbuffer(size)
        # The images belong to the runtime: releasing their textures deletes only the view.
        self._colours = [egl.ctx.external_texture(int(image.image), size, 4, 0, "f1") for image in images]
        self._framebuffers = [egl.ctx.framebuffer([colour], self._depth) for colour in self._colours]

    @contextlib.contextmanager
    def image(self) -> Generator[moderngl.Framebuffer]:
        """Hold the next image to draw into; raise RuntimeLost where the runtime does not give one in time."""
        index = xr.acquire_swapchain_image(self.swapchain, xr.SwapchainImageAcquireInfo())
        try:
            xr.wait_swapchain_image(self.swapchain, xr.SwapchainImageWaitInfo(timeout=IMAGE_WAIT_NS))
        except xr.TimeoutExpired as error:
            raise RuntimeLost("a swapchain image", f"none in {IMAGE_WAIT_NS / MS:.0f} ms") from error
        self._egl.restore()
        try:
            yield self._framebuffers[index]
        finally:
            xr.release_swapchain_image(self.swapchain, xr.SwapchainImageReleaseInfo())
            self._egl.restore()

    def sub_image(self) -> xr.SwapchainSubImage:
        """Return the whole image, for a layer."""
        return xr.SwapchainSubImage(self.swapchain, xr.Rect2Di(xr.Offset2Di(0, 0), xr.Extent2Di(*self.size)), 0)

    def release(self) -> None:
        """Release what was made of GL objects; the swapchain goes with its session."""
        self._egl.restore()
        for owned in (*self._framebuffers, *self._colours, self._depth):
            owned.release()
        self._framebuffers.clear()
