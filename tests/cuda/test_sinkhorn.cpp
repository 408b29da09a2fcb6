// sinkhorn on CUDA: against the CPU backend, a plain double reference and closed forms, in both teams and all shapes.
#include "device.h"

#include "../../kernels/cuda/planner.h"

#if __has_include(<cuda_on_cpu.h>)
#include <cuda_on_cpu.h>
#define EMULATED 1
#endif

#include <string>

using namespace fixtures;

namespace {

template <class T> struct Result {
    std::vector<T> plan, f, g, error;
    std::vector<int32_t> n_iter;
};

template <class T> struct Problem {
    int64_t batch = 1, n, m;
    double epsilon = .1, tol = 1e-3;
    int32_t max_iter = 100;
    mover_solver solver = MOVER_SOLVER_AUTO;
    std::vector<T> cost, a = {}, b = {};

    mover_sinkhorn_desc desc() const {
        mover_sinkhorn_desc out = {};
        out.dtype = dtype_of<T>();
        out.batch = batch, out.n = n, out.m = m;
        out.epsilon = epsilon, out.tol = tol, out.max_iter = max_iter, out.solver = solver;
        return out;
    }

    Result<T> on_cpu() const {
        const mover_sinkhorn_desc d = desc();
        size_t bytes = 0;
        EXPECT_OK(mover_sinkhorn_forward_workspace_size(&d, &bytes, nullptr));
        Workspace workspace(bytes);
        Result<T> r{std::vector<T>(cost.size()), std::vector<T>(batch * n), std::vector<T>(batch * m),
                    std::vector<T>(batch), std::vector<int32_t>(batch)};
        EXPECT_OK(mover_sinkhorn_forward(&d, cost.data(), a.empty() ? nullptr : a.data(),
                                         b.empty() ? nullptr : b.data(), r.plan.data(), r.f.data(), r.g.data(),
                                         r.n_iter.data(), r.error.data(), workspace.data(), bytes, nullptr));
        return r;
    }

    /* Arrays `shift` elements past an aligned address. */
    Result<T> on_device(const mover_exec *exec, size_t shift = 0) const {
        const mover_sinkhorn_desc d = desc();
        size_t bytes = 0;
        EXPECT_OK(mover_sinkhorn_forward_workspace_size(&d, &bytes, exec));
        DeviceArray<unsigned char> workspace(bytes);
        DeviceArray<T> cost_(cost, shift), a_(a, shift), b_(b, shift), plan(cost.size(), shift), f(batch * n, shift),
            g(batch * m, shift), error(batch);
        DeviceArray<int32_t> n_iter(batch);
        EXPECT_OK(mover_sinkhorn_forward(&d, cost_.data(), a_.data(), b_.data(), plan.data(), f.data(), g.data(),
                                         n_iter.data(), error.data(), workspace.data(), bytes, exec));
        return {plan.fetch(), f.fetch(), g.fetch(), error.fetch(), n_iter.fetch()};
    }
};

template <class T> std::vector<T> uniform_costs(int64_t count, unsigned seed, double scale = 2) {
    std::mt19937 generator(seed);
    std::uniform_real_distribution<double> uniform(0, scale);
    std::vector<T> out(static_cast<size_t>(count));
    for (T &value : out) value = static_cast<T>(uniform(generator));
    return out;
}

/* Masses with sum 1 for every problem, the first `zeros` of each being 0. */
template <class T> std::vector<T> masses(int64_t batch, int64_t count, unsigned seed, int64_t zeros = 0) {
    std::vector<T> out;
    for (int64_t p = 0; p < batch; p++) {
        std::vector<double> weights = random_weights<double>(count, seed + static_cast<unsigned>(p));
        double sum = 0;
        for (int64_t i = 0; i < count; i++) sum += i < zeros ? weights[i] = 0 : weights[i];
        for (double weight : weights) out.push_back(static_cast<T>(weight / sum));
    }
    return out;
}

template <class T> double difference(const std::vector<T> &x, const std::vector<T> &y) {
    double sum = 0, norm = 0;
    for (size_t q = 0; q < x.size(); q++) {
        sum += (static_cast<double>(x[q]) - y[q]) * (static_cast<double>(x[q]) - y[q]);
        norm += static_cast<double>(y[q]) * y[q];
    }
    return std::sqrt(sum / norm);
}

/* One problem of uniform masses after `iterations` plain ones, by logarithms of sums in double. */
std::vector<double> plain_plan(int64_t n, int64_t m, double epsilon, const std::vector<double> &cost, int iterations) {
    std::vector<double> u(n, 0), v(m, -std::log(static_cast<double>(m))), plan(n * m);
    auto log_sum = [&](const std::vector<double> &x) {
        const double top = *std::max_element(x.begin(), x.end());
        double sum = 0;
        for (double value : x) sum += std::exp(value - top);
        return top + std::log(sum);
    };
    for (int t = 0; t < iterations; t++) {
        for (int64_t i = 0; i < n; i++) {
            std::vector<double> row;
            for (int64_t j = 0; j < m; j++) row.push_back(v[j] - cost[i * m + j] / epsilon);
            u[i] = -std::log(static_cast<double>(n)) - log_sum(row);
        }
        for (int64_t j = 0; j < m; j++) {
            std::vector<double> column;
            for (int64_t i = 0; i < n; i++) column.push_back(u[i] - cost[i * m + j] / epsilon);
            v[j] = -std::log(static_cast<double>(m)) - log_sum(column);
        }
    }
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) plan[i * m + j] = std::exp(u[i] + v[j] - cost[i * m + j] / epsilon);
    return plan;
}

