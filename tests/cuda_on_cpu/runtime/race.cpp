/*
 * race.cpp: finds two accesses to the same bytes that nothing orders, one of them a write, and reads of bytes that
 * nobody has written.
 *
 * The kernels of the race build tell of every access, see hooks.cpp. What has been recorded about each word is compared
 * with what orders two accesses on a device:
 *
 *   phase    launches and barriers of the grid: all that happened in an earlier phase is ordered
 *   epoch    barriers of the block: all that the block did in an earlier epoch is ordered
 *   clock    __syncwarp: each lane knows how far it has seen each other lane of its warp
 *   release  a fence before an atomic operation, another one on the same address, a fence after that
 *
 * So a race is found under every schedule, whether or not it did harm. A shuffle orders nothing. From its start until
 * the thread waits for it, the target of a background copy belongs to the copy alone.
 */
#include "emulator.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <set>
#include <tuple>

extern "C" {
extern const char __executable_start, _end;
}

namespace cuemu {

bool detects_races() { return true; }

/* ---- what is known about each word of 4 bytes ---- */

struct access_record {
    uint32_t phase, block, epoch, clock, caller;
    uint16_t thread;
    uint8_t bytes; /* of the word, one bit each; 0: no access */
    bool atomic;
};

struct word {
    access_record write, readers[2];
    uint32_t copy_caller; /* of the background copy that the word belongs to; 0: none */
    uint32_t owner;       /* shared memory: the run of the block that all this is about */
    uint16_t copy_thread;
    uint8_t written;
};

typedef std::array<uint32_t, 32> warp_clock;

/* What a fence makes visible: all that was ordered before it. */
struct release_point {
    uint32_t block, epoch, thread;
    warp_clock clock;
};
struct acquired_point {
    release_point from;
    uint32_t thread, epoch; /* by whom, when: all others of the block know it after the next barrier */
};

struct thread_clock {
    warp_clock clock;
    std::shared_ptr<release_point> fence; /* the last one */
    std::vector<release_point> seen;      /* by atomic operations since */
};

struct block_clocks {
    uint32_t run = 0, epoch = 0;
    std::vector<thread_clock> threads;
    std::vector<acquired_point> acquired;
    word *words = nullptr; /* of shared memory */

