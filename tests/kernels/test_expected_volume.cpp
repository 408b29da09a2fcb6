/*
 * test_expected_volume.cpp: the sum of the volumes of all triples.
 */
#include "fixtures.h"
#include "reference.h"

using namespace fixtures;

namespace {

/* Costs and weights of three sets of rows, and which weights are handed over. */
template <class T> struct Problem {
    int64_t n1, n2, n3;
    std::vector<T> c12, c13, c23, p12, p13, p23;
    bool weigh12 = true, weigh13 = true, weigh23 = true;

    const T *w12() const { return weigh12 ? p12.data() : nullptr; }
    const T *w13() const { return weigh13 ? p13.data() : nullptr; }
    const T *w23() const { return weigh23 ? p23.data() : nullptr; }
    mover_expected_volume_desc desc() const { return {dtype_of<T>(), n1, n2, n3}; }
};

template <class T> std::vector<T> costs(const std::vector<double> &x, const std::vector<double> &y, int64_t d) {
    std::vector<T> out;
    for (size_t i = 0; i < x.size(); i += static_cast<size_t>(d))
        for (size_t j = 0; j < y.size(); j += static_cast<size_t>(d)) {
            double sum = 0;
            for (size_t t = 0; t < static_cast<size_t>(d); t++) sum += (x[i + t] - y[j + t]) * (x[i + t] - y[j + t]);
            out.push_back(static_cast<T>(sum));
        }
    return out;
}

template <class T> Problem<T> problem(int64_t n1, int64_t n2, int64_t n3, unsigned seed = 1, int64_t d = 6) {
    const auto x = random_rows<double>(n1, d, seed), y = random_rows<double>(n2, d, seed + 1),
               z = random_rows<double>(n3, d, seed + 2);
    Problem<T> out = {n1, n2, n3, costs<T>(x, y, d), costs<T>(x, z, d), costs<T>(y, z, d), {}, {}, {}};
    out.p12 = random_weights<T>(n1 * n2, seed + 3);
    out.p13 = random_weights<T>(n1 * n3, seed + 4);
    out.p23 = random_weights<T>(n2 * n3, seed + 5);
    return out;
}

template <class T> T value_of(const Problem<T> &p, const mover_exec *exec = nullptr) {
    const auto desc = p.desc();
    size_t bytes = 0;
    EXPECT_OK(mover_expected_volume_forward_workspace_size(&desc, &bytes, nullptr));
    Workspace workspace(bytes);
    T value = not_a_number<T>();
    EXPECT_OK(mover_expected_volume_forward(&desc, p.c12.data(), p.c13.data(), p.c23.data(), p.w12(), p.w13(), p.w23(),
                                            &value, workspace.data(), bytes, exec));
    return value;
}

/* The gradients of c12, c13, c23, p12, p13, p23; those not in `wanted` stay empty. */
template <class T>
std::vector<std::vector<T>> gradients_of(const Problem<T> &p, T upstream = 1 /* passed as NULL */, unsigned wanted = 63,
                                         const mover_exec *exec = nullptr, T *value = nullptr) {
    const auto desc = p.desc();
    size_t bytes = 0;
    EXPECT_OK(mover_expected_volume_backward_workspace_size(&desc, &bytes, nullptr));
    Workspace workspace(bytes);
    const size_t sizes[] = {p.c12.size(), p.c13.size(), p.c23.size(), p.c12.size(), p.c13.size(), p.c23.size()};
    std::vector<std::vector<T>> out(6);
    T *to[6] = {};
    for (size_t q = 0; q < 6; q++)
        if (wanted >> q & 1) {
            out[q].assign(sizes[q], not_a_number<T>());
            to[q] = out[q].data();
        }
    EXPECT_OK(mover_expected_volume_backward(&desc, p.c12.data(), p.c13.data(), p.c23.data(), p.w12(), p.w13(), p.w23(),
                                             upstream == 1 ? nullptr : &upstream, value, to[0], to[1], to[2], to[3],
                                             to[4], to[5], workspace.data(), bytes, exec));
    return out;
}

/* The value that the backward makes in passing. */
template <class T> T value_in_passing(const Problem<T> &p, unsigned wanted) {
    T value = not_a_number<T>();
    const std::vector<std::vector<T>> with = gradients_of<T>(p, T(2), wanted, nullptr, &value);
    const std::vector<std::vector<T>> without = gradients_of<T>(p, T(2), wanted);
    for (size_t q = 0; q < 6; q++) EXPECT_TRUE(same_bits(with[q], without[q]));
    return value;
}

template <class T> double expected_value(const Problem<T> &p) {
    return reference::expected_volume(p.c12.data(), p.c13.data(), p.c23.data(), p.w12(), p.w13(), p.w23(), p.n1, p.n2,
                                      p.n3);
}

template <class T> Problem<double> in_double(const Problem<T> &p) {
    const auto wide = [](const std::vector<T> &v) { return std::vector<double>(v.begin(), v.end()); };
    return {p.n1,        p.n2,        p.n3,        wide(p.c12), wide(p.c13), wide(p.c23),
            wide(p.p12), wide(p.p13), wide(p.p23), p.weigh12,   p.weigh13,   p.weigh23};
}

template <class T> class ExpectedVolume : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(ExpectedVolume, Types);

TYPED_TEST(ExpectedVolume, IsTheSumOverAllTriples) {
    using T = TypeParam;
    const int64_t sizes[][3] = {{1, 1, 1}, {1, 2, 3}, {31, 33, 17}, {9, 8, 129}, {33, 31, 7}, {5, 65, 258}};
    for (const auto &n : sizes)
        for (int weights = 0; weights < 8; weights++) {
            auto p = problem<T>(n[0], n[1], n[2]);
            p.weigh12 = weights & 1;
            p.weigh13 = weights & 2;
            p.weigh23 = weights & 4;
            const double expected = expected_value(p);
            EXPECT_NEAR(static_cast<double>(value_of(p)), expected, expected * tolerance<T>(1e-6, 1e-13));
        }
}

TYPED_TEST(ExpectedVolume, TheBackwardMakesTheValueInPassing) {
    using T = TypeParam;
    for (const unsigned wanted : {0u, 7u, 56u, 63u, 1u, 32u}) {
        auto p = problem<T>(33, 31, 70, 40 + wanted);
        p.weigh23 = wanted & 1;
        const double expected = expected_value(p);
        EXPECT_NEAR(static_cast<double>(value_in_passing(p, wanted)), expected, expected * tolerance<T>(1e-6, 1e-13));
    }
    auto nothing = problem<T>(0, 3, 4);
    EXPECT_EQ(value_in_passing(nothing, 63), 0);
}

TYPED_TEST(ExpectedVolume, BackwardIsTheGradient) {
    using T = TypeParam;
    for (int weights : {0, 3, 7}) {
        auto p = problem<T>(4, 5, 6, 20);
        p.weigh12 = weights & 1;
        p.weigh13 = weights & 2;
        p.weigh23 = weights & 4;
        const auto grads = gradients_of(p, T(1.5));
        Problem<double> at = in_double(p);
        std::vector<double> *inputs[] = {&at.c12, &at.c13, &at.c23, &at.p12, &at.p13, &at.p23};
        for (size_t q = 0; q < 6; q++) {
            if (q >= 3 && !(weights >> (q - 3) & 1)) continue;
            const std::vector<double> here = *inputs[q];
            const auto expected = central_differences(here, 1e-5, [&](const std::vector<double> &x) {
                *inputs[q] = x;
                const double value = 1.5 * expected_value(at);
                *inputs[q] = here;
                return value;
            });
            EXPECT_LE(distance(grads[q], expected), largest(expected) * tolerance<T>(2e-5, 1e-7))
                << "gradient " << q << ", weights " << weights;
        }
    }
}

/* The gradient with respect to weights of ones that are not handed over is that of ones that are. */
TYPED_TEST(ExpectedVolume, MissingWeightsAreOnes) {
    using T = TypeParam;
    auto p = problem<T>(35, 70, 20, 30);
    p.p12.assign(p.p12.size(), 1);
    p.p13.assign(p.p13.size(), 1);
    p.p23.assign(p.p23.size(), 1);
    const T value = value_of(p);
    const auto grads = gradients_of(p);
    p.weigh12 = p.weigh13 = p.weigh23 = false;
    EXPECT_EQ(value, value_of(p));
    const auto without = gradients_of(p);
    for (size_t q = 0; q < 6; q++)
        EXPECT_LE(distance(grads[q], without[q]), 4 * std::numeric_limits<T>::epsilon() * largest(grads[q]));
}

/* S is linear in each weight, and every gradient of a larger problem is that of its transposed copies. */
TYPED_TEST(ExpectedVolume, SymmetriesOfTheThreeSets) {
    using T = TypeParam;
    const auto p = problem<T>(70, 135, 300, 40);
    const auto transpose = [](const std::vector<T> &m, int64_t rows, int64_t columns) {
        std::vector<T> out(m.size());
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < columns; j++)
                out[static_cast<size_t>(j * rows + i)] = m[static_cast<size_t>(i * columns + j)];
        return out;
    };
    const Problem<T> swapped = {p.n3,
                                p.n2,
                                p.n1,
                                transpose(p.c23, p.n2, p.n3),
                                transpose(p.c13, p.n1, p.n3),
                                transpose(p.c12, p.n1, p.n2),
                                transpose(p.p23, p.n2, p.n3),
                                transpose(p.p13, p.n1, p.n3),
                                transpose(p.p12, p.n1, p.n2)};
    const double allowed = tolerance<T>(2e-5, 1e-13);
    const auto grads = gradients_of(p), others = gradients_of(swapped);
    EXPECT_NEAR(static_cast<double>(value_of(p) / value_of(swapped)), 1, allowed);
    const auto compare = [&](const std::vector<T> &a, const std::vector<T> &b) {
        EXPECT_LE(distance(a, b), allowed * largest(a));
    };
    compare(grads[0], transpose(others[2], p.n2, p.n1));
    compare(grads[1], transpose(others[1], p.n3, p.n1));
    compare(grads[2], transpose(others[0], p.n3, p.n2));
    compare(grads[3], transpose(others[5], p.n2, p.n1));
    compare(grads[4], transpose(others[4], p.n3, p.n1));
    compare(grads[5], transpose(others[3], p.n3, p.n2));
    for (size_t q = 3; q < 6; q++) { /* sum of weight x gradient is the value */
        const std::vector<T> &weight = q == 3 ? p.p12 : q == 4 ? p.p13 : p.p23;
        double sum = 0;
        for (size_t e = 0; e < weight.size(); e++)
            sum += static_cast<double>(weight[e]) * static_cast<double>(grads[q][e]);
        EXPECT_NEAR(sum / static_cast<double>(value_of(p)), 1, allowed);
    }
}

