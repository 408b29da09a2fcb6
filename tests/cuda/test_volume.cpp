/*
 * test_volume.cpp: volumes of k vectors on a CUDA device, against the CPU and a reference of its own.
 */
#include "../kernels/reference.h"
#include "device.h"

using namespace fixtures;

namespace {

template <class T> struct Result { std::vector<T> volume, grad; };

template <class T>
Result<T> on_cpu(const std::vector<T> &v, int64_t k, int64_t d, const std::vector<T> &upstream, double eps = 0) {
    const mover_volume_desc desc = {dtype_of<T>(), static_cast<int64_t>(upstream.size()), k, d, eps};
    Result<T> out = {std::vector<T>(upstream.size()), std::vector<T>(v.size())};
    EXPECT_OK(mover_volume_forward(&desc, v.data(), out.volume.data(), nullptr));
    EXPECT_OK(mover_volume_backward(&desc, v.data(), upstream.data(), out.grad.data(), nullptr));
    return out;
}

/* Every array `shift` elements past an aligned address. */
template <class T>
Result<T> on_device(const mover_exec *exec, const std::vector<T> &v, int64_t k, int64_t d,
                    const std::vector<T> &upstream, double eps = 0, size_t shift = 0) {
    const mover_volume_desc desc = {dtype_of<T>(), static_cast<int64_t>(upstream.size()), k, d, eps};
    DeviceArray<T> rows(v, shift), grad_volume(upstream, shift), volume(upstream.size(), shift),
        grad_v(v.size(), shift);
    EXPECT_OK(mover_volume_forward(&desc, rows.data(), volume.data(), exec));
    EXPECT_OK(mover_volume_backward(&desc, rows.data(), grad_volume.data(), grad_v.data(), exec));
    return {volume.fetch(), grad_v.fetch()};
}

/* The integer rows of volume_cases.json: x_m[i]. */
double integer_row(int64_t m, int64_t i) {
    return static_cast<double>((i * (2 * m + 3) + 7 * m + i * i * (m + 1)) % 17 - 8);
}

/* Its nearly parallel rows, y_0 = x_0 S, y_m = x_0 S + x_m; a float holds them exactly. */
template <class T> std::vector<T> nearly_parallel_rows(int64_t k, int64_t d, double S) {
    std::vector<T> v;
    for (int64_t m = 0; m < k; m++)
        for (int64_t i = 0; i < d; i++)
            v.push_back(static_cast<T>(integer_row(0, i) * S + (m == 0 ? 0 : integer_row(m, i))));
    return v;
}

template <class T> double norms(const std::vector<T> &v, int64_t d) {
    double product = 1;
    for (size_t first = 0; first < v.size(); first += static_cast<size_t>(d)) {
        double sum = 0;
        for (size_t t = first; t < first + static_cast<size_t>(d); t++)
            sum += static_cast<double>(v[t]) * static_cast<double>(v[t]);
        product *= std::sqrt(sum);
    }
    return product;
}

template <class T> void expect_agreement(const Result<T> &cpu, const Result<T> &device) {
    const double allowed = tolerance<T>(2 * std::numeric_limits<T>::epsilon(), 1e-10);
    EXPECT_LE(distance(cpu.volume, device.volume), allowed * largest(cpu.volume));
    EXPECT_LE(distance(cpu.grad, device.grad), allowed * largest(cpu.grad));
}

template <class T> class CudaVolume : public OnDevice {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(CudaVolume, Types);

/* Widths on both sides of a change in the number of lanes that share a group. */
TYPED_TEST(CudaVolume, IsTheRootOfTheGramDeterminant) {
    using T = TypeParam;
    for (int64_t k = 1; k <= 8; k++)
        for (int64_t d : {8, 31, 64, 65, 129}) {
            const int64_t batch = d < 64 ? 18 : 5;
            const auto v = random_rows<T>(batch * k, d, static_cast<unsigned>(100 * k + d));
            const auto upstream = random_values<T>(batch, 3);
            const auto result = on_device(this->exec(), v, k, d, upstream);
            for (int64_t b = 0; b < batch; b++) {
                const double expected = reference::volume(v.data() + b * k * d, k, d);
                EXPECT_NEAR(static_cast<double>(result.volume[static_cast<size_t>(b)]), expected,
                            expected * (std::numeric_limits<T>::epsilon() + 1e-12))
                    << "k = " << k << ", d = " << d;
            }
            expect_agreement(on_cpu(v, k, d, upstream), result);
        }
}

TYPED_TEST(CudaVolume, BackwardIsTheGradient) {
    using T = TypeParam;
    for (double eps : {0.0, 0.3})
        for (int64_t k = 1; k <= 8; k++) {
            const int64_t d = 9;
            const auto v = random_rows<T>(k, d, static_cast<unsigned>(k));
            const auto grad = on_device(this->exec(), v, k, d, {T(2)}, eps).grad;
            const auto expected =
                central_differences(std::vector<double>(v.begin(), v.end()), 1e-5, [&](const std::vector<double> &x) {
                    return 2 * reference::volume(x.data(), k, d, eps);
                });
            EXPECT_LE(distance(grad, expected), std::numeric_limits<T>::epsilon() * largest(expected) + 2e-8)
                << "k = " << k;
        }
}

/* Values of volume_cases.json. The gradient of a row is as long as the volume of the others. */
TYPED_TEST(CudaVolume, NearlyParallelRowsKeepTheirDigits) {
    using T = TypeParam;
    const int64_t d = 512;
    struct {
        int64_t k;
        double S, volume;
    } cases[] = {{2, 1024, 0.0007698921529905769086438718},    {2, 1048576, 0.0000007517430078727045882703328},
                 {3, 65536, 1.383970375277860863893209e-10},   {3, 1048576, 5.406122969685268438080937e-13},
                 {4, 1048576, 4.997624039277377437421541e-19}, {8, 16, 5.401740567810504680127438e-10},
                 {8, 65536, 2.724299234561890637639143e-35},   {8, 1048576, 1.014872281549163754691106e-43}};
    for (const auto &c : cases) {
        const auto rows = nearly_parallel_rows<T>(c.k, d, c.S);
        const auto result = on_device(this->exec(), rows, c.k, d, {T(1)});
        EXPECT_NEAR(static_cast<double>(result.volume[0]) / norms(rows, d) / c.volume, 1, tolerance<T>(2e-7, 1e-9))
            << "k = " << c.k << ", S = " << c.S;
        for (int64_t r = 0; r < c.k; r++) {
            std::vector<T> others;
            double square = 0;
            for (int64_t q = 0; q < c.k * d; q++) {
                if (q / d != r)
                    others.push_back(rows[static_cast<size_t>(q)]);
                else
                    square += std::pow(static_cast<double>(result.grad[static_cast<size_t>(q)]), 2);
            }
            EXPECT_NEAR(std::sqrt(square) / reference::volume(others.data(), c.k - 1, d), 1, tolerance<T>(1e-6, 1e-9))
                << "k = " << c.k << ", S = " << c.S << ", row " << r;
        }
    }
}

/* Those of coplanar rows, which are orthogonalised, between groups that are not, in one warp. */
TYPED_TEST(CudaVolume, CoplanarRowsAndDuplicatePairs) {
    using T = TypeParam;
    const int64_t d = 512;
    struct {
        double S, pair, coplanar;
    } cases[] = {{1024, 0.0007684154358984503635813907, 0.0006223438713197392935176146},
                 {65536, 0.00001200484222432965996903417, 0.000009723853122754283116811595}};
    for (const auto &c : cases) {
        std::vector<T> pair(static_cast<size_t>(3 * d)), coplanar(pair.size());
        for (int64_t i = 0; i < d; i++) {
            const double x0 = integer_row(0, i), x1 = integer_row(1, i), x2 = integer_row(2, i);
            const double p[] = {x0 * c.S, x0 * c.S + x1, x2}, q[] = {x0, x1, (x0 + x1) * c.S + x2};
            for (int64_t r = 0; r < 3; r++) {
                pair[static_cast<size_t>(r * d + i)] = static_cast<T>(p[r]);
                coplanar[static_cast<size_t>(r * d + i)] = static_cast<T>(q[r]);
            }
        }
        const auto of_pair = on_device(this->exec(), pair, 3, d, {T(1)});
        const auto of_coplanar = on_device(this->exec(), coplanar, 3, d, {T(1)});
        EXPECT_NEAR(static_cast<double>(of_pair.volume[0]) / norms(pair, d) / c.pair, 1, tolerance<T>(2e-7, 1e-9));
        EXPECT_NEAR(static_cast<double>(of_coplanar.volume[0]) / norms(coplanar, d) / c.coplanar, 1,
                    tolerance<T>(2e-7, 1e-9));
        expect_agreement(on_cpu(pair, 3, d, {T(1)}), of_pair);
        expect_agreement(on_cpu(coplanar, 3, d, {T(1)}), of_coplanar);
    }
}

TYPED_TEST(CudaVolume, DependentRowsHaveVolumeEpsAndNoGradient) {
    using T = TypeParam;
    const int64_t d = 96;
    const auto x = random_rows<T>(2, d, 5);
    const std::vector<std::vector<std::pair<T, T>>> groups = {
        {{1, 0}, {1, 0}},                 /* duplicates */
        {{1, 0}, {0, 1}, {-1, 0}},        /* opposite with a third */
        {{1, 0}, {1, 0}, {1, 0}, {1, 0}}, /* all equal */
        {{0, 0}, {1, 0}},                 /* a zero row */
        {{0, 0}},
        {{1, 0}, {0, 1}, {2, 0}, {0, 4}, {-8, 0}, {0, -2}, {16, 0}, {0, 0}}};
    for (const auto &group : groups)
        for (double eps : {0.0, 1e-3}) {
            std::vector<T> v;
            for (auto [p, q] : group)
                for (int64_t t = 0; t < d; t++)
                    v.push_back(p * x[static_cast<size_t>(t)] + q * x[static_cast<size_t>(d + t)]);
            const auto result = on_device(this->exec(), v, static_cast<int64_t>(group.size()), d, {T(3)}, eps);
            EXPECT_EQ(result.volume[0], static_cast<T>(eps));
            EXPECT_EQ(result.grad, std::vector<T>(v.size(), 0));
        }
    for (int64_t k = 2; k <= 8; k++) { /* more rows than dimensions */
        const auto v = random_rows<T>(k, k - 1, 6);
        const auto result = on_device(this->exec(), v, k, k - 1, {T(1)});
        EXPECT_EQ(result.volume[0], 0) << k;
        EXPECT_EQ(result.grad, std::vector<T>(v.size(), 0));
    }
}

TYPED_TEST(CudaVolume, AGroupThatIsNotFiniteHurtsItselfOnly) {
    using T = TypeParam;
    for (const T bad : {not_a_number<T>(), infinity<T>()})
        for (int64_t k : {1, 3, 8}) {
            const int64_t batch = 19, d = 31, here = 6;
            const auto good = random_rows<T>(batch * k, d, 7);
            auto v = good;
            v[static_cast<size_t>((here * k + k - 1) * d + 30)] = bad;
            const std::vector<T> upstream(static_cast<size_t>(batch), 1);
            const auto expected = on_device(this->exec(), good, k, d, upstream);
            auto result = on_device(this->exec(), v, k, d, upstream);
            EXPECT_TRUE(std::isnan(result.volume[here]));
            result.volume[here] = expected.volume[here];
            for (int64_t q = here * k * d; q < (here + 1) * k * d; q++) {
                EXPECT_TRUE(std::isnan(result.grad[static_cast<size_t>(q)]));
                result.grad[static_cast<size_t>(q)] = expected.grad[static_cast<size_t>(q)];
            }
            EXPECT_TRUE(same_bits(expected.volume, result.volume));
            EXPECT_TRUE(same_bits(expected.grad, result.grad));
        }
}

/* Also where some groups of a warp are orthogonalised and others are not, and at any address. */
TYPED_TEST(CudaVolume, ABatchIsTheLoopOverIt) {
    using T = TypeParam;
    for (int64_t k : {1, 3, 8})
        for (int64_t d : {33, 130}) {
            const int64_t batch = 9;
            auto v = random_rows<T>(batch * k, d, 8);
            for (int64_t t = 0; t < d && k > 2; t++) /* the last row of group 5 almost a sum of the two before */
                v[static_cast<size_t>((6 * k - 1) * d + t)] = v[static_cast<size_t>((6 * k - 2) * d + t)] +
                                                              v[static_cast<size_t>((6 * k - 3) * d + t)] +
                                                              T(1e-5) * v[static_cast<size_t>(t)];
            const auto upstream = random_values<T>(batch, 9);
            const auto all = on_device(this->exec(), v, k, d, upstream, 0.01);
            const auto shifted = on_device(this->exec(), v, k, d, upstream, 0.01, 1);
            EXPECT_TRUE(same_bits(all.volume, shifted.volume));
            EXPECT_TRUE(same_bits(all.grad, shifted.grad));
            for (int64_t b = 0; b < batch; b++) {
                const std::vector<T> one(v.begin() + b * k * d, v.begin() + (b + 1) * k * d);
                const auto single = on_device(this->exec(), one, k, d, {upstream[static_cast<size_t>(b)]}, 0.01);
                EXPECT_TRUE(same_bits(single.volume, {all.volume[static_cast<size_t>(b)]}));
                EXPECT_TRUE(same_bits(
                    single.grad, std::vector<T>(all.grad.begin() + b * k * d, all.grad.begin() + (b + 1) * k * d)));
            }
        }
}

TYPED_TEST(CudaVolume, EmptyShapes) {
    using T = TypeParam;
    EXPECT_TRUE(on_device<T>(this->exec(), {}, 3, 4, {}).volume.empty());
    EXPECT_EQ(on_device<T>(this->exec(), {}, 3, 0, {1, 1}, 0.5).volume, std::vector<T>(2, T(0.5)));
}

} // namespace
