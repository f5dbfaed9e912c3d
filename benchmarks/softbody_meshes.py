"""What the mesh alone is off at full inspiration, and what a frame takes, with 4 and with 10 nodes to a tetrahedron.

Run by `python benchmarks/softbody_error.py --only meshes`.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import replace

import numpy as np
from softbody_subjects import DRIVES, SIZE, SURE, TARGET, mixture, patient

from twinguide_softbody import constraints, mesh
from twinguide_softbody.organ import SoftBody

TRIANGLES, FINE = (450, 2000), 3000  # of the surfaces of livers that are compared, the importer's among them
WIDE = 0.05  # of the target's patch then: as wide on each of them [m]
# A tetrahedron of ten nodes in eight: at its corners, and about the diagonal from node 6 to 8 of what is left.
EIGHT = np.array([[0, 4, 6, 7], [4, 1, 5, 8], [6, 5, 2, 9], [7, 8, 9, 3],
                  [6, 8, 4, 5], [6, 8, 5, 9], [6, 8, 9, 7], [6, 8, 7, 4]])  # fmt: skip


def settled(soft: SoftBody, motion: np.ndarray) -> np.ndarray:
    """Return how far each vertex has moved [m], shape (n, 3), when the target has by `motion` [m]."""
    for share in (*np.linspace(0.1, 1.0, 10), *np.ones(30)):
        frame = soft.step(share * motion, SURE)
    assert frame.level == "full"
    soft.close()
    return frame.vertices - soft.body.vertices


def frame_ms(soft: SoftBody, motion: np.ndarray) -> float:
    """Return the median time of a step [ms] through a breath of 120, the best of six: its thread's own time."""
    times = []
    for share in 0.5 - 0.5 * np.cos(np.arange(6 * 120) * np.pi / 60):
        begin = time.thread_time()
        soft.step(share * motion, SURE)
        times.append(time.thread_time() - begin)
    soft.close()
    return 1e3 * float(np.median(np.reshape(times, (6, 120)), axis=1).min())


def on_block(poisson: float) -> list[dict[str, float]]:
    """Measure the block's meshes, each with tissues as it resolves them, at 125 places against the first of all."""
    rows, places, motion = [], mesh.block(4, SIZE)[0], np.array(DRIVES[0])
    truth = np.zeros((0, 3))
    for each, cells in ((10, 12), (4, 4), (4, 8), (10, 4), (10, 8)):
        corners = mesh.block(cells, SIZE)
        own = mixture(*corners)[0]
        mixed = replace(own, tissues=[replace(tissue, poisson=poisson) for tissue in own.tissues])
        nodes = corners if each == 4 else mesh.quadratic(*corners)
        soft, again = (SoftBody(*nodes, mixed, TARGET, patch_radius_m=WIDE) for _ in range(2))
        moved = constraints.point_weights(*nodes, places) @ settled(soft, motion)
        if not len(truth):
            truth = moved
            continue
        away = 1e3 * np.linalg.norm(moved - truth, axis=1)
        rows.append({
            "poisson": poisson, "nodes_each": each, "tetrahedra": len(nodes[1]), "nodes": len(nodes[0]),
            "frame_ms": round(frame_ms(again, motion), 2),
            "rms_mm": round(float(np.sqrt((away**2).mean())), 4), "max_mm": round(float(away.max()), 4),
        })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    return rows


def on_liver(seed: int, poisson: float) -> list[dict[str, float]]:
    """Measure a liver's meshes: against each one split in eight, and as its surfaces are shown, against a fine one."""
    from twinguide.embedding import embed
    from twinguide.importing.meshing import body_of
    from twinguide_softbody.part import mixture_of

    with tempfile.TemporaryDirectory() as folder:
        case, motion, _ = patient(seed, folder)
        surface, inner = case.surface(case.organ), {name: case.surface(name) for name in case.body().fractions}
    shown = np.concatenate([surface.vertices, *(one.vertices for one in inner.values())])

    def made(body, vertices: np.ndarray, tetrahedra: np.ndarray, times: int = 1) -> SoftBody:
        own = mixture_of(case, body)
        tissues = [replace(tissue, poisson=poisson) for tissue in own.tissues]
        mixed = replace(own, tissues=tissues, shares=np.repeat(own.shares, times, axis=1))
        return SoftBody(vertices, tetrahedra, mixed, case.plan.target, patch_radius_m=WIDE)

    fine = body_of(surface, FINE, inner)[0]
    soft = made(fine, *mesh.quadratic(fine.vertices, fine.tetrahedra))
    at = constraints.point_weights(soft.body.vertices, soft.body.elements, shown)
    truth, rows = at @ settled(soft, motion), []
    for triangles in TRIANGLES:
        body = body_of(surface, triangles, inner)[0]
        ten = mesh.quadratic(body.vertices, body.tetrahedra)
        eight = ten[1][:, EIGHT].reshape(-1, 4)
        turned = mesh.volumes(ten[0], eight) < 0
        eight[turned] = eight[turned][:, [0, 2, 1, 3]]
        count, ride = len(body.vertices), embed(body, shown)
        exact = settled(made(body, *mesh.quadratic(ten[0], eight), times=8), motion)[:count]
        for nodes in ((body.vertices, body.tetrahedra), ten):
            moved = settled(made(body, *nodes), motion)[:count]
            away = 1e3 * np.linalg.norm(moved - exact, axis=1)
            off = 1e3 * np.linalg.norm(ride.apply(body.vertices + moved) - shown - truth, axis=1)
            rows.append({
                "poisson": poisson, "nodes_each": nodes[1].shape[1], "tetrahedra": len(eight) // 8,
                "nodes": len(nodes[0]), "frame_ms": round(frame_ms(made(body, *nodes), motion), 2),
                "rms_mm": round(float(np.sqrt((away**2).mean())), 4), "max_mm": round(float(away.max()), 4),
                "shown_rms_mm": round(float(np.sqrt((off**2).mean())), 4),
                "shown_p95_mm": round(float(np.percentile(off, 95)), 4),
            })  # fmt: skip
            print(json.dumps(rows[-1]), flush=True)
    return rows
