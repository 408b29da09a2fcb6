/*
 * cost.c: entry points of the cost stage: checks, then the backend.
 */
#include "backend.h"

static mover_status check(const char *function, const mover_cost_desc *desc, const mover_exec *exec) {
    MOVER_TRY(mover_check_pointer(function, "desc", desc, 1));
    MOVER_TRY(mover_check_dtype(function, desc->dtype));
    MOVER_TRY(mover_check_exec(function, exec));
    MOVER_TRY(mover_check_precision(function, desc->precision, exec));
    MOVER_TRY(mover_check_size(function, "batch", desc->batch, 0));
    MOVER_TRY(mover_check_size(function, "n", desc->n, 0));
    MOVER_TRY(mover_check_size(function, "m", desc->m, 0));
    MOVER_TRY(mover_check_size(function, "d", desc->d, 0));
    MOVER_TRY(mover_check_volume(function, desc->batch, desc->n, desc->m));
    MOVER_TRY(mover_check_volume(function, desc->batch, desc->n, desc->d));
    return mover_check_volume(function, desc->batch, desc->m, desc->d);
}

static mover_status workspace_size(const char *function, const mover_cost_desc *desc, int backward, size_t *bytes,
                                   const mover_exec *exec) {
    MOVER_TRY(check(function, desc, exec));
    MOVER_TRY(mover_check_pointer(function, "bytes", bytes, 1));
    mover_arena arena = {0};
    if (backward)
        MOVER_CALL(exec, desc->dtype, cost_backward_layout, desc, &arena);
    else
        MOVER_CALL(exec, desc->dtype, cost_layout, desc, &arena);
    return mover_arena_size(function, &arena, bytes);
}

mover_status mover_cost_forward_workspace_size(const mover_cost_desc *desc, size_t *bytes, const mover_exec *exec) {
    return workspace_size("mover_cost_forward_workspace_size", desc, 0, bytes, exec);
}

mover_status mover_cost_backward_workspace_size(const mover_cost_desc *desc, size_t *bytes, const mover_exec *exec) {
    return workspace_size("mover_cost_backward_workspace_size", desc, 1, bytes, exec);
}

mover_status mover_cost_forward(const mover_cost_desc *desc, const void *x, const void *y, void *cost, void *workspace,
                                size_t bytes, const mover_exec *exec) {
    static const char function[] = "mover_cost_forward";
    size_t needed;
    MOVER_TRY(workspace_size(function, desc, 0, &needed, exec));
    const int64_t count = desc->batch * desc->n * desc->m;
    MOVER_TRY(mover_check_pointer(function, "x", x, desc->batch * desc->n * desc->d));
    MOVER_TRY(mover_check_pointer(function, "y", y, desc->batch * desc->m * desc->d));
    MOVER_TRY(mover_check_pointer(function, "cost", cost, count));
    if (count == 0) return MOVER_OK;
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    return MOVER_CALL(exec, desc->dtype, cost_forward, desc, x, y, cost, workspace, exec);
}

mover_status mover_cost_backward(const mover_cost_desc *desc, const void *x, const void *y, const void *grad_cost,
                                 void *grad_x, void *grad_y, void *workspace, size_t bytes, const mover_exec *exec) {
    static const char function[] = "mover_cost_backward";
    size_t needed;
    MOVER_TRY(workspace_size(function, desc, 1, &needed, exec));
    MOVER_TRY(mover_check_pointer(function, "x", x, desc->batch * desc->n * desc->d));
    MOVER_TRY(mover_check_pointer(function, "y", y, desc->batch * desc->m * desc->d));
    MOVER_TRY(mover_check_pointer(function, "grad_cost", grad_cost, desc->batch * desc->n * desc->m));
    if (desc->batch == 0 || desc->d == 0 || (desc->n == 0 && desc->m == 0)) return MOVER_OK;
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    return MOVER_CALL(exec, desc->dtype, cost_backward, desc, x, y, grad_cost, grad_x, grad_y, workspace, exec);
}
