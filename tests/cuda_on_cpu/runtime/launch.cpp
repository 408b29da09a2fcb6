/*
 * launch.cpp: what a device checks before it runs a kernel.
 */
#include "emulator.h"

#include <algorithm>

extern "C" {
extern const char __executable_start, _end; /* the program: device variables lie in it */
}

namespace cuemu {

static int blocks_per_multiprocessor(const void *kernel, size_t threads, size_t dynamic_bytes) {
    const size_t all_registers = 65536, all_threads = 2048, all_blocks = 32, reserved = 1024;
    const size_t warps = (threads + 31) / 32;
    const size_t registers = std::min<size_t>(static_cast<size_t>(config.registers_of_thread),
                                              all_registers / (32 * std::max<size_t>(warps, 1)));
    const size_t shared = known_static_bytes(kernel) + dynamic_bytes + reserved;
    const size_t all_shared = static_cast<size_t>(config.shared_bytes) + reserved;
    return static_cast<int>(std::min(
        {all_blocks, all_threads / (32 * warps), all_registers / (32 * warps * registers), all_shared / shared}));
}

void check_argument(const char *kernel, int index, const void *pointer) {
    const char *byte = static_cast<const char *>(pointer);
    if (!pointer || (byte >= &__executable_start && byte < &_end)) return;
    if (find_allocation(pointer) || find_allocation(byte - 1)) return; /* or just behind one */
    report(POINTER, text("%s: argument %d points to no device memory", kernel, index));
}

static cudaError_t check(const launch_request &r) {
    const uint64_t threads = uint64_t(r.block.x) * r.block.y * r.block.z;
    const uint64_t blocks = uint64_t(r.grid.x) * r.grid.y * r.grid.z;
    const std::string name = r.name;
    if (threads == 0 || threads > 1024 || r.block.z > 64)
        return refuse(LAUNCH, cudaErrorInvalidConfiguration,
                      name + text(": a block of %u x %u x %u threads", r.block.x, r.block.y, r.block.z));
    if (blocks == 0 || r.grid.x > 0x7fffffffu || r.grid.y > 65535 || r.grid.z > 65535 || blocks > 0xffffffffu)
        return refuse(LAUNCH, cudaErrorInvalidConfiguration,
                      name + text(": a grid of %u x %u x %u blocks", r.grid.x, r.grid.y, r.grid.z));
    if (r.dynamic_bytes > dynamic_limit(r.kernel))
        return refuse(LAUNCH, cudaErrorInvalidValue,
                      name + text(": %zu bytes of dynamic shared memory, allowed are %zu", r.dynamic_bytes,
                                  dynamic_limit(r.kernel)));
    if (!r.cooperative) return cudaSuccess;
    const uint64_t fit = uint64_t(blocks_per_multiprocessor(r.kernel, threads, r.dynamic_bytes)) *
                         static_cast<unsigned>(config.multiprocessors);
    if (blocks > fit)
        return refuse(LAUNCH, cudaErrorCooperativeLaunchTooLarge,
                      name + text(": %llu blocks in a cooperative launch, %llu fit",
                                  static_cast<unsigned long long>(blocks), static_cast<unsigned long long>(fit)));
    return cudaSuccess;
}

cudaError_t submit(const launch_request &request) {
    const auto launch = std::make_shared<launch_run>(request);
    calls.launches++;
    int failure;
    if (asked_to_fail(&failure)) return static_cast<cudaError_t>(failure);
    if (outcome() != cudaSuccess) return outcome();
    const cudaError_t error = check(request);
    if (error != cudaSuccess) {
        (void)cudaGetLastError(); /* a launch returns its error and leaves none behind */
        return error;
    }
    launch->blocks = request.grid.x * request.grid.y * request.grid.z;
    enqueue(request.stream, [launch] {
        if (outcome() != cudaSuccess) return; /* the device is lost */
        const device_access open;
        run_blocks(*launch);
        check_margins(launch->name.c_str());
    });
    return outcome();
}

} // namespace cuemu

using namespace cuemu;

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, const void *kernel, int threads,
                                                          size_t dynamic_shared_bytes) {
    if (threads < 1 || threads > 1024)
        return refuse(CALL, cudaErrorInvalidValue,
                      text("cudaOccupancyMaxActiveBlocksPerMultiprocessor: %d threads", threads));
    *blocks = blocks_per_multiprocessor(kernel, static_cast<size_t>(threads), dynamic_shared_bytes);
    if (dynamic_shared_bytes > dynamic_limit(kernel)) *blocks = 0;
    return outcome();
}

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value) {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return outcome();
    if (value < 0 || value > config.shared_bytes)
        return refuse(
            CALL, cudaErrorInvalidValue,
            text("cudaFuncSetAttribute: %d bytes of dynamic shared memory, at most %d", value, config.shared_bytes));
    set_dynamic_limit(kernel, static_cast<size_t>(value));
    return outcome();
}
