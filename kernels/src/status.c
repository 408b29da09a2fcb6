/*
 * status.c: status texts, the last error of each thread, and the checks that record one.
 */
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>

static _Thread_local char last_error[512];

const char *mover_status_string(mover_status status) {
    switch (status) {
    case MOVER_OK:
        return "success";
    case MOVER_ERROR_ARGUMENT:
        return "an argument is not acceptable";
    case MOVER_ERROR_OVERFLOW:
        return "a size does not fit the address space";
    case MOVER_ERROR_WORKSPACE:
        return "the workspace is too small";
    case MOVER_ERROR_UNSUPPORTED:
        return "not offered by this build";
    case MOVER_ERROR_HOST:
        return "a function lent by the host failed";
    case MOVER_ERROR_CUDA:
        return "CUDA, cuBLAS or cuSOLVER reported an error";
    }
    return "unknown status";
}

const char *mover_last_error(void) { return last_error; }

const char *mover_version(void) { return MOVER_VERSION_STRING; }

mover_status mover_fail(mover_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(last_error, sizeof last_error, format, arguments);
    va_end(arguments);
    return status;
}

mover_status mover_check_size(const char *function, const char *name, int64_t value, int64_t least) {
    if (value >= least) return MOVER_OK;
    return mover_fail(MOVER_ERROR_ARGUMENT, "%s: %s must be >= %lld, got %lld", function, name, (long long)least,
                      (long long)value);
}

mover_status mover_check_pointer(const char *function, const char *name, const void *pointer, int64_t count) {
    if (pointer || count == 0) return MOVER_OK;
    return mover_fail(MOVER_ERROR_ARGUMENT, "%s: %s must not be NULL", function, name);
}

mover_status mover_check_workspace(const char *function, const void *workspace, size_t bytes, size_t needed) {
    if (bytes >= needed && (workspace || needed == 0)) return MOVER_OK;
    return mover_fail(MOVER_ERROR_WORKSPACE,
                      "%s: the workspace must have at least %zu bytes (ask the matching _workspace_size function), "
                      "got %zu",
                      function, needed, workspace ? bytes : (size_t)0);
}

mover_status mover_check_dtype(const char *function, mover_dtype dtype) {
    if (dtype == MOVER_FLOAT32 || dtype == MOVER_FLOAT64) return MOVER_OK;
    return mover_fail(MOVER_ERROR_ARGUMENT, "%s: dtype must be MOVER_FLOAT32 or MOVER_FLOAT64, got %d", function,
                      (int)dtype);
}

mover_status mover_check_precision(const char *function, mover_precision precision, const mover_exec *exec) {
    if (precision == MOVER_PRECISION_FLOAT32) return MOVER_OK;
    if (precision == MOVER_PRECISION_TF32 && mover_on_cuda(exec)) return MOVER_OK;
    if (precision == MOVER_PRECISION_TF32)
        return mover_fail(MOVER_ERROR_UNSUPPORTED, "%s: precision tf32 exists on CUDA only; use float32", function);
    return mover_fail(MOVER_ERROR_ARGUMENT, "%s: precision must be MOVER_PRECISION_FLOAT32 or _TF32, got %d", function,
                      (int)precision);
}

mover_status mover_check_volume(const char *function, int64_t n1, int64_t n2, int64_t n3) {
    const int64_t most = INT64_MAX / (int64_t)sizeof(double);
    /* An empty array fits, but the product of its other sizes must, too: callers multiply in any order. */
    const int64_t m1 = mover_max(n1, 1), m2 = mover_max(n2, 1), m3 = mover_max(n3, 1);
    if (m1 <= most / m2 && m1 * m2 <= most / m3) return MOVER_OK;
    return mover_fail(MOVER_ERROR_OVERFLOW,
                      "%s: an array of %lld x %lld x %lld elements does not fit the address space", function,
                      (long long)n1, (long long)n2, (long long)n3);
}

mover_status mover_check_exec(const char *function, const mover_exec *exec) {
    if (!exec || exec->backend == MOVER_CPU) return MOVER_OK;
#if defined(MOVER_WITH_CUDA)
    if (exec->backend == MOVER_CUDA) return MOVER_OK;
#endif
    if (exec->backend == MOVER_CUDA)
        return mover_fail(MOVER_ERROR_UNSUPPORTED, "%s: this build has no CUDA backend; use MOVER_CPU", function);
    return mover_fail(MOVER_ERROR_ARGUMENT, "%s: backend must be MOVER_CPU or MOVER_CUDA, got %d", function,
                      (int)exec->backend);
}
