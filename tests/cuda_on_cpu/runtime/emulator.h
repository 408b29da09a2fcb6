/*
 * emulator.h: what the files of the emulator share.
 *
 *     report.cpp     reports, errors that stick, configuration
 *     fiber.cpp      stacks and the switch between them
 *     scheduler.cpp  runs the blocks of a launch, their threads in the order of the schedule
 *     meet.cpp       where threads wait for each other: barriers, operations of a warp
 *     shared.cpp     shared memory of a block, background copies into it
 *     memory.cpp     device memory and who may touch it
 *     race.cpp       what orders two accesses; hooks.cpp: code compiled with -fsanitize=thread tells of each
 *     no_race.cpp    the same interface for builds that do not see accesses
 *     symbol.cpp     lines of source for addresses of code
 *     stream.cpp     streams and events
 *     launch.cpp     launches, and what a device refuses
 *     host.cpp       the rest of the CUDA runtime
 *     cublas.cpp, cusolver.cpp
 */
#ifndef CUEMU_EMULATOR_H
#define CUEMU_EMULATOR_H

#include <cuda_on_cpu.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#define CUEMU_POISON(begin, bytes) __asan_poison_memory_region(begin, bytes)
#define CUEMU_UNPOISON(begin, bytes) __asan_unpoison_memory_region(begin, bytes)
#else
#define CUEMU_POISON(begin, bytes) ((void)(begin), (void)(bytes))
#define CUEMU_UNPOISON(begin, bytes) ((void)(begin), (void)(bytes))
#endif

namespace cuemu {

/* ---- reports (report.cpp) ---- */

/* printf-like; the result is a string. */
std::string text(const char *format, ...) __attribute__((format(printf, 1, 2)));

void report(report_kind kind, const std::string &sentence);
/* Reports, and is the result of the call from now on (a kernel's fault) or of this call only. */
cudaError_t refuse(report_kind kind, cudaError_t error, const std::string &sentence);
/* What a call that found nothing wrong returns: an earlier kernel may have failed. */
cudaError_t outcome();
/* Whether this call is to fail, see fail_after(); the error then. */
bool asked_to_fail(int *error);

struct random_numbers {
    uint64_t state;
    explicit random_numbers(uint64_t seed);
    uint64_t next();
    unsigned below(unsigned limit);
};

/* ---- fibers (fiber.cpp) ---- */

struct fiber {
    void *stack_pointer = nullptr;
    char *stack = nullptr; /* its lowest byte */
    size_t stack_bytes = 0;
    void *sanitizer_state = nullptr;
    void *fallback_context = nullptr;
};

/* At least `count` stacks, kept from launch to launch. */
void reserve_stacks(size_t count);
/* Ready to start `entry`, which never returns, on stack number `index`. */
void prepare_fiber(fiber &f, size_t index, void (*entry)());
/* From the scheduler into a fiber until that leaves. `entry` must call arrive_in_fiber() first. */
void enter_fiber(fiber &f);
void arrive_in_fiber();
void leave_fiber(bool for_good);
/* Fibers that were left in the middle will not be entered again. */
void forget_fibers();
bool on_any_stack(uintptr_t address);

/* ---- threads, blocks, launches (scheduler.cpp) ---- */

enum thread_state : uint8_t { READY, AT_BLOCK_BARRIER, AT_GRID_BARRIER, AT_WARP, FINISHED };

struct place {
    const char *file = "";
    int line = 0;
};
bool same_place(const place &a, const place &b);
std::string place_text(const place &p);

struct async_copy {
    char *to;
    const char *from;
    int bytes, from_bytes, group;
    bool landed;
    uint32_t caller; /* code address, see code_offset() */
};

struct thread : thread_position {
    fiber machine;
    thread_state state;
    place where;

    barrier_kind barrier;
    int predicate, barrier_result;

    const char *operation_name;
    unsigned mask;
    warp_operation operation;
    const void *input;
    void *output;
    bool orders_memory;

    std::vector<async_copy> copies;
    int copy_group;
};

struct warp_state {
    unsigned alive, waiting; /* one bit a lane */
};

struct shared_variable {
    const void *tag;
    char *begin;
    size_t bytes;
    const char *name;
};

struct shared_memory {
    char *arena = nullptr;
    size_t used = 0, static_bytes = 0;
    char *dynamic = nullptr;
    std::vector<shared_variable> variables;
};

struct launch_run;
struct block_clocks; /* race.cpp */

struct block_run : block_position {
    launch_run *launch = nullptr;
    uint32_t number = 0; /* linear index in the grid */
    bool running = false;
    std::vector<thread> threads;
    warp_state warps[32];
    int live = 0, arrived = 0;
    std::vector<int> order;
    shared_memory shared;
    std::shared_ptr<block_clocks> clocks;
};

struct launch_run {
    launch_request request;
    uint32_t serial = 0;
    uint32_t blocks = 0;
    bool failed = false;
    long threads = 0;                   /* of all blocks */
    long live = 0, at_grid_barrier = 0; /* of the blocks that run now */
    std::string name;

