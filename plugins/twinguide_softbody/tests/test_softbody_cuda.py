"""A frame queued for a CUDA device, by the kernels' text on the CPU: the CPU's decisions, and one wait."""

import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse as sp

from twinguide.errors import PluginError
from twinguide_softbody import launchers, native, quasistatic
from twinguide_softbody.arrays import Host
from twinguide_softbody.attachment import Attachment
from twinguide_softbody.body import Body, Springs, joined
from twinguide_softbody.cuda import LAST, ROWS, SCALARS, Cuda
from twinguide_softbody.launchers import Shim
from twinguide_softbody.layout import layout
from twinguide_softbody.machine import Native
from twinguide_softbody.mesh import block
from twinguide_softbody.newton import LEAST_J, Balance, Newton, better, floor
from twinguide_softbody.precondition import EVERY
from twinguide_softbody.quasistatic import Solver

pytestmark = pytest.mark.skipif(native.compiler() is None, reason="no C compiler on this machine")
LEAST, ENERGY, LEFT, TAKEN, LEARNT = 8, 9, 10, 14, 18  # of the scalars, as in cuda.cu


class Counting(Host):
    """The CPU's memory, counting what would wait for a device and what would only be queued for it."""

    def __init__(self) -> None:
        self.taken = self.written = self.read_back = 0

    def take(self, values, kind):
        self.taken += 1
        return super().take(values, kind)

    def write(self, array, values):
        self.written += 1
        super().write(array, values)

    def read(self, array):
        self.read_back += 1
        return super().read(array)


class Counted(Shim):
    """The shim, counting kernels launched one by one, captures and replays."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = Counting()
        self.launched = self.captures = 0

    def launch(self, *kernel):
        self.launched += 1
        super().launch(*kernel)

    def capture(self, flow):
        self.captures += 1
        return super().capture(flow)

    def replay(self, captured):
        before = self.launched
        super().replay(captured)
        self.launched = before

    def counts(self):
        """Return waits for the device, copies to it, arrays made there, kernels outside of a graph, and captures."""
        memory = self.memory
        return np.array([memory.read_back, memory.written, memory.taken, self.launched, self.captures])


def body_of(n: int = 4) -> Body:
    """A block of 10 cm, twice as stiff on one side."""
    vertices, tetrahedra = block(n, 0.1)
    young = np.where(vertices[tetrahedra].mean(axis=1)[:, 2] > 0.05, 10_000.0, 5000.0)
    return Body(vertices, tetrahedra, young, np.full(len(tetrahedra), 0.45), 1000.0, (0.0, 0.0, -3.0))


def springs_of(body: Body) -> Springs:
    """One over the far face, two on its corners, one inside an element."""
    weights = sp.lil_matrix((4, len(body.vertices)))
    far = np.flatnonzero(body.vertices[:, 0] > 0.1 - 1e-9)
    weights[0, far] = 1 / len(far)
    weights[1, far[0]], weights[2, far[-1]] = 1.0, 1.0
    weights[3, body.elements[len(body.elements) // 2, :4]] = [0.1, 0.2, 0.3, 0.4]
    stiffness = np.array([500 * np.eye(3), 50 * np.eye(3), np.diag([10.0, 20.0, 30.0]), 5 * np.eye(3)])
    return Springs(weights.tocsr(), stiffness)


def path(frame: int) -> np.ndarray:
    """A sensor's way [m], shape (3,): some 15 mm in three axes."""
    t = frame / 90
    return 0.015 * np.array([np.sin(2.1 * t), np.sin(3.3 * t + 0.4) - 0.39, np.cos(2.7 * t) - 1])


BODY = body_of()
SPRINGS = springs_of(BODY)
REST = SPRINGS.weights @ BODY.vertices


def solver(monkeypatch, machine, newton=quasistatic.newton_on) -> Solver:
    monkeypatch.setattr(quasistatic, "machine_for", machine)
    monkeypatch.setattr(quasistatic, "newton_on", newton)
    return Solver(BODY, SPRINGS, BODY.vertices[:, 0] < 1e-9)


def on_cpu(_, lay, material, threads):
    return Native(lay, material, threads)


