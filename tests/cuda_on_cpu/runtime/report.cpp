/*
 * report.cpp: reports, errors that stick, failures on request, the configuration.
 */
#include "emulator.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>

namespace cuemu {

/* ---- configuration ---- */

static long long environment_number(const char *name, long long otherwise) {
    const char *value = getenv(name);
    if (!value || !*value) return otherwise;
    char *end = nullptr;
    const long long number = strtoll(value, &end, 10);
    if (*end) {
        fprintf(stderr, "cuda_on_cpu: %s must be a number, got '%s'\n", name, value);
        exit(2);
    }
    return number;
}

static schedule environment_schedule() {
    const char *value = getenv("CUEMU_SCHEDULE");
    const std::string name = value ? value : "forward";
    if (name == "forward" || name.empty()) return FORWARD;
    if (name == "reverse") return REVERSE;
    if (name == "random") return RANDOM;
    fprintf(stderr, "cuda_on_cpu: CUEMU_SCHEDULE must be forward, reverse or random, got '%s'\n", value);
    exit(2);
}

static configuration from_environment() {
    configuration c;
    c.order = environment_schedule();
    c.seed = static_cast<uint64_t>(environment_number("CUEMU_SEED", 1));
    c.lazy = environment_number("CUEMU_LAZY", 0) != 0;
    c.ulp = static_cast<float>(environment_number("CUEMU_ULP", 0));
    c.multiprocessors = static_cast<int>(environment_number("CUEMU_SMS", c.multiprocessors));
    c.shared_bytes = static_cast<int>(environment_number("CUEMU_SHARED_BYTES", c.shared_bytes));
    c.compute_capability = static_cast<int>(environment_number("CUEMU_COMPUTE_CAPABILITY", c.compute_capability));
    c.single_to_double_ratio = static_cast<int>(environment_number("CUEMU_SINGLE_TO_DOUBLE", c.single_to_double_ratio));
    c.registers_of_thread = static_cast<int>(environment_number("CUEMU_REGISTERS", c.registers_of_thread));
    c.stack_bytes = static_cast<size_t>(environment_number("CUEMU_STACK_BYTES", static_cast<long>(c.stack_bytes)));
    c.quiet = environment_number("CUEMU_QUIET", 0) != 0;
    return c;
}

configuration config = from_environment();
host_calls calls;

/* ---- reports ---- */

static const char *const kind_names[REPORT_KINDS] = {"barrier", "warp",   "deadlock", "race", "uninitialised",
                                                     "bounds",  "launch", "pointer",  "call"};
static long counts[REPORT_KINDS];
static std::string all_reports;
static cudaError_t sticky_error = cudaSuccess, last_error = cudaSuccess;
static int calls_until_failure = -1, requested_error;

std::string text(const char *format, ...) {
    char buffer[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(buffer, sizeof buffer, format, arguments);
    va_end(arguments);
    return buffer;
}

void report(report_kind kind, const std::string &sentence) {
    counts[kind]++;
    const std::string line = text("cuda_on_cpu: %s: ", kind_names[kind]) + sentence + "\n";
    all_reports += line;
    if (!config.quiet) fputs(line.c_str(), stderr);
    /* A kernel at fault: the device is lost, as after an illegal address. */
    if (kind != LAUNCH && kind != CALL) sticky_error = cudaErrorLaunchFailure;
}

cudaError_t refuse(report_kind kind, cudaError_t error, const std::string &sentence) {
    report(kind, sentence);
    return last_error = error;
}

cudaError_t outcome() {
    if (sticky_error != cudaSuccess) last_error = sticky_error;
    return sticky_error;
}

long reports(report_kind kind) { return counts[kind]; }
long reports() {
    long sum = 0;
    for (const long count : counts) sum += count;
    return sum;
}
const char *report_text() { return all_reports.c_str(); }

void reset() {
    for (long &count : counts) count = 0;
    all_reports.clear();
    sticky_error = last_error = cudaSuccess;
    calls_until_failure = -1;
    calls = {};
}

void fail_after(int count, int error) {
    calls_until_failure = count;
    requested_error = error;
}

bool asked_to_fail(int *error) {
    if (calls_until_failure < 0 || calls_until_failure-- > 0) return false;
    *error = requested_error;
    return true;
}

/* ---- numbers ---- */

random_numbers::random_numbers(uint64_t seed) : state(seed) { next(); }

uint64_t random_numbers::next() { /* splitmix64 */
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

unsigned random_numbers::below(unsigned limit) { return static_cast<unsigned>((next() >> 32) * limit >> 32); }

float approximate(float exact) {
    if (config.ulp == 0 || !std::isfinite(exact)) return exact;
    random_numbers numbers(config.seed << 32 ^ __float_as_uint(exact));
    const float share = static_cast<float>(numbers.below(1u << 21)) / (1 << 20) - 1;
    const float digit = nextafterf(fabsf(exact), INFINITY) - fabsf(exact);
    return exact + share * config.ulp * digit;
}

} // namespace cuemu

/* ---- the runtime's own view of errors ---- */

using namespace cuemu;

cudaError_t cudaPeekAtLastError() { return sticky_error != cudaSuccess ? sticky_error : last_error; }

cudaError_t cudaGetLastError() {
    const cudaError_t error = cudaPeekAtLastError();
    last_error = cudaSuccess;
    return error;
}

#define CUEMU_ERRORS(entry)                                                                                            \
    entry(cudaSuccess, "no error");                                                                                    \
    entry(cudaErrorInvalidValue, "invalid argument");                                                                  \
    entry(cudaErrorMemoryAllocation, "out of memory");                                                                 \
    entry(cudaErrorInitializationError, "initialization error");                                                       \
    entry(cudaErrorInvalidConfiguration, "invalid configuration argument");                                            \
    entry(cudaErrorInvalidDevicePointer, "invalid device pointer");                                                    \
    entry(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy");                                       \
    entry(cudaErrorNoDevice, "no CUDA-capable device is detected");                                                    \
    entry(cudaErrorInvalidDevice, "invalid device ordinal");                                                           \
    entry(cudaErrorInvalidResourceHandle, "invalid resource handle");                                                  \
    entry(cudaErrorNotReady, "device not ready");                                                                      \
    entry(cudaErrorIllegalAddress, "an illegal memory access was encountered");                                        \
    entry(cudaErrorLaunchOutOfResources, "too many resources requested for launch");                                   \
    entry(cudaErrorLaunchFailure, "unspecified launch failure");                                                       \
    entry(cudaErrorCooperativeLaunchTooLarge, "too many blocks in cooperative launch");                                \
    entry(cudaErrorUnknown, "unknown error")

const char *cudaGetErrorName(cudaError_t error) {
    switch (error) {
#define CUEMU_NAME(name, sentence)                                                                                     \
    case name:                                                                                                         \
        return #name
        CUEMU_ERRORS(CUEMU_NAME);
    }
    return "unrecognized error code";
}

const char *cudaGetErrorString(cudaError_t error) {
    switch (error) {
#define CUEMU_SENTENCE(name, sentence)                                                                                 \
    case name:                                                                                                         \
        return sentence
        CUEMU_ERRORS(CUEMU_SENTENCE);
    }
    return "unrecognized error code";
}
