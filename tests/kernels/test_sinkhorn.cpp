// sinkhorn: values derived by hand or in closed form, exact gradients, hard epsilons, hostile inputs.
#include <mover/mover.h>

#include <cmath>
#include <gtest/gtest.h>
#include <limits>
#include <random>
#include <vector>

namespace {

template <typename T> constexpr mover_dtype dtype_of = sizeof(T) == 4 ? MOVER_FLOAT32 : MOVER_FLOAT64;

template <typename T> struct Result {
    std::vector<T> plan, f, g, error;
    std::vector<int32_t> n_iter;
};

mover_sinkhorn_desc describe(mover_dtype dtype, int64_t batch, int64_t n, int64_t m, double epsilon, double tol,
                             int32_t max_iter) {
    mover_sinkhorn_desc desc = {};
    desc.dtype = dtype;
    desc.batch = batch, desc.n = n, desc.m = m;
    desc.epsilon = epsilon, desc.tol = tol, desc.max_iter = max_iter;
    return desc;
}

template <typename T>
Result<T> solve(int64_t batch, int64_t n, int64_t m, double epsilon, const std::vector<T> &cost,
                const std::vector<T> &a = {}, const std::vector<T> &b = {}, double tol = 0, int32_t max_iter = 5000,
                mover_solver solver = MOVER_SOLVER_AUTO) {
    mover_sinkhorn_desc desc = describe(dtype_of<T>, batch, n, m, epsilon, tol, max_iter);
    desc.solver = solver;
    size_t bytes = 0;
    EXPECT_EQ(mover_sinkhorn_forward_workspace_size(&desc, &bytes, nullptr), MOVER_OK) << mover_last_error();
    std::vector<char> workspace(bytes);
    Result<T> r{std::vector<T>(batch * n * m), std::vector<T>(batch * n), std::vector<T>(batch * m),
                std::vector<T>(batch), std::vector<int32_t>(batch)};
    EXPECT_EQ(mover_sinkhorn_forward(&desc, cost.data(), a.empty() ? nullptr : a.data(), b.empty() ? nullptr : b.data(),
                                     r.plan.data(), r.f.data(), r.g.data(), r.n_iter.data(), r.error.data(),
                                     workspace.data(), bytes, nullptr),
              MOVER_OK)
        << mover_last_error();
    return r;
}

template <typename T> std::vector<T> random_cost(int64_t count, unsigned seed, double scale = 2) {
    std::mt19937 generator(seed);
    std::uniform_real_distribution<double> uniform(0, scale);
    std::vector<T> cost(static_cast<size_t>(count));
    for (T &value : cost) value = static_cast<T>(uniform(generator));
    return cost;
}

template <typename T> double inner(const std::vector<T> &p, const std::vector<T> &q) {
    double sum = 0;
    for (size_t i = 0; i < p.size(); i++) sum += static_cast<double>(p[i]) * static_cast<double>(q[i]);
    return sum;
}

TEST(Sinkhorn, TwoPointsWorkedOutByHand) {
    const std::vector<double> cost = {0, 1, 1, 0};
    const auto r = solve<double>(1, 2, 2, 1, cost);
    EXPECT_NEAR(r.plan[0], .3655292893, 1e-10);
    EXPECT_NEAR(r.plan[1], .1344707107, 1e-10);
    EXPECT_NEAR(inner(r.plan, cost), .2689414214, 1e-10);
    EXPECT_NEAR((r.f[0] + r.f[1] + r.g[0] + r.g[1]) / 2, .3798854930, 1e-10);
    EXPECT_NEAR(r.f[0] + r.f[1], r.g[0] + r.g[1], 1e-12); // gauge
}

TEST(Sinkhorn, UnequalMasses) {
    const std::vector<double> cost = {.2, 1.1, .9, .4}, a = {.3, .7}, b = {.6, .4};
    const auto r = solve<double>(1, 2, 2, .25, cost, a, b);
    EXPECT_NEAR(r.plan[0], .2985405214070, 1e-12);
    EXPECT_NEAR(inner(r.plan, cost), .4920432700302, 1e-12);
    EXPECT_NEAR(inner(r.f, a) + inner(r.g, b), .5383766864228, 1e-12);
    EXPECT_LE(r.error[0], 1e-12);

    const mover_sinkhorn_desc desc = describe(MOVER_FLOAT64, 1, 2, 2, .25, 0, 1);
    size_t bytes = 0;
    ASSERT_EQ(mover_sinkhorn_backward_workspace_size(&desc, &bytes, nullptr), MOVER_OK);
    std::vector<char> workspace(bytes);
    const std::vector<double> pick = {1, 0, 0, 0};
    std::vector<double> grad(4), grad_a(2), grad_b(2);
    ASSERT_EQ(mover_sinkhorn_backward(&desc, r.plan.data(), pick.data(), grad.data(), grad_a.data(), grad_b.data(),
                                      workspace.data(), bytes, nullptr),
              MOVER_OK);
    EXPECT_NEAR(grad[0], -.00576076536235, 1e-12);
    EXPECT_NEAR(inner(grad_a, a), 0, 1e-12);
    EXPECT_NEAR(inner(grad_b, b), 0, 1e-12);
}

TEST(Sinkhorn, IdentityRowsHaveAClosedForm) {
    for (const auto &[n, epsilon, diagonal] :
         std::vector<std::tuple<int64_t, double, double>>{{64, .5, .464277286826}, {128, .25, 0}}) {
        std::vector<double> cost(n * n, 2.0);
        for (int64_t i = 0; i < n; i++) cost[i * n + i] = 0;
        const double expected = 1 / (1 + static_cast<double>(n - 1) * std::exp(-2 / epsilon));
        if (diagonal > 0) {
            EXPECT_NEAR(expected, diagonal, 1e-11);
        }
        const auto r = solve<double>(1, n, n, epsilon, cost);
        EXPECT_NEAR(static_cast<double>(n) * r.plan[0], expected, 1e-11);

        // Gradient of trace(P): dC_ii = -P_ii (1 - p) / eps, dC_ij = P_ij p / eps.
        const mover_sinkhorn_desc desc = describe(MOVER_FLOAT64, 1, n, n, epsilon, 0, 1);
        size_t bytes = 0;
        ASSERT_EQ(mover_sinkhorn_backward_workspace_size(&desc, &bytes, nullptr), MOVER_OK);
        std::vector<char> workspace(bytes);
        std::vector<double> identity(n * n, 0.0), grad(n * n);
        for (int64_t i = 0; i < n; i++) identity[i * n + i] = 1;
        ASSERT_EQ(mover_sinkhorn_backward(&desc, r.plan.data(), identity.data(), grad.data(), nullptr, nullptr,
                                          workspace.data(), bytes, nullptr),
                  MOVER_OK);
        EXPECT_NEAR(grad[0], -r.plan[0] * (1 - expected) / epsilon, 1e-12);
        EXPECT_NEAR(grad[1], r.plan[1] * expected / epsilon, 1e-12);
    }
}

template <typename T> class SinkhornOf : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(SinkhornOf, Types);

TYPED_TEST(SinkhornOf, ManufacturedPlanIsRecovered) {
    // From any potentials and masses, P* = exp((f + g - C) / eps) is the plan between its own marginals.
    const int64_t n = 45, m = 70;
    const double epsilon = .2;
    const auto cost = random_cost<TypeParam>(n * m, 1);
    const auto f = random_cost<TypeParam>(n, 2, .5), g = random_cost<TypeParam>(m, 3, .5);
    std::vector<double> expected(n * m);
    std::vector<double> row(n), column(m);
    double total = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) {
            expected[i * m + j] = std::exp((static_cast<double>(f[i]) + g[j] - cost[i * m + j]) / epsilon);
            total += expected[i * m + j];
        }
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) {
            expected[i * m + j] /= total;
            row[i] += expected[i * m + j];
            column[j] += expected[i * m + j];
        }
    const auto r = solve<TypeParam>(1, n, m, epsilon, cost, {row.begin(), row.end()}, {column.begin(), column.end()});
    double difference = 0, norm = 0;
    for (int64_t i = 0; i < n * m; i++) {
        difference += (r.plan[i] - expected[i]) * (r.plan[i] - expected[i]);
        norm += expected[i] * expected[i];
    }
    EXPECT_LE(std::sqrt(difference / norm), sizeof(TypeParam) == 4 ? 1e-5 : 1e-10);
}

