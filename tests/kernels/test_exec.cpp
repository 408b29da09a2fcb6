// mover_exec: lent threads and products change no result, and their failures are reported.
#include <mover/mover.h>

#include <algorithm>
#include <atomic>
#include <gtest/gtest.h>
#include <random>
#include <thread>
#include <vector>

namespace {

struct Host {
    int threads = 1;
    int fail_loop = 0, fail_gemm = 0;
    std::atomic<int> loops{0};
    int products = 0;
};

int lent_parallel_for(void *host_, int64_t begin, int64_t end, int64_t grain, mover_body body, void *ctx) {
    Host *host = static_cast<Host *>(host_);
    host->loops++;
    if (host->fail_loop) return host->fail_loop;
    const int64_t step = std::max(grain, (end - begin + host->threads - 1) / host->threads);
    std::vector<std::thread> threads;
    for (int64_t first = begin; first < end; first += step)
        threads.emplace_back([=] { body(first, std::min(end, first + step), ctx); });
    for (std::thread &thread : threads) thread.join();
    return 0;
}

int lent_gemm(void *host_, mover_dtype dtype, int ta, int tb, int64_t n, int64_t m, int64_t d, const void *a,
              int64_t lda, const void *b, int64_t ldb, void *c, int64_t ldc) {
    Host *host = static_cast<Host *>(host_);
    host->products++;
    if (host->fail_gemm) return host->fail_gemm;
    auto multiply = [&](auto zero) {
        using T = decltype(zero);
        const T *A = static_cast<const T *>(a), *B = static_cast<const T *>(b);
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < m; j++) {
                double sum = 0;
                for (int64_t l = 0; l < d; l++)
                    sum += static_cast<double>(A[ta ? l * lda + i : i * lda + l]) * B[tb ? j * ldb + l : l * ldb + j];
                static_cast<T *>(c)[i * ldc + j] = static_cast<T>(sum);
            }
    };
    if (dtype == MOVER_FLOAT32)
        multiply(0.0f);
    else
        multiply(0.0);
    return 0;
}

struct Outputs {
    std::vector<float> plan, grad_x, grad_y;
    mover_status status = MOVER_OK;
    bool operator==(const Outputs &other) const {
        return plan == other.plan && grad_x == other.grad_x && grad_y == other.grad_y;
    }
};

Outputs run(const mover_exec *exec) {
    const int64_t batch = 3, n = 150, m = 131, d = 70;
    std::mt19937 generator(1);
    std::normal_distribution<float> normal(0, .1f);
    std::vector<float> x(batch * n * d), y(batch * m * d), weight(batch * n * m);
    for (auto *values : {&x, &y, &weight})
        for (float &value : *values) value = normal(generator);
    mover_transport_desc desc = {};
    desc.batch = batch, desc.n = n, desc.m = m, desc.d = d, desc.epsilon = .1, desc.tol = 1e-4, desc.max_iter = 50;
    size_t forward = 0, backward = 0;
    EXPECT_EQ(mover_transport_forward_workspace_size(&desc, &forward, nullptr), MOVER_OK);
    EXPECT_EQ(mover_transport_backward_workspace_size(&desc, &backward, nullptr), MOVER_OK);
    std::vector<char> workspace(std::max(forward, backward) + 1);
    Outputs out{std::vector<float>(batch * n * m), std::vector<float>(batch * n * d),
                std::vector<float>(batch * m * d)};
    std::vector<float> cost(batch * n * m), f(batch * n), g(batch * m), error(batch);
    std::vector<int32_t> n_iter(batch);
    // An odd address: the workspace needs no alignment.
    out.status = mover_transport_forward(&desc, x.data(), y.data(), nullptr, nullptr, out.plan.data(), cost.data(),
                                         f.data(), g.data(), n_iter.data(), error.data(), workspace.data() + 1,
                                         workspace.size() - 1, exec);
    if (out.status == MOVER_OK)
        out.status = mover_transport_backward(&desc, x.data(), y.data(), out.plan.data(), weight.data(), nullptr,
                                              out.grad_x.data(), out.grad_y.data(), nullptr, nullptr,
                                              workspace.data() + 1, workspace.size() - 1, exec);
    return out;
}

TEST(Exec, ThreadsDoNotChangeABit) {
    const Outputs serial = run(nullptr);
    ASSERT_EQ(serial.status, MOVER_OK);
    for (const int threads : {1, 2, 3, 7}) {
        Host host;
        host.threads = threads;
        mover_exec exec = {};
        exec.parallel_for = lent_parallel_for;
        exec.host = &host;
        EXPECT_TRUE(run(&exec) == serial) << threads;
        EXPECT_GT(host.loops, 0);
    }
}

TEST(Exec, LentProductsAreUsed) {
    Host host;
    mover_exec exec = {};
    exec.gemm = lent_gemm;
    exec.host = &host;
    const Outputs lent = run(&exec), own = run(nullptr);
    ASSERT_EQ(lent.status, MOVER_OK);
    EXPECT_EQ(host.products, 9); // three problems: costs, and two products each way
    for (size_t i = 0; i < own.plan.size(); i++) ASSERT_NEAR(lent.plan[i], own.plan[i], 1e-8);
    for (size_t i = 0; i < own.grad_x.size(); i++) ASSERT_NEAR(lent.grad_x[i], own.grad_x[i], 1e-6);
}

TEST(Exec, FailuresOfTheHostAreReported) {
    Host host;
    host.fail_gemm = 42;
    mover_exec exec = {};
    exec.gemm = lent_gemm;
    exec.host = &host;
    EXPECT_EQ(run(&exec).status, MOVER_ERROR_HOST);
    EXPECT_STREQ(mover_last_error(), "the host's gemm failed with code 42");
    host.fail_gemm = 0, host.fail_loop = 7, host.threads = 2;
    exec.parallel_for = lent_parallel_for;
    EXPECT_EQ(run(&exec).status, MOVER_ERROR_HOST);
    EXPECT_STREQ(mover_last_error(), "the host's parallel_for failed with code 7");
}

TEST(Exec, TheLastErrorBelongsToItsThread) {
    mover_cost_desc desc = {};
    desc.n = -1;
    size_t bytes = 0;
    EXPECT_EQ(mover_cost_forward_workspace_size(&desc, &bytes, nullptr), MOVER_ERROR_ARGUMENT);
    std::string other = "not run";
    std::thread([&] { other = mover_last_error(); }).join();
    EXPECT_EQ(other, "");
    EXPECT_STRNE(mover_last_error(), "");
}

TEST(Exec, StatusesHaveTexts) {
    for (int status = MOVER_OK; status <= MOVER_ERROR_HOST; status++)
        EXPECT_STRNE(mover_status_string(static_cast<mover_status>(status)), "unknown status");
    EXPECT_STREQ(mover_status_string(static_cast<mover_status>(99)), "unknown status");
    EXPECT_STRNE(mover_version(), "");
}

} // namespace
