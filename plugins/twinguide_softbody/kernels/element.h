/* Physics of one tetrahedron: stress, force and tangent blocks. The one text that every machine runs.
 *
 * Included once per precision with
 *   real      what a variable is: a scalar on CUDA, a vector of elements on the CPU (the same operators serve both)
 *   scalar    float or double
 *   NAME(x)   the name of x for this precision
 *   INLINE    how a function is declared
 * No loops over shared state, no atomics, no branches on data: a branch on `material` is the same for all elements.
 *
 * Matrices are row-major real[9]. H = grad u [1], F = I + H, J = det F, P = dW/dF [Pa].
 *   neo_hookean  W = mu/2 (|F|^2 - 3) + l/2 (J - 1 - mu/l)^2 - const, l = lambda + mu  (Smith 2018,
 *                stable Neo-Hookean without its logarithm)
 *   corotational W = mu |F - R|^2 + lambda/2 tr(R'F - I)^2, F = R S (Mueller 2004); its tangent leaves out dR
 *   linear       the same with R = I
 * Tangent between corners i, j with barycentric gradients g [1/m], by volume V:
 *   H_ij = V [a (gi.gj) I + b ti tj' + c tj ti' - d [F (gi x gj)]_x],  ti = M gi
 */

#ifndef NEO_HOOKEAN
#define NEO_HOOKEAN 0
#define COROTATIONAL 1
#define LINEAR 2
#endif

typedef struct {
    real energy, j, p[9];
} NAME(Stress);

typedef struct {
    real m[9], f[9], a, b, c, d;
} NAME(Moduli);

INLINE void NAME(cofactor)(const real *f, real *c) {
    c[0] = f[4] * f[8] - f[5] * f[7];
    c[1] = f[5] * f[6] - f[3] * f[8];
    c[2] = f[3] * f[7] - f[4] * f[6];
    c[3] = f[2] * f[7] - f[1] * f[8];
    c[4] = f[0] * f[8] - f[2] * f[6];
    c[5] = f[1] * f[6] - f[0] * f[7];
    c[6] = f[1] * f[5] - f[2] * f[4];
    c[7] = f[2] * f[3] - f[0] * f[5];
    c[8] = f[0] * f[4] - f[1] * f[3];
}

/* det F - 1 by F = I + H and its cofactors, without the cancellation that it would suffer for small H. */
INLINE real NAME(dilation)(const real *h, const real *c) {
    real less = h[4] + h[8] + (h[4] * h[8] - h[5] * h[7]); /* the first cofactor less 1 */
    return less + h[0] * c[0] + h[1] * c[1] + h[2] * c[2];
}

INLINE void NAME(deformation)(const real *h, real *f) {
    for (int k = 0; k < 9; k++) f[k] = h[k];
    f[0] = f[0] + (scalar)1;
    f[4] = f[4] + (scalar)1;
    f[8] = f[8] + (scalar)1;
}

/* The rotation of F: Higham's Newton iteration, quadratic, ten steps settle stretches of 0.05 to 20. */
INLINE void NAME(rotation)(const real *f, real *r) {
    for (int k = 0; k < 9; k++) r[k] = f[k];
    for (int step = 0; step < 10; step++) {
        real c[9];
        NAME(cofactor)(r, c);
        real half = (scalar)0.5 / (r[0] * c[0] + r[1] * c[1] + r[2] * c[2]);
        for (int k = 0; k < 9; k++) r[k] = (scalar)0.5 * r[k] + half * c[k];
    }
}

INLINE void NAME(frame)(const real *f, int material, real *r) {
    if (material == COROTATIONAL) {
        NAME(rotation)(f, r);
        return;
    }
    for (int k = 0; k < 9; k++) r[k] = f[k] - f[k];
    r[0] = r[0] + (scalar)1;
    r[4] = r[4] + (scalar)1;
    r[8] = r[8] + (scalar)1;
}

