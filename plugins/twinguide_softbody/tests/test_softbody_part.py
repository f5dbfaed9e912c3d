import logging
import re
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from twinguide.frames import Transform, rotation_from_vector
from twinguide.inbox import Inbox
from twinguide.messages import Array, Boundary, BulkRef, Displacement, PoseWire, Registration, Solution
from twinguide_softbody import mesh
from twinguide_softbody.part import Softbody, at_time
from twinguide_softbody.plugin import CONTRACT, SoftbodyOptions

TARGET = np.array([0.06, 0.06, 0.06])
TURN = rotation_from_vector(np.array([0.3, -0.5, 1.0]))
MS = 1_000_000


def make(real_time=False):
    vertices, tetrahedra = mesh.block(6, 0.12)
    body = SimpleNamespace(vertices=vertices, tetrahedra=tetrahedra)
    body.fractions = {"tumour": np.zeros(len(body.tetrahedra), dtype=np.float32)}
    liver = SimpleNamespace(role="organ", young_pa=5000.0, young_sigma_pa=1500.0, poisson=0.45)
    tumour = SimpleNamespace(role="tumour", young_pa=0.0, young_sigma_pa=0.0, poisson=0.45)
    case = SimpleNamespace(
        organ="liver",
        plan=SimpleNamespace(target=TARGET, target_structure="tumour"),
        structures={"liver": liver, "tumour": tumour, "skin": SimpleNamespace(role="skin")},
        body=lambda: body,
    )
    shared = {"vertices": [], "sigma": []}

    def share(ring, values):
        shared[ring].append(values.copy())
        return BulkRef(ring, 0, len(shared[ring]), str(values.dtype), values.shape)

    log, options = logging.getLogger("softbody"), SoftbodyOptions(backend="cpu")
    context = SimpleNamespace(case=case, options=options, log=log, share=share, real_time=real_time)
    return Softbody(context), body, shared


@pytest.fixture
def made():
    return make()


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
    assert solution.reason == ""
    assert solution.t_ns == 55 * MS
    assert solution.t_input_ns == 10 * MS
    at_target = shared["vertices"][-1][np.linalg.norm(body.vertices - TARGET, axis=1) < 1e-9][0] - TARGET
    # Half way between the knots; the target lies on a vertex, whose patch is moved as one to a tenth of a millimetre.
    np.testing.assert_allclose(at_target, TURN.T @ [0.0, 0.0, 0.01], atol=2e-4)


def test_without_a_registration_the_body_stays_and_says_rigid(made):
    part, body, shared = made
    (solution,) = step(part, displacement([0.0, 0.0, 0.02]))
    assert solution.level == "rigid"
    assert solution.reason == "not registered"
    np.testing.assert_array_equal(shared["vertices"][-1], body.vertices.astype(np.float32))


def test_a_displacement_that_is_not_finite_leaves_the_last_one_and_says_rigid(made):
    part, body, shared = made
    step(part, registration(), displacement([0.0, 0.0, 0.02]))
    (solution,) = step(part, displacement([0.0, np.nan, 0.02], t_ns=20 * MS))
    assert solution.level == "rigid"
    assert np.isfinite(shared["vertices"][-1]).all()
    moved = shared["vertices"][-1] - body.vertices
    np.testing.assert_allclose(moved, np.broadcast_to(TURN.T @ [0.0, 0.0, 0.01], moved.shape), atol=1e-7)


def test_a_displacement_that_no_organ_follows_leaves_the_body_and_says_why(made):
    part, body, shared = made
    (solution,) = step(part, registration(), displacement([0.0, 0.0, 6.0]))
    assert solution.level == "rigid"
    assert "no organ" in solution.reason
    assert solution.smallest_j == 1.0
    np.testing.assert_array_equal(shared["vertices"][-1], body.vertices.astype(np.float32))


def test_a_jump_of_the_drive_leaves_the_body_and_says_so(made):
    part, body, shared = made
    step(part, registration(), displacement([0.0, 0.0, 0.01]))
    (solution,) = step(part, displacement([0.0, 0.0, -0.09], t_ns=20 * MS))
    assert solution.level == "rigid"
    assert "jumped by 50 mm" in solution.reason
    moved = shared["vertices"][-1] - body.vertices
    np.testing.assert_allclose(moved, np.broadcast_to(TURN.T @ [0.0, 0.0, 0.005], moved.shape), atol=1e-7)
    (solution,) = step(part, displacement([0.0, 0.0, 0.012], t_ns=30 * MS))
    assert solution.level == "full"


