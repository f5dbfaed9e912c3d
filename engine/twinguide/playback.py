"""Play a recording back: every message that stands in a session's files, whether they are whole, torn or damaged."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap.records import Channel, Chunk, Metadata
from mcap.records import Message as McapMessage
from mcap.stream_reader import MAGIC_SIZE, StreamReader, breakup_chunk
from mcap.writer import MCAP0_MAGIC

from twinguide.bus.catalogue import Catalogue
from twinguide.errors import BusError, RecordingError
from twinguide.messages import Message
from twinguide.recording import RUN_METADATA, BulkCopy, segments

# whatever the disk, lz4, the MCAP reader and its field decoders raise on bytes that are not what they say
TORN = (
    McapError,
    struct.error,
    RuntimeError,
    ValueError,
    EOFError,
    LookupError,
    TypeError,
    MemoryError,
    ArithmeticError,
    OSError,
)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded message: a Message where its type is known and fits, else its fields, else its bytes."""

    topic: str
    tag: str
    source: str
    boot: int
    seq: int
    round: int
    t_pub_ns: int
    message: Message | dict[str, Any] | bytes


class Recording:
    """Iterate over a session's messages in the order of their arrival, whole or torn.

    `metadata` and `damage` (what could not be read, and where) are complete when the iteration ends. Raises
    RecordingError where the folder holds no recording.
    """

    def __init__(self, folder: Path, catalogue: Catalogue | None = None) -> None:
        self.segments = segments(folder)
        self.metadata: dict[str, Any] = {}
        self.damage: list[str] = []
        self._catalogue = Catalogue([*(catalogue.types.values() if catalogue else ()), BulkCopy])
        if not self.segments:
            raise RecordingError("session.mcap", "no such file", str(folder), "Give the folder that a run has written.")

    def __iter__(self) -> Iterator[Recorded]:
        foreign: list[str] = []
        for path in self.segments:
            with path.open("rb") as file:
                magic = file.read(MAGIC_SIZE)
            if magic == MCAP0_MAGIC:
                yield from self._segment(path)
            else:
                foreign.append(f"{path.name}: {'an empty file' if not magic else 'no MCAP file'}")
        self.damage += foreign
        if len(foreign) == len(self.segments):
            raise RecordingError("an MCAP recording", ", ".join(foreign), str(self.segments[0].parent))

    def _segment(self, path: Path) -> Iterator[Recorded]:
        channels = _indexed_channels(path)
        with path.open("rb") as file:
            reader = StreamReader(file, emit_chunks=True, record_size_limit=path.stat().st_size)
            records = reader.records
            while True:
                try:
                    record = next(records, None)
                except TORN as error:
                    self.damage.append(f"{path.name}: torn at byte {file.tell()} ({type(error).__name__})")
                    return
                if record is None:
                    return
                if isinstance(record, Metadata):
                    self._note(record)
                elif isinstance(record, Chunk):
                    yield from self._chunk(record, channels, f"{path.name}: chunk before byte {file.tell()}")

    def _note(self, record: Metadata) -> None:
        if record.name != RUN_METADATA:
            return
        try:
            self.metadata.update({key: json.loads(value) for key, value in record.metadata.items()})
        except ValueError as error:
            self.damage.append(f"metadata {RUN_METADATA} unreadable ({error})")

    def _chunk(self, chunk: Chunk, channels: dict[int, Channel], where: str) -> Iterator[Recorded]:
        try:
            records = breakup_chunk(chunk, validate_crc=True)
        except TORN as error:
            self.damage.append(f"{where} unreadable ({type(error).__name__})")
            return
        for record in records:
            if isinstance(record, Channel):
                channels[record.id] = record
            elif isinstance(record, McapMessage):
                channel = channels.get(record.channel_id)
                if channel is None:
                    self.damage.append(f"{where}: a message of a channel that was lost")
                else:
                    yield self._recorded(channel, record)

    def _recorded(self, channel: Channel, record: McapMessage) -> Recorded:
        about, number = channel.metadata, record.publish_time - record.log_time
        message = self._decode(about.get("tag", ""), record.data)
        boot = int(about.get("boot", "0"))
        source = about.get("source", "")
        tag = about.get("tag", "")
        return Recorded(channel.topic, tag, source, boot, record.sequence, number, record.log_time, message)

    def _decode(self, tag: str, payload: bytes) -> Message | dict[str, Any] | bytes:
        try:
            return self._catalogue.decode(tag, payload)
        except BusError:
            pass
        try:
            fields = msgspec.msgpack.decode(payload)
        except (msgspec.DecodeError, RecursionError):
            return payload
        return cast(dict[str, Any], fields) if isinstance(fields, dict) else payload


def _indexed_channels(path: Path) -> dict[int, Channel]:
    """Return the channels that a finished file repeats at its end, so that one damaged chunk does not hide them."""
    try:
        with path.open("rb") as file:
            summary = make_reader(file).get_summary()
    except TORN:
        return {}
    return dict(summary.channels) if summary else {}


def read(folder: Path | str, catalogue: Catalogue | None = None) -> Iterator[Recorded]:
    """Return a session's messages; `catalogue` brings the plugins' types. Raises RecordingError."""
    return iter(Recording(Path(folder), catalogue))
