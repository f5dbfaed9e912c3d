import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from twinguide.errors import CaseError
from twinguide.importing.cleaning import clean
from twinguide.importing.geometry import volume_of

BALL = trimesh.creation.icosphere(subdivisions=3, radius=0.05)
VERTICES, TRIANGLES = np.array(BALL.vertices), np.array(BALL.faces, dtype=np.int64)
VOLUME = 4 / 3 * np.pi * 0.05**3


def volume(surface):
    return volume_of(surface.vertices, surface.triangles)


def two(offset, radius, flip=False):
    """The ball and a second one beside or in it."""
    other = TRIANGLES[:, ::-1] if flip else TRIANGLES
    second = VERTICES * (radius / 0.05) + offset
    return np.vstack([VERTICES, second]), np.vstack([TRIANGLES, other + len(VERTICES)])


def test_a_good_surface_is_left_as_it_is_and_nothing_is_stated():
    surface, repairs = clean("ball", VERTICES, TRIANGLES, single=True)
    assert repairs == []
    assert volume(surface) == pytest.approx(VOLUME, rel=0.02)  # facets lie inside the sphere


def test_an_inverted_surface_is_turned_and_that_is_stated():
    surface, repairs = clean("ball", VERTICES, TRIANGLES[:, ::-1], single=True)
    assert volume(surface) > 0
    assert repairs == ["1 inverted shell turned outward"]


@settings(max_examples=15, deadline=None)
@given(st.sets(st.integers(0, len(TRIANGLES) - 1), min_size=1, max_size=200))
def test_triangles_that_disagree_with_their_neighbours_are_turned(turned):
    triangles = TRIANGLES.copy()
    triangles[list(turned)] = triangles[list(turned)][:, ::-1]
    surface, repairs = clean("ball", VERTICES, triangles, single=True)
    assert volume(surface) == pytest.approx(volume_of(VERTICES, TRIANGLES))
    assert any("turned" in repair for repair in repairs)


def test_a_triangle_soup_is_merged():
    soup = VERTICES[TRIANGLES].reshape(-1, 3)
    surface, repairs = clean("ball", soup, np.arange(len(soup)).reshape(-1, 3), single=True)
    assert len(surface.vertices) == len(VERTICES)
    assert repairs == [f"{len(soup) - len(VERTICES)} coincident points merged"]


def test_a_small_hole_is_filled_and_that_is_stated():
    surface, repairs = clean("ball", VERTICES, TRIANGLES[1:], single=True)
    assert volume(surface) == pytest.approx(volume_of(VERTICES, TRIANGLES), rel=1e-3)
    assert "1 hole filled" in repairs[0]


def test_an_open_surface_is_refused_with_the_size_of_its_hole():
    half = TRIANGLES[VERTICES[TRIANGLES].mean(axis=1)[:, 2] < 0]
    with pytest.raises(CaseError, match=r"closed surface.*1 hole, the largest with a rim of 3[0-9][0-9] mm"):
        clean("ball", VERTICES, half, single=True)


def test_an_edge_of_three_triangles_is_refused_with_its_place():
    fin = np.array([[TRIANGLES[0, 0], TRIANGLES[0, 1], len(VERTICES)]])
    with pytest.raises(CaseError, match=r"manifold.*1 edge with more.*mm \(LPS\)"):
        clean("ball", np.vstack([VERTICES, [[0, 0, 1.0]]]), np.vstack([TRIANGLES, fin]), single=True)


def test_points_without_a_number_are_refused():
    broken = VERTICES.copy()
    broken[3, 1] = np.nan
    with pytest.raises(CaseError, match="1 point with NaN"):
        clean("ball", broken, TRIANGLES, single=True)


def test_specks_are_dropped_and_that_is_stated():
    surface, repairs = clean("ball", *two([0.2, 0, 0], 0.0003), single=True)
    assert len(surface.vertices) == len(VERTICES)
    assert repairs == ["1 speck of less than 1 mm3 dropped"]


def test_an_organ_of_two_shells_is_refused_and_tumours_of_two_are_kept():
    vertices, triangles = two([0.2, 0, 0], 0.04)
    with pytest.raises(CaseError, match="one shell"):
        clean("organ", vertices, triangles, single=True)
    surface, repairs = clean("tumours", vertices, triangles, single=False)
    assert repairs == ["2 shells kept"]
    assert volume(surface) == pytest.approx(volume_of(VERTICES, TRIANGLES) * (1 + 0.8**3))


@pytest.mark.parametrize("flip", [False, True])
def test_a_cavity_is_taken_off_whichever_way_it_was_turned(flip):
    surface, repairs = clean("cyst", *two([0, 0, 0], 0.025, flip), single=False)
    assert volume(surface) == pytest.approx(volume_of(VERTICES, TRIANGLES) * (1 - 0.5**3))
    assert repairs[-1] == "2 shells kept, 1 of them cavities"


def test_a_flat_sheet_encloses_nothing_and_is_refused():
    flat = VERTICES * [1.0, 1.0, 0.0]
    with pytest.raises(CaseError, match="encloses a volume"):
        clean("sheet", flat, TRIANGLES, single=True)


def test_a_moebius_strip_is_said_to_have_one_side_and_not_many_holes():
    turn, across = np.meshgrid(np.linspace(0, 2 * np.pi, 60, endpoint=False), [-0.015, 0.015], indexing="ij")
    out = 0.06 + across * np.cos(turn / 2)
    strip = np.stack([out * np.cos(turn), out * np.sin(turn), across * np.sin(turn / 2)], axis=-1).reshape(-1, 3)
    a = 2 * np.arange(60)
    b, c, d = a + 1, np.append(a[1:], 1), np.append(a[1:] + 1, 0)  # the last meets the first turned over
    faces = np.vstack([np.stack([a, b, d], axis=1), np.stack([a, d, c], axis=1)])
    with pytest.raises(CaseError, match=r"one-sided.*Cut the twist"):
        clean("liver", strip, faces, single=True)
