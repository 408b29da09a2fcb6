/*
 * test_ranking.cpp: the best groups of every anchor, and the rank of one, on the device: against the matrix of scores,
 * bit for bit, and against the CPU backend.
 */
#include "../../kernels/cuda/score_plan.h"
#include "score_calls.h"

#include <numeric>

using namespace fixtures;

namespace {

template <class T> struct Best {
    std::vector<T> values;
    std::vector<int64_t> indices;
};

template <class T> Best<T> topk_on_device(const Groups<T> &in, int64_t topk, const mover_exec *exec) {
    const auto desc = in.desc(topk);
    size_t bytes = 0;
    EXPECT_OK(mover_volume_topk_workspace_size(&desc, &bytes, exec));
    DeviceGroups<T> from(in);
    DeviceArray<unsigned char> workspace(bytes, in.shift);
    DeviceArray<T> values(static_cast<size_t>(in.n * topk), in.shift);
    DeviceArray<int64_t> indices(static_cast<size_t>(in.n * topk), in.shift);
    EXPECT_OK(mover_volume_topk(&desc, from.anchor.data(), from.others.data(), from.mask.data(), values.data(),
                                indices.data(), workspace.data(), bytes, exec));
    return {values.fetch(), indices.fetch()};
}

struct Ranks {
    std::vector<int64_t> better, tied;
};

template <class T>
Ranks ranks_on_device(const Groups<T> &in, const std::vector<int64_t> &target, const mover_exec *exec) {
    const auto desc = in.desc();
    size_t bytes = 0;
    EXPECT_OK(mover_volume_rank_workspace_size(&desc, &bytes, exec));
    DeviceGroups<T> from(in);
    DeviceArray<unsigned char> workspace(bytes, in.shift);
    DeviceArray<int64_t> of(target, in.shift), better(target.size(), in.shift), tied(target.size(), in.shift);
    EXPECT_OK(mover_volume_rank(&desc, from.anchor.data(), from.others.data(), of.data(), from.mask.data(),
                                better.data(), tied.data(), workspace.data(), bytes, exec));
    return {better.fetch(), tied.fetch()};
}

/* The topk of every row of a matrix, best first. */
template <class T> Best<T> topk_of_matrix(const std::vector<T> &scores, int64_t n, int64_t m, int64_t topk, T sign) {
    Best<T> out;
    std::vector<int64_t> order(static_cast<size_t>(m));
    for (int64_t i = 0; i < n; i++) {
        const T *row = scores.data() + i * m;
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
            return std::isnan(row[b]) ? !std::isnan(row[a]) : sign * row[a] < sign * row[b];
        });
        for (int64_t q = 0; q < topk; q++) {
            out.indices.push_back(order[static_cast<size_t>(q)]);
            out.values.push_back(row[order[static_cast<size_t>(q)]]);
        }
    }
    return out;
}

/* Targets out of range have no rank; a target of NaN is behind all. */
template <class T>
Ranks ranks_of_matrix(const std::vector<T> &scores, const std::vector<int64_t> &target, int64_t m, T sign) {
    Ranks out;
    for (size_t i = 0; i < target.size(); i++) {
        const T *row = scores.data() + static_cast<int64_t>(i) * m;
        const bool valid = target[i] >= 0 && target[i] < m;
        const T own = valid ? row[target[i]] : 0;
        const int64_t better = std::count_if(row, row + m, [&](T other) { return sign * other < sign * own; });
        const int64_t tied = std::count(row, row + m, own) - 1;
        out.better.push_back(!valid ? -1 : std::isnan(own) ? m - 1 : better);
        out.tied.push_back(!valid ? -1 : std::isnan(own) ? 0 : tied);
    }
    return out;
}

/* Equal groups, a group without members, an anchor of NaN. */
template <class T> Groups<T> hostile_groups(int64_t n, int64_t m, int64_t k, int64_t d, mover_score score) {
    auto in = random_groups<T>(n, m, k, d, 1);
    const int64_t size = (k - 1) * d;
    for (int64_t j = 6; j < m; j += 5) std::copy_n(in.others.begin() + 4 * size, size, in.others.begin() + j * size);
    if (n > 3) in.anchor[static_cast<size_t>(3 * d)] = not_a_number<T>();
    in.options.score = score;
    in.options.mask.assign(static_cast<size_t>(m * (k - 1)), 1);
    if (m > 9) std::fill_n(in.options.mask.begin() + 9 * (k - 1), k - 1, uint8_t(0));
    return in;
}

