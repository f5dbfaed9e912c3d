/* Run the text of `cuda.cu` on a CPU: every thread of every block in turn, the last first where BACKWARDS is 1: what
 * hangs on the order of threads within a launch comes out otherwise. Slow, and exact about what the text says. */
#include <math.h>
#include <stdint.h>

#ifndef BACKWARDS
#define BACKWARDS 0
#endif

static struct {
    int x;
} blockIdx, threadIdx, blockDim = {64};

#define PARAMETERS const System *s, int count, const void *a, void *b, void *c, double x, double y, int k
#define KERNEL(name)                                                                                                   \
    static void name(PARAMETERS);                                                                                      \
    __attribute__((visibility("default"))) void run_##name(PARAMETERS) {                                               \
        const int all = (count + blockDim.x - 1) / blockDim.x * blockDim.x;                                            \
        for (int t = 0; t < all; t++) {                                                                                \
            const int at = BACKWARDS ? all - 1 - t : t;                                                                \
            blockIdx.x = at / blockDim.x, threadIdx.x = at % blockDim.x;                                               \
            name(s, count, a, b, c, x, y, k);                                                                          \
        }                                                                                                              \
    }                                                                                                                  \
    static void name(PARAMETERS)
#define INLINE static inline __attribute__((unused))
#define TABLE static const

#include "cuda.cu"
