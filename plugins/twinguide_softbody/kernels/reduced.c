/* The reduced body: Newton's method on a few modes over sampled points, then the full body's imbalance of the result.
 *
 * x = rest + mean + V q. At a sampled point grad u = H_0 + sum_j q_j H_j, so a mode's force is the point's stress by H_j
 * and never touches the mesh. The check that follows does: every element's force in float32, each node's sum in one
 * order. Only for neo_hookean. Built by `native.py` as a library of its own.
 */
#include <math.h>
#include <stdint.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))
#define TABLE static const
#define MOST_MODES 32

typedef float float16 __attribute__((vector_size(64), aligned(64)));
typedef double double8 __attribute__((vector_size(64), aligned(64)));
#define real float16
#define scalar float
#define NAME(x) x##_f32
#include "element.h"
#include "rule.h"
#undef real
#undef scalar
#undef NAME

#include "lanes.h"

typedef struct {
    int32_t modes, points, nodes, elements, element_nodes, touched, threads, steps;
    double settled;        /* [m]: Newton stops below */
    const float *gradient; /* [points / 16][1 + modes][9][16], 1/m: of the mean displacement, then of each mode */
    const float *point;    /* [points / 16][3][16]: weight times volume [m3], mu, lambda [Pa] */
    const double *linear;  /* [modes][modes], N/m: what the springs add to the tangent */
    const float *modes_at; /* [3 nodes / 16][1 + modes][16]: the mean displacement, then each mode */
    const double *rest;    /* [nodes][3], m, as the body has them */
    const int32_t *order;  /* [nodes]: the body's node at each place; all but `rest` lies by places */
    const int32_t *conn16; /* [elements / 16][element_nodes][16] */
    const float *data16;   /* [elements / 16][12][16] */
    const int32_t *incident_start, *incident;
    const float *load;    /* [nodes][3], N */
    const float *inverse; /* [nodes][9], m/N: of each node's own block at rest; 0 where held */
    const int32_t *touched_node, *touched_start, *touched_row;
    const float *touched_weight;
    float *u, *pulled, *element_force; /* work: [3 nodes, filled up], [nodes][3], [elements filled up][element_nodes][3] */
    float *least;                      /* [elements / 16]: smallest J of each block */
    double *partial;                   /* [threads][4] */
} Reduced;

INLINE double sum16(float16 v) {
    double sum = 0;
    for (int l = 0; l < 16; l++) sum += v[l];
    return sum;
}

/* dP = a dH + l (C : dH) C + d dC(dH), C the cofactor of F. */
INLINE void stress_change(const Moduli_f32 *k, const float16 *e, float16 *p) {
    const float16 *f = k->f, *c = k->m;
    float16 along = c[0] * e[0];
    for (int i = 1; i < 9; i++) along += c[i] * e[i];
    along *= k->b;
    for (int i = 0; i < 9; i++) p[i] = k->a * e[i] + along * c[i];
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            const int a = 3 * ((i + 1) % 3), b = 3 * ((i + 2) % 3), m = (j + 1) % 3, n = (j + 2) % 3;
            p[3 * i + j] += k->d * (f[a + m] * e[b + n] + e[a + m] * f[b + n] - f[a + n] * e[b + m] - e[a + n] * f[b + m]);
        }
}

