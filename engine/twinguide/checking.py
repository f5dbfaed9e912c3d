"""Check what a scenario's keys cannot tell one by one: that parts, tools and settings go together."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from twinguide.errors import ScenarioError
from twinguide.flaws import UNTOLD, Origin
from twinguide.hookspecs import World
from twinguide.hosting.process import clean_environment
from twinguide.messages import Displacement, Exposure, Solution
from twinguide.registry import Registry, check_make
from twinguide.scenario import Scenario, Tool, convert

TIPPED = ("pointer", "needle")
ANSWER_S = 30.0  # of another Python: imports on a cold disk
ROLES_OF = {"controller": TIPPED, "fixed": ("reference",), "calibrate": TIPPED}  # a tool's key -> who may have it


def check(scenario: Scenario, registry: Registry, origin: Origin = UNTOLD) -> None:
    """Raise PluginError for a part nobody declares, ScenarioError for what lacks or does not go together."""
    for name, placement in scenario.parts.items():
        declared = registry.part(name, origin.of(f"parts.{name}"))
        convert(placement.options, declared.options, origin, f"parts.{name}.options")
        where = f"{origin.of(f'parts.{name}')}: plugin {registry.plugin_of[name]}, part {name!r}"
        check_make(declared.make, f"{where}, make", here=not placement.interpreter)
        if isinstance(declared, World) and declared.head:
            check_make(declared.head, f"{where}, head")
        if placement.interpreter:
            _check_interpreter(placement.interpreter, origin.of(f"parts.{name}.interpreter"))
    _check_sources(scenario, registry, origin)
    own = [n for n in scenario.parts if isinstance(part := registry.part(n), World) and part.head]
    if scenario.headset.recorded and own:
        raise ScenarioError("one head", f"a recorded one beside that of {own[0]}", origin.of("headset.recorded"))
    if scenario.registration.known and scenario.mode == "rehearse":
        raise ScenarioError("no registration in a rehearsal, which has no patient", "one", origin.of("registration"))
    for name, tool in scenario.tools.items():
        _check_tool(tool, f"tools.{name}", origin)
    _check_together(scenario.tools, origin)
    roles = [tool.role for tool in scenario.tools.values()]
    wanted = ("needle",) if scenario.mode == "rehearse" else ("reference", "pointer", "needle")
    if any(roles.count(role) != 1 for role in wanted):
        got = ", ".join(f"{name} ({tool.role})" for name, tool in scenario.tools.items()) or "no tools"
        raise ScenarioError(f"one tool each of role {', '.join(wanted)}", got, origin.of("tools"))


def _check_interpreter(interpreter: str, where: str) -> None:
    """Refuse what cannot host a part, before the run waits for it."""
    command = [Path(interpreter).absolute(), "-P", "-c", "import twinguide.hosting.host"]
    try:
        subprocess.run(command, check=True, env=clean_environment(), capture_output=True, timeout=ANSWER_S)
    except (OSError, ValueError, subprocess.SubprocessError) as error:  # not there, no name of a file, no such Python
        stderr: bytes = getattr(error, "stderr", None) or b""
        got = stderr.decode(errors="replace").strip().rpartition("\n")[2] or str(error)
        raise ScenarioError(
            "the path of a Python that has TwinGuide", f"{interpreter!r}: {got}", where,
            "Install TwinGuide there, or leave the key out: the part then runs in the engine's own.",
        ) from error  # fmt: skip


def _check_sources(scenario: Scenario, registry: Registry, origin: Origin) -> None:
    """Refuse two sources of what the twin takes from one: its target would jump between both, tools come and go."""
    for kind, what in ((Exposure, "tracker"), (Displacement, "motion model"), (Solution, "solver")):
        of = [n for n in scenario.parts if any(t.message is kind for t in registry.part(n).publishes.values())]
        if len(of) > 1:
            raise ScenarioError(
                f"one {what} at most, which publishes {kind.__name__}", " and ".join(of), origin.of("parts"),
                "Leave one out; to see tools of two devices as one, let one part read both.",
            )  # fmt: skip


def _check_tool(tool: Tool, path: str, origin: Origin) -> None:
    if tool.role == "headset" and tool.mount is None:
        raise ScenarioError(
            "how the body is fixed to the headset", "neither mount nor calibration", origin.of(path),
            "State [tools.<name>.mount], or name a result of `twinguide calibrate handeye`.",
        )  # fmt: skip
    for key, roles in ROLES_OF.items():
        if getattr(tool, key) and tool.role not in roles:
            raise ScenarioError(
                f"a tool of role {' or '.join(roles)}", f"role {tool.role!r}", origin.of(f"{path}.{key}")
            )


def _check_together(tools: Mapping[str, Tool], origin: Origin) -> None:
    tracked = [name for name, tool in tools.items() if not (tool.fixed or tool.controller)]
    if any(tool.fixed for tool in tools.values()) and tracked:
        raise ScenarioError(
            "controllers alone beside a fixed reference", ", ".join(tracked), origin.of("tools"),
            'Set controller = "left" or "right", or track the reference.',
        )  # fmt: skip
    bodies = [name for name, tool in tools.items() if tool.role == "headset"]
    if len(bodies) > 1:
        raise ScenarioError("one body on the headset at most", ", ".join(bodies), origin.of("tools"))
