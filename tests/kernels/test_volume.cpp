/*
 * test_volume.cpp: volumes of k vectors.
 */
#include "fixtures.h"
#include "reference.h"

using namespace fixtures;

namespace {

template <class T> struct Result { std::vector<T> volume, grad; };

template <class T>
Result<T> volume_of(const std::vector<T> &v, int64_t k, int64_t d, const std::vector<T> &upstream, double eps = 0,
                    const mover_exec *exec = nullptr) {
    const mover_volume_desc desc = {dtype_of<T>(), static_cast<int64_t>(upstream.size()), k, d, eps};
    Result<T> out = {std::vector<T>(upstream.size(), not_a_number<T>()), std::vector<T>(v.size(), not_a_number<T>())};
    EXPECT_OK(mover_volume_forward(&desc, v.data(), out.volume.data(), exec));
    EXPECT_OK(mover_volume_backward(&desc, v.data(), upstream.data(), out.grad.data(), exec));
    return out;
}

/* The integer rows of volume_cases.json: x_m[i]. */
double integer_row(int64_t m, int64_t i) {
    return static_cast<double>((i * (2 * m + 3) + 7 * m + i * i * (m + 1)) % 17 - 8);
}

/* k integer rows; with S > 0 the nearly parallel ones, y_0 = x_0 S, y_m = x_0 S + x_m. */
std::vector<double> integer_rows(int64_t k, int64_t d, double S = 0) {
    std::vector<double> v;
    for (int64_t m = 0; m < k; m++)
        for (int64_t i = 0; i < d; i++) {
            const double x = integer_row(m, i);
            v.push_back(S == 0 ? x : integer_row(0, i) * S + (m == 0 ? 0 : x));
        }
    return v;
}

double norms(const std::vector<double> &v, int64_t d) {
    double product = 1;
    for (size_t first = 0; first < v.size(); first += static_cast<size_t>(d)) {
        double sum = 0;
        for (size_t t = first; t < first + static_cast<size_t>(d); t++) sum += v[t] * v[t];
        product *= std::sqrt(sum);
    }
    return product;
}

template <class T> class Volume : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(Volume, Types);

TYPED_TEST(Volume, IsTheRootOfTheGramDeterminant) {
    using T = TypeParam;
    for (int64_t k = 1; k <= 8; k++)
        for (int64_t d : {8, 31, 33, 127, 129, 515}) {
            const auto v = random_rows<T>(3 * k, d, static_cast<unsigned>(100 * k + d));
            const auto volume = volume_of(v, k, d, std::vector<T>(3, 1)).volume;
            for (int64_t b = 0; b < 3; b++) {
                const double expected = reference::volume(v.data() + b * k * d, k, d);
                EXPECT_NEAR(static_cast<double>(volume[static_cast<size_t>(b)]), expected,
                            expected * (std::numeric_limits<T>::epsilon() + 1e-12));
            }
        }
}

TYPED_TEST(Volume, BackwardIsTheGradient) {
    using T = TypeParam;
    for (double eps : {0.0, 0.3})
        for (int64_t k = 1; k <= 8; k++) {
            const int64_t d = 9;
            const auto v = random_rows<T>(k, d, static_cast<unsigned>(k));
            const auto grad = volume_of(v, k, d, {T(2)}, eps).grad;
            const auto expected =
                central_differences(std::vector<double>(v.begin(), v.end()), 1e-5, [&](const std::vector<double> &x) {
                    return 2 * reference::volume(x.data(), k, d, eps);
                });
            EXPECT_LE(distance(grad, expected), std::numeric_limits<T>::epsilon() * largest(expected) + 2e-8)
                << "k = " << k;
        }
}

/* Values of volume_cases.json, in 25 digits there. The rows are fed as integers, which a float holds exactly. */
TYPED_TEST(Volume, NearlyParallelRowsKeepTheirDigits) {
    using T = TypeParam;
    struct {
        int64_t k;
        double S, volume;
    } cases[] = {{2, 1024, 0.0007698921529905769086438718},    {2, 1048576, 0.0000007517430078727045882703328},
                 {3, 65536, 1.383970375277860863893209e-10},   {3, 1048576, 5.406122969685268438080937e-13},
                 {4, 1048576, 4.997624039277377437421541e-19}, {8, 16, 5.401740567810504680127438e-10},
                 {8, 65536, 2.724299234561890637639143e-35},   {8, 1048576, 1.014872281549163754691106e-43}};
    for (const auto &c : cases) {
        const auto rows = integer_rows(c.k, 512, c.S);
        const auto result = volume_of(std::vector<T>(rows.begin(), rows.end()), c.k, 512, {T(1)});
        const double allowed = tolerance<T>(2e-7, 1e-9);
        EXPECT_NEAR(static_cast<double>(result.volume[0]) / norms(rows, 512) / c.volume, 1, allowed)
            << "k = " << c.k << ", S = " << c.S;
        EXPECT_TRUE(all_finite(result.grad));
    }
}

/* |dVol/dv_i| is the volume of the others. */
TYPED_TEST(Volume, GradientOfARowIsAsLongAsTheVolumeOfTheOthers) {
    using T = TypeParam;
    for (double S : {0.0, 16.0, 1024.0, 1048576.0})
        for (int64_t k = 2; k <= 8; k++) {
            const int64_t d = 256;
            const auto rows = integer_rows(k, d, S);
            const std::vector<T> v(rows.begin(), rows.end());
            const auto grad = volume_of(v, k, d, {T(1)}).grad;
            for (int64_t r = 0; r < k; r++) {
                std::vector<double> others;
                double square = 0;
                for (int64_t q = 0; q < k * d; q++) {
                    if (q / d != r)
                        others.push_back(rows[static_cast<size_t>(q)]);
                    else
                        square += std::pow(static_cast<double>(grad[static_cast<size_t>(q)]), 2);
                }
                EXPECT_NEAR(std::sqrt(square) / reference::volume(others.data(), k - 1, d), 1,
                            tolerance<T>(1e-6, 1e-9));
            }
        }
}

TYPED_TEST(Volume, CoplanarRowsAndDuplicatePairs) {
    using T = TypeParam;
    const int64_t d = 512;
    struct {
        double S, pair, coplanar;
    } cases[] = {{1024, 0.0007684154358984503635813907, 0.0006223438713197392935176146},
                 {65536, 0.00001200484222432965996903417, 0.000009723853122754283116811595}};
    for (const auto &c : cases) {
        std::vector<double> pair(static_cast<size_t>(3 * d)), coplanar(pair.size());
        for (int64_t i = 0; i < d; i++) {
            const double x0 = integer_row(0, i), x1 = integer_row(1, i), x2 = integer_row(2, i);
            const double p[] = {x0 * c.S, x0 * c.S + x1, x2}, q[] = {x0, x1, (x0 + x1) * c.S + x2};
            for (int64_t r = 0; r < 3; r++) {
                pair[static_cast<size_t>(r * d + i)] = p[r];
                coplanar[static_cast<size_t>(r * d + i)] = q[r];
            }
        }
        const double got_pair =
            static_cast<double>(volume_of(std::vector<T>(pair.begin(), pair.end()), 3, d, {T(1)}).volume[0]);
        const double got_coplanar =
            static_cast<double>(volume_of(std::vector<T>(coplanar.begin(), coplanar.end()), 3, d, {T(1)}).volume[0]);
        EXPECT_NEAR(got_pair / norms(pair, d) / c.pair, 1, tolerance<T>(2e-7, 1e-9));
        EXPECT_NEAR(got_coplanar / norms(coplanar, d) / c.coplanar, 1, tolerance<T>(2e-7, 1e-9));
    }
}

TYPED_TEST(Volume, KnownValues) {
    using T = TypeParam;
    EXPECT_EQ(volume_of<T>({3, 4}, 1, 2, {1}).volume[0], 5);
    EXPECT_NEAR(static_cast<double>(volume_of<T>({1, 0, T(0.6), T(0.8)}, 2, 2, {1}).volume[0]), 0.8, 1e-7);
    for (int64_t k = 1; k <= 8; k++) {
        std::vector<T> basis(static_cast<size_t>(k * 11), 0);
        for (int64_t r = 0; r < k; r++) basis[static_cast<size_t>(r * 11 + r + 2)] = 1;
        EXPECT_NEAR(static_cast<double>(volume_of(basis, k, 11, {T(1)}).volume[0]), 1,
                    2 * std::numeric_limits<T>::epsilon());
    }
}

TYPED_TEST(Volume, DependentRowsHaveVolumeEpsAndNoGradient) {
    using T = TypeParam;
    const int64_t d = 256;
    const auto x = random_rows<T>(2, d, 5);
    const auto build = [&](std::vector<std::pair<T, T>> weights) {
        std::vector<T> v;
        for (auto [p, q] : weights)
            for (int64_t t = 0; t < d; t++)
                v.push_back(p * x[static_cast<size_t>(t)] + q * x[static_cast<size_t>(d + t)]);
        return v;
    };
    const std::vector<std::vector<std::pair<T, T>>> groups = {
        {{1, 0}, {1, 0}},                 /* duplicates */
        {{1, 0}, {-1, 0}},                /* opposite */
        {{0, 1}, {1, 0}, {1, 0}},         /* duplicates with a third */
        {{1, 0}, {0, 1}, {-1, 0}},        /* opposite with a third */
        {{1, 0}, {1, 0}, {1, 0}, {1, 0}}, /* all equal */
        {{0, 0}, {1, 0}},                 /* a zero row */
        {{0, 0}},
        {{1, 0}, {0, 1}, {2, 0}, {0, 4}, {-8, 0}, {0, -2}, {16, 0}, {0, 0}}};
    for (const auto &group : groups)
        for (double eps : {0.0, 1e-3}) {
            const auto v = build(group);
            const auto result = volume_of(v, static_cast<int64_t>(group.size()), d, {T(3)}, eps);
            EXPECT_EQ(result.volume[0], static_cast<T>(eps));
            EXPECT_EQ(result.grad, std::vector<T>(v.size(), 0));
        }
    for (int64_t k = 2; k <= 8; k++) { /* more rows than dimensions */
        const auto v = random_rows<T>(k, k - 1, 6);
        const auto result = volume_of(v, k, k - 1, {T(1)});
        EXPECT_EQ(result.volume[0], 0) << k;
        EXPECT_EQ(result.grad, std::vector<T>(v.size(), 0));
    }
}

TYPED_TEST(Volume, AGroupThatIsNotFiniteHurtsItselfOnly) {
    using T = TypeParam;
    for (const T bad : {not_a_number<T>(), infinity<T>(), -infinity<T>()})
        for (int64_t k : {1, 2, 3, 8}) {
            const int64_t batch = 33, d = 31, here = 17;
            const auto good = random_rows<T>(batch * k, d, 7);
            auto v = good;
            v[static_cast<size_t>((here * k + k - 1) * d + 30)] = bad;
            const std::vector<T> upstream(batch, 1);
            const auto expected = volume_of(good, k, d, upstream);
            auto result = volume_of(v, k, d, upstream);
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

TYPED_TEST(Volume, ABatchIsTheLoopOverItAndThreadsChangeNothing) {
    using T = TypeParam;
    for (int64_t k : {1, 3, 8}) {
        const int64_t batch = 127, d = 129;
        const auto v = random_rows<T>(batch * k, d, 8);
        const auto upstream = random_values<T>(batch, 9);
        const auto all = volume_of(v, k, d, upstream, 0.01);
        const mover_exec threads = three_threads();
        const auto threaded = volume_of(v, k, d, upstream, 0.01, &threads);
        EXPECT_TRUE(same_bits(all.volume, threaded.volume));
        EXPECT_TRUE(same_bits(all.grad, threaded.grad));
        for (int64_t b = 0; b < batch; b++) {
            const std::vector<T> one(v.begin() + b * k * d, v.begin() + (b + 1) * k * d);
            const auto single = volume_of(one, k, d, {upstream[static_cast<size_t>(b)]}, 0.01);
            EXPECT_TRUE(same_bits(single.volume, {all.volume[static_cast<size_t>(b)]}));
            EXPECT_TRUE(same_bits(single.grad,
                                  std::vector<T>(all.grad.begin() + b * k * d, all.grad.begin() + (b + 1) * k * d)));
        }
    }
}

TYPED_TEST(Volume, EmptyShapes) {
    using T = TypeParam;
    EXPECT_TRUE(volume_of<T>({}, 3, 4, {}).volume.empty());
    EXPECT_EQ(volume_of<T>({}, 3, 0, {1, 1}, 0.5).volume, std::vector<T>(2, T(0.5)));
}

TEST(VolumeErrors, NameTheFunctionAndTheArgument) {
    float x = 1;
    mover_volume_desc desc = {MOVER_FLOAT32, 1, 9, 1, 0};
    EXPECT_FAILS(mover_volume_forward(&desc, &x, &x, nullptr), MOVER_ERROR_ARGUMENT,
                 "mover_volume_forward: k must be between 1 and 8, got 9");
    desc = {MOVER_FLOAT32, 1, 1, 1, -0.5};
    EXPECT_FAILS(mover_volume_backward(&desc, &x, &x, &x, nullptr), MOVER_ERROR_ARGUMENT,
                 "eps must be >= 0 and finite, got -0.5");
    desc.eps = NAN;
    EXPECT_FAILS(mover_volume_forward(&desc, &x, &x, nullptr), MOVER_ERROR_ARGUMENT, "eps");
    desc.eps = 0;
    EXPECT_FAILS(mover_volume_forward(&desc, &x, nullptr, nullptr), MOVER_ERROR_ARGUMENT, "volume must not be NULL");
    desc.d = -1;
    EXPECT_FAILS(mover_volume_forward(&desc, &x, &x, nullptr), MOVER_ERROR_ARGUMENT, "d must be >= 0, got -1");
    desc.d = 1;
    mover_exec exec = {};
    exec.backend = MOVER_CUDA;
    EXPECT_FAILS(mover_volume_forward(&desc, &x, &x, &exec), MOVER_ERROR_UNSUPPORTED, "CUDA");
    exec = {};
    exec.parallel_for = [](void *, int64_t, int64_t, int64_t, mover_body, void *) { return 3; };
    const auto v = random_rows<float>(40000, 2, 1);
    std::vector<float> volume(20000);
    desc = {MOVER_FLOAT32, 20000, 2, 2, 0};
    EXPECT_FAILS(mover_volume_forward(&desc, v.data(), volume.data(), &exec), MOVER_ERROR_HOST, "code 3");
}

} // namespace
