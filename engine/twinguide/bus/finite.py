"""Find numbers that are not finite, or arrays that do not fit, before a message leaves and after it arrives."""

from __future__ import annotations

from math import isfinite
from typing import Any, cast

import msgspec
import numpy as np

from twinguide.errors import BusError
from twinguide.messages import Array


def first_flaw(value: Any, path: str = "") -> str:  # noqa: ANN401 - any field of any message
    """Return where a message holds what nobody can use, and what it is; an empty string where all is well.

    NaN and infinity pass every MessagePack decoder, typed or not, so this is asked of each message on both sides.
    """
    kind = cast("type[Any]", type(value))
    if kind in (int, str, bool, bytes, type(None)):
        return ""
    if isinstance(value, float):
        return "" if isfinite(value) else f"{path} is {value}"
    if kind is Array:
        return _array_flaw(value, path)
    if isinstance(value, msgspec.Struct):
        pairs = ((f"{path}.{name}" if path else name, getattr(value, name)) for name in value.__struct_fields__)
    elif isinstance(value, dict):
        pairs = ((f"{path}[{key!r}]", item) for key, item in cast("dict[Any, Any]", value).items())
    elif isinstance(value, (tuple, list)):
        pairs = ((f"{path}[{i}]", item) for i, item in enumerate(cast("tuple[Any, ...]", value)))
    else:
        return ""
    for name, item in pairs:
        if flaw := first_flaw(item, name):
            return flaw
    return ""


def _array_flaw(array: Array, path: str) -> str:
    try:
        values = array.numpy()
    except BusError as error:
        return f"{path}: {error}"
    if values.dtype.kind not in "biuf":
        return f"{path} has the type {values.dtype}, not numbers"
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return f"{path} holds {int((~np.isfinite(values)).sum())} of {values.size} numbers that are not finite"
    return ""
