"""The soft body against known answers: each case computes a number, states the one expected, how near and why.

`test_verification.py` asserts every case, `report.py` writes them into docs/verification.md. SI units.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from contact import FORCE, hertz
from machines import apart_from_scikit_fem, difference
from problems import (
    BEDDED,
    YOUNG,
    bedded_sag,
    cantilever,
    clamped_sag,
    elastica,
    elastica_weight,
    frequency,
    hanging,
    patch,
    shear,
    sphere,
    uniaxial,
)


@dataclass(frozen=True)
class Case:
    """One check: `compute()` returns the number; `tolerance` is relative unless `expected` is 0."""

    name: str
    unit: str
    expected: float
    tolerance: float
    why: str
    compute: Callable[[], float]

    def error(self, got: float) -> float:
        """Return the relative error, or the absolute one where 0 is expected."""
        return abs(got - self.expected) / (abs(self.expected) or 1.0)


def _homogeneous() -> list[Case]:
    """Return bodies of one strain throughout."""
    spring = "springs of STIFF give by 1e-6 m, and the stress is that of the stretch reached"
    out = [
        Case(
            "affine patch, 4 nodes",
            "m",
            0.0,
            1e-7,
            "springs of 1e8 N/m give by their reaction, some 1e-8 m",
            lambda: patch(1),
        ),
        Case("affine patch, 10 nodes", "m", 0.0, 1e-7, "as above", lambda: patch(2)),
    ]
    for stretch, expected in ((0.7, -2160.953), (0.8, -1247.306), (1.2, 851.692), (1.5, 1794.381), (2.0, 2995.690)):
        out.append(Case(f"uniaxial stress at {stretch}", "Pa", expected, 5e-4, spring, partial(uniaxial, stretch)))
    limit = "nu = 0.4995 for the incompressible limit: off by 6e-4 at most, as it falls with 1 - 2 nu"
    for stretch, expected in ((0.7, -2234.694), (0.8, -1270.833), (1.2, 842.593), (1.5, 1759.259), (2.0, 2916.667)):
        name = f"incompressible stress at {stretch}"
        out.append(Case(name, "Pa", expected, 1e-3, limit, partial(uniaxial, stretch, YOUNG, 0.4995)))
    rubber = "as above; mu = 0.39 MPa, the fit of Neo-Hooke's law to Treloar's rubber, not his table"
    out.append(Case("rubber at 2.0", "Pa", 0.6825e6, 1e-3, rubber, partial(uniaxial, 2.0, 3 * 0.39e6, 0.4995)))
    corotational = "stress is E times the stretch less 1, for any nu; springs as above"
    name, compute = "corotational stress at 1.5", partial(uniaxial, 1.5, material="corotational")
    out.append(Case(name, "Pa", 0.5 * YOUNG, 5e-4, corotational, compute))
    for amount, expected in ((0.2, 344.828), (0.5, 862.069)):
        out.append(Case(f"simple shear {amount}", "Pa", expected, 5e-4, spring, partial(shear, amount)))
    return out


def _beams() -> list[Case]:
    """Return bent beams."""
    slender = (
        "a beam 40 times longer than thick: shear and the cells leave under half a percent, the mesh bends in 40 cells"
    )
    out = [
        Case("cantilever, small load", "m", 2.0e-3, 0.03, "the clamp hinders Poisson's ratio (some 2 %)", cantilever),
        Case("the same at nu = 0.49", "m", 2.0e-3, 0.05, "as above, 4 %: nothing locks", partial(cantilever, 0.49)),
    ]
    for load, down, back in (
        (1, 0.30172, 0.05643),
        (2, 0.49346, 0.16064),
        (5, 0.71379, 0.38763),
        (10, 0.81061, 0.55500),
    ):
        for axis, value in enumerate((down, back)):
            name = f"elastica, end load {load}, {('down', 'back')[axis]}"
            out.append(
                Case(name, "L", value, 0.01, slender, lambda a=axis, f=(load, down, back): float(elastica(*f)[a]))
            )
    large = "strains are small, turns are large: the law that has only those right"
    compute = lambda: float(elastica(1, 0.30172, 0.05643, material="corotational")[0])  # noqa: E731
    out.append(Case("elastica, end load 1, down, corotational", "L", 0.30172, 0.01, large, compute))
    for load, down, back in ((1, 0.12347, 0.00875), (4, 0.42516, 0.10989), (10, 0.70020, 0.34365)):
        for axis, value in enumerate((down, back)):
            name = f"elastica, own weight {load}, {('down', 'back')[axis]}"
            out.append(Case(name, "L", value, 0.015, slender, lambda a=axis, w=load: float(elastica_weight(w)[a])))
    return out


def _bars_and_spheres() -> list[Case]:
    """Return bodies with closed solutions, and a bar's frequency."""
    free = "linear; the corners' hold lets the sides move, the face at the top stays flat"
    return [
        Case("hanging bar, free", "m", 9.8100e-3, 2e-3, free, lambda: hanging(False)),
        Case(
            "hanging bar, confined",
            "m",
            2.58627e-3,
            1e-3,
            "linear, exact for quadratic elements but for STIFF",
            lambda: hanging(True),
        ),
        Case(
            "thick sphere, outer wall",
            "m",
            0.471429e-3,
            0.01,
            "flat facets for a round wall, six to a right angle's half",
            lambda: sphere()[0],
        ),
        Case(
            "thick sphere, pressure",
            "Pa",
            500.0,
            0.04,
            "as above, and first derivatives converge more slowly",
            lambda: sphere()[1],
        ),
        Case(
            "Hertz, sphere pressed 5 mm",
            "N",
            FORCE,
            0.01,
            "the given area snaps to nodes 0.8 mm apart, and the force is stationary in it",
            hertz,
        ),
        Case("axial frequency of a bar", "Hz", 5.5902, 2e-3, "20 lumped masses: pi^2/24/20^2 = 0.1 %", frequency),
    ]


