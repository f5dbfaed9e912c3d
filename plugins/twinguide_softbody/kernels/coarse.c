/* The coarse matrix P'KP in float64, out[3 lattice][3 lattice], of blocks `values` (a copy that nobody changes). */
EXPORT void coarse_matrix(const System *s, const float *values, const int32_t *chunk_of, double *out) {
    const int size = 3 * s->lattice;
    /* where memory is short this is all, and not positive definite */
    for (int64_t k = 0; k < (int64_t)size * size; k++) out[k] = 0;
    double *row = (double *)malloc(sizeof(double) * 9 * (size_t)s->lattice); /* sum over j of K_ij P_jb, by lattice b */
    uint8_t *seen = (uint8_t *)calloc((size_t)s->lattice, 1);
    int32_t *met = (int32_t *)malloc(sizeof(int32_t) * (size_t)s->lattice);
    if (!row || !seen || !met) {
        free(row), free(seen), free(met);
        return;
    }
    for (int i = 0; i < s->nodes; i++) {
        int count = 0;
        for (int k = s->row_start[i]; k < s->row_start[i + 1]; k++) {
            const int j = s->column[k];
            for (int b = 0; b < 8; b++) {
                const float w = s->share[8 * (int64_t)j + b];
                if (w == 0) continue;
                const int to = s->chunk_corner[8 * (int64_t)chunk_of[j] + b];
                double *sum = row + 9 * (int64_t)to;
                if (!seen[to]) {
                    seen[to] = 1, met[count++] = to;
                    for (int c = 0; c < 9; c++) sum[c] = 0;
                }
                for (int c = 0; c < 9; c++) sum[c] += (double)w * values[9 * (int64_t)k + c];
            }
        }
        for (int a = 0; a < 8; a++) {
            const float w = s->share[8 * (int64_t)i + a];
            if (w == 0) continue;
            double *to = out + 3 * (int64_t)s->chunk_corner[8 * (int64_t)chunk_of[i] + a] * size;
            for (int m = 0; m < count; m++)
                for (int c = 0; c < 9; c++) to[(c % 3) * size + 3 * met[m] + c / 3] += w * row[9 * (int64_t)met[m] + c];
        }
        for (int m = 0; m < count; m++) seen[met[m]] = 0;
    }
    free(row), free(seen), free(met);
}

/* The inverse of a symmetric positive definite matrix by Cholesky, out[size][size]; work[size][size].
 * Returns 0 where the matrix is not positive definite: then nothing is written. */
EXPORT int coarse_inverse(const double *matrix, int size, double *work, float *out) {
    double *l = work;
    for (int i = 0; i < size; i++)
        for (int j = 0; j <= i; j++) {
            double sum = 0.5 * (matrix[(int64_t)i * size + j] + matrix[(int64_t)j * size + i]);
            sum -= lane_dot(l + (int64_t)i * size, l + (int64_t)j * size, j);
            if (i == j) sum *= 1 + 1e-6; /* lattice nodes that hardly touch the body */
            if (i == j && !(sum > 0)) return 0;
            l[(int64_t)i * size + j] = i == j ? __builtin_sqrt(sum) : sum / l[(int64_t)j * size + j];
        }
    /* L^-1 above the diagonal, transposed: column j of L^-1 is row j of the upper half */
    for (int j = 0; j < size; j++)
        for (int i = j + 1; i < size; i++) {
            double sum = -l[(int64_t)i * size + j] / l[(int64_t)j * size + j];
            sum -= lane_dot(l + (int64_t)i * size + j + 1, l + (int64_t)j * size + j + 1, i - j - 1);
            l[(int64_t)j * size + i] = sum / l[(int64_t)i * size + i];
        }
    for (int i = 0; i < size; i++)
        for (int j = i; j < size; j++) {
            /* (L^-T L^-1)_ij = sum over k >= j of M_ik M_jk, with M_kk = 1 / L_kk */
            double over = 1 / l[(int64_t)j * size + j];
            double sum = (i == j ? over : l[(int64_t)i * size + j]) * over;
            sum += lane_dot(l + (int64_t)i * size + j + 1, l + (int64_t)j * size + j + 1, size - j - 1);
            out[(int64_t)i * size + j] = out[(int64_t)j * size + i] = (float)sum;
        }
    return 1;
}
