"""Others' solvers on the block of 10 cm: the same linear tetrahedra, face x = 0 held, half its weight, 90 frames/s.

Half: MuJoCo's and pypbd's law is St. Venant-Kirchhoff's, under which the block loses its equilibrium between 50 and
70 % of its weight. Newton's VBD has our law. So each is judged by the converged solution of its own law: Neo-Hookean's
by our solver's (which agrees with scikit-fem to 1e-6, docs/verification.md), St. Venant-Kirchhoff's by scikit-fem's.

`settled`: they are dynamic, so velocities are damped by a tenth every frame until the body rests; what a frame costs
there, and the error that stays. `followed`: the far face is drawn by a force that sways, and the error is taken in
motion, as guidance has it. There only MuJoCo can compete: with time steps of a second and velocities cleared, its
implicit step is a Newton step towards rest.

What is not installed (`pip install newton mujoco pypbd scikit-fem`) says so in its place.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from twinguide_softbody.body import Body, Springs
from twinguide_softbody.mesh import block, volumes
from twinguide_softbody.quasistatic import Solver

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "verification"))

CELLS, YOUNG, POISSON, WEIGHT = 9, 5000.0, 0.45, 0.5 * 9.81
SHEAR = YOUNG / (2 * (1 + POISSON))
LAME = YOUNG * POISSON / ((1 + POISSON) * (1 - 2 * POISSON))
DT = 1 / 90
VERTICES, TETRAHEDRA = block(CELLS, 0.1)
HELD, TIP = VERTICES[:, 0] < 1e-9, VERTICES[:, 0] > 0.1 - 1e-9
MASS = np.bincount(TETRAHEDRA.ravel(), np.repeat(volumes(VERTICES, TETRAHEDRA) * 250, 4), len(VERTICES))
SWAY_N, SOFT = 0.4, 1e-2  # [N], of the far face; [N/m], of the long spring that draws ours
FOLLOWED, JUDGED = 60, (15, 30, 45, 59)  # frames

Figures = dict[str, Any]


def force(k: int) -> np.ndarray:
    """Return the force [N] on the far face in frame k: a slow turn, 0.5 and 0.4 Hz."""
    return SWAY_N * np.array([0.0, np.sin(2 * np.pi * 0.5 * k * DT), np.sin(2 * np.pi * 0.4 * k * DT)])


def error(positions: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Return the rms and the largest distance [mm]."""
    away = 1e3 * np.linalg.norm(positions - truth, axis=1)
    return float(np.sqrt((away**2).mean())), float(away.max())


def figures(positions: np.ndarray, truth: np.ndarray, times: list[float]) -> Figures:
    """Return milliseconds a frame, sag and error of a body at rest."""
    rms, most = error(positions, truth)
    sag = float((VERTICES - positions)[TIP, 2].mean())
    return {
        "ms_per_frame": round(1e3 * float(np.median(times)), 3), "sag_mm": round(1e3 * sag, 3),
        "rms_mm": round(rms, 5), "max_mm": round(most, 5),
    }  # fmt: skip


def timed(step: Callable[[], object], times: list[float]) -> None:
    """Call `step` and note its seconds."""
    begin = time.perf_counter()
    step()
    times.append(time.perf_counter() - begin)


def ours() -> tuple[np.ndarray, Figures, Figures]:
    """Return the converged rest [m] and our figures: settled after a sway, and followed."""
    count = int(TIP.sum())
    row = sp.csr_matrix((np.full(count, 1 / count), (np.zeros(count, int), np.flatnonzero(TIP))), (1, len(VERTICES)))
    young, poisson = (np.full(len(TETRAHEDRA), value) for value in (YOUNG, POISSON))
    body = Body(VERTICES, TETRAHEDRA, young, poisson, 1000.0, (0.0, 0.0, -WEIGHT))
    solver, exact = (
        Solver(body, Springs(row, SOFT * np.eye(3)[None]), HELD, backend="cpu", threads=1) for _ in range(2)
    )
    rest = VERTICES[TIP].mean(axis=0)[None]
    still = solver.solve(rest).positions
    times: list[float] = []
    for k in range(-30, 0):  # the way in
        solver.step(rest + force(k) / SOFT)
    errors = []
    for k in range(FOLLOWED):
        timed(lambda k=k: solver.step(rest + force(k) / SOFT), times)
        if k in JUDGED:
            errors.append(error(solver.positions, exact.solve(rest + force(k) / SOFT).positions))
    for _ in range(5):
        solver.step(rest)
    calm: list[float] = []
    for _ in range(60):
        timed(lambda: solver.step(rest), calm)
    return still, figures(solver.positions, still, calm), followed(times, errors)


def followed(times: list[float], errors: list[tuple[float, float]]) -> Figures:
    """Return milliseconds a frame and the largest errors of a body in motion."""
    rms, most = (max(e[i] for e in errors) for i in range(2))
    return {"ms_per_frame": round(1e3 * float(np.median(times)), 3), "rms_mm": round(rms, 5), "max_mm": round(most, 5)}


