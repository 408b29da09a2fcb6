/*
 * test_group_volume.cpp: the volumes of listed groups on a CUDA device, against the CPU and a reference of its own.
 */
#include "../kernels/reference.h"
#include "device.h"

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

template <class T> std::vector<T> volumes_on_cpu(const Problem<T> &p) {
    const auto desc = p.desc();
    std::vector<T> out(static_cast<size_t>(p.count));
    EXPECT_OK(mover_group_volume_forward(&desc, p.costs.data(), p.groups.data(), out.data(), nullptr));
    return out;
}

template <class T> std::vector<T> gradient_on_cpu(const Problem<T> &p, const std::vector<T> &upstream) {
    const auto desc = p.desc();
    size_t bytes = 0;
    EXPECT_OK(mover_group_volume_backward_workspace_size(&desc, &bytes, nullptr));
    Workspace workspace(bytes);
    std::vector<T> out(p.costs.size());
    EXPECT_OK(mover_group_volume_backward(&desc, p.costs.data(), p.groups.data(), upstream.data(), out.data(),
                                          workspace.data(), bytes, nullptr));
    return out;
}

template <class T> std::vector<T> volumes_on(const mover_exec *exec, const Problem<T> &p, size_t shift = 0) {
    const auto desc = p.desc();
    DeviceArray<T> costs(p.costs, shift), out(static_cast<size_t>(p.count), shift);
    DeviceArray<int64_t> groups(p.groups, shift);
    EXPECT_OK(mover_group_volume_forward(&desc, costs.data(), groups.data(), out.data(), exec));
    return out.fetch();
}

