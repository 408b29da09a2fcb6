/*
 * sinkhorn.cu: entropic optimal transport.
 *
 *     plan_ij = K_ij U_i V_j,   K_ij = exp(u_i + v_j - C_ij / epsilon)
 *
 * An iteration makes the rows exact, then the columns (scaling.cuh); the error between the two halves is the whole
 * marginal error. What follows on an iteration is decided on the device (control.cuh), and the results are written by
 * two last ticks (finish.cuh): one launch a call, nothing to wait for.
 */
#include "../src/backend.h"

#include "real.h"

#include "finish.cuh"
#include "sinkhorn.h"
#include "ticks.cuh"

namespace {

typedef struct sinkhorn_call {
    R(mover_cuda_sinkhorn) batch;
    planner plan;
    control_options options;
    tick_lists lists;
    control *states; /* (2, batch) */
    char *slots;     /* (batch, slot_bytes) */
    size_t slot_bytes;
} sinkhorn_call;

} // namespace

/* ---- memory ----------------------------------------------------------------------------------------------------- */

/* The arrays of a problem in its slot of global memory, or in the block's shared memory. */
static __host__ __device__ void problem_take(sinkhorn_problem *q, slot *from) {
    const int64_t n = q->system.n, m = q->system.m;
    system_take(&q->system, from);
    q->u = (real *)slot_take(from, n, sizeof(real));
    q->row_scale = (real *)slot_take(from, n, sizeof(real));
    q->v = (real *)slot_take(from, m, sizeof(real));
    q->plain = (real *)slot_take(from, m, sizeof(real));
    q->excess = (real *)slot_take(from, m, sizeof(real));
}

/* Problem p, in team BLOCK with the kernel and all arrays in `shared`; in team GRID that is for the sums of warps. */
template <class S>
static __device__ void problem_make(const sinkhorn_call &call, int64_t p, int64_t tick, unsigned char *shared,
                                    sinkhorn_problem *q) {
    const R(mover_cuda_sinkhorn) &batch = call.batch;
    const int64_t n = batch.n, m = batch.m;
    schur_system *y = &q->system;
    system_divide(y, n, m, call.plan);
    slot from = {(char *)shared, 0};
    y->rows = (real *)slot_take(&from, WARPS * m, sizeof(real));
    if (S::team == PLANNER_BLOCK) {
        q->kernel = (real *)slot_take(&from, n * m, sizeof(real));
    } else {
        from.base = call.slots + (size_t)p * call.slot_bytes;
        from.used = 0;
        q->kernel = batch.kernel + p * n * m;
    }
    problem_take(q, &from);
    y->row_part += (tick & 1) * ROW_NUMBERS * y->chunks;
    y->plan = q->kernel;
    y->row_sum = q->a = batch.a ? batch.a + p * n : nullptr;
    y->uniform = q->uniform_a = (real)1 / (real)n;
    q->b = batch.b ? batch.b + p * m : nullptr;
    q->uniform_b = (real)1 / (real)m;
    q->cost = batch.cost + p * n * m;
    q->plan = batch.plan ? batch.plan + p * n * m : nullptr;
    q->f = batch.f + p * n;
    q->g = batch.g + p * m;
    q->epsilon = batch.epsilon;
    q->inverse = (real)(LOG2_E / batch.epsilon);
}

/* ---- ticks ------------------------------------------------------------------------------------------------------ */

namespace {

/* What a block has in shared memory of the problem that it works on. */
typedef struct block_state {
    sinkhorn_problem q;
    control s;
    team_scratch scratch;
    real length, mean; /* of a step of conjugate gradients */
} block_state;

} // namespace

