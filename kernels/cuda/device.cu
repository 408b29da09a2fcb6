/*
 * device.cu: see device.h.
 */
#include "device.h"

#include "planner.h"

mover_status mover_cuda_check(const char *function, cudaError_t error) {
    if (error == cudaSuccess) return MOVER_OK;
    return mover_fail(MOVER_ERROR_CUDA, "%s: CUDA reported %s: %s", function, cudaGetErrorName(error),
                      cudaGetErrorString(error));
}

mover_status mover_cuda_zero(const mover_exec *exec, void *data, size_t bytes) {
    return mover_cuda_check("mover_zero", cudaMemsetAsync(data, 0, bytes, mover_stream(exec)));
}

mover_status mover_device_now(const char *function, mover_device *device) {
    int number = 0;
    MOVER_CUDA_TRY(function, cudaGetDevice(&number));
    MOVER_CUDA_TRY(function, cudaDeviceGetAttribute(&device->multiprocessors, cudaDevAttrMultiProcessorCount, number));
    return mover_cuda_check(
        function, cudaDeviceGetAttribute(&device->shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, number));
}

mover_status mover_allow_shared(const char *function, const void *kernel, size_t shared_bytes) {
    mover_device device;
    if (shared_bytes + PLANNER_STATIC <= PLANNER_ALWAYS) return MOVER_OK;
    MOVER_TRY(mover_device_now(function, &device));
    return mover_cuda_check(function, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                           device.shared_bytes - PLANNER_STATIC));
}

mover_status mover_cooperative_blocks(const char *function, const void *kernel, int threads, size_t shared_bytes,
                                      int *blocks) {
    mover_device device;
    int each = 0;
    MOVER_TRY(mover_device_now(function, &device));
    MOVER_TRY(mover_allow_shared(function, kernel, shared_bytes));
    MOVER_CUDA_TRY(function, cudaOccupancyMaxActiveBlocksPerMultiprocessor(&each, kernel, threads, shared_bytes));
    *blocks = each * device.multiprocessors;
    return MOVER_OK;
}