TYPED_TEST(SinkhornOf, HoldsDownToTinyEpsilon) {
    // A permutation with a gap: as epsilon falls the plan is the permutation; first column sums underflow.
    const int64_t n = 40;
    for (const double epsilon : {.1, .02, .005, .001}) {
        auto cost = random_cost<TypeParam>(n * n, 4, 1);
        for (int64_t i = 0; i < n * n; i++) cost[i] += 2;
        for (int64_t i = 0; i < n; i++) cost[i * n + (7 * i + 3) % n] = static_cast<TypeParam>(.01 * (i % 5));
        const auto r = solve<TypeParam>(1, n, n, epsilon, cost);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < n; j++) {
                ASSERT_TRUE(std::isfinite(r.plan[i * n + j]));
                const double expected = j == (7 * i + 3) % n ? 1.0 / n : 0.0;
                ASSERT_NEAR(r.plan[i * n + j], expected, 1e-6) << epsilon;
            }
    }
}

TYPED_TEST(SinkhornOf, ColumnsFarFromEveryRowAreReached) {
    // Column 2 costs 4 from everywhere: at epsilon .005 its first sum is e^-800.
    std::vector<TypeParam> cost = {0, 1, 4, 1, 0, 4, 1, 1, 4};
    const auto r = solve<TypeParam>(1, 3, 3, .005, cost);
    for (int64_t i = 0; i < 3; i++)
        for (int64_t j = 0; j < 3; j++) ASSERT_TRUE(std::isfinite(r.plan[i * 3 + j]));
    EXPECT_NEAR(r.plan[2 * 3 + 2], 1.0 / 3, 1e-4);
    EXPECT_LE(r.error[0], 1e-4);
}