def kirchhoff() -> dict[int, np.ndarray]:
    """Return St. Venant-Kirchhoff's converged positions [m] by scikit-fem: at rest (-1) and in the judged frames."""
    import skfem
    from independent import Law, Static

    unit = np.eye(3)

    def second(f: np.ndarray) -> np.ndarray:
        one = unit.reshape(3, 3, *[1] * (f.ndim - 2))
        strain = 0.5 * (np.einsum("ki...,kj...->ij...", f, f) - one)
        return 2 * SHEAR * strain + LAME * np.einsum("kk...->...", strain) * one

    def tangent(f: np.ndarray) -> np.ndarray:
        own = np.einsum("ik,jl...->ijkl...", unit, second(f)) + LAME * np.einsum("ij...,kl...->ijkl...", f, f)
        square = np.einsum("im...,km...->ik...", f, f)
        return own + SHEAR * (np.einsum("ik...,jl->ijkl...", square, unit) + np.einsum("il...,kj...->ijkl...", f, f))

    law = Law(lambda f: np.einsum("ik...,kj...->ij...", f, second(f)), tangent)
    mesh = skfem.MeshTet(VERTICES.T, TETRAHEDRA.T)
    problem = Static(mesh, skfem.ElementTetP1(), law, np.array([0.0, 0.0, -1000 * WEIGHT]))
    dofs = problem.basis.nodal_dofs
    clamp, weight = dofs[:, HELD].ravel(), problem.load.copy()
    out = {}
    for k in (-1, *JUDGED):
        problem.load = weight.copy()
        if k >= 0:
            problem.load[dofs[:, TIP]] += force(k)[:, None] / TIP.sum()
        out[k] = VERTICES + problem.solve(clamp, steps=8)[dofs].T
    return out


def newton_vbd(truth: np.ndarray, substeps: int, iterations: int, frames: int = 150) -> Figures:
    """Return the figures of Newton's SolverVBD on the CPU, settled."""
    import newton
    import warp as wp

    with wp.ScopedDevice("cpu"):
        builder = newton.ModelBuilder(up_axis="Z", gravity=(0.0, 0.0, -WEIGHT))
        builder.add_soft_mesh(
            pos=wp.vec3(0.0, 0.0, 0.0), rot=wp.quat_identity(), scale=1.0, vel=wp.vec3(0.0, 0.0, 0.0),
            vertices=[wp.vec3(*v) for v in VERTICES], indices=TETRAHEDRA.ravel().tolist(),
            density=1000.0, k_mu=SHEAR, k_lambda=LAME + SHEAR, k_damp=0.0,
        )  # fmt: skip
        for node in np.flatnonzero(HELD):
            builder.particle_mass[node] = 0.0
            builder.particle_flags[node] = builder.particle_flags[node] & ~int(newton.ParticleFlags.ACTIVE)
        builder.color()
        model = builder.finalize()
        solver = newton.solvers.SolverVBD(model, iterations=iterations)
        states, control, times = [model.state(), model.state()], model.control(), []

        def frame() -> None:
            for _ in range(substeps):
                states[0].clear_forces()
                solver.step(states[0], states[1], control, None, DT / substeps)
                states.reverse()

        for _ in range(frames):
            timed(frame, times)
            states[0].particle_qd.assign(states[0].particle_qd.numpy() * 0.9)
        return figures(states[0].particle_q.numpy().astype(float), truth, times[3:])


def pypbd_xpbd(truth: np.ndarray, substeps: int, frames: int = 150) -> Figures:
    """Return the figures of pypbd's FEM-XPBD, settled. Its gravity is -y and fixed: the axes turn, the mass halves."""
    import pypbd

    turned = [0, 2, 1]
    simulation = pypbd.Simulation.getCurrent()
    simulation.initDefault()
    model, step = simulation.getModel(), simulation.getTimeStep()
    model.addTetModel(list(VERTICES[:, turned]), TETRAHEDRA[:, [0, 2, 1, 3]].ravel().tolist())
    particles, nodes = model.getParticles(), range(len(VERTICES))
    for i in nodes:
        particles.setMass(i, 0.0 if HELD[i] else float(MASS[i]) * WEIGHT / 9.81)
    model.addSolidConstraints(model.getTetModels()[0], 3, YOUNG, POISSON, 1.0, False, False)
    step.setValueUInt(pypbd.TimeStepController.NUM_SUB_STEPS, substeps)
    step.setValueUInt(pypbd.TimeStepController.MAX_ITERATIONS, 1)
    pypbd.TimeManager.getCurrent().setTimeStepSize(DT)
    times: list[float] = []
    for _ in range(frames):
        timed(lambda: step.step(model), times)
        for i in nodes:
            particles.setVelocity(i, 0.9 * np.array(particles.getVelocity(i)))
    return figures(np.array([particles.getPosition(i) for i in nodes])[:, turned], truth, times)


