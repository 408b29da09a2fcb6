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

#include "drive.cuh"
#include "finish.cuh"
#include "sinkhorn.h"

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

/* Whether the pass over the rows reads the costs, or the kernel that it left. All threads of the block. */
static __device__ void look_at_scales(block_state &here) {
    control &s = here.s;
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

namespace {

/* See drive.cuh. */
struct sinkhorn_work {
    typedef sinkhorn_call call;
    typedef control state;
    typedef block_state block;

    template <class S>
    static __device__ void place(const call &c, int64_t p, int64_t tick, unsigned char *shared, block &here) {
        problem_make<S>(c, p, tick, shared, &here.q);
    }
    static __device__ const schur_system &system(const block &here) { return here.q.system; }
    static __device__ void begin(const call &c, state &s) { control_begin(s, c.options); }
    static __device__ bool has_row_numbers(int32_t mode) {
        return mode != PREPARE && mode != STEP && mode != MOVE && mode != LEAVE;
    }
    static __device__ bool has_column_numbers(int32_t mode) { return mode != MOVE; }
    static __device__ bool has_vectors(int32_t mode) { return mode == STEP; }
    static __device__ bool is_last(int32_t mode) { return ::is_last(mode); }
    static __device__ void decide(const call &c, state &s, const double *row, const double *column,
                                  const double *vector) {
        control_decide(s, c.options, row, column, vector);
    }
    static __device__ void look(block &here) { look_at_scales(here); }
    template <class S> static __device__ void rows(const call &c, int64_t p, int64_t chunk, block &here, int &turn) {
        rows_item<S>(c, p, chunk, here, turn);
    }
    static __device__ void columns(int64_t item, block &here) { columns_item(item, here); }
    static __device__ void vectors(int64_t item, block &here) {
        schur_vectors(here.q.system, here.length, here.mean, here.q.b, here.q.uniform_b, item, here.scratch);
    }
};

} // namespace

/* Solves a batch. Team BLOCK: a block has whole problems, their kernel, vectors and sums in its shared memory, n m
 * numbers and some; the costs are read once, and again where the kernel is made again. Team GRID: all blocks have a
 * share of the rows and of the columns of all problems; a tick reads every element of a kernel once. A thread has the
 * columns of team.cuh and the sums of its columns in registers. Sums run in an order that depends on n and m only. */
template <class S> static __global__ void __launch_bounds__(THREADS, S::blocks) sinkhorn_kernel(sinkhorn_call call) {
    MOVER_SHARED_DYNAMIC(unsigned char, shared);
    MOVER_SHARED(block_state, here, [1]);
    drive<S, sinkhorn_work>(call, shared, here[0]);
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
