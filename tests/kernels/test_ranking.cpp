/*
 * test_ranking.cpp: the best groups of every anchor, and the rank of one, against the matrix of scores.
 */
#include "score_calls.h"

#include <numeric>

using namespace fixtures;

namespace {

template <class T> struct Best {
    std::vector<T> values;
    std::vector<int64_t> indices;
};

template <class T>
Best<T> topk_of(const std::vector<T> &anchor, const std::vector<T> &others, int64_t n, int64_t m, int64_t k, int64_t d,
                int64_t topk, const ScoreOptions &options = {}) {
    auto desc = scores_desc<T>(n, m, k, d, options);
    desc.topk = topk;
    size_t bytes = 0;
    EXPECT_OK(mover_volume_topk_workspace_size(&desc, &bytes, nullptr));
    Workspace workspace(bytes);
    Best<T> out;
    out.values.assign(static_cast<size_t>(n * topk), not_a_number<T>());
    out.indices.assign(static_cast<size_t>(n * topk), -1);
    EXPECT_OK(mover_volume_topk(&desc, anchor.data(), others.data(), options.mask_data(), out.values.data(),
                                out.indices.data(), workspace.data(), bytes, options.exec));
    return out;
}

struct Ranks {
    std::vector<int64_t> better, tied;
};

template <class T>
Ranks ranks_of(const std::vector<T> &anchor, const std::vector<T> &others, const std::vector<int64_t> &target,
               int64_t n, int64_t m, int64_t k, int64_t d, const ScoreOptions &options = {}) {
    const auto desc = scores_desc<T>(n, m, k, d, options);
    size_t bytes = 0;
    EXPECT_OK(mover_volume_rank_workspace_size(&desc, &bytes, nullptr));
    Workspace workspace(bytes);
    Ranks out = {std::vector<int64_t>(static_cast<size_t>(n), -1), std::vector<int64_t>(static_cast<size_t>(n), -1)};
    EXPECT_OK(mover_volume_rank(&desc, anchor.data(), others.data(), target.data(), options.mask_data(),
                                out.better.data(), out.tied.data(), workspace.data(), bytes, options.exec));
    return out;
}

template <class T> class Ranking : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(Ranking, Types);

/* Equal groups, a group without members, a row of NaN; sizes beyond a strip and a step of the search. */
TYPED_TEST(Ranking, IsThatOfTheMatrix) {
    using T = TypeParam;
    const int64_t n = 515, m = 300, d = 6;
    for (int64_t k : {2, 3, 5})
        for (const mover_score score : {MOVER_SCORE_VOLUME, MOVER_SCORE_SPAN})
            for (const int64_t topk : {int64_t(1), int64_t(7), m}) {
                auto anchor = random_rows<T>(n, d, 1), others = random_rows<T>(m * (k - 1), d, 2);
                const int64_t size = (k - 1) * d;
                for (int64_t j = 20; j < m; j += 11)
                    std::copy_n(others.begin() + 4 * size, size, others.begin() + j * size);
                anchor[3 * d] = not_a_number<T>();
                ScoreOptions options;
                options.score = score;
                options.mask.assign(static_cast<size_t>(m * (k - 1)), 1);
                std::fill_n(options.mask.begin() + 9 * (k - 1), k - 1, uint8_t(0));
                const auto scores = scores_of(anchor, others, n, m, k, d, options);
                const auto best = topk_of(anchor, others, n, m, k, d, topk, options);
                std::vector<int64_t> target(static_cast<size_t>(n)), order(static_cast<size_t>(m));
                for (int64_t i = 0; i < n; i++) target[static_cast<size_t>(i)] = i * 7 % m;
                const auto ranks = ranks_of(anchor, others, target, n, m, k, d, options);
                for (int64_t i = 0; i < n; i++) {
                    const T *row = scores.data() + i * m;
                    std::iota(order.begin(), order.end(), 0);
                    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
                        return std::isnan(row[b]) ? !std::isnan(row[a]) : row[a] < row[b];
                    });
                    for (int64_t q = 0; q < topk; q++) {
                        const size_t at = static_cast<size_t>(i * topk + q);
                        ASSERT_EQ(best.indices[at], order[static_cast<size_t>(q)]) << i << " " << q;
                        ASSERT_EQ(std::memcmp(&best.values[at], row + best.indices[at], sizeof(T)), 0);
                    }
                    const T own = row[target[static_cast<size_t>(i)]];
                    const int64_t better = std::count_if(row, row + m, [own](T other) { return other < own; });
                    const int64_t tied = std::count(row, row + m, own) - 1;
                    ASSERT_EQ(ranks.better[static_cast<size_t>(i)], std::isnan(own) ? m - 1 : better) << i;
                    ASSERT_EQ(ranks.tied[static_cast<size_t>(i)], std::isnan(own) ? 0 : tied) << i;
                }
            }
}

