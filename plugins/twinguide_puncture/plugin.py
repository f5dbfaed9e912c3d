"""Declare the puncture guidance and its scenarios."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from twinguide import Guidance, hookimpl


class PunctureOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of the puncture."""

    angle_caution_deg: float = 5.0
    organ_before_target_mm: float = 10.0  # tissue that tamponades the track (textbook value for liver biopsy)
    rib_underside_mm: float = 5.0  # extra margin below a rib, where its artery, vein and nerve run (textbook anatomy)
    must_be_known: tuple[str, ...] | None = None  # one that the case lacks is said; None: all that the organ may have


@hookimpl
def parts() -> list[Guidance]:
    """Declare the guidance."""
    return [Guidance("puncture", make="twinguide_puncture.guidance:Puncture", options=PunctureOptions)]


@hookimpl
def scenarios() -> Mapping[str, Path]:
    """Name the scenario files in this folder."""
    return {file.stem: file for file in sorted((Path(__file__).parent / "scenarios").glob("*.toml"))}
