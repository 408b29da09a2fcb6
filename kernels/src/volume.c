/*
 * volume.c: entry points of the volume stage, volumes of vectors, of listed groups and the sum over all triples:
 * checks, then the backend.
 */
#include "backend.h"

/* ---- volume ----------------------------------------------------------------------------------------------------- */

static mover_status check_volume(const char *function, const mover_volume_desc *desc, const mover_exec *exec) {
    MOVER_TRY(mover_check_pointer(function, "desc", desc, 1));
    MOVER_TRY(mover_check_dtype(function, desc->dtype));
    MOVER_TRY(mover_check_size(function, "batch", desc->batch, 0));
    MOVER_TRY(mover_check_size(function, "d", desc->d, 0));
    if (desc->k < 1 || desc->k > MOVER_MAX_K)
        return mover_fail(MOVER_ERROR_ARGUMENT, "%s: k must be between 1 and %d, got %lld", function, MOVER_MAX_K,
                          (long long)desc->k);
    if (!(desc->eps >= 0 && desc->eps <= 1e300))
        return mover_fail(MOVER_ERROR_ARGUMENT, "%s: eps must be >= 0 and finite, got %g", function, desc->eps);
    MOVER_TRY(mover_check_volume(function, desc->batch, desc->k, desc->d));
    return mover_check_exec(function, exec);
}

mover_status mover_volume_forward(const mover_volume_desc *desc, const void *v, void *volume, const mover_exec *exec) {
    static const char function[] = "mover_volume_forward";
    MOVER_TRY(check_volume(function, desc, exec));
    MOVER_TRY(mover_check_pointer(function, "v", v, desc->batch * desc->k * desc->d));
    MOVER_TRY(mover_check_pointer(function, "volume", volume, desc->batch));
    if (desc->batch == 0) return MOVER_OK;
    return MOVER_CALL(exec, desc->dtype, volume_forward, desc, v, volume, exec);
}

mover_status mover_volume_backward(const mover_volume_desc *desc, const void *v, const void *grad_volume, void *grad_v,
                                   const mover_exec *exec) {
    static const char function[] = "mover_volume_backward";
    MOVER_TRY(check_volume(function, desc, exec));
    const int64_t count = desc->batch * desc->k * desc->d;
    MOVER_TRY(mover_check_pointer(function, "v", v, count));
    MOVER_TRY(mover_check_pointer(function, "grad_volume", grad_volume, desc->batch));
    MOVER_TRY(mover_check_pointer(function, "grad_v", grad_v, count));
    if (count == 0) return MOVER_OK;
    return MOVER_CALL(exec, desc->dtype, volume_backward, desc, v, grad_volume, grad_v, exec);
}

/* ---- group volume ----------------------------------------------------------------------------------------------- */

static mover_status check_groups(const char *function, const mover_group_volume_desc *desc, const mover_exec *exec) {
    MOVER_TRY(mover_check_pointer(function, "desc", desc, 1));
    MOVER_TRY(mover_check_dtype(function, desc->dtype));
    MOVER_TRY(mover_check_exec(function, exec));
    MOVER_TRY(mover_check_size(function, "n", desc->n, 0));
    MOVER_TRY(mover_check_size(function, "count", desc->count, 0));
    if (desc->k < 2 || desc->k > MOVER_MAX_K)
        return mover_fail(MOVER_ERROR_ARGUMENT, "%s: k must be between 2 and %d, got %lld", function, MOVER_MAX_K,
                          (long long)desc->k);
    MOVER_TRY(mover_check_volume(function, desc->k * (desc->k - 1) / 2, desc->n, desc->n));
    return mover_check_volume(function, desc->count, desc->k, 1);
}

/* Every row number lies in [0, n); those on a device are not read here. */
static mover_status check_row_numbers(const char *function, const mover_group_volume_desc *desc, const int64_t *groups,
                                      const mover_exec *exec) {
    if (mover_on_cuda(exec)) return MOVER_OK;
    for (int64_t t = 0; t < desc->count; t++)
        for (int64_t member = 0; member < desc->k; member++) {
            const int64_t row = groups[t * desc->k + member];
            if (row < 0 || row >= desc->n)
                return mover_fail(MOVER_ERROR_ARGUMENT,
                                  "%s: groups[%lld, %lld] must be a row number from 0 to %lld, got %lld", function,
                                  (long long)t, (long long)member, (long long)(desc->n - 1), (long long)row);
        }
    return MOVER_OK;
}

static mover_status check_listed(const char *function, const mover_group_volume_desc *desc, const void *costs,
                                 const int64_t *groups) {
    MOVER_TRY(mover_check_pointer(function, "costs", costs, desc->n));
    return mover_check_pointer(function, "groups", groups, desc->count);
}

mover_status mover_group_volume_backward_workspace_size(const mover_group_volume_desc *desc, size_t *bytes,
                                                        const mover_exec *exec) {
    static const char function[] = "mover_group_volume_backward_workspace_size";
    MOVER_TRY(check_groups(function, desc, exec));
    MOVER_TRY(mover_check_pointer(function, "bytes", bytes, 1));
    mover_arena arena = {0};
    MOVER_CALL(exec, desc->dtype, group_volume_backward_layout, desc, &arena);
    return mover_arena_size(function, &arena, bytes);
}

