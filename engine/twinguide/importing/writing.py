"""Write a case folder: arrays first, `case.toml` last, so that a folder without it is no case."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from twinguide.case_file import CASE_FILE, CaseFile
from twinguide.files import write_whole

HEADER = "# A TwinGuide case. Lengths in metres and points in LPS, except keys that end in _mm.\n\n"


def write_arrays(folder: Path, file: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Write an .npz file and return its SHA-256; the same arrays give the same bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{key: np.asarray(a, order="C") for key, a in arrays.items()})
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(buffer.getvalue())
    return hashlib.sha256(buffer.getvalue()).hexdigest()


def write_case(folder: Path, content: CaseFile) -> None:
    """Write `case.toml`, complete or not at all."""
    write_whole(folder / CASE_FILE, HEADER + toml(msgspec.to_builtins(content)))


def toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """Return TOML of nested tables and arrays of tables; strings and numbers as JSON, which TOML shares."""
    lines: list[str] = []
    for key, value in table.items():
        if not isinstance(value, Mapping) and not _is_tables(value):
            lines.append(f"{_key(key)} = {json.dumps(value, ensure_ascii=False)}")
    for key, value in table.items():
        name = f"{prefix}{_key(key)}"
        if isinstance(value, Mapping):
            lines += ["", f"[{name}]", toml(cast(Mapping[str, Any], value), name + ".").strip("\n")]
        elif _is_tables(value):
            for row in value:
                lines += ["", f"[[{name}]]", toml(row, name + ".").strip("\n")]
    return "\n".join(lines) + "\n"


def _is_tables(value: Any) -> bool:  # noqa: ANN401 - any value of TOML
    return isinstance(value, list) and any(isinstance(row, Mapping) for row in cast(list[Any], value))


def _key(key: str) -> str:
    return key if key.replace("_", "").replace("-", "").isalnum() and key.isascii() else json.dumps(key)
