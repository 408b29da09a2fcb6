/*
 * test_group_volume.cpp: the volumes of listed groups of unit rows, from the squared distances of every pair of sets.
 */
#include "fixtures.h"
#include "reference.h"

#include <set>

using namespace fixtures;

namespace {

template <class T> struct Problem {
    int64_t n, k, count;
    std::vector<T> costs;
    std::vector<int64_t> groups;
    mover_group_volume_desc desc() const { return {dtype_of<T>(), n, k, count}; }
    size_t cell(int64_t t, int64_t a, int64_t b, int64_t pair) const {
        return static_cast<size_t>((pair * n + groups[static_cast<size_t>(t * k + a)]) * n +
                                   groups[static_cast<size_t>(t * k + b)]);
    }
};

/* k sets of n random unit rows, and count random groups. */
template <class T> Problem<T> problem(int64_t n, int64_t k, int64_t count, unsigned seed = 1, int64_t d = 12) {
    Problem<T> p = {n, k, count, {}, {}};
    std::vector<std::vector<double>> sets;
    for (int64_t m = 0; m < k; m++) sets.push_back(random_rows<double>(n, d, seed + static_cast<unsigned>(m)));
    for (int64_t a = 0; a < k; a++)
        for (int64_t b = a + 1; b < k; b++)
            for (int64_t i = 0; i < n; i++)
                for (int64_t j = 0; j < n; j++) {
                    double sum = 0;
                    for (int64_t t = 0; t < d; t++) {
                        const double x = sets[static_cast<size_t>(a)][static_cast<size_t>(i * d + t)];
                        const double y = sets[static_cast<size_t>(b)][static_cast<size_t>(j * d + t)];
                        sum += (x - y) * (x - y);
                    }
                    p.costs.push_back(static_cast<T>(sum));
                }
    std::mt19937_64 generator(seed + 77);
    for (int64_t q = 0; q < count * k; q++)
        p.groups.push_back(std::uniform_int_distribution<int64_t>(0, n - 1)(generator));
    return p;
}

template <class T> std::vector<T> volumes_of(const Problem<T> &p, const mover_exec *exec = nullptr) {
    const auto desc = p.desc();
    std::vector<T> out(static_cast<size_t>(p.count), not_a_number<T>());
    EXPECT_OK(mover_group_volume_forward(&desc, p.costs.data(), p.groups.data(), out.data(), exec));
    return out;
}

template <class T>
std::vector<T> gradient_of(const Problem<T> &p, const std::vector<T> &upstream, const mover_exec *exec = nullptr) {
    const auto desc = p.desc();
    size_t bytes = 0;
    EXPECT_OK(mover_group_volume_backward_workspace_size(&desc, &bytes, nullptr));
    Workspace workspace(bytes);
    std::vector<T> out(p.costs.size(), not_a_number<T>());
    EXPECT_OK(mover_group_volume_backward(&desc, p.costs.data(), p.groups.data(), upstream.data(), out.data(),
                                          workspace.data(), bytes, exec));
    return out;
}

/* Volume of group t from costs in any type, in quadruple precision. */
template <class T, class C> double expected(const Problem<T> &p, const std::vector<C> &costs, int64_t t) {
    std::vector<reference::quad> alpha(static_cast<size_t>(p.k * p.k), 0);
    int64_t pair = 0;
    for (int64_t a = 0; a < p.k; a++)
        for (int64_t b = a + 1; b < p.k; b++, pair++)
            alpha[static_cast<size_t>(a * p.k + b)] = alpha[static_cast<size_t>(b * p.k + a)] =
                static_cast<reference::quad>(costs[p.cell(t, a, b, pair)]) / 2;
    return reference::volume_of_alphas(alpha, p.k);
}

template <class T> class GroupVolume : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(GroupVolume, Types);

TYPED_TEST(GroupVolume, IsTheVolumeOfTheListedRows) {
    using T = TypeParam;
    for (int64_t k = 2; k <= 8; k++)
        for (int64_t count : {1, 15, 16, 33, 200}) {
            const auto p = problem<T>(5, k, count, static_cast<unsigned>(k));
            const auto volumes = volumes_of(p);
            for (int64_t t = 0; t < count; t++)
                EXPECT_NEAR(static_cast<double>(volumes[static_cast<size_t>(t)]), expected(p, p.costs, t),
                            tolerance<T>(4e-6, 1e-14))
                    << "k = " << k << ", group " << t;
        }
}

TYPED_TEST(GroupVolume, BackwardIsTheGradient) {
    using T = TypeParam;
    for (int64_t k = 2; k <= 8; k++) {
        const auto p = problem<T>(3, k, 7, 20);
        const auto upstream = random_values<T>(p.count, 21);
        const auto grad = gradient_of(p, upstream);
        const std::vector<double> costs(p.costs.begin(), p.costs.end());
        const auto differences = central_differences(costs, 1e-6, [&](const std::vector<double> &at) {
            double sum = 0;
            for (int64_t t = 0; t < p.count; t++)
                sum += expected(p, at, t) * static_cast<double>(upstream[static_cast<size_t>(t)]);
            return sum;
        });
        EXPECT_LE(distance(grad, differences), largest(differences) * tolerance<T>(5e-5, 1e-7)) << "k = " << k;
    }
}

/* More groups than a chunk holds, many of them on the same cells; cells that no group lists get 0. */
TYPED_TEST(GroupVolume, ManyGroupsAddUpInTheirCells) {
    using T = TypeParam;
    for (int64_t k : {2, 3, 4}) {
        auto p = problem<T>(4, k, 20011, 30);
        for (int64_t &row : p.groups) row = row == 3 ? 1 : row;
        const auto upstream = random_values<T>(p.count, 31);
        const auto grad = gradient_of(p, upstream);
        std::vector<double> sum(p.costs.size());
        for (int64_t t = 0; t < p.count; t++) {
            Problem<T> one = p;
            one.count = 1;
            one.groups.assign(p.groups.begin() + t * k, p.groups.begin() + (t + 1) * k);
            if (t % 97 == 0 || t > 20000) { /* a group alone writes its own cells and nothing else */
                const auto alone = gradient_of<T>(one, {T(1)});
                EXPECT_EQ(std::count_if(alone.begin(), alone.end(), [](T value) { return value != 0; }),
                          k * (k - 1) / 2);
            }
        }
        int64_t pair = 0;
        for (int64_t a = 0; a < k; a++)
            for (int64_t b = a + 1; b < k; b++, pair++)
                for (int64_t i = 0; i < 4; i++)
                    for (int64_t j = 0; j < 4; j++)
                        if (i == 3 || j == 3) {
                            EXPECT_EQ(grad[static_cast<size_t>((pair * 4 + i) * 4 + j)], 0);
                        }
        /* linear in the upstream: halves sum to the whole */
        auto first = upstream, second = upstream;
        for (size_t t = 0; t < upstream.size(); t++) (t < 9000 ? second : first)[t] = 0;
        const auto one = gradient_of(p, first), two = gradient_of(p, second);
        for (size_t q = 0; q < sum.size(); q++) sum[q] = static_cast<double>(one[q]) + static_cast<double>(two[q]);
        EXPECT_LE(distance(grad, sum), largest(grad) * tolerance<T>(1e-4, 1e-12));
        EXPECT_GT(largest(one), 0);
        EXPECT_GT(largest(two), 0);
    }
}

TYPED_TEST(GroupVolume, EqualRowsHaveNoVolumeAndNoGradient) {
    using T = TypeParam;
    for (int64_t k = 2; k <= 8; k++) {
        auto p = problem<T>(2, k, 3, 40);
        std::fill(p.costs.begin(), p.costs.begin() + 4, T(0)); /* the first two sets agree */
        if (k > 2)                                             /* and have the same distance to all others */
            for (int64_t b = 2; b < k; b++)
                std::copy_n(p.costs.begin() + (b - 1) * 4, 4, p.costs.begin() + (k - 1 + b - 2) * 4);
        for (int64_t t = 0; t < 3; t++) p.groups[static_cast<size_t>(t * k + 1)] = p.groups[static_cast<size_t>(t * k)];
        EXPECT_EQ(largest(volumes_of(p)), 0) << "k = " << k;
        EXPECT_EQ(largest(gradient_of<T>(p, {1, 1, 1})), 0) << "k = " << k;
    }
}

/* A cost below 0 by rounding counts as 0. */
TYPED_TEST(GroupVolume, NegativeCostsAreZero) {
    using T = TypeParam;
    Problem<T> p = {1, 2, 1, {T(-1e-9)}, {0, 0}};
    EXPECT_EQ(volumes_of(p)[0], 0);
    EXPECT_EQ(gradient_of<T>(p, {1})[0], 0);
}

TYPED_TEST(GroupVolume, WhatIsNotFiniteStaysInItsGroups) {
    using T = TypeParam;
    for (const T bad : {not_a_number<T>(), infinity<T>()})
        for (int64_t k : {2, 3, 4, 7}) {
            auto p = problem<T>(5, k, 90, 50);
            const auto good = volumes_of(p);
            const std::vector<T> upstream(90, 1);
            const auto good_gradient = gradient_of(p, upstream);
            const int64_t last = k * (k - 1) / 2 - 1;
            p.costs[static_cast<size_t>(last * 25 + 7)] = bad; /* rows 1, 2 of the last two sets */
            auto volumes = volumes_of(p);
            auto gradient = gradient_of(p, upstream);
            std::set<size_t> cells; /* of groups that list the spoilt pair */
            for (int64_t t = 0; t < 90; t++) {
                if (p.cell(t, k - 2, k - 1, last) != static_cast<size_t>(last * 25 + 7)) continue;
                EXPECT_TRUE(std::isnan(volumes[static_cast<size_t>(t)]));
                volumes[static_cast<size_t>(t)] = good[static_cast<size_t>(t)];
                int64_t pair = 0;
                for (int64_t a = 0; a < k; a++)
                    for (int64_t b = a + 1; b < k; b++, pair++) cells.insert(p.cell(t, a, b, pair));
            }
            EXPECT_FALSE(cells.empty());
            for (const size_t cell : cells) {
                EXPECT_TRUE(std::isnan(gradient[cell])) << "k = " << k << ", cell " << cell;
                gradient[cell] = good_gradient[cell];
            }
            EXPECT_TRUE(same_bits(volumes, good)) << "k = " << k;
            EXPECT_TRUE(same_bits(gradient, good_gradient)) << "k = " << k;
        }
}

TYPED_TEST(GroupVolume, ThreadsChangeNothing) {
    using T = TypeParam;
    const mover_exec threads = three_threads();
    for (int64_t k : {2, 3, 5}) {
        const auto p = problem<T>(9, k, 9001, 60);
        const auto upstream = random_values<T>(p.count, 61);
        EXPECT_TRUE(same_bits(volumes_of(p), volumes_of(p, &threads)));
        EXPECT_TRUE(same_bits(gradient_of(p, upstream), gradient_of(p, upstream, &threads)));
    }
}

TYPED_TEST(GroupVolume, NoGroups) {
    using T = TypeParam;
    const Problem<T> none = {2, 3, 0, std::vector<T>(12, 1), {}}, empty = {0, 3, 0, {}, {}};
    EXPECT_TRUE(volumes_of(none).empty());
    EXPECT_EQ(gradient_of<T>(none, {}), std::vector<T>(12, 0));
    EXPECT_TRUE(volumes_of(empty).empty());
    EXPECT_TRUE(gradient_of<T>(empty, {}).empty());
}

TEST(GroupVolumeErrors, NameTheFunctionAndTheArgument) {
    const std::vector<float> costs(4, 1);
    std::vector<float> out(4, 7);
    size_t bytes = 0;
    mover_group_volume_desc desc = {MOVER_FLOAT32, 2, 2, 3};
    EXPECT_OK(mover_group_volume_backward_workspace_size(&desc, &bytes, nullptr));
    Workspace workspace(bytes);
    for (const int64_t bad : {int64_t(-1), int64_t(2), INT64_MIN, INT64_MAX}) {
        const std::vector<int64_t> groups = {0, 1, 1, 0, 0, bad};
        const std::string words =
            "groups[2, 1] must be a row number from 0 to 1, got " + std::to_string(static_cast<long long>(bad));
        EXPECT_FAILS(mover_group_volume_forward(&desc, costs.data(), groups.data(), out.data(), nullptr),
                     MOVER_ERROR_ARGUMENT, "mover_group_volume_forward: " + words);
        EXPECT_FAILS(mover_group_volume_backward(&desc, costs.data(), groups.data(), costs.data(), out.data(),
                                                 workspace.data(), bytes, nullptr),
                     MOVER_ERROR_ARGUMENT, "mover_group_volume_backward: " + words);
        EXPECT_EQ(out, std::vector<float>(4, 7)); /* nothing was written */
    }
    const std::vector<int64_t> groups(6, 0);
    EXPECT_FAILS(mover_group_volume_forward(&desc, nullptr, groups.data(), out.data(), nullptr), MOVER_ERROR_ARGUMENT,
                 "costs must not be NULL");
    EXPECT_FAILS(mover_group_volume_forward(&desc, costs.data(), nullptr, out.data(), nullptr), MOVER_ERROR_ARGUMENT,
                 "groups must not be NULL");
    EXPECT_FAILS(mover_group_volume_backward(&desc, costs.data(), groups.data(), costs.data(), out.data(),
                                             workspace.data(), bytes - 1, nullptr),
                 MOVER_ERROR_WORKSPACE, "workspace");
    for (const int64_t k : {1, 9}) {
        desc.k = k;
        EXPECT_FAILS(mover_group_volume_backward_workspace_size(&desc, &bytes, nullptr), MOVER_ERROR_ARGUMENT,
                     "k must be between 2 and 8, got " + std::to_string(k));
    }
    desc.k = 3;
    desc.n = INT64_C(1) << 31;
    EXPECT_FAILS(mover_group_volume_backward_workspace_size(&desc, &bytes, nullptr), MOVER_ERROR_OVERFLOW,
                 "address space");
}

} // namespace