TYPED_TEST(SinkhornOf, ZeroMassesHaveZeroRowsAndFinitePotentials) {
    const int64_t n = 4, m = 3;
    const auto cost = random_cost<TypeParam>(n * m, 5);
    const auto r = solve<TypeParam>(1, n, m, .1, cost, {0, TypeParam(.5), TypeParam(.5), 0}, {0, 1, 0});
    EXPECT_NEAR(r.plan[1 * m + 1], .5, 1e-6);
    EXPECT_NEAR(r.plan[2 * m + 1], .5, 1e-6);
    double rest = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++)
            if (!(j == 1 && (i == 1 || i == 2))) rest += r.plan[i * m + j];
    EXPECT_EQ(rest, 0);
    // The soft c-transform of a row without mass: here -eps log exp((g_1 - C_01) / eps) = C_01 - g_1.
    EXPECT_NEAR(r.f[0], cost[1] - r.g[1], 1e-5);
    EXPECT_TRUE(std::isfinite(r.g[0]) && std::isfinite(r.g[2]) && std::isfinite(r.f[3]));
}

TYPED_TEST(SinkhornOf, DiracsMeet) {
    const auto r = solve<TypeParam>(1, 4, 3, .1, random_cost<TypeParam>(12, 6), {0, 1, 0, 0}, {1, 0, 0});
    for (int64_t i = 0; i < 4; i++)
        for (int64_t j = 0; j < 3; j++) EXPECT_NEAR(r.plan[i * 3 + j], i == 1 && j == 0 ? 1 : 0, 1e-6);
}

