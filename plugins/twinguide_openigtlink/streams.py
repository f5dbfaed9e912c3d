"""What comes over the wire and has no message of the core: pictures, numbers, readings, notes."""

from __future__ import annotations

from typing import Literal

import msgspec

from twinguide import Array, BulkRef, Message


class WirePicture(Message, frozen=True, kw_only=True, tag="openigtlink.picture/1"):
    """An image of a device, at `t_ns` on the host's clock."""

    of: str  # the device
    sigma_t_ns: int
    voxels: BulkRef  # (k, j, i) or (k, j, i, components)
    world_from_index: Array  # (4, 4) [m]; LPS where the sender told RAS or LPS of a patient


class WireEntry(msgspec.Struct, frozen=True):
    """One image that a device offers. The patient's name and number, which the wire tells too, are not recorded."""

    name: str
    id: str
    modality: str
    size: tuple[int, int, int]  # i, j, k


class WirePictures(Message, frozen=True, kw_only=True, tag="openigtlink.pictures/1"):
    """What images a device offers (IMGMETA)."""

    of: str
    pictures: tuple[WireEntry, ...]


class WireNumbers(Message, frozen=True, kw_only=True, tag="openigtlink.numbers/1"):
    """Numbers in n dimensions without a unit (NDARRAY), at `t_ns` on the host's clock."""

    of: str
    sigma_t_ns: int
    values: BulkRef  # complex ones with real and imaginary part on a last axis of 2


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
