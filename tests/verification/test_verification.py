import json
from pathlib import Path

import numpy as np
import pytest
import skfem
from cases import CASES
from independent import Static, neo_hookean
from manufactured import smooth_error
from problems import POISSON, YOUNG, clamped, mesh

from twinguide_softbody.native import NoCompiler


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_known_answer_is_met(case):
    try:
        got = case.compute()
    except NoCompiler as reason:
        pytest.skip(f"two machines cannot be compared: {reason}")
    assert case.error(got) <= case.tolerance, f"{got:g} {case.unit}, wanted {case.expected:g}: {case.why}"


@pytest.mark.parametrize(("cells", "order"), [(6, 1), (3, 2)])
def test_scikit_fem_finds_the_same_displacements_on_the_same_mesh(cells, order):
    vertices, elements = mesh(cells, 0.1, order)
    solved = clamped(cells, order)
    corners = int(elements[:, :4].max()) + 1
    element, kind = (skfem.ElementTetP1(), skfem.MeshTet) if order == 1 else (skfem.ElementTetP2(), skfem.MeshTet)
    grid = kind(vertices[:corners].T, elements[:, :4].T)
    theirs = Static(grid, element, neo_hookean(YOUNG, POISSON), np.array([0.0, 0.0, -9810.0]))
    u = theirs.solve(theirs.basis.get_dofs(lambda x: x[0] < 1e-9).all())
    moved = u[theirs.basis.nodal_dofs].T
    ours = (solved.positions - vertices)[:corners]
    # both solve the same equations, so 0.1 % leaves room for quadrature alone; it is 1e-6 with equal rules
    assert np.abs(moved - ours).max() < 1e-3 * np.abs(moved).max()


@pytest.mark.parametrize(("order", "grids"), [(1, (12, 16)), (2, (4, 6))])
def test_refining_a_smooth_problem_brings_the_solution_nearer_at_the_elements_order(order, grids):
    errors = [smooth_error(cells, order) for cells in grids]
    # in theory 2 and 3; found 1.86 and 3.05 here, 1.95 and 3.18 on the finest meshes of docs/verification.md
    assert np.log(errors[0] / errors[1]) / np.log(grids[1] / grids[0]) > order + 0.8


def test_the_reference_file_is_good_to_a_fifth_of_a_percent():
    reference = json.loads(Path(__file__).with_name("block_reference.json").read_text())["bedded"]
    assert reference["uncertainty_m"] < 2e-3 * reference["sag_m"]