TYPED_TEST(SinkhornOf, PaddingWithZeroMassChangesNothing) {
    const int64_t n = 5, m = 6, wide = 9;
    const auto cost = random_cost<TypeParam>(n * m, 7);
    std::vector<TypeParam> padded(wide * wide, TypeParam(1.5)), a(wide, 0), b(wide, 0);
    for (int64_t i = 0; i < n; i++) a[i] = TypeParam(1) / n;
    for (int64_t j = 0; j < m; j++) b[j] = TypeParam(1) / m;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) padded[i * wide + j] = cost[i * m + j];
    const auto small = solve<TypeParam>(1, n, m, .3, cost);
    const auto large = solve<TypeParam>(1, wide, wide, .3, padded, a, b);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) EXPECT_NEAR(small.plan[i * m + j], large.plan[i * wide + j], 1e-7);
}

TYPED_TEST(SinkhornOf, BatchGivesTheBitsOfItsProblemsAndKeepsNaNApart) {
    const int64_t batch = 4, n = 50, m = 33;
    auto cost = random_cost<TypeParam>(batch * n * m, 8);
    cost[2 * n * m + 7] = std::numeric_limits<TypeParam>::quiet_NaN();
    cost[3 * n * m + 9] = std::numeric_limits<TypeParam>::infinity();
    const auto all = solve<TypeParam>(batch, n, m, .1, cost, {}, {}, 1e-3, 100);
    for (int64_t p = 0; p < batch; p++) {
        const auto one = solve<TypeParam>(1, n, m, .1, {cost.begin() + p * n * m, cost.begin() + (p + 1) * n * m}, {},
                                          {}, 1e-3, 100);
        EXPECT_EQ(one.n_iter[0], all.n_iter[p]);
        for (int64_t i = 0; i < n * m; i++) {
            if (p < 2)
                ASSERT_EQ(all.plan[p * n * m + i], one.plan[i]);
            else
                ASSERT_TRUE(std::isnan(all.plan[p * n * m + i]));
        }
        for (int64_t i = 0; i < n; i++) ASSERT_EQ(std::isnan(all.f[p * n + i]), p >= 2);
    }
}

TYPED_TEST(SinkhornOf, StopsAtTheToleranceOfTheReturnedPlan) {
    const int64_t n = 60;
    const auto cost = random_cost<TypeParam>(n * n, 9);
    const auto r = solve<TypeParam>(1, n, n, .05, cost, {}, {}, 1e-3, 10000, MOVER_SOLVER_SINKHORN);
    EXPECT_LE(r.error[0], 1e-3);
    EXPECT_GT(r.n_iter[0], 1);
    const auto shorter = solve<TypeParam>(1, n, n, .05, cost, {}, {}, 1e-3, r.n_iter[0] / 2, MOVER_SOLVER_SINKHORN);
    EXPECT_GT(shorter.error[0], 1e-3);
    EXPECT_EQ(shorter.n_iter[0], r.n_iter[0] / 2);
    double error = 0;
    for (int64_t i = 0; i < n; i++) {
        double row = 0, column = 0;
        for (int64_t j = 0; j < n; j++) row += r.plan[i * n + j], column += r.plan[j * n + i];
        error += std::abs(row - 1.0 / n) + std::abs(column - 1.0 / n);
    }
    EXPECT_NEAR(r.error[0], error, 1e-6);
}

