import logging
import zlib
from types import SimpleNamespace

import numpy as np
import pytest

from twinguide_patient.options import PatientOptions


class Ball:
    """A sphere with an exact distance, in place of a grid."""

    def __init__(self, centre, radius):
        self.centre, self.radius = np.array(centre), radius

    def at(self, points):
        return np.sqrt(((points - self.centre) ** 2).sum(axis=1)) - self.radius


ENTRY, TARGET = np.array([-0.10, -0.11, 0.02]), np.array([-0.06, -0.02, 0.03])
HALFWAY = (ENTRY + TARGET) / 2


class StandInCase:
    """The attributes of a case that the simulated patient reads."""

    plan = SimpleNamespace(entry=ENTRY, target=TARGET, target_structure="tumour")
    landmarks = {  # noqa: RUF012
        f"f{i}": SimpleNamespace(name=f"f{i}", position=ENTRY + np.array(d), kind="fiducial")
        for i, d in enumerate([(0.05, 0, 0.03), (-0.04, 0.02, 0.04), (0.02, 0, -0.06)])
    }
    structures = {  # noqa: RUF012
        "skin": SimpleNamespace(name="skin", role="skin", risk="pass"),
        "tumour": SimpleNamespace(name="tumour", role="tumour", risk="target"),
        "portal_vein": SimpleNamespace(name="portal_vein", role="vessel", risk="critical"),
        "ribs": SimpleNamespace(name="ribs", role="bone", risk="critical"),
    }
    gridded = ("portal_vein", "ribs")

    def surface(self, name):
        angles = np.linspace(0, 2 * np.pi, 40)
        ring = np.stack([0.17 * np.cos(angles), 0.12 * np.sin(angles), 0 * angles], axis=1)
        return SimpleNamespace(vertices=np.vstack([np.add(ring, (0, 0, z)) for z in np.linspace(-0.3, 0.3, 13)]))

    def distance(self, name):
        return {"portal_vein": Ball(HALFWAY, 0.006), "ribs": Ball([0.1, 0.1, 0.1], 0.01)}[name]


@pytest.fixture
def context():
    def make(seed=1, **options):
        def rng(stream=""):
            return np.random.default_rng([seed, zlib.crc32(stream.encode())])

        return SimpleNamespace(
            name="patient", options=PatientOptions(**options), seed=seed, case=StandInCase(),
            log=logging.getLogger("patient"), rng=rng,
        )  # fmt: skip

    return make
