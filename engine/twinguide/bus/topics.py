"""Topics of one run, and who may publish and see them: pure rules, the same in the hub and in a run without one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from twinguide.bus.catalogue import tag_of
from twinguide.errors import TopicRefused
from twinguide.hookspecs import Guidance, Organ, Overlay, Part, Sensor, Topic, World
from twinguide.messages import (
    Ack,
    Act,
    Attempt,
    Command,
    DoneMark,
    Health,
    Message,
    PartState,
    Picture,
    Refusal,
    Registration,
    RunEnd,
    Shown,
    StepMark,
    WorkflowState,
)

LOOP, HUB, RECORDER = "loop", "hub", "recorder"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")

# What the loop itself publishes, by the topic's whole name.
LOOP_TOPICS: Mapping[str, Topic] = {
    "v1/shown/frame": Topic(Shown),
    "v1/state/loop/registration": Topic(Registration, qos="state"),
    "v1/state/loop/workflow": Topic(WorkflowState, qos="state"),
    "v1/state/loop/end": Topic(RunEnd, qos="state"),
    "v1/command/loop/ack": Topic(Ack, qos="command"),
    "v1/command/loop/command": Topic(Command, qos="command"),
    "v1/command/loop/act": Topic(Act, qos="command"),
    "v1/stream/loop/picture": Topic(Picture),
    "v1/stream/loop/attempt": Topic(Attempt),
}


@dataclass(frozen=True)
class Declared:
    """One topic of a run: its name, the client that publishes it, its type and class of delivery."""

    name: str
    publisher: str
    message: type[Message]
    qos: str
    seen_by: str = ""  # only this client, where it is not open

    @property
    def tag(self) -> str:
        """The tag of the topic's message type."""
        return tag_of(self.message)


def topic_name(qos: str, part: str, name: str) -> str:
    """Return `v1/<qos>/<part>/<name>`."""
    return f"v1/{qos}/{part}/{name}"


def steps(part: Part) -> bool:
    """Tell whether a part is stepped by a host; the others are called by the loop, or only declare."""
    return not isinstance(part, (Guidance, Overlay, Organ))


class Permissions:
    """Who may publish and who may see which topic in one run."""

    def __init__(self, parts: Mapping[str, Part], inside: Collection[str] = (), *, records: bool = False) -> None:
        self.parts = dict(parts)
        self.remote = [name for name, part in parts.items() if steps(part) and name not in inside]
        if records:
            self.remote.append(RECORDER)
        self.topics: dict[str, Declared] = {}
        for name, topic in LOOP_TOPICS.items():
            self._add(Declared(name, LOOP, topic.message, topic.qos))
        for name, part in parts.items():
            for declared in topics_of(name, part, LOOP if name in inside else HUB):
                self._add(declared)
        for name in self.remote:
            self._add(Declared(f"sync/{LOOP}/{name}", LOOP, StepMark, "sync", name))
            self._add(Declared(f"sync/{name}/done", name, DoneMark, "sync", LOOP))
        for name in (LOOP, RECORDER):
            self._add(Declared(topic_name("state", name, "part"), HUB, PartState, "state"))
            self._add(Declared(topic_name("health", name, "health"), name, Health, "health"))
            self._add(Declared(topic_name("health", name, "refusal"), name, Refusal, "health"))
        self._add(Declared(topic_name("health", HUB, "refusal"), HUB, Refusal, "health"))

    def _add(self, declared: Declared) -> None:
        if declared.name in self.topics:
            raise TopicRefused("one publisher for each topic", f"{declared.name!r} declared twice")
        self.topics[declared.name] = declared

    def published_by(self, client: str) -> dict[str, Declared]:
        """Return the topics that a client may publish, by name."""
        return {name: topic for name, topic in self.topics.items() if topic.publisher == client}

    def wanted_by(self, client: str) -> list[str]:
        """Return the topics that a client asks for: those of the types it lists; for the loop all that it may see.

        Nobody hears itself. A part that lists a type it may not see asks all the same, so that the refusal is said.
        """
        if client == RECORDER:
            return ["*", f"sync/{LOOP}/{RECORDER}"]
        if client == LOOP:
            return [t.name for t in self.topics.values() if t.publisher != LOOP and not self.refusal(LOOP, t.name)]
        kinds = _wanted_types(self.parts[client])
        topics = [t for t in self.topics.values() if t.publisher != client]
        return [t.name for t in topics if t.seen_by == client or (not t.seen_by and t.message in kinds)]

    def refusal(self, client: str, topic: str) -> str:
        """Return why a client may not see a topic, or an empty string where it may."""
        if client == RECORDER and topic == "*":
            return ""
        declared = self.topics.get(topic)
        if declared is None:
            return "no part of this run declares it"
        if declared.seen_by:
            return "" if declared.seen_by == client else f"it is for {declared.seen_by} only"
        if client == RECORDER:
            return ""
        if declared.qos == "truth":
            return "truth goes to the recorder and the scorer only"
        part = self.parts.get(client)
        if declared.qos == "world":
            allowed = isinstance(part, Sensor) and declared.message in part.observes
            return "" if allowed else "the world is seen only by sensors that observe this type"
        if client == LOOP:
            return ""
        if part is None or declared.message not in _wanted_types(part):
            return "the part does not list its type"
        return ""

    def woken_by(self, names: Iterable[str]) -> dict[tuple[str, str], tuple[str, ...]]:
        """Return which of the named parts each (source, tag) wakes."""
        wakes: dict[tuple[str, str], tuple[str, ...]] = {}
        for name in names:
            kinds = self.parts[name].wakes_on
            for topic in self.topics.values():
                if topic.message in kinds and topic.publisher != name and not self.refusal(name, topic.name):
                    key = (topic.publisher, topic.tag)
                    wakes[key] = (*wakes.get(key, ()), name)
        return wakes


def _wanted_types(part: Part) -> set[type[Message]]:
    observed = part.observes if isinstance(part, Sensor) else ()
    return {*part.subscribes, *part.wakes_on, *observed}


def topics_of(name: str, part: Part, state_publisher: str) -> Iterable[Declared]:
    """Yield the topics that a part brings; raise TopicRefused where a name or a class of delivery is none."""
    if not NAME.fullmatch(name) or name in (LOOP, HUB, RECORDER):
        raise TopicRefused(f"a part name that matches {NAME.pattern} and is not reserved", repr(name))
    for short, topic in part.publishes.items():
        if not NAME.fullmatch(short):
            raise TopicRefused(f"a topic name that matches {NAME.pattern}", repr(short), f"part {name}")
        if topic.qos in ("world", "truth") and not isinstance(part, World):
            raise TopicRefused(f"only a World publishing {topic.qos}", type(part).__name__, f"part {name}")
        yield Declared(topic_name(topic.qos, name, short), name, topic.message, topic.qos)
    yield Declared(topic_name("state", name, "part"), state_publisher, PartState, "state")
    yield Declared(topic_name("health", name, "health"), name, Health, "health")
    yield Declared(topic_name("health", name, "refusal"), name, Refusal, "health")