TYPED_TEST(SinkhornOf, SolversAgreeWhereAlternatingUpdatesCrawl) {
    // A cyclic chain of cheap entries: plans that differ by a rotation cost nearly the same.
    const int64_t n = 48;
    auto cost = random_cost<TypeParam>(n * n, 14, .3);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) cost[i * n + j] += (i == j || (i + 1) % n == j) ? TypeParam(.2) : TypeParam(1);
    const double epsilon = .03, floor = sizeof(TypeParam) == 4 ? 4e-6 : 1e-8;
    const auto crawl = solve<TypeParam>(1, n, n, epsilon, cost, {}, {}, 1e-8, 200, MOVER_SOLVER_SINKHORN);
    EXPECT_GT(crawl.error[0], 1e-4);
    const auto newton = solve<TypeParam>(1, n, n, epsilon, cost, {}, {}, 1e-8, 200, MOVER_SOLVER_NEWTON);
    const auto automatic = solve<TypeParam>(1, n, n, epsilon, cost, {}, {}, 1e-8, 200, MOVER_SOLVER_AUTO);
    for (const auto *r : {&newton, &automatic}) {
        EXPECT_LE(r->error[0], floor);
        EXPECT_LT(r->n_iter[0], 100);
    }
    for (int64_t i = 0; i < n * n; i++) ASSERT_NEAR(newton.plan[i], automatic.plan[i], 10 * floor);
}

TYPED_TEST(SinkhornOf, GradientMatchesCentralDifferencesOfTheConvergedPlan) {
    const int64_t n = 6, m = 8;
    const double epsilon = .3, step = 1e-5;
    const auto cost = random_cost<double>(n * m, 10), weight = random_cost<double>(n * m, 11);
    const auto r = solve<TypeParam>(1, n, m, epsilon, {cost.begin(), cost.end()});
    const mover_sinkhorn_desc desc = describe(dtype_of<TypeParam>, 1, n, m, epsilon, 0, 1);
    size_t bytes = 0;
    ASSERT_EQ(mover_sinkhorn_backward_workspace_size(&desc, &bytes, nullptr), MOVER_OK);
    std::vector<char> workspace(bytes);
    const std::vector<TypeParam> upstream(weight.begin(), weight.end());
    std::vector<TypeParam> grad(n * m);
    ASSERT_EQ(mover_sinkhorn_backward(&desc, r.plan.data(), upstream.data(), grad.data(), nullptr, nullptr,
                                      workspace.data(), bytes, nullptr),
              MOVER_OK);
    for (int64_t index = 0; index < n * m; index += 5) {
        auto up = cost, down = cost;
        up[index] += step, down[index] -= step;
        const double expected = (inner(solve<double>(1, n, m, epsilon, up).plan, weight) -
                                 inner(solve<double>(1, n, m, epsilon, down).plan, weight)) /
                                (2 * step);
        EXPECT_NEAR(grad[index], expected, sizeof(TypeParam) == 4 ? 1e-6 : 1e-9);
    }
    for (int64_t i = 0; i < n; i++) {
        double row = 0;
        for (int64_t j = 0; j < m; j++) row += grad[i * m + j];
        EXPECT_NEAR(row, 0, sizeof(TypeParam) == 4 ? 4e-7 : 1e-13); // row and column constants leave the plan alone
    }
}

TYPED_TEST(SinkhornOf, AConstantUpstreamHasNoGradient) {
    const int64_t n = 30;
    const auto r = solve<TypeParam>(1, n, n, .1, random_cost<TypeParam>(n * n, 12));
    const mover_sinkhorn_desc desc = describe(dtype_of<TypeParam>, 1, n, n, .1, 0, 1);
    size_t bytes = 0;
    ASSERT_EQ(mover_sinkhorn_backward_workspace_size(&desc, &bytes, nullptr), MOVER_OK);
    std::vector<char> workspace(bytes);
    const std::vector<TypeParam> ones(n * n, 1);
    std::vector<TypeParam> grad(n * n);
    ASSERT_EQ(mover_sinkhorn_backward(&desc, r.plan.data(), ones.data(), grad.data(), nullptr, nullptr,
                                      workspace.data(), bytes, nullptr),
              MOVER_OK);
    for (const TypeParam value : grad) EXPECT_NEAR(value, 0, sizeof(TypeParam) == 4 ? 1e-6 : 1e-14);
}

