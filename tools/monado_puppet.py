"""Move the head and hands of a Monado service that runs its `remote` driver: exact poses and buttons over TCP.

The packet is that of Monado 25.0 (`r_interface.h`): 376 bytes, little-endian, each one replaces the whole state.
Standard library only.
"""

from __future__ import annotations

import math
import socket
import struct
from dataclasses import dataclass, field

PACKET = struct.Struct("<8s" + 2 * "4f7fI" + "7f4?" + 2 * "7f3f3f5f3f2ff2f16?")
HEADER = b"mndrmt3\0"
Quaternion = tuple[float, float, float, float]
Vector = tuple[float, float, float]


@dataclass
class PuppetHand:
    """One controller, in stage; what is pressed is named as OpenXR names it."""

    position: Vector = (0.0, 1.3, -0.5)  # [m]
    quaternion: Quaternion = (0.0, 0.0, 0.0, 1.0)  # xyzw
    trigger: float = 0.0
    squeeze: float = 0.0
    a: bool = False
    b: bool = False
    active: bool = True

    def fields(self) -> tuple[float | bool, ...]:
        """Return the controller's fields in the packet's order."""
        still, curls, stick, trackpad = (0.0,) * 6, (0.0,) * 5, (0.0, 0.0), (0.0, 0.0, 0.0)
        flags = (False, self.active, False, False, self.a, self.a, self.b, self.b, *(False,) * 8)
        values = (self.trigger, self.squeeze, self.squeeze)
        return (*self.quaternion, *self.position, *still, *curls, *values, *stick, *trackpad, *flags)


@dataclass
class Puppet:
    """The whole state of the remote headset; `send` makes it true at once."""

    position: Vector = (0.0, 1.6, 0.0)  # of the head, in stage [m]
    quaternion: Quaternion = (0.0, 0.0, 0.0, 1.0)  # xyzw
    ipd: float = 0.063  # [m]
    fov: tuple[float, float, float, float] = (-0.8, 0.7, 0.75, -0.85)  # the left eye's; the right eye's is its mirror
    left: PuppetHand = field(default_factory=lambda: PuppetHand((-0.2, 1.3, -0.5)))
    right: PuppetHand = field(default_factory=lambda: PuppetHand((0.2, 1.3, -0.5)))

    def look_at(self, point: Vector) -> None:
        """Turn the head, level, so that its -Z points at `point` [m], in stage."""
        x, y, z = (p - q for p, q in zip(point, self.position, strict=True))
        yaw, pitch = math.atan2(-x, -z), math.atan2(y, math.hypot(x, z))
        (sy, cy), (sp, cp) = ((math.sin(a / 2), math.cos(a / 2)) for a in (yaw, pitch))
        self.quaternion = (cy * sp, sy * cp, -sy * sp, cy * cp)

    def packet(self) -> bytes:
        """Return the state as Monado reads it."""
        left, right, up, down = self.fov
        upright = (0.0, 0.0, 0.0, 1.0)
        eyes = ((left, right, up, down), -0.5 * self.ipd), ((-right, -left, up, down), 0.5 * self.ipd)
        views = [value for fov, x in eyes for value in (*fov, *upright, x, 0.0, 0.0, 0)]
        head = (*self.quaternion, *self.position, True, False, False, False)
        return PACKET.pack(HEADER, *views, *head, *self.left.fields(), *self.right.fields())

    def connect(self, port: int) -> None:
        """Connect to the service's driver; raise OSError where none listens."""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=5.0)

    def send(self) -> None:
        """Make the state true."""
        self._socket.sendall(self.packet())

    def close(self) -> None:
        """End the connection; the headset stays where it is."""
        self._socket.close()
