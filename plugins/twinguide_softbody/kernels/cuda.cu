/* The CUDA kernels: the same element text, one thread per element, node or block; no atomics, no shared memory, no
 * order that depends on the hardware. Each is a plain loop body, so that `shim.c` can run this very text on a CPU.
 *
 * All take (system, count, three pointers, two numbers, one integer); thread i of `count` does the i-th item. Sums go
 * in two rounds: SEGMENTS strided partial sums, then LAST of those; who needs the sum adds the LAST in order. Long sums
 * are unrolled: a thread waits for memory once in eight items. What is decided is decided by kernels of one thread:
 * where SKIP is set the others return at once.
 */
#ifndef KERNEL
#ifdef __CUDACC_RTC__
typedef int int32_t;
typedef long long int64_t;
typedef unsigned char uint8_t;
#else
#include <stdint.h>
#endif
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

#define EVERY                                                                                                          \
    const int i = blockIdx.x * blockDim.x + threadIdx.x;                                                               \
    if (i >= count) return;                                                                                            \
    (void)a, (void)b, (void)c, (void)x, (void)y, (void)k
#define ITEM                                                                                                           \
    EVERY;                                                                                                             \
    if (s->scalars[SKIP]) return

/* s->scalars. Conjugate gradients: r'M^-1r now, at the start; step, turn; 1 on negative curvature; iterations; largest
 * |r|. The pose: the elements' energy [J] and smallest J, all energy [J], imbalance and acting forces [N]. The queue: 1
 * where nothing is to be done until `resume`, where the frame is settled; the candidate taken last; all iterations, the
 * rms [m] still missing, directions; 1 where the frame taught a secant, which row it takes, the guess's shares. */
enum { RZ, FIRST, ALPHA, BETA, NEGATIVE, COUNT, SCALE };
enum { INNER = 7, LEAST, ENERGY, LEFT, ACTING, SKIP, STOP, TAKEN, TOTAL, MISSING, DIRECTIONS, LEARNT, SLOT, SHARE };
enum { SECANTS = 6, SCALARS = 32 };
/* a pose's rows of sums: the smallest J; energies of elements and springs; gravity's work, squares of three forces */
enum { OF_LEAST, OF_ELEMENTS, OF_SPRINGS, OF_WORK, OF_INNER, OF_OUTER, OF_LEFT };

