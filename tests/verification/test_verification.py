import json
from pathlib import Path

import numpy as np
import pytest
from cases import CASES
from manufactured import smooth_error
from problems import cantilever

from twinguide_softbody.native import NoCompiler


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_known_answer_is_met(case):
    try:
        got = case.compute()
    except NoCompiler as reason:
        pytest.skip(f"two machines cannot be compared: {reason}")
    assert case.error(got) <= case.tolerance, f"{got:g} {case.unit}, wanted {case.expected:g}: {case.why}"


def test_linear_tetrahedra_lock_where_quadratic_ones_on_the_same_nodes_bend():
    assert cantilever(0.49, order=1) < 0.5 * cantilever(0.49, order=2)  # found 0.30; 0.62 at 0.45


@pytest.mark.parametrize(("order", "grids"), [(1, (12, 16)), (2, (4, 6))])
def test_refining_a_smooth_problem_brings_the_solution_nearer_at_the_elements_order(order, grids):
    errors = [smooth_error(cells, order) for cells in grids]
    # in theory 2 and 3; found 1.86 and 3.05 here, 1.95 and 3.18 on the finest meshes of docs/verification.md
    assert np.log(errors[0] / errors[1]) / np.log(grids[1] / grids[0]) > order + 0.8


def test_the_reference_file_is_good_to_a_fifth_of_a_percent():
    reference = json.loads(Path(__file__).with_name("block_reference.json").read_text())["bedded"]
    assert reference["uncertainty_m"] < 2e-3 * reference["sag_m"]