/* Add one block's forces and tangent on the modes; lower the smallest J. */
INLINE void reduced_block(const Reduced *s, int block, const float *q, float16 *force, float16 *tangent, float *least) {
    const int modes = s->modes;
    const float16 *h = (const float16 *)(s->gradient + (int64_t)block * (1 + modes) * 144);
    const float16 *data = (const float16 *)(s->point + (int64_t)block * 48);
    float16 at[9];
    for (int c = 0; c < 9; c++) at[c] = h[c];
    for (int j = 0; j < modes; j++)
        for (int c = 0; c < 9; c++) at[c] += q[j] * h[9 * (1 + j) + c];
    Stress_f32 stress;
    Moduli_f32 moduli;
    stress_f32(at, data[1], data[2], NEO_HOOKEAN, &stress);
    moduli_f32(at, data[1], data[2], NEO_HOOKEAN, &moduli);
    for (int l = 0; l < 16; l++) *least = stress.j[l] < *least ? stress.j[l] : *least;
    for (int j = 0, row = 0; j < modes; row += ++j) {
        const float16 *e = h + 9 * (1 + j);
        float16 p[9], sum = stress.p[0] * e[0];
        for (int c = 1; c < 9; c++) sum += stress.p[c] * e[c];
        force[j] += data[0] * sum;
        stress_change(&moduli, e, p);
        for (int c = 0; c < 9; c++) p[c] *= data[0];
        for (int i = 0; i <= j; i++) {
            const float16 *other = h + 9 * (1 + i);
            sum = p[0] * other[0];
            for (int c = 1; c < 9; c++) sum += p[c] * other[c];
            tangent[row + i] += sum;
        }
    }
}

/* Solve the symmetric t d = g in place by Cholesky; 0 where t is not positive definite. */
static int reduced_solve(int n, double t[MOST_MODES][MOST_MODES], double *g) {
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
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < i; k++) g[i] -= t[i][k] * g[k];
        g[i] /= t[i][i];
    }
    for (int i = n - 1; i >= 0; i--) {
        for (int k = i + 1; k < n; k++) g[i] -= t[k][i] * g[k];
        g[i] /= t[i][i];
    }
    return 1;
}

/* Newton on the modes q under their loads [N]; out: steps, the last step [m], smallest J. */
EXPORT void reduced_newton(const Reduced *s, const double *load, double *q, double *out) {
    const int n = s->modes;
    double moved = 1e300;
    float least = 0;
    int step = 0;
    for (; step < s->steps && moved > s->settled; step++) {
        float16 force[MOST_MODES] = {{0}}, tangent[MOST_MODES * (MOST_MODES + 1) / 2] = {{0}};
        float at[MOST_MODES];
        double g[MOST_MODES], t[MOST_MODES][MOST_MODES];
        for (int j = 0; j < n; j++) at[j] = (float)q[j];
        least = 1e30f;
        for (int b = 0; b < s->points / 16; b++) reduced_block(s, b, at, force, tangent, &least);
        for (int j = 0; j < n; j++) {
            g[j] = load[j] - sum16(force[j]);
            for (int i = 0; i < n; i++) g[j] -= s->linear[n * j + i] * q[i];
            for (int i = 0; i <= j; i++) t[j][i] = s->linear[n * j + i] + sum16(tangent[j * (j + 1) / 2 + i]);
        }
        if (!reduced_solve(n, t, g)) break;
        moved = 0;
        for (int j = 0; j < n; j++) q[j] += g[j], moved += g[j] * g[j];
        moved = sqrt(moved);
    }
    out[0] = step, out[1] = moved, out[2] = least;
}

INLINE void full_block(const Reduced *s, int64_t block, int nodes) {
    float16 at[30], f[30], energy, j[4];
    float least = 1e30f;
    const int32_t *conn = s->conn16 + block * nodes * 16;
    for (int a = 0; a < nodes; a++) lanes_of_rows(s->u, 3, conn + a * 16, at + 3 * a);
    element_force_f32(nodes, NEO_HOOKEAN, (const float16 *)(s->data16 + block * 192), at, &energy, j, f);
    rows_of_lanes16(f, 3 * nodes, s->element_force + block * 16 * 3 * nodes);
    for (int k = 0; k < (nodes == 4 ? 1 : 4); k++)
        for (int l = 0; l < 16; l++) least = j[k][l] < least ? j[k][l] : least;
    s->least[block] = least;
}

/* The positions [m] of modes q and, where `check`, how far one sweep of Jacobi's method would move them.
 * pull [rows][3]: the springs' forces [N]. out: rms of the sweep [m], norms of imbalance and forces [N], smallest J. */
