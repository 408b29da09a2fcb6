/*
 * test_scores.cpp: volumes and spans of every anchor with every group, on the device: against the CPU backend, and
 * against determinants in quadruple precision.
 */
#include "../../kernels/cuda/score_plan.h"
#include "../kernels/reference.h"
#include "score_calls.h"

#include <array>

using namespace fixtures;

namespace {

/* Volumes and spans of the members present, NaN where there are none. */
template <class T> std::vector<double> expected(const Groups<T> &in) {
    std::vector<double> out;
    const int64_t d = in.d, members = in.k - 1;
    for (int64_t i = 0; i < in.n; i++)
        for (int64_t j = 0; j < in.m; j++) {
            std::vector<const T *> rows;
            for (int64_t r = 0; r < members; r++)
                if (in.options.mask.empty() || in.options.mask[static_cast<size_t>(j * members + r)])
                    rows.push_back(in.others.data() + (j * members + r) * d);
            const int64_t present = static_cast<int64_t>(rows.size());
            if (present == 0) {
                out.push_back(not_a_number<double>());
                continue;
            }
            const double below = reference::volume_of_alphas(reference::alphas(rows, d), present);
            rows.push_back(in.anchor.data() + i * d);
            const double volume = reference::volume_of_alphas(reference::alphas(rows, d), present + 1);
            out.push_back(in.options.score == MOVER_SCORE_SPAN ? volume / below : volume);
        }
    return out;
}

/* Largest difference where both are numbers; NaN must stand in the same places. */
template <class T, class U> double difference(const std::vector<T> &scores, const std::vector<U> &exact) {
    EXPECT_EQ(scores.size(), exact.size());
    double out = 0;
    for (size_t q = 0; q < exact.size(); q++) {
        EXPECT_EQ(std::isnan(scores[q]), std::isnan(exact[q])) << q;
        if (!std::isnan(exact[q]))
            out = std::max(out, std::fabs(static_cast<double>(scores[q]) - static_cast<double>(exact[q])));
    }
    return out;
}

template <class T> void expect_gradients(const ScoreGradients<T> &got, const ScoreGradients<T> &want) {
    const double allowed = tolerance<T>(2e-5, 1e-11);
    EXPECT_LE(distance(got.anchor, want.anchor), allowed * largest(want.anchor));
    EXPECT_LE(distance(got.others, want.others), allowed * largest(want.others));
}

template <class T> class ScoresOnDevice : public OnDevice {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(ScoresOnDevice, Types);

/* All numbers of members, with and without masks, both scores; alphas wanted or not. */
TYPED_TEST(ScoresOnDevice, AreVolumesAndSpansOfTheMembersPresent) {
    using T = TypeParam;
    for (int64_t k = 2; k <= 8; k++)
        for (const mover_score score : {MOVER_SCORE_VOLUME, MOVER_SCORE_SPAN})
            for (const bool masked : {false, true}) {
                auto in = random_groups<T>(9, masked ? 37 : 5, k, 19, static_cast<unsigned>(k));
                in.options.score = score;
                if (masked) in.options.mask = every_mask(in.m, k - 1);
                const auto got = scores_on_device(in, this->exec());
                SCOPED_TRACE(testing::Message() << "k = " << k << ", score " << score << ", masked " << masked);
                EXPECT_LE(difference(got.scores, expected(in)), tolerance<T>(1e-5, 1e-13));
                EXPECT_LE(difference(got.scores, scores_on_host(in)), tolerance<T>(1e-5, 1e-13));
                EXPECT_TRUE(same_bits(got.scores, scores_on_device(in, this->exec(), false).scores));
            }
}

TYPED_TEST(ScoresOnDevice, BackwardIsThatOfTheHost) {
    using T = TypeParam;
    for (int64_t k = 2; k <= 8; k++)
        for (const mover_score score : {MOVER_SCORE_VOLUME, MOVER_SCORE_SPAN})
            for (const bool masked : {false, true}) {
                auto in = random_groups<T>(19, masked ? 35 : 7, k, 17, static_cast<unsigned>(k + 10));
                in.options.score = score;
                if (masked) in.options.mask = every_mask(in.m, k - 1);
                const auto upstream = random_values<T>(in.n * in.m, 3);
                const auto got = gradients_on_device(in, upstream, this->exec());
                SCOPED_TRACE(testing::Message() << "k = " << k << ", score " << score << ", masked " << masked);
                expect_gradients(got, gradients_on_host(in, upstream));
            }
}

TYPED_TEST(ScoresOnDevice, BackwardIsTheGradient) {
    using T = TypeParam;
    for (const int64_t k : {2, 3, 4, 8})
        for (const mover_score score : {MOVER_SCORE_VOLUME, MOVER_SCORE_SPAN}) {
            auto in = random_groups<T>(2, 3, k, 9, static_cast<unsigned>(k + 20));
            in.options.score = score;
            const auto upstream = random_values<T>(in.n * in.m, 13);
            const auto grads = gradients_on_device(in, upstream, this->exec());
            const auto loss = [&](const std::vector<double> &anchor, const std::vector<double> &others) {
                Groups<double> at = {in.n, in.m, k, in.d, anchor, others, in.options};
                const auto scores = expected(at);
                double sum = 0;
                for (size_t q = 0; q < scores.size(); q++) sum += scores[q] * static_cast<double>(upstream[q]);
                return sum;
            };
            const std::vector<double> x(in.anchor.begin(), in.anchor.end()), y(in.others.begin(), in.others.end());
            const auto of_anchor =
                central_differences(x, 1e-6, [&](const std::vector<double> &a) { return loss(a, y); });
            const auto of_others =
                central_differences(y, 1e-6, [&](const std::vector<double> &o) { return loss(x, o); });
            const double allowed = tolerance<T>(5e-5, 1e-7);
            EXPECT_LE(distance(grads.anchor, of_anchor), allowed * largest(of_anchor)) << k << " " << score;
            EXPECT_LE(distance(grads.others, of_others), allowed * largest(of_others)) << k << " " << score;
        }
}

/* Chunks of 16 anchors and blocks of 128 groups, one more and one less; one output alone; a second call. */
TYPED_TEST(ScoresOnDevice, BlocksMeetAtTheirEdges) {
    using T = TypeParam;
    for (const auto &size : {std::pair<int64_t, int64_t>(17, 127), {16, 129}, {33, 1}, {1, 65}}) {
        auto in = random_groups<T>(size.first, size.second, 3, 12, 31);
        const auto upstream = random_values<T>(in.n * in.m, 32);
        const auto got = scores_on_device(in, this->exec(), true, true);
        EXPECT_LE(difference(got.scores, scores_on_host(in)), tolerance<T>(1e-5, 1e-13));
        const auto grads = gradients_on_device(in, upstream, this->exec());
        expect_gradients(grads, gradients_on_host(in, upstream));
        EXPECT_TRUE(same_bits(gradients_on_device(in, upstream, this->exec(), 1).anchor, grads.anchor));
        EXPECT_TRUE(same_bits(gradients_on_device(in, upstream, this->exec(), 2).others, grads.others));
    }
}

/* More anchors, and more groups, than a tile holds; more groups than a panel. */
TYPED_TEST(ScoresOnDevice, TilesMeetAtTheirEdges) {
    using T = TypeParam;
    for (const auto &size : {std::array<int64_t, 3>{4100, 1, 3}, {2, 1200, 8}}) {
        const int64_t n = size[0], m = size[1], k = size[2];
        const score_plan plan = score_plan_of(n, m, k - 1);
        ASSERT_GT(plan.strips * plan.across, 1);
        ASSERT_TRUE(n > m || score_panel_of(n, m, k - 1) < m);
        auto in = random_groups<T>(n, m, k, 16, 41);
        in.options.score = MOVER_SCORE_SPAN;
        const auto upstream = random_values<T>(n * m, 42);
        EXPECT_LE(difference(scores_on_device(in, this->exec(), false).scores, scores_on_host(in)),
                  tolerance<T>(2e-5, 1e-12));
        expect_gradients(gradients_on_device(in, upstream, this->exec()), gradients_on_host(in, upstream));
    }
}

TYPED_TEST(ScoresOnDevice, DependentRowsHaveNoVolumeAndNoGradient) {
    using T = TypeParam;
    const int64_t d = 64;
    const auto x = random_rows<T>(9, d, 51);
    const std::vector<std::vector<int>> groups = {{1, 1},
                                                  {1, -1},
                                                  {1, 2, 1},
                                                  {1, 2, 2},
                                                  {1, 2, -1},
                                                  {1, 2, -2},
                                                  {1, 1, 1},
                                                  {1, 2, 3, 1},
                                                  {1, 2, 3, 3},
                                                  {1, 2, 3, -2},
                                                  {1, 2, 3, 4, 5, 6, 7, 3}};
    for (const auto &signs : groups) {
        Groups<T> in = {1, 1, static_cast<int64_t>(signs.size()), d, {}, {}, {}};
        for (const int r : signs)
            for (int64_t t = 0; t < d; t++)
                (in.anchor.size() < static_cast<size_t>(d) ? in.anchor : in.others)
                    .push_back(x[static_cast<size_t>(std::abs(r) * d + t)] * (r < 0 ? T(-1) : T(1)));
        EXPECT_EQ(scores_on_device(in, this->exec()).scores[0], 0) << testing::PrintToString(signs);
        const auto grads = gradients_on_device<T>(in, {1}, this->exec());
        EXPECT_EQ(largest(grads.anchor), 0) << testing::PrintToString(signs);
        EXPECT_EQ(largest(grads.others), 0) << testing::PrintToString(signs);
    }
}

/* Rows at angles of about 1/S: the volume from the alphas keeps its digits. */
TYPED_TEST(ScoresOnDevice, NearlyParallelRowsKeepTheirDigits) {
    using T = TypeParam;
    const int64_t d = 64;
    for (const int64_t k : {2, 3, 4, 8})
        for (const double S : {16.0, 1024.0}) {
            std::vector<double> rows;
            for (int64_t m = 0; m < k; m++)
                for (int64_t i = 0; i < d; i++) {
                    const auto x = [i](int64_t r) {
                        return static_cast<double>((i * (2 * r + 3) + 7 * r + i * i * (r + 1)) % 17 - 8);
                    };
                    rows.push_back(x(0) * S + (m == 0 ? 0 : x(m)));
                }
            normalise(rows, d);
            const Groups<T> in = {1,
                                  1,
                                  k,
                                  d,
                                  std::vector<T>(rows.begin(), rows.begin() + d),
                                  std::vector<T>(rows.begin() + d, rows.end()),
                                  {}};
            const double score = static_cast<double>(scores_on_device(in, this->exec()).scores[0]);
            EXPECT_NEAR(score / expected(in)[0], 1, tolerance<T>(2e-5, 1e-9)) << "k = " << k << ", S = " << S;
        }
}

TYPED_TEST(ScoresOnDevice, WhatIsNotFiniteStaysInItsRowAndColumn) {
    using T = TypeParam;
    for (const T bad : {not_a_number<T>(), infinity<T>()})
        for (const int64_t k : {2, 3, 6}) {
            auto in = random_groups<T>(19, 21, k, 10, 61);
            const auto good = scores_on_device(in, this->exec()).scores;
            in.anchor[5 * 10 + 3] = bad;
            in.others[static_cast<size_t>((18 * (k - 1) + k - 2) * 10)] = bad;
            auto scores = scores_on_device(in, this->exec()).scores;
            for (int64_t i = 0; i < in.n; i++)
                for (int64_t j = 0; j < in.m; j++) {
                    const size_t q = static_cast<size_t>(i * in.m + j);
                    if (i != 5 && j != 18) continue;
                    EXPECT_TRUE(std::isnan(scores[q])) << i << " " << j << " " << scores[q];
                    scores[q] = good[q];
                }
            EXPECT_TRUE(same_bits(scores, good)) << "k = " << k;
        }
}

/* What stands in missing rows changes no bit and gets gradient 0, also where it is not finite; so does a gradient that
 * arrives for a group without members. */
TYPED_TEST(ScoresOnDevice, MissingRowsAreNotRead) {
    using T = TypeParam;
    for (const int64_t k : {2, 3, 5})
        for (const mover_score score : {MOVER_SCORE_VOLUME, MOVER_SCORE_SPAN}) {
            auto in = random_groups<T>(5, 20, k, 8, 71);
            in.options.score = score;
            in.options.mask = every_mask(in.m, k - 1);
            auto upstream = random_values<T>(in.n * in.m, 72);
            const auto scores = scores_on_device(in, this->exec()).scores;
            const auto grads = gradients_on_device(in, upstream, this->exec());
            for (size_t q = 0; q < in.others.size(); q++)
                if (!in.options.mask[q / 8]) {
                    in.others[q] = q % 2 ? not_a_number<T>() : infinity<T>();
                    EXPECT_EQ(grads.others[q], 0);
                }
            EXPECT_TRUE(same_bits(scores, scores_on_device(in, this->exec()).scores));
            for (size_t q = 0; q < scores.size(); q++)
                if (std::isnan(scores[q])) upstream[q] = not_a_number<T>();
            const auto again = gradients_on_device(in, upstream, this->exec());
            EXPECT_TRUE(same_bits(grads.anchor, again.anchor) && same_bits(grads.others, again.others));
        }
}

TYPED_TEST(ScoresOnDevice, AddressesNeedNoAlignment) {
    using T = TypeParam;
    auto in = random_groups<T>(7, 9, 3, 16, 81);
    in.options.mask.assign(18, 1);
    const auto upstream = random_values<T>(63, 82);
    const auto want = gradients_on_device(in, upstream, this->exec());
    in.shift = 1;
    EXPECT_LE(difference(scores_on_device(in, this->exec()).scores, scores_on_host(in)), tolerance<T>(1e-5, 1e-13));
    expect_gradients(gradients_on_device(in, upstream, this->exec()), want);
}

TYPED_TEST(ScoresOnDevice, EmptyShapes) {
    using T = TypeParam;
    const auto rows = random_rows<T>(6, 4, 91);
    EXPECT_TRUE(scores_on_device<T>({0, 3, 3, 4, {}, rows, {}}, this->exec()).scores.empty());
    EXPECT_TRUE(scores_on_device<T>({6, 0, 3, 4, rows, {}, {}}, this->exec()).scores.empty());
    EXPECT_EQ(scores_on_device<T>({2, 3, 3, 0, {}, {}, {}}, this->exec()).scores, std::vector<T>(6, 0));
    EXPECT_EQ(gradients_on_device<T>({0, 3, 3, 4, {}, rows, {}}, {}, this->exec()).others, std::vector<T>(24, 0));
    EXPECT_EQ(gradients_on_device<T>({6, 0, 3, 4, rows, {}, {}}, {}, this->exec()).anchor, std::vector<T>(24, 0));
}

TEST_F(OnDevice, ScoresInTF32AreNearThoseInFloat) {
    auto in = random_groups<float>(20, 30, 3, 40, 95);
    const auto upstream = random_values<float>(in.n * in.m, 96);
    in.precision = MOVER_PRECISION_TF32;
    EXPECT_LE(difference(scores_on_device(in, exec()).scores, scores_on_host(in)), 5e-3);
    const auto got = gradients_on_device(in, upstream, exec()), want = gradients_on_host(in, upstream);
    EXPECT_LE(distance(got.anchor, want.anchor), 2e-2 * largest(want.anchor));
    EXPECT_LE(distance(got.others, want.others), 2e-2 * largest(want.others));
}

/* ---- the division into tiles, for sizes that no test can hold ---- */

TEST(ScorePlan, CoversAllPairsWithTilesInBounds) {
    const int64_t sizes[] = {1, 2, 63, 64, 65, 1000, 1024, 1025, 4096, 8192, 8193, 10000, 65536, 1000000, 50000000};
    for (const int64_t n : sizes)
        for (const int64_t m : sizes)
            for (int64_t width = 1; width <= 7; width++) {
                const score_plan plan = score_plan_of(n, m, width);
                SCOPED_TRACE(testing::Message() << n << " x " << m << " x " << width);
                ASSERT_TRUE(plan.rows >= 1 && plan.rows <= n && plan.groups >= 1 && plan.groups <= m);
                ASSERT_LE(plan.rows * plan.groups * width, SCORE_ELEMENTS);
                ASSERT_TRUE(plan.rows <= SCORE_MOST_ROWS && plan.groups * width <= SCORE_COLUMNS);
                ASSERT_TRUE((plan.strips - 1) * plan.rows < n && n <= plan.strips * plan.rows);
                ASSERT_TRUE((plan.across - 1) * plan.groups < m && m <= plan.across * plan.groups);
                ASSERT_TRUE(plan.strips == 1 || (plan.rows % SCORE_STEP == 0 && plan.rows % score_chunk_of(n) == 0));
                ASSERT_TRUE(plan.across == 1 || plan.groups % SCORE_STEP == 0);
                /* tiles are large where there is enough to do */
                const bool enough = n >= 1024 && m >= 1024;
                ASSERT_TRUE(!enough || plan.rows * plan.groups * width >= SCORE_ELEMENTS / 8);
                const int64_t panel = score_panel_of(n, m, width);
                ASSERT_TRUE(panel >= 1 && panel <= m && panel * width <= SCORE_COLUMNS);
                ASSERT_TRUE(n * panel * width <= std::max<int64_t>(PANEL_ELEMENTS, PANEL_LEAST * n));
            }
    const score_plan none = score_plan_of(0, 0, 2);
    EXPECT_TRUE(none.strips == 0 && none.across == 0 && none.rows == 1 && none.groups == 1);
}

/* Workspaces grow with n + m beyond a tile. */
TEST(ScorePlan, BoundsTheWorkspace) {
    mover_exec exec = {};
    exec.backend = MOVER_CUDA;
    for (const int64_t n : {100000, 1000000}) {
        const auto desc = random_groups<float>(0, 0, 3, 512, 1).desc(10);
        auto large = desc;
        large.n = large.m = n;
        size_t bytes = 0;
        EXPECT_OK(mover_volume_topk_workspace_size(&large, &bytes, &exec));
        EXPECT_LE(bytes, (size_t(SCORE_KEPT) + 3) * SCORE_ELEMENTS * 4 + static_cast<size_t>(n) * 100);
    }
}

} // namespace
