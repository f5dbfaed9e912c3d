/* The reduced body: Newton's method on a few modes over sampled points, then the full body's imbalance of the result.
 *
 * x = start + V q, where start is the rest moved by the mean of all training. At a sampled point
 * grad u = H_0 + sum_j q_j H_j, so a mode's force is the point's stress by H_j and never touches the mesh. The check
 * that follows does: every element's force in float32, added to its nodes in one order.
 * Only for neo_hookean. Built by `native.py` as a library of its own.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))
#define TABLE static const
#define MOST_MODES 32
#define UNROLLED _Pragma("GCC unroll 16") /* where a loop over vectors would keep them in memory */
#define PAIR 5 /* nodes of two elements of 4 that share a face: their rows are read and written once */

#include "lanes.h"
#define real f32x16
#define scalar float
#define NAME(x) x##_f32
#include "element.h"
#include "rule.h"
#undef real
#undef scalar
#undef NAME

typedef struct {
    int32_t modes, points, nodes, elements, element_nodes, springs, touched, threads, steps;
    double settled, near;  /* [m]: Newton stops below a step of, and keeps its tangent below */
    double middle[3];      /* of the body, [m]: positions in float32 are told from there */
    const float *gradient; /* [points / 16][1 + modes][9][16], 1/m: of the mean displacement, then of each mode */
    const float *point;    /* [points / 16][3][16]: weight times volume [m3], mu, lambda [Pa] */
    const double *linear;  /* [modes][modes], N/m: what the springs add to the tangent */
    const double *weight;  /* [modes], N: gravity's */
    const double *stiffness, *drawn; /* [springs][3][3], N/m; times the modes at the springs, [springs][3][modes] */
    const float *modes_at; /* [nodes / 16][modes][16][3] */
    const double *start;   /* [nodes][3], m, as the body has them */
    const int32_t *order;  /* [nodes]: the body's node at each place; all but `start` lies by places */
    const int32_t *conn16; /* [elements / 16][element_nodes][16]: where a node's row of 16 bytes begins; of 4 nodes
                            * two elements are one, of PAIR nodes */
    const float *data16;   /* [elements / 16][9 or 18][16], as edge_forces takes them */
    const float *load;     /* [nodes][3], N */
    const float *inverse;  /* [nodes][9], m/N: of each node's own block at rest; 0 where held */
    const int32_t *touched_node, *touched_start, *touched_row;
    const float *touched_weight;
    float *pull;           /* work: [springs][3], N */
    float *outer;          /* [nodes][4], N: the load; each frame adds what the springs pull to the nodes touched */
    float *at, *force;     /* work: [nodes][4], [threads][nodes][4] */
    f32x16 *least;        /* [threads]: smallest J, by lanes */
    double *partial;       /* [threads][4] */
} Reduced;

INLINE double sum16(f32x16 v) {
    double sum = 0;
    for (int l = 0; l < 16; l++) sum += v[l];
    return sum;
}

/* dP = a dH + l (C : dH) C + d dC(dH), C the cofactor of F. */
INLINE void stress_change(const Moduli_f32 *k, const f32x16 *e, f32x16 *p) {
    const f32x16 *f = k->f, *c = k->m;
    f32x16 along = c[0] * e[0];
    for (int i = 1; i < 9; i++) along += c[i] * e[i];
    along *= k->b;
    for (int i = 0; i < 9; i++) p[i] = k->a * e[i] + along * c[i];
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            const int a = 3 * ((i + 1) % 3), b = 3 * ((i + 2) % 3), m = (j + 1) % 3, n = (j + 2) % 3;
            const f32x16 plus = f[a + m] * e[b + n] + e[a + m] * f[b + n];
            p[3 * i + j] += k->d * (plus - f[a + n] * e[b + m] - e[a + n] * f[b + m]);
        }
}

/* Add one block's forces on the modes and, where asked for, their tangent. */
INLINE void reduced_block(const Reduced *s, int block, const float *q, f32x16 *force, f32x16 *tangent) {
    const int modes = s->modes;
    const f32x16 *h = (const f32x16 *)(s->gradient + (int64_t)block * (1 + modes) * 144);
    const f32x16 *data = (const f32x16 *)(s->point + (int64_t)block * 48);
    f32x16 at[9];
    for (int c = 0; c < 9; c++) at[c] = h[c];
    for (int j = 0; j < modes; j++)
        for (int c = 0; c < 9; c++) at[c] += q[j] * h[9 * (1 + j) + c];
    Stress_f32 stress;
    Moduli_f32 moduli;
    stress_f32(at, data[1], data[2], NEO_HOOKEAN, &stress);
    for (int j = 0; j < modes; j++) {
        const f32x16 *e = h + 9 * (1 + j);
        f32x16 sum = stress.p[0] * e[0];
        for (int c = 1; c < 9; c++) sum += stress.p[c] * e[c];
        force[j] += data[0] * sum;
    }
    if (!tangent) return;
    moduli_f32(at, data[1], data[2], NEO_HOOKEAN, &moduli);
    for (int j = 0, row = 0; j < modes; row += ++j) {
        f32x16 p[9], sum;
        stress_change(&moduli, h + 9 * (1 + j), p);
        for (int c = 0; c < 9; c++) p[c] *= data[0];
        for (int i = 0; i <= j; i++) {
            const f32x16 *other = h + 9 * (1 + i);
            sum = p[0] * other[0];
            for (int c = 1; c < 9; c++) sum += p[c] * other[c];
            tangent[row + i] += sum;
        }
    }
}

