/* Between rows, as nodes and elements lie in memory, and lanes, as elements are worked on side by side.
 *
 * Transposed in registers where the processor shuffles whole ones (half the elements' time), by plain loops
 * elsewhere: the same bits. */
#define LANES(name, T, width) typedef T name __attribute__((vector_size(width * sizeof(T)), aligned(width * sizeof(T))))
LANES(f32x4, float, 4);
LANES(f32x8, float, 8);
LANES(f32x16, float, 16);
LANES(f64x4, double, 4);
LANES(f64x8, double, 8);
LANES(i32x8, int32_t, 8);
LANES(i32x16, int32_t, 16);
LANES(i64x8, int64_t, 8);

INLINE f32x4 load4(const float *from) {
    f32x4 out;
    __builtin_memcpy(&out, from, 16);
    return out;
}
INLINE f32x8 load8(const float *from) {
    f32x8 out;
    __builtin_memcpy(&out, from, 32);
    return out;
}
INLINE f32x16 load16(const float *from) {
    f32x16 out;
    __builtin_memcpy(&out, from, 64);
    return out;
}

/* The lower of two in each lane, and b where either is NaN. */
#define LOWER(name, T, places)                                                                                         \
    INLINE T name(T a, T b) {                                                                                          \
        const places which = a < b;                                                                                    \
        return (T)((which & (places)a) | (~which & (places)b));                                                        \
    }
LOWER(lower8, f64x8, i64x8)
LOWER(lower16, f32x16, i32x16)

#if defined(__clang__)
#define SHUFFLE(a, b, places, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, places, ...) __builtin_shuffle(a, b, (places){__VA_ARGS__})
#endif

#define LIST(...) __VA_ARGS__
/* One stage of a transposition: vectors `s` apart exchange the lanes that lie `s` apart. */
#define STAGE(v, places, width, s, low, high)                                                                          \
    _Pragma("GCC unroll 16") for (int i = 0; i < width; i++) if (!(i & s)) {                                           \
        const __typeof__(v[0]) a = v[i], b = v[i + s];                                                                 \
        v[i] = SHUFFLE(a, b, places, low), v[i + s] = SHUFFLE(a, b, places, high);                                     \
    }

#define TRANSPOSE8(v, places)                                                                                          \
    STAGE(v, places, 8, 4, LIST(0, 1, 2, 3, 8, 9, 10, 11), LIST(4, 5, 6, 7, 12, 13, 14, 15))                           \
    STAGE(v, places, 8, 2, LIST(0, 1, 8, 9, 4, 5, 12, 13), LIST(2, 3, 10, 11, 6, 7, 14, 15))                           \
    STAGE(v, places, 8, 1, LIST(0, 8, 2, 10, 4, 12, 6, 14), LIST(1, 9, 3, 11, 5, 13, 7, 15))

/* at[3][8] of rows from[][4] at eight places; four floats behind a row are read too. */
INLINE void lanes_of_eight(const float *from, const int32_t *place, f32x8 *at) {
    f32x8 r[4]; /* every fourth place side by side; then four by four in each half */
    for (int l = 0; l < 4; l++)
        r[l] = SHUFFLE(load8(from + 4 * (int64_t)place[l]), load8(from + 4 * (int64_t)place[l + 4]), i32x8,
                       0, 1, 2, 3, 8, 9, 10, 11);
    const f32x8 low = SHUFFLE(r[0], r[1], i32x8, 0, 8, 1, 9, 4, 12, 5, 13);
    const f32x8 more = SHUFFLE(r[2], r[3], i32x8, 0, 8, 1, 9, 4, 12, 5, 13);
    const f32x8 high = SHUFFLE(r[0], r[1], i32x8, 2, 10, 3, 11, 6, 14, 7, 15);
    const f32x8 rest = SHUFFLE(r[2], r[3], i32x8, 2, 10, 3, 11, 6, 14, 7, 15);
    at[0] = SHUFFLE(low, more, i32x8, 0, 1, 8, 9, 4, 5, 12, 13);
    at[1] = SHUFFLE(low, more, i32x8, 2, 3, 10, 11, 6, 7, 14, 15);
    at[2] = SHUFFLE(high, rest, i32x8, 0, 1, 8, 9, 4, 5, 12, 13);
}

