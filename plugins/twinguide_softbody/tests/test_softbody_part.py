import logging
from types import SimpleNamespace

import numpy as np
import pytest

from twinguide.frames import Transform, rotation_from_vector
from twinguide.messages import Array, BulkRef, Displacement, Inbox, PoseWire, Registration, Solution
from twinguide_softbody.part import Softbody, at_time
from twinguide_softbody.plugin import CONTRACT, SoftbodyOptions

TARGET = np.array([0.06, 0.06, 0.06])
TURN = rotation_from_vector(np.array([0.3, -0.5, 1.0]))
MS = 1_000_000


@pytest.fixture
def made(box):
    body = box((6, 6, 6), (0.12, 0.12, 0.12))
    body.fractions = {"tumour": np.zeros(len(body.tetrahedra), dtype=np.float32)}
    tissue = SimpleNamespace(young_pa=5000.0, poisson=0.45)
    case = SimpleNamespace(
        organ="liver",
        plan=SimpleNamespace(target=TARGET, target_structure="tumour"),
        structures={"liver": tissue, "tumour": SimpleNamespace(young_pa=20000.0, poisson=0.45)},
        body=lambda: body,
    )
    shared = []

    def share(ring, values):
        shared.append(values.copy())
        return BulkRef(ring, 0, len(shared), str(values.dtype), values.shape)

    options = SoftbodyOptions(backend="cpu")
    context = SimpleNamespace(case=case, options=options, log=logging.getLogger("softbody"), share=share)
    return Softbody(context), body, shared


def registration(version=1):
    pose = PoseWire.of(Transform.of("reference", "image", TURN, np.array([0.1, 0.2, 0.3])), np.zeros((6, 6)))
    return Registration(version=version, state="confirmed", reference_from_image=pose)


def displacement(end, t_ns=10 * MS, of="tumour", sigma=0.0003):
    mean = np.array([[0.0, 0.0, 0.0], end])
    times = (t_ns, t_ns + 90 * MS)
    covariance = Array.of(np.stack([np.eye(3) * sigma**2] * 2))
    return Displacement(t_ns=t_ns, of=of, times_ns=times, mean=Array.of(mean), covariance=covariance)


def step(part, *messages):
    return list(part.step(0, Inbox([("x", m) for m in messages])))


def test_the_displacement_in_reference_is_turned_into_the_image(made):
    part, body, shared = made
    (solution,) = step(part, registration(), displacement([0.0, 0.0, 0.02]))
    assert isinstance(solution, Solution)
    assert solution.level == "full"
    assert solution.t_ns == 55 * MS
    assert solution.t_input_ns == 10 * MS
    at_target = shared[-1][np.linalg.norm(body.vertices - TARGET, axis=1) < 1e-9][0] - TARGET
    # Half way between the knots; the target lies on a vertex, whose patch is moved as one to a tenth of a millimetre.
    np.testing.assert_allclose(at_target, TURN.T @ [0.0, 0.0, 0.01], atol=2e-4)


def test_without_a_registration_the_body_stays_and_says_rigid(made):
    part, body, shared = made
    (solution,) = step(part, displacement([0.0, 0.0, 0.02]))
    assert solution.level == "rigid"
    assert solution.sigma_m == pytest.approx(CONTRACT.levels["rigid"] * 1e-3 / 2.7955)
    np.testing.assert_array_equal(shared[-1], body.vertices.astype(np.float32))


def test_a_displacement_that_is_not_finite_leaves_the_last_one_and_says_rigid(made):
    part, body, shared = made
    step(part, registration(), displacement([0.0, 0.0, 0.02]))
    (solution,) = step(part, displacement([0.0, np.nan, 0.02], t_ns=20 * MS))
    assert solution.level == "rigid"
    assert np.isfinite(shared[-1]).all()
    moved = shared[-1] - body.vertices
    np.testing.assert_allclose(moved, np.broadcast_to(TURN.T @ [0.0, 0.0, 0.01], moved.shape), atol=1e-7)


def test_a_displacement_that_would_crush_the_body_moves_it_as_one(made):
    part, body, shared = made
    (solution,) = step(part, registration(), displacement([0.0, 0.0, 3.0]))
    assert solution.level == "rigid"
    assert solution.smallest_j == 1.0
    np.testing.assert_allclose(np.ptp(shared[-1] - body.vertices, axis=0), 0.0, atol=1e-6)


def test_displacements_of_other_structures_are_passed_over(made):
    part, _, shared = made
    assert step(part, registration(), displacement([0.0, 0.0, 0.02], of="kidney")) == []
    assert shared == []


def test_a_solver_that_passes_displacements_over_says_so(made):
    part, _, _ = made
    first, second = displacement([0.0, 0.0, 0.02]), displacement([0.0, 0.0, 0.01], t_ns=27 * MS)
    (solution,) = step(part, registration(), first, second)
    assert not solution.deadline_met
    assert solution.t_input_ns == 27 * MS
    (solution,) = step(part, displacement([0.0, 0.0, 0.01], t_ns=44 * MS))
    assert solution.deadline_met


def test_a_trajectory_is_interpolated_and_its_ends_stand(made):
    d = displacement([0.0, 0.0, 0.09])
    for t_ms, expected in ((0, 0.0), (10, 0.0), (40, 0.03), (100, 0.09), (500, 0.09)):
        mean, covariance = at_time(d, t_ms * MS)
        np.testing.assert_allclose(mean, [0, 0, expected], atol=1e-12)
        assert covariance.shape == (3, 3)


def test_a_trajectory_whose_arrays_disagree_is_not_usable():
    broken = Displacement(of="tumour", times_ns=(1,), mean=Array.of(np.zeros((2, 3))), covariance=Array.of(np.eye(3)))
    assert at_time(broken, 1) is None
    torn = Displacement(of="tumour", times_ns=(1,), mean=Array("f8", (1, 3), b"12"), covariance=Array.of(np.eye(3)))
    assert at_time(torn, 1) is None
