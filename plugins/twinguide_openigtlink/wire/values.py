"""STATUS, STRING, SENSOR, NDARRAY, CAPABILITY, COMMAND, and requests without a content of their own.

Protocol 3, pages "Status", "String", "SensorData" with "Unit", "NDArray", "Capability", "Command", "Query".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from .fields import at_least, decoded, encoded, exactly, fixed, rows, scalar_code, scalar_type, text_of
from .refused import MessageRefused

STATUS = struct.Struct(">Hq20s")
COMMAND = struct.Struct(">I128sHI")
STATUS_NAMES = (
    "invalid", "OK", "unknown error", "panic", "not found", "access denied", "busy", "time out", "overflow",
    "checksum error", "configuration error", "not enough resources", "unknown instruction", "not ready",
    "manual mode", "disabled", "not present", "unknown version", "hardware failure", "shutting down",
)  # fmt: skip
PREFIXES = {
    1: 1, 2: 2, 3: 3, 4: 6, 5: 9, 6: 12, 7: 15, 9: -1, 10: -2, 11: -3, 12: -6, 13: -9, 14: -12, 15: -15, 0: 0,
}  # fmt: skip
UNITS = (
    "", "m", "g", "s", "A", "K", "mol", "cd", "rad", "sr", "Hz", "N", "Pa", "J", "W", "C", "V", "F", "ohm", "S", "Wb",
    "T", "H", "lm", "lx", "Bq", "Gy", "Sv",
)  # fmt: skip


@dataclass(frozen=True)
class Status:
    """STATUS: how the sender, or the device that it names, is; code 1 is OK."""

    type_name: ClassVar[str] = "STATUS"
    code: int = 1
    sub_code: int = 0
    error: str = ""
    text: str = ""

    @property
    def ok(self) -> bool:
        """Whether the code says OK."""
        return self.code == 1

    @property
    def meaning(self) -> str:
        """The code in words, as the page "Status" lists them."""
        return STATUS_NAMES[self.code] if self.code < len(STATUS_NAMES) else f"code {self.code}"

    def pack(self) -> bytes:
        """Return the content's bytes; the text ends with a zero, as the protocol's own library writes it."""
        return STATUS.pack(self.code, self.sub_code, fixed(self.error, 20, "ERROR_NAME")) + self.text.encode() + b"\0"

    @classmethod
    def unpack(cls, content: bytes) -> Status:
        """Return the content of its bytes; raise MessageRefused."""
        at_least(content, STATUS.size, cls.type_name)
        code, sub_code, error = STATUS.unpack_from(content)
        return cls(code, sub_code, text_of(error), decoded(106, content[STATUS.size :]))


@dataclass(frozen=True)
class Text:
    """STRING: a text of at most 65535 bytes."""

    type_name: ClassVar[str] = "STRING"
    text: str

    def pack(self) -> bytes:
        """Return the content's bytes; raise MessageRefused where the text is too long."""
        encoding, raw = encoded(self.text)
        if len(raw) > 0xFFFF:
            raise MessageRefused("at most 65535 bytes", f"{len(raw)}", self.type_name)
        return struct.pack(">HH", encoding, len(raw)) + raw

    @classmethod
    def unpack(cls, content: bytes) -> Text:
        """Return the content of its bytes; raise MessageRefused."""
        at_least(content, 4, cls.type_name)
        encoding, size = struct.unpack_from(">HH", content)
        at_least(content, 4 + size, cls.type_name)
        return cls(decoded(encoding, content[4 : 4 + size]))


@dataclass(frozen=True)
class SensorData:
    """SENSOR: up to 255 readings in one unit, coded in 64 bits ("Unit")."""

    type_name: ClassVar[str] = "SENSOR"
    values: tuple[float, ...]
    unit: int = 0
    status: int = 0

    def pack(self) -> bytes:
        """Return the content's bytes; raise MessageRefused for more than 255 values."""
        if len(self.values) > 255:
            raise MessageRefused("at most 255 values", f"{len(self.values)}", self.type_name)
        return struct.pack(f">BBQ{len(self.values)}d", len(self.values), self.status, self.unit, *self.values)

    @classmethod
    def unpack(cls, content: bytes) -> SensorData:
        """Return the content of its bytes; raise MessageRefused."""
        at_least(content, 10, cls.type_name)
        count, status, unit = struct.unpack_from(">BBQ", content)
        exactly(content, 10 + 8 * count, cls.type_name)
        return cls(struct.unpack_from(f">{count}d", content, 10), unit, status)


def unit_of(code: int) -> tuple[int, dict[str, int]]:
    """Return a SENSOR unit as a power of ten and its units with their exponents, such as (-3, {"m": 1, "s": -2})."""
    prefix = PREFIXES.get(code >> 60)
    if prefix is None:
        raise MessageRefused("a known SI prefix", hex(code >> 60), "UNIT")
    units: dict[str, int] = {}
    for place in range(6):
        unit, exponent = code >> (54 - 10 * place) & 0x3F, code >> (50 - 10 * place) & 0xF
        if unit >= len(UNITS):
            raise MessageRefused("a known unit", hex(unit), "UNIT")
        if unit:
            # The page "SensorData" writes newton metres with exponents of 0: a unit that is named counts once.
            units[UNITS[unit]] = exponent - 16 if exponent > 7 else exponent or 1
    return prefix, units


