"""What OpenXR and GL share: the context that a runtime works in, and the swapchain of each eye."""
# pyopenxr has no stubs and annotates ctypes types where it takes integers: pyright cannot judge its calls.
# pyright: reportArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

from __future__ import annotations

import ctypes

from twinguide.clock import MS
from twinguide.errors import HeadsetError, RuntimeLost
from twinguide.render.context import GL_VERSION
from twinguide.xr.openxr_runtime import Runtime, xr

EGL_CONFIG_ID, EGL_NONE, EGL_OPENGL_API = 0x3028, 0x3038, 0x30A2
EGL_MAJOR, EGL_MINOR, EGL_PROFILE, EGL_CORE = 0x3098, 0x30FB, 0x30FD, 1
GL_TEXTURE_2D, GL_COMMANDS_COMPLETE, GL_NO_TIMEOUT = 0x0DE1, 0x9117, 0xFFFF_FFFF_FFFF_FFFF
GL_SRGB8_ALPHA8, GL_RGBA8 = 0x8C43, 0x8058  # the first is asked for first; both hold the display's encoding
IMAGE_WAIT_NS = 500 * MS  # as long as any other call: a runtime that gives no image is lost
STALE_ERRORS = 8  # at most, that a runtime has left in GL before a copy


class ContextEgl:
    """An EGL context for a runtime, which shares its textures with the one that the loop draws in.

    Made where the loop's context is current. From `enter` to `leave` it belongs to one thread, so that a runtime which
    hangs there, or leaves GL in disorder, holds nothing that the loop needs. `fence` is for either thread.
    """

    def __init__(self) -> None:
        egl = self._egl = ctypes.CDLL("libEGL.so.1")
        for name in ("eglGetCurrentContext", "eglGetCurrentDisplay", "eglGetProcAddress", "eglCreateContext"):
            getattr(egl, name).restype = ctypes.c_void_p
        loop, display = egl.eglGetCurrentContext(), egl.eglGetCurrentDisplay()
        if not loop or not display:
            raise HeadsetError("a GL context made by EGL", "none is current in this thread", "the headset's start")
        self._display = ctypes.c_void_p(display)
        self._config = self._config_of(ctypes.c_void_p(loop))
        major, minor = GL_VERSION // 100, GL_VERSION % 100 // 10
        wanted = (EGL_MAJOR, major, EGL_MINOR, minor, EGL_PROFILE, EGL_CORE, EGL_NONE)
        attributes = (ctypes.c_int * len(wanted))(*wanted)
        made = egl.eglCreateContext(self._display, self._config, ctypes.c_void_p(loop), attributes)
        if not made:
            raise HeadsetError("a second GL context that shares textures", f"EGL error {egl.eglGetError():#x}")
        self._context = ctypes.c_void_p(made)
        u, i, p = ctypes.c_uint, ctypes.c_int, ctypes.c_void_p
        self._copy_image = self._gl("glCopyImageSubData", None, u, u, i, i, i, i, u, u, i, i, i, i, i, i, i)
        self._fence_sync = self._gl("glFenceSync", p, u, u)
        self._wait_sync = self._gl("glWaitSync", None, p, u, ctypes.c_uint64)
        self._delete_sync = self._gl("glDeleteSync", None, p)
        self._flush, self._finish = self._gl("glFlush", None), self._gl("glFinish", None)
        self._error = self._gl("glGetError", u)

    def _config_of(self, context: ctypes.c_void_p) -> ctypes.c_void_p:
        number, count, config = ctypes.c_int(), ctypes.c_int(), ctypes.c_void_p()
        self._egl.eglQueryContext(self._display, context, EGL_CONFIG_ID, ctypes.byref(number))
        wanted = (ctypes.c_int * 3)(EGL_CONFIG_ID, number.value, EGL_NONE)
        self._egl.eglChooseConfig(self._display, wanted, ctypes.byref(config), 1, ctypes.byref(count))
        return config

    def _gl(self, name: str, result: type | None, *arguments: type) -> ctypes._CFunctionType:  # pyright: ignore[reportPrivateUsage]
        return ctypes.CFUNCTYPE(result, *arguments)(self._egl.eglGetProcAddress(name.encode()))

    def enter(self) -> None:
        """Make the context current in this thread, also where a runtime has left another one."""
        self._egl.eglBindAPI(EGL_OPENGL_API)  # a thread begins with GLES
        if self._egl.eglGetCurrentContext() != self._context.value and not self._egl.eglMakeCurrent(
            self._display, None, None, self._context
        ):
            raise RuntimeLost("the runtime's GL context", f"EGL error {self._egl.eglGetError():#x}")

    def leave(self) -> None:
        """Give the context back."""
        self._egl.eglMakeCurrent(self._display, None, None, None)
        self._egl.eglDestroyContext(self._display, self._context)

    def fence(self) -> int:
        """Return a mark behind what this thread's context was told to draw so far; for one `await_fence`."""
        mark = self._fence_sync(GL_COMMANDS_COMPLETE, 0)
        self._flush()
        return mark

    def await_fence(self, mark: int) -> None:
        """Let the runtime's context draw only after the mark."""
        self.enter()
        self._wait_sync(mark, 0, GL_NO_TIMEOUT)
        self._delete_sync(mark)

    def copy(self, source: int, target: int, size: tuple[int, int]) -> None:
        """Copy a texture into another, bit for bit; raise RuntimeLost where GL refuses. Not waited for."""
        self.enter()
        for _ in range(STALE_ERRORS):  # a runtime's; a context that is lost has no last one
            if not self._error():
                break
        level_and_origin = GL_TEXTURE_2D, 0, 0, 0, 0
        self._copy_image(source, *level_and_origin, target, *level_and_origin, *size, 1)
        if error := self._error():
            raise RuntimeLost("an image that takes the picture", f"GL error {error:#x}", "the OpenXR runtime")

    def finish(self) -> None:
        """Wait until the runtime's context has done all that it was told."""
        self.enter()
        self._finish()

    def binding(self) -> xr.GraphicsBindingEGLMNDX:
        """Return the structure that ties a session to this context."""
        binding = xr.GraphicsBindingEGLMNDX()
        handles = {"display": self._display, "config": self._config, "context": self._context}
        for name, kind, *_ in xr.GraphicsBindingEGLMNDX._fields_:
            if name in handles:
                setattr(binding, name, ctypes.cast(handles[name], kind))
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