mover_status mover_group_volume_forward(const mover_group_volume_desc *desc, const void *costs, const int64_t *groups,
                                        void *volume, const mover_exec *exec) {
    static const char function[] = "mover_group_volume_forward";
    MOVER_TRY(check_groups(function, desc, exec));
    MOVER_TRY(check_listed(function, desc, costs, groups));
    MOVER_TRY(mover_check_pointer(function, "volume", volume, desc->count));
    MOVER_TRY(check_row_numbers(function, desc, groups, exec));
    if (desc->count == 0) return MOVER_OK;
    return MOVER_CALL(exec, desc->dtype, group_volume_forward, desc, costs, groups, volume, exec);
}

mover_status mover_group_volume_backward(const mover_group_volume_desc *desc, const void *costs, const int64_t *groups,
                                         const void *grad_volume, void *grad_costs, void *workspace, size_t bytes,
                                         const mover_exec *exec) {
    static const char function[] = "mover_group_volume_backward";
    size_t needed;
    MOVER_TRY(check_groups(function, desc, exec));
    MOVER_TRY(mover_group_volume_backward_workspace_size(desc, &needed, exec));
    MOVER_TRY(check_listed(function, desc, costs, groups));
    MOVER_TRY(mover_check_pointer(function, "grad_volume", grad_volume, desc->count));
    MOVER_TRY(mover_check_pointer(function, "grad_costs", grad_costs, desc->n));
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    MOVER_TRY(check_row_numbers(function, desc, groups, exec));
    if (desc->n == 0) return MOVER_OK;
    return MOVER_CALL(exec, desc->dtype, group_volume_backward, desc, costs, groups, grad_volume, grad_costs, workspace,
                      exec);
}

/* ---- expected volume -------------------------------------------------------------------------------------------- */

static mover_status expected_size(const char *function, const mover_expected_volume_desc *desc, int backward,
                                  size_t *bytes, const mover_exec *exec) {
    MOVER_TRY(mover_check_pointer(function, "desc", desc, 1));
    MOVER_TRY(mover_check_dtype(function, desc->dtype));
    MOVER_TRY(mover_check_exec(function, exec));
    MOVER_TRY(mover_check_size(function, "n1", desc->n1, 0));
    MOVER_TRY(mover_check_size(function, "n2", desc->n2, 0));
    MOVER_TRY(mover_check_size(function, "n3", desc->n3, 0));
    MOVER_TRY(mover_check_volume(function, desc->n1, desc->n2, 1));
    MOVER_TRY(mover_check_volume(function, desc->n1, desc->n3, 1));
    MOVER_TRY(mover_check_volume(function, desc->n2, desc->n3, 1));
    MOVER_TRY(mover_check_pointer(function, "bytes", bytes, 1));
    mover_arena arena = {0};
    if (backward)
        MOVER_CALL(exec, desc->dtype, expected_volume_backward_layout, desc, &arena);
    else
        MOVER_CALL(exec, desc->dtype, expected_volume_layout, desc, &arena);
    return mover_arena_size(function, &arena, bytes);
}

mover_status mover_expected_volume_forward_workspace_size(const mover_expected_volume_desc *desc, size_t *bytes,
                                                          const mover_exec *exec) {
    return expected_size("mover_expected_volume_forward_workspace_size", desc, 0, bytes, exec);
}

mover_status mover_expected_volume_backward_workspace_size(const mover_expected_volume_desc *desc, size_t *bytes,
                                                           const mover_exec *exec) {
    return expected_size("mover_expected_volume_backward_workspace_size", desc, 1, bytes, exec);
}

static mover_status check_costs(const char *function, const mover_expected_volume_desc *desc, const void *c12,
                                const void *c13, const void *c23) {
    MOVER_TRY(mover_check_pointer(function, "c12", c12, desc->n1 * desc->n2));
    MOVER_TRY(mover_check_pointer(function, "c13", c13, desc->n1 * desc->n3));
    return mover_check_pointer(function, "c23", c23, desc->n2 * desc->n3);
}

mover_status mover_expected_volume_forward(const mover_expected_volume_desc *desc, const void *c12, const void *c13,
                                           const void *c23, const void *p12, const void *p13, const void *p23,
                                           void *value, void *workspace, size_t bytes, const mover_exec *exec) {
    static const char function[] = "mover_expected_volume_forward";
    size_t needed;
    MOVER_TRY(expected_size(function, desc, 0, &needed, exec));
    MOVER_TRY(check_costs(function, desc, c12, c13, c23));
    MOVER_TRY(mover_check_pointer(function, "value", value, 1));
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    return MOVER_CALL(exec, desc->dtype, expected_volume_forward, desc, c12, c13, c23, p12, p13, p23, value, workspace,
                      exec);
}

mover_status mover_expected_volume_backward(const mover_expected_volume_desc *desc, const void *c12, const void *c13,
                                            const void *c23, const void *p12, const void *p13, const void *p23,
                                            const void *grad_value, void *value, void *grad_c12, void *grad_c13,
                                            void *grad_c23, void *grad_p12, void *grad_p13, void *grad_p23,
                                            void *workspace, size_t bytes, const mover_exec *exec) {
    static const char function[] = "mover_expected_volume_backward";
    size_t needed;
    MOVER_TRY(expected_size(function, desc, 1, &needed, exec));
    MOVER_TRY(check_costs(function, desc, c12, c13, c23));
    MOVER_TRY(mover_check_workspace(function, workspace, bytes, needed));
    return MOVER_CALL(exec, desc->dtype, expected_volume_backward, desc, c12, c13, c23, p12, p13, p23, grad_value,
                      value, grad_c12, grad_c13, grad_c23, grad_p12, grad_p13, grad_p23, workspace, exec);
}
