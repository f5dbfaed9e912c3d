import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from twinguide.importing.cleaning import clean
from twinguide.importing.intersections import crossings

BALL = trimesh.creation.icosphere(subdivisions=2, radius=0.05)
VERTICES, TRIANGLES = np.array(BALL.vertices), np.array(BALL.faces, dtype=np.int64)


def beside(offset):
    return np.vstack([VERTICES, VERTICES + offset]), np.vstack([TRIANGLES, TRIANGLES + len(VERTICES)])


def test_a_triangle_run_through_by_another_is_found_and_one_beside_it_is_not():
    flat = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    needle = np.array([[0.2, 0.2, -1], [0.2, 0.3, 1], [0.3, 0.2, 1]])
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    assert crossings(np.vstack([flat, needle]), faces).tolist() == [[0, 1]]
    assert crossings(np.vstack([flat, needle + np.array([1, 1, 0])]), faces).tolist() == []
    assert crossings(np.vstack([flat, needle + np.array([0, 0, 2])]), faces).tolist() == []


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_the_grid_finds_what_a_look_at_every_pair_finds(seed):
    random = np.random.default_rng(seed)
    corners = random.uniform(size=(40, 3, 3)) * random.uniform(0.05, 0.6, size=(40, 1, 1)) + random.uniform(
        size=(40, 1, 3)
    )
    vertices, faces = corners.reshape(-1, 3), np.arange(120).reshape(-1, 3)

    def cut(i, j):  # solved for the edge's point in the triangle's own coordinates
        for one, (a, b, c) in ((corners[i], corners[j]), (corners[j], corners[i])):
            for k in range(3):
                p, q = one[k], one[(k + 1) % 3]
                u, v, t = np.linalg.solve(np.stack([b - a, c - a, p - q], axis=1), p - a)
                if u > 0 and v > 0 and u + v < 1 and 0 < t < 1:
                    return True
        return False

    expected = [[i, j] for i in range(40) for j in range(i + 1, 40) if cut(i, j)]
    assert crossings(vertices, faces).tolist() == expected


def test_a_folded_corner_that_pierces_its_neighbour_s_neighbour_is_found():
    vertices = VERTICES.copy()
    vertices[7] *= -1.2  # through the ball and out on the other side
    assert len(crossings(vertices, TRIANGLES)) > 0
    assert len(crossings(VERTICES, TRIANGLES)) == 0


@pytest.mark.parametrize(("offset", "told"), [(0.06, True), (0.12, False)])
def test_shells_that_cut_each_other_are_stated_with_their_place_and_kept(offset, told):
    surface, repairs = clean("vein", *beside([offset, 0.0021, 0.0013]), single=False)
    assert any("WARNING: cuts itself" in line and "mm (LPS)" in line for line in repairs) == told
    assert len(surface.triangles) == 2 * len(TRIANGLES)
