/* The CUDA kernels: the same element text, one thread per element, node or block; no atomics, no shared memory, no
 * order that depends on the hardware. Each is a plain loop body, so that `shim.c` can run this very text on a CPU.
 *
 * All take (system, count, three pointers, two numbers, one integer); thread i of `count` does the i-th item. Sums go in
 * two rounds: SEGMENTS strided partial sums, then LAST of those; who needs the sum adds the LAST in order.
 */
#ifndef KERNEL
typedef int int32_t;
typedef long long int64_t;
typedef unsigned char uint8_t;
#define KERNEL(name)                                                                                                   \
    extern "C" __global__ void name(const System *s, int count, const void *a, void *b, void *c, double x, double y,   \
                                    int k)
#define INLINE __device__ static inline
#define TABLE __device__ static const
#endif

#include "system.h"
#define real double
#define scalar double
#define NAME(x) x##_f64
#include "element.h"
#include "rule.h"
#undef real
#undef scalar
#undef NAME
#define real float
#define scalar float
#define NAME(x) x##_f32
#include "element.h"
#include "rule.h"
#undef real
#undef scalar
#undef NAME
#include "gather.h"

#define ITEM                                                                                                           \
    const int i = blockIdx.x * blockDim.x + threadIdx.x;                                                               \
    if (i >= count) return;                                                                                            \
    (void)a, (void)b, (void)c, (void)x, (void)y, (void)k

/* s->scalars: r'M^-1r now, at the start; step, turn; 1 when done, 1 on negative curvature; iterations; largest |r| */
enum { RZ, FIRST, ALPHA, BETA, DONE, NEGATIVE, COUNT, SCALE };

INLINE double last_of(const double *sums) {
    double total = 0;
    for (int j = 0; j < LAST; j++) total += sums[SEGMENTS + j];
    return total;
}

INLINE void block_times(const float *d, const float *r, float *out) {
    for (int j = 0; j < 3; j++) out[j] = d[j] * r[0] + d[3 + j] * r[1] + d[6 + j] * r[2];
}

/* -- elements: a = u[n][3] -- */
KERNEL(force_elements) {
    ITEM;
    const int nodes = s->element_nodes, lane = i % W8;
    const double *u = (const double *)a, *from = s->data8 + (int64_t)(i / W8) * 12 * W8 + lane;
    const int32_t *conn = s->conn8 + (int64_t)(i / W8) * nodes * W8 + lane;
    double data[12], at[30], f[30], j[4], least;
    for (int m = 0; m < 12; m++) data[m] = from[m * W8];
    for (int n = 0; n < 3 * nodes; n++) at[n] = u[3 * (int64_t)conn[n / 3 * W8] + n % 3];
    element_force_f64(nodes, s->material, data, at, s->product + i, j, f);
    for (int n = 0; n < 3 * nodes; n++) s->element_force[3 * (int64_t)nodes * i + n] = f[n];
    least = j[0];
    for (int q = 1; q < (nodes == 4 ? 1 : 4); q++) least = j[q] < least ? j[q] : least;
    s->least[i] = least;
}

KERNEL(tangent_elements) {
    ITEM;
    const int nodes = s->element_nodes, lane = i % W16;
    const double *u = (const double *)a;
    const float *from = s->data16 + (int64_t)(i / W16) * 12 * W16 + lane;
    const int32_t *conn = s->conn16 + (int64_t)(i / W16) * nodes * W16 + lane;
    float data[12], at[30];
    for (int m = 0; m < 12; m++) data[m] = from[m * W16];
    for (int n = 0; n < 3 * nodes; n++) at[n] = (float)u[3 * (int64_t)conn[n / 3 * W16] + n % 3];
    element_tangent_f32(nodes, s->material, data, at, s->element_blocks + (int64_t)i * 9 * nodes * (nodes - 1) / 2);
}

KERNEL(gather_forces) { ITEM; gather_force(s, i, (double *)b); }
KERNEL(gather_uppers) { ITEM; gather_upper(s, i); }
KERNEL(gather_diagonals) { ITEM; gather_diagonal(s, i); }
KERNEL(touch) { ITEM; add_springs(s, i); }
KERNEL(invert_diagonals) { ITEM; invert_diagonal(s, i, (const uint8_t *)a); }

/* -- sums: of product[k] (or the smallest of least[k]) into sums number y -- */
KERNEL(sum_segments) {
    ITEM;
    double total = 0;
    for (int j = i; j < k; j += SEGMENTS) total += s->product[j];
    s->sums[(int)y * (SEGMENTS + LAST) + i] = total;
}

KERNEL(least_segments) {
    ITEM;
    double least = 1e300;
    for (int j = i; j < k; j += SEGMENTS) least = s->least[j] < least ? s->least[j] : least;
    s->sums[(int)y * (SEGMENTS + LAST) + i] = least;
}

KERNEL(sum_last) {
    ITEM;
    double *sums = s->sums + (int)y * (SEGMENTS + LAST), total = 0;
    for (int j = i; j < SEGMENTS; j += LAST) total += sums[j];
    sums[SEGMENTS + i] = total;
}

