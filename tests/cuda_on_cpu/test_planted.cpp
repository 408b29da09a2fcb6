/*
 * test_planted.cpp: planted bugs are seen, correct code is left in peace.
 *
 * A bug may end the process, so each runs in one of its own. The race build has to see it in one run, the others under
 * one schedule or another.
 */
#include "planted.h"

#include <cuda_on_cpu.h>

#include <cstdlib>
#include <gtest/gtest.h>

using namespace emulated;

namespace emulated {

void PrintTo(const planted_bug &bug, std::ostream *out) { *out << bug.name; }
void PrintTo(const correct_code &code, std::ostream *out) { *out << code.name; }

} // namespace emulated

namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool SANITIZED = true;
#else
constexpr bool SANITIZED = false;
#endif

void under(cuemu::schedule order, uint64_t seed, bool (*run)(), bool *noticed) {
    cuemu::reset();
    cuemu::config.order = order;
    cuemu::config.seed = seed;
    *noticed |= !run() || cuemu::reports() > 0;
}

[[noreturn]] void run_and_exit(const planted_bug &bug) {
    bool noticed = false;
    under(cuemu::FORWARD, 1, bug.run, &noticed);
    if (!cuemu::detects_races()) {
        under(cuemu::REVERSE, 1, bug.run, &noticed);
        for (uint64_t seed = 1; seed <= 3; seed++) under(cuemu::RANDOM, seed, bug.run, &noticed);
    }
    _exit(noticed ? 1 : 0);
}

class Planted : public testing::TestWithParam<planted_bug> {};

TEST_P(Planted, IsSeen) {
    const planted_bug &bug = GetParam();
    if (bug.seen_by == RACE_ONLY && !cuemu::detects_races()) GTEST_SKIP() << "only the race build can see it";
    if (bug.seen_by == ASAN_AND_RACE && !cuemu::detects_races() && !SANITIZED)
        GTEST_SKIP() << "the fast build cannot see it";
    const char *report = cuemu::detects_races() ? bug.report : "";
    EXPECT_EXIT(
        run_and_exit(bug), [](int status) { return status != 0; }, testing::ContainsRegex(report));
}

std::string name_of(const testing::TestParamInfo<planted_bug> &info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Bug, Planted, testing::ValuesIn(planted_bugs, planted_bugs + planted_bug_count), name_of);

class Correct : public testing::TestWithParam<correct_code> {};

TEST_P(Correct, IsLeftInPeaceUnderEverySchedule) {
    const cuemu::configuration before = cuemu::config;
    for (const cuemu::schedule order : {cuemu::FORWARD, cuemu::REVERSE, cuemu::RANDOM})
        for (uint64_t seed = 1; seed <= 3; seed++) {
            cuemu::config.order = order;
            cuemu::config.seed = seed;
            EXPECT_TRUE(GetParam().run()) << "schedule " << order << ", seed " << seed;
            EXPECT_EQ(cuemu::reports(), 0);
        }
    cuemu::config = before;
}

std::string code_name_of(const testing::TestParamInfo<correct_code> &info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Code, Correct, testing::ValuesIn(correct_codes, correct_codes + correct_code_count),
                         code_name_of);

} // namespace
