/*
 * plan_gradient_rows.cuh: passes of the plan's gradient over the rows of a chunk. The system is in plan_gradient.cu.
 */
#ifndef MOVER_CUDA_PLAN_GRADIENT_ROWS_CUH
#define MOVER_CUDA_PLAN_GRADIENT_ROWS_CUH

#include "schur.cuh"

namespace {

/* The gradient of one plan at work. */
typedef struct gradient_task {
    schur_system system;
    const real *grad_plan, *add_cost; /* (n, m) */
    real *grad_cost;                  /* (n, m) */
    real *row_sum, *s;                /* (n): r; u */
    real *kept;                       /* (n, m): the plan in shared memory, or NULL */
    real *more;                       /* (chunks, m): column sums of a second kind */
    real *grad_a, *grad_b;            /* (n), (m) or NULL */
    double epsilon;
} gradient_task;

} // namespace

/* First and last row of a chunk. */
static __device__ __forceinline__ void chunk_rows(const schur_system &y, int64_t chunk, int64_t *first, int64_t *last) {
    *first = chunk * y.chunk_rows;
    *last = *first + y.chunk_rows < y.n ? *first + y.chunk_rows : y.n;
}

/* r, and the column sums of the plan and of P_ij (r_i - P_ij) / r_i. One read an element; team BLOCK keeps it. */
template <class S>
static __device__ void plan_sums(const gradient_task &task, int64_t chunk, team_scratch &scratch, int &turn) {
    const schur_system &y = task.system;
    real *const kept = task.kept;
    const typename S::index tiles = S::wide ? ((typename S::index)y.m + S::tile - 1) / S::tile : 1;
    int64_t first, last;
    real sums[S::columns], diagonal[S::columns];
    chunk_rows(y, chunk, &first, &last);
    clear_columns<S>(sums);
    clear_columns<S>(diagonal);
    for (int64_t i = first + team_group<S>() * S::rows; i < last; i += S::groups * S::rows) {
        real p[S::rows][S::columns], r[S::rows];
        MOVER_UNROLL
        for (int q = 0; q < S::rows; q++) r[q] = 0;
        for (typename S::index tile = 0; tile < tiles; tile++) {
            load_rows<S>(p, y.plan, y.m, i, last, tile);
            MOVER_UNROLL
            for (int q = 0; q < S::rows; q++) {
                MOVER_UNROLL
                for (int c = 0; c < S::columns; c++) r[q] += p[q][c];
                if (kept && i + q < last) store_columns<S>(p[q], kept + (i + q) * y.m, y.m, tile);
            }
        }
        reduce_rows<S, false>(r, scratch, turn);
        for (typename S::index tile = 0; tile < tiles; tile++) {
            if (S::wide) {
                clear_columns<S>(sums);
                clear_columns<S>(diagonal);
                load_rows<S>(p, y.plan, y.m, i, last, tile);
            }
            MOVER_UNROLL
            for (int q = 0; q < S::rows; q++) {
                const real inverse = r[q] == 0 ? 0 : 1 / r[q];
                MOVER_UNROLL
                for (int c = 0; c < S::columns; c++) {
                    sums[c] += p[q][c];
                    diagonal[c] += p[q][c] * ((r[q] - p[q][c]) * inverse);
                }
            }
            if (S::wide) {
                add_sums<S>(sums, y.partial + chunk * y.m, y.m, tile, i > first);
                add_sums<S>(diagonal, task.more + chunk * y.m, y.m, tile, i > first);
            }
        }
        MOVER_UNROLL
        for (int q = 0; q < S::rows; q++)
            if (team_place<S>() == 0 && i + q < last) task.row_sum[i + q] = r[q];
    }
    store_sums<S>(sums, y.partial + chunk * y.m, y.m, y.rows);
    store_sums<S>(diagonal, task.more + chunk * y.m, y.m, y.rows);
}

/* H = P . G of a thread's columns of a row. */
template <class S>
static __device__ __forceinline__ void load_weighted(real (&h)[S::columns], const real (&p)[S::columns],
                                                     const real *grad, typename S::index m, typename S::index tile) {
    load_columns<S>(h, grad, m, tile, 0);
    MOVER_UNROLL
    for (int c = 0; c < S::columns; c++) h[c] *= p[c];
}

/* s, and the column sums of P . G and of P_ij (G_ij - s_i / r_i). A row at a time, one read of both matrices and, for
 * G again, one more. Row number: |s|^2. */
