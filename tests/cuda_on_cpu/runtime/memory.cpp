/*
 * memory.cpp: device memory.
 *
 * Allocations lie in one reserved range of addresses that is never used twice. Each has pages of its own, with pages
 * that nobody may touch between them, and ends at the end of its last page but for the alignment of 256 bytes; what is
 * left over is filled with a pattern that is checked after every launch, and poisoned for AddressSanitizer. While no
 * kernel, copy or library call runs, nobody may touch any of it.
 */
#include "emulator.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <sys/mman.h>

namespace cuemu {

constexpr size_t ALIGNMENT = 256;
constexpr size_t MARGIN = 256; /* of the pattern, as far as it is checked */

static char *arena, *arena_top;
static std::map<uintptr_t, allocation> allocations; /* by address */
static const allocation **page_owners;              /* by page of the arena */
static int accesses;

static void *reserve(size_t bytes, int protection) {
    void *memory = mmap(nullptr, bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? nullptr : memory;
}

static bool reserve_arena() {
    if (arena) return true;
    arena = arena_top = static_cast<char *>(reserve(DEVICE_ARENA, PROT_NONE));
    page_owners =
        static_cast<const allocation **>(reserve(DEVICE_ARENA / PAGE * sizeof(*page_owners), PROT_READ | PROT_WRITE));
    return arena && page_owners;
}

static size_t page_number(const void *address) {
    return static_cast<size_t>(static_cast<const char *>(address) - arena) / PAGE;
}
static size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }
static void open_pages(const allocation &a, bool open) {
    mprotect(a.pages, a.page_bytes, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

device_access::device_access() {
    if (accesses++ == 0)
        for (const auto &entry : allocations) open_pages(entry.second, true);
}
device_access::~device_access() {
    if (--accesses == 0)
        for (const auto &entry : allocations) open_pages(entry.second, false);
}

char *allocate_device(size_t bytes) {
    if (!reserve_arena() || bytes > DEVICE_ARENA) return nullptr;
    const size_t rounded = round_up(bytes, ALIGNMENT), page_bytes = round_up(rounded, PAGE);
    char *const pages = arena_top + PAGE;
    if (pages + page_bytes + PAGE > arena + DEVICE_ARENA) return nullptr;
    arena_top = pages + page_bytes;
    const allocation a = {pages + page_bytes - rounded, bytes, pages, page_bytes, nullptr};
    open_pages(a, true);
    memset(pages, 0xff, page_bytes); /* NaN as a number, -1 as an index */
    CUEMU_POISON(pages, page_bytes - rounded);
    CUEMU_POISON(a.begin + bytes, rounded - bytes);
    allocation &kept = allocations.emplace(reinterpret_cast<uintptr_t>(a.begin), a).first->second;
    std::fill_n(page_owners + page_number(pages), page_bytes / PAGE, &kept);
    race_fresh(kept);
    if (!accesses) open_pages(kept, false);
    return kept.begin;
}

static bool untouched(const char *begin, const char *end) {
#if defined(__SANITIZE_ADDRESS__)
    (void)begin, (void)end; /* whoever touches it dies at once */
    return true;
#else
    return std::all_of(begin, end, [](char c) { return c == '\xff'; });
#endif
}

static void check_margin(const allocation &a, const char *after) {
    const char *front = std::max<const char *>(a.pages, a.begin - MARGIN), *end = a.pages + a.page_bytes;
    if (!untouched(front, a.begin) || !untouched(a.begin + a.bytes, end))
        report(BOUNDS, text("write beside a device allocation of %zu bytes, seen after ", a.bytes) + after);
}

void check_margins(const char *after) {
    const device_access open;
    for (const auto &entry : allocations) check_margin(entry.second, after);
}

bool free_device(void *address) {
    const auto found = allocations.find(reinterpret_cast<uintptr_t>(address));
    if (found == allocations.end()) return false;
    allocation &a = found->second;
    open_pages(a, true);
    check_margin(a, "cudaFree");
    CUEMU_UNPOISON(a.pages, a.page_bytes);
    race_fresh(a);
    madvise(a.pages, a.page_bytes, MADV_DONTNEED);
    open_pages(a, false);
    std::fill_n(page_owners + page_number(a.pages), a.page_bytes / PAGE, nullptr);
    allocations.erase(found);
    return true;
}

uintptr_t device_arena() { return reinterpret_cast<uintptr_t>(arena); }
bool in_device_arena(uintptr_t address) { return arena && address - device_arena() < DEVICE_ARENA; }

const allocation *find_allocation(const void *address) {
    if (!in_device_arena(reinterpret_cast<uintptr_t>(address))) return nullptr;
    const allocation *owner = page_owners[page_number(address)];
    const char *byte = static_cast<const char *>(address);
    return owner && byte >= owner->begin && byte < owner->begin + owner->bytes ? owner : nullptr;
}

bool is_device_range(const void *address, size_t bytes) {
    if (bytes == 0) return true;
    const allocation *owner = find_allocation(address);
    return owner && bytes <= static_cast<size_t>(owner->begin + owner->bytes - static_cast<const char *>(address));
}

} // namespace cuemu
