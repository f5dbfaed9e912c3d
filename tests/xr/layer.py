"""An OpenXR API layer in Python: what Debian's Monado drivers cannot do, offered between the loader and the runtime.

It offers the blend modes of see-through displays (and hands OPAQUE on to the runtime), counts haptic pulses, puts
events of its own before the runtime's, makes poses unusable, and lets a test act when a call is about to reach the
runtime. The process is started with XR_ENABLE_API_LAYERS naming it.
"""

import ctypes
from collections import deque

import xr  # noqa: TID253 - a layer is written in terms of it

NAME = "XR_APILAYER_TWINGUIDE_test"
OFFERED = (1, 2, 3)  # opaque, additive, alpha blend
PASSED = (
    *("xrBeginFrame", "xrAcquireSwapchainImage", "xrWaitSwapchainImage", "xrReleaseSwapchainImage"),
    "xrCreateSwapchain",
)


class Layer(xr.DynamicApiLayerBase):
    def __init__(self):
        super().__init__(NAME)
        self.ended, self.pulses, self.layer_flags = [], 0, []
        self._events = deque()
        self._session = None
        self.spoil = None  # a quaternion xyzw for every pose
        self.before = {}  # name of a call -> what to do once, before its next one
        # Kept as attributes: C calls them for as long as the process lives.
        self._get = xr.PFN_xrGetInstanceProcAddr(self._get_instance_proc_addr)
        self._create = xr.PFN_xrCreateApiLayerInstance(self._create_instance)
        self._own = {
            b"xrEnumerateEnvironmentBlendModes": xr.PFN_xrEnumerateEnvironmentBlendModes(self._blend_modes),
            b"xrEndFrame": xr.PFN_xrEndFrame(self._end_frame),
            b"xrApplyHapticFeedback": xr.PFN_xrApplyHapticFeedback(self._haptic),
            b"xrPollEvent": xr.PFN_xrPollEvent(self._poll),
            b"xrLocateSpace": xr.PFN_xrLocateSpace(self._locate_space),
            b"xrLocateViews": xr.PFN_xrLocateViews(self._locate_views),
            **{name.encode(): self._passing(name) for name in PASSED},
        }
        self._next = {}

    def negotiate_loader_api_layer_interface(self, loader_info, layer_name, api_layer_request):
        api_layer_request.layer_interface_version = xr.CURRENT_LOADER_API_LAYER_VERSION
        api_layer_request.layer_api_version = xr.XR_CURRENT_API_VERSION
        api_layer_request.get_instance_proc_addr = self._get
        api_layer_request.create_api_layer_instance = self._create
        return xr.Result.SUCCESS

    def _create_instance(self, info, layer_info, instance):
        following = layer_info.contents.next_info.contents
        below = xr.ApiLayerCreateInfo.from_buffer_copy(layer_info.contents)
        below.next_info = following.next
        result = following.next_create_api_layer_instance(info, ctypes.byref(below), instance)
        get = following.next_get_instance_proc_addr
        self._next_get = type(get)(ctypes.cast(get, ctypes.c_void_p).value)  # a copy: the loader's memory is not kept
        if result == 0:
            made = ctypes.cast(instance, ctypes.POINTER(xr.Instance)).contents
            for name, own in self._own.items():
                function = xr.PFN_xrVoidFunction()
                self._next_get(made, name, ctypes.byref(function))
                self._next[name] = ctypes.cast(function, type(own))
        return result

    def _get_instance_proc_addr(self, instance, name, function):
        own = self._own.get(name)
        if own is None:
            return self._next_get(instance, name, function)
        ctypes.memmove(function, ctypes.byref(own), ctypes.sizeof(xr.PFN_xrVoidFunction))
        return 0

    def _passing(self, name):
        def call(*arguments):
            self._prepare(name)
            return self._next[name.encode()](*arguments)

        return getattr(xr, f"PFN_{name}")(call)

    def _prepare(self, name):
        self.before.pop(name, lambda: None)()

    def _blend_modes(self, instance, system, configuration, capacity, count, modes):
        count[0] = len(OFFERED)
        for i in range(min(capacity, len(OFFERED))):
            modes[i] = OFFERED[i]
        return 0

    def _end_frame(self, session, info):
        self._prepare("xrEndFrame")
        asked = info.contents._environment_blend_mode
        if info.contents.layer_count:
            self.ended.append(int(asked))
            self.layer_flags.append(int(info.contents._layers[0].contents.layer_flags))
        info.contents._environment_blend_mode = 1
        result = self._next[b"xrEndFrame"](session, info)
        info.contents._environment_blend_mode = asked
        self._session = session
        return result

    def _haptic(self, session, action, feedback):
        self.pulses += 1
        return self._next[b"xrApplyHapticFeedback"](session, action, feedback)

    def _poll(self, instance, buffer):
        if not self._events:
            return self._next[b"xrPollEvent"](instance, buffer)
        event = self._events.popleft()
        ctypes.memmove(buffer, ctypes.byref(event), ctypes.sizeof(event))
        return 0

    def _spoil(self, pose):
        if self.spoil:
            pose.orientation = xr.Quaternionf(*self.spoil)

    def _locate_space(self, space, base, time, location):
        result = self._next[b"xrLocateSpace"](space, base, time, location)
        self._spoil(location.contents.pose)
        return result

    def _locate_views(self, session, info, state, capacity, count, views):
        result = self._next[b"xrLocateViews"](session, info, state, capacity, count, views)
        for eye in range(capacity):
            self._spoil(views[eye].pose)
        return result

    def move_space(self):
        self._events.append(
            xr.EventDataReferenceSpaceChangePending(
                session=self._session, reference_space_type=xr.ReferenceSpaceType.STAGE, change_time=0
            )
        )

    def announce_loss(self):
        self._events.append(
            xr.EventDataSessionStateChanged(session=self._session, state=xr.SessionState.LOSS_PENDING, time=0)
        )