EXPORT void reduced_expand(const Reduced *s, const double *q, const float *pull, int check, double *x, double *out) {
    const int blocks = (3 * s->nodes + 15) / 16;
    for (int k = 0; check && k < s->touched; k++) {
        float sum[3] = {0};
        for (int e = s->touched_start[k]; e < s->touched_start[k + 1]; e++)
            for (int i = 0; i < 3; i++) sum[i] += s->touched_weight[e] * pull[3 * s->touched_row[e] + i];
        for (int i = 0; i < 3; i++) s->pulled[3 * (int64_t)s->touched_node[k] + i] = sum[i];
    }
#pragma omp parallel num_threads(s->threads) if (s->threads > 1)
    {
#pragma omp for schedule(static)
        for (int b = 0; b < blocks; b++) {
            const float16 *v = (const float16 *)(s->modes_at + (int64_t)b * 16 * (1 + s->modes));
            float16 sum = v[0];
            for (int j = 0; j < s->modes; j++) sum += (float)q[j] * v[1 + j];
            *(float16 *)(s->u + 16 * (int64_t)b) = sum;
        }
#pragma omp for schedule(static)
        for (int i = 0; i < s->nodes; i++) {
            const int64_t to = 3 * (int64_t)s->order[i];
            for (int c = 0; c < 3; c++) x[to + c] = s->rest[to + c] + s->u[3 * (int64_t)i + c];
        }
        if (check) {
#pragma omp for schedule(static)
            for (int b = 0; b < (s->elements + 15) / 16; b++)
                if (s->element_nodes == 4)
                    full_block(s, b, 4);
                else
                    full_block(s, b, 10);
#pragma omp for schedule(static)
            for (int t = 0; t < s->threads; t++) {
                double sweep = 0, left = 0, acting = 0;
                const int from = (int64_t)s->nodes * t / s->threads, to = (int64_t)s->nodes * (t + 1) / s->threads;
                for (int i = from; i < to; i++) {
                    const float *d = s->inverse + 9 * (int64_t)i, *load = s->load + 3 * (int64_t)i;
                    const float *pulled = s->pulled + 3 * (int64_t)i;
                    const int end = s->incident_start[i + 1], free = d[0] > 0;
                    float4 even = {0}, odd = {0}; /* the fourth lanes, the next corner's, are dropped */
                    int k = s->incident_start[i];
                    for (; k + 2 <= end; k += 2) {
                        even += load4(s->element_force + 3 * (int64_t)s->incident[k]);
                        odd += load4(s->element_force + 3 * (int64_t)s->incident[k + 1]);
                    }
                    if (k < end) even += load4(s->element_force + 3 * (int64_t)s->incident[k]);
                    even += odd;
                    const float r[3] = {even[0] + load[0] + pulled[0], even[1] + load[1] + pulled[1],
                                        even[2] + load[2] + pulled[2]};
                    acting += even[0] * even[0] + even[1] * even[1] + even[2] * even[2];
                    left += free * (r[0] * r[0] + r[1] * r[1] + r[2] * r[2]);
                    for (int c = 0; c < 3; c++) {
                        const float z = d[c] * r[0] + d[3 + c] * r[1] + d[6 + c] * r[2];
                        sweep += z * z;
                    }
                }
                s->partial[4 * t] = sweep, s->partial[4 * t + 1] = left, s->partial[4 * t + 2] = acting;
            }
        }
    }
    double sum[3] = {0};
    for (int t = 0; check && t < s->threads; t++)
        for (int k = 0; k < 3; k++) sum[k] += s->partial[4 * t + k];
    float least = 1e30f;
    for (int b = 0; check && b < (s->elements + 15) / 16; b++) least = s->least[b] < least ? s->least[b] : least;
    out[0] = sqrt(sum[0] / s->nodes), out[1] = sqrt(sum[1]), out[2] = sqrt(sum[2]), out[3] = least;
}
