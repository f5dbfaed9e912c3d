"""Find, check and load plugins: entry points for first and third party alike, no list of built-in ones."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from itertools import accumulate, takewhile
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pluggy

from twinguide.bus.catalogue import Catalogue, tag_of
from twinguide.bus.topics import HUB, steps, topics_of
from twinguide.errors import PluginError, TopicRefused, TwinGuideError
from twinguide.hookspecs import ENTRY_POINT_GROUP, Hooks, Organ, Part, Topic
from twinguide.messages import Message

STEPPED = ("publishes", "subscribes", "wakes_on", "rate_hz")  # fields of a part that only its steps make use of
OPEN = frozenset(  # words by which a module may bind what its source does not name
    ("*", "__getattr__", "globals", "locals", "vars", "setattr", "exec", "modules", "__dict__")
)


@dataclass(frozen=True)
class Registry:
    """What the loaded plugins declare."""

    parts: dict[str, Part] = field(default_factory=dict[str, Part])
    plugin_of: dict[str, str] = field(default_factory=dict[str, str])  # part -> plugin
    scenarios: dict[str, Path] = field(default_factory=dict[str, Path])
    commands: dict[str, str] = field(default_factory=dict[str, str])  # name -> "package.module:command"
    refused: dict[str, str] = field(default_factory=dict[str, str])  # plugin -> why it was not loaded
    files: list[Path] = field(default_factory=list[Path])  # one-off plugin files that were loaded

    @staticmethod
    def load(files: Iterable[Path] = (), *, discover: bool = True) -> Registry:
        """Load every installed plugin, and one-off plugin files.

        A broken installed plugin is refused and named in `refused`; a broken file, asked for by name, raises
        PluginError.
        """
        registry = Registry()
        for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda e: e.name) if discover else ():
            try:
                registry._add(entry.name, entry.load())
            except Exception as error:
                registry.refused[entry.name] = f"{type(error).__name__}: {error}"
        for file in files:
            registry._add(file.stem, _import_file(file))
            registry.files.append(file.resolve())
        return registry

    def _add(self, name: str, module: ModuleType) -> None:
        manager = pluggy.PluginManager("twinguide")
        manager.add_hookspecs(Hooks)
        try:
            manager.register(module, name)
            manager.check_pending()  # without it pluggy passes over an unknown hook in silence
        except pluggy.PluginValidationError as error:
            raise PluginError("hooks and arguments of hookspecs.py", str(error), name) from error
        for declared in manager.hook.parts():
            if not isinstance(declared, Iterable):
                raise PluginError("a list of parts", repr(declared), f"plugin {name}: parts()", "Return [...].")
            for part in cast("Iterable[object]", declared):
                self._add_part(name, part)
        for found in manager.hook.scenarios():
            self.scenarios.update(found)
        for found in manager.hook.commands():
            for command, make in found.items():
                if command in self.commands:
                    raise PluginError("a command of its own", f"{command!r}, taken by another", f"plugin {name}")
                self.commands[command] = make

    def _add_part(self, plugin: str, part: object) -> None:
        where = f"plugin {plugin}"
        if not isinstance(part, Part):
            raise PluginError("a Sensor, Guidance or another part", repr(part), f"{where}: parts()")
        if part.name in self.parts:
            raise PluginError("a part name of its own", f"{part.name!r}, taken by {self.plugin_of[part.name]}", where)
        where = f"{where}: part {part.name!r}"
        for short, topic in part.publishes.items():
            if not isinstance(topic, Topic):  # pyright: ignore[reportUnnecessaryIsInstance] - a plugin's mistake
                raise PluginError(f"a Topic as {short!r}", repr(topic), f"{where}: publishes", "Write Topic(Type).")
        try:
            list(topics_of(part.name, part, HUB))
        except TopicRefused as error:
            raise PluginError(error.wanted, error.got, where, error.next_step) from error
        kinds = [topic.message for topic in part.publishes.values()]
        if len(set(kinds)) != len(kinds):
            raise PluginError("one topic for each message type", "one type twice", f"{where}: publishes")
        for kind in (*kinds, *part.subscribes, *part.wakes_on):
            tag_of(kind)
        if steps(part) and not part.rate_hz and not part.wakes_on:
            raise PluginError("a `rate_hz` or `wakes_on`, to be stepped by", "neither", where, "Give the part one.")
        unused = [f"`{f}`" for f in STEPPED if getattr(part, f)]
        if unused and not steps(part):
            wanted = f"nothing that needs steps: this {type(part).__name__} has none"
            raise PluginError(wanted, ", ".join(unused), where, "Leave it out, or declare a Sensor, which is stepped.")
        self.parts[part.name] = part
        self.plugin_of[part.name] = plugin

    def part(self, name: str, where: str = "the scenario") -> Part:
        """Return a declared part; raise PluginError naming those there are."""
        if name not in self.parts:
            refused = "".join(f"; plugin {k} was refused: {v}" for k, v in self.refused.items())
            raise PluginError(
                f"a part called {name!r}", f"{', '.join(sorted(self.parts)) or 'no parts'}{refused}", where,
                "Install its plugin, or correct the name.",
            )  # fmt: skip
        return self.parts[name]

    def organs(self) -> list[Organ]:
        """Return the declared organs."""
        return [part for part in self.parts.values() if isinstance(part, Organ)]

    def catalogue(self) -> Catalogue:
        """Return the core's message types and those of all declared topics."""
        kinds: dict[type[Message], None] = {}
        for part in self.parts.values():
            for kind in (*(t.message for t in part.publishes.values()), *part.subscribes, *part.wakes_on):
                kinds[kind] = None
        return Catalogue(kinds)


