/* The CPU's library: the one physics text in SIMD blocks, and the linear algebra about it. Built by `native.py`. */
#include <stdint.h>
#include <stdlib.h>
#ifdef _OPENMP
#include <omp.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))
#define TABLE static const

#include "system.h"
#include "elements.c"
#include "springs.c"
#include "krylov.c"
#include "coarse.c"
#include "errors.c"