/* Problem p at the start of a tick: its arrays, and what is to be done. All threads of the block. */
template <class S>
static __device__ void enter_rows(const sinkhorn_call &call, int64_t p, int64_t tick, unsigned char *shared,
                                  block_state &here) {
    control &s = here.s;
    __syncthreads();
    if (threadIdx.x == 0) {
        problem_make<S>(call, p, tick, shared, &here.q);
        if (tick == 0)
            control_begin(s, call.options);
        else if (S::team == PLANNER_GRID)
            s = call.states[((tick - 1) & 1) * call.batch.batch + p];
    }
    __syncthreads();
    if (tick > 0 && threadIdx.x < WARP) {
        const schur_system &y = here.q.system;
        const double *row_part = y.row_part + ((tick & 1) ? -1 : 1) * ROW_NUMBERS * y.chunks;
        const int32_t mode = s.mode;
        double row[ROW_NUMBERS] = {}, column[COLUMN_NUMBERS] = {}, vector[VECTOR_NUMBERS] = {};
        if (mode != PREPARE && mode != STEP && mode != MOVE && mode != LEAVE)
            load_numbers(row, row_part, y.chunks, false);
        if (mode != MOVE) load_numbers(column, y.column_part, y.column_items, false);
        if (mode == STEP) load_numbers(vector, y.vector_part, y.vector_items, true);
        __syncwarp();
        if (threadIdx.x == 0) control_decide(s, call.options, row, column, vector);
    }
    __syncthreads();
    int from_cost = s.mode == FIRST || (s.mode == TRY && !s.by_scales);
    if (s.mode == ITERATE || s.mode == ENTER) from_cost = s.force || is_stretched(here.q, (real)s.over);
    from_cost = __syncthreads_or(from_cost);
    if (threadIdx.x == 0) s.from_cost = from_cost;
    __syncthreads();
}

template <class S>
static __device__ void rows_item(const sinkhorn_call &call, int64_t p, int64_t chunk, block_state &here, int &turn) {
    const sinkhorn_problem &q = here.q;
    const control &s = here.s;
    switch (s.mode) {
    case FIRST:
    case ITERATE:
    case ENTER:
    case TRY:
        if (s.from_cost)
            make_rows<S, true>(q, s, chunk, here.scratch, turn);
        else if (s.mode == ITERATE)
            scale_rows<S>(q, s, chunk, here.scratch, turn);
        else
            make_rows<S, false>(q, s, chunk, here.scratch, turn);
        break;
    case PREPARE:
        diagonal_rows<S>(q, chunk);
        break;
    case STEP:
        schur_rows<S>(q.system, (real)s.cg.beta, chunk, here.scratch, turn);
        break;
    case WRITE:
        write_rows<S>(q, chunk, here.scratch, turn);
        break;
    case SHIFT:
    case POISON:
        shift_rows(q, s, chunk);
        break;
    default:
        break;
    }
    if (chunk > 0 || threadIdx.x > 0) return;
    const R(mover_cuda_sinkhorn) &batch = call.batch;
    if (is_last(s.mode)) {
        if (batch.value) batch.value[p] = s.mode == POISON ? (real)NAN : (real)s.sum;
        if (batch.marginal_error) batch.marginal_error[p] = s.mode == POISON ? (real)NAN : (real)s.marginal_error;
        if (batch.n_iter) batch.n_iter[p] = s.iterations;
    }
}

static __device__ void columns_item(int64_t item, block_state &here) {
    const sinkhorn_problem &q = here.q;
    const control &s = here.s;
    switch (s.mode) {
    case FIRST:
    case ITERATE:
        iterate_columns(q, s, item, here.scratch);
        break;
    case ENTER:
    case TRY:
        newton_columns(q, s, item, here.scratch);
        break;
    case PREPARE:
        prepare_columns(q, s, item, here.scratch);
        break;
    case STEP:
        schur_columns(q.system, (real)s.cg.beta, item, here.scratch);
        break;
    case MOVE:
        move_columns(q, s, item);
        break;
    case LEAVE:
        leave_columns(q, item, here.scratch);
        break;
    case WRITE:
        write_columns(q, item, here.scratch);
        break;
    default:
        break;
    }
}

/* How far a step of conjugate gradients goes. All threads of the block. */
static __device__ void enter_vectors(block_state &here) {
    if (threadIdx.x < WARP) {
        const schur_system &y = here.q.system;
        double column[COLUMN_NUMBERS];
        load_numbers(column, y.column_part, y.column_items, false);
        if (threadIdx.x == 0) schur_length(here.s.cg, column, &here.length, &here.mean);
    }
    __syncthreads();
}

static __device__ void vectors_item(int64_t item, block_state &here) {
    const sinkhorn_problem &q = here.q;
    schur_vectors(q.system, here.length, here.mean, q.b, q.uniform_b, item, here.scratch);
}