KERNEL(product_of) { ITEM; s->product[i] = ((const double *)a)[i] * ((const double *)b)[i]; } /* a[k] b[k] */

/* b[k] = a[k] + x c[k] (k in 3 n) */
KERNEL(add_scaled) { ITEM; ((double *)b)[i] = ((const double *)a)[i] + x * ((const double *)c)[i]; }

/* -- balance: a = u, b = right, c = targets; s->pull = S (t - w u) -- */
KERNEL(spring_pulls) {
    ITEM;
    const double *u = (const double *)a, *targets = (const double *)c, *stiffness = s->spring_stiffness + 9 * (int64_t)i;
    double gap[3], energy = 0;
    for (int j = 0; j < 3; j++) gap[j] = (c ? targets[3 * (int64_t)i + j] : 0);
    for (int e = s->spring_start[i]; e < s->spring_start[i + 1]; e++)
        for (int j = 0; j < 3; j++) gap[j] -= s->spring_weight[e] * u[3 * (int64_t)s->spring_node[e] + j];
    for (int j = 0; j < 3; j++) {
        const double pull = stiffness[3 * j] * gap[0] + stiffness[3 * j + 1] * gap[1] + stiffness[3 * j + 2] * gap[2];
        s->pull[3 * (int64_t)i + j] = c ? pull : -gap[j];
        energy += 0.5 * gap[j] * pull;
    }
    s->product[i] = energy;
}

/* right[n][3] = share of the load and the springs' pulls; one thread: few springs, many nodes each, in order */
KERNEL(load_nodes) { ITEM; ((double *)b)[i] = x * s->load[i]; }
KERNEL(pull_nodes) {
    ITEM;
    double *right = (double *)b;
    for (int j = 0; j < s->springs; j++)
        for (int e = s->spring_start[j]; e < s->spring_start[j + 1]; e++)
            for (int m = 0; m < 3; m++)
                right[3 * (int64_t)s->spring_node[e] + m] += s->spring_weight[e] * s->pull[3 * (int64_t)j + m];
}
KERNEL(hold) { /* right += element forces c, 0 where a node is held (a) */
    ITEM;
    double *right = (double *)b;
    right[i] = ((const uint8_t *)a)[i / 3] ? 0 : right[i] + ((const double *)c)[i];
}

