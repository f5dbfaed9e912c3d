"""One message as it travels: header, extended header, content, metadata. Protocol 3, page "Message Header"."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .fields import crc, decoded, encoded, fixed, ns_from_stamp, stamp_from_ns, text_of
from .geometry import Points, PolyData
from .image import Image, ImageMeta
from .refused import MessageRefused
from .tracking import Position, QuaternionTrackingData, StartTracking, TrackingData, Transform
from .values import LONG, Capability, Command, NumberArray, Query, Reply, SensorData, Status, Text

HEADER = struct.Struct(">H12s20sQQQ")
EXTENDED = struct.Struct(">HHII")
META = struct.Struct(">HHI")


@dataclass(frozen=True)
class Unknown:
    """A message of a type that this room does not know, as bytes: passed on, never guessed at."""

    type_name: str
    data: bytes

    def pack(self) -> bytes:
        """Return the content's bytes."""
        return self.data


Content = (
    Transform
    | Position
    | TrackingData
    | QuaternionTrackingData
    | StartTracking
    | Status
    | Points
    | PolyData
    | Image
    | ImageMeta
    | Text
    | SensorData
    | NumberArray
    | Capability
    | Command
    | Query
    | Reply
    | Unknown
)


@dataclass(frozen=True)
class Header:
    """The 58 bytes before a body; `version` 1 is that of protocols 1 and 2, 2 that of protocol 3."""

    version: int
    type: str
    device: str
    stamp_ns: int
    body_size: int
    crc: int

    @staticmethod
    def unpack(raw: bytes | memoryview) -> Header:
        """Return the header of 58 bytes; nothing is checked."""
        version, kind, device, stamp, size, check = HEADER.unpack(raw)
        return Header(version, text_of(kind), text_of(device), ns_from_stamp(stamp), size, check)


def no_metadata() -> Mapping[str, str]:
    """Return no metadata."""
    return {}


@dataclass(frozen=True)
class Packet:
    """One message: its content, the device that it is about, and the sender's stamp [ns]."""

    content: Content
    device: str = ""
    stamp_ns: int = 0  # 0: the sender gives none
    version: int = 2  # of the header; 1 has neither metadata nor message id
    message_id: int = 0
    metadata: Mapping[str, str] = field(default_factory=no_metadata)

    def pack(self) -> bytes:
        """Return the message's bytes; raise MessageRefused where something does not fit its field."""
        if self.version not in (1, 2):
            raise MessageRefused("a header version of 1 or 2", str(self.version), "V")
        if self.version == 1 and self.metadata:
            raise MessageRefused("no metadata in a version 1 header", f"{list(self.metadata)}", "", "Use version 2.")
        body = self.content.pack()
        if self.version == 2:
            heads, texts = _pack_metadata(self.metadata)
            body = EXTENDED.pack(EXTENDED.size, len(heads), len(texts), self.message_id) + body + heads + texts
        kind, device = fixed(self.content.type_name, 12, "TYPE"), fixed(self.device, 20, "DEVICE_NAME")
        return HEADER.pack(self.version, kind, device, stamp_from_ns(self.stamp_ns), len(body), crc(body)) + body


def unpack(header: Header, body: bytes, limit: int = 1 << 16) -> Packet:
    """Return the message of a header and its body; raise MessageRefused.

    The CRC is checked here too; `limit` bounds the bytes of metadata.
    """
    if len(body) != header.body_size or crc(body) != header.crc:
        raise MessageRefused("a body whose CRC is that of the header", f"{crc(body):#x}", header.type)
    if header.version == 1:
        return Packet(open_content(header.type, body), header.device, header.stamp_ns, 1)
    if len(body) < EXTENDED.size:
        raise MessageRefused("an extended header", f"{len(body)} bytes of body", header.type)
    size, heads, texts, message_id = EXTENDED.unpack_from(body)
    end = len(body) - heads - texts
    if size < EXTENDED.size or end < size or heads + texts > limit:
        got = f"{size} of extended header, {heads} + {texts} of metadata in {len(body)} bytes"
        raise MessageRefused(
            f"an extended header and metadata (at most {limit} bytes) within the body", got, header.type
        )
    metadata = _unpack_metadata(body[end : end + heads], body[end + heads :]) if heads else {}
    return Packet(open_content(header.type, body[size:end]), header.device, header.stamp_ns, 2, message_id, metadata)


def _pack_metadata(metadata: Mapping[str, str]) -> tuple[bytes, bytes]:
    heads, texts = struct.pack(">H", len(metadata)), b""
    for key, value in metadata.items():
        encoding, raw = encoded(value)
        heads += META.pack(len(key.encode()), encoding, len(raw))
        texts += key.encode() + raw
    return heads, texts


def _unpack_metadata(heads: bytes, texts: bytes) -> dict[str, str]:
    count = int.from_bytes(heads[:2], "big")
    if len(heads) < 2 + META.size * count:
        raise MessageRefused(f"{count} entries of metadata", f"{len(heads)} bytes for their heads", "META_HEADER")
    found: dict[str, str] = {}
    at = 0
    for i in range(count):
        key_size, encoding, value_size = META.unpack_from(heads, 2 + META.size * i)
        end = at + key_size + value_size
        if end > len(texts):
            raise MessageRefused("metadata within the message", f"{end} of {len(texts)} bytes", "META_DATA")
        key = texts[at : at + key_size].decode("utf-8", errors="replace")
        found[key] = decoded(encoding, texts[at + key_size : end])
        at = end
    return found


OPENERS: dict[str, Callable[[bytes], Content]] = {
    "TRANSFORM": Transform.unpack,
    "POSITION": Position.unpack,
    "QTRANS": Position.unpack,
    "TDATA": TrackingData.unpack,
    "QTDATA": QuaternionTrackingData.unpack,
    "STT_TDATA": lambda content: StartTracking.unpack_as("TDATA", content),
    "STT_QTDATA": lambda content: StartTracking.unpack_as("QTDATA", content),
    "STATUS": Status.unpack,
    "POINT": Points.unpack,
    "POLYDATA": PolyData.unpack,
    "IMAGE": Image.unpack,
    "IMGMETA": ImageMeta.unpack,
    "STRING": Text.unpack,
    "SENSOR": SensorData.unpack,
    "NDARRAY": NumberArray.unpack,
    "CAPABILITY": Capability.unpack,
    "COMMAND": Command.unpack,
    "RTS_COMMAND": lambda content: Command.unpack(content, answer=True),
}
KNOWN_TYPES = tuple(OPENERS)


def open_content(kind: str, content: bytes) -> Content:
    """Return the content of a type's bytes; an unknown type stays `Unknown`; raise MessageRefused."""
    if (opener := OPENERS.get(kind)) is not None:
        return opener(content)
    do, _, of = kind.partition("_")
    of = LONG.get(of, of)
    if of and do == "RTS":
        return Reply.unpack_as(of, content)
    if of and (do == "GET" or do == "STT" or do == "STP"):
        return Query(do, of)
    return Unknown(kind, content)
