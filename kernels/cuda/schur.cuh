/*
 * schur.cuh: conjugate gradients on the optimality conditions of transport, once the rows are eliminated:
 *
 *     (diag c - P^T diag(1/r) P) x = residual,   r = P 1, c = P^T 1
 *
 * The operator is applied without subtracting large numbers, as sum_i P_ij (x_j - w_i), w_i = sum_j P_ij x_j / r_i: one
 * read of P a step. Jacobi preconditioner; the constant, its null vector, is taken out of the residual. A step is three
 * phases with a barrier after each:
 *
 *     rows      chunk      direction = z + beta direction (not stored), w; column sums of the chunk
 *     columns   columns    product; direction is stored; numbers <direction, product>, sum of product, of residual
 *     vectors   columns    solution, residual and z, in the place of the product; numbers <residual, z>, |residual|^2,
 *                          <slope, solution>, max |solution|
 *
 * Scalars are made again from the numbers by every block that needs them, in one order.
 */
#ifndef MOVER_CUDA_SCHUR_CUH
#define MOVER_CUDA_SCHUR_CUH

#include "team.cuh"

/* How a problem is divided, see planner.h, with a plan, its sums and the vectors of the system. */
typedef struct schur_system {
    int64_t n, m;
    int64_t chunk_rows, chunks, column_width, column_items, vector_items;
    const real *plan;    /* (n, m) */
    const real *row_sum; /* (n) r, or NULL: all are `uniform` */
    real uniform;
    real *column_sum;          /* (m) c */
    real *diagonal;            /* (m) of the system: sum_i P_ij (r_i - P_ij) / r_i */
    real *residual, *solution; /* (m) */
    real *direction, *product; /* (m) */
    real *partial;             /* (chunks, m): column sums of chunks */
    real *rows;                /* (WARPS, m) in shared memory */
    double *row_part;          /* (ROW_NUMBERS, chunks) */
    double *column_part;       /* (COLUMN_NUMBERS, column_items) */
    double *vector_part;       /* (VECTOR_NUMBERS, vector_items) */
} schur_system;

typedef struct schur_state {
    int32_t step, most_steps;
    double tolerance;    /* on |residual| */
    double rho, beta;    /* <residual, z>, and its ratio to the one before */
    double count;        /* columns with mass */
    double slope, reach; /* <slope, solution>, max |solution| */
} schur_state;

static __device__ __forceinline__ real schur_row_sum(const schur_system &y, int64_t i) {
    return y.row_sum ? y.row_sum[i] : y.uniform;
}

/* ---- rows ------------------------------------------------------------------------------------------------------- */

template <class S>
static __device__ __forceinline__ void load_direction(real (&x)[S::columns], const schur_system &y, real beta,
                                                      typename S::index tile) {
    real old[S::columns];
    load_columns<S>(x, y.product, y.m, tile, 0);
    load_columns<S>(old, y.direction, y.m, tile, 0);
    MOVER_UNROLL
    for (int c = 0; c < S::columns; c++) x[c] += beta * old[c];
}

template <class S>
static __device__ __forceinline__ void load_rows(real (&p)[S::rows][S::columns], const real *matrix, int64_t m,
                                                 int64_t first, int64_t last, typename S::index tile) {
    MOVER_UNROLL
    for (int r = 0; r < S::rows; r++) {
        if (first + r < last)
            load_columns<S>(p[r], matrix + (first + r) * m, (typename S::index)m, tile, 0);
        else
            clear_columns<S>(p[r]);
    }
}

template <class S>
static __device__ __forceinline__ void copy_rows(real (&to)[S::rows][S::columns],
                                                 const real (&from)[S::rows][S::columns]) {
    MOVER_UNROLL
    for (int r = 0; r < S::rows; r++) {
        MOVER_UNROLL
        for (int c = 0; c < S::columns; c++) to[r][c] = from[r][c];
    }
}

/* The product of a chunk of rows with the direction. One read an element. */
template <class S>
static __device__ void schur_rows(const schur_system &y, real beta, int64_t chunk, team_scratch &scratch, int &turn) {
    const int64_t first = chunk * y.chunk_rows, last = first + y.chunk_rows < y.n ? first + y.chunk_rows : y.n;
    const typename S::index tiles = S::wide ? ((typename S::index)y.m + S::tile - 1) / S::tile : 1;
    real *out = y.partial + chunk * y.m;
    real x[S::columns], sums[S::columns];
    clear_columns<S>(sums);
    if (!S::wide) load_direction<S>(x, y, beta, 0);
    const int64_t step = S::groups * S::rows;
    int64_t i = first + team_group<S>() * S::rows;
    real p[S::rows][S::columns];
    if (S::ahead) load_rows<S>(p, y.plan, y.m, i, last, 0);
    for (; i < last; i += step) {
        real next[S::rows][S::columns], w[S::rows];
        MOVER_UNROLL
        for (int r = 0; r < S::rows; r++) w[r] = 0;
        for (typename S::index tile = 0; tile < tiles; tile++) {
            if (S::wide) load_direction<S>(x, y, beta, tile);
            if (!S::ahead) load_rows<S>(p, y.plan, y.m, i, last, tile);
            MOVER_UNROLL
            for (int r = 0; r < S::rows; r++) {
                MOVER_UNROLL
                for (int c = 0; c < S::columns; c++) w[r] += p[r][c] * x[c];
            }
        }
        if (S::ahead) load_rows<S>(next, y.plan, y.m, i + step, last, 0);
        reduce_rows<S, false>(w, scratch, turn);
        MOVER_UNROLL
        for (int r = 0; r < S::rows; r++) {
            const real sum = i + r < last ? schur_row_sum(y, i + r) : 0;
            w[r] = sum == 0 ? 0 : w[r] / sum;
        }
        for (typename S::index tile = 0; tile < tiles; tile++) {
            if (S::wide) {
                clear_columns<S>(sums);
                load_direction<S>(x, y, beta, tile);
                load_rows<S>(p, y.plan, y.m, i, last, tile);
            }
            MOVER_UNROLL
            for (int r = 0; r < S::rows; r++) {
                MOVER_UNROLL
                for (int c = 0; c < S::columns; c++) sums[c] += p[r][c] * (x[c] - w[r]);
            }
            if (S::wide) add_sums<S>(sums, out, y.m, tile, i > first);
        }
        if (S::ahead) copy_rows<S>(p, next);
    }
    store_sums<S>(sums, out, y.m, y.rows);
}