/* Cholesky's factor of the symmetric t, in place; 0 where t is not positive definite. */
static int reduced_factor(int n, double t[MOST_MODES][MOST_MODES]) {
    for (int j = 0; j < n; j++) {
        for (int i = j; i < n; i++) {
            double sum = t[i][j];
            for (int k = 0; k < j; k++) sum -= t[i][k] * t[j][k];
            if (i > j)
                t[i][j] = sum / t[j][j];
            else if (sum > 0)
                t[j][j] = sqrt(sum);
            else
                return 0;
        }
    }
    return 1;
}

static void reduced_solve(int n, double t[MOST_MODES][MOST_MODES], double *g) {
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < i; k++) g[i] -= t[i][k] * g[k];
        g[i] /= t[i][i];
    }
    for (int i = n - 1; i >= 0; i--) {
        for (int k = i + 1; k < n; k++) g[i] -= t[k][i] * g[k];
        g[i] /= t[i][i];
    }
}

/* Newton on the modes q under their loads [N]; out: steps, the last step [m].
 * The tangent, most of the work, serves a further step where the last one was short. */
static void reduced_newton(const Reduced *s, const double *load, double *q, double *out) {
    const int n = s->modes;
    double moved = 1e300, t[MOST_MODES][MOST_MODES];
    int step = 0;
    for (; step < s->steps && moved > s->settled; step++) {
        const int renew = moved > s->near;
        f32x16 force[MOST_MODES] = {{0}}, tangent[MOST_MODES * (MOST_MODES + 1) / 2];
        float at[MOST_MODES];
        double g[MOST_MODES];
        for (int j = 0; j < n; j++) at[j] = (float)q[j];
        for (int k = 0; renew && k < n * (n + 1) / 2; k++) tangent[k] = (f32x16){0};
        for (int b = 0; b < s->points / 16; b++) reduced_block(s, b, at, force, renew ? tangent : 0);
        for (int j = 0; j < n; j++) {
            g[j] = load[j] - sum16(force[j]);
            for (int i = 0; i < n; i++) g[j] -= s->linear[n * j + i] * q[i];
            for (int i = 0; renew && i <= j; i++) t[j][i] = s->linear[n * j + i] + sum16(tangent[j * (j + 1) / 2 + i]);
        }
        if (renew && !reduced_factor(n, t)) break;
        reduced_solve(n, t, g);
        moved = 0;
        for (int j = 0; j < n; j++) q[j] += g[j], moved += g[j] * g[j];
        moved = sqrt(moved);
    }
    out[0] = step, out[1] = moved;
}

/* The modes' load [N] of springs whose targets lie gap[springs][3] [m] off their points at q = 0. */
static void spring_load(const Reduced *s, const double *gap, double *load) {
    for (int j = 0; j < s->modes; j++) load[j] = s->weight[j];
    for (int k = 0; k < 3 * s->springs; k++)
        for (int j = 0; j < s->modes; j++) load[j] += s->drawn[(int64_t)s->modes * k + j] * gap[k];
}

/* What the springs pull at modes q, added to the load of the nodes that they touch. */
static void spring_pulls(const Reduced *s, const double *gap, const double *q) {
    for (int k = 0; k < 3 * s->springs; k++) {
        const double *stiffness = s->stiffness + 3 * k, *own = gap + k / 3 * 3;
        double sum = stiffness[0] * own[0] + stiffness[1] * own[1] + stiffness[2] * own[2];
        for (int j = 0; j < s->modes; j++) sum -= s->drawn[(int64_t)s->modes * k + j] * q[j];
        s->pull[k] = (float)sum;
    }
    for (int k = 0; k < s->touched; k++) {
        const int64_t to = s->touched_node[k];
        float sum[3] = {0};
        for (int e = s->touched_start[k]; e < s->touched_start[k + 1]; e++)
            for (int i = 0; i < 3; i++) sum[i] += s->touched_weight[e] * s->pull[3 * s->touched_row[e] + i];
        for (int i = 0; i < 3; i++) s->outer[4 * to + i] = s->load[3 * to + i] + sum[i];
    }
}

