/*
 * test_scores.cpp: the volume of every anchor with every group of others.
 */
#include "reference.h"
#include "score_calls.h"

using namespace fixtures;

namespace {

template <class T> class Scores : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(Scores, Types);

TYPED_TEST(Scores, IsTheVolumeOfAnchorAndOthers) {
    using T = TypeParam;
    const int64_t sizes[][3] = {{1, 1, 16}, {3, 31, 17}, {17, 16, 32}, {35, 2, 130}};
    for (int64_t k = 2; k <= 8; k++)
        for (const auto &size : sizes) {
            const int64_t n = size[0], m = size[1], d = size[2];
            const auto anchor = random_rows<T>(n, d, static_cast<unsigned>(k)),
                       others = random_rows<T>(m * (k - 1), d, 99);
            const auto scores = scores_of(anchor, others, n, m, k, d);
            const auto expected = reference::volume_scores(anchor.data(), others.data(), n, m, k, d);
            EXPECT_LE(distance(scores, expected), tolerance<T>(4e-6, 1e-14)) << "k = " << k;
        }
}

TYPED_TEST(Scores, TilesMeetAtTheirEdges) {
    using T = TypeParam;
    const int64_t n = 65, d = 12;
    for (int64_t k : {2, 3, 4})
        for (int64_t m : {127, 129, 513}) {
            const auto anchor = random_rows<T>(n, d, 1), others = random_rows<T>(m * (k - 1), d, 2);
            const auto expected = reference::volume_scores(anchor.data(), others.data(), n, m, k, d);
            EXPECT_LE(distance(scores_of(anchor, others, n, m, k, d), expected), tolerance<T>(4e-6, 1e-14));
        }
}

TYPED_TEST(Scores, BackwardIsTheGradient) {
    using T = TypeParam;
    const int64_t n = 2, m = 3, d = 9;
    for (int64_t k = 2; k <= 8; k++) {
        const auto anchor = random_rows<T>(n, d, 11), others = random_rows<T>(m * (k - 1), d, 12),
                   upstream = random_values<T>(n * m, 13);
        const auto grads = gradients_of(anchor, others, upstream, n, m, k, d);
        const std::vector<double> x(anchor.begin(), anchor.end()), y(others.begin(), others.end());
        const auto loss = [&](const std::vector<double> &a, const std::vector<double> &o) {
            const auto scores = reference::volume_scores(a.data(), o.data(), n, m, k, d);
            double sum = 0;
            for (size_t q = 0; q < scores.size(); q++) sum += scores[q] * static_cast<double>(upstream[q]);
            return sum;
        };
        const auto of_anchor = central_differences(x, 1e-6, [&](const std::vector<double> &a) { return loss(a, y); });
        const auto of_others = central_differences(y, 1e-6, [&](const std::vector<double> &o) { return loss(x, o); });
        const double allowed = tolerance<T>(3e-5, 1e-7);
        EXPECT_LE(distance(grads.anchor, of_anchor), allowed * largest(of_anchor)) << "k = " << k;
        EXPECT_LE(distance(grads.others, of_others), allowed * largest(of_others)) << "k = " << k;
    }
}

TYPED_TEST(Scores, GradientsSumOverManyPairs) {
    using T = TypeParam;
    const int64_t n = 3, m = 300, d = 20; /* more than one block of columns; for k = 8 more than a panel */
    for (int64_t k : {2, 3, 5, 8}) {
        const auto anchor = random_rows<T>(n, d, 21), others = random_rows<T>(m * (k - 1), d, 22),
                   upstream = random_values<T>(n * m, 23);
        const auto all = gradients_of(anchor, others, upstream, n, m, k, d);
        std::vector<double> of_anchor(anchor.size()), of_others(others.size());
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = 0; j < m; j++) {
                const std::vector<T> x(anchor.begin() + i * d, anchor.begin() + (i + 1) * d);
                const std::vector<T> y(others.begin() + j * (k - 1) * d, others.begin() + (j + 1) * (k - 1) * d);
                const auto one = gradients_of<T>(x, y, {upstream[static_cast<size_t>(i * m + j)]}, 1, 1, k, d);
                for (int64_t t = 0; t < d; t++)
                    of_anchor[static_cast<size_t>(i * d + t)] +=
                        static_cast<double>(one.anchor[static_cast<size_t>(t)]);
                for (int64_t t = 0; t < (k - 1) * d; t++)
                    of_others[static_cast<size_t>(j * (k - 1) * d + t)] +=
                        static_cast<double>(one.others[static_cast<size_t>(t)]);
            }
        const double allowed = tolerance<T>(1e-5, 1e-13);
        EXPECT_LE(distance(all.anchor, of_anchor), allowed * largest(of_anchor)) << "k = " << k;
        EXPECT_LE(distance(all.others, of_others), allowed * largest(of_others)) << "k = " << k;
        const auto first = gradients_of(anchor, others, upstream, n, m, k, d, {}, 1);
        const auto second = gradients_of(anchor, others, upstream, n, m, k, d, {}, 2);
        EXPECT_TRUE(same_bits(first.anchor, all.anchor));
        EXPECT_TRUE(same_bits(second.others, all.others));
    }
}