/* ---- columns ---------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ real schur_precondition(const schur_system &y, int64_t j, real residual) {
    const real column = y.column_sum[j], least = REAL_EPSILON * column;
    return column == 0 ? 0 : residual / (y.diagonal[j] > least ? y.diagonal[j] : least);
}

/* Starts at solution 0 from a column of the right-hand side, less its mean over the columns with mass. Numbers
 * <residual, z> and |residual|^2. The columns of this thread's item alone. */
static __device__ __forceinline__ void schur_start(const schur_system &y, int64_t j, real right, real mean,
                                                   double *numbers) {
    const real residual = y.column_sum[j] != 0 ? right - mean : 0, z = schur_precondition(y, j, residual);
    y.residual[j] = residual;
    y.product[j] = z;
    y.solution[j] = 0;
    y.direction[j] = 0;
    numbers[0] = (double)residual * (double)z;
    numbers[1] = (double)residual * (double)residual;
}

static __device__ void schur_columns(const schur_system &y, real beta, int64_t item, team_scratch &scratch) {
    const column_place at = place_of(item, y.column_width, y.m);
    const real product = sum_chunks(y.partial, y.chunks, y.m, at, scratch.sums[0]);
    double number[COLUMN_NUMBERS] = {};
    if (at.owner) {
        const int64_t j = at.j;
        const real direction = y.product[j] + beta * y.direction[j];
        y.direction[j] = direction;
        y.product[j] = product;
        number[0] = (double)direction * (double)product;
        if (y.column_sum[j] != 0) {
            number[1] = (double)product;
            number[2] = (double)y.residual[j];
        }
    }
    store_numbers(number, y.column_part, y.column_items, item, scratch, false);
}

/* How far the step goes, and the mean of the new residual, from the numbers of the columns. No step where the curvature
 * is not positive. */
static __device__ __forceinline__ void schur_length(const schur_state &s, const double *column, real *length,
                                                    real *mean) {
    *length = column[0] > 0 ? (real)(s.rho / column[0]) : 0;
    *mean = column[0] > 0 && s.count > 0 ? (real)((column[2] - (double)*length * column[1]) / s.count) : 0;
}

/* slope_j = mass_j - c_j, mass NULL: all are `uniform`. Not wanted where uniform < 0. */
static __device__ void schur_vectors(const schur_system &y, real length, real mean, const real *mass, real uniform,
                                     int64_t item, team_scratch &scratch) {
    const int64_t j = item * THREADS + threadIdx.x;
    double number[VECTOR_NUMBERS] = {};
    if (j < y.m) {
        const real column = y.column_sum[j];
        const real solution = y.solution[j] + length * y.direction[j];
        const real residual = column != 0 ? (y.residual[j] - length * y.product[j]) - mean : 0;
        const real z = schur_precondition(y, j, residual);
        y.solution[j] = solution;
        y.residual[j] = residual;
        y.product[j] = z;
        number[0] = (double)residual * (double)z;
        number[1] = (double)residual * (double)residual;
        if (uniform >= 0) number[2] = ((double)(mass ? mass[j] : uniform) - (double)column) * (double)solution;
        number[3] = fabs((double)solution);
    }
    store_numbers(number, y.vector_part, y.vector_items, item, scratch, true);
}

/* ---- scalars ---------------------------------------------------------------------------------------------------- */

/* Whether another step is to be made. */
static __device__ __forceinline__ bool schur_goes_on(const schur_state &s, double square) {
    return s.step < s.most_steps && sqrt(square) > s.tolerance && s.rho > 0;
}

/* After schur_start. */
static __device__ __forceinline__ bool schur_started(schur_state &s, const double *column) {
    s.step = 0;
    s.beta = 0;
    s.rho = column[0];
    s.slope = s.reach = 0;
    return schur_goes_on(s, column[1]);
}

/* After the vectors of a step. */
static __device__ __forceinline__ bool schur_stepped(schur_state &s, const double *column, const double *vector) {
    s.slope = vector[2];
    s.reach = vector[3];
    if (!(column[0] > 0)) return false;
    s.step++;
    s.beta = vector[0] / s.rho;
    s.rho = vector[0];
    return schur_goes_on(s, vector[1]);
}

#endif