/* Sizes of all shapes: a block, rows of a warp, of a block, long ones, and rows that are read again. */
struct Size {
    int64_t n, m;
};
const Size alone[] = {{1, 1}, {1, 7}, {6, 1}, {5, 3}, {33, 31}, {17, 40}};
const Size together[] = {{260, 5}, {19, 301}, {5, 1029}, {9, 2053}, {4, 4099}};

template <class T> class SinkhornOf : public OnDevice {
  protected:
    void agrees(const Problem<T> &problem, const std::string &name, double scale = 1) {
        const Result<T> cpu = problem.on_cpu(), cuda = problem.on_device(exec());
        const double bound = scale * tolerance<T>(problem.epsilon < .05 ? 1e-4 : 1e-5, 1e-10);
        EXPECT_LE(difference(cuda.plan, cpu.plan), bound) << name;
        EXPECT_LE(distance(cuda.f, cpu.f), scale * tolerance<T>(1e-5, 1e-10)) << name;
        EXPECT_LE(distance(cuda.g, cpu.g), scale * tolerance<T>(1e-5, 1e-10)) << name;
        EXPECT_EQ(cuda.n_iter, cpu.n_iter) << name;
        EXPECT_LE(distance(cuda.error, cpu.error), scale * tolerance<T>(1e-5, 1e-12)) << name;
    }
    using OnDevice::exec;
};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(SinkhornOf, Types);

TYPED_TEST(SinkhornOf, PlainIterationsEqualTheReference) {
    using T = TypeParam;
    for (const Size *sizes : {alone, together})
        for (int k = 0; k < (sizes == alone ? 6 : 3); k++) {
            const Size size = sizes[k];
            Problem<T> p{1, size.n, size.m, .1, 0, 4, MOVER_SOLVER_SINKHORN, uniform_costs<T>(size.n * size.m, 1)};
            const Result<T> r = p.on_device(this->exec());
            const auto expected = plain_plan(size.n, size.m, .1, {p.cost.begin(), p.cost.end()}, 4);
            EXPECT_LE(difference({r.plan.begin(), r.plan.end()}, expected), tolerance<T>(1e-5, 1e-12))
                << size.n << " x " << size.m;
            EXPECT_EQ(r.n_iter[0], size.m == 1 || size.n == 1 ? r.n_iter[0] : 4);
        }
}

TYPED_TEST(SinkhornOf, EverySolverAgreesWithTheCpu) {
    using T = TypeParam;
    for (const mover_solver solver : {MOVER_SOLVER_SINKHORN, MOVER_SOLVER_AUTO, MOVER_SOLVER_NEWTON})
        for (const Size size : {Size{23, 31}, Size{260, 3}, Size{5, 261}}) {
            const int32_t most = size.n == 23 ? 60 : 6;
            Problem<T> p{2, size.n, size.m, .05, 1e-3, most, solver, uniform_costs<T>(2 * size.n * size.m, 2)};
            p.a = masses<T>(2, size.n, 3), p.b = masses<T>(2, size.m, 4);
            this->agrees(p, std::to_string(solver) + ": " + std::to_string(size.n) + " x " + std::to_string(size.m));
        }
}

