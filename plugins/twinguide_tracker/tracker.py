"""The simulated tracker as a part: exposures on its own clock, each arriving late, stamped on the host's clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, sqrt
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinguide import Exposure, Inbox, PoseWire, Transform
from twinguide.clock import MS
from twinguide.frames import rotation_from_quaternion
from twinguide.messages import BodiesSeen
from twinguide_calibration import RigidFit

from .camera import Camera
from .plugin import TrackerOptions

if TYPE_CHECKING:
    from twinguide import Context

Array = NDArray[np.float64]
DARK_NS = 100 * MS  # no motion is guessed over a longer gap in the world's samples
# The link's delay above its least: a gamma law of this shape, so that least, mean and sigma hang together.
GAMMA_SHAPE = (5.0 / 3.0) ** 2
EARLIEST_OF_A_SECOND = 0.23  # [sigma] above the least: the median of the smallest of 60 such delays


@dataclass(frozen=True, slots=True)
class InFlight:
    """A sample on its way: exposed at a time of the device's clock, here at a time of the host's."""

    device_ns: int
    arrival_ns: int
    exposure: Exposure  # stamped with the true host time, which nobody else learns


class Tracker:
    """A camera that sees all tools in one exposure, and says what it did not see and why."""

    def __init__(self, ctx: Context) -> None:
        self._options: TrackerOptions = ctx.options
        o = self._options
        self._camera = Camera(np.array(o.spheres_mm) * 1e-3, np.array(o.noise_mm) * 1e-3)
        self._noise, self._link, self._gaps = ctx.rng("noise"), ctx.rng("link"), ctx.rng("dropouts")
        self._least_ms = max(o.latency_ms - o.latency_sigma_ms * sqrt(GAMMA_SHAPE), 0.0)
        declared_ms = self._least_ms + EARLIEST_OF_A_SECOND * o.latency_sigma_ms
        self._clock = ctx.device_clock(latency_ms=declared_ms, sigma_ms=o.latency_sigma_ms)
        self._world: deque[BodiesSeen] = deque(maxlen=2)
        self._in_flight: deque[InFlight] = deque()
        self._dark: dict[str, int] = {}  # tool -> exposures of its dropout left

    def step(self, t_ns: int, inbox: Inbox) -> Iterator[Exposure]:
        """Expose up to the newest light, and hand over what has arrived by `t_ns` [ns]."""
        for seen in inbox.of(BodiesSeen):
            self._world.append(seen)
            self._expose()
        while self._in_flight and self._in_flight[0].arrival_ns <= t_ns:
            yield self._arrived(self._in_flight.popleft())

    def _expose(self) -> None:
        """Make the exposures that fall between the newest two world samples."""
        if len(self._world) < 2:
            return
        before, after = self._world
        if after.t_ns - before.t_ns > DARK_NS:
            return
        first, last = (self._device_ns(t) * self._options.rate_hz * 1e-9 for t in (before.t_ns, after.t_ns))
        for count in range(ceil(first), ceil(last)):
            self._send(count, self._photograph(before, after, self._host_ns(count)))

    def _photograph(self, before: BodiesSeen, after: BodiesSeen, t_ns: int) -> Exposure:
        """Return what one exposure at `t_ns` [ns] shows; spheres move on a line between two world samples."""
        share = (t_ns - before.t_ns) / max(after.t_ns - before.t_ns, 1)
        names = sorted(after.tools)
        draw = self._noise.normal(size=(len(names), *self._camera.spheres.shape))
        hidden = sorted({*before.occluded, *after.occluded})  # a set has another order in each process
        lost = self._dropouts(names) | dict.fromkeys(hidden, "not in the camera's view")
        lost |= {name: "just come into view" for name in names if name not in before.tools}
        seen = [i for i, name in enumerate(names) if name not in lost]
        places = [
            (1 - share) * self._spheres(before.tools[names[i]]) + share * self._spheres(after.tools[names[i]])
            for i in seen
        ]
        tools: dict[str, PoseWire] = {}
        if seen:
            for i, fit in zip(seen, self._camera.fit(self._camera.expose(np.array(places), draw[seen])), strict=True):
                if isinstance(fit, str):
                    lost[names[i]] = fit
                else:
                    tools[names[i]] = _wire(names[i], fit)
        return Exposure(t_ns=t_ns, sigma_t_ns=0, tools=tools, lost=lost)

    def _spheres(self, wire: PoseWire) -> Array:
        return self._camera.spheres @ rotation_from_quaternion(wire.quaternion).T + wire.position

    def _dropouts(self, names: list[str]) -> dict[str, str]:
        """Return the tools whose sight fails for an instant, by chance."""
        o = self._options
        chance, which, length = self._gaps.random(3)
        self._dark = {name: left - 1 for name, left in self._dark.items() if left > 1}
        if names and chance < o.dropouts_per_min / 60.0 / o.rate_hz:
            self._dark[names[int(which * len(names))]] = 1 + int(length * o.dropout_exposures)
        return dict.fromkeys(self._dark, "sight lost for an instant")

    def _send(self, count: int, exposure: Exposure) -> None:
        """Send a sample on its way; the link keeps the order."""
        late_ms = self._least_ms + self._link.gamma(GAMMA_SHAPE, self._options.latency_sigma_ms / sqrt(GAMMA_SHAPE))
        earlier = self._in_flight[-1].arrival_ns if self._in_flight else 0
        arrival_ns = max(exposure.t_ns + round(late_ms * MS), earlier)
        self._in_flight.append(InFlight(self._stamp_ns(count), arrival_ns, exposure))

    def _arrived(self, sample: InFlight) -> Exposure:
        """Return a sample stamped by what the host knows: the device's stamp and the arrival, mapped."""
        self._clock.add(sample.device_ns, sample.arrival_ns)
        t_ns = self._clock.to_host(sample.device_ns)
        return msgspec.structs.replace(sample.exposure, t_ns=t_ns, sigma_t_ns=round(self._clock.sigma_ns))

    def _device_ns(self, host_ns: int) -> float:
        """Return how long the device has run at a host time [ns], by its own clock."""
        return host_ns / (1.0 + self._options.clock_drift_ppm * 1e-6)

    def _host_ns(self, count: int) -> int:
        return round(count * 1e9 / self._options.rate_hz * (1.0 + self._options.clock_drift_ppm * 1e-6))

    def _stamp_ns(self, count: int) -> int:
        return round((self._options.clock_offset_s + count / self._options.rate_hz) * 1e9)


def _wire(name: str, fit: RigidFit) -> PoseWire:
    return PoseWire.of(Transform.of("tracker", name, fit.rotation, fit.translation), fit.covariance)
