/*
 * plan_gradient.cu: the exact gradient of the entropic plan.
 *
 * With H = P . G (elementwise), s = H 1, t = H^T 1, r = P 1, c = P^T 1, the optimality conditions give
 *
 *     [diag r   P    ] [u]   [s]
 *     [P^T    diag c ] [v] = [t],      dL/dC = -(1/epsilon) P . (G - u 1^T - 1 v^T),   dL/da = u,   dL/db = v.
 *
 * u is eliminated and v found by schur.cuh, whose right-hand side is formed without subtracting large numbers:
 *
 *     t - P^T (s / r) = sum_i P_ij (G_ij - s_i / r_i)
 *
 * Rows or columns without mass take u_i = 0 or v_j = 0. One launch: every problem goes through the modes below, decided
 * on the device as in control.cuh.
 */
#include "../src/backend.h"

#include "real.h"

#include "sinkhorn.h"
#include "ticks.cuh"

namespace {

typedef struct gradient_call {
    R(mover_cuda_plan_gradient) batch;
    planner plan;
    tick_lists lists;
    struct gradient_state *states; /* (2, batch) */
    char *slots;                   /* (batch, slot_bytes) */
    size_t slot_bytes;
} gradient_call;

/* What a tick does with a problem. */
typedef enum gradient_mode {
    PLAN_SUMS,     /* r, c and the diagonal of the system; the first */
    GRADIENT_SUMS, /* s, t and the right-hand side */
    START,         /* the right-hand side less its mean */
    SOLVE,         /* a step of conjugate gradients */
    FINISH,        /* u, dL/dC */
    CENTRE         /* dL/da and dL/db less their means; the last */
} gradient_mode;

typedef struct gradient_state {
    int32_t mode;
    int32_t poison; /* the length of (s, t) is not finite */
    double mean, mean_a, mean_b;
    schur_state cg;
} gradient_state;

/* The gradient of one plan at work. */
typedef struct gradient_task {
    schur_system system;
    const real *grad_plan, *add_cost; /* (n, m) */
    real *grad_cost;                  /* (n, m) */
    real *row_sum, *s;                /* (n): r; u */
    real *more;                       /* (chunks, m): column sums of a second kind */
    real *grad_a, *grad_b;            /* (n), (m) or NULL */
    double epsilon;
} gradient_task;

typedef struct gradient_block {
    gradient_task task;
    gradient_state s;
    team_scratch scratch;
    real length, mean; /* of a step of conjugate gradients */
} gradient_block;

} // namespace

enum { MOST_STEPS = 500 };

static constexpr double TOLERANCE = MOVER_REAL_BITS == 32 ? 1e-7 : 1e-12; /* on |residual| / |(s, t)| */

static __host__ __device__ void task_take(gradient_task *task, slot *from) {
    system_take(&task->system, from);
    task->more = (real *)slot_take(from, task->system.chunks * task->system.m, sizeof(real));
    task->row_sum = (real *)slot_take(from, task->system.n, sizeof(real));
    task->s = (real *)slot_take(from, task->system.n, sizeof(real));
}

/* Problem p, with its plan in global memory and, in team BLOCK, its vectors in `shared`. */
template <class S>
static __device__ void task_make(const gradient_call &call, int64_t p, int64_t tick, unsigned char *shared,
                                 gradient_task *task) {
    const R(mover_cuda_plan_gradient) &batch = call.batch;
    const int64_t n = batch.n, m = batch.m;
    schur_system *y = &task->system;
    system_divide(y, n, m, call.plan);
    slot from = {(char *)shared, 0};
    y->rows = (real *)slot_take(&from, WARPS * m, sizeof(real));
    real *kept = nullptr;
    if (S::team == PLANNER_BLOCK) {
        kept = (real *)slot_take(&from, n * m, sizeof(real));
    } else {
        from.base = call.slots + (size_t)p * call.slot_bytes;
        from.used = 0;
    }
    task_take(task, &from);
    y->row_part += (tick & 1) * ROW_NUMBERS * y->chunks;
    y->plan = kept && tick > 0 ? kept : batch.plan + p * n * m;
    y->row_sum = task->row_sum;
    y->uniform = 0;
    task->grad_plan = batch.grad_plan + p * n * m;
    task->add_cost = batch.add_cost ? batch.add_cost + p * n * m : nullptr;
    task->grad_cost = batch.grad_cost + p * n * m;
    task->grad_a = batch.grad_a ? batch.grad_a + p * n : nullptr;
    task->grad_b = batch.grad_b ? batch.grad_b + p * m : nullptr;
    task->epsilon = batch.epsilon;
}

