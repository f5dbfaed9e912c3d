"""Check and repair one surface: every repair is stated, what cannot be repaired soundly is refused.

Where a surface cuts itself or lies flat on itself is stated, not mended: inside and outside are told by winding
numbers, which bear it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from twinguide.case import Surface
from twinguide.errors import CaseError
from twinguide.frames import Array
from twinguide.importing.geometry import agree, in_mm, inside, rims, shells, volume_of
from twinguide.importing.intersections import crossings, near, overlaps

Triangles = NDArray[np.int64]
SPECK_M3 = 1e-9  # 1 mm3, far below a CT voxel
MERGE_M = 1e-7
HOLE_SHARE = 0.15  # of the bounding diagonal: a hole of a longer rim leaves the shape open to guessing
DEBRIS_SHARE = 0.02  # of the largest shell's volume


def clean(name: str, vertices: Array, triangles: Triangles, *, single: bool) -> tuple[Surface, list[str]]:
    """Return a closed, manifold, outward surface [m] and the repairs made, in words.

    `single` asks for one shell (an organ, a skin); a vessel tree or tumours may have many. Raises CaseError for NaN,
    big holes, edges of more than two triangles, surfaces without an inside, and several organ-sized shells.
    """
    if not np.isfinite(vertices).all():
        bad = int((~np.isfinite(vertices).all(axis=1)).sum())
        got = f"{_many(bad, 'point')} with NaN or infinity"
        raise CaseError("finite points", got, name, "Export the surface again.")
    repairs: list[str] = []
    vertices, triangles = _merge(vertices, triangles, repairs)
    _refuse_branching(name, vertices, triangles)
    triangles = _orient(name, triangles, repairs)
    vertices, triangles = _fill(name, vertices, triangles, repairs)
    vertices, triangles = _shells(name, vertices, triangles, single, repairs)
    pairs = near(vertices, triangles)
    for what, found in (
        ("cuts itself", crossings(vertices, triangles, pairs)),
        ("lies flat on itself", overlaps(vertices, triangles, pairs)),
    ):
        if len(found):
            at = in_mm(vertices[triangles[found[0, 0]]].mean(axis=0))
            repairs.append(
                f"WARNING: {what}, {_many(len(found), 'pair')} of triangles, the first at {at}; left as it is"
            )
    return Surface(vertices, triangles.astype(np.int32)), repairs


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _edges(triangles: Triangles) -> tuple[Triangles, NDArray[np.int64]]:
    """Return the undirected edges, (k, 2), and how many triangles use each, (k,)."""
    pairs = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
    size = int(triangles.max()) + 1
    keys, counts = np.unique(pairs[:, 0] * size + pairs[:, 1], return_counts=True)
    return np.stack([keys // size, keys % size], axis=1), counts.astype(np.int64)


def _merge(vertices: Array, triangles: Triangles, repairs: list[str]) -> tuple[Array, Triangles]:
    """Merge points that coincide (STL has three for each triangle) unless the surface is closed as it is."""
    if len(_edges(triangles)[1]) * 2 != len(triangles) * 3 or (_edges(triangles)[1] != 2).any():
        _, first, inverse = np.unique(
            np.round(vertices / MERGE_M).astype(np.int64), axis=0, return_index=True, return_inverse=True
        )
        merged = len(vertices) - len(first)
        if merged:
            vertices, triangles = vertices[first], inverse.reshape(-1)[triangles]
            repairs.append(f"{_many(merged, 'coincident point')} merged")
    flat = (triangles == np.roll(triangles, 1, axis=1)).any(axis=1)
    if flat.any():
        triangles = triangles[~flat]
        repairs.append(f"{_many(int(flat.sum()), 'triangle')} without area removed")
    _, first = np.unique(np.sort(triangles, axis=1), axis=0, return_index=True)
    if len(first) < len(triangles):
        repairs.append(f"{_many(len(triangles) - len(first), 'repeated triangle')} removed")
        triangles = triangles[np.sort(first)]
    if len(triangles) == 0:
        raise CaseError("triangles with an area", "none")
    return vertices, triangles


def _refuse_branching(name: str, vertices: Array, triangles: Triangles) -> None:
    edges, counts = _edges(triangles)
    if (counts > 2).any():
        at = in_mm(vertices[edges[counts > 2][0]].mean(axis=0))
        raise CaseError(
            "a manifold surface, two triangles at every edge",
            f"{_many(int((counts > 2).sum()), 'edge')} with more, the first at {at}", name,
            "Remove inner walls and touching sheets in the program that made it.",
        )  # fmt: skip


def _fill(name: str, vertices: Array, triangles: Triangles, repairs: list[str]) -> tuple[Array, Triangles]:
    """Close small holes of a surface whose triangles agree, by a fan about the rim's centre; refuse big ones."""
    if (_edges(triangles)[1] == 2).all():
        return vertices, triangles
    limit = HOLE_SHARE * float(np.linalg.norm(np.ptp(vertices, axis=0)))
    loops = rims(triangles)
    lengths = [float(np.linalg.norm(vertices[loop] - vertices[np.roll(loop, 1)], axis=1).sum()) for loop in loops]
    if max(lengths, default=0.0) > limit:
        raise CaseError(
            f"a closed surface (holes of up to {limit * 1e3:.0f} mm rim are filled)",
            f"{_many(len(lengths), 'hole')}, the largest with a rim of {max(lengths) * 1e3:.0f} mm", name,
            "Close it in the program that made it, or extend the segmentation.",
        )  # fmt: skip
    for loop in loops:
        centre = len(vertices)
        vertices = np.vstack([vertices, vertices[loop].mean(axis=0)])
        fan = np.stack([np.roll(loop, -1), loop, np.full(len(loop), centre)], axis=1)
        triangles = np.vstack([triangles, fan])
    if not (_edges(triangles)[1] == 2).all():
        raise CaseError("a surface that closes", "rims that touch each other", name, "Close it before the import.")
    repairs.append(f"{_many(len(loops), 'hole')} filled, the largest with a rim of {max(lengths) * 1e3:.1f} mm")
    return vertices, triangles