template <class S>
static __device__ void gradient_sums(const gradient_task &task, int64_t chunk, team_scratch &scratch, int &turn) {
    const schur_system &y = task.system;
    const typename S::index tiles = S::wide ? ((typename S::index)y.m + S::tile - 1) / S::tile : 1;
    int64_t first, last;
    real weighted[S::columns], centred[S::columns];
    double number[ROW_NUMBERS] = {};
    chunk_rows(y, chunk, &first, &last);
    clear_columns<S>(weighted);
    clear_columns<S>(centred);
    for (int64_t i = first + team_group<S>() * S::rows; i < last; i += S::groups * S::rows) {
        real s[S::rows];
        MOVER_UNROLL
        for (int q = 0; q < S::rows; q++) s[q] = 0;
        for (typename S::index tile = 0; tile < tiles; tile++) {
            MOVER_UNROLL
            for (int q = 0; q < S::rows; q++) {
                real p[S::columns], h[S::columns];
                if (i + q >= last) continue;
                load_columns<S>(p, y.plan + (i + q) * y.m, y.m, tile, 0);
                load_weighted<S>(h, p, task.grad_plan + (i + q) * y.m, y.m, tile);
                MOVER_UNROLL
                for (int c = 0; c < S::columns; c++) s[q] += h[c];
            }
        }
        reduce_rows<S, false>(s, scratch, turn);
        for (typename S::index tile = 0; tile < tiles; tile++) {
            if (S::wide) {
                clear_columns<S>(weighted);
                clear_columns<S>(centred);
            }
            MOVER_UNROLL
            for (int q = 0; q < S::rows; q++) {
                real p[S::columns], g[S::columns];
                if (i + q >= last) continue;
                const real r = task.row_sum[i + q], mean = r == 0 ? 0 : s[q] / r;
                load_columns<S>(p, y.plan + (i + q) * y.m, y.m, tile, 0);
                load_columns<S>(g, task.grad_plan + (i + q) * y.m, y.m, tile, 0);
                MOVER_UNROLL
                for (int c = 0; c < S::columns; c++) {
                    weighted[c] += p[c] * g[c];
                    centred[c] += p[c] * (g[c] - mean);
                }
            }
            if (S::wide) {
                add_sums<S>(weighted, y.partial + chunk * y.m, y.m, tile, i > first);
                add_sums<S>(centred, task.more + chunk * y.m, y.m, tile, i > first);
            }
        }
        MOVER_UNROLL
        for (int q = 0; q < S::rows; q++)
            if (team_place<S>() == 0 && i + q < last) number[0] += (double)s[q] * (double)s[q];
    }
    store_sums<S>(weighted, y.partial + chunk * y.m, y.m, y.rows);
    store_sums<S>(centred, task.more + chunk * y.m, y.m, y.rows);
    store_numbers(number, y.row_part, y.chunks, chunk, scratch, false);
}

/* The v of a thread's columns; NaN where the problem is not finite. */
template <class S>
static __device__ __forceinline__ void load_solution(real (&v)[S::columns], const schur_system &y, int poison,
                                                     typename S::index tile) {
    load_columns<S>(v, y.solution, y.m, tile, 0);
    MOVER_UNROLL
    for (int c = 0; c < S::columns; c++)
        if (poison) v[c] = (real)NAN;
}

/* u = (P (G - v)) / r, then dL/dC. Two reads of both matrices, one write. Row numbers: <u, r> and the sum of r. */
template <class S>
static __device__ void finish_rows(const gradient_task &task, int poison, int64_t chunk, team_scratch &scratch,
                                   int &turn) {
    const schur_system &y = task.system;
    const typename S::index tiles = S::wide ? ((typename S::index)y.m + S::tile - 1) / S::tile : 1;
    const real factor = (real)(-1 / task.epsilon);
    int64_t first, last;
    double number[ROW_NUMBERS] = {};
    chunk_rows(y, chunk, &first, &last);
    for (int64_t i = first + team_group<S>() * S::rows; i < last; i += S::groups * S::rows) {
        real u[S::rows];
        MOVER_UNROLL
        for (int q = 0; q < S::rows; q++) u[q] = 0;
        for (typename S::index tile = 0; tile < tiles; tile++) {
            real v[S::columns];
            load_solution<S>(v, y, poison, tile);
            MOVER_UNROLL
            for (int q = 0; q < S::rows; q++) {
                real p[S::columns], g[S::columns];
                if (i + q >= last) continue;
                load_columns<S>(p, y.plan + (i + q) * y.m, y.m, tile, 0);
                load_columns<S>(g, task.grad_plan + (i + q) * y.m, y.m, tile, 0);
                MOVER_UNROLL
                for (int c = 0; c < S::columns; c++)
                    if (column_of<S>(tile, c) < y.m) u[q] += p[c] * (g[c] - v[c]);
            }
        }
        reduce_rows<S, false>(u, scratch, turn);
        MOVER_UNROLL
        for (int q = 0; q < S::rows; q++) {
            const real r = i + q < last ? task.row_sum[i + q] : 0;
            u[q] = r == 0 ? 0 : u[q] / r;
            if (team_place<S>() != 0 || i + q >= last) continue;
            task.s[i + q] = u[q];
            number[0] += (double)u[q] * (double)r;
            number[1] += (double)r;
        }
        for (typename S::index tile = 0; tile < tiles; tile++) {
            real v[S::columns];
            load_solution<S>(v, y, poison, tile);
            MOVER_UNROLL
            for (int q = 0; q < S::rows; q++) {
                real p[S::columns], g[S::columns];
                if (i + q >= last) continue;
                const int64_t row = (i + q) * y.m;
                load_columns<S>(p, y.plan + row, y.m, tile, 0);
                load_columns<S>(g, task.grad_plan + row, y.m, tile, 0);
                MOVER_UNROLL
                for (int c = 0; c < S::columns; c++) g[c] = factor * (p[c] * ((g[c] - v[c]) - u[q]));
                if (task.add_cost) {
                    load_columns<S>(p, task.add_cost + row, y.m, tile, 0);
                    MOVER_UNROLL
                    for (int c = 0; c < S::columns; c++) g[c] += p[c];
                }
                store_columns<S>(g, task.grad_cost + row, y.m, tile);
            }
        }
    }
    store_numbers(number, y.row_part, y.chunks, chunk, scratch, false);
}

/* u and v less their means. */
static __device__ void centre_rows(const gradient_task &task, double mean_a, double mean_b, int poison, int64_t chunk) {
    int64_t first, last;
    chunk_rows(task.system, chunk, &first, &last);
    for (int64_t i = first + threadIdx.x; task.grad_a && i < last; i += THREADS)
        task.grad_a[i] = (real)((double)task.s[i] - mean_a);
    for (int64_t j = threadIdx.x; task.grad_b && chunk == 0 && j < task.system.m; j += THREADS)
        task.grad_b[j] = poison ? (real)NAN : (real)((double)task.system.solution[j] - mean_b);
}

#endif
