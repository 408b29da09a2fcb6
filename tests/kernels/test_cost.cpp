// cost: accuracy from far to nearly equal rows, gradients, layouts, hostile inputs.
#include <mover/mover.h>

#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <random>
#include <vector>

namespace {

template <typename T> constexpr mover_dtype dtype_of = sizeof(T) == 4 ? MOVER_FLOAT32 : MOVER_FLOAT64;

template <typename T> std::vector<T> random_rows(int64_t count, unsigned seed, double offset = 0) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    std::vector<T> rows(static_cast<size_t>(count));
    for (T &value : rows) value = static_cast<T>(offset + normal(generator));
    return rows;
}

template <typename T>
std::vector<T> cost(int64_t batch, int64_t n, int64_t m, int64_t d, const std::vector<T> &x, const std::vector<T> &y) {
    mover_cost_desc desc = {};
    desc.dtype = dtype_of<T>;
    desc.batch = batch, desc.n = n, desc.m = m, desc.d = d;
    size_t bytes = 0;
    EXPECT_EQ(mover_cost_forward_workspace_size(&desc, &bytes, nullptr), MOVER_OK) << mover_last_error();
    std::vector<char> workspace(bytes);
    std::vector<T> out(static_cast<size_t>(batch * n * m), T(-7));
    EXPECT_EQ(mover_cost_forward(&desc, x.data(), y.data(), out.data(), workspace.data(), bytes, nullptr), MOVER_OK)
        << mover_last_error();
    return out;
}

template <typename T>
double largest_relative_error(int64_t n, int64_t m, int64_t d, const std::vector<T> &x, const std::vector<T> &y,
                              const std::vector<T> &c) {
    double worst = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) {
            long double exact = 0;
            for (int64_t t = 0; t < d; t++) {
                const long double difference = static_cast<long double>(x[i * d + t]) - y[j * d + t];
                exact += difference * difference;
            }
            const double error = std::abs(static_cast<double>(c[i * m + j] - exact));
            worst = std::max(worst, exact == 0 ? (error == 0 ? 0 : 1) : error / static_cast<double>(exact));
        }
    return worst;
}

template <typename T> class Cost : public testing::Test {
  protected:
    static constexpr double tolerance = sizeof(T) == 4 ? 1e-5 : 1e-10;
};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(Cost, Types);

TYPED_TEST(Cost, MatchesDifferencesOnAnyShape) {
    for (const auto &[n, m, d] : std::vector<std::array<int64_t, 3>>{
             {1, 1, 1}, {1, 7, 3}, {33, 1, 5}, {31, 65, 17}, {64, 64, 32}, {127, 129, 33}, {130, 40, 513}}) {
        const auto x = random_rows<TypeParam>(n * d, 1), y = random_rows<TypeParam>(m * d, 2);
        const auto c = cost<TypeParam>(1, n, m, d, x, y);
        EXPECT_LE(largest_relative_error(n, m, d, x, y, c), this->tolerance) << n << " " << m << " " << d;
    }
}

TYPED_TEST(Cost, KeepsItsDigitsBetweenNearlyEqualRows) {
    // One row of y in each distance from x, down to the last bit.
    const int64_t n = 40, d = 64;
    auto x = random_rows<TypeParam>(n * d, 3), y = x;
    for (int64_t i = 0; i < n; i++) y[i * d + i] += static_cast<TypeParam>(std::pow(2.0, -static_cast<double>(i)));
    EXPECT_LE(largest_relative_error(n, n, d, x, y, cost<TypeParam>(1, n, n, d, x, y)), this->tolerance);
}

TYPED_TEST(Cost, KeepsItsDigitsInsideACone) {
    // All rows close to one direction: every entry is near.
    for (const double offset : {3.0, 30.0, 300.0}) {
        const int64_t n = 150, m = 70, d = 24;
        const auto x = random_rows<TypeParam>(n * d, 4, offset), y = random_rows<TypeParam>(m * d, 5, offset);
        EXPECT_LE(largest_relative_error(n, m, d, x, y, cost<TypeParam>(1, n, m, d, x, y)), this->tolerance) << offset;
    }
}

TYPED_TEST(Cost, IsZeroForEqualRows) {
    const int64_t n = 9, d = 100;
    const auto x = random_rows<TypeParam>(n * d, 6);
    const auto c = cost<TypeParam>(1, n, n, d, x, x);
    for (int64_t i = 0; i < n; i++) EXPECT_EQ(c[i * n + i], 0);
}

TYPED_TEST(Cost, BatchGivesTheBitsOfItsProblems) {
    const int64_t batch = 3, n = 37, m = 21, d = 19;
    auto x = random_rows<TypeParam>(batch * n * d, 7), y = random_rows<TypeParam>(batch * m * d, 8);
    for (int64_t i = 0; i < n * d; i++) x[i] = 5 + x[i] / 10; // the first problem takes the path through double
    for (int64_t j = 0; j < m * d; j++) y[j] = 5 + y[j] / 10;
    const auto all = cost<TypeParam>(batch, n, m, d, x, y);
    for (int64_t b = 0; b < batch; b++) {
        const auto one = cost<TypeParam>(1, n, m, d, {x.begin() + b * n * d, x.begin() + (b + 1) * n * d},
                                         {y.begin() + b * m * d, y.begin() + (b + 1) * m * d});
        for (int64_t i = 0; i < n * m; i++) ASSERT_EQ(all[b * n * m + i], one[i]);
    }
}