INLINE void cross(const f32x16 *a, const f32x16 *b, f32x16 *c) {
    for (int k = 0; k < 3; k++) c[k] = a[(k + 1) % 3] * b[(k + 2) % 3] - a[(k + 2) % 3] * b[(k + 1) % 3];
}

/* Add the forces [N] on the ends of a corner's three edges [m], f[3][3], and return J: element.h's Neo-Hookean law,
 * P = mu F + p cof F, told by edges. Of edges e_i and areas a_1 = e_2 x e_3, cyclic: f_i = sum_j K_ij e_j +
 * (k_1 det e + k_0) a_i, half the products that F takes. The areas a_3 and -a_2 are given: neighbours share them.
 * data: K_11, K_12, K_13, K_22, K_23, K_33 [N/m], k_1, k_0, and det g = 1 / det e at rest [1/m3]. */
INLINE f32x16 edge_forces(const f32x16 *data, const f32x16 *e1, const f32x16 *e2, const f32x16 *e3,
                           const f32x16 *a3, const f32x16 *minus_a2, f32x16 *f1, f32x16 *f2, f32x16 *f3) {
    f32x16 a1[3];
    cross(e2, e3, a1);
    const f32x16 det = e1[0] * a1[0] + e1[1] * a1[1] + e1[2] * a1[2], pressure = data[6] * det + data[7];
    for (int k = 0; k < 3; k++) {
        f1[k] += data[0] * e1[k] + data[1] * e2[k] + data[2] * e3[k] + pressure * a1[k];
        f2[k] += data[1] * e1[k] + data[3] * e2[k] + data[4] * e3[k] - pressure * minus_a2[k];
        f3[k] += data[2] * e1[k] + data[4] * e2[k] + data[5] * e3[k] + pressure * a3[k];
    }
    return det * data[8];
}

/* Forces f[2 + elements][3] [N] on a fan of elements about the edge between its first two corners, at[2 + elements][3]
 * [m]: the others are the rim, one more than elements, and each element has two that follow. Lower the smallest J. */
INLINE void fan_forces(const f32x16 *data, int elements, const f32x16 *at, f32x16 *f, f32x16 *least) {
    f32x16 e[12], area[9];
    UNROLLED for (int k = 0; k < 3 * (2 + elements); k++) e[k] = at[3 + k] - at[k % 3], f[3 + k] = (f32x16){0};
    UNROLLED for (int r = 0; r <= elements; r++) cross(e, e + 3 * (1 + r), area + 3 * r);
    UNROLLED for (int r = 0; r < elements; r++) {
        const f32x16 j = edge_forces(data + 9 * r, e, e + 3 * (1 + r), e + 3 * (2 + r), area + 3 * r,
                                     area + 3 * (r + 1), f + 3, f + 3 * (2 + r), f + 3 * (3 + r));
        *least = lower16(j, *least);
    }
    UNROLLED for (int k = 0; k < 3; k++) {
        f[k] = -f[3 + k];
        UNROLLED for (int r = 0; r <= elements; r++) f[k] -= f[3 * (2 + r) + k];
    }
}

/* Add the forces of a block of pairs to their nodes, force[nodes][4], and lower the smallest J. */
INLINE void pair_block(const Reduced *s, int64_t block, float *force, f32x16 *least) {
    f32x16 x[3 * PAIR], f[3 * PAIR];
    const int32_t *conn = s->conn16 + block * PAIR * 16;
    UNROLLED for (int a = 0; a < PAIR; a++) lanes_of_rows(s->at, 1, conn + a * 16, x + 3 * a);
    fan_forces((const f32x16 *)(s->data16 + block * 288), 2, x, f, least);
    UNROLLED for (int a = 0; a < PAIR; a++) add_lanes(f + 3 * a, 1, conn + a * 16, force);
}

/* The same of a block of elements of 10 nodes. */
INLINE void ten_block(const Reduced *s, int64_t block, float *force, f32x16 *least) {
    f32x16 x[30], f[30] = {{0}};
    const int32_t *conn = s->conn16 + block * 160;
    for (int a = 0; a < 10; a++) lanes_of_rows(s->at, 1, conn + a * 16, x + 3 * a);
    for (int point = 0; point < 4; point++) {
        f32x16 corners[12], forces[12];
        to_corners_f32(10, point, x, corners);
        fan_forces((const f32x16 *)(s->data16 + block * 144), 1, corners, forces, least);
        from_corners_f32(10, point, forces, f);
    }
    for (int a = 0; a < 10; a++) add_lanes(f + 3 * a, 1, conn + a * 16, force);
}