INLINE void NAME(stress)(const real *h, real mu, real lame, int material, NAME(Stress) *out) {
    real f[9], c[9];
    NAME(deformation)(h, f);
    NAME(cofactor)(f, c);
    real more = NAME(dilation)(h, c);
    out->j = more + (scalar)1;
    if (material == NEO_HOOKEAN) {
        real l = lame + mu, square = h[0] * h[0], trace = h[0] + h[4] + h[8];
        for (int k = 1; k < 9; k++) square = square + h[k] * h[k];
        /* mu/2 (2 tr H + |H|^2) + l/2 (more - mu/l)^2 - mu^2/2l, with the squares that cancel taken out */
        out->energy = mu * (trace - more) + (scalar)0.5 * (mu * square + l * more * more);
        real pressure = l * more - mu;
        for (int k = 0; k < 9; k++) out->p[k] = mu * f[k] + pressure * c[k];
        return;
    }
    real r[9], e[9];
    NAME(frame)(f, material, r);
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) e[3 * i + j] = r[i] * f[j] + r[3 + i] * f[3 + j] + r[6 + i] * f[6 + j];
    for (int i = 0; i < 3; i++) e[4 * i] = e[4 * i] - (scalar)1;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < i; j++) e[3 * i + j] = e[3 * j + i] = (scalar)0.5 * (e[3 * i + j] + e[3 * j + i]);
    real trace = e[0] + e[4] + e[8], square = e[0] * e[0];
    for (int k = 1; k < 9; k++) square = square + e[k] * e[k];
    out->energy = mu * square + (scalar)0.5 * lame * trace * trace;
    for (int k = 0; k < 9; k++) e[k] = (scalar)2 * mu * e[k];
    for (int i = 0; i < 3; i++) e[4 * i] = e[4 * i] + lame * trace;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            out->p[3 * i + j] = r[3 * i] * e[j] + r[3 * i + 1] * e[3 + j] + r[3 * i + 2] * e[6 + j];
}

INLINE void NAME(moduli)(const real *h, real mu, real lame, int material, NAME(Moduli) *out) {
    NAME(deformation)(h, out->f);
    out->a = mu;
    if (material == NEO_HOOKEAN) {
        NAME(cofactor)(out->f, out->m);
        out->b = lame + mu;
        out->c = mu - mu;
        out->d = (lame + mu) * NAME(dilation)(h, out->m) - mu;
    } else {
        NAME(frame)(out->f, material, out->m);
        out->b = lame;
        out->c = mu;
        out->d = mu - mu;
    }
}

/* grad u from the corners' values: u[4][3] (or what stands for them at a quadrature point), g[9] of corners 1..3. */
INLINE void NAME(gradient)(const real *u, const real *g, real *h) {
    for (int i = 0; i < 3; i++) {
        real a = u[3 + i] - u[i], b = u[6 + i] - u[i], c = u[9 + i] - u[i];
        for (int j = 0; j < 3; j++) h[3 * i + j] = a * g[j] + b * g[3 + j] + c * g[6 + j];
    }
}

/* Forces [N] on the corners, f[4][3], of minus a stress times its volume, p [Pa m3]. */
INLINE void NAME(corner_forces)(const real *p, const real *g, real *f) {
    for (int i = 0; i < 3; i++) {
        for (int c = 0; c < 3; c++)
            f[3 * (c + 1) + i] = p[3 * i] * g[3 * c] + p[3 * i + 1] * g[3 * c + 1] + p[3 * i + 2] * g[3 * c + 2];
        f[i] = -(f[3 + i] + f[6 + i] + f[9 + i]);
    }
}

/* What the tangent needs of each corner: gradients g[12] and t = M g, t[12], all four corners. */
INLINE void NAME(corners)(const real *m, const real *g, real *all, real *t) {
    for (int j = 0; j < 3; j++) {
        all[j] = -(g[j] + g[3 + j] + g[6 + j]);
        for (int c = 0; c < 3; c++) all[3 * (c + 1) + j] = g[3 * c + j];
    }
    for (int c = 0; c < 4; c++)
        for (int i = 0; i < 3; i++)
            t[3 * c + i] = m[3 * i] * all[3 * c] + m[3 * i + 1] * all[3 * c + 1] + m[3 * i + 2] * all[3 * c + 2];
}

/* The block H_ij [N/m], column-major out[9], between corners with gradients gi, gj and ti, tj, over volume v. */
INLINE void NAME(corner_block)(const NAME(Moduli) *k, real v, const real *gi, const real *gj, const real *ti,
                               const real *tj, real *out) {
    real x = gi[1] * gj[2] - gi[2] * gj[1], y = gi[2] * gj[0] - gi[0] * gj[2], z = gi[0] * gj[1] - gi[1] * gj[0];
    real a = v * k->a * (gi[0] * gj[0] + gi[1] * gj[1] + gi[2] * gj[2]), b = v * k->b, c = v * k->c, d = v * k->d;
    real w[3];
    for (int i = 0; i < 3; i++) w[i] = d * (k->f[3 * i] * x + k->f[3 * i + 1] * y + k->f[3 * i + 2] * z);
    for (int j = 0; j < 3; j++)
        for (int i = 0; i < 3; i++) out[3 * j + i] = b * ti[i] * tj[j] + c * tj[i] * ti[j];
    out[0] = out[0] + a;
    out[4] = out[4] + a;
    out[8] = out[8] + a;
    out[3] = out[3] + w[2];
    out[6] = out[6] - w[1];
    out[1] = out[1] - w[2];
    out[7] = out[7] + w[0];
    out[2] = out[2] + w[1];
    out[5] = out[5] - w[0];
}