TYPED_TEST(SinkhornOf, EpsilonsFromTinyToHuge) {
    using T = TypeParam;
    for (const double epsilon : {.005, .02, 1., 10.}) {
        Problem<T> p{1, 21, 18, epsilon, 1e-3, 40, MOVER_SOLVER_SINKHORN, uniform_costs<T>(21 * 18, 5)};
        this->agrees(p, std::to_string(epsilon), epsilon < .01 ? 5 : 1);
        p.solver = MOVER_SOLVER_AUTO;
        const Result<T> r = p.on_device(this->exec());
        EXPECT_TRUE(all_finite(r.plan) && all_finite(r.f) && all_finite(r.g));
    }
}

TYPED_TEST(SinkhornOf, ColumnsFarFromEveryRowAreReached) {
    using T = TypeParam;
    // The last column costs 4 more from everywhere: at epsilon .005 its first sum is e^-800.
    for (const Size size : {Size{9, 9}, Size{260, 3}}) {
        Problem<T> p{1, size.n, size.m, .005, 1e-3, 8, MOVER_SOLVER_SINKHORN, uniform_costs<T>(size.n * size.m, 6, .1)};
        for (int64_t i = 0; i < size.n; i++) p.cost[i * size.m + size.m - 1] += 4;
        const Result<T> r = p.on_device(this->exec()), cpu = p.on_cpu();
        EXPECT_LE(difference(r.plan, cpu.plan), tolerance<T>(1e-3, 1e-9));
        EXPECT_LE(distance(r.g, cpu.g), tolerance<T>(1e-5, 1e-9));
    }
}

TYPED_TEST(SinkhornOf, ZeroMassesHaveZeroRowsAndSoftTransforms) {
    using T = TypeParam;
    for (const Size size : {Size{12, 10}, Size{260, 6}, Size{9, 270}}) {
        Problem<T> p{1, size.n, size.m, .1, 1e-3, 8, MOVER_SOLVER_AUTO, uniform_costs<T>(size.n * size.m, 7)};
        p.a = masses<T>(1, size.n, 8, 2), p.b = masses<T>(1, size.m, 9, 1);
        this->agrees(p, std::to_string(size.n));
        const Result<T> r = p.on_device(this->exec());
        for (int64_t j = 0; j < 2 * size.m; j++) ASSERT_EQ(r.plan[j], 0);
        for (int64_t i = 0; i < size.n; i++) ASSERT_EQ(r.plan[i * size.m], 0);
        EXPECT_TRUE(all_finite(r.f) && all_finite(r.g));
    }
}

TYPED_TEST(SinkhornOf, ABatchGivesTheBitsOfItsProblemsAndKeepsNaNApart) {
    using T = TypeParam;
    for (const Size size : {Size{14, 11}, Size{260, 2}}) {
        const int64_t batch = 5, count = size.n * size.m;
        Problem<T> all{batch, size.n, size.m, .1, 1e-3, 6, MOVER_SOLVER_AUTO, uniform_costs<T>(batch * count, 10)};
        for (int64_t q = 0; q < count; q++) all.cost[q] = 1; /* ends at once */
        for (int64_t q = 0; q < count; q++) all.cost[3 * count + q] *= 4;
        all.cost[1 * count + 5] = not_a_number<T>();
        all.cost[4 * count + 3] = infinity<T>();
        const Result<T> r = all.on_device(this->exec());
        for (int64_t p = 0; p < batch; p++) {
            Problem<T> one = all;
            one.batch = 1;
            one.cost.assign(all.cost.begin() + p * count, all.cost.begin() + (p + 1) * count);
            const Result<T> s = one.on_device(this->exec());
            EXPECT_EQ(s.n_iter[0], r.n_iter[p]);
            for (int64_t q = 0; q < count; q++) {
                if (p == 1 || p == 4)
                    ASSERT_TRUE(std::isnan(r.plan[p * count + q]));
                else
                    ASSERT_EQ(s.plan[q], r.plan[p * count + q]);
            }
            for (int64_t i = 0; i < size.n; i++) ASSERT_EQ(std::isnan(r.f[p * size.n + i]), p == 1 || p == 4);
            for (int64_t j = 0; j < size.m; j++) ASSERT_EQ(std::isnan(r.g[p * size.m + j]), p == 1 || p == 4);
            EXPECT_EQ(std::isnan(r.error[p]), p == 1 || p == 4);
        }
        EXPECT_LT(r.n_iter[0], r.n_iter[3]);
    }
}