/* Rows at angles of about 1/S: the volume from the alphas keeps its digits. */
TYPED_TEST(Scores, NearlyParallelRowsKeepTheirDigits) {
    using T = TypeParam;
    const int64_t d = 512;
    for (int64_t k : {2, 3, 4, 8})
        for (double S : {16.0, 1024.0}) {
            std::vector<double> rows;
            for (int64_t m = 0; m < k; m++)
                for (int64_t i = 0; i < d; i++) {
                    const auto x = [i](int64_t r) {
                        return static_cast<double>((i * (2 * r + 3) + 7 * r + i * i * (r + 1)) % 17 - 8);
                    };
                    rows.push_back(x(0) * S + (m == 0 ? 0 : x(m)));
                }
            normalise(rows, d);
            const std::vector<T> anchor(rows.begin(), rows.begin() + d), others(rows.begin() + d, rows.end());
            const double expected = reference::volume_scores(anchor.data(), others.data(), 1, 1, k, d)[0];
            const double score = static_cast<double>(scores_of(anchor, others, 1, 1, k, d)[0]);
            EXPECT_NEAR(score / expected, 1, tolerance<T>(2e-5, 1e-9)) << "k = " << k << ", S = " << S;
            const auto grads = gradients_of<T>(anchor, others, {1}, 1, 1, k, d);
            EXPECT_TRUE(all_finite(grads.anchor) && all_finite(grads.others));
        }
}

TYPED_TEST(Scores, DependentRowsHaveNoVolumeAndNoGradient) {
    using T = TypeParam;
    for (int64_t d : {16, 512}) {
        const auto x = random_rows<T>(9, d, 31);
        const auto group =
            [&](std::vector<int> signs) { /* +r: row r, -r: its opposite */
                                          std::vector<T> v;
                                          for (int r : signs)
                                              for (int64_t t = 0; t < d; t++)
                                                  v.push_back(x[static_cast<size_t>(std::abs(r) * d + t)] *
                                                              (r < 0 ? T(-1) : T(1)));
                                          return v;
            };
        const std::vector<std::vector<int>> groups = {
            {1, 1},       {1, -1},      {1, 1, 2},     {1, 2, 1},     {1, 2, 2},
            {1, -1, 2},   {1, 2, -1},   {1, 2, -2},    {1, 1, 1},     {1, 2, 3, 1},
            {1, 2, 3, 3}, {1, 1, 1, 1}, {1, 2, 3, -2}, {1, 2, -1, 4}, {1, 2, 3, 4, 5, 6, 7, 3}};
        for (const auto &signs : groups) {
            const auto rows = group(signs);
            const int64_t k = static_cast<int64_t>(signs.size());
            const std::vector<T> anchor(rows.begin(), rows.begin() + d), others(rows.begin() + d, rows.end());
            EXPECT_EQ(scores_of(anchor, others, 1, 1, k, d)[0], 0) << testing::PrintToString(signs);
            const auto grads = gradients_of<T>(anchor, others, {1}, 1, 1, k, d);
            EXPECT_EQ(largest(grads.anchor), 0) << testing::PrintToString(signs);
            EXPECT_EQ(largest(grads.others), 0) << testing::PrintToString(signs);
        }
    }
}