def test_every_vertex_has_its_error_and_the_target_a_small_one(made):
    part, body, shared = made
    (still,) = step(part, registration(), displacement([0.0, 0.0, 0.0]))
    (solution,) = step(part, displacement([0.0, 0.0, 0.03], t_ns=20 * MS))
    sigma = shared["sigma"][-1]
    assert sigma.shape == (len(body.vertices),)
    assert solution.sigma.shape == sigma.shape
    assert solution.sigma_m == pytest.approx(np.sqrt((sigma.astype(float) ** 2).mean()), rel=1e-6)
    assert still.sigma_m < 1e-6 < solution.sigma_m
    target = np.linalg.norm(body.vertices - TARGET, axis=1)
    assert sigma[target.argmin()] < 0.5 * np.median(sigma)


def boundary(rest, mean, of="liver", sigma=0.0005, name="probe", count=1):
    wired = [Array.of(np.array([points] * count).reshape(-1, 3)) for points in (rest, mean)]
    return Boundary(of=of, name=name, rest=wired[0], mean=wired[1], covariance=Array.of([np.eye(3) * sigma**2] * count))


def in_reference(point):
    return TURN @ point + np.array([0.1, 0.2, 0.3])


CORNER = np.array([0.12, 0.12, 0.12])


def at_corner(shared):
    return shared["vertices"][-1][-1] - CORNER  # the block's last vertex


def test_a_measured_point_draws_the_body_to_where_it_was_seen(made):
    part, _, shared = made
    step(part, registration(), displacement([0.0, 0.0, 0.0]))
    bent = CORNER + np.array([0.0, 0.003, 0.004])
    (solution,) = step(part, boundary(CORNER, in_reference(bent)), displacement([0.0, 0.0, 0.0], t_ns=20 * MS))
    assert solution.level == "full"
    np.testing.assert_allclose(at_corner(shared), bent - CORNER, atol=1e-4)
    (solution,) = step(part, boundary(CORNER, CORNER, count=0), displacement([0.0, 0.0, 0.0], t_ns=30 * MS))
    np.testing.assert_allclose(at_corner(shared), 0.0, atol=1e-4)


@pytest.mark.parametrize(("of", "moves"), [("liver", True), ("tumour", True), ("skin", False), ("heart", False)])
def test_points_of_the_organ_and_of_what_it_holds_drive_it_and_no_others(made, of, moves):
    part, _, shared = made
    step(part, registration(), displacement([0.0, 0.0, 0.0]))
    bent = in_reference(CORNER + np.array([0.0, 0.003, 0.004]))
    (solution,) = step(part, boundary(CORNER, bent, of=of), displacement([0.0, 0.0, 0.0], t_ns=20 * MS))
    assert solution.level == "full"
    assert (np.linalg.norm(at_corner(shared)) > 0.004) == moves


def test_of_two_that_contradict_each_other_the_surer_stands_and_the_level_falls(made):
    part, _, shared = made
    step(part, registration(), displacement([0.0, 0.0, 0.0]))
    here, there = (in_reference(CORNER + np.array([0.0, y, 0.0])) for y in (0.004, -0.015))
    messages = [boundary(CORNER, here), boundary(CORNER, there, sigma=0.001, name="drifted")]
    (solution,) = step(part, *messages, displacement([0.0, 0.0, 0.0], t_ns=20 * MS))
    assert solution.level == "partial"
    assert solution.reason.startswith("drifted left out: contradicts the target or a surer point")
    np.testing.assert_allclose(at_corner(shared), [0.0, 0.004, 0.0], atol=1e-4)


FAR = CORNER + np.array([0.0, 0.0, 0.15])


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (boundary(CORNER, np.full(3, np.nan)), "finite"),
        (boundary(CORNER + 1.0, CORNER), "m away"),
        (boundary(CORNER, in_reference(FAR)), "150 mm away"),
        (
            Boundary(
                of="liver", name="probe", rest=Array.of(np.zeros(3)), mean=Array.of([1.0]), covariance=Array.of(1.0)
            ),
            "points .k, 3.",
        ),
    ],
)
def test_measured_points_that_cannot_be_used_are_left_out_and_the_level_says_so(made, bad, told):
    part, body, shared = made
    (solution,) = step(part, registration(), bad, displacement([0.0, 0.0, 0.0]))
    assert solution.level == "partial"
    assert re.search(f"probe left out: .*{told}", solution.reason)
    np.testing.assert_allclose(shared["vertices"][-1], body.vertices, atol=1e-6)
    (solution,) = step(part, boundary(CORNER, in_reference(CORNER)), displacement([0.0, 0.0, 0.0], t_ns=20 * MS))
    assert solution.level == "full"