TYPED_TEST(SinkhornOf, BadMassesMakeTheirProblemNaN) {
    using T = TypeParam;
    Problem<T> p{3, 3, 3, .1, 1e-3, 30, MOVER_SOLVER_AUTO, uniform_costs<T>(27, 11)};
    p.a = {T(-.1), T(.6), T(.5), T(.2), T(.3), T(.5), 0, 0, 0};
    const Result<T> r = p.on_device(this->exec());
    EXPECT_TRUE(std::isnan(r.plan[0]) && std::isnan(r.plan[18]) && std::isnan(r.error[0]) && std::isnan(r.g[0]));
    EXPECT_TRUE(std::isfinite(r.plan[9]));
}

TYPED_TEST(SinkhornOf, AddressesChangeNoBit) {
    using T = TypeParam;
    for (const Size size : {Size{12, 16}, Size{260, 4}, Size{5, 260}}) {
        Problem<T> p{1, size.n, size.m, .1, 1e-3, 4, MOVER_SOLVER_AUTO, uniform_costs<T>(size.n * size.m, 12)};
        p.a = masses<T>(1, size.n, 13), p.b = masses<T>(1, size.m, 14);
        const Result<T> aligned = p.on_device(this->exec()), shifted = p.on_device(this->exec(), 1);
        EXPECT_TRUE(same_bits(aligned.plan, shifted.plan));
        EXPECT_TRUE(same_bits(aligned.f, shifted.f));
        EXPECT_TRUE(same_bits(aligned.g, shifted.g));
    }
}

TYPED_TEST(SinkhornOf, SolversAgreeWhereAlternatingUpdatesCrawl) {
    using T = TypeParam;
    // A cyclic chain of cheap entries: plans that differ by a rotation cost nearly the same.
    for (const Size size : {Size{24, 24}, Size{12, 264}}) {
        Problem<T> p{1, size.n, size.m, .03, 1e-8, 120, MOVER_SOLVER_NEWTON, uniform_costs<T>(size.n * size.m, 15, .3)};
        for (int64_t i = 0; i < size.n; i++)
            for (int64_t j = 0; j < size.m; j++)
                p.cost[i * size.m + j] +=
                    (j % size.n == i || j % size.n == (i + 1) % size.n) ? static_cast<T>(.2) : static_cast<T>(1);
        const double floor = tolerance<T>(4e-6, 1e-8);
        const Result<T> newton = p.on_device(this->exec()), cpu = p.on_cpu();
        EXPECT_LE(newton.error[0], floor);
        EXPECT_LT(newton.n_iter[0], 60);
        EXPECT_LE(difference(newton.plan, cpu.plan), 100 * floor);
        if (sizeof(T) == 8) {
            EXPECT_EQ(newton.n_iter, cpu.n_iter);
        }
        p.solver = MOVER_SOLVER_AUTO;
        const Result<T> automatic = p.on_device(this->exec());
        EXPECT_LE(automatic.error[0], floor);
        EXPECT_LE(difference(automatic.plan, newton.plan), 100 * floor);
    }
}

TYPED_TEST(SinkhornOf, OneIterationIsCounted) {
    using T = TypeParam;
    Problem<T> p{1, 13, 9, .1, 0, 1, MOVER_SOLVER_AUTO, uniform_costs<T>(13 * 9, 16)};
    this->agrees(p, "max_iter 1");
    EXPECT_EQ(p.on_device(this->exec()).n_iter[0], 1);
    p.max_iter = 9;
    p.solver = MOVER_SOLVER_NEWTON;
    this->agrees(p, "max_iter 9");
}

