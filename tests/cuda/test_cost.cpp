/*
 * test_cost.cpp: costs on CUDA: accuracy from far to equal rows, tiles of every size, alignment, gradients.
 */
#include "device.h"

#define MOVER_REAL_BITS 32
#include "../../kernels/cuda/cost.h"

#include <array>

/* cost.h for double. */
mover_status mover_cuda_norms_f64(const char *function, int64_t count, int64_t d, const double *rows, double *norm,
                                  const mover_exec *exec);
mover_status mover_cuda_tiled_costs_f64(const char *function, int side, int64_t n, int64_t m, int64_t d,
                                        const double *x, const double *norm_x, const double *y, const double *norm_y,
                                        double scale, mover_precision precision, double *out, const mover_exec *exec);

using namespace fixtures;

namespace {

typedef std::array<int64_t, 3> Shape;

template <class T>
mover_cost_desc desc_of(int64_t batch, const Shape &shape, mover_precision precision = MOVER_PRECISION_FLOAT32) {
    return {dtype_of<T>(), batch, shape[0], shape[1], shape[2], precision};
}

/* Costs of rows at addresses `shift` elements past aligned ones. */
template <class T>
std::vector<T> costs_on(const mover_exec *exec, const mover_cost_desc &desc, const std::vector<T> &x,
                        const std::vector<T> &y, size_t shift = 0) {
    size_t bytes = 0;
    EXPECT_OK(mover_cost_forward_workspace_size(&desc, &bytes, exec));
    DeviceArray<T> x_there(x, shift), y_there(y, shift);
    DeviceArray<T> cost(static_cast<size_t>(desc.batch * desc.n * desc.m), shift);
    DeviceArray<unsigned char> workspace(bytes, shift);
    EXPECT_OK(mover_cost_forward(&desc, x_there.data(), y_there.data(), cost.data(), workspace.data(), bytes, exec));
    return cost.fetch();
}

template <class T>
std::vector<T> costs_on_cpu(const mover_cost_desc &desc, const std::vector<T> &x, const std::vector<T> &y) {
    size_t bytes = 0;
    EXPECT_OK(mover_cost_forward_workspace_size(&desc, &bytes, nullptr));
    Workspace workspace(bytes);
    std::vector<T> cost(static_cast<size_t>(desc.batch * desc.n * desc.m), not_a_number<T>());
    EXPECT_OK(mover_cost_forward(&desc, x.data(), y.data(), cost.data(), workspace.data(), bytes, nullptr));
    return cost;
}

template <class T>
double largest_relative_error(const mover_cost_desc &desc, const std::vector<T> &x, const std::vector<T> &y,
                              const std::vector<T> &cost) {
    double worst = 0;
    for (int64_t q = 0; q < desc.batch * desc.n * desc.m; q++) {
        const T *x_row = x.data() + q / desc.m * desc.d;
        const T *y_row = y.data() + (q / (desc.n * desc.m) * desc.m + q % desc.m) * desc.d;
        long double exact = 0;
        for (int64_t t = 0; t < desc.d; t++) {
            const long double difference = static_cast<long double>(x_row[t]) - static_cast<long double>(y_row[t]);
            exact += difference * difference;
        }
        const double error =
            std::fabs(static_cast<double>(static_cast<long double>(cost[static_cast<size_t>(q)]) - exact));
        const double relative = exact == 0 ? (error == 0 ? 0 : 1) : error / static_cast<double>(exact);
        if (!(relative <= worst)) worst = relative;
    }
    return worst;
}

template <class T> class CudaCost : public OnDevice {
  protected:
    static constexpr double accuracy = tolerance<T>(1e-5, 1e-10);
};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(CudaCost, Types);

TYPED_TEST(CudaCost, IsTheSquaredDistanceForAnyShape) {
    using T = TypeParam;
    for (const Shape &shape : {Shape{1, 1, 1}, Shape{1, 7, 3}, Shape{33, 1, 5}, Shape{31, 65, 17}, Shape{32, 32, 64},
                               Shape{65, 33, 33}, Shape{16, 100, 84}, Shape{17, 15, 1}}) {
        const auto desc = desc_of<T>(1, shape);
        const auto x = random_values<T>(shape[0] * shape[2], 1), y = random_values<T>(shape[1] * shape[2], 2);
        const auto cost = costs_on(this->exec(), desc, x, y);
        EXPECT_LE(largest_relative_error(desc, x, y, cost), this->accuracy);
        EXPECT_LE(distance(cost, costs_on_cpu(desc, x, y)), this->accuracy * largest(cost));
    }
}

TYPED_TEST(CudaCost, ABatchIsTheLoopOverIt) {
    using T = TypeParam;
    const int64_t batch = 3, n = 37, m = 21, d = 20;
    const auto desc = desc_of<T>(batch, {n, m, d});
    auto x = random_values<T>(batch * n * d, 3), y = random_values<T>(batch * m * d, 4);
    for (int64_t q = 0; q < n * d; q++) x[static_cast<size_t>(q)] = 4 + x[static_cast<size_t>(q)] / 8;
    for (int64_t q = 0; q < m * d; q++) y[static_cast<size_t>(q)] = 4 + y[static_cast<size_t>(q)] / 8;
    const auto cost = costs_on(this->exec(), desc, x, y);
    EXPECT_LE(largest_relative_error(desc, x, y, cost), this->accuracy);
    for (int64_t b = 0; b < batch; b++) {
        const std::vector<T> of_x(x.begin() + b * n * d, x.begin() + (b + 1) * n * d);
        const std::vector<T> of_y(y.begin() + b * m * d, y.begin() + (b + 1) * m * d);
        const std::vector<T> expected(cost.begin() + b * n * m, cost.begin() + (b + 1) * n * m);
        EXPECT_TRUE(same_bits(costs_on(this->exec(), desc_of<T>(1, {n, m, d}), of_x, of_y), expected));
    }
}

/* costs (n, m) in tiles of a given side. */
template <class T>
std::vector<T> tiled_costs(const mover_exec *exec, int side, const Shape &shape, const std::vector<T> &x,
                           const std::vector<T> &y, mover_precision precision) {
    const auto &[n, m, d] = shape;
    DeviceArray<T> x_there(x), y_there(y), norm_x(static_cast<size_t>(n)), norm_y(static_cast<size_t>(m));
    DeviceArray<T> out(static_cast<size_t>(n * m));
    const auto norms = [] {
        if constexpr (std::is_same_v<T, float>)
            return mover_cuda_norms_f32;
        else
            return mover_cuda_norms_f64;
    }();
    const auto costs = [] {
        if constexpr (std::is_same_v<T, float>)
            return mover_cuda_tiled_costs_f32;
        else
            return mover_cuda_tiled_costs_f64;
    }();
    EXPECT_OK(norms("test", n, d, x_there.data(), norm_x.data(), exec));
    EXPECT_OK(norms("test", m, d, y_there.data(), norm_y.data(), exec));
    EXPECT_OK(costs("test", side, n, m, d, x_there.data(), norm_x.data(), y_there.data(), norm_y.data(), 1, precision,
                    out.data(), exec));
    return out.fetch();
}

TYPED_TEST(CudaCost, TilesOfEverySizeGiveTheSameBits) {
    using T = TypeParam;
    for (const Shape &shape : {Shape{127, 129, 36}, Shape{129, 30, 20}, Shape{64, 65, 3}})
        for (const mover_precision precision : {MOVER_PRECISION_FLOAT32, MOVER_PRECISION_TF32}) {
            if (precision == MOVER_PRECISION_TF32 && shape[1] != 30) continue;
            const auto &[n, m, d] = shape;
            const auto x = random_values<T>(n * d, 26);
            auto y = random_values<T>(m * d, 27);
            /* Of the first half of the rows, some are close to many others and the rest to one. */
            for (int64_t q = 0; q < std::min(n, m) / 2 * d; q++)
                y[static_cast<size_t>(q)] =
                    static_cast<T>(1.00001) * x[static_cast<size_t>(q < std::min(n, m) / 4 * d ? q % d : q)];
            for (int64_t q = 0; q < std::min(n, m) / 4 * d; q++)
                y[static_cast<size_t>(q)] *= T(1 + 1e-6 * static_cast<double>(q));
            const auto small = tiled_costs(this->exec(), 32, shape, x, y, precision);
            EXPECT_TRUE(same_bits(small, tiled_costs(this->exec(), 64, shape, x, y, precision)));
            EXPECT_TRUE(same_bits(small, tiled_costs(this->exec(), 128, shape, x, y, precision)));
            if (precision == MOVER_PRECISION_FLOAT32) {
                EXPECT_LE(largest_relative_error(desc_of<T>(1, shape), x, y, small), this->accuracy);
            }
        }
}

TYPED_TEST(CudaCost, MisalignedMemoryChangesNothing) {
    using T = TypeParam;
    for (const Shape &shape : {Shape{34, 36, 20}, Shape{9, 40, 36}}) {
        const auto desc = desc_of<T>(1, shape);
        const auto x = random_values<T>(shape[0] * shape[2], 5);
        auto y = random_values<T>(shape[1] * shape[2], 6);
        std::copy(x.begin(), x.begin() + shape[2], y.begin()); /* a near entry too */
        EXPECT_TRUE(same_bits(costs_on(this->exec(), desc, x, y), costs_on(this->exec(), desc, x, y, 1)));
    }
}

TYPED_TEST(CudaCost, KeepsItsDigitsBetweenNearlyEqualRows) {
    using T = TypeParam;
    /* One row of y in each distance from x, down to the last bit. */
    const Shape shape = {40, 40, 64};
    const auto desc = desc_of<T>(1, shape);
    const auto x = random_values<T>(40 * 64, 7);
    auto y = x;
    for (int64_t i = 0; i < 40; i++)
        y[static_cast<size_t>(i * 64 + i)] += static_cast<T>(std::pow(2.0, -static_cast<double>(i)));
    EXPECT_LE(largest_relative_error(desc, x, y, costs_on(this->exec(), desc, x, y)), this->accuracy);
}

TYPED_TEST(CudaCost, KeepsItsDigitsBetweenNearlyParallelUnitRows) {
    using T = TypeParam;
    const int64_t n = 35, d = 33;
    const auto desc = desc_of<T>(1, {n, n, d});
    const auto base = random_rows<double>(n, d, 8), turn = random_rows<double>(n, d, 9);
    std::vector<double> turned(base);
    for (int64_t i = 0; i < n; i++) {
        const double angle = std::pow(10.0, -2 - static_cast<double>(i % 5));
        for (int64_t t = 0; t < d; t++)
            turned[static_cast<size_t>(i * d + t)] += angle * turn[static_cast<size_t>(i * d + t)];
    }
    normalise(turned, d);
    const std::vector<T> x(base.begin(), base.end()), y(turned.begin(), turned.end());
    EXPECT_LE(largest_relative_error(desc, x, y, costs_on(this->exec(), desc, x, y)), this->accuracy);
}

TYPED_TEST(CudaCost, KeepsItsDigitsInsideACone) {
    using T = TypeParam;
    /* All rows close to one direction: every entry is near, in double only for the last. */
    for (const double offset : {3.0, 30.0, 3000.0})
        for (const int64_t d : {24, 23}) {
            const auto desc = desc_of<T>(1, {50, 35, d});
            auto x = random_values<T>(50 * d, 10), y = random_values<T>(35 * d, 11);
            for (T &value : x) value += static_cast<T>(offset);
            for (T &value : y) value += static_cast<T>(offset);
            EXPECT_LE(largest_relative_error(desc, x, y, costs_on(this->exec(), desc, x, y)), this->accuracy);
        }
}

TYPED_TEST(CudaCost, AnEntryHasTheSameBitsHoweverManyOthersAreNear) {
    using T = TypeParam;
    /* A near entry and a far one, alone and amid near ones. */
    const int64_t n = 20, d = 40;
    const auto desc = desc_of<T>(1, {n, n, d});
    auto x = random_values<T>(n * d, 12);
    for (T &value : x) value = T(0.1) + value / 100000;
    for (int64_t t = 0; t < d; t++)
        x[static_cast<size_t>(6 * d + t)] *= static_cast<T>(0.2 + 0.02 * static_cast<double>(t));
    auto y = x;
    for (T &value : y) value += static_cast<T>(1e-6);
    const auto cone = costs_on(this->exec(), desc, x, y);
    for (int64_t q = 0; q < n * d; q++) {
        if (q / d != 3) y[static_cast<size_t>(q)] *= static_cast<T>(-1);
        if (q / d != 5 && q / d != 6) x[static_cast<size_t>(q)] *= static_cast<T>(q % 2 ? 1 : -1);
    }
    const auto alone = costs_on(this->exec(), desc, x, y);
    EXPECT_EQ(cone[5 * n + 3], alone[5 * n + 3]);
    EXPECT_EQ(cone[6 * n + 3], alone[6 * n + 3]);
    EXPECT_LT(cone[5 * n + 3], 1e-4);
    EXPECT_GT(cone[6 * n + 3], 1e-2);
    EXPECT_NE(cone[5 * n + 4], alone[5 * n + 4]);
}

TYPED_TEST(CudaCost, IsZeroForEqualRows) {
    using T = TypeParam;
    for (const int64_t d : {1, 33, 64}) {
        const auto x = random_values<T>(33 * d, 13);
        const auto cost = costs_on(this->exec(), desc_of<T>(1, {33, 33, d}), x, x);
        for (size_t i = 0; i < 33; i++) EXPECT_EQ(cost[i * 33 + i], 0);
    }
}

TYPED_TEST(CudaCost, WhatIsNotFiniteStaysInItsRow) {
    using T = TypeParam;
    const int64_t n = 35, m = 40, d = 20;
    const auto desc = desc_of<T>(2, {n, m, d});
    const auto x = random_values<T>(2 * n * d, 14), y = random_values<T>(2 * m * d, 15);
    const auto clean = costs_on(this->exec(), desc, x, y);
    for (const T bad : {not_a_number<T>(), infinity<T>()}) {
        auto of_x = x;
        of_x[static_cast<size_t>(33 * d + 1)] = bad;
        const auto cost = costs_on(this->exec(), desc, of_x, y);
        for (int64_t q = 0; q < 2 * n * m; q++) {
            if (q / m == 33)
                EXPECT_FALSE(std::isfinite(cost[static_cast<size_t>(q)]));
            else
                EXPECT_EQ(cost[static_cast<size_t>(q)], clean[static_cast<size_t>(q)]);
        }
    }
}

TYPED_TEST(CudaCost, EmptyShapes) {
    using T = TypeParam;
    for (const Shape &shape : {Shape{0, 3, 2}, Shape{3, 0, 2}, Shape{0, 0, 0}})
        EXPECT_TRUE(costs_on(this->exec(), desc_of<T>(1, shape),
                             std::vector<T>(static_cast<size_t>(shape[0] * shape[2])),
                             std::vector<T>(static_cast<size_t>(shape[1] * shape[2])))
                        .empty());
    EXPECT_TRUE(costs_on(this->exec(), desc_of<T>(0, {2, 3, 4}), std::vector<T>(), std::vector<T>()).empty());
    EXPECT_EQ(costs_on(this->exec(), desc_of<T>(1, {2, 3, 0}), std::vector<T>(), std::vector<T>()),
              std::vector<T>(6, 0));
}

/* ---- tf32 and row minima: float only ----------------------------------------------------------------------------- */

class CudaCostInFloat : public OnDevice {};

TEST_F(CudaCostInFloat, Tf32RoundsFactorsOfFarRowsOnly) {
    const int64_t n = 40, d = 48;
    const auto x = random_rows<float>(n, d, 16);
    auto y = random_rows<float>(n, d, 17);
    std::copy(x.begin(), x.begin() + d, y.begin());
    const auto exact = costs_on(exec(), desc_of<float>(1, {n, n, d}), x, y);
    const auto rounded = costs_on(exec(), desc_of<float>(1, {n, n, d}, MOVER_PRECISION_TF32), x, y);
    EXPECT_EQ(rounded[0], 0);
    const double error = distance(exact, rounded);
    EXPECT_GT(error, 1e-6);
    EXPECT_LT(error, 2e-3);
    /* Factors that have no more than 10 bits of mantissa are not rounded. */
    std::vector<float> small_x(static_cast<size_t>(n * d)), small_y(static_cast<size_t>(n * d));
    for (int64_t q = 0; q < n * d; q++) {
        small_x[static_cast<size_t>(q)] = static_cast<float>(q * 37 % 63 - 31);
        small_y[static_cast<size_t>(q)] = static_cast<float>(q * 23 % 61 - 30);
    }
    const auto desc = desc_of<float>(1, {n, n, d}, MOVER_PRECISION_TF32);
    EXPECT_EQ(largest_relative_error(desc, small_x, small_y, costs_on(exec(), desc, small_x, small_y)), 0);
}

TEST_F(CudaCostInFloat, RowMinimaAreExact) {
    const int64_t batch = 3, n = 35, m = 70, d = 8;
    auto x = random_values<float>(batch * n * d, 18);
    const auto y = random_values<float>(batch * m * d, 19);
    x[static_cast<size_t>(4 * d)] = not_a_number<float>();
    std::copy(y.begin() + 3 * d, y.begin() + 4 * d, x.begin() + 6 * d);
    DeviceArray<float> x_there(x), y_there(y), minimum(static_cast<size_t>(batch * n)), norm_x(minimum.size());
    DeviceArray<float> cost(static_cast<size_t>(batch * n * m)), norm_y(static_cast<size_t>(batch * m));
    const mover_cuda_cost_scratch_f32 scratch = {norm_x.data(), norm_y.data()};
    EXPECT_OK(mover_cuda_costs_f32("test", batch, n, m, d, x_there.data(), y_there.data(), MOVER_PRECISION_FLOAT32,
                                   cost.data(), minimum.data(), &scratch, exec()));
    const auto costs = cost.fetch(), minima = minimum.fetch();
    for (int64_t i = 0; i < batch * n; i++) {
        const float least = *std::min_element(costs.begin() + i * m, costs.begin() + (i + 1) * m);
        if (i == 4)
            EXPECT_TRUE(std::isnan(minima[4]));
        else
            EXPECT_EQ(minima[static_cast<size_t>(i)], least);
    }
    EXPECT_EQ(minima[6], 0);
}

TEST(CudaCostTiles, AreLargeWhereThereAreEnough) {
    EXPECT_EQ(mover_cuda_tile_side_f32(1, 8192, 8192), 128);
    EXPECT_EQ(mover_cuda_tile_side_f32(3, 1024, 1024), 128);
    EXPECT_EQ(mover_cuda_tile_side_f32(1, 1024, 1024), 64);
    EXPECT_EQ(mover_cuda_tile_side_f32(3, 256, 256), 32);
    EXPECT_EQ(mover_cuda_tile_side_f32(1000, 64, 64), 64);
    EXPECT_EQ(mover_cuda_tile_side_f32(1000, 65, 65), 128);
    EXPECT_EQ(mover_cuda_tile_side_f32(1, 32, 1 << 20), 32);
    EXPECT_EQ(mover_cuda_tile_side_f32(0, 0, 5), 32);
}

TEST_F(CudaCostInFloat, ScaledCostsOfAStripHaveTheBitsOfTheWhole) {
    const int64_t n = 40, m = 37, d = 20, first = 7, rows = 25;
    const auto x = random_values<float>(n * d, 20);
    auto y = random_values<float>(m * d, 21);
    for (int64_t j = 0; j < 3; j++) /* a near entry, then a region of them */
        for (int64_t t = 0; t < d; t++)
            y[static_cast<size_t>(j * d + t)] = 1.0001f * x[static_cast<size_t>((first + j) * d + t)];
    for (int64_t j = 16; j < m; j++)
        for (int64_t t = 0; t < d; t++)
            y[static_cast<size_t>(j * d + t)] = x[static_cast<size_t>((first + j % 3) * d + t)];
    const auto whole = costs_on(exec(), desc_of<float>(1, {n, m, d}), x, y);
    DeviceArray<float> x_there(x), y_there(y), norm_x(static_cast<size_t>(n)), norm_y(static_cast<size_t>(m));
    DeviceArray<float> out(static_cast<size_t>(rows * m));
    EXPECT_OK(mover_cuda_norms_f32("test", n, d, x_there.data(), norm_x.data(), exec()));
    EXPECT_OK(mover_cuda_norms_f32("test", m, d, y_there.data(), norm_y.data(), exec()));
    EXPECT_OK(mover_cuda_scaled_costs_f32("test", rows, m, d, x_there.data() + first * d, norm_x.data() + first,
                                          y_there.data(), norm_y.data(), 0.5f, MOVER_PRECISION_FLOAT32, out.data(),
                                          exec()));
    const auto strip = out.fetch();
    for (int64_t q = 0; q < rows * m; q++)
        EXPECT_EQ(2 * strip[static_cast<size_t>(q)], whole[static_cast<size_t>(first * m + q)]);
}

/* ---- gradient ---------------------------------------------------------------------------------------------------- */

template <class T> struct Gradient { std::vector<T> x, y; };

template <class T>
Gradient<T> gradient_on(const mover_exec *exec, const mover_cost_desc &desc, const std::vector<T> &x,
                        const std::vector<T> &y, const std::vector<T> &grad, bool of_x, bool of_y, size_t shift = 0) {
    size_t bytes = 0;
    EXPECT_OK(mover_cost_backward_workspace_size(&desc, &bytes, exec));
    DeviceArray<T> x_there(x, shift), y_there(y, shift), grad_there(grad, shift);
    DeviceArray<T> grad_x(of_x ? x.size() : 0, shift), grad_y(of_y ? y.size() : 0, shift);
    DeviceArray<unsigned char> workspace(bytes, shift);
    EXPECT_OK(mover_cost_backward(&desc, x_there.data(), y_there.data(), grad_there.data(), grad_x.data(),
                                  grad_y.data(), workspace.data(), bytes, exec));
    return {grad_x.fetch(), grad_y.fetch()};
}

TYPED_TEST(CudaCost, GradientMatchesItsFormula) {
    using T = TypeParam;
    for (const Shape &shape : {Shape{33, 18, 11}, Shape{300, 5, 3}, Shape{1, 40, 33}, Shape{2, 1, 1}}) {
        const auto &[n, m, d] = shape;
        const auto desc = desc_of<T>(2, shape);
        const auto x = random_values<T>(2 * n * d, 22), y = random_values<T>(2 * m * d, 23);
        const auto grad = random_values<T>(2 * n * m, 24);
        std::vector<double> grad_x(x.size(), 0), grad_y(y.size(), 0);
        for (int64_t q = 0; q < 2 * n * m; q++)
            for (int64_t t = 0; t < d; t++) {
                const size_t i = static_cast<size_t>(q / m * d + t);
                const size_t j = static_cast<size_t>((q / (n * m) * m + q % m) * d + t);
                const double slope = 2 * static_cast<double>(grad[static_cast<size_t>(q)]) *
                                     (static_cast<double>(x[i]) - static_cast<double>(y[j]));
                grad_x[i] += slope;
                grad_y[j] -= slope;
            }
        const auto both = gradient_on(this->exec(), desc, x, y, grad, true, true);
        EXPECT_LE(distance(both.x, grad_x), 20 * std::numeric_limits<T>::epsilon() * largest(grad_x));
        EXPECT_LE(distance(both.y, grad_y), 20 * std::numeric_limits<T>::epsilon() * largest(grad_y));
        EXPECT_TRUE(same_bits(both.x, gradient_on(this->exec(), desc, x, y, grad, true, false, 1).x));
        EXPECT_TRUE(same_bits(both.y, gradient_on(this->exec(), desc, x, y, grad, false, true, 1).y));
        const auto one = gradient_on(this->exec(), desc_of<T>(1, shape), std::vector<T>(x.begin() + n * d, x.end()),
                                     std::vector<T>(y.begin() + m * d, y.end()),
                                     std::vector<T>(grad.begin() + n * m, grad.end()), true, true);
        EXPECT_TRUE(same_bits(one.x, std::vector<T>(both.x.begin() + n * d, both.x.end())));
        EXPECT_TRUE(same_bits(one.y, std::vector<T>(both.y.begin() + m * d, both.y.end())));
    }
}

TYPED_TEST(CudaCost, GradientOfEmptyShapesIsZero) {
    using T = TypeParam;
    const auto desc = desc_of<T>(1, {0, 3, 2});
    const auto grad =
        gradient_on(this->exec(), desc, std::vector<T>(), random_values<T>(6, 25), std::vector<T>(), true, true);
    EXPECT_TRUE(grad.x.empty());
    EXPECT_EQ(grad.y, std::vector<T>(6, 0));
}

TYPED_TEST(CudaCost, GradientNeedsAHandle) {
    using T = TypeParam;
    mover_exec exec = *this->exec();
    exec.blas = nullptr;
    const auto desc = desc_of<T>(1, {1, 1, 1});
    size_t bytes = 0;
    EXPECT_OK(mover_cost_backward_workspace_size(&desc, &bytes, &exec));
    DeviceArray<T> x(std::vector<T>{1}), grad(1);
    DeviceArray<unsigned char> workspace(bytes);
    EXPECT_FAILS(
        mover_cost_backward(&desc, x.data(), x.data(), x.data(), grad.data(), nullptr, workspace.data(), bytes, &exec),
        MOVER_ERROR_ARGUMENT, "mover_cost_backward: exec.blas must be a cublasHandle_t, got NULL");
}

} // namespace