def test_measured_points_of_other_structures_are_passed_over_and_told_once(made, caplog):
    part, _, _ = made
    for k in range(3):
        other = boundary(CORNER, np.full(3, 9.0), of="kidney")
        (solution,) = step(part, registration(), other, displacement([0.0, 0.0, 0.0], t_ns=(k + 1) * 10 * MS))
        assert (solution.level, solution.reason) == ("full", "")
    told = "boundary condition probe passed over: it is of 'kidney', and the body of liver, tumour"
    assert [record.getMessage() for record in caplog.records] == [told]


def test_a_measured_point_that_jumps_is_left_out_until_three_messages_agree(made):
    part, _, shared = made
    step(part, registration(), displacement([0.0, 0.0, 0.0]))
    near, away = (in_reference(CORNER + np.array([0.0, y, 0.0])) for y in (0.002, -0.03))
    levels = []
    for k, seen in enumerate([near, near, away, near, away, away, away]):
        (solution,) = step(part, boundary(CORNER, seen), displacement([0.0, 0.0, 0.0], t_ns=(20 + k) * MS))
        levels.append(solution.level)
        assert ("jumped by 32 mm" in solution.reason) == (solution.level == "partial")
    assert levels == ["full", "full", "partial", "full", "partial", "partial", "full"]
    np.testing.assert_allclose(at_corner(shared), [0.0, -0.03, 0.0], atol=2e-4)
    (solution,) = step(part, boundary(CORNER, away, count=0), displacement([0.0, 0.0, 0.0], t_ns=40 * MS))
    (solution,) = step(part, boundary(CORNER, near), displacement([0.0, 0.0, 0.0], t_ns=50 * MS))
    assert solution.level == "full"  # a point that comes anew has not jumped


@pytest.mark.parametrize("stamp_ms", [0, 3000, 9000])
def test_a_sensor_that_falls_silent_holds_the_body_for_a_second_alone(made, stamp_ms):
    part, _, shared = made
    touched = boundary(CORNER, in_reference(CORNER + np.array([0.0, 0.004, 0.0])))
    touched = msgspec.structs.replace(touched, t_ns=stamp_ms * MS)
    step(part, registration())
    list(part.step(3000 * MS, Inbox([("x", touched)])))  # when it came counts, where no earlier stamp does
    told = []
    for t_ms in (3010, 3990, 4200):
        (solution,) = step(part, displacement([0.0, 0.0, 0.0], t_ns=t_ms * MS))
        told.append((solution.level, solution.reason.split(": ")[-1]))
        held = np.linalg.norm(at_corner(shared) - [0.0, 0.004, 0.0]) < 3e-4
        assert held == (t_ms < 4000)
    assert [level for level, _ in told] == ["full", "full", "partial"]
    assert told[-1][1] == "silent for 1.2 s"
    list(part.step(4210 * MS, Inbox([("x", msgspec.structs.replace(touched, t_ns=4210 * MS))])))
    (solution,) = step(part, displacement([0.0, 0.0, 0.0], t_ns=4220 * MS))
    assert solution.level == "full"


def test_a_place_at_rest_beyond_all_measure_is_left_out_and_the_part_goes_on(made):
    part, _, _ = made
    step(part, registration(), displacement([0.0, 0.0, 0.0]))
    for k, far_m in enumerate((1e160, 1e308)):
        wild = boundary(np.full(3, far_m), CORNER)
        for one in (wild, msgspec.structs.replace(wild, radius_m=0.02)):
            (solution,) = step(part, one, displacement([0.0, 0.0, 0.0], t_ns=(20 + k) * MS))
            assert solution.level == "partial"
            assert "m away" in solution.reason


def test_a_part_that_is_closed_leaves_no_worker_behind(made):
    part, _, _ = made
    touched = boundary(CORNER, in_reference(CORNER))
    for k in range(40):  # both workers have begun
        step(part, registration(), touched, displacement([0.0, 0.0, 0.0], t_ns=20 * k * MS))
    body = part._body
    threads = [*body._learning._worker._threads, *body._solver._newton.coarse._worker._threads]
    assert len(threads) == 2
    part.close()
    for thread in threads:
        thread.join(timeout=20.0)
        assert not thread.is_alive()


EDGE = np.array([[0.12, 0.12, z] for z in (0.12, 0.08, 0.04, 0.0)])


def edge(moved, rest=EDGE):
    """Measured points of an edge, each moved [m] along y."""
    mean = rest + np.outer(moved, [0.0, 1.0, 0.0])
    wired = [Array.of(points) for points in (rest, mean @ TURN.T + [0.1, 0.2, 0.3])]
    covariance = Array.of(np.tile(np.eye(3) * 0.0005**2, (len(rest), 1, 1)))
    return Boundary(of="liver", name="surface", rest=wired[0], mean=wired[1], covariance=covariance)


def at_edge(body, shared):
    where = [np.linalg.norm(body.vertices - place, axis=1).argmin() for place in EDGE]
    return (shared["vertices"][-1] - body.vertices)[where, 1]