/* ---- rows ------------------------------------------------------------------------------------------------------- */

/* First and last row of a chunk. */
static __device__ __forceinline__ void chunk_rows(const schur_system &y, int64_t chunk, int64_t *first, int64_t *last) {
    *first = chunk * y.chunk_rows;
    *last = *first + y.chunk_rows < y.n ? *first + y.chunk_rows : y.n;
}

/* r, and the column sums of the plan and of P_ij (r_i - P_ij) / r_i. One read an element; team BLOCK keeps it. */
template <class S>
static __device__ void plan_sums(const gradient_task &task, int64_t chunk, real *kept, team_scratch &scratch,
                                 int &turn) {
    const schur_system &y = task.system;
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

static __device__ void centre_rows(const gradient_task &task, const gradient_state &s, int64_t chunk) {
    int64_t first, last;
    chunk_rows(task.system, chunk, &first, &last);
    for (int64_t i = first + threadIdx.x; task.grad_a && i < last; i += THREADS)
        task.grad_a[i] = (real)((double)task.s[i] - s.mean_a);
    for (int64_t j = threadIdx.x; task.grad_b && chunk == 0 && j < task.system.m; j += THREADS)
        task.grad_b[j] = s.poison ? (real)NAN : (real)((double)task.system.solution[j] - s.mean_b);
}

template <class S> static __device__ void rows_item(int64_t chunk, real *kept, gradient_block &here, int &turn) {
    const gradient_task &task = here.task;
    switch (here.s.mode) {
    case PLAN_SUMS:
        plan_sums<S>(task, chunk, kept, here.scratch, turn);
        break;
    case GRADIENT_SUMS:
        gradient_sums<S>(task, chunk, here.scratch, turn);
        break;
    case SOLVE:
        schur_rows<S>(task.system, (real)here.s.cg.beta, chunk, here.scratch, turn);
        break;
    case FINISH:
        finish_rows<S>(task, here.s.poison, chunk, here.scratch, turn);
        break;
    case CENTRE:
        centre_rows(task, here.s, chunk);
        break;
    default:
        break;
    }
}

/* ---- columns ---------------------------------------------------------------------------------------------------- */

/* Numbers. PLAN_SUMS: columns with mass. GRADIENT_SUMS: |t|^2 and the sum of the right-hand side. START: see
 * schur_start. FINISH: <v, c> and the sum of c. */
static __device__ void columns_item(int64_t item, gradient_block &here) {
    const schur_system &y = here.task.system;
    const int32_t mode = here.s.mode;
    if (mode == CENTRE) return;
    if (mode == SOLVE) {
        schur_columns(y, (real)here.s.cg.beta, item, here.scratch);
        return;
    }
    const column_place at = place_of(item, y.column_width, y.m);
    double number[COLUMN_NUMBERS] = {};
    real sum = 0, more = 0;
    if (mode == PLAN_SUMS || mode == GRADIENT_SUMS) {
        sum = sum_chunks(y.partial, y.chunks, y.m, at, here.scratch.sums[0]);
        more = sum_chunks(here.task.more, y.chunks, y.m, at, here.scratch.sums[1]);
    }
    if (at.owner) {
        const int64_t j = at.j;
        switch (mode) {
        case PLAN_SUMS:
            y.column_sum[j] = sum;
            y.diagonal[j] = more;
            number[0] = sum != 0;
            break;
        case GRADIENT_SUMS:
            y.residual[j] = more;
            number[0] = (double)sum * (double)sum;
            number[1] = y.column_sum[j] != 0 ? (double)more : 0;
            break;
        case START:
            schur_start(y, j, y.residual[j], (real)here.s.mean, number);
            break;
        default:
            number[0] = (double)y.solution[j] * (double)y.column_sum[j];
            number[1] = (double)y.column_sum[j];
            break;
        }
    }
    store_numbers(number, y.column_part, y.column_items, item, here.scratch, false);
}

/* ---- ticks ------------------------------------------------------------------------------------------------------ */

/* From the numbers of the last tick to the mode of the next. */
static __device__ void decide(gradient_state &s, const double (&row)[ROW_NUMBERS],
                              const double (&column)[COLUMN_NUMBERS], const double (&vector)[VECTOR_NUMBERS]) {
    switch (s.mode) {
    case PLAN_SUMS:
        s.cg.count = column[0];
        s.mode = GRADIENT_SUMS;
        break;
    case GRADIENT_SUMS: {
        const double scale = sqrt(row[0] + column[0]);
        s.poison = !(scale <= DBL_MAX);
        s.cg.tolerance = TOLERANCE * scale;
        s.cg.most_steps = MOST_STEPS;
        s.mean = s.cg.count > 0 ? column[1] / s.cg.count : 0;
        s.mode = START;
        break;
    }
    case START:
        s.mode = schur_started(s.cg, column) ? SOLVE : FINISH;
        break;
    case SOLVE:
        s.mode = schur_stepped(s.cg, column, vector) ? SOLVE : FINISH;
        break;
    case FINISH:
        s.mean_a = row[1] == 0 ? 0 : row[0] / row[1];
        s.mean_b = column[1] == 0 ? 0 : column[0] / column[1];
        s.mode = CENTRE;
        break;
    default:
        break;
    }
}

/* Problem p at the start of a tick. All threads of the block. */
template <class S>
static __device__ void enter_rows(const gradient_call &call, int64_t p, int64_t tick, unsigned char *shared,
                                  gradient_block &here) {
    __syncthreads();
    if (threadIdx.x == 0) {
        task_make<S>(call, p, tick, shared, &here.task);
        if (tick == 0)
            here.s = gradient_state{};
        else if (S::team == PLANNER_GRID)
            here.s = call.states[((tick - 1) & 1) * call.batch.batch + p];
    }
    __syncthreads();
    if (tick > 0 && threadIdx.x < WARP) {
        const schur_system &y = here.task.system;
        const double *row_part = y.row_part + ((tick & 1) ? -1 : 1) * ROW_NUMBERS * y.chunks;
        const int32_t mode = here.s.mode;
        double row[ROW_NUMBERS] = {}, column[COLUMN_NUMBERS] = {}, vector[VECTOR_NUMBERS] = {};
        if (mode == GRADIENT_SUMS || mode == FINISH) load_numbers(row, row_part, y.chunks, false);
        load_numbers(column, y.column_part, y.column_items, false);
        if (mode == SOLVE) load_numbers(vector, y.vector_part, y.vector_items, true);
        __syncwarp();
        if (threadIdx.x == 0) decide(here.s, row, column, vector);
    }
    __syncthreads();
}

/* How far a step of conjugate gradients goes. All threads of the block. */
static __device__ void enter_vectors(gradient_block &here) {
    if (threadIdx.x < WARP) {
        const schur_system &y = here.task.system;
        double column[COLUMN_NUMBERS];
        load_numbers(column, y.column_part, y.column_items, false);
        if (threadIdx.x == 0) schur_length(here.s.cg, column, &here.length, &here.mean);
    }
    __syncthreads();
}

static __device__ void vectors_item(int64_t item, gradient_block &here) {
    schur_vectors(here.task.system, here.length, here.mean, nullptr, -1, item, here.scratch);
}

/* One problem by a block. */
template <class S>
static __device__ void solve_alone(const gradient_call &call, int64_t p, unsigned char *shared, gradient_block &here,
                                   int &turn) {
    slot from = {(char *)shared, 0};
    slot_take(&from, WARPS * call.batch.m, sizeof(real));
    real *const kept = (real *)slot_take(&from, call.batch.n * call.batch.m, sizeof(real));
    for (int64_t tick = 0;; tick++) {
        enter_rows<S>(call, p, tick, shared, here);
        rows_item<S>(0, kept, here, turn);
        team_barrier<S>();
        if (here.s.mode == CENTRE) break;
        for (int64_t item = 0; item < call.plan.column_items; item++) columns_item(item, here);
        team_barrier<S>();
        if (here.s.mode != SOLVE) continue;
        enter_vectors(here);
        for (int64_t item = 0; item < call.plan.vector_items; item++) vectors_item(item, here);
        team_barrier<S>();
    }
}

/* Problem p in the later phases of a tick: as the phase of the rows has left it. */
template <class S>
static __device__ void enter_again(const gradient_call &call, int64_t p, int64_t tick, unsigned char *shared,
                                   gradient_block &here) {
    __syncthreads();
    if (threadIdx.x == 0) {
        task_make<S>(call, p, tick, shared, &here.task);
        here.s = call.states[(tick & 1) * call.batch.batch + p];
    }
    __syncthreads();
}

/* The list for the next tick. By the first warp of block 0. */
static __device__ void next_list(const gradient_call &call, int64_t tick, int64_t count) {
    const int64_t batch = call.batch.batch;
    int64_t kept = 0;
    int vectors = 0;
    for (int64_t first = 0; first < count; first += WARP) {
        const int64_t k = first + threadIdx.x, p = k < count ? listed(call.lists, batch, tick, k) : -1;
        const int32_t mode = p >= 0 ? call.states[(tick & 1) * batch + p].mode : (int32_t)CENTRE;
        vectors |= __any_sync(0xffffffffu, mode == SOLVE);
        list_keep(call.lists, batch, tick, p, mode != CENTRE, &kept);
    }
    if (threadIdx.x > 0) return;
    call.lists.counts[((tick + 1) & 1) * 2] = kept;
    call.lists.counts[((tick + 1) & 1) * 2 + 1] = vectors;
}

/* The whole batch by all blocks. */
template <class S>
static __device__ void solve_together(const gradient_call &call, unsigned char *shared, gradient_block &here,
                                      int &turn) {
    const int64_t batch = call.batch.batch, chunks = call.plan.chunks;
    int64_t count = batch, first, last;
    for (int64_t tick = 0; count > 0; tick++) {
        int64_t present = -1;
        team_items<S>(count * chunks, &first, &last);
        for (int64_t item = first; item < last; item++) {
            const int64_t p = listed(call.lists, batch, tick, item / chunks), chunk = item % chunks;
            if (p != present) enter_rows<S>(call, p, tick, shared, here);
            present = p;
            rows_item<S>(chunk, nullptr, here, turn);
            if (chunk == 0 && threadIdx.x == 0) call.states[(tick & 1) * batch + p] = here.s;
        }
        team_barrier<S>();
        team_items<S>(count * call.plan.column_items, &first, &last);
        for (int64_t item = first; item < last; item++) {
            const int64_t p = listed(call.lists, batch, tick, item / call.plan.column_items);
            if (p != present) enter_again<S>(call, p, tick, shared, here);
            present = p;
            columns_item(item % call.plan.column_items, here);
        }
        if (blockIdx.x == 0 && threadIdx.x < WARP) next_list(call, tick, count);
        team_barrier<S>();
        if (call.lists.counts[((tick + 1) & 1) * 2 + 1]) {
            team_items<S>(count * call.plan.vector_items, &first, &last);
            int64_t ready = -1;
            for (int64_t item = first; item < last; item++) {
                const int64_t p = listed(call.lists, batch, tick, item / call.plan.vector_items);
                if (p != present) enter_again<S>(call, p, tick, shared, here);
                present = p;
                if (here.s.mode != SOLVE) continue;
                if (p != ready) enter_vectors(here);
                ready = p;
                vectors_item(item % call.plan.vector_items, here);
            }
            team_barrier<S>();
        }
        count = call.lists.counts[((tick + 1) & 1) * 2];
    }
}

/* Gradients of a batch of plans. Team BLOCK: a block has whole problems, their plan and vectors in its shared memory.
 * Team GRID: all blocks have a share of the rows and of the columns of all problems; a step of conjugate gradients
 * reads every element of a plan once. A thread has the columns of team.cuh and the sums of its columns in registers.
 * Sums run in an order that depends on n and m only. */
template <class S> static __global__ void __launch_bounds__(THREADS, 2) plan_gradient_kernel(gradient_call call) {
    MOVER_SHARED_DYNAMIC(unsigned char, shared);
    MOVER_SHARED(gradient_block, here, [1]);
    int turn = 0;
    if constexpr (S::team == PLANNER_GRID) {
        solve_together<S>(call, shared, here[0], turn);
    } else {
        for (int64_t p = blockIdx.x; p < call.batch.batch; p += gridDim.x)
            solve_alone<S>(call, p, shared, here[0], turn);
    }
}

/* ---- host ------------------------------------------------------------------------------------------------------- */

/* Workspace of team GRID, for a problem that does not fit what every device offers. */
static void call_take(gradient_call *call, mover_arena *arena) {
    const R(mover_cuda_plan_gradient) *batch = &call->batch;
    const planner grid = planner_of(batch->n, batch->m, sizeof(real), 0);
    if (batch->batch == 0 || batch->n == 0 || batch->m == 0 || grid.team == PLANNER_BLOCK) return;
    gradient_task task = {};
    slot measured = {};
    system_divide(&task.system, batch->n, batch->m, grid);
    task_take(&task, &measured);
    call->slot_bytes = measured.used;
    call->lists.problems = (int64_t *)mover_take(arena, 2, batch->batch, sizeof(int64_t));
    call->lists.counts = (int64_t *)mover_take(arena, 2, 2, sizeof(int64_t));
    call->states = (gradient_state *)mover_take(arena, 2, batch->batch, sizeof(gradient_state));
    call->slots = (char *)mover_take(arena, batch->batch, (int64_t)measured.used, 1);
}

void R(mover_cuda_plan_gradient_take)(R(mover_cuda_plan_gradient) * gradient, mover_arena *arena) {
    gradient_call call = {};
    call.batch = *gradient;
    gradient->scratch = arena->base ? arena->base + arena->used : nullptr;
    call_take(&call, arena);
}

mover_status R(mover_cuda_plan_gradient_solve)(const char *function, const R(mover_cuda_plan_gradient) * gradient,
                                               const mover_exec *exec) {
    mover_device device;
    if (gradient->batch == 0 || gradient->n == 0 || gradient->m == 0) return MOVER_OK;
    MOVER_TRY(mover_device_now(function, &device));
    gradient_call call = {};
    mover_arena arena = {(char *)gradient->scratch, 0, 0};
    call.batch = *gradient;
    call_take(&call, &arena);
    call.plan = planner_of(gradient->n, gradient->m, sizeof(real), device.shared_bytes);
    static_assert(sizeof(gradient_block) <= PLANNER_STATIC, "shared memory that the planner keeps free");
    TICKS_LAUNCH(function, plan_gradient_kernel, call.plan, gradient->batch, exec, call);
}

/* ---- the op ----------------------------------------------------------------------------------------------------- */

static R(mover_cuda_plan_gradient) gradient_of(const mover_sinkhorn_desc *desc) {
    R(mover_cuda_plan_gradient) gradient = {};
    gradient.batch = desc->batch;
    gradient.n = desc->n;
    gradient.m = desc->m;
    gradient.epsilon = desc->epsilon;
    return gradient;
}

void R(mover_cuda_sinkhorn_backward_layout)(const mover_sinkhorn_desc *desc, mover_arena *arena) {
    R(mover_cuda_plan_gradient) gradient = gradient_of(desc);
    R(mover_cuda_plan_gradient_take)(&gradient, arena);
}

mover_status R(mover_cuda_sinkhorn_backward)(const mover_sinkhorn_desc *desc, const real *plan, const real *grad_plan,
                                             real *grad_cost, real *grad_a, real *grad_b, void *workspace,
                                             const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    R(mover_cuda_plan_gradient) gradient = gradient_of(desc);
    gradient.plan = plan;
    gradient.grad_plan = grad_plan;
    gradient.grad_cost = grad_cost;
    gradient.grad_a = grad_a;
    gradient.grad_b = grad_b;
    R(mover_cuda_plan_gradient_take)(&gradient, &arena);
    return R(mover_cuda_plan_gradient_solve)("mover_sinkhorn_backward", &gradient, exec);
}
