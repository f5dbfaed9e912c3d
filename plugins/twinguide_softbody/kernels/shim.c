/* Run the text of `cuda.cu` on a CPU: every thread of every block in turn. Slow, and exact about what the text says. */
#include <stdint.h>

#define KERNEL(name)                                                                                                   \
    static void name(const System *s, int count, const void *a, void *b, void *c, double x, double y, int k)
#define INLINE static inline __attribute__((unused))
#define TABLE static const

static struct {
    int x;
} blockIdx, threadIdx, blockDim = {64};

#include "cuda.cu"

#define RUN(name)                                                                                                      \
    __attribute__((visibility("default"))) void run_##name(const System *s, int count, const void *a, void *b,         \
                                                           void *c, double x, double y, int k) {                       \
        for (blockIdx.x = 0; blockIdx.x * blockDim.x < count; blockIdx.x++)                                            \
            for (threadIdx.x = 0; threadIdx.x < blockDim.x; threadIdx.x++) name(s, count, a, b, c, x, y, k);           \
    }

RUN(force_elements)
RUN(tangent_elements)
RUN(gather_forces)
RUN(gather_uppers)
RUN(gather_diagonals)
RUN(touch)
RUN(invert_diagonals)
RUN(sum_segments)
RUN(least_segments)
RUN(sum_last)
RUN(product_of)
RUN(add_scaled)
RUN(spring_pulls)
RUN(load_nodes)
RUN(pull_nodes)
RUN(hold)
RUN(size_of)
RUN(begin)
RUN(start)
RUN(descend)
RUN(restrict_chunks)
RUN(restrict_lattice)
RUN(coarse_rows)
RUN(wide_points)
RUN(wide_draw)
RUN(weigh)
RUN(turn)
RUN(forward)
RUN(stride)
RUN(finish)
