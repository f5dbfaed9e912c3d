"""What anatomy tells about units and sides: sizes that no patient has, and an organ on the wrong side, are refused."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from twinguide.case import Surface
from twinguide.errors import CaseError
from twinguide.hookspecs import Anatomy
from twinguide.importing.geometry import centroid_of

SIZES_M = {"organ": (0.03, 0.6), "skin": (0.1, 2.2), "bone": (0.01, 2.2)}  # largest extent; generous, 1000x is sought
SIZE_OTHER_M = (5e-4, 1.0)
OFF_MIDLINE_M = 0.01  # a centroid nearer to the midline than this tells no side
TAPER_SHARE = 0.03  # of the organ's width: bulk and taper of a liver differ by about 10 %


def check_size(name: str, role: str, vertices: NDArray[np.float64], units: str) -> None:
    """Refuse a structure, vertices [m], (n, 3), of a size that no patient has, and say which units would fit."""
    low, high = SIZES_M.get(role, SIZE_OTHER_M)
    finite = vertices[np.isfinite(vertices).all(axis=1)]
    extent = float(np.ptp(finite, axis=0).max()) if len(finite) else 0.0
    if low <= extent <= high or len(finite) < len(vertices):  # what is not finite is refused by `clean`
        return
    other, factor = ("m", 1e3) if units == "mm" else ("mm", 1e-3)
    fits = low <= extent * factor <= high
    raise CaseError(
        f"{name} of {low * 1e3:g} to {high * 1e3:g} mm", f"{extent * 1e3:.3g} mm wide with units {units}", name,
        f"Did you mean --units {other}?" if fits else "Check the file: neither mm nor m gives a plausible size.",
    )  # fmt: skip


def check_side(surfaces: Mapping[str, Surface], anatomy: Mapping[str, Anatomy]) -> str:
    """Return what was checked about left and right, for the case file; raise CaseError for a mirrored patient.

    The midline is that of the bones or of the skin, whichever is there. Without both, the shape tells: an organ that
    lies on one side and crosses the midline has its bulk on its own side and tapers across.
    """
    sided = {name: anatomy[name].side for name in surfaces if anatomy[name].side}
    reference = next((n for role in ("bone", "skin") for n in surfaces if anatomy[n].role == role), None)
    told: list[str] = []
    for name, side in sided.items():
        sign = 1.0 if side == "left" else -1.0  # +x is the patient's left
        if reference is not None:
            low, high = (surfaces[reference].vertices[:, 0].min(), surfaces[reference].vertices[:, 0].max())
            offset = sign * (_centroid_x(surfaces[name]) - 0.5 * (low + high))
            limit, how = OFF_MIDLINE_M, f"centroid {abs(offset) * 1e3:.0f} mm off the midline of the {reference}"
        elif anatomy[name].role == "organ":
            x = surfaces[name].vertices[:, 0]
            offset = sign * (_centroid_x(surfaces[name]) - 0.5 * float(x.min() + x.max()))
            limit = TAPER_SHARE * float(np.ptp(x))
            how = f"bulk {abs(offset) * 1e3:.0f} mm off the middle of its width, tapering across"
        else:
            continue
        if offset < -limit:
            wrong = "left" if side == "right" else "right"
            raise CaseError(
                f"the {name} on the patient's {side}", f"on the {wrong} ({how})", name,
                "The axes are not as given, or the data are mirrored: check --axes, and the patient.",
            )  # fmt: skip
        if offset > limit:
            told.append(f"{name} on the {side}: {how}")
    if not told:
        return "unchecked: neither skin, bones nor the organ's shape tell left from right"
    return "checked: " + "; ".join(told)


def _centroid_x(surface: Surface) -> float:
    return float(centroid_of(surface.vertices, surface.triangles)[0])
