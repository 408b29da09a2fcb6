/*
 * shared.cpp: shared memory of a block, and background copies into it.
 *
 * Variables are taken from an arena as threads first come by their declarations, with a gap before and after each, and
 * aligned to no more than they asked for. Fresh memory is all ones: NaN as a number, -1 as an index. Gaps are poisoned
 * for AddressSanitizer and otherwise checked when the block ends.
 */
#include "emulator.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sys/mman.h>

namespace cuemu {

constexpr size_t GAP = 64;

static std::map<const void *, size_t> static_bytes_of, dynamic_limit_of;

size_t known_static_bytes(const void *kernel) {
    const auto found = static_bytes_of.find(kernel);
    return found == static_bytes_of.end() ? 0 : found->second;
}
size_t dynamic_limit(const void *kernel) {
    const auto found = dynamic_limit_of.find(kernel);
    return found == dynamic_limit_of.end() ? SHARED_STATIC_LIMIT : found->second;
}
void set_dynamic_limit(const void *kernel, size_t bytes) { dynamic_limit_of[kernel] = bytes; }

void begin_shared(shared_memory &shared) {
    if (!shared.arena) {
        void *memory = mmap(nullptr, SHARED_ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) {
            perror("cuda_on_cpu: no memory for shared memory");
            exit(2);
        }
        shared.arena = static_cast<char *>(memory);
        CUEMU_POISON(shared.arena, SHARED_ARENA);
    }
    CUEMU_POISON(shared.arena, shared.used);
    shared.used = shared.static_bytes = 0;
    shared.dynamic = nullptr;
    shared.variables.clear();
}

static void fill(char *begin, size_t bytes) { memset(begin, 0xff, bytes); }

[[noreturn]] static void refuse_shared(const std::string &sentence) {
    report(LAUNCH, this_launch().name + ": " + sentence);
    abandon_launch();
}

static char *take(shared_memory &shared, const void *tag, size_t bytes, size_t align, const char *name) {
    align = std::max<size_t>(align, 4);
    size_t offset = (shared.used + GAP + align - 1) / align * align;
    if (offset / align % 2 == 0) offset += align; /* not by chance aligned to twice as much */
    if (offset + bytes + GAP > SHARED_ARENA) refuse_shared("more shared memory than the emulator has");
    char *begin = shared.arena + offset;
    CUEMU_UNPOISON(shared.arena + shared.used, offset + bytes + GAP - shared.used);
    fill(shared.arena + shared.used, offset + bytes + GAP - shared.used);
    CUEMU_POISON(shared.arena + shared.used, offset - shared.used);
    CUEMU_POISON(begin + bytes, GAP);
    shared.used = offset + bytes;
    shared.variables.push_back({tag, begin, bytes, name});
    return begin;
}

void *shared_alloc(const void *tag, size_t bytes, size_t align, const char *name) {
    shared_memory &shared = this_block().shared;
    for (const shared_variable &variable : shared.variables)
        if (variable.tag == tag) return variable.begin;
    const launch_request &request = this_launch().request;
    shared.static_bytes += bytes;
    size_t &known = static_bytes_of[request.kernel];
    known = std::max(known, shared.static_bytes);
    if (shared.static_bytes > SHARED_STATIC_LIMIT)
        refuse_shared(text("%zu bytes of static shared memory, more than 48 KiB", shared.static_bytes));
    const size_t all = shared.static_bytes + request.dynamic_bytes;
    if (all > static_cast<size_t>(config.shared_bytes) ||
        (all > SHARED_STATIC_LIMIT && !dynamic_limit_of.count(request.kernel)))
        refuse_shared(text("%zu bytes of static and dynamic shared memory are more than it may have", all));
    return take(shared, tag, bytes, align, name);
}

void *shared_dyn(size_t align) {
    shared_memory &shared = this_block().shared;
    if (!shared.dynamic) {
        const size_t bytes = this_launch().request.dynamic_bytes;
        shared.dynamic = take(shared, &shared.dynamic, bytes, align, "dynamic");
    }
    return shared.dynamic;
}

void end_shared(block_run &block) {
#if !defined(__SANITIZE_ADDRESS__)
    const shared_memory &shared = block.shared;
    for (const shared_variable &variable : shared.variables) {
        const char *end = variable.begin + variable.bytes;
        for (size_t i = 0; i < GAP; i++)
            if (variable.begin[-1 - static_cast<ptrdiff_t>(i)] != '\xff' || end[i] != '\xff') {
                report(BOUNDS, this_launch().name + ": write beside shared variable " + variable.name +
                                   text(" by block (%u,%u,%u)", block.index.x, block.index.y, block.index.z));
                return;
            }
    }
#else
    (void)block;
#endif
}

/* ---- background copies ----
 *
 * In order they happen as late as possible, so that who does not wait reads old values; in reverse at once, so that who
 * still reads the old ones gets new; at random either. */

static void land(async_copy &copy) {
    memcpy(copy.to, copy.from, static_cast<size_t>(copy.from_bytes));
    memset(copy.to + copy.from_bytes, 0, static_cast<size_t>(copy.bytes - copy.from_bytes));
    copy.landed = true;
}

static void end_copy(async_copy &copy) {
    if (!copy.landed) land(copy);
    race_end_copy(copy);
}

static bool in_shared(const shared_memory &shared, const char *address, size_t bytes) {
    for (const shared_variable &variable : shared.variables)
        if (address >= variable.begin && address + bytes <= variable.begin + variable.bytes) return true;
    return false;
}

void cp_async(void *shared, const void *global, int bytes, int source_bytes, const char *file, int line) {
    thread &t = this_thread();
    const uintptr_t alignment = reinterpret_cast<uintptr_t>(shared) | reinterpret_cast<uintptr_t>(global);
    const char *problem = nullptr;
    if ((bytes != 4 && bytes != 8 && bytes != 16) || source_bytes < 0 || source_bytes > bytes)
        problem = "background copy of a size that is none";
    else if (alignment % static_cast<unsigned>(bytes))
        problem = "misaligned background copy";
    else if (!in_shared(this_block().shared, static_cast<char *>(shared), static_cast<size_t>(bytes)))
        problem = "background copy to memory outside every shared variable";
    else if (!is_device_range(global, static_cast<size_t>(source_bytes)))
        problem = "background copy from memory outside every device allocation";
    if (problem) {
        report(BOUNDS, std::string(problem) + " at " + place_text({file, line}) + " by " + describe(t));
        abandon_launch();
    }
    async_copy copy = {static_cast<char *>(shared),
                       static_cast<const char *>(global),
                       bytes,
                       source_bytes,
                       t.copy_group,
                       false,
                       code_offset(__builtin_return_address(0))};
    race_begin_copy(copy);
    if (config.order == REVERSE || (config.order == RANDOM && this_random().below(2))) land(copy);
    t.copies.push_back(copy);
}

void cp_async_commit() { this_thread().copy_group++; }

void cp_async_wait(int open) {
    thread &t = this_thread();
    size_t kept = 0;
    for (async_copy &copy : t.copies)
        if (copy.group < t.copy_group - open)
            end_copy(copy);
        else
            t.copies[kept++] = copy;
    t.copies.resize(kept);
}

void land_copies(thread &t) {
    for (async_copy &copy : t.copies) end_copy(copy);
    t.copies.clear();
}

} // namespace cuemu
