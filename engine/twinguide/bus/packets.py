"""Packets: a topic, a header and a payload; made and checked at the two ends of the bus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from twinguide.bus.catalogue import Catalogue, Header
from twinguide.bus.finite import first_flaw
from twinguide.errors import BusError
from twinguide.messages import Message, Refusal

PAYLOAD_LIMIT = 16 * 2**20  # bytes; larger arrays go through a ring
HEADER_LIMIT = 2**16  # bytes
END = b"\0"  # ends a topic on the wire, so that a subscription by prefix means one topic exactly

_encode_header = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(Header).decode


@dataclass(frozen=True, slots=True)
class Packet:
    """One message as it travels."""

    topic: str
    header: Header
    payload: bytes


def frames_from_packet(packet: Packet) -> list[bytes]:
    """Return the wire frames of a packet: topic, header, payload."""
    return [packet.topic.encode() + END, _encode_header(packet.header), packet.payload]


def header_from_frame(frame: bytes) -> Header:
    """Return a header; raise BusError where it is too long or malformed."""
    if len(frame) > HEADER_LIMIT:
        raise BusError(f"a header of at most {HEADER_LIMIT} bytes", f"{len(frame)} bytes")
    try:
        return _decode_header(frame)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BusError("a valid header", str(error)) from error


def packet_from_frames(frames: list[bytes]) -> Packet:
    """Return the packet in three wire frames; raise BusError where they are none."""
    if len(frames) != 3:
        raise BusError("frames topic, header, payload", f"{len(frames)} frames")
    topic, header, payload = frames
    return Packet(topic.removesuffix(END).decode("ascii", "replace"), header_from_frame(header), payload)


class Refusals:
    """Count what was refused, by topic, and say when it is worth a message: the 1st, 2nd, 4th, 8th ... time."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str]] = Counter()

    def add(self, part: str, topic: str, reason: str, t_ns: int) -> Refusal | None:
        """Count one refusal; return a message about it unless the same was said a short while ago."""
        self.counts[part, topic] += 1
        count = self.counts[part, topic]
        return None if count & (count - 1) else Refusal(part=part, topic=topic, reason=reason, count=count, t_ns=t_ns)


class Outlet:
    """Make packets of one source's messages; withhold what is undeclared, unusable or too large."""

    def __init__(self, source: str, boot: int, topics: Mapping[type[Message], str], catalogue: Catalogue) -> None:
        self.source = source
        self.boot = boot
        self._topics = dict(topics)
        self._catalogue = catalogue
        self._seq = 0

    def pack(self, message: Message, t_pub_ns: int, round_: int = 0, topic: str = "") -> Packet | str:
        """Return a packet, or the reason why the message is withheld.

        `topic` stands in for the declared one where a type has many, as the marks of lockstep do.
        """
        kind = type(message)
        name = topic or self._topics.get(kind, "")
        if not name:
            return f"{self.source} does not declare {kind.__name__} in `publishes`"
        if flaw := first_flaw(message):
            return f"{kind.__name__} withheld: {flaw}"
        try:
            payload = self._catalogue.encode(message)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            return f"{kind.__name__} cannot be encoded: {error}"
        if len(payload) > PAYLOAD_LIMIT:
            return f"{kind.__name__} of {len(payload)} bytes exceeds {PAYLOAD_LIMIT}: share large arrays through a ring"
        seq = 0
        if not name.startswith("sync/"):  # marks are not recorded: they must not look like gaps
            self._seq = seq = self._seq + 1
        tag = str(kind.__struct_config__.tag)
        return Packet(name, Header(tag, self.source, self.boot, seq, t_pub_ns, round_), payload)


def message_from_packet(packet: Packet, catalogue: Catalogue) -> Message | str:
    """Return the message in a packet, or the reason why it cannot be used."""
    try:
        message = catalogue.decode(packet.header.tag, packet.payload)
    except BusError as error:
        return str(error)
    return first_flaw(message) or message
