/*
 * host.cpp: the device, memory and copies of the CUDA runtime.
 */
#include "emulator.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <signal.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

using namespace cuemu;

/* ---- a fault of the machine, told in words ---- */

#if defined(__SANITIZE_ADDRESS__)

static void say_where() {
    if (current) fprintf(stderr, "cuda_on_cpu: bounds: in %s\n", describe(this_thread()).c_str());
}
[[gnu::constructor]] static void watch() { __sanitizer_set_death_callback(say_where); }

#else

constexpr int FAULT_EXIT = 86;
static char fault_stack[64 * 1024];

static void say_fault(int, siginfo_t *info, void *) {
    const uintptr_t address = reinterpret_cast<uintptr_t>(info->si_addr);
    const bool device = in_device_arena(address);
    std::string sentence;
    if (!current)
        sentence = device ? "pointer: host code touches device memory" : "a segmentation fault in host code";
    else if (address - reinterpret_cast<uintptr_t>(this_thread().machine.stack) + PAGE < PAGE)
        sentence = "bounds: stack overflow in " + describe(this_thread());
    else
        sentence = std::string(device    ? "bounds: access outside every device allocation in "
                               : address ? "bounds: access to no memory in "
                                         : "bounds: null pointer, or a misaligned vector, in ") +
                   describe(this_thread());
    sentence = "cuda_on_cpu: " + sentence + text(" (address %p)\n", info->si_addr);
    if (write(STDERR_FILENO, sentence.data(), sentence.size()) < 0) _exit(FAULT_EXIT);
    _exit(FAULT_EXIT);
}

[[gnu::constructor]] static void watch() {
    stack_t stack = {};
    stack.ss_sp = fault_stack;
    stack.ss_size = sizeof fault_stack;
    sigaltstack(&stack, nullptr);
    struct sigaction action = {};
    action.sa_sigaction = say_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
}

#endif

/* ---- the device ---- */

cudaError_t cudaGetDeviceCount(int *count) {
    *count = 1;
    return outcome();
}
cudaError_t cudaGetDevice(int *device) {
    int failure;
    if (asked_to_fail(&failure)) return static_cast<cudaError_t>(failure);
    *device = 0;
    return outcome();
}
cudaError_t cudaSetDevice(int device) { return device == 0 ? outcome() : cudaErrorInvalidDevice; }

cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
    if (device != 0) return cudaErrorInvalidDevice;
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
        *value = 1024;
        break;
    case cudaDevAttrMaxGridDimX:
        *value = 0x7fffffff;
        break;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ:
        *value = 65535;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
        *value = static_cast<int>(SHARED_STATIC_LIMIT);
        break;
    case cudaDevAttrWarpSize:
        *value = 32;
        break;
    case cudaDevAttrMultiProcessorCount:
        *value = config.multiprocessors;
        break;
    case cudaDevAttrL2CacheSize:
        *value = 1 << 20;
        break;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
        *value = 2048;
        break;
    case cudaDevAttrComputeCapabilityMajor:
        *value = config.compute_capability / 10;
        break;
    case cudaDevAttrComputeCapabilityMinor:
        *value = config.compute_capability % 10;
        break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor:
        *value = config.shared_bytes + 1024;
        break;
    case cudaDevAttrSingleToDoublePrecisionPerfRatio:
        *value = config.single_to_double_ratio;
        break;
    case cudaDevAttrCooperativeLaunch:
        *value = 1;
        break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *value = config.shared_bytes;
        break;
    case cudaDevAttrMaxBlocksPerMultiprocessor:
        *value = 32;
        break;
    default:
        return refuse(CALL, cudaErrorInvalidValue, text("cudaDeviceGetAttribute: unknown number %d", attribute));
    }
    return outcome();
}

/* ---- allocation ---- */

static std::map<uintptr_t, size_t> pinned;

cudaError_t cudaMalloc(void **address, size_t bytes) {
    calls.allocations++;
    int failure;
    if (asked_to_fail(&failure)) return static_cast<cudaError_t>(failure);
    *address = bytes ? allocate_device(bytes) : nullptr;
    return bytes && !*address ? cudaErrorMemoryAllocation : outcome();
}

cudaError_t cudaFree(void *address) {
    wait_for_all();
    if (address && !free_device(address))
        return refuse(CALL, cudaErrorInvalidValue, "cudaFree of what cudaMalloc did not return");
    return outcome();
}

cudaError_t cudaMallocAsync(void **address, size_t bytes, cudaStream_t) { return cudaMalloc(address, bytes); }

cudaError_t cudaFreeAsync(void *address, cudaStream_t stream) {
    enqueue(stream, [address] {
        if (address && !free_device(address)) report(CALL, "cudaFreeAsync of what cudaMalloc did not return");
    });
    return outcome();
}

