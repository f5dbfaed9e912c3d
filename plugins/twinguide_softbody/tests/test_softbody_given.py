"""What a newcomer may give a soft body: refused with a word that helps, or stepped over with the level lowered."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from twinguide.errors import CaseError
from twinguide_softbody import (
    SoftBody,
    Surroundings,
    Tissue,
    block,
    mix,
    organ,
    points_of,
    pressed,
    tissue_of,
)

VERTICES, TETRAHEDRA = block(4, 0.12)
TARGET, CORNER = np.array([0.06, 0.06, 0.06]), VERTICES[-1:]
SURE, STILL = np.eye(3) * 1e-7, np.zeros(3)


def mixed(count):
    return mix(tissue_of("organ"), {}, {}, count)


def made(vertices=VERTICES, tetrahedra=TETRAHEDRA, mixture=None, target=TARGET, held=None, **options):
    return SoftBody(vertices, tetrahedra, mixture or mixed(len(TETRAHEDRA)), target, held, **options)


@pytest.fixture(scope="module")
def body():
    return made()


@pytest.fixture
def settled(body):
    """The body at rest, all that was before forgotten."""
    for _ in range(4):
        body.step(STILL, SURE)
    return body


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"vertices": 1e3 * VERTICES}, "1 mm to 2 m; got 120 m"),
        ({"vertices": VERTICES * [1, 1, 0]}, "384 flat or inverted"),
        ({"tetrahedra": TETRAHEDRA[:, [1, 0, 2, 3]]}, "384 flat or inverted, first 0; .* Swap two columns"),
        ({"tetrahedra": TETRAHEDRA.astype(float)}, "whole numbers"),
        ({"tetrahedra": TETRAHEDRA + 1}, "got 1 to 125, of 125"),
        ({"tetrahedra": TETRAHEDRA.astype(np.int64) + 2**32}, "tetrahedra that name"),
        ({"tetrahedra": TETRAHEDRA[:0]}, "got none"),
        ({"mixture": mixed(3)}, "one young_pa, or 384; got shape .3,."),
        ({"mixture": {"organ": 5e3}}, "a Mixture of tissues; got .* by `mix`"),
        ({"target": 1e3 * TARGET}, "in the body; got .* mm outside"),
        ({"target": np.full(3, np.nan)}, "a finite target"),
        ({"target": TARGET[None]}, "shape .3,."),
        ({"patch_radius_m": 12.0}, "got 12 m"),
        ({"patch_radius_m": -0.01}, "got -0.01 m"),
        ({"patch_radius_m": np.nan}, "got nan m"),
        ({"backend": "gpu"}, "backend of auto, cpu, cuda; got .gpu."),
        ({"material": "rubber"}, "a material of"),
        ({"reduced": "on"}, "reduced off or auto"),
    ],
)
def test_what_no_body_can_be_made_of_is_refused_with_the_reason(given, told):
    with pytest.raises(CaseError, match=told):
        made(**given)


@pytest.mark.parametrize("nu", [0.4995, 0.49999999, 0.5, 0.6, -0.1, np.nan])
def test_a_poissons_ratio_that_no_tissue_has_is_refused(nu):
    with pytest.raises(CaseError, match=r"nu of 0 to 0.499; got E = 5000 .* nu = "):
        tissue_of("organ", 5e3, 0.0, nu)


@pytest.mark.parametrize(
    ("young_pa", "sigma_pa"),
    [*((e, 0.0) for e in (1e-6, 1e-3, 1e9, 1e20, -5e3, np.nan, np.inf)), *((5e3, s) for s in (np.inf, np.nan, -1.0))],
)
def test_a_tissue_whose_modulus_or_spread_no_tissue_has_is_refused(young_pa, sigma_pa):
    with pytest.raises(CaseError, match=r"in a tissue .one of mine.. Give Young's modulus in Pa"):
        Tissue(young_pa, sigma_pa, 0.45, "one of mine")
    with pytest.raises(CaseError, match=r"in a tissue .the case's organ.. Give Young's modulus in Pa"):
        tissue_of("organ", young_pa, sigma_pa or 1e3)


def test_an_error_that_is_no_number_makes_the_frame_rigid_and_is_never_certainty():
    wild = made(held=Surroundings(share_sigma=1e30))  # its square leaves single precision
    frame = wild.step(np.array([0.0, 0.0, 0.01]), SURE)
    assert frame.level == "rigid"
    assert frame.reason == "the errors are not finite"
    assert (frame.sigma == 1.0).all()


def test_a_role_that_is_none_and_a_fraction_without_tissue_are_no_parenchyma():
    with pytest.raises(CaseError, match=r"tumour, vessel.*; got 'tumor'"):
        tissue_of("tumor")
    with pytest.raises(CaseError, match="a tissue for x; got tissues for y"):
        mix(tissue_of("organ"), {"x": np.zeros(3)}, {"y": tissue_of("tumour")}, 3)


@pytest.mark.parametrize("value", [-1.0, np.nan, np.inf])
def test_surroundings_below_nothing_are_refused(value):
    with pytest.raises(CaseError, match="dome of 0 or more"):
        Surroundings(dome=value)


def test_surroundings_that_would_tear_the_organ_apart_are_refused():
    with pytest.raises(CaseError, match=r"dome_share of 0 to 3; got 1000000.0; in the surroundings"):
        Surroundings(dome_share=1e6)


def test_arrays_of_any_kind_and_order_give_the_same_body(body):
    still = np.array(VERTICES), np.array(TETRAHEDRA)
    for array in still:
        array.flags.writeable = False
    wanted = made().step(np.array([0.0, 0.0, 0.01]), SURE).vertices
    for vertices, tetrahedra in (
        still,
        (np.asfortranarray(VERTICES), np.asfortranarray(TETRAHEDRA)),
        (VERTICES.tolist(), TETRAHEDRA.tolist()),
        (VERTICES, TETRAHEDRA.astype(np.uint64)),
    ):
        found = made(vertices, tetrahedra).step(np.array([0.0, 0.0, 0.01]), SURE.tolist()).vertices
        np.testing.assert_array_equal(found, wanted)
    single = made(VERTICES.astype(np.float32)).step(np.array([0.0, 0.0, 0.01], np.float32), SURE).vertices
    np.testing.assert_allclose(single, wanted, atol=1e-6)


def test_one_tetrahedron_is_a_body():
    corners = np.array([[0, 0, 0], [0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1]])
    frame = made(corners, np.arange(4)[None], mixed(1), np.full(3, 0.02)).step(np.array([0.0, 0.0, 0.004]), SURE)
    assert frame.level == "full"
    assert np.isfinite(frame.sigma).all()


@pytest.mark.parametrize(
    ("displacement", "covariance", "told"),
    [
        (np.full(3, np.nan), SURE, "not finite"),
        (STILL, SURE * np.nan, "not finite"),
        (np.full(3, 1e200), SURE, "no organ's"),
        (np.array([0.0, 0.0, 10.0]), SURE, "10000 mm is no organ's"),
        (np.array([0.0, 0.0, 0.09]), SURE, "jumped by 90 mm"),
        (STILL, -SURE, "negative variance"),
        (STILL, SURE + np.diag([1e-6, 0.0], 1), "no symmetry"),
    ],
)
def test_a_drive_that_cannot_be_used_leaves_the_body_rigid_where_it_was(settled, displacement, covariance, told):
    frame = settled.step(displacement, covariance)
    assert frame.level == "rigid"
    assert told in frame.reason
    np.testing.assert_array_equal(frame.vertices, VERTICES)
    assert np.isfinite(frame.sigma).all()
    assert settled.step(STILL, SURE).level == "full"


@pytest.mark.parametrize("given", [(np.zeros((1, 3)), SURE), (STILL, np.float64(1e-7)), (STILL, np.full(3, 1e-7))])
def test_a_drive_of_another_shape_is_refused(settled, given):
    with pytest.raises(CaseError, match=r"a displacement .3,. .m. and its covariance .3, 3."):
        settled.step(*given)


def corner(moved=(0.0, 0.003, 0.0), covariance=SURE):
    points = points_of(VERTICES, TETRAHEDRA, CORNER, CORNER, SURE[None])
    return replace(points, mean=CORNER + moved, covariance=covariance[None])


@pytest.mark.parametrize(
    ("points", "told"),
    [
        (corner(moved=(0.0, np.nan, 0.0)), "not finite"),
        (corner(covariance=-SURE), "negative variance"),
        (corner(moved=(0.0, 0.09, 0.0)), "jumped by 90 mm"),
        (corner(moved=(0.0, 0.9, 0.0)), "900 mm away from where they rest"),
    ],
)
def test_points_that_cannot_be_used_are_left_out_by_arrays_alone_too(settled, points, told):
    for _ in range(5):  # the same points again are no new measurement that agrees
        frame = settled.step(STILL, SURE, {"probe": points})
        assert frame.level == "partial"
        assert frame.reason.startswith("probe left out: ")
        assert told in frame.reason
        np.testing.assert_allclose(frame.vertices, VERTICES, atol=1e-6)
    frame = settled.step(STILL, SURE, {"probe": corner()})
    assert frame.level == "full"
    np.testing.assert_allclose(frame.vertices[-1] - VERTICES[-1], [0.0, 0.003, 0.0], atol=2e-4)


def test_points_of_another_body_or_of_none_are_refused(settled):
    vertices, tetrahedra = block(3, 0.12)
    other = points_of(vertices, tetrahedra, vertices[-1:], vertices[-1:], SURE[None])
    for points in (other, *(replace(corner(), weights=share * corner().weights) for share in (0.0, np.nan))):
        with pytest.raises(CaseError, match="this body's vertices"):
            settled.step(STILL, SURE, {"probe": points})


@pytest.mark.parametrize("measured", [CORNER, [corner()], {"probe": CORNER}, {"probe": None}])
def test_what_is_no_mapping_of_points_is_refused(settled, measured):
    with pytest.raises(CaseError, match=r"by the name of what measures; got .* `points_of` or `pressed`"):
        settled.step(STILL, SURE, measured)


def test_a_body_that_was_closed_says_so():
    body = made()
    body.close()
    with pytest.raises(CaseError, match=r"open; got one that was closed"):
        body.step(STILL, SURE)


def test_no_points_at_all_are_as_none(settled):
    none = np.zeros((0, 3))
    for radius_m in (0.0, 0.01):
        points = points_of(VERTICES, TETRAHEDRA, none, none, np.zeros((0, 3, 3)), radius_m)
        frame = settled.step(STILL, SURE, {"probe": points})
        assert (frame.level, frame.reason) == ("full", "")


@pytest.mark.parametrize(
    ("tip", "radius_m"), [(np.full(3, np.nan), 0.02), (TARGET, 0.0), (TARGET, -1.0), ([0.1], 0.02)]
)
def test_a_probe_that_is_none_is_refused(tip, radius_m):
    with pytest.raises(CaseError, match=r"a finite tip .3,., a radius and a sigma above 0"):
        pressed(VERTICES, TETRAHEDRA, tip, radius_m, 0.001)


def test_a_probe_may_be_told_by_lists():
    tip = [0.06, 0.06, 0.117]
    told, taken = (pressed(*given, 0.02, 0.001) for given in ((VERTICES.tolist(), TETRAHEDRA.tolist(), tip),
                                                             (VERTICES, TETRAHEDRA, np.array(tip))))  # fmt: skip
    np.testing.assert_array_equal(told.rest, taken.rest)


@pytest.mark.parametrize("radius_m", [np.nan, -0.01, 10.0])
def test_a_patch_of_no_size_or_in_millimetres_is_refused(radius_m):
    with pytest.raises(CaseError, match="a radius of 0 to the body's size"):
        points_of(VERTICES, TETRAHEDRA, CORNER, CORNER, SURE[None], radius_m)


def test_the_readmes_snippet_runs_as_it_stands(capsys):
    text = Path(organ.__file__).with_name("README.md").read_text()
    exec(text.split("```python\n")[1].split("```")[0], {})
    assert "(729, 3) full" in capsys.readouterr().out