INLINE f64x4 wide(f32x4 a) { return __builtin_convertvector(a, f64x4); }

/* Positions [m] of modes q: x[nodes][3] as the body has them, at[nodes][4] by places and about the body's middle. */
INLINE void expand(const Reduced *s, const double *q, double *x) {
    const f64x4 middle = {s->middle[0], s->middle[1], s->middle[2], 0};
#pragma omp for schedule(static)
    for (int b = 0; b < (s->nodes + 15) / 16; b++) {
        const f32x16 *v = (const f32x16 *)(s->modes_at + (int64_t)b * 48 * s->modes);
        f32x16 sum[4] = {{0}}; /* a row is read as four, the last one too */
        for (int j = 0; j < s->modes; j++)
            for (int c = 0; c < 3; c++) sum[c] += (float)q[j] * v[3 * j + c];
        for (int l = 0; l < 16 && 16 * b + l < s->nodes; l++) {
            const int64_t i = 16 * (int64_t)b + l, to = 3 * (int64_t)s->order[i];
            f64x4 place;
            __builtin_memcpy(&place, s->start + to, 32);
            place += wide(load4((const float *)sum + 3 * l));
            __builtin_memcpy(x + to, &place, 24);
            const f32x4 at = __builtin_convertvector(place - middle, f32x4);
            __builtin_memcpy(s->at + 4 * i, &at, 16);
        }
    }
}

/* Every element's forces, each thread's to its own force[nodes][4], which begins as 0. */
INLINE void all_forces(const Reduced *s) {
#pragma omp for schedule(static)
    for (int t = 0; t < s->threads; t++) {
        const int64_t blocks = (s->elements + 15) / 16;
        float *force = s->force + 4 * (int64_t)s->nodes * t;
        f32x16 least = s->least[t] = (f32x16){0} + 1e30f;
        __builtin_memset(force, 0, 16 * (size_t)s->nodes);
        for (int64_t b = blocks * t / s->threads; b < blocks * (t + 1) / s->threads; b++)
            if (s->element_nodes == PAIR)
                pair_block(s, b, force, &least);
            else
                ten_block(s, b, force, &least);
        s->least[t] = least;
    }
}

/* Sums of a sweep's squares, of the imbalance's and of the forces', each thread's over its own nodes. */
INLINE void imbalance(const Reduced *s) {
#pragma omp for schedule(static)
    for (int t = 0; t < s->threads; t++) {
        f64x4 sweep = {0}, left = {0}, acting = {0};
        const int64_t from = (int64_t)s->nodes * t / s->threads, to = (int64_t)s->nodes * (t + 1) / s->threads;
        for (int64_t i = from; i < to; i++) {
            const float *d = s->inverse + 9 * i;
            f32x4 f = load4(s->force + 4 * i);
            for (int o = 1; o < s->threads; o++) f += load4(s->force + 4 * ((int64_t)s->nodes * o + i));
            const f32x4 r = f + load4(s->outer + 4 * i);
            const f32x4 z = load4(d) * r[0] + load4(d + 3) * r[1] + load4(d + 6) * r[2];
            acting += wide(f * f), sweep += wide(z * z);
            if (d[0] > 0) left += wide(r * r);
        }
        double *sum = s->partial + 4 * t; /* the fourth lanes hold what nobody asked for */
        sum[0] = sweep[0] + sweep[1] + sweep[2], sum[1] = left[0] + left[1] + left[2];
        sum[2] = acting[0] + acting[1] + acting[2];
    }
}

/* Follow springs whose targets lie gap[springs][3] [m] off their points at q = 0, from the last modes q; write the
 * positions x[nodes][3] [m] and check them: how far would one sweep of Jacobi's method move them?
 * out: rms of the sweep [m], norms of imbalance and forces [N], smallest J; Newton's steps and the last [m]. */
EXPORT void reduced_step(const Reduced *s, const double *gap, double *q, double *x, double *out) {
    double load[MOST_MODES], sum[3] = {0};
    spring_load(s, gap, load);
    reduced_newton(s, load, q, out + 4);
    spring_pulls(s, gap, q);
#pragma omp parallel num_threads(s->threads) if (s->threads > 1)
    {
        expand(s, q, x);
        all_forces(s);
        imbalance(s);
    }
    float least = 1e30f;
    for (int t = 0; t < s->threads; t++) {
        for (int k = 0; k < 3; k++) sum[k] += s->partial[4 * t + k];
        for (int l = 0; l < 16; l++) least = s->least[t][l] < least ? s->least[t][l] : least;
    }
    out[0] = sqrt(sum[0] / s->nodes), out[1] = sqrt(sum[1]), out[2] = sqrt(sum[2]), out[3] = least;
}
