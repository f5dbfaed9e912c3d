/* Preconditioned conjugate gradients in float32, one parallel region, four barriers an iteration.
 *
 * M^-1 = (D + w' S w)^-1 + P A_c^-1 P': each node's own block, springs over many nodes by Woodbury's identity, and a
 * coarse lattice for what is smooth. Every sum runs over chunks, or groups of rows, in order, so any number of threads
 * gives the same bits.
 */
INLINE void store4(float *to, f32x4 from) { __builtin_memcpy(to, &from, 16); }

/* The sum of sixteen lanes as a tree, the same for every compiler. */
INLINE float tree(f32x16 sum) {
    float s[16];
    __builtin_memcpy(s, &sum, 64);
    for (int width = 8; width; width /= 2)
        for (int l = 0; l < width; l++) s[l] += s[l + width];
    return s[0];
}

/* Eight rows of q = K p side by side, and their share of p'q. */
INLINE double multiply(const System *s, int group) {
    const int32_t *rows = s->group_row + 8 * (int64_t)group;
    f32x8 sum[3] = {{0}}, more[3] = {{0}}, at[3];
    for (int k = s->group_start[group]; k < s->group_start[group + 1]; k++) {
        const f32x8 *v = (const f32x8 *)(s->side_values + 72 * (int64_t)k);
        lanes_of_eight(s->p, s->side_column + 8 * (int64_t)k, at);
        for (int i = 0; i < 3; i++) sum[i] += v[i] * at[0], more[i] += v[3 + i] * at[1], sum[i] += v[6 + i] * at[2];
    }
    lanes_of_eight(s->p, rows, at);
    f32x8 dot = {0};
    for (int i = 0; i < 3; i++) sum[i] += more[i], dot += sum[i] * at[i];
    double all = 0;
    for (int l = 0; l < 8; l++) {
        store4(s->q + 4 * (int64_t)rows[l], (f32x4){sum[0][l], sum[1][l], sum[2][l], 0});
        all += dot[l];
    }
    return all;
}

/* A block, column by column, times r; the fourth lane holds what nobody reads. */
INLINE f32x4 apply_block(const float *d, const float *r) {
    return load4(d) * r[0] + load4(d + 3) * r[1] + load4(d + 6) * r[2];
}

/* Sum of f32x4s by lanes, then across: one order for every compiler. */
INLINE double across(f32x4 a) { return (double)a[0] + a[1] + a[2]; }

/* q += w' S w p, r -= alpha q, x += alpha p, z = D^-1 r, the chunk's share of r'z and of P'r.
 * pulls[wide][3] = S w p.
 */
INLINE void descend(const System *s, int chunk, float alpha, const float *pulls) {
    f32x4 sum[8] = {{0}}, dot = {0};
    for (int k = s->wide_chunk[chunk]; k < s->wide_chunk[chunk + 1]; k++) {
        const float *t = pulls + 3 * s->wide_of[k], w = s->wide_chunk_weight[k];
        float *q = s->q + 4 * (int64_t)s->wide_at[k];
        for (int i = 0; i < 3; i++) q[i] += w * t[i];
    }
    for (int i = s->chunk_start[chunk]; i < s->chunk_start[chunk + 1]; i++) {
        const int64_t k = 4 * (int64_t)i;
        f32x4 r = load4(s->r + k) - alpha * load4(s->q + k);
        store4(s->r + k, r);
        store4(s->x + k, load4(s->x + k) + alpha * load4(s->p + k));
        f32x4 z = apply_block(s->inverse + 9 * (int64_t)i, s->r + k);
        store4(s->z + k, z);
        dot += r * z;
        for (int a = 0; a < 8; a++) sum[a] += s->share[8 * (int64_t)i + a] * r;
    }
    for (int a = 0; a < 8; a++) store4(s->restricted + 4 * (8 * (int64_t)chunk + a), sum[a]);
    s->partial[chunk] = across(dot);
}

/* z += P y less what springs over many nodes take away, p = z + beta p. */
INLINE void turn(const System *s, int chunk, float beta, const float *drawn) {
    f32x4 y[8];
    for (int a = 0; a < 8; a++) {
        const float *from = s->coarse_left + 3 * s->chunk_corner[8 * (int64_t)chunk + a];
        y[a] = (f32x4){from[0], from[1], from[2], 0};
    }
    for (int k = s->wide_chunk[chunk]; k < s->wide_chunk[chunk + 1]; k++) {
        const float *t = drawn + 3 * s->wide_of[k], w = s->wide_chunk_weight[k];
        const float pull[3] = {w * t[0], w * t[1], w * t[2]};
        float *z = s->z + 4 * (int64_t)s->wide_at[k];
        store4(z, load4(z) - apply_block(s->inverse + 9 * (int64_t)s->wide_at[k], pull));
    }
    for (int i = s->chunk_start[chunk]; i < s->chunk_start[chunk + 1]; i++) {
        const int64_t k = 4 * (int64_t)i;
        f32x4 z = load4(s->z + k);
        for (int a = 0; a < 8; a++) z += s->share[8 * (int64_t)i + a] * y[a];
        store4(s->p + k, z + beta * load4(s->p + k));
    }
}

/* out[wide][3] = w v, every thread for itself: a few hundred entries cost less than a barrier. */
INLINE void gather_wide(const System *s, const float *v, float *out) {
    for (int j = 0; j < s->wide; j++) {
        f32x4 sum = {0};
        for (int k = s->wide_start[j]; k < s->wide_start[j + 1]; k++)
            sum += s->wide_weight[k] * load4(v + 4 * (int64_t)s->wide_node[k]);
        for (int i = 0; i < 3; i++) out[3 * j + i] = sum[i];
    }
}