TYPED_TEST(ExpectedVolume, WhatIsNotWantedChangesNothing) {
    using T = TypeParam;
    const auto p = problem<T>(40, 66, 31, 50);
    const auto all = gradients_of(p);
    for (unsigned wanted : {0u, 1u, 2u, 4u, 7u, 8u, 16u, 32u, 56u, 33u}) {
        const auto some = gradients_of(p, T(1), wanted);
        for (size_t q = 0; q < 6; q++) {
            if (!(wanted >> q & 1)) continue;
            EXPECT_LE(distance(all[q], some[q]), 8 * std::numeric_limits<T>::epsilon() * largest(all[q])) << wanted;
        }
    }
}

TYPED_TEST(ExpectedVolume, ThreadsChangeNothing) {
    using T = TypeParam;
    const auto p = problem<T>(129, 127, 65, 60);
    const mover_exec threads = three_threads();
    EXPECT_EQ(value_of(p), value_of(p, &threads));
    const auto serial = gradients_of(p), threaded = gradients_of(p, T(1), 63, &threads);
    for (size_t q = 0; q < 6; q++) EXPECT_TRUE(same_bits(serial[q], threaded[q]));
}

TYPED_TEST(ExpectedVolume, DependentTriplesHaveNoVolumeAndNoGradient) {
    using T = TypeParam;
    const double half = 2 - std::sqrt(2.0); /* squared distance at 45 degrees */
    const double cases[][3] = {{0, 0, 0}, {0, 1, 1}, {1, 0, 1},       {1, 1, 0}, {4, 2, 2},
                               {2, 4, 2}, {2, 2, 4}, {half, half, 2}, {4, 0, 4}};
    for (const auto &c : cases) {
        Problem<T> p = {1, 1, 1, {static_cast<T>(c[0])}, {static_cast<T>(c[1])}, {static_cast<T>(c[2])}, {1}, {1}, {1}};
        EXPECT_EQ(value_of(p), 0) << c[0] << " " << c[1] << " " << c[2];
        for (const auto &grad : gradients_of(p)) EXPECT_EQ(grad[0], 0);
    }
    /* Impossible costs: finite in, finite out. */
    for (const double c : {-1e-7, -1.0, 4.001, 9.0}) {
        Problem<T> p = {1, 1, 1, {static_cast<T>(c)}, {1}, {static_cast<T>(c)}, {1}, {1}, {1}};
        EXPECT_TRUE(std::isfinite(value_of(p)));
        for (const auto &grad : gradients_of(p)) EXPECT_TRUE(std::isfinite(grad[0]));
    }
}

