// host_cuda.cpp: torch's current stream, its cuBLAS handle and its allocator, lent to libmover; cuSOLVER handles of our
// own, which torch does not lend.
#include "host.h"

#include <limits>
#include <map>
#include <mutex>
#include <vector>

#include <cuda_runtime.h>
#include <cusolverDn.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/c/shim.h>

namespace mover_torch {
namespace {

// Handles that no thread holds, by device. A handle is made once (that takes milliseconds and device memory), belongs
// to one thread at a time and outlives everything: at the exit of the process CUDA may be gone before static objects
// are.
struct SolverPool {
    std::mutex mutex;
    std::map<int32_t, std::vector<cusolverDnHandle_t>> idle;
};

SolverPool &pool() {
    static SolverPool *const instance = new SolverPool;
    return *instance;
}

// The handles of one thread, which go back to the pool with it.
struct ThreadSolvers {
    std::map<int32_t, cusolverDnHandle_t> held;

    ~ThreadSolvers() {
        const std::lock_guard<std::mutex> lock(pool().mutex);
        for (const auto &[device, handle] : held) pool().idle[device].push_back(handle);
    }
};

cusolverDnHandle_t solver_for(int32_t device) {
    thread_local ThreadSolvers mine;
    cusolverDnHandle_t &handle = mine.held[device];
    if (handle == nullptr) {
        const std::lock_guard<std::mutex> lock(pool().mutex);
        std::vector<cusolverDnHandle_t> &idle = pool().idle[device];
        if (!idle.empty()) {
            handle = idle.back();
            idle.pop_back();
        }
    }
    if (handle == nullptr) {
        const cusolverStatus_t status = cusolverDnCreate(&handle);
        require(status == CUSOLVER_STATUS_SUCCESS, "logdet", "cuSOLVER cannot start on device ", device, " (status ",
                static_cast<int>(status), "); use backend='registers' for k <= ", int{MOVER_MAX_K});
    }
    return handle;
}

} // namespace

struct Host::Device {
    explicit Device(int32_t index) : guard(index) {}
    torch::stable::accelerator::DeviceGuard guard;
};

Host::Host(const Tensor &like, std::initializer_list<int64_t> products, bool factorizes)
    : device_(std::make_unique<Device>(like.get_device_index())) {
    exec_.backend = MOVER_CUDA;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(like.get_device_index(), &exec_.stream));
    if (products.size()) STABLE_TORCH_ERROR_CODE_CHECK(torch_get_current_cuda_blas_handle(&exec_.blas));
    if (factorizes) exec_.solver = solver_for(like.get_device_index());
}

Host::~Host() = default;

double device_memory(const Tensor &like) {
    cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, like.get_device_index()) != cudaSuccess)
        return std::numeric_limits<double>::infinity();
    return static_cast<double>(properties.totalGlobalMem);
}

void prepare_memory(void * /*memory*/, size_t /*bytes*/) {}

} // namespace mover_torch
