"""What the soft body's errors are measured on: a block with a tumour and a vessel, and generated patients."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from twinguide_softbody.materials import mix, tissue_of

if TYPE_CHECKING:
    from twinguide.case import Case

SIZE = 0.12
TARGET = np.array([0.05, 0.06, 0.065])
SURE = np.eye(3) * 0.0003**2
DRIVES = ([0.002, -0.005, 0.015], [0.0, 0.008, -0.01], [-0.008, 0.0, 0.01], [0.001, -0.003, 0.008])  # [m]


def inner(points: np.ndarray) -> dict[str, np.ndarray]:
    """Tell which points [m], shape (n, 3), lie in the tumour (a ball of 4 cm) and in the vessel (a tube of 1.6 cm)."""
    across = points[:, 1:] - [0.06, 0.03]
    return {
        "tumour": np.linalg.norm(points - TARGET, axis=1) < 0.02,
        "vessel": np.linalg.norm(across, axis=1) < 0.008,
    }


def mixture(vertices: np.ndarray, tetrahedra: np.ndarray, scale: dict[str, float] | None = None):
    """Mix tissues in a mesh by sampled volume fractions; `scale` multiplies a tissue's modulus."""
    places = np.random.default_rng(0).dirichlet(np.ones(4), 64)
    samples = np.einsum("sc,mcx->msx", places, vertices[tetrahedra]).reshape(-1, 3)
    shares = {
        k: v.reshape(len(tetrahedra), -1).mean(axis=1).astype(np.float32) for k, v in inner(samples).items()
    }  # fmt: skip
    tissues = {"own": tissue_of("organ"), "tumour": tissue_of("tumour"), "vessel": tissue_of("vessel")}
    for name, factor in (scale or {}).items():
        known = tissues[name]
        tissues[name] = replace(known, young_pa=known.young_pa * factor, young_sigma_pa=known.young_sigma_pa * factor)
    return mix(tissues["own"], shares, tissues, len(tetrahedra)), tissues


def patient(seed: int, folder: str) -> tuple[Case, np.ndarray, np.ndarray]:
    """Generate a patient in a folder: the case, and at full inspiration the target's motion and the vertices [m]."""
    from twinguide.case import Case
    from twinguide.importing import import_case
    from twinguide.registry import Registry, resolve
    from twinguide_patient.options import PatientOptions
    from twinguide_patient.room import furnish

    registry = Registry.load()
    surfaces, imported = Path(folder) / f"liver-{seed}", Path(folder) / "case"
    surfaces.mkdir()
    resolve(registry.part("liver").make)(surfaces, seed)
    import_case(surfaces, imported, units="mm", axes="lps", breathing_phase="end-expiration",
                organs=registry.organs(), progress=lambda what, share: None)  # fmt: skip
    case = Case.load(imported)
    body, tissue = case.body(), furnish(seed, PatientOptions(), case).tissue
    return case, tissue.motion, body.vertices + tissue.organ(body.vertices, 1.0)