TYPED_TEST(ExpectedVolume, OrthogonalRowsHaveVolumeOne) {
    using T = TypeParam;
    Problem<T> p = {3, 4, 5, std::vector<T>(12, 2), std::vector<T>(15, 2), std::vector<T>(20, 2), {}, {}, {}};
    p.weigh12 = p.weigh13 = p.weigh23 = false;
    EXPECT_EQ(value_of(p), 60);
}

TYPED_TEST(ExpectedVolume, WhatIsNotFiniteShows) {
    using T = TypeParam;
    for (const T bad : {not_a_number<T>(), infinity<T>()})
        for (int which = 0; which < 3; which++) {
            auto p = problem<T>(3, 4, 37, 70);
            (which == 0 ? p.c12 : which == 1 ? p.c13 : p.c23)[7] = bad;
            EXPECT_TRUE(std::isnan(value_of(p)));
            const auto grads = gradients_of(p);
            const auto &own = grads[static_cast<size_t>(which)];
            EXPECT_TRUE(std::isnan(own[7]));
            EXPECT_EQ(std::count_if(own.begin(), own.end(), [](T value) { return std::isnan(value); }), 1);
        }
}

TYPED_TEST(ExpectedVolume, EmptySets) {
    using T = TypeParam;
    const int64_t sizes[][3] = {{0, 3, 4}, {3, 0, 4}, {3, 4, 0}, {0, 0, 0}};
    for (const auto &n : sizes) {
        const auto p = problem<T>(n[0], n[1], n[2]);
        EXPECT_EQ(value_of(p), 0);
        for (const auto &grad : gradients_of(p))
            for (T entry : grad) EXPECT_EQ(entry, 0);
    }
}