TYPED_TEST(Ranking, CosineSumsTheMembersPresent) {
    using T = TypeParam;
    const std::vector<T> anchor = {1, 0}, others = {T(0.6), T(0.8), 0, 1, T(0.8), T(0.6), T(-0.8), T(0.6), 1, 0, 1, 0};
    ScoreOptions options;
    options.score = MOVER_SCORE_COSINE;
    options.mask = {1, 1, 1, 0, 0, 0};
    const auto best = topk_of(anchor, others, 1, 3, 3, 2, 3, options);
    EXPECT_EQ(best.indices, (std::vector<int64_t>{1, 0, 2}));
    EXPECT_EQ(best.values[0], T(0.8));
    EXPECT_EQ(best.values[1], T(0.6));
    EXPECT_TRUE(std::isnan(best.values[2]));
    const auto ranks = ranks_of(anchor, others, {0}, 1, 3, 3, 2, options);
    EXPECT_EQ(ranks.better[0], 1);
    options.mask.clear();
    EXPECT_EQ(topk_of(anchor, others, 1, 3, 3, 2, 3, options).indices, (std::vector<int64_t>{2, 0, 1}));
}

TYPED_TEST(Ranking, ThreadsChangeNothing) {
    using T = TypeParam;
    const int64_t n = 600, m = 333, d = 8;
    const mover_exec exec = three_threads();
    ScoreOptions threads;
    threads.exec = &exec;
    const auto anchor = random_rows<T>(n, d, 31), others = random_rows<T>(m * 2, d, 32);
    const std::vector<int64_t> target(static_cast<size_t>(n), 5);
    const auto one = topk_of(anchor, others, n, m, 3, d, 9), other = topk_of(anchor, others, n, m, 3, d, 9, threads);
    EXPECT_TRUE(same_bits(one.values, other.values) && same_bits(one.indices, other.indices));
    const auto rank = ranks_of(anchor, others, target, n, m, 3, d),
               again = ranks_of(anchor, others, target, n, m, 3, d, threads);
    EXPECT_TRUE(same_bits(rank.better, again.better) && same_bits(rank.tied, again.tied));
}

TEST(RankingErrors, NameTheFunctionAndTheArgument) {
    const std::vector<float> rows = {1, 0, 0, 1};
    std::vector<int64_t> better(2, 7), tied(2, 7);
    size_t bytes = 0;
    auto desc = scores_desc<float>(2, 2, 2, 2, {});
    for (const int64_t topk : {0, 3}) {
        desc.topk = topk;
        EXPECT_FAILS(mover_volume_topk_workspace_size(&desc, &bytes, nullptr), MOVER_ERROR_ARGUMENT,
                     "topk must be from 1 to m = 2, got " + std::to_string(topk));
    }
    EXPECT_OK(mover_volume_rank_workspace_size(&desc, &bytes, nullptr));
    Workspace workspace(bytes);
    for (const int64_t bad : {int64_t(-1), int64_t(2), INT64_MAX}) {
        const std::vector<int64_t> target = {0, bad};
        EXPECT_FAILS(mover_volume_rank(&desc, rows.data(), rows.data(), target.data(), nullptr, better.data(),
                                       tied.data(), workspace.data(), bytes, nullptr),
                     MOVER_ERROR_ARGUMENT,
                     "target[1] must be a group from 0 to 1, got " + std::to_string(static_cast<long long>(bad)));
        EXPECT_EQ(better, (std::vector<int64_t>{7, 7}));
        EXPECT_EQ(tied, better);
    }
    const std::vector<int64_t> target = {0, 1};
    EXPECT_FAILS(mover_volume_rank(&desc, rows.data(), rows.data(), target.data(), nullptr, better.data(), tied.data(),
                                   workspace.data(), bytes - 1, nullptr),
                 MOVER_ERROR_WORKSPACE, "workspace");
    EXPECT_EQ(better, (std::vector<int64_t>{7, 7}));
    desc.topk = 1;
    std::vector<float> values(2, 7);
    EXPECT_OK(mover_volume_topk_workspace_size(&desc, &bytes, nullptr));
    EXPECT_FAILS(mover_volume_topk(&desc, rows.data(), rows.data(), nullptr, values.data(), tied.data(),
                                   workspace.data(), bytes - 1, nullptr),
                 MOVER_ERROR_WORKSPACE, "workspace");
    EXPECT_EQ(values, (std::vector<float>{7, 7}));
    desc.score = static_cast<mover_score>(3);
    EXPECT_FAILS(mover_volume_rank_workspace_size(&desc, &bytes, nullptr), MOVER_ERROR_ARGUMENT,
                 "score must be MOVER_SCORE_VOLUME, MOVER_SCORE_SPAN or MOVER_SCORE_COSINE, got 3");
}

} // namespace