/* to[9][8] of blocks from[][9] at eight places. */
INLINE void lanes_of_blocks(const float *from, const int32_t *place, float *to) {
    f32x8 v[8];
    for (int l = 0; l < 8; l++)
        v[l] = load8(from + 9 * (int64_t)place[l]), to[64 + l] = from[9 * (int64_t)place[l] + 8];
    TRANSPOSE8(v, i32x8)
    __builtin_memcpy(to, v, sizeof v);
}

#if defined(__AVX512F__)
#include <immintrin.h>
/* Of the quarters of two vectors: their lower or upper pairs, lane beside lane, and their lower or upper halves. */
#define QUARTERS(a, b, which) SHUFFLE(a, b, i32x16, which(0), which(4), which(8), which(12))
#define LOW_PAIRS(k) k, k + 16, k + 1, k + 17
#define HIGH_PAIRS(k) k + 2, k + 18, k + 3, k + 19
#define LOW_HALVES(k) k, k + 1, k + 16, k + 17
#define HIGH_HALVES(k) k + 2, k + 3, k + 18, k + 19

INLINE void transpose16(f32x16 *v) {
    STAGE(v, i32x16, 16, 8, LIST(0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
          LIST(8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
    STAGE(v, i32x16, 16, 4, LIST(0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
          LIST(4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
    STAGE(v, i32x16, 16, 2, LIST(0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
          LIST(2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
    STAGE(v, i32x16, 16, 1, LIST(0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30),
          LIST(1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
}
#endif

/* Rows to[16][size] of vectors from[size][16]. */
INLINE void rows_of_lanes16(f32x16 *from, int size, float *to) {
#if defined(__AVX512F__)
    const int whole = size / 16 * 16, rest = size - whole;
    f32x16 v[16];
    for (int first = 0; first < whole; first += 16) {
        for (int k = 0; k < 16; k++) v[k] = from[first + k];
        transpose16(v);
        for (int l = 0; l < 16; l++) __builtin_memcpy(to + l * size + first, &v[l], 64);
    }
    if (!rest) return;
    for (int k = 0; k < 16; k++) v[k] = from[whole + (k < rest ? k : 0)];
    transpose16(v);
    for (int l = 0; l < 16; l++) __builtin_memcpy(to + l * size + whole, &v[l], sizeof(*to) * rest);
#else
    for (int l = 0; l < 16; l++)
        for (int k = 0; k < size; k++) to[l * size + k] = from[k][l];
#endif
}

/* The row at a place, which is told in `unit` bytes. */
#define ROW(from, unit, place) ((__typeof__(from))((uintptr_t)(from) + unit * (uintptr_t)(uint32_t)(place)))

/* at[3][16] of rows from[][4] at sixteen places. */
INLINE void lanes_of_rows(const float *from, int unit, const int32_t *place, f32x16 *at) {
#if defined(__AVX512F__)
    f32x16 r[4]; /* every fourth place side by side; then four by four in each quarter */
    for (int l = 0; l < 4; l++) { /* not by way of memory: a load that spans two stores waits for both */
        __m512 some = _mm512_castps128_ps512(_mm_loadu_ps(ROW(from, unit, place[l])));
        some = _mm512_insertf32x4(some, _mm_loadu_ps(ROW(from, unit, place[l + 4])), 1);
        some = _mm512_insertf32x4(some, _mm_loadu_ps(ROW(from, unit, place[l + 8])), 2);
        r[l] = (f32x16)_mm512_insertf32x4(some, _mm_loadu_ps(ROW(from, unit, place[l + 12])), 3);
    }
    const f32x16 low = QUARTERS(r[0], r[1], LOW_PAIRS), more = QUARTERS(r[2], r[3], LOW_PAIRS);
    const f32x16 high = QUARTERS(r[0], r[1], HIGH_PAIRS), rest = QUARTERS(r[2], r[3], HIGH_PAIRS);
    at[0] = QUARTERS(low, more, LOW_HALVES), at[1] = QUARTERS(low, more, HIGH_HALVES);
    at[2] = QUARTERS(high, rest, LOW_HALVES);
#else
    for (int l = 0; l < 16; l++)
        for (int i = 0; i < 3; i++) at[i][l] = ROW(from, unit, place[l])[i];
#endif
}

/* at[3][8] of rows from[][3] at eight places. */
INLINE void lanes_of_triples(const double *from, const int32_t *place, f64x8 *at) {
#if defined(__AVX512VL__)
    f64x8 r[4]; /* every fourth place side by side */
    for (int l = 0; l < 4; l++) {
        const __m256d one = _mm256_maskz_loadu_pd(7, from + 3 * (int64_t)place[l]);
        const __m256d other = _mm256_maskz_loadu_pd(7, from + 3 * (int64_t)place[l + 4]);
        r[l] = (f64x8)_mm512_insertf64x4(_mm512_castpd256_pd512(one), other, 1);
    }
    const f64x8 low = SHUFFLE(r[0], r[1], i64x8, 0, 8, 2, 10, 4, 12, 6, 14);
    const f64x8 more = SHUFFLE(r[2], r[3], i64x8, 0, 8, 2, 10, 4, 12, 6, 14);
    const f64x8 high = SHUFFLE(r[0], r[1], i64x8, 1, 9, 3, 11, 5, 13, 7, 15);
    const f64x8 rest = SHUFFLE(r[2], r[3], i64x8, 1, 9, 3, 11, 5, 13, 7, 15);
    at[0] = SHUFFLE(low, more, i64x8, 0, 1, 8, 9, 4, 5, 12, 13);
    at[1] = SHUFFLE(high, rest, i64x8, 0, 1, 8, 9, 4, 5, 12, 13);
    at[2] = SHUFFLE(low, more, i64x8, 2, 3, 10, 11, 6, 7, 14, 15);
#else
    for (int l = 0; l < 8; l++)
        for (int i = 0; i < 3; i++) at[i][l] = from[3 * (int64_t)place[l] + i];
#endif
}

/* Rows to[8][3] of vectors from[3][8]. */
INLINE void triples_of_lanes(const f64x8 *from, f64x8 *to) {
#if defined(__AVX512F__)
    const f64x8 x = from[0], y = from[1], z = from[2]; /* twice x and y, a lane left free, and z into it */
    to[0] = SHUFFLE(SHUFFLE(x, y, i64x8, 0, 8, 0, 1, 9, 0, 2, 10), z, i64x8, 0, 1, 8, 3, 4, 9, 6, 7);
    to[1] = SHUFFLE(SHUFFLE(x, y, i64x8, 0, 3, 11, 0, 4, 12, 0, 5), z, i64x8, 10, 1, 2, 11, 4, 5, 12, 7);
    to[2] = SHUFFLE(SHUFFLE(x, y, i64x8, 13, 0, 6, 14, 0, 7, 15, 0), z, i64x8, 0, 13, 2, 3, 14, 5, 6, 15);
#else
    for (int k = 0; k < 24; k++) to[k / 8][k % 8] = from[k % 3][k / 3];
#endif
}

/* Add f[3][16] to rows to[][4] at sixteen places, one after the other; the fourth float is nobody's. */
INLINE void add_lanes(const f32x16 *f, int unit, const int32_t *place, float *to) {
#if defined(__AVX512F__)
    const f32x16 low = QUARTERS(f[0], f[1], LOW_PAIRS), more = QUARTERS(f[2], f[2], LOW_PAIRS);
    const f32x16 high = QUARTERS(f[0], f[1], HIGH_PAIRS), rest = QUARTERS(f[2], f[2], HIGH_PAIRS);
    const f32x16 r[4] = {QUARTERS(low, more, LOW_HALVES), QUARTERS(low, more, HIGH_HALVES),
                          QUARTERS(high, rest, LOW_HALVES), QUARTERS(high, rest, HIGH_HALVES)};
#define ADD(l) /* a quarter is a constant of the instruction: no loop's variable */ \
    { \
        float *row = ROW(to, unit, place[l]); \
        _mm_storeu_ps(row, _mm_loadu_ps(row) + _mm512_extractf32x4_ps((__m512)r[(l) % 4], (l) / 4)); \
    }
    ADD(0) ADD(1) ADD(2) ADD(3) ADD(4) ADD(5) ADD(6) ADD(7)
    ADD(8) ADD(9) ADD(10) ADD(11) ADD(12) ADD(13) ADD(14) ADD(15)
#undef ADD
#else
    for (int l = 0; l < 16; l++)
        for (int i = 0; i < 3; i++) ROW(to, unit, place[l])[i] += f[i][l];
#endif
}
