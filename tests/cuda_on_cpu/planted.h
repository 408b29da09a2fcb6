/*
 * planted.h: kernels and calls with one bug each, and the same without. What the emulator is worth is which of its
 * builds see them.
 */
#ifndef CUDA_ON_CPU_PLANTED_H
#define CUDA_ON_CPU_PLANTED_H

namespace emulated {

enum builds { RACE_ONLY, ASAN_AND_RACE, EVERY_BUILD };

struct planted_bug {
    const char *name; /* of a test: no spaces */
    bool (*run)();    /* whether the results were right */
    builds seen_by;
    const char *report; /* of the race build, as a regular expression */
};
struct correct_code {
    const char *name;
    bool (*run)();
};

extern const planted_bug planted_bugs[];
extern const int planted_bug_count;
extern const correct_code correct_codes[];
extern const int correct_code_count;

} // namespace emulated

#endif