template <class T>
std::vector<T> gradient_on(const mover_exec *exec, const Problem<T> &p, const std::vector<T> &upstream,
                           size_t shift = 0) {
    const auto desc = p.desc();
    size_t bytes = 0;
    EXPECT_OK(mover_group_volume_backward_workspace_size(&desc, &bytes, exec));
    DeviceArray<unsigned char> workspace(bytes, shift);
    DeviceArray<T> costs(p.costs, shift), grad_volume(upstream, shift), out(p.costs.size(), shift);
    DeviceArray<int64_t> groups(p.groups, shift);
    EXPECT_OK(mover_group_volume_backward(&desc, costs.data(), groups.data(), grad_volume.data(), out.data(),
                                          workspace.data(), bytes, exec));
    return out.fetch();
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

template <class T> class CudaGroupVolume : public OnDevice {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(CudaGroupVolume, Types);

TYPED_TEST(CudaGroupVolume, IsTheVolumeOfTheListedRows) {
    using T = TypeParam;
    for (int64_t k = 2; k <= 8; k++)
        for (int64_t count : {1, 33, 300}) {
            const auto p = problem<T>(5, k, count, static_cast<unsigned>(k));
            const auto volumes = volumes_on(this->exec(), p);
            for (int64_t t = 0; t < count; t++)
                EXPECT_NEAR(static_cast<double>(volumes[static_cast<size_t>(t)]), expected(p, p.costs, t),
                            tolerance<T>(4e-6, 1e-14))
                    << "k = " << k << ", group " << t;
            EXPECT_LE(distance(volumes, volumes_on_cpu(p)), tolerance<T>(4e-6, 1e-14));
            EXPECT_TRUE(same_bits(volumes, volumes_on(this->exec(), p, 1)));
        }
}

TYPED_TEST(CudaGroupVolume, BackwardIsTheGradient) {
    using T = TypeParam;
    for (int64_t k = 2; k <= 8; k++) {
        const auto p = problem<T>(3, k, 7, 20);
        const auto upstream = random_values<T>(p.count, 21);
        const auto grad = gradient_on(this->exec(), p, upstream);
        const std::vector<double> costs(p.costs.begin(), p.costs.end());
        const auto differences = central_differences(costs, 1e-6, [&](const std::vector<double> &at) {
            double sum = 0;
            for (int64_t t = 0; t < p.count; t++)
                sum += expected(p, at, t) * static_cast<double>(upstream[static_cast<size_t>(t)]);
            return sum;
        });
        EXPECT_LE(distance(grad, differences), largest(differences) * tolerance<T>(5e-5, 1e-7)) << "k = " << k;
        EXPECT_TRUE(same_bits(grad, gradient_on(this->exec(), p, upstream, 1)));
    }
}

/* More groups than a section holds, many of them in the same cells, and all of them in one. */
TYPED_TEST(CudaGroupVolume, ManyGroupsAddUpInTheirCells) {
    using T = TypeParam;
    for (int64_t k : {2, 4}) {
        auto p = problem<T>(7, k, 4096 + 131, 30);
        for (int64_t &row : p.groups) row = row == 3 ? 1 : row;
        for (int alone = 0; alone < 2; alone++) {
            if (alone) std::fill(p.groups.begin(), p.groups.end(), 5);
            const auto upstream = random_values<T>(p.count, 31);
            const auto grad = gradient_on(this->exec(), p, upstream), cpu = gradient_on_cpu(p, upstream);
            EXPECT_LE(distance(grad, cpu), largest(cpu) * tolerance<T>(1e-5, 1e-12)) << "k = " << k;
            EXPECT_GT(largest(cpu), 0);
            for (size_t q = 0; q < grad.size(); q++)
                if (q % 7 == 3 || q / 7 % 7 == 3) {
                    EXPECT_EQ(grad[q], 0);
                }
        }
    }
}

/* More than a round takes: what the first leaves in a cell, the next adds to. */
TYPED_TEST(CudaGroupVolume, MoreGroupsThanARoundTakes) {
    using T = TypeParam;
    const auto p = problem<T>(3, 2, 65536 + 37, 35);
    const auto upstream = random_values<T>(p.count, 36);
    const auto grad = gradient_on(this->exec(), p, upstream), cpu = gradient_on_cpu(p, upstream);
    EXPECT_LE(distance(grad, cpu), largest(cpu) * tolerance<T>(1e-5, 1e-12));
}

/* Several rows share a bucket of the sort. */
TYPED_TEST(CudaGroupVolume, ManyRows) {
    using T = TypeParam;
    Problem<T> p = {1030, 2, 600, {}, {}};
    p.costs = random_weights<T>(p.n * p.n, 32);
    std::mt19937_64 generator(33);
    for (int64_t q = 0; q < 2 * p.count; q++) /* some near the ends, many twice */
        p.groups.push_back(q % 3 == 0 ? p.n - 1 - q % 5
                                      : std::uniform_int_distribution<int64_t>(0, p.n - 1)(generator));
    const auto upstream = random_values<T>(p.count, 34);
    const auto grad = gradient_on(this->exec(), p, upstream), cpu = gradient_on_cpu(p, upstream);
    EXPECT_LE(distance(grad, cpu), largest(cpu) * tolerance<T>(1e-6, 1e-12));
}

/* Anything may run in any order: the sums do not. */
TYPED_TEST(CudaGroupVolume, RepeatsItsBits) {
    using T = TypeParam;
    const auto p = problem<T>(9, 3, 1000, 60);
    const auto upstream = random_values<T>(p.count, 61);
    const auto once = gradient_on(this->exec(), p, upstream);
    EXPECT_TRUE(same_bits(once, gradient_on(this->exec(), p, upstream)));
    /* and in the order of the groups: equal groups with upstreams that swallow each other */
    const auto same = problem<T>(1, 3, 64, 62);
    auto alone = same;
    alone.count = 1;
    alone.groups.resize(3);
    const T large = static_cast<T>(1 / std::numeric_limits<T>::epsilon());
    const std::vector<T> in_turn = {large, T(1), -large};
    std::vector<T> turns, shares[3];
    for (size_t t = 0; t < 64; t++) turns.push_back(in_turn[t % 3]);
    for (size_t turn = 0; turn < 3; turn++) shares[turn] = gradient_on<T>(this->exec(), alone, {in_turn[turn]});
    const auto grad = gradient_on(this->exec(), same, turns);
    for (size_t pair = 0; pair < 3; pair++) {
        T sum = 0;
        for (size_t t = 0; t < 64; t++) sum += shares[t % 3][pair];
        EXPECT_EQ(grad[pair], sum);
    }
}

TYPED_TEST(CudaGroupVolume, EqualRowsHaveNoVolumeAndNoGradient) {
    using T = TypeParam;
    for (int64_t k = 2; k <= 8; k++) {
        auto p = problem<T>(2, k, 3, 40);
        std::fill(p.costs.begin(), p.costs.begin() + 4, T(0)); /* the first two sets agree */
        if (k > 2)                                             /* and have the same distance to all others */
            for (int64_t b = 2; b < k; b++)
                std::copy_n(p.costs.begin() + (b - 1) * 4, 4, p.costs.begin() + (k - 1 + b - 2) * 4);
        for (int64_t t = 0; t < 3; t++) p.groups[static_cast<size_t>(t * k + 1)] = p.groups[static_cast<size_t>(t * k)];
        EXPECT_EQ(largest(volumes_on(this->exec(), p)), 0) << "k = " << k;
        EXPECT_EQ(largest(gradient_on<T>(this->exec(), p, {1, 1, 1})), 0) << "k = " << k;
    }
    Problem<T> negative = {1, 2, 1, {T(-1e-9)}, {0, 0}}; /* below 0 by rounding */
    EXPECT_EQ(volumes_on(this->exec(), negative)[0], 0);
    EXPECT_EQ(gradient_on<T>(this->exec(), negative, {1})[0], 0);
}

TYPED_TEST(CudaGroupVolume, WhatIsNotFiniteStaysInItsGroups) {
    using T = TypeParam;
    for (const T bad : {not_a_number<T>(), infinity<T>()})
        for (int64_t k : {2, 3, 7}) {
            auto p = problem<T>(5, k, 90, 50);
            const auto good = volumes_on(this->exec(), p);
            const std::vector<T> upstream(90, 1);
            const auto good_gradient = gradient_on(this->exec(), p, upstream);
            const int64_t last = k * (k - 1) / 2 - 1;
            p.costs[static_cast<size_t>(last * 25 + 7)] = bad; /* rows 1, 2 of the last two sets */
            auto volumes = volumes_on(this->exec(), p);
            auto gradient = gradient_on(this->exec(), p, upstream);
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

/* Such groups have the volume NaN and add nothing: the others do as if they were not there. */
TYPED_TEST(CudaGroupVolume, RowNumbersOutOfRange) {
    using T = TypeParam;
    for (int64_t k : {2, 3, 8}) {
        auto p = problem<T>(4, k, 40, 70);
        auto others = p;
        others.groups.clear();
        auto upstream = random_values<T>(40, 71), kept = upstream;
        kept.clear();
        const int64_t bad[] = {-1, 4, INT64_MIN, INT64_MAX, INT64_C(1) << 32};
        for (int64_t t = 0; t < 40; t++) {
            if (t % 4 == 1) {
                p.groups[static_cast<size_t>(t * k + t % k)] = bad[t / 4 % 5];
                continue;
            }
            others.groups.insert(others.groups.end(), p.groups.begin() + t * k, p.groups.begin() + (t + 1) * k);
            kept.push_back(upstream[static_cast<size_t>(t)]);
        }
        others.count = static_cast<int64_t>(kept.size());
        const auto volumes = volumes_on(this->exec(), p), expected = volumes_on(this->exec(), others);
        for (size_t t = 0, next = 0; t < 40; t++) {
            if (t % 4 == 1)
                EXPECT_TRUE(std::isnan(volumes[t]));
            else
                EXPECT_EQ(volumes[t], expected[next++]);
        }
        EXPECT_TRUE(same_bits(gradient_on(this->exec(), p, upstream), gradient_on(this->exec(), others, kept)));
    }
    const Problem<T> no_rows = {0, 3, 2, {}, {0, 0, 0, 1, 2, 3}};
    for (const T volume : volumes_on(this->exec(), no_rows)) EXPECT_TRUE(std::isnan(volume));
    EXPECT_TRUE(gradient_on<T>(this->exec(), no_rows, {1, 1}).empty());
}

TYPED_TEST(CudaGroupVolume, NoGroups) {
    using T = TypeParam;
    const Problem<T> none = {2, 3, 0, std::vector<T>(12, 1), {}}, empty = {0, 3, 0, {}, {}};
    EXPECT_TRUE(volumes_on(this->exec(), none).empty());
    EXPECT_EQ(gradient_on<T>(this->exec(), none, {}), std::vector<T>(12, 0));
    EXPECT_TRUE(volumes_on(this->exec(), empty).empty());
    EXPECT_TRUE(gradient_on<T>(this->exec(), empty, {}).empty());
}

} // namespace
