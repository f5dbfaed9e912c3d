"""Stiffness of tissue from the literature, with its spread: used where a case does not tell.

Young's modulus [Pa] at small strains; where a source gives the shear modulus of an incompressible tissue, three times
that. The spread is the standard deviation between subjects, not the standard error of a mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from twinguide.errors import CaseError

Array = NDArray[np.float64]
LEAST_PA, MOST_PA = 10.0, 1e8  # softer than any tissue, stiffer than any but bone: what lies beyond is a slip of units
MOST_POISSON = 0.499  # to where radii hold 95 %; at 0.4999 a frame's few iterations leave more than they say
FIX = "Give Young's modulus in Pa: liver has about 5e3; wet tissue has a Poisson's ratio of 0.45 to 0.49."


@dataclass(frozen=True, slots=True)
class Tissue:
    """What one tissue is known by: modulus and its spread [Pa], Poisson's ratio, and where they come from."""

    young_pa: float
    young_sigma_pa: float
    poisson: float
    source: str

    def __post_init__(self) -> None:
        """Refuse what no tissue has."""
        young, spread, poisson = self.young_pa, self.young_sigma_pa, self.poisson
        sound = LEAST_PA <= young <= MOST_PA and 0.0 <= spread <= 3 * young and 0.0 <= poisson <= MOST_POISSON
        if not sound:
            got, stiff = f"E = {young:g} +- {spread:g} Pa, nu = {poisson:g}", f"{LEAST_PA:g} to {MOST_PA:g} Pa"
            wanted = f"a modulus of {stiff}, a spread of three times that at most, nu of 0 to {MOST_POISSON}"
            raise CaseError(wanted, got, f"a tissue ({self.source})", FIX)

    @property
    def log_sigma(self) -> float:
        """Standard deviation of the modulus's logarithm, as if it were log-normal: it cannot be negative."""
        return float(np.sqrt(np.log1p((self.young_sigma_pa / self.young_pa) ** 2)))


# A vessel fills its tetrahedra with lumen as well as wall; along its axis a thin tube of thickness t and radius r
# carries like a solid rod of modulus E 2t/r, and 2t/r of portal and hepatic veins is about 0.1.
TUBE = 0.1

LITERATURE: Mapping[str, Tissue] = {
    "parenchyma": Tissue(
        4.3e3, 1.2e3, 0.45,
        "transient elastography, 50 donors with normal histology: Alsebaey 2015, doi:10.4254/wjh.v7.i8.1149; "
        "4.1 +- 0.9 kPa in 530 subjects: Fung 2013, doi:10.1371/journal.pone.0085067; Poisson's ratio: an assumption, "
        "blood can leave and tissue cannot",
    ),
    "fibrotic parenchyma": Tissue(
        17.7e3, 9e3, 0.45,
        "MR elastography, mean shear modulus 5.9 kPa: Venkatesh 2008, doi:10.2214/AJR.07.3123; spread: an assumption, "
        "it overlaps tumours there",
    ),
    "tumour": Tissue(
        20e3, 10e3, 0.45,
        "MR elastography, mean shear modulus of malignant tumours 10.1 kPa and of benign ones 2.7 kPa: Venkatesh 2008, "
        "doi:10.2214/AJR.07.3123; 3.4 and 2.4 kPa: Garteiser 2012, doi:10.1007/s00330-012-2474-6; mean and spread here "
        "cover both studies, as what kind it is may not be known",
    ),
    "vessel": Tissue(
        62e3, 41e3, 0.45,
        "wall of porcine hepatic veins at small strains 0.62 +- 0.41 MPa (20 samples): Umale 2011, "
        "doi:10.1016/j.jbiomech.2011.03.029; times 2t/r = 0.1 for a tube with an empty lumen",
    ),
    "capsule": Tissue(
        8.22e6, 3.42e6, 0.45,
        "porcine Glisson's capsule at small strains (30 samples): Umale 2011, doi:10.1016/j.jbiomech.2011.03.029",
    ),
    "gallbladder": Tissue(
        25e3, 15e3, 0.49,
        "an assumption: a wall of some hundred kPa times 0.1 as for a vessel, as bile shears freely; the human wall: "
        "Karimi 2017, doi:10.1080/03091902.2017.1366561",
    ),
    "fluid": Tissue(
        0.5e3, 0.25e3, 0.49, "a cyst's content shears freely; what stays is its wall's share: an assumption"
    ),
}  # fmt: skip
BY_ROLE: Mapping[str, str] = {
    "organ": "parenchyma",
    "tumour": "tumour",
    "vessel": "vessel",
    "bile": "gallbladder",
    "cyst": "fluid",
    **dict.fromkeys(("bone", "pleura", "skin", "other"), "parenchyma"),  # if such a thing reaches into the organ
}