def unit_code(prefix: int, units: dict[str, int]) -> int:
    """Return the 64-bit code of a power of ten and units with their exponents; raise MessageRefused."""
    codes = {power: code for code, power in PREFIXES.items()}
    if prefix not in codes or len(units) > 6 or not all(u in UNITS and -6 <= e <= 7 for u, e in units.items()):
        raise MessageRefused(
            "an SI prefix and at most six SI units to the power of -6..7", f"{prefix}, {units}", "UNIT"
        )
    code = codes[prefix] << 60
    for place, (unit, exponent) in enumerate(units.items()):
        code |= UNITS.index(unit) << (54 - 10 * place) | (exponent & 0xF) << (50 - 10 * place)
    return code


@dataclass(frozen=True, eq=False)
class NumberArray:
    """NDARRAY: numbers in n dimensions, each of at most 65535."""

    type_name: ClassVar[str] = "NDARRAY"
    values: NDArray[Any]

    def pack(self) -> bytes:
        """Return the content's bytes, big-endian; raise MessageRefused for a type or size that the wire lacks."""
        code = scalar_code(self.values, self.type_name)
        if max((self.values.ndim, *self.values.shape)) > 0xFFFF or self.values.ndim > 255:
            raise MessageRefused("sizes up to 65535", str(self.values.shape), self.type_name)
        head = struct.pack(f">BB{self.values.ndim}H", code, self.values.ndim, *self.values.shape)
        return head + self.values.astype(self.values.dtype.newbyteorder(">")).tobytes()

    @classmethod
    def unpack(cls, content: bytes) -> NumberArray:
        """Return the content of its bytes; raise MessageRefused where size and bytes disagree."""
        at_least(content, 2, cls.type_name)
        code, dimensions = content[0], content[1]
        at_least(content, 2 + 2 * dimensions, cls.type_name)
        if dimensions > 32:
            raise MessageRefused("at most 32 dimensions", str(dimensions), cls.type_name)
        dtype = scalar_type(code, cls.type_name).newbyteorder(">")
        shape: tuple[int, ...] = struct.unpack_from(f">{dimensions}H", content, 2)
        count = int(np.prod(shape, dtype=object))
        exactly(content, 2 + 2 * dimensions + count * dtype.itemsize, cls.type_name)
        return cls(np.frombuffer(content, dtype, count, 2 + 2 * dimensions).reshape(shape))


@dataclass(frozen=True)
class Capability:
    """CAPABILITY: the message types that the sender understands."""

    type_name: ClassVar[str] = "CAPABILITY"
    types: tuple[str, ...]

    def pack(self) -> bytes:
        """Return the content's bytes."""
        return b"".join(fixed(name, 12, "TYPE") for name in self.types)

    @classmethod
    def unpack(cls, content: bytes) -> Capability:
        """Return the content of its bytes; raise MessageRefused."""
        return cls(tuple(text_of(row) for row in rows(content, 12, cls.type_name)))


@dataclass(frozen=True)
class Command:
    """COMMAND, or its answer RTS_COMMAND: a number, a name, and XML as 3D Slicer and PLUS use it."""

    id: int
    name: str
    text: str = ""
    answer: bool = False

    @property
    def type_name(self) -> str:
        """The wire's type name."""
        return "RTS_COMMAND" if self.answer else "COMMAND"

    def pack(self) -> bytes:
        """Return the content's bytes."""
        encoding, raw = encoded(self.text)
        return COMMAND.pack(self.id, fixed(self.name, 128, "COMMAND_NAME"), encoding, len(raw)) + raw

    @classmethod
    def unpack(cls, content: bytes, *, answer: bool = False) -> Command:
        """Return the content of its bytes; raise MessageRefused."""
        at_least(content, COMMAND.size, "COMMAND")
        number, name, encoding, size = COMMAND.unpack_from(content)
        at_least(content, COMMAND.size + size, "COMMAND")
        text = decoded(encoding, content[COMMAND.size : COMMAND.size + size])
        return cls(number, text_of(name), text, answer)


@dataclass(frozen=True)
class Query:
    """GET_, STT_ or STP_ of a type: send one, start, stop. The type's name is cut as the protocol's library does."""

    do: Literal["GET", "STT", "STP"]
    of: str

    @property
    def type_name(self) -> str:
        """The wire's type name."""
        return f"{self.do}_{SHORT.get(self.of, self.of)}"

    def pack(self) -> bytes:
        """Return no bytes: such a request has no content."""
        return b""


@dataclass(frozen=True)
class Reply:
    """RTS_ of a type: whether a request was carried out."""

    of: str
    ok: bool = True

    @property
    def type_name(self) -> str:
        """The wire's type name."""
        return f"RTS_{SHORT.get(self.of, self.of)}"

    def pack(self) -> bytes:
        """Return the content's byte: 0 where it was."""
        return b"\0" if self.ok else b"\1"

    @classmethod
    def unpack_as(cls, of: str, content: bytes) -> Reply:
        """Return the content; some senders leave the byte out when all is well."""
        return cls(of, not any(content[:1]))


SHORT = {"TRANSFORM": "TRANS", "CAPABILITY": "CAPABIL"}
LONG = {"TRANS": "TRANSFORM", "TRANSFOR": "TRANSFORM", "CAPABIL": "CAPABILITY"}
