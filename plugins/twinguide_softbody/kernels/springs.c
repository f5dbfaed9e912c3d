/* Springs, gravity and the balance of all forces, in float64; and the springs' part of the preconditioner. */

/* What is out of balance at u[n][3], given the elements' forces: right[n][3] [N], 0 where a node is held.
 * targets[springs][3] are displacements [m] of the springs' points, share the part of gravity's load that acts.
 * out: energy of springs and load [J], |right|^2, |element forces|^2, |other forces|^2. */
EXPORT void balance(const System *s, const double *u, const double *element, const double *targets, double share,
                    const uint8_t *held, double *right, double *out) {
    const int64_t n = 3 * (int64_t)s->nodes;
    double energy = 0, work = 0, left = 0, inner = 0, outer = 0;
    for (int64_t k = 0; k < n; k++) right[k] = share * s->load[k], work += right[k] * u[k];
    for (int j = 0; j < s->springs; j++) {
        const double *stiffness = s->spring_stiffness + 9 * (int64_t)j;
        double gap[3], pull[3];
        for (int i = 0; i < 3; i++) gap[i] = targets[3 * (int64_t)j + i];
        for (int k = s->spring_start[j]; k < s->spring_start[j + 1]; k++)
            for (int i = 0; i < 3; i++) gap[i] -= s->spring_weight[k] * u[3 * (int64_t)s->spring_node[k] + i];
        for (int i = 0; i < 3; i++) {
            pull[i] = stiffness[3 * i] * gap[0] + stiffness[3 * i + 1] * gap[1] + stiffness[3 * i + 2] * gap[2];
            energy += 0.5 * gap[i] * pull[i];
        }
        for (int k = s->spring_start[j]; k < s->spring_start[j + 1]; k++)
            for (int i = 0; i < 3; i++) right[3 * (int64_t)s->spring_node[k] + i] += s->spring_weight[k] * pull[i];
    }
    for (int i = 0; i < s->nodes; i++)
        for (int64_t k = 3 * (int64_t)i; k < 3 * (int64_t)i + 3; k++) {
            inner += element[k] * element[k], outer += right[k] * right[k];
            right[k] = held[i] ? 0 : right[k] + element[k];
            left += right[k] * right[k];
        }
    out[0] = energy - work, out[1] = left, out[2] = inner, out[3] = outer;
}

/* a'b in eight lanes that are added in order: one result for every compiler and number of threads. */
INLINE double lane_dot(const double *a, const double *b, int64_t n) {
    f64x8 sum = {0};
    int64_t k = 0;
    for (; k + 8 <= n; k += 8) {
        f64x8 x, y;
        __builtin_memcpy(&x, a + k, 64);
        __builtin_memcpy(&y, b + k, 64);
        sum += x * y;
    }
    double all = 0;
    for (; k < n; k++) all += a[k] * b[k];
    for (int l = 0; l < 8; l++) all += sum[l];
    return all;
}

/* Dot products of v[n][3] with each of `count` rows [count][n][3]. */
EXPORT void dots(const System *s, const double *rows, int count, const double *v, double *out) {
    for (int j = 0; j < count; j++) out[j] = lane_dot(rows + j * 3 * (int64_t)s->nodes, v, 3 * (int64_t)s->nodes);
}

/* out[n][3] = base + sum of share[j] times row j: one pass, for positions along a direction or out of a history. */
EXPORT void combine(const System *s, const double *base, const double *rows, int count, const double *share,
                    double *out) {
    const int64_t n = 3 * (int64_t)s->nodes;
    for (int64_t k = 0; k < n; k++) {
        double sum = base[k];
        for (int j = 0; j < count; j++) sum += share[j] * rows[j * n + k];
        out[k] = sum;
    }
}

/* out[springs][3] = the springs' points' part of v[n][3]. */
EXPORT void spring_points(const System *s, const double *v, double *out) {
    for (int j = 0; j < s->springs; j++) {
        double sum[3] = {0, 0, 0};
        for (int k = s->spring_start[j]; k < s->spring_start[j + 1]; k++)
            for (int i = 0; i < 3; i++) sum[i] += s->spring_weight[k] * v[3 * (int64_t)s->spring_node[k] + i];
        for (int i = 0; i < 3; i++) out[3 * (int64_t)j + i] = sum[i];
    }
}

/* Solve a x = b in place for `columns` right sides, by Gauss with partial pivots; 0 where singular. */
static int eliminate(double *a, double *b, int size, int columns) {
    for (int p = 0; p < size; p++) {
        int best = p;
        for (int i = p + 1; i < size; i++)
            if (__builtin_fabs(a[i * size + p]) > __builtin_fabs(a[best * size + p])) best = i;
        if (a[best * size + p] == 0) return 0;
        for (int k = 0; k < size && best != p; k++) {
            double t = a[p * size + k];
            a[p * size + k] = a[best * size + k], a[best * size + k] = t;
        }
        for (int k = 0; k < columns && best != p; k++) {
            double t = b[p * columns + k];
            b[p * columns + k] = b[best * columns + k], b[best * columns + k] = t;
        }
        for (int i = 0; i < size; i++) {
            const double factor = i == p ? 0 : a[i * size + p] / a[p * size + p];
            if (factor == 0) continue;
            for (int k = p; k < size; k++) a[i * size + k] -= factor * a[p * size + k];
            for (int k = 0; k < columns; k++) b[i * columns + k] -= factor * b[p * columns + k];
        }
    }
    for (int p = 0; p < size; p++)
        for (int k = 0; k < columns; k++) b[p * columns + k] /= a[p * size + p];
    return 1;
}

/* wide_inner = (1 + S w D^-1 w')^-1 S, after `tangent`: Woodbury's identity for the springs over many nodes. */
EXPORT void prepare_wide(const System *s, float *inner) {
    const int size = 3 * s->wide;
    static _Thread_local double a[9 * MOST_WIDE * MOST_WIDE], b[9 * MOST_WIDE * MOST_WIDE];
    static _Thread_local double between[9 * MOST_WIDE * MOST_WIDE];
    for (int k = 0; k < size * size; k++) a[k] = b[k] = between[k] = 0;
    for (int j = 0; j < s->wide; j++)
        for (int o = 0; o < s->wide; o++) {
            int l = s->wide_start[o];
            for (int k = s->wide_start[j]; k < s->wide_start[j + 1]; k++) {
                while (l < s->wide_start[o + 1] && s->wide_node[l] < s->wide_node[k]) l++;
                if (l == s->wide_start[o + 1]) break;
                if (s->wide_node[l] != s->wide_node[k]) continue;
                const float *d = s->inverse + 9 * (int64_t)s->wide_node[k];
                const double w = (double)s->wide_weight[k] * s->wide_weight[l];
                for (int c = 0; c < 9; c++) between[(3 * j + c / 3) * size + 3 * o + c % 3] += w * d[c];
            }
        }
    for (int j = 0; j < s->wide; j++)
        for (int i = 0; i < 3; i++) {
            const float *row = s->wide_stiffness + 9 * j + 3 * i;
            double *left = a + (3 * j + i) * size;
            for (int k = 0; k < size; k++)
                for (int c = 0; c < 3; c++) left[k] += (double)row[c] * between[(3 * j + c) * size + k];
            for (int c = 0; c < 3; c++) b[(3 * j + i) * size + 3 * j + c] = row[c];
            left[3 * j + i] += 1;
        }
    if (!eliminate(a, b, size, size))
        for (int k = 0; k < size * size; k++) b[k] = 0;
    for (int k = 0; k < size * size; k++) inner[k] = (float)b[k];
}
