from pathlib import Path

import numpy as np
import pytest

from twinguide.errors import CaseError
from twinguide_softbody import materials
from twinguide_softbody.materials import LITERATURE, Tissue, mix, tissue_of

README = Path(materials.__file__).with_name("README.md")


def test_a_case_that_tells_is_believed_and_one_that_does_not_gets_the_literature():
    assert tissue_of("organ", 5000.0, 1500.0, 0.45) == Tissue(5000.0, 1500.0, 0.45, "the case's organ")
    assert tissue_of("tumour") is LITERATURE["tumour"]
    assert tissue_of("vessel", 30e3).young_sigma_pa == pytest.approx(30e3 * 41 / 62)  # the literature's relative spread


@pytest.mark.parametrize("young", [-5e3, 1.0, 5e9, np.nan])
def test_a_modulus_that_no_tissue_has_is_refused(young):
    with pytest.raises(CaseError, match="modulus of 10 to 1e"):
        tissue_of("organ", young)


def test_the_logarithms_spread_gives_back_the_moduli():
    tissue = LITERATURE["tumour"]
    draws = np.exp(np.random.default_rng(0).normal(size=200_000) * tissue.log_sigma)
    # Log-normal: the ratio of standard deviation and mean is the table's; 200 000 draws tell it to 1 %.
    assert draws.std() / draws.mean() == pytest.approx(tissue.young_sigma_pa / tissue.young_pa, rel=0.01)


def test_tissues_mix_by_volume_and_never_exceed_the_whole():
    own, tumour, cyst = tissue_of("organ", 5e3, 1e3), tissue_of("tumour", 20e3, 1e4), tissue_of("cyst", 1e3, 5e2)
    shares = {
        "tumour": np.array([0.0, 0.5, 1.0, 0.9], dtype=np.float32),
        "cyst": np.array([0.25, 0.0, 0.0, 0.9], dtype=np.float32),
    }
    mixture = mix(own, shares, {"tumour": tumour, "cyst": cyst}, 4)
    assert mixture.names == ["own", "tumour", "cyst"]
    np.testing.assert_allclose(mixture.shares.sum(axis=0), 1.0)
    np.testing.assert_allclose(mixture.young_pa, [4e3, 12.5e3, 20e3, 10.5e3])
    np.testing.assert_allclose(mixture.poisson[:2], [0.45, 0.45])


@pytest.mark.parametrize("bad", [np.ones(3), np.full(4, np.nan), np.full(4, 1.5)])
def test_fractions_that_do_not_fit_are_refused(bad):
    with pytest.raises(CaseError, match="volume fractions"):
        mix(tissue_of("organ"), {"tumour": bad.astype(np.float32)}, {"tumour": tissue_of("tumour")}, 4)


def test_every_value_has_a_source_and_the_readme_shows_the_table_as_it_is():
    for name, tissue in LITERATURE.items():
        assert "doi:10." in tissue.source or "assumption" in tissue.source, name
    assert materials.as_markdown() in README.read_text()
