/* From nodes to corners at a quadrature point: a 4-node element has one point, a 10-node one four (degree 2).
 *
 * At a point with barycentric coordinates L, a shape function's gradient is sum_c B_ac g_c: corner nodes have
 * B_aa = 4 L_a - 1, the node amid edge (a, b) has 4 L_b on corner a and 4 L_a on corner b. So the element of 10 nodes
 * is the physics of `element.h` between four combinations of nodes. Included once per precision, as element.h.
 */
#define HIGH ((scalar)0.58541019662496845446)
#define LOW ((scalar)0.13819660112501051518)

#ifndef RULE_TABLES
#define RULE_TABLES
TABLE int EDGE_A[6] = {0, 1, 2, 0, 1, 2};
TABLE int EDGE_B[6] = {1, 2, 0, 3, 3, 3};
#endif

INLINE scalar NAME(place)(int point, int corner) { return point == corner ? HIGH : LOW; }

/* The k-th corner that node a's shape function leans on (one for a corner, two for a midside node), and B_ac. */
INLINE int NAME(lean)(int point, int a, int k, scalar *slope) {
    if (a < 4) {
        *slope = 4 * NAME(place)(point, a) - 1;
        return a;
    }
    *slope = 4 * NAME(place)(point, k ? EDGE_A[a - 4] : EDGE_B[a - 4]);
    return k ? EDGE_B[a - 4] : EDGE_A[a - 4];
}

/* u[4][3] at a point, from the nodes' u[nodes][3]. */
INLINE void NAME(to_corners)(int nodes, int point, const real *u, real *at) {
    if (nodes == 4) {
        for (int k = 0; k < 12; k++) at[k] = u[k];
        return;
    }
    for (int i = 0; i < 3; i++) {
        for (int c = 0; c < 4; c++) at[3 * c + i] = (4 * NAME(place)(point, c) - 1) * u[3 * c + i];
        for (int e = 0; e < 6; e++) {
            int a = EDGE_A[e], b = EDGE_B[e];
            at[3 * a + i] = at[3 * a + i] + 4 * NAME(place)(point, b) * u[3 * (4 + e) + i];
            at[3 * b + i] = at[3 * b + i] + 4 * NAME(place)(point, a) * u[3 * (4 + e) + i];
        }
    }
}

/* Add the corners' forces at[4][3] to the nodes' f[nodes][3]. */
INLINE void NAME(from_corners)(int nodes, int point, const real *at, real *f) {
    if (nodes == 4) {
        for (int k = 0; k < 12; k++) f[k] = at[k];
        return;
    }
    for (int i = 0; i < 3; i++) {
        for (int c = 0; c < 4; c++)
            f[3 * c + i] = f[3 * c + i] + (4 * NAME(place)(point, c) - 1) * at[3 * c + i];
        for (int e = 0; e < 6; e++) {
            int a = EDGE_A[e], b = EDGE_B[e];
            f[3 * (4 + e) + i] = f[3 * (4 + e) + i] + 4 * NAME(place)(point, b) * at[3 * a + i] +
                                 4 * NAME(place)(point, a) * at[3 * b + i];
        }
    }
}

/* Energy [J], smallest J and nodal forces f[nodes][3] [N] of one element; data: g[9], volume, mu, lambda. */
INLINE void NAME(element_force)(int nodes, int material, const real *data, const real *u, real *energy, real *j,
                                real *f) {
    int count = nodes == 4 ? 1 : 4;
    real less = -data[9] / (scalar)count; /* forces are minus the energy's slope, and both are linear in the moduli */
    *energy = less - less;
    for (int k = 0; k < 3 * nodes; k++) f[k] = less - less;
    for (int point = 0; point < count; point++) {
        real at[12], h[9];
        NAME(Stress) s;
        NAME(to_corners)(nodes, point, u, at);
        NAME(gradient)(at, data, h);
        NAME(stress)(h, less * data[10], less * data[11], material, &s);
        NAME(corner_forces)(s.p, data, at);
        NAME(from_corners)(nodes, point, at, f);
        *energy = *energy - s.energy;
        j[point] = s.j;
    }
}

/* The blocks between the corners of a point, out[c][d][9]; of a 4-node element only c < d, in lexicographic order. */
INLINE void NAME(point_tangent)(int nodes, int material, const real *data, const real *at, real v, real *out) {
    real h[9], g[12], t[12];
    NAME(Moduli) k;
    NAME(gradient)(at, data, h);
    NAME(moduli)(h, data[10], data[11], material, &k);
    NAME(corners)(k.m, data, g, t);
    for (int c = 0; c < 4; c++)
        for (int d = nodes == 4 ? c + 1 : 0; d < 4; d++, out += 9)
            NAME(corner_block)(&k, v, g + 3 * c, g + 3 * d, t + 3 * c, t + 3 * d, out);
}

/* The blocks between nodes a < b, out[nodes (nodes - 1) / 2][9] [N/m], column-major, pairs in lexicographic order.
 * A node's own block is minus the sum of its row's others: a translation costs no force. */
INLINE void NAME(element_tangent)(int nodes, int material, const real *data, const real *u, real *out) {
    if (nodes == 4) {
        NAME(point_tangent)(nodes, material, data, u, data[9], out);
        return;
    }
    for (int point = 0; point < 4; point++) {
        real at[12], blocks[144];
        NAME(to_corners)(nodes, point, u, at);
        NAME(point_tangent)(nodes, material, data, at, (scalar)0.25 * data[9], blocks);
        real *to = out;
        for (int a = 0; a < nodes; a++)
            for (int b = a + 1; b < nodes; b++, to += 9) {
                for (int e = 0; point == 0 && e < 9; e++) to[e] = data[9] - data[9];
                for (int k = 0; k < (a < 4 ? 1 : 2); k++)
                    for (int l = 0; l < (b < 4 ? 1 : 2); l++) {
                        scalar first, second;
                        int c = NAME(lean)(point, a, k, &first), d = NAME(lean)(point, b, l, &second);
                        const real *from = blocks + 9 * (4 * c + d);
                        for (int e = 0; e < 9; e++) to[e] = to[e] + first * second * from[e];
                    }
            }
    }
}

#undef HIGH
#undef LOW