def by_text(launcher):
    return lambda _, lay, material, threads: Cuda(lay, material, launcher)


def decided_by_the_cpu(machine, lay, attachment):
    return Newton(lay, machine, attachment)


def test_a_warm_frame_is_one_copy_one_graph_and_one_wait(monkeypatch):
    launcher = Counted()
    cuda = solver(monkeypatch, by_text(launcher))
    for frame in range(12):  # the history fills, and the matrix is built with and without it
        cuda.step(REST + path(frame))
    before = launcher.counts()
    for frame in range(12, 16):
        cuda.step(REST + path(frame))
        after = launcher.counts()
        assert (after - before).tolist() == [1, 1, 0, 0, 0]
        before = after
    for frame in range(16, 16 + EVERY):
        cuda.step(REST + path(frame))
    # once in a round of factors its worker is given the matrix, and once its factor is taken, both between frames
    assert (launcher.counts() - before).tolist() == [EVERY + 1, EVERY + 1, 0, 0, 0]


def test_frames_on_a_device_are_those_of_the_cpu(monkeypatch):
    cpu, cuda = solver(monkeypatch, on_cpu), solver(monkeypatch, by_text(Shim()))
    seconds = 0
    for frame in range(36):
        rough = 0.002 * np.sin(40.0 * frame) if frame >= 24 else 0.0
        a, b = (one.step(REST + path(frame) + rough) for one in (cpu, cuda))
        assert (a.iterations, a.converged) == (b.iterations, b.converged)
        assert b.smallest_j == pytest.approx(a.smallest_j, abs=1e-5)
        # [m]: float32 directions end 1e-6 to 5e-5 from balance, each at its own place within a hundredth of that
        np.testing.assert_allclose(b.positions, a.positions, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(cuda.positions, b.positions)
        seconds += a.iterations > quasistatic.ITERATIONS
    assert seconds > 2  # frames took a second direction


LEAPS = {  # [m], and what the line search says to each candidate: taken or not
    "one direction is enough": (np.array([1e-5, 0.0, 0.0]), "T"),
    "two": (np.array([0.01, 0.02, -0.015]), "TT"),
    "a part of each": (np.array([0.0, 0.09, -0.09]), "F+TF+T"),
    "elements would invert": (np.array([-0.12, 0.02, 0.0]), "F+TF*T?"),
    "targets contradict": (0.1 * np.array([[1, 0, 0], [-1, 0, 0], [0, 1, -1], [0, -1, 1]]), ".*FT.*"),
    "no part of any": (np.array([-20.0, 5.0, 0.0]), "F{14}"),
}


@pytest.mark.parametrize("leap", LEAPS)
def test_a_device_decides_by_itself_as_the_cpu_does_from_its_numbers(monkeypatch, leap):
    moved, expected = LEAPS[leap]
    queued = solver(monkeypatch, by_text(Shim()))
    told = solver(monkeypatch, by_text(Shim()), decided_by_the_cpu)
    assert queued.solve(REST).positions.tobytes() == told.solve(REST).positions.tobytes()
    taken, take = [], Newton._take
    monkeypatch.setattr(Newton, "_take", lambda self: taken.append(take(self)) or taken[-1])
    a, b = (one.step(REST + moved) for one in (told, queued))
    assert re.fullmatch(expected, "".join("FT"[one] for one in taken))
    # the same kernels on the same numbers: to the bit
    np.testing.assert_array_equal(a.positions, b.positions)
    assert (a.iterations, a.converged, a.smallest_j) == (b.iterations, b.converged, b.smallest_j)
    assert b.solver_error_m == pytest.approx(a.solver_error_m, rel=1e-12)
    assert b.residual == pytest.approx(a.residual, rel=1e-12)


def test_a_candidate_is_judged_as_on_the_cpu():
    rng, machine, said = np.random.default_rng(0), Cuda(layout(BODY, BODY.vertices[:, 0] < 1e-9), "linear", Shim()), []
    for _ in range(300):
        old = Balance(rng.normal(), rng.choice([1e-3, 0.05, 0.9]), rng.uniform(), 1.0)
        energy = old.energy + rng.choice([-1e-3, 0, 5e-11 * abs(old.energy), 1e-9, np.nan])
        new = Balance(energy, old.smallest_j * rng.choice([0.1, 0.25, 1]), old.left * rng.choice([0.4, 0.6, 1]), 1.0)
        scalars, sums = np.zeros(SCALARS), np.zeros((ROWS, LAST))
        scalars[LEAST], scalars[ENERGY], scalars[LEFT] = old.smallest_j, old.energy, old.left
        sums[0], sums[1, 3], sums[6, 0] = new.smallest_j, new.energy, new.left**2
        machine.arrays.write("scalars", scalars)
        machine._last[...] = sums.ravel()
        machine.run("judge", 1, x=LEAST_J, k=5)
        said.append(bool(new.smallest_j > floor(old.smallest_j)) and bool(better(new, old)))
        assert (machine.arrays["scalars"][TAKEN] == 5) == said[-1]
    assert 50 < sum(said) < 250


def test_a_first_direction_that_curves_down_is_offered_as_it_is():
    lay, found = layout(BODY, BODY.vertices[:, 0] < 1e-9), []
    squeezed, right = np.ascontiguousarray(BODY.vertices[lay.order] * [0.0, -0.7, 0.0]), None
    for machine in (Native(lay, "neo_hookean", 1), Cuda(lay, "neo_hookean", Shim())):
        Attachment(lay, SPRINGS, machine.arrays)
        machine.tangent(squeezed)
        right = downwards(lay, machine) if right is None else right
        d = np.zeros_like(right)
        count, _, _, negative = machine.solve(right, d, 8, 0.0)
        assert (count, negative) == (0, True)
        found.append(d)
    assert np.abs(found[0]).max() > 0.01
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-6 * np.abs(found[0]).max())  # float32