/* ---- gradient of the plan ---- */

template <class T> struct Gradient { std::vector<T> cost, a, b; };

template <class T>
Gradient<T> gradient_on_cpu(const Problem<T> &p, const std::vector<T> &plan, const std::vector<T> &grad_plan) {
    const mover_sinkhorn_desc d = p.desc();
    size_t bytes = 0;
    EXPECT_OK(mover_sinkhorn_backward_workspace_size(&d, &bytes, nullptr));
    Workspace workspace(bytes);
    Gradient<T> out{std::vector<T>(plan.size()), std::vector<T>(p.batch * p.n), std::vector<T>(p.batch * p.m)};
    EXPECT_OK(mover_sinkhorn_backward(&d, plan.data(), grad_plan.data(), out.cost.data(), out.a.data(), out.b.data(),
                                      workspace.data(), bytes, nullptr));
    return out;
}

template <class T>
Gradient<T> gradient_on_device(const Problem<T> &p, const std::vector<T> &plan, const std::vector<T> &grad_plan,
                               const mover_exec *exec, bool masses_too = true) {
    const mover_sinkhorn_desc d = p.desc();
    size_t bytes = 0;
    EXPECT_OK(mover_sinkhorn_backward_workspace_size(&d, &bytes, exec));
    DeviceArray<unsigned char> workspace(bytes);
    DeviceArray<T> plan_(plan), grad_plan_(grad_plan), cost(plan.size()), a(p.batch * p.n), b(p.batch * p.m);
    EXPECT_OK(mover_sinkhorn_backward(&d, plan_.data(), grad_plan_.data(), cost.data(), masses_too ? a.data() : nullptr,
                                      masses_too ? b.data() : nullptr, workspace.data(), bytes, exec));
    if (masses_too) return {cost.fetch(), a.fetch(), b.fetch()};
    return {cost.fetch(), {}, {}};
}

TYPED_TEST(SinkhornOf, TheGradientAgreesWithTheCpu) {
    using T = TypeParam;
    for (const Size size : {Size{1, 1}, Size{23, 31}, Size{260, 3}, Size{3, 261}, Size{2, 2053}}) {
        Problem<T> p{2, size.n, size.m, .2, 1e-5, 200, MOVER_SOLVER_AUTO, uniform_costs<T>(2 * size.n * size.m, 20)};
        p.a = masses<T>(2, size.n, 21, size.n > 1), p.b = masses<T>(2, size.m, 22);
        const auto plan = p.on_cpu().plan, upstream = random_values<T>(2 * size.n * size.m, 23);
        const Gradient<T> cpu = gradient_on_cpu(p, plan, upstream);
        const Gradient<T> cuda = gradient_on_device(p, plan, upstream, this->exec());
        const std::string name = std::to_string(size.n) + " x " + std::to_string(size.m);
        double product = 0;
        for (size_t q = 0; q < plan.size(); q++)
            product = std::max(product, std::fabs(static_cast<double>(plan[q]) * upstream[q]) / .2);
        EXPECT_LE(distance(cuda.cost, cpu.cost), tolerance<T>(1e-5, 1e-10) * product) << name;
        EXPECT_LE(distance(cuda.a, cpu.a), tolerance<T>(1e-4, 1e-10) * (1 + largest(cpu.a))) << name;
        EXPECT_LE(distance(cuda.b, cpu.b), tolerance<T>(1e-4, 1e-10) * (1 + largest(cpu.b))) << name;
        EXPECT_TRUE(same_bits(cuda.cost, gradient_on_device(p, plan, upstream, this->exec(), false).cost)) << name;
    }
}

