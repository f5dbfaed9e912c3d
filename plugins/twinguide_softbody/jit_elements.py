"""The element physics in Numba, for machines without a C compiler: the formulas of `kernels/element.h`, one for one.

Slower than the C text (no blocks of elements side by side) and tested against it.
"""

# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportUntypedFunctionDecorator=false
# ruff: noqa: ANN001, ANN201
from __future__ import annotations

import numpy as np
from numba import njit

NEO_HOOKEAN, COROTATIONAL, LINEAR = 0, 1, 2


def compiled(function):
    """Compile by Numba once for this machine, or in every process where no folder can be written to."""
    try:
        return njit(cache=True)(function)
    except RuntimeError:
        return njit(function)


@compiled
def cofactor(f, c):
    """Write the cofactors of f, both (3, 3)."""
    for i in range(3):
        for j in range(3):
            a, b, d, e = (i + 1) % 3, (i + 2) % 3, (j + 1) % 3, (j + 2) % 3
            c[i, j] = f[a, d] * f[b, e] - f[a, e] * f[b, d]


@compiled
def dilation(h, c):
    """Return det(I + h) - 1, of cofactors c of I + h, without its cancellation."""
    less = h[1, 1] + h[2, 2] + (h[1, 1] * h[2, 2] - h[1, 2] * h[2, 1])
    return less + h[0, 0] * c[0, 0] + h[0, 1] * c[0, 1] + h[0, 2] * c[0, 2]


@compiled
def frame(f, material, r):
    """Write the rotation of f (Higham's iteration), or the identity."""
    c = np.empty((3, 3))
    r[...] = f if material == COROTATIONAL else np.eye(3)
    if material == COROTATIONAL:
        for _ in range(10):
            cofactor(r, c)
            half = 0.5 / (r[0, 0] * c[0, 0] + r[0, 1] * c[0, 1] + r[0, 2] * c[0, 2])
            r[...] = 0.5 * r + half * c


@compiled
def stress(h, mu, lame, material, p):
    """Write the first Piola-Kirchhoff stress; return energy density and J."""
    f, c = h + np.eye(3), np.empty((3, 3))
    cofactor(f, c)
    more = dilation(h, c)
    if material == NEO_HOOKEAN:
        lam = lame + mu
        p[...] = mu * f + (lam * more - mu) * c
        trace = h[0, 0] + h[1, 1] + h[2, 2]
        return mu * (trace - more) + 0.5 * (mu * (h * h).sum() + lam * more * more), more + 1
    frame(f, material, c)
    e = c.T @ f - np.eye(3)
    e = 0.5 * (e + e.T)
    trace = e[0, 0] + e[1, 1] + e[2, 2]
    p[...] = c @ (2 * mu * e + lame * trace * np.eye(3))
    return mu * (e * e).sum() + 0.5 * lame * trace * trace, more + 1


@compiled
def gradients(data, g):
    """Write the four corners' gradients, (4, 3), of an element's data."""
    for j in range(3):
        for c in range(3):
            g[c + 1, j] = data[3 * c + j]
        g[0, j] = -(g[1, j] + g[2, j] + g[3, j])


@compiled
def element_forces(conn, data, slope, material, u, out):
    """Write each element's nodal forces [N], (m / 8, nodes, 8, 3) as system.h; return energy [J] and smallest J."""
    total, least = 0.0, 1e300
    g, p = np.empty((4, 3)), np.empty((3, 3))
    for e in range(len(conn)):
        gradients(data[e], g)
        out[e // 8, :, e % 8] = 0
        for q in range(len(slope)):
            n = slope[q] @ g
            h = np.zeros((3, 3))
            for a in range(conn.shape[1]):
                for i in range(3):
                    h[i] += u[conn[e, a], i] * n[a]
            w, j = stress(h, data[e, 10], data[e, 11], material, p)
            v = data[e, 9] / len(slope)
            total += v * w
            least = min(least, j)
            for a in range(conn.shape[1]):
                for i in range(3):
                    out[e // 8, a, e % 8, i] -= v * (p[i, 0] * n[a, 0] + p[i, 1] * n[a, 1] + p[i, 2] * n[a, 2])
    return total, least


@compiled
def element_blocks(conn, data, slope, material, u, out):
    """Write the blocks between nodes a < b [N/m], (m, pairs, 9), column-major."""
    g, m = np.empty((4, 3)), np.empty((3, 3))
    for e in range(len(conn)):
        gradients(data[e], g)
        mu, lame, v = data[e, 10], data[e, 11], data[e, 9] / len(slope)
        out[e] = 0
        for q in range(len(slope)):
            n = slope[q] @ g
            f = np.eye(3)
            for a in range(conn.shape[1]):
                for i in range(3):
                    f[i] += u[conn[e, a], i] * n[a]
            b, c, d = lame, mu, 0.0
            if material == NEO_HOOKEAN:
                cofactor(f, m)
                b, c, d = lame + mu, 0.0, (lame + mu) * dilation(f - np.eye(3), m) - mu
            else:
                frame(f, material, m)
            pair = 0
            for x in range(conn.shape[1]):
                for y in range(x + 1, conn.shape[1]):
                    add_block(v * mu, v * b, v * c, v * d, n[x], n[y], m, f, out[e, pair])
                    pair += 1


@compiled
def add_block(a, b, c, d, gi, gj, m, f, out):
    """Add a (gi.gj) I + b ti tj' + c tj ti' - d [F (gi x gj)]_x, column-major."""
    ti, tj, w = m @ gi, m @ gj, d * (f @ np.cross(gi, gj))
    for j in range(3):
        for i in range(3):
            out[3 * j + i] += b * ti[i] * tj[j] + c * tj[i] * ti[j]
        out[4 * j] += a * (gi[0] * gj[0] + gi[1] * gj[1] + gi[2] * gj[2])
    out[3] += w[2]
    out[6] -= w[1]
    out[1] -= w[2]
    out[7] += w[0]
    out[2] += w[1]
    out[5] -= w[0]
