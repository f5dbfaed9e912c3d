"""Both controllers as OpenXR actions: grip, aim, trigger, squeeze, three buttons and a pulse."""
# pyopenxr has no stubs and annotates ctypes types where it takes integers: pyright cannot judge its calls.
# pyright: reportArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportMissingTypeStubs=false

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twinguide.clock import SECOND
from twinguide.frames import Transform
from twinguide.headset import HANDS, Hand, HandName
from twinguide.xr.openxr_runtime import Runtime, transform_of, xr

PRESSED = 0.5  # of an analogue trigger's or squeeze's way
BUTTONS = ("a", "b", "menu")
TRACKED = xr.SpaceLocationFlags.ALL.value

COMMON = {"grip": "input/grip/pose", "aim": "input/aim/pose", "haptic": "output/haptic"}
# Interaction profile -> action -> component of each hand; "left:" or "right:" where only one hand has it.
PROFILES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "khr/simple_controller": {"trigger": ("input/select/click",), "menu": ("input/menu/click",)},
    "valve/index_controller": {
        "trigger": ("input/trigger/value",),
        "squeeze": ("input/squeeze/value",),
        "a": ("input/a/click",),
        "b": ("input/b/click",),
        "menu": ("input/thumbstick/click",),  # it has no menu button, the system keeps its own
    },
    "oculus/touch_controller": {
        "trigger": ("input/trigger/value",),
        "squeeze": ("input/squeeze/value",),
        "a": ("left:input/x/click", "right:input/a/click"),
        "b": ("left:input/y/click", "right:input/b/click"),
        "menu": ("left:input/menu/click", "right:input/thumbstick/click"),
    },
    "microsoft/motion_controller": {
        "trigger": ("input/trigger/value",),
        "squeeze": ("input/squeeze/click",),
        "a": ("input/trackpad/click",),
        "b": ("input/thumbstick/click",),
        "menu": ("input/menu/click",),
    },
    "htc/vive_controller": {
        "trigger": ("input/trigger/value",),
        "squeeze": ("input/squeeze/click",),
        "a": ("input/trackpad/click",),
        "menu": ("input/menu/click",),
    },
}


def bindings(profile: str) -> list[tuple[str, str]]:
    """Return (action, path) of every binding that a profile suggests."""
    components = {**{action: (path,) for action, path in COMMON.items()}, **PROFILES[profile]}
    found: list[tuple[str, str]] = []
    for action, paths in components.items():
        for path in paths:
            only, _, component = path.rpartition(":")
            found += [(action, f"/user/hand/{hand}/{component}") for hand in HANDS if only in ("", hand)]
    return found


class ControllerInput:
    """The action set of one instance and the action spaces of one session."""

    def __init__(self, runtime: Runtime, session: xr.Session) -> None:
        self._instance, self._session = runtime.instance, session
        self._hands = {hand: xr.string_to_path(self._instance, f"/user/hand/{hand}") for hand in HANDS}
        self._set = xr.create_action_set(self._instance, xr.ActionSetCreateInfo("guidance", "Guidance", 0))
        kind = xr.ActionType
        self._actions = {
            name: self._make_action(name, title, action_type)
            for name, title, action_type in (
                ("grip", "Hand", kind.POSE_INPUT),
                ("aim", "Pointer", kind.POSE_INPUT),
                ("trigger", "Select", kind.FLOAT_INPUT),
                ("squeeze", "Hold", kind.FLOAT_INPUT),
                ("a", "First button", kind.BOOLEAN_INPUT),
                ("b", "Second button", kind.BOOLEAN_INPUT),
                ("menu", "Menu", kind.BOOLEAN_INPUT),
                ("haptic", "Pulse", kind.VIBRATION_OUTPUT),
            )
        }
        for profile in PROFILES:
            self._suggest(profile)
        xr.attach_session_action_sets(session, xr.SessionActionSetsAttachInfo(action_sets=[self._set]))
        self._spaces = {
            (hand, name): xr.create_action_space(
                session, xr.ActionSpaceCreateInfo(action=self._actions[name], subaction_path=self._hands[hand])
            )
            for hand in HANDS
            for name in ("grip", "aim")
        }

    def _make_action(self, name: str, title: str, kind: Any) -> xr.Action:  # noqa: ANN401 - an xr.ActionType
        hands = list(self._hands.values())
        return xr.create_action(
            self._set,
            xr.ActionCreateInfo(action_name=name, action_type=kind, subaction_paths=hands, localized_action_name=title),
        )

    def _suggest(self, profile: str) -> None:
        suggested = [
            xr.ActionSuggestedBinding(self._actions[action], xr.string_to_path(self._instance, path))
            for action, path in bindings(profile)
        ]
        path = xr.string_to_path(self._instance, f"/interaction_profiles/{profile}")
        try:
            xr.suggest_interaction_profile_bindings(
                self._instance,
                xr.InteractionProfileSuggestedBinding(interaction_profile=path, suggested_bindings=suggested),
            )
        except xr.PathUnsupportedError:
            return  # this runtime does not know the controller, so nobody holds one

    def read(self, stage: xr.Space, time: int) -> dict[HandName, Hand]:
        """Return both hands at `time` [XrTime]; inactive where the session has no input focus."""
        active = [xr.ActiveActionSet(self._set, xr.NULL_PATH)]
        try:
            xr.sync_actions(self._session, xr.ActionsSyncInfo(active_action_sets=active))
        except xr.SessionNotFocused:
            return {hand: Hand() for hand in HANDS}
        return {hand: self._read_hand(hand, stage, time) for hand in HANDS}

    def _read_hand(self, hand: HandName, stage: xr.Space, time: int) -> Hand:
        if not xr.get_action_state_pose(self._session, self._get("grip", hand)).is_active:
            return Hand()
        trigger = float(xr.get_action_state_float(self._session, self._get("trigger", hand)).current_state)
        squeeze = float(xr.get_action_state_float(self._session, self._get("squeeze", hand)).current_state)
        pressed = {name for name in BUTTONS if self._pressed(name, hand)}
        pressed |= {name for name, value in (("trigger", trigger), ("squeeze", squeeze)) if value > PRESSED}
        grip, aim = (self._locate(name, hand, stage, time) for name in ("grip", "aim"))
        return Hand(grip, aim, trigger, squeeze, frozenset(pressed), active=True)

    def _get(self, action: str, hand: HandName) -> xr.ActionStateGetInfo:
        return xr.ActionStateGetInfo(self._actions[action], self._hands[hand])

    def _pressed(self, action: str, hand: HandName) -> bool:
        state = xr.get_action_state_boolean(self._session, self._get(action, hand))
        return bool(state.is_active and state.current_state)

    def _locate(self, action: str, hand: HandName, stage: xr.Space, time: int) -> Transform | None:
        location = xr.locate_space(self._spaces[hand, action], stage, time)
        # Also tracked, not only valid: a pose that the runtime guesses must not move a needle.
        if int(location.location_flags) & TRACKED != TRACKED:
            return None
        return transform_of(location.pose, f"{action}_{hand}")

    def pulse(self, hand: HandName, seconds: float, amplitude: float) -> None:
        """Shake a controller for `seconds` [s] with `amplitude` 0..1."""
        vibration = xr.HapticVibration(
            duration=round(seconds * SECOND),
            frequency=xr.FREQUENCY_UNSPECIFIED,
            amplitude=min(max(amplitude, 0.0), 1.0),
        )
        target = xr.HapticActionInfo(self._actions["haptic"], self._hands[hand])
        xr.apply_haptic_feedback(self._session, target, vibration)