def _blocks() -> list[Case]:
    """Return the block of 10 cm, clamped and on its bed."""
    out: list[Case] = []
    for cells, expected, tolerance, given in (
        (6, 51.548e-3, 3e-5, "a micrometre"),
        (9, 54.191e-3, 3e-5, "a micrometre"),
        (15, 56.398e-3, 3e-5, "a micrometre"),
        (20, 57.21e-3, 2e-4, "a hundredth of a millimetre"),
        (26, 57.78e-3, 2e-4, "a hundredth of a millimetre"),
    ):
        why = f"a regression value found by two independent codes, given to {given}"
        name = f"block's sag, {6 * cells**3} tetrahedra"
        out.append(Case(name, "m", expected, tolerance, why, partial(clamped_sag, cells)))
    for cells, order, tolerance in ((9, 1, 0.06), (5, 2, 0.01)):
        why = "the mesh's own error, measured: it may not grow"
        name = f"bedded block, order {order}, {6 * cells**3} tetrahedra"
        out.append(Case(name, "m", BEDDED, tolerance, why, partial(bedded_sag, cells, order)))
    return out


def _machines() -> list[Case]:
    """Return the text for CUDA, run by the C compiler, and scikit-fem against the text for the CPU."""
    why = "both converge to the balance of float64's forces: 1e-9 of the body's size"
    same = "the same equations: 0.1 % is room for the rules of quadrature, which differ with 10 nodes"
    out: list[Case] = []
    for nodes, cells, order in ((4, 6, 1), (10, 3, 2)):
        compute = partial(apart_from_scikit_fem, cells, order)
        out.append(Case(f"scikit-fem against C, {nodes} nodes each", "of the sag", 0.0, 1e-3, same, compute))
        cuda = partial(difference, cells, order)
        out.append(Case(f"CUDA's text against C, {nodes} nodes each", "m", 0.0, 1e-9, why, cuda))
    return out


CASES = [*_homogeneous(), *_beams(), *_bars_and_spheres(), *_blocks(), *_machines()]