def test_a_jump_does_not_hide_behind_a_changed_count_of_points(made):
    part, body, shared = made
    step(part, registration(), edge([0.001, 0.001], EDGE[:2]), displacement([0.0, 0.0, 0.0]))
    # One more point, in another order; the first of before is 3 cm away, and so is the new one: neither drags the body.
    wild = edge([0.001, 0.031, 0.031], EDGE[[1, 0, 3]])
    for k, (message, left) in enumerate([(wild, "2 of 3"), (edge([0.031], EDGE[:1]), "surface"), (wild, "1 of 3")]):
        (solution,) = step(part, message, displacement([0.0, 0.0, 0.0], t_ns=(20 + k) * MS))
        assert solution.level == "partial"
        assert re.search(f"{left}.* left out: jumped by 3[01] mm", solution.reason)
        assert (np.abs(at_edge(body, shared)[1:]) < 0.01).all()
        if k < 2:
            assert abs(at_edge(body, shared)[0]) < 0.01  # then three have agreed on the first


def test_a_point_that_is_no_number_leaves_the_others_in_use(made):
    part, body, shared = made
    step(part, registration(), displacement([0.0, 0.0, 0.0]))
    for k, seen in enumerate([0.004, np.nan, 0.004]):
        (solution,) = step(part, edge([0.004, seen], EDGE[:2]), displacement([0.0, 0.0, 0.0], t_ns=(20 + k) * MS))
        assert ("1 of 2 points of surface left out: not finite" in solution.reason) == np.isnan(seen)
        assert solution.level == ("partial" if np.isnan(seen) else "full")
        assert at_edge(body, shared)[0] == pytest.approx(0.004, abs=3e-4)


def test_points_that_jump_together_wait_for_the_target_or_a_registration(made):
    part, body, shared = made
    still = [displacement([0.0, 0.0, 0.0], t_ns=k * MS) for k in range(10, 40)]
    step(part, registration(), edge([0.0] * 4), still[0])
    for k in range(5):
        (solution,) = step(part, edge([0.03] * 4), still[1 + k])
        assert solution.level == "partial"
        assert "surface left out: jumped by 30 mm together: register anew" in solution.reason
        assert (np.abs(at_edge(body, shared)) < 1e-3).all()
    # A registration that says that the reference was moved: the points are where they were.
    moved = PoseWire.of(
        Transform.of("reference", "image", TURN, TURN @ [0.0, 0.03, 0.0] + [0.1, 0.2, 0.3]), np.zeros((6, 6))
    )
    step(part, Registration(version=2, state="confirmed", reference_from_image=moved), edge([0.03] * 4))
    (solution,) = step(part, edge([0.03] * 4), still[10])
    assert solution.level == "full"
    assert (np.abs(at_edge(body, shared)) < 1e-3).all()


def test_a_patient_who_moves_with_target_and_points_is_followed_after_three_inputs(made):
    part, body, shared = made
    step(part, registration(), edge([0.0] * 4), displacement([0.0, 0.0, 0.0]))
    y = TURN @ [0.0, 0.06, 0.0]  # half of it at the time of use
    levels = []
    for k in range(5):
        (solution,) = step(part, edge([0.03] * 4), displacement(y, t_ns=(20 + k) * MS))
        levels.append(solution.level)
    assert levels[:2] == ["rigid", "rigid"]
    assert levels[-1] == "full"
    np.testing.assert_allclose(at_edge(body, shared), 0.03, atol=1e-3)


def test_a_late_solution_says_so_where_time_is_real(monkeypatch):
    part, _, _ = make(real_time=True)
    ticks = iter([0, 1 * MS, 0, round((CONTRACT.deadline_ms + 1) * MS)])
    monkeypatch.setattr("time.monotonic_ns", lambda: next(ticks))
    met = [
        solution.deadline_met
        for k in (1, 2)
        for solution in step(part, displacement([0.0, 0.0, 0.0], t_ns=k * 20 * MS))
    ]
    assert met == [True, False]


def test_the_same_inputs_give_the_same_bits():
    runs = []
    for _ in range(2):
        part, _, shared = make()
        step(part, registration())
        for k in range(12):
            step(part, displacement([0.0, 0.001 * k, 0.002 * k], t_ns=k * 17 * MS))
        runs.append(np.concatenate([*shared["vertices"], *(s[:, None] * [1, 1, 1] for s in shared["sigma"])]).tobytes())
    assert runs[0] == runs[1]


def test_displacements_of_other_structures_are_passed_over(made):
    part, _, shared = made
    assert step(part, registration(), displacement([0.0, 0.0, 0.02], of="kidney")) == []
    assert shared["vertices"] == []


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
