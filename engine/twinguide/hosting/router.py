"""Deliver messages among the readers in the loop's process, and between them and the hub; the rules are the hub's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping

from twinguide.bus.catalogue import Catalogue, Header
from twinguide.bus.packets import Outlet, Packet, Refusals, message_from_packet
from twinguide.bus.topics import LOOP, Permissions
from twinguide.hosting.mailbox import Mailbox
from twinguide.messages import Message, Refusal

log = logging.getLogger("twinguide.bus")


class Router:
    """The loop and the parts inside as publishers and readers.

    Messages among them are encoded and decoded too, so that a part gets the same bits wherever it runs. `send` takes
    packets to the hub; `watch` sees every message that reaches the loop, before its mailbox.
    """

    def __init__(
        self,
        permissions: Permissions,
        catalogue: Catalogue,
        mailboxes: Mapping[str, Mailbox],
        send: Callable[[Packet], None],
        watch: Callable[[Header, Message], bool],
    ) -> None:
        self._permissions = permissions
        self._catalogue = catalogue
        self._send = send
        self._watch = watch
        self._mailboxes = dict(mailboxes)
        self._outlets = {name: self._outlet(name) for name in mailboxes}
        self._states: dict[str, Packet] = {}
        self.refusals = Refusals()
        self.denied: dict[tuple[str, str], str] = {}  # (reader, topic) -> why it does not get what it lists
        self._readers: dict[str, list[str]] = {}
        for name in mailboxes:
            for topic in permissions.wanted_by(name):
                if reason := permissions.refusal(name, topic):
                    self.denied[name, topic] = reason
                else:
                    self._readers.setdefault(topic, []).append(name)

    def _outlet(self, name: str) -> Outlet:
        topics = {d.message: d.name for d in self._permissions.published_by(name).values() if d.qos != "sync"}
        return Outlet(name, 1, topics, self._catalogue)

    def asks(self) -> dict[str, list[str]]:
        """Return what each reader here asks of the hub: what nobody here publishes."""
        wanted: dict[str, list[str]] = {name: [] for name in self._mailboxes}
        for topic, readers in self._readers.items():
            if self._permissions.topics[topic].publisher not in self._mailboxes:
                for name in readers:
                    wanted[name].append(topic)
        return wanted

    def emit(self, source: str, message: Message, t_ns: int, round_: int, topic: str = "") -> str:
        """Publish a message of the loop or of a part inside; return its tag, or "" where it is withheld."""
        packet = self._outlets[source].pack(message, t_ns, round_, topic)
        if isinstance(packet, str):
            self.refuse(source, type(message).__name__, packet, t_ns)
            return ""
        declared = self._permissions.topics[packet.topic]
        if declared.qos == "state":
            self._states[packet.topic] = packet
        self._send(packet)
        self.deliver(packet, skip=source)
        return declared.tag

    def deliver(self, packet: Packet, skip: str = "") -> None:
        """Put a packet's message into the mailboxes of those who may see it."""
        readers = [name for name in self._readers.get(packet.topic, ()) if name != skip]
        if not readers:
            return
        message = message_from_packet(packet, self._catalogue)
        if isinstance(message, str):
            self.refuse(packet.header.source, packet.topic, message, packet.header.t_pub_ns)
            return
        for name in readers:
            if name != LOOP or not self._watch(packet.header, message):
                self._mailboxes[name].put(packet.header, message)

    def refuse(self, part: str, topic: str, reason: str, t_ns: int) -> None:
        """Count a refusal, log it, and publish it."""
        refusal = self.refusals.add(part, topic, reason, t_ns)
        if refusal is not None:
            log.warning("%s: %s refused (%d times): %s", part, topic, refusal.count, reason)
            self._publish(refusal)

    def _publish(self, refusal: Refusal) -> None:
        """Publish a refusal, in the name of its part where that is here; the loop does not hear itself."""
        packet = self._outlets.get(refusal.part, self._outlets[LOOP]).pack(refusal, refusal.t_ns)
        if not isinstance(packet, str):
            self._send(packet)
            self.deliver(packet)
            if packet.header.source == LOOP:
                self._watch(packet.header, refusal)

    def say_denied(self, t_ns: int) -> None:
        """Publish, once, what readers here list and do not get."""
        for (name, topic), reason in self.denied.items():
            self.refuse(name, topic, reason, t_ns)

    def states(self) -> Iterable[Packet]:
        """Return the newest packet of each state published here, for a hub that knows none yet."""
        return self._states.values()
