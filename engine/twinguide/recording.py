"""The recording: every message of a run in MCAP segments that outlive a kill, a full disk and a torn tail.

One channel stands for (topic, source, boot, tag); its schema is the message type's JSON schema, its metadata the rest.
`log_time` is the publication [ns of the run's clock], `sequence` the source's own counter. In lockstep time stands
still within a round, so `publish_time` is `log_time` plus the round's number: it orders what one instant published, is
off by milliseconds at most, and gives the round back exactly. `playback.py` reads it.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, cast

from mcap.data_stream import RecordBuilder
from mcap.records import DataEnd, Footer, Metadata
from mcap.writer import MCAP0_MAGIC, CompressionType, Writer
from numpy.typing import NDArray

from twinguide.bus.catalogue import Catalogue, Header
from twinguide.clock import SECOND
from twinguide.errors import RecordingError
from twinguide.messages import Array, BulkRef, Message

SYNC_S = 0.25  # at most this much is lost to a kill -9 or a power cut
CHUNK_BYTES = 64 * 1024
RESERVE_BYTES = 4 * 1024 * 1024  # freed when the disk is full: room for the recording's end, summary and report
RUN_METADATA = "twinguide.run"
BROKEN_OFF = "recording_broken_off"  # of the run's metadata: why its recording could not go on
NO_SCHEMA = 0  # as MCAP has it
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class BulkCopy(Message, frozen=True, tag="twinguide.bulk_copy/1"):
    """A copy of a shared array as recorded, at a lower rate than it was published."""

    ref: BulkRef
    values: Array


class Recorder:
    """Write every packet of a run into `folder`; afterwards never raise: a failure is told in `failed`.

    A folder that already holds segments is continued in the next one (`session-2.mcap`). Raises RecordingError where
    the folder cannot be made.
    """

    def __init__(self, folder: Path, catalogue: Catalogue, bulk_hz: float = 2.0) -> None:
        self.failed = ""  # why nothing is written any more
        self.written = 0
        self.withheld = 0  # messages not written: after a failure, or with times that no file can hold
        self.drops: dict[str, int] = {}  # source -> messages that the sequence says never came
        self._catalogue = catalogue
        self._bulk_period_ns = round(SECOND / bulk_hz)
        self._channels: dict[tuple[str, str, int, str], int] = {}
        self._schemas: dict[str, int] = {}
        self._newest: dict[str, tuple[int, int]] = {}
        self._bulk_ns: dict[str, int] = {}
        self._synced_s = time.monotonic()
        self._closed = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.path = _next_segment(folder)
            self._file = _WholeRecords(self.path)
        except OSError as error:
            raise RecordingError("a folder to record into", str(error), str(folder), "Choose another.") from error
        self._reserve = _reserve(folder / ".reserve")
        self._writer = Writer(cast(IO[Any], self._file), CHUNK_BYTES, CompressionType.LZ4)
        self._try(self._writer.start, "twinguide", "twinguide")

    def write(self, topic: str, header: Header, payload: bytes) -> None:
        """Record one packet; the payload is kept as it came, whether its type is known or not."""
        self._count_gap(header)
        self.withheld += not self._try(self._append, topic, header, payload)

    def bulk_due(self, topic: str, t_pub_ns: int) -> bool:
        """Tell whether `write_bulk` would keep an array of this topic published at `t_pub_ns` [ns]."""
        newest = self._bulk_ns.get(topic)  # of one message all arrays are kept: they belong together
        return newest is None or t_pub_ns == newest or t_pub_ns - newest >= self._bulk_period_ns

    def write_bulk(self, topic: str, header: Header, ref: BulkRef, values: NDArray[Any]) -> None:
        """Record a copy of a shared array under `<topic>/values`, at most `bulk_hz` times a second."""
        if self.bulk_due(topic, header.t_pub_ns):
            self._bulk_ns[topic] = header.t_pub_ns
            copy = BulkCopy(t_ns=header.t_pub_ns, ref=ref, values=Array.of(values, values.dtype.str))
            tag = str(BulkCopy.__struct_config__.tag)
            told = Header(tag, header.source, header.boot, header.seq, header.t_pub_ns, header.round)
            self.withheld += not self._try(self._append, f"{topic}/values", told, self._catalogue.encode(copy))

    def metadata(self, values: Mapping[str, Any]) -> None:
        """Record facts of the run (seed, scenario, plugins ...); values are whatever JSON can tell."""
        told = {key: json.dumps(value, sort_keys=True) for key, value in values.items()}
        self._try(self._writer.add_metadata, RUN_METADATA, told)

    def tick(self) -> None:
        """Bring what was written safely to the disk, each 0.25 s; call it often."""
        if time.monotonic() - self._synced_s >= SYNC_S:
            self._try(self._sync)

    def close(self) -> None:
        """Finish the segment: index, footer, sync. A second call does nothing."""
        self._try(self._writer.finish)
        self._try(self._file.sync)
        self._end()

    def _append(self, topic: str, header: Header, payload: bytes) -> None:
        if header.t_pub_ns < 0 or header.round < 0 or header.t_pub_ns + header.round >= 1 << 63:
            raise OverflowError(f"publication at {header.t_pub_ns} ns in round {header.round}")
        key = (topic, header.source, header.boot, header.tag)
        channel = self._channels.get(key)
        if channel is None:
            about = {"tag": header.tag, "source": header.source, "boot": str(header.boot)}
            channel = self._writer.register_channel(topic, "msgpack", self._schema(header.tag), about)
            self._channels[key] = channel
        published_ns = header.t_pub_ns + header.round
        self._writer.add_message(channel, header.t_pub_ns, payload, published_ns, header.seq & 0xFFFFFFFF)
        self.written += 1

    def _schema(self, tag: str) -> int:
        if tag not in self._schemas and tag in self._catalogue.types:
            try:
                schema = json.dumps(self._catalogue.schema(tag)).encode()
            except TypeError:  # a field that JSON cannot tell, as keys that are no text
                return self._schemas.setdefault(tag, NO_SCHEMA)
            self._schemas[tag] = self._writer.register_schema(tag, "jsonschema", schema)
        return self._schemas.get(tag, NO_SCHEMA)

    def _count_gap(self, header: Header) -> None:
        boot, newest = self._newest.get(header.source, (header.boot, header.seq - 1))
        if boot == header.boot and header.seq > newest + 1:
            self.drops[header.source] = self.drops.get(header.source, 0) + header.seq - newest - 1
        self._newest[header.source] = (header.boot, header.seq)

    def _sync(self) -> None:
        self._writer.flush()
        self._file.sync()
        self._synced_s = time.monotonic()

    def _try(self, action: Callable[..., object], *arguments: object) -> bool:
        """Do one thing with the file; tell whether it was done."""
        if self._closed:
            return False
        try:
            action(*arguments)
        except OverflowError:
            return False  # a time that no file can hold costs its message, not the recording
        except OSError as error:
            what = "disk full" if error.errno in FULL else "cannot write"
            self.failed = f"{what}, nothing more is recorded: {error.strerror or error} ({self.path.name})"
            self._end()
            return False
        return True

    def _end(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._reserve is not None:
            self._reserve.unlink(missing_ok=True)
        if self.failed:
            self._file.end_early({BROKEN_OFF: json.dumps(self.failed)})
        self._file.close()


class _WholeRecords:
    """A file that takes whole records or none: a write that fails is cut off, so the file ends on a record."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        self._size = 0

    def write(self, data: bytes) -> int:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]  # an unbuffered write may be short
        except OSError:
            self._file.truncate(self._size)
            self._file.seek(self._size)
            raise
        self._size += len(data)
        return len(data)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None:
        """Do nothing: nothing is buffered here. MCAP's writer asks for it."""

    def sync(self) -> None:
        os.fsync(self._file.fileno())

    def end_early(self, why: dict[str, str]) -> None:
        """Write metadata and an end without an index, so that any MCAP reader takes the file.

        Where even that fails, `read` takes it.
        """
        builder = RecordBuilder()
        Metadata(RUN_METADATA, why).write(builder)
        DataEnd(0).write(builder)
        Footer(summary_start=0, summary_offset_start=0, summary_crc=0).write(builder)
        try:
            self.write(builder.end() + MCAP0_MAGIC)
            self.sync()
        except OSError:
            return  # the file ends on a whole record, which `read` accepts

    def close(self) -> None:
        self._file.close()


def segments(folder: Path) -> list[Path]:
    """Return the segments of a session folder, oldest first."""
    numbered = {1: folder / "session.mcap"}
    for path in folder.glob("session-*.mcap"):
        number = path.stem.removeprefix("session-")
        if number.isdecimal():
            numbered[int(number)] = path
    return [numbered[number] for number in sorted(numbered) if numbered[number].is_file()]


def _next_segment(folder: Path) -> Path:
    taken = segments(folder)
    if not taken:
        return folder / "session.mcap"
    last = taken[-1].stem.removeprefix("session").removeprefix("-")
    return folder / f"session-{int(last or 1) + 1}.mcap"


def _reserve(path: Path) -> Path | None:
    """Set disk space aside; None where the disk has not even that."""
    try:
        with path.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
    except OSError:
        path.unlink(missing_ok=True)
        return None
    return path