INLINE double last_of(const System *s, int row) {
    double total = 0;
    for (int j = 0; j < LAST; j++) total += s->sums[ROWS * SEGMENTS + row * LAST + j];
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
    double *to = s->element_force + ((int64_t)(i / W8) * nodes * W8 + lane) * 3;
    for (int n = 0; n < 3 * nodes; n++) to[n / 3 * W8 * 3 + n % 3] = f[n];
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
KERNEL(invert_diagonals) { ITEM; invert_diagonal(s, i, s->held); }

/* -- sums: a first round by SEGMENTS, a second by LAST, into rows from k on -- */
KERNEL(sum_segments) { /* product[y] */
    ITEM;
    double total = 0;
#pragma unroll 8
    for (int j = i; j < (int)y; j += SEGMENTS) total += s->product[j];
    s->sums[k * SEGMENTS + i] = total;
}

KERNEL(sum_pose) { /* (row, segment) of a pose's sums */
    ITEM;
    const int row = i / SEGMENTS, at = i % SEGMENTS, n = s->nodes;
    const double *of = row < OF_WORK ? s->product : s->product + s->elements + (int64_t)(row - OF_WORK) * n;
    const int size = row == OF_ELEMENTS ? s->elements : row == OF_SPRINGS ? s->springs : n;
    double total = row == OF_LEAST ? 1e300 : 0;
    if (row == OF_LEAST)
        for (int j = at; j < s->elements; j += SEGMENTS) total = s->least[j] < total ? s->least[j] : total;
    else if (row == OF_SPRINGS)
        for (int j = at; j < size; j += SEGMENTS) total += s->pull[4 * (int64_t)j + 3];
    else
        for (int j = at; j < size; j += SEGMENTS) total += of[j];
    s->sums[i] = total;
}

KERNEL(dot_rows) { /* (row, segment): a[rows][size]' b[size], y = size */
    ITEM;
    const int size = (int)y;
    const double *row = (const double *)a + (int64_t)(i / SEGMENTS) * size, *v = (const double *)b;
    double total = 0;
#pragma unroll 8
    for (int j = i % SEGMENTS; j < size; j += SEGMENTS) total += row[j] * v[j];
    s->sums[k * SEGMENTS + i] = total;
}

KERNEL(sum_last) { /* (row, one of LAST); the first row is a minimum where x */
    ITEM;
    const double *from = s->sums + (k + i / LAST) * SEGMENTS;
    double total = from[i % LAST];
    for (int j = i % LAST + LAST; j < SEGMENTS; j += LAST)
        total = !x || i >= LAST ? total + from[j] : from[j] < total ? from[j] : total;
    s->sums[ROWS * SEGMENTS + k * LAST + i] = total;
}

/* b[k] = a[k] + x c[k] (k in 3 n) */
KERNEL(add_scaled) { ITEM; ((double *)b)[i] = ((const double *)a)[i] + x * ((const double *)c)[i]; }

/* -- balance: a = u, c = targets; s->pull = S (t - w u), or w u without targets -- */
KERNEL(spring_pulls) {
    ITEM;
    const double *u = (const double *)a, *targets = (const double *)c;
    const double *stiffness = s->spring_stiffness + 9 * (int64_t)i;
    double gap[3], energy = 0;
    for (int j = 0; j < 3; j++) gap[j] = (c ? targets[3 * (int64_t)i + j] : 0);
    for (int e = s->spring_start[i]; e < s->spring_start[i + 1]; e++)
        for (int j = 0; j < 3; j++) gap[j] -= s->spring_weight[e] * u[3 * (int64_t)s->spring_node[e] + j];
    for (int j = 0; j < 3; j++) {
        const double pull = stiffness[3 * j] * gap[0] + stiffness[3 * j + 1] * gap[1] + stiffness[3 * j + 2] * gap[2];
        s->pull[4 * (int64_t)i + j] = c ? pull : -gap[j];
        energy += 0.5 * gap[j] * pull;
    }
    s->pull[4 * (int64_t)i + 3] = energy;
}

KERNEL(balance_nodes) { /* a = u, c = the elements' forces: b = what is out of balance under x of the load */
    ITEM;
    const double *u = (const double *)a, *element = (const double *)c;
    double *right = (double *)b, *out = s->product + s->elements + i, work = 0, inner = 0, outer = 0, left = 0;
    const int64_t n = s->nodes;
    for (int j = 0; j < 3; j++) {
        const int64_t m = 3 * (int64_t)i + j;
        double pull = x * s->load[m];
        work += pull * u[m];
        for (int e = s->spring_row[i]; e < s->spring_row[i + 1]; e++)
            pull += s->spring_share[e] * s->pull[4 * (int64_t)s->spring_of[e] + j];
        inner += element[m] * element[m], outer += pull * pull;
        right[m] = s->held[i] ? 0 : pull + element[m];
        left += right[m] * right[m];
    }
    out[0] = work, out[n] = inner, out[2 * n] = outer, out[3 * n] = left;
}

/* -- conjugate gradients: scale by the norm, row 0, and start; a = right[n][3] -- */
KERNEL(begin) {
    ITEM;
    const double size = sqrt(last_of(s, 0));
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
#pragma unroll 8
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
#pragma unroll 16
    for (int j = 0; j < count; j++) sum += s->coarse[(int64_t)count * j + i] * s->coarse_right[j];
    s->coarse_left[i] = sum;
    s->product[s->nodes + i] = (double)sum * s->coarse_right[i];
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
    s->product[s->nodes + 3 * s->lattice + i] = -(double)sum * s->wide_seen[i];
}
KERNEL(weigh) { /* one thread: r'M^-1r, the next turn, whether it is enough; x relative, y absolute, k most */
    ITEM;
    const double rz = last_of(s, 0);
    double *v = s->scalars;
    const int it = (int)v[COUNT];
    const double before = v[RZ], scale = v[SCALE];
    v[RZ] = rz;
    if (it == 0) v[FIRST] = rz;
    if (!(rz > x * x * v[FIRST]) || rz * scale * scale <= y * y || it >= k) v[SKIP] = 1;
    v[BETA] = it ? rz / before : 0;
}
KERNEL(turn) {
    ITEM;
    const float beta = (float)s->scalars[BETA];
    const int64_t m = 4 * (int64_t)i;
    const int chunk = s->chunk_of[i];
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
    const double curvature = last_of(s, 1);
    if (!(curvature > 0)) {
        v[SKIP] = v[NEGATIVE] = 1;
        return;
    }
    v[ALPHA] = v[RZ] / curvature;
    v[COUNT] += 1;
}
KERNEL(finish) { /* b = d[n][3] */
    ITEM;
    const float *from = s->scalars[NEGATIVE] && s->scalars[COUNT] == 0 ? s->p : s->x;
    double *to = (double *)b + 3 * (int64_t)i;
    for (int j = 0; j < 3; j++) to[j] = s->scalars[SCALE] * (double)from[4 * (int64_t)i + j];
}

/* -- springs over many nodes: (1 + S B)^-1 S of B = w D^-1 w', by blocks of 3, whose pivots are 1 + S times what is
 * positive semidefinite, so that no order is to be sought -- */
KERNEL(wide_system) { /* (row, column): b[3 wide][6 wide] = 1 + S B | S */
    ITEM;
    const int size = 3 * s->wide, row = i / (2 * size), column = i % (2 * size);
    const int spring = row / 3, at = column % size / 3;
    const float *stiffness = s->wide_stiffness + 9 * spring + 3 * (row % 3);
    double sum = column < size ? row == column : spring == at ? stiffness[column % 3] : 0;
    int l = s->wide_start[at];
    for (int e = s->wide_start[spring]; column < size && e < s->wide_start[spring + 1]; e++) {
        while (l < s->wide_start[at + 1] && s->wide_node[l] < s->wide_node[e]) l++;
        if (l == s->wide_start[at + 1]) break;
        const float *d = s->inverse + 9 * (int64_t)s->wide_node[e] + column % 3;
        if (s->wide_node[l] == s->wide_node[e])
            sum += (double)s->wide_weight[e] * s->wide_weight[l] *
                   ((double)stiffness[0] * d[0] + (double)stiffness[1] * d[3] + (double)stiffness[2] * d[6]);
    }
    ((double *)b)[i] = sum;
}
/* out = P^-1 v of the k-th pivot, v the column's values in its rows */
INLINE void over_pivot(const double *matrix, int width, int k, int column, double *out) {
    const double *p = matrix + 3 * (int64_t)k * width + 3 * k, *v = matrix + 3 * (int64_t)k * width + column;
    double m[9], c[9];
    for (int j = 0; j < 9; j++) m[j] = p[j / 3 * width + j % 3];
    cofactor_f64(m, c);
    const double over = 1 / (m[0] * c[0] + m[1] * c[1] + m[2] * c[2]);
    for (int j = 0; j < 3; j++) out[j] = over * (c[j] * v[0] + c[3 + j] * v[width] + c[6 + j] * v[2 * width]);
}
KERNEL(wide_eliminate) { /* (spring, column): the k-th pivot from all other rows, right of its own columns */
    ITEM;
    const int width = 6 * s->wide, spring = i / width, column = i % width;
    double *matrix = (double *)b, *row = matrix + 3 * (int64_t)spring * width, v[3];
    if (spring == k || column < 3 * k + 3) return;
    over_pivot(matrix, width, k, column, v);
    for (int j = 0; j < 3; j++)
        for (int m = 0; m < 3; m++) row[j * width + column] -= row[j * width + 3 * k + m] * v[m];
}
KERNEL(wide_inverse) { /* (spring, column) */
    ITEM;
    const int size = 3 * s->wide, spring = i / size, column = i % size;
    double v[3];
    over_pivot((const double *)a, 2 * size, spring, size + column, v);
    for (int j = 0; j < 3; j++) ((float *)s->wide_inner)[(int64_t)(3 * spring + j) * size + column] = (float)v[j];
}

/* -- a frame: what `newton.py`, `history.py` and `quasistatic.py` decide, decided by one thread -- */
KERNEL(open_frame) { /* a: energy [J] and smallest J of the elements, the row for a secant */
    EVERY;
    const double *given = (const double *)a;
    for (int j = 0; j < SCALARS; j++) s->scalars[j] = 0;
    s->scalars[INNER] = given[0], s->scalars[LEAST] = given[1], s->scalars[SLOT] = given[2];
}
KERNEL(judge) { /* the k-th candidate, above x in J or a fifth of the pose's; 0: the pose itself, under other loads */
    ITEM;
    double *v = s->scalars;
    const double inner = k ? last_of(s, OF_ELEMENTS) : v[INNER];
    double least = k ? s->sums[ROWS * SEGMENTS] : v[LEAST];
    for (int j = 1; k && j < LAST; j++)
        least = s->sums[ROWS * SEGMENTS + j] < least ? s->sums[ROWS * SEGMENTS + j] : least;
    const double energy = inner + (last_of(s, OF_SPRINGS) - last_of(s, OF_WORK)), left = sqrt(last_of(s, OF_LEFT));
    const double slack = 1e-10 * fabs(v[ENERGY]) + 1e-18, limit = 0.2 * v[LEAST] < x ? 0.2 * v[LEAST] : x;
    if (k && (!(least > limit) || !(energy <= v[ENERGY] + slack || left < 0.5 * v[LEFT]))) return;
    v[INNER] = inner, v[LEAST] = least, v[ENERGY] = energy, v[LEFT] = left;
    v[ACTING] = sqrt(last_of(s, OF_INNER)) + sqrt(last_of(s, OF_OUTER));
    if (k) v[TAKEN] = k, v[SKIP] = 1;
}
KERNEL(adopt) { /* b = a, where the k-th candidate was taken */
    EVERY;
    if ((int)s->scalars[TAKEN] == k) ((double *)b)[i] = ((const double *)a)[i];
}
KERNEL(resume) { /* after what may have set SKIP; x = 1 counts iterations, k = 1 ends the frame */
    EVERY;
    double *v = s->scalars;
    if (!v[STOP]) v[TOTAL] += x * v[COUNT];
    if (k) v[STOP] = 0;
    v[SKIP] = v[STOP];
}
KERNEL(settle) { /* the rms of what is missing, row 0; at most x is settled */
    ITEM;
    double *v = s->scalars;
    v[MISSING] = sqrt(last_of(s, 0) / s->nodes);
    v[DIRECTIONS] += 1;
    v[STOP] = v[SKIP] = v[MISSING] <= x;
}
KERNEL(project) { /* shares of the known moves, W W' (moves'right), a = W[SECANTS][SECANTS] */
    ITEM;
    const double *w = (const double *)a;
    double dots[SECANTS];
    for (int j = 0; j < SECANTS; j++) dots[j] = last_of(s, j), s->scalars[SHARE + j] = 0;
    for (int e = 0; e < SECANTS; e++) {
        double along = 0;
        for (int j = 0; j < SECANTS; j++) along += w[SECANTS * j + e] * dots[j];
        for (int j = 0; j < SECANTS; j++) s->scalars[SHARE + j] += w[SECANTS * j + e] * along;
    }
}
KERNEL(combine_shares) { /* b = a + shares of c[SECANTS][count] */
    ITEM;
    double sum = ((const double *)a)[i];
    for (int j = 0; j < SECANTS; j++) sum += s->scalars[SHARE + j] * ((const double *)c)[j * (int64_t)count + i];
    ((double *)b)[i] = sum;
}
KERNEL(learn) { /* whether a move, its square in row 0, is x [m] rms at least */
    ITEM;
    s->scalars[LEARNT] = !(sqrt(last_of(s, 0) / s->nodes) < x);
    if (!s->scalars[LEARNT]) s->scalars[SKIP] = 1;
}
KERNEL(store) { ITEM; ((double *)b)[(int64_t)s->scalars[SLOT] * count + i] = ((const double *)a)[i]; }
KERNEL(report) { /* b: scalars, all sums, the springs' places, u (a) */
    EVERY;
    const int springs = SCALARS + ROWS, nodes = springs + 3 * s->springs;
    double *out = (double *)b + i;
    if (i < SCALARS)
        *out = s->scalars[i];
    else if (i < springs)
        *out = last_of(s, i - SCALARS);
    else if (i < nodes)
        *out = s->pull[4 * (int64_t)((i - springs) / 3) + (i - springs) % 3];
    else
        *out = ((const double *)a)[i - nodes];
}
