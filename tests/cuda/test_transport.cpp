// transport on CUDA: against the CPU backend and the stages it is made of, in both teams.
#include "device.h"

using namespace fixtures;

namespace {

template <class T> struct Solution {
    std::vector<T> plan, cost, f, g, error, value;
    std::vector<int32_t> n_iter;
};

template <class T> struct Gradients { std::vector<T> x, y, a, b; };

/* Arrays where the backend reads and writes them. */
template <class T> class Memory {
  public:
    Memory(const mover_exec *exec, const std::vector<T> &values) : host_(values) {
        if (exec) device_ = std::make_unique<DeviceArray<T>>(values);
    }
    T *data() { return device_ ? device_->data() : host_.empty() ? nullptr : host_.data(); }
    std::vector<T> fetch() const { return device_ ? device_->fetch() : host_; }

  private:
    std::vector<T> host_;
    std::unique_ptr<DeviceArray<T>> device_;
};

template <class T> struct Problem {
    int64_t batch, n, m, d;
    double epsilon = .2, tol = 1e-6;
    std::vector<T> x, y, a = {}, b = {};

    mover_transport_desc desc() const {
        mover_transport_desc out = {};
        out.dtype = dtype_of<T>();
        out.batch = batch, out.n = n, out.m = m, out.d = d;
        out.epsilon = epsilon, out.tol = tol, out.max_iter = 200;
        return out;
    }

    Solution<T> plan(const mover_exec *exec) const {
        const mover_transport_desc q = desc();
        size_t bytes = 0;
        EXPECT_OK(mover_transport_forward_workspace_size(&q, &bytes, exec));
        Memory<unsigned char> workspace(exec, std::vector<unsigned char>(bytes, 0xff));
        Memory<T> x_(exec, x), y_(exec, y), a_(exec, a), b_(exec, b), plan(exec, std::vector<T>(batch * n * m)),
            cost(exec, std::vector<T>(batch * n * m)), f(exec, std::vector<T>(batch * n)),
            g(exec, std::vector<T>(batch * m)), error(exec, std::vector<T>(batch));
        Memory<int32_t> n_iter(exec, std::vector<int32_t>(batch));
        EXPECT_OK(mover_transport_forward(&q, x_.data(), y_.data(), a_.data(), b_.data(), plan.data(), cost.data(),
                                          f.data(), g.data(), n_iter.data(), error.data(), workspace.data(), bytes,
                                          exec));
        return {plan.fetch(), cost.fetch(), f.fetch(), g.fetch(), error.fetch(), {}, n_iter.fetch()};
    }

    Solution<T> value(const mover_exec *exec) const {
        const mover_transport_desc q = desc();
        size_t bytes = 0;
        EXPECT_OK(mover_transport_value_forward_workspace_size(&q, &bytes, exec));
        Memory<unsigned char> workspace(exec, std::vector<unsigned char>(bytes, 0xff));
        Memory<T> x_(exec, x), y_(exec, y), a_(exec, a), b_(exec, b), f(exec, std::vector<T>(batch * n)),
            g(exec, std::vector<T>(batch * m)), value(exec, std::vector<T>(batch));
        EXPECT_OK(mover_transport_value_forward(&q, x_.data(), y_.data(), a_.data(), b_.data(), value.data(), f.data(),
                                                g.data(), workspace.data(), bytes, exec));
        return {{}, {}, f.fetch(), g.fetch(), {}, value.fetch(), {}};
    }

    Gradients<T> plan_gradient(const std::vector<T> &plan, const std::vector<T> &grad_plan,
                               const std::vector<T> &grad_cost, const mover_exec *exec) const {
        const mover_transport_desc q = desc();
        size_t bytes = 0;
        EXPECT_OK(mover_transport_backward_workspace_size(&q, &bytes, exec));
        Memory<unsigned char> workspace(exec, std::vector<unsigned char>(bytes, 0xff));
        Memory<T> x_(exec, x), y_(exec, y), plan_(exec, plan), grad_plan_(exec, grad_plan), grad_cost_(exec, grad_cost),
            grad_x(exec, std::vector<T>(x.size())), grad_y(exec, std::vector<T>(y.size())),
            grad_a(exec, std::vector<T>(batch * n)), grad_b(exec, std::vector<T>(batch * m));
        EXPECT_OK(mover_transport_backward(&q, x_.data(), y_.data(), plan_.data(), grad_plan_.data(), grad_cost_.data(),
                                           grad_x.data(), grad_y.data(), grad_a.data(), grad_b.data(), workspace.data(),
                                           bytes, exec));
        return {grad_x.fetch(), grad_y.fetch(), grad_a.fetch(), grad_b.fetch()};
    }

    Gradients<T> value_gradient(const Solution<T> &s, const std::vector<T> &grad_value, const mover_exec *exec) const {
        const mover_transport_desc q = desc();
        size_t bytes = 0;
        EXPECT_OK(mover_transport_value_backward_workspace_size(&q, &bytes, exec));
        Memory<unsigned char> workspace(exec, std::vector<unsigned char>(bytes, 0xff));
        Memory<T> x_(exec, x), y_(exec, y), a_(exec, a), b_(exec, b), f(exec, s.f), g(exec, s.g),
            grad_value_(exec, grad_value), grad_x(exec, std::vector<T>(x.size())),
            grad_y(exec, std::vector<T>(y.size())), grad_a(exec, std::vector<T>(batch * n)),
            grad_b(exec, std::vector<T>(batch * m));
        EXPECT_OK(mover_transport_value_backward(&q, x_.data(), y_.data(), a_.data(), b_.data(), f.data(), g.data(),
                                                 grad_value_.data(), grad_x.data(), grad_y.data(), grad_a.data(),
                                                 grad_b.data(), workspace.data(), bytes, exec));
        return {grad_x.fetch(), grad_y.fetch(), grad_a.fetch(), grad_b.fetch()};
    }
};

template <class T> Problem<T> random_problem(int64_t batch, int64_t n, int64_t m, int64_t d, unsigned seed) {
    return {batch, n, m, d, .2, 1e-6, random_rows<T>(batch * n, d, seed), random_rows<T>(batch * m, d, seed + 1)};
}

struct Size {
    int64_t n, m;
};
const Size sizes[] = {{14, 11}, {260, 3}, {7, 260}};

template <class T> class TransportOf : public OnDevice {
  protected:
    using OnDevice::exec;
};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(TransportOf, Types);

TYPED_TEST(TransportOf, PlanAndValueAgreeWithTheCpu) {
    using T = TypeParam;
    for (const Size size : sizes) {
        const Problem<T> p = random_problem<T>(2, size.n, size.m, 6, 1);
        const Solution<T> cuda = p.plan(this->exec()), cpu = p.plan(nullptr);
        const double bound = tolerance<T>(2e-5, 1e-10);
        EXPECT_LE(distance(cuda.cost, cpu.cost), bound);
        EXPECT_LE(distance(cuda.plan, cpu.plan), bound * largest(cpu.plan));
        EXPECT_LE(distance(cuda.f, cpu.f), bound);
        EXPECT_LE(distance(cuda.g, cpu.g), bound);
        const Solution<T> value = p.value(this->exec());
        EXPECT_LE(distance(value.value, p.value(nullptr).value), bound);
        EXPECT_TRUE(same_bits(value.f, cuda.f)); /* the plan is kept or not: the same iterations */
        EXPECT_TRUE(same_bits(value.g, cuda.g));
    }
}

TYPED_TEST(TransportOf, GradientsOfThePlanAgreeWithTheCpu) {
    using T = TypeParam;
    for (const Size size : sizes) {
        const Problem<T> p = random_problem<T>(2, size.n, size.m, 6, 3);
        const int64_t count = 2 * size.n * size.m;
        const auto plan = p.plan(nullptr).plan, grad_plan = random_values<T>(count, 5),
                   grad_cost = random_values<T>(count, 6), none = std::vector<T>{};
        for (const auto &[from_plan, from_cost] :
             {std::pair{grad_plan, grad_cost}, std::pair{grad_plan, none}, std::pair{none, grad_cost}}) {
            const Gradients<T> cuda = p.plan_gradient(plan, from_plan, from_cost, this->exec());
            const Gradients<T> cpu = p.plan_gradient(plan, from_plan, from_cost, nullptr);
            const double bound = tolerance<T>(1e-4, 1e-10);
            EXPECT_LE(distance(cuda.x, cpu.x), bound * largest(cpu.x));
            EXPECT_LE(distance(cuda.y, cpu.y), bound * largest(cpu.y));
            EXPECT_LE(distance(cuda.a, cpu.a), bound * (1 + largest(cpu.a)));
            EXPECT_LE(distance(cuda.b, cpu.b), bound * (1 + largest(cpu.b)));
        }
    }
}

TYPED_TEST(TransportOf, TheEnvelopeGradientAgreesWithTheCpu) {
    using T = TypeParam;
    for (const Size size : sizes) {
        Problem<T> p = random_problem<T>(2, size.n, size.m, 6, 7);
        p.a.assign(2 * size.n, T(1) / static_cast<T>(size.n));
        p.a[0] = 0, p.a[1] *= 2;
        const Solution<T> s = p.value(nullptr);
        const Gradients<T> cuda = p.value_gradient(s, {2, -3}, this->exec()),
                           cpu = p.value_gradient(s, {2, -3}, nullptr);
        const double bound = tolerance<T>(2e-5, 1e-10);
        EXPECT_LE(distance(cuda.x, cpu.x), bound * (1 + largest(cpu.x)));
        EXPECT_LE(distance(cuda.y, cpu.y), bound * (1 + largest(cpu.y)));
        EXPECT_LE(distance(cuda.a, cpu.a), bound * (1 + largest(cpu.a)));
        EXPECT_LE(distance(cuda.b, cpu.b), bound * (1 + largest(cpu.b)));
    }
}

TYPED_TEST(TransportOf, NaNInOnePairStaysThere) {
    using T = TypeParam;
    Problem<T> p = random_problem<T>(3, 9, 8, 5, 9);
    const Solution<T> before = p.plan(this->exec());
    p.x[9 * 5 + 2] = not_a_number<T>();
    const Solution<T> after = p.plan(this->exec());
    for (int64_t q = 0; q < 3 * 72; q++) {
        if (q / 72 == 1)
            ASSERT_TRUE(std::isnan(after.plan[q]));
        else
            ASSERT_EQ(after.plan[q], before.plan[q]);
    }
    const Solution<T> value = p.value(this->exec());
    EXPECT_TRUE(std::isfinite(value.value[0]) && std::isnan(value.value[1]) && std::isfinite(value.value[2]));
}

using TransportOnDevice = OnDevice;

TEST_F(TransportOnDevice, PointsOnTheCircleHaveAClosedForm) {
    // x at angles 2 pi i / N, y rotated: OT_KL = 2 - eps log I0(2 / eps).
    const int64_t n = 64;
    Problem<double> p{1, n, n, 2, 1, 0, std::vector<double>(n * 2), std::vector<double>(n * 2)};
    for (int64_t i = 0; i < n; i++) {
        const double angle = 2 * M_PI * static_cast<double>(i) / n;
        p.x[2 * i] = std::cos(angle), p.x[2 * i + 1] = std::sin(angle);
        p.y[2 * i] = std::cos(angle + .037), p.y[2 * i + 1] = std::sin(angle + .037);
    }
    EXPECT_NEAR(p.value(exec()).value[0], 1.17600645851704, 1e-12);
}

} // namespace