/* One problem by a block. */
template <class S>
static __device__ void solve_alone(const sinkhorn_call &call, int64_t p, unsigned char *shared, block_state &here,
                                   int &turn) {
    for (int64_t tick = 0;; tick++) {
        enter_rows<S>(call, p, tick, shared, here);
        rows_item<S>(call, p, 0, here, turn);
        team_barrier<S>();
        if (is_last(here.s.mode)) break;
        for (int64_t item = 0; item < call.plan.column_items; item++) columns_item(item, here);
        team_barrier<S>();
        if (here.s.mode != STEP) continue;
        enter_vectors(here);
        for (int64_t item = 0; item < call.plan.vector_items; item++) vectors_item(item, here);
        team_barrier<S>();
    }
}

/* Problem p in the later phases of a tick: as the phase of the rows has left it. */
template <class S>
static __device__ void enter_again(const sinkhorn_call &call, int64_t p, int64_t tick, unsigned char *shared,
                                   block_state &here) {
    __syncthreads();
    if (threadIdx.x == 0) {
        problem_make<S>(call, p, tick, shared, &here.q);
        here.s = call.states[(tick & 1) * call.batch.batch + p];
    }
    __syncthreads();
}

/* The list for the next tick. By the first warp of block 0. */
static __device__ void next_list(const sinkhorn_call &call, int64_t tick, int64_t count) {
    const int64_t batch = call.batch.batch;
    int64_t kept = 0;
    int vectors = 0;
    for (int64_t first = 0; first < count; first += WARP) {
        const int64_t k = first + threadIdx.x, p = k < count ? listed(call.lists, batch, tick, k) : -1;
        const int32_t mode = p >= 0 ? call.states[(tick & 1) * batch + p].mode : SHIFT;
        vectors |= __any_sync(0xffffffffu, mode == STEP);
        list_keep(call.lists, batch, tick, p, !is_last(mode), &kept);
    }
    if (threadIdx.x > 0) return;
    call.lists.counts[((tick + 1) & 1) * 2] = kept;
    call.lists.counts[((tick + 1) & 1) * 2 + 1] = vectors;
}

/* The whole batch by all blocks. */
template <class S>
static __device__ void solve_together(const sinkhorn_call &call, unsigned char *shared, block_state &here, int &turn) {
    const int64_t batch = call.batch.batch, chunks = call.plan.chunks;
    int64_t count = batch, first, last;
    for (int64_t tick = 0; count > 0; tick++) {
        int64_t present = -1;
        team_items<S>(count * chunks, &first, &last);
        for (int64_t item = first; item < last; item++) {
            const int64_t p = listed(call.lists, batch, tick, item / chunks), chunk = item % chunks;
            if (p != present) enter_rows<S>(call, p, tick, shared, here);
            present = p;
            rows_item<S>(call, p, chunk, here, turn);
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
                if (here.s.mode != STEP) continue;
                if (p != ready) enter_vectors(here);
                ready = p;
                vectors_item(item % call.plan.vector_items, here);
            }
            team_barrier<S>();
        }
        count = call.lists.counts[((tick + 1) & 1) * 2];
    }
}

/* Solves a batch. Team BLOCK: a block has whole problems, their kernel, vectors and sums in its shared memory, n m
 * numbers and some; the costs are read once, and again where the kernel is made again. Team GRID: all blocks have a
 * share of the rows and of the columns of all problems; a tick reads every element of a kernel once. A thread has the
 * columns of team.cuh and the sums of its columns in registers. Sums run in an order that depends on n and m only. */
template <class S> static __global__ void __launch_bounds__(THREADS, 2) sinkhorn_kernel(sinkhorn_call call) {
    MOVER_SHARED_DYNAMIC(unsigned char, shared);
    MOVER_SHARED(block_state, here, [1]);
    int turn = 0;
    if constexpr (S::team == PLANNER_GRID) {
        solve_together<S>(call, shared, here[0], turn);
    } else {
        for (int64_t p = blockIdx.x; p < call.batch.batch; p += gridDim.x)
            solve_alone<S>(call, p, shared, here[0], turn);
    }
}

/* ---- host ------------------------------------------------------------------------------------------------------- */

static double reachable_tol(double tol, double epsilon) {
#if MOVER_REAL_BITS == 32
    return fmax(tol, fmax(2e-6, 4e-8 / epsilon));
#else
    return fmax(tol, 1e-13 + 1e-16 / epsilon);
#endif
}