class Swapchain:
    """One eye's images in the runtime; they go with the session."""

    def __init__(self, session: xr.Session, egl: ContextEgl, size: tuple[int, int]) -> None:
        offered = [int(code) for code in xr.enumerate_swapchain_formats(session)]
        chosen = next((code for code in (GL_SRGB8_ALPHA8, GL_RGBA8) if code in offered), None)
        if chosen is None:
            raise HeadsetError("SRGB8_ALPHA8 or RGBA8 images", f"formats {offered}", "the OpenXR runtime")
        usage = xr.SwapchainUsageFlags
        self._size, self._egl = size, egl
        self._swapchain = xr.create_swapchain(
            session,
            xr.SwapchainCreateInfo(
                usage_flags=usage.COLOR_ATTACHMENT_BIT | usage.SAMPLED_BIT | usage.TRANSFER_DST_BIT,
                format=chosen,
                sample_count=1,
                width=size[0],
                height=size[1],
                face_count=1,
                array_size=1,
                mip_count=1,
            ),
        )
        images = xr.enumerate_swapchain_images(self._swapchain, xr.SwapchainImageOpenGLKHR)
        self._images = [int(image.image) for image in images]

    def show(self, picture: int) -> None:
        """Copy a texture, drawn in display's encoding, into the next image; raise RuntimeLost where none is given."""
        index = xr.acquire_swapchain_image(self._swapchain, xr.SwapchainImageAcquireInfo())
        try:
            xr.wait_swapchain_image(self._swapchain, xr.SwapchainImageWaitInfo(timeout=IMAGE_WAIT_NS))
        except xr.TimeoutExpired as error:
            raise RuntimeLost("a swapchain image", f"none in {IMAGE_WAIT_NS / MS:.0f} ms") from error
        self._egl.copy(picture, self._images[index], self._size)
        xr.release_swapchain_image(self._swapchain, xr.SwapchainImageReleaseInfo())

    def sub_image(self) -> xr.SwapchainSubImage:
        """Return the whole image, for a layer."""
        return xr.SwapchainSubImage(self._swapchain, xr.Rect2Di(xr.Offset2Di(0, 0), xr.Extent2Di(*self._size)), 0)
