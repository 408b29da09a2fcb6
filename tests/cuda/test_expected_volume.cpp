/*
 * test_expected_volume.cpp: the sum of the volumes of all triples on a CUDA device, against the CPU and a reference.
 */
#include "../kernels/reference.h"
#include "device.h"

#include <array>
#include <optional>
#include <type_traits>

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
    void weigh(int weights) {
        weigh12 = weights & 1;
        weigh13 = weights & 2;
        weigh23 = weights & 4;
    }
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

template <class T>
Problem<T> problem_of(const std::vector<double> &x, const std::vector<double> &y, const std::vector<double> &z,
                      int64_t d, unsigned seed) {
    const auto rows = [&](const std::vector<double> &v) { return static_cast<int64_t>(v.size()) / d; };
    Problem<T> out = {rows(x), rows(y), rows(z), costs<T>(x, y, d), costs<T>(x, z, d), costs<T>(y, z, d), {}, {}, {}};
    out.p12 = random_weights<T>(out.n1 * out.n2, seed + 3);
    out.p13 = random_weights<T>(out.n1 * out.n3, seed + 4);
    out.p23 = random_weights<T>(out.n2 * out.n3, seed + 5);
    return out;
}

template <class T> Problem<T> problem(int64_t n1, int64_t n2, int64_t n3, unsigned seed = 1, int64_t d = 6) {
    return problem_of<T>(random_rows<double>(n1, d, seed), random_rows<double>(n2, d, seed + 1),
                         random_rows<double>(n3, d, seed + 2), d, seed);
}

/* Three views of the same rows, `angle` apart: many triples near parallel or with two rows near each other. */
template <class T> Problem<T> near_problem(int64_t n, double angle, unsigned seed, int64_t d = 8) {
    const auto base = random_rows<double>(n, d, seed);
    std::vector<std::vector<double>> views;
    for (unsigned view = 0; view < 3; view++) {
        auto rows = random_values<double>(n * d, seed + 10 + view);
        for (size_t q = 0; q < rows.size(); q++) rows[q] = base[q] + angle * rows[q];
        normalise(rows, d);
        views.push_back(rows);
    }
    return problem_of<T>(views[0], views[1], views[2], d, seed);
}

/* The gradients of c12, c13, c23, p12, p13, p23; those not wanted are empty. */
template <class T> using Gradients = std::array<std::vector<T>, 6>;

template <class T> std::array<size_t, 6> sizes_of(const Problem<T> &p) {
    return {p.c12.size(), p.c13.size(), p.c23.size(), p.c12.size(), p.c13.size(), p.c23.size()};
}

template <class T> T value_on_cpu(const Problem<T> &p) {
    const auto desc = p.desc();
    size_t bytes = 0;
    EXPECT_OK(mover_expected_volume_forward_workspace_size(&desc, &bytes, nullptr));
    Workspace workspace(bytes);
    T value = not_a_number<T>();
    EXPECT_OK(mover_expected_volume_forward(&desc, p.c12.data(), p.c13.data(), p.c23.data(), p.w12(), p.w13(), p.w23(),
                                            &value, workspace.data(), bytes, nullptr));
    return value;
}

template <class T> Gradients<T> gradients_on_cpu(const Problem<T> &p, T upstream = 1) {
    const auto desc = p.desc();
    size_t bytes = 0;
    EXPECT_OK(mover_expected_volume_backward_workspace_size(&desc, &bytes, nullptr));
    Workspace workspace(bytes);
    Gradients<T> out;
    for (size_t q = 0; q < 6; q++) out[q].resize(sizes_of(p)[q]);
    EXPECT_OK(mover_expected_volume_backward(
        &desc, p.c12.data(), p.c13.data(), p.c23.data(), p.w12(), p.w13(), p.w23(), &upstream, nullptr, out[0].data(),
        out[1].data(), out[2].data(), out[3].data(), out[4].data(), out[5].data(), workspace.data(), bytes, nullptr));
    return out;
}

/* The inputs of a problem on the device, `shift` elements past aligned addresses. */
template <class T> struct Inputs {
    Inputs(const Problem<T> &p, size_t shift)
        : c12(p.c12, shift), c13(p.c13, shift), c23(p.c23, shift), p12(p.p12, shift), p13(p.p13, shift),
          p23(p.p23, shift), w12(p.weigh12 ? p12.data() : nullptr), w13(p.weigh13 ? p13.data() : nullptr),
          w23(p.weigh23 ? p23.data() : nullptr) {}
    DeviceArray<T> c12, c13, c23, p12, p13, p23;
    const T *w12, *w13, *w23;
};