template <class T> std::vector<int64_t> targets(int64_t n, int64_t m) {
    std::vector<int64_t> out;
    for (int64_t i = 0; i < n; i++) out.push_back(i * 7 % m);
    if (n > 6) out[4] = -1, out[5] = m, out[6] = INT64_MIN;
    return out;
}

template <class T> class RankingOnDevice : public OnDevice {
  protected:
    void expect_that_of_the_matrix(const Groups<T> &in, const std::vector<int64_t> &topks) {
        const auto scores = scores_on_device(in, exec(), false).scores;
        for (const int64_t topk : topks) {
            const auto got = topk_on_device(in, topk, exec()), want = topk_of_matrix(scores, in.n, in.m, topk, T(1));
            EXPECT_EQ(got.indices, want.indices) << "topk = " << topk;
            EXPECT_TRUE(same_bits(got.values, want.values)) << "topk = " << topk;
        }
        const auto target = targets<T>(in.n, in.m);
        const auto got = ranks_on_device(in, target, exec()), want = ranks_of_matrix(scores, target, in.m, T(1));
        EXPECT_EQ(got.better, want.better);
        EXPECT_EQ(got.tied, want.tied);
    }
};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(RankingOnDevice, Types);

TYPED_TEST(RankingOnDevice, IsThatOfTheMatrix) {
    using T = TypeParam;
    for (const int64_t k : {2, 3, 5})
        for (const mover_score score : {MOVER_SCORE_VOLUME, MOVER_SCORE_SPAN}) {
            SCOPED_TRACE(testing::Message() << "k = " << k << ", score " << score);
            this->expect_that_of_the_matrix(hostile_groups<T>(9, 70, k, 6, score), {1, 7, 70});
        }
}

/* More scores than are sorted at a time, and lists that grow over several of these; all equal. */
TYPED_TEST(RankingOnDevice, SortedPiecesMeetAtTheirEdges) {
    using T = TypeParam;
    this->expect_that_of_the_matrix(hostile_groups<T>(2, 2500, 2, 4, MOVER_SCORE_VOLUME), {5, 1500, 2500});
    auto in = random_groups<T>(2, 1100, 2, 4, 5);
    for (size_t q = 4; q < in.others.size(); q++) in.others[q] = in.others[q - 4];
    this->expect_that_of_the_matrix(in, {3, 1050});
}

/* More groups than a tile holds; more anchors than a strip. */
TYPED_TEST(RankingOnDevice, TilesMeetAtTheirEdges) {
    using T = TypeParam;
    auto in = random_groups<T>(2, 4200, 3, 3, 5);
    ASSERT_EQ(score_plan_of(in.n, in.m, 2).across, 2);
    this->expect_that_of_the_matrix(in, {5, 2500});
    in = random_groups<T>(4100, 3, 2, 2, 7);
    ASSERT_GT(score_plan_of(in.n, in.m, 1).strips, 1);
    this->expect_that_of_the_matrix(in, {2});
}

/* More tiles than are kept: they are made twice. The scores are the numbers of the groups themselves. */
TYPED_TEST(RankingOnDevice, TilesThatAreNotKeptAreMadeAgain) {
    using T = TypeParam;
    Groups<T> in = {2, 70000, 2, 1, {1, 1}, {}, {}};
    ASSERT_GT(score_plan_of(in.n, in.m, 1).across, SCORE_KEPT);
    in.options.score = MOVER_SCORE_COSINE;
    for (int64_t j = 0; j < in.m; j++) in.others.push_back(static_cast<T>(j * 37 % 1009) / 64);
    std::vector<T> scores = in.others;
    scores.insert(scores.end(), in.others.begin(), in.others.end());
    const std::vector<int64_t> target = {69999, 12345};
    const auto got = ranks_on_device(in, target, this->exec()), want = ranks_of_matrix(scores, target, in.m, T(-1));
    EXPECT_EQ(got.better, want.better);
    EXPECT_EQ(got.tied, want.tied);
    const auto best = topk_on_device(in, 50, this->exec()), listed = topk_of_matrix(scores, in.n, in.m, 50, T(-1));
    EXPECT_EQ(best.indices, listed.indices);
    EXPECT_TRUE(same_bits(best.values, listed.values));
}

