/*
 * sinkhorn.c: entry points of the sinkhorn stage, `transport` included: checks, then the backend.
 */
#include "backend.h"

static mover_status check_options(const char *function, double epsilon, double tol, int32_t max_iter,
                                  mover_solver solver) {
    if (!(epsilon > 0 && epsilon <= 1e300))
        return mover_fail(MOVER_ERROR_ARGUMENT, "%s: epsilon must be > 0 and finite, got %g", function, epsilon);
    if (!(tol >= 0)) return mover_fail(MOVER_ERROR_ARGUMENT, "%s: tol must be >= 0, got %g", function, tol);
    MOVER_TRY(mover_check_size(function, "max_iter", max_iter, 1));
    if (solver == MOVER_SOLVER_AUTO || solver == MOVER_SOLVER_SINKHORN || solver == MOVER_SOLVER_NEWTON)
        return MOVER_OK;
    return mover_fail(MOVER_ERROR_ARGUMENT, "%s: solver must be MOVER_SOLVER_AUTO, _SINKHORN or _NEWTON, got %d",
                      function, (int)solver);
}

/* A problem without rows or columns has no plan: sizes are all positive or the batch is empty. */
static mover_status check_sizes(const char *function, int64_t batch, int64_t n, int64_t m, int64_t d) {
    MOVER_TRY(mover_check_size(function, "batch", batch, 0));
    MOVER_TRY(mover_check_size(function, "n", n, 0));
    MOVER_TRY(mover_check_size(function, "m", m, 0));
    MOVER_TRY(mover_check_size(function, "d", d, 0));
    MOVER_TRY(mover_check_volume(function, batch, n, m));
    MOVER_TRY(mover_check_volume(function, batch, n, d));
    return mover_check_volume(function, batch, m, d);
}

/* ---- sinkhorn --------------------------------------------------------------------------------------------------- */

static mover_status sinkhorn_size(const char *function, const mover_sinkhorn_desc *desc, int backward, size_t *bytes,
                                  const mover_exec *exec) {
    MOVER_TRY(mover_check_pointer(function, "desc", desc, 1));
    MOVER_TRY(mover_check_dtype(function, desc->dtype));
    MOVER_TRY(mover_check_exec(function, exec));
    MOVER_TRY(check_options(function, desc->epsilon, desc->tol, desc->max_iter, desc->solver));
    MOVER_TRY(check_sizes(function, desc->batch, desc->n, desc->m, 0));
    MOVER_TRY(mover_check_pointer(function, "bytes", bytes, 1));
    mover_arena arena = {0};
    if (backward)
        MOVER_CALL(exec, desc->dtype, sinkhorn_backward_layout, desc, &arena);
    else
        MOVER_CALL(exec, desc->dtype, sinkhorn_layout, desc, &arena);
    return mover_arena_size(function, &arena, bytes);
}

mover_status mover_sinkhorn_forward_workspace_size(const mover_sinkhorn_desc *desc, size_t *bytes,
                                                   const mover_exec *exec) {
    return sinkhorn_size("mover_sinkhorn_forward_workspace_size", desc, 0, bytes, exec);
}

mover_status mover_sinkhorn_backward_workspace_size(const mover_sinkhorn_desc *desc, size_t *bytes,
                                                    const mover_exec *exec) {
    return sinkhorn_size("mover_sinkhorn_backward_workspace_size", desc, 1, bytes, exec);
}

mover_status mover_sinkhorn_forward(const mover_sinkhorn_desc *desc, const void *cost, const void *a, const void *b,
                                    void *plan, void *f, void *g, int32_t *n_iter, void *marginal_error,
                                    void *workspace, size_t bytes, const mover_exec *exec) {
    static const char function[] = "mover_sinkhorn_forward";
    size_t needed;
    MOVER_TRY(sinkhorn_size(function, desc, 0, &needed, exec));
    const int64_t batch = desc->batch, count = batch * desc->n * desc->m;
    MOVER_TRY(mover_check_pointer(function, "cost", cost, count));
    MOVER_TRY(mover_check_pointer(function, "plan", plan, count));
    MOVER_TRY(mover_check_pointer(function, "f", f, batch * desc->n));
    MOVER_TRY(mover_check_pointer(function, "g", g, batch * desc->m));
    MOVER_TRY(mover_check_pointer(function, "n_iter", n_iter, batch));
    MOVER_TRY(mover_check_pointer(function, "marginal_error", marginal_error, batch));
    if (batch == 0) return MOVER_OK;
    MOVER_TRY(mover_check_size(function, "n", desc->n, 1));
    MOVER_TRY(mover_check_size(function, "m", desc->m, 1));
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    return MOVER_CALL(exec, desc->dtype, sinkhorn_forward, desc, cost, a, b, plan, f, g, n_iter, marginal_error,
                      workspace, exec);
}