TYPED_TEST(Cost, NotANumberStaysInItsRow) {
    const int64_t n = 5, m = 6, d = 4;
    auto x = random_rows<TypeParam>(n * d, 9);
    const auto y = random_rows<TypeParam>(m * d, 10);
    const auto clean = cost<TypeParam>(1, n, m, d, x, y);
    x[2 * d + 1] = std::numeric_limits<TypeParam>::quiet_NaN();
    const auto c = cost<TypeParam>(1, n, m, d, x, y);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) {
            if (i == 2)
                EXPECT_TRUE(std::isnan(c[i * m + j]));
            else
                EXPECT_EQ(c[i * m + j], clean[i * m + j]);
        }
}

TYPED_TEST(Cost, GradientMatchesItsFormula) {
    const int64_t n = 33, m = 18, d = 11;
    const auto x = random_rows<TypeParam>(n * d, 11), y = random_rows<TypeParam>(m * d, 12);
    const auto grad = random_rows<TypeParam>(n * m, 13);
    mover_cost_desc desc = {};
    desc.dtype = dtype_of<TypeParam>;
    desc.batch = 1, desc.n = n, desc.m = m, desc.d = d;
    size_t bytes = 0;
    ASSERT_EQ(mover_cost_backward_workspace_size(&desc, &bytes, nullptr), MOVER_OK);
    std::vector<char> workspace(bytes);
    std::vector<TypeParam> grad_x(x.size()), grad_y(y.size()), only_y(y.size());
    ASSERT_EQ(mover_cost_backward(&desc, x.data(), y.data(), grad.data(), grad_x.data(), grad_y.data(),
                                  workspace.data(), bytes, nullptr),
              MOVER_OK);
    ASSERT_EQ(mover_cost_backward(&desc, x.data(), y.data(), grad.data(), nullptr, only_y.data(), workspace.data(),
                                  bytes, nullptr),
              MOVER_OK);
    EXPECT_EQ(grad_y, only_y);
    const double tolerance = sizeof(TypeParam) == 4 ? 1e-4 : 1e-12;
    for (int64_t i = 0; i < n; i++)
        for (int64_t t = 0; t < d; t++) {
            double exact = 0;
            for (int64_t j = 0; j < m; j++) exact += 2.0 * grad[i * m + j] * (x[i * d + t] - y[j * d + t]);
            EXPECT_NEAR(grad_x[i * d + t], exact, tolerance);
        }
    for (int64_t j = 0; j < m; j++)
        for (int64_t t = 0; t < d; t++) {
            double exact = 0;
            for (int64_t i = 0; i < n; i++) exact -= 2.0 * grad[i * m + j] * (x[i * d + t] - y[j * d + t]);
            EXPECT_NEAR(grad_y[j * d + t], exact, tolerance);
        }
}

TEST(CostArguments, EmptyInputsAreFine) {
    for (const auto &[n, m, d] : std::vector<std::array<int64_t, 3>>{{0, 3, 2}, {3, 0, 2}, {0, 0, 0}})
        EXPECT_TRUE(cost<float>(1, n, m, d, std::vector<float>(8), std::vector<float>(8)).empty());
    EXPECT_EQ(cost<float>(1, 2, 2, 0, {}, {}), std::vector<float>(4, 0.0f));
}

TEST(CostArguments, ErrorsNameFunctionArgumentAndValue) {
    mover_cost_desc desc = {};
    desc.batch = 1, desc.n = -2, desc.m = 1, desc.d = 1;
    size_t bytes = 0;
    EXPECT_EQ(mover_cost_forward_workspace_size(&desc, &bytes, nullptr), MOVER_ERROR_ARGUMENT);
    EXPECT_STREQ(mover_last_error(), "mover_cost_forward_workspace_size: n must be >= 0, got -2");
    desc.n = INT64_MAX / 2, desc.m = INT64_MAX / 2;
    EXPECT_EQ(mover_cost_forward_workspace_size(&desc, &bytes, nullptr), MOVER_ERROR_OVERFLOW);
    desc.n = 1, desc.m = 1;
    desc.precision = MOVER_PRECISION_TF32;
    EXPECT_EQ(mover_cost_forward_workspace_size(&desc, &bytes, nullptr), MOVER_ERROR_UNSUPPORTED);
    desc.precision = MOVER_PRECISION_FLOAT32;
    float value = 0;
    EXPECT_EQ(mover_cost_forward(&desc, nullptr, &value, &value, nullptr, 0, nullptr), MOVER_ERROR_ARGUMENT);
    EXPECT_EQ(mover_cost_forward(&desc, &value, &value, &value, nullptr, 0, nullptr), MOVER_ERROR_WORKSPACE);
    mover_exec cuda = {};
    cuda.backend = MOVER_CUDA;
    EXPECT_EQ(mover_cost_forward(&desc, &value, &value, &value, nullptr, 0, &cuda), MOVER_ERROR_UNSUPPORTED);
    EXPECT_STREQ(mover_last_error(), "mover_cost_forward: this build has no CUDA backend; use MOVER_CPU");
}

} // namespace