    explicit launch_run(const launch_request &r);
    launch_run(const launch_run &) = delete;
    launch_run &operator=(const launch_run &) = delete;
    ~launch_run();
};

/* Runs all blocks; reports end it early. */
void run_blocks(launch_run &launch);

/* What runs now; only inside kernels. */
extern struct running_now {
    launch_run *launch;
    block_run *block;
    cuemu::thread *thread;
    std::vector<block_run> slots; /* for the blocks that run at a time; kept from launch to launch */
} now;
inline thread &this_thread() { return *now.thread; }
inline block_run &this_block() { return *now.block; }
inline launch_run &this_launch() { return *now.launch; }
random_numbers &this_random();
/* "kernel k, block (0,0,0), thread (1,0,0)" */
std::string describe(const thread &t);
/* A thread has returned: those that waited for it alone go on. (meet.cpp) */
void wait_no_longer_for(const thread &t, block_run &block);
/* Ends the launch after a report: the calling thread does not come back. */
[[noreturn]] void abandon_launch();

/* ---- shared memory (shared.cpp) ---- */

constexpr size_t SHARED_ARENA = 512 * 1024;
constexpr size_t SHARED_STATIC_LIMIT = 48 * 1024;

void begin_shared(shared_memory &shared);
/* Reports a write between variables. */
void end_shared(block_run &block);
void land_copies(thread &t);
/* Static shared memory of a kernel as far as its blocks have asked for it; 0 before its first launch. */
size_t known_static_bytes(const void *kernel);
/* What cudaFuncSetAttribute allows, else 48 KiB. */
size_t dynamic_limit(const void *kernel);
void set_dynamic_limit(const void *kernel, size_t bytes);

/* ---- device memory (memory.cpp) ---- */

constexpr size_t DEVICE_ARENA = size_t(16) << 30;
constexpr size_t PAGE = 4096;

struct allocation {
    char *begin;
    size_t bytes;
    char *pages;
    size_t page_bytes;
    void *shadow; /* race.cpp */
};

char *allocate_device(size_t bytes); /* NULL: no room */
bool free_device(void *address);     /* false: not what allocate_device returned */
const allocation *find_allocation(const void *address);
bool is_device_range(const void *address, size_t bytes);
bool in_device_arena(uintptr_t address);
uintptr_t device_arena();
/* Reports writes just outside an allocation. */
void check_margins(const char *after);

/* While one lives, the emulator itself or a kernel may touch device memory. */
struct device_access {
    device_access();
    ~device_access();
    device_access(const device_access &) = delete;
    device_access &operator=(const device_access &) = delete;
};

/* ---- race detection (race.cpp, hooks.cpp; no_race.cpp) ---- */

/* An access by the running thread. */
struct access {
    uintptr_t address;
    size_t bytes;
    bool write, atomic;
    uint32_t caller; /* code_offset() */
};
void race_access(const access &a);
void race_misaligned(const access &a);

void race_begin_launch(launch_run &launch);
void race_end_launch();
void race_begin_block(block_run &block);
void race_block_barrier(block_run &block);
void race_grid_barrier();
void race_warp_barrier(block_run &block, unsigned warp, unsigned lanes);
void race_fence(thread &t);
void race_begin_copy(const async_copy &copy);
void race_end_copy(const async_copy &copy);
/* Device memory that is new, or will be freed. */
void race_fresh(allocation &memory);
/* Device memory that calls of the host write and read. */
void race_written(const void *address, size_t bytes);
bool race_is_written(const void *address, size_t bytes);

/* ---- symbols (symbol.cpp) ---- */

/* A code address relative to the program, and the line that it comes from. */
extern const uintptr_t load_bias;
inline uint32_t code_offset(const void *address) {
    return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(address) - load_bias);
}
std::string code_line(uint32_t offset);

/* ---- streams (stream.cpp) ---- */

/* Runs `work` in the order of the stream: at once, or when something waits for it. */
void enqueue(cudaStream_t stream, std::function<void()> work);
void wait_for_all();

} // namespace cuemu

#endif