mover_status mover_sinkhorn_backward(const mover_sinkhorn_desc *desc, const void *plan, const void *grad_plan,
                                     void *grad_cost, void *grad_a, void *grad_b, void *workspace, size_t bytes,
                                     const mover_exec *exec) {
    static const char function[] = "mover_sinkhorn_backward";
    size_t needed;
    MOVER_TRY(sinkhorn_size(function, desc, 1, &needed, exec));
    const int64_t count = desc->batch * desc->n * desc->m;
    MOVER_TRY(mover_check_pointer(function, "plan", plan, count));
    MOVER_TRY(mover_check_pointer(function, "grad_plan", grad_plan, count));
    MOVER_TRY(mover_check_pointer(function, "grad_cost", grad_cost, count));
    if (count == 0) return MOVER_OK;
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    return MOVER_CALL(exec, desc->dtype, sinkhorn_backward, desc, plan, grad_plan, grad_cost, grad_a, grad_b, workspace,
                      exec);
}

/* ---- transport -------------------------------------------------------------------------------------------------- */

typedef enum transport_call { FORWARD, BACKWARD, VALUE_FORWARD, VALUE_BACKWARD } transport_call;

/* Checks the descriptor and measures the workspace of a call. */
static mover_status transport_size(const char *function, const mover_transport_desc *desc, transport_call call,
                                   size_t *bytes, const mover_exec *exec) {
    MOVER_TRY(mover_check_pointer(function, "desc", desc, 1));
    MOVER_TRY(mover_check_dtype(function, desc->dtype));
    MOVER_TRY(mover_check_exec(function, exec));
    MOVER_TRY(mover_check_precision(function, desc->precision, exec));
    MOVER_TRY(check_options(function, desc->epsilon, desc->tol, desc->max_iter, desc->solver));
    MOVER_TRY(check_sizes(function, desc->batch, desc->n, desc->m, desc->d));
    MOVER_TRY(mover_check_pointer(function, "bytes", bytes, 1));
    mover_arena arena = {0};
    switch (call) {
    case FORWARD:
        MOVER_CALL(exec, desc->dtype, transport_layout, desc, &arena);
        break;
    case BACKWARD:
        MOVER_CALL(exec, desc->dtype, transport_backward_layout, desc, &arena);
        break;
    case VALUE_FORWARD:
        MOVER_CALL(exec, desc->dtype, transport_value_layout, desc, &arena);
        break;
    case VALUE_BACKWARD:
        MOVER_CALL(exec, desc->dtype, transport_value_backward_layout, desc, &arena);
        break;
    }
    return mover_arena_size(function, &arena, bytes);
}

mover_status mover_transport_forward_workspace_size(const mover_transport_desc *desc, size_t *bytes,
                                                    const mover_exec *exec) {
    return transport_size("mover_transport_forward_workspace_size", desc, FORWARD, bytes, exec);
}

mover_status mover_transport_backward_workspace_size(const mover_transport_desc *desc, size_t *bytes,
                                                     const mover_exec *exec) {
    return transport_size("mover_transport_backward_workspace_size", desc, BACKWARD, bytes, exec);
}

mover_status mover_transport_value_forward_workspace_size(const mover_transport_desc *desc, size_t *bytes,
                                                          const mover_exec *exec) {
    return transport_size("mover_transport_value_forward_workspace_size", desc, VALUE_FORWARD, bytes, exec);
}

mover_status mover_transport_value_backward_workspace_size(const mover_transport_desc *desc, size_t *bytes,
                                                           const mover_exec *exec) {
    return transport_size("mover_transport_value_backward_workspace_size", desc, VALUE_BACKWARD, bytes, exec);
}

/* Rows are there, and every problem of a batch has some. */
static mover_status check_rows(const char *function, const mover_transport_desc *desc, const void *x, const void *y) {
    MOVER_TRY(mover_check_pointer(function, "x", x, desc->batch * desc->n * desc->d));
    MOVER_TRY(mover_check_pointer(function, "y", y, desc->batch * desc->m * desc->d));
    if (desc->batch == 0) return MOVER_OK;
    MOVER_TRY(mover_check_size(function, "n", desc->n, 1));
    return mover_check_size(function, "m", desc->m, 1);
}

