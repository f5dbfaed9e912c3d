"""Deform an organ by hyperelasticity, driven by what measures it; usable on arrays alone.

    from twinguide_softbody import SoftBody, block, mix, tissue_of

`SoftBody` follows a target and says how sure each vertex is; `Solver` is the bare balance of a `Body` and `Springs`.
What is imported is loaded when first asked for, so that declaring the plugin's part costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .body import Body, Springs
    from .constraints import Points, Surroundings, points_of, pressed
    from .materials import LITERATURE, Mixture, Tissue, mix, tissue_of
    from .mesh import block, check_mesh, quadratic
    from .organ import Frame, SoftBody
    from .quasistatic import Solved, Solver

__all__ = [
    "LITERATURE",
    "Body",
    "Frame",
    "Mixture",
    "Points",
    "SoftBody",
    "Solved",
    "Solver",
    "Springs",
    "Surroundings",
    "Tissue",
    "block",
    "check_mesh",
    "mix",
    "points_of",
    "pressed",
    "quadratic",
    "tissue_of",
]
_HOMES = ("mesh", "body", "materials", "constraints", "quasistatic", "organ")  # what loads quickly first


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the names above
    """Import a public name from the first module that has it."""
    for home in _HOMES if name in __all__ else ():
        module = import_module(f"{__name__}.{home}")
        if hasattr(module, name):
            return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
