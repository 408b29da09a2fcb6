/*
 * control.h: what tests set and ask: the order in which threads run, the device that is imitated, the reports.
 */
#ifndef CUEMU_CONTROL_H
#define CUEMU_CONTROL_H

#include <cstddef>
#include <cstdint>

namespace cuemu {

/* Of threads between two barriers, and of blocks. RANDOM also runs several blocks at a time and lets some threads lag
 * behind. */
enum schedule { FORWARD, REVERSE, RANDOM };

/* Each field starts from the environment variable named beside it. */
struct configuration {
    schedule order = FORWARD;       /* CUEMU_SCHEDULE: forward, reverse, random */
    uint64_t seed = 1;              /* CUEMU_SEED */
    bool lazy = false;              /* CUEMU_LAZY: 1 lets streams run only when something waits for them */
    float ulp = 0;                  /* CUEMU_ULP: largest error added to approximate functions, in last digits */
    int multiprocessors = 4;        /* CUEMU_SMS */
    int shared_bytes = 227 * 1024;  /* CUEMU_SHARED_BYTES: that a block may opt in to */
    int compute_capability = 90;    /* CUEMU_COMPUTE_CAPABILITY */
    int single_to_double_ratio = 2; /* CUEMU_SINGLE_TO_DOUBLE */
    int registers_of_thread = 128;  /* CUEMU_REGISTERS: assumed of every kernel, for occupancy */
    size_t stack_bytes = 64 * 1024; /* CUEMU_STACK_BYTES: of one thread; 4 times that under AddressSanitizer */
    bool quiet = false;             /* CUEMU_QUIET: 1 keeps reports from being printed at once */
};
extern configuration config;

enum report_kind {
    BARRIER,       /* threads wait at different barriers, or some will never come */
    WARP,          /* lanes disagree about a warp operation, or read a lane that takes no part */
    DEADLOCK,      /* no thread can run */
    RACE,          /* two accesses that nothing orders, one of them a write (race build) */
    UNINITIALISED, /* memory is read that was never written (race build) */
    BOUNDS,        /* memory outside every variable, misaligned or trapped */
    LAUNCH,        /* a launch that a device refuses */
    POINTER,       /* host memory on the device */
    CALL,          /* misuse of the CUDA runtime, cuBLAS or cuSOLVER */
    REPORT_KINDS
};

/* Reports since the last reset(), of one kind or of all. */
long reports(report_kind kind);
long reports();
/* All of them, a line each. Valid until the next report or reset(). */
const char *report_text();
/* Forgets reports, errors of CUDA that stick, and failures that were asked for. */
void reset();

/* Whether this build sees every access of a kernel and checks what orders it. */
bool detects_races();

/* The call of the CUDA runtime, cuBLAS or cuSOLVER that follows `calls` others returns an error; launches count. */
void fail_after(int calls, int error);

/* How often the host has done what a library call should not do. */
struct host_calls {
    long allocations, synchronisations, launches, on_default_stream;
};
extern host_calls calls;

} // namespace cuemu

#endif
