/*
 * test_contrast.cpp: cross entropy of scores, in both directions.
 */
#include "fixtures.h"

using namespace fixtures;

namespace {

template <class T> struct Contrast {
    std::vector<T> loss, rows, columns, grad_scores;
    T grad_scale;
};

template <class T>
Contrast<T> contrast_of(const std::vector<T> &scores, T scale, int64_t batch, int64_t n, double smoothing,
                        mover_denominator denominator, const mover_exec *exec = nullptr) {
    const mover_contrast_desc desc = {dtype_of<T>(), batch, n, smoothing, denominator};
    size_t bytes = 0;
    EXPECT_OK(mover_contrast_forward_workspace_size(&desc, &bytes, nullptr));
    Workspace workspace(bytes);
    const T nan = not_a_number<T>();
    const size_t count = static_cast<size_t>(batch * n);
    Contrast<T> out = {std::vector<T>(static_cast<size_t>(batch), nan), std::vector<T>(count, nan),
                       std::vector<T>(count, nan), std::vector<T>(scores.size(), nan), nan};
    EXPECT_OK(mover_contrast_forward(&desc, scores.data(), &scale, out.loss.data(), out.rows.data(), out.columns.data(),
                                     workspace.data(), bytes, exec));
    EXPECT_OK(mover_contrast_backward_workspace_size(&desc, &bytes, nullptr));
    Workspace again(bytes);
    std::vector<T> upstream(static_cast<size_t>(batch));
    for (size_t b = 0; b < upstream.size(); b++) upstream[b] = static_cast<T>(b + 1);
    EXPECT_OK(mover_contrast_backward(&desc, scores.data(), &scale, out.rows.data(), out.columns.data(),
                                      upstream.data(), out.grad_scores.data(), &out.grad_scale, again.data(), bytes,
                                      exec));
    return out;
}

/* The loss of one problem, term by term. */
long double expected(const double *scores, double scale, int64_t n, double smoothing, mover_denominator denominator) {
    long double total = 0;
    for (int way = 0; way < 2; way++)
        for (int64_t i = 0; i < n; i++) {
            long double most = -1e300L, sum = 0, target = 0;
            const auto logit = [&](int64_t j) {
                return static_cast<long double>(scale) * scores[way ? j * n + i : i * n + j];
            };
            const auto counts = [&](int64_t j) { return denominator == MOVER_DENOMINATOR_ALL || i != j; };
            for (int64_t j = 0; j < n; j++)
                if (counts(j)) most = std::max(most, logit(j));
            for (int64_t j = 0; j < n; j++) {
                if (counts(j)) sum += expl(logit(j) - most);
                target += logit(j) * ((i == j ? 1 - smoothing : 0) + smoothing / static_cast<double>(n));
            }
            total += most + logl(sum) - target;
        }
    return total / (2 * n);
}

template <class T> class ContrastTest : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(ContrastTest, Types);

TYPED_TEST(ContrastTest, IsTheCrossEntropyOfBothDirections) {
    using T = TypeParam;
    const T scale = T(-6.5);
    for (const int64_t n : {2, 31, 32, 33, 97})
        for (const double smoothing : {0.0, 0.2})
            for (const auto denominator : {MOVER_DENOMINATOR_ALL, MOVER_DENOMINATOR_NEGATIVES}) {
                const int64_t batch = 3;
                const auto scores = random_weights<T>(batch * n * n, static_cast<unsigned>(n));
                const auto got = contrast_of(scores, scale, batch, n, smoothing, denominator);
                const std::vector<double> exact(scores.begin(), scores.end());
                for (int64_t b = 0; b < batch; b++)
                    EXPECT_NEAR(static_cast<double>(got.loss[static_cast<size_t>(b)]),
                                static_cast<double>(expected(exact.data() + b * n * n, static_cast<double>(scale), n,
                                                             smoothing, denominator)),
                                tolerance<T>(4e-6, 1e-13));
                if (n > 33) continue;
                const auto loss = [&](const std::vector<double> &at, double by) {
                    long double sum = 0;
                    for (int64_t b = 0; b < batch; b++)
                        sum += (b + 1) * expected(at.data() + b * n * n, by, n, smoothing, denominator);
                    return static_cast<double>(sum);
                };
                const double by = static_cast<double>(scale);
                const double of_scale = (loss(exact, by + 1e-5) - loss(exact, by - 1e-5)) / 2e-5;
                EXPECT_NEAR(static_cast<double>(got.grad_scale), of_scale, tolerance<T>(2e-5, 1e-8));
                if (n > 2) continue;
                const auto of_scores =
                    central_differences(exact, 1e-5, [&](const std::vector<double> &at) { return loss(at, by); });
                EXPECT_LE(distance(got.grad_scores, of_scores), tolerance<T>(2e-5, 1e-8));
            }
}

TYPED_TEST(ContrastTest, ThreadsChangeNothing) {
    using T = TypeParam;
    const int64_t n = 150;
    const mover_exec threads = three_threads();
    const auto scores = random_weights<T>(2 * n * n, 5);
    const auto one = contrast_of<T>(scores, 9, 2, n, 0.1, MOVER_DENOMINATOR_ALL),
               other = contrast_of<T>(scores, 9, 2, n, 0.1, MOVER_DENOMINATOR_ALL, &threads);
    EXPECT_TRUE(same_bits(one.loss, other.loss) && same_bits(one.grad_scores, other.grad_scores));
    EXPECT_EQ(one.grad_scale, other.grad_scale);
}

TYPED_TEST(ContrastTest, WhatIsNotFiniteStaysInItsProblem) {
    using T = TypeParam;
    const int64_t n = 40;
    auto scores = random_weights<T>(3 * n * n, 6);
    const auto good = contrast_of<T>(scores, 2, 3, n, 0, MOVER_DENOMINATOR_ALL);
    for (const T bad : {not_a_number<T>(), infinity<T>(), -infinity<T>()}) {
        scores[static_cast<size_t>(n * n + 37 * n + 3)] = bad;
        const auto got = contrast_of<T>(scores, 2, 3, n, 0, MOVER_DENOMINATOR_ALL);
        EXPECT_TRUE(std::isnan(got.loss[1]));
        EXPECT_EQ(got.loss[0], good.loss[0]);
        EXPECT_EQ(got.loss[2], good.loss[2]);
        EXPECT_TRUE(std::isnan(got.grad_scores[static_cast<size_t>(n * n + 37 * n + 3)]));
    }
}

TEST(ContrastErrors, NameTheFunctionAndTheArgument) {
    float x = 1;
    size_t bytes = 0;
    mover_contrast_desc desc = {MOVER_FLOAT32, 1, 0, 0, MOVER_DENOMINATOR_ALL};
    EXPECT_FAILS(mover_contrast_forward_workspace_size(&desc, &bytes, nullptr), MOVER_ERROR_ARGUMENT,
                 "n must be >= 1, got 0");
    desc.n = 1;
    desc.label_smoothing = -0.5;
    EXPECT_FAILS(mover_contrast_backward_workspace_size(&desc, &bytes, nullptr), MOVER_ERROR_ARGUMENT,
                 "label_smoothing must be from 0 to 1, got -0.5");
    desc.label_smoothing = 0;
    EXPECT_OK(mover_contrast_forward_workspace_size(&desc, &bytes, nullptr));
    Workspace workspace(bytes);
    EXPECT_FAILS(mover_contrast_forward(&desc, nullptr, nullptr, &x, &x, &x, workspace.data(), bytes, nullptr),
                 MOVER_ERROR_ARGUMENT, "mover_contrast_forward: scores must not be NULL");
    EXPECT_FAILS(mover_contrast_forward(&desc, &x, nullptr, &x, &x, &x, workspace.data(), bytes - 1, nullptr),
                 MOVER_ERROR_WORKSPACE, "workspace");
}

} // namespace
