/*
 * symbol.cpp: from an address in the program to a line of source, by addr2line.
 */
#include "emulator.h"

#include <cstdio>
#include <cstring>
#include <link.h>
#include <unistd.h>

namespace cuemu {

/* How far the program was moved when it was loaded. */
static uintptr_t find_load_bias() {
    uintptr_t found = 0;
    dl_iterate_phdr(
        [](dl_phdr_info *program, size_t, void *result) {
            *static_cast<uintptr_t *>(result) = program->dlpi_addr;
            return 1; /* the program comes first */
        },
        &found);
    return found;
}
const uintptr_t load_bias = find_load_bias();

std::string code_line(uint32_t offset) {
    char program[512];
    const ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length <= 0) return "?";
    program[length] = 0;
    /* The call is before the address that it returns to; -i lists the functions it was inlined into. */
    FILE *pipe = popen(text("addr2line -i -e '%s' 0x%x 2>/dev/null", program, offset - 1).c_str(), "r");
    if (!pipe) return "?";
    std::string found = "?";
    char line[512];
    while (fgets(line, sizeof line, pipe)) {
        line[strcspn(line, " \n")] = 0;
        const char *slash = strrchr(line, '/');
        if (found == "?") found = slash ? slash + 1 : line;
        if (!strstr(line, "/cuemu/") && !strstr(line, "portable.h")) { /* the kernel's own line */
            found = slash ? slash + 1 : line;
            break;
        }
    }
    pclose(pipe);
    return found;
}

} // namespace cuemu