TYPED_TEST(SinkhornOf, TheGradientIsThatOfThePlan) {
    using T = TypeParam;
    const int64_t n = 5, m = 6;
    Problem<double> exact{1, n, m, .3, 0, 2000, MOVER_SOLVER_AUTO, uniform_costs<double>(n * m, 24)};
    const auto weight = random_values<double>(n * m, 25);
    const auto expected = central_differences(exact.cost, 1e-5, [&](const std::vector<double> &cost) {
        Problem<double> p = exact;
        p.cost = cost;
        const auto plan = p.on_cpu().plan;
        double sum = 0;
        for (size_t q = 0; q < plan.size(); q++) sum += plan[q] * weight[q];
        return sum;
    });
    Problem<T> p{1, n, m, .3, 0, 2000, MOVER_SOLVER_AUTO, {exact.cost.begin(), exact.cost.end()}};
    const Gradient<T> cuda =
        gradient_on_device<T>(p, p.on_device(this->exec()).plan, {weight.begin(), weight.end()}, this->exec());
    EXPECT_LE(distance(cuda.cost, expected), tolerance<T>(1e-6, 1e-9));
}

TYPED_TEST(SinkhornOf, AGradientThatVanishesOrIsNotFiniteStaysApart) {
    using T = TypeParam;
    for (const Size size : {Size{12, 12}, Size{260, 2}}) {
        const int64_t count = size.n * size.m;
        Problem<T> p{3, size.n, size.m, .1, 1e-6, 300, MOVER_SOLVER_AUTO, uniform_costs<T>(3 * count, 26)};
        std::vector<T> plan = p.on_cpu().plan, upstream(3 * count, T(1)); /* constant: no gradient */
        for (int64_t q = 2 * count; q < 3 * count; q++) upstream[q] = static_cast<T>(q % 7);
        for (int64_t q = count; q < 2 * count; q++) /* a permutation */
            plan[q] = (q - count) / size.m % size.m == (q - count) % size.m ? T(1) / static_cast<T>(size.n) : T(0);
        upstream[2 * count + 1] = not_a_number<T>();
        const Gradient<T> cuda = gradient_on_device(p, plan, upstream, this->exec());
        for (int64_t q = 0; q < 2 * count; q++) ASSERT_NEAR(cuda.cost[q], 0, tolerance<T>(1e-5, 1e-13));
        for (int64_t q = 2 * count; q < 3 * count; q++) ASSERT_TRUE(std::isnan(cuda.cost[q]));
        EXPECT_TRUE(std::isfinite(cuda.a[0]) && std::isnan(cuda.a[2 * size.n]));
    }
}

using SinkhornOnDevice = OnDevice;

#if defined(EMULATED)
TEST_F(SinkhornOnDevice, TheNumberOfMultiprocessorsChangesNoBit) {
    const int before = cuemu::config.multiprocessors;
    for (const Size size : {Size{260, 3}, Size{20, 261}, Size{9, 2053}}) {
        Problem<float> p{
            2, size.n, size.m, .1, 1e-3, 3, MOVER_SOLVER_AUTO, uniform_costs<float>(2 * size.n * size.m, 30)};
        const auto upstream = random_values<float>(2 * size.n * size.m, 31);
        std::vector<Result<float>> results;
        std::vector<Gradient<float>> gradients;
        for (const int multiprocessors : {1, 7}) {
            cuemu::config.multiprocessors = multiprocessors;
            results.push_back(p.on_device(exec()));
            gradients.push_back(gradient_on_device(p, results[0].plan, upstream, exec()));
        }
        EXPECT_TRUE(same_bits(results[0].plan, results[1].plan));
        EXPECT_TRUE(same_bits(results[0].f, results[1].f));
        EXPECT_TRUE(same_bits(results[0].error, results[1].error));
        EXPECT_TRUE(same_bits(gradients[0].cost, gradients[1].cost));
        EXPECT_TRUE(same_bits(gradients[0].b, gradients[1].b));
    }
    cuemu::config.multiprocessors = before;
}

TEST_F(SinkhornOnDevice, LessSharedMemoryMeansTheOtherTeam) {
    const int before = cuemu::config.shared_bytes;
    Problem<float> p{1, 130, 100, .1, 1e-3, 3, MOVER_SOLVER_AUTO, uniform_costs<float>(130 * 100, 32)};
    const Result<float> alone = p.on_device(exec());
    cuemu::config.shared_bytes = 48 * 1024;
    const Result<float> together = p.on_device(exec());
    cuemu::config.shared_bytes = before;
    EXPECT_EQ(alone.n_iter, together.n_iter);
    EXPECT_LE(difference(alone.plan, together.plan), 1e-6);
    EXPECT_FALSE(same_bits(alone.plan, together.plan)); /* or it was the same team */
}
#endif