TYPED_TEST(Scores, KnownValues) {
    using T = TypeParam;
    EXPECT_NEAR(static_cast<double>(scores_of<T>({1, 0}, {T(0.6), T(0.8)}, 1, 1, 2, 2)[0]), 0.8, 1e-7);
    for (int64_t k = 2; k <= 8; k++) {
        std::vector<T> basis(static_cast<size_t>(k * k), 0);
        for (int64_t r = 0; r < k; r++) basis[static_cast<size_t>(r * k + r)] = 1;
        const std::vector<T> anchor(basis.begin(), basis.begin() + k), others(basis.begin() + k, basis.end());
        EXPECT_NEAR(static_cast<double>(scores_of(anchor, others, 1, 1, k, k)[0]), 1, 1e-6);
    }
}

TYPED_TEST(Scores, WhatIsNotFiniteStaysInItsRowAndColumn) {
    using T = TypeParam;
    const int64_t n = 33, m = 37, d = 24;
    for (const T bad : {not_a_number<T>(), infinity<T>()})
        for (int64_t k : {2, 3, 4, 6}) {
            const auto anchor = random_rows<T>(n, d, 41), others = random_rows<T>(m * (k - 1), d, 42);
            const auto good = scores_of(anchor, others, n, m, k, d);
            auto bad_anchor = anchor, bad_others = others;
            bad_anchor[5 * d + 3] = bad;
            bad_others[static_cast<size_t>((18 * (k - 1) + k - 2) * d)] = bad;
            auto scores = scores_of(bad_anchor, bad_others, n, m, k, d);
            for (int64_t i = 0; i < n; i++)
                for (int64_t j = 0; j < m; j++) {
                    const size_t q = static_cast<size_t>(i * m + j);
                    if (i != 5 && j != 18) continue;
                    EXPECT_TRUE(std::isnan(scores[q])) << i << " " << j << " " << scores[q];
                    scores[q] = good[q];
                }
            EXPECT_TRUE(same_bits(scores, good)) << "k = " << k;
        }
}

TYPED_TEST(Scores, ThreadsChangeNothing) {
    using T = TypeParam;
    const int64_t n = 129, m = 257, d = 33;
    const mover_exec exec = three_threads();
    ScoreOptions threads;
    threads.exec = &exec;
    for (int64_t k : {2, 3, 4}) {
        const auto anchor = random_rows<T>(n, d, 51), others = random_rows<T>(m * (k - 1), d, 52),
                   upstream = random_values<T>(n * m, 53);
        EXPECT_TRUE(same_bits(scores_of(anchor, others, n, m, k, d), scores_of(anchor, others, n, m, k, d, threads)));
        const auto serial = gradients_of(anchor, others, upstream, n, m, k, d);
        const auto threaded = gradients_of(anchor, others, upstream, n, m, k, d, threads);
        EXPECT_TRUE(same_bits(serial.anchor, threaded.anchor));
        EXPECT_TRUE(same_bits(serial.others, threaded.others));
    }
}

TYPED_TEST(Scores, EmptyShapes) {
    using T = TypeParam;
    const auto rows = random_rows<T>(6, 4, 61);
    EXPECT_TRUE(scores_of<T>({}, rows, 0, 3, 3, 4).empty());
    EXPECT_TRUE(scores_of<T>(rows, {}, 6, 0, 3, 4).empty());
    EXPECT_EQ(scores_of<T>({}, {}, 2, 3, 3, 0), std::vector<T>(6, 0));
    EXPECT_EQ(gradients_of<T>({}, rows, {}, 0, 3, 3, 4).others, std::vector<T>(24, 0));
    EXPECT_EQ(gradients_of<T>(rows, {}, {}, 6, 0, 3, 4).anchor, std::vector<T>(24, 0));
}

/* More anchors than a strip holds. All others are close to the first anchor, and so are none, some or all of the
 * anchors: each path by which distances are made. */