def downwards(lay, machine) -> np.ndarray:
    """Forces whose first direction is the matrix's lowest eigenvector: the nodes' own blocks times that."""
    free, count = np.repeat(lay.held == 0, 3), len(lay.order)
    values = machine.arrays["values"][: len(lay.pattern.column)].reshape(-1, 3, 3).transpose(0, 2, 1)
    matrix = sp.bsr_matrix((values, lay.pattern.column, lay.pattern.row_start)).toarray()[free][:, free]
    lowest = np.zeros(3 * count)
    lowest[free] = np.linalg.eigh(matrix)[1][:, 0]
    smoother = np.where((lay.held == 0)[:, None, None], machine.arrays["inverse"][:count].reshape(-1, 3, 3), np.eye(3))
    return np.ascontiguousarray(np.linalg.solve(smoother, lowest.reshape(-1, 3, 1))[:, :, 0])


def test_no_kernel_hangs_on_the_order_of_its_threads(monkeypatch):
    solvers = [solver(monkeypatch, by_text(Shim(backwards=backwards))) for backwards in (False, True)]
    for one in solvers:
        one.solve(REST)
    for frame in range(10):  # with a line search in the sixth
        rough = np.array([0.0, 0.09, -0.09]) if frame == 5 else 0.0
        a, b = (one.step(REST + path(frame) + rough) for one in solvers)
        np.testing.assert_array_equal(a.positions, b.positions)
        assert a.residual == b.residual


def test_what_was_captured_is_void_with_other_springs(monkeypatch):
    cpu, cuda = solver(monkeypatch, on_cpu), solver(monkeypatch, by_text(Shim()))
    one, places = Springs(SPRINGS.weights, SPRINGS.stiffness), [REST]
    for frame in range(10):
        a, b = (each.step(np.concatenate(places) + path(frame)) for each in (cpu, cuda))
        np.testing.assert_allclose(b.positions, a.positions, rtol=0, atol=1e-6)
        if frame in (2, 6):  # a probe over many nodes comes, then another
            weights = sp.csr_matrix((np.full(20, 0.05), (np.zeros(20, int), np.arange(60, 80) + frame)), (1, 125))
            one = joined(one, Springs(weights, 80.0 * np.eye(3)[None]))
            places.append(weights @ BODY.vertices)
            cpu.attach(one)
            cuda.attach(one)
        if frame == 8:
            cpu.stiffen(1.5 * one.stiffness)
            cuda.stiffen(1.5 * one.stiffness)


