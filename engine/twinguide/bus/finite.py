"""Find numbers that are not finite, or arrays that do not fit, before a message leaves and after it arrives."""

from __future__ import annotations

from math import isfinite, prod
from typing import Any, cast

import msgspec
import numpy as np

from twinguide.errors import BusError
from twinguide.messages import Array

PLAIN = frozenset({int, str, bool, bytes, type(None)})
SMALL = 512  # bytes of float64 up to which plain Python is faster than NumPy


def first_flaw(value: Any) -> str:  # noqa: ANN401 - any field of any message
    """Return where a message holds what nobody can use, and what it is; an empty string where all is well.

    NaN and infinity pass every MessagePack decoder, typed or not, so this is asked of each message on both sides.
    """
    return "" if _is_sound(value) else _search(value, "")


def _is_sound(value: Any) -> bool:  # noqa: ANN401
    """Tell whether all is well, quickly: this is asked of every message."""
    kind = cast("type[Any]", type(value))
    if kind in PLAIN:
        return True
    if kind is float:
        return isfinite(value)
    if kind is tuple or kind is list:
        return all(isfinite(item) if type(item) is float else _is_sound(item) for item in value)
    if kind is Array:
        if value.dtype == "f8" and len(value.data) <= SMALL and value.shape and len(value.data) % 8 == 0:
            numbers = memoryview(value.data).cast("d")
            if all(map(isfinite, numbers)) and min(value.shape) >= 0 and prod(value.shape) == len(numbers):
                return True
        return not _array_flaw(value, "")
    if kind is dict:
        return all(map(_is_sound, value.values()))
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            item = getattr(value, name)
            if type(item) not in PLAIN and not _is_sound(item):
                return False
        return True
    return not isinstance(value, float) or isfinite(value)


def _search(value: Any, path: str) -> str:  # noqa: ANN401
    """Return the place and kind of the first flaw."""
    if isinstance(value, float):
        return "" if isfinite(value) else f"{path} is {value}"
    if isinstance(value, Array):
        return _array_flaw(value, path)
    if isinstance(value, msgspec.Struct):
        pairs = ((f"{path}.{name}" if path else name, getattr(value, name)) for name in value.__struct_fields__)
    elif isinstance(value, dict):
        pairs = ((f"{path}[{key!r}]", item) for key, item in cast("dict[Any, Any]", value).items())
    elif isinstance(value, (tuple, list)):
        pairs = ((f"{path}[{i}]", item) for i, item in enumerate(cast("tuple[Any, ...]", value)))
    else:
        return ""
    return next((flaw for name, item in pairs if (flaw := _search(item, name))), "")


def _array_flaw(array: Array, path: str) -> str:
    try:
        values = array.numpy()
    except BusError as error:
        return f"{path}: {error}"
    if values.shape != array.shape:  # NumPy reads -1 as "whatever fits"
        return f"{path} has the shape {array.shape}"
    if values.dtype.kind not in "biuf":
        return f"{path} has the type {values.dtype}, not numbers"
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return f"{path} holds {int((~np.isfinite(values)).sum())} of {values.size} numbers that are not finite"
    return ""