TYPED_TEST(RankingOnDevice, CosineSumsTheMembersPresent) {
    using T = TypeParam;
    Groups<T> in = {1, 3, 3, 2, {1, 0}, {T(0.6), T(0.8), 0, 1, T(0.8), T(0.6), T(-0.8), T(0.6), 1, 0, 1, 0}, {}};
    in.options.score = MOVER_SCORE_COSINE;
    EXPECT_EQ(topk_on_device(in, 3, this->exec()).indices, (std::vector<int64_t>{2, 0, 1}));
    in.options.mask = {1, 1, 1, 0, 0, 0};
    const auto best = topk_on_device(in, 3, this->exec());
    EXPECT_EQ(best.indices, (std::vector<int64_t>{1, 0, 2}));
    EXPECT_EQ(best.values[0], T(0.8));
    EXPECT_EQ(best.values[1], T(0.6));
    EXPECT_TRUE(std::isnan(best.values[2]));
    EXPECT_EQ(ranks_on_device(in, {0}, this->exec()).better[0], 1);
    EXPECT_EQ(ranks_on_device(in, {2}, this->exec()).better[0], 2);
}

/* The order by cosine of many groups; what is ranked is what is listed. */
TYPED_TEST(RankingOnDevice, CosineRanksAsItLists) {
    using T = TypeParam;
    auto in = hostile_groups<T>(9, 130, 4, 6, MOVER_SCORE_COSINE);
    const auto all = topk_on_device(in, in.m, this->exec());
    std::vector<T> scores(all.values.size());
    for (size_t q = 0; q < scores.size(); q++)
        scores[q / 130 * 130 + static_cast<size_t>(all.indices[q])] = all.values[q];
    for (int64_t i = 0; i < in.n; i++)
        for (int64_t j = 0; j < in.m; j++) {
            double sum = 0;
            for (int64_t r = 0; r < 3; r++)
                for (int64_t t = 0; t < 6; t++)
                    sum += static_cast<double>(in.anchor[static_cast<size_t>(i * 6 + t)]) *
                           static_cast<double>(in.others[static_cast<size_t>((j * 3 + r) * 6 + t)]);
            const T score = scores[static_cast<size_t>(i * in.m + j)];
            if (i == 3 || j == 9)
                EXPECT_TRUE(std::isnan(score));
            else
                EXPECT_NEAR(static_cast<double>(score), sum, tolerance<T>(1e-6, 1e-14));
        }
    const auto want = topk_of_matrix(scores, in.n, in.m, in.m, T(-1));
    EXPECT_EQ(all.indices, want.indices);
    const auto target = targets<T>(in.n, in.m);
    const auto got = ranks_on_device(in, target, this->exec()), ranks = ranks_of_matrix(scores, target, in.m, T(-1));
    EXPECT_EQ(got.better, ranks.better);
    EXPECT_EQ(got.tied, ranks.tied);
}

TYPED_TEST(RankingOnDevice, AddressesNeedNoAlignment) {
    using T = TypeParam;
    auto in = hostile_groups<T>(9, 20, 3, 8, MOVER_SCORE_VOLUME);
    in.shift = 1;
    this->expect_that_of_the_matrix(in, {4});
}

TYPED_TEST(RankingOnDevice, EmptyShapes) {
    using T = TypeParam;
    const auto rows = random_rows<T>(6, 4, 9);
    EXPECT_TRUE(topk_on_device<T>({0, 3, 3, 4, {}, rows, {}}, 2, this->exec()).values.empty());
    EXPECT_TRUE(ranks_on_device<T>({0, 3, 3, 4, {}, rows, {}}, {}, this->exec()).better.empty());
    const auto none = ranks_on_device<T>({6, 0, 3, 4, rows, {}, {}}, std::vector<int64_t>(6, 0), this->exec());
    EXPECT_EQ(none.better, std::vector<int64_t>(6, -1));
    EXPECT_EQ(none.tied, std::vector<int64_t>(6, -1));
    EXPECT_EQ(topk_on_device<T>({2, 3, 3, 0, {}, {}, {}}, 2, this->exec()).indices,
              (std::vector<int64_t>{0, 1, 0, 1})); /* rows without entries: all scores are 0 */
}

} // namespace