class Flex:
    """MuJoCo's flex of one body to a node, masses lumped as ours; `dt` [s] a step, velocities kept by `keep`."""

    def __init__(self, dt: float, keep: float, tolerance: float) -> None:
        import mujoco

        mujoco.set_mju_user_warning(lambda _: None)  # of flexes held by nothing but their weight
        slides = "".join(f'<joint type="slide" axis="{axis}"/>' for axis in ("1 0 0", "0 1 0", "0 0 1"))
        bodies = "".join(
            f'<body name="b{i}" pos="{text(at)}"><inertial pos="0 0 0" mass="{mass}" diaginertia="1e-9 1e-9 1e-9"/>'
            f"{'' if held else slides}</body>"
            for i, (at, mass, held) in enumerate(zip(VERTICES, MASS.tolist(), HELD, strict=True))
        )
        names = " ".join(f"b{i}" for i in range(len(VERTICES)))
        self._mujoco = mujoco
        self._model = mujoco.MjModel.from_xml_string(
            f'<mujoco><option timestep="{dt}" gravity="0 0 {-WEIGHT}" integrator="discrete" tolerance="{tolerance}">'
            f'<flag contact="disable"/></option><worldbody>{bodies}</worldbody><deformable>'
            f'<flex name="block" dim="3" body="{names}" element="{text(TETRAHEDRA)}" radius="0.0001">'
            f'<elasticity young="{YOUNG}" poisson="{POISSON}"/></flex></deformable></mujoco>'
        )
        self._data, self._keep = mujoco.MjData(self._model), keep

    def draw(self, pull: np.ndarray) -> None:
        """Pull the far face by a force [N]."""
        self._data.xfrc_applied[1:][TIP, :3] = pull / TIP.sum()

    def step(self) -> None:
        """Take one step."""
        self._mujoco.mj_step(self._model, self._data)
        self._data.qvel *= self._keep

    @property
    def positions(self) -> np.ndarray:
        """Positions [m], (n, 3)."""
        self._mujoco.mj_kinematics(self._model, self._data)
        self._mujoco.mj_flex(self._model, self._data)
        return np.array(self._data.flexvert_xpos).reshape(-1, 3)


def text(values: np.ndarray) -> str:
    """Return numbers as MuJoCo's XML has them."""
    return " ".join(map(str, np.asarray(values).ravel().tolist()))


def flex_settled(truth: np.ndarray, tolerance: float, frames: int = 150) -> Figures:
    """Return the figures of MuJoCo's flex, settled."""
    flex, times = Flex(DT, 0.9, tolerance), []
    for _ in range(frames):
        timed(flex.step, times)
    return figures(flex.positions, truth, times)


def flex_followed(truth: dict[int, np.ndarray], steps: int) -> Figures:
    """Return the figures of MuJoCo's flex that takes `steps` steps of a second each frame."""
    flex, times, errors = Flex(1.0, 0.0, 1e-4), [], []
    for k in range(-30, FOLLOWED):
        flex.draw(force(k))
        timed(lambda: [flex.step() for _ in range(steps)], times)
        if k in JUDGED:
            errors.append(error(flex.positions, truth[k]))
    return followed(times, errors)


def compare() -> Figures:
    """Return the figures of all, and how much slower each is than ours."""
    still, calm, mine = ours()
    try:
        svk = kirchhoff()
    except ImportError as missing:
        return {"tetrahedra": len(TETRAHEDRA), "not run": str(missing)}
    settled = {
        "newton VBD, 10 iterations": lambda: newton_vbd(still, 1, 10),
        "newton VBD, 5 substeps of 10": lambda: newton_vbd(still, 5, 10),
        "pypbd FEM-XPBD, 20 substeps": lambda: pypbd_xpbd(svk[-1], 20),
        "pypbd FEM-XPBD, 100 substeps": lambda: pypbd_xpbd(svk[-1], 100),
        "mujoco flex": lambda: flex_settled(svk[-1], 1e-8),
        "mujoco flex, tolerance 1e-3": lambda: flex_settled(svk[-1], 1e-3),
    }
    moving = {f"mujoco flex, {n} static steps": lambda n=n: flex_followed(svk, n) for n in (1, 3, 6, 12)}
    return {
        "tetrahedra": len(TETRAHEDRA),
        "settled": {"twinguide, full step": calm, **beside(settled, calm)},
        "followed": {"twinguide, full step": mine, **beside(moving, mine)},
    }


def beside(runs: dict[str, Callable[[], Figures]], mine: Figures) -> Figures:
    """Run each, and tell how many times slower than ours it is; what is not installed says so."""
    out: Figures = {}
    for name, run in runs.items():
        try:
            got = run()
        except ImportError as missing:
            out[name] = f"not run: {missing}"
            continue
        out[name] = {
            **got,
            "times_slower": round(got["ms_per_frame"] / mine["ms_per_frame"], 1),
        }
        print(name, out[name], flush=True)
    return out