/* -- conjugate gradients: scale and start, a = right[n][3] -- */
KERNEL(size_of) {
    ITEM;
    const double *right = (const double *)a;
    double size = 0;
    for (int j = 0; j < 3; j++) {
        const double v = right[3 * (int64_t)i + j] < 0 ? -right[3 * (int64_t)i + j] : right[3 * (int64_t)i + j];
        size = v > size ? v : size;
    }
    s->least[i] = -size;
}
KERNEL(begin) {
    ITEM;
    double size = 0;
    for (int j = 0; j < SEGMENTS; j++) size = -s->sums[j] > size ? -s->sums[j] : size;
    for (int j = 0; j < SCALE; j++) s->scalars[j] = 0;
    s->scalars[SCALE] = size > 0 ? size : 1;
}
KERNEL(start) {
    ITEM;
    const double *right = (const double *)a;
    for (int j = 0; j < 4; j++) {
        const int64_t m = 4 * (int64_t)i + j;
        s->x[m] = s->p[m] = s->q[m] = 0;
        s->r[m] = j < 3 ? (float)(right[3 * (int64_t)i + j] / s->scalars[SCALE]) : 0;
    }
}
KERNEL(descend) {
    ITEM;
    const float alpha = (float)s->scalars[ALPHA];
    const int64_t m = 4 * (int64_t)i;
    float z[3], dot = 0;
    for (int j = 0; j < 3; j++) {
        s->r[m + j] -= alpha * s->q[m + j];
        s->x[m + j] += alpha * s->p[m + j];
    }
    block_times(s->inverse + 9 * (int64_t)i, s->r + m, z);
    for (int j = 0; j < 3; j++) s->z[m + j] = z[j], dot += s->r[m + j] * z[j];
    s->product[i] = dot;
}
KERNEL(restrict_chunks) { /* (chunk, corner) */
    ITEM;
    float sum[3] = {0, 0, 0};
    for (int n = s->chunk_start[i / 8]; n < s->chunk_start[i / 8 + 1]; n++)
        for (int j = 0; j < 3; j++) sum[j] += s->share[8 * (int64_t)n + i % 8] * s->r[4 * (int64_t)n + j];
    for (int j = 0; j < 3; j++) s->restricted[4 * (int64_t)i + j] = sum[j];
}
KERNEL(restrict_lattice) {
    ITEM;
    for (int j = 0; j < 3; j++) {
        float sum = 0;
        for (int e = s->lattice_start[i]; e < s->lattice_start[i + 1]; e++)
            sum += s->restricted[4 * (int64_t)s->lattice_from[e] + j];
        s->coarse_right[3 * i + j] = sum;
    }
}
KERNEL(coarse_rows) { /* the inverse is symmetric: down a column, so that neighbours read neighbours */
    ITEM;
    float sum = 0;
    for (int j = 0; j < count; j++) sum += s->coarse[(int64_t)count * j + i] * s->coarse_right[j];
    s->coarse_left[i] = sum;
}
KERNEL(wide_points) { /* seen = w z (k = 0), or pull = S w p */
    ITEM;
    const float *v = k ? s->p : s->z;
    float sum[3] = {0, 0, 0};
    for (int e = s->wide_start[i]; e < s->wide_start[i + 1]; e++)
        for (int j = 0; j < 3; j++) sum[j] += s->wide_weight[e] * v[4 * (int64_t)s->wide_node[e] + j];
    if (k)
        block_times(s->wide_stiffness + 9 * (int64_t)i, sum, s->wide_pull + 3 * i);
    else
        for (int j = 0; j < 3; j++) s->wide_seen[3 * i + j] = sum[j];
}
KERNEL(wide_draw) {
    ITEM;
    float sum = 0;
    for (int j = 0; j < count; j++) sum += s->wide_inner[(int64_t)count * i + j] * s->wide_seen[j];
    s->wide_pull[i] = sum;
}
KERNEL(weigh) { /* one thread: r'M^-1r, the next turn, whether it is enough; x relative, y absolute, k most */
    ITEM;
    double rz = last_of(s->sums);
    for (int j = 0; j < 3 * s->wide; j++) rz -= (double)s->wide_seen[j] * s->wide_pull[j];
    for (int j = 0; j < 3 * s->lattice; j++) rz += (double)s->coarse_left[j] * s->coarse_right[j];
    double *v = s->scalars;
    if (v[DONE]) return;
    const int it = (int)v[COUNT];
    const double before = v[RZ], scale = v[SCALE];
    v[RZ] = rz;
    if (it == 0) v[FIRST] = rz;
    if (!(rz > x * x * v[FIRST]) || rz * scale * scale <= y * y || it >= k) v[DONE] = 1;
    v[BETA] = it ? rz / before : 0;
}
KERNEL(turn) {
    ITEM;
    if (s->scalars[DONE]) return;
    const float beta = (float)s->scalars[BETA];
    const int64_t m = 4 * (int64_t)i;
    const int chunk = ((const int32_t *)a)[i];
    float z[3] = {s->z[m], s->z[m + 1], s->z[m + 2]};
    for (int e = s->wide_row[i]; e < s->wide_row[i + 1]; e++) {
        float pull[3], less[3];
        for (int j = 0; j < 3; j++) pull[j] = s->wide_chunk_weight[e] * s->wide_pull[3 * s->wide_of[e] + j];
        block_times(s->inverse + 9 * (int64_t)i, pull, less);
        for (int j = 0; j < 3; j++) z[j] -= less[j];
    }
    for (int n = 0; n < 8; n++)
        for (int j = 0; j < 3; j++)
            z[j] += s->share[8 * (int64_t)i + n] * s->coarse_left[3 * s->chunk_corner[8 * (int64_t)chunk + n] + j];
    for (int j = 0; j < 3; j++) s->p[m + j] = z[j] + beta * s->p[m + j];
}
KERNEL(forward) {
    ITEM;
    float q[3] = {0, 0, 0}, dot = 0;
    for (int e = s->row_start[i]; e < s->row_start[i + 1]; e++) {
        float part[3];
        block_times(s->values + 9 * (int64_t)e, s->p + 4 * (int64_t)s->column[e], part);
        for (int j = 0; j < 3; j++) q[j] += part[j];
    }
    for (int e = s->wide_row[i]; e < s->wide_row[i + 1]; e++)
        for (int j = 0; j < 3; j++) q[j] += s->wide_chunk_weight[e] * s->wide_pull[3 * s->wide_of[e] + j];
    for (int j = 0; j < 3; j++) s->q[4 * (int64_t)i + j] = q[j], dot += s->p[4 * (int64_t)i + j] * q[j];
    s->product[i] = dot;
}
KERNEL(stride) { /* one thread: the next step, or the end on negative curvature */
    ITEM;
    double *v = s->scalars;
    const double curvature = last_of(s->sums + SEGMENTS + LAST);
    v[ALPHA] = 0;
    if (v[DONE]) return;
    if (!(curvature > 0)) {
        v[DONE] = v[NEGATIVE] = 1;
        return;
    }
    v[ALPHA] = v[RZ] / curvature;
    v[COUNT] += 1;
}
KERNEL(finish) { /* b = d[n][3] */
    ITEM;
    const float *from = s->scalars[NEGATIVE] && s->scalars[COUNT] == 0 ? s->p : s->x;
    for (int j = 0; j < 3; j++) ((double *)b)[3 * (int64_t)i + j] = s->scalars[SCALE] * (double)from[4 * (int64_t)i + j];
}