def tissue_of(role: str, young_pa: float = 0.0, young_sigma_pa: float = 0.0, poisson: float = 0.45) -> Tissue:
    """Return the tissue of a structure: as its case tells [Pa], or by its role from the literature.

    A case that tells a modulus and no spread gets the literature's relative spread. Raises CaseError for a modulus
    that no tissue has.
    """
    if role not in BY_ROLE:
        raise CaseError(f"a role of {', '.join(BY_ROLE)}", repr(role), "a tissue", "Or build a Tissue of your own.")
    known = LITERATURE[BY_ROLE[role]]
    if young_pa == 0.0:
        return known
    spread = young_sigma_pa or young_pa * known.young_sigma_pa / known.young_pa
    return Tissue(young_pa, spread, poisson, f"the case's {role}")


@dataclass(frozen=True, slots=True, eq=False)
class Mixture:
    """What each of m tetrahedra is made of: `shares` (p, m) of `tissues`, their sum 1, by volume."""

    tissues: Sequence[Tissue]
    names: Sequence[str]
    shares: Array

    @property
    def young_pa(self) -> Array:
        """Young's modulus [Pa], shape (m,): Voigt's mean, by volume."""
        return np.array([tissue.young_pa for tissue in self.tissues]) @ self.shares

    @property
    def poisson(self) -> Array:
        """Poisson's ratio, shape (m,), by volume."""
        return np.array([tissue.poisson for tissue in self.tissues]) @ self.shares


def mix(
    own: Tissue, fractions: Mapping[str, NDArray[np.float32]], tissues: Mapping[str, Tissue], count: int
) -> Mixture:
    """Mix tissues in `count` tetrahedra by volume fractions, shape (m,) each; what is left is the organ's own.

    Raises CaseError where fractions do not fit the mesh or lie outside 0..1. Where they sum to more than 1, as where
    two surfaces overlap, they are scaled down.
    """
    names = list(fractions)
    for name in names:
        f = np.asarray(fractions[name])
        if name not in tissues:
            raise CaseError(f"a tissue for {name}", f"tissues for {', '.join(tissues) or 'nothing'}", "the mixture")
        if f.shape != (count,) or not np.isfinite(f).all() or f.min() < -1e-6 or f.max() > 1 + 1e-6:
            got = f"shape {f.shape}, {f.min():g} to {f.max():g}"
            raise CaseError(f"{count} volume fractions in 0..1", got, f"fraction of {name}", "Import the case again.")
    inner = np.array([fractions[name] for name in names], dtype=np.float64).reshape(len(names), count).clip(0.0, 1.0)
    inner /= np.maximum(inner.sum(axis=0), 1.0)
    rest = 1.0 - inner.sum(axis=0)
    return Mixture([own, *(tissues[name] for name in names)], ["own", *names], np.vstack([rest, inner]))


def as_markdown() -> str:
    """Return the table for people."""
    rows = ["| tissue | E [kPa] | spread [kPa] | nu | source |", "|---|---|---|---|---|"]
    for name, t in LITERATURE.items():
        young, spread = t.young_pa * 1e-3, t.young_sigma_pa * 1e-3
        rows.append(f"| {name} | {young:g} | {spread:g} | {t.poisson:g} | {t.source} |")
    return "\n".join(rows)