    ~block_clocks() { free(words); }
};

static uint32_t phase;
/* By address of an atomic variable, then by block and thread. */
static std::map<uintptr_t, std::map<std::pair<uint32_t, uint32_t>, release_point>> released;

static word *fresh_words(size_t bytes) {
    word *words = static_cast<word *>(calloc(bytes / 4 + 2, sizeof(word)));
    if (!words) abort();
    return words;
}

/* The words from the one that holds `address`; `origin` is aligned to 4 bytes. */
static word *word_at(word *words, const char *origin, uintptr_t address) {
    return words + (address - reinterpret_cast<uintptr_t>(origin)) / 4;
}

/* ---- findings; symbols are looked up when the launch has ended ---- */

struct finding {
    report_kind kind;
    std::string sentence;
    uint32_t caller, other;
};
static std::vector<finding> findings;
static std::set<std::tuple<int, uint32_t, uint32_t>> known;
constexpr size_t MOST_FINDINGS = 16;

static void find(report_kind kind, const std::string &sentence, uint32_t caller, uint32_t other = 0) {
    if (known.insert({kind, caller, other}).second && findings.size() < MOST_FINDINGS)
        findings.push_back({kind, sentence, caller, other});
}

/* ---- what the scheduler tells ---- */

void race_begin_launch(launch_run &) {
    phase++;
    released.clear();
    known.clear();
}

void race_end_launch() {
    for (const finding &f : findings)
        report(f.kind, f.sentence + " at " + code_line(f.caller) + (f.other ? " and " + code_line(f.other) : ""));
    findings.clear();
}

void race_begin_block(block_run &block) {
    static uint32_t runs = 0;
    if (!block.clocks) block.clocks = std::make_shared<block_clocks>();
    block_clocks &clocks = *block.clocks;
    if (!clocks.words) clocks.words = fresh_words(SHARED_ARENA);
    clocks.run = ++runs;
    clocks.epoch = 0;
    clocks.acquired.clear();
    clocks.threads.assign(block.threads.size(), {});
    for (size_t i = 0; i < block.threads.size(); i++) clocks.threads[i].clock[i % 32] = 1;
}

void race_block_barrier(block_run &block) { block.clocks->epoch++; }

void race_grid_barrier() {
    phase++;
    released.clear();
}

void race_warp_barrier(block_run &block, unsigned warp, unsigned lanes) {
    thread_clock *clocks = &block.clocks->threads[warp * 32];
    warp_clock joined = {};
    for (unsigned rest = lanes; rest; rest &= rest - 1) {
        const warp_clock &clock = clocks[__builtin_ctz(rest)].clock;
        for (size_t lane = 0; lane < 32; lane++) joined[lane] = std::max(joined[lane], clock[lane]);
    }
    for (unsigned rest = lanes; rest; rest &= rest - 1) {
        const auto lane = static_cast<unsigned>(__builtin_ctz(rest));
        clocks[lane].clock = joined;
        clocks[lane].clock[lane]++;
    }
}

static thread_clock &clock_of(const thread &t) { return this_block().clocks->threads[t.number]; }

void race_fence(thread &t) {
    const block_run &block = this_block();
    thread_clock &own = clock_of(t);
    for (const release_point &from : own.seen) block.clocks->acquired.push_back({from, t.number, block.clocks->epoch});
    own.seen.clear();
    own.fence.reset(new release_point{block.number, block.clocks->epoch, t.number, own.clock});
    own.clock[t.lane]++;
}

/* ---- what orders two accesses ---- */

static bool covers(const release_point &from, const access_record &p) {
    if (p.block != from.block) return false;
    if (p.epoch != from.epoch) return p.epoch < from.epoch;
    return p.thread / 32u == from.thread / 32u && p.clock <= from.clock[p.thread % 32];
}

/* Who makes an access. */
struct actor {
    const thread &t;
    const block_run &block;
    const block_clocks &clocks;
};

static bool ordered_by_atomics(const access_record &p, const actor &me) {
    return std::any_of(me.clocks.acquired.begin(), me.clocks.acquired.end(), [&](const acquired_point &a) {
        return (a.thread == me.t.number || a.epoch < me.clocks.epoch) && covers(a.from, p);
    });
}

/* Whether the earlier access `p` happened before what `me` does now. */
static inline bool ordered(const access_record &p, const actor &me) {
    if (p.phase != phase) return true;
    if (p.block == me.block.number) {
        if (p.thread == me.t.number || p.epoch < me.clocks.epoch) return true;
        if (p.thread / 32u == me.t.warp && p.clock <= me.clocks.threads[me.t.number].clock[p.thread % 32]) return true;
    }
    return !me.clocks.acquired.empty() && ordered_by_atomics(p, me);
}

static inline bool conflict(const access_record &p, const access_record &mine, const actor &me) {
    return (p.bytes & mine.bytes) && !(p.atomic && mine.atomic) && !ordered(p, me);
}

static bool same_moment(const access_record &a, const access_record &b) {
    return a.phase == b.phase && a.block == b.block && a.thread == b.thread && a.epoch == b.epoch && a.clock == b.clock;
}

/* ---- an access ---- */

static std::string tell(const access &a, bool shared, const actor &me) {
    return std::string(shared ? "shared memory: " : "device memory: ") + (a.write ? "write by " : "read by ") +
           describe(me.t);
}

static void find_race(const access &a, bool shared, const actor &me, const access_record &p, const char *what) {
    find(RACE, tell(a, shared, me) + text(" and %s by block %u, thread %u, unordered,", what, p.block, p.thread),
         a.caller, p.caller);
}

/* Two readers are kept, of different warps if there are. */
static inline void keep_reader(word &w, const access_record &mine, const actor &me) {
    access_record &first = w.readers[0], &second = w.readers[1];
    if (!first.bytes || ordered(first, me))
        first = mine;
    else if (!second.bytes || ordered(second, me) || second.thread / 32 == first.thread / 32)
        second = mine;
}

static inline void check_word(word &w, const access_record &mine, const access &a, bool shared, const actor &me) {
    if (w.copy_caller)
        find(RACE, tell(a, shared, me) + text(" before thread %u waits for its background copy,", w.copy_thread),
             a.caller, w.copy_caller);
    if ((!a.write || a.atomic) && (mine.bytes & ~w.written))
        find(UNINITIALISED, tell(a, shared, me) + " of what was never written", a.caller);
    if (conflict(w.write, mine, me)) find_race(a, shared, me, w.write, "write");
    if (!a.write) {
        keep_reader(w, mine, me);
        return;
    }
    for (const access_record &r : w.readers)
        if (conflict(r, mine, me)) find_race(a, shared, me, r, "read");
    const uint8_t before = same_moment(w.write, mine) ? w.write.bytes : uint8_t(0);
    w.write = mine;
    w.write.bytes |= before;
    w.written |= mine.bytes;
}

/* Shared memory: the words from the address, which may lie outside every variable. */
static word *shared_words(const access &a, const actor &me) {
    const shared_memory &memory = me.block.shared;
    const char *byte = reinterpret_cast<const char *>(a.address);
    word *words = word_at(me.clocks.words, memory.arena, a.address);
    for (const shared_variable &v : memory.variables)
        if (byte >= v.begin && byte + a.bytes <= v.begin + v.bytes) return words;
    find(BOUNDS, "access outside every shared variable by " + describe(me.t), a.caller);
    return words;
}

static word *device_words(const access &a, const actor &me) {
    const void *const begin = reinterpret_cast<const void *>(a.address);
    const allocation *memory = find_allocation(begin);
    if (memory && is_device_range(begin, a.bytes))
        return word_at(static_cast<word *>(memory->shadow), memory->begin, a.address);
    find(BOUNDS,
         text("%s of %zu bytes outside every device allocation by ", a.write ? "write" : "read", a.bytes) +
             describe(me.t),
         a.caller);
    abandon_launch();
}

static bool within(uintptr_t address, const void *begin, size_t bytes) {
    return address - reinterpret_cast<uintptr_t>(begin) < bytes;
}

/* Neither shared nor device memory. Constants of the program, threadIdx and its like, and arguments are fine. */
static void check_elsewhere(const access &a, const actor &me) {
    const block_run &block = me.block;
    const launch_request &request = this_launch().request;
    if (within(a.address, &__executable_start, static_cast<size_t>(&_end - &__executable_start)) ||
        within(a.address, block.threads.data(), block.threads.size() * sizeof(thread)) ||
        within(a.address, &block, sizeof block) || within(a.address, request.arguments, request.argument_bytes))
        return;
    if (on_any_stack(a.address))
        find(RACE, "a local variable of another thread is used by " + describe(me.t), a.caller);
    else
        find(POINTER, "host memory is used by " + describe(me.t), a.caller);
}

void race_access(const access &a) {
    const thread &t = this_thread();
    if (within(a.address, t.machine.stack, t.machine.stack_bytes)) return;
    const block_run &block = this_block();
    const actor me = {t, block, *block.clocks};
    const bool shared = within(a.address, block.shared.arena, SHARED_ARENA);
    if (!shared && !in_device_arena(a.address)) {
        check_elsewhere(a, me);
        return;
    }
    word *w = shared ? shared_words(a, me) : device_words(a, me);
    access_record mine = {phase,
                          block.number,
                          me.clocks.epoch,
                          me.clocks.threads[t.number].clock[t.lane],
                          a.caller,
                          static_cast<uint16_t>(t.number),
                          0,
                          a.atomic};
    for (uintptr_t at = a.address; at < a.address + a.bytes; w++) {
        const uintptr_t end = std::min((at & ~uintptr_t(3)) + 4, a.address + a.bytes);
        mine.bytes = static_cast<uint8_t>(((1u << (end - at)) - 1) << (at & 3));
        if (shared && w->owner != me.clocks.run) {
            *w = word();
            w->owner = me.clocks.run;
        }
        check_word(*w, mine, a, shared, me);
        at = end;
    }
}

void race_misaligned(const access &a) {
    find(BOUNDS, text("misaligned access of %zu bytes by ", a.bytes) + describe(this_thread()), a.caller);
}

void atomic_access(const volatile void *address, size_t bytes, const void *caller) {
    if (!current) return;
    const thread &t = this_thread();
    const uintptr_t at = reinterpret_cast<uintptr_t>(address);
    race_access({at, bytes, true, true, code_offset(caller)});
    thread_clock &own = clock_of(t);
    auto &points = released[at];
    for (const auto &entry : points) own.seen.push_back(entry.second);
    if (own.fence) points[{this_block().number, t.number}] = *own.fence;
}

/* ---- background copies ---- */

static access reads(const async_copy &copy) {
    return {reinterpret_cast<uintptr_t>(copy.from), static_cast<size_t>(copy.from_bytes), false, false, copy.caller};
}
static access writes(const async_copy &copy) {
    return {reinterpret_cast<uintptr_t>(copy.to), static_cast<size_t>(copy.bytes), true, false, copy.caller};
}

static void claim(const async_copy &copy, uint32_t caller) {
    const block_run &block = this_block();
    word *w = word_at(block.clocks->words, block.shared.arena, reinterpret_cast<uintptr_t>(copy.to));
    for (int i = 0; i < copy.bytes / 4; i++) {
        w[i].copy_caller = caller;
        w[i].copy_thread = static_cast<uint16_t>(this_thread().number);
    }
}

void race_begin_copy(const async_copy &copy) {
    if (copy.from_bytes) race_access(reads(copy));
    race_access(writes(copy));
    claim(copy, copy.caller);
}

void race_end_copy(const async_copy &copy) {
    claim(copy, 0);
    race_access(writes(copy));
}

/* ---- memory that others write ---- */

void race_fresh(allocation &memory) {
    if (memory.shadow)
        free(memory.shadow), memory.shadow = nullptr;
    else
        memory.shadow = fresh_words(memory.bytes);
}

template <class Visit> static void visit_words(const void *address, size_t bytes, Visit visit) {
    const allocation *a = bytes ? find_allocation(address) : nullptr;
    if (!a) return;
    const uintptr_t begin = reinterpret_cast<uintptr_t>(address), end = begin + bytes;
    word *w = word_at(static_cast<word *>(a->shadow), a->begin, begin);
    for (uintptr_t at = begin & ~uintptr_t(3); at < end; at += 4, w++) {
        const unsigned first = at < begin ? static_cast<unsigned>(begin - at) : 0;
        const unsigned last = at + 4 > end ? static_cast<unsigned>(end - at) : 4;
        visit(*w, static_cast<uint8_t>((1u << last) - (1u << first)));
    }
}

void race_written(const void *address, size_t bytes) {
    visit_words(address, bytes, [](word &w, uint8_t mask) { w.written |= mask; });
}

bool race_is_written(const void *address, size_t bytes) {
    bool all = true;
    visit_words(address, bytes, [&all](word &w, uint8_t mask) { all &= (w.written & mask) == mask; });
    return all;
}

} // namespace cuemu
