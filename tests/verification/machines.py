"""Two codes on the clamped block's same mesh: the text for CUDA, thread after thread, and scikit-fem, against C."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
import skfem
from independent import Static, neo_hookean
from problems import POISSON, YOUNG, clamped, mesh

from twinguide_softbody.attachment import Attachment
from twinguide_softbody.body import Body, Springs
from twinguide_softbody.cuda import Cuda
from twinguide_softbody.launchers import Shim
from twinguide_softbody.layout import layout
from twinguide_softbody.machine import Native
from twinguide_softbody.newton import Newton

FRAMES = 12
CONVERGED = 4  # steps with one matrix: a guess that one of the two takes and the other leaves is forgotten by then


def difference(cells: int, order: int) -> float:
    """Return the largest distance [m] between the two, after frames in which the far face is drawn by 2 cm."""
    vertices, elements = mesh(cells, 0.1, order)
    body = Body(vertices, elements, YOUNG, POISSON, 1000.0, (0.0, 0.0, -9.81))
    lay = layout(body, vertices[:, 0] < 1e-9)
    tip = np.flatnonzero(vertices[:, 0] > 0.1 - 1e-9)
    mean = sp.csr_matrix((np.full(len(tip), 1 / len(tip)), (np.zeros(len(tip), int), tip)), shape=(1, len(vertices)))
    poses = []
    for machine in (Native(lay, "neo_hookean", 1), Cuda(lay, "neo_hookean", Shim())):
        machine.arrays.set("load", body.weight[lay.order], np.float64)
        attachment = Attachment(lay, Springs(mean, 100 * np.eye(3)[None]), machine.arrays)
        newton = Newton(lay, machine, attachment)
        for frame in range(1, FRAMES + 1):
            newton.begin()
            newton.load(np.array([[0.0, 0.02, -0.01]]) * frame / FRAMES, 0.3)
            newton.guess()
            newton.assemble()
            newton.coarse.refresh(attachment)
            for _ in range(CONVERGED):
                newton.iterate(200, 1e-7)
            newton.end()
        newton.coarse.close()
        poses.append(newton.displacements())
    assert np.abs(poses[0]).max() > 0.01
    return float(np.linalg.norm(poses[1] - poses[0], axis=1).max())


def apart_from_scikit_fem(cells: int, order: int) -> float:
    """Return the largest difference of scikit-fem's displacements of the corners, over the largest of them."""
    vertices, elements = mesh(cells, 0.1, order)
    solved = clamped(cells, order)
    corners = int(elements[:, :4].max()) + 1
    grid = skfem.MeshTet(vertices[:corners].T, elements[:, :4].T)
    element = skfem.ElementTetP1() if order == 1 else skfem.ElementTetP2()
    theirs = Static(grid, element, neo_hookean(YOUNG, POISSON), np.array([0.0, 0.0, -9810.0]))
    moved = theirs.solve(theirs.basis.get_dofs(lambda x: x[0] < 1e-9).all())[theirs.basis.nodal_dofs].T
    return float(np.abs(moved - (solved.positions - vertices)[:corners]).max() / np.abs(moved).max())