TEST(SinkhornArguments, AreCheckedInSentences) {
    size_t bytes = 0;
    auto expect = [&](const mover_sinkhorn_desc &desc, mover_status status, const char *sentence) {
        EXPECT_EQ(mover_sinkhorn_forward_workspace_size(&desc, &bytes, nullptr), status);
        EXPECT_STREQ(mover_last_error(), sentence);
    };
    expect(describe(MOVER_FLOAT32, 1, 2, 2, -.1, 0, 1), MOVER_ERROR_ARGUMENT,
           "mover_sinkhorn_forward_workspace_size: epsilon must be > 0 and finite, got -0.1");
    expect(describe(MOVER_FLOAT32, 1, 2, 2, std::nan(""), 0, 1), MOVER_ERROR_ARGUMENT,
           "mover_sinkhorn_forward_workspace_size: epsilon must be > 0 and finite, got nan");
    expect(describe(MOVER_FLOAT32, 1, 2, 2, .1, -1, 1), MOVER_ERROR_ARGUMENT,
           "mover_sinkhorn_forward_workspace_size: tol must be >= 0, got -1");
    expect(describe(MOVER_FLOAT32, 1, 2, 2, .1, 0, 0), MOVER_ERROR_ARGUMENT,
           "mover_sinkhorn_forward_workspace_size: max_iter must be >= 1, got 0");
    mover_sinkhorn_desc unknown = describe(MOVER_FLOAT32, 1, 2, 2, .1, 0, 1);
    unknown.solver = static_cast<mover_solver>(3);
    expect(unknown, MOVER_ERROR_ARGUMENT,
           "mover_sinkhorn_forward_workspace_size: solver must be MOVER_SOLVER_AUTO, _SINKHORN or _NEWTON, got 3");
    EXPECT_EQ(mover_sinkhorn_forward_workspace_size(nullptr, &bytes, nullptr), MOVER_ERROR_ARGUMENT);
}

TEST(SinkhornArguments, ASmallWorkspaceIsRefusedAndNothingWritten) {
    for (const mover_solver solver : {MOVER_SOLVER_SINKHORN, MOVER_SOLVER_NEWTON}) {
        mover_sinkhorn_desc desc = describe(MOVER_FLOAT32, 1, 3, 3, .1, 0, 1);
        desc.solver = solver;
        size_t bytes = 0;
        ASSERT_EQ(mover_sinkhorn_forward_workspace_size(&desc, &bytes, nullptr), MOVER_OK);
        std::vector<char> workspace(bytes);
        const auto cost = random_cost<float>(9, 13);
        std::vector<float> plan(9, 7), f(3, 7), g(3, 7), error(1, 7);
        std::vector<int32_t> n_iter(1, 7);
        EXPECT_EQ(mover_sinkhorn_forward(&desc, cost.data(), nullptr, nullptr, plan.data(), f.data(), g.data(),
                                         n_iter.data(), error.data(), workspace.data(), bytes - 1, nullptr),
                  MOVER_ERROR_WORKSPACE);
        for (const auto *output : {&plan, &f, &g, &error})
            for (const float value : *output) EXPECT_EQ(value, 7);
        EXPECT_EQ(n_iter[0], 7);
    }
}

TEST(SinkhornArguments, BadMassesMakeTheirProblemNaN) {
    const auto cost = random_cost<float>(2 * 9, 13);
    const auto r = solve<float>(2, 3, 3, .1, cost, {-.1f, .6f, .5f, .2f, .3f, .5f});
    EXPECT_TRUE(std::isnan(r.plan[0]));
    EXPECT_TRUE(std::isnan(r.error[0]));
    EXPECT_TRUE(std::isfinite(r.plan[9]));
}

} // namespace
