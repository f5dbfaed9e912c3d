"""IMAGE and IMGMETA. Protocol 3, pages "Image" and "ImageMeta"; millimetres.

An IMAGE states its *centre*, not its first voxel, and says itself whether its axes are RAS (1) or LPS (2).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from .fields import at_least, exactly, fixed, ns_from_stamp, rows, scalar_code, scalar_type, stamp_from_ns, text_of
from .refused import MessageRefused
from .tracking import finite

HEAD = struct.Struct(">HBBBB3H12f6H")
META = struct.Struct(">64s20s32s64s64sQ3HBx")
Size = tuple[int, int, int]
Axes = Literal["ras", "lps"]


@dataclass(frozen=True, eq=False)
class Image:
    """IMAGE: voxels with their place.

    `voxels` has shape (k, j, i) or (k, j, i, components) and covers the part that starts at `start` (i, j, k) of an
    image of `size` (i, j, k). Column n of `steps_mm` is one voxel's step along index n.
    """

    type_name: ClassVar[str] = "IMAGE"
    voxels: NDArray[Any]
    steps_mm: NDArray[np.float64]  # (3, 3)
    centre_mm: NDArray[np.float64]  # (3,)
    axes: Axes = "lps"
    size: Size = (0, 0, 0)  # zeros: the voxels are the whole
    start: Size = (0, 0, 0)

    @staticmethod
    def of(voxels: NDArray[Any], world_from_index_mm: NDArray[np.float64], axes: Axes = "lps") -> Image:
        """Build a whole image from voxels and where index (0, 0, 0) lies [mm], shape (4, 4)."""
        size = _size(voxels)
        middle = (np.array(size) - 1) / 2.0
        steps = world_from_index_mm[:3, :3]
        return Image(voxels, steps, world_from_index_mm[:3, 3] + steps @ middle, axes, size)

    @property
    def whole(self) -> Size:
        """The size (i, j, k) of the whole image."""
        return self.size if any(self.size) else _size(self.voxels)

    def world_from_index_mm(self) -> NDArray[np.float64]:
        """Return where the whole image's indices lie [mm], shape (4, 4), in `axes`."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.steps_mm
        matrix[:3, 3] = self.centre_mm - self.steps_mm @ ((np.array(self.whole) - 1) / 2.0)
        return matrix

    def pack(self) -> bytes:
        """Return the content's bytes, voxels little-endian; raise MessageRefused where they have no scalar type."""
        code = scalar_code(self.voxels, self.type_name)
        components = self.voxels.shape[3] if self.voxels.ndim == 4 else 1
        part = _size(self.voxels)
        _check_part(self.whole, self.start, part)
        if max(self.whole) > 0xFFFF or not 0 < components < 256:
            raise MessageRefused(
                "sizes up to 65535, up to 255 components", f"{self.whole}, {components}", self.type_name
            )
        head = HEAD.pack(
            1, components, code, 2, 1 if self.axes == "ras" else 2, *self.whole,
            *self.steps_mm.T.ravel().tolist(), *self.centre_mm.tolist(), *self.start, *part,
        )  # fmt: skip
        return head + self.voxels.astype(self.voxels.dtype.newbyteorder("<"), copy=False).tobytes()

    @classmethod
    def unpack(cls, content: bytes) -> Image:
        """Return the content of its bytes; raise MessageRefused where size and bytes disagree."""
        at_least(content, HEAD.size, cls.type_name)
        _, components, code, endian, axes, *rest = HEAD.unpack_from(content)
        size, numbers, start, part = rest[:3], rest[3:15], rest[15:18], rest[18:21]
        if endian not in (1, 2) or axes not in (1, 2) or not components or code == 13:
            got = f"E {endian}, O {axes}, T {components}, S {code}"
            raise MessageRefused("byte order and axes of 1 or 2, a component or more, real numbers", got, cls.type_name)
        finite(numbers, cls.type_name)
        _check_part(tuple(size), tuple(start), tuple(part))
        dtype = scalar_type(code, cls.type_name).newbyteorder(">" if endian == 1 else "<")
        exactly(content, HEAD.size + int(np.prod(part)) * components * dtype.itemsize, cls.type_name)
        i, j, k = part
        shape = (k, j, i) if components == 1 else (k, j, i, components)
        voxels = np.frombuffer(content, dtype, offset=HEAD.size).reshape(shape)
        steps = np.array(numbers[:9]).reshape(3, 3).T
        return cls(voxels, steps, np.array(numbers[9:]), "ras" if axes == 1 else "lps", tuple(size), tuple(start))


def _size(voxels: NDArray[Any]) -> Size:
    if voxels.ndim not in (3, 4):
        raise MessageRefused("voxels of shape (k, j, i) or (k, j, i, components)", str(voxels.shape), "IMAGE")
    k, j, i = voxels.shape[:3]
    return i, j, k


def _check_part(size: Size, start: Size, part: Size) -> None:
    if any(s + p > whole for s, p, whole in zip(start, part, size, strict=True)):
        raise MessageRefused(f"a part within {size}", f"{part} at {start}", "IMAGE")


@dataclass(frozen=True)
class ImageEntry:
    """What IMGMETA tells of one image; `t_ns` is when it was taken [ns since 1970], `scalar` as IMAGE codes it."""

    name: str
    id: str
    modality: str = ""
    patient_name: str = ""
    patient_id: str = ""
    t_ns: int = 0
    size: Size = (0, 0, 0)
    scalar: int = 3


@dataclass(frozen=True)
class ImageMeta:
    """IMGMETA: the images that the sender has."""

    type_name: ClassVar[str] = "IMGMETA"
    images: tuple[ImageEntry, ...]

    def pack(self) -> bytes:
        """Return the content's bytes."""
        return b"".join(
            META.pack(
                fixed(e.name, 64, "NAME"), fixed(e.id, 20, "ID"), fixed(e.modality, 32, "MODALITY"),
                fixed(e.patient_name, 64, "PATIENT_NAME"), fixed(e.patient_id, 64, "PATIENT_ID"),
                stamp_from_ns(e.t_ns), *e.size, e.scalar,
            )
            for e in self.images
        )  # fmt: skip

    @classmethod
    def unpack(cls, content: bytes) -> ImageMeta:
        """Return the content of its bytes; raise MessageRefused."""
        images: list[ImageEntry] = []
        for row in rows(content, META.size, cls.type_name):
            *texts, stamp, i, j, k, scalar = META.unpack(row)
            name, number, modality, patient, patient_id = (text_of(text) for text in texts)
            images.append(
                ImageEntry(name, number, modality, patient, patient_id, ns_from_stamp(stamp), (i, j, k), scalar)
            )
        return cls(tuple(images))