template <class T> T value_on(const mover_exec *exec, const Problem<T> &p, size_t shift = 0) {
    const auto desc = p.desc();
    size_t bytes = 0;
    EXPECT_OK(mover_expected_volume_forward_workspace_size(&desc, &bytes, exec));
    DeviceArray<unsigned char> workspace(bytes, shift);
    Inputs<T> in(p, shift);
    DeviceArray<T> value(1, shift);
    EXPECT_OK(mover_expected_volume_forward(&desc, in.c12.data(), in.c13.data(), in.c23.data(), in.w12, in.w13, in.w23,
                                            value.data(), workspace.data(), bytes, exec));
    return value.fetch()[0];
}

/* No upstream is handed over as NULL. *passing becomes the value that is made in the same sweep. */
template <class T>
Gradients<T> gradients_on(const mover_exec *exec, const Problem<T> &p,
                          std::optional<std::type_identity_t<T>> upstream = T(1), unsigned wanted = 63,
                          T *passing = nullptr, size_t shift = 0) {
    const auto desc = p.desc();
    const auto sizes = sizes_of(p);
    size_t bytes = 0;
    EXPECT_OK(mover_expected_volume_backward_workspace_size(&desc, &bytes, exec));
    DeviceArray<unsigned char> workspace(bytes, shift);
    Inputs<T> in(p, shift);
    DeviceArray<T> grad_value(std::vector<T>{upstream.value_or(0)}, shift), value(1, shift);
    std::vector<std::unique_ptr<DeviceArray<T>>> grads;
    T *to[6] = {};
    for (size_t q = 0; q < 6; q++) {
        grads.push_back(std::make_unique<DeviceArray<T>>(wanted >> q & 1 ? sizes[q] : 0, shift));
        to[q] = grads[q]->data();
    }
    EXPECT_OK(mover_expected_volume_backward(&desc, in.c12.data(), in.c13.data(), in.c23.data(), in.w12, in.w13, in.w23,
                                             upstream ? grad_value.data() : nullptr, passing ? value.data() : nullptr,
                                             to[0], to[1], to[2], to[3], to[4], to[5], workspace.data(), bytes, exec));
    Gradients<T> out;
    for (size_t q = 0; q < 6; q++) out[q] = grads[q]->fetch();
    if (passing) *passing = value.fetch()[0];
    return out;
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

template <class T> void expect_close(const Gradients<T> &a, const Gradients<T> &b, double allowed) {
    for (size_t q = 0; q < 6; q++) EXPECT_LE(distance(a[q], b[q]), allowed * largest(a[q])) << "gradient " << q;
}

template <class T> class CudaExpectedVolume : public OnDevice {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(CudaExpectedVolume, Types);

/* Sides of a tile, of a chunk and of a part, one less, one more. */
TYPED_TEST(CudaExpectedVolume, IsTheSumOverAllTriples) {
    using T = TypeParam;
    const int64_t sizes[][3] = {{1, 1, 1},   {1, 2, 33}, {31, 33, 17}, {7, 65, 15},
                                {63, 5, 16}, {64, 4, 9}, {3, 17, 65},  {130, 2, 3}};
    int weights = 0;
    for (const auto &n : sizes) {
        auto p = problem<T>(n[0], n[1], n[2]);
        p.weigh(weights++ % 8);
        const double expected = expected_value(p);
        EXPECT_NEAR(static_cast<double>(value_on(this->exec(), p)), expected, expected * tolerance<T>(1e-6, 1e-13));
    }
}

TYPED_TEST(CudaExpectedVolume, BackwardIsTheGradient) {
    using T = TypeParam;
    for (int weights : {0, 3, 7}) {
        auto p = problem<T>(4, 5, 6, 20);
        p.weigh(weights);
        const auto grads = gradients_on(this->exec(), p, T(1.5));
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

TYPED_TEST(CudaExpectedVolume, AgreesWithTheCpu) {
    using T = TypeParam;
    const int64_t sizes[][3] = {{33, 31, 17}, {1, 65, 30}, {66, 3, 8}, {2, 9, 129}};
    int weights = 1;
    for (const auto &n : sizes) {
        auto p = problem<T>(n[0], n[1], n[2], 30);
        p.weigh((weights += 2) % 8);
        T value;
        const auto grads = gradients_on(this->exec(), p, T(-0.7), 63, &value);
        expect_close(gradients_on_cpu(p, T(-0.7)), grads, tolerance<T>(1e-5, 1e-12));
        EXPECT_NEAR(static_cast<double>(value / value_on_cpu(p)), 1, tolerance<T>(1e-6, 1e-13));
        EXPECT_EQ(value_on(this->exec(), p), value_on(this->exec(), p, 1)); /* wherever the arrays lie */
        Gradients<T> shifted = gradients_on<T>(this->exec(), p, T(-0.7), 63, nullptr, 1);
        for (size_t q = 0; q < 6; q++) EXPECT_TRUE(same_bits(grads[q], shifted[q]));
    }
}

TYPED_TEST(CudaExpectedVolume, WhatIsNotWantedChangesNothing) {
    using T = TypeParam;
    auto p = problem<T>(20, 33, 9, 50);
    const auto all = gradients_on(this->exec(), p);
    const double expected = expected_value(p);
    for (unsigned wanted : {0u, 1u, 32u, 7u, 20u}) {
        T value;
        const auto some = gradients_on(this->exec(), p, T(1), wanted);
        const auto with = gradients_on(this->exec(), p, T(1), wanted, &value);
        EXPECT_NEAR(static_cast<double>(value), expected, expected * tolerance<T>(1e-6, 1e-13)) << wanted;
        for (size_t q = 0; q < 6; q++) {
            EXPECT_TRUE(same_bits(with[q], some[q]));
            if (wanted >> q & 1) {
                EXPECT_TRUE(same_bits(all[q], some[q])) << wanted;
            }
        }
    }
}

TYPED_TEST(CudaExpectedVolume, MissingWeightsAreOnes) {
    using T = TypeParam;
    auto p = problem<T>(35, 20, 17, 30);
    p.p12.assign(p.p12.size(), 1);
    p.p13.assign(p.p13.size(), 1);
    p.p23.assign(p.p23.size(), 1);
    const T value = value_on(this->exec(), p);
    const auto grads = gradients_on(this->exec(), p);
    p.weigh(0);
    EXPECT_EQ(value, value_on(this->exec(), p));
    const auto without = gradients_on(this->exec(), p);
    for (size_t q = 0; q < 6; q++) EXPECT_TRUE(same_bits(grads[q], without[q]));
}

TYPED_TEST(CudaExpectedVolume, AMissingUpstreamIsOne) {
    using T = TypeParam;
    const auto p = problem<T>(20, 33, 9, 50);
    T value, alone;
    const auto with = gradients_on(this->exec(), p, T(1), 63, &value);
    const auto without = gradients_on(this->exec(), p, std::nullopt, 63, &alone);
    EXPECT_EQ(value, alone);
    for (size_t q = 0; q < 6; q++) EXPECT_TRUE(same_bits(with[q], without[q]));
}

/* Triples with two rows near each other, among others without: the same ones have volume 0 as on the CPU. Angles whose
 * triples lie between 0 and clearly more than 0 in float are left out. */
TYPED_TEST(CudaExpectedVolume, NearlyParallelRows) {
    using T = TypeParam;
    for (double angle : {0.3, 3e-2, 1e-4, 0.0}) {
        const auto p = near_problem<T>(19, angle, 80);
        const double cpu = static_cast<double>(value_on_cpu(p)), expected = expected_value(p);
        EXPECT_NEAR(static_cast<double>(value_on(this->exec(), p)), cpu, cpu * tolerance<T>(1e-6, 1e-12)) << angle;
        EXPECT_NEAR(cpu, expected, expected * tolerance<T>(1e-4, 1e-9)) << angle;
        expect_close(gradients_on_cpu(p), gradients_on(this->exec(), p), tolerance<T>(1e-4, 1e-9));
    }
    for (double angle : {1e-1, 1e-3}) { /* all rows in a narrow cone: every volume is small */
        std::vector<std::vector<double>> views;
        for (unsigned view = 0; view < 3; view++) {
            auto rows = random_values<double>(17 * 8, 90 + view);
            for (size_t q = 0; q < rows.size(); q++) rows[q] = rows[q] * angle + (q % 8 == 0 ? 1 : 0);
            normalise(rows, 8);
            views.push_back(rows);
        }
        const auto p = problem_of<T>(views[0], views[1], views[2], 8, 91);
        const double expected = expected_value(p);
        EXPECT_NEAR(static_cast<double>(value_on(this->exec(), p)), expected, expected * tolerance<T>(1e-6, 1e-10));
        expect_close(gradients_on_cpu(p), gradients_on(this->exec(), p), tolerance<T>(1e-5, 1e-10));
    }
}

TYPED_TEST(CudaExpectedVolume, DependentTriplesHaveNoVolumeAndNoGradient) {
    using T = TypeParam;
    const double half = 2 - std::sqrt(2.0); /* squared distance at 45 degrees */
    const double cases[][3] = {{0, 0, 0}, {0, 1, 1}, {1, 0, 1},       {1, 1, 0}, {4, 2, 2},
                               {2, 4, 2}, {2, 2, 4}, {half, half, 2}, {4, 0, 4}};
    for (const auto &c : cases) {
        Problem<T> p = {1, 1, 1, {static_cast<T>(c[0])}, {static_cast<T>(c[1])}, {static_cast<T>(c[2])}, {1}, {1}, {1}};
        EXPECT_EQ(value_on(this->exec(), p), 0) << c[0] << " " << c[1] << " " << c[2];
        for (const auto &grad : gradients_on(this->exec(), p)) EXPECT_EQ(grad[0], 0);
    }
    /* Impossible costs: finite in, finite out. */
    for (const double c : {-1e-7, -1.0, 4.001, 9.0}) {
        Problem<T> p = {1, 1, 1, {static_cast<T>(c)}, {1}, {static_cast<T>(c)}, {1}, {1}, {1}};
        EXPECT_TRUE(std::isfinite(value_on(this->exec(), p)));
        for (const auto &grad : gradients_on(this->exec(), p)) EXPECT_TRUE(std::isfinite(grad[0]));
    }
    Problem<T> orthogonal = {3, 4, 5, std::vector<T>(12, 2), std::vector<T>(15, 2), std::vector<T>(20, 2), {}, {}, {}};
    orthogonal.weigh(0);
    EXPECT_NEAR(static_cast<double>(value_on(this->exec(), orthogonal)), 60, 60 * tolerance<T>(5e-7, 1e-15));
}

TYPED_TEST(CudaExpectedVolume, WhatIsNotFiniteShows) {
    using T = TypeParam;
    for (const T bad : {not_a_number<T>(), infinity<T>()})
        for (int which = 0; which < (std::isnan(bad) ? 6 : 3); which++) {
            auto p = problem<T>(3, 4, 19, 70);
            std::vector<T> *inputs[] = {&p.c12, &p.c13, &p.c23, &p.p12, &p.p13, &p.p23};
            (*inputs[which])[7] = bad;
            EXPECT_FALSE(std::isfinite(value_on(this->exec(), p)));
            const auto grads = gradients_on(this->exec(), p), cpu = gradients_on_cpu(p);
            for (size_t q = 0; q < 6; q++)
                for (size_t e = 0; e < grads[q].size(); e++)
                    EXPECT_EQ(std::isfinite(grads[q][e]), std::isfinite(cpu[q][e]))
                        << "input " << which << ", gradient " << q << ", entry " << e;
        }
    /* A weight that is not finite shows where the volume is 0, too. */
    Problem<T> flat = {1, 1, 1, {0}, {1}, {1}, {1}, {not_a_number<T>()}, {1}};
    EXPECT_TRUE(std::isnan(value_on(this->exec(), flat)));
}

TYPED_TEST(CudaExpectedVolume, EmptySets) {
    using T = TypeParam;
    const int64_t sizes[][3] = {{0, 3, 4}, {3, 0, 4}, {3, 4, 0}, {0, 0, 0}};
    for (const auto &n : sizes) {
        const auto p = problem<T>(n[0], n[1], n[2]);
        T value;
        EXPECT_EQ(value_on(this->exec(), p), 0);
        for (const auto &grad : gradients_on(this->exec(), p, T(1), 63, &value))
            for (T entry : grad) EXPECT_EQ(entry, 0);
        EXPECT_EQ(value, 0);
    }
}

} // namespace
