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

#include "drive.cuh"
#include "plan_gradient_rows.cuh"
#include "sinkhorn.h"

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

/* Problem p, its vectors and, in team BLOCK, its plan in `shared` once they have been there. */
template <class S>
static __device__ void task_make(const gradient_call &call, int64_t p, int64_t tick, unsigned char *shared,
                                 gradient_task *task) {
    const R(mover_cuda_plan_gradient) &batch = call.batch;
    const int64_t n = batch.n, m = batch.m;
    schur_system *y = &task->system;
    system_divide(y, n, m, call.plan);
    slot from = {(char *)shared, 0};
    y->rows = (real *)slot_take(&from, WARPS * m, sizeof(real));
    task->kept = nullptr;
    if (S::team == PLANNER_BLOCK) {
        task->kept = (real *)slot_take(&from, n * m, sizeof(real));
    } else {
        from.base = call.slots + (size_t)p * call.slot_bytes;
        from.used = 0;
    }
    task_take(task, &from);
    y->row_part += (tick & 1) * ROW_NUMBERS * y->chunks;
    y->plan = task->kept && tick > 0 ? task->kept : batch.plan + p * n * m;
    y->row_sum = task->row_sum;
    y->uniform = 0;
    task->grad_plan = batch.grad_plan + p * n * m;
    task->add_cost = batch.add_cost ? batch.add_cost + p * n * m : nullptr;
    task->grad_cost = batch.grad_cost + p * n * m;
    task->grad_a = batch.grad_a ? batch.grad_a + p * n : nullptr;
    task->grad_b = batch.grad_b ? batch.grad_b + p * m : nullptr;
    task->epsilon = batch.epsilon;
}

template <class S> static __device__ void rows_item(int64_t chunk, gradient_block &here, int &turn) {
    const gradient_task &task = here.task;
    switch (here.s.mode) {
    case PLAN_SUMS:
        plan_sums<S>(task, chunk, here.scratch, turn);
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
        centre_rows(task, here.s.mean_a, here.s.mean_b, here.s.poison, chunk);
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
static __device__ void gradient_decide(gradient_state &s, const double *row, const double *column,
                                       const double *vector) {
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

namespace {

/* See drive.cuh. */
struct gradient_work {
    typedef gradient_call call;
    typedef gradient_state state;
    typedef gradient_block block;

    template <class S>
    static __device__ void place(const call &c, int64_t p, int64_t tick, unsigned char *shared, block &here) {
        task_make<S>(c, p, tick, shared, &here.task);
    }
    static __device__ const schur_system &system(const block &here) { return here.task.system; }
    static __device__ void begin(const call &, state &s) { s = state{}; }
    static __device__ bool has_row_numbers(int32_t mode) { return mode == GRADIENT_SUMS || mode == FINISH; }
    static __device__ bool has_column_numbers(int32_t) { return true; }
    static __device__ bool has_vectors(int32_t mode) { return mode == SOLVE; }
    static __device__ bool is_last(int32_t mode) { return mode == CENTRE; }
    static __device__ void decide(const call &, state &s, const double *row, const double *column,
                                  const double *vector) {
        gradient_decide(s, row, column, vector);
    }
    static __device__ void look(block &) {}
    template <class S> static __device__ void rows(const call &, int64_t, int64_t chunk, block &here, int &turn) {
        rows_item<S>(chunk, here, turn);
    }
    static __device__ void columns(int64_t item, block &here) { columns_item(item, here); }
    static __device__ void vectors(int64_t item, block &here) {
        schur_vectors(here.task.system, here.length, here.mean, nullptr, -1, item, here.scratch);
    }
};

} // namespace

/* Gradients of a batch of plans. Team BLOCK: a block has whole problems, their plan and vectors in its shared memory.
 * Team GRID: all blocks have a share of the rows and of the columns of all problems; a step of conjugate gradients
 * reads every element of a plan once. A thread has the columns of team.cuh and the sums of its columns in registers.
 * Sums run in an order that depends on n and m only. */
template <class S>
static __global__ void __launch_bounds__(THREADS, S::blocks) plan_gradient_kernel(gradient_call call) {
    MOVER_SHARED_DYNAMIC(unsigned char, shared);
    MOVER_SHARED(gradient_block, here, [1]);
    drive<S, gradient_work>(call, shared, here[0]);
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