mover_status mover_transport_forward(const mover_transport_desc *desc, const void *x, const void *y, const void *a,
                                     const void *b, void *plan, void *cost, void *f, void *g, int32_t *n_iter,
                                     void *marginal_error, void *workspace, size_t bytes, const mover_exec *exec) {
    static const char function[] = "mover_transport_forward";
    size_t needed;
    MOVER_TRY(transport_size(function, desc, FORWARD, &needed, exec));
    MOVER_TRY(check_rows(function, desc, x, y));
    const int64_t batch = desc->batch, count = batch * desc->n * desc->m;
    MOVER_TRY(mover_check_pointer(function, "plan", plan, count));
    MOVER_TRY(mover_check_pointer(function, "cost", cost, count));
    MOVER_TRY(mover_check_pointer(function, "f", f, batch));
    MOVER_TRY(mover_check_pointer(function, "g", g, batch));
    MOVER_TRY(mover_check_pointer(function, "n_iter", n_iter, batch));
    MOVER_TRY(mover_check_pointer(function, "marginal_error", marginal_error, batch));
    if (batch == 0) return MOVER_OK;
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    return MOVER_CALL(exec, desc->dtype, transport_forward, desc, x, y, a, b, plan, cost, f, g, n_iter, marginal_error,
                      workspace, exec);
}

mover_status mover_transport_backward(const mover_transport_desc *desc, const void *x, const void *y, const void *plan,
                                      const void *grad_plan, const void *grad_cost, void *grad_x, void *grad_y,
                                      void *grad_a, void *grad_b, void *workspace, size_t bytes,
                                      const mover_exec *exec) {
    static const char function[] = "mover_transport_backward";
    size_t needed;
    MOVER_TRY(transport_size(function, desc, BACKWARD, &needed, exec));
    MOVER_TRY(check_rows(function, desc, x, y));
    if (desc->batch == 0) return MOVER_OK;
    MOVER_TRY(mover_check_pointer(function, "plan", plan, 1));
    if (!grad_plan && !grad_cost)
        return mover_fail(MOVER_ERROR_ARGUMENT, "%s: grad_plan and grad_cost must not both be NULL", function);
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    return MOVER_CALL(exec, desc->dtype, transport_backward, desc, x, y, plan, grad_plan, grad_cost, grad_x, grad_y,
                      grad_a, grad_b, workspace, exec);
}

mover_status mover_transport_value_forward(const mover_transport_desc *desc, const void *x, const void *y,
                                           const void *a, const void *b, void *value, void *f, void *g, void *workspace,
                                           size_t bytes, const mover_exec *exec) {
    static const char function[] = "mover_transport_value_forward";
    size_t needed;
    MOVER_TRY(transport_size(function, desc, VALUE_FORWARD, &needed, exec));
    MOVER_TRY(check_rows(function, desc, x, y));
    MOVER_TRY(mover_check_pointer(function, "value", value, desc->batch));
    MOVER_TRY(mover_check_pointer(function, "f", f, desc->batch));
    MOVER_TRY(mover_check_pointer(function, "g", g, desc->batch));
    if (desc->batch == 0) return MOVER_OK;
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    return MOVER_CALL(exec, desc->dtype, transport_value_forward, desc, x, y, a, b, value, f, g, workspace, exec);
}

mover_status mover_transport_value_backward(const mover_transport_desc *desc, const void *x, const void *y,
                                            const void *a, const void *b, const void *f, const void *g,
                                            const void *grad_value, void *grad_x, void *grad_y, void *grad_a,
                                            void *grad_b, void *workspace, size_t bytes, const mover_exec *exec) {
    static const char function[] = "mover_transport_value_backward";
    size_t needed;
    MOVER_TRY(transport_size(function, desc, VALUE_BACKWARD, &needed, exec));
    MOVER_TRY(check_rows(function, desc, x, y));
    MOVER_TRY(mover_check_pointer(function, "f", f, desc->batch));
    MOVER_TRY(mover_check_pointer(function, "g", g, desc->batch));
    MOVER_TRY(mover_check_pointer(function, "grad_value", grad_value, desc->batch));
    if (desc->batch == 0) return MOVER_OK;
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    return MOVER_CALL(exec, desc->dtype, transport_value_backward, desc, x, y, a, b, f, g, grad_value, grad_x, grad_y,
                      grad_a, grad_b, workspace, exec);
}
