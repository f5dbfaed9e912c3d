"""Say what is wrong in tables of keys: which key, where it comes from, which there are, which was meant."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast, get_args, get_origin

import msgspec

PLAIN = {
    "float": "a number",
    "int": "a whole number",
    "bool": "true or false",
    "str": "text",
    "array": "a list",
    "object": "a table",
    "null": "nothing",
}  # msgspec's word -> a person's
KINDS = re.compile("'([a-z |]+)'")
CHOICE = re.compile("Expected '(str|int)( [|] null)?'")  # a value of another type than the choices'


@dataclass(frozen=True)
class Flaw:
    """One key that is wrong: what was wanted, what came, the dotted path, and which key or value was meant."""

    wanted: str
    got: str
    path: str
    next_step: str = ""


@dataclass(frozen=True)
class Origin:
    """Where a scenario's keys come from: a file, and `dotted.key=value` settings of the command line laid over it."""

    file: str = "the scenario"
    settings: tuple[str, ...] = ()

    def of(self, path: str) -> str:
        """Return in words where a dotted key comes from; for a table, with the settings of what is in it."""
        held = list[str]()
        for setting in reversed(self.settings):
            key = setting.partition("=")[0].strip()
            if f"{path}.".startswith(f"{key}."):
                return f"--set {setting}" + (f", {path}" if path != key else "")
            if path and key.startswith(f"{path}."):
                held.insert(0, f"--set {setting}")
        return ", ".join(part for part in (self.file, path, *held) if part)


UNTOLD = Origin()


def flaw_of(value: object, kind: Any, path: str = "") -> Flaw | None:  # noqa: ANN401 - a type
    """Return the innermost flaw of a value that does not fit its type, or None where it fits."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        told = str(error).partition(" - at ")[0].replace("`", "'")
    else:
        return None
    got = repr(value)
    table = cast("dict[str, Any]", value) if isinstance(value, dict) else None
    if table is not None:
        kinds = _keys(kind, table)
        for key in table:
            inner = f"{path}.{key}" if path else key
            if key not in kinds:
                wanted = f"one of the keys {', '.join(kinds)}" if kinds else "no keys"
                return Flaw(wanted, repr(key), inner, _meant(key, kinds))
            if found := flaw_of(table[key], kinds[key], inner):
                return found
    for row, row_kind, inner in _rows(cast(object, value), kind, path):
        if found := flaw_of(row, row_kind, inner):
            return found
    choices = _choices(kind)
    if choices and ("enum" in told or CHOICE.match(told)):
        return Flaw(f"one of {', '.join(choices)}", got, path, _meant(got.strip("'"), choices))
    missing = told.removeprefix("Object missing required field ")
    if missing != told:
        return Flaw(f"the key {missing}", f"only {', '.join(table)}" if table else "no keys", path)
    wanted = _plain(told) if told.startswith("Expected ") else told  # what the Struct's own checks say
    return Flaw(wanted, reprlib.repr(cast(object, value)), path)


def _plain(told: str) -> str:
    """Return what msgspec expected, the words for a type and its bounds, in words for a person."""
    wanted = told.removeprefix("Expected ").partition(", got ")[0]
    wanted = KINDS.sub(lambda found: " or ".join(PLAIN.get(w, w) for w in found[1].split(" | ")), wanted)
    return wanted.removesuffix(".0")


def _keys(kind: Any, table: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401 - a type
    """Return the types of the keys that a table may have; of its own keys where they are free."""
    for one in (kind, *get_args(kind)):  # a table that may be left out is a union
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            return {field.encode_name: field.type for field in msgspec.structs.fields(one)}
        if get_origin(one) is dict:
            return dict.fromkeys(table, get_args(one)[1])
    return dict.fromkeys(table, Any)


def _rows(value: object, kind: Any, path: str) -> Iterator[tuple[object, Any, str]]:  # noqa: ANN401 - a type
    """Yield each table of a list of them, its type, and its path: by its name or, without one, counted from 1."""
    kinds = [get_args(one)[0] for one in (kind, *get_args(kind)) if get_origin(one) is list]
    for number, row in enumerate(cast("list[object]", value) if kinds and isinstance(value, list) else (), 1):
        if isinstance(row, dict):
            yield row, kinds[0], f"{path}.{cast('dict[str, Any]', row).get('name', number)}"


def _choices(kind: Any) -> list[str]:  # noqa: ANN401 - a type
    """Return the words that a type allows, wherever in it they stand."""
    if get_origin(kind) is Literal:
        return [repr(choice) for choice in get_args(kind)]
    inner = get_args(kind)[:1] if get_origin(kind) is Annotated else get_args(kind)
    return [choice for one in inner for choice in _choices(one)]


def _meant(given: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(given, [word.strip("'") for word in known], n=1)
    return f"Did you mean {close[0]!r}?" if close else ""
