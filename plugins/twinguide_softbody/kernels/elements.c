/* Element passes: all forces in float64, all tangent blocks in float32, each then gathered in one fixed order. */

#include "lanes.h"

#define real f64x8
#define scalar double
#define NAME(x) x##_f64
#include "element.h"
#include "rule.h"
#undef real
#undef scalar
#undef NAME
#define real f32x16
#define scalar float
#define NAME(x) x##_f32
#include "element.h"
#include "rule.h"
#undef real
#undef scalar
#undef NAME
#include "gather.h"

/* One run of blocks of eight: gather displacements, evaluate, write the forces; energy and smallest J of the run. */
INLINE void force_run(const System *s, const double *u, int64_t run, int nodes, int material) {
    const int64_t count = (s->elements + W8 - 1) / W8, next = RUN / W8 * (run + 1);
    f64x8 total = {0}, least = (f64x8){0} + 1e300;
    for (int64_t block = RUN / W8 * run; block < (next < count ? next : count); block++) {
        f64x8 at[30], f[30], energy, j[4];
        const int32_t *conn = s->conn8 + block * nodes * W8;
        for (int a = 0; a < nodes; a++) lanes_of_triples(u, conn + a * W8, at + 3 * a);
        element_force_f64(nodes, material, (const f64x8 *)(s->data8 + block * 12 * W8), at, &energy, j, f);
        f64x8 *to = (f64x8 *)(s->element_force + block * nodes * W8 * 3);
        for (int a = 0; a < nodes; a++) triples_of_lanes(f + 3 * a, to + 3 * a);
        total += energy;
        for (int q = 0; q < (nodes == 4 ? 1 : 4); q++) least = lower8(j[q], least);
    }
    double sum = 0, lowest = 1e300;
    for (int l = 0; l < W8; l++) sum += total[l], lowest = least[l] < lowest ? least[l] : lowest;
    s->energy[run] = sum, s->least[run] = lowest;
}

INLINE void tangent_block(const System *s, const float *u, int64_t block, int nodes, int material) {
    f32x16 at[30], out[405];
    const int pairs = nodes * (nodes - 1) / 2;
    const int32_t *conn = s->conn16 + block * nodes * W16;
    for (int a = 0; a < nodes; a++) lanes_of_rows(u, 16, conn + a * W16, at + 3 * a);
    element_tangent_f32(nodes, material, (const f32x16 *)(s->data16 + block * 12 * W16), at, out);
    rows_of_lanes16(out, 9 * pairs, s->element_blocks + block * W16 * 9 * pairs);
}

/* A choice between six bodies of a loop, so that each is compiled for its own nodes and material. */
#define CHOOSE(pass, block)                                                                                            \
    switch (s->material + 3 * (s->element_nodes == 10)) {                                                              \
        case 0: pass(s, u, block, 4, NEO_HOOKEAN); break;                                                              \
        case 1: pass(s, u, block, 4, COROTATIONAL); break;                                                             \
        case 2: pass(s, u, block, 4, LINEAR); break;                                                                   \
        case 3: pass(s, u, block, 10, NEO_HOOKEAN); break;                                                             \
        case 4: pass(s, u, block, 10, COROTATIONAL); break;                                                            \
        default: pass(s, u, block, 10, LINEAR);                                                                        \
    }

#if defined(__AVX512F__) /* as gather.h has it, a row or a block by one register */
INLINE void sum_force(const System *s, int i, double *f) {
    f64x4 sum = {0}, row;
    for (int k = s->incident_start[i]; k < s->incident_start[i + 1]; k++) {
        __builtin_memcpy(&row, s->element_force + 3 * (int64_t)s->incident[k], 32);
        sum += row;
    }
    __builtin_memcpy(f + 3 * (int64_t)i, &sum, 24);
}

INLINE f32x16 turned(f32x16 a) {
    return SHUFFLE(a, a, i32x16, 0, 3, 6, 1, 4, 7, 2, 5, 8, 9, 10, 11, 12, 13, 14, 15);
}

INLINE void sum_upper(const System *s, int k) {
    f32x16 sum = {0};
    for (int e = s->upper_start[k]; e < s->upper_start[k + 1]; e++) {
        const int32_t which = s->upper[e];
        if (which >= 0)
            sum += load16(s->element_blocks + 9 * (int64_t)which);
        else
            sum += turned(load16(s->element_blocks + 9 * (int64_t)~which));
    }
    const f32x16 other = turned(sum);
    __builtin_memcpy(s->values + 9 * (int64_t)s->upper_at[k], &sum, 36);
    __builtin_memcpy(s->values + 9 * (int64_t)s->lower_at[k], &other, 36);
}

INLINE void sum_diagonal(const System *s, int i) {
    f32x16 sum = {0};
    const int own = s->diagonal[i];
    for (int k = s->row_start[i]; k < own; k++) sum -= load16(s->values + 9 * (int64_t)k);
    for (int k = own + 1; k < s->row_start[i + 1]; k++) sum -= load16(s->values + 9 * (int64_t)k);
    __builtin_memcpy(s->values + 9 * (int64_t)own, &sum, 36);
}
#else
#define sum_force gather_force
#define sum_upper gather_upper
#define sum_diagonal gather_diagonal
#endif

/* Force [N] on each node, f[n][3], of displacements u[n][3] [m]; out: energy [J], smallest J. */
EXPORT void evaluate(const System *s, const double *u, double *f, double *out) {
    const int count = (s->elements + RUN - 1) / RUN;
#pragma omp parallel num_threads(s->threads) if (s->threads > 1)
    {
#pragma omp for schedule(static)
        for (int run = 0; run < count; run++) CHOOSE(force_run, run)
#pragma omp for schedule(static)
        for (int i = 0; i < s->nodes; i++) sum_force(s, i, f);
    }
    out[0] = 0, out[1] = 1e300;
    for (int run = 0; run < count; run++) {
        out[0] += s->energy[run];
        out[1] = s->least[run] < out[1] ? s->least[run] : out[1];
    }
}

/* The matrix [N/m] and the inverses of its diagonal blocks at displacements u[n][3] [m]. */
EXPORT void tangent(const System *s, const double *at, const uint8_t *held) {
    const int count = (s->elements + W16 - 1) / W16;
    float *const u = s->z; /* which only a solve's own iterations need */
#pragma omp parallel num_threads(s->threads) if (s->threads > 1)
    {
#pragma omp for schedule(static)
        for (int i = 0; i < s->nodes; i++)
            for (int c = 0; c < 3; c++) u[4 * (int64_t)i + c] = (float)at[3 * (int64_t)i + c];
#pragma omp for schedule(static)
        for (int block = 0; block < count; block++) CHOOSE(tangent_block, block)
#pragma omp for schedule(static)
        for (int k = 0; k < s->uppers; k++) sum_upper(s, k);
#pragma omp for schedule(static)
        for (int i = 0; i < s->nodes; i++) sum_diagonal(s, i);
#pragma omp single
        for (int k = 0; k < s->touched; k++)
            add_springs(s, k);
#pragma omp for schedule(static)
        for (int i = 0; i < s->nodes; i++) invert_diagonal(s, i, held);
#pragma omp for schedule(static)
        for (int group = 0; group < s->groups; group++)
            for (int k = s->group_start[group]; k < s->group_start[group + 1]; k++)
                lanes_of_blocks(s->values, s->side_block + 8 * (int64_t)k, s->side_values + 72 * (int64_t)k);
    }
}
