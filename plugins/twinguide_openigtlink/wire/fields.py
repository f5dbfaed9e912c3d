"""What several message types share: fixed text, scalar types, matrices, the 32.32 time stamp, the CRC.

Protocol 3, pages "Message Header", "Timestamp", "TRANSFORM" and "IMAGE". All numbers are big-endian.
"""

from __future__ import annotations

import struct
from math import isfinite
from typing import Any

import numpy as np
from fastcrc import crc64  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

from .refused import MessageRefused

SCALAR_TYPES: dict[int, np.dtype[Any]] = {
    2: np.dtype("i1"), 3: np.dtype("u1"), 4: np.dtype("i2"), 5: np.dtype("u2"), 6: np.dtype("i4"),
    7: np.dtype("u4"), 10: np.dtype("f4"), 11: np.dtype("f8"), 13: np.dtype("c16"),
}  # fmt: skip
CODES = {dtype: code for code, dtype in SCALAR_TYPES.items()}
ASCII, UTF8 = 3, 106  # MIBenum, as IANA numbers character sets
ENCODINGS = {ASCII: "ascii", 4: "latin-1", UTF8: "utf-8", 1013: "utf-16-be", 1014: "utf-16-le", 1015: "utf-16"}
MATRIX = struct.Struct(">12f")
SECOND = 1_000_000_000
LAST_STAMP_NS = (2**32 - 1) * SECOND + 999_999_999


def crc(body: bytes | memoryview) -> int:
    """Return the CRC-64 of a body: ECMA-182, polynomial 0x42F0E1EBA9EA3693, start 0 ("Message Header", CRC)."""
    return int(crc64.ecma_182(body))


def stamp_from_ns(t_ns: int) -> int:
    """Return the 64-bit stamp, seconds in 32.32 fixed point, of a time [ns]; raise MessageRefused beyond 2106."""
    if not 0 <= t_ns <= LAST_STAMP_NS:
        raise MessageRefused("a time from 1970 to 2106 [ns]", str(t_ns), "TIME_STAMP")
    seconds, ns = divmod(t_ns, SECOND)
    return seconds << 32 | ((ns << 32) + SECOND // 2) // SECOND


def ns_from_stamp(stamp: int) -> int:
    """Return the time [ns] of a 64-bit stamp, seconds in 32.32 fixed point; ones alone are the last there is."""
    return min((stamp >> 32) * SECOND + (((stamp & 0xFFFFFFFF) * SECOND + (1 << 31)) >> 32), LAST_STAMP_NS)


def fixed(text: str, size: int, field: str, encoding: str = "utf-8") -> bytes:
    """Return text padded with zeros to `size` bytes; raise MessageRefused where it does not fit."""
    raw = text.encode(encoding, errors="replace")
    if len(raw) > size or b"\0" in raw:
        raise MessageRefused(f"at most {size} bytes without a zero", f"{text!r}", field, "Shorten the name.")
    return raw.ljust(size, b"\0")


def text_of(raw: bytes) -> str:
    """Return fixed text up to its first zero; some senders leave rubbish behind it, or write Latin-1.

    A letter of UTF-8 that the end of a full field has cut in two is left out.
    """
    used, zero, _ = raw.partition(b"\0")
    if used.isascii():
        return used.decode().rstrip()
    text = used.decode(errors="ignore")
    lost = len(used) - len(text.encode()) if used.startswith(text.encode()) else len(used)
    return (text if lost == 0 or (lost < 4 and not zero) else used.decode("latin-1")).rstrip()


def encoded(text: str) -> tuple[int, bytes]:
    """Return a MIBenum and the bytes of a text: US-ASCII where it can be, as the protocol recommends, else UTF-8."""
    return (ASCII if text.isascii() else UTF8), text.encode()


def decoded(encoding: int, raw: bytes) -> str:
    """Return text sent with a MIBenum; many senders call UTF-8 ASCII, and zeros may end a C string."""
    codec = "utf-8" if encoding == ASCII else ENCODINGS.get(encoding, "latin-1")
    return raw.decode(codec, errors="replace").rstrip("\0")


def pack_matrix(matrix: NDArray[np.float64]) -> bytes:
    """Return the upper three rows of a 4x4 matrix, column by column, as 12 float32 ("TRANSFORM")."""
    return MATRIX.pack(*matrix[:3].T.ravel().tolist())


def unpack_matrix(raw: bytes) -> NDArray[np.float64]:
    """Return the 4x4 matrix of 12 float32, column by column; raise MessageRefused where a number is not finite."""
    values: tuple[float, ...] = MATRIX.unpack(raw)
    if not isfinite(sum(values)):  # finite where all are: no sum of twelve float32 is too large for a float64
        raise MessageRefused("finite numbers", str(values), "MATRIX")
    return np.array((*values[0::3], *values[1::3], *values[2::3], 0.0, 0.0, 0.0, 1.0)).reshape(4, 4)


def exactly(content: bytes, size: int, field: str) -> None:
    """Raise MessageRefused where a content has not the size that its type wants [bytes]."""
    if len(content) != size:
        raise MessageRefused(f"{size} bytes", f"{len(content)}", field)


def at_least(content: bytes, size: int, field: str) -> None:
    """Raise MessageRefused where a content is shorter than its fixed part [bytes]."""
    if len(content) < size:
        raise MessageRefused(f"{size} bytes or more", f"{len(content)}", field)


def rows(content: bytes, size: int, field: str) -> list[bytes]:
    """Return the items of a content that is a list of items of one size [bytes]."""
    if len(content) % size:
        raise MessageRefused(f"a multiple of {size} bytes", f"{len(content)}", field)
    return [content[at : at + size] for at in range(0, len(content), size)]


def scalar_type(code: int, field: str) -> np.dtype[Any]:
    """Return the NumPy type of a scalar code; raise MessageRefused where there is none."""
    if code not in SCALAR_TYPES:
        raise MessageRefused(f"a scalar type of {sorted(SCALAR_TYPES)}", str(code), field)
    return SCALAR_TYPES[code]


def scalar_code(values: NDArray[Any], field: str) -> int:
    """Return the scalar code of an array; raise MessageRefused where the wire has none for its type."""
    native = values.dtype.newbyteorder("=")
    if native not in CODES:
        raise MessageRefused("int8 to uint32, float32, float64 or complex128", str(values.dtype), field)
    return CODES[native]
