"""Poses on the wire: TRANSFORM, POSITION and QTRANS, TDATA, QTDATA, and the requests that start them.

Protocol 3, pages "Transform", "Position", "QuaternionTransform", "TrackingData", "QuaternionTrackingData". Millimetres
and column-major matrices on the wire. None of them says in which axes it is told, nor whether the tool was seen.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from .fields import MATRIX, at_least, exactly, fixed, pack_matrix, rows, text_of, unpack_matrix
from .refused import MessageRefused

Vec3 = tuple[float, float, float]
Vec4 = tuple[float, float, float, float]
TRACKER, TOOL_6D, TOOL_3D, TOOL_5D = 1, 2, 3, 4
TOOL = struct.Struct(">20sBx48s")
QUATERNION_TOOL = struct.Struct(">20sBx7f")
POSITION = struct.Struct(">7f")
START = struct.Struct(">I32s")


def finite(values: Sequence[float], field: str) -> None:
    """Raise MessageRefused where a number is not finite."""
    if not np.isfinite(values).all():
        raise MessageRefused("finite numbers", str(tuple(values)), field)


@dataclass(frozen=True, eq=False)
class Transform:
    """TRANSFORM: a 4x4 matrix, translation [mm]; "AToB" as PLUS names it is `b_from_a`."""

    type_name: ClassVar[str] = "TRANSFORM"
    matrix_mm: NDArray[np.float64]  # (4, 4)

    def pack(self) -> bytes:
        """Return the content's bytes."""
        return pack_matrix(self.matrix_mm)

    @classmethod
    def unpack(cls, content: bytes) -> Transform:
        """Return the content of its bytes; raise MessageRefused."""
        exactly(content, MATRIX.size, cls.type_name)
        return cls(unpack_matrix(content))


@dataclass(frozen=True)
class Position:
    """POSITION, or QTRANS by its newer name: a place [mm] and a quaternion xyzw."""

    type_name: ClassVar[str] = "POSITION"
    position_mm: Vec3
    quaternion: Vec4 = (0.0, 0.0, 0.0, 1.0)

    def pack(self) -> bytes:
        """Return the content's bytes."""
        return POSITION.pack(*self.position_mm, *self.quaternion)

    @classmethod
    def unpack(cls, content: bytes) -> Position:
        """Return the content; short forms have no quaternion (12 bytes), or its w is left to its norm (24 bytes)."""
        count = len(content) // 4
        if len(content) not in (12, 24, 28):
            raise MessageRefused("12, 24 or 28 bytes", f"{len(content)}", cls.type_name)
        values: tuple[float, ...] = struct.unpack(f">{count}f", content)
        finite(values, cls.type_name)
        x, y, z, *turn = values
        if count == 6:
            turn.append(max(0.0, 1.0 - sum(q * q for q in turn)) ** 0.5)
        a, b, c, w = turn or (0.0, 0.0, 0.0, 1.0)
        return cls((x, y, z), (a, b, c, w))


@dataclass(frozen=True, eq=False)
class Tool:
    """One element of TDATA: a tool's name, its kind (1 tracker, 2 6D, 3 3D, 4 5D) and its matrix [mm]."""

    name: str
    matrix_mm: NDArray[np.float64]  # (4, 4)
    kind: int = TOOL_6D


@dataclass(frozen=True, eq=False)
class TrackingData:
    """TDATA: all tools of one frame; a tool that was not seen is absent."""

    type_name: ClassVar[str] = "TDATA"
    tools: tuple[Tool, ...]

    def pack(self) -> bytes:
        """Return the content's bytes."""
        return b"".join(TOOL.pack(fixed(t.name, 20, "NAME"), t.kind, pack_matrix(t.matrix_mm)) for t in self.tools)

    @classmethod
    def unpack(cls, content: bytes) -> TrackingData:
        """Return the content of its bytes; raise MessageRefused."""
        tools = (TOOL.unpack(row) for row in rows(content, TOOL.size, cls.type_name))
        return cls(tuple(Tool(text_of(name), unpack_matrix(matrix), kind) for name, kind, matrix in tools))


@dataclass(frozen=True)
class QuaternionTool:
    """One element of QTDATA: a tool's name, its place [mm], its quaternion xyzw and its kind."""

    name: str
    position_mm: Vec3
    quaternion: Vec4
    kind: int = TOOL_6D


@dataclass(frozen=True)
class QuaternionTrackingData:
    """QTDATA: as TDATA, with quaternions."""

    type_name: ClassVar[str] = "QTDATA"
    tools: tuple[QuaternionTool, ...]

    def pack(self) -> bytes:
        """Return the content's bytes."""
        return b"".join(
            QUATERNION_TOOL.pack(fixed(t.name, 20, "NAME"), t.kind, *t.position_mm, *t.quaternion) for t in self.tools
        )

    @classmethod
    def unpack(cls, content: bytes) -> QuaternionTrackingData:
        """Return the content of its bytes; raise MessageRefused."""
        tools: list[QuaternionTool] = []
        for row in rows(content, QUATERNION_TOOL.size, cls.type_name):
            name, kind, x, y, z, *turn = QUATERNION_TOOL.unpack(row)
            finite((x, y, z, *turn), cls.type_name)
            a, b, c, w = turn
            tools.append(QuaternionTool(text_of(name), (x, y, z), (a, b, c, w), kind))
        return cls(tuple(tools))


@dataclass(frozen=True)
class StartTracking:
    """STT_TDATA or STT_QTDATA: send tools at most every `interval_ms` (0: as fast as you can), in named axes."""

    interval_ms: int = 0
    coordinates: str = ""  # empty: the sender's own
    of: str = "TDATA"

    @property
    def type_name(self) -> str:
        """The wire's type name."""
        return f"STT_{self.of}"

    def pack(self) -> bytes:
        """Return the content's bytes."""
        return START.pack(self.interval_ms, fixed(self.coordinates, 32, "COORD_NAME"))

    @classmethod
    def unpack_as(cls, of: str, content: bytes) -> StartTracking:
        """Return the content; its name of axes may be missing."""
        at_least(content, 4, f"STT_{of}")
        interval, name = START.unpack(content[: START.size].ljust(START.size, b"\0"))
        return cls(interval, text_of(name), of)
