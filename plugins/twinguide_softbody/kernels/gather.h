/* Sums of elements' parts, one node or block at a time, in one order: shared by the CPU and CUDA. */

/* f[n][3] at node i: its elements' rows. */
INLINE void gather_force(const System *s, int i, double *f) {
    double x = 0, y = 0, z = 0;
    for (int k = s->incident_start[i]; k < s->incident_start[i + 1]; k++) {
        const double *from = s->element_force + 3 * (int64_t)s->incident[k];
        x += from[0], y += from[1], z += from[2];
    }
    f[3 * (int64_t)i] = x, f[3 * (int64_t)i + 1] = y, f[3 * (int64_t)i + 2] = z;
}

/* The inverse of a symmetric block; of its trace alone where it is not positive definite. */
INLINE void invert(const float *a, float *out) {
    float c0 = a[4] * a[8] - a[5] * a[7], c1 = a[5] * a[6] - a[3] * a[8], c2 = a[3] * a[7] - a[4] * a[6];
    float det = a[0] * c0 + a[1] * c1 + a[2] * c2, trace = a[0] + a[4] + a[8];
    for (int k = 0; k < 9; k++) out[k] = 0;
    if (!(a[0] > 0 && a[0] * a[4] - a[1] * a[3] > 0 && det > 1e-12f * trace * trace * trace)) {
        out[0] = out[4] = out[8] = 3 / (trace > 0 ? trace : 1);
        return;
    }
    float over = 1 / det;
    out[0] = c0 * over, out[1] = out[3] = c1 * over, out[2] = out[6] = c2 * over;
    out[4] = (a[0] * a[8] - a[2] * a[6]) * over;
    out[5] = out[7] = (a[2] * a[3] - a[0] * a[5]) * over;
    out[8] = (a[0] * a[4] - a[1] * a[3]) * over;
}

INLINE void gather_upper(const System *s, int k) {
    float sum[9] = {0};
    for (int e = s->upper_start[k]; e < s->upper_start[k + 1]; e++) {
        const int32_t which = s->upper[e];
        const float *from = s->element_blocks + 9 * (int64_t)(which < 0 ? ~which : which);
        if (which >= 0)
            for (int c = 0; c < 9; c++) sum[c] += from[c];
        else
            for (int c = 0; c < 9; c++) sum[c] += from[3 * (c % 3) + c / 3];
    }
    float *upper = s->values + 9 * (int64_t)s->upper_at[k], *lower = s->values + 9 * (int64_t)s->lower_at[k];
    for (int c = 0; c < 9; c++) upper[c] = sum[c], lower[3 * (c % 3) + c / 3] = sum[c];
}

/* Row i's own block: minus the others. */
INLINE void gather_diagonal(const System *s, int i) {
    float sum[9] = {0};
    for (int k = s->row_start[i]; k < s->row_start[i + 1]; k++)
        for (int c = 0; k != s->diagonal[i] && c < 9; c++) sum[c] -= s->values[9 * (int64_t)k + c];
    for (int c = 0; c < 9; c++) s->values[9 * (int64_t)s->diagonal[i] + c] = sum[c];
}

/* What springs add to the k-th block that they touch. */
INLINE void add_springs(const System *s, int k) {
    for (int c = 0; c < 9; c++) s->values[9 * (int64_t)s->touched_at[k] + c] += s->touched_values[9 * (int64_t)k + c];
}

INLINE void invert_diagonal(const System *s, int i, const uint8_t *held) {
    invert(s->values + 9 * (int64_t)s->diagonal[i], s->inverse + 9 * (int64_t)i);
    for (int c = 0; held[i] && c < 9; c++) s->inverse[9 * (int64_t)i + c] = 0;
}
