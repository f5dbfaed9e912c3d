import numpy as np
import pytest
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st

from twinguide.frames import rotation_from_vector
from twinguide.importing.cleaning import clean
from twinguide.importing.intersections import crossings, near, overlaps

BALL = trimesh.creation.icosphere(subdivisions=2, radius=0.05)
VERTICES, TRIANGLES = np.array(BALL.vertices), np.array(BALL.faces, dtype=np.int64)


def cuts(vertices, faces):
    return crossings(np.asarray(vertices, dtype=float), faces, near(np.asarray(vertices, dtype=float), faces)).tolist()


def lies(vertices, faces):
    return overlaps(np.asarray(vertices, dtype=float), faces, near(np.asarray(vertices, dtype=float), faces)).tolist()


def beside(offset):
    return np.vstack([VERTICES, VERTICES + offset]), np.vstack([TRIANGLES, TRIANGLES + len(VERTICES)])


def test_a_triangle_run_through_by_another_is_found_and_one_beside_it_is_not():
    flat = [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    needle = np.array([[0.2, 0.2, -1], [0.2, 0.3, 1], [0.3, 0.2, 1]])
    faces = np.array([[0, 1, 2], [3, 4, 5]])
    assert cuts(np.vstack([flat, needle]), faces) == [[0, 1]]
    assert cuts(np.vstack([flat, needle + np.array([1, 1, 0])]), faces) == []
    assert cuts(np.vstack([flat, needle + np.array([0, 0, 2])]), faces) == []


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
    assert cuts(vertices, faces) == expected


def test_one_huge_triangle_among_thousands_of_tiny_ones_is_looked_at_too():
    random = np.random.default_rng(4)
    tiny = random.uniform(size=(5000, 1, 3)) + random.uniform(-2e-5, 2e-5, size=(5000, 3, 3))
    tiny[:3] = [[0.3, 0.3, 0.5]] + 1e-5 * np.array([[1, 0, -1], [0, 1, 1], [1, 1, 1]])  # through the huge one
    tiny[3:, :, 2] += 1.0
    huge = np.array([[[0.0, 0, 0.5], [2, 0, 0.5], [0, 2, 0.5]]])
    vertices = np.concatenate([huge, tiny + np.arange(5000)[:, None, None] * [1e-4, 0, 0]]).reshape(-1, 3)
    assert cuts(vertices, np.arange(len(vertices)).reshape(-1, 3)) == [[0, 1], [0, 2], [0, 3]]


def test_a_folded_corner_that_pierces_its_neighbour_s_neighbour_is_found():
    vertices = VERTICES.copy()
    vertices[7] *= -1.2  # through the ball and out on the other side
    assert len(cuts(vertices, TRIANGLES)) > 0
    assert len(cuts(VERTICES, TRIANGLES)) == 0


@pytest.mark.parametrize(("offset", "told"), [(0.06, True), (0.12, False)])
def test_shells_that_cut_each_other_are_stated_with_their_place_and_kept(offset, told):
    surface, repairs = clean("vein", *beside([offset, 0.0021, 0.0013]), single=False)
    assert any("WARNING: cuts itself" in line and "mm (LPS)" in line for line in repairs) == told
    assert len(surface.triangles) == 2 * len(TRIANGLES)


SQUARE = np.array([[0, 0, 0], [0.02, 0, 0], [0.02, 0.02, 0], [0, 0.02, 0]])
HALVES = np.array([[0, 1, 2], [0, 2, 3]])


def anywhere(vertices, turn):
    """Return vertices as a file in single precision has them, turned and half a metre off."""
    moved = vertices @ rotation_from_vector(np.array(turn)).T + np.array([0.5, -0.31, 0.47])
    return moved.astype(np.float32).astype(float)


TURNS = [(0.0, 0.0, 0.0), (0.3, -0.8, 0.2), (2.0, 1.1, -0.7)]


@pytest.mark.parametrize("turn", TURNS)
def test_a_sheet_on_another_is_found_and_one_beside_or_above_it_is_not(turn):
    faces = np.vstack([HALVES, HALVES + 4])

    def found(shift):
        return lies(anywhere(np.vstack([SQUARE, SQUARE + shift]), turn), faces)

    assert found([0.003, -0.001, 0.0]) == [[0, 2], [0, 3], [1, 3]]  # the lower half has left the upper one
    assert found([0.015, -0.01, 0.0]) == [[0, 3]]
    assert found([0.02, 0.0, 0.0]) == []  # they meet at an edge
    assert found([0.0, 0.0, 2e-5]) == []


@pytest.mark.parametrize("turn", TURNS)
def test_a_fold_is_found_across_its_own_edge_and_a_sharp_crease_is_not(turn):
    def folded(height):
        vertices = np.array([[0, 0, 0], [0.02, 0, 0], [0.01, 0.02, 0], [0.012, 0.015, height]])
        return lies(anywhere(vertices, turn), np.array([[0, 1, 2], [1, 0, 3]]))

    assert folded(0.0) == [[0, 1]]
    assert folded(1e-4) == []


@pytest.mark.parametrize("turn", TURNS)
def test_a_flat_plate_of_many_triangles_lies_on_itself_nowhere(turn):
    x, y = np.meshgrid(np.linspace(0, 0.1, 21), np.linspace(0, 0.1, 21), indexing="ij")
    vertices = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1)
    corner = (np.arange(20)[:, None] * 21 + np.arange(20)).ravel()
    faces = np.concatenate([
        np.stack([corner, corner + 21, corner + 22], axis=1),
        np.stack([corner, corner + 22, corner + 1], axis=1),
    ])  # fmt: skip
    assert lies(anywhere(vertices, turn), faces) == []
    assert cuts(anywhere(vertices, turn), faces) == []


def box(size, at):
    """Return a closed box's vertices [m] and faces, from one corner."""
    made = trimesh.creation.box(extents=size)
    return np.array(made.vertices) + np.array(size) / 2 + np.array(at), np.array(made.faces, dtype=np.int64)


def test_boxes_that_share_planes_are_told_apart_by_what_they_share():
    first, faces = box([0.04, 0.04, 0.04], [0, 0, 0])

    def told(size, at):
        other, more = box(size, at)
        surface = clean("vein", np.vstack([first, other]), np.vstack([faces, more + len(first)]), single=False)
        return [line.partition(",")[0] for line in surface[1] if "WARNING" in line]

    assert told([0.04, 0.04, 0.04], [0.06, 0, 0]) == []
    assert told([0.02, 0.03, 0.02], [0.04, 0.005, 0.01]) == ["WARNING: lies flat on itself"]  # face on face
    assert "WARNING: lies flat on itself" in told([0.04, 0.04, 0.04], [0.02, 0, 0])  # pushed into one another
    assert told([0.01, 0.01, 0.01], [0.01, 0.01, 0.01]) == []  # a cavity


@pytest.mark.parametrize("turn", TURNS)
def test_a_flap_folded_onto_its_shell_is_stated_with_its_place(turn):
    vertices = VERTICES.copy()
    a, b, c = TRIANGLES[0]
    over = next(face for face in TRIANGLES if a in face and b in face and c not in face)
    (tip,) = set(over.tolist()) - {a, b}
    vertices[tip] = 0.4 * vertices[a] + 0.3 * vertices[b] + 0.3 * vertices[c]  # the neighbour folded back
    _, repairs = clean("vein", anywhere(vertices, turn), TRIANGLES, single=True)
    assert any("lies flat on itself" in line and "mm (LPS)" in line for line in repairs)