TYPED_TEST(Scores, StripsMeetAtTheirEdges) {
    using T = TypeParam;
    const int64_t n = 1030, d = 6;
    for (const int64_t k : {2, 3, 4})
        for (const int64_t m : {3, 40})
            for (const int64_t close : {int64_t(0), int64_t(20), n}) {
                auto anchor = random_rows<double>(n, d, 71), others = random_rows<double>(m * (k - 1), d, 72);
                const auto first = random_rows<double>(1, d, 73);
                for (size_t q = 0; q < others.size(); q++) others[q] = first[q % 6] + 0.1 * others[q];
                for (size_t q = 0; q < static_cast<size_t>(close * d); q++) anchor[q] = first[q % 6] + 0.1 * anchor[q];
                normalise(anchor, d);
                normalise(others, d);
                const std::vector<T> x(anchor.begin(), anchor.end()), y(others.begin(), others.end());
                const auto expected = reference::volume_scores(x.data(), y.data(), n, m, k, d);
                const auto got = scores_and_alphas(x, y, n, m, k, d);
                EXPECT_LE(distance(got.scores, expected), tolerance<T>(2e-5, 1e-12)) << k << " " << m << " " << close;
                EXPECT_TRUE(same_bits(got.scores, scores_of(x, y, n, m, k, d)));
                const auto alphas = reference::anchor_alphas(x.data(), y.data(), n, m * (k - 1), d);
                for (size_t q = 0; q < alphas.size(); q++)
                    ASSERT_NEAR(static_cast<double>(got.alphas[q]), alphas[q], 1e-5 * alphas[q] + 1e-30) << q;
            }
}

TEST(ScoresErrors, NameTheFunctionAndTheArgument) {
    float x = 1;
    size_t bytes = 0;
    uint8_t mask = 1;
    mover_volume_scores_desc desc = {};
    desc.n = desc.m = desc.k = desc.d = 1;
    EXPECT_FAILS(mover_volume_scores_forward_workspace_size(&desc, &bytes, nullptr), MOVER_ERROR_ARGUMENT,
                 "k must be between 2 and 8 (the anchor counts), got 1");
    desc.k = 2;
    desc.score = MOVER_SCORE_COSINE;
    EXPECT_FAILS(mover_volume_scores_backward_workspace_size(&desc, &bytes, nullptr), MOVER_ERROR_ARGUMENT,
                 "score must be MOVER_SCORE_VOLUME or MOVER_SCORE_SPAN, got 2");
    desc.score = MOVER_SCORE_VOLUME;
    desc.precision = MOVER_PRECISION_TF32;
    EXPECT_FAILS(mover_volume_scores_forward_workspace_size(&desc, &bytes, nullptr), MOVER_ERROR_UNSUPPORTED, "tf32");
    desc.precision = MOVER_PRECISION_FLOAT32;
    EXPECT_OK(mover_volume_scores_forward_workspace_size(&desc, &bytes, nullptr));
    Workspace workspace(bytes);
    EXPECT_FAILS(mover_volume_scores_forward(&desc, &x, &x, &mask, &x, nullptr, workspace.data(), bytes, nullptr),
                 MOVER_ERROR_ARGUMENT, "mover_volume_scores_forward: a mask is given, so desc.masked must be 1");
    EXPECT_FAILS(mover_volume_scores_forward(&desc, &x, &x, nullptr, &x, nullptr, workspace.data(), bytes - 1, nullptr),
                 MOVER_ERROR_WORKSPACE, "workspace");
    desc.masked = 1;
    EXPECT_FAILS(mover_volume_scores_forward(&desc, &x, &x, nullptr, &x, nullptr, workspace.data(), bytes, nullptr),
                 MOVER_ERROR_ARGUMENT, "mask must not be NULL");
    desc.masked = 0;
    EXPECT_OK(mover_volume_scores_backward_workspace_size(&desc, &bytes, nullptr));
    Workspace enough(bytes);
    EXPECT_FAILS(
        mover_volume_scores_backward(&desc, &x, nullptr, nullptr, &x, &x, &x, &x, enough.data(), bytes, nullptr),
        MOVER_ERROR_ARGUMENT, "others must not be NULL");
    EXPECT_FAILS(
        mover_volume_scores_backward(&desc, &x, &x, nullptr, nullptr, &x, &x, &x, enough.data(), bytes, nullptr),
        MOVER_ERROR_ARGUMENT, "alphas must not be NULL");
    EXPECT_FAILS(
        mover_volume_scores_backward(&desc, &x, &x, nullptr, &x, &x, &x, &x, enough.data(), bytes - 1, nullptr),
        MOVER_ERROR_WORKSPACE, "workspace");
}

} // namespace
