// transport: the fused op against its two parts, gradients against central differences, the value and its envelope.
#include <mover/mover.h>

#include <cmath>
#include <gtest/gtest.h>
#include <random>
#include <vector>

namespace {

template <typename T> constexpr mover_dtype dtype_of = sizeof(T) == 4 ? MOVER_FLOAT32 : MOVER_FLOAT64;

template <typename T> std::vector<T> unit_rows(int64_t n, int64_t d, unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<double> normal;
    std::vector<T> rows(static_cast<size_t>(n * d));
    for (int64_t i = 0; i < n; i++) {
        std::vector<double> row(static_cast<size_t>(d));
        double norm = 0;
        for (double &value : row) value = normal(generator), norm += value * value;
        for (int64_t t = 0; t < d; t++) rows[i * d + t] = static_cast<T>(row[t] / std::sqrt(norm));
    }
    return rows;
}

template <typename T> struct Problem {
    int64_t batch, n, m, d;
    double epsilon, tol = 0;
    int32_t max_iter = 5000;
    std::vector<T> x, y, a, b;
    std::vector<T> plan, cost, f, g, error, value;
    std::vector<int32_t> n_iter;

    mover_transport_desc desc() const {
        mover_transport_desc desc = {};
        desc.dtype = dtype_of<T>;
        desc.batch = batch, desc.n = n, desc.m = m, desc.d = d;
        desc.epsilon = epsilon, desc.tol = tol, desc.max_iter = max_iter;
        return desc;
    }
    const T *a_or_null() const { return a.empty() ? nullptr : a.data(); }
    const T *b_or_null() const { return b.empty() ? nullptr : b.data(); }

    void forward() {
        const mover_transport_desc d_ = desc();
        size_t bytes = 0;
        ASSERT_EQ(mover_transport_forward_workspace_size(&d_, &bytes, nullptr), MOVER_OK) << mover_last_error();
        std::vector<char> workspace(bytes);
        plan.resize(batch * n * m), cost.resize(batch * n * m), f.resize(batch * n), g.resize(batch * m);
        error.resize(batch), n_iter.resize(batch);
        ASSERT_EQ(mover_transport_forward(&d_, x.data(), y.data(), a_or_null(), b_or_null(), plan.data(), cost.data(),
                                          f.data(), g.data(), n_iter.data(), error.data(), workspace.data(), bytes,
                                          nullptr),
                  MOVER_OK)
            << mover_last_error();
    }
    void forward_value() {
        const mover_transport_desc d_ = desc();
        size_t bytes = 0;
        ASSERT_EQ(mover_transport_value_forward_workspace_size(&d_, &bytes, nullptr), MOVER_OK);
        std::vector<char> workspace(bytes);
        value.resize(batch), f.resize(batch * n), g.resize(batch * m);
        ASSERT_EQ(mover_transport_value_forward(&d_, x.data(), y.data(), a_or_null(), b_or_null(), value.data(),
                                                f.data(), g.data(), workspace.data(), bytes, nullptr),
                  MOVER_OK);
    }
};

double inner(const std::vector<double> &p, const std::vector<double> &q) {
    double sum = 0;
    for (size_t i = 0; i < p.size(); i++) sum += p[i] * q[i];
    return sum;
}

TEST(Transport, PointsOnTheCircleHaveAClosedForm) {
    // x at angles 2 pi i / N, y rotated: OT_KL = 2 - eps log I0(2 / eps), <P, C> = 2 - 2 I1 / I0 (2 / eps).
    const int64_t n = 64;
    for (const auto &[epsilon, value, linear] : std::vector<std::tuple<double, double, double>>{
             {1, 1.17600645851704, .604450684071984}, {.1, .241038957175572, .0506589842203859}}) {
        Problem<double> p{1, n, n, 2, epsilon};
        p.x.resize(n * 2), p.y.resize(n * 2);
        for (int64_t i = 0; i < n; i++) {
            const double angle = 2 * M_PI * static_cast<double>(i) / n;
            p.x[2 * i] = std::cos(angle), p.x[2 * i + 1] = std::sin(angle);
            p.y[2 * i] = std::cos(angle + .037), p.y[2 * i + 1] = std::sin(angle + .037);
        }
        p.forward();
        EXPECT_NEAR(inner(p.plan, p.cost), linear, 1e-12);
        p.forward_value();
        EXPECT_NEAR(p.value[0], value, 1e-12);
    }
}

TEST(Transport, LinePointsWorkedOutByHand) {
    Problem<double> p{1, 2, 2, 1, .1};
    p.x = {0, 1}, p.y = {0, 1};
    p.forward();
    EXPECT_NEAR(p.plan[0], .49997730107, 1e-11);
    EXPECT_NEAR(p.plan[1], 2.269893435e-05, 1e-13);
}

TEST(Transport, LargeDistancesAtTinyEpsilon) {
    Problem<double> p{1, 2, 2, 2, .001};
    p.x = {0, 0, 0, 2}, p.y = {2, 1, 2, 2};
    p.max_iter = 100;
    p.forward();
    EXPECT_NEAR(p.plan[0], .5, 1e-9);
    EXPECT_NEAR(p.plan[3], .5, 1e-9);
    p.forward_value();
    EXPECT_NEAR(p.value[0], 4.50069314718, 1e-9);
}

template <typename T> class TransportOf : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(TransportOf, Types);

TYPED_TEST(TransportOf, EqualsCostThenSinkhorn) {
    using T = TypeParam;
    Problem<T> p{3, 40, 29, 16, .1, 1e-4, 200};
    p.x = unit_rows<T>(3 * 40, 16, 1), p.y = unit_rows<T>(3 * 29, 16, 2);
    p.forward();
    mover_sinkhorn_desc desc = {};
    desc.dtype = dtype_of<T>;
    desc.batch = 3, desc.n = 40, desc.m = 29, desc.epsilon = .1, desc.tol = 1e-4, desc.max_iter = 200;
    size_t bytes = 0;
    ASSERT_EQ(mover_sinkhorn_forward_workspace_size(&desc, &bytes, nullptr), MOVER_OK);
    std::vector<char> workspace(bytes);
    std::vector<T> plan(p.plan.size()), f(p.f.size()), g(p.g.size()), error(3);
    std::vector<int32_t> n_iter(3);
    ASSERT_EQ(mover_sinkhorn_forward(&desc, p.cost.data(), nullptr, nullptr, plan.data(), f.data(), g.data(),
                                     n_iter.data(), error.data(), workspace.data(), bytes, nullptr),
              MOVER_OK);
    EXPECT_EQ(plan, p.plan);
    EXPECT_EQ(f, p.f);
    EXPECT_EQ(g, p.g);
    EXPECT_EQ(n_iter, p.n_iter);
    EXPECT_EQ(error, p.error);
}

TYPED_TEST(TransportOf, EqualRowsGiveTheProductPlan) {
    using T = TypeParam;
    Problem<T> p{1, 7, 5, 6, .05};
    const auto row = unit_rows<T>(1, 6, 3);
    for (int i = 0; i < 7; i++) p.x.insert(p.x.end(), row.begin(), row.end());
    p.y = unit_rows<T>(5, 6, 4);
    p.forward();
    for (const T value : p.plan) EXPECT_NEAR(value, 1.0 / 35, 1e-7);
}

// loss = <W, plan> + <V, cost>, differentiated by central differences in double.
TYPED_TEST(TransportOf, GradientsMatchCentralDifferences) {
    using T = TypeParam;
    const int64_t n = 7, m = 5, d = 4;
    const auto weight = unit_rows<double>(n, m, 5), linear = unit_rows<double>(n, m, 6);
    Problem<double> p{1, n, m, d, .5};
    p.x = unit_rows<double>(n, d, 7), p.y = unit_rows<double>(m, d, 8);
    auto loss = [&](const std::vector<double> &x, const std::vector<double> &y) {
        Problem<double> q{1, n, m, d, .5};
        q.x = x, q.y = y;
        q.forward();
        return inner(q.plan, weight) + inner(q.cost, linear);
    };
    p.forward();
    Problem<T> t{1, n, m, d, .5};
    t.x = {p.x.begin(), p.x.end()}, t.y = {p.y.begin(), p.y.end()};
    t.forward();
    const mover_transport_desc desc = t.desc();
    size_t bytes = 0;
    ASSERT_EQ(mover_transport_backward_workspace_size(&desc, &bytes, nullptr), MOVER_OK);
    std::vector<char> workspace(bytes);
    const std::vector<T> grad_plan(weight.begin(), weight.end()), grad_cost(linear.begin(), linear.end());
    std::vector<T> grad_x(n * d), grad_y(m * d);
    ASSERT_EQ(mover_transport_backward(&desc, t.x.data(), t.y.data(), t.plan.data(), grad_plan.data(), grad_cost.data(),
                                       grad_x.data(), grad_y.data(), nullptr, nullptr, workspace.data(), bytes,
                                       nullptr),
              MOVER_OK);
    const double step = 1e-5, tolerance = sizeof(T) == 4 ? 2e-5 : 1e-8;
    for (int64_t index = 0; index < n * d; index++) {
        auto up = p.x, down = p.x;
        up[index] += step, down[index] -= step;
        EXPECT_NEAR(grad_x[index], (loss(up, p.y) - loss(down, p.y)) / (2 * step), tolerance);
    }
    for (int64_t index = 0; index < m * d; index++) {
        auto up = p.y, down = p.y;
        up[index] += step, down[index] -= step;
        EXPECT_NEAR(grad_y[index], (loss(p.x, up) - loss(p.x, down)) / (2 * step), tolerance);
    }
    // Only one of the two upstreams, and neither.
    std::vector<T> from_plan(n * d), from_cost(n * d);
    ASSERT_EQ(mover_transport_backward(&desc, t.x.data(), t.y.data(), t.plan.data(), grad_plan.data(), nullptr,
                                       from_plan.data(), nullptr, nullptr, nullptr, workspace.data(), bytes, nullptr),
              MOVER_OK);
    ASSERT_EQ(mover_transport_backward(&desc, t.x.data(), t.y.data(), t.plan.data(), nullptr, grad_cost.data(),
                                       from_cost.data(), nullptr, nullptr, nullptr, workspace.data(), bytes, nullptr),
              MOVER_OK);
    for (int64_t index = 0; index < n * d; index++)
        EXPECT_NEAR(grad_x[index], from_plan[index] + from_cost[index], sizeof(T) == 4 ? 1e-5 : 1e-12);
    EXPECT_EQ(mover_transport_backward(&desc, t.x.data(), t.y.data(), t.plan.data(), nullptr, nullptr, from_cost.data(),
                                       nullptr, nullptr, nullptr, workspace.data(), bytes, nullptr),
              MOVER_ERROR_ARGUMENT);
}

TYPED_TEST(TransportOf, ValueHasItsEnvelopeGradient) {
    using T = TypeParam;
    const int64_t n = 6, m = 9, d = 5;
    Problem<double> p{2, n, m, d, .2};
    p.x = unit_rows<double>(2 * n, d, 9), p.y = unit_rows<double>(2 * m, d, 10);
    p.a = std::vector<double>(2 * n, 1.0 / n), p.b = std::vector<double>(2 * m, 1.0 / m);
    p.a[0] += .05, p.a[1] -= .05;
    Problem<T> t{2, n, m, d, .2};
    t.x = {p.x.begin(), p.x.end()}, t.y = {p.y.begin(), p.y.end()};
    t.a = {p.a.begin(), p.a.end()}, t.b = {p.b.begin(), p.b.end()};
    t.forward_value();
    const mover_transport_desc desc = t.desc();
    size_t bytes = 0;
    ASSERT_EQ(mover_transport_value_backward_workspace_size(&desc, &bytes, nullptr), MOVER_OK);
    std::vector<char> workspace(bytes);
    const std::vector<T> grad_value = {2, -3};
    std::vector<T> grad_x(2 * n * d), grad_y(2 * m * d), grad_a(2 * n), grad_b(2 * m);
    ASSERT_EQ(mover_transport_value_backward(&desc, t.x.data(), t.y.data(), t.a.data(), t.b.data(), t.f.data(),
                                             t.g.data(), grad_value.data(), grad_x.data(), grad_y.data(), grad_a.data(),
                                             grad_b.data(), workspace.data(), bytes, nullptr),
              MOVER_OK);
    auto loss = [&](Problem<double> q) {
        q.forward_value();
        return 2 * q.value[0] - 3 * q.value[1];
    };
    const double step = 1e-5, tolerance = sizeof(T) == 4 ? 2e-5 : 1e-8;
    for (int64_t index = 0; index < 2 * n * d; index += 3) {
        auto up = p, down = p;
        up.x[index] += step, down.x[index] -= step;
        EXPECT_NEAR(grad_x[index], (loss(up) - loss(down)) / (2 * step), tolerance);
    }
    for (int64_t index = 0; index < 2 * m * d; index += 4) {
        auto up = p, down = p;
        up.y[index] += step, down.y[index] -= step;
        EXPECT_NEAR(grad_y[index], (loss(up) - loss(down)) / (2 * step), tolerance);
    }
    // Along a direction on the simplex.
    auto up = p, down = p;
    up.a[2] += step, up.a[3] -= step, down.a[2] -= step, down.a[3] += step;
    EXPECT_NEAR(grad_a[2] - grad_a[3], (loss(up) - loss(down)) / (2 * step), tolerance);
    EXPECT_NEAR(inner({grad_b.begin(), grad_b.begin() + m}, {p.b.begin(), p.b.begin() + m}), 0, tolerance);
}

TEST(TransportArguments, AProblemWithoutRowsIsRefused) {
    Problem<float> p{1, 0, 3, 2, .1};
    const mover_transport_desc desc = p.desc();
    float value[6] = {0};
    int32_t n_iter = 0;
    EXPECT_EQ(mover_transport_forward(&desc, value, value, nullptr, nullptr, value, value, value, value, &n_iter, value,
                                      value, sizeof value, nullptr),
              MOVER_ERROR_ARGUMENT);
    EXPECT_STREQ(mover_last_error(), "mover_transport_forward: n must be >= 1, got 0");
}

} // namespace
