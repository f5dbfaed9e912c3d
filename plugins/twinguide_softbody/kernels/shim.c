/* Run the text of `cuda.cu` on a CPU: every thread of every block in turn. Slow, and exact about what the text says. */
#include <math.h>
#include <stdint.h>

static struct {
    int x;
} blockIdx, threadIdx, blockDim = {64};

#define PARAMETERS const System *s, int count, const void *a, void *b, void *c, double x, double y, int k
#define KERNEL(name)                                                                                                   \
    static void name(PARAMETERS);                                                                                      \
    __attribute__((visibility("default"))) void run_##name(PARAMETERS) {                                               \
        for (blockIdx.x = 0; blockIdx.x * blockDim.x < count; blockIdx.x++)                                            \
            for (threadIdx.x = 0; threadIdx.x < blockDim.x; threadIdx.x++) name(s, count, a, b, c, x, y, k);           \
    }                                                                                                                  \
    static void name(PARAMETERS)
#define INLINE static inline __attribute__((unused))
#define TABLE static const

#include "cuda.cu"
