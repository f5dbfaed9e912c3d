"""Write docs/scenario.md, the keys of a scenario, from the structs that read it: `python tools/scenario_page.py`."""

from __future__ import annotations

import inspect
import json
import re
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec

from twinguide import scenario

PAGE = Path(__file__).parents[1] / "docs" / "scenario.md"
TABLES = (
    ("", scenario.Scenario),
    ("[loop]", scenario.LoopSettings),
    ("[headset]", scenario.HeadsetSettings),
    ("[registration]", scenario.RegistrationSettings),
    ("[registration.known]", scenario.Registered),
    ("[tools.NAME]", scenario.Tool),
    ("[tools.NAME.mount]", scenario.Mount),
    ("[parts.NAME]", scenario.Placement),
)
HEAD = """# The keys of a scenario

Written by `tools/scenario_page.py` from `engine/twinguide/scenario.py`: change the keys there. A scenario is a TOML
file; `twinguide run FILE` runs it, and `--set KEY=VALUE`, dotted, lays a value over any key. Unknown keys are refused.
Files and folders that it names are looked for beside it. Which options a part takes, its plugin's README says.
"""


def page() -> str:
    """Return the whole page."""
    return HEAD + "".join(section(title, kind) for title, kind in TABLES)


def section(title: str, kind: type[msgspec.Struct]) -> str:
    """Return one table of keys."""
    lines = [f"\n## {f'`{title}`' if title else 'At the top'}\n", inspect.getdoc(kind) or "", ""]
    lines += ["| key | value | left out | |", "|---|---|---|---|"]
    source = inspect.getsource(kind)
    for field in msgspec.structs.fields(kind):
        told = re.search(rf"^    {field.name}: [^\n]*?  # (.*)$", source, re.MULTILINE)
        meaning = told[1].strip().replace("<", "&lt;") if told else ""
        lines.append(f"| `{field.name}` | {value_of(field.type)} | {left_out(field)} | {meaning} |")
    return "\n".join(lines) + "\n"


def left_out(field: msgspec.structs.FieldInfo) -> str:
    """Return what stands for a key that is left out."""
    default = field.default if field.default is not msgspec.NODEFAULT else None
    if field.required:
        return "refused"
    if default is None or default == "" or isinstance(default, msgspec.Struct):
        return ""
    return f"`{json.dumps(default)}`"


def value_of(kind: Any) -> str:  # noqa: ANN401 - a type
    """Return a type in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        limits = {">": inner[1].gt, ">=": inner[1].ge, "<": inner[1].lt, "<=": inner[1].le}
        told = [f"{sign} {limit:g}" for sign, limit in limits.items() if limit is not None]
        return " ".join([value_of(inner[0]), ", ".join(told)]).strip()
    if origin is Literal:
        return ", ".join(f"`{json.dumps(choice)}`" for choice in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(value_of(one) for one in inner if one is not type(None))
    if origin is tuple:
        several = inner[-1] is Ellipsis
        return ("list of " if several else f"{len(inner)} of ") + re.sub(r"\bnumber\b", "numbers", value_of(inner[0]))
    if origin is dict or (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return "table"
    return {float: "number", int: "whole number", str: "text", bool: "true or false"}[kind]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
