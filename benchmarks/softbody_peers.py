"""Others' solvers on the block's settled sag: same mesh of linear tetrahedra, face x = 0 held, gravity, 90 frames/s.

Newton's VBD has our law, so it is compared to the same converged solution. It is imported where it is installed
(`pip install newton`); where it is not, the reason stands in its place. It is dynamic: velocities are damped every
frame until the body rests.
"""

from __future__ import annotations

import time

import numpy as np
import scipy.sparse as sp

from twinguide_softbody.body import Body, Springs
from twinguide_softbody.mesh import block
from twinguide_softbody.quasistatic import Solver

CELLS, YOUNG, POISSON = 9, 5000.0, 0.45
SHEAR = YOUNG / (2 * (1 + POISSON))
LAME = YOUNG * POISSON / ((1 + POISSON) * (1 - 2 * POISSON))
DT = 1 / 90


def ours() -> tuple[np.ndarray, dict[str, object]]:
    """Return the converged positions [m] and the figures of our step, which follows a soft sway of the far face."""
    vertices, tetrahedra = block(CELLS, 0.1)
    tip = np.flatnonzero(vertices[:, 0] > 0.1 - 1e-9)
    row = sp.csr_matrix((np.full(len(tip), 1 / len(tip)), (np.zeros(len(tip), int), tip)), shape=(1, len(vertices)))
    springs = Springs(row, 1e-2 * np.eye(3)[None])  # soft: the far face sways a little
    body = Body(vertices, tetrahedra, YOUNG, POISSON, 1000.0, (0.0, 0.0, -9.81))
    solver = Solver(body, springs, vertices[:, 0] < 1e-9, backend="cpu", threads=1)
    rest = vertices[tip].mean(axis=0)[None]
    truth = solver.solve(rest).positions
    times = []
    for k in range(120):
        begin = time.perf_counter()
        solver.step(rest + 0.02 * np.sin(k / 15.0))
        times.append(time.perf_counter() - begin)
    for _ in range(3):
        solved = solver.step(rest)
    return truth, figures(solved.positions, truth, vertices, times)


def figures(positions: np.ndarray, truth: np.ndarray, vertices: np.ndarray, times: list[float]) -> dict[str, object]:
    """Return milliseconds a frame, sag and error."""
    tip = vertices[:, 0] > 0.1 - 1e-9
    return {
        "ms_per_frame": round(float(np.median(times)) * 1e3, 3),
        "sag_mm": round(float((vertices - positions)[tip, 2].mean()) * 1e3, 3),
        "rms_mm": round(float(np.sqrt(((positions - truth) ** 2).sum(axis=1).mean())) * 1e3, 4),
    }


def newton_vbd(truth: np.ndarray, substeps: int, iterations: int, frames: int) -> dict[str, object]:
    """Return the figures of Newton's SolverVBD on the CPU."""
    import newton
    import warp as wp

    vertices, tetrahedra = block(CELLS, 0.1)
    with wp.ScopedDevice("cpu"):
        builder = newton.ModelBuilder(up_axis="Z", gravity=(0.0, 0.0, -9.81))
        builder.add_soft_mesh(
            pos=wp.vec3(0.0, 0.0, 0.0), rot=wp.quat_identity(), scale=1.0, vel=wp.vec3(0.0, 0.0, 0.0),
            vertices=[wp.vec3(*v) for v in vertices], indices=tetrahedra.ravel().tolist(),
            density=1000.0, k_mu=SHEAR, k_lambda=LAME + SHEAR, k_damp=0.0,
        )  # fmt: skip
        for node in np.flatnonzero(vertices[:, 0] < 1e-9):
            builder.particle_mass[node] = 0.0
            builder.particle_flags[node] = builder.particle_flags[node] & ~int(newton.ParticleFlags.ACTIVE)
        builder.color()
        model = builder.finalize()
        solver = newton.solvers.SolverVBD(model, iterations=iterations)
        a, b, control, times = model.state(), model.state(), model.control(), []
        for _ in range(frames):
            begin = time.perf_counter()
            for _ in range(substeps):
                a.clear_forces()
                solver.step(a, b, control, None, DT / substeps)
                a, b = b, a
            times.append(time.perf_counter() - begin)
            a.particle_qd.assign(a.particle_qd.numpy() * 0.9)
        return figures(a.particle_q.numpy().astype(float), truth, vertices, times[3:])


def compare() -> dict[str, object]:
    """Return the figures of all, and how much slower each is than ours."""
    truth, mine = ours()
    out: dict[str, object] = {"tetrahedra": 6 * CELLS**3, "twinguide, full step": mine}
    runs = {
        "newton VBD, 10 iterations": lambda: newton_vbd(truth, 1, 10, 120),
        "newton VBD, 5 substeps of 10": lambda: newton_vbd(truth, 5, 10, 150),
    }
    for name, run in runs.items():
        try:
            got = run()
        except ImportError as error:
            out[name] = f"not run: {error}"
            continue
        out[name] = {**got, "times_slower": round(got["ms_per_frame"] / mine["ms_per_frame"], 1)}
    out["mujoco flex, pypbd"] = (
        "not run: MuJoCo's law, and probably pypbd's, is St. Venant-Kirchhoff's, under which this block loses its "
        "equilibrium between 80 and 85 % of its weight (1,296 tetrahedra): there is no solution to compare with"
    )
    return out
