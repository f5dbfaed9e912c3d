/* Element passes: all forces in float64, all tangent blocks in float32, each then gathered in one fixed order. */

#define LANES(T, width) typedef T T##width __attribute__((vector_size(sizeof(T) * width), aligned(sizeof(T) * width)))
LANES(double, 8);
LANES(float, 16);

#define real double8
#define scalar double
#define NAME(x) x##_f64
#include "element.h"
#include "rule.h"
#undef real
#undef scalar
#undef NAME
#define real float16
#define scalar float
#define NAME(x) x##_f32
#include "element.h"
#include "rule.h"
#undef real
#undef scalar
#undef NAME
#include "gather.h"

/* One block of eight: gather displacements, evaluate, write each element's forces side by side. */
INLINE void force_block(const System *s, const double *u, int64_t block, int nodes, int material) {
    double8 at[30], f[30], energy, j[4];
    const int32_t *conn = s->conn8 + block * nodes * W8;
    for (int a = 0; a < nodes; a++)
        for (int l = 0; l < W8; l++)
            for (int i = 0; i < 3; i++) at[3 * a + i][l] = u[3 * (int64_t)conn[a * W8 + l] + i];
    element_force_f64(nodes, material, (const double8 *)(s->data8 + block * 12 * W8), at, &energy, j, f);
    double sum = 0, least = 1e300;
    for (int l = 0; l < W8; l++) {
        double *out = s->element_force + (block * W8 + l) * 3 * nodes;
        for (int k = 0; k < 3 * nodes; k++) out[k] = f[k][l];
        sum += energy[l];
        for (int q = 0; q < (nodes == 4 ? 1 : 4); q++) least = j[q][l] < least ? j[q][l] : least;
    }
    s->energy[block] = sum;
    s->least[block] = least;
}

INLINE void tangent_block(const System *s, const double *u, int64_t block, int nodes, int material) {
    float16 at[30], out[405];
    const int pairs = nodes * (nodes - 1) / 2;
    const int32_t *conn = s->conn16 + block * nodes * W16;
    for (int a = 0; a < nodes; a++)
        for (int l = 0; l < W16; l++)
            for (int i = 0; i < 3; i++) at[3 * a + i][l] = (float)u[3 * (int64_t)conn[a * W16 + l] + i];
    element_tangent_f32(nodes, material, (const float16 *)(s->data16 + block * 12 * W16), at, out);
    for (int l = 0; l < W16; l++) {
        float *to = s->element_blocks + (block * W16 + l) * 9 * pairs;
        for (int k = 0; k < 9 * pairs; k++) to[k] = out[k][l];
    }
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

/* Force [N] on each node, f[n][3], of displacements u[n][3] [m]; out: energy [J], smallest J. */
EXPORT void evaluate(const System *s, const double *u, double *f, double *out) {
    const int count = (s->elements + W8 - 1) / W8;
#pragma omp parallel num_threads(s->threads) if (s->threads > 1)
    {
#pragma omp for schedule(static)
        for (int block = 0; block < count; block++) CHOOSE(force_block, block)
#pragma omp for schedule(static)
        for (int i = 0; i < s->nodes; i++) gather_force(s, i, f);
    }
    out[0] = 0, out[1] = 1e300;
    for (int block = 0; block < count; block++) {
        out[0] += s->energy[block];
        out[1] = s->least[block] < out[1] ? s->least[block] : out[1];
    }
}

/* The matrix [N/m] and the inverses of its diagonal blocks at displacements u[n][3] [m]. */
EXPORT void tangent(const System *s, const double *u, const uint8_t *held) {
    const int count = (s->elements + W16 - 1) / W16;
#pragma omp parallel num_threads(s->threads) if (s->threads > 1)
    {
#pragma omp for schedule(static)
        for (int block = 0; block < count; block++) CHOOSE(tangent_block, block)
#pragma omp for schedule(static)
        for (int k = 0; k < s->uppers; k++) gather_upper(s, k);
#pragma omp for schedule(static)
        for (int i = 0; i < s->nodes; i++) gather_diagonal(s, i);
#pragma omp single
        for (int k = 0; k < s->touched; k++)
            add_springs(s, k);
#pragma omp for schedule(static)
        for (int i = 0; i < s->nodes; i++) invert_diagonal(s, i, held);
    }
}
