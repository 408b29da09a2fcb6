/*
 * gtest_main.cpp: main() of tests that run on the emulator. A test fails if the emulator reported anything, and starts
 * with a device that has no errors.
 */
#include <cuda_on_cpu.h>

#include <gtest/gtest.h>

namespace {

class Reports : public testing::EmptyTestEventListener {
    void OnTestStart(const testing::TestInfo &) override { cuemu::reset(); }

    void OnTestEnd(const testing::TestInfo &) override {
        (void)cudaDeviceSynchronize();
        if (cuemu::reports()) ADD_FAILURE() << "the emulator reported:\n" << cuemu::report_text();
        cuemu::reset();
    }
};

} // namespace

int main(int argc, char **argv) {
    testing::InitGoogleTest(&argc, argv);
    testing::UnitTest::GetInstance()->listeners().Append(new Reports);
    return RUN_ALL_TESTS();
}