TEST_F(SinkhornOnDevice, TwoPointsWorkedOutByHand) {
    Problem<double> p{1, 2, 2, 1, 0, 500, MOVER_SOLVER_AUTO, {0, 1, 1, 0}};
    const Result<double> r = p.on_device(exec());
    EXPECT_NEAR(r.plan[0], .3655292893, 1e-10);
    EXPECT_NEAR(r.plan[1], .1344707107, 1e-10);
    EXPECT_NEAR((r.f[0] + r.f[1] + r.g[0] + r.g[1]) / 2, .3798854930, 1e-10);
    EXPECT_NEAR(r.f[0] + r.f[1], r.g[0] + r.g[1], 1e-12); // gauge
}

/* Columns far from every row leave Newton's steps a direction that is not finite. */
TEST_F(SinkhornOnDevice, PlansOfCostsFarBeyondEpsilonAreFinite) {
    Problem<float> p{1, 2, 9, .01, 1e-3, 100, MOVER_SOLVER_AUTO, std::vector<float>(18, 0)};
    const float near[] = {1.859375f, 2.1875f, 2.1875f, 1.875f, 1.53125f, 1.859375f};
    std::copy(std::begin(near), std::end(near), p.cost.begin());
    const Result<float> r = p.on_device(exec());
    EXPECT_TRUE(all_finite(r.plan) && all_finite(r.f) && all_finite(r.g) && all_finite(r.error));
}

TEST_F(SinkhornOnDevice, AnEmptyBatchIsNothingToDo) {
    Problem<float> p{0, 3, 4, .1, 0, 5, MOVER_SOLVER_AUTO, {}};
    const Result<float> r = p.on_device(exec());
    EXPECT_TRUE(r.plan.empty());
}

TEST(Planner, DependsOnSizesAndTheLimitOnly) {
    const int64_t limit = 227 * 1024;
    EXPECT_EQ(planner_of(64, 64, 4, limit).team, PLANNER_BLOCK);
    EXPECT_EQ(planner_of(220, 220, 4, limit).team, PLANNER_BLOCK);
    EXPECT_EQ(planner_of(256, 256, 4, limit).team, PLANNER_GRID);
    EXPECT_EQ(planner_of(220, 220, 4, 99 * 1024).team, PLANNER_GRID);
    EXPECT_EQ(planner_of(80, 80, 4, 0).team, PLANNER_BLOCK); // what every device offers
    EXPECT_EQ(planner_of(257, 4, 4, limit).team, PLANNER_GRID);
    EXPECT_EQ(planner_of(300, 256, 4, limit).row, PLANNER_WARP);
    EXPECT_EQ(planner_of(3, 257, 4, limit).row, PLANNER_WHOLE);
    EXPECT_EQ(planner_of(3, 2048, 4, limit).row, PLANNER_WHOLE);
    EXPECT_EQ(planner_of(3, 2049, 4, limit).row, PLANNER_LONG);
    EXPECT_EQ(planner_of(3, 4097, 4, limit).row, PLANNER_WIDE);
    EXPECT_EQ(planner_of(3, 129, 8, limit).row, PLANNER_WHOLE);
    EXPECT_EQ(planner_of(3, 1025, 8, limit).row, PLANNER_LONG);
    EXPECT_EQ(planner_of(3, 2049, 8, limit).row, PLANNER_WIDE);
    for (const int64_t n : {1, 31, 257, 1024, 8192, 100000})
        for (const int64_t m : {1, 63, 512, 513, 4097, 3000000}) {
            const planner plan = planner_of(n, m, 4, limit);
            EXPECT_GE(plan.chunks * plan.chunk_rows, n);
            EXPECT_LT((plan.chunks - 1) * plan.chunk_rows, n);
            EXPECT_GE(plan.column_items * plan.column_width, m);
            EXPECT_LE((int64_t)plan.shared_bytes + PLANNER_STATIC, limit);
        }
    EXPECT_EQ(planner_of((int64_t)1 << 33, (int64_t)1 << 33, 8, limit).chunks, (int64_t)1 << 28); // offsets beyond 2^31
}

} // namespace