cudaError_t cudaMallocHost(void **address, size_t bytes) {
    *address = malloc(bytes);
    pinned[reinterpret_cast<uintptr_t>(*address)] = bytes;
    return outcome();
}

cudaError_t cudaFreeHost(void *address) {
    wait_for_all();
    pinned.erase(reinterpret_cast<uintptr_t>(address));
    free(address);
    return outcome();
}

static bool is_pinned(const void *address) {
    const uintptr_t a = reinterpret_cast<uintptr_t>(address);
    auto after = pinned.upper_bound(a);
    return after != pinned.begin() && (--after, a < after->first + after->second);
}

/* ---- copies ---- */

/* `height` rows of `width` bytes, `pitch` bytes apart. */
struct rows {
    size_t pitch, width, height;
    size_t extent() const { return width && height ? (height - 1) * pitch + width : 0; }
};

static cudaError_t refuse_rows(const char *function, const char *sentence) {
    return refuse(CALL, cudaErrorInvalidValue, std::string(function) + ": " + sentence);
}

static void mark_written(void *address, const rows &r) {
    for (size_t row = 0; row < r.height; row++) race_written(static_cast<char *>(address) + row * r.pitch, r.width);
}

static cudaError_t copy_rows(const char *function, void *to, rows to_rows, const void *from, rows from_rows,
                             cudaMemcpyKind kind, cudaStream_t stream) {
    int failure;
    if (asked_to_fail(&failure)) return static_cast<cudaError_t>(failure);
    if (outcome() != cudaSuccess) return outcome();
    if (to_rows.width > to_rows.pitch || from_rows.width > from_rows.pitch)
        return refuse_rows(function, "rows are wider than their pitch");
    const size_t height = to_rows.height, width = to_rows.width;
    if (!width || !height) return outcome();
    bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind == cudaMemcpyDefault) to_device = find_allocation(to), from_device = find_allocation(from);
    if (to_device != (find_allocation(to) != nullptr) || from_device != (find_allocation(from) != nullptr))
        return refuse_rows(function, "the direction does not fit the pointers");
    if ((to_device && !is_device_range(to, to_rows.extent())) ||
        (from_device && !is_device_range(from, from_rows.extent())))
        return refuse_rows(function, "leaves its device allocation");
    std::shared_ptr<std::vector<char>> staged; /* pageable memory is read before the call returns */
    if (config.lazy && !from_device && !is_pinned(from)) {
        const char *bytes = static_cast<const char *>(from);
        staged = std::make_shared<std::vector<char>>(bytes, bytes + from_rows.extent());
    }
    enqueue(stream, [=] {
        const device_access open;
        const char *source = staged ? staged->data() : static_cast<const char *>(from);
        for (size_t row = 0; row < height; row++)
            memcpy(static_cast<char *>(to) + row * to_rows.pitch, source + row * from_rows.pitch, width);
        if (to_device) mark_written(to, to_rows);
    });
    return outcome();
}

static cudaError_t set_rows(const char *function, void *address, int value, rows r, cudaStream_t stream) {
    int failure;
    if (asked_to_fail(&failure)) return static_cast<cudaError_t>(failure);
    if (outcome() != cudaSuccess) return outcome();
    if (r.width > r.pitch) return refuse_rows(function, "rows are wider than their pitch");
    if (!is_device_range(address, r.extent())) return refuse_rows(function, "leaves its device allocation");
    enqueue(stream, [=] {
        const device_access open;
        for (size_t row = 0; row < r.height; row++)
            memset(static_cast<char *>(address) + row * r.pitch, value, r.width);
        mark_written(address, r);
    });
    return outcome();
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    const rows r = {bytes, bytes, 1};
    return copy_rows("cudaMemcpyAsync", to, r, from, r, kind, stream);
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, cudaMemcpyKind kind) {
    const rows r = {bytes, bytes, 1};
    const cudaError_t error = copy_rows("cudaMemcpy", to, r, from, r, kind, nullptr);
    const cudaError_t finished = cudaStreamSynchronize(nullptr);
    return error == cudaSuccess ? finished : error;
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
    return copy_rows("cudaMemcpy2DAsync", to, {to_pitch, width, height}, from, {from_pitch, width, height}, kind,
                     stream);
}

cudaError_t cudaMemsetAsync(void *address, int value, size_t bytes, cudaStream_t stream) {
    return set_rows("cudaMemsetAsync", address, value, {bytes, bytes, 1}, stream);
}

cudaError_t cudaMemset(void *address, int value, size_t bytes) {
    return set_rows("cudaMemset", address, value, {bytes, bytes, 1}, nullptr);
}

cudaError_t cudaMemset2DAsync(void *address, size_t pitch, int value, size_t width, size_t height,
                              cudaStream_t stream) {
    return set_rows("cudaMemset2DAsync", address, value, {pitch, width, height}, stream);
}
