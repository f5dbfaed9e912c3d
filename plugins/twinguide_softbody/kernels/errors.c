/* The error of each vertex from columns: sixteen vertices side by side, every column read once a frame. error.py has
 * the formulas. Lengths in mm: squares of squares of metres leave float32's range. */

typedef struct {
    const float *columns; /* [blocks][count][16] of a point's unit force: the answer, 9 by axis and direction, and what
                           * each unknown changes of it where that is known */
    int32_t count, complete;
} Own;

typedef struct {
    int32_t blocks, unknowns, answered, points;
    const float *base;       /* [blocks][9 (2 + unknowns)][16], by axis and direction of the target's drive: the answer,
                              * the mesh's bias, each unknown's */
    const Own *own;          /* [points] */
    const float *noise;      /* [blocks][6][16], mm2: xx, yy, zz, xy, xz, yz */
    const float *turned;     /* the same, of the surroundings' turn, per square of the drive */
    float bias_share, quantile, scale;
} Errors;

INLINE void along(const f32x16 *columns, const float *by, float sign, f32x16 *to) {
    for (int x = 0; x < 3; x++)
        for (int a = 0; a < 3; a++) to[x] += sign * by[a] * columns[3 * x + a];
}

INLINE void spread_by(const f32x16 *t, f32x16 *covariance) {
    for (int x = 0; x < 3; x++) covariance[x] += t[x] * t[x];
    covariance[3] += t[0] * t[1], covariance[4] += t[0] * t[2], covariance[5] += t[1] * t[2];
}

/* Wilson & Hilferty's 95 % quantile of |e|^2 of e ~ N(bias, covariance), as error.radius95 has it. */
INLINE void radius(const Errors *e, const f32x16 *c, const f32x16 *b, float *out) {
    f32x16 mean = c[0] + c[1] + c[2] + b[0] * b[0] + b[1] * b[1] + b[2] * b[2];
    f32x16 square = c[0] * c[0] + c[1] * c[1] + c[2] * c[2] + 2 * (c[3] * c[3] + c[4] * c[4] + c[5] * c[5]);
    square += 2 * (c[0] * b[0] * b[0] + c[1] * b[1] * b[1] + c[2] * b[2] * b[2]);
    square += 4 * (c[3] * b[0] * b[1] + c[4] * b[0] * b[2] + c[5] * b[1] * b[2]);
    for (int l = 0; l < 16; l++) {
        const float m = mean[l] > 1e-12f ? mean[l] : 1e-12f, k = 2.0f / 9.0f * square[l] / (m * m);
        const float root = __builtin_sqrtf(k > 0 ? k : 0), base = 1 - k + e->quantile * root;
        out[l] = mean[l] <= 0 ? 0 : e->scale * __builtin_sqrtf(mean[l] * base * base * base); /* NaN stays NaN */
    }
}

/* sigma[16 blocks] [m] for a drive [mm] of the target, (3), forces of the points, (points, 3), and what each unknown
 * moves at the points makes of them, (unknowns, points, 3). `term`, [16 blocks][3] [mm], may be absent: one more
 * unknown's effect. `even` [mm2] is a variance along every axis. */
EXPORT void vertex_errors(const Errors *e, const float *drive, const float *force, const float *drawn,
                          const float *term, float even, float *sigma) {
    const float square = drive[0] * drive[0] + drive[1] * drive[1] + drive[2] * drive[2];
    for (int64_t block = 0; block < e->blocks; block++) {
        const f32x16 *base = (const f32x16 *)e->base + 9 * (2 + e->unknowns) * block;
        const f32x16 *noise = (const f32x16 *)e->noise + 6 * block, *turned = (const f32x16 *)e->turned + 6 * block;
        f32x16 c[6], b[3] = {{0}}, t[3];
        for (int k = 0; k < 6; k++) c[k] = noise[k] + square * turned[k] + (k < 3 ? even : 0);
        along(base + 9, drive, 1, b);
        for (int x = 0; x < 3; x++) t[x] = e->bias_share * b[x];
        spread_by(t, c);
        for (int u = 0; u < e->unknowns; u++) {
            for (int x = 0; x < 3; x++) t[x] = (f32x16){0};
            along(base + 9 * (2 + u), drive, 1, t);
            for (int j = 0; j < e->points; j++) {
                const f32x16 *own = (const f32x16 *)e->own[j].columns + (int64_t)e->own[j].count * block;
                if (u < e->answered && e->own[j].complete) along(own + 9 * (1 + u), force + 3 * j, -1, t);
                along(own, drawn + 3 * (u * e->points + j), -1, t);
            }
            spread_by(t, c);
        }
        for (int l = 0; term && l < 16; l++)
            for (int x = 0; x < 3; x++) t[x][l] = term[3 * (16 * block + l) + x];
        if (term) spread_by(t, c);
        radius(e, c, b, sigma + 16 * block);
    }
}
