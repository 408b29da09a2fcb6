/*
 * test_device.cpp: arithmetic and operations of a warp as a device has them.
 */
#include "device_array.h"
#include "samples.h"

#include "portable.h"

#include <cmath>
#include <gtest/gtest.h>
#include <limits>

using namespace emulated;

namespace {

TEST(LaneOperations, MoveWhatCudaMoves) {
    const device_array<int> on_device(LANE_OPERATIONS * 32);
    ASSERT_EQ(launch_lane_operations(on_device.data(), nullptr), cudaSuccess);
    const auto out = on_device.values();
    const auto got = [&](lane_operation operation, int lane) {
        return out[static_cast<size_t>(operation * 32 + lane)];
    };
    for (int lane = 0; lane < 32; lane++) {
        const int segment = lane / 8 * 8;
        EXPECT_EQ(got(SHUFFLE_7, lane), 7);
        EXPECT_EQ(got(SHUFFLE_3_OF_8, lane), segment + 3);
        EXPECT_EQ(got(XOR_5, lane), lane ^ 5);
        EXPECT_EQ(got(XOR_8_OF_8, lane), (lane ^ 8) < lane ? lane ^ 8 : lane); /* never from a later segment */
        EXPECT_EQ(got(DOWN_3, lane), lane + 3 < 32 ? lane + 3 : lane);
        EXPECT_EQ(got(DOWN_3_OF_8, lane), lane + 3 < segment + 8 ? lane + 3 : lane);
        EXPECT_EQ(got(UP_3, lane), lane >= 3 ? lane - 3 : lane);
        EXPECT_EQ(got(UP_3_OF_8, lane), lane - 3 >= segment ? lane - 3 : lane);
        EXPECT_EQ(got(BALLOT_ODD, lane), static_cast<int>(0xaaaaaaaau));
        EXPECT_EQ(got(ANY_LAST, lane), 1);
        EXPECT_EQ(got(ALL_BUT_LAST, lane), 0);
        EXPECT_EQ(got(REDUCE_ADD, lane), 496);
        EXPECT_EQ(got(REDUCE_MAX, lane), 31);
        EXPECT_EQ(got(BARRIER_COUNT_ODD, lane), 16);
        EXPECT_EQ(got(BARRIER_AND_ODD, lane), 0);
        EXPECT_EQ(got(BARRIER_OR_ODD, lane), 1);
    }
}

TEST(Tf32, RoundsToNearestAwayFromZero) {
    const float ulp = 1.0f / 1024; /* of numbers in [1, 2) */
    EXPECT_EQ(cuemu::round_to_tf32(1), 1);
    EXPECT_EQ(cuemu::round_to_tf32(1 + ulp), 1 + ulp);
    EXPECT_EQ(cuemu::round_to_tf32(1 + ulp / 2), 1 + ulp);
    EXPECT_EQ(cuemu::round_to_tf32(-1 - ulp / 2), -1 - ulp);
    EXPECT_EQ(cuemu::round_to_tf32(1 + 0.49f * ulp), 1);
    EXPECT_EQ(cuemu::round_to_tf32(std::numeric_limits<float>::max()), INFINITY);
    EXPECT_EQ(cuemu::round_to_tf32(-INFINITY), -INFINITY);
    EXPECT_TRUE(std::isnan(cuemu::round_to_tf32(NAN)));
}

TEST(Tf32, TheTensorUnitDropsWhatItDoesNotRead) {
    const float ulp = 1.0f / 1024;
    EXPECT_EQ(cuemu::truncate_to_tf32(1 + 0.99f * ulp), 1);
    EXPECT_EQ(cuemu::truncate_to_tf32(-1 - 0.99f * ulp), -1);
    EXPECT_TRUE(std::isnan(cuemu::truncate_to_tf32(__uint_as_float(0x7f800001u))));
}

TEST(Tf32, SumsAreCutNotRounded) {
    const float ones[8] = {1, 1, 1, 1, 1, 1, 1, 1}, none[8] = {}, unit = std::numeric_limits<float>::epsilon();
    const float small[8] = {unit * 0.49f, unit * 0.49f, unit * 0.49f, unit * 0.49f}, half[8] = {unit, unit / 2};
    EXPECT_EQ(cuemu::add_aligned(3, ones, ones), 11);
    EXPECT_EQ(cuemu::add_aligned(3, none, none), 3);
    EXPECT_EQ(cuemu::add_aligned(1, small, ones), 1); /* 1.96 units, each lost */
    EXPECT_EQ(cuemu::add_aligned(1, half, ones), 1 + unit);
    EXPECT_EQ(cuemu::add_aligned(INFINITY, ones, ones), INFINITY);
    EXPECT_TRUE(std::isnan(cuemu::add_aligned(NAN, ones, ones)));
}

TEST(Exp2, FlushesWhatIsTooSmall) {
    EXPECT_NEAR(mover_exp2(0.5f), std::sqrt(2.0f), 1e-6);
    EXPECT_EQ(mover_exp2(-127.0f), 0);
    EXPECT_EQ(mover_exp2(-INFINITY), 0);
    EXPECT_EQ(mover_exp2(128.0f), INFINITY);
    EXPECT_TRUE(std::isnan(mover_exp2(NAN)));
    EXPECT_EQ(mover_exp2(-1.0), 0.5);
}

TEST(Approximation, IsOffByAtMostTheGivenDigitsAndRepeats) {
    const float before = cuemu::config.ulp;
    bool differs = false;
    for (int i = 1; i < 100; i++) {
        const float exact = 1 + static_cast<float>(i) / 100, digit = std::numeric_limits<float>::epsilon();
        cuemu::config.ulp = 0;
        EXPECT_EQ(cuemu::approximate(exact), exact);
        cuemu::config.ulp = 2;
        const float off = cuemu::approximate(exact);
        EXPECT_EQ(cuemu::approximate(exact), off);
        EXPECT_LE(std::fabs(off - exact), 2 * digit);
        differs |= off != exact;
    }
    EXPECT_TRUE(differs);
    cuemu::config.ulp = before;
}

TEST(Bits, AreCountedAsOnADevice) {
    EXPECT_EQ(__popc(0xf0u), 4);
    EXPECT_EQ(__clz(1), 31);
    EXPECT_EQ(__clz(0), 32);
    EXPECT_EQ(__clzll(1), 63);
    EXPECT_EQ(__ffs(8), 4);
    EXPECT_EQ(__ffs(0), 0);
    EXPECT_EQ(__uint_as_float(__float_as_uint(-2.5f)), -2.5f);
    EXPECT_EQ(__longlong_as_double(__double_as_longlong(-2.5)), -2.5);
    EXPECT_EQ(min(NAN, 1.0f), 1.0f);
}

} // namespace
