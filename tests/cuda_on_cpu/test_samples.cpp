/*
 * test_samples.cpp: correct kernels give correct results, under every schedule, and no report.
 */
#include "device_array.h"
#include "samples.h"

#include <cmath>
#include <gtest/gtest.h>

using namespace emulated;

namespace {

class Samples : public testing::Test {
  protected:
    void SetUp() override { (void)cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking); }
    void TearDown() override { (void)cudaStreamDestroy(stream); }

    cudaStream_t stream = nullptr;
};

double sum_of(const std::vector<float> &values) {
    double sum = 0;
    for (const float value : values) sum += value;
    return sum;
}

TEST_F(Samples, BlockSumsAddUp) {
    for (const int n : {1, 37, 128, 1000}) {
        const auto x = random_floats(static_cast<size_t>(n), 1);
        const device_array<float> on_device(x), sums(3);
        ASSERT_EQ(launch_block_sums(on_device.data(), n, sums.data(), 3, stream), cudaSuccess);
        EXPECT_NEAR(sum_of(sums.values()), sum_of(x), 1e-4);
    }
}

/* Entry (i, j) of a (m, k) times b, row-major with the given strides. */
double entry(const std::vector<float> &a, const std::vector<float> &b, int i, int j, int k, int row, int column) {
    double sum = 0;
    for (int p = 0; p < k; p++)
        sum += static_cast<double>(a[static_cast<size_t>(i * k + p)]) *
               static_cast<double>(b[static_cast<size_t>(p * row + j * column)]);
    return sum;
}

TEST_F(Samples, TiledProductOfRaggedSizes) {
    for (const auto &[m, n, k] : {std::tuple(40, 50, 70), std::tuple(32, 32, 32), std::tuple(1, 33, 31)}) {
        const auto a = random_floats(static_cast<size_t>(m * k), 2), b = random_floats(static_cast<size_t>(k * n), 3);
        const device_array<float> on_a(a), on_b(b), on_c(static_cast<size_t>(m * n));
        ASSERT_EQ(launch_product(on_a.data(), on_b.data(), on_c.data(), m, n, k, stream), cudaSuccess);
        const auto c = on_c.values();
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++)
                ASSERT_NEAR(c[static_cast<size_t>(i * n + j)], entry(a, b, i, j, k, n, 1), 1e-4);
    }
}

TEST_F(Samples, TensorProductOfRaggedSizes) {
    for (const auto &[m, n, k] : {std::tuple(45, 23, 48), std::tuple(36, 22, 16), std::tuple(40, 17, 32)}) {
        const auto a = random_floats(static_cast<size_t>(m * k), 4), b = random_floats(static_cast<size_t>(n * k), 5);
        const device_array<float> on_a(a), on_b(b), on_c(static_cast<size_t>(m * n));
        ASSERT_EQ(launch_product_tf32(on_a.data(), on_b.data(), on_c.data(), m, n, k, stream), cudaSuccess);
        const auto c = on_c.values();
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++) {
                const double error = c[static_cast<size_t>(i * n + j)] - entry(a, b, i, j, k, 1, k);
                ASSERT_LT(std::fabs(error), 5e-3); /* 2^-11 relative for each factor */
                ASSERT_TRUE(i || j || error != 0); /* and really rounded */
            }
    }
}

TEST_F(Samples, LogSumExpOfRows) {
    const int n = 37, m = 75;
    const auto z = random_floats(n * m, 6);
    const device_array<float> on_z(z), on_f(n);
    ASSERT_EQ(launch_log_sum_exp(on_z.data(), n, m, on_f.data(), stream), cudaSuccess);
    const auto f = on_f.values();
    for (int i = 0; i < n; i++) {
        double sum = 0;
        for (int j = 0; j < m; j++) sum += std::exp(static_cast<double>(z[static_cast<size_t>(i * m + j)]));
        EXPECT_NEAR(f[static_cast<size_t>(i)], std::log(sum), 1e-5);
    }
}

TEST_F(Samples, BlocksMeetInACooperativeLaunch) {
    const int blocks = normalise_blocks();
    ASSERT_GE(blocks, 4);
    for (const int n : {1, 1000, 5000}) {
        std::vector<float> x(static_cast<size_t>(n), 3);
        const device_array<float> on_x(x);
        const device_array<double> partial(static_cast<size_t>(blocks));
        ASSERT_EQ(launch_normalise(on_x.data(), n, partial.data(), blocks, 3, stream), cudaSuccess);
        EXPECT_NEAR(sum_of(on_x.values()), 1, 1e-5);
    }
}

} // namespace