TEST(ExpectedVolumeErrors, NameTheFunctionAndTheArgument) {
    float x = 1, value = 0;
    size_t bytes = 0;
    mover_expected_volume_desc desc = {MOVER_FLOAT32, 1, -2, 1};
    EXPECT_FAILS(mover_expected_volume_forward_workspace_size(&desc, &bytes, nullptr), MOVER_ERROR_ARGUMENT,
                 "mover_expected_volume_forward_workspace_size: n2 must be >= 0, got -2");
    desc.n2 = 1;
    EXPECT_FAILS(
        mover_expected_volume_forward(&desc, &x, &x, &x, nullptr, nullptr, nullptr, &value, nullptr, 0, nullptr),
        MOVER_ERROR_WORKSPACE, "workspace");
    EXPECT_OK(mover_expected_volume_backward_workspace_size(&desc, &bytes, nullptr));
    Workspace workspace(bytes);
    EXPECT_FAILS(mover_expected_volume_forward(&desc, &x, &x, nullptr, nullptr, nullptr, nullptr, &value,
                                               workspace.data(), bytes, nullptr),
                 MOVER_ERROR_ARGUMENT, "c23 must not be NULL");
    EXPECT_FAILS(mover_expected_volume_backward(&desc, &x, nullptr, &x, nullptr, nullptr, nullptr, nullptr, nullptr,
                                                &value, nullptr, nullptr, nullptr, nullptr, nullptr, workspace.data(),
                                                bytes, nullptr),
                 MOVER_ERROR_ARGUMENT, "c13 must not be NULL");
    desc.n1 = desc.n2 = INT64_C(1) << 40;
    EXPECT_FAILS(mover_expected_volume_backward_workspace_size(&desc, &bytes, nullptr), MOVER_ERROR_OVERFLOW,
                 "does not fit");
}

} // namespace
