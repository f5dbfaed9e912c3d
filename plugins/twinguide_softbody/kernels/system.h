/* What all passes share: sizes, the mesh, the pattern of the matrix and the coarse lattice, laid out by `layout.py`.
 *
 * Nodes are ordered by lattice cell and cut into chunks of one cell each: a chunk is the unit of work and of summation,
 * so that sums have one order whatever the number of threads. Krylov vectors are float[n][4], the fourth 0.
 */
#define W8 8   /* elements side by side in float64 */
#define W16 16 /* and in float32 */
#define RUN 32 /* elements whose energies one thread adds */
#define SEGMENTS 1024 /* CUDA: partial sums of a first round */
#define LAST 32       /* and of a second, */
#define ROWS 12       /* of so many sums at once */
#define MOST_WIDE 32 /* springs over many nodes: each step eliminates 3 of them densely */

typedef struct {
    int32_t nodes, elements, element_nodes, material, blocks, uppers, chunks, lattice, touched, wide, threads, springs;
    int32_t groups;
    /* elements, in AoSoA blocks; the last is filled up with elements of no volume */
    const int32_t *conn8, *conn16; /* [block][element_nodes][width] */
    const double *data8;           /* [block][12][8]: g[9] [1/m], volume [m3], mu, lambda [Pa] */
    const float *data16;
    double *element_force; /* [block][element_nodes][8][3] */
    float *element_blocks; /* [element][pairs][9] */
    double *energy, *least; /* of each run; on CUDA smallest J of each element */
    const int32_t *incident_start, *incident; /* node -> rows of element_force */
    /* matrix: CSR of 3x3 blocks, column-major, columns ascending */
    float *values; /* [blocks][9] */
    const int32_t *row_start, *column, *diagonal;
    const int32_t *upper_start, *upper, *upper_at, *lower_at; /* upper block -> element blocks, ~k where transposed */
    const int32_t *touched_at; /* blocks to which springs add */
    const float *touched_values;
    /* the same for the CPU's products: rows by groups of 8, side by side; a step is one block of each, or of zeros */
    const int32_t *group_start, *group_row;  /* [groups + 1], steps; [groups][8], n where there is none */
    const int32_t *side_column, *side_block; /* [steps][8] */
    float *side_values;                      /* [steps][9][8] */
    float *inverse; /* [n][9]: of each node's own block; 0 where the node is held */
    const int32_t *chunk_start;
    /* lattice: each chunk's eight corners, each node's weights, and per lattice node the (chunk, corner) rows */
    const int32_t *chunk_corner; /* [chunks][8] */
    const float *share;          /* [n][8] */
    const int32_t *lattice_start, *lattice_from;
    const float *coarse; /* [3 lattice][3 lattice]: inverse of the coarse matrix */
    /* springs over many nodes: rank-3 additions w' S w */
    const int32_t *wide_start, *wide_node;        /* by spring */
    const float *wide_weight, *wide_stiffness;    /* [entries], [wide][9] */
    const int32_t *wide_chunk, *wide_at, *wide_of; /* by chunk: node and spring of each entry, in order of nodes */
    const float *wide_chunk_weight;
    const float *wide_inner; /* [3 wide][3 wide]: (1 + S w D^-1 w')^-1 S */
    /* all springs, and gravity's load, in float64 */
    const int32_t *spring_start, *spring_node;
    const double *spring_weight, *spring_stiffness; /* [entries], [springs][9] */
    const double *load;                             /* [n][3] */
    double *pull;                                   /* [springs][4]: force or place, energy */
    /* work */
    float *x, *r, *z, *p, *q; /* [n][4] */
    float *restricted;        /* [chunks][8][4] */
    double *partial, *curvature; /* [chunks], [groups] */
    float *coarse_right, *coarse_left; /* [threads][3 lattice], [3 lattice] */
    /* work of CUDA alone */
    const int32_t *wide_row;               /* node -> entries of wide_at */
    const int32_t *spring_row, *spring_of; /* node -> springs, in order, */
    const double *spring_share;            /* and their weights */
    const int32_t *chunk_of;               /* [n] */
    const uint8_t *held;                   /* [n] */
    double *product, *sums;                /* [elements] and [4][n]; [ROWS][SEGMENTS], [ROWS][LAST] */
    double *scalars;         /* as enumerated in cuda.cu */
    float *wide_seen, *wide_pull; /* [wide][3] */
} System;