def resolve(make: str, where: str = "") -> Any:  # noqa: ANN401 - whatever the plugin's string names
    """Return the object that `"package.module:name"` names; raise PluginError where its module gives none."""
    module, _, name = make.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever a module does when it is imported
        raise PluginError('"package.module:name"', f"{make!r}: {type(error).__name__}: {error}", where) from error


def check_make(make: str, where: str, *, here: bool = True) -> None:
    """Raise PluginError where a `make` string names nothing, as far as can be known without importing its module.

    Where it is not to be imported `here`, by this Python, that is no more than how it is written.
    """
    module, _, name = make.partition(":")
    if not name or (module not in sys.modules and not all(module.split("."))):
        raise PluginError('"package.module:name"', repr(make), where, "Correct it in the plugin's parts().")
    if here and (missing := _missing(module, name)):
        wanted, nearby = missing
        raise PluginError(
            wanted, f"{make!r}; there is {', '.join(nearby) or 'nothing like it'}", where,
            "Correct it in the plugin's parts(), or install what has it.",
        )  # fmt: skip


def _missing(module: str, name: str) -> tuple[str, list[str]] | None:
    """Return what of a `make` string is not there, and what is like it; None where it is, or may be."""
    packages = reversed([*accumulate(module.split("."), "{}.{}".format)])  # a plugin file's module is v1.2, without v1
    absent = [*takewhile(lambda package: package not in sys.modules, packages)]
    if not absent:
        names = dir(sys.modules[module])
        there = hasattr(sys.modules[module], name)
    else:
        first = absent[-1]
        parent, _, last = first.rpartition(".")
        path: Sequence[str] | None = getattr(sys.modules[parent], "__path__", []) if parent else None
        spec = _found(first, path)
        if spec is None:
            return f"a module {first!r}", difflib.get_close_matches(last, [m.name for m in pkgutil.iter_modules(path)])
        names = _written(spec) if first == module else []  # in a package that is not imported may be anything
        there = not names or name in names
    return None if there else (f"{name!r} in {module!r}", difflib.get_close_matches(name, names))


def _found(module: str, path: Sequence[str] | None) -> importlib.machinery.ModuleSpec | None:
    """Return where a module lies, by its parent's `path`; unlike importlib's own, this imports no parent."""
    finders = (getattr(finder, "find_spec", None) for finder in sys.meta_path)
    return next((spec for find in finders if find and (spec := find(module, path))), None)


def _written(spec: importlib.machinery.ModuleSpec) -> list[str]:
    """Return every name and string in a module's source; none where there is no source, or more may come as it runs."""
    try:
        source = cast("importlib.abc.InspectLoader", spec.loader).get_source(spec.name)
        nodes = ast.walk(ast.parse(source or ""))
    except (AttributeError, OSError, ImportError, SyntaxError, ValueError):  # what it is, the import will tell
        return []
    fields = (value for node in nodes for _, value in ast.iter_fields(node))
    names = [name for value in fields if isinstance(value, str) for name in value.split(".")]
    return [] if OPEN & {*names} else names


def made(make: str, *arguments: object, where: str, method: str = "") -> Any:  # noqa: ANN401 - whatever it makes
    """Return what the plugin's `make` gives for its arguments.

    Raises PluginError, with the reason, where it fails, or gives what lacks the `method` that is to be called.
    """
    try:
        given = resolve(make, where)(*arguments)
    except TwinGuideError:
        raise
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
        raise PluginError(f"{make} to work", got, where, "Mend the plugin, or leave it out of the scenario.") from error
    if method and not hasattr(given, method):
        raise PluginError(f"{make} with a method {method!r}", type(given).__name__, where)
    return given


def _import_file(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if not file.is_file() or spec is None or spec.loader is None:
        got = "a folder" if file.is_dir() else "another kind of file" if file.exists() else "nothing"
        raise PluginError("a plugin's Python file", f"{got} there", f"--plugin {file}", "Check the path.")
    known = importlib.machinery.PathFinder.find_spec(file.stem)
    if file.stem in sys.stdlib_module_names or (
        known and known.origin and Path(known.origin).resolve() != file.resolve()
    ):
        raise PluginError("a plugin file of a name of its own", f"{file.stem!r}, a module's", str(file), "Rename it.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # so that `make` strings of the file resolve
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise PluginError("a plugin file that imports", f"{type(error).__name__}: {error}", str(file)) from error
    return module
