/*
 * test_contrast.cpp: cross entropy of scores in both directions, on the device: against the CPU backend and against
 * plain loops in long double.
 */
#include "device.h"

using namespace fixtures;

namespace {

template <class T> struct Contrast { std::vector<T> loss, rows, columns, grad_scores, grad_scale; };

struct Options {
    double smoothing = 0;
    mover_denominator denominator = MOVER_DENOMINATOR_ALL;
    size_t shift = 0; /* of all arrays */
};

template <class T> std::vector<T> upstream_of(int64_t batch) {
    std::vector<T> out;
    for (int64_t b = 0; b < batch; b++) out.push_back(static_cast<T>(b + 1));
    return out;
}

template <class T> mover_contrast_desc desc_of(int64_t batch, int64_t n, const Options &options) {
    return {dtype_of<T>(), batch, n, options.smoothing, options.denominator};
}

template <class T>
Contrast<T> on_device(const std::vector<T> &scores, T scale, int64_t batch, int64_t n, const Options &options,
                      const mover_exec *exec) {
    const auto desc = desc_of<T>(batch, n, options);
    const size_t count = static_cast<size_t>(batch * n), shift = options.shift;
    size_t forward = 0, backward = 0;
    EXPECT_OK(mover_contrast_forward_workspace_size(&desc, &forward, exec));
    EXPECT_OK(mover_contrast_backward_workspace_size(&desc, &backward, exec));
    DeviceArray<unsigned char> workspace(forward, shift), again(backward, shift);
    DeviceArray<T> in(scores, shift), by(std::vector<T>{scale}, shift), upstream(upstream_of<T>(batch), shift);
    DeviceArray<T> loss(static_cast<size_t>(batch), shift), rows(count, shift), columns(count, shift),
        grad_scores(scores.size(), shift), grad_scale(1, shift);
    EXPECT_OK(mover_contrast_forward(&desc, in.data(), by.data(), loss.data(), rows.data(), columns.data(),
                                     workspace.data(), forward, exec));
    EXPECT_OK(mover_contrast_backward(&desc, in.data(), by.data(), rows.data(), columns.data(), upstream.data(),
                                      grad_scores.data(), grad_scale.data(), again.data(), backward, exec));
    return {loss.fetch(), rows.fetch(), columns.fetch(), grad_scores.fetch(), grad_scale.fetch()};
}

template <class T>
Contrast<T> on_host(const std::vector<T> &scores, T scale, int64_t batch, int64_t n, const Options &options) {
    const auto desc = desc_of<T>(batch, n, options);
    const size_t count = static_cast<size_t>(batch * n);
    size_t forward = 0, backward = 0;
    EXPECT_OK(mover_contrast_forward_workspace_size(&desc, &forward, nullptr));
    EXPECT_OK(mover_contrast_backward_workspace_size(&desc, &backward, nullptr));
    Workspace workspace(forward), again(backward);
    const auto upstream = upstream_of<T>(batch);
    Contrast<T> out = {std::vector<T>(static_cast<size_t>(batch)), std::vector<T>(count), std::vector<T>(count),
                       std::vector<T>(scores.size()), std::vector<T>(1)};
    EXPECT_OK(mover_contrast_forward(&desc, scores.data(), &scale, out.loss.data(), out.rows.data(), out.columns.data(),
                                     workspace.data(), forward, nullptr));
    EXPECT_OK(mover_contrast_backward(&desc, scores.data(), &scale, out.rows.data(), out.columns.data(),
                                      upstream.data(), out.grad_scores.data(), out.grad_scale.data(), again.data(),
                                      backward, nullptr));
    return out;
}

/* The same term by term. */
template <class T>
Contrast<double> expected(const std::vector<T> &scores, T scale, int64_t batch, int64_t n, const Options &options) {
    const long double count = static_cast<long double>(n), s = options.smoothing;
    Contrast<double> out;
    long double grad_scale = 0;
    for (int64_t b = 0; b < batch; b++) {
        const T *problem = scores.data() + b * n * n;
        const auto logit = [&](int64_t i, int64_t j) {
            return static_cast<long double>(scale) * static_cast<long double>(problem[i * n + j]);
        };
        const auto counts = [&](int64_t i, int64_t j) {
            return options.denominator == MOVER_DENOMINATOR_ALL || i != j;
        };
        std::vector<long double> sums[2];
        for (int way = 0; way < 2; way++)
            for (int64_t i = 0; i < n; i++) {
                long double most = -1e300L, sum = 0;
                for (int64_t j = 0; j < n; j++)
                    if (counts(i, j)) most = std::max(most, way ? logit(j, i) : logit(i, j));
                for (int64_t j = 0; j < n; j++)
                    if (counts(i, j)) sum += expl((way ? logit(j, i) : logit(i, j)) - most);
                sums[way].push_back(most + logl(sum));
                (way ? out.columns : out.rows).push_back(static_cast<double>(sums[way].back()));
            }
        long double loss = 0;
        for (int64_t i = 0; i < n; i++) {
            const size_t q = static_cast<size_t>(i);
            loss += (sums[0][q] + sums[1][q]) / (2 * count) - (1 - s) * logit(i, i) / count;
            for (int64_t j = 0; j < n; j++) {
                loss -= s * logit(i, j) / (count * count);
                long double slope = -s / (count * count) - (i == j ? (1 - s) / count : 0);
                if (counts(i, j))
                    slope += (expl(logit(i, j) - sums[0][q]) + expl(logit(i, j) - sums[1][static_cast<size_t>(j)])) /
                             (2 * count);
                slope *= static_cast<long double>(b + 1);
                out.grad_scores.push_back(static_cast<double>(slope * static_cast<long double>(scale)));
                grad_scale += slope * static_cast<long double>(problem[i * n + j]);
            }
        }
        out.loss.push_back(static_cast<double>(loss));
    }
    out.grad_scale = {static_cast<double>(grad_scale)};
    return out;
}

template <class T, class U> void expect_near(const Contrast<T> &got, const Contrast<U> &want, double scale) {
    const double unit = std::max(1.0, std::fabs(scale)); /* of the logits */
    EXPECT_LE(distance(got.loss, want.loss), tolerance<T>(1e-6, 1e-14) * unit);
    EXPECT_LE(distance(got.rows, want.rows), tolerance<T>(1e-6, 1e-14) * unit);
    EXPECT_LE(distance(got.columns, want.columns), tolerance<T>(1e-6, 1e-14) * unit);
    EXPECT_LE(distance(got.grad_scores, want.grad_scores), tolerance<T>(1e-6, 1e-14) * unit * unit);
    EXPECT_LE(distance(got.grad_scale, want.grad_scale), tolerance<T>(2e-6, 2e-14) * unit);
}

template <class T> class ContrastOnDevice : public OnDevice {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(ContrastOnDevice, Types);

/* Sizes about the tiles of 32 or 16 rows and 256 columns. */
TYPED_TEST(ContrastOnDevice, IsTheCrossEntropyOfBothDirections) {
    using T = TypeParam;
    const T scale = T(-6.5);
    for (const int64_t n : {1, 2, 17, 33, 257})
        for (const double smoothing : {0.0, 0.2})
            for (const auto denominator : {MOVER_DENOMINATOR_ALL, MOVER_DENOMINATOR_NEGATIVES}) {
                if (n == 1 && denominator == MOVER_DENOMINATOR_NEGATIVES) continue; /* no term */
                const int64_t batch = n > 100 ? 1 : 2;
                if (n > 100 && (smoothing > 0) != (denominator == MOVER_DENOMINATOR_ALL)) continue;
                Options options;
                options.smoothing = smoothing;
                options.denominator = denominator;
                const auto scores = random_weights<T>(batch * n * n, static_cast<unsigned>(n));
                const auto got = on_device(scores, scale, batch, n, options, this->exec());
                SCOPED_TRACE(testing::Message() << "n = " << n << ", smoothing " << smoothing << ", " << denominator);
                expect_near(got, expected(scores, scale, batch, n, options), static_cast<double>(scale));
                expect_near(got, on_host(scores, scale, batch, n, options), static_cast<double>(scale));
            }
}

TYPED_TEST(ContrastOnDevice, HoldsAtAnyScale) {
    using T = TypeParam;
    const int64_t n = 40;
    const auto scores = random_weights<T>(n * n, 3);
    for (const T scale : {T(0), T(1e-3), T(300), T(-1e4)}) {
        const auto got = on_device(scores, scale, 1, n, {}, this->exec());
        SCOPED_TRACE(testing::Message() << scale);
        expect_near(got, expected(scores, scale, 1, n, {}), static_cast<double>(scale));
    }
}

TYPED_TEST(ContrastOnDevice, ABatchIsItsProblemsOneByOne) {
    using T = TypeParam;
    const int64_t batch = 3, n = 35;
    const auto scores = random_weights<T>(batch * n * n, 4);
    Options options, shifted;
    options.smoothing = shifted.smoothing = 0.1;
    shifted.shift = 1;
    const auto all = on_device(scores, T(9), batch, n, options, this->exec());
    const auto again = on_device(scores, T(9), batch, n, shifted, this->exec());
    EXPECT_TRUE(same_bits(all.loss, again.loss) && same_bits(all.grad_scores, again.grad_scores));
    EXPECT_TRUE(same_bits(all.grad_scale, again.grad_scale));
    for (int64_t b = 0; b < batch; b++) {
        const std::vector<T> one(scores.begin() + b * n * n, scores.begin() + (b + 1) * n * n);
        const auto got = on_device(one, T(9), 1, n, options, this->exec());
        EXPECT_EQ(got.loss[0], all.loss[static_cast<size_t>(b)]);
        for (size_t q = 0; q < static_cast<size_t>(n); q++) {
            EXPECT_EQ(got.rows[q], all.rows[static_cast<size_t>(b * n) + q]);
            EXPECT_EQ(got.columns[q], all.columns[static_cast<size_t>(b * n) + q]);
        }
    }
}

TYPED_TEST(ContrastOnDevice, WhatIsNotFiniteStaysInItsProblem) {
    using T = TypeParam;
    const int64_t n = 38;
    for (const auto denominator : {MOVER_DENOMINATOR_ALL, MOVER_DENOMINATOR_NEGATIVES}) {
        Options options;
        options.denominator = denominator;
        const auto scores = random_weights<T>(3 * n * n, 6);
        const auto good = on_device(scores, T(2), 3, n, options, this->exec());
        for (const int64_t j : {3, 37}) /* 37: the diagonal */
            for (const T bad : {not_a_number<T>(), infinity<T>(), -infinity<T>()}) {
                auto spoilt = scores;
                spoilt[static_cast<size_t>(n * n + 37 * n + j)] = bad;
                const auto got = on_device(spoilt, T(2), 3, n, options, this->exec());
                EXPECT_TRUE(std::isnan(got.loss[1])) << got.loss[1];
                EXPECT_TRUE(j == 37 || std::isnan(got.grad_scores[static_cast<size_t>(n * n + 37 * n + 3)]));
                for (const size_t b : {0, 2}) {
                    EXPECT_EQ(got.loss[b], good.loss[b]);
                    const size_t first = b * static_cast<size_t>(n * n);
                    EXPECT_EQ(std::memcmp(&got.grad_scores[first], &good.grad_scores[first],
                                          static_cast<size_t>(n * n) * sizeof(T)),
                              0);
                }
            }
    }
}

TYPED_TEST(ContrastOnDevice, ScaleAndItsGradientMayBeMissing) {
    using T = TypeParam;
    const int64_t n = 20;
    const mover_contrast_desc desc = {dtype_of<T>(), 1, n, 0, MOVER_DENOMINATOR_ALL};
    const auto scores = random_weights<T>(n * n, 7);
    const auto want = on_device(scores, T(1), 1, n, {}, this->exec());
    size_t bytes = 0;
    EXPECT_OK(mover_contrast_forward_workspace_size(&desc, &bytes, this->exec()));
    DeviceArray<unsigned char> workspace(bytes);
    DeviceArray<T> in(scores), loss(1), rows(n), columns(n), upstream(std::vector<T>{1}), grad(n * n);
    EXPECT_OK(mover_contrast_forward(&desc, in.data(), nullptr, loss.data(), rows.data(), columns.data(),
                                     workspace.data(), bytes, this->exec()));
    EXPECT_OK(mover_contrast_backward(&desc, in.data(), nullptr, rows.data(), columns.data(), upstream.data(),
                                      grad.data(), nullptr, workspace.data(), bytes, this->exec()));
    EXPECT_TRUE(same_bits(loss.fetch(), want.loss) && same_bits(grad.fetch(), want.grad_scores));
    const mover_contrast_desc none = {dtype_of<T>(), 0, 0, 0, MOVER_DENOMINATOR_ALL};
    EXPECT_OK(mover_contrast_forward_workspace_size(&none, &bytes, this->exec()));
    EXPECT_OK(mover_contrast_forward(&none, nullptr, nullptr, nullptr, nullptr, nullptr, workspace.data(), bytes,
                                     this->exec()));
    DeviceArray<T> grad_scale(1);
    EXPECT_OK(mover_contrast_backward(&none, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr, grad_scale.data(),
                                      workspace.data(), bytes, this->exec()));
    EXPECT_EQ(grad_scale.fetch()[0], 0);
}

} // namespace