def _orient(name: str, triangles: Triangles, repairs: list[str]) -> Triangles:
    """Turn triangles so that neighbours agree; raise CaseError for a surface with one side only."""
    before = triangles
    triangles = agree(triangles)
    directed = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    if len(np.unique(directed[:, 0] * (triangles.max() + 1) + directed[:, 1])) != len(directed):
        raise CaseError(
            "a surface with an inside and an outside", "a one-sided one, as a Moebius strip is", name,
            "Cut the twist out in the program that made it, or segment anew.",
        )  # fmt: skip
    turned = int((_handed(before) != _handed(triangles)).sum())
    turned = min(turned, len(triangles) - turned)
    if turned:
        repairs.append(f"{_many(turned, 'triangle')} that disagreed with neighbours turned")
    return triangles


def _handed(triangles: Triangles) -> NDArray[np.bool_]:
    """Return whether each triangle's indices are an even turn of their sorted order."""
    a, b, c = triangles.T
    return (a < b).astype(int) + (b < c) + (c < a) == 2


def _shells(
    name: str, vertices: Array, triangles: Triangles, single: bool, repairs: list[str]
) -> tuple[Array, Triangles]:
    """Turn each shell outward, drop specks and, where one shell is asked for, debris."""
    parts = shells(triangles)
    volumes = np.array([volume_of(vertices, part) for part in parts])
    parts = [part if volume >= 0 else part[:, ::-1] for part, volume in zip(parts, volumes, strict=True)]
    size = np.abs(volumes)
    specks = size < SPECK_M3
    if specks.all():
        got = f"{size.sum() * 1e9:.3g} mm3"
        raise CaseError("a surface that encloses a volume", got, name, "It is flat or a speck: export it again.")
    if specks.any():
        repairs.append(f"{_many(int(specks.sum()), 'speck')} of less than 1 mm3 dropped")
    kept = sorted((k for k in range(len(parts)) if not specks[k]), key=lambda k: -size[k])
    if single and len(kept) > 1:
        debris = size[kept[1:]].sum()
        if debris > DEBRIS_SHARE * size[kept[0]]:
            got = ", ".join(f"{size[k] * 1e6:.1f} mL" for k in kept[:5])
            raise CaseError("one shell", f"{len(kept)}: {got}", name, "Keep the organ's own, or give each its file.")
        repairs.append(f"{_many(len(kept) - 1, 'further shell')} of {debris * 1e6:.2f} mL in all dropped")
        kept = kept[:1]
    if any(volumes[k] < 0 for k in kept):
        repairs.append(f"{_many(sum(bool(volumes[k] < 0) for k in kept), 'inverted shell')} turned outward")
    if len(kept) > 1:
        cavities = _cavities(vertices, [parts[k] for k in kept])
        for k in cavities:
            parts[kept[k]] = parts[kept[k]][:, ::-1]
        note = f", {len(cavities)} of them cavities" if cavities else ""
        repairs.append(f"{len(kept)} shells kept{note}")
    triangles = np.concatenate([parts[k] for k in kept])
    used, inverse = np.unique(triangles, return_inverse=True)
    return vertices[used], inverse.reshape(-1, 3)


def _cavities(vertices: Array, parts: list[Triangles]) -> list[int]:
    """Return which outward shells lie wholly inside an odd number of others: they bound cavities."""
    out: list[int] = []
    for k, part in enumerate(parts):
        points = vertices[np.unique(part)[:: max(1, len(part) // 100)]]
        others = [Surface(vertices, other.astype(np.int32)) for m, other in enumerate(parts) if m != k]
        if sum(bool(inside(other, points).all()) for other in others) % 2 == 1:
            out.append(k)
    return out
