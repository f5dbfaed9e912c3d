"""What a part's constructor is given, the same inside and in a process."""

from __future__ import annotations

import logging
import zlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinguide.bus.ring import RingReader, RingShelf
from twinguide.clock import MS, ClockMapping
from twinguide.errors import CaseError, PluginError
from twinguide.flaws import flaw_of
from twinguide.hookspecs import Part
from twinguide.hosting.plan import PartPlan, RunPlan, rings_folder
from twinguide.messages import BulkRef

if TYPE_CHECKING:
    from twinguide.case import Case


class PartContext:
    """The `Context` of hookspecs.py."""

    def __init__(self, plan: RunPlan, part: Part, folder: Path, boot: int = 1) -> None:
        """Check the options; raise PluginError where they do not fit the part's declaration."""
        self.name = part.name
        self.seed = plan.seed
        self.real_time = plan.clock == "real"
        self.options = options_of(plan.part(part.name), part)
        self.log = logging.getLogger(f"twinguide.part.{part.name}")
        self._case_folder = plan.case_folder
        self._reader = RingReader(rings_folder(folder))
        self._shelf = RingShelf(rings_folder(folder), part.name, boot)

    @cached_property
    def case(self) -> Case:
        """The case of this run, read when first asked for; raise CaseError where the run has none."""
        if not self._case_folder:
            raise CaseError("a case", "a run without one", f"part {self.name}", "Name a case in the scenario.")
        from twinguide.case import Case  # most parts never ask for it

        return Case.load(Path(self._case_folder))

    def rng(self, stream: str = "") -> np.random.Generator:
        """Return a generator seeded by the run's seed, the part's name and `stream`."""
        words = [self.seed & 0xFFFFFFFF, self.seed >> 32 & 0xFFFFFFFF]
        return np.random.default_rng([*words, zlib.crc32(self.name.encode()), zlib.crc32(stream.encode())])

    def device_clock(self, latency_ms: float = 0.0, sigma_ms: float = 0.0) -> ClockMapping:
        """Return a mapping from a device's clock to the host's."""
        return ClockMapping(round(latency_ms * MS), round(sigma_ms * MS))

    def share(self, ring: str, values: NDArray[Any]) -> BulkRef:
        """Write an array [any unit, any shape] into the part's shared-memory ring and return where it lies."""
        return self._shelf.write(ring, values)

    def bulk(self, ref: BulkRef) -> NDArray[Any] | None:
        """Return a copy of a shared array, or None where it has been overwritten."""
        return self._reader.read(ref)


def options_of(plan: PartPlan, part: Part) -> msgspec.Struct:
    """Return a part's options as its own Struct; raise PluginError naming the key that does not fit."""
    if flaw := flaw_of(plan.options, part.options, f"parts.{part.name}.options"):
        raise PluginError(flaw.wanted, flaw.got, flaw.path, flaw.next_step)
    return msgspec.convert(plan.options, part.options)
