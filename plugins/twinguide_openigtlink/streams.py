"""What comes over the wire and has no message of the core: pictures, readings, notes."""

from __future__ import annotations

from typing import Literal

from twinguide import Array, Message
from twinguide.messages import BulkRef


class WirePicture(Message, frozen=True, kw_only=True, tag="openigtlink.picture/1"):
    """An image of a device, at `t_ns` on the host's clock."""

    of: str  # the device
    sigma_t_ns: int
    voxels: BulkRef  # (k, j, i) or (k, j, i, components)
    world_from_index: Array  # (4, 4) [m]; LPS where the sender told RAS or LPS of a patient


class Reading(Message, frozen=True, kw_only=True, tag="openigtlink.reading/1"):
    """Numbers of a device in SI units, at `t_ns` on the host's clock."""

    of: str
    sigma_t_ns: int
    values: tuple[float, ...]
    unit: str  # "m s^-2"; empty: none was told


class Note(Message, frozen=True, kw_only=True, tag="openigtlink.note/1"):
    """A text or a status of a device."""

    of: str
    kind: Literal["text", "status"]
    text: str