INLINE double total(const double *parts, int count) {
    double sum = 0;
    for (int k = 0; k < count; k++) sum += parts[k];
    return sum;
}

/* P'r into right[3 lattice], every thread for itself, in the order of the lattice's lists. */
INLINE void restrict_all(const System *s, float *right) {
    for (int a = 0; a < s->lattice; a++) {
        f32x4 sum = {0};
        for (int k = s->lattice_start[a]; k < s->lattice_start[a + 1]; k++)
            sum += load4(s->restricted + 4 * (int64_t)s->lattice_from[k]);
        for (int i = 0; i < 3; i++) right[3 * a + i] = sum[i];
    }
}

/* One row of the coarse inverse times right. */
INLINE float coarse_row(const float *row, const float *right, int size) {
    f32x16 sum = {0};
    float rest = 0;
    int k = 0;
    for (; k + 16 <= size; k += 16) sum += load16(row + k) * load16(right + k);
    for (; k < size; k++) rest += row[k] * right[k];
    return tree(sum) + rest;
}

INLINE void dense(const float *matrix, const float *v, int size, float *out) {
    for (int i = 0; i < size; i++) out[i] = coarse_row(matrix + (int64_t)size * i, v, size);
}

/* Solve K d = r for d[n][3] [m] given r[n][3] [N]: at most `most` iterations, until sqrt(r'M^-1 r) fell to `relative`
 * of its start or below `absolute`. out: iterations, sqrt(r'M^-1 r) at the start and the end, 1 on negative curvature.
 */
EXPORT void conjugate_gradients(const System *s, const double *right, double *d, int most, double relative,
                                double absolute, double *out) {
    const int size = 3 * s->lattice, wide = 3 * s->wide;
    double largest = 0;
    for (int64_t k = 0; k < 3 * (int64_t)s->nodes; k++) {
        double a = right[k] < 0 ? -right[k] : right[k];
        largest = a > largest ? a : largest;
    }
    const double scale = largest > 0 ? largest : 1; /* float32 squares of forces of 1e-12 N must not vanish */
    int iterations = 0, negative = 0;
    double first = 0, last = 0;
#pragma omp parallel num_threads(s->threads) if (s->threads > 1)
    {
        int me = 0;
#ifdef _OPENMP
        me = omp_get_thread_num();
#endif
        float *rc = s->coarse_right + (int64_t)me * size;
        float drawn[3 * MOST_WIDE], pulls[3 * MOST_WIDE] = {0}, seen[3 * MOST_WIDE];
        double before = 0, start = 0;
        float alpha = 0;
#pragma omp for schedule(static)
        for (int i = 0; i < s->nodes; i++) {
            const int64_t k = 4 * (int64_t)i;
            for (int c = 0; c < 4; c++) s->x[k + c] = s->p[k + c] = s->q[k + c] = s->r[k + c] = 0;
            for (int c = 0; c < 3; c++) s->r[k + c] = (float)(right[3 * (int64_t)i + c] / scale);
        }
        for (int it = 0;; it++) {
#pragma omp for schedule(static)
            for (int chunk = 0; chunk < s->chunks; chunk++) descend(s, chunk, alpha, pulls);
            restrict_all(s, rc);
            double rz = total(s->partial, s->chunks);
            if (wide) {
                gather_wide(s, s->z, seen);
                dense(s->wide_inner, seen, wide, drawn);
                for (int k = 0; k < wide; k++) rz -= (double)seen[k] * drawn[k];
            }
#pragma omp for schedule(static)
            for (int k = 0; k < size; k++) s->coarse_left[k] = coarse_row(s->coarse + (int64_t)size * k, rc, size);
            for (int k = 0; k < size; k++) rz += (double)s->coarse_left[k] * rc[k];
            if (it == 0) start = rz;
            const int done =
                !(rz > relative * relative * start) || rz * scale * scale <= absolute * absolute || it >= most;
            if (done) {
#pragma omp single nowait
                iterations = it, first = start, last = rz;
                break;
            }
            const float beta = it ? (float)(rz / before) : 0;
            before = rz;
#pragma omp for schedule(static)
            for (int chunk = 0; chunk < s->chunks; chunk++) turn(s, chunk, beta, drawn);
            if (wide) {
                gather_wide(s, s->p, seen);
                for (int j = 0; j < s->wide; j++) {
                    const float *v = s->wide_stiffness + 9 * j, *t = seen + 3 * j;
                    for (int i = 0; i < 3; i++) pulls[3 * j + i] = v[i] * t[0] + v[3 + i] * t[1] + v[6 + i] * t[2];
                }
            }
#pragma omp for schedule(static)
            for (int group = 0; group < s->groups; group++) s->curvature[group] = multiply(s, group);
            double curvature = total(s->curvature, s->groups);
            for (int k = 0; k < wide; k++) curvature += (double)seen[k] * pulls[k];
            if (!(curvature > 0)) {
#pragma omp single nowait
                iterations = it, first = start, last = rz, negative = 1;
                break;
            }
            alpha = (float)(rz / curvature);
        }
#pragma omp barrier
        if (negative && iterations == 0) /* not even the first direction is downhill and curved up: offer it as it is */
#pragma omp for schedule(static)
            for (int64_t k = 0; k < 4 * (int64_t)s->nodes; k++) s->x[k] = s->p[k];
#pragma omp for schedule(static)
        for (int i = 0; i < s->nodes; i++)
            for (int c = 0; c < 3; c++) d[3 * (int64_t)i + c] = scale * (double)s->x[4 * (int64_t)i + c];
    }
    out[0] = iterations, out[1] = scale * (first > 0 ? __builtin_sqrt(first) : 0);
    out[2] = scale * (last > 0 ? __builtin_sqrt(last) : 0), out[3] = negative;
}
