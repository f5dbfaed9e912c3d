"""A ring of array slots in shared memory: one writer that never blocks, readers that notice when they were overtaken.

Each slot has a counter: odd while it is being written, `2 * (version + 1)` when version stands in it (a sequence lock).
A reader copies out and looks at the counter again; a writer that dies leaves an odd counter and the older versions.
The order of plain stores is relied upon, which x86-64 keeps; a copy that was overtaken is dropped, never returned.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from twinguide.errors import BusError
from twinguide.messages import BulkRef

SLOTS = 4
MAGIC = b"TGRING01"
HEAD = 64  # bytes before the first slot, and before each slot's array: one cache line
NAME = re.compile(r"[a-z0-9_-]{1,80}")
READERS_OPEN = 32
_counter = struct.Struct("<Q")
_head = struct.Struct("<8sQQ")  # magic, slots, capacity


class RingWriter:
    """Write arrays into the slots of one file, oldest slot first."""

    def __init__(self, path: Path, capacity: int, slots: int = SLOTS) -> None:
        """Create the file, readable by this user only, with room for arrays of `capacity` bytes."""
        self.name = path.name
        self.slots = slots
        self.capacity = -(-max(capacity, 1) // HEAD) * HEAD
        self._version = 0
        size = HEAD + slots * (HEAD + self.capacity)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)  # a full file system shows here, not by a SIGBUS later
            self._map = mmap.mmap(fd, size)
        finally:
            os.close(fd)
        _head.pack_into(self._map, 0, MAGIC, slots, self.capacity)

    def write(self, values: NDArray[Any]) -> BulkRef:
        """Copy an array into the oldest slot and return where it lies."""
        a = np.asarray(values, order="C")
        if a.dtype.kind not in "biuf" or a.nbytes > self.capacity:
            raise BusError(f"numbers, at most {self.capacity} bytes", f"{a.nbytes} bytes of {a.dtype}", self.name)
        version = self._version
        slot = version % self.slots
        start = HEAD + slot * (HEAD + self.capacity)
        _counter.pack_into(self._map, start, 2 * version + 1)
        target = np.frombuffer(self._map, a.dtype, a.size, start + HEAD).reshape(a.shape)
        target[...] = a
        _counter.pack_into(self._map, start, 2 * version + 2)
        self._version += 1
        return BulkRef(self.name, slot, version, a.dtype.str, a.shape)


class RingReader:
    """Copy arrays out of the rings of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._maps: dict[str, tuple[mmap.mmap, int, int]] = {}  # ring -> map, slots, capacity

    def read(self, ref: BulkRef) -> NDArray[Any] | None:
        """Return a copy of the array, or None where it was overwritten or its ring is gone.

        Raise BusError where the reference itself is impossible.
        """
        ring = self._open(ref.ring)
        if ring is None:
            return None
        memory, slots, capacity = ring
        try:
            dtype = np.dtype(ref.dtype)
        except (TypeError, ValueError, SyntaxError) as error:
            raise BusError("a numeric dtype", repr(ref.dtype), ref.ring) from error
        count = prod(ref.shape)
        fits = dtype.kind in "biuf" and min(ref.shape, default=0) >= 0 and count * dtype.itemsize <= capacity
        if not fits or not 0 <= ref.slot < slots:
            raise BusError(f"slot < {slots}, <= {capacity} bytes", f"slot {ref.slot}, {ref.shape} {dtype}", ref.ring)
        start = HEAD + ref.slot * (HEAD + capacity)
        stamp = 2 * ref.version + 2
        if _counter.unpack_from(memory, start)[0] != stamp:
            return None
        try:
            copy = np.frombuffer(memory, dtype, count, start + HEAD).reshape(ref.shape).copy()
        except (ValueError, OverflowError) as error:  # nothing, of a shape that no array has
            raise BusError("an array's shape", str(ref.shape), ref.ring) from error
        return copy if _counter.unpack_from(memory, start)[0] == stamp else None

    def _open(self, name: str) -> tuple[mmap.mmap, int, int] | None:
        if name in self._maps:
            return self._maps[name]
        if not NAME.fullmatch(name):
            raise BusError(f"a ring name that matches {NAME.pattern}", repr(name))
        try:
            fd = os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            memory = mmap.mmap(fd, 0, prot=mmap.PROT_READ)
            magic, slots, capacity = _head.unpack_from(memory, 0)
        except (OSError, ValueError, struct.error) as error:  # a folder; nothing in it; less than a head
            raise BusError("a ring", f"a file of another kind: {error}", str(self._folder / name)) from error
        finally:
            os.close(fd)
        if magic != MAGIC or len(memory) != HEAD + slots * (HEAD + capacity):
            raise BusError("a ring", "a file of another kind", str(self._folder / name))
        if len(self._maps) >= READERS_OPEN:  # rings of a part's earlier processes
            del self._maps[next(iter(self._maps))]
        self._maps[name] = (memory, slots, capacity)
        return self._maps[name]


class RingShelf:
    """The rings that one part writes, made when first used and replaced by one half as large again for larger arrays.

    The file of a replaced ring is removed: a reader that has it open can still read it, to others it is overwritten.
    """

    def __init__(self, folder: Path, part: str, boot: int) -> None:
        self._folder = folder
        self._stem = f"{part}-{boot}"
        self._writers: dict[str, RingWriter] = {}
        self._made = 0

    def write(self, ring: str, values: NDArray[Any]) -> BulkRef:
        """Copy an array into a ring, by the part's own name for it."""
        writer = self._writers.get(ring)
        if writer is None or values.nbytes > writer.capacity:
            self._made += 1
            self._folder.mkdir(mode=0o700, exist_ok=True)
            capacity = max(values.nbytes, writer.capacity * 3 // 2 if writer else 0)
            larger = RingWriter(self._folder / f"{self._stem}-{ring}-{self._made}", capacity)
            if writer:
                (self._folder / writer.name).unlink(missing_ok=True)
            self._writers[ring] = writer = larger
        return writer.write(values)
