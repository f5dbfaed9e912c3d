"""Declare the liver and its surroundings: names of files, colours, risks, margins, stiffness.

Sources. "Textbook" marks values of general anatomy or practice that no single study stands behind, "an assumption" what
not even that tells; both are defaults for research, to be set per patient by whoever answers for the plan.
"""

from __future__ import annotations

from collections.abc import Iterable

from twinguide import Anatomy, Organ, Part, hookimpl

STRUCTURES = (
    Anatomy(
        "liver", role="organ", match=("liver", "hepar", "parenchyma"), colour=(0.62, 0.28, 0.22), risk="pass",
        tolerance_mm=5.0, young_pa=5_000.0, young_sigma_pa=1_500.0, poisson=0.45, side="right",
        source="5 +- 1.5 kPa spans transient elastography's 4.3 +- 1.2 (Alsebaey 2015, doi:10.4254/wjh.v7.i8.1149) and "
        "4.1 +- 0.9 (Fung 2013, doi:10.1371/journal.pone.0085067); "
        "5 mm: the acceptance usual in studies of liver puncture with augmented reality",
    ),
    Anatomy(
        "tumour", role="tumour", match=("tumour", "tumor", "lesion", "metastasis"), colour=(0.95, 0.80, 0.20),
        risk="target", tolerance_mm=5.0, young_pa=20_000.0, young_sigma_pa=10_000.0, poisson=0.45,
        source="20 +- 10 kPa lies between the means of malignant and benign tumours by MR elastography, 30 and 8 "
        "(Venkatesh 2008, doi:10.2214/AJR.07.3123)",
    ),
    Anatomy(
        "portal_vein", role="vessel", match=("portal_vein", "portal"), colour=(0.30, 0.45, 0.85), risk="critical",
        margin_mm=3.0, tolerance_mm=5.0, young_pa=50_000.0, young_sigma_pa=25_000.0, poisson=0.45,
        source="50 +- 25 kPa, an assumption within 62 +- 41: wall of porcine hepatic veins (Umale 2011, "
        "doi:10.1016/j.jbiomech.2011.03.029) times 2t/r = 0.1 for a tube, whose lumen carries nothing; "
        "3 mm margin: clearance of a 17 G needle and its bending (textbook)",
    ),
    Anatomy(
        "hepatic_veins", role="vessel", match=("hepatic_vein", "hepatic_veins", "cava"), colour=(0.25, 0.65, 0.85),
        risk="critical", margin_mm=3.0, tolerance_mm=5.0, young_pa=50_000.0, young_sigma_pa=25_000.0, poisson=0.45,
        source="as the portal vein (textbook)",
    ),
    Anatomy(
        "arteries", role="vessel", match=("arteries", "artery", "arterial"), colour=(0.85, 0.20, 0.20),
        risk="critical", margin_mm=3.0, tolerance_mm=5.0, young_pa=100_000.0, young_sigma_pa=50_000.0, poisson=0.45,
        source="twice the veins', for a thicker wall: an assumption",
    ),
    Anatomy(
        "gastric_vein", role="vessel", match=("gastric_vein",), colour=(0.45, 0.40, 0.80), risk="critical",
        margin_mm=3.0, tolerance_mm=5.0, source="margin as the portal vein (textbook)",
    ),
    Anatomy(
        "gallbladder", role="bile", match=("gallbladder",), colour=(0.35, 0.65, 0.30), risk="critical",
        margin_mm=5.0, tolerance_mm=5.0, young_pa=2_000.0, young_sigma_pa=1_000.0, poisson=0.49,
        source="2 +- 1 kPa, an assumption: bile shears freely and the wall is thin; with the wall of Karimi 2017, "
        "doi:10.1080/03091902.2017.1366561, taken as a vessel's it would be 25 +- 15; "
        "5 mm against bile leak (textbook)",
    ),
    Anatomy(
        "biliary_tract", role="bile", match=("biliary", "bile_duct"), colour=(0.45, 0.75, 0.35), risk="critical",
        margin_mm=3.0, tolerance_mm=5.0, source="margin as the portal vein, beside which it runs (textbook)",
    ),
    Anatomy(
        "cysts", role="cyst", match=("liver_cyst", "cysts", "cyst"), colour=(0.55, 0.75, 0.80), risk="none",
        tolerance_mm=10.0, young_pa=1_000.0, young_sigma_pa=500.0, poisson=0.49,
        source="1 +- 0.5 kPa, an assumption: the content shears freely, the wall's share stays",
    ),
    Anatomy(
        "ribs", role="bone", match=("ribs", "rib"), colour=(0.92, 0.90, 0.82), risk="critical", margin_mm=2.0,
        tolerance_mm=10.0, source="a needle passes over the upper edge of a rib; the underside carries vessel and "
        "nerve and has its own rule in guidance (textbook)",
    ),
    Anatomy(
        "pleura", role="pleura", match=("pleura", "lung"), colour=(0.80, 0.65, 0.75), risk="critical", margin_mm=4.0,
        tolerance_mm=10.0, source="against pneumothorax; the recess moves with breathing (textbook)",
    ),
    Anatomy(
        "skin", role="skin", match=("skin", "torso", "body_surface"), colour=(0.85, 0.68, 0.58), risk="pass",
        tolerance_mm=20.0, source="shown for orientation only",
    ),
)  # fmt: skip


@hookimpl
def parts() -> Iterable[Part]:
    """Declare the liver, with a generator of seeded patients."""
    return [Organ("liver", make="twinguide_liver.generator:generate", structures=STRUCTURES)]