/* Workspace of team GRID, for a problem that does not fit what every device offers. */
static void call_take(sinkhorn_call *call, int has_plan, mover_arena *arena) {
    R(mover_cuda_sinkhorn) *batch = &call->batch;
    const planner grid = planner_of(batch->n, batch->m, sizeof(real), 0);
    int64_t rows = 0;
    if (batch->batch == 0 || grid.team == PLANNER_BLOCK) return;
    sinkhorn_problem q = {};
    slot measured = {};
    system_divide(&q.system, batch->n, batch->m, grid);
    problem_take(&q, &measured);
    call->slot_bytes = measured.used;
    call->lists.problems = (int64_t *)mover_take(arena, 2, batch->batch, sizeof(int64_t));
    call->lists.counts = (int64_t *)mover_take(arena, 2, 2, sizeof(int64_t));
    call->states = (control *)mover_take(arena, 2, batch->batch, sizeof(control));
    call->slots = (char *)mover_take(arena, batch->batch, (int64_t)measured.used, 1);
    if (has_plan) return;
    if (__builtin_mul_overflow(batch->batch, batch->n, &rows)) arena->overflow = 1;
    batch->kernel = (real *)mover_take(arena, rows, batch->m, sizeof(real));
}

void R(mover_cuda_sinkhorn_take)(R(mover_cuda_sinkhorn) * batch, int has_plan, mover_arena *arena) {
    sinkhorn_call call = {};
    call.batch = *batch;
    mover_arena own = {arena->base, arena->used, arena->overflow};
    batch->scratch = arena->base ? arena->base + arena->used : nullptr;
    call_take(&call, has_plan, &own);
    *arena = own;
    batch->kernel = has_plan ? batch->plan : call.batch.kernel;
}

mover_status R(mover_cuda_sinkhorn_solve)(const char *function, const R(mover_cuda_sinkhorn) * batch,
                                          const mover_exec *exec) {
    mover_device device;
    if (batch->batch == 0) return MOVER_OK;
    MOVER_TRY(mover_device_now(function, &device));
    sinkhorn_call call = {};
    mover_arena arena = {(char *)batch->scratch, 0, 0};
    call.batch = *batch;
    call_take(&call, batch->plan != nullptr, &arena);
    if (batch->plan) call.batch.kernel = batch->plan;
    call.options.tol = reachable_tol(batch->tol, batch->epsilon);
    call.options.max_iter = batch->max_iter;
    call.options.solver = (int32_t)batch->solver;
    call.plan = planner_of(batch->n, batch->m, sizeof(real), device.shared_bytes);
    static_assert(sizeof(block_state) <= PLANNER_STATIC, "shared memory that the planner keeps free");
    TICKS_LAUNCH(function, sinkhorn_kernel, call.plan, batch->batch, exec, call);
}

/* ---- the op ----------------------------------------------------------------------------------------------------- */

static R(mover_cuda_sinkhorn) batch_of(const mover_sinkhorn_desc *desc) {
    R(mover_cuda_sinkhorn) batch = {};
    batch.batch = desc->batch;
    batch.n = desc->n;
    batch.m = desc->m;
    batch.epsilon = desc->epsilon;
    batch.tol = desc->tol;
    batch.max_iter = desc->max_iter;
    batch.solver = desc->solver;
    return batch;
}

void R(mover_cuda_sinkhorn_layout)(const mover_sinkhorn_desc *desc, mover_arena *arena) {
    R(mover_cuda_sinkhorn) batch = batch_of(desc);
    R(mover_cuda_sinkhorn_take)(&batch, 1, arena);
}

mover_status R(mover_cuda_sinkhorn_forward)(const mover_sinkhorn_desc *desc, const real *cost, const real *a,
                                            const real *b, real *plan, real *f, real *g, int32_t *n_iter,
                                            real *marginal_error, void *workspace, const mover_exec *exec) {
    mover_arena arena = mover_arena_over(workspace);
    R(mover_cuda_sinkhorn) batch = batch_of(desc);
    batch.cost = cost;
    batch.a = a;
    batch.b = b;
    batch.plan = plan;
    batch.f = f;
    batch.g = g;
    batch.marginal_error = marginal_error;
    batch.n_iter = n_iter;
    R(mover_cuda_sinkhorn_take)(&batch, 1, &arena);
    return R(mover_cuda_sinkhorn_solve)("mover_sinkhorn_forward", &batch, exec);
}
