"""What a packet's header tells, and the message types that a run knows by their tags."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from twinguide.errors import BusError, PluginError
from twinguide.messages import Message


class Header(msgspec.Struct, frozen=True, array_like=True):
    """The second frame of a packet: who sent it, of which start of its process, in which order."""

    tag: str
    source: str
    boot: int
    seq: int
    t_pub_ns: int
    round: int = 0  # lockstep: a step sees only smaller rounds


class Catalogue:
    """The message types of one run: the core's and those that declared topics bring."""

    def __init__(self, types: Iterable[type[Message]] = ()) -> None:
        self._decoders: dict[str, msgspec.msgpack.Decoder[Message]] = {}
        self.types: dict[str, type[Message]] = {}
        core = [kind for kind in Message.__subclasses__() if kind.__module__ == Message.__module__]
        for kind in (*core, *types):
            self.add(kind)
        self._encoder = msgspec.msgpack.Encoder()

    def add(self, kind: type[Message]) -> None:
        """Add a type; raise PluginError where its tag is taken by another."""
        tag = tag_of(kind)
        if self.types.setdefault(tag, kind) is not kind:
            raise PluginError(f"one message type for the tag {tag!r}", f"{self.types[tag]} and {kind}")
        self._decoders[tag] = msgspec.msgpack.Decoder(kind)

    def encode(self, message: Message) -> bytes:
        """Return the MessagePack bytes of a message."""
        return self._encoder.encode(message)

    def decode(self, tag: str, payload: bytes) -> Message:
        """Return the message; raise BusError where the tag is unknown or a field does not fit, naming its path."""
        decoder = self._decoders.get(tag)
        if decoder is None:
            raise BusError("a declared message type", f"tag {tag!r}", next_step="Declare it on a topic of the plugin.")
        try:
            return decoder.decode(payload)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:  # ValueError: text that is not UTF-8
            raise BusError(f"a valid {tag}", str(error)) from error

    def schema(self, tag: str) -> dict[str, Any]:
        """Return the JSON schema of a message type, for the recording."""
        return msgspec.json.schema(self.types[tag])


def tag_of(kind: type[Message]) -> str:
    """Return the tag of a message type; raise PluginError where it has none of its own."""
    tag = kind.__struct_config__.tag
    if not isinstance(tag, str) or "/" not in tag:
        raise PluginError('a message tagged "owner.name/major"', repr(tag), kind.__qualname__)
    return tag