def test_a_frame_that_moves_nothing_teaches_nothing_and_leaves_the_device_ready(monkeypatch):
    cpu, cuda = solver(monkeypatch, on_cpu), solver(monkeypatch, by_text(Shim()))
    learnt = []
    for frame in (0, 1, *[2] * 8):
        cuda.step(REST + path(frame))
        learnt.append(cuda._newton._told[LEARNT])
    assert learnt[0] == 1
    assert learnt[-1] == 0
    a, b = (one.solve(REST + path(9)) for one in (cpu, cuda))
    assert a.converged
    assert b.converged
    np.testing.assert_allclose(b.positions, a.positions, rtol=0, atol=1e-8)  # [m], as between machines


def test_springs_over_many_nodes_are_eliminated_in_any_order():
    rng, lay = np.random.default_rng(4), layout(BODY, BODY.vertices[:, 0] < 1e-9)
    weights = sp.csr_matrix(rng.uniform(0, 1, (7, 125)) * (rng.uniform(0, 1, (7, 125)) < 0.4) / 25)
    roots = rng.standard_normal((7, 3, 3)) * 10.0 ** rng.uniform(0, 3, (7, 1, 1))
    roots[3] = 0  # a spring that holds nothing,
    roots[4, :, 1:] = 0  # and one that holds along a line
    stiffness = roots @ roots.transpose(0, 2, 1)
    inner = []
    for machine in (Native(lay, "neo_hookean", 1), Cuda(lay, "neo_hookean", Shim())):
        Attachment(lay, Springs(weights, stiffness), machine.arrays)
        machine.tangent(machine.arrays.zeros(125, 3))
        inner.append(machine.arrays["wide_inner"].astype(float))
    size = np.sqrt(np.maximum(np.diag(inner[0]), 1e-12))
    # float32 both, of S up to 1e6 N/m beside nodes of some 100 N/m: what is 1e-4 of it decides
    np.testing.assert_allclose(inner[1] / size / size[:, None], inner[0] / size / size[:, None], rtol=0, atol=1e-4)


def test_where_no_frame_can_be_captured_each_move_is_decided_as_it_is_made_and_that_is_said_once(monkeypatch, caplog):
    real = Shim.capture

    def fails(self, flow):
        real(self, flow)
        raise RuntimeError("an operation is not permitted when a stream is capturing")

    told = solver(monkeypatch, by_text(Shim()), decided_by_the_cpu)
    queued = solver(monkeypatch, by_text(Shim()))
    for frame in range(6):
        if frame == 3:  # in the midst of a run, as springs come: what was captured is void
            monkeypatch.setattr(Shim, "capture", fails)
            for one in (told, queued):
                one.attach(Springs(SPRINGS.weights, 1.1 * SPRINGS.stiffness))
        a, b = (one.step(REST + path(frame)) for one in (told, queued))
        assert b.level == "full"
        # [m]: the same kernels, and guesses summed in another order
        np.testing.assert_allclose(b.positions, a.positions, rtol=0, atol=1e-12)
    assert caplog.text.count("captures no frame") == 1


def test_a_device_that_cannot_build_the_kernels_is_refused_with_its_reason(monkeypatch):
    def refuses(**_):
        raise RuntimeError("nvrtc: no such architecture")

    monkeypatch.setattr(launchers, "array_module", lambda _: SimpleNamespace(RawModule=refuses))
    with pytest.raises(PluginError, match="builds the kernels; got RuntimeError: nvrtc: no such architecture"):
        Solver(BODY, SPRINGS, backend="cuda")


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on this machine")
def test_the_text_compiles_for_a_device(tmp_path):
    text, made = native.KERNELS / "cuda.cu", tmp_path / "cuda.ptx"
    done = subprocess.run(
        ["nvcc", "-std=c++14", "-arch=sm_90", "-ptx", "-Werror", "all-warnings", str(text), "-o", str(made)],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    kernels = re.findall(r"^KERNEL\((\w+)\)", text.read_text(), re.MULTILINE)
    assert set(re.findall(r"\.entry (\w+)\(", made.read_text())) == set(kernels)
